"""What an empty index takes over from a file that was closed, or left: every job that has not ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nbqueue.jobs import State
from nbqueue.lifecycle import LIFECYCLE_EVENTS, STATE_AFTER, Event
from nbqueue.store import WorkerInfo
from nbqueue.stores.index import Index
from nbqueue.stores.live import LiveJob, QueueState
from nbqueue.stores.recall import MOVES, fold
from nbqueue.stores.writes import spec_of

if TYPE_CHECKING:
    import duckdb

__all__ = ["Recovered", "restore"]

_ENDINGS = ", ".join(f"'{event}'" for event in LIFECYCLE_EVENTS if STATE_AFTER[event].ended)


@dataclass(slots=True)
class Recovered:
    """What stood open in a file: the jobs that were running, by the fence of their claim, and who had them."""

    running: list[LiveJob] = field(default_factory=list)
    #: By id the number that each of these workers has, and what is known of it: it takes nothing yet.
    workers: dict[str, tuple[int, WorkerInfo]] = field(default_factory=dict)


def restore(con: duckdb.DuckDBPyConnection, index: Index, now: float) -> Recovered:
    """Fill an empty index with what has not ended; the tables have everything."""
    for row in con.execute("SELECT * FROM specs ORDER BY spec").fetchall():
        index.restore_spec(row[0], spec_of(row))
    for name, paused in con.execute("SELECT queue, paused FROM queues").fetchall():
        index.queues[name] = QueueState(paused=paused)
    index.horizon = con.execute("SELECT max(job_id) FROM ledger").fetchall()[0][0]
    recovered = Recovered()
    _restore_untouched(con, index, now)
    open_jobs = fold(
        con,
        # First which they are: folding the texts of all that has ended would hold them in memory at once.
        f"SELECT job FROM ledger WHERE event IN ({MOVES})"
        f" GROUP BY job HAVING max_by(event, seq) NOT IN ({_ENDINGS})",
    )
    for job in open_jobs:
        index.keep(job)
        spec = job.spec
        index.queues[spec.queue].counts[job.life.state] += 1
        if job.life.state is State.RUNNING:
            recovered.running.append(job)
        elif not job.life.held:
            index.lanes.push(spec, job.number, job.number, job.life.due_at)
    # A worker's claims are in the order it got them.
    recovered.running.sort(key=lambda job: job.life.fence)
    recovered.workers = _workers(con, {job.worker for job in recovered.running})
    ended = con.execute(
        "SELECT d.spec, e.event, count(*)"
        f" FROM (SELECT job, max_by(event, seq) AS event FROM ledger WHERE event IN ({MOVES}) GROUP BY job) e"
        " JOIN (SELECT job, spec FROM ledger WHERE event = 'dispatched') d USING (job)"
        f" WHERE e.event IN ({_ENDINGS}) GROUP BY ALL"
    ).fetchall()
    for spec_number, event, count in ended:
        index.queues[index.specs[spec_number].queue].counts[STATE_AFTER[Event(event)]] += count
    return recovered


def _workers(con: duckdb.DuckDBPyConnection, worker_ids: set[str]) -> dict[str, tuple[int, WorkerInfo]]:
    if not worker_ids:
        return {}
    rows = con.execute(
        "SELECT worker, worker_id, host, pid, executor, concurrency, lease FROM workers"
        " WHERE worker_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY worker",
        [list(worker_ids)],
    ).fetchall()
    found = {}
    for number, worker_id, host, pid, executor, concurrency, lease in rows:
        info = WorkerInfo(
            worker_id=worker_id, queues=(), concurrency=concurrency, executor=executor, host=host, pid=pid
        )
        # None is of a version that did not write it down.
        found[worker_id] = (number, info if lease is None else replace(info, lease=lease))
    return found


def _restore_untouched(con: duckdb.DuckDBPyConnection, index: Index, now: float) -> None:
    """Push what was only dispatched into the lanes, as runs of numbers and never as objects."""
    if not con.execute("SELECT EXISTS (FROM ledger)").fetchall()[0][0]:
        return  # numpy comes with every result of the kind below: an empty file opens without it
    found = con.execute(
        "SELECT job, spec, coalesce(due_us, -1) AS due_us FROM ledger WHERE event = 'dispatched' AND job NOT IN"
        f" (SELECT job FROM ledger WHERE event IN ({MOVES})) ORDER BY job"
    ).fetchnumpy()
    jobs, specs, dues = found["job"], found["spec"], found["due_us"]
    if not len(jobs):
        return
    import numpy as np

    dues = np.where(dues <= now * 1e6, -1, dues)
    breaks = np.flatnonzero((np.diff(jobs) != 1) | (np.diff(specs) != 0) | (np.diff(dues) != 0)) + 1
    starts = np.concatenate(([0], breaks))
    ends = np.concatenate((breaks, [len(jobs)])) - 1
    runs = zip(
        jobs[starts].tolist(),
        jobs[ends].tolist(),
        specs[starts].tolist(),
        dues[starts].tolist(),
        strict=True,
    )
    for first, last, spec_number, due_us in runs:
        spec = index.specs[spec_number]
        index.lanes.push(spec, first, last, None if due_us < 0 else due_us / 1e6)
        index.queues[spec.queue].counts[State.PENDING] += last - first + 1
