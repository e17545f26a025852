"""What the quickstart must leave behind, read through nbqueue's public surface and not from the notebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FLIGHTS = 336_776
MONTHS = range(1, 13)
#: The month whose file is cut short, and what becomes of its job.
BROKEN = 6
OUTCOMES = ["failed", "failed", "failed", "succeeded"]
BACKOFF = (1.0, 2.0)
DELAY = 2.0
#: A row's time is that of its commit, which comes a moment after the time that a delay counts from.
COMMIT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the notebook left behind."""

    jobs: pd.DataFrame
    attempts: pd.DataFrame
    #: What the jobs returned, by job_id.
    returned: dict[str, Any]
    #: Rows in the table, by month.
    rows: dict[int, int]
    #: Files that the reports wrote.
    files: list[str]


def read(folder: Path) -> Result:
    """Read the numbers from the queue file and from the table; the notebook is not asked."""
    import duckdb

    import nbqueue as nbq

    with nbq.connect(folder / "queue.duckdb") as queues:
        jobs, attempts = queues.jobs(), queues.attempts()
        done = jobs.loc[jobs["state"] == "succeeded", "job_id"]
        returned = {job_id: queues.job(job_id).result() for job_id in done}
    with duckdb.connect(str(folder / "flights.duckdb"), read_only=True) as db:
        rows = dict(
            db.execute("select month, count(*) from flights group by month order by month").fetchall()
        )
    files = sorted(path.name for path in (folder / "reports").glob("*.csv"))
    return Result(jobs=jobs, attempts=attempts, returned=returned, rows=rows, files=files)


def faults(result: Result) -> list[str]:
    """Say in a sentence each what is off; empty if all is as it should be."""
    return [*_faults_of_imports(result), *_faults_of_reports(result), *_faults_at_the_end(result)]


def _faults_of_imports(result: Result) -> Iterator[str]:
    imports = _on(result.jobs, "imports")
    if list(imports["command"].unique()) != ["import:csv"] or len(imports) != len(MONTHS):
        yield f'the queue "imports" had {len(imports)} jobs, not {len(MONTHS)} of import:csv'
    succeeded = int((imports["state"] == "succeeded").sum())
    if succeeded != len(MONTHS):
        yield f"{succeeded} imports succeeded, not {len(MONTHS)}"
    yield from _faults_of_months("imports", imports)
    for job_id, month in zip(imports["job_id"], _months(imports), strict=True):
        tried = _attempts_of(result, job_id)
        wanted = OUTCOMES if month == BROKEN else ["succeeded"]
        if (found := list(tried["outcome"])) != wanted:
            yield f"the import of month {month} ended {', '.join(found) or 'never'}, not {', '.join(wanted)}"
        elif month == BROKEN:
            yield from _faults_of_retries(tried)


def _faults_of_retries(tried: pd.DataFrame) -> Iterator[str]:
    for number, pause in enumerate(BACKOFF):
        waited = (tried["started_at"].iloc[number + 1] - tried["finished_at"].iloc[number]).total_seconds()
        if waited < pause:
            yield f"attempt {number + 2} of month {BROKEN} came {waited:.2f} s after the one before, not {pause:g} s"
    for number, trace in enumerate(tried["traceback"].iloc[:-1], start=1):
        if "in import_csv" not in str(trace) or "CSV Error" not in str(trace):
            yield f"attempt {number} of month {BROKEN} has no traceback that names import_csv and the CSV error"


def _faults_of_reports(result: Result) -> Iterator[str]:
    reports, imports = _on(result.jobs, "reports"), _on(result.jobs, "imports")
    if list(reports["command"].unique()) != ["report:month"] or len(reports) != len(MONTHS):
        yield f'the queue "reports" had {len(reports)} jobs, not {len(MONTHS)} of report:month'
    succeeded = int((reports["state"] == "succeeded").sum())
    if succeeded != len(MONTHS):
        yield f"{succeeded} reports succeeded, not {len(MONTHS)}"
    yield from _faults_of_months("reports", reports)
    source = dict(zip(_months(imports), imports["job_id"], strict=True))
    for report in reports.to_dict("records"):
        month = _month(report["metadata"])
        if report["priority"] != month:
            yield f"the report of month {month} had the priority {report['priority']}, not {month}"
        delay = (report["scheduled_at"] - report["dispatched_at"]).total_seconds()
        if not DELAY - COMMIT <= delay <= DELAY + 0.001:
            yield f"the report of month {month} was delayed by {delay:.2f} s, not by {DELAY:g} s"
        if report["started_at"] < report["scheduled_at"]:
            yield f"the report of month {month} started before its delay was over"
        tried = _attempts_of(result, source.get(month, ""))
        inside = (tried["started_at"] <= report["dispatched_at"]) & (
            report["dispatched_at"] <= tried["finished_at"]
        )
        if not inside.any():
            yield f"the report of month {month} was not dispatched from inside its import"


