"""What a card shows of a job or a batch, as plain data and as the HTML and text that a notebook keeps; asks nothing."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from nbqueue.facade.estimating import in_words
from nbqueue.facade.watching.glancing import Glance
from nbqueue.jobs import JobRecord, State

__all__ = ["batch_state", "job_state", "static_html"]

#: A line of an error that is longer is a dump.
_LINE = 200
#: Seconds before which a pace is none.
_TOO_SOON = 1.0
_STATES = tuple(state.value for state in State)


def job_state(glance: Glance, *, now: float, usual: float | None = None, why: str = "") -> dict[str, Any]:
    """Give what a card shows of a job; times in milliseconds since the epoch.

    Parameters
    ----------
    glance : Glance
        The job as it is.
    now : float
        Seconds since the epoch.
    usual : float, optional
        How long such a job took lately, in seconds.
    why : str
        Why it is not running.
    """
    record = glance.record
    # A claim that was given back before it ran has started nothing.
    started = record.started_at if record.state is not State.PENDING else None
    return {
        "kind": "job",
        "id": str(record.job_id),
        "command": record.spec.command,
        "queue": record.spec.queue,
        "state": record.state.value,
        "status": glance.status,
        "attempt": record.attempt,
        "max_attempts": record.max_attempts,
        "scheduled": _ms(record.scheduled_at),
        "started": _ms(started),
        "finished": _ms(record.finished_at),
        "run": _run(record),
        "progress": glance.progress if record.state is not State.PENDING else None,
        "usual": usual,
        "finish": _finish(glance, started, now, usual),
        "error": _first_line(record.error) or None,
        "why": why,
        "now": _ms(now),
        "live": True,
    }


def batch_state(
    batch: Any, *, now: float, rate: float | None = None, started: float | None = None
) -> dict[str, Any]:
    """Give what a card shows of a batch.

    Parameters
    ----------
    batch : Batch
        Asked for its progress.
    now : float
        Seconds since the epoch.
    rate : float, optional
        Rows that end in a second, lately.
    started : float, optional
        Since when it is watched.
    """
    progress = batch.progress()
    left = progress.total - progress.ended
    return {
        "kind": "batch",
        "id": str(batch.batch_id),
        "command": str(getattr(batch, "command", "")),
        "total": progress.total,
        "counts": {name: getattr(progress, name) for name in _STATES},
        "ended": progress.ended,
        "rate": rate,
        "finish": _ms(now + left / rate) if rate and left else None,
        "started": _ms(started),
        "now": _ms(now),
        "live": True,
    }


def _ms(at: float | None) -> int | None:
    return None if at is None else round(at * 1000)


def _run(record: JobRecord) -> float | None:
    if record.started_at is None or record.finished_at is None:
        return None
    return max(0.0, record.finished_at - record.started_at)


def _finish(glance: Glance, started: float | None, now: float, usual: float | None) -> int | None:
    """When it will be done, by its own progress; else by how long such jobs take."""
    if glance.record.state is not State.RUNNING or started is None:
        return None
    progress = glance.progress or {}
    done, total = progress.get("done") or 0, progress.get("total") or 0
    if 0 < done <= total and now - started < _TOO_SOON:
        return None
    if 0 < done <= total:
        return _ms(now + (now - started) * (total - done) / done)
    return None if usual is None else _ms(started + usual)


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _LINE else f"{line[: _LINE - 1]}…"


def static_html(state: Mapping[str, Any]) -> str:
    """Give what a reader without a kernel sees: no script, no style, every text escaped."""
    return _batch_html(state) if state["kind"] == "batch" else _job_html(state)


def _job_html(state: Mapping[str, Any]) -> str:
    parts = [f"<strong>{escape(state['command'])}</strong> <code>{escape(short(state['id']))}</code>"]
    parts.append(f"on {escape(state['queue'])}: <em>{escape(state['status'])}</em>")
    if state["max_attempts"] > 1 and state["attempt"]:
        parts.append(f"· attempt {state['attempt']} of {state['max_attempts']}")
    if state["run"] is not None:
        parts.append(f"· took {escape(in_words(state['run']))}")
    progress = state["progress"]
    if progress and state["state"] == "running":
        total = f" of {progress['total']:g}" if progress.get("total") else ""
        parts.append(f"· {progress['done']:g}{total}")
    error = f"<br><code>{escape(state['error'])}</code>" if state["error"] else ""
    return f"<p>{' '.join(parts)}{error}</p>"


def _batch_html(state: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in state["counts"].items() if count)
    return (
        f"<p><strong>{escape(state['command'] or 'batch')}</strong> <code>{escape(short(state['id']))}</code>: "
        f"{state['ended']:,} of {state['total']:,} ended{' · ' if counts else ''}{counts}</p>"
    )


def short(id: str) -> str:
    """Give the end of an id, which tells those of one moment apart: they begin alike.

    Example
    -------
    >>> short("0198f3a2-7c1e-7000-8000-0000a1b2c3d4")
    'a1b2c3d4'
    """
    return id[-8:]
