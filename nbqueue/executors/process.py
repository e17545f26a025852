"""The process executor: jobs run in processes of their own, which can be stopped whatever they do; knows no store.

Each slot has a child, a process that is kept for the next job. A job is told to stop, and what does not is killed with
all that it started. The death of a child costs the attempt that it ran, and nothing else. Jobs that take next to
nothing are sent in groups; what waits in a child behind one that takes long is taken back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from queue import SimpleQueue
from typing import TYPE_CHECKING

from nbqueue.errors import InvalidCommand, NbqueueError, NotSupported, QueueError
from nbqueue.executors.children import Child, Limits
from nbqueue.executors.conversation import Conversation
from nbqueue.executors.desk import ProcessSlot, SlotDesk
from nbqueue.executors.pace import Pace
from nbqueue.executors.thread import CellThreads
from nbqueue.executors.todo import Todo
from nbqueue.handlers.handler import Kind
from nbqueue.running.run import Ending, refused
from nbqueue.sizes import size
from nbqueue.store import ReportKind
from nbqueue.wire import WireError

if TYPE_CHECKING:
    from nbqueue.executor import StopReason
    from nbqueue.handlers.handler import Handler
    from nbqueue.jobs import Claim
    from nbqueue.running.run import Runner
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


class ProcessExecutor(CellThreads[ProcessSlot]):
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
        self._pace = Pace(slots)

    def _new_slot(self, number: int) -> ProcessSlot:
        return ProcessSlot(number)

    @staticmethod
    def _new_todo() -> Todo[Claim | None]:
        return Todo()

    # -- in the slot's thread

    def _work(self, slot: ProcessSlot, todo: SimpleQueue[Claim | None], reports: deque[Report]) -> None:
        assert isinstance(todo, Todo)
        desk = SlotDesk(slot, self._runner, todo, self._pace, self._took(reports))
        while not (slot.closed or slot.replaced) and (claim := todo.get()) is not None:
            self._prepare(slot, claim)
            with slot.lock:
                if slot.closed:
                    self._unbegun.append(claim)
                    break
                slot.attempt = self._runner.begin(claim)
            self._serve(slot, desk)
            del claim
        self._leave(slot)
        with self._idle:
            slot.thread = None
            self._idle.notify_all()

    def _took(self, reports: deque[Report]) -> Callable[[Report], None]:
        done = self._done

        def take(report: Report) -> None:
            reports.append(report)
            done()

        return take

    def _serve(self, slot: ProcessSlot, desk: SlotDesk) -> None:
        """Run what the slot has begun, and what it takes on with it, to the end of all of it."""
        attempt, file = slot.attempt, self._slot_file
        assert attempt is not None
        handler = attempt.find()
        if isinstance(handler, Ending):
            desk.end(attempt.report(handler))
        elif handler.kind is Kind.CELL:
            if file is not None:
                file.begin(slot.number, attempt.claim.fence)
            desk.end(self._run(slot, attempt))
        else:
            self._run_in_children(slot, desk, handler)
            with slot.lock:
                if not slot.closed:
                    slot.conversation = None
        if file is not None:
            # A child that has died cannot note that what it had begun is over.
            file.end(slot.number)

    def _prepare(self, slot: ProcessSlot, claim: Claim) -> None:
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

    def _start_child(self, slot: ProcessSlot) -> None:
        slot.trouble = None
        try:
            home = getattr(self._runner.services.dispatcher, "home", "")
            place = None if self._slot_file is None else (self._slot_file, slot.number)
            child = Child(self._limits, home, place)
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

    def _run_in_children(self, slot: ProcessSlot, desk: SlotDesk, handler: Handler) -> None:
        attempt = slot.attempt
        assert attempt is not None
        for again in (False, True):
            child = slot.child
            if child is None:
                # It was forgotten as the child was to be made, or there is none to be had: it waits in its queue.
                break
            try:
                if self._run_in_child(slot, child, desk, handler, again=again):
                    return
            except Exception as error:
                _log.exception("a process that ran a job is not understood")
                self._give_up(slot, desk, error)
                return
            # Its child was idle when it died, and that costs no job an attempt.
            self._start_child(slot)
        desk.end(attempt.report(Ending(ReportKind.RELEASED)))

    @staticmethod
    def _give_up(slot: ProcessSlot, desk: SlotDesk, error: Exception) -> None:
        child, attempt, conversation = slot.child, slot.attempt, slot.conversation
        slot.child = None
        if child is not None:
            child.kill()
        if conversation is not None:
            conversation.give_up(keep=0 if attempt is None else 1)
        if child is not None:
            child.end(patience=0.0)
        if attempt is not None:
            how = f"what the process that ran it said is not understood: {error!r}"
            desk.end(attempt.report(attempt.died(how, "garbled")))

    def _run_in_child(
        self, slot: ProcessSlot, child: Child, desk: SlotDesk, handler: Handler, *, again: bool
    ) -> bool:
        """Run it and what goes with it; False: the child has gone and had begun nothing."""
        attempt = slot.attempt
        assert attempt is not None
        conversation = Conversation(child, desk, self._grace)
        with slot.lock:
            slot.conversation = conversation
        try:
            conversation.open(handler)
        except WireError as error:
            desk.back(conversation.take_back())
            desk.end(attempt.report(refused(InvalidCommand(str(error)))))
            return True
        except NbqueueError as error:
            # It was not sent, so nothing of it was run.
            desk.back(conversation.take_back())
            desk.end(attempt.report(refused(error)._replace(cause="not sent")))
            return True
        done = conversation.hear_out(again=again)
        if conversation.over:
            slot.child = None
            child.end(patience=0.0)
        return done

    def _leave(self, slot: ProcessSlot) -> None:
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
        slots = [*self._slots, *self._stuck]
        left = super().close(timeout)
        given = {claim.fence for claim in left}
        for slot in slots:
            with slot.lock:
                claims = [] if slot.conversation is None else slot.conversation.claims
            left += [claim for claim in claims if claim.fence not in given]
        return left

    def waiting(self) -> int:
        """How many were taken and not begun, here or in a child."""
        waiting = super().waiting()
        for slot in self._slots:
            if (conversation := slot.conversation) is not None:
                waiting += conversation.waiting()
        return waiting

    def withdraw(self, keep: int = 0) -> list[Claim]:
        """Give back what was not begun, here or in a child."""
        assert isinstance(self._todo, Todo)
        taken = [
            claim
            for slot in self._slots
            if (conversation := slot.conversation) is not None
            for claim in conversation.take_back()
        ]
        # What was sent to a child came before all that waits here.
        taken.sort(key=attrgetter("fence"))
        taken += [claim for claim in self._todo.take_while(lambda claim: claim is not None) if claim]
        self._todo.put_back(taken[:keep])
        self._taken -= len(taken[keep:])
        return taken[keep:]

    def _tell(self, slot: ProcessSlot, reason: StopReason) -> None:
        assert slot.attempt is not None
        assert slot.told is not None
        if slot.conversation is not None:
            assert slot.child is not None
            slot.child.wake()
        elif slot.task is not None or slot.armed:
            super()._tell(slot, reason)

    def _listen(self, slot: ProcessSlot) -> None:
        child = slot.child
        if child is None or slot.conversation is None:
            return
        if child.streams.fill_unless_shared(age=_PARTIAL):
            # Given by the slot's thread: a record of a log that was sent before it is to be heard before it.
            child.wake()

    def _look_after(self, slot: ProcessSlot) -> None:
        # Its own thread kills it in time, unless the thread itself is held up, as by a child that reads no more.
        with slot.lock:
            child, told, attempt = slot.child, slot.told, slot.attempt
            if child is None or told is None or attempt is None or slot.conversation is None:
                return
            if time.monotonic() > told + 2 * self._grace:
                child.kill(attempt.claim.fence)

    def _let_go(self, slots: Sequence[ProcessSlot], *, ended: bool) -> None:
        super()._let_go(slots, ended=ended)
        for slot in slots:
            child = slot.child
            if child is not None:
                child.kill()
