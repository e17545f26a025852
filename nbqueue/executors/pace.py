"""How long jobs take, by command: what takes next to nothing may be sent ahead in groups; knows no store."""

from __future__ import annotations

__all__ = ["AHEAD", "Pace"]

#: Seconds of work that a child may have beyond the job that it runs.
AHEAD = 0.004
#: What a job costs a child besides its handler.
OVERHEAD = 80e-6


class Pace:
    """What was learnt; any thread may ask.

    Parameters
    ----------
    slots : int
        How many share what waits.

    Example
    -------
    >>> pace = Pace(2)
    >>> pace.expected("a") is None
    True
    >>> pace.learn("a", 0.001)
    >>> round(pace.expected("a"), 5)
    0.00108
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._known: dict[str, float] = {}

    def expected(self, command: str) -> float | None:
        """Give the seconds that a job of this command will take; None if none has run yet."""
        return self._known.get(command)

    def learn(self, command: str, seconds: float) -> None:
        """Take in how long one took."""
        known, taken = self._known.get(command), seconds + OVERHEAD
        # A long one says at once that they may be long; that they are short is believed by and by.
        share = 1.0 if known is None else 0.5 if taken > known else 0.1
        self._known[command] = taken if known is None else known + share * (taken - known)
