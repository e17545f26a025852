"""What an open queue tells of itself: clock, jobs that wait, workers, queues, age; asks in SQL and changes nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from nbqueue.facade.checks.beside import LARGE
from nbqueue.facade.checks.finding import (
    Finding,
    fine,
    listed,
    note,
    of_seconds,
    some,
    wrong,
)
from nbqueue.jobs import State
from nbqueue.sizes import shown
from nbqueue.store import Store, WorkerInfo

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Look", "ages", "clock", "crashed", "drifted", "waiting", "workers"]

#: An event may be written so much ahead of a clock that is being corrected.
_SLACK = 5.0
#: A worker that has ended nothing for so long is worth a word.
_LONG = 600.0
#: A job is, that a worker had for so long and gave back, so often.
_SHIFT, _OFTEN = 60, 3
#: Of commands that wait, so many are said.
_SHOWN = 5

_CLOCK = """
    SELECT max(happened_at) AS newest,
           max(back) AS back
    FROM (SELECT happened_at, epoch(lag(happened_at) OVER (ORDER BY seq) - happened_at) AS back
          FROM (SELECT seq, happened_at FROM events ORDER BY seq DESC LIMIT 100_000))
"""
_WAITING = """
    SELECT command, queue, status::VARCHAR AS status, count(*) AS jobs, min(job_id) AS job_id,
           arg_min(error, job_id) AS error
    FROM jobs WHERE status IN ('pending', 'held') GROUP BY ALL ORDER BY jobs DESC, command, queue
"""
_RUNNING = "SELECT count(*) AS jobs FROM jobs WHERE state = 'running'"
_WORK_DONE = """
    SELECT worker, count(*) AS begun, count(*) FILTER (outcome IN ('succeeded', 'failed', 'cancelled')) AS ended,
           min(claimed_at) AS since
    FROM attempts GROUP BY worker
"""
_GIVEN_BACK = f"""
    SELECT a.command, a.job_id, count(*) AS times, max(epoch(a.finished_at - a.claimed_at)) AS longest
    FROM attempts a JOIN jobs j ON j.job_id = a.job_id
    WHERE a.outcome IN ('interrupted', 'released') AND j.state IN ('pending', 'running')
      AND epoch(a.finished_at - a.claimed_at) >= {_SHIFT}
    GROUP BY ALL HAVING count(*) >= {_OFTEN} ORDER BY times DESC
"""
_CRASHED = """
    SELECT command, count(*) AS jobs, count(*) FILTER (state = 'failed') AS failed
    FROM jobs WHERE crashes > 0 AND (state IN ('pending', 'running') OR cause = 'crashes')
    GROUP BY command ORDER BY jobs DESC
"""
_PAUSED = """
    SELECT q.queue, count(j.job_id) AS jobs FROM queues q LEFT JOIN jobs j ON j.queue = q.queue AND j.state = 'pending'
    WHERE q.paused GROUP BY q.queue ORDER BY q.queue
