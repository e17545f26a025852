"""What one transaction has locked, as an index: the verbs of every store work on it as they do on a store's memory.

It begins empty and is thrown away, so its counts are what the transaction changes, and its rows what it appends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any
from uuid import UUID

from nbqueue.jobs import Claim, NewJob, Spec, State
from nbqueue.lifecycle import Life
from nbqueue.stores.index import Index
from nbqueue.stores.live import LiveJob, Numbers, QueueState, Row, Seat
from nbqueue.stores.postgres.link import HELLO, Cursor, Tx
from nbqueue.stores.postgres.specs import LOCK, Specs
from nbqueue.stores.postgres.texts import read_text

__all__ = ["LIFE", "Locked", "life_of", "new_job_of"]

#: The columns of ``standing`` that make a life, for ``life_of``.
LIFE = "s.state, s.attempt, s.base, s.crashes, s.fence, s.tries, s.due_us, s.cancelling, s.held"
#: The columns of ``jobs`` that make a new job, for ``new_job_of``.
DISPATCH = "j.job_id, j.due_us, j.payload, j.metadata, j.batch_id, j.row_label"

_PREPARE = f"SELECT {HELLO}, take_numbers('job_numbers', %s), {LOCK}"
_STATES = {state.value: state for state in State}
_LOCKED = f"SELECT s.job, s.spec, {LIFE}, j.job_id, j.dispatched_us, j.batch_id, w.worker_id"
_FROM = "FROM standing s JOIN jobs j USING (job) LEFT JOIN workers w ON w.worker = s.worker"
_seq = itemgetter(0)


def life_of(row: Sequence[Any]) -> Life:
    """Give where a job stands, out of the columns of ``LIFE``."""
    state, attempt, base, crashes, fence, tries, due_us, cancelling, held = row
    due_at = None if due_us is None else due_us / 1e6
    return Life(_STATES[state], attempt, base, crashes, fence, tries, due_at, cancelling, held)


def new_job_of(spec: Spec, row: Sequence[Any]) -> NewJob:
    """Give what was dispatched, out of the columns of ``DISPATCH``."""
    job_id, due_us, payload, metadata, batch_id, label = row
    return NewJob(
        job_id,
        spec,
        read_text(payload),
        read_text(metadata),
        None if due_us is None else due_us / 1e6,
        batch_id,
        None if label is None else read_text(label),
    )


class _Queues(dict[str, QueueState]):
    def __missing__(self, name: str) -> QueueState:
        state = self[name] = QueueState()
        return state


class Locked(Index):
    """The rows that a transaction has locked.

    Parameters
    ----------
    tx : Tx
        The transaction.
    specs : Specs
        Gives specs by their numbers.
    chance : Callable[[], float]
        For the jitter of backoffs.
    """

    def __init__(self, tx: Tx, specs: Specs, chance: Callable[[], float]):
        super().__init__(None, Numbers(), chance)
        self.tx = tx
        self.queues = _Queues()
        self.fresh = False
        #: The jobs that were here before, by number, and where they stood.
        self.before: dict[int, tuple[LiveJob, Life]] = {}
        #: The numbers that workers have.
        self.workers: dict[str, int] = {}
        #: Ids that are taken.
        self.taken: set[UUID] = set()
        self._all_specs = specs

    # -- what is locked

    def lock(self, numbers: Collection[int]) -> Cursor:
        """Ask for the rows of these jobs, in the order in which everybody locks them; ``take`` waits for them."""
        return self.tx.execute(
            f"{_LOCKED} {_FROM} WHERE s.job = ANY(%s) ORDER BY s.job FOR UPDATE OF s", [list(numbers)]
        )

    def lock_ids(self, ids: Collection[UUID]) -> Cursor:
        """Ask for the rows of the jobs of these ids."""
        return self.tx.execute(
            f"{_LOCKED} {_FROM} WHERE s.job IN (SELECT job FROM jobs WHERE job_id = ANY(%s))"
            " ORDER BY s.job FOR UPDATE OF s",
            [list(ids)],
        )

    def lock_running(self, workers: Collection[int]) -> Cursor:
        """Ask for what these workers have."""
        return self.tx.execute(
            f"{_LOCKED} {_FROM} WHERE s.worker = ANY(%s) AND s.state = 'running' ORDER BY s.job FOR UPDATE OF s",
            [list(workers)],
        )

    def take(self, asked: Cursor, held: Mapping[int, LiveJob] | None = None) -> list[LiveJob]:
        """Wait for rows that were asked for; of what is ``held`` already, by number, only where it stands is taken.

        What was dispatched is not read, but for its id: jobs that are only moved need no payload.
        """
        rows = asked.fetchall()
        specs = self.know({row[1] for row in rows})
        jobs = []
        for number, spec, *life, job_id, dispatched_us, batch_id, worker_id in rows:
            if number in self.before:
                # It was asked for twice; what became of one of two would be written of the other.
                jobs.append(self.before[number][0])
                continue
            job = None if held is None else held.get(number)
            if job is None:
                new = NewJob(job_id, specs[spec], "", batch_id=batch_id)
                job = LiveJob(number, new, spec, dispatched_us / 1e6, Life())
            job.life = life_of(life)
            job.worker = worker_id or ""
            self.hold(job)
            jobs.append(job)
        return jobs

    def hold(self, job: LiveJob) -> None:
        """Take a job that is locked."""
        self.before[job.number] = (job, job.life)
        if job.life.state.ended:
            self.ended[job.job_id.int] = job
        else:
            self.keep(job)

    def know(self, numbers: Collection[int]) -> dict[int, Spec]:
        """Give the specs of these numbers, and know them."""
        self.specs = self._all_specs.of(self.tx, numbers)
        return self.specs

    # -- numbers

    def prepare(self, jobs: Sequence[NewJob]) -> None:
        """Get what new jobs need: numbers for them, and for their specs."""
        if self.tx.again:
            taken = self.tx.execute(
                "SELECT job_id FROM jobs WHERE job_id = ANY(%s)", [[j.job_id for j in jobs]]
            )
            self.taken |= {job_id for (job_id,) in taken.fetchall()}
        specs = {job.spec for job in jobs}
        *hello, self.job, locked = self.tx.one(_PREPARE, [max(1, len(jobs)), self._all_specs.guess(specs)])
        self.tx.greet(hello)
        self._spec_numbers = self._all_specs.numbers(self.tx, specs, locked)
        self.specs = {number: spec for spec, number in self._spec_numbers.items()}

    def seat(self, seat: Seat) -> None:
        """Take a worker whose row is locked."""
        self.seats[seat.info.worker_id] = seat
        self.workers[seat.info.worker_id] = seat.number

    def claim_locked(self, seat: Seat, jobs: Iterable[tuple[LiveJob, int]], now: float) -> list[Claim]:
        """Hand these jobs to a worker, each with the fence that was taken for it once it was locked: fences rise."""
        claims: list[Claim] = []
        for job, fence in jobs:
            self._fence = fence - 1
            self._claim_numbers(seat, [job.number], now, claims)
        return claims

    def number_fences(self, first: int) -> None:
        """Number claims from here on."""
        self._fence = first - 1

    def _known(self, jobs: Sequence[NewJob]) -> set[UUID]:
        return self.taken

    def add_queue(self, name: str) -> None:
        """Nothing: a queue is made with the first spec that names it."""

    # -- what came of it

    def written(self) -> list[Row]:
        """Give the rows that it appends, one by one and in the order in which they came."""
        rows = self.rows + [row for alike in self.alike for row in alike.rows()]
        rows.sort(key=_seq)
        return rows

    def begin_anew(self) -> None:
        """Forget what is written, and lock more."""
        self.rows, self.alike = [], []
        self.queues.clear()
        for books in (self.before, self.live, self._by_id, self.ended):
            books.clear()

    def moved(self) -> list[LiveJob]:
        """Those that were here before and stand elsewhere now."""
        return [job for job, life in self.before.values() if job.life is not life]

    def ended_now(self) -> list[UUID]:
        """Those that have ended."""
        return [
            job.job_id
            for job in self.ended.values()
            if job.number not in self.before or not self.before[job.number][1].state.ended
        ]
