"""Numbers in memory that a process and its child share: what it has begun, and how much of its output was read.

They cost no call of the system, and can be read after the child has died, however it has. What was sent to a child and
does not stand there as begun never was.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable

__all__ = ["STREAMS", "Board"]

#: Of what is read it is counted how much.
STREAMS = 2
_FENCE, _STARTED, _COUNTS = 0, 1, 2
_WORD = 8
_SIZE = _WORD * (_COUNTS + 2 * STREAMS)
#: A reader that is held up between reading and counting is waited for so long, seconds.
_PATIENCE = 1.0


class Board:
    """The numbers; each is written by one side alone.

    Parameters
    ----------
    descriptor : int
        Of the file that holds them, as ``made`` gives it; closed when this is made.
    """

    __slots__ = ("_map", "_words")

    def __init__(self, descriptor: int):
        try:
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        # Words of the machine's own are written at once, never by halves.
        self._words = memoryview(self._map).cast("q")

    @staticmethod
    def made() -> int:
        """Make a file that holds them and has no name; gives its descriptor."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("nbqueue-board", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile(buffering=0) as file:
                descriptor = os.dup(file.fileno())
        # Written, not merely made so long: a word in a hole of a file may end the process on a full disk.
        os.write(descriptor, bytes(_SIZE))
        return descriptor

    # -- what the child has begun

    def begin(self, fence: int, started: float) -> None:
        """Note that this claim is begun, and when, by a clock that all processes share."""
        self._words[_STARTED] = int(started * 1e9)
        self._words[_FENCE] = fence

    def end(self) -> None:
        """Note that nothing is under way."""
        self._words[_FENCE] = 0

    @property
    def fence(self) -> int:
        """The claim that is under way, 0 for none."""
        return self._words[_FENCE]

    @property
    def started(self) -> float:
        """When it was begun, or else the one before."""
        return self._words[_STARTED] / 1e9

    def started_of(self, fence: int) -> float | None:
        """When this claim was begun; None if it is not under way."""
        # The time is there before the number, and another's may be when the number has gone.
        started = self.started if self.fence == fence else None
        return started if self.fence == fence else None

    # -- how much the parent has read of what the child wrote

    def read(self, stream: int, descriptor: int, most: int) -> bytes:
        """Read what a stream's pipe has, and count it before the other side can count anew."""
        at, words = _COUNTS + 2 * stream, self._words
        words[at] += 1
        try:
            data = os.read(descriptor, most)
            words[at + 1] += len(data)
        finally:
            words[at] += 1
        return data

    def written(self, stream: int, unread: Callable[[], int]) -> int | None:
        """Say how much was written to a stream in all; None if that cannot be told. ``unread``: what its pipe has."""
        at, words, until = _COUNTS + 2 * stream, self._words, 0.0
        while True:
            # Odd while the other side reads: what it has taken out may not be counted yet.
            before = words[at]
            if not before & 1:
                total = words[at + 1] + unread()
                if words[at] == before:
                    return total
            now = time.monotonic()
            until = until or now + _PATIENCE
            if now > until:
                return None
            time.sleep(50e-6)

    def close(self) -> None:
        """Let go of this end."""
        self._words.release()
        self._map.close()
