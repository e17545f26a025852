"""What the tables, and the commits that wait for them, tell of single jobs; each call runs on the connection given.

What takes no waiting commits is for tables that have everything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from nbqueue.jobs import NewJob, Spec
from nbqueue.lifecycle import LIFECYCLE_EVENTS, STATE_AFTER, Event, Life
from nbqueue.stores import schema
from nbqueue.stores.live import LiveJob
from nbqueue.stores.repeats import Closing, Line
from nbqueue.stores.writes import Writes, spec_of

if TYPE_CHECKING:
    import duckdb

__all__ = ["MOVES", "closings_of", "fold", "jobs_of", "known_of", "knows_between", "lines_of"]

#: What a job's standing depends on, beside its dispatch.
MOVES = ", ".join(f"'{event}'" for event in LIFECYCLE_EVENTS if event is not Event.DISPATCHED)
_DISPATCH = "job, happened_us, due_us, data, job_id, spec, metadata, batch_id, row_label"
# A job's standing is in its last lifecycle event, and in the last claim.
_FOLD = """
    job,
    max_by(event, seq) AS event,
    max_by(happened_us, seq) AS happened_us,
    max_by(attempt, seq) AS attempt,
    max_by(max_attempts, seq) AS max_attempts,
    max_by(coalesce(base, 0), seq) AS base,
    max_by(coalesce(crashes, 0), seq) AS crashes,
    max(fence) AS fence,
    max_by(coalesce(due_us, 0), seq) AS due_us,
    max_by(started_us, seq) FILTER (started_us IS NOT NULL) AS started_us,
    max_by(worker, seq) FILTER (worker IS NOT NULL) AS worker,
    max_by(coalesce(data, ''), seq) AS data,
    max_by(coalesce(error, ''), seq) FILTER (error IS NOT NULL OR event IN ('succeeded', 'retried')) AS error,
    max_by(coalesce(cause, ''), seq) FILTER (event NOT IN ('claimed', 'cancelling')) AS cause,
    max_by(coalesce(traceback, ''), seq) FILTER (error IS NOT NULL OR event IN ('succeeded', 'retried')) AS traceback
