"""The ledger of one process: what it dispatched, what it received, and how that stands here; calls no SQS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast
from uuid import UUID

from nbqueue.jobs import NewBatch, NewJob, State
from nbqueue.lifecycle import RetryAsked, advance
from nbqueue.store import Report, ReportKind
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.index import Index
from nbqueue.stores.live import Seat
from nbqueue.stores.owner import FileHeldError
from nbqueue.stores.sqs.address import Address
from nbqueue.stores.sqs.hand import Hand, Held, Order
from nbqueue.stores.sqs.message import Draft, Standing
from nbqueue.stores.sqs.reach import Reach

__all__ = ["Desk", "Openings", "open_desk"]

#: So many processes of one user on one machine have a ledger each.
_LEDGERS_MAX = 1_000


class _Opening(NamedTuple):
    """A worker that is here."""

    #: None: every queue.
    queues: tuple[str, ...] | None
    room: int

    def serves(self, queue: str) -> bool:
        return self.queues is None or queue in self.queues


class Openings:
    """How many messages more the workers here would take; changes wake who waits for room."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._openings: tuple[_Opening, ...] = ()
        #: The queues that the ledger knows.
        self.known: tuple[str, ...] = ()
        #: Is called, in the ledger's thread, when other queues are served.
        self.on_queues: Callable[[], None] | None = None

    def publish(self, openings: tuple[_Opening, ...]) -> None:
        """Say how it stands."""
        if openings == self._openings:
            return
        before = {one.queues for one in self._openings}
        with self._changed:
            self._openings = openings
            self._changed.notify_all()
        if self.on_queues is not None and before != {one.queues for one in openings}:
            self.on_queues()

    def served(self, known: Sequence[str]) -> list[str]:
        """Give the queues that somebody works on: those that are named, and for who takes every queue these."""
        openings = self._openings
        named = [name for one in openings for name in one.queues or ()]
        everything = list(known) if any(one.queues is None for one in openings) else []
        return list(dict.fromkeys([*named, *everything]))

    def room(self, queue: str) -> int:
        """Give how many messages of a queue would be taken."""
        return sum(max(0, one.room) for one in self._openings if one.serves(queue))

    def wait(self, until: Callable[[], bool], timeout: float) -> None:
        """Wait until this holds, which is asked when something has changed."""
        with self._changed:
            self._changed.wait_for(until, timeout)

    def wake(self) -> None:
        """Have those who wait ask again."""
        with self._changed:
            self._changed.notify_all()


