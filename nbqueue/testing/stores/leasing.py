"""Workers that fall silent, come late, or go."""

from __future__ import annotations

from nbqueue.jobs import State
from nbqueue.lifecycle import CRASHES_MAX, Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import (
    Capability,
    Report,
    ReportKind,
    Store,
)
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    NO_WAIT,
    FakeWorker,
    events_of,
    get,
    ids,
    new_job,
)

__all__ = ["Leasing"]


class Leasing:
    """Workers that fall silent, come late, or go."""

    def test_zombie_is_refused(self, store: Store, clock: FakeClock) -> None:
        """A worker that comes back after its lease changes nothing: the second performer's result stands."""
        job = new_job(clock)
        store.insert([job])
        zombie, second = FakeWorker(store, "zombie"), FakeWorker(store, "second")
        old = zombie.take_one()
        clock.advance(zombie.info.lease + 0.1)
        new = second.take_one()
        assert new.job_id == old.job_id
        assert new.fence > old.fence
        assert new.attempt == 1
        turn = zombie.turn(Report(old, ReportKind.ENDED, Outcome.SUCCEEDED, result="zombie's"), slots=3)
        assert turn.expired
        assert turn.claims in ([], ())
        assert not turn.answers[0].done
        assert turn.answers[0].reason
        assert get(store, job).state is State.RUNNING
        assert second.end(new, result="second's").done
        late = FakeWorker(store, "late")
        assert not late.end(old, result="zombie's").done
        record = get(store, job)
        assert (record.state, record.result, record.worker, record.crashes) == (
            State.SUCCEEDED,
            "second's",
            "second",
            1,
        )
        if Capability.SQL in store.capabilities:
            assert events_of(store, job).count("stale") == 2

    def test_expired_joins_again(self, store: Store, clock: FakeClock) -> None:
        """A worker whose lease ran out joins again and works on."""
        worker = FakeWorker(store)
        clock.advance(100.0)
        FakeWorker(store, "other").turn()
        assert [info.worker_id for info in store.workers()] == ["other"]
        assert worker.called
        assert worker.turn(slots=1).expired
        worker.join()
        store.insert([new_job(clock)])
        assert len(worker.take()) == 1

    def test_turns_renew_the_lease(self, store: Store, clock: FakeClock) -> None:
        """A worker that takes its turns keeps its jobs for as long as it likes; its lease is its own."""
        store.insert([new_job(clock)])
        worker, other = FakeWorker(store, lease=10.0), FakeWorker(store, "other", lease=1_000.0)
        claim = worker.take_one()
        for _ in range(5):
            clock.advance(9.0)
            worker.turn()
            assert other.take() == []
        assert worker.end(claim).done

    def test_lease_goes_by_ticks(self, store: Store, clock: FakeClock) -> None:
        """A wall clock that steps does not end a lease."""
        store.insert([new_job(clock)])
        worker, other = FakeWorker(store), FakeWorker(store, "other")
        claim = worker.take_one()
        clock.set_back(-86_400.0)
        assert other.take() == []
        clock.set_back(2 * 86_400.0)
        assert other.take() == []
        assert worker.end(claim).done

    def test_lease_blames_what_had_begun(self, store: Store, clock: FakeClock) -> None:
        """When a worker falls silent, only as many jobs as it runs at once are blamed, not those claimed ahead."""
        jobs = [new_job(clock) for _ in range(6)]
        store.insert(jobs)
        worker, other = FakeWorker(store, concurrency=2), FakeWorker(store, "other")
        worker.turn(slots=6)
        clock.advance(worker.info.lease + 1)
        other.turn()
        assert [get(store, job).crashes for job in jobs] == [1, 1, 0, 0, 0, 0]
        assert [get(store, job).state for job in jobs] == [State.PENDING] * 6

    def test_third_crash_fails(self, store: Store, clock: FakeClock) -> None:
        """A job that takes its worker along three times is failed, with the cause named, and no try was counted."""
        job = new_job(clock)
        store.insert([job])
        other = FakeWorker(store, "other", lease=1e9)
        for n in range(CRASHES_MAX):
            worker = FakeWorker(store, f"w{n}")
            claim = worker.take_one()
            assert (claim.attempt, claim.max_attempts) == (1, 1)
            clock.advance(worker.info.lease + 1)
            other.turn()
            assert get(store, job).crashes == n + 1
        record = get(store, job)
        assert (record.state, record.cause, record.attempt) == (State.FAILED, "crashes", 1)
        assert "3 times" in store.explain(job.job_id)
        store.retry([job.job_id])
        assert get(store, job).crashes == 0

    def test_interrupted_is_not_failed(self, store: Store, clock: FakeClock) -> None:
        """A rescue costs no attempt and waits for no backoff."""
        job = new_job(clock, tries=1, retry=RetryPolicy(backoff=(1_000.0,)))
        store.insert([job])
        worker, other = FakeWorker(store), FakeWorker(store, "other", lease=1e9)
        worker.take_one()
        clock.advance(worker.info.lease + 1)
        other.turn()
        assert (get(store, job).state, get(store, job).attempt) == (State.PENDING, 0)
        assert other.end(other.take_one()).done

    def test_leave_gives_back(self, store: Store, clock: FakeClock) -> None:
        """A worker that leaves gives back what it has, and is blamed for nothing."""
        jobs = [new_job(clock) for _ in range(3)]
        store.insert(jobs)
        worker = FakeWorker(store)
        claims = worker.turn(slots=3).claims
        idle = FakeWorker(store, "idle")
        idle.turn(slots=2)
        worker.leave()
        worker.leave()
        assert ids(idle.handed) == ids(jobs[:2])
        assert [get(store, job).crashes for job in jobs] == [0, 0, 0]
        assert [info.worker_id for info in store.workers()] == ["idle"]
        assert not idle.end(claims[0]).done

    def test_released_is_first_again(self, store: Store, clock: FakeClock) -> None:
        """A job that is given back keeps its place in the queue."""
        jobs = [new_job(clock) for _ in range(3)]
        store.insert(jobs)
        worker = FakeWorker(store)
        worker.say(worker.take_one(), ReportKind.RELEASED)
        assert ids(worker.take(3)) == ids(jobs)

    def test_tries_promised_are_kept(self, store: Store, clock: FakeClock) -> None:
        """A worker of fewer tries does not cut short what an earlier one began."""
        job = new_job(clock, retry=NO_WAIT)
        store.insert([job])
        generous, strict = FakeWorker(store, "generous", tries=3), FakeWorker(store, "strict", tries=1)
        generous.end(generous.take_one(), Outcome.FAILED)
        claim = strict.take_one()
        assert (claim.attempt, claim.max_attempts) == (2, 3)
        strict.end(claim, Outcome.FAILED)
        strict.end(strict.take_one(), Outcome.FAILED)
        record = get(store, job)
        assert (record.state, record.attempt, record.max_attempts) == (State.FAILED, 3, 3)
