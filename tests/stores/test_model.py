"""Stores against a dict that a child could follow, through random stories with crashes in them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbqueue.jobs import Claim, NewJob, State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.slots import SlotFile
from nbqueue.store import Report, ReportKind, Selection
from nbqueue.stores import writes
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.index import limits
from nbqueue.stores.memory import MemoryStore
from nbqueue.testing import FakeClock, FakeWorker, new_job

TRIES, BACKOFF, LEASE = 2, 10.0, 30.0
SLOTS = 1_000
Picks = st.integers(0, 10_000)
#: More text than a job may have that is kept in memory.
LARGE = f'{{"args":["{"x" * limits.LARGE}"],"kwargs":{{}}}}'


class Model:
    """One job: what a person would note on a card."""

    def __init__(self, job: NewJob, order: int):
        self.job, self.order = job, order
        self.state = State.PENDING
        self.attempt = self.base = self.crashes = 0
        self.due = job.due_at or 0.0
        self.stopping = self.held = False
        self.claim: Claim | None = None
        #: Its worker has started it: known where there are slot files.
        self.begun = False
        self.ends = 0

    def back(self, *, counts: bool = False, due: float = 0.0) -> None:
        """It waits again."""
        self.state, self.claim, self.due, self.begun = State.PENDING, None, due, False
        self.attempt -= not counts

    def over(self, state: State) -> None:
        """It has ended."""
        self.ends += 1
        self.begun = False
        self.state, self.claim, self.stopping, self.held, self.due = state, None, False, False, 0.0

    def lose(self, *, begun: bool) -> None:
        """Its worker died."""
        if self.stopping:
            self.over(State.CANCELLED)
            return
        self.crashes += begun
        if self.crashes >= 3:
            self.over(State.FAILED)
        else:
            self.back()


class StoreAgainstModel(RuleBasedStateMachine):
    """Dispatch, claim, end, give back, cancel, retry, forget, fall silent, come back, say it again, die."""

    durable = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.folder = Path(tempfile.mkdtemp(prefix="nbq-model-"))
        self.cards: dict[UUID, Model] = {}
        self.gone: list[NewJob] = []
        self.old_claims: list[Claim] = []
        #: Reports that were taken, and the jobs that they were about.
        self.said: list[tuple[Report, NewJob]] = []
        #: Workers whose owner died and who have not come back, and until when they may.
        self.away: dict[str, FakeWorker] = {}
        self.away_until = 0.0
        self.files: dict[str, SlotFile] = {}
        self.order = self.names = self.fence = 0
        self.store = self.open()
        self.workers: list[FakeWorker] = []
        self.hire()

    def open(self) -> Any:
        return MemoryStore(clock=self.clock.time, ticks=self.clock.ticks)

    def hire(self) -> FakeWorker:
        self.names += 1
        worker = FakeWorker(self.store, f"w{self.names}", lease=LEASE, concurrency=2)
        self.workers.append(worker)
        if self.durable:
            file = self.folder / "jobs.duckdb.slots" / f"{worker.info.worker_id}.slots"
            self.files[worker.info.worker_id] = SlotFile(file, SLOTS)
        return worker

    def teardown(self) -> None:
        self.check_ends()
        for file in self.files.values():
            file.close()
        self.store.close()
        shutil.rmtree(self.folder)

    # -- what the model says

    def pick(self, n: int, fits: Callable[[Model], bool] = lambda _card: True) -> Model | None:
        cards = [card for card in self.cards.values() if fits(card)]
        return cards[n % len(cards)] if cards else None

    def claimable(self) -> list[Model]:
        now = self.clock.time()
        ready = [c for c in self.cards.values() if c.state is State.PENDING and not c.held and c.due <= now]
        return sorted(ready, key=lambda c: (-c.job.spec.priority, c.order))

    def holder(self, card: Model) -> FakeWorker:
        record = self.store.get([card.job.job_id])[0]
        here = {worker.info.worker_id: worker for worker in self.workers}
        return {**here, **self.away}[record.worker]

    def held_by(self, worker: FakeWorker) -> list[Model]:
        """What a worker has, in the order it got it."""
        held = [c for c in self.cards.values() if c.claim and self.holder(c) is worker]
        return sorted(held, key=lambda c: c.claim.fence if c.claim else 0)

    def lose_all(self, worker: FakeWorker, held: list[Model]) -> None:
        """A worker has died, or seems to: who is blamed is in its slot file, or guessed where there is none."""
        for i, card in enumerate(held):
            assert card.claim
            self.old_claims.append(card.claim)
            card.lose(begun=card.begun if self.durable else i < worker.info.concurrency)

    # -- what happens

    @rule(
        given=st.fixed_dictionaries(
            {"priority": st.sampled_from([0, 0, 5]), "delay": st.sampled_from([None, None, 20.0])},
            optional={"payload": st.just(LARGE)},
        ),
        count=st.integers(1, 3),
        known=st.lists(Picks, max_size=2),
        named=st.permutations(range(4)),
    )
    def dispatch(self, given: dict[str, Any], count: int, known: list[int], named: list[int]) -> None:
        """New jobs come in, in any order, among them some that are named twice and some that were there before."""
        policy = RetryPolicy(backoff=(BACKOFF,))
        new = [new_job(self.clock, tries=TRIES, retry=policy, **given) for _ in range(count)]
        some = new + [card.job for n in known if (card := self.pick(n))]
        told = [some[n % len(some)] for n in named]
        jobs = [job for job in dict.fromkeys(told) if job in new]
        self.store.insert(told)
        for job in jobs:
            self.order += 1
            self.cards[job.job_id] = Model(job, self.order)

    @rule(n=Picks)
    def dispatch_again(self, n: int) -> None:
        """A reply was lost."""
        if card := self.pick(n):
            self.store.insert([card.job])

    @rule(slots=st.integers(1, 4), n=Picks)
    def claim(self, slots: int, n: int) -> None:
        """A worker gets exactly the first that may run."""
        worker = self.workers[n % len(self.workers)]
        expected = self.claimable()[: max(0, slots - len(self.held_by(worker)))]
        claims = worker.take(slots)
        assert [claim.job_id for claim in claims] == [card.job.job_id for card in expected]
        for card, claim in zip(expected, claims, strict=True):
            self.give(card, claim)

    def give(self, card: Model, claim: Claim) -> None:
        """A worker has got a job."""
        assert claim.fence > self.fence
        self.fence = claim.fence
        card.state, card.claim, card.due = State.RUNNING, claim, 0.0
        card.attempt += 1
        assert (claim.attempt, claim.max_attempts) == (card.attempt, card.base + TRIES)

    @rule(n=Picks, lost=st.booleans())
    def dispatch_for(self, n: int, lost: bool) -> None:
        """A job is dispatched for one worker, perhaps with its answer lost and the worker back after that."""
        worker = self.workers[n % len(self.workers)]
        self.order += 1
        policy = RetryPolicy(backoff=(BACKOFF,))
        card = Model(new_job(self.clock, tries=TRIES, retry=policy), self.order)
        self.cards[card.job.job_id] = card
        claims = self.store.insert([card.job], worker.info.worker_id)
        if lost:
            held = [c.claim for c in self.held_by(worker) if c.claim]
            worker.join(held=[claim.fence for claim in held])
            assert self.store.get([card.job.job_id])[0].state is State.PENDING
            self.fence = claims[0].fence
            self.old_claims += claims
            claims = self.store.insert([card.job], worker.info.worker_id)
        else:
            assert self.store.insert([card.job], worker.info.worker_id) == claims
        self.give(card, claims[0])

    @precondition(lambda self: self.durable)
    @rule(n=Picks)
    def begin(self, n: int) -> None:
        """A worker starts what it has."""
        card = self.pick(n, lambda c: c.claim is not None and not c.begun)
        if card is None:
            return
        assert card.claim
        self.files[self.holder(card).info.worker_id].begin(card.order % SLOTS, card.claim.fence)
        card.begun = True

    @rule(n=Picks, outcome=st.sampled_from(Outcome))
    def end(self, n: int, outcome: Outcome) -> None:
        """An attempt ends."""
        card = self.pick(n, lambda c: c.claim is not None)
        if card is None:
            return
        assert card.claim
        self.old_claims.append(card.claim)
        self.report(
            card,
            Report(
                card.claim,
                ReportKind.ENDED,
                outcome,
                started_at=self.clock.time(),
                finished_at=self.clock.time(),
                error="" if outcome is Outcome.SUCCEEDED else "E",
            ),
        )
        if outcome is Outcome.SUCCEEDED:
            card.over(State.SUCCEEDED)
        elif outcome is Outcome.CANCELLED or (card.stopping and outcome is not Outcome.STUCK):
            card.over(State.CANCELLED)
        elif card.stopping or card.attempt >= card.base + TRIES:
            card.over(State.FAILED)
        else:
            card.back(counts=True, due=self.clock.time() + BACKOFF)

    def report(self, card: Model, report: Report) -> None:
        """Its worker says that it is over."""
        assert self.holder(card).turn(report).answers[0].done
        self.said.append((report, card.job))

    @precondition(lambda self: self.said)
    @rule(n=Picks, m=Picks)
    def say_again(self, n: int, m: int) -> None:
        """The answer to a report was lost: it is taken as before, and nothing comes of it."""
        report, job = self.said[n % len(self.said)]
        (answer,) = self.workers[m % len(self.workers)].turn(report).answers
        assert answer.done == (job.job_id in self.cards)

    @rule(n=Picks, refused=st.booleans())
    def give_back(self, n: int, refused: bool) -> None:
        """A worker gives a job back, or may not run it."""
        card = self.pick(n, lambda c: c.claim is not None)
        if card is None:
            return
        assert card.claim
        self.old_claims.append(card.claim)
        self.report(card, Report(card.claim, ReportKind.REFUSED if refused else ReportKind.RELEASED))
        if card.stopping:
            card.over(State.CANCELLED)
        else:
            card.back()
            card.held = refused

    @precondition(lambda self: self.old_claims)
    @rule(n=Picks, outcome=st.sampled_from(Outcome), m=Picks)
    def come_late(self, n: int, outcome: Outcome, m: int) -> None:
        """A report under an old claim changes nothing, whoever brings it."""
        claim = self.old_claims[n % len(self.old_claims)]
        late = self.workers[m % len(self.workers)].end(claim, outcome, result="late", error="late")
        assert not late.done

    @rule(n=Picks)
    def cancel(self, n: int) -> None:
        """Somebody cancels."""
        if card := self.pick(n):
            (answer,) = self.store.cancel([card.job.job_id])
            assert answer.done == (not card.state.ended)
            if card.state is State.PENDING:
                card.over(State.CANCELLED)
            elif card.state is State.RUNNING:
                card.stopping = True

    @rule(n=Picks)
    def retry(self, n: int) -> None:
        """Somebody retries."""
        if card := self.pick(n):
            waits = card.state is State.PENDING and (card.held or self.waits(card))
            (answer,) = self.store.retry([card.job.job_id])
            if card.state.ended:
                card.state, card.base, card.crashes = State.PENDING, card.attempt, 0
            elif waits:
                card.held, card.due = False, 0.0
            elif card.state is State.PENDING and card.due:
                # Its time has come, whether or not the store has looked: both answers are right.
                card.due = 0.0
                return
            else:
                assert not answer.done
                return
            assert answer.done

    def waits(self, card: Model) -> bool:
        return card.due > self.clock.time()

    @rule(n=Picks)
    def forget(self, n: int) -> None:
        """Somebody forgets a job."""
        if card := self.pick(n):
            assert self.store.forget(Selection(ids=(card.job.job_id,))) == card.state.ended
            if card.state.ended:
                del self.cards[card.job.job_id]
                self.gone.append(card.job)

    @rule(seconds=st.sampled_from([1.0, 10.0, 20.0]))
    def pass_time(self, seconds: float) -> None:
        """Time passes, and every worker takes its turn."""
        self.clock.advance(seconds)
        for worker in self.workers:
            worker.turn()
        self.give_up()

    def give_up(self) -> None:
        """Who has not come back within its lease is not waited for any longer."""
        if self.clock.ticks() > self.away_until:
            lost = [(worker, self.held_by(worker)) for worker in self.away.values()]
            self.away = {}
            for worker, held in lost:
                self.lose_all(worker, held)

    @rule(n=Picks)
    def fall_silent(self, n: int) -> None:
        """A worker is not heard of for longer than its lease, and another is hired."""
        silent = self.workers[n % len(self.workers)]
        held = self.held_by(silent)
        self.workers.remove(silent)
        for _ in range(2):
            self.clock.advance(LEASE * 0.6)
            self.hire() if not self.workers else None
            for worker in self.workers:
                worker.turn()
        self.lose_all(silent, held)
        self.give_up()
        assert silent.turn().expired

    @rule(n=Picks, knows=st.lists(st.booleans(), min_size=12, max_size=12))
    def come_back(self, n: int, knows: list[bool]) -> None:
        """A worker lost its connection, or its owner: it keeps what it knows of, and the rest waits again."""
        everybody = [*self.workers, *self.away.values()]
        worker = everybody[n % len(everybody)]
        held = self.held_by(worker)
        kept = [c for i, c in enumerate(held) if knows[i % len(knows)]]
        old = [claim.fence for claim in self.old_claims[:2]]
        fences = [card.claim.fence for card in kept if card.claim]
        worker.join(held=[*fences, *old])
        if self.away.pop(worker.info.worker_id, None):
            self.workers.append(worker)
        for card in held:
            if card not in kept:
                assert card.claim
                self.old_claims.append(card.claim)
                card.over(State.CANCELLED) if card.stopping else card.back()
        assert set(worker.turn().cancels) == {c.claim.fence for c in kept if c.claim and c.stopping} | set(
            old
        )

    @rule(n=Picks)
    def leave(self, n: int) -> None:
        """A worker goes home in order."""
        if len(self.workers) > 1:
            gone = self.workers[n % len(self.workers)]
            for card in self.cards.values():
                if card.claim and self.holder(card) is gone:
                    self.old_claims.append(card.claim)
                    card.over(State.CANCELLED) if card.stopping else card.back()
            self.workers.remove(gone)
            gone.leave()

    @precondition(lambda self: self.durable)
    @rule(clean=st.booleans(), lives=st.lists(st.booleans(), min_size=4, max_size=4))
    def die(self, clean: bool, lives: list[bool]) -> None:
        """The owner ends, in order or not, and the next one opens the file; some of the workers die with it."""
        everybody = [*self.workers, *self.away.values()]
        held = {worker.info.worker_id: self.held_by(worker) for worker in everybody}
        self.workers, self.away = [], {}
        for i, worker in enumerate(everybody):
            name = worker.info.worker_id
            if lives[i % len(lives)] and held[name]:
                self.away[name] = worker
            else:
                self.files[name].unlock()
                self.lose_all(worker, held[name])
        self.reopen(clean=clean)
        self.away_until = self.clock.ticks() + LEASE
        for worker in self.away.values():
            worker.store = self.store
        self.hire()

    @precondition(lambda self: self.durable)
    @rule(n=Picks)
    def kill(self, n: int) -> None:
        """A worker's process dies, and its connection ends."""
        everybody = [*self.workers, *self.away.values()]
        worker = everybody[n % len(everybody)]
        held, name = self.held_by(worker), worker.info.worker_id
        self.files[name].unlock()
        assert self.store.bury([name]) == [name]
        if not self.away.pop(name, None):
            self.workers.remove(worker)
        self.lose_all(worker, held)
        self.hire() if not self.workers else None

    def reopen(self, *, clean: bool) -> None:
        raise NotImplementedError

    # -- what must hold

    @invariant()
    def same(self) -> None:
        """Every job stands where its card says, and the books are right."""
        records = self.store.get(list(self.cards))
        for record, card in zip(records, self.cards.values(), strict=True):
            told = (record.state, record.attempt, record.crashes, record.cancelling)
            assert told == (card.state, card.attempt, card.crashes, card.stopping), self.store.explain(
                record.job_id
            )
        counts = {state: sum(card.state is state for card in self.cards.values()) for state in State}
        (queue,) = self.store.queues()
        assert dict(queue.counts) == counts
        now = self.clock.time()
        assert queue.waiting == sum(
            c.state is State.PENDING and not c.held and c.due > now for c in self.cards.values()
        )
        assert self.store.get([job.job_id for job in self.gone]) == []

    def check_ends(self) -> None:
        """Every job has ended as often as it was let run, and no more."""
        frame = self.store.query(
            "SELECT job_id, count(*) AS n FROM events WHERE event IN ('succeeded', 'failed', 'cancelled') GROUP BY ALL"
        )
        ended = {UUID(str(job_id)): int(n) for job_id, n in zip(frame["job_id"], frame["n"], strict=True)}
        assert ended == {job_id: card.ends for job_id, card in self.cards.items() if card.ends}


