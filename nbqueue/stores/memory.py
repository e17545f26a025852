"""The memory store: an index and nothing else, for tests and for work that may be lost with the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from nbqueue.errors import QueueUnavailable
from nbqueue.stores.engine import IndexStore
from nbqueue.stores.index import Index
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.live import Numbers
from nbqueue.stores.pulse import Pulse
from nbqueue.stores.writes import Writes

__all__ = ["MemoryStore"]

T = TypeVar("T")

#: The longest time between two turns of a worker that has nothing to do.
TURN_SECONDS = 5.0


class MemoryStore(IndexStore):
    """Jobs in this process's memory; verbs run in the caller's thread, one at a time.

    The history goes into an in-memory DuckDB when somebody first asks for it, so the views are those of a file. All
    jobs stay in memory with all their history until they are forgotten, by hand or by ``retain``.

    Parameters
    ----------
    clock : Callable[[], float]
        Seconds since the epoch.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back.

    Example
    -------
    >>> store = MemoryStore()
    >>> [queue.name for queue in store.queues()]
    ['default']
    >>> store.close()
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ):
        # Its workers are in this process, and take a turn every few seconds: when none does, none can.
        pulse = Pulse(TURN_SECONDS) if ticks is time.monotonic else None
        super().__init__(":memory:", clock=clock, ticks=ticks, pulse=pulse)
        self._lock = threading.RLock()
        self._closed = False
        self._index = Index(None, Numbers(), self._chance)
        self._unwritten = Writes()
        self._mirror: Ledger | None = None

    @property
    def _ledger(self) -> Ledger:  # type: ignore[override]
        if self._mirror is None:
            import duckdb

            self._mirror = Ledger(duckdb.connect(config={"enable_external_access": "false"}), self.name)
            self._mirror.prepare()
        return self._mirror

    def _run(self, verb: Callable[[Index], T]) -> T:
        with self._lock:
            if self._closed:
                msg = "this memory store is closed; open another with nbqueue.connect(':memory:')"
                raise QueueUnavailable(msg)
            index = self._index
            self._listen_again(index)
            result = verb(index)
            if self._is_retiring:
                self._retire(index)
            handed = self._fill_open_slots(index)
            writes = Writes.of(index)
            self._changed |= bool(writes)
            self._unwritten.extend(writes)
            index.settle()
            calls = index.take_calls()
        self._hand_out(handed, calls)
        self._tell_listeners()
        return result

    def _write_out(self, index: Index) -> None:
        self._unwritten.extend(Writes.of(index))
        writes, self._unwritten = self._unwritten, Writes()
        self._changed |= bool(writes)
        self._ledger.commit(writes)

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            if self._mirror is not None:
                self._mirror.close()
