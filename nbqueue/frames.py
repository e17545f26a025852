"""From a store's views to DataFrames: which columns, of which types, in which order; draws nothing, changes nothing.

Each frame has one table of columns below, and the same columns and types whether it is empty or full:
``job_id`` is text, names are categories, times are ``datetime64[us, UTC]``, durations are float seconds, counts are
``int64``. The module is long because each frame's columns, SQL and documentation stand together.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.durations import duration
from nbqueue.errors import InvalidCommand, NbqueueError, QueueError
from nbqueue.jobs import State
from nbqueue.payload import decode
from nbqueue.shortcuts import FAILED, attempts_page, events_page, jobs_page
from nbqueue.store import Selection, Store
from nbqueue.stores.schema import STATUSES
from nbqueue.stores.selecting import conditions, dispatch_conditions, texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attempts", "backlog", "events", "failures", "jobs", "latency", "stats", "throughput", "timeline"]

#: More names of a kind than this stay names.
_WORDS_MAX = 1_000
#: More rows than anybody looks at: an interval mistaken.
_ROWS_MAX = 1_000_000
#: Lengths of a stretch of time that read well on an axis, in seconds.
_NICE = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 14400, 21600, 43200, 86400, 604800),
)
#: An axis as wide as a page shows so many bars, or steps of a line.
_BARS, _STEPS = 120, 400
_WAITING = {
    "scheduled": State.PENDING,
    "retrying": State.PENDING,
    "held": State.PENDING,
    "cancelling": State.RUNNING,
}
_ENDED = ("succeeded", "failed", "cancelled")

# What a column holds, by name; the SQL that gives it where that is not its name.
_JOBS = {
    "job_id": "text",
    "command": "name",
    "queue": "name",
    "state": "word",
    "status": "word",
    "attempt": "count",
    "max_attempts": "count",
    "priority": "count",
    "dispatched_at": "time",
    "scheduled_at": "time",
    "started_at": "time",
    "finished_at": "time",
    "wait_seconds": "seconds",
    "run_seconds": "seconds",
    "worker": "name",
    "error": "text",
    "fingerprint": "name",
    "cause": "name",
    "crashes": "count",
    "metadata": "json",
    "progress": "json",
    "batch_id": "text",
    "row_label": "label",
}
_ATTEMPTS = {
    "job_id": "text",
    "command": "name",
    "queue": "name",
    "attempt": "count",
    "max_attempts": "count",
    "outcome": "word",
    "claimed_at": "time",
    "started_at": "time",
    "finished_at": "time",
    "run_seconds": "seconds",
    "worker": "name",
    "error": "text",
    "fingerprint": "name",
    "cause": "name",
    "traceback": "text",
    "peak_memory": "bytes",
    "cpu_seconds": "seconds",
    "exit": "name",
}
_EVENTS = {
    "seq": "count",
    "happened_at": "time",
    "event": "name",
    "job_id": "text",
    "command": "name",
    "queue": "name",
    "state": "word",
    "attempt": "count",
    "worker": "name",
    "due_at": "time",
    "cause": "name",
    "error": "text",
    "data": "json",
}
_FAILURES = {
    "fingerprint": "text",
    "jobs": "count",
    "commands": "count",
    "command": "name",
    "first_at": "time",
    "last_at": "time",
    "error": "text",
    "job_id": "text",
}
_TIMELINE = {
    **{name: _ATTEMPTS[name] for name in ("job_id", "command", "queue", "attempt", "outcome", "started_at")},
    **{name: _ATTEMPTS[name] for name in ("finished_at", "run_seconds", "worker")},
}
_LATENCY = {
    "command": "name",
    "jobs": "count",
    **{f"{what}_p{percent}": "seconds" for what in ("wait", "run") for percent in (50, 95, 99)},
}
#: Casting ids to text in DuckDB takes a fifteenth of the time that UUID objects take.
_SQL = {"job_id": "job_id::VARCHAR AS job_id", "batch_id": "batch_id::VARCHAR AS batch_id"}


# ------------------------------------------------------------------------------------------ rows as they are
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
    rest = f" ORDER BY number DESC{_limit(limit)}"
    if page is not None:
        found = _found(store, _JOBS, f"jobs{_where([*parts, page.condition])}{rest}", params)
        if len(found) >= page.rows:
            return found
        # Some of them moved in between.
    return _found(store, _JOBS, f"jobs{_where(parts)}{rest}", params, whole=limit is None)


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
    picked, params = _of_jobs(selection or Selection())
    page = None if picked or limit is None else attempts_page(store, limit)
    where = _where([*picked, *([page.condition] if page else [])])
    rest = f"attempts{where} ORDER BY fence DESC{_limit(limit)}"
    return _found(store, _ATTEMPTS, rest, params, whole=limit is None)


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
    picked, params = _of_jobs(selection or Selection())
    page = None if picked or limit is None else events_page(store, limit)
    where = _where([*picked, *([page.condition] if page else [])])
    rest = f"events{where} ORDER BY seq DESC{_limit(limit)}"
    return _found(store, _EVENTS, rest, params, whole=limit is None)


# ------------------------------------------------------------------------------------------------- summaries
def stats(store: Store) -> pd.DataFrame:
    """Give a row a queue, a column a state.

    Returns
    -------
    pandas.DataFrame
        ``queue`` (category), ``pending``, ``running``, ``succeeded``, ``failed``, ``cancelled`` (int64), ``waiting``
        (int64: those pending ones that wait for their time), ``paused`` (bool); by queue.
    """
    import pandas as pd

    columns = {"queue": "name", **{state.value: "count" for state in State}, "waiting": "count"}
    rows = [
        {"queue": q.name, **{s.value: q.counts[s] for s in State}, "waiting": q.waiting, "paused": q.paused}
        for q in store.queues()
    ]
    frame = pd.DataFrame(rows, columns=[*columns, "paused"])
    return _shaped(frame, columns).assign(paused=frame["paused"].astype(bool))


def failures(store: Store, selection: Selection | None = None) -> pd.DataFrame:
    """Give what failed jobs failed with, a row a fingerprint, the most frequent first.

    Parameters
    ----------
    store : Store
        Where they are.
    selection : Selection, optional
        Which; every field of it but ``states`` narrows.

    Returns
    -------
    pandas.DataFrame
        ``fingerprint`` (text: the error's class and the line of the user's own code, "KeyError at clean.py:88 in f"),
        ``jobs`` (int64), ``commands`` (int64: how many commands fail so), ``command`` (category: the last of them),
        ``first_at``, ``last_at`` (``datetime64[us, UTC]``: when the first and the last of them ended), ``error``,
        ``job_id`` (text: of the last).
    """
    picked = replace(selection or Selection(), states=None)
    found = _failures(store, FAILED, picked, ", bool_and(told) AS told")
    if len(found) and not found["told"].all():
        found = _failures(store, "jobs", replace(picked, states=(State.FAILED,)))
    return _shaped(found, _FAILURES)


def _failures(store: Store, source: str, selection: Selection, more: str = "") -> pd.DataFrame:
    parts, params = conditions(selection)
    return store.query(
        "SELECT fingerprint, count(*) AS jobs, count(DISTINCT command) AS commands,"
        " max_by(command, finished_at) AS command, min(finished_at) AS first_at, max(finished_at) AS last_at,"
        f" max_by(error, finished_at) AS error, max_by(job_id::VARCHAR, finished_at) AS job_id{more}"
        f" FROM {source}{_where(parts)} GROUP BY 1 ORDER BY jobs DESC, last_at DESC",
        params,
    )


def throughput(store: Store, every: float | str | None = "1min", since: float | None = None) -> pd.DataFrame:
    """Give how many jobs ended in each stretch of time.

    Parameters
    ----------
    store : Store
        Where they are.
    every : float, str or None
        The length of a stretch: seconds, ``"10s"``, ``"1min"``; None picks one that reads well.
    since : float, optional
        Seconds since the epoch to begin at; the first end there was if left out.

    Returns
    -------
    pandas.DataFrame
        ``succeeded``, ``failed``, ``cancelled`` (int64); its index is when each stretch begins
        (``datetime64[us, UTC]``), whole minutes for ``"1min"``, none left out. A job that is
        retried by hand and ends again counts again.

    Raises
    ------
    InvalidCommand
        For an ``every`` that is no duration, or so short that there would be over a million rows.
    """
    ended = f"event IN {texts(_ENDED)}"
    span = _span_of(store, ended, since)
    width = _width(every, span, rows=_BARS, least=1.0)
    start, stop = (span.first // width, span.last // width) if span else (0, -1)
    found = store.query(
        f"SELECT epoch_us(happened_at) // ?::BIGINT AS stretch, event, count(*) AS n FROM events WHERE {ended}"
        " AND happened_at >= make_timestamptz(?::BIGINT) GROUP BY ALL",
        [width, start * width],
    )
    counts: dict[str, dict[int, int]] = {name: {} for name in _ENDED}
    for stretch, event, n in zip(found["stretch"], found["event"], found["n"], strict=True):
        counts[event][int(stretch)] = int(n)
    return _over_time(counts, width, start, stop, name="finished_at")


def backlog(store: Store, every: float | str | None = None, since: float | None = None) -> pd.DataFrame:
    """Give how many jobs were pending and how many running, over time.

    Parameters
    ----------
    store, every, since
        As of ``throughput``; ``every`` is picked unless it is given.

    Returns
    -------
    pandas.DataFrame
        ``pending``, ``running`` (int64) as they stood at the time in the index (``datetime64[us, UTC]``), and
        ``pending_max``, ``running_max`` (int64), the most there were since the row before. Jobs that wait for their
        time are pending.
    """
    span = _span_of(store, "state IS NOT NULL", since)
    width = _width(every, span, rows=_STEPS, least=0.0)
    start, stop = (span.first // width, span.last // width + 1) if span else (0, -1)
    found = store.query(_BACKLOG, [width, start - 1, width, start - 1])
    columns = ("pending", "running", "pending_max", "running_max")
    steps: dict[str, dict[int, int]] = {name: {} for name in columns}
    for stretch, *counts in found[["stretch", *columns]].itertuples(index=False):
        for name, count in zip(columns, counts, strict=True):
            # What happened during a stretch shows at its end.
            steps[name][int(stretch) + 1] = int(count)
    frame = _over_time(steps, width, start, stop, name="time")
    for state in ("pending", "running"):
        level = frame[state].cumsum()
        peak = level.shift(1, fill_value=0) + frame[f"{state}_max"].clip(lower=0)
        # What came before the first row is not of interest.
        peak.iloc[:1] = level.iloc[:1]
        frame[state], frame[f"{state}_max"] = level, peak
    return frame


#: What each event does to the count of pending and of running jobs, but for a retry by hand.
PENDING_STEP = """CASE WHEN event = 'dispatched' THEN 1
                    WHEN event = 'claimed' OR (event = 'cancelled' AND fence IS NULL) THEN -1
                    WHEN event IN ('retrying', 'interrupted', 'released', 'refused') THEN 1
                    ELSE 0 END"""
RUNNING_STEP = """CASE WHEN event = 'claimed' THEN 1
                    WHEN event IN ('retrying', 'interrupted', 'released', 'refused', 'succeeded', 'failed')
                         OR (event = 'cancelled' AND fence IS NOT NULL) THEN -1
                    ELSE 0 END"""
# A retry by hand lets an ended job wait again and changes nothing for one that
# waited already: which of them it was is in the event before it, looked up for the few jobs that were retried.
_BACKLOG = f"""
    WITH steps AS (
        SELECT seq, greatest(epoch_us(happened_at) // ?::BIGINT, ?::BIGINT) AS stretch,
               {PENDING_STEP} AS pending, {RUNNING_STEP} AS running
        FROM events WHERE state IS NOT NULL
        UNION ALL
        SELECT seq, greatest(epoch_us(happened_at) // ?::BIGINT, ?::BIGINT), 1, 0
        FROM (SELECT seq, happened_at, event, lag(event) OVER (PARTITION BY number ORDER BY seq) AS before
              FROM events
              WHERE state IS NOT NULL AND number IN (SELECT number FROM events WHERE event = 'retried'))
        WHERE event = 'retried' AND before IN {texts(_ENDED)}
    ), levels AS (
        SELECT stretch, pending, running,
               sum(pending) OVER (PARTITION BY stretch ORDER BY seq) AS pending_level,
               sum(running) OVER (PARTITION BY stretch ORDER BY seq) AS running_level
        FROM steps
    )
    SELECT stretch, sum(pending)::BIGINT AS pending, sum(running)::BIGINT AS running,
           max(pending_level)::BIGINT AS pending_max, max(running_level)::BIGINT AS running_max
    FROM levels GROUP BY stretch
    """


def latency(store: Store, selection: Selection | None = None) -> pd.DataFrame:
    """Give how long ended jobs waited and ran: the median and the slowest 5 % and 1 %, a row a command, busiest first.

    Returns
    -------
    pandas.DataFrame
        ``command`` (category), ``jobs`` (int64: how many), ``wait_p50``, ``wait_p95``, ``wait_p99``, ``run_p50``,
        ``run_p95``, ``run_p99`` (seconds, float64).
    """
    parts, params = conditions(selection or Selection())
    quantiles = ", ".join(
        f"quantile_cont({what}_seconds, {percent / 100}) AS {what}_p{percent}"
        for what in ("wait", "run")
        for percent in (50, 95, 99)
    )
    found = store.query(
        f"SELECT command, count(*) AS jobs, {quantiles} FROM jobs{_where([*parts, 'run_seconds IS NOT NULL'])}"
        " GROUP BY command ORDER BY jobs DESC, command",
        params,
    )
    return _shaped(found, _LATENCY)


def timeline(store: Store, selection: Selection | None = None, limit: int | None = 2_000) -> pd.DataFrame:
    """Give when attempts ran and beside which others: the newest ones that began, oldest first.

    Returns
    -------
    pandas.DataFrame
        ``job_id``, ``command``, ``queue``, ``attempt``, ``outcome``, ``started_at``, ``finished_at`` (NaT while it
        runs), ``run_seconds``, ``worker`` as of ``attempts``, and ``lane`` (int64): on each worker from 0 up, no two
        attempts of a lane overlapping. ``attrs["of"]`` is how many attempts there are.
    """
    picked, params = _of_jobs(selection or Selection())
    where = _where([*picked, "started_at IS NOT NULL"])
    found = store.query(
        f"SELECT {_list(_TIMELINE)} FROM attempts{where} ORDER BY fence DESC{_limit(limit)}", params
    )
    count = len(found)
    if limit is not None and count == limit:
        count = int(store.query(f"SELECT count(*) AS n FROM attempts{where}", params)["n"].iloc[0])
    frame = _shaped(found, _TIMELINE).iloc[::-1].sort_values("started_at", kind="stable", ignore_index=True)
    frame["lane"] = _lanes(frame)
    frame.attrs["of"] = count
    return frame


def _lanes(frame: pd.DataFrame) -> Any:
    """Give each attempt the lowest lane of its worker that is free when it starts."""
    import numpy as np

    far = np.iinfo(np.int64).max
    starts = frame["started_at"].astype("int64").to_numpy()
    ends = np.where(frame["finished_at"].isna(), far, frame["finished_at"].astype("int64").to_numpy())
    lanes = np.zeros(len(frame), dtype=np.int64)
    busy: dict[int, list[tuple[int, int]]] = {}
    free: dict[int, list[int]] = {}
    workers = frame["worker"].cat.codes.to_numpy()
    for row, (worker, start, end) in enumerate(
        zip(workers.tolist(), starts.tolist(), ends.tolist(), strict=True)
    ):
        taken, left = busy.setdefault(worker, []), free.setdefault(worker, [])
        while taken and taken[0][0] <= start:
            heapq.heappush(left, heapq.heappop(taken)[1])
        lane = heapq.heappop(left) if left else len(taken)
        heapq.heappush(taken, (end, lane))
        lanes[row] = lane
    return lanes


# ------------------------------------------------------------------------------------------------ conditions
def _status_condition(selection: Selection, statuses: Sequence[str]) -> str:
    """Narrow to statuses; of the states asked for beside them, those that they are no part of stay whole."""
    known = [*State, *_WAITING]
    for status in statuses:
        if status not in known:
            raise InvalidCommand(f"there is no status {status!r}; there is {', '.join(known)}")
    parents = {_WAITING[status] for status in statuses if status in _WAITING}
    whole = [state.value for state in selection.states or () if state not in parents]
    return f"(status IN {texts(statuses)} OR state IN {texts(whole)})"


def _of_jobs(selection: Selection) -> tuple[list[str], list[object]]:
    """The conditions on the attempts or events of the jobs selected."""
    if (
        selection.states is None
        and (selection.since, selection.finished_before, selection.batch_id) == (None,) * 3
        and selection.fingerprint is None
    ):
        # The view has these columns itself.
        return dispatch_conditions(selection, "")
    parts, params = conditions(selection)
    return [f"number IN (SELECT number FROM jobs{_where(parts)})"], params


def _where(parts: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def _limit(limit: int | None) -> str:
    return "" if limit is None else f" LIMIT {int(limit)}"


def _list(columns: Iterable[str], words: Mapping[str, Sequence[str]] = MappingProxyType({})) -> str:
    return ", ".join(_coded(name, words[name]) if name in words else _SQL.get(name, name) for name in columns)


# ----------------------------------------------------------------------------------------------- whole frames
def _found(
    store: Store, columns: Mapping[str, str], rest: str, params: Sequence[object], *, whole: bool = False
) -> pd.DataFrame:
    """Ask for these columns and give each its type.

    Of a whole view the names come as numbers: among a million jobs that saves a quarter of a second.
    """
    words = _words(store, columns) if whole else {}
    try:
        found = store.query(f"SELECT {_list(columns, words)} FROM {rest}", params)
    except QueueError:
        if not words:
            raise
        # A name came up since: it is no word of the enum.
        words = {}
        found = store.query(f"SELECT {_list(columns)} FROM {rest}", params)
    return _shaped(found, columns, words)


def _words(store: Store, columns: Iterable[str]) -> dict[str, Sequence[str]]:
    """The names that each of these columns may hold, sorted as categories are, where they are known and few."""
    found = store.query(
        f"(SELECT DISTINCT 'command' AS what, command AS name FROM specs LIMIT {_WORDS_MAX + 1}) UNION ALL"
        f" (SELECT DISTINCT 'queue', queue FROM specs LIMIT {_WORDS_MAX + 1}) UNION ALL"
        f" (SELECT DISTINCT 'worker', worker_id FROM workers LIMIT {_WORDS_MAX + 1})"
    )
    words: dict[str, Sequence[str]] = {"state": tuple(State), "status": STATUSES}
    for what in ("command", "queue", "worker"):
        words[what] = sorted(found["name"][found["what"] == what].tolist())
    return {name: known for name, known in words.items() if name in columns and 0 < len(known) <= _WORDS_MAX}


def _coded(name: str, words: Sequence[str]) -> str:
    quoted = ", ".join("'" + word.replace("'", "''") + "'" for word in words)
    return f"enum_code({name}::ENUM({quoted})) AS {name}"


# ------------------------------------------------------------------------------------------ stretches of time
def _micros(at: float) -> int:
    return round(at * 1e6)


class _Span(NamedTuple):
    """When events of a kind begin and end, in microseconds, and how many there are."""

    first: int
    last: int
    events: int


def _span_of(store: Store, condition: str, since: float | None) -> _Span | None:
    """The span of events of a kind, from ``since`` on if it is given; None where there is none."""
    parts = [condition] if since is None else [condition, "happened_at >= make_timestamptz(?::BIGINT)"]
    found = store.query(
        "SELECT epoch_us(min(happened_at)) AS first, epoch_us(max(happened_at)) AS last, count(*) AS n FROM events"
        + _where(parts),
        [] if since is None else [_micros(since)],
    )
    count = int(found["n"].iloc[0])
    if not count:
        return None
    first = int(found["first"].iloc[0]) if since is None else _micros(since)
    return _Span(first, int(found["last"].iloc[0]), count)


def _width(every: float | str | None, span: _Span | None, *, rows: int, least: float) -> int:
    """The length of a stretch in microseconds; unless it is given, one that reads well in about so many rows."""
    length = (span.last - span.first) / 1e6 if span else 0.0
    if every is None:
        # A dozen jobs in a hundred stretches would be a comb.
        rows = min(rows, max(24, span.events)) if span else rows
        return _micros(next((nice for nice in _NICE if nice >= least and length / nice <= rows), _NICE[-1]))
    width = duration(every, what="every", least=0.001)
    if length / width > _ROWS_MAX:
        raise InvalidCommand(
            f"every={every!r} would give {length / width:,.0f} rows; take a longer one, or a later since="
        )
    return _micros(width)


def _over_time(
    counts: Mapping[str, Mapping[int, int]], width: int, start: int, stop: int, *, name: str
) -> pd.DataFrame:
    """A row for every stretch from ``start`` to ``stop``, 0 where nothing was counted; ``attrs`` has its seconds."""
    import numpy as np
    import pandas as pd

    begin = pd.Timestamp(start * width, unit="us", tz="UTC")
    index = pd.date_range(
        begin, periods=stop - start + 1, freq=pd.Timedelta(width, "us"), unit="us", name=name
    )
    columns: dict[str, Any] = {}
    for column, found in counts.items():
        columns[column] = np.zeros(len(index), dtype=np.int64)
        for stretch, n in found.items():
            if start <= stretch <= stop:
                columns[column][stretch - start] = n
    frame = pd.DataFrame(columns, index=index)
    frame.attrs["every"] = width / 1e6
    return frame


# ------------------------------------------------------------------------------------------------------ types
def _shaped(
    found: pd.DataFrame,
    columns: Mapping[str, str],
    words: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> pd.DataFrame:
    """Give every column its type, whatever rows there are; those with words hold the numbers of these."""
    import pandas as pd

    text = pd.Series(["x"]).dtype
    types: dict[str, Any] = {
        "text": text,
        "name": "category",
        "count": "int64",
        # Of many attempts nobody knows.
        "bytes": "Int64",
        "seconds": "float64",
        "time": "datetime64[us, UTC]",
    }
    made: dict[str, Any] = {}
    for name, kind in columns.items():
        column = found[name]
        if name in words:
            codes = column.to_numpy("int16", na_value=-1)
            known = pd.Categorical.from_codes(codes, categories=pd.Index([*words[name]], dtype=text))
            # An enum keeps every word it may hold.
            made[name] = known if kind == "word" else known.remove_unused_categories()
        elif kind == "json":
            made[name] = _each(column, _decoded, object)
        elif kind == "label":
            # A batch's row, by its label in the index it came from.
            made[name] = _each(column, _label, text)
        elif kind == "word":
            # An enum comes as a category with every word it may hold.
            made[name] = (
                column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("category")
            )
        elif kind == "name" and not len(column):
            made[name] = pd.Categorical([], categories=pd.Index([], dtype=text))
        else:
            made[name] = column.astype(types[kind])
    # What was found belongs to nobody else: a million rows are not copied once more.
    return pd.DataFrame(made, copy=False)


def _each(column: pd.Series, read: Callable[[object], object], dtype: Any) -> pd.Series:
    """Read the texts that are there: to go through a million that are missing takes most of a second."""
    import numpy as np
    import pandas as pd

    there = np.flatnonzero(column.notna().to_numpy())
    stored = column.to_numpy(dtype=object)
    made = np.full(len(stored), None, dtype=object)
    for place in there.tolist():
        made[place] = read(stored[place])
    found: pd.Series = pd.Series(made, dtype=dtype, index=column.index)
    return found


def _label(value: object) -> str | None:
    found = _decoded(value)
    return None if found is None else str(found)


def _decoded(value: object) -> object:
    """What JSON text holds; text that cannot be read here (of a class unknown here, or signed) stays as it is."""
    if not isinstance(value, str) or not value:
        return None
    try:
        return decode(value)
    except NbqueueError:
        return value
