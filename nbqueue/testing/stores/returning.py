"""Workers that come back after a lost connection, and calls that are sent a second time."""

from __future__ import annotations

import pytest

from nbqueue.jobs import State
from nbqueue.lifecycle import Event, Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import OUTPUT, Capability, Handlers, LogChunk, Report, ReportKind, Selection, Store
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    NO_WAIT,
    FakeWorker,
    bring,
    events_of,
    get,
    ids,
    need,
    new_job,
)

__all__ = ["Returning"]

#: How a claim may be reported as over.
_ENDS = {
    "succeeded": (ReportKind.ENDED, Outcome.SUCCEEDED),
    "failed": (ReportKind.ENDED, Outcome.FAILED),
    "timed out": (ReportKind.ENDED, Outcome.TIMED_OUT),
    "crashed": (ReportKind.ENDED, Outcome.CRASHED),
    "cancelled": (ReportKind.ENDED, Outcome.CANCELLED),
    "released": (ReportKind.RELEASED, None),
    "refused": (ReportKind.REFUSED, None),
}


class Returning:
    """Workers that come back after a lost connection, and calls that are sent a second time."""

    # -- joining again

    def test_held_stays(self, store: Store, clock: FakeClock) -> None:
        """A worker that comes back keeps what it holds, and what it was never told of is given back, not begun."""
        jobs = [new_job(clock) for _ in range(4)]
        store.insert(jobs)
        worker = FakeWorker(store)
        first, second, *_ = worker.turn(slots=3).claims
        worker.join(held=[first.fence, second.fence])
        assert [get(store, job).state for job in jobs] == [State.RUNNING] * 2 + [State.PENDING] * 2
        assert [get(store, job).attempt for job in jobs] == [1, 1, 0, 0]
        assert [get(store, job).crashes for job in jobs] == [0] * 4
        assert worker.end(first).done
        assert worker.end(second).done
        assert ids(worker.turn(slots=9).claims) == ids(jobs[2:])

    def test_coming_back_closes_slots(self, store: Store, clock: FakeClock) -> None:
        """Slots that were open before are not filled behind its back: it is asked for a turn, and opens them again."""
        worker = FakeWorker(store)
        worker.turn(slots=2)
        called = worker.called
        worker.join()
        assert worker.called == called + 1
        store.insert([new_job(clock)])
        assert worker.handed == []
        assert len(worker.take()) == 1

    def test_what_comes_back_is_not_handed_to_who_gave_it(self, store: Store, clock: FakeClock) -> None:
        """Who had a slot open, and gives its job back as it closes them, is not handed it again behind its back."""
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        (claim,) = worker.turn(slots=2).claims
        assert worker.say(claim, ReportKind.RELEASED).done
        assert (worker.handed, get(store, job).state) == ([], State.PENDING)
        worker.turn(slots=2)
        worker.join()
        assert (worker.handed, get(store, job).state) == ([], State.PENDING)
        assert worker.take_one().job_id == job.job_id

    def test_coming_back_brings_handlers(self, store: Store, clock: FakeClock) -> None:
        """What it says when it joins again counts, and it is still one worker."""
        store.insert([new_job(clock, "old"), new_job(clock, "new")])
        worker = FakeWorker(store, handlers=Handlers(frozenset({"old"})))
        worker.join(Handlers(frozenset({"new"})))
        assert [claim.spec.command for claim in worker.take(9)] == ["new"]
        assert store.workers() == [worker.info]

    def test_coming_back_renews_the_lease(self, store: Store, clock: FakeClock) -> None:
        """A worker that joins again is here again for a full lease."""
        store.insert([new_job(clock)])
        worker, other = FakeWorker(store, lease=10.0), FakeWorker(store, "other", lease=1_000.0)
        claim = worker.take_one()
        clock.advance(9.0)
        worker.join(held=[claim.fence])
        clock.advance(9.0)
        assert other.take() == []
        assert worker.end(claim).done

    def test_lost_meanwhile(self, store: Store, clock: FakeClock) -> None:
        """What it holds and was given to others is to be stopped, until it has said that it is over."""
        job = new_job(clock)
        store.insert([job])
        worker, other = FakeWorker(store), FakeWorker(store, "other", lease=1_000.0)
        old = worker.take_one()
        clock.advance(worker.info.lease + 1)
        new = other.take_one()
        worker.join(held=[old.fence])
        for _ in range(2):
            turn = worker.turn(Report(old, ReportKind.NEWS))
            assert list(turn.cancels) == [old.fence]
            assert not turn.expired
        turn = worker.turn(Report(old, ReportKind.ENDED, Outcome.CANCELLED))
        assert not turn.answers[0].done
        assert list(turn.cancels) == []
        assert other.end(new).done
        assert get(store, job).state is State.SUCCEEDED

    def test_cancelled_meanwhile(self, store: Store, clock: FakeClock) -> None:
        """What was to stop before the connection broke is still to stop after it."""
        need(store, Capability.CANCEL)
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        store.cancel([job.job_id])
        worker.join(held=[claim.fence])
        assert list(worker.turn().cancels) == [claim.fence]

    # -- reports that come twice

    @pytest.mark.parametrize("end", _ENDS)
    @pytest.mark.parametrize("last", [False, True], ids=["more tries", "last try"])
    def test_report_twice(self, store: Store, clock: FakeClock, end: str, last: bool) -> None:  # noqa: FBT001
        """A report whose answer was lost is answered as done again, and nothing happens twice."""
        job = new_job(clock, tries=1 if last else 3, retry=RetryPolicy(backoff=(30.0,)))
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        kind, outcome = _ENDS[end]
        error = "" if outcome is Outcome.SUCCEEDED else "E: x"
        report = Report(claim, kind, outcome, clock.time(), clock.time() + 1, error=error)
        assert worker.turn(report).answers[0].done
        record = get(store, job)
        clock.advance(1.0)
        (answer,) = worker.turn(report).answers
        assert (answer.done, answer.reason) == (True, "")
        assert get(store, job) == record
        if Capability.SQL in store.capabilities:
            assert len(events_of(store, job)) == 3

    def test_report_twice_after_the_next_claim(self, store: Store, clock: FakeClock) -> None:
        """It is known as applied even where the job has gone on since."""
        job = new_job(clock, tries=3, retry=NO_WAIT)
        store.insert([job])
        worker = FakeWorker(store)
        reports = []
        for n in range(2):
            claim = worker.take_one()
            reports.append(
                Report(claim, ReportKind.ENDED, Outcome.FAILED, finished_at=clock.time(), error=f"E{n}")
            )
            worker.turn(reports[-1])
            clock.advance(1.0)
        claim = worker.take_one()
        assert [answer.done for answer in worker.turn(*reports).answers] == [True, True]
        assert (get(store, job).state, get(store, job).attempt) == (State.RUNNING, 3)
        assert worker.end(claim).done
        assert [answer.done for answer in worker.turn(*reports).answers] == [True, True]

    @pytest.mark.parametrize("end", _ENDS)
    def test_other_report_under_a_claim_that_is_over(self, store: Store, clock: FakeClock, end: str) -> None:
        """Only the very report is the same: another one under the claim is refused and recorded."""
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        kind, outcome = _ENDS[end]
        worker.turn(Report(claim, kind, outcome, finished_at=clock.time(), error="E: x" if outcome else ""))
        record = get(store, job)
        other = Outcome.FAILED if outcome is Outcome.SUCCEEDED else Outcome.SUCCEEDED
        late = Report(claim, ReportKind.ENDED, other, finished_at=clock.time(), result="7")
        assert not worker.turn(late).answers[0].done
        assert get(store, job) == record
        if Capability.SQL in store.capabilities:
            assert events_of(store, job)[-1] == Event.STALE.value

    def test_report_of_a_lost_claim_is_no_repetition(self, store: Store, clock: FakeClock) -> None:
        """What a death has ended is not what its worker reports, even where both lead to the same."""
        need(store, Capability.CANCEL)
        job = new_job(clock)
        store.insert([job])
        worker, other = FakeWorker(store), FakeWorker(store, "other", lease=1_000.0)
        claim = worker.take_one()
        store.cancel([job.job_id])
        clock.advance(worker.info.lease + 1)
        other.turn()
        assert get(store, job).state is State.CANCELLED
        assert not worker.end(claim, Outcome.CANCELLED, finished_at=clock.time()).done

    def test_log_lines_twice(self, store: Store, clock: FakeClock) -> None:
        """Lines that were on disk when the connection broke are not written again; new ones and true doubles are."""
        need(store, Capability.SQL)
        store.insert([new_job(clock)])
        worker = FakeWorker(store)
        claim = worker.take_one()
        at = clock.time()
        said = (
            LogChunk("stdout", "a\n", at),
            LogChunk("stdout", "a\n", at),
            LogChunk(OUTPUT, "{}", at),
            LogChunk("log", "caf\udce9", at),
        )
        worker.say(claim, ReportKind.NEWS, logs=said)
        worker.join(held=[claim.fence])
        more = (*said, LogChunk("stdout", "a\n", at), LogChunk("stdout", "b\n", at))
        worker.say(claim, ReportKind.NEWS, logs=more)
        worker.say(claim, ReportKind.NEWS, logs=(LogChunk("stdout", "b\n", at),))
        lines = store.query("SELECT text FROM logs ORDER BY seq")["text"]
        assert list(lines) == ["a\n", "a\n", "caf\\udce9", "a\n", "b\n", "b\n"]
        assert len(store.query("SELECT * FROM outputs")) == 1

    # -- other calls that come twice

    def test_reserved_twice(self, store: Store, clock: FakeClock) -> None:
        """A dispatch for one worker that is sent again gives the same claims, and what came back meanwhile."""
        jobs = [new_job(clock) for _ in range(3)]
        worker = FakeWorker(store, queues=())
        claims = store.insert(jobs, worker_id="w1")
        assert store.insert(jobs, worker_id="w1") == claims
        worker.end(claims[0])
        worker.join(held=[claims[1].fence])
        again = store.insert(jobs, worker_id="w1")
        assert ids(again) == ids(jobs[1:])
        assert again[0] == claims[1]
        assert (again[1].attempt, again[1].fence > claims[2].fence) == (1, True)
        assert [worker.end(claim).done for claim in again] == [True, True]

    def test_reserved_and_named_twice(self, store: Store, clock: FakeClock) -> None:
        """A call that names a job twice hands it out once, and once it is given back it is claimed like any other."""
        worker = FakeWorker(store)
        new, known = new_job(clock), new_job(clock)
        store.insert([known])
        claims = store.insert([new, known, new, known], "w1")
        assert sorted(ids(claims)) == sorted(ids([new, known]))
        for claim in claims:
            worker.say(claim, ReportKind.RELEASED)
        assert ids(worker.take(5)) == ids([known, new])

    def test_reserved_twice_of_another(self, store: Store, clock: FakeClock) -> None:
        """What another worker has, or nobody may run now, is not handed out again."""
        taken, delayed, free = new_job(clock), new_job(clock, delay=50.0), new_job(clock)
        store.insert([taken, delayed])
        other = FakeWorker(store, "other")
        (claim,) = other.take(5)
        FakeWorker(store, "w1", queues=(), lease=1_000.0)
        assert ids(store.insert([taken, delayed, free], worker_id="w1")) == [free.job_id]
        assert other.end(claim).done
        clock.advance(50.0)
        assert ids(FakeWorker(store, "late").take(5)) == [delayed.job_id]

    def test_reserved_twice_and_waiting(self, store: Store, clock: FakeClock) -> None:
        """What was handed out again past its queue waits once for its next attempt, and runs once."""
        worker = FakeWorker(store)
        job = new_job(clock, tries=2, retry=RetryPolicy(backoff=(10.0,)))
        store.insert([job], "w1")
        worker.join()
        (claim,) = store.insert([job], "w1")
        worker.end(claim, Outcome.FAILED, error="E")
        assert worker.take() == []
        store.insert([new_job(clock, priority=-1)])
        assert store.queues()[0].waiting == 1
        clock.advance(11.0)
        assert len(worker.take(3)) == 2

    def test_cancel_twice(self, store: Store, clock: FakeClock) -> None:
        """Sent again, a cancellation that was heard is done; what has ended otherwise is not."""
        need(store, Capability.CANCEL)
        cancelled, succeeded = bring(store, clock, State.CANCELLED), bring(store, clock, State.SUCCEEDED)
        waiting, unknown = bring(store, clock, State.PENDING), new_job(clock)
        some = ids([cancelled, succeeded, waiting, unknown])
        assert [a.done for a in store.cancel(some, again=True)] == [True, False, True, False]
        assert get(store, waiting).state is State.CANCELLED

    @pytest.mark.parametrize("state", list(State), ids=str)
    def test_retry_twice(self, store: Store, clock: FakeClock, state: State) -> None:
        """Sent again with what the caller saw, a retry that was heard is done, and does nothing the second time."""
        job = bring(store, clock, state)
        fences = [get(store, job).fence]
        (first,) = store.retry([job.job_id], fences)
        assert first.done == (state is not State.RUNNING)
        (again,) = store.retry([job.job_id], fences)
        assert again.done == first.done
        if state is State.RUNNING:
            return
        worker = FakeWorker(store)
        claim = worker.take_one()
        (running,) = store.retry([job.job_id], fences)
        assert running.done
        worker.end(claim)
        (ended,) = store.retry([job.job_id], fences)
        assert ended.done
        assert get(store, job).state is State.SUCCEEDED
        (seen,) = store.retry([job.job_id], [claim.fence])
        assert seen.done
        assert get(store, job).state is State.PENDING

    def test_retry_of_what_waits_twice(self, store: Store, clock: FakeClock) -> None:
        """A job that waits for its time runs now, and is left alone when it waits again."""
        job = new_job(clock, tries=3, retry=RetryPolicy(backoff=(50.0,)))
        store.insert([job])
        worker = FakeWorker(store)
        worker.end(worker.take_one(), Outcome.FAILED)
        fences = [get(store, job).fence]
        assert store.retry([job.job_id], fences)[0].done
        worker.end(worker.take_one(), Outcome.FAILED)
        assert store.retry([job.job_id], fences)[0].done
        assert worker.take() == []

    def test_leave_and_forget_twice(self, store: Store, clock: FakeClock) -> None:
        """Leaving again is nothing, and forgetting again finds nothing."""
        job = bring(store, clock, State.SUCCEEDED)
        some = Selection(ids=(job.job_id,))
        assert [store.forget(some), store.forget(some)] == [1, 0]
        worker = FakeWorker(store)
        worker.leave()
        worker.leave()
        assert store.workers() == []
