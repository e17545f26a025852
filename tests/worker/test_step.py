"""The worker turn by turn: ``step()`` by hand, a clock that stands still, an executor that runs when told to."""

from __future__ import annotations

import logging
import types
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import pytest

from nbqueue import payload
from nbqueue.errors import DispatchFailed, QueueUnavailable
from nbqueue.executor import Running, StopReason
from nbqueue.handlers.definitions import function_handler
from nbqueue.handlers.handler import Registry, main_origin
from nbqueue.ids import new_job_ids
from nbqueue.jobs import Claim, JobRecord, NewJob, Options, Spec, State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.running.run import Attempt, Runner, Services
from nbqueue.slots import SlotFile
from nbqueue.store import Handlers, LogChunk, Report, ReportKind, Selection, Turn, WorkerInfo
from nbqueue.stores.memory import MemoryStore
from nbqueue.worker.prefetch import Prefetch
from nbqueue.worker.worker import Worker, WorkerOptions

KEY = b"a secret for tests" * 2
NOW = 1_700_000_000.0


class Clock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.passed = 0.0

    def time(self) -> float:
        return NOW + self.passed

    def ticks(self) -> float:
        return self.passed

    def advance(self, seconds: float) -> None:
        self.passed += seconds


class InlineExecutor:
    """Begins jobs when they come, and runs one to its end when the test says so."""

    name = "inline"

    def __init__(self, slots: int, clock: Clock):
        self.slots = slots
        self._clock = clock
        self.todo: deque[Claim] = deque()
        self.begun: dict[int, tuple[Attempt, float]] = {}
        self.stopping: dict[int, StopReason] = {}
        self.stuck: set[int] = set()
        self.reports: list[Report] = []
        self.said: list[Report] = []
        self.most = 0
        self.ran: list[str] = []
        self.closed = 0

    def start(self, runner: Runner, done: Callable[[], None], slot_file: SlotFile | None) -> None:
        self._runner = runner
        self._done = done

    def submit(self, claims: Sequence[Claim]) -> None:
        self.todo.extend(claims)
        self._fill()

    def _fill(self) -> None:
        while self.todo and len(self.begun) - len(self.stuck) < self.slots:
            claim = self.todo.popleft()
            self.begun[claim.fence] = (self._runner.begin(claim), self._clock.ticks())
        self.most = max(self.most, len(self.begun))

    def run(self, count: int | None = None) -> int:
        """Bring this many jobs to their ends, all unless given; gives how many."""
        ran = 0
        while self.begun and ran != count:
            fence = next(iter(self.begun))
            attempt, _ = self.begun[fence]
            report = attempt.run(lambda call, _: call())
            del self.begun[fence]
            self.stuck.discard(fence)
            self.ran.append(attempt.claim.spec.command)
            self.reports.append(report)
            self._done()
            self._fill()
            ran += 1
        return ran

    def collect(self) -> list[Report]:
        reports, self.reports = self.reports, []
        return reports

    def news(self) -> list[Report]:
        said, self.said = self.said, []
        return said

    def waiting(self) -> int:
        return len(self.todo)

    def withdraw(self, keep: int = 0) -> list[Claim]:
        kept, back = list(self.todo)[:keep], list(self.todo)[keep:]
        self.todo = deque(kept)
        return back

    def running(self) -> list[Running]:
        return [
            Running(attempt.claim, attempt.started_at, at, attempt.context.stop_reason, fence in self.stuck)
            for fence, (attempt, at) in self.begun.items()
        ]

    def stop_job(self, fence: int, reason: StopReason) -> bool:
        if fence not in self.begun:
            return False
        self.begun[fence][0].context.request_stop(reason)
        return True

    def close(self, timeout: float) -> list[Claim]:
        self.closed += 1
        left = [*(attempt.claim for attempt, _ in self.begun.values()), *self.todo]
        self.begun.clear()
        self.todo.clear()
        return left


class Unreliable(MemoryStore):
    """Fails when told to: before it does anything, or with its reply."""

    fails: str = ""
    error: Exception = QueueUnavailable("the disk is full")

    def turn(
        self, worker_id: str, reports: Sequence[Report], slots: int, handlers: Handlers | None = None
    ) -> Turn:
        if self.fails == "before":
            raise self.error
        turn = super().turn(worker_id, reports, slots, handlers)
        if self.fails == "after":
            raise self.error
        return turn

    def join(
        self,
        worker: WorkerInfo,
        handlers: Handlers,
        wake: Callable[[Sequence[Claim]], None],
        held: Collection[int] = (),
    ) -> None:
        if self.fails == "join":
            raise self.error
        super().join(worker, handlers, wake, held)