"""
_JOB_ID = list(schema.COLUMNS).index("job_id")


def jobs_of(con: duckdb.DuckDBPyConnection, ids: Sequence[UUID]) -> list[LiveJob]:
    """These jobs, wherever they stand."""
    rows = con.execute(
        f"SELECT {_DISPATCH} FROM ledger WHERE event = 'dispatched' AND job_id IN (SELECT unnest(?::UUID[]))",
        [[str(i) for i in ids]],
    ).fetchall()
    if not rows:
        return []
    specs = _specs_of(con, {row[5] for row in rows})
    jobs = {row[0]: _dispatched(row, specs) for row in rows}
    for job in fold(con, "SELECT unnest(?::BIGINT[])", [list(jobs)]):
        jobs[job.number] = job
    return list(jobs.values())


def known_of(con: duckdb.DuckDBPyConnection, waiting: Sequence[Writes], ids: Sequence[UUID]) -> set[UUID]:
    """Which of these ids are taken."""
    asked = set(ids)
    new = {row[_JOB_ID] for writes in waiting for row in writes.rows if row[_JOB_ID] in asked}
    rows = con.execute(
        "SELECT job_id FROM ledger WHERE event = 'dispatched' AND job_id IN (SELECT unnest(?::UUID[]))",
        [[str(i) for i in asked - new]],
    ).fetchall()
    return new | {job_id for (job_id,) in rows}


def knows_between(con: duckdb.DuckDBPyConnection, first: UUID, last: UUID) -> bool:
    """Whether any id from ``first`` to ``last`` is taken."""
    # Bounds that are constants keep all of the ledger from being read whose ids lie elsewhere.
    found = con.execute(
        f"SELECT EXISTS (FROM ledger WHERE job_id BETWEEN '{first}'::UUID AND '{last}'::UUID)"
    )
    return bool(found.fetchall()[0][0])


def closings_of(con: duckdb.DuckDBPyConnection, fences: Collection[int]) -> dict[int, Closing]:
    """What ended these claims, by fence; of one that goes on, nothing."""
    rows = con.execute(
        f"SELECT fence, event, happened_us, coalesce(error, '') FROM ledger WHERE event IN ({MOVES})"
        " AND event <> 'claimed' AND fence IN (SELECT unnest(?::BIGINT[]))",
        [list(fences)],
    ).fetchall()
    return {fence: Closing(Event(event), happened_us, error) for fence, event, happened_us, error in rows}


def lines_of(con: duckdb.DuckDBPyConnection, fences: Collection[int]) -> list[Line]:
    """The log lines and displays of these claims."""
    return con.execute(
        "SELECT fence, CASE event WHEN 'log' THEN cause ELSE '' END, coalesce(data, ''), happened_us"
        " FROM ledger WHERE event IN ('log', 'output') AND fence IN (SELECT unnest(?::BIGINT[]))",
        [list(fences)],
    ).fetchall()


def fold(con: duckdb.DuckDBPyConnection, which: str, params: Sequence[object] = ()) -> list[LiveJob]:
    """Give jobs that have moved as their last events left them, those that ``which`` selects."""
    cursor = con.execute(
        f"SELECT {_FOLD} FROM ledger WHERE event IN ({MOVES}) AND job IN ({which}) GROUP BY job", list(params)
    )
    names = [column[0] for column in cursor.description]
    folded = {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}
    if not folded:
        return []
    rows = con.execute(
        f"SELECT {_DISPATCH} FROM ledger WHERE event = 'dispatched' AND job IN (SELECT unnest(?::BIGINT[]))",
        [list(folded)],
    ).fetchall()
    specs = _specs_of(con, {row[5] for row in rows})
    workers = dict(con.execute("SELECT worker, worker_id FROM workers").fetchall())
    return [_stand(_dispatched(row, specs), folded[row[0]], workers) for row in rows]


def _specs_of(con: duckdb.DuckDBPyConnection, numbers: set[int]) -> dict[int, Spec]:
    """Specs by their numbers."""
    rows = con.execute(
        "SELECT * FROM specs WHERE spec IN (SELECT unnest(?::INTEGER[]))", [list(numbers)]
    ).fetchall()
    return {row[0]: spec_of(row) for row in rows}


def _dispatched(row: tuple[Any, ...], specs: dict[int, Spec]) -> LiveJob:
    number, happened_us, due_us, data, job_id, spec, metadata, batch_id, label = row
    due_at = None if due_us is None else due_us / 1e6
    new = NewJob(job_id, specs[spec], data, metadata or "", due_at, batch_id, label)
    return LiveJob(number, new, spec, happened_us / 1e6, Life(due_at=due_at))


def _stand(job: LiveJob, fold: dict[str, Any], workers: dict[int, str]) -> LiveJob:
    """Put a dispatched job where its last event left it."""
    event = Event(fold["event"])
    due_us = fold["due_us"] or None
    base = fold["base"]
    job.life = Life(
        STATE_AFTER[event],
        fold["attempt"] or 0,
        base,
        fold["crashes"],
        fold["fence"] or 0,
        max(1, (fold["max_attempts"] or 1) - base),
        None if due_us is None else due_us / 1e6,
        event is Event.CANCELLING,
        event is Event.REFUSED,
    )
    job.worker = workers.get(fold["worker"], "")
    job.started_at = None if fold["started_us"] is None else fold["started_us"] / 1e6
    job.finished_at = fold["happened_us"] / 1e6
    result = fold["data"] if event is Event.SUCCEEDED else ""
    job.last = (result, fold["error"] or "", fold["cause"] or "", fold["traceback"] or "")
    return job
