"""What ended, and what there was, in each stretch of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.durations import duration
from nbqueue.errors import InvalidCommand
from nbqueue.frames.columns import where
from nbqueue.store import Store
from nbqueue.stores.selecting import texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PENDING_STEP", "RUNNING_STEP", "backlog", "throughput"]

#: More rows than anybody looks at: an interval mistaken.
_ROWS_MAX = 1_000_000
#: Lengths of a stretch of time that read well on an axis, in seconds.
_NICE = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600, 7200, 14400, 21600, 43200, 86400, 604800),
)
#: An axis as wide as a page shows so many bars, or steps of a line.
_BARS, _STEPS = 120, 400
_ENDED = ("succeeded", "failed", "cancelled")


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
        + where(parts),
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