class Desk:
    """A store, a registry, and workers that are stepped by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Unreliable(clock=self.clock.time, ticks=self.clock.ticks)
        self.store._index._chance = lambda: 0.5
        self.registry = Registry()
        self.services = Services(
            key=lambda: KEY,
            dispatcher=None,  # type: ignore[arg-type]
            live_call=lambda _: None,
            on_value=lambda _claim, _value: None,
        )
        self.calls: list[Any] = []
        self.workers: list[Worker] = []
        self.define("note", lambda said=None: self.calls.append(said))

    def define(self, name: str, function: Callable[..., Any], origin: str = "") -> None:
        """Register a handler of this name, as a cell would."""
        handler = function_handler(function, name, Options())
        self.registry.register(handler if not origin else types_replace(handler, origin))

    def dispatch(
        self, command: str = "note", *args: Any, due_in: float | None = None, **spec: Any
    ) -> uuid.UUID:
        """Insert one job."""
        return self.insert([self.new(command, *args, due_in=due_in, **spec)])[0]

    def new(self, command: str, *args: Any, due_in: float | None = None, **spec: Any) -> NewJob:
        (job_id,) = new_job_ids(1, now=self.clock.time(), randomness=uuid.uuid4().bytes[:10])
        due_at = None if due_in is None else self.clock.time() + due_in
        return NewJob(job_id, Spec(command, **spec), payload.encode_call(args, {}), due_at=due_at)

    def insert(self, jobs: list[NewJob]) -> list[uuid.UUID]:
        self.store.insert(jobs)
        return [job.job_id for job in jobs]

    def worker(self, slots: int = 2, **options: Any) -> tuple[Worker, InlineExecutor]:
        """Make a worker that has joined."""
        executor = InlineExecutor(slots, self.clock)
        worker = Worker(
            self.store,
            self.registry,
            executor,
            self.services,
            WorkerOptions(**options),
            clock=self.clock.time,
            ticks=self.clock.ticks,
        )
        worker.open()
        self.workers.append(worker)
        return worker, executor

    @staticmethod
    def rest(worker: Worker) -> float:
        """Step until it would sleep; gives how long."""
        return next(wait for wait in iter(worker.step, None) if wait > 0)

    def record(self, job_id: uuid.UUID) -> JobRecord:
        (record,) = self.store.get([job_id])
        return record

    def states(self, ids: Sequence[uuid.UUID]) -> list[State]:
        return [record.state for record in self.store.get(ids)]

    def events(self, job_id: uuid.UUID) -> list[str]:
        """The names of what happened to a job, in order."""
        frame = self.store.query(
            "SELECT event FROM events WHERE job_id = ?::UUID ORDER BY seq", [str(job_id)]
        )
        return [str(event) for event in frame["event"]]


def types_replace(handler: Any, origin: str) -> Any:
    from dataclasses import replace

    return replace(handler, origin=origin)


@pytest.fixture
def desk() -> Iterator[Desk]:
    """A desk, whose workers leave without patience."""
    desk = Desk()
    yield desk
    desk.store.fails = ""
    for worker in desk.workers:
        worker.stop(0.0)
    desk.store.close()


# ------------------------------------------------------------------------- claims, reports, records


def test_claims_runs_and_records(desk: Desk) -> None:
    """One step claims, the next one reports, and the record shows the result."""
    job = desk.dispatch("note", 1)
    worker, executor = desk.worker()
    worker.step()
    assert desk.record(job).state is State.RUNNING
    assert executor.run() == 1
    worker.step()
    record = desk.record(job)
    assert (record.state, record.attempt, record.worker) == (State.SUCCEEDED, 1, worker.worker_id)
    assert desk.calls == [1]
    assert desk.events(job) == ["dispatched", "claimed", "succeeded"]


def test_is_handed_jobs_for_open_slots(desk: Desk) -> None:
    """A job that comes while slots are open is claimed with its dispatch, and begins at the next step."""
    worker, executor = desk.worker()
    worker.step()
    job = desk.dispatch("note", 1)
    assert desk.record(job).state is State.RUNNING
    assert executor.running() == []
    worker.step()
    assert [running.claim.job_id for running in executor.running()] == [job]


def test_begins_in_the_order_of_claims(desk: Desk) -> None:
    """What was handed over in between and what the turn gave begin in the order in which they were claimed."""
    worker, executor = desk.worker(slots=1)
    worker._turns._prefetch._mean = 0.005
    worker.step()
    first = desk.new("note", 1)
    real = desk.store.turn

    def turn(*args: Any, **kwargs: Any) -> Turn:
        # In the instant between the step's beginning and its turn.
        desk.insert([first])
        desk.store.turn = real  # type: ignore[method-assign]
        worker.info.worker_id  # noqa: B018
        desk.store._index.seats[worker.worker_id].slots = 0
        second.append(desk.dispatch("note", 2))
        return real(*args, **kwargs)

    second: list[uuid.UUID] = []
    desk.store.turn = turn  # type: ignore[method-assign]
    worker._turns.called = True
    worker.step()
    executor.run()
    assert desk.calls == [1, 2]


def test_takes_higher_priority_and_earlier_queues_first(desk: Desk) -> None:
    """Queues in their order, priority within a queue, then first come first served."""
    for command in ("a", "b", "c", "d", "e"):
        desk.define(command, lambda: None)
    desk.dispatch("a", queue="slow")
    desk.dispatch("b", queue="urgent")
    desk.dispatch("c", queue="urgent", priority=5)
    desk.dispatch("d", queue="urgent")
    desk.dispatch("e", queue="elsewhere", priority=9)
    worker, executor = desk.worker(slots=1, queues=("urgent", "slow"))
    for _ in range(6):
        worker.step()
        executor.run()
    assert executor.ran == ["c", "b", "d", "a"]


def test_never_runs_more_than_its_slots(desk: Desk) -> None:
    """However many wait, no more run at once than there are slots, and all of them run."""
    desk.insert([desk.new("note", i) for i in range(50)])
    worker, executor = desk.worker(slots=3)
    while worker._unfinished():
        worker.step()
        executor.run(1)
    assert executor.most == 3
    assert desk.calls == list(range(50))


def test_a_delayed_job_runs_when_it_is_due(desk: Desk) -> None:
    """A worker sleeps until a delayed job is due, and no longer."""
    job = desk.dispatch("note", 1, due_in=2.5)
    worker, executor = desk.worker()
    assert worker.step() == pytest.approx(2.5)
    desk.clock.advance(2.4)
    worker.step()
    assert executor.running() == []
    desk.clock.advance(0.1)
    worker.step()
    executor.run()
    worker.step()
    assert desk.record(job).state is State.SUCCEEDED


def test_looks_at_the_store_as_often_as_it_was_told(desk: Desk) -> None:
    """``sleep`` is the longest wait between two turns, for stores that cannot wake it; a lease may ask for less."""
    worker, _ = desk.worker(sleep=1.0)
    worker.step()
    assert worker.step() == pytest.approx(1.0)
    turns: list[int] = []
    real = desk.store.turn
    desk.store.turn = lambda *args: turns.append(1) or real(*args)  # type: ignore[method-assign,func-returns-value]
    for _ in range(4):
        desk.clock.advance(1.0)
        worker.step()
    assert len(turns) == 4
    quick, _ = desk.worker(lease=1.5, sleep=60.0)
    quick.step()
    assert quick.step() == pytest.approx(0.5)


# ------------------------------------------------------------------------- retry and defaults


def test_retries_with_backoff(desk: Desk) -> None:
    """A job that fails is tried again after its backoff, and fails for good when its tries are spent."""

    def fail() -> None:
        raise ValueError("no")

    desk.define("fail", fail)
    job = desk.dispatch("fail", tries=3, retry=RetryPolicy(backoff=(1.0, 10.0)))
    worker, executor = desk.worker()
    for attempt, wait in ((1, 1.0), (2, 10.0)):
        worker.step()
        assert executor.run() == 1
        assert desk.rest(worker) == pytest.approx(min(wait, 5.0))
        record = desk.record(job)
        assert (record.state, record.attempt) == (State.PENDING, attempt)
        assert record.scheduled_at == pytest.approx(desk.clock.time() + wait)
        desk.clock.advance(wait - 0.01)
        worker.step()
        assert executor.run() == 0
        desk.clock.advance(0.01)
    worker.step()
    executor.run()
    worker.step()
    record = desk.record(job)
    assert (record.state, record.attempt, record.cause, record.error) == (
        State.FAILED,
        3,
        "error",
        "ValueError: no",
    )
    assert desk.events(job).count("retrying") == 2


def test_uses_its_own_tries_and_timeout_where_a_job_names_none(desk: Desk) -> None:
    """The worker's defaults fill in for a job that says nothing; what a job says wins."""
    worker, executor = desk.worker(slots=4, tries=4, timeout=30.0)
    plain, own = desk.dispatch("note"), desk.dispatch("note", tries=2, timeout=5.0)
    worker.step()
    claims = {claim.job_id: claim for claim in (running.claim for running in executor.running())}
    assert (claims[plain].max_attempts, claims[plain].timeout) == (4, 30.0)
    assert (claims[own].max_attempts, claims[own].timeout) == (2, 5.0)
    other, other_executor = desk.worker()
    job = desk.dispatch("note")
    other.step()
    (mine,) = [running.claim for running in other_executor.running() + executor.running()][-1:]
    assert job in claims or mine is not None


