"""The verbs of a worker: to join, to take a turn, to leave; each is one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial

from nbqueue.jobs import Claim
from nbqueue.lifecycle import LIFECYCLE_EVENTS, Event, Outcome
from nbqueue.store import Handlers, Report, ReportKind, Turn, WorkerInfo
from nbqueue.stores.live import LiveJob, Seat, micros
from nbqueue.stores.postgres.burying import TICKS, Burying
from nbqueue.stores.postgres.chairs import Chair
from nbqueue.stores.postgres.link import HELLO, Tx
from nbqueue.stores.postgres.locked import Locked
from nbqueue.stores.postgres.seeking import Seeking, promote
from nbqueue.stores.postgres.texts import read_text, write_handlers
from nbqueue.stores.repeats import Closing, Line, without_said

__all__ = ["TurnVerbs"]

_CLOSING = [event.value for event in LIFECYCLE_EVENTS if event not in (Event.DISPATCHED, Event.CLAIMED)]
#: What leaves nothing to claim behind.
_FOR_GOOD = (Outcome.SUCCEEDED, Outcome.CANCELLED)

_JOIN = (
    "INSERT INTO workers (worker_id, host, pid, executor, concurrency, queues, tries, timeout, handlers, joined_us,"
    f" lease, lease_until) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, {TICKS} + %s)"
    " ON CONFLICT (worker_id) DO UPDATE SET gone = false, host = EXCLUDED.host, pid = EXCLUDED.pid,"
    " executor = EXCLUDED.executor, concurrency = EXCLUDED.concurrency, queues = EXCLUDED.queues,"
    " tries = EXCLUDED.tries, timeout = EXCLUDED.timeout, handlers = EXCLUDED.handlers, lease = EXCLUDED.lease,"
    " lease_until = EXCLUDED.lease_until, xid = EXCLUDED.xid RETURNING worker"
)
# All that a turn asks beside its jobs. It comes first, so that of a worker nobody else moves a job meanwhile.
_RENEW = f"""
    WITH renewed AS (
        UPDATE workers SET lease_until = {TICKS} + lease, handlers = coalesce(%s, handlers)
        WHERE worker = %s AND NOT gone RETURNING worker
    )
    SELECT {HELLO},
           EXISTS (SELECT FROM renewed),
           array(SELECT fence FROM standing WHERE worker = %s AND state = 'running' AND cancelling),
           (SELECT min(due_us) FROM standing WHERE waits)
    """


class TurnVerbs(Burying):
    """Joining, turns and leaving."""

    def join(
        self,
        worker: WorkerInfo,
        handlers: Handlers,
        wake: Callable[[Sequence[Claim]], None],
        held: Collection[int] = (),
    ) -> None:
        """Make a worker known, or have it come back with the claims it holds."""

        def verb(tx: Tx) -> None:
            self._join(tx, Seat(worker, 0, handlers, wake, 0.0), held)

        before = self._chairs.get(worker.worker_id)
        with contextlib.nullcontext() if before is None else before.held():
            self._link.run(verb)
        self._listening.begin()

    def _join(self, tx: Tx, seat: Seat, held: Collection[int]) -> None:
        info = seat.info
        tx.after(partial(self._chairs.put, seat))
        known = tx.execute(
            "SELECT NOT gone FROM workers WHERE worker_id = %s FOR UPDATE", [info.worker_id]
        ).fetchone()
        (seat.number,) = tx.one(
            _JOIN,
            [info.worker_id, info.host, info.pid, info.executor, info.concurrency,
             None if info.queues is None else list(info.queues), info.tries, info.timeout,
             write_handlers(seat.handlers), micros(tx.now), info.lease, tx.ticks, info.lease],
        )  # fmt: skip
        index = self._lock(tx)
        index.seat(seat)
        if known == (True,):
            _give(seat, index.take(index.lock_running([seat.number])))
            # Its open slots were of a turn whose answer it may not have got.
            tx.after(partial(seat.wake, ()))
        for fence, job in list(seat.claims.items()):
            if fence not in held:
                index.give_back(job, tx.now)
        seat.doubtful = set(seat.claims)
        seat.gone = set(held) - seat.doubtful
        self._write(index)
        tx.changed = True

    def turn(
        self, worker_id: str, reports: Sequence[Report], slots: int, handlers: Handlers | None = None
    ) -> Turn:
        """Record reports, renew the lease, and claim, in one commit."""
        chair = self._chairs.get(worker_id)
        if chair is None:
            return self._link.run(lambda tx: self._hear_stranger(tx, reports))
        if self._clock is not None:
            # Under the clock of a test nobody else looks after leases.
            self._link.run(partial(self._bury_lapsed, but=chair.seat.number))
        with chair.held():

            def verb(tx: Tx) -> Turn:
                turning = _Turning(self._lock(tx), chair, reports)
                turning.ask(slots, handlers)
                turning.settle(slots, self._write)
                self._write(turning.index)
                # Before anybody is handed what it gives back: that goes by what the worker has now.
                tx.after(turning.keep)
                return turning.turn

            turn = self._link.run(verb, greets=True)
        if turn.expired:
            self._chairs.drop(worker_id)
        if self._clock is not None:
            while self._retire(self._ticks()):
                """There may be more."""
        return turn

    def _hear_stranger(self, tx: Tx, reports: Sequence[Report]) -> Turn:
        """Take what a worker says that is not here any more: most of it comes too late."""
        index = self._lock(tx)
        index.take(index.lock_ids([report.claim.job_id for report in reports]))
        answers = index.apply(reports, tx.now, cache(partial(_closings, tx, reports)))
        self._write(index)
        return Turn(answers, (), (), None, expired=True)

    def leave(self, worker_id: str) -> None:
        """Forget a worker; what it still has is given back."""

        def verb(tx: Tx) -> None:
            row = tx.execute(
                "UPDATE workers SET gone = true WHERE worker_id = %s AND NOT gone RETURNING worker",
                [worker_id],
            ).fetchone()
            if row is None:
                return
            index = self._lock(tx)
            seat = Seat(WorkerInfo(worker_id=worker_id), row[0], Handlers(), _tell_nobody, 0.0)
            index.seat(seat)
            _give(seat, index.take(index.lock_running([row[0]])))
            index.leave(worker_id, tx.now)
            self._write(index)
            tx.changed = True

        self._chairs.drop(worker_id)
        self._link.run(verb)


class _Turning:
    """One turn of a worker of this process."""

    def __init__(self, index: Locked, chair: Chair, reports: Sequence[Report]):
        self.index, self._tx = index, index.tx
        self._chair, self._seat, self._reports = chair, chair.copy(), reports
        #: What was answered last may not have come here.
        self._doubt = chair.doubt or index.tx.again
        self._over = {report.claim.fence for report in reports if report.kind is not ReportKind.NEWS}
        self._seeking: Seeking | None = None
        self.turn = Turn((), (), (), None)

    def ask(self, slots: int, handlers: Handlers | None) -> None:
        """Send all that can be asked before anything is answered."""
        tx, seat, index = self._tx, self._seat, self.index
        told = None if handlers is None else write_handlers(handlers)
        if handlers is not None:
            seat.use(handlers)
        self._renewed = tx.execute(_RENEW, [tx.ticks, told, seat.number, seat.number])
        self._running = index.lock_running([seat.number]) if self._doubt else None
        mine = {fence: job.number for fence, job in seat.claims.items()}
        said = [report.claim for report in self._reports]
        known = [mine[claim.fence] for claim in said if claim.fence in mine]
        self._known = index.lock(known) if known else None
        others = [claim.job_id for claim in said if claim.fence not in mine]
        self._others = index.lock_ids(others) if others else None
        room = slots - len(seat.claims.keys() - self._over)
        frees = any(
            report.kind is not ReportKind.NEWS and report.outcome not in _FOR_GOOD for report in self._reports
        )
        if room > 0 and not frees and not self._doubt:
            self._seeking = Seeking(index, seat, room)

    def settle(self, slots: int, write: Callable[[Locked], None]) -> None:
        """Take the answers, and let what was reported happen."""
        tx, seat, index = self._tx, self._seat, self.index
        *hello, renewed, cancels, due_us = self._renewed.fetchone() or ()
        tx.greet(hello)
        expired = not renewed
        held = {job.number: job for job in seat.claims.values()}
        if not expired:
            index.seat(seat)
        running = [] if self._running is None else index.take(self._running, held)
        for asked in (self._known, self._others):
            if asked is not None:
                index.take(asked, held)
        if self._doubt and not expired:
            self._give_back_unknown(running)
        now = tx.now
        closings = cache(partial(_closings, tx, self._reports))
        answers = index.apply(self._unsaid(), now, closings)
        for fence in self._over:
            seat.claims.pop(fence, None)
        if expired:
            self.turn = Turn(answers, (), (), None, expired=True)
            return
        seat.slots = slots
        claims = [] if self._seeking is None else self._seeking.take(now)
        is_due = due_us is not None and due_us <= now * 1e6
        if is_due:
            promote(tx)
        if len(seat.claims) < slots and (self._seeking is None or is_due):
            # What was given back just now, and what is due, may be claimed at once, once it is written.
            write(index)
            index.begin_anew()
            self._seeking = Seeking(index, seat, slots - len(seat.claims))
            claims += self._seeking.take(now)
            (due_us,) = tx.one("SELECT min(due_us) FROM standing WHERE waits")
        cancels = [fence for fence in cancels if fence in seat.claims]
        next_in = None if due_us is None else max(0.0, due_us / 1e6 - now)
        unknown = self._chair.unknown if self._seeking is None else self._seeking.unknown
        self.turn = Turn(answers, claims, [*cancels, *seat.gone], next_in, unknown)

    def keep(self) -> None:
        """It is kept on the server, and so it is here."""
        self._chair.seat, self._chair.doubt = self._seat, False
        if self._seeking is not None:
            self._chair.unknown = self._seeking.unknown

    def _give_back_unknown(self, running: Sequence[LiveJob]) -> None:
        """Give back, not begun, what this worker has by the server and was never told of."""
        seat = self._seat
        real = {job.life.fence: job for job in running}
        for fence, job in real.items():
            if fence not in seat.claims:
                self.index.give_back(job, self._tx.now)
        seat.claims = {fence: job for fence, job in seat.claims.items() if fence in real}
        seat.doubtful |= {report.claim.fence for report in self._reports if report.logs}

    def _unsaid(self) -> Sequence[Report]:
        """Give the reports without the log lines that are kept already."""
        seat, reports = self._seat, self._reports
        seat.gone -= self._over
        doubtful = {report.claim.fence for report in reports if report.logs} & seat.doubtful
        if not doubtful:
            return reports
        seat.doubtful -= doubtful
        said = _lines(self._tx, reports, doubtful)
        return [without_said(r, said) if r.claim.fence in doubtful else r for r in reports]


def _tell_nobody(_claims: Sequence[Claim]) -> None:
    """Wake somebody who leaves."""


def _give(seat: Seat, jobs: Sequence[LiveJob]) -> None:
    """Let a worker have these, in the order in which it got them."""
    seat.claims = {job.life.fence: job for job in sorted(jobs, key=lambda job: job.life.fence)}


_OF_JOBS = "job IN (SELECT job FROM jobs WHERE job_id = ANY(%s)) AND fence = ANY(%s)"


def _closings(tx: Tx, reports: Sequence[Report]) -> dict[int, Closing]:
    """What ended the claims of these reports."""
    claims = [report.claim for report in reports]
    rows = tx.execute(
        f"SELECT fence, event, happened_us, error FROM ledger WHERE {_OF_JOBS} AND event = ANY(%s)",
        [[claim.job_id for claim in claims], [claim.fence for claim in claims], _CLOSING],
    ).fetchall()
    return {fence: Closing(Event(event), us, read_text(error)) for fence, event, us, error in rows}


def _lines(tx: Tx, reports: Sequence[Report], fences: Collection[int]) -> list[Line]:
    """The log lines and displays of these claims."""
    rows = tx.execute(
        f"SELECT fence, event, cause, data, happened_us FROM ledger WHERE {_OF_JOBS} AND event IN ('log', 'output')",
        [[report.claim.job_id for report in reports], list(fences)],
    ).fetchall()
    return [
        (fence, read_text(cause) if event == Event.LOG else "", read_text(data), us)
        for fence, event, cause, data, us in rows
    ]
