"""How a worker ends: what runs may end, what has not ended is given back, and then it leaves its store."""

from __future__ import annotations

import logging

from nbqueue.executor import Running, StopReason
from nbqueue.jobs import Claim
from nbqueue.lifecycle import Outcome
from nbqueue.store import Report, ReportKind
from nbqueue.worker.turns import PATIENCE, Turns

__all__ = ["shut"]

_log = logging.getLogger("nbqueue.worker")


def shut(turns: Turns) -> Exception | None:
    """Take no more, end or give back what is held, and leave the store; gives what went wrong.

    Doing it again does nothing.
    """
    if not turns.joined:
        return None
    turns.close()
    failures: list[Exception] = []
    for what, do in (("wait for", _let_end), ("report", _leave)):
        try:
            do(turns)
        except Exception as error:
            failures.append(error)
            _log.exception("worker %s could not %s its last jobs", turns.info.worker_id, what)
    return failures[0] if failures else None


def _let_end(turns: Turns) -> None:
    """Go on with turns that claim nothing, so that the lease holds, until all has ended or patience has.

    However long jobs are let run, a store that cannot be reached is not waited for without end.
    """
    ticks = turns.means.ticks
    since, over_since = ticks(), None
    while True:
        wait = turns.step()
        if not (turns.held or turns.unsent):
            return
        now = ticks()
        left = since + turns.grace - now
        if turns.waits_for_store():
            over_since = now if over_since is None else over_since
            left = min(left, over_since + PATIENCE - now)
        if left <= 0:
            return
        turns.wakeup.wait(min(wait, left))
        turns.wakeup.clear()


def _leave(turns: Turns) -> None:
    reports: list[Report] = []
    executor = turns.means.executor
    try:
        running = {one.claim.fence: one for one in executor.running()}
        left = executor.close(0.0)
        reports = [*turns.unsent, *executor.news(), *executor.collect()]
        reports += [_left_behind(turns, claim, running.get(claim.fence)) for claim in left]
        reports += [Report(claim, ReportKind.RELEASED) for claim in turns.inbox]
    finally:
        # Whatever the executor makes of it, the store gives back what nobody reports.
        turns.leave(reports)


def _left_behind(turns: Turns, claim: Claim, running: Running | None) -> Report:
    """Say of a job that has not ended in time what is true of it."""
    if running is None or running.stopping in (None, StopReason.SHUTDOWN):
        return Report(claim, ReportKind.RELEASED)
    why = "its time was up" if running.stopping is StopReason.TIMEOUT else "it was cancelled"
    error = (
        f"told to stop since {why}, it did not, and may go on for as long as process {turns.info.pid} does"
    )
    now = turns.means.clock()
    return Report(claim, ReportKind.ENDED, Outcome.STUCK, running.started_at, now, error=error)
