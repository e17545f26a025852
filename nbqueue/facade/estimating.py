"""How long jobs of a command took lately; asks the events first, as they tell which few attempts to look at."""

from __future__ import annotations

from typing import NamedTuple

from nbqueue.store import Store

__all__ = ["Estimate", "estimate", "in_words"]

#: So many of the newest runs count.
RUNS = 50

# Of a million jobs the attempts' view would join all before it takes the newest: 0.6 s. The events give these in
# 0.15 s, and between the first and the last of them the attempts take 0.02 s.
_NEWEST = """
    SELECT min(fence) AS first_fence, max(fence) AS last_fence, min(number) AS first, max(number) AS last
    FROM (SELECT fence, number FROM events WHERE event = 'succeeded' AND command = ? ORDER BY seq DESC LIMIT ?)
"""
_SECONDS = """
    SELECT count(*) AS n, median(run_seconds) AS median, quantile_cont(run_seconds, 0.95) AS slow
    FROM (SELECT run_seconds FROM attempts
          WHERE fence BETWEEN ? AND ? AND number BETWEEN ? AND ? AND command = ? AND outcome = 'succeeded'
          ORDER BY finished_at DESC, fence DESC LIMIT ?)
"""


class Estimate(NamedTuple):
    """How long the newest successful runs took, in seconds."""

    #: How many runs this is of.
    count: int  # type: ignore[assignment]  # a tuple has a method of that name, which nobody needs here
    median: float
    #: Nineteen of twenty took no longer.
    slow: float

    def __str__(self) -> str:
        runs = "the last run" if self.count == 1 else f"median of the last {self.count} runs"
        took = in_words(self.median)
        return f"takes {'' if took.startswith('less') else 'about '}{took}: {runs}"


def estimate(store: Store, command: str, runs: int = RUNS) -> Estimate | None:
    """Give how long jobs of a command took lately, None where none has succeeded yet.

    Parameters
    ----------
    store : Store
        Where they are.
    command : str
        Its name.
    runs : int
        How many of the newest runs count.
    """
    newest = store.query(_NEWEST, (command, runs))
    bounds = [newest[name].iloc[0] for name in ("first_fence", "last_fence", "first", "last")]
    if newest["first"].isna().iloc[0]:
        return None
    found = store.query(_SECONDS, (*(int(bound) for bound in bounds), command, runs))
    count = int(found["n"].iloc[0])
    return Estimate(count, float(found["median"].iloc[0]), float(found["slow"].iloc[0])) if count else None


def in_words(seconds: float) -> str:
    """Give a duration as short as it reads well.

    Example
    -------
    >>> in_words(0.0042), in_words(3.96), in_words(75), in_words(8_000)
    ('4 ms', '4 s', '1 min 15 s', '2 h 13 min')
    """
    if seconds < 0.9995:
        return "less than 1 ms" if seconds < 0.0005 else f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{float(f'{seconds:.1f}'):g} s"
    whole = round(seconds)
    for size, unit, rest, below in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            more = whole % size // rest
            return f"{whole // size} {unit} {more} {below}" if more else f"{whole // size} {unit}"
    return f"{whole} s"
