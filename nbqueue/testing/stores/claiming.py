"""Which worker gets which job, and when."""

from __future__ import annotations

import pytest

from nbqueue.errors import QueueUnavailable
from nbqueue.jobs import State
from nbqueue.lifecycle import Outcome
from nbqueue.store import (
    Capability,
    Handlers,
    Report,
    ReportKind,
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

__all__ = ["Claiming"]


class Claiming:
    """Which worker gets which job, and when."""

    def test_first_come_first_served(self, store: Store, clock: FakeClock) -> None:
        """Jobs of one priority run in the order of their dispatch, whatever their names."""
        jobs = [new_job(clock, command) for command in "abcabc"]
        store.insert(jobs[:2])
        store.insert(jobs[2:])
        worker = FakeWorker(store)
        assert [ids(worker.take(n)) for n in (1, 4, 9)] == [ids(jobs[:1]), ids(jobs[1:4]), ids(jobs[4:])]

    def test_priority(self, store: Store, clock: FakeClock) -> None:
        """A higher priority goes first within its queue, then first come first served."""
        need(store, Capability.PRIORITY)
        jobs = [new_job(clock, priority=p) for p in (0, -5, 7, 0, 7, -100, 100)]
        store.insert(jobs)
        assert ids(FakeWorker(store).take(7)) == ids(jobs[i] for i in (6, 2, 4, 0, 3, 1, 5))

    def test_queues_in_the_order_given(self, store: Store, clock: FakeClock) -> None:
        """The first queue is served first, whatever the priorities in the others."""
        low, high = new_job(clock, queue="second", priority=100), new_job(clock, queue="first", priority=-100)
        elsewhere = new_job(clock, queue="third")
        store.insert([low, high, elsewhere])
        worker = FakeWorker(store, queues=("first", "second"))
        assert ids(worker.take(9)) == [high.job_id, low.job_id]
        assert ids(FakeWorker(store, "all").take(9)) == [elsewhere.job_id]

    def test_every_queue_is_one(self, store: Store, clock: FakeClock) -> None:
        """A worker on every queue goes by priority and order over all of them, those made later included."""
        need(store, Capability.PRIORITY)
        worker = FakeWorker(store)
        jobs = [new_job(clock, queue=q, priority=p) for q, p in (("b", 0), ("a", 0), ("b", 5), ("c", 0))]
        store.insert(jobs)
        assert ids(worker.take(9)) == ids(jobs[i] for i in (2, 0, 1, 3))

    def test_delay(self, store: Store, clock: FakeClock) -> None:
        """A delayed job runs from its time on, in the order of dispatch among those that are due."""
        late, soon, now = (new_job(clock, delay=d) for d in (60.0, 10.0, None))
        store.insert([late, soon, now])
        worker = FakeWorker(store)
        turn = worker.turn(slots=9)
        assert ids(turn.claims) == [now.job_id]
        assert turn.next_due == pytest.approx(10.0)
        (default,) = store.queues()
        assert (default.counts[State.PENDING], default.waiting) == (2, 2)
        clock.advance(9.0)
        worker.turn(slots=0)
        assert worker.take(9) == []
        clock.advance(1.0)
        assert ids(worker.take(9)) == [soon.job_id]
        assert worker.turn().next_due == pytest.approx(50.0)
        clock.advance(50.0)
        assert ids(worker.take(9)) == [late.job_id]
        assert worker.turn().next_due is None

    def test_clock_steps_back(self, store: Store, clock: FakeClock) -> None:
        """A job that was due, and is not any more since the clock was set right, runs when it is due again."""
        job = new_job(clock, delay=10.0)
        store.insert([job])
        worker = FakeWorker(store)
        clock.advance(20.0)
        worker.turn(slots=0)  # looks at the time, takes nothing
        assert worker.turn(slots=0).claims == []
        other = FakeWorker(store, "other", handlers=Handlers())
        other.turn(slots=1)  # looks into the lanes, may take nothing
        clock.set_back(15.0)
        assert worker.take(1) == []
        clock.advance(6.0)
        assert ids(worker.take(1)) == [job.job_id]

    def test_handlers_filter(self, store: Store, clock: FakeClock) -> None:
        """What no worker here can run stays in the queue, and the worker is told of it."""
        jobs = [
            new_job(clock, "known"),
            new_job(clock, "unknown"),
            new_job(clock, "mine", origin="notebook:a.ipynb"),
            new_job(clock, "mine", origin="notebook:b.ipynb"),
            new_job(clock, "coded", origin="notebook:b.ipynb", code="c0de"),
        ]
        store.insert(jobs)
        handlers = Handlers(frozenset({"known", "mine"}), frozenset({("mine", "notebook:a.ipynb")}))
        worker = FakeWorker(store, handlers=handlers)
        turn = worker.turn(slots=9)
        assert ids(turn.claims) == ids([jobs[0], jobs[2]])
        assert {(s.command, s.origin) for s in turn.unknown} == {
            ("unknown", ""),
            ("mine", "notebook:b.ipynb"),
            ("coded", "notebook:b.ipynb"),
        }
        assert get(store, jobs[1]).state is State.PENDING
        worker.turn(slots=0)
        more = Handlers(frozenset({"known", "unknown"}), code=frozenset({"c0de"}))
        turn = worker.turn(slots=9, handlers=more)
        assert ids(turn.claims) == ids([jobs[1], jobs[4]])

    def test_slots_are_a_total(self, store: Store, clock: FakeClock) -> None:
        """A worker never holds more than it asked for, however often it asks."""
        store.insert([new_job(clock) for _ in range(9)])
        worker = FakeWorker(store)
        first = worker.turn(slots=3).claims
        assert len(first) == 3
        assert worker.turn(slots=3).claims == []
        done = Report(first[0], ReportKind.ENDED, Outcome.SUCCEEDED)
        assert len(worker.turn(done, slots=3).claims) == 1
        assert len(worker.turn(slots=5).claims) == 2
        assert worker.turn(slots=0).claims == []
        assert worker.handed == []

    def test_handed_through_wake(self, store: Store, clock: FakeClock) -> None:
        """An idle worker has the job when its dispatch returns, as far as it has slots open."""
        worker = FakeWorker(store)
        worker.turn(slots=2)
        jobs = [new_job(clock) for _ in range(3)]
        for job in jobs:
            store.insert([job])
        assert ids(worker.handed) == ids(jobs[:2])
        assert get(store, jobs[0]).state is State.RUNNING
        assert get(store, jobs[2]).state is State.PENDING

    def test_no_slot_no_wake(self, store: Store, clock: FakeClock) -> None:
        """A worker that closed its slots is handed nothing."""
        worker = FakeWorker(store)
        worker.turn(slots=2)
        worker.turn(slots=0)
        store.insert([new_job(clock)])
        assert worker.handed == []

    def test_one_job_one_worker(self, store: Store, clock: FakeClock) -> None:
        """Two workers never get the same claim, and every fence is higher than all before."""
        store.insert([new_job(clock) for _ in range(20)])
        workers = [FakeWorker(store, name) for name in ("a", "b")]
        claims = [
            claim for _ in range(10) for worker in workers for claim in worker.turn(slots=20).claims[:20]
        ]
        assert len(set(ids(claims))) == len(claims) == 20
        fences = [claim.fence for claim in claims]
        assert fences == sorted(set(fences))

    def test_claim_carries_the_job(self, store: Store, clock: FakeClock) -> None:
        """A claim has all that its worker needs; what a job leaves open is the worker's to say."""
        store.insert(
            [new_job(clock, "x", tries=2, timeout=5.0, payload="[1]", metadata="{}", row="3"), new_job(clock)]
        )
        a, b = FakeWorker(store, tries=7, timeout=9.0).take(2)
        assert (a.spec.command, a.payload, a.row) == ("x", "[1]", "3")
        assert (a.attempt, a.max_attempts, a.timeout) == (1, 2, 5.0)
        assert (b.attempt, b.max_attempts, b.timeout) == (1, 7, 9.0)

    def test_paused_queue(self, store: Store, clock: FakeClock) -> None:
        """A paused queue takes jobs and hands out none; going on hands them to whoever is idle."""
        need(store, Capability.PAUSE)
        worker = FakeWorker(store)
        worker.turn(slots=5)
        store.pause("default", paused=True)
        job, other = new_job(clock), new_job(clock, queue="other")
        store.insert([job, other])
        assert ids(worker.handed) == [other.job_id]
        assert {q.name: q.paused for q in store.queues()} == {"default": True, "other": False}
        store.pause("default", paused=False)
        assert ids(worker.handed) == [other.job_id, job.job_id]

    def test_pause_of_no_queue(self, store: Store) -> None:
        """A queue that nobody made cannot be paused; the sentence names those there are."""
        need(store, Capability.PAUSE)
        with pytest.raises(QueueUnavailable, match=r"nosuch.*default"):
            store.pause("nosuch", paused=True)
