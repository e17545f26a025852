"""The ids that this process makes, each greater than all before; knows no job."""

from __future__ import annotations

import os
import threading
import uuid

from nbqueue.ids import JobIds, new_job_ids, new_packed_ids

__all__ = ["new_ids", "packed_ids"]

#: Bytes of randomness that are fetched at once, for this many ids of ten.
_AHEAD = 10 * 256


class _Ids:
    """Makes them."""

    def __init__(self) -> None:
        self._last: uuid.UUID | None = None
        self.forget()

    def forget(self) -> None:
        """Let go of what a fork has as well, and of a lock that one of its other threads may have held."""
        self._lock = threading.Lock()
        #: Randomness that was fetched ahead: asking for it gives the GIL up, which takes 32 threads longer than an id.
        self._ahead, self._at = b"", 0

    def make(self, count: int, now: float) -> list[uuid.UUID]:
        """Make so many, for work that is handed in now."""
        size = 10 * count
        with self._lock:
            if size > _AHEAD:
                randomness = os.urandom(size)
            else:
                if self._at + size > len(self._ahead):
                    self._ahead, self._at = os.urandom(_AHEAD), 0
                at = self._at
                self._at = end = at + size
                randomness = self._ahead[at:end]
            made = new_job_ids(count, now=now, randomness=randomness, after=self._last)
            self._last = made[-1] if made else self._last
        return made

    def make_packed(self, count: int, now: float) -> JobIds:
        """Make so many, 16 bytes each."""
        randomness = os.urandom(10 + 8 * count)
        with self._lock:
            made = new_packed_ids(count, now=now, randomness=randomness, after=self._last)
            self._last = made[-1] if made else self._last
        return made


_ids = _Ids()
new_ids, packed_ids = _ids.make, _ids.make_packed
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.forget)
