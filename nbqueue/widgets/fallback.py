"""What stands for a panel where no kernel is: a page without a script, and a text; and when the stored one is renewed.

The page is read on GitHub too, which takes out styles and classes, so it is plain tables whose layout is in attributes;
and in light and dark, so it has no colours of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from html import escape
from pathlib import PurePath
from typing import Any

__all__ = ["Renewal", "as_html", "as_text"]

_JOBS = 20
_FAILURES = 5
_STATES = ("pending", "running", "succeeded", "failed", "cancelled")
#: Nothing has changed for so long, and the stored page is so old, in seconds.
_QUIET = 2.0
_APART = 30.0

# GitHub keeps the attribute and drops the style; Jupyter's own style sheet is stronger than the attribute.
_LEFT = 'align="left" style="text-align:left"'


def as_html(snapshot: dict[str, Any]) -> str:
    """Give the state of a panel as HTML that needs nothing else; every text in it is escaped."""
    jobs = snapshot["jobs"]
    rows = [jobs["rows"][job_id] for job_id in jobs["order"][:_JOBS]]
    parts = [
        f"<p><b>nbqueue</b> <code>{escape(_name(snapshot))}</code> <i>as of {_time(snapshot['now'])}</i></p>",
        _table("Queues", ("queue", *_STATES), (_queue(queue) for queue in snapshot["queues"])),
    ]
    if snapshot["failures"]:
        failures = ((str(f["count"]), f["fingerprint"]) for f in snapshot["failures"][:_FAILURES])
        parts.append(_table("Failures", ("jobs", "failed with"), failures))
    if rows:
        more = f", the newest {len(rows)} of {jobs['total']:,}" if (jobs["total"] or 0) > len(rows) else ""
        names = ("job", "command", "queue", "status", "attempt", "dispatched", "seconds", "error")
        parts.append(_table(f"Jobs{more}", names, map(_job, rows)))
    return f"<div>{''.join(parts)}</div>"


def as_text(snapshot: dict[str, Any]) -> str:
    """Give the state of a panel as a few lines."""
    lines = [f"nbqueue panel of {_name(snapshot)}, as of {_time(snapshot['now'])}"]
    for queue in snapshot["queues"]:
        counts = ", ".join(f"{queue[state]:,} {state}" for state in _STATES if queue[state])
        lines.append(f"  {queue['name']}{' (paused)' if queue['paused'] else ''}: {counts or 'no jobs'}")
    lines += [f"  {f['count']:,} failed with {f['fingerprint']}" for f in snapshot["failures"][:_FAILURES]]
    return "\n".join(lines)


def _name(snapshot: dict[str, Any]) -> str:
    name = str(snapshot["name"])
    # Where it is on somebody's disk is of no use to a reader elsewhere.
    return name if "://" in name else PurePath(name).name or name


def _time(millis: int) -> str:
    return f"{datetime.fromtimestamp(millis / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _queue(queue: dict[str, Any]) -> tuple[str, ...]:
    name = f"{queue['name']} (paused)" if queue["paused"] else queue["name"]
    return name, *(f"{queue[state]:,}" for state in _STATES)


def _job(row: dict[str, Any]) -> tuple[str, ...]:
    seconds = "" if row["run"] is None else f"{row['run']:.2f}"
    command = f"{row['command']}({row['arguments']})"
    attempt = f"{row['attempt']}/{row['max_attempts']}"
    return (
        row["id"][-8:],
        command,
        row["queue"],
        row["status"],
        attempt,
        _time(row["dispatched"]),
        seconds,
        row["error"] or "",
    )


def _table(title: str, names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th {_LEFT}>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f'<td {_LEFT} valign="top">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<table border="1" cellpadding="4" cellspacing="0"><caption {_LEFT}><b>{escape(title)}</b></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


class Renewal:
    """Says when the stored page is due: when it has been quiet for a while, not often, and not under somebody's hands.

    Renewing an output has its view made anew, so nobody should be at it. Where nobody looks, as when a notebook is run
    from top to bottom, it is due as soon as something has changed.

    Parameters
    ----------
    ticks : callable
        Seconds by a clock that never steps back.
    """

    def __init__(self, ticks: Callable[[], float]) -> None:
        self._ticks = ticks
        self._stored_at: float | None = None
        self._changed_at: float | None = None
        #: Somebody's pointer or focus is in the panel.
        self.busy = False
        #: A front end has been heard.
        self.watched = False

    def stored(self) -> None:
        """Say that it was stored as it is now."""
        self._stored_at = self._ticks()
        self._changed_at = None

    def changed(self) -> None:
        """Say that the panel has changed."""
        self._changed_at = self._ticks()

    @property
    def wanted(self) -> bool:
        """Whether what is stored is not the last state."""
        return self._changed_at is not None and self._stored_at is not None

    def due_in(self) -> float | None:
        """Say in how many seconds it is due; None: not before something happens."""
        if self._changed_at is None or self._stored_at is None or self.busy:
            return None
        at = max(self._changed_at + _QUIET, self._stored_at + (_APART if self.watched else 0.0))
        return max(0.0, at - self._ticks())