"""
_AGES = "SELECT count(*) AS jobs, min(finished_at) AS oldest FROM jobs WHERE finished_at IS NOT NULL"


class Look(Protocol):
    """What can be asked in SQL: a store, or an onlooker."""

    def query(self, sql: str, params: Sequence[object] = (), frames: Mapping[str, pd.DataFrame] = ...) -> Any:
        """Run one SELECT over the views."""


def _rows(look: Look, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = look.query(sql, (), {}).to_dict("records")
    return rows


def _seconds_ago(at: datetime, now: float) -> float:
    return now - at.timestamp()


# -- clock


def clock(look: Look, now: float) -> Iterator[Finding]:
    """Check the clock of this machine against what is written down."""
    import pandas as pd

    (row,) = _rows(look, _CLOCK)
    newest, back = row["newest"], row["back"]
    if newest is None or pd.isna(newest):
        return
    ahead = -_seconds_ago(newest, now)
    if ahead > _SLACK:
        yield wrong(
            "clock",
            f"the newest event is {of_seconds(ahead)} ahead of this machine's clock, which was set back since: jobs"
            " with a delay wait that much longer; set the clock (leases do not depend on it)",
        )
    elif back is not None and not pd.isna(back) and back > _SLACK:
        yield note(
            "clock",
            f"the clock was set back by {of_seconds(back)} while the queue was in use: times before and after do not"
            " compare; the order of events does not depend on it",
        )
    else:
        yield fine("clock", "no event is from the future, and none is older than the one before it")


def drifted(seconds: float) -> Iterator[Finding]:
    """Say whether the clock was set while the queue was open here."""
    if abs(seconds) > _SLACK:
        how = (
            f"ahead by {of_seconds(seconds)}, or the machine slept,"
            if seconds > 0
            else f"back by {of_seconds(-seconds)}"
        )
        yield note(
            "clock",
            f"the clock was set {how} since the queue was opened here; delays and schedules go by the clock, leases"
            " and timeouts do not",
        )


# -- what waits


def waiting(look: Look, store: Store | None) -> Iterator[Finding]:
    """Say what waits, and name what nobody here can run; without a store nobody works on the file."""
    rows = _rows(look, _WAITING)
    jobs = sum(int(row["jobs"]) for row in rows)
    names = [f"{row['command']} ({int(row['jobs']):,})" for row in rows]
    if store is None:
        (running,) = _rows(look, _RUNNING)
        if running["jobs"]:
            left = some(int(running["jobs"]), "job")
            yield note(
                "jobs",
                f"{left} ran when the file was last left; opened again, it gives them back to their queue",
            )
        if jobs:
            yield note("jobs", f"{_wait(jobs)} and nobody works on the file: {listed(names)}")
        return
    if jobs and not store.workers():
        yield wrong(
            "workers",
            f"{_wait(jobs)} and there is no worker: {listed(names)}; start one with queues.worker().start(),"
            " %nbq work or `nbqueue work`",
        )
        return
    unable = list(_unable(rows, store))
    yield from unable[:_SHOWN]
    if len(unable) > _SHOWN:
        yield wrong("handlers", f"and jobs of {some(len(unable) - _SHOWN, 'more command')}")
    if not unable:
        yield fine("handlers", "every job that waits has a worker here that knows its command")


def _wait(jobs: int) -> str:
    return f"{some(jobs, 'job')} wait{'s' if jobs == 1 else ''}"


def _unable(rows: Sequence[dict[str, Any]], store: Store) -> Iterator[Finding]:
    paused = {queue.name for queue in store.queues() if queue.paused}
    for row in rows:
        command, queue = row["command"], row["queue"]
        jobs = some(int(row["jobs"]), "job")
        if row["status"] == "held":
            yield wrong(
                "trust",
                f"{jobs} of {command} on queue {queue} held: {row['error']}; once that is mended, retry",
            )
        elif queue not in paused:
            sentence = store.explain(UUID(str(row["job_id"])))
            if sentence.startswith(("no handler", "no worker", "waiting for the kernel")):
                yield wrong("handlers", f"{jobs} of {command} on queue {queue}: {sentence}")


# -- workers


def workers(look: Look, store: Store, now: float) -> Iterator[Finding]:
    """Say who works, whose process does not answer, and who has ended nothing."""
    here = store.workers()
    troubles = [found for one in here if (found := _trouble(one))]
    yield from troubles
    done = {row["worker"]: row for row in _rows(look, _WORK_DONE)}
    for one in here:
        row = done.get(one.worker_id)
        if row is None or row["ended"] or _seconds_ago(row["since"], now) < _LONG:
            continue
        yield note(
            "workers",
            f"worker {one.worker_id} has begun {some(int(row['begun']), 'job')} in"
            f" {of_seconds(_seconds_ago(row['since'], now))} and ended none; nbqueue jobs --state running shows them",
        )
    if here and not troubles:
        yield fine("workers", f"{some(len(here), 'worker')}: {'; '.join(map(_described, here[:_SHOWN]))}")
    for row in _rows(look, _GIVEN_BACK)[:_SHOWN]:
        yield wrong(
            "workers",
            f"job {row['job_id']} ({row['command']}) was claimed {int(row['times'])} times, for up to"
            f" {of_seconds(row['longest'])}, and given back each time: its workers stop too soon for it, or it does not"
            f" end; nbqueue show {row['job_id']} says more",
        )


def _described(worker: WorkerInfo) -> str:
    served = "every queue" if worker.queues is None else ", ".join(worker.queues)
    return (
        f"process {worker.pid} on {served}, {worker.concurrency} at a time by {worker.executor},"
        f" lease {worker.lease:g} s"
    )


def _trouble(worker: WorkerInfo) -> Finding | None:
    if worker.host != platform.node() or not worker.pid:
        return None
    state = _state_of(worker.pid)
    what = f"worker {worker.worker_id}"
    if state == "gone":
        after = f"its jobs go to others once its lease of {worker.lease:g} s is over"
        return wrong("workers", f"{what} is on the list and its process {worker.pid} has gone; {after}")
    if state == "stopped":
        stopped = f"the process {worker.pid} of {what} is stopped (SIGSTOP, or Ctrl-Z in its terminal)"
        return wrong("workers", f"{stopped}; let it go on with fg, or: kill -CONT {worker.pid}")
    return None


def _state_of(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:
        return ""
    try:
        # What is after the name, which is in brackets and may have any character in it.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
    return {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(state, "")


# -- jobs that take their worker along


def crashed(look: Look) -> Iterator[Finding]:
    """Name the commands whose worker died while they ran."""
    for row in _rows(look, _CRASHED)[:_SHOWN]:
        failed = int(row["failed"])
        after = f", {failed:,} of them failed for it" if failed else "; after three deaths it is failed"
        yield note(
            "crashes",
            f"the worker of {some(int(row['jobs']), 'job')} of {row['command']} died while it ran{after}",
        )


# -- queues, and how much is kept


def _paused(look: Look, store: Store | None) -> Iterator[tuple[str, int]]:
    if store is not None:
        for queue in store.queues():
            if queue.paused:
                yield queue.name, queue.counts[State.PENDING]
        return
    for row in _rows(look, _PAUSED):
        yield row["queue"], int(row["jobs"])


def ages(
    look: Look, store: Store | None, now: float, path: Path | None, retention: str = ""
) -> Iterator[Finding]:
    """Say which queues are paused, and whether history is kept for good in a large file."""
    import pandas as pd

    for name, jobs in _paused(look, store):
        yield note("queues", f"queue {name} is paused, and {_wait(jobs)} on it; nbqueue resume {name}")
    size = path.stat().st_size if path is not None and path.exists() else 0
    (row,) = _rows(look, _AGES)
    if not row["jobs"] or pd.isna(row["oldest"]):
        return
    kept = f"{some(int(row['jobs']), 'ended job')}, the oldest of {of_seconds(_seconds_ago(row['oldest'], now))} ago"
    if retention:
        yield fine("retention", f"{kept}; {retention}")
    elif size >= LARGE:
        yield note(
            "retention",
            f"the file has {shown(size)} and keeps {kept}; prune it (nbqueue prune --older-than 30d), or"
            ' set QueueConfig(retention="30d")',
        )
    else:
        yield fine("retention", f"{kept}; they are kept until somebody prunes them, or sets a retention")