# ------------------------------------------------------------------------- timeouts and cancelling


def test_stops_a_job_that_runs_out_of_its_time(desk: Desk) -> None:
    """The worker wakes when a job's time is up, tells it to stop, and records the timeout when it has ended."""
    desk.define("obey", lambda ctx: ctx.raise_if_stopped())
    job = desk.dispatch("obey", timeout=0.3)
    worker, executor = desk.worker()
    worker.step()
    assert worker.step() == pytest.approx(0.3)
    desk.clock.advance(0.3)
    worker.step()
    (running,) = executor.running()
    assert running.stopping is StopReason.TIMEOUT
    # Nothing is said to have ended that has not.
    assert desk.record(job).state is State.RUNNING
    executor.run()
    worker.step()
    record = desk.record(job)
    assert (record.state, record.cause) == (State.FAILED, "timeout")
    assert "0.3 s" in record.error


def test_cancels_a_running_job(desk: Desk) -> None:
    """Cancelling wakes the worker, which tells the job; it is cancelled when it has stopped."""
    desk.define("obey", lambda ctx: ctx.raise_if_stopped())
    job = desk.dispatch("obey")
    worker, executor = desk.worker()
    worker.step()
    worker._turns.wakeup.clear()
    desk.store.cancel([job])
    assert worker._turns.wakeup.is_set()
    assert desk.record(job).cancelling
    worker.step()
    assert executor.running()[0].stopping is StopReason.CANCEL
    assert desk.record(job).state is State.RUNNING
    executor.run()
    worker.step()
    assert desk.record(job).state is State.CANCELLED


