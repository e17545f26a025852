"""Which of the jobs that run are to stop, and which cannot be stopped; knows no store."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nbqueue.executor import Executor, Running, StopReason
from nbqueue.jobs import Claim
from nbqueue.store import LogChunk, Report, ReportKind

__all__ = ["Halting"]

_STUCK = (
    "WARNING nbqueue: told to stop, it goes on; a thread cannot be killed, so another slot took its place\n"
)


class Halting:
    """Tells jobs to stop that were cancelled or ran out of their time.

    Parameters
    ----------
    executor : Executor
        What runs them.
    clock : Callable[[], float]
        Seconds since the epoch, for what it says in their logs.
    """

    def __init__(self, executor: Executor, clock: Callable[[], float]):
        self._executor = executor
        self._clock = clock
        self._to_cancel: frozenset[int] = frozenset()
        #: Fences of what was told to stop and goes on.
        self.stuck: frozenset[int] = frozenset()

    def stop_due(self, running: Sequence[Running], now: float) -> float:
        """Stop what is cancelled or ran out of its time; gives the seconds until the next one does."""
        soonest = float("inf")
        for claim, _, started, stopping, _ in running:
            if stopping is not None:
                continue
            if claim.fence in self._to_cancel:
                self._executor.stop_job(claim.fence, StopReason.CANCEL)
            elif claim.timeout is not None:
                left = started + claim.timeout - now
                if left <= 0:
                    self._executor.stop_job(claim.fence, StopReason.TIMEOUT)
                else:
                    soonest = min(soonest, left)
        return soonest

    def cancel(self, fences: frozenset[int]) -> list[Claim]:
        """Stop these, now or when they begin; gives those that were only claimed ahead, which will not begin."""
        self._to_cancel = fences
        if not fences:
            return []
        running = {running.claim.fence for running in self._executor.running()}
        for fence in fences & running:
            self._executor.stop_job(fence, StopReason.CANCEL)
        if fences <= running or not self._executor.waiting():
            return []
        waiting = self._executor.withdraw()
        self._executor.submit([claim for claim in waiting if claim.fence not in fences])
        return [claim for claim in waiting if claim.fence in fences]

    def tell_stuck(self, running: Sequence[Running]) -> list[Report]:
        """Say in their logs which jobs cannot be stopped."""
        stuck = frozenset(job.claim.fence for job in running if job.stuck)
        new = stuck - self.stuck
        self.stuck = stuck
        if not new:
            return []
        chunk = LogChunk("log", _STUCK, self._clock())
        return [
            Report(job.claim, ReportKind.NEWS, logs=(chunk,)) for job in running if job.claim.fence in new
        ]
