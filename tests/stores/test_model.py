"""Stores against a dict that a child could follow, through random stories with crashes in them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nbqueue.jobs import Claim, NewJob, State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import ReportKind, Selection
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.memory import MemoryStore
from nbqueue.testing import FakeClock, FakeWorker, new_job

TRIES, BACKOFF, LEASE = 2, 10.0, 30.0
Picks = st.integers(0, 10_000)


class Model:
    """One job: what a person would note on a card."""

    def __init__(self, job: NewJob, order: int):
        self.job, self.order = job, order
        self.state = State.PENDING
        self.attempt = self.base = self.crashes = 0
        self.due = job.due_at or 0.0
        self.stopping = self.held = False
        self.claim: Claim | None = None

    def back(self, *, counts: bool = False, due: float = 0.0) -> None:
        """It waits again."""
        self.state, self.claim, self.due = State.PENDING, None, due
        self.attempt -= not counts

    def over(self, state: State) -> None:
        """It has ended."""
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
    """Dispatch, claim, end, give back, cancel, retry, forget, fall silent, die."""

    durable = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.folder = Path(tempfile.mkdtemp(prefix="nbq-model-"))
        self.cards: dict[UUID, Model] = {}
        self.gone: list[NewJob] = []
        self.old_claims: list[Claim] = []
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
        return worker

    def teardown(self) -> None:
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
        return next(worker for worker in self.workers if worker.info.worker_id == record.worker)

    # -- what happens

    @rule(
        priority=st.sampled_from([0, 0, 5]),
        delay=st.sampled_from([None, None, 20.0]),
        count=st.integers(1, 3),
    )
    def dispatch(self, priority: int, delay: float | None, count: int) -> None:
        """New jobs come in, once or twice."""
        policy = RetryPolicy(backoff=(BACKOFF,))
        jobs = [
            new_job(self.clock, priority=priority, delay=delay, tries=TRIES, retry=policy)
            for _ in range(count)
        ]
        self.store.insert(jobs)
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
        holds = sum(c.claim is not None and self.holder(c) is worker for c in self.cards.values())
        expected = self.claimable()[: max(0, slots - holds)]
        claims = worker.take(slots)
        assert [claim.job_id for claim in claims] == [card.job.job_id for card in expected]
        for card, claim in zip(expected, claims, strict=True):
            assert claim.fence > self.fence
            self.fence = claim.fence
            card.state, card.claim, card.due = State.RUNNING, claim, 0.0
            card.attempt += 1
            assert (claim.attempt, claim.max_attempts) == (card.attempt, card.base + TRIES)

    @rule(n=Picks, outcome=st.sampled_from(Outcome))
    def end(self, n: int, outcome: Outcome) -> None:
        """An attempt ends."""
        card = self.pick(n, lambda c: c.claim is not None)
        if card is None:
            return
        assert card.claim
        self.old_claims.append(card.claim)
        assert self.holder(card).end(card.claim, outcome, error="E").done
        if outcome is Outcome.SUCCEEDED:
            card.over(State.SUCCEEDED)
        elif outcome is Outcome.CANCELLED or (card.stopping and outcome is not Outcome.STUCK):
            card.over(State.CANCELLED)
        elif card.stopping or card.attempt >= card.base + TRIES:
            card.over(State.FAILED)
        else:
            card.back(counts=True, due=self.clock.time() + BACKOFF)

    @rule(n=Picks, refused=st.booleans())
    def give_back(self, n: int, refused: bool) -> None:
        """A worker gives a job back, or may not run it."""
        card = self.pick(n, lambda c: c.claim is not None)
        if card is None:
            return
        assert card.claim
        self.old_claims.append(card.claim)
        kind = ReportKind.REFUSED if refused else ReportKind.RELEASED
        assert self.holder(card).say(card.claim, kind).done
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
        assert not self.workers[m % len(self.workers)].end(claim, outcome, result="late").done

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

    @rule(n=Picks)
    def fall_silent(self, n: int) -> None:
        """A worker is not heard of for longer than its lease, and another is hired."""
        silent = self.workers.pop(n % len(self.workers))
        held = [
            c
            for c in self.cards.values()
            if c.claim and self.store.get([c.job.job_id])[0].worker == silent.info.worker_id
        ]
        held.sort(key=lambda c: c.claim.fence if c.claim else 0)
        for _ in range(2):
            self.clock.advance(LEASE * 0.6)
            self.hire() if not self.workers else None
            for worker in self.workers:
                worker.turn()
        for i, card in enumerate(held):
            assert card.claim
            self.old_claims.append(card.claim)
            card.lose(begun=i < silent.info.concurrency)
        assert silent.turn().expired

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
    @rule(clean=st.booleans())
    def die(self, clean: bool) -> None:
        """The process ends, in order or not, and the next one opens the file."""
        self.reopen(clean=clean)
        for card in self.cards.values():
            if card.claim:
                self.old_claims.append(card.claim)
                card.lose(begun=False)
        self.workers = []
        self.hire()

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


class DurableAgainstModel(StoreAgainstModel):
    """The same with a file, and deaths."""

    durable = True

    def open(self) -> Any:
        return DuckDBStore(self.folder / "jobs.duckdb", clock=self.clock.time, ticks=self.clock.ticks)

    def reopen(self, *, clean: bool) -> None:
        """Close, and after a death put the file and its log back as they were before that."""
        names = [self.folder / name for name in ("jobs.duckdb", "jobs.duckdb.wal")]
        found = {path: path.read_bytes() for path in names if path.exists()}
        self.store.close()
        if not clean:
            for path in names:
                path.unlink(missing_ok=True)
            for path, data in found.items():
                path.write_bytes(data)
        self.store = self.open()


TestMemory = StoreAgainstModel.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDuckDB = DurableAgainstModel.TestCase
TestDuckDB.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
