"""How much history a store keeps, and which of it is on its way out; deletes nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from nbqueue.store import Selection

__all__ = ["Going", "Retention"]

#: Seconds between looks at what has been kept long enough.
RETIRE_EVERY = 60.0


class Going(Protocol):
    """Ended jobs on their way out, piece by piece."""

    @property
    def over(self) -> bool:
        """Whether all of them have been looked at."""


G = TypeVar("G", bound=Going)


class Retention(Generic[G]):
    """The limits that somebody set, when they are looked at again, and what goes because of them.

    Example
    -------
    >>> kept = Retention()
    >>> kept.limit(None, 1_000)
    >>> kept.limited, kept.is_due(0.0), kept.going
    (True, True, None)
    """

    __slots__ = ("_keep", "_look_at", "_seconds", "going")

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._keep: int | None = None
        self._look_at = 0.0
        #: What has gone in part.
        self.going: G | None = None

    def limit(self, seconds: float | None, keep: int | None) -> None:
        """Keep ended jobs so long, and so many; None: no such limit."""
        self._seconds, self._keep = seconds, keep
        self._look_at, self.going = 0.0, None

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._seconds is not None or self._keep is not None

    def is_due(self, ticks: float) -> bool:
        """Whether it is time for a look, or something goes already."""
        return self.going is not None or (self.limited and ticks >= self._look_at)

    def take(
        self,
        begin: Callable[[Selection, int | None], G],
        ended: Callable[[], int],
        now: float,
        ticks: float,
    ) -> G | None:
        """Give what is to go, None for nothing; ``put_back`` has to tell what is left of it.

        Parameters
        ----------
        begin : Callable[[Selection, int | None], Going]
            Finds out which ended jobs go: those selected but for the latest so many.
        ended : Callable[[], int]
            Tells how many ended jobs there are.
        now, ticks : float
            Seconds since the epoch, and by a clock that never steps back.
        """
        going, self.going = self.going, None
        if going is None:
            # Often enough that nothing stays a tenth longer than it should, and rarely enough to cost nothing. What
            # fails is tried again as late.
            age = RETIRE_EVERY if self._seconds is None else self._seconds / 10
            self._look_at = ticks + max(1.0, min(RETIRE_EVERY, age))
            going = self._too_old(begin, now) or self._too_many(begin, ended)
        return going

    def put_back(self, going: G) -> None:
        """Note that a piece of it has gone."""
        if going.over:
            # What is too much besides goes next.
            self._look_at = 0.0
        else:
            self.going = going

    def _too_old(self, begin: Callable[[Selection, int | None], G], now: float) -> G | None:
        if self._seconds is None:
            return None
        going = begin(Selection(finished_before=now - self._seconds), None)
        return None if going.over else going

    def _too_many(self, begin: Callable[[Selection, int | None], G], ended: Callable[[], int]) -> G | None:
        # A tenth more may be there for a while: history is folded once for all of those, not for every job.
        if self._keep is None or ended() <= self._keep + self._keep // 10:
            return None
        going = begin(Selection(), self._keep)
        return None if going.over else going