def test_cancels_a_job_that_was_only_claimed_ahead(desk: Desk) -> None:
    """A job that waits behind others in the worker's hands is given back, which ends it; it never runs."""
    worker, executor = desk.worker(slots=1)
    worker._turns._prefetch._mean = 0.005
    first, second, third = (desk.dispatch("note", i) for i in range(3))
    worker.step()
    assert executor.waiting() == 2
    desk.store.cancel([second])
    worker.step()
    worker.step()
    assert desk.record(second).state is State.CANCELLED
    executor.run()
    worker.step()
    assert desk.calls == [0, 2]
    assert desk.states([first, third]) == [State.SUCCEEDED, State.SUCCEEDED]


def test_replaces_slots_of_jobs_that_cannot_be_stopped(desk: Desk) -> None:
    """A stuck job does not count: another is claimed in its place, and its log says why it goes on."""
    worker, executor = desk.worker(slots=1)
    stuck = desk.dispatch("note", "stuck", timeout=1.0)
    worker.step()
    desk.clock.advance(1.0)
    worker.step()
    (running,) = executor.running()
    executor.stuck.add(running.claim.fence)
    after = desk.dispatch("note", "after")
    worker.step()
    worker.step()
    assert [one.claim.job_id for one in executor.running()] == [stuck, after]
    assert desk.record(stuck).state is State.RUNNING
    (text,) = desk.store.query("SELECT text FROM logs WHERE job_id = ?::UUID", [str(stuck)])["text"]
    assert "cannot be killed" in text
    executor.run()
    worker.step()
    assert desk.states([stuck, after]) == [State.FAILED, State.SUCCEEDED]
    assert worker._turns.slots(set()) <= 1 + worker._turns._prefetch.ahead


# ------------------------------------------------------------------------- claiming ahead


def test_claims_ahead_when_jobs_are_quick(desk: Desk) -> None:
    """After a few quick jobs it claims more than its slots, and no more than it runs in a blink."""
    desk.insert([desk.new("note", i) for i in range(4_000)])
    worker, executor = desk.worker(slots=2)
    worker.step()
    assert executor.waiting() == 0
    executor.run()
    worker.step()
    assert 100 < executor.waiting() <= 2_048
    assert executor.most == 2


