"""The last minutes in stretches: how many jobs ended in each, and how many were pending and running at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

__all__ = ["Series"]

_COUNTED = ("succeeded", "failed", "pending", "running")


class Series:
    """Counts by stretches of time; the last one is still open.

    Parameters
    ----------
    step : int
        The length of a stretch in seconds.
    length : int
        How many stretches are kept.

    Example
    -------
    >>> series = Series(step=10, length=3)
    >>> series.stand(0, pending=2, running=0)
    >>> series.ended([(5_000, "succeeded")])
    >>> series.stand(25_000, pending=1, running=0)
    >>> series.value()["succeeded"], series.value()["pending"]
    ([1, 0, 0], [2, 2, 1])
    """

    def __init__(self, *, step: int = 10, length: int = 60) -> None:
        self.step = step
        self.length = length
        self._last = 0
        #: Whether what happened before it was first told is known.
        self._recalled = False
        #: When it was first told how things stand, and how.
        self._begun = (0, (0, 0))
        self._ended: dict[str, Counter[int]] = {"succeeded": Counter(), "failed": Counter()}
        #: (pending, running) at the end of a stretch; one that is missing is as the one before.
        self._levels: dict[int, tuple[int, int]] = {}

    def recall(self, recent: Iterable[tuple[int, int, int, int, int]]) -> None:
        """Take what happened before, as ``Following.recent`` gives it, back from how things stood when first told."""
        self._recalled = True
        found: dict[int, Counter[str]] = {}
        for stretch, *counts in recent:
            found.setdefault(stretch, Counter()).update(dict(zip(_COUNTED, counts, strict=True)))
        last, (pending, running) = self._begun
        for stretch in sorted(found, reverse=True):
            counted = found[stretch]
            for how, ended in self._ended.items():
                ended[stretch] += counted[how]
            # What has been told since is as it was told.
            self._levels.setdefault(stretch, (pending, running))
            pending, running = max(0, pending - counted["pending"]), max(0, running - counted["running"])
            self._levels.setdefault(stretch - 1, (pending, running))
        self._levels.setdefault(last - self.length, (pending, running))
        self._levels = dict(sorted(self._levels.items()))

    def ended(self, jobs: Iterable[tuple[int, str]]) -> None:
        """Count jobs that ended: (milliseconds since the epoch, how)."""
        for at, how in jobs:
            if how in self._ended:
                self._ended[how][at // (self.step * 1000)] += 1

    def stand(self, now: int, *, pending: int, running: int) -> None:
        """Say how many there are now, in milliseconds since the epoch."""
        self._last = now // (self.step * 1000)
        if not self._levels:
            self._begun = (self._last, (pending, running))
        self._levels[self._last] = (pending, running)
        # One that is older than the oldest shown is what that one begins with.
        first = self._last - self.length + 1
        before = [stretch for stretch in self._levels if stretch <= first]
        for stretch in before[:-1]:
            del self._levels[stretch]
        for counts in self._ended.values():
            for stretch in [stretch for stretch in counts if stretch < first]:
                del counts[stretch]

    def value(self) -> dict[str, Any]:
        """Give it as plain lists, the oldest first; they begin where it was told first, until it has recalled more."""
        first = self._last - self.length + 1
        if not self._recalled:
            first = max(first, self._begun[0])
        stretches = range(first, self._last + 1)
        begin = [level for stretch, level in self._levels.items() if stretch < first]
        level = begin[-1] if begin else next(iter(self._levels.values()), (0, 0))
        levels = []
        for stretch in stretches:
            level = self._levels.get(stretch, level)
            levels.append(level)
        return {
            "step": self.step,
            "start": first * self.step * 1000,
            **{how: [counts[stretch] for stretch in stretches] for how, counts in self._ended.items()},
            "pending": [pending for pending, _ in levels],
            "running": [running for _, running in levels],
        }
