"""What becomes of the rows of a batch that is handed in: which have their job, and which need one; knows no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from nbqueue.errors import InvalidCommand
from nbqueue.jobs import BatchRecord, NewBatch, NewJob, State
from nbqueue.payload import same_call
from nbqueue.rows import Rows
from nbqueue.store import Mapped
from nbqueue.stores.index import Index

__all__ = ["RowJob", "put_batch", "runs_of"]


class RowJob(NamedTuple):
    """The latest job of a row."""

    number: int
    job_id: UUID
    payload: str
    state: State

    def serves(self, new: NewJob) -> bool:
        """Whether a row that comes again needs no other job."""
        if self.job_id == new.job_id:
            return True  # the very call again, after its answer was lost
        return self.state not in (State.FAILED, State.CANCELLED) and same_call(self.payload, new.payload)


def put_batch(
    index: Index,
    batch: NewBatch,
    jobs: Sequence[NewJob],
    now: float,
    *,
    known: BatchRecord | None,
    rows: Mapping[str, RowJob],
) -> Mapped:
    """Take the rows of a batch into an index.

    Parameters
    ----------
    index : Index
        Takes the jobs.
    batch : NewBatch
        What is handed in.
    jobs : sequence of NewJob
        One for each row.
    now : float
        Seconds since the epoch.
    known : BatchRecord, optional
        The batch that has this key already.
    rows : mapping of str to RowJob
        The latest job of each of its rows, by label.
    """
    if known is not None and (known.command, known.origin) != (batch.command, batch.origin):
        raise InvalidCommand(_of_another(known, batch))
    batch_id = batch.batch_id if known is None else known.batch_id
    if isinstance(jobs, Rows) and (rows or jobs.batch_id != batch_id):
        jobs = list(jobs)
    served: dict[int, RowJob] = {}
    replaced: list[UUID] = []
    for position, job in enumerate(jobs) if rows else ():
        row = rows.get(job.row or "")
        if row is None:
            continue
        if row.serves(job):
            served[position] = row
        elif not row.state.ended:
            replaced.append(row.job_id)
    new = (
        jobs
        if isinstance(jobs, Rows)
        else [
            job if job.batch_id is batch_id or job.batch_id == batch_id else job._replace(batch_id=batch_id)
            for position, job in enumerate(jobs)
            if position not in served
        ]
    )
    number = index.job
    if isinstance(new, Rows):
        index.insert_rows(new, now)
    else:
        index.insert(new, now)
    numbers: Sequence[int] = range(number, index.job)
    counts = dict.fromkeys(State, 0)
    counts[State.PENDING] = len(new)
    if len(numbers) != len(new):
        # A call that comes again after another of its key: some of its jobs are there, though no row has them.
        there = {job.job_id: job for job in index.jobs([job.job_id for job in new])}
        numbers = [there[job.job_id].number for job in new]
        counts = dict.fromkeys(State, 0) | Counter(job.life.state for job in there.values())
    if served:
        others = iter(numbers)
        numbers = [served[at].number if at in served else next(others) for at in range(len(jobs))]
    record = BatchRecord(
        batch_id=batch_id,
        command=batch.command,
        origin=batch.origin,
        key=batch.key,
        head=batch.head,
        created_at=now if known is None else known.created_at,
        mapped_at=now,
        runs=runs_of(numbers),
    )
    for row in served.values():
        counts[row.state] += 1
    index.new_batches.append(record)
    index.books.open(record, counts)
    if replaced:
        # Nobody would see what comes of them: their rows ask for something else now.
        index.cancel(replaced, now)
    return Mapped(record, tuple(served))


def runs_of(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Give numbers as runs, each its first and its last.

    >>> runs_of([4, 5, 6, 2, 9])
    ((4, 6), (2, 2), (9, 9))
    """
    if isinstance(numbers, range):
        return ((numbers.start, numbers.stop - 1),) if numbers else ()
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] + 1 == number:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return tuple((first, last) for first, last in runs)


def _of_another(known: BatchRecord, batch: NewBatch) -> str:
    if known.command != batch.command:
        return f'the batch "{batch.key}" is of {known.command}, not of {batch.command}; give this one another key'
    mine, other = batch.origin or "no file", known.origin or "no file"
    return (
        f'the batch "{batch.key}" is of the {known.command} of {other}, and this one is of {mine}: they need not do'
        " the same; give this one another key"
    )
