"""The process executor: jobs run in processes of their own, which can be stopped whatever they do; knows no store.

Each slot has a child, a process that is kept for the next job. A job is told to stop, and what does not is killed with
all that it started. The death of a child costs the attempt that it ran, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nbqueue.errors import InvalidCommand, NbqueueError, NotSupported, QueueError
from nbqueue.executors.children import Child, Limits
from nbqueue.executors.conversation import Conversation
from nbqueue.executors.thread import CellThreads, ThreadSlot
from nbqueue.handlers.handler import Kind
from nbqueue.running.run import Ending, refused
from nbqueue.sizes import size
from nbqueue.store import ReportKind
from nbqueue.wire import ChannelClosedError, WireError

if TYPE_CHECKING:
    from nbqueue.executor import StopReason
    from nbqueue.handlers.handler import Handler
    from nbqueue.jobs import Claim
    from nbqueue.running.run import Attempt, Runner
    from nbqueue.slots import SlotFile
    from nbqueue.store import Report

__all__ = ["ProcessExecutor"]

_log = logging.getLogger("nbqueue.worker")

#: A job that was told to stop has so long to do it before its process is killed.
GRACE = 0.5
#: A smaller limit leaves no room for Python itself.
MEMORY_MIN = 64 * 1024 * 1024
#: A line that a job does not end is shown after so long.
_PARTIAL = 0.1
#: The longest pause between attempts to start a child where none can be started.
_PAUSE_MAX = 5.0


class _ProcessSlot(ThreadSlot):
    """A thread, and its child."""

    __slots__ = ("child", "conversation", "failures", "trouble")

    def __init__(self, number: int):
        super().__init__(number)
        self.child: Child | None = None
        #: What it has with its child about ``attempt``; None for a cell, which runs in the thread.
        self.conversation: Conversation | None = None
        #: Why there is no child, and how often in a row there was none.
        self.trouble: QueueError | None = None
        self.failures = 0


class ProcessExecutor(CellThreads[_ProcessSlot]):
    """Runs jobs in up to ``slots`` child processes; ``%%job`` cells in threads, since they use the kernel's names.

    Parameters
    ----------
    slots : int
        How many jobs run at once.
    max_jobs_per_child : int, optional
        A child is replaced after so many jobs.
    memory_limit : str or int, optional
        ``"2GB"``, or bytes: what asks for more address space than that gets a ``MemoryError``.
    grace : float
        How many seconds a job that was told to stop has to do it before it is killed.

    Raises
    ------
    InvalidCommand
        For a number or size that cannot be.
    NotSupported
        On Windows.
    """

    name = "process"
    ships_code = True

    def __init__(
        self,
        slots: int,
        *,
        max_jobs_per_child: int | None = None,
        memory_limit: str | int | None = None,
        grace: float = GRACE,
    ):
        super().__init__(slots)
        if os.name != "posix":
            raise NotSupported('child processes need Linux or macOS; use executor="thread"')
        if max_jobs_per_child is not None and (type(max_jobs_per_child) is not int or max_jobs_per_child < 1):
            raise InvalidCommand(
                f"max_jobs_per_child must be a whole number from 1 up, not {max_jobs_per_child!r}"
            )
        memory = None if memory_limit is None else size(memory_limit, what="memory_limit", least=MEMORY_MIN)
        self._limits = Limits(max_jobs_per_child, memory)
        self._grace = grace
        self.last_words = grace + 0.4
        self._closing = threading.Event()

    def _new_slot(self, number: int) -> _ProcessSlot:
        return _ProcessSlot(number)

    # -- in the slot's thread

    def _prepare(self, slot: _ProcessSlot, claim: Claim) -> None:
        """Have a child ready: the clock of the attempt is not to run meanwhile."""
        child = slot.child
        if child is not None:
            if child.alive and child.jobs < (child.limits.max_jobs or child.jobs + 1) and not child.outdated:
                return
            slot.child = None
            child.end()
        # Only to spare a cell a child; what is wrong with the handler is told when the attempt looks for it.
        with contextlib.suppress(Exception):
            handler = self._runner.resolve(claim.spec)
            if handler is None or handler.kind is Kind.CELL:
                return
        if slot.failures:
            self._closing.wait(min(_PAUSE_MAX, 0.1 * 2**slot.failures))
        self._start_child(slot)

    def _start_child(self, slot: _ProcessSlot) -> None:
        slot.trouble = None
        try:
            home = getattr(self._runner.services.dispatcher, "home", "")
            child = Child(self._limits, home)
            with slot.lock:
                slot.child = child
            child.shake_hands()
            slot.failures = 0
        except (OSError, QueueError) as error:
            slot.child = None
            slot.failures += 1
            slot.trouble = (
                error if isinstance(error, QueueError) else QueueError(f"no process can be started: {error}")
            )
            if slot.failures == 1 and not slot.closed:
                _log.warning("%s; its jobs wait, and it is tried again", slot.trouble)

    def _run(self, slot: _ProcessSlot, attempt: Attempt) -> Report:
        handler = attempt.find()
        if isinstance(handler, Ending):
            return attempt.report(handler)
        if handler.kind is Kind.CELL:
            return super()._run(slot, attempt)
        for again in (False, True):
            child = slot.child
            if child is None:
                # It was forgotten as the child was to be made, or there is none to be had: it waits in its queue.
                break
            try:
                report = self._run_in_child(slot, child, attempt, handler, again=again)
            except Exception as error:
                _log.exception("a process that ran a job is not understood")
                child.kill()
                how = f"what the process that ran it said is not understood: {error!r}"
                return attempt.report(attempt.died(how, "garbled"))
            if report is not None:
                return report
            # Its child was idle when it died, and that costs no job an attempt.
            self._start_child(slot)
        return attempt.report(Ending(ReportKind.RELEASED))

    def _run_in_child(
        self, slot: _ProcessSlot, child: Child, attempt: Attempt, handler: Handler, *, again: bool
    ) -> Report | None:
        conversation = Conversation(child, attempt, self._grace)
        try:
            conversation.open(handler)
        except (ChannelClosedError, WireError) as error:
            if isinstance(error, WireError):
                return attempt.report(refused(InvalidCommand(str(error))))
        except NbqueueError as error:
            # It was not sent, so nothing of it was run.
            return attempt.report(refused(error)._replace(cause="not sent"))
        with slot.lock:
            slot.conversation = conversation
            if slot.told is not None:
                conversation.stop(slot.told)
        try:
            report = conversation.hear_out(again=again)
        finally:
            with slot.lock:
                slot.conversation = None
        if conversation.over:
            slot.child = None
            child.end(patience=0.0)
        return report

    def _leave(self, slot: _ProcessSlot) -> None:
        child, slot.child = slot.child, None
        if child is not None:
            child.end()

    # -- for the worker

    def start(self, runner: Runner, done: Callable[[], None], slot_file: SlotFile | None) -> None:
        """Begin to take jobs; after a ``close`` with other children."""
        self._closing.clear()
        super().start(runner, done, slot_file)

    def close(self, timeout: float) -> list[Claim]:
        """Let what runs end for up to ``timeout`` seconds; tell, then kill the rest, and give it back."""
        self._closing.set()
        return super().close(timeout)

    def _tell(self, slot: _ProcessSlot, reason: StopReason) -> None:
        assert slot.attempt is not None
        assert slot.told is not None
        if slot.conversation is not None:
            slot.conversation.stop(slot.told)
        elif slot.task is not None or slot.armed:
            super()._tell(slot, reason)

    def _listen(self, slot: _ProcessSlot) -> None:
        child = slot.child
        if child is not None and slot.conversation is not None:
            child.streams.listen(age=_PARTIAL)

    def _look_after(self, slot: _ProcessSlot) -> None:
        # Its own thread kills it in time, unless the thread itself is held up, as by a child that reads no more.
        child, told = slot.child, slot.told
        if child is not None and told is not None and time.monotonic() > told + 2 * self._grace:
            child.kill()

    def _let_go(self, slots: Sequence[_ProcessSlot], *, ended: bool) -> None:
        super()._let_go(slots, ended=ended)
        for slot in slots:
            child = slot.child
            if child is not None:
                child.kill()
