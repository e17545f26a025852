"""The thread executor: jobs run in threads of this process and share its memory; knows no store and no worker.

A thread cannot be killed. A job is told to stop by its context and by an exception raised in it; one that reacts to
neither goes on, is shown as running, and nothing is said to have ended that has not.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import functools
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from nbqueue.executor import SPARE_SLOTS, Running, StopReason
from nbqueue.running.context import JobStopped
from nbqueue.store import Report, ReportKind

if TYPE_CHECKING:
    from nbqueue.jobs import Claim
    from nbqueue.running.context import Context
    from nbqueue.running.run import Attempt, Runner
    from nbqueue.slots import SlotFile

__all__ = ["ThreadExecutor"]

_log = logging.getLogger("nbqueue.worker")

#: A job that goes on for so long after it was told to stop cannot be stopped.
PATIENCE = 5.0
#: What is left of a job that was told to stop when its executor closes.
_LAST_WORDS = 0.2
#: A job that asks whether it should stop may take so long to do it.
_SPARED = 3.0


class _Cancelled(JobStopped):
    def __init__(self) -> None:
        super().__init__(StopReason.CANCEL)


class _TimedOut(JobStopped):
    def __init__(self) -> None:
        super().__init__(StopReason.TIMEOUT)


class _ShutDown(JobStopped):
    def __init__(self) -> None:
        super().__init__(StopReason.SHUTDOWN)


class _Nothing(BaseException):
    """Takes the place of a stop that came too late."""


# CPython raises an exception in another thread by its class, which it calls without arguments.
_RAISED: dict[StopReason, type[JobStopped]] = {
    StopReason.CANCEL: _Cancelled,
    StopReason.TIMEOUT: _TimedOut,
    StopReason.SHUTDOWN: _ShutDown,
}


class _Slot:
    """A thread and what it runs."""

    __slots__ = (
        "armed",
        "attempt",
        "closed",
        "ended",
        "lock",
        "number",
        "replaced",
        "spared",
        "task",
        "thread",
        "told",
    )

    def __init__(self, number: int):
        self.number = number
        self.thread: threading.Thread | None = None
        self.attempt: Attempt | None = None
        #: The task of an ``async def`` handler, on the executor's loop.
        self.task: asyncio.Future[Any] | None = None
        #: The handler of ``attempt`` runs in the thread itself, so an exception may be raised there.
        self.armed = False
        #: When ``attempt`` was told to stop, by ``time.monotonic``.
        self.told: float | None = None
        #: ``attempt`` was told to stop, and is left some time to do it by itself.
        self.spared = False
        #: It takes no more, and what it runs was given back.
        self.closed = False
        #: Another slot took its place, so it goes when its job does.
        self.replaced = False
        #: How many attempts it has ended.
        self.ended = 0
        #: Held to tell an attempt to stop, and to let one begin and end: a stop never reaches the wrong one.
        self.lock = threading.Lock()


class ThreadExecutor:
    """Runs jobs in up to ``slots`` daemon threads.

    Parameters
    ----------
    slots : int
        How many jobs run at once.
    patience : float
        A job that goes on for so many seconds after it was told to stop is shown as stuck, and does not count.
    """

    name = "thread"

    def __init__(self, slots: int, *, patience: float = PATIENCE):
        self.slots = slots
        self._patience = patience
        self._todo: SimpleQueue[Claim | None] = SimpleQueue()
        self._reports: deque[Report] = deque()
        self._slots: list[_Slot] = []
        self._stuck: list[_Slot] = []
        self._loop: _Loop | None = None
        self._loop_lock = threading.Lock()
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
        self._todo, self._reports, self._unbegun = SimpleQueue(), deque(), []
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
        slot = _Slot(next(number for number in range(len(used) + 1) if number not in used))
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

    # -- in the slot's thread

    def _work(self, slot: _Slot, todo: SimpleQueue[Claim | None], reports: deque[Report]) -> None:
        begin, done, file, number = self._runner.begin, self._done, self._slot_file, slot.number
        perform = functools.partial(self._perform, slot)
        while (claim := todo.get()) is not None:
            with slot.lock:
                if slot.closed:
                    self._unbegun.append(claim)
                    break
                slot.attempt = attempt = begin(claim)
            if file is not None:
                file.begin(number, claim.fence)
            # Variables that a job sets are gone when it ends.
            report = contextvars.Context().run(attempt.run, perform)
            with slot.lock:
                slot.attempt = slot.task = slot.told = None
                slot.spared = False
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
        with self._idle:
            slot.thread = None
            self._idle.notify_all()

    def _perform(self, slot: _Slot, call: Callable[[], Any], is_async: bool) -> Any:  # noqa: FBT001 - see Perform
        attempt = slot.attempt
        assert attempt is not None
        if is_async:
            return self._await(slot, attempt.context, call)
        return _interruptibly(slot, attempt.context, call)

    def _await(self, slot: _Slot, context: Context, call: Callable[[], Any]) -> Any:
        """Run an ``async def`` handler on the executor's own loop, with this thread's context."""
        awaitable = call()
        loop = self._own_loop()
        variables = contextvars.copy_context()
        ended: SimpleQueue[asyncio.Future[Any]] = SimpleQueue()

        def begin() -> None:
            # One that is cancelled before it begins leaves a coroutine inside it behind, so none is put around it.
            coroutine = awaitable if inspect.iscoroutine(awaitable) else _coroutine(awaitable)
            task = loop.create_task(coroutine, context=variables)
            task.add_done_callback(ended.put)
            with slot.lock:
                slot.task = task
                stop = context.stop_reason is not None
            if stop:
                task.cancel()

        loop.call_soon_threadsafe(begin)
        task = ended.get()
        reason = context.stop_reason
        if task.cancelled() and reason is not None:
            raise _RAISED[reason]
        return task.result()

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        with self._loop_lock:
            if self._loop is None:
                self._loop = _Loop()
            return self._loop.loop

    # -- for the worker

    def collect(self) -> list[Report]:
        """Give the reports that have come."""
        reports = self._reports
        return [reports.popleft() for _ in range(len(reports))]

    def news(self) -> list[Report]:
        """Give what running jobs have said since the last call."""
        self._break_off_spared()
        found = []
        for slot in (*self._slots, *self._stuck):
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
            with slot.lock:
                told = slot.told
                if told is None or now - told < self._patience or len(self._stuck) >= SPARE_SLOTS:
                    continue
                slot.replaced = True
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
                context = attempt.context
                if context.stop_reason is None:
                    context.request_stop(reason)
                    slot.told = time.monotonic()
                    slot.spared = context.asks and reason is not StopReason.SHUTDOWN
                    if not slot.spared:
                        self._break_off(slot, reason)
                return True
        return False

    def _break_off_spared(self) -> None:
        """Break off those that ask whether they should stop, and did not."""
        late = time.monotonic() - min(_SPARED, self._patience / 2)
        for slot in [slot for slot in self._slots if slot.spared]:
            with slot.lock:
                if slot.spared and slot.told is not None and slot.told < late and slot.attempt is not None:
                    slot.spared = False
                    reason = slot.attempt.context.stop_reason
                    assert reason is not None
                    self._break_off(slot, reason)

    def _break_off(self, slot: _Slot, reason: StopReason) -> None:
        if slot.task is not None:
            # The loop is closed only when none of its tasks is left.
            with contextlib.suppress(RuntimeError):
                slot.task.get_loop().call_soon_threadsafe(slot.task.cancel)
        elif slot.armed and slot.thread is not None and slot.thread.ident is not None:
            _raise_in(slot.thread.ident, _RAISED[reason])

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
            ended = self._wait_idle(slots, _LAST_WORDS)
        for slot in slots:
            with slot.lock:
                slot.closed = True
                if slot.attempt is not None:
                    left.append(slot.attempt.claim)
        with self._loop_lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close(_LAST_WORDS if ended else 0.0)
        return left + self._unbegun

    def _wait_idle(self, slots: Sequence[_Slot], timeout: float) -> bool:
        with self._idle:
            return self._idle.wait_for(lambda: all(slot.thread is None for slot in slots), timeout)


class _Loop:
    """An event loop in a daemon thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._over = False
        self._thread = threading.Thread(
            target=contextvars.Context().run, args=(self._run,), name="nbqueue-loop", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        loop = self.loop
        while not self._over:
            try:
                loop.run_forever()
            except BaseException as error:
                # A task that raises SystemExit keeps it, and takes the loop down as well: the others go on.
                _log.debug("a task on the worker's loop ended with %r", error)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    def close(self, timeout: float) -> None:
        """End the loop once every task on it has ended; they are cancelled now."""
        self.loop.call_soon_threadsafe(self._begin_to_end)
        self._thread.join(timeout)

    def _begin_to_end(self) -> None:
        # A loop holds its tasks only weakly.
        self._ending = self.loop.create_task(self._end())

    async def _end(self) -> None:
        while others := asyncio.all_tasks(self.loop) - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
        self._over = True
        self.loop.stop()


def _interruptibly(slot: _Slot, context: Context, call: Callable[[], Any]) -> Any:
    """Call it so that ``stop_job`` can raise in it, and nothing that was raised arrives after this has returned.

    One stop an attempt is raised at most, and it may arrive at any call or jump: within ``call``, or as late as
    within ``_disarm``, where it is taken for what it is, a stop that came as the job ended.
    """
    value: Any = None
    error: BaseException | None = None
    returned = False
    try:
        try:
            _arm(slot, context)
            value = call()
            returned = True
        except BaseException as raised:
            error = raised
        _disarm(slot)
    except JobStopped as late:
        if not returned and error is None:
            error = late
        _disarm(slot)
    if error is None:
        return value
    try:
        raise error
    finally:
        # The traceback holds this frame.
        del error


def _arm(slot: _Slot, context: Context) -> None:
    with slot.lock:
        reason = context.stop_reason
        if reason is not None:
            raise _RAISED[reason]
        slot.armed = True


def _disarm(slot: _Slot) -> None:
    with slot.lock:
        slot.armed = False
    if slot.told is None:
        return
    # What was raised and has not arrived must not hit the next job. Taking it back with NULL is not enough: up to
    # CPython 3.12 that leaves the interpreter's eval breaker set, and whoever traces a function then hangs
    # in it. So something else is raised in its place, and awaited.
    with contextlib.suppress(_Nothing):
        _raise_in(threading.get_ident(), _Nothing)
        while True:
            pass


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    """Raise this in a thread at its next call or jump, in place of what was raised there and has not arrived."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


async def _coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
