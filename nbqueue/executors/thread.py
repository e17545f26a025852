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
from collections.abc import Awaitable, Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from nbqueue.executor import StopReason
from nbqueue.executors.slots import PATIENCE, Slot, SlotExecutor
from nbqueue.running.context import JobStopped

if TYPE_CHECKING:
    from nbqueue.running.context import Context
    from nbqueue.running.run import Attempt
    from nbqueue.store import Report

__all__ = ["CellThreads", "ThreadExecutor", "ThreadSlot"]

_log = logging.getLogger("nbqueue.worker")

#: What is left of a loop's tasks when its executor closes.
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


class ThreadSlot(Slot):
    """A thread, and how what runs in it is broken off."""

    __slots__ = ("armed", "spared", "task")

    def __init__(self, number: int):
        super().__init__(number)
        #: The task of an ``async def`` handler, on the executor's loop.
        self.task: asyncio.Future[Any] | None = None
        #: The handler of ``attempt`` runs in the thread itself, so an exception may be raised there.
        self.armed = False
        #: ``attempt`` was told to stop, and is left some time to do it by itself.
        self.spared = False


T = TypeVar("T", bound=ThreadSlot)


class CellThreads(SlotExecutor[T]):
    """Runs handlers in the threads of its slots; the base of executors that run some jobs so, or all."""

    def __init__(self, slots: int, *, patience: float = PATIENCE):
        super().__init__(slots, patience=patience)
        self._loop: _Loop | None = None
        self._loop_lock = threading.Lock()

    # -- in the slot's thread

    def _run(self, slot: T, attempt: Attempt) -> Report:
        try:
            return self._variables().run(attempt.run, functools.partial(self._perform, slot))
        finally:
            # Few have either, and a lock takes 0.15 us.
            if slot.task is not None or slot.spared:
                with slot.lock:
                    slot.task = None
                    slot.spared = False

    @staticmethod
    def _variables() -> contextvars.Context:
        """Where a job's variables are: those that it sets are gone when it ends."""
        return contextvars.Context()

    def _perform(self, slot: T, call: Callable[[], Any], is_async: bool) -> Any:  # noqa: FBT001 - see Perform
        attempt = slot.attempt
        assert attempt is not None
        if is_async:
            return self._await(slot, attempt.context, call)
        return _interruptibly(slot, attempt.context, call)

    def _await(self, slot: T, context: Context, call: Callable[[], Any]) -> Any:
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

    def news(self) -> list[Report]:
        """Give what running jobs have said since the last call."""
        self._break_off_spared()
        return super().news()

    def _tell(self, slot: T, reason: StopReason) -> None:
        assert slot.attempt is not None
        slot.spared = slot.attempt.context.asks and reason is not StopReason.SHUTDOWN
        if not slot.spared:
            self._break_off(slot, reason)

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

    def _break_off(self, slot: T, reason: StopReason) -> None:
        if slot.task is not None:
            # The loop is closed only when none of its tasks is left.
            with contextlib.suppress(RuntimeError):
                slot.task.get_loop().call_soon_threadsafe(slot.task.cancel)
        elif slot.armed and slot.thread is not None and slot.thread.ident is not None:
            _raise_in(slot.thread.ident, _RAISED[reason])

    def _let_go(self, slots: Sequence[T], *, ended: bool) -> None:
        with self._loop_lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.close(_LAST_WORDS if ended else 0.0)


class ThreadExecutor(CellThreads[ThreadSlot]):
    """Runs jobs in up to ``slots`` daemon threads.

    Parameters
    ----------
    slots : int
        How many jobs run at once.
    patience : float
        A job that goes on for so many seconds after it was told to stop is shown as stuck, and does not count.
    """

    name = "thread"

    def _new_slot(self, number: int) -> ThreadSlot:
        return ThreadSlot(number)


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


def _interruptibly(slot: ThreadSlot, context: Context, call: Callable[[], Any]) -> Any:
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


def _arm(slot: ThreadSlot, context: Context) -> None:
    # No lock, which takes 0.15 us: ``stop_job`` gives the reason before it looks whether this is armed, so one of the
    # two sees the other; where both do, it is stopped here, and what is raised as well comes to nothing in `_disarm`.
    slot.armed = True
    reason = context.stop_reason
    if reason is not None:
        raise _RAISED[reason]


def _disarm(slot: ThreadSlot) -> None:
    # Whoever looks after this sees that nothing may be raised any more; who looked before has told by now.
    slot.armed = False
    if slot.told is None:
        return
    with slot.lock:
        pass  # who is about to raise has raised
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