def test_gives_back_what_waits_behind_long_jobs(desk: Desk) -> None:
    """What was claimed ahead goes back when the jobs before it turn out to be long; its attempt is not spent."""
    desk.insert([desk.new("note", i) for i in range(10)])
    worker, executor = desk.worker(slots=2)
    worker._turns._prefetch._mean = 0.01
    worker.step()
    waiting = [claim.job_id for claim in executor.todo]
    assert len(waiting) == 8
    desk.clock.advance(0.6)
    worker.step()
    assert executor.waiting() == 0
    assert desk.states(waiting) == [State.PENDING] * 8
    assert {record.attempt for record in desk.store.get(waiting)} == {0}
    other, other_executor = desk.worker(slots=2)
    other.step()
    assert [running.claim.job_id for running in other_executor.running()] == waiting[:2]
    executor.run()
    worker.step()
    assert desk.events(waiting[0])[:3] == ["dispatched", "claimed", "released"]


def test_prefetch_learns() -> None:
    """Nothing is claimed ahead before it is known how long jobs take; then as much as a twentieth of a second holds."""
    prefetch = Prefetch(4)
    claim = Claim(uuid.uuid4(), 1, 1, 1, None, Spec("x"), "", "")

    def reports(seconds: float, count: int) -> list[Report]:
        return [Report(claim, ReportKind.ENDED, Outcome.SUCCEEDED, NOW, NOW + seconds)] * count

    assert prefetch.ahead == 0
    prefetch.learn([Report(claim, ReportKind.RELEASED)])
    assert prefetch.ahead == 0
    prefetch.learn(reports(0.0, 50))
    assert prefetch.ahead == 2_048
    for _ in range(10):
        prefetch.learn(reports(10.0, 4))
    assert prefetch.ahead == 0
    # A clock that was set back is no reason to claim without end.
    prefetch.learn(reports(-3_600.0, 1))
    assert prefetch.ahead == 0


# ------------------------------------------------------------------------- leases


def test_rejoins_after_its_lease_and_its_late_results_are_refused(desk: Desk) -> None:
    """A worker that was silent too long loses its jobs and comes back; what it reports late changes nothing."""
    job = desk.dispatch("note", "first")
    late, late_executor = desk.worker(slots=1, lease=15.0)
    late.step()
    desk.clock.advance(16.0)
    other, other_executor = desk.worker(slots=1)
    other.step()
    record = desk.record(job)
    assert (record.worker, record.attempt) == (other.worker_id, 1)
    late_executor.run()
    assert late.step() == 0.0
    assert desk.record(job).state is State.RUNNING
    late.step()
    assert {info.worker_id for info in desk.store.workers()} == {late.worker_id, other.worker_id}
    other_executor.run()
    other.step()
    assert desk.record(job).state is State.SUCCEEDED
    assert desk.events(job) == ["dispatched", "claimed", "interrupted", "claimed", "stale", "succeeded"]
    # And it works on.
    again = desk.dispatch("note", "again")
    late.step()
    late_executor.run()
    late.step()
    other.step()
    other_executor.run()
    other.step()
    assert desk.record(again).state is State.SUCCEEDED


def test_counts_what_it_lost_and_still_runs(desk: Desk) -> None:
    """After rejoining, the slots of jobs that were taken away and still run are not filled twice."""
    desk.insert([desk.new("note", i) for i in range(6)])
    worker, executor = desk.worker(slots=2, lease=15.0)
    worker.step()
    desk.clock.advance(16.0)
    other, _ = desk.worker(slots=1)
    other.step()
    for _ in range(3):
        worker.step()
    assert len(executor.running()) == 2
    assert executor.waiting() == 0
    executor.run(2)
    worker.step()
    worker.step()
    assert len(executor.running()) == 2
    assert executor.most == 2


def test_keeps_its_lease_while_jobs_are_long(desk: Desk) -> None:
    """Turns come often enough for the lease, whatever the jobs do."""
    job = desk.dispatch("note")
    worker, executor = desk.worker(lease=3.0)
    other, _ = desk.worker()
    worker.step()
    passed = 0.0
    while passed < 60.0:
        wait = worker.step()
        assert wait <= 1.0
        desk.clock.advance(wait)
        passed += wait
        other.step()
    assert desk.record(job).state is State.RUNNING
    executor.run()
    worker.step()
    assert desk.record(job).state is State.SUCCEEDED


