"""A number in memory that a process and its child share: the claim that the child has begun; knows no jobs.

It says what a message cannot: it costs no call of the system, and it can be read after the child has died, however it
has. What was sent to a child and does not stand there was never begun.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

__all__ = ["Mark"]

_FENCE = struct.Struct("<q")


class Mark:
    """The number; 0 before the first claim.

    Parameters
    ----------
    descriptor : int
        Of the file that holds it, as ``made`` gives it; closed when this is made.
    """

    __slots__ = ("_map",)

    def __init__(self, descriptor: int):
        try:
            self._map = mmap.mmap(descriptor, _FENCE.size)
        finally:
            os.close(descriptor)

    @staticmethod
    def made() -> int:
        """Make a file that holds one and has no name; gives its descriptor."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("nbqueue-mark", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile(buffering=0) as file:
                descriptor = os.dup(file.fileno())
        # Written, not merely made so long: a mark in a hole of a file may end the process on a full disk.
        os.write(descriptor, bytes(_FENCE.size))
        return descriptor

    def set(self, fence: int) -> None:
        """Note that this claim is begun."""
        _FENCE.pack_into(self._map, 0, fence)

    def get(self) -> int:
        """Give the claim that was begun last."""
        fence: int = _FENCE.unpack_from(self._map)[0]
        return fence

    def close(self) -> None:
        """Let go of this end."""
        self._map.close()
