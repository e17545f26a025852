"""From what a queue tells of a job to what a panel shows: short, plain, and all of it data; asks no queue."""

from __future__ import annotations

import json
from typing import Any

from nbqueue.facade.watching.following import Following
from nbqueue.widgets.panel.state import Row

__all__ = ["arguments_text", "first_line", "row_of", "tail_of"]

_ERROR = 200
_ARGUMENTS = 160
_DEEP = 3


def row_of(job: dict[str, Any]) -> Row:
    """Give a job as a line of the table."""
    row = {name: value for name, value in job.items() if name not in ("origin", "code")}
    row["error"] = None if job["error"] is None else first_line(job["error"])
    row["arguments"] = _cut(arguments_text(job["arguments"]), _ARGUMENTS)
    row["progress"] = _progress(job["progress"])
    row["stale"] = Following.stale(job["command"], job["origin"], job["code"])
    return row


def first_line(text: str, length: int = _ERROR) -> str:
    """Give the first line of a text, cut where it is long."""
    line, _, _ = text.strip().partition("\n")
    return _cut(line, length)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def arguments_text(stored: str | None) -> str:
    """Give stored arguments as they would be written in a call, as far as they can be read without the job's code.

    >>> arguments_text('{"args":["users.csv"],"kwargs":{"batch":2}}')
    "'users.csv', batch=2"
    """
    try:
        call = json.loads(stored or "{}")
        args, kwargs = call.get("args", []), call.get("kwargs", {})
        written = [_written(value) for value in args]
        return ", ".join([*written, *(f"{name}={_written(value)}" for name, value in kwargs.items())])
    except (ValueError, AttributeError, TypeError):
        # Cut where it was too long to be read here, or encoded as a whole.
        return stored or ""


def _written(value: Any, depth: int = 0) -> str:
    if depth > _DEEP:
        return "…"
    if isinstance(value, dict):
        if isinstance(tag := value.get("$nbq"), str):
            inner = value.get("v")
            return (
                f"{tag}({_written(inner, depth + 1)})"
                if isinstance(inner, str | int | float | list)
                else f"{tag}(…)"
            )
        pairs = (f"{key!r}: {_written(inner, depth + 1)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return (
            "["
            + ", ".join(_written(inner, depth + 1) for inner in value[:20])
            + ("…" * (len(value) > 20))
            + "]"
        )
    return repr(value)


def _progress(stored: str | None) -> dict[str, Any] | None:
    if not stored:
        return None
    try:
        found = json.loads(stored)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return {name: found.get(name) for name in ("done", "total", "note")}


def tail_of(chunks: list[dict[str, Any]], most: int) -> tuple[list[dict[str, Any]], bool]:
    """Give the last of what a job wrote, up to so many characters, and whether something was left out."""
    room = most
    kept: list[dict[str, Any]] = []
    for chunk in reversed(chunks):
        if room <= 0:
            return kept[::-1], True
        text = chunk["text"]
        kept.append({**chunk, "text": text[-room:]})
        room -= len(text)
    return kept[::-1], room < 0
