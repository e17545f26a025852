"""Who is told of what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nbqueue.jobs import State
from nbqueue.store import (
    Capability,
    Selection,
    Store,
    WorkerInfo,
)
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    ANY,
    FakeWorker,
    bring,
    get,
    ids,
    new_job,
)

__all__ = ["Watching"]


class Watching:
    """Who is told of what."""

    @pytest.mark.parametrize("state", list(State), ids=str)
    def test_watch(self, store: Store, clock: FakeClock, state: State) -> None:
        """A watcher is called once when the job has ended: at once if it has."""
        job = bring(store, clock, state)
        told: list[Any] = []
        stop = store.watch([job.job_id], told.append)
        assert [record.state for record in told] == ([state] if state.ended else [])
        if state is State.PENDING:
            worker = FakeWorker(store)
            worker.end(worker.take_one(), result="1")
            assert [(record.state, record.result) for record in told] == [(State.SUCCEEDED, "1")]
        store.retry([job.job_id])
        stop()
        stop()
        assert len(told) <= 1

    def test_unwatch(self, store: Store, clock: FakeClock) -> None:
        """A watcher that was taken back is not called; another one of the same job is."""
        jobs = [new_job(clock), new_job(clock)]
        store.insert(jobs)
        told: list[Any] = []
        kept: list[Any] = []
        stop = store.watch(ids(jobs), told.append)
        store.watch(ids(jobs), kept.append)
        stop()
        worker = FakeWorker(store)
        for claim in worker.take(2):
            worker.end(claim)
        assert told == []
        assert [record.job_id for record in kept] == ids(jobs)

    def test_callback_that_raises(self, store: Store, clock: FakeClock) -> None:
        """A watcher or a worker whose callback raises harms nobody else, nor the verb that led to it."""
        job, later = new_job(clock), new_job(clock)

        def bad(*_args: object) -> None:
            raise RuntimeError("Event loop is closed")

        told: list[Any] = []
        store.join(WorkerInfo(worker_id="bad", queues=("elsewhere",)), ANY, bad)
        store.turn("bad", [], 1)
        store.insert([job])
        store.watch([job.job_id], bad)
        store.watch([job.job_id], told.append)
        worker = FakeWorker(store)
        assert worker.end(worker.take_one()).done
        assert len(told) == 1
        store.insert([later])
        assert get(store, later).state is State.PENDING

    def test_listen(self, store: Store, clock: FakeClock) -> None:
        """Who listens is told of every change, of nothing else, and of none after having stopped."""
        told: list[None] = []
        stop = store.listen(lambda: told.append(None))
        worker = FakeWorker(store)
        changes: list[Callable[[], object]] = [
            lambda: store.insert([new_job(clock)]),
            lambda: worker.end(worker.take_one()),
            lambda: store.add_queue("other"),
            lambda: store.forget(Selection()),
        ]
        if Capability.PAUSE in store.capabilities:
            changes.append(lambda: store.pause("other", paused=True))
        changes.append(worker.leave)
        for change in changes:
            before = len(told)
            change()
            # The one who tells may be a moment behind the one who is answered; what is asked next comes after it.
            store.queues()
            assert len(told) > before
        before = len(told)
        store.queues()
        store.query("SELECT count(*) FROM jobs")
        store.queues()
        assert len(told) == before
        stop()
        store.insert([new_job(clock)])
        store.queues()
        assert len(told) == before

    def test_listener_raises(self, store: Store, clock: FakeClock) -> None:
        """One who raises keeps nobody else from being told."""
        told: list[None] = []

        def bad() -> None:
            raise RuntimeError

        store.listen(bad)
        store.listen(lambda: told.append(None))
        store.insert([new_job(clock)])
        store.queues()
        assert told

    def test_get(self, store: Store, clock: FakeClock) -> None:
        """Records come in the order asked for, without those that there are not."""
        jobs = [new_job(clock) for _ in range(3)]
        store.insert(jobs)
        asked = [jobs[2].job_id, new_job(clock).job_id, jobs[0].job_id]
        assert [record.job_id for record in store.get(asked)] == [jobs[2].job_id, jobs[0].job_id]
        assert store.get([]) == []
