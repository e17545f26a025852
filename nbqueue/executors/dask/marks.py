"""Which job a process of the cluster has begun, noted where its death does not reach, for whoever is on that machine.

What a lane is given next has begun for all that this end knows, a moment before it really has. When its process dies in
that moment the mark tells, so that nobody loses an attempt that was never made.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from nbqueue.executor import SPARE_SLOTS
from nbqueue.slots import SlotFile, begun_claims, is_alive

__all__ = ["Marks", "Place", "forget", "has_run"]


#: Marks of a process that is gone are of no use after so long, seconds.
_OLD = 86_400.0


class Place(NamedTuple):
    """Where a process notes what it has begun."""

    host: str = ""
    path: str = ""

    @property
    def is_here(self) -> bool:
        """Whether that is this machine."""
        return self.host == platform.node() and bool(self.path)


class Marks:
    """What the lanes of one process have begun.

    Parameters
    ----------
    name : str
        Of the process, unique for ever.
    lanes : int
        How many threads it has.
    """

    def __init__(self, name: str, lanes: int):
        self._most = lanes + SPARE_SLOTS
        user = os.getuid() if hasattr(os, "getuid") else 0
        path = Path(tempfile.gettempdir(), f"nbqueue-dask-{user}", f"{name}.slots")
        self._file: SlotFile | None = None
        with contextlib.suppress(OSError):
            self._file = SlotFile(path, self._most)
            _sweep(path.parent)
        self._path = str(path)

    def place_of(self, slot: int) -> Place:
        """Say where the marks of a slot are found; nowhere, if there are too many."""
        known = self._file is not None and slot < self._most
        return Place(platform.node(), self._path) if known else Place()

    def begin(self, slot: int, fence: int) -> None:
        """Note that a slot begins a job."""
        if self._file is not None:
            self._file.begin(slot, fence)

    def end(self, slot: int, fence: int) -> None:
        """Note that it has ended; its report may be lost yet."""
        if self._file is not None:
            self._file.begin(slot, -fence)

    def close(self) -> None:
        """Remove them: this process ended in order."""
        if self._file is not None:
            self._file.close()


def _sweep(folder: Path) -> None:
    """Remove what machines that were switched off, and clusters that were killed as a whole, have left."""
    for path in folder.glob("*.slots"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _OLD and is_alive(path) is False:
                path.unlink()


def has_run(path: str, fence: int) -> bool | None:
    """Whether a process has begun a job, as its marks say on this machine; None where there are none."""
    if not Path(path).is_file():
        return None
    return not {fence, -fence}.isdisjoint(begun_claims(Path(path)))


def forget(path: str) -> None:
    """Remove the marks of a process that has died."""
    Path(path).unlink(missing_ok=True)
