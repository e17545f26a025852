"""What every store has to do with a job that is handed in, and with what it declares."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nbqueue.errors import NotSupported
from nbqueue.jobs import State
from nbqueue.retry import RetryPolicy
from nbqueue.store import (
    Capability,
    Selection,
    Store,
)
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    FakeWorker,
    get,
    ids,
    need,
    new_job,
)

__all__ = ["Dispatching"]


class Dispatching:
    """What every store has to do with a job that is handed in, and with what it declares."""

    # -- capabilities

    @pytest.mark.parametrize("capability", list(Capability), ids=str)
    def test_capability(self, store: Store, clock: FakeClock, capability: Capability) -> None:
        """What is declared works; what is not declared is skipped here by its name."""
        need(store, capability)
        job, waits = new_job(clock), new_job(clock, delay=60.0)
        store.insert([job, waits])
        proofs: dict[Capability, Callable[[], object]] = {
            Capability.ALL_OR_NONE: lambda: store.insert([new_job(clock), new_job(clock)]),
            Capability.PRIORITY: lambda: store.insert([new_job(clock, priority=5)]),
            Capability.CANCEL: lambda: store.cancel([job.job_id]),
            Capability.PAUSE: lambda: store.pause("default", paused=True),
            Capability.SQL: lambda: store.query("SELECT 1 AS one"),
            Capability.DURABLE: lambda: get(store, job),
            Capability.EVERYWHERE: lambda: store.retry([waits.job_id])[0].done or pytest.fail("it waits on"),
        }
        assert set(proofs) == set(Capability), "a new capability needs its proof here"
        proofs[capability]()

    def test_missing_capability_says_so(self, store: Store) -> None:
        """A verb that a store does not have raises NotSupported."""
        verbs: dict[Capability, Callable[[], object]] = {
            Capability.CANCEL: lambda: store.cancel([]),
            Capability.PAUSE: lambda: store.pause("default", paused=True),
            Capability.SQL: lambda: store.query("SELECT 1"),
        }
        for capability, verb in verbs.items():
            if capability not in store.capabilities:
                with pytest.raises(NotSupported):
                    verb()

    # -- insert

    def test_inserted_is_pending(self, store: Store, clock: FakeClock) -> None:
        """A job comes back as it went in, and waits."""
        batch = new_job(clock).job_id
        job = new_job(
            clock, "import", queue="imports", priority=3, tries=4, timeout=60.0, origin="notebook:a.ipynb", code="c0de",
            payload='["ü"]', metadata='{"user": 7}', batch_id=batch, row="7", retry=RetryPolicy(backoff=(1.0, 5.0)),
        )  # fmt: skip
        assert list(store.insert([job])) == []
        record = get(store, job)
        assert (record.state, record.attempt, record.max_attempts, record.crashes) == (State.PENDING, 0, 4, 0)
        assert record.spec == job.spec
        assert (record.payload, record.metadata, record.batch_id, record.row) == (
            '["ü"]',
            '{"user": 7}',
            batch,
            "7",
        )
        assert record.dispatched_at == record.scheduled_at == clock.time()
        assert (record.started_at, record.finished_at, record.worker) == (None, None, "")
        assert (record.error, record.cause, record.result, record.cancelling) == ("", "", "", False)

    def test_insert_is_idempotent(self, store: Store, clock: FakeClock) -> None:
        """A dispatch that is sent again after a lost reply is the same job, wherever it stands by now."""
        jobs = [new_job(clock) for _ in range(3)]
        store.insert(jobs)
        store.insert(jobs[:1])
        worker = FakeWorker(store)
        claim = worker.take_one()
        store.insert(jobs)
        worker.end(claim)
        store.insert([*jobs, new_job(clock)])
        assert len(store.find(Selection())) == 4
        assert get(store, jobs[0]).state is State.SUCCEEDED
        assert len(worker.take(10)) == 3

    def test_nothing_is_inserted(self, store: Store) -> None:
        """No job is no error."""
        assert list(store.insert([])) == []
        assert store.find(Selection()) == []

    def test_a_past_time_is_now(self, store: Store, clock: FakeClock) -> None:
        """A job that was due before its dispatch waits for nothing."""
        job = new_job(clock, delay=-60.0)
        store.insert([job])
        assert get(store, job).scheduled_at == clock.time()
        assert ids(FakeWorker(store).take()) == [job.job_id]

    def test_reserved_for_a_worker(self, store: Store, clock: FakeClock) -> None:
        """A job inserted for a worker is its own at once, past everything that waits, and nobody else gets it."""
        first, mine = new_job(clock), new_job(clock)
        store.insert([first])
        runner, other = FakeWorker(store, "runner", queues=()), FakeWorker(store, "other")
        (claim,) = store.insert([mine], worker_id="runner")
        assert (claim.job_id, claim.attempt) == (mine.job_id, 1)
        assert ids(other.take(5)) == [first.job_id]
        assert get(store, mine).worker == "runner"
        assert runner.end(claim).done
        assert get(store, mine).state is State.SUCCEEDED

    def test_reserved_for_nobody(self, store: Store, clock: FakeClock) -> None:
        """A job for a worker that is not here is refused whole, and nothing of it stays."""
        job = new_job(clock)
        with pytest.raises(Exception, match="nobody"):
            store.insert([job], worker_id="nobody")
        assert store.get([job.job_id]) == []
        store.insert([job])
        assert ids(FakeWorker(store).take()) == [job.job_id]
