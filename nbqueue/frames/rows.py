"""Jobs, attempts and events as they are, a row each, newest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nbqueue.errors import InvalidCommand
from nbqueue.frames.columns import ATTEMPTS, EVENTS, JOBS, ask, limited, where
from nbqueue.jobs import State
from nbqueue.shortcuts import attempts_page, events_page, jobs_page
from nbqueue.store import Selection, Store
from nbqueue.stores.selecting import conditions, dispatch_conditions, texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attempts", "events", "jobs", "of_jobs"]

_WAITING = {
    "scheduled": State.PENDING,
    "retrying": State.PENDING,
    "held": State.PENDING,
    "cancelling": State.RUNNING,
}


def jobs(
    store: Store,
    selection: Selection | None = None,
    limit: int | None = None,
    *,
    status: str | Iterable[str] | None = None,
) -> pd.DataFrame:
    """Give jobs, a row each, newest first.

    Parameters
    ----------
    store : Store
        Where they are.
    selection : Selection, optional
        Which; every field of it narrows.
    limit : int, optional
        At most so many.
    status : str or iterable of str, optional
        Only those shown as one of these: ``state``, or where a job waits or is held ``scheduled``, ``retrying``,
        ``held`` or ``cancelling``. Beside ``selection.states`` it narrows only the states that these are part of.

    Returns
    -------
    pandas.DataFrame
        ``job_id`` (text), ``command``, ``queue``, ``state``, ``status`` (categories), ``attempt``, ``max_attempts``,
        ``priority`` (int64), ``dispatched_at``, ``scheduled_at`` (when it may run), ``started_at``, ``finished_at``
        (``datetime64[us, UTC]``), ``wait_seconds`` (from when it might have run to its latest start),
        ``run_seconds`` (float64), ``worker`` (category), ``error`` (text: of its latest attempt that failed),
        ``fingerprint`` (category: what that failure has in common with others of its kind), ``cause`` (category),
        ``crashes`` (int64), ``metadata``, ``progress`` (dict or None), ``batch_id``,
        ``row_label`` (text).
    """
    selection = selection or Selection()
    parts, params = conditions(selection)
    page = None
    if status is None:
        page = jobs_page(store, selection, limit)
    else:
        parts.append(_status_condition(selection, (status,) if isinstance(status, str) else tuple(status)))
    rest = f" ORDER BY number DESC{limited(limit)}"
    if page is not None:
        found = ask(store, JOBS, f"jobs{where([*parts, page.condition])}{rest}", params)
        if len(found) >= page.rows:
            return found
        # Some of them moved in between.
    return ask(store, JOBS, f"jobs{where(parts)}{rest}", params, whole=limit is None)


def attempts(store: Store, selection: Selection | None = None, limit: int | None = None) -> pd.DataFrame:
    """Give attempts, a row each, newest first, of the jobs selected.

    Parameters
    ----------
    store, selection, limit
        As of ``jobs``.

    Returns
    -------
    pandas.DataFrame
        ``job_id`` (text), ``command``, ``queue`` (categories), ``attempt``, ``max_attempts`` (int64), ``outcome``
        (category: running, succeeded, failed, cancelled, interrupted, released, refused), ``claimed_at``,
        ``started_at`` (NaT where it was given back before it began), ``finished_at`` (``datetime64[us, UTC]``),
        ``run_seconds`` (float64), ``worker`` (category), ``error`` (text), ``fingerprint``, ``cause`` (categories),
        ``traceback`` (text); and of attempts in a process of their own ``peak_memory`` (Int64, bytes), ``cpu_seconds``
        (float64) and ``exit`` (category: what ended the process, where that was not the job's doing alone).
    """
    picked, params = of_jobs(selection or Selection())
    page = None if picked or limit is None else attempts_page(store, limit)
    narrowed = where([*picked, *([page.condition] if page else [])])
    rest = f"attempts{narrowed} ORDER BY fence DESC{limited(limit)}"
    return ask(store, ATTEMPTS, rest, params, whole=limit is None)


def events(store: Store, selection: Selection | None = None, limit: int | None = None) -> pd.DataFrame:
    """Give what happened to the jobs selected, a row an event, newest first; log lines are in the view ``logs``.

    Parameters
    ----------
    store, selection, limit
        As of ``jobs``.

    Returns
    -------
    pandas.DataFrame
        ``seq`` (int64), ``happened_at`` (``datetime64[us, UTC]``), ``event`` (category), ``job_id`` (text),
        ``command``, ``queue``, ``state`` (categories; the state it left the job in, missing where it moved none),
        ``attempt`` (int64), ``worker`` (category), ``due_at`` (time), ``cause`` (category), ``error`` (text), ``data``
        (dict of a progress or an output, else None).
    """
    picked, params = of_jobs(selection or Selection())
    page = None if picked or limit is None else events_page(store, limit)
    narrowed = where([*picked, *([page.condition] if page else [])])
    rest = f"events{narrowed} ORDER BY seq DESC{limited(limit)}"
    return ask(store, EVENTS, rest, params, whole=limit is None)


def _status_condition(selection: Selection, statuses: Sequence[str]) -> str:
    """Narrow to statuses; of the states asked for beside them, those that they are no part of stay whole."""
    known = [*State, *_WAITING]
    for status in statuses:
        if status not in known:
            raise InvalidCommand(f"there is no status {status!r}; there is {', '.join(known)}")
    parents = {_WAITING[status] for status in statuses if status in _WAITING}
    whole = [state.value for state in selection.states or () if state not in parents]
    return f"(status IN {texts(statuses)} OR state IN {texts(whole)})"


def of_jobs(selection: Selection) -> tuple[list[str], list[object]]:
    """The conditions on the attempts or events of the jobs selected."""
    if (
        selection.states is None
        and (selection.since, selection.finished_before, selection.batch_id) == (None,) * 3
        and selection.fingerprint is None
    ):
        # The view has these columns itself.
        return dispatch_conditions(selection, "")
    parts, params = conditions(selection)
    return [f"number IN (SELECT number FROM jobs{where(parts)})"], params
