"""What an executor was given, what of it has begun, and what came of it; knows no cluster, and any thread may ask.

An attempt is begun here when its lane is given it, or has ended the one before: so what the worker is told runs is what
a dead lane may be blamed for, and nothing else is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from nbqueue.executor import SPARE_SLOTS, Running, StopReason
from nbqueue.lifecycle import Outcome
from nbqueue.running.run import Attempt, Ending, Runner
from nbqueue.store import LogChunk, Report, ReportKind

if TYPE_CHECKING:
    from nbqueue.jobs import Claim
    from nbqueue.slots import SlotFile

__all__ = ["Desk", "Run"]


class Run:
    """An attempt that has begun somewhere in the cluster."""

    __slots__ = ("attempt", "lane", "logs", "place", "stuck", "told")

    def __init__(self, attempt: Attempt, lane: int, place: int):
        self.attempt = attempt
        #: The number of its lane, and that of its slot.
        self.lane = lane
        self.place = place
        #: What it has said and nobody was told.
        self.logs: list[LogChunk] = []
        #: When it was told to stop, by ``time.monotonic``.
        self.told: float | None = None
        self.stuck = False


class Desk:
    """The books of an executor, from its start to its close.

    Parameters
    ----------
    runner : Runner
        Makes attempts.
    done : Callable[[], None]
        Is called when there is something to collect.
    slot_file : SlotFile, optional
        Notes what has begun.
    """

    def __init__(self, runner: Runner, done: Callable[[], None], slot_file: SlotFile | None):
        self.runner = runner
        self.done = done
        self._slot_file = slot_file
        self.lock = threading.RLock()
        self._idle = threading.Condition(self.lock)
        self.todo: deque[Claim] = deque()
        self.runs: dict[int, Run] = {}
        self._reports: deque[Report] = deque()
        #: No more is to be begun but what a lane has already.
        self.closing = False

    # -- one attempt

    def begin(self, claim: Claim, lane: int, place: int) -> Run:
        """Begin an attempt; its clock runs from here."""
        with self.lock:
            run = self.runs[claim.fence] = Run(self.runner.begin(claim), lane, place)
            if self._slot_file is not None:
                self._slot_file.begin(place, claim.fence)
            return run

    def take_back(self, fence: int) -> Run | None:
        """Strike an attempt off: nothing is said of it."""
        with self.lock:
            run = self.runs.pop(fence, None)
            if run is not None:
                run.attempt.context.capture.end()
                if self._slot_file is not None:
                    self._slot_file.end(run.place)
                self._idle.notify_all()
            return run

    def end(self, fence: int, ending: Ending, usage: str = "", logs: Iterable[LogChunk] = ()) -> bool:
        """Report that an attempt has ended, and how; whether it was one of those that run."""
        with self.lock:
            run = self.runs.get(fence)
            if run is None:
                return False
            report = run.attempt.report(ending, usage=usage)
            self._reports.append(report._replace(logs=(*run.logs, *logs)))
            self.take_back(fence)
        self.done()
        return True

    def turn_away(self, claim: Claim, ending: Ending) -> None:
        """Report that a job was not begun, and why."""
        with self.lock:
            self._reports.append(self.runner.begin(claim).report(ending))
        self.done()

    def put_back(self, claims: Sequence[Claim]) -> None:
        """Let what was not begun wait in front of the others."""
        with self.lock:
            self.todo = deque(sorted((*claims, *self.todo), key=lambda claim: claim.fence))

    def next_fence(self) -> int | None:
        """Give the fence of the first that waits, if any does."""
        with self.lock:
            return self.todo[0].fence if self.todo else None

    def release_waiting(self, keep: int) -> int:
        """Give what waits back to its queue, but for the first; gives how many jobs that was."""
        with self.lock:
            back = self.withdraw(keep)
            self._reports += [Report(claim, ReportKind.RELEASED) for claim in back]
        if back:
            self.done()
        return len(back)

    def release_all(self, claims: Iterable[Claim] = ()) -> int:
        """Give everything back to its queue, these too; gives how many jobs that was."""
        with self.lock:
            waiting = [claim for claim in (*claims, *self.todo) if claim.fence not in self.runs]
            self.todo.clear()
            self._reports += [Report(claim, ReportKind.RELEASED) for claim in waiting]
            running = list(self.runs.items())
            for fence, run in running:
                self.end(fence, _unheard_of(run))
        if waiting:
            self.done()
        return len(waiting) + len(running)

    # -- for the worker

    def collect(self) -> list[Report]:
        """Give the reports that have come."""
        with self.lock:
            reports = list(self._reports)
            self._reports.clear()
            return reports

    def news(self) -> list[Report]:
        """Give what running jobs have said since the last call."""
        found = []
        with self.lock:
            for run in self.runs.values():
                logs, run.logs = tuple(run.logs), []
                progress = run.attempt.context.take_progress()
                if logs or progress:
                    found.append(Report(run.attempt.claim, ReportKind.NEWS, logs=logs, progress=progress))
        return found

    def running(self) -> list[Running]:
        """What runs now."""
        with self.lock:
            return [
                Running(
                    run.attempt.claim,
                    run.attempt.started_at,
                    run.attempt.context.started,
                    run.attempt.context.stop_reason,
                    run.stuck,
                )
                for run in self.runs.values()
            ]

    def newly_stuck(self, patience: float) -> list[Run]:
        """Give what was told to stop so long ago that it will not; each is given once."""
        late = time.monotonic() - patience
        with self.lock:
            spare = SPARE_SLOTS - sum(run.stuck for run in self.runs.values())
            found = [r for r in self.runs.values() if r.told is not None and r.told < late and not r.stuck][
                :spare
            ]
            for run in found:
                run.stuck = run.attempt.context.stuck = True
            return found

    def stop(self, fence: int, reason: StopReason) -> tuple[Run | None, bool]:
        """Note that an attempt is to stop; gives it, and whether it must be told."""
        with self.lock:
            run = self.runs.get(fence)
            if run is None or run.told is not None:
                return run, False
            run.attempt.context.request_stop(reason)
            run.told = time.monotonic()
            return run, True

    def withdraw(self, keep: int) -> list[Claim]:
        """Give back what waits, but for the first."""
        with self.lock:
            waiting = list(self.todo)
            self.todo = deque(waiting[:keep])
            return waiting[keep:]

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing runs; whether that is so."""
        with self._idle:
            return self._idle.wait_for(lambda: not self.runs, timeout)

    def abandon(self) -> list[Claim]:
        """Strike off all that runs, and give it back by hand."""
        with self.lock:
            return [run.attempt.claim for fence in list(self.runs) if (run := self.take_back(fence))]


def _unheard_of(run: Run) -> Ending:
    """Say how an attempt ends of which nothing can be heard any more: it may be running still."""
    reason = run.attempt.context.stop_reason
    if reason in (None, StopReason.SHUTDOWN):
        return Ending(ReportKind.RELEASED)
    why = "its time was up" if reason is StopReason.TIMEOUT else "it was cancelled"
    error = (
        f"told to stop since {why}; before it had, its cluster could not be reached any more, so it may go on"
    )
    return Ending(ReportKind.ENDED, Outcome.STUCK, error=error)
