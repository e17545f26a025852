"""Cancelling and retrying."""

from __future__ import annotations

import pytest

from nbqueue.jobs import State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import (
    Capability,
    Store,
)
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    FakeWorker,
    bring,
    get,
    ids,
    need,
    new_job,
)

__all__ = ["Steering"]


class Steering:
    """Cancelling and retrying."""

    def test_cancel_pending(self, store: Store, clock: FakeClock) -> None:
        """A pending job is cancelled at once and never runs."""
        need(store, Capability.CANCEL)
        jobs = [new_job(clock, delay=d) for d in (None, 5.0, None)]
        store.insert(jobs)
        unknown = new_job(clock).job_id
        answers = store.cancel([jobs[0].job_id, jobs[1].job_id, unknown])
        assert [(a.job_id, a.done) for a in answers] == [
            (jobs[0].job_id, True),
            (jobs[1].job_id, True),
            (unknown, False),
        ]
        assert "no such job" in answers[2].reason
        clock.advance(10.0)
        assert ids(FakeWorker(store).take(9)) == [jobs[2].job_id]
        record = get(store, jobs[0])
        assert (record.state, record.cause, record.finished_at) == (
            State.CANCELLED,
            "cancelled",
            clock.time() - 10.0,
        )

    def test_cancel_running(self, store: Store, clock: FakeClock) -> None:
        """A running job is asked to stop, through its worker, and is cancelled when it has stopped."""
        need(store, Capability.CANCEL)
        job = new_job(clock, tries=3)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        called = worker.called
        for _ in range(2):
            (answer,) = store.cancel([job.job_id])
            assert answer.done
        assert worker.called > called
        record = get(store, job)
        assert (record.state, record.cancelling) == (State.RUNNING, True)
        assert list(worker.turn().cancels) == [claim.fence]
        worker.end(claim, Outcome.CANCELLED, error="JobStopped")
        assert get(store, job).state is State.CANCELLED
        assert list(worker.turn().cancels) == []
        assert worker.take() == []

    def test_cancelling_and_lost(self, store: Store, clock: FakeClock) -> None:
        """A job that was to stop and whose worker went away has stopped."""
        need(store, Capability.CANCEL)
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        worker.take_one()
        store.cancel([job.job_id])
        clock.advance(worker.info.lease + 1)
        other = FakeWorker(store, "other")
        assert other.take() == []
        assert get(store, job).state is State.CANCELLED

    @pytest.mark.parametrize("state", list(State), ids=str)
    def test_cancel_of_each_state(self, store: Store, clock: FakeClock, state: State) -> None:
        """What has ended cannot be cancelled, and the answer says how it ended."""
        need(store, Capability.CANCEL)
        job = bring(store, clock, state)
        (answer,) = store.cancel([job.job_id])
        assert answer.done == (not state.ended)
        assert bool(answer.reason) == state.ended
        after = {State.PENDING: State.CANCELLED}
        assert get(store, job).state is after.get(state, state)

    @pytest.mark.parametrize("state", list(State), ids=str)
    def test_retry_of_each_state(self, store: Store, clock: FakeClock, state: State) -> None:
        """What has ended runs again, with a fresh allowance; what runs or waits for a worker is left."""
        job = bring(store, clock, state)
        attempt = get(store, job).attempt
        answers = store.retry([job.job_id, job.job_id])
        assert [a.done for a in answers] == [state.ended, False]
        assert all(a.done or a.reason for a in answers)
        if not state.ended:
            assert get(store, job).state is state
            return
        assert get(store, job).state is State.PENDING
        worker = FakeWorker(store, tries=2)
        claim = worker.take_one()
        assert (claim.attempt, claim.max_attempts) == (attempt + 1, attempt + 2)
        worker.end(claim, result="7")
        record = get(store, job)
        assert (record.state, record.result, record.error) == (State.SUCCEEDED, "7", "")

    def test_retry_waiting(self, store: Store, clock: FakeClock) -> None:
        """A job that waits for its next attempt runs now, once, and its old time means nothing any more."""
        job = new_job(clock, tries=3, retry=RetryPolicy(backoff=(50.0,)))
        store.insert([job])
        worker = FakeWorker(store)
        worker.end(worker.take_one(), Outcome.FAILED, error="E")
        assert [a.done for a in store.retry([job.job_id])] == [True]
        (default,) = store.queues()
        assert (default.counts[State.PENDING], default.waiting) == (1, 0)
        claim = worker.take_one()
        assert (claim.job_id, claim.attempt) == (job.job_id, 2)
        worker.end(claim, Outcome.FAILED)
        (default,) = store.queues()
        assert (default.counts[State.PENDING], default.waiting) == (1, 1)
        clock.advance(50.0)
        assert ids(worker.take(5)) == [job.job_id]

    def test_retry_delayed(self, store: Store, clock: FakeClock) -> None:
        """A job that was dispatched for later runs now, once, and its old time means nothing any more."""
        need(store, Capability.EVERYWHERE)
        delayed = new_job(clock, delay=60.0)
        store.insert([delayed])
        worker = FakeWorker(store)
        assert worker.take() == []
        assert [a.done for a in store.retry([delayed.job_id])] == [True]
        (default,) = store.queues()
        assert (default.counts[State.PENDING], default.waiting) == (1, 0)
        worker.end(worker.take_one())
        clock.advance(60.0)
        assert worker.take(5) == []

    def test_retry_unknown(self, store: Store, clock: FakeClock) -> None:
        """A job that is not here is not retried, and the answer says so."""
        (answer,) = store.retry([new_job(clock).job_id])
        assert not answer.done
        assert "no such job" in answer.reason
