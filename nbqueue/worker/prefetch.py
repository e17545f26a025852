"""How many jobs a worker claims ahead of its slots, learnt from how long they take; knows no store and no executor."""

from __future__ import annotations

from collections.abc import Sequence

from nbqueue.executor import Running
from nbqueue.store import Report

__all__ = ["Prefetch"]

#: Claim enough for so many seconds: tiny jobs come by hundreds a claim, long ones one a slot.
AHEAD_SECONDS = 0.05
AHEAD_MAX = 2048
#: What a job costs besides its handler.
OVERHEAD = 50e-6
#: No job of a worker ends for so long, and what it claimed ahead is given back.
STALL_SECONDS = 0.5


class Prefetch:
    """Learns how long jobs take.

    Parameters
    ----------
    slots : int
        How many run at once.

    Example
    -------
    >>> Prefetch(4).ahead
    0
    """

    def __init__(self, slots: int):
        self._slots = slots
        self._mean: float | None = None

    @property
    def ahead(self) -> int:
        """How many claims beyond the slots are worth holding now."""
        if self._mean is None:
            return 0
        return min(AHEAD_MAX, int(self._slots * AHEAD_SECONDS / max(self._mean, OVERHEAD)))

    def learn(self, reports: Sequence[Report]) -> None:
        """Take the times of attempts that ended."""
        taken = [
            r.finished_at - r.started_at
            for r in reports
            if r.finished_at is not None and r.started_at is not None
        ]
        if not taken:
            return
        mean = max(0.0, sum(taken) / len(taken))
        # One batch of a thousand says more than one job: what is new weighs by how many it is.
        weight = min(0.5, len(taken) / 20)
        self._mean = mean if self._mean is None else (1 - weight) * self._mean + weight * mean

    def stalled(self, now: float, running: Sequence[Running]) -> bool:
        """Whether every slot has been busy with one job for so long that claiming ahead was a mistake."""
        if len(running) < self._slots or any(now - r.started < STALL_SECONDS for r in running):
            return False
        self._mean = max(self._mean or 0.0, STALL_SECONDS)
        return True
