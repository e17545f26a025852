"""The suite that every store has to pass; it needs pytest.

It is long because the suite is one: whoever writes a store subclasses ``StoreConformance``, gives it a ``store``
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
from dataclasses import fields
from typing import Any
from uuid import UUID

import pytest

from nbqueue.errors import InvalidCommand, NotSupported, QueueUnavailable
from nbqueue.jobs import NewBatch, State
from nbqueue.lifecycle import CRASHES_MAX, Event, Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import (
    OUTPUT,
    Capability,
    Handlers,
    LogChunk,
    Report,
    ReportKind,
    Selection,
    Store,
    WorkerInfo,
)
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    ANY,
    NO_WAIT,
    FakeWorker,
    bring,
    check_books,
    events_of,
    get,
    ids,
    need,
    new_batch,
    new_job,
)

__all__ = ["StoreConformance"]


def batch_of(batch: NewBatch) -> tuple[object, ...]:
    """What a record has of a batch as it was handed in."""
    return (batch.batch_id, batch.command, batch.origin, batch.key, batch.head)


def counted(store: Store, batch: NewBatch) -> dict[State, int]:
    """The states that rows of a batch are at, and how many."""
    return counted_by_id(store, batch.batch_id)


def counted_by_id(store: Store, batch_id: UUID) -> dict[State, int]:
    """As ``counted``; of a batch that is not there, nothing."""
    count = store.count_batch(batch_id)
    return {} if count is None else {state: number for state, number in count.states.items() if number}


class StoreConformance:
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

    # -- capabilities

    @pytest.mark.parametrize("capability", list(Capability), ids=str)
    def test_capability(self, store: Store, clock: FakeClock, capability: Capability) -> None:
        """What is declared works; what is not declared is skipped here by its name."""
        need(store, capability)
        job = new_job(clock)
        store.insert([job])
        proofs: dict[Capability, Callable[[], object]] = {
            Capability.ALL_OR_NONE: lambda: store.insert([new_job(clock), new_job(clock)]),
            Capability.PRIORITY: lambda: store.insert([new_job(clock, priority=5)]),
            Capability.CANCEL: lambda: store.cancel([job.job_id]),
            Capability.PAUSE: lambda: store.pause("default", paused=True),
            Capability.SQL: lambda: store.query("SELECT 1 AS one"),
            Capability.DURABLE: lambda: get(store, job),
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

    # -- claim

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

    # -- reports

    @pytest.mark.parametrize("outcome", list(Outcome), ids=str)
    @pytest.mark.parametrize("last", [False, True], ids=["more tries", "last try"])
    def test_outcome(self, store: Store, clock: FakeClock, outcome: Outcome, last: bool) -> None:  # noqa: FBT001
        """Each outcome leads where the lifecycle says, with what the worker said of it."""
        job = new_job(clock, tries=1 if last else 3, retry=RetryPolicy(backoff=(30.0,)))
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        started = clock.time() + 1.0
        clock.advance(5.0)
        good = outcome is Outcome.SUCCEEDED
        said = (
            {"result": "42"} if good else {"error": "E: x", "traceback": "T", "kinds": ("builtins.OSError",)}
        )
        assert worker.end(claim, outcome, started_at=started, finished_at=clock.time(), **said).done
        record = get(store, job)
        ends = {
            Outcome.SUCCEEDED: (State.SUCCEEDED, ""),
            Outcome.FAILED: (State.FAILED, "error"),
            Outcome.TIMED_OUT: (State.FAILED, "timeout"),
            Outcome.CRASHED: (State.FAILED, "crashed"),
            Outcome.CANCELLED: (State.CANCELLED, "cancelled"),
            Outcome.STUCK: (State.FAILED, "stuck"),
        }
        state, cause = ends[outcome]
        waits = state is State.FAILED and not last
        assert (record.state, record.cause) == (State.PENDING if waits else state, cause)
        assert (record.result, record.error, record.traceback) == (
            ("42", "", "") if good else ("", "E: x", "T")
        )
        assert (record.attempt, record.started_at) == (1, started)
        assert record.finished_at == (None if waits else clock.time())
        if waits:
            assert record.scheduled_at == clock.time() + 30.0
            assert worker.take() == []
            clock.advance(30.0)
            assert worker.take_one().attempt == 2

    @pytest.mark.parametrize("kind", list(ReportKind), ids=str)
    def test_report_kind(self, store: Store, clock: FakeClock, kind: ReportKind) -> None:
        """Each kind of report does its thing to a running job."""
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        outcome = Outcome.SUCCEEDED if kind is ReportKind.ENDED else None
        error = "PayloadUntrusted: not signed by you" if kind is ReportKind.REFUSED else ""
        assert worker.say(claim, kind, outcome=outcome, error=error).done
        record = get(store, job)
        stands = {
            ReportKind.ENDED: (State.SUCCEEDED, 1),
            ReportKind.RELEASED: (State.PENDING, 0),
            ReportKind.REFUSED: (State.PENDING, 0),
            ReportKind.NEWS: (State.RUNNING, 1),
        }
        assert (record.state, record.attempt) == stands[kind]
        again = ids(worker.take(1)) == [job.job_id]
        assert again == (kind is ReportKind.RELEASED)

    def test_refused_is_held(self, store: Store, clock: FakeClock) -> None:
        """A refused job goes to nobody until somebody retries it, and says why."""
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        worker.say(worker.take_one(), ReportKind.REFUSED, error="PayloadUntrusted: not signed by you")
        assert FakeWorker(store, "other").take() == []
        assert "not signed by you" in store.explain(job.job_id)
        (answer,) = store.retry([job.job_id])
        assert answer.done
        assert ids(worker.take()) == [job.job_id]

    def test_logs_progress_and_outputs(self, store: Store, clock: FakeClock) -> None:
        """What a job says is kept in order, while it runs and with its end."""
        need(store, Capability.SQL)
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        at = clock.time()
        worker.say(
            claim,
            ReportKind.NEWS,
            logs=(LogChunk("stdout", "one\n", at), LogChunk("stderr", "two\n", at)),
            progress='{"done":1,"total":2,"note":""}',
        )
        assert store.query("SELECT progress FROM jobs")["progress"][0] == '{"done":1,"total":2,"note":""}'
        logs = (
            LogChunk(OUTPUT, '{"text/plain":"x"}', at),
            LogChunk("log", "three \x00 ü\n", at),
            LogChunk(OUTPUT, '{"text/plain":"y"}', at),
        )
        worker.end(claim, logs=logs, progress='{"done":2}')
        frame = store.query(
            "SELECT stream, text, attempt FROM logs WHERE job_id = ? ORDER BY seq", [job.job_id]
        )
        assert list(frame["text"]) == ["one\n", "two\n", "three \x00 ü\n"]
        assert [str(stream) for stream in frame["stream"]] == ["stdout", "stderr", "log"]
        both = store.query(
            "SELECT seq, text FROM logs UNION ALL SELECT seq, mimebundle FROM outputs ORDER BY seq"
        )
        assert list(both["text"])[2:] == ['{"text/plain":"x"}', "three \x00 ü\n", '{"text/plain":"y"}']

    def test_text_that_is_no_text(self, store: Store, clock: FakeClock) -> None:
        """An error that names a file whose name is no UTF-8 is kept, and fails nobody's report."""
        job, other = new_job(clock), new_job(clock)
        store.insert([job, other])
        worker = FakeWorker(store)
        bad, good = worker.take(2)
        reports = [
            Report(bad, ReportKind.ENDED, Outcome.FAILED, error="OSError: 'caf\udce9'", traceback="\udce9"),
            Report(good, ReportKind.ENDED, Outcome.SUCCEEDED),
        ]
        assert [answer.done for answer in worker.turn(*reports).answers] == [True, True]
        assert get(store, job).state is State.FAILED
        assert get(store, other).state is State.SUCCEEDED
        check_books(store)

    def test_news_after_the_end(self, store: Store, clock: FakeClock) -> None:
        """News of a claim that is over are dropped, and the worker is told."""
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        worker.end(claim)
        assert not worker.say(claim, ReportKind.NEWS, logs=(LogChunk("stdout", "late", clock.time()),)).done
        if Capability.SQL in store.capabilities:
            assert len(store.query("SELECT * FROM logs")) == 0

    @pytest.mark.parametrize("event", list(Event), ids=str)
    def test_event(self, store: Store, clock: FakeClock, event: Event) -> None:
        """Each event there is gets written when its thing happens."""
        need(store, Capability.SQL)
        need(store, Capability.CANCEL)
        job = new_job(clock, tries=2)
        store.insert([job])
        worker = FakeWorker(store)
        claim = None if event is Event.DISPATCHED else worker.take_one()

        def lapse() -> None:
            clock.advance(worker.info.lease + 1)
            FakeWorker(store, "other").turn()

        def stale() -> None:
            assert claim
            worker.end(claim)
            worker.end(claim)

        def retried() -> None:
            assert claim
            worker.end(claim)
            store.retry([job.job_id])

        def said(**what: Any) -> None:
            assert claim
            worker.say(claim, ReportKind.NEWS, **what)

        def end(outcome: Outcome, kind: ReportKind = ReportKind.ENDED) -> None:
            assert claim
            worker.say(claim, kind, outcome=outcome)

        def fail() -> None:
            end(Outcome.FAILED)
            clock.advance(2.0)
            worker.end(worker.take_one(), Outcome.FAILED)

        happen: dict[Event, Callable[[], object]] = {
            Event.DISPATCHED: lambda: None,
            Event.CLAIMED: lambda: None,
            Event.SUCCEEDED: lambda: end(Outcome.SUCCEEDED),
            Event.RETRYING: lambda: end(Outcome.FAILED),
            Event.FAILED: fail,
            Event.INTERRUPTED: lapse,
            Event.RELEASED: worker.leave,
            Event.REFUSED: lambda: end(Outcome.FAILED, ReportKind.REFUSED),
            Event.CANCELLING: lambda: store.cancel([job.job_id]),
            Event.CANCELLED: lambda: end(Outcome.CANCELLED),
            Event.RETRIED: retried,
            Event.STALE: stale,
            Event.PROGRESS: lambda: said(progress='{"done":1}'),
            Event.LOG: lambda: said(logs=(LogChunk("stdout", "x", clock.time()),)),
            Event.OUTPUT: lambda: said(logs=(LogChunk(OUTPUT, "{}", clock.time()),)),
        }
        assert set(happen) == set(Event), "a new event needs its cause here"
        happen[event]()
        if event is Event.LOG:
            assert len(store.query("SELECT * FROM logs")) == 1
        else:
            assert events_of(store, job)[-1] == event.value

    # -- fences and leases

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

    # -- cancel and retry

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
        """A job that waits for its time runs now, once, and its old time means nothing any more."""
        job = new_job(clock, tries=3, retry=RetryPolicy(backoff=(50.0,)))
        delayed = new_job(clock, delay=60.0)
        store.insert([job, delayed])
        worker = FakeWorker(store)
        worker.end(worker.take_one(), Outcome.FAILED, error="E")
        assert [a.done for a in store.retry(ids([job, delayed]))] == [True, True]
        (default,) = store.queues()
        assert (default.counts[State.PENDING], default.waiting) == (2, 0)
        first, second = worker.take(2)
        assert (first.job_id, first.attempt, second.job_id) == (job.job_id, 2, delayed.job_id)
        worker.end(first, Outcome.FAILED)
        (default,) = store.queues()
        assert (default.counts[State.PENDING], default.waiting) == (1, 1)
        worker.end(second)
        clock.advance(60.0)
        assert ids(worker.take(5)) == [job.job_id]

    def test_retry_unknown(self, store: Store, clock: FakeClock) -> None:
        """A job that is not here is not retried, and the answer says so."""
        (answer,) = store.retry([new_job(clock).job_id])
        assert not answer.done
        assert "no such job" in answer.reason

    # -- watch and get

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
            lambda: store.pause("other", paused=True),
            lambda: store.forget(Selection()),
            worker.leave,
        ]
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

    # -- find and forget

    def select(self, store: Store, clock: FakeClock) -> dict[str, tuple[Selection, list[UUID]]]:
        """Make jobs, and for each field a selection with what it is to find, oldest first."""
        batch = new_job(clock).job_id
        old = bring(store, clock, State.SUCCEEDED, queue="old")
        clock.advance(100.0)
        cut = clock.time()
        failed = bring(store, clock, State.FAILED, queue="imports", command="import")
        cancelled = bring(store, clock, State.CANCELLED, queue="imports", command="other", batch_id=batch)
        clock.advance(100.0)
        pending = new_job(clock, "import", queue="imports", batch_id=batch)
        store.insert([pending])
        like = bring(
            store, clock, State.FAILED, queue="like", command="like", fingerprint="KeyError at a.py:1"
        )
        return {
            "ids": (Selection(ids=(pending.job_id, old.job_id, batch)), ids([old, pending])),
            "states": (Selection(states=(State.FAILED, State.PENDING)), ids([failed, pending, like])),
            "fingerprint": (Selection(fingerprint="KeyError at a.py:1"), ids([like])),
            "queues": (Selection(queues=("imports", "nosuch")), ids([failed, cancelled, pending])),
            "commands": (Selection(commands=("import",)), ids([failed, pending])),
            "batch_id": (Selection(batch_id=batch), ids([cancelled, pending])),
            "since": (Selection(since=cut), ids([failed, cancelled, pending, like])),
            "finished_before": (Selection(finished_before=cut), ids([old])),
        }

    @pytest.mark.parametrize("field", [f.name for f in fields(Selection)])
    def test_find(self, store: Store, clock: FakeClock, field: str) -> None:
        """Each field of a selection narrows it, alone and together with another."""
        cases = self.select(store, clock)
        assert set(cases) == {f.name for f in fields(Selection)}, "a new field needs its case in select"
        selection, expected = cases[field]
        assert store.find(selection) == expected
        none: dict[str, Any] = {"ids": (), "states": (), "queues": (), "commands": ()}
        if field in none:
            assert store.find(Selection(**{field: none[field]})) == []
        others, narrowed = cases["commands" if field not in ("commands", "fingerprint") else "states"]
        both = {
            f.name: getattr(s, f.name)
            for s in (others, selection)
            for f in fields(Selection)
            if getattr(s, f.name)
        }
        assert store.find(Selection(**both)) == [i for i in expected if i in narrowed]

    @pytest.mark.parametrize("field", [f.name for f in fields(Selection)])
    def test_forget(self, store: Store, clock: FakeClock, field: str) -> None:
        """Forgetting takes the ended jobs of a selection with their history, and no others."""
        selection, expected = self.select(store, clock)[field]
        everything = store.find(Selection())
        doomed = [r.job_id for r in store.get(expected) if r.state.ended]
        assert store.forget(selection) == len(doomed)
        left = [i for i in everything if i not in doomed]
        assert store.find(Selection()) == left
        assert [r.job_id for r in store.get(everything)] == left
        assert not any(answer.done for answer in store.retry(doomed))
        if Capability.SQL in store.capabilities:
            assert {str(i) for i in store.query("SELECT DISTINCT job_id FROM events")["job_id"]} == set(
                map(str, left)
            )
        assert store.forget(selection) == 0

    def test_forget_leaves_what_lives(self, store: Store, clock: FakeClock) -> None:
        """A job that is not ended is not forgotten, even if it is named."""
        running = bring(store, clock, State.RUNNING)
        pending = new_job(clock, delay=5.0)
        store.insert([pending])
        assert store.forget(Selection()) == 0
        assert store.find(Selection()) == ids([running, pending])

    def test_retain(self, store: Store, clock: FakeClock) -> None:
        """What ended longer ago than it is to be kept is forgotten while workers take turns, and nothing else."""
        old = bring(store, clock, State.SUCCEEDED)
        waits = new_job(clock, delay=1e6)
        store.insert([waits])
        worker = FakeWorker(store, "tidy", lease=1e9)
        clock.advance(3600.0)
        young = bring(store, clock, State.FAILED)
        worker.turn()
        assert store.find(Selection()) == ids([old, waits, young])
        store.retain(1800.0)
        worker.turn()
        assert store.find(Selection()) == ids([waits, young])
        clock.advance(3600.0)
        worker.turn()
        assert store.find(Selection()) == ids([waits])
        store.retain(None)
        bring(store, clock, State.SUCCEEDED)
        clock.advance(1e5)
        worker.turn()
        assert len(store.find(Selection())) == 2

    def test_forgotten_may_come_again(self, store: Store, clock: FakeClock) -> None:
        """The id of a forgotten job is a new one."""
        job = bring(store, clock, State.SUCCEEDED)
        store.forget(Selection())
        store.insert([job])
        assert get(store, job).state is State.PENDING

    # -- explain

    def test_explain_waiting(self, store: Store, clock: FakeClock) -> None:
        """Each reason for which a pending job does not run has its sentence."""
        job = new_job(clock, queue="imports")
        held_up = new_job(clock, "mine", queue="imports", origin="notebook:sales.ipynb")
        moduled = new_job(clock, "theirs", queue="imports", origin="module:tasks")
        store.insert([job, held_up, moduled])
        assert "no worker is running" in store.explain(job.job_id)
        far = FakeWorker(store, "far", queues=("emails",))
        assert 'no worker is on queue "imports"' in store.explain(job.job_id)
        assert "emails" in store.explain(job.job_id)
        near = FakeWorker(store, "near", queues=("imports",), handlers=Handlers(frozenset({"other"})))
        assert store.explain(job.job_id).startswith('no handler for "work"')
        assert "waiting for the kernel of sales.ipynb" in store.explain(held_up.job_id)
        assert "--import tasks" in store.explain(moduled.job_id)
        near.turn(handlers=Handlers(frozenset({"work"})))
        assert "about to be claimed" in store.explain(job.job_id)
        more = new_job(clock, queue="imports")
        store.insert([more])
        near.take_one()
        assert store.explain(job.job_id) == ""
        assert "busy" in store.explain(more.job_id)
        far.leave()

    def test_explain_a_foreground_worker_is_none(self, store: Store, clock: FakeClock) -> None:
        """Whoever serves no queue is no worker to wait for."""
        job = new_job(clock)
        store.insert([job])
        FakeWorker(store, queues=())
        assert "no worker is running" in store.explain(job.job_id)

    def test_explain_times(self, store: Store, clock: FakeClock) -> None:
        """A delay, a pause and a retry are told with their times and errors."""
        delayed = new_job(clock, delay=90.0)
        retried = new_job(clock, tries=3, retry=RetryPolicy(backoff=(30.0,)))
        store.insert([delayed, retried])
        assert store.explain(delayed.job_id) == "delayed until 2023-11-14 22:14:50+00:00, 90.0 s from now"
        worker = FakeWorker(store)
        worker.end(worker.take_one(), Outcome.FAILED, error="KeyError: 'x'")
        said = store.explain(retried.job_id)
        assert "attempt 1 of 3 failed with KeyError: 'x'" in said
        assert "30.0 s from now" in said
        if Capability.PAUSE in store.capabilities:
            store.pause("default", paused=True)
            assert '"default" is paused' in store.explain(delayed.job_id)

    def test_explain_ended(self, store: Store, clock: FakeClock) -> None:
        """What has ended says how, and what would let it run again."""
        spent, given_up = (
            new_job(clock, tries=1),
            new_job(clock, tries=5, retry=RetryPolicy(give_up_on=("E",))),
        )
        twice = new_job(clock, tries=2, retry=NO_WAIT)
        store.insert([spent, given_up, twice])
        worker = FakeWorker(store)
        for claim in worker.take(3):
            worker.end(claim, Outcome.FAILED, error="E: no", kinds=("E",))
        worker.end(worker.take_one(), Outcome.TIMED_OUT)
        assert "its one attempt is spent" in store.explain(spent.job_id)
        assert "retry policy gives up on" in store.explain(given_up.job_id)
        assert "all 2 attempts are spent" in store.explain(twice.job_id)
        good = bring(store, clock, State.SUCCEEDED, queue="good")
        assert "succeeded" in store.explain(good.job_id)
        gone = bring(store, clock, State.CANCELLED, queue="gone")
        assert "cancelled" in store.explain(gone.job_id)
        assert "no job" in store.explain(new_job(clock).job_id)

    # -- queues, workers, books

    @pytest.mark.parametrize("state", list(State), ids=str)
    def test_counts_of_each_state(self, store: Store, clock: FakeClock, state: State) -> None:
        """A queue counts its jobs by state, and knows every state."""
        bring(store, clock, state, queue="q")
        info = next(q for q in store.queues() if q.name == "q")
        assert dict(info.counts) == {s: int(s is state) for s in State}

    def test_queues(self, store: Store, clock: FakeClock) -> None:
        """A queue comes to be by adding it and by a job, not by a worker's list; "default" is always there."""
        store.add_queue("b")
        store.add_queue("b")
        store.insert([new_job(clock, queue="a")])
        FakeWorker(store, queues=("c", "default"))
        assert [q.name for q in store.queues()] == ["a", "b", "default"]

    def test_workers(self, store: Store) -> None:
        """Who is here, with what they said of themselves; joining twice is joining once."""
        worker = FakeWorker(store, concurrency=4, executor="process", host="h", pid=7)
        worker.join()
        assert store.workers() == [worker.info]

    def test_attempts_are_kept(self, store: Store, clock: FakeClock) -> None:
        """Each attempt is a row of its own, with what became of it."""
        need(store, Capability.SQL)
        job = new_job(clock, tries=2, retry=NO_WAIT)
        store.insert([job])
        worker = FakeWorker(store)
        worker.say(worker.take_one(), ReportKind.RELEASED)
        worker.end(worker.take_one(), Outcome.FAILED, error="E: 1")
        worker.end(worker.take_one(), Outcome.SUCCEEDED)
        frame = store.query("SELECT attempt, outcome::VARCHAR AS outcome, error FROM attempts ORDER BY fence")
        assert list(frame["attempt"]) == [1, 1, 2]
        assert list(frame["outcome"]) == ["released", "failed", "succeeded"]
        assert frame["error"][1] == "E: 1"

    # -- batches

    def test_batch(self, store: Store, clock: FakeClock) -> None:
        """A batch is its rows' jobs in their order, and is found again by its id."""
        batch, jobs = new_batch(clock, {"b": "[1]", "a": "[2]", "c": "[1]"}, origin="module:x")
        put = store.put_batch(batch, jobs)
        record = store.get_batch(batch.batch_id)
        assert record is not None
        assert put.batch == record
        assert list(put.left) == []
        assert (record.batch_id, record.command, record.origin, record.key, record.head) == batch_of(batch)
        assert (record.total, record.created_at, record.mapped_at) == (3, clock.time(), clock.time())
        assert [(r.batch_id, r.row, r.payload) for r in store.get(ids(jobs))] == [
            (batch.batch_id, "b", "[1]"),
            (batch.batch_id, "a", "[2]"),
            (batch.batch_id, "c", "[1]"),
        ]
        assert ids(FakeWorker(store).take(9)) == ids(jobs)

    def test_batch_is_idempotent(self, store: Store, clock: FakeClock) -> None:
        """A batch that is sent again after a lost reply is the same batch, wherever its rows stand by now."""
        batch, jobs = new_batch(clock, {"1": "[1]", "2": "[2]"})
        put = store.put_batch(batch, jobs)
        worker = FakeWorker(store)
        worker.end(worker.take_one())
        assert store.put_batch(batch, jobs).batch == put.batch
        assert len(store.find(Selection())) == 2
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.PENDING: 1}

    def test_named_batch_is_idempotent(self, store: Store, clock: FakeClock) -> None:
        """The same goes for one with a key, even where a row has failed meanwhile."""
        batch, jobs = new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores")
        put = store.put_batch(batch, jobs)
        worker = FakeWorker(store)
        worker.end(worker.take_one(), Outcome.FAILED)
        again = store.put_batch(batch, jobs)
        assert (again.batch.runs, list(again.left)) == (put.batch.runs, [0, 1])
        assert len(store.find(Selection())) == 2

    def test_empty_batch(self, store: Store, clock: FakeClock) -> None:
        """A batch without rows is one."""
        batch, jobs = new_batch(clock, {})
        assert store.put_batch(batch, jobs).batch.total == 0
        record = store.get_batch(batch.batch_id)
        assert record is not None
        assert (record.total, counted(store, batch)) == (0, {})

    def test_unknown_batch(self, store: Store, clock: FakeClock) -> None:
        """There is no batch that nobody handed in, and none without a key has the key ""."""
        store.put_batch(*new_batch(clock, {"1": "[1]"}))
        unknown = new_job(clock).job_id
        assert [store.get_batch(which) for which in (unknown, "scores", "")] == [None] * 3
        assert store.count_batch(unknown) is None

    def test_batch_is_counted(self, store: Store, clock: FakeClock) -> None:
        """A batch's rows are counted where they stand, through everything that may happen to them."""
        batch, jobs = new_batch(clock, {str(n): f"[{n}]" for n in range(4)}, tries=2, retry=NO_WAIT)
        store.insert([new_job(clock)])
        store.put_batch(batch, jobs)
        assert counted(store, batch) == {State.PENDING: 4}
        worker = FakeWorker(store)
        _, first, second, third = worker.take(4)
        assert counted(store, batch) == {State.PENDING: 1, State.RUNNING: 3}
        worker.end(first)
        worker.say(second, ReportKind.RELEASED)
        worker.end(third, Outcome.FAILED)
        assert counted(store, batch) == {State.PENDING: 3, State.SUCCEEDED: 1}
        store.cancel([jobs[3].job_id])
        again, last = worker.take(3)  # one slot has the job of no batch still
        worker.end(again, Outcome.CANCELLED)
        worker.end(last, Outcome.FAILED)
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.CANCELLED: 2, State.FAILED: 1}
        store.retry([jobs[2].job_id])
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.CANCELLED: 2, State.PENDING: 1}

    def test_batch_again_under_its_key(self, store: Store, clock: FakeClock) -> None:
        """Of a batch that is handed in again, only rows that are new, changed, failed or cancelled get a job."""
        rows = {
            name: f'["{name}"]' for name in ("done", "failed", "cancelled", "waits", "changed", "dropped")
        }
        batch, jobs = new_batch(clock, rows, key="scores")
        store.put_batch(batch, jobs)
        worker = FakeWorker(store)
        done, failed = worker.take(2)
        worker.end(done)
        worker.end(failed, Outcome.FAILED)
        store.cancel([jobs[2].job_id])
        clock.advance(60.0)
        del rows["dropped"]
        other, more = new_batch(clock, {"new": "[0]", **rows, "changed": "[1]"}, key="scores")
        put = store.put_batch(other, more)
        record = store.get_batch("scores")
        assert record == put.batch == store.get_batch(batch.batch_id)
        assert (record.batch_id, record.total, record.created_at) == (
            batch.batch_id,
            6,
            clock.time() - 60.0,
        )
        assert record.mapped_at == clock.time()
        assert sorted(put.left) == [1, 4]  # "done" and "waits"
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.PENDING: 5}
        assert get(store, jobs[4]).state is State.CANCELLED  # what "changed" asked for before
        assert get(store, jobs[5]).state is State.PENDING  # "dropped" is not in the batch, and goes on
        found = [get(store, claim) for claim in worker.take(9)]
        waiting = ["waits", "dropped", "new", "failed", "cancelled", "changed"]
        assert [record.row for record in found] == waiting
        assert {record.batch_id for record in found} == {batch.batch_id}
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.RUNNING: 5}

    def test_row_comes_back_to_its_batch(self, store: Store, clock: FakeClock) -> None:
        """A row that was left out for a while has its latest job still."""
        store.put_batch(*new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores"))
        worker = FakeWorker(store)
        for claim in worker.take(2):
            worker.end(claim)
        store.put_batch(*new_batch(clock, {"1": "[1]"}, key="scores"))
        batch, jobs = new_batch(clock, {"2": "[2]", "1": "[1]"}, key="scores")
        put = store.put_batch(batch, jobs)
        assert sorted(put.left) == [0, 1]
        assert len(store.find(Selection())) == 2
        assert put.batch.total == 2

    def test_job_that_was_replaced_counts_no_more(self, store: Store, clock: FakeClock) -> None:
        """What a row's former job does is not seen in its batch; it was asked to stop."""
        first, _ = store.put_batch(*new_batch(clock, {"1": "[1]"}, key="scores"))
        worker = FakeWorker(store)
        running = worker.take_one()
        store.put_batch(*new_batch(clock, {"1": "[2]"}, key="scores"))
        assert list(worker.turn().cancels) == [running.fence]
        worker.end(running, Outcome.CANCELLED)
        assert counted_by_id(store, first.batch_id) == {State.PENDING: 1}

    @pytest.mark.parametrize("given", [{"command": "other"}, {"origin": "notebook:b.ipynb"}], ids=str)
    def test_key_of_another_handler(self, store: Store, clock: FakeClock, given: dict[str, str]) -> None:
        """A key belongs to one handler: what another would do is not the same, and nothing of it is taken."""
        store.put_batch(*new_batch(clock, {"1": "[1]"}, key="scores"))
        with pytest.raises(InvalidCommand, match="another key"):
            store.put_batch(*new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores", **given))
        assert len(store.find(Selection())) == 1

    def test_batch_is_forgotten_with_its_jobs(self, store: Store, clock: FakeClock) -> None:
        """Rows whose jobs were forgotten are counted nowhere; with the last of them the batch has gone, key and all."""
        batch, jobs = new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores")
        store.put_batch(batch, jobs)
        worker = FakeWorker(store)
        worker.end(worker.take_one())
        store.forget(Selection())
        assert counted(store, batch) == {State.PENDING: 1}
        record = store.get_batch("scores")
        assert record is not None
        count = store.count_batch(batch.batch_id)
        assert count is not None
        assert record.total == count.total == 2
        worker.end(worker.take_one(), Outcome.FAILED)
        store.forget(Selection())
        assert store.get_batch("scores") is store.get_batch(batch.batch_id) is None
        assert store.count_batch(batch.batch_id) is None

    def test_forgotten_row_is_new(self, store: Store, clock: FakeClock) -> None:
        """A row whose job was forgotten gets another when it comes again."""
        store.put_batch(*new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores"))
        worker = FakeWorker(store)
        worker.end(worker.take_one())
        store.forget(Selection())
        put = store.put_batch(*new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores"))
        assert list(put.left) == [1]
        assert counted_by_id(store, put.batch.batch_id) == {State.PENDING: 2}

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
