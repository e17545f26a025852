"""What the command line and the magics print: where a queue is, tables, all of a job; changes nothing."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nbqueue.facade.manager import QueueManager
from nbqueue.jobs import JobRecord, State
from nbqueue.sizes import shown

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "count",
    "describe",
    "job_table",
    "one_line",
    "opening",
    "progress_of",
    "rows_of",
    "span",
    "table",
    "text_of",
]

#: Of arguments and results, that many characters are shown.
SHOWN_CHARACTERS = 400

#: How much of an id may do: ids begin with a time, so those of neighbours look alike.
ID_LENGTHS = (13, 18, 23, 28)
_TELLING_LENGTHS = """
    WITH ids AS (SELECT job_id::VARCHAR AS id FROM events
                 WHERE event = 'dispatched' AND job_id BETWEEN ?::UUID AND ?::UUID)
    SELECT count(*), count(DISTINCT left(id, 13)), count(DISTINCT left(id, 18)),
           count(DISTINCT left(id, 23)), count(DISTINCT left(id, 28))
    FROM ids
"""


def opening(queues: QueueManager) -> str:
    """Say where a queue is, what waits in it, what was interrupted, and what else is to be known of it."""
    owner = queues.owner
    how = "opened" if owner.here else f"joined process {owner.pid} ({owner.program}), which holds it"
    found = "created" if queues.created else f"{how}, {count(queues, State.PENDING)} waiting"
    lines = [f"{queues.name}: {found}"]
    lines += [f"Interrupted: {job.command} {job.job_id}: {job.reason}" for job in queues.interrupted[:5]]
    if len(queues.interrupted) > 5:
        lines.append(f"… and {len(queues.interrupted) - 5} more")
    if queues.notice:
        lines.append(queues.notice)
    return "\n".join(lines)


def count(queues: QueueManager, state: State) -> int:
    """Count a queue file's jobs of a state."""
    return sum(queue.counts[state] for queue in queues.queues())


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Align rows, the first of which is the heading; ``right`` are the columns of numbers.

    A line is cut to the width of the terminal, where there is one.
    """
    numbers = frozenset(right)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, strict=True)
        aligned = (f"{cell:{'>' if at in numbers else '<'}{width}}" for at, (cell, width) in enumerate(cells))
        text = "  ".join(aligned).rstrip()
        return text if len(text) <= room else text[: room - 1] + "…"

    return "\n".join(map(line, rows))


def span(seconds: float) -> str:
    """Give a time as people say it.

    >>> span(4.2), span(725), span(200_000)
    ('4s', '12m', '2d')
    """
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"


def one_line(text: str | None) -> str:
    """Give a text without its line breaks."""
    return " ".join((text or "").split())


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Give the rows of a frame as what JSON can hold."""
    import pandas as pd

    def plain(value: Any) -> Any:
        if isinstance(value, dict | list | tuple):
            return value
        if pd.isna(value):
            return None
        return value.isoformat() if isinstance(value, datetime) else value

    return [{str(name): plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def text_of(value: object) -> str:
    """Give a value as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)


def progress_of(progress: Mapping[str, Any]) -> str:
    """Say how far a job is.

    >>> progress_of({"done": 1.0, "total": 3, "note": "airports"})
    '1 of 3, airports'
    """
    done, total, note = (progress.get(name) for name in ("done", "total", "note"))
    counted = f"{done:g}" if total is None else f"{done:g} of {total:g}"
    return f"{counted}, {note}" if note else counted


# ------------------------------------------------------------------------------------------- many jobs


def job_table(queues: QueueManager, rows: Sequence[dict[str, Any]]) -> str:
    """Show jobs, a line each."""
    ids = [str(row["job_id"]) for row in rows]
    length = _telling_length(queues, ids) if sys.stdout.isatty() else 36
    heading = ("id", "command", "queue", "state", "attempt", "age", "seconds", "error")
    return table([heading, *(_job_row(row, length) for row in rows)], right=(4, 5, 6))


def _job_row(row: dict[str, Any], length: int) -> tuple[str, ...]:
    return (
        str(row["job_id"])[:length],
        str(row["command"]),
        str(row["queue"]),
        str(row.get("status") or row["state"]),
        f"{row['attempt']}/{row['max_attempts']}",
        span(time.time() - datetime.fromisoformat(row["dispatched_at"]).timestamp()),
        _seconds(row["run_seconds"]),
        one_line(row["error"]),
    )


def _telling_length(queues: QueueManager, ids: Sequence[str]) -> int:
    """How much of an id tells these jobs from all of their time."""
    first, last = min(ids)[:13] + "-0000-0000-000000000000", max(ids)[:13] + "-ffff-ffff-ffffffffffff"
    found, *distinct = queues.sql(_TELLING_LENGTHS, (first, last)).iloc[0].tolist()
    return next((length for length, told in zip(ID_LENGTHS, distinct, strict=True) if told == found), 36)


# --------------------------------------------------------------------------------------------- one job


def describe(receipt: Any) -> str:
    """Say everything that is known of a job: how it stands, its attempts, tracebacks and output."""
    record = receipt.record()
    parts = ["\n".join(_facts(receipt, record))]
    if cell := _cell(record):
        parts.append(f"Cell:\n{cell.rstrip()}")
    attempts = rows_of(receipt.attempts())[::-1]
    if attempts:
        heading = ("attempt", "outcome", "started", "seconds", "error")
        rows = [heading, *map(_attempt_row, attempts)]
        if any(attempt["cpu_seconds"] is not None or attempt["exit"] is not None for attempt in attempts):
            # Of attempts in processes of their own it is known what they took.
            took = [("cpu", "memory", "exit"), *map(_took, attempts)]
            rows = [(*row[:-1], *more, row[-1]) for row, more in zip(rows, took, strict=True)]
        parts.append(table(rows, right=(0, 3, 4, 5) if len(rows[0]) > len(heading) else (0, 3)))
    seen = ""
    for attempt in attempts:
        trace = (attempt["traceback"] or "").rstrip()
        if trace and trace != seen:
            parts.append(f"Traceback of attempt {attempt['attempt']}:\n{trace}")
        seen = trace
    logs = receipt.logs()
    numbers = dict.fromkeys(chunk[0] for chunk in logs.chunks)
    parts.extend(f"Output of attempt {n}:\n{str(logs.only(attempt=n)).rstrip()}" for n in numbers)
    return "\n\n".join(parts)


def _facts(receipt: Any, record: JobRecord) -> Iterator[str]:
    spec = record.spec
    facts = {
        "state": f"{record.state}, asked to stop" if record.cancelling else str(record.state),
        "why": "" if record.state is State.SUCCEEDED else receipt.why(),
        "queue": spec.queue + (f" (priority {spec.priority})" if spec.priority else ""),
        "attempt": f"{record.attempt} of {record.max_attempts}",
        "crashes": str(record.crashes or ""),
        "dispatched": _when(record.dispatched_at),
        "scheduled": _when(record.scheduled_at) if record.scheduled_at > record.dispatched_at else "",
        "started": _when(record.started_at),
        "finished": _when(record.finished_at),
        "worker": record.worker,
        "arguments": "" if _cell(record) else _shortened(_arguments(record.payload)),
        "metadata": _pairs(json.loads(record.metadata)) if record.metadata else "",
        "result": _shortened(record.result),
        "error": one_line(record.error),
    }
    yield f"{spec.command}  {record.job_id}"
    yield from (f"  {name:<11} {fact}" for name, fact in facts.items() if fact)


def _when(at: float | None) -> str:
    if at is None:
        return ""
    left = at - time.time()
    distance = f"in {span(left)}" if left > 0 else f"{span(-left)} ago"
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M:%S} ({distance})"


def _arguments(payload: str) -> str:
    """Stored arguments as they would be written in a call; what is encoded is shown as it is stored."""
    call = json.loads(payload) if payload.startswith("{") else {}
    if not isinstance(call.get("args"), list):
        return f"({len(payload):,} characters, encoded)"
    return ", ".join(filter(None, (*map(text_of, call["args"]), _pairs(call.get("kwargs") or {}))))


def _cell(record: JobRecord) -> str:
    """The text of a ``%%job`` cell, "" for any other job."""
    if not record.spec.origin.startswith("kernel:"):
        return ""
    call = json.loads(record.payload)
    return str(call.get("kwargs", {}).get("cell", "")) if isinstance(call, dict) else ""


def _pairs(values: dict[str, object]) -> str:
    return ", ".join(f"{name}={text_of(value)}" for name, value in values.items())


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _attempt_row(attempt: dict[str, Any]) -> tuple[str, ...]:
    started = attempt["started_at"]
    return (
        str(attempt["attempt"]),
        str(attempt["outcome"]),
        "" if started is None else f"{datetime.fromisoformat(started).astimezone():%Y-%m-%d %H:%M:%S}",
        _seconds(attempt["run_seconds"]),
        one_line(attempt["error"]),
    )


def _took(attempt: dict[str, Any]) -> tuple[str, str, str]:
    memory = attempt["peak_memory"]
    return (
        _seconds(attempt["cpu_seconds"]),
        "" if memory is None else shown(memory),
        attempt["exit"] or "",
    )


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f}"
