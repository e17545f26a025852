"""The thread executor: jobs run in threads of this process and share its memory; knows no store and no worker.

A thread cannot be killed. A job is told to stop by its context and by an exception raised in it; one that reacts to
neither goes on, is shown as running, and nothing is said to have ended that has not.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from nbqueue.context import JobStopped
from nbqueue.executor import Running, StopReason
from nbqueue.store import Report, ReportKind

if TYPE_CHECKING:
    from nbqueue.jobs import Claim
    from nbqueue.run import Attempt, Runner
    from nbqueue.slots import SlotFile

__all__ = ["ThreadExecutor"]


class _Cancelled(JobStopped):
    def __init__(self) -> None:
        super().__init__(StopReason.CANCEL)


class _TimedOut(JobStopped):
    def __init__(self) -> None:
        super().__init__(StopReason.TIMEOUT)


class _ShutDown(JobStopped):
    def __init__(self) -> None:
        super().__init__(StopReason.SHUTDOWN)


# CPython raises an exception in another thread by its class, which it calls without arguments.
_RAISED: dict[StopReason, type[JobStopped]] = {
    StopReason.CANCEL: _Cancelled,
    StopReason.TIMEOUT: _TimedOut,
    StopReason.SHUTDOWN: _ShutDown,
}


class _Slot:
    """A thread and what it runs."""

    __slots__ = ("attempt", "lock", "number", "task", "thread")

    def __init__(self, number: int):
        self.number = number
        self.thread: threading.Thread | None = None
        self.attempt: Attempt | None = None
        #: The task of an ``async def`` handler, on the executor's loop.
        self.task: asyncio.Future[Any] | None = None
        #: Held to begin and end an attempt, so that a stop never reaches the wrong one.
        self.lock = threading.Lock()


class ThreadExecutor:
    """Runs jobs in up to ``slots`` daemon threads.

    Parameters
    ----------
    slots : int
        How many jobs run at once.
    """

    name = "thread"

    def __init__(self, slots: int):
        self.slots = slots
        self._todo: SimpleQueue[Claim | None] = SimpleQueue()
        self._reports: deque[Report] = deque()
        self._slots: list[_Slot] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_lock = threading.Lock()
        self._closed = False
        #: All threads have left, or are the ones given up on.
        self._idle = threading.Condition()

    def start(self, runner: Runner, done: Callable[[], None], slot_file: SlotFile | None) -> None:
        """Begin to take jobs."""
        self._runner = runner
        self._done = done
        self._slot_file = slot_file

    def submit(self, claims: Sequence[Claim]) -> None:
        """Take these."""
        put = self._todo.put
        for claim in claims:
            put(claim)
        while len(self._slots) < self.slots and len(self._slots) < self._busy() + self._todo.qsize():
            self._add_slot()

    def _busy(self) -> int:
        return sum(slot.attempt is not None for slot in self._slots)

    def _add_slot(self) -> None:
        slot = _Slot(len(self._slots))
        # A job's threads must not see the variables of whatever cell happened to dispatch it.
        slot.thread = threading.Thread(
            target=contextvars.Context().run,
            args=(self._work, slot),
            name=f"nbqueue-slot-{slot.number}",
            daemon=True,
        )
        self._slots.append(slot)
        slot.thread.start()

    # -- in the slot's thread

    def _work(self, slot: _Slot) -> None:
        get, file, number = self._todo.get, self._slot_file, slot.number
        while True:
            claim = get()
            if claim is None:
                break
            if file is not None:
                file.begin(number, claim.fence)
            report = self._run_one(slot, claim)
            if self._closed:
                break
            self._reports.append(report)
            if file is not None:
                file.end(number)
            self._done()
        with self._idle:
            slot.thread = None
            self._idle.notify_all()

    def _run_one(self, slot: _Slot, claim: Claim) -> Report:
        attempt = self._runner.begin(claim)
        with slot.lock:
            slot.attempt = attempt
        report: Report | None = None
        try:
            report = attempt.run(lambda coroutine: self._finish(slot, coroutine))
        except JobStopped as stopped:
            # The stop came in the instant between the handler's end and here.
            report = report or attempt.stopped(stopped)
        return self._let_go(slot, attempt, report)

    def _let_go(self, slot: _Slot, attempt: Attempt, report: Report) -> Report:
        try:
            with slot.lock:
                slot.attempt = None
                slot.task = None
            if attempt.context.stop_reason is not None:
                # Whatever was raised and has not arrived must not hit the next job.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), None)
        except JobStopped:
            return self._let_go(slot, attempt, report)
        return report

    def _finish(self, slot: _Slot, coroutine: Awaitable[Any]) -> Any:
        """Run an ``async def`` handler on the executor's own loop, with this thread's context."""
        loop = self._own_loop()
        context = contextvars.copy_context()
        ended: SimpleQueue[asyncio.Future[Any]] = SimpleQueue()

        def begin() -> None:
            task = loop.create_task(_coroutine(coroutine), context=context)
            slot.task = task
            task.add_done_callback(ended.put)
            attempt = slot.attempt
            if attempt is not None and attempt.context.should_stop():
                task.cancel()

        loop.call_soon_threadsafe(begin)
        task = ended.get()
        reason = slot.attempt.context.stop_reason if slot.attempt is not None else None
        if task.cancelled() and reason is not None:
            raise _RAISED[reason]
        return task.result()

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        with self._loop_lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(
                    target=contextvars.Context().run, args=(self._loop.run_forever,), name="nbqueue-loop", daemon=True
                ).start()
            return self._loop

    # -- for the worker

    def collect(self) -> list[Report]:
        """Give the reports that have come."""
        reports = self._reports
        return [reports.popleft() for _ in range(len(reports))]

    def news(self) -> list[Report]:
        """Give what running jobs have said since the last call."""
        found = []
        for slot in self._slots:
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
        try:
            while True:
                claim = self._todo.get_nowait()
                if claim is not None:
                    taken.append(claim)
        except Empty:
            pass
        for claim in taken[:keep]:
            self._todo.put(claim)
        return taken[keep:]

    def running(self) -> list[Running]:
        """What runs now."""
        attempts = [slot.attempt for slot in self._slots]
        return [
            Running(a.claim, a.started_at, a.context.started, a.context.stop_reason) for a in attempts if a is not None
        ]

    def stop_job(self, fence: int, reason: StopReason) -> bool:
        """Tell a running job to stop."""
        for slot in self._slots:
            with slot.lock:
                attempt = slot.attempt
                if attempt is None or attempt.claim.fence != fence:
                    continue
                if attempt.context.should_stop():
                    return True
                attempt.context.request_stop(reason)
                if slot.task is not None and self._loop is not None:
                    self._loop.call_soon_threadsafe(slot.task.cancel)
                elif slot.thread is not None and slot.thread.ident is not None:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(slot.thread.ident), ctypes.py_object(_RAISED[reason])
                    )
                return True
        return False

    def close(self, timeout: float) -> list[Claim]:
        """Let what runs end for up to ``timeout`` seconds, then give it back."""
        left = self.withdraw()
        for _ in self._slots:
            self._todo.put(None)
        self._wait_idle(timeout)
        for running in self.running():
            self.stop_job(running.claim.fence, StopReason.SHUTDOWN)
            left.append(running.claim)
        if left:
            self._wait_idle(0.2)
        self._closed = True
        reported = {report.claim.fence for report in self._reports}
        with self._loop_lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
        return [claim for claim in left if claim.fence not in reported]

    def _wait_idle(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._idle:
            while any(slot.thread is not None for slot in self._slots):
                left = deadline - time.monotonic()
                if left <= 0 or not self._idle.wait(left):
                    return


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
