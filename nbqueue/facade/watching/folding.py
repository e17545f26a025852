"""A few jobs as plain values, folded from their events; asks no queue.

It says what the view ``jobs`` says. DuckDB thinks about that view for 10 ms before it reads a row, and beside busy
threads waits for the interpreter's lock at each of its steps; the events themselves are there in 3 ms and few steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from nbqueue.jobs import State
from nbqueue.lifecycle import STATE_AFTER, Event
from nbqueue.stores.schema import FINGERPRINT

__all__ = ["EVENTS_OF", "EVENTS_OF_FAR", "EVENTS_OF_SOME", "SPECS", "TEXT", "Kind", "folded"]

T = TypeVar("T")

#: Of an argument's text, and of an error's, so many characters are read.
TEXT = 4_000

_MOVES = " AND ".join(f"event <> '{event}'" for event in Event if event not in STATE_AFTER)
_EVENTS = f"""
    SELECT json_array(job, seq, event, happened_us, started_us, due_us, attempt, max_attempts, crashes, worker, cause,
                      left(error, {TEXT}), CASE WHEN error IS NOT NULL THEN {FINGERPRINT} END,
                      CASE event WHEN 'dispatched' THEN left(data, {TEXT}) END, job_id::VARCHAR, spec,
                      batch_id::VARCHAR)::VARCHAR AS event
    FROM ledger WHERE job BETWEEN $1 AND $2{{among}} AND {_MOVES}
    UNION ALL
    SELECT json_array(job, max(seq), 'progress', max_by(data, seq))::VARCHAR
    FROM ledger WHERE job BETWEEN $1 AND $2{{among}} AND event = 'progress' GROUP BY job
"""
#: The events of the jobs from one number to another, in no order, each a JSON array: a column instead of seventeen.
EVENTS_OF = _EVENTS.format(among="")
#: The same of some jobs between two numbers that lie near each other: a list is gone through for each event there is.
EVENTS_OF_SOME = _EVENTS.format(among=" AND list_contains($3::BIGINT[], job)")
#: The same where they may lie far apart: 200 jobs among a million take 54 ms so, and 188 with a list.
EVENTS_OF_FAR = _EVENTS.format(among=" AND job IN (SELECT unnest($3::BIGINT[]))")
#: The kinds of jobs there are.
SPECS = """
    SELECT json_array(spec, command, queue, priority, coalesce(tries, 1), origin, code)::VARCHAR AS spec FROM specs
"""

_WORDS: dict[str, str] = {Event.REFUSED: "held", Event.CANCELLING: "cancelling"}
_WORDS_WAITING = _WORDS | {Event.RETRYING: "retrying", Event.DISPATCHED: "scheduled"}
_RAN = (Event.SUCCEEDED, Event.FAILED, Event.RETRYING)


class Kind(NamedTuple):
    """What many jobs share."""

    command: str
    queue: str
    priority: int
    tries: int
    origin: str
    code: str


class _Event(NamedTuple):
    """One of a job's events; times in microseconds since the epoch."""

    job: int
    seq: int
    event: str
    happened: int
    started: int | None
    due: int | None
    attempt: int | None
    max_attempts: int | None
    crashes: int | None
    worker: int | None
    cause: str | None
    error: str | None
    fingerprint: str | None
    arguments: str | None
    job_id: str | None
    spec: int | None
    batch: str | None


def folded(
    events: Iterable[Sequence[Any]], kinds: Mapping[int, Kind], workers: Mapping[int, str], now: float
) -> dict[int, dict[str, Any]]:
    """Give jobs by number; times in milliseconds since the epoch.

    Parameters
    ----------
    events : iterable of sequence
        As of ``EVENTS_OF``, those of each job complete.
    kinds, workers : mapping
        By number; a job of another kind is left out.
    now : float
        Seconds since the epoch.
    """
    moves: dict[int, list[_Event]] = {}
    #: The last by each job: its number and its text.
    progress: dict[int, tuple[int, str]] = {}
    for one in sorted(events, key=_seq):
        if one[2] == Event.PROGRESS:
            progress[one[0]] = one[1], one[3]
        # A newer nbqueue may have written what this one does not know.
        elif one[2] in STATE_AFTER:
            moves.setdefault(one[0], []).append(_Event(*one))
    return {
        number: _job(told, kinds[spec], workers, progress.get(number), now)
        for number, told in moves.items()
        # The dispatch comes first; where it is missing, the job is being forgotten.
        if (spec := told[0].spec) is not None and spec in kinds
    }