class Desk(DuckDBStore):
    """A ledger that hands out only what is in hand.

    Parameters
    ----------
    path : Path
        Its file.
    hand : Hand
        The messages that are here.
    tell : Callable[[Sequence[Order]], None]
        Is told what is to be done in SQS.
    name : str
        What people call the store.
    clock, ticks
        As of ``DuckDBStore``.
    """

    def __init__(
        self,
        path: Path,
        hand: Hand,
        tell: Callable[[Sequence[Order]], None],
        *,
        name: str,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ):
        self.hand = hand
        self.openings = Openings()
        self._tell = tell
        super().__init__(path, clock=clock, ticks=ticks)
        self.path = self._path
        self.name = f"{name} (ledger {self._path})"

    def _new_index(self) -> Index:
        numbers = self._ledger.numbers()
        # What was received in a commit that failed has no number that counts.
        there = self._ledger.known([held.job_id for held in self.hand.all()])
        for held in self.hand.all():
            if held.job_id not in there:
                self.hand.let_go(held.job_id)
        return Reach(self._ledger, numbers, self._chance, hand=self.hand, tell=self._tell, ticks=self._ticks)

    def _fill_open_slots(self, index: Index) -> list[tuple[Seat, list]]:  # type: ignore[type-arg]
        handed = super()._fill_open_slots(index)
        reach = cast("Reach", index)
        if len(self.openings.known) != len(index.queues):
            self.openings.known = tuple(index.queues)
        self.openings.publish(
            tuple(
                _Opening(seat.info.queues, reach.room(seat)) for seat in index.seats.values() if not seat.away
            )
        )
        return handed

    # -- what is asked before something is sent

    def known(self, jobs: Sequence[NewJob]) -> set[UUID]:
        """Which of these jobs there are already."""
        return self._run(lambda index: cast("Reach", index).taken(jobs))

    def drafts(self, ids: Sequence[UUID], fences: Sequence[int] | None) -> list[Draft]:
        """Give messages for those of these jobs that a retry would let run again from their end."""

        def verb(index: Index) -> list[Draft]:
            now, reach = self._clock(), cast("Reach", index)
            seen = None if fences is None else dict(zip(ids, fences, strict=True))
            found = []
            for job in index.jobs(list(dict.fromkeys(ids))):
                again = seen is None or seen[job.job_id] == job.life.fence
                if job.life.state.ended and again:
                    step = advance(job.life, RetryAsked(), job.spec, now=now)
                    draft = reach.draft(job, self._ledger.get_code(job.spec.code))
                    found.append(
                        draft._replace(job=draft.job._replace(due_at=None), standing=Standing.of(step.life))
                    )
            return found

        return self._run(verb)

    def rows_to_send(self, batch: NewBatch, jobs: Sequence[NewJob]) -> list[NewJob] | None:
        """Give those jobs of a batch that its rows need; None where the ledger knows it, or has to refuse it."""

        def verb(index: Index) -> list[NewJob] | None:
            self._write_out(index)
            known = self._ledger.batch(batch.key or batch.batch_id)
            if known is None:
                return list(jobs)
            if not batch.key or (known.command, known.origin) != (batch.command, batch.origin):
                return None
            rows = self._ledger.batch_rows(known.batch_id)
            return [
                job._replace(batch_id=known.batch_id)
                for job in jobs
                if (row := rows.get(job.row or "")) is None or not row.serves(job)
            ]

        return self._run(verb)

    def waits_afar(self, ids: Sequence[UUID]) -> dict[UUID, float]:
        """Give those of these jobs that wait for their time where this process cannot reach them, and until when."""

        def verb(index: Index) -> dict[UUID, float]:
            now, ticks, found = self._clock(), self._ticks(), {}
            for job in index.jobs(ids):
                life, job_id = job.life, job.job_id
                away = self.hand.hidden(job_id)
                afar = self.hand.get(job_id) is None and (away is None or away.until <= ticks)
                if afar and life.state is State.PENDING and (life.held or (life.due_at or 0.0) > now):
                    found[job_id] = life.due_at or now
            return found

        return self._run(verb)

    def is_afar(self, job_id: UUID) -> bool:
        """Whether a job waits for a worker, and nothing of it is here."""

        def verb(index: Index) -> bool:
            job = next(iter(index.jobs((job_id,))), None)
            if job is None or job.life.state is not State.PENDING or job.life.held:
                return False
            away = self.hand.hidden(job_id)
            near = self.hand.get(job_id) is not None or (away is not None and away.until > self._ticks())
            return not near and job_id not in self.hand.alone

        return self._run(verb)

    # -- what comes

    def arrive(self, arrivals: Sequence[Held]) -> int:
        """Take messages in; gives of how many the jobs may run."""

        def verb(index: Index) -> int:
            now, reach = self._clock(), cast("Reach", index)
            return sum([reach.admit(held, now) for held in arrivals])

        return self._run(verb)

    def tidy(self) -> None:
        """Give back what nobody here runs."""
        self._run(lambda index: cast("Reach", index).tidy())

    def room_of(self, worker_id: str, slots: int, reports: Sequence[Report]) -> tuple[list[str], int]:
        """Give the queues of a worker, in its order, and how many jobs it would take once it has reported this."""

        def verb(index: Index) -> tuple[list[str], int]:
            seat = index.seats.get(worker_id)
            if seat is None or seat.away:
                return [], 0
            over = {report.claim.fence for report in reports if report.kind is not ReportKind.NEWS}
            queues = list(index.queues) if seat.info.queues is None else list(seat.info.queues)
            room = cast("Reach", index).room(seat) - seat.slots + slots
            return queues, room + len(over & seat.claims.keys())

        return self._run(verb)

    def open_rooms(self) -> list[tuple[str, list[str], int]]:
        """Give the workers with open slots."""

        def verb(index: Index) -> list[tuple[str, list[str], int]]:
            reach = cast("Reach", index)
            return [
                (
                    i,
                    list(index.queues) if seat.info.queues is None else list(seat.info.queues),
                    reach.room(seat),
                )
                for i, seat in index.seats.items()
                if not seat.away
            ]

        return self._run(verb)


def open_desk(
    address: Address,
    folder: Path,
    hand: Hand,
    tell: Callable[[Sequence[Order]], None],
    *,
    clock: Callable[[], float],
    ticks: Callable[[], float],
) -> Desk:
    """Open the ledger of this process: the one that the address names, else the first that nobody else has open.

    Raises
    ------
    QueueUnavailable
        Where there can be none, or another process has the one that is named.
    """
    if address.ledger:
        path = Path(address.ledger).expanduser()
        return Desk(path, hand, tell, name=address.name, clock=clock, ticks=ticks)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(1, _LEDGERS_MAX):
        try:
            path = folder / f"sqs-{address.digest}-{number}.duckdb"
            return Desk(path, hand, tell, name=address.name, clock=clock, ticks=ticks)
        except FileHeldError as error:
            held = error
    raise held
