"""A pipe of numbers that says which claims a child may begin: whoever takes one out has that claim; knows no jobs.

The child takes one before it begins the next claim of a group, and the parent takes back those that it gives to
others. The system hands each to one of them alone, also where C code in the child hears of nothing.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys

__all__ = ["AT_ONCE", "Tickets", "counted"]

_FENCE = struct.Struct("<q")
#: So many are written as a whole, or not at all.
AT_ONCE = 4096 // _FENCE.size if sys.platform == "linux" else 512 // _FENCE.size


class Tickets:
    """One end of it, or both.

    Parameters
    ----------
    reading, writing : int
        Descriptors, which this closes; -1 for none.
    """

    __slots__ = ("_place", "_writing", "reading")

    def __init__(self, reading: int, writing: int = -1):
        self.reading = reading
        self._writing = writing
        self._place = os.fstat(reading)[:3]

    @classmethod
    def made(cls) -> Tickets:
        """Make one with both ends."""
        ends = os.pipe()
        for end in ends:
            os.set_blocking(end, False)
        return cls(*ends)

    @property
    def whole(self) -> bool:
        """Whether its descriptor is its own still: a job may have closed it."""
        try:
            return os.fstat(self.reading)[:3] == self._place
        except OSError:
            return False

    def put(self, fences: list[int]) -> bool:
        """Let these be begun; at most ``AT_ONCE``. False: there is no room, and none of them may be."""
        try:
            os.write(self._writing, b"".join(map(_FENCE.pack, fences)))
        except BlockingIOError:
            return False
        return True

    def take(self) -> int | None:
        """Take the next one; None if there is none."""
        try:
            data = os.read(self.reading, _FENCE.size)
        except BlockingIOError:
            return None
        fence: int | None = _FENCE.unpack(data)[0] if len(data) == _FENCE.size else None
        return fence

    def take_all(self) -> set[int]:
        """Take all that are left."""
        found: set[int] = set()
        if self.reading < 0:
            return found
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.reading, AT_ONCE * _FENCE.size):
                found.update(fence for (fence,) in _FENCE.iter_unpack(data))
        return found

    def left(self) -> int:
        """Count those that are left."""
        return counted(self.reading) // _FENCE.size if self.reading >= 0 else 0

    def close(self) -> None:
        """Let go of it."""
        ends = self.reading, self._writing
        self.reading = self._writing = -1
        for end in ends:
            if end >= 0:
                os.close(end)


def counted(descriptor: int) -> int:
    """Give how many bytes wait in a pipe."""
    import fcntl
    import termios

    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