class DurableAgainstModel(StoreAgainstModel):
    """The same with a file, and deaths."""

    durable = True

    def open(self) -> Any:
        return DuckDBStore(self.folder / "jobs.duckdb", clock=self.clock.time, ticks=self.clock.ticks)

    def reopen(self, *, clean: bool) -> None:
        """Close, and after a death put the file, its log and its journal back as they were before that."""
        names = [self.folder / f"jobs.duckdb{end}" for end in ("", ".wal", ".journal")]
        found = {path: path.read_bytes() for path in names if path.exists()}
        self.store.close()
        if not clean:
            for path in names:
                path.unlink(missing_ok=True)
            for path, data in found.items():
                path.write_bytes(data)
        self.store = self.open()


class PagedAgainstModel(DurableAgainstModel):
    """The same where memory has room for next to nothing: jobs come out of the file, a few ahead of their time.

    Rows that are alike go by columns, however few.
    """

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for name, value in (("PENDING_KEPT", 1), ("ENDED_KEPT", 1), ("LOAD_AHEAD", 3)):
            self.patch.setattr(limits, name, value)
        self.patch.setattr(writes, "ALIKE_LEAST", 1)
        super().__init__()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.patch.undo()


TestMemory = StoreAgainstModel.TestCase
#: How many stories, in parts of the usual number.
SIZE = float(os.environ.get("NBQUEUE_STORIES", "1"))
TestMemory.settings = settings(max_examples=round(20 * SIZE), stateful_step_count=30, deadline=None)
TestDuckDB = DurableAgainstModel.TestCase
TestDuckDB.settings = settings(max_examples=round(12 * SIZE), stateful_step_count=30, deadline=None)
TestPaged = PagedAgainstModel.TestCase
TestPaged.settings = settings(max_examples=round(8 * SIZE), stateful_step_count=30, deadline=None)
