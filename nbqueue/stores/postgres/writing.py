"""What a transaction has come to is written: jobs, where they stand, their events, and the counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbqueue.jobs import State
from nbqueue.lifecycle import Event
from nbqueue.stores.live import LiveJob, Row, micros
from nbqueue.stores.postgres.arrays import columns
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.locked import Locked
from nbqueue.stores.postgres.texts import write_text

__all__ = ["COPY_ROWS", "write"]

#: From so many jobs on they go by COPY, where that can be had.
COPY_ROWS = 300

_EVENT, _JOB, _DATA = 2, 3, 12

_JOBS = {
    "job": "bigint",
    "job_id": "uuid",
    "spec": "integer",
    "dispatched_us": "bigint",
    "due_us": "bigint",
    "payload": "text",
    "metadata": "text",
    "batch_id": "uuid",
    "row_label": "text",
}
_STANDING = {
    "job": "bigint",
    "spec": "integer",
    "state": "text",
    "attempt": "integer",
    "base": "integer",
    "crashes": "integer",
    "fence": "bigint",
    "tries": "integer",
    "due_us": "bigint",
    "cancelling": "boolean",
    "held": "boolean",
    "waits": "boolean",
    "worker": "integer",
}
_LEDGER = {
    "happened_us": "bigint",
    "event": "text",
    "job": "bigint",
    "fence": "bigint",
    "attempt": "integer",
    "max_attempts": "integer",
    "base": "integer",
    "crashes": "integer",
    "worker": "integer",
    "started_us": "bigint",
    "due_us": "bigint",
    "data": "text",
    "cause": "text",
    "error": "text",
    "traceback": "text",
}


_COUNTS = {"queue": "text", "state": "text", "delta": "bigint"}


def _rows_of(kinds: dict[str, str]) -> str:
    return f"unnest({', '.join(f'%s::{kind}[]' for kind in kinds.values())})"


def _insert(table: str, kinds: dict[str, str]) -> str:
    return f"INSERT INTO {table} ({', '.join(kinds)}) SELECT * FROM {_rows_of(kinds)}"


def _copy(table: str, kinds: dict[str, str]) -> str:
    return f"COPY {table} ({', '.join(kinds)}) FROM STDIN"


_SET = ", ".join(
    f"{name} = u.{name}" if name != "worker" else "worker = coalesce(u.worker, s.worker)"
    for name in _STANDING
    if name not in ("job", "spec")
)
_MOVE = f"UPDATE standing s SET {_SET} FROM {_rows_of(_STANDING)} AS u({', '.join(_STANDING)}) WHERE s.job = u.job"


class _Statement:
    """Several writes, to different tables, in one statement."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._params: list[str | None] = []

    def add(self, part: str, kinds: dict[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """Add one, if it has anything to write."""
        if rows:
            self._parts.append(part)
            self._params += columns(kinds, rows)

    def run(self, tx: Tx) -> None:
        """Do all that was added."""
        if not self._parts:
            return
        *before, last = self._parts
        with_them = ", ".join(f"part_{n} AS ({part})" for n, part in enumerate(before))
        tx.execute(f"WITH {with_them} {last}" if before else last, self._params)


def write(tx: Tx, index: Locked, now: float) -> None:
    """Write all that an index has come to, and note who is to be told of it.

    Parameters
    ----------
    tx : Tx
        Takes it.
    index : Locked
        What was locked, and what became of it.
    now : float
        Seconds since the epoch.
    """
    dispatched: list[Row] = []
    events: list[Row] = []
    for row in index.written():
        (dispatched if row[_EVENT] == Event.DISPATCHED else events).append(row)
    new = [_job(index, row) for row in dispatched]
    statement = _Statement()
    if dispatched:
        _dispatch_all(
            tx, statement, [_dispatch(row) for row in dispatched], [_stands(index, job, now) for job in new]
        )
        if events:
            # A job's dispatch comes before what happens to it; in one statement nobody could tell.
            statement.run(tx)
            statement = _Statement()
    moved = index.moved()
    deltas = [
        (name, state.value, n)
        for name, queue in index.queues.items()
        for state, n in queue.counts.items()
        if n
    ]
    statement.add(_MOVE, _STANDING, [_stands(index, job, now) for job in moved])
    statement.add(_insert("ledger", _LEDGER), _LEDGER, [_event(row) for row in events])
    statement.add(_insert("counts", _COUNTS), _COUNTS, deltas)
    statement.run(tx)
    _note(tx, index, new, moved)


def _note(tx: Tx, index: Locked, new: Sequence[LiveJob], moved: Sequence[LiveJob]) -> None:
    """Note what others may wait for: work, ends, cancellations."""
    tx.changed |= bool(index.rows or index.alike)
    tx.ended += index.ended_now()
    for job in (*new, *moved):
        life = job.life
        if life.state is State.PENDING and not life.held:
            tx.fresh.add(job.spec.queue)
        elif life.cancelling and not index.before[job.number][1].cancelling:
            tx.tell(f"turn {job.worker}")


def _dispatch_all(
    tx: Tx, statement: _Statement, jobs: Sequence[Sequence[Any]], standing: Sequence[Sequence[Any]]
) -> None:
    if tx.pipelined or len(jobs) < COPY_ROWS:
        statement.add(_insert("jobs", _JOBS), _JOBS, jobs)
        statement.add(_insert("standing", _STANDING), _STANDING, standing)
        return
    for table, kinds, rows in (("jobs", _JOBS, jobs), ("standing", _STANDING, standing)):
        with tx.cursor.copy(_copy(table, kinds)) as copying:
            for row in rows:
                copying.write_row(row)


def _dispatch(row: Row) -> tuple[Any, ...]:
    _, at_us, _, job, *_, due_us, data, _, _, _, job_id, spec, metadata, batch_id, label = row
    payload = write_text(data)
    return (job, job_id, spec, at_us, due_us, payload, _text(metadata), batch_id, _text(label))


def _event(row: Row) -> Sequence[Any]:
    if row[_DATA] is row[13] is row[14] is row[15] is None:
        return row[1:16]
    return (*row[1:_DATA], *map(_text, row[_DATA:16]))


def _text(text: str | None) -> str | None:
    return None if text is None else write_text(text)


def _job(index: Locked, row: Row) -> LiveJob:
    return index.live.get(row[_JOB]) or index.ended[row[16].int]


def _stands(index: Locked, job: LiveJob, now: float) -> tuple[Any, ...]:
    state, attempt, base, crashes, fence, tries, due_at, cancelling, held = job.life
    waits = due_at is not None and due_at > now
    return (job.number, job.spec_number, state.value, attempt, base, crashes, fence, tries, micros(due_at), cancelling,
            held, waits, index.workers.get(job.worker))  # fmt: skip
