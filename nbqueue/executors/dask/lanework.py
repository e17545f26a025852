"""How a lane runs jobs in its thread of a Dask worker: what it is given, what it says, what it waits for."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import threading
import time
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any

from nbqueue.executor import StopReason
from nbqueue.executors import measures
from nbqueue.executors.dask.codebook import Codebook
from nbqueue.executors.dask.marks import Marks
from nbqueue.executors.dask.messages import Load, Setup
from nbqueue.executors.dask.outbox import Outbox
from nbqueue.executors.dask.pools import leave_pool
from nbqueue.executors.thread import CellThreads, ThreadSlot
from nbqueue.jobs import Claim
from nbqueue.running.capture import Capture
from nbqueue.running.context import JobStopped
from nbqueue.running.remote import RemoteContext, RemoteDispatcher
from nbqueue.running.run import Runner, Services
from nbqueue.store import Report
from nbqueue.wire import Fault, unpack_error

__all__ = ["LaneSlot", "LaneWork"]

#: How often what waits looks whether it is to wait on, seconds.
_TICK = 0.25
#: A lane that nobody gives anything, or tells to go, for so long goes by itself.
_FORSAKEN = 60.0


class LaneSlot(ThreadSlot):
    """A thread of the Dask worker, and the jobs that it was given."""

    __slots__ = ("began", "came", "key", "leaving", "orphaned", "place", "queue", "seceded", "taken")

    def __init__(self, number: int, key: str):
        super().__init__(number)
        #: Of its Dask task.
        self.key = key
        #: The smallest number that no other lane here has.
        self.place = 0
        self.queue: deque[Load] = deque()
        self.came = threading.Condition(self.lock)
        #: The fence of the job that it took last, and when that began, by ``time.monotonic``.
        self.taken = 0
        self.began = 0.0
        self.leaving = False
        #: Nobody wants its task any more.
        self.orphaned = False
        #: It does not count among the worker's threads.
        self.seceded = False


class LaneWork(CellThreads[LaneSlot]):
    """The lanes of one session on one Dask worker, as their threads have them.

    Parameters
    ----------
    worker : distributed.Worker
        See there.
    setup : Setup
        See there.
    identity : str
        Tells this process from one that has its address later.
    """

    name = "dask"

    def __init__(self, worker: Any, setup: Setup, identity: str):
        super().__init__(0)
        self._worker = worker
        self._key = setup.key
        self.outbox = Outbox(worker, setup.session, identity)
        self._marks = Marks(identity, worker.state.nthreads)
        self._code = Codebook(worker.address)
        self._guard = threading.Lock()
        #: A thread looks after the lanes.
        self._looking = False
        #: Since when there is no lane, if there is none.
        self._rested = time.monotonic()
        self._numbers = itertools.count(1)
        self._asked: dict[int, SimpleQueue[Any]] = {}
        #: Stops that came before their jobs had begun here.
        self._early: dict[int, StopReason] = {}
        #: Fences of what has begun of late.
        self._begun: deque[int] = deque(maxlen=1024)
        self._services = Services(
            key=lambda: self._key,
            dispatcher=RemoteDispatcher(lambda *_: None),
            live_call=lambda _: None,
            on_value=lambda _claim, _value: None,
        )

    def _look_after_all(self) -> None:
        """Look after the lanes, in a thread of its own, for as long as there are any."""
        raise NotImplementedError

    # -- in a lane's thread

    def serve(self, number: int, key: str) -> None:
        """Run what this lane is given, until it is told to go."""
        slot = LaneSlot(number, key)
        slot.thread = threading.current_thread()
        with self._guard:
            used = {other.place for other in self._slots}
            slot.place = next(place for place in range(len(used) + 1) if place not in used)
            self._slots.append(slot)
            looking, self._looking = self._looking, True
        if not looking:
            threading.Thread(target=self._look_after_all, name="nbqueue-station", daemon=True).start()
        self.outbox.put("hello", number, time.time(), *self._marks.place_of(slot.place))
        try:
            while (load := self._next(slot)) is not None:
                self._do(slot, load)
        finally:
            with self._guard:
                self._slots.remove(slot)
                self._rested = time.monotonic()
            if slot.seceded:
                leave_pool()

    def _next(self, slot: LaneSlot) -> Load | None:
        with slot.came:
            slot.came.wait_for(lambda: slot.queue or slot.leaving or slot.orphaned, _FORSAKEN)
            if not slot.queue or slot.orphaned:
                return None
            load = slot.queue.popleft()
            slot.taken = load.claim.fence
            return load

    def _do(self, slot: LaneSlot, load: Load) -> None:
        fence = load.claim.fence
        runner = Runner(
            lambda _: self._code.handler(load),
            self._services,
            context=lambda claim: self._context(slot, claim),
        )
        with slot.lock:
            self._marks.begin(slot.place, fence)
            self._begun.append(fence)
            slot.attempt = attempt = runner.begin(load.claim)
            slot.began = time.monotonic()
            early = self._early.pop(fence, None)
            if early is not None:
                attempt.context.request_stop(early)
        alone = self._worker.state.nthreads == 1 and measures.reset_peak()
        cpu = time.thread_time()
        report = self._run(slot, attempt)
        # What an ``async def`` takes, it takes in another thread.
        cpu_seconds = None if self._code.is_async(load) else time.thread_time() - cpu
        usage = measures.usage_text(cpu_seconds, measures.spent().peak_memory if alone else None)
        with slot.lock:
            slot.attempt = slot.told = None
            slot.taken = 0
            self._marks.end(slot.place, fence)
            mark = self.outbox.put("ended", slot.number, fence, _fields(report), usage, report.logs)
            more = bool(slot.queue)
        while more and not mark.wait(_TICK) and not slot.orphaned:
            pass
        if more and not mark.arrived:
            # The scheduler has gone, or nobody listens: what waits here must not run unknown to anybody.
            slot.orphaned = True

    def _context(self, slot: LaneSlot, claim: Claim) -> RemoteContext:
        capture = Capture(key=self._services.key, owner=claim.job_id)

        def ask(what: str, *parts: Any) -> Any:
            return self._ask(slot, claim.fence, what, parts)

        def send(what: str, *parts: Any) -> None:
            self.outbox.put(what, slot.number, claim.fence, *parts)

        dispatcher = RemoteDispatcher(ask, away=True)
        context = RemoteContext(claim, dispatcher, capture, time.monotonic())
        context.ask, context.send = ask, send
        return context

    def _ask(self, slot: LaneSlot, fence: int, what: str, parts: tuple[Any, ...]) -> Any:
        if what == "key":
            return self._key
        with slot.lock:
            self._pass_on(slot)
        number, answers = next(self._numbers), SimpleQueue[Any]()
        self._asked[number] = answers
        try:
            self.outbox.put(
                "ask", number, slot.number, what, (fence, *parts) if what == "progress" else parts
            )
            while True:
                with contextlib.suppress(Empty):
                    answer = answers.get(timeout=_TICK)
                    break
                if slot.orphaned:
                    raise JobStopped(StopReason.SHUTDOWN)
        finally:
            self._asked.pop(number, None)
        if isinstance(answer, Fault):
            raise unpack_error(answer)
        return answer

    @staticmethod
    def _variables() -> contextvars.Context:
        # Dask has its own there: in a job get_worker() and get_client() are what they are in a task.
        return contextvars.copy_context()

    def _pass_on(self, slot: LaneSlot) -> None:
        """Pass on what the job of a slot has said; its lock is held, so that its end comes after it."""
        attempt = slot.attempt
        if attempt is None:
            return
        logs = attempt.context.capture.drain()
        if logs:
            self.outbox.put("logs", slot.number, attempt.claim.fence, logs)
        context = attempt.context
        assert isinstance(context, RemoteContext)
        context.tell()

    def _give_back(self, slot: LaneSlot) -> None:
        if slot.queue:
            fences = [load.claim.fence for load in slot.queue]
            slot.queue.clear()
            self.outbox.put("back", slot.number, fences)


def _fields(report: Report) -> tuple[Any, ...]:
    """How it ended, as an ``Ending``; when, the other end knows by its own clock."""
    return (
        *(report.kind, report.outcome, report.result, report.error, report.kinds),
        *(report.cause, report.traceback, report.fingerprint),
    )
