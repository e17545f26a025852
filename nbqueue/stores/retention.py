"""How much history a store keeps, and which of it is on its way out; deletes nothing itself."""

from __future__ import annotations

from nbqueue.jobs import State
from nbqueue.store import Selection
from nbqueue.stores.index import Index
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.pruning import Pruning

__all__ = ["Retention"]

#: Seconds between looks at what has been kept long enough.
RETIRE_EVERY = 60.0


class Retention:
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
        self.going: Pruning | None = None

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

    def take(self, ledger: Ledger, index: Index, now: float, ticks: float) -> Pruning | None:
        """Give what is to go, None for nothing; ``put_back`` has to tell what is left of it."""
        going, self.going = self.going, None
        if going is None:
            # Often enough that nothing stays a tenth longer than it should, and rarely enough to cost nothing. What
            # fails is tried again as late.
            age = RETIRE_EVERY if self._seconds is None else self._seconds / 10
            self._look_at = ticks + max(1.0, min(RETIRE_EVERY, age))
            going = self._too_old(ledger, now) or self._too_many(ledger, index)
        return going

    def put_back(self, going: Pruning) -> None:
        """Note that a piece of it has gone."""
        if going.over:
            # What is too much besides goes next.
            self._look_at = 0.0
        else:
            self.going = going

    def _too_old(self, ledger: Ledger, now: float) -> Pruning | None:
        if self._seconds is None:
            return None
        going = ledger.begin_pruning(Selection(finished_before=now - self._seconds))
        return None if going.over else going

    def _too_many(self, ledger: Ledger, index: Index) -> Pruning | None:
        if self._keep is None:
            return None
        ended = sum(queue.counts[state] for queue in index.queues.values() for state in State if state.ended)
        # A tenth more may be there for a while: history is folded once for all of those, not for every job.
        if ended <= self._keep + self._keep // 10:
            return None
        going = ledger.begin_pruning(Selection(), self._keep)
        return None if going.over else going
