"""The suite that every store has to pass; it needs pytest.

It is one suite, cut by themes: whoever writes a store subclasses ``StoreConformance``, gives it a ``store``
fixture, and reads what is missing as skips with a capability's name.

Example
-------
::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self, clock):
            store = MyStore(clock=clock.time, ticks=clock.ticks)
            yield store
            store.close()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nbqueue.errors import QueueUnavailable
from nbqueue.store import Selection, Store
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.stores.batches import Batches
from nbqueue.testing.stores.claiming import Claiming
from nbqueue.testing.stores.dispatching import Dispatching
from nbqueue.testing.stores.leasing import Leasing
from nbqueue.testing.stores.looking import Looking
from nbqueue.testing.stores.reporting import Reporting
from nbqueue.testing.stores.returning import Returning
from nbqueue.testing.stores.steering import Steering
from nbqueue.testing.stores.watching import Watching
from nbqueue.testing.workers import FakeWorker, check_books, new_batch, new_job

__all__ = ["StoreConformance"]


class StoreConformance(
    Dispatching, Claiming, Reporting, Leasing, Returning, Steering, Watching, Looking, Batches
):
    """What every store has to do; subclass it in a test module and give it a ``store`` fixture.

    The fixture gives a new, empty, open store that reads ``clock`` (``clock.time`` and ``clock.ticks``), and closes it.
    """

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Time stands still unless a test moves it."""
        return FakeClock()

    @pytest.fixture
    def store(self, clock: FakeClock) -> Any:
        """The store that is tested."""
        raise NotImplementedError("a subclass of StoreConformance gives the store fixture")

    @pytest.fixture(autouse=True)
    def books_are_right(self, store: Store) -> Any:
        """After every test, whatever it did, the counts are those of a recount."""
        yield
        try:
            store.queues()
        except QueueUnavailable:
            return
        check_books(store)

    # -- code and closing

    def test_code(self, store: Store) -> None:
        """Code by value is kept once under its hash."""
        assert store.get_code("c0de") is None
        store.put_code("c0de", b"\x00\xff")
        store.put_code("c0de", b"other")
        assert store.get_code("c0de") == b"\x00\xff"

    def test_closed(self, store: Store, clock: FakeClock) -> None:
        """A closed store raises QueueUnavailable whatever it is asked; closing again, or unwatching, is nothing."""
        job = new_job(clock)
        store.insert([job])
        stop = store.watch([job.job_id], lambda _record: None)
        store.close()
        store.close()
        stop()
        some = [job.job_id]
        verbs: tuple[Callable[[], object], ...] = (
            lambda: store.insert([new_job(clock)]),
            lambda: store.put_batch(*new_batch(clock, {"1": "[1]"})),
            lambda: store.get_batch(job.job_id),
            lambda: store.count_batch(job.job_id),
            lambda: store.put_code("c", b""),
            lambda: store.get_code("c"),
            lambda: FakeWorker(store),
            lambda: store.turn("w", [], 1),
            lambda: store.leave("w"),
            lambda: store.get(some),
            lambda: store.watch(some, lambda _record: None),
            lambda: store.cancel(some),
            lambda: store.retry(some),
            lambda: store.forget(Selection()),
            lambda: store.find(Selection()),
            lambda: store.explain(job.job_id),
            lambda: store.add_queue("q"),
            lambda: store.pause("default", paused=True),
            store.queues,
            store.workers,
            lambda: store.query("SELECT 1"),
        )
        for verb in verbs:
            with pytest.raises(QueueUnavailable, match="closed"):
                verb()
