"""Slots: the threads that take what was submitted, one job after the other; knows not how a job is run or stopped."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from nbqueue.executor import SPARE_SLOTS, Running, StopReason
from nbqueue.store import Report, ReportKind

if TYPE_CHECKING:
    from nbqueue.jobs import Claim
    from nbqueue.running.run import Attempt, Runner
    from nbqueue.slots import SlotFile

__all__ = ["PATIENCE", "Slot", "SlotExecutor"]

#: A job that goes on for so long after it was told to stop cannot be stopped.
PATIENCE = 5.0


class Slot:
    """A thread and what it runs."""

    __slots__ = ("attempt", "closed", "ended", "lock", "number", "replaced", "thread", "told")

    def __init__(self, number: int):
        self.number = number
        self.thread: threading.Thread | None = None
        self.attempt: Attempt | None = None
        #: When ``attempt`` was told to stop, by ``time.monotonic``.
        self.told: float | None = None
        #: It takes no more, and what it runs was given back.
        self.closed = False
        #: Another slot took its place, so it goes when its job does.
        self.replaced = False
        #: How many attempts it has ended.
        self.ended = 0
        #: Held to tell an attempt to stop, and to let one begin and end: a stop never reaches the wrong one.
        self.lock = threading.Lock()


S = TypeVar("S", bound=Slot)


class SlotExecutor(Generic[S]):
    """Runs jobs in up to ``slots`` daemon threads; those derived from it say how one is run and stopped.

    Parameters
    ----------
    slots : int
        How many jobs run at once.
    patience : float
        A job that goes on for so many seconds after it was told to stop is shown as stuck, and does not count.
    """

    name = ""
    ships_code = False
    #: What is left of a job that was told to stop when its executor closes.
    last_words = 0.2

    def __init__(self, slots: int, *, patience: float = PATIENCE):
        self.slots = slots
        self._patience = patience
        self._todo = self._new_todo()
        self._reports: deque[Report] = deque()
        self._slots: list[S] = []
        self._stuck: list[S] = []
        #: Taken, and neither given back nor ended in a slot that has gone.
        self._taken = 0
        #: Taken by a slot that was closed before it could begin.
        self._unbegun: list[Claim] = []
        self._idle = threading.Condition()

    def start(self, runner: Runner, done: Callable[[], None], slot_file: SlotFile | None) -> None:
        """Begin to take jobs; after a ``close`` with other threads, since the old ones may be stuck."""
        self._runner = runner
        self._done = done
        self._slot_file = slot_file
        self._todo, self._reports, self._unbegun = self._new_todo(), deque(), []
        self._slots, self._stuck, self._taken = [], [], 0

    def submit(self, claims: Sequence[Claim]) -> None:
        """Take these."""
        put = self._todo.put
        for claim in claims:
            put(claim)
        self._taken += len(claims)
        # What a slot is about to begin is neither waiting nor running, so count what has not ended.
        wanted = min(self.slots, self._taken - sum(slot.ended for slot in self._slots))
        while len(self._slots) < wanted and self._open_slot():
            pass

    def _open_slot(self) -> bool:
        used = {slot.number for slot in (*self._slots, *self._stuck)}
        slot = self._new_slot(next(number for number in range(len(used) + 1) if number not in used))
        # A job's threads must not see the variables of whatever cell happened to dispatch it.
        slot.thread = threading.Thread(
            target=contextvars.Context().run,
            args=(self._work, slot, self._todo, self._reports),
            name=f"nbqueue-slot-{slot.number}",
            daemon=True,
        )
        self._slots.append(slot)
        try:
            slot.thread.start()
        except RuntimeError:
            self._slots.remove(slot)
            if not self._slots:
                raise
            # The system has no more threads to give; those that are there do the work.
            return False
        return True

    # -- how it is done

    def _new_slot(self, number: int) -> S:
        raise NotImplementedError

    @staticmethod
    def _new_todo() -> SimpleQueue[Claim | None]:
        """Make what holds that which slots have still to take; None has one of them go."""
        return SimpleQueue()

    def _prepare(self, slot: S, claim: Claim) -> None:
        """Do what is to be done before the clock of an attempt begins to run; must not raise."""

    def _run(self, slot: S, attempt: Attempt) -> Report:
        """Run an attempt to its end, whatever that is; must not raise."""
        raise NotImplementedError

    def _tell(self, slot: S, reason: StopReason) -> None:
        """Stop what a slot runs; its lock is held."""
        raise NotImplementedError

    def _listen(self, slot: S) -> None:
        """Take in what the job of a slot has said, before it is asked for."""

    def _look_after(self, slot: S) -> None:
        """See to it that what was told to stop does."""

    def _leave(self, slot: S) -> None:
        """Let go of what a slot holds, as its thread ends."""

    # -- in the slot's thread

    def _work(self, slot: S, todo: SimpleQueue[Claim | None], reports: deque[Report]) -> None:
        begin, done, file, number = self._runner.begin, self._done, self._slot_file, slot.number
        while (claim := todo.get()) is not None:
            self._prepare(slot, claim)
            with slot.lock:
                if slot.closed:
                    self._unbegun.append(claim)
                    break
                slot.attempt = attempt = begin(claim)
            if file is not None:
                file.begin(number, claim.fence)
            report = self._run(slot, attempt)
            with slot.lock:
                slot.attempt = slot.told = None
                slot.ended += 1
                gone = slot.closed or slot.replaced
                if not slot.closed:
                    reports.append(report)
                    if file is not None:
                        file.end(number)
            del attempt, report, claim
            done()
            if gone:
                break
        self._leave(slot)
        with self._idle:
            slot.thread = None
            self._idle.notify_all()

    # -- for the worker

    def collect(self) -> list[Report]:
        """Give the reports that have come."""
        reports = self._reports
        return [reports.popleft() for _ in range(len(reports))]

    def news(self) -> list[Report]:
        """Give what running jobs have said since the last call."""
        found = []
        for slot in (*self._slots, *self._stuck):
            self._listen(slot)
            attempt = slot.attempt
            if attempt is not None:
                logs, progress = attempt.context.capture.drain(), attempt.context.take_progress()
                if logs or progress:
                    found.append(Report(attempt.claim, ReportKind.NEWS, logs=logs, progress=progress))
        return found

    def waiting(self) -> int:
        """How many were taken and not begun."""
        return self._todo.qsize()

    def withdraw(self, keep: int = 0) -> list[Claim]:
        """Give back what was not begun."""
        taken: list[Claim] = []
        with contextlib.suppress(Empty):
            while True:
                claim = self._todo.get_nowait()
                if claim is not None:
                    taken.append(claim)
        for claim in taken[:keep]:
            self._todo.put(claim)
        self._taken -= len(taken[keep:])
        return taken[keep:]

    def running(self) -> list[Running]:
        """What runs now."""
        self._replace_stuck()
        slots = [(slot, False) for slot in self._slots] + [(slot, True) for slot in self._stuck]
        found = []
        for slot, stuck in slots:
            attempt = slot.attempt
            if attempt is not None:
                context = attempt.context
                found.append(
                    Running(attempt.claim, attempt.started_at, context.started, context.stop_reason, stuck)
                )
        return found

    def _replace_stuck(self) -> None:
        """Let others take the places of those that cannot be stopped."""
        if self._stuck:
            self._stuck = [slot for slot in self._stuck if slot.thread is not None]
        now = time.monotonic()
        for slot in [slot for slot in self._slots if slot.told is not None]:
            self._look_after(slot)
            with slot.lock:
                told = slot.told
                if told is None or now - told < self._patience or len(self._stuck) >= SPARE_SLOTS:
                    continue
                slot.replaced = True
                if slot.attempt is not None:
                    slot.attempt.context.stuck = True
            self._slots.remove(slot)
            self._stuck.append(slot)
            self._taken -= slot.ended + 1

    def stop_job(self, fence: int, reason: StopReason) -> bool:
        """Tell a running job to stop."""
        for slot in (*self._slots, *self._stuck):
            with slot.lock:
                attempt = slot.attempt
                if attempt is None or attempt.claim.fence != fence:
                    continue
                if attempt.context.stop_reason is None:
                    attempt.context.request_stop(reason)
                    slot.told = time.monotonic()
                    self._tell(slot, reason)
                return True
        return False

    def close(self, timeout: float) -> list[Claim]:
        """Let what runs end for up to ``timeout`` seconds, then give it back."""
        left = self.withdraw()
        slots = [*self._slots, *self._stuck]
        for _ in slots:
            self._todo.put(None)
        ended = self._wait_idle(slots, timeout)
        if not ended:
            for running in self.running():
                self.stop_job(running.claim.fence, StopReason.SHUTDOWN)
            ended = self._wait_idle(slots, self.last_words)
        for slot in slots:
            with slot.lock:
                slot.closed = True
                if slot.attempt is not None:
                    left.append(slot.attempt.claim)
        self._let_go(slots, ended=ended)
        return left + self._unbegun

    def _let_go(self, slots: Sequence[S], *, ended: bool) -> None:
        """Let go of what the executor holds; ``ended``: none of its threads is left."""

    def _wait_idle(self, slots: Sequence[S], timeout: float) -> bool:
        with self._idle:
            return self._idle.wait_for(lambda: all(slot.thread is None for slot in slots), timeout)
