"""A selection of jobs as SQL over the views; the one place that says what each of its fields means."""

from __future__ import annotations

from collections.abc import Iterable

from nbqueue.jobs import State
from nbqueue.store import Selection
from nbqueue.stores.live import micros

__all__ = ["conditions", "dispatch_conditions", "texts"]

#: So many ids go one by one, which takes 0.01 s instead of 0.2 s among a million jobs; more go as a list.
_FEW = 50


def conditions(selection: Selection) -> tuple[list[str], list[object]]:
    """The conditions of a selection over the view ``jobs``, and their parameters."""
    parts, params = dispatch_conditions(selection, "dispatched_at")
    if selection.states is not None:
        parts.append(f"state IN {texts(State(state).value for state in selection.states)}")
    if selection.batch_id is not None:
        parts.append("batch_id = ?::UUID")
        params.append(str(selection.batch_id))
    if selection.fingerprint is not None:
        parts.append("fingerprint = ?")
        params.append(selection.fingerprint)
    if selection.finished_before is not None:
        parts.append("finished_at < make_timestamptz(?::BIGINT)")
        params.append(micros(selection.finished_before))
    return parts, params


def dispatch_conditions(selection: Selection, dispatched_at: str) -> tuple[list[str], list[object]]:
    """Those that a job's dispatch alone decides."""
    parts: list[str] = []
    params: list[object] = []
    ids = None if selection.ids is None else [str(job_id) for job_id in selection.ids]
    if ids and len(ids) <= _FEW:
        parts.append(f"job_id IN ({', '.join(['?::UUID'] * len(ids))})")
        params.extend(ids)
    elif ids is not None:
        parts.append("job_id IN (SELECT unnest(?::UUID[]))")
        params.append(ids)
    for column, names in (("queue", selection.queues), ("command", selection.commands)):
        if names is not None:
            # A condition of the row, and no further join.
            parts.append(f"list_contains(?::VARCHAR[], {column})")
            params.append(list(names))
    if selection.since is not None:
        parts.append(f"{dispatched_at} >= make_timestamptz(?::BIGINT)")
        params.append(micros(selection.since))
    return parts, params


def texts(words: Iterable[str]) -> str:
    """A list of SQL constants, of words of our own only: constants reach the scan, parameters in a list do not."""
    return "(" + (", ".join(f"'{word}'" for word in words) or "NULL") + ")"