def _faults_at_the_end(result: Result) -> Iterator[str]:
    unfinished = int(result.jobs["state"].isin(["pending", "running"]).sum())
    if unfinished:
        yield f"{unfinished} jobs are unfinished, not 0"
    rows = sum(result.rows.values())
    if rows != FLIGHTS:
        yield f"the number of imported rows is {rows:,}, not {FLIGHTS:,}"
    if list(result.rows) != list(MONTHS):
        yield f"the months in the table are {list(result.rows)}, not 1 to 12"
    for job in result.jobs[result.jobs["state"] == "succeeded"].to_dict("records"):
        value, month = result.returned.get(job["job_id"]), _month(job["metadata"])
        counted = value.get("flights") if isinstance(value, dict) else value
        if counted != result.rows.get(month):
            yield f"{job['command']} of month {month} counted {counted} rows, the table has {result.rows.get(month)}"
    if len(result.files) != len(MONTHS):
        yield f"{len(result.files)} report files were written, not {len(MONTHS)}"


def _on(jobs: pd.DataFrame, queue: str) -> pd.DataFrame:
    return jobs[jobs["queue"] == queue]


def _month(metadata: dict[str, Any] | None) -> int:
    return (metadata or {}).get("month", 0)


def _months(jobs: pd.DataFrame) -> list[int]:
    return [_month(metadata) for metadata in jobs["metadata"]]


def _faults_of_months(queue: str, jobs: pd.DataFrame) -> Iterator[str]:
    if sorted(found := _months(jobs)) != list(MONTHS):
        yield f"the months in the metadata of the {queue} are {sorted(found)}, not 1 to 12"


def _attempts_of(result: Result, job_id: str) -> pd.DataFrame:
    found = result.attempts[result.attempts["job_id"] == job_id]
    return found.sort_values("started_at")


def summary(result: Result, seconds: float) -> str:
    """Say what ran, in a few aligned lines."""
    broken = _on(result.jobs, "imports")
    broken = broken[[month == BROKEN for month in _months(broken)]]
    tried = _attempts_of(result, broken["job_id"].iloc[0])
    first, second = (
        (tried["started_at"].iloc[n + 1] - tried["finished_at"].iloc[n]).total_seconds() for n in range(2)
    )
    # The first line of the error says what and where; DuckDB goes on with advice.
    name, _, what = str(tried["error"].iloc[0]).splitlines()[0].partition(": ")
    broken_file = f"flights/2013-{BROKEN:02}.csv"
    lines = [
        ("imports", _line_of(result, "imports")),
        (
            "",
            f"{broken_file}, cut short, failed {len(tried) - 1} times, {first:.1f} s and {second:.1f} s apart",
        ),
        ("", f"  {name}: {what.removeprefix('Invalid Input Error: ')}"),
        ("", f"repaired and retried, it succeeded on attempt {len(tried)}"),
        ("reports", _line_of(result, "reports")),
        ("", f"each dispatched by its import, {DELAY:g} s delay, priorities {MONTHS[0]} to {MONTHS[-1]}"),
        ("flights", f"{sum(result.rows.values()):,} rows in the table, {FLIGHTS:,} expected"),
        ("notebook", f"{seconds:.1f} s from top to bottom in a fresh kernel"),
    ]
    return "\n".join(f"  {label:<10}{text}" for label, text in lines)


def _line_of(result: Result, queue: str) -> str:
    jobs, attempts = _on(result.jobs, queue), _on(result.attempts, queue)
    done = attempts.loc[attempts["outcome"] == "succeeded", "run_seconds"]
    took = f"{1000 * done.median():.0f} ms median, {1000 * done.max():.0f} ms at most"
    succeeded = int((jobs["state"] == "succeeded").sum())
    return f"{succeeded} of {len(jobs)} succeeded in {len(attempts)} attempts, {took}"
