"""When a store has to look after its workers, and how long it could not listen; knows no store.

A worker that was not heard since its owner was deaf has done nothing wrong: the owner's process was stopped
(SIGSTOP), something held the GIL, a commit took its time, or the machine was asleep where the clock counts that.
``time.monotonic`` counts a stopped process everywhere, and sleep on Windows alone: on Linux and macOS a lease does
not run down meanwhile, so that nothing has to be made up for.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Pulse"]


class Pulse:
    """A store's own rhythm, and what passed beyond the time in which it meant to listen again.

    Parameters
    ----------
    every : float
        It listens again after so many seconds at the latest, and looks after workers as often.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back and goes on while this process does not run.

    Example
    -------
    >>> times = iter([0.0, 0.9, 42.0])
    >>> pulse = Pulse(1.0, lambda: next(times))
    >>> round(pulse.beat(), 1), round(pulse.beat(), 1)
    (0.0, 40.1)
    """

    __slots__ = ("_due_at", "_last", "_ticks", "every")

    def __init__(self, every: float, ticks: Callable[[], float] = time.monotonic):
        self.every = every
        self._ticks = ticks
        self._last = self._due_at = ticks()

    def beat(self) -> float:
        """Give the seconds, since it was last asked, in which nobody was heard."""
        now = self._ticks()
        gap, self._last = now - self._last, now
        return max(0.0, gap - self.every)

    def is_due(self) -> bool:
        """Whether so much time had passed, at the last beat, since this was last true."""
        if self._last < self._due_at:
            return False
        self._due_at = self._last + self.every
        return True
