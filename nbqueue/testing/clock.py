"""A clock that stands still until it is told to move."""

from __future__ import annotations

__all__ = ["FakeClock"]


class FakeClock:
    """A clock that moves when told to: ``time`` for people, ``ticks`` for leases.

    Parameters
    ----------
    now : float
        Seconds since the epoch.

    Example
    -------
    >>> clock = FakeClock(1_000.0)
    >>> clock.advance(30)
    >>> clock.time(), clock.ticks()
    (1030.0, 30.0)
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._ticks = 0.0

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def ticks(self) -> float:
        """Seconds that only rise."""
        return self._ticks

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self._ticks += seconds

    def set_back(self, seconds: float) -> None:
        """Step the wall clock back, as one that was wrong does; the ticks stay."""
        self._now -= seconds