# ------------------------------------------------------------------------- a store that fails


@pytest.mark.parametrize("fails", ["before", "after"])
def test_keeps_reports_for_a_store_that_fails(
    desk: Desk, fails: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While the store fails, reports are kept and the store is left in peace; afterwards they arrive, once."""
    jobs = desk.insert([desk.new("note", i) for i in range(4)])
    worker, executor = desk.worker(slots=4)
    worker.step()
    executor.run(2)
    desk.store.fails = fails
    turns = 0
    real = desk.store.turn

    def count(*args: Any) -> Turn:
        nonlocal turns
        turns += 1
        return real(*args)

    desk.store.turn = count  # type: ignore[method-assign,assignment]
    with caplog.at_level(logging.WARNING, "nbqueue.worker"):
        waits = [worker.step()]
        executor.run(1)
        # Woken by the end of a job, it does not ask again before the pause is over.
        worker.step()
        assert turns == 1
        for _ in range(12):
            desk.clock.advance(waits[-1])
            waits.append(worker.step())
    # With a job in hand it looks after that, whatever the store does.
    assert max(waits) <= 0.5
    assert turns < len(waits)
    assert len(caplog.records) == 1
    executor.run(1)
    desk.store.fails = ""
    desk.clock.advance(5.0)
    worker.step()
    assert desk.states(jobs) == [State.SUCCEEDED] * 4
    for job in jobs:
        assert desk.events(job).count("succeeded") == 1


def test_survives_a_store_that_fails_for_long(desk: Desk) -> None:
    """The pause between tries grows up to five seconds, and thousands of failures are no failure of its own."""
    worker, _ = desk.worker(sleep=60.0)
    desk.store.fails = "before"
    desk.store.error = DispatchFailed("no")
    for _ in range(2_000):
        desk.clock.advance(worker.step())
    assert worker.step() <= 5.0


def test_tells_new_handlers_after_a_failure(desk: Desk) -> None:
    """Handlers that were defined while the store failed are known to it afterwards."""
    job = desk.dispatch("later")
    worker, executor = desk.worker()
    worker.step()
    desk.store.fails = "before"
    desk.define("later", lambda: None)
    worker.step()
    desk.store.fails = ""
    desk.clock.advance(5.0)
    worker.step()
    assert executor.run() == 1
    worker.step()
    assert desk.record(job).state is State.SUCCEEDED


def test_tries_again_to_rejoin(desk: Desk) -> None:
    """A store that fails in the very moment of rejoining is asked again."""
    worker, executor = desk.worker(lease=15.0)
    worker.step()
    other, _ = desk.worker()
    desk.clock.advance(16.0)
    other.step()
    other.stop(0.0)
    desk.store.fails = "join"
    worker.step()
    desk.store.fails = ""
    job = desk.dispatch("note")
    for _ in range(3):
        desk.clock.advance(1.0)
        worker.step()
    executor.run()
    worker.step()
    assert desk.record(job).state is State.SUCCEEDED


def test_closes_its_executor_though_the_store_fails(desk: Desk) -> None:
    """Stopping with a store that is gone still ends the executor, and raises nothing."""
    desk.dispatch("note")
    worker, executor = desk.worker()
    worker.step()
    desk.store.fails = "before"
    worker.stop(0.0)
    assert executor.closed == 1


# ------------------------------------------------------------------------- limits


def test_runs_no_more_than_max_jobs(desk: Desk) -> None:
    """It claims no more than it may still run, and stops when they have ended."""
    jobs = desk.insert([desk.new("note", i) for i in range(20)])
    worker, executor = desk.worker(slots=4, max_jobs=7)
    while not worker.stopping:
        worker.step()
        executor.run(1)
    assert len(desk.calls) == 7
    worker.stop(0.0)
    assert desk.states(jobs) == [State.SUCCEEDED] * 7 + [State.PENDING] * 13
    assert desk.events(jobs[7]) == ["dispatched"]


def test_counts_attempts_towards_max_jobs(desk: Desk) -> None:
    """A job that is tried again counts again; one that is given back does not."""

    def fail() -> None:
        raise ValueError

    desk.define("fail", fail)
    desk.dispatch("fail", tries=5, retry=RetryPolicy(backoff=(0.0,)))
    worker, executor = desk.worker(slots=2, max_jobs=3)
    while not worker.stopping:
        worker.step()
        executor.run()
    assert executor.ran == ["fail"] * 3


def test_stops_when_nothing_is_left_to_run(desk: Desk) -> None:
    """``when_empty`` runs everything that could run now; delayed jobs and those nobody here knows stay."""
    jobs = desk.insert([desk.new("note", i) for i in range(5)])
    delayed, unknown = desk.dispatch("note", due_in=60.0), desk.dispatch("unknown")
    worker, executor = desk.worker(slots=2, when_empty=True)
    for _ in range(10):
        if worker.stopping:
            break
        worker.step()
        executor.run(1)
    assert worker.stopping
    assert desk.states(jobs) == [State.SUCCEEDED] * 5
    assert desk.states([delayed, unknown]) == [State.PENDING] * 2


def test_stops_after_max_seconds(desk: Desk) -> None:
    """Its time counts from its start, and it wakes for it even if nothing happens; what runs may end."""
    job = desk.dispatch("note")
    worker, executor = desk.worker(max_seconds=2.0, sleep=60.0, lease=600.0)
    worker.step()
    executor.run()
    worker.step()
    assert worker.step() == pytest.approx(2.0)
    desk.clock.advance(2.0)
    worker.step()
    assert worker.stopping
    assert desk.record(job).state is State.SUCCEEDED


def test_tells_of_what_has_ended(desk: Desk) -> None:
    """``on_ended`` hears of each attempt that counts, and an error of its own stops nothing."""
    heard: list[Report] = []

    def hear(report: Report) -> None:
        heard.append(report)
        raise RuntimeError("deaf")

    desk.insert([desk.new("note", i) for i in range(3)])
    worker, executor = desk.worker(slots=3, on_ended=hear)
    worker.step()
    executor.run()
    worker.step()
    assert [report.outcome for report in heard] == [Outcome.SUCCEEDED] * 3


# ------------------------------------------------------------------------- stopping


def test_gives_back_what_it_holds_when_it_stops(desk: Desk) -> None:
    """What has ended is reported, what runs and what waits is given back with its attempt, and the seat is free."""
    jobs = desk.insert([desk.new("note", i) for i in range(6)])
    worker, executor = desk.worker(slots=2)
    worker._turns._prefetch._mean = 0.03
    worker.step()
    executor.run(1)
    worker.stop(0.0)
    assert desk.states(jobs) == [State.SUCCEEDED, *[State.PENDING] * 5]
    assert {record.attempt for record in desk.store.get(jobs[1:])} == {0}
    assert desk.store.workers() == []
    assert executor.closed == 1
    worker.stop(0.0)
    assert executor.closed == 1


def test_begins_anew_under_another_name(desk: Desk) -> None:
    """A worker that was stopped can be opened again, and its name is never used twice."""
    worker, executor = desk.worker()
    names = []
    for i in range(3):
        job = desk.dispatch("note", i)
        worker.open()
        names.append(worker.worker_id)
        worker.step()
        executor.run()
        worker.step()
        assert desk.record(job).worker == names[-1]
        worker.stop(0.0)
    assert len(set(names)) == 3


# ------------------------------------------------------------------------- handlers


def test_leaves_jobs_of_unknown_handlers_in_their_queue(desk: Desk) -> None:
    """A job that nobody here knows is not claimed and not failed; it runs as soon as its handler is defined."""
    job = desk.dispatch("later", 5)
    worker, executor = desk.worker()
    worker.step()
    assert desk.events(job) == ["dispatched"]
    assert "no handler" in desk.store.explain(job)
    worker._turns.wakeup.clear()
    desk.define("later", desk.calls.append)
    assert worker._turns.wakeup.is_set()
    worker.step()
    executor.run()
    worker.step()
    assert desk.record(job).state is State.SUCCEEDED
    assert desk.calls == [5]


def test_gives_back_a_job_whose_handler_was_forgotten(desk: Desk) -> None:
    """Forgotten between claim and call, a handler costs no attempt: the job waits for it in its queue."""
    job = desk.dispatch("note", 1)
    worker, executor = desk.worker()
    worker.step()
    desk.registry.unregister("note")
    executor.run()
    for _ in range(3):
        worker.step()
    assert desk.events(job) == ["dispatched", "claimed", "released"]
    desk.define("note", desk.calls.append)
    worker.step()
    executor.run()
    worker.step()
    record = desk.record(job)
    assert (record.state, record.attempt) == (State.SUCCEEDED, 1)


def by_value(
    desk: Desk, key: bytes = KEY, origin: str = "notebook:/elsewhere.ipynb"
) -> tuple[Spec, uuid.UUID]:
    """Dispatch a job with a copy of its code, signed with this key, as another notebook would."""
    source = "def greet(name):\n    return f'Hello, {name}!'\n"
    module = types.ModuleType("__main__")
    exec(source, module.__dict__)
    greet = module.__dict__["greet"]
    code = payload.code_hash(greet)
    _, blob = payload.pack_code(greet, key=key, context=code)
    desk.store.put_code(code, blob)
    job = desk.dispatch("greet", "Ada", origin=origin, code=code)
    return Spec("greet", origin=origin, code=code), job


def test_adopts_code_that_this_user_signed(desk: Desk) -> None:
    """A function of another notebook runs here by its signed copy."""
    _, job = by_value(desk)
    worker, executor = desk.worker()
    worker.step()
    worker.step()
    executor.run()
    worker.step()
    record = desk.record(job)
    assert (record.state, record.result) == (State.SUCCEEDED, '"Hello, Ada!"')


def test_refuses_code_that_somebody_else_signed(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """A copy under another secret is not unpacked, said once, and its job stays in the queue."""
    _, job = by_value(desk, key=b"a foreign secret" * 2)
    worker, executor = desk.worker()
    with caplog.at_level(logging.WARNING, "nbqueue.worker"):
        for _ in range(5):
            desk.clock.advance(5.0)
            worker.step()
    assert executor.running() == []
    assert desk.events(job) == ["dispatched"]
    assert len([record for record in caplog.records if "not signed by this user" in record.message]) == 1


@pytest.mark.parametrize("origin", ["module:os", "here"])
def test_adopts_no_code_of_its_own_notebook_or_of_a_module(desk: Desk, origin: str) -> None:
    """What this notebook defined waits for its cell, and what a module defines for its import."""
    _, job = by_value(desk, origin=main_origin() if origin == "here" else origin)
    worker, executor = desk.worker()
    for _ in range(3):
        desk.clock.advance(5.0)
        worker.step()
    assert executor.running() == []
    assert desk.events(job) == ["dispatched"]


def test_runs_no_namesake_of_another_notebook(desk: Desk) -> None:
    """A function of the same name that is defined here does not run another notebook's job."""
    desk.define("import_csv", desk.calls.append, origin="notebook:/mine.ipynb")
    theirs = desk.dispatch("import_csv", 1, origin="notebook:/theirs.ipynb")
    mine = desk.dispatch("import_csv", 2, origin="notebook:/mine.ipynb")
    worker, executor = desk.worker()
    worker.step()
    executor.run()
    worker.step()
    assert desk.states([theirs, mine]) == [State.PENDING, State.SUCCEEDED]
    assert desk.calls == [2]


def test_asks_again_for_code_that_could_not_be_fetched(desk: Desk) -> None:
    """A store that fails while code is fetched says nothing about the code."""
    _, job = by_value(desk)
    worker, executor = desk.worker()

    def fail(_code: str) -> bytes | None:
        raise QueueUnavailable("not now")

    worker._turns.known.trusted._fetch = fail
    worker.step()
    worker._turns.known.trusted._fetch = desk.store.get_code
    for _ in range(3):
        desk.clock.advance(5.0)
        worker.step()
    executor.run()
    worker.step()
    assert desk.record(job).state is State.SUCCEEDED


# ------------------------------------------------------------------------- news


def test_records_news_of_running_jobs(desk: Desk) -> None:
    """Twice a second what running jobs say is recorded, before they end."""
    job = desk.dispatch("note")
    worker, executor = desk.worker()
    worker.step()
    (running,) = executor.running()
    executor.said = [Report(running.claim, ReportKind.NEWS, logs=(LogChunk("stdout", "hello\n", NOW),))]
    desk.clock.advance(0.5)
    worker.step()
    frame = desk.store.query("SELECT text FROM logs WHERE job_id = ?::UUID", [str(job)])
    assert list(frame["text"]) == ["hello\n"]
    assert desk.record(job).state is State.RUNNING


def test_finds_only_its_own_queues_unfinished(desk: Desk) -> None:
    """Draining looks at the queues it serves."""
    desk.dispatch("note", queue="mine")
    desk.dispatch("note", queue="theirs")
    worker, executor = desk.worker(queues=("mine",))
    assert worker._unfinished() == 1
    worker.step()
    executor.run()
    worker.step()
    assert worker._unfinished() == 0
    assert len(desk.store.find(Selection(states=(State.PENDING,)))) == 1
