"""Queue files with a long history, made in seconds: jobs that really ran, over and over."""

from __future__ import annotations

from pathlib import Path

import duckdb

import nbqueue as nbq
from benchmarks.another import THREADS

__all__ = ["write_history"]

#: So many really ran.
RAN = 1_000


@nbq.job
def old(number: int) -> int:
    """Fail now and then."""
    if number % 50 == 0:
        raise ValueError("there is no such number")
    return number


def write_history(path: Path, jobs: int) -> None:
    """Write a queue file with so many jobs that have ended: a thousand that really ran, over and over."""
    with nbq.connect(path) as queues:
        queues.dispatch_many([old.call(number) for number in range(RAN)])
        queues.worker(concurrency=THREADS).start().drain()
    again = {
        "seq": "seq + k * (SELECT max(seq) FROM ledger)",
        "job": "job + k * (SELECT max(job) FROM ledger)",
        "fence": "fence + k * (SELECT max(fence) FROM ledger)",
        "job_id": "CASE WHEN job_id IS NOT NULL THEN uuidv7() END",
    }
    with duckdb.connect(str(path)) as file:
        columns = [name for name, *_ in file.execute("DESCRIBE ledger").fetchall()]
        values = ", ".join(again.get(name, name) for name in columns)
        file.execute(
            f"INSERT INTO ledger SELECT {values} FROM range(1, {jobs // RAN}) t(k), ledger ORDER BY k, seq"
        )
