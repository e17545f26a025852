"""The slot file: which job each slot of a worker has begun, kept where ``kill -9`` does not reach; knows no store.

A shared memory map needs no fsync to outlive its process, so a mark costs well under a microsecond. It dies with the
machine, and then nobody is blamed.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SlotFile", "begun_claims"]

_FENCE = struct.Struct("<q")


class SlotFile:
    """One number a slot: the fence of the claim that it has begun, 0 for none.

    Parameters
    ----------
    path : Path
        Its file, made anew.
    slots : int
        How many.
    """

    def __init__(self, path: Path, slots: int):
        path.parent.mkdir(exist_ok=True)
        self._path = path
        with path.open("wb+") as file:
            file.truncate(slots * _FENCE.size)
            self._map = mmap.mmap(file.fileno(), slots * _FENCE.size)
        self._slots = slots

    def begin(self, slot: int, fence: int) -> None:
        """Note that a slot has begun this claim."""
        self._note(slot, fence)

    def end(self, slot: int) -> None:
        """Note that a slot is idle."""
        self._note(slot, 0)

    def _note(self, slot: int, fence: int) -> None:
        # Whoever cannot be stopped may still come here when the file is gone; nobody is left to blame then.
        if slot < self._slots and not self._map.closed:
            with contextlib.suppress(ValueError):
                _FENCE.pack_into(self._map, slot * _FENCE.size, fence)

    def close(self) -> None:
        """Remove the file: this worker ended in order."""
        self._map.close()
        self._path.unlink(missing_ok=True)


def begun_claims(folder: Path) -> Iterator[int]:
    """Give the fences of every claim that the slot files of a folder show as begun."""
    for path in sorted(folder.glob("*.slots")):
        data = path.read_bytes()
        for (fence,) in _FENCE.iter_unpack(data[: len(data) // _FENCE.size * _FENCE.size]):
            if fence:
                yield fence