def _seq(event: Sequence[Any]) -> int:
    seq: int = event[1]
    return seq


def _job(
    told: Sequence[_Event],
    kind: Kind,
    workers: Mapping[int, str],
    progress: tuple[int, str] | None,
    now: float,
) -> dict[str, Any]:
    first, last = told[0], told[-1]
    state = STATE_AFTER[Event(last.event)]
    claims = [one for one in told if one.event == Event.CLAIMED]
    began = _began(told, claims)
    # A cancelled job may never have run; the two others have.
    has_run = state.ended and (state is not State.CANCELLED or last.started is not None)
    ready = _last(map(_ready, told))
    cleared = max((one.seq for one in told if one.event in (Event.SUCCEEDED, Event.RETRIED)), default=0)
    errors = [one for one in told if one.error is not None]
    failing = bool(errors) and errors[-1].seq > cleared
    fingerprint = _last(one.fingerprint for one in errors) if failing else None
    worker = _last(one.worker for one in told)
    tried = (last.attempt or 0) > 0
    due = last.due if last.event == Event.RETRYING else _given(first.due, first.happened)
    return {
        "id": first.job_id,
        "command": kind.command,
        "queue": kind.queue,
        "state": state.value,
        "status": _status(last, state, now),
        "attempt": last.attempt or 0,
        # A worker's own allowance is settled by its claim, and again by the next one's.
        "max_attempts": last.max_attempts if tried else kind.tries,
        "priority": kind.priority,
        "dispatched": _millis(first.happened),
        "scheduled": _millis(due),
        "started": _millis(began),
        "finished": _millis(last.happened) if state.ended else None,
        "wait": _seconds(ready, began) if has_run or state is State.RUNNING else None,
        "run": _seconds(began, last.happened) if has_run else None,
        "error": errors[-1].error if failing else None,
        "fingerprint": _given(fingerprint, last.cause if state is State.FAILED else None),
        "progress": progress[1] if progress and claims and progress[0] > claims[-1].seq else None,
        "worker": None if worker is None else workers.get(worker),
        "arguments": first.arguments,
        "batch": first.batch,
        "origin": kind.origin,
        "code": kind.code,
    }


def _status(last: _Event, state: State, now: float) -> str:
    waits = last.due is not None and last.due > now * 1e6
    words = _WORDS_WAITING if waits else _WORDS
    return words.get(last.event, state.value)


def _began(told: Sequence[_Event], claims: Sequence[_Event]) -> int | None:
    last, claimed = told[-1], _last(_given(one.started, one.happened) for one in claims)
    if last.event in (Event.CLAIMED, Event.CANCELLING):
        return claimed
    if last.event in _RAN:
        return _given(last.started, claimed)
    if (last.attempt or 0) > 0:
        return _last(one.started for one in told if one.event != Event.CLAIMED)
    return None


def _ready(one: _Event) -> int | None:
    """Since when a job might have run after this: a wait counts from there."""
    if one.event == Event.DISPATCHED:
        return _given(one.due, one.happened)
    if one.event == Event.RETRYING:
        return one.due
    if one.event == Event.RETRIED or (one.event == Event.INTERRUPTED and (one.crashes or 0) > 0):
        return one.happened
    return None


def _last(values: Iterable[T | None]) -> T | None:
    """The last that is there."""
    found = None
    for value in values:
        found = _given(value, found)
    return found


def _given(value: T | None, otherwise: T | None) -> T | None:
    return otherwise if value is None else value


def _millis(micros: int | None) -> int | None:
    # As epoch_ms has it.
    return None if micros is None else (micros + 500) // 1000


def _seconds(since: int | None, until: int | None) -> float | None:
    # A clock may have stepped back.
    return None if since is None or until is None else max(0, until - since) / 1e6
