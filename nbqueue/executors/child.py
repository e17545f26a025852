"""The child that runs jobs: ``python -m nbqueue.executors.child``, started and told what to run by a ``Child``.

The main thread runs the jobs. Another one reads what the parent says, since a job that is to stop must be told while
it runs. The streams of this process are pipes that the parent reads; displays, log records and progress go to it as
messages, and those after which the order matters are answered before the job goes on.

Tiny jobs come in groups. How each ended is sent before the next begins, with how much was written until then: however
this process dies, nothing is lost that has ended, and what was written is the right one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.errors import NbqueueError
from nbqueue.executor import StopReason
from nbqueue.executors import measures, messages, outlet
from nbqueue.executors.board import Board
from nbqueue.executors.lifeline import hold_on
from nbqueue.executors.line import Line
from nbqueue.executors.tickets import Tickets, counted
from nbqueue.payload.errors import UnknownType, told
from nbqueue.running import context as contexts
from nbqueue.running import grafts, shells
from nbqueue.running.context import JobStopped
from nbqueue.running.remote import RemoteCapture, RemoteContext, RemoteDispatcher
from nbqueue.running.run import OUT_OF_MEMORY, Runner, Services
from nbqueue.running.shipping import take_classes, unpack
from nbqueue.slots import Place
from nbqueue.wire import Channel, ChannelClosedError, WireError

if TYPE_CHECKING:
    from nbqueue.handlers.handler import Handler
    from nbqueue.jobs import Claim, Spec
    from nbqueue.store import Report

__all__ = ["main", "messages"]

#: What interrupts the main thread, also where it waits for the system.
_STOP = getattr(signal, "SIGRTMIN", signal.SIGUSR2 - 7) + 7
#: Progress that was held back is told this often, seconds.
_TICK = 0.2
#: What a job may have set to go off later.
_TIMERS = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF


_HARMLESS = "tqdm_monitor"
#: The parent is told at least this often that jobs of a group have ended, seconds.
_RING_EVERY = 0.002
#: The environment as the system has it, which is compared many times faster than as text.
_environment: Any = getattr(os.environ, "_data", os.environ)


class _Job(NamedTuple):
    """What is to be run, as the parent says it."""

    claim: Claim
    #: When its time began, by a clock that all processes share; 0: it begins here, when the one before has ended.
    started: float
    #: The number of its code; and what else it needs that is not here yet.
    version: int
    whose: tuple[str, str] | None = None
    code: bytes | None = None
    classes: bytes | None = None
    where: tuple[str, list[str], dict[str, str]] | None = None


class Shared(NamedTuple):
    """What the parent has, too."""

    board: Board
    tickets: Tickets
    #: Where is noted which job has begun, should the parent be killed.
    place: Place | None


class _Worker:
    """Runs jobs in the main thread."""

    def __init__(self, channel: Channel, shared: Shared, bell: int) -> None:
        self._channel = channel
        self._board, self._tickets, self._place = shared
        self._line = Line(channel, bell)
        self._pid = os.getpid()
        self._jobs: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self._handlers: dict[int, Handler] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._job: _Job
        self._context: RemoteContext | None = None
        #: How many jobs have come, which the one thread counts, and how many are over, which the other does.
        self._come = self._over = 0
        #: Taken out, and of a later job than the one that it was taken for.
        self._ticket: int | None = None
        self._rung = 0.0
        #: No more jobs may run here.
        self._spoilt = False
        #: A stop that came before its job had begun here: its fence, the reason and the grace.
        self._early: tuple[int, str, float] | None = None
        #: A stop may be raised in the main thread; at once, or at this time.
        self._armed = False
        self._spared_until: float | None = None
        #: The task of an ``async def`` handler, and its loop.
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._lock = threading.Lock()
        self._main = threading.get_ident()
        self._directory, self._path, self._environment = "", sys.path[:], _environment.copy()
        self._meter = measures.Meter()
        self._umask = os.umask(0o77)
        #: The threads that are there before any job.
        self._own: set[threading.Thread] = set()
        self._services = Services(
            key=lambda: self._line.ask("key"),
            dispatcher=RemoteDispatcher(self._line.ask),
            live_call=lambda _: None,
            on_value=lambda _claim, _value: None,
        )
        self._runner = Runner(self._handler, self._services, context=self._begin)

    def serve(self) -> None:
        """Run jobs until the parent says that there are no more."""
        signal.signal(_STOP, self._on_stop)
        threading.Thread(target=self._read, name="nbqueue-parent", daemon=True).start()
        self._own = set(threading.enumerate())
        while (jobs := self._jobs.get()) is not None:
            for i, job in enumerate(jobs, start=1):
                # What is not the first here has begun when it is taken out, unless the parent was quicker.
                if not self._spoilt and (job.started or self._take_ticket(job.claim.fence)):
                    self._do(job, left=len(jobs) - i)
                self._over += 1

    def _take_ticket(self, fence: int) -> bool:
        ticket = self._tickets.take() if self._ticket is None else self._ticket
        self._ticket = None if ticket == fence else ticket
        return ticket == fence

    # -- from the parent, in a thread of its own

    def _read(self) -> None:
        try:
            while True:
                try:
                    kind, *parts = self._channel.recv(timeout=_TICK if self._come != self._over else None)
                except TimeoutError:
                    self._tick()
                    continue
                if kind == "jobs":
                    self._take_jobs(*parts)
                elif kind == "stop":
                    self._stop(*parts)
                elif kind == "answer":
                    self._line.answer(*parts)
                else:
                    break
        except (ChannelClosedError, WireError):
            # Without its parent it is of no use, and nothing that it started is.
            if os.getpgrp() == self._pid:
                os.killpg(self._pid, signal.SIGKILL)
            os._exit(1)
        except MemoryError:
            # Nothing of the job has begun, and nobody would ever read what comes next.
            os.write(
                2, b"MemoryError: what the job is given is larger than the memory_limit of its process\n"
            )
            os._exit(1)
        self._jobs.put(None)

    def _take_jobs(self, first: tuple[Any, ...] | None, claims: list[Claim], versions: list[int]) -> None:
        jobs = [_Job(claim, 0.0, version) for claim, version in zip(claims, versions, strict=True)]
        if first is not None:
            jobs.insert(0, _Job(*first))
        # With one job alone the parent hears each message as it comes.
        self._line.muffled = bool(claims)
        self._come += len(jobs)
        self._jobs.put(jobs)

    def _tick(self) -> None:
        context = self._context
        if context is None:
            return
        context.tell()
        until = self._spared_until
        if until is not None and monotonic() >= until:
            self._spared_until = None
            self._break_off(context.claim.fence)

    def _stop(self, fence: int, reason: str, grace: float) -> None:
        with self._lock:
            context = self._context
            if context is None or context.claim.fence != fence:
                # The parent begins a job before this does, and may end it before this has.
                self._early = fence, reason, grace
                return
            context.request_stop(StopReason(reason))
            if context.asks and reason != StopReason.SHUTDOWN:
                # It may well stop by itself.
                self._spared_until = monotonic() + grace / 2
                return
        self._break_off(fence)

    def _break_off(self, fence: int) -> None:
        with self._lock:
            if self._context is None or self._context.claim.fence != fence:
                return
            if self._task is not None:
                loop, task = self._task
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel)
            else:
                signal.pthread_kill(self._main, _STOP)

    # -- in the main thread

    def _on_stop(self, _number: int, _frame: object) -> None:
        context = self._context
        if self._armed and context is not None and context.stop_reason is not None:
            self._armed = False
            raise JobStopped(context.stop_reason)

    def _do(self, job: _Job, left: int) -> None:
        fence = job.claim.fence
        started = monotonic()
        self._board.begin(fence, started)
        if self._place is not None:
            self._place.note(fence)
        self._job = job if job.started else job._replace(started=started)
        self._surround(job)
        self._meter.begin()
        attempt = self._runner.begin(job.claim)
        report = contextvars.Context().run(attempt.run, self._perform)
        if os.getpid() != self._pid:
            outlet.flush()
            os._exit(0)
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        with self._lock:
            self._context = self._spared_until = self._early = None
        outlet.flush()
        reusable = self._is_reusable(report)
        written = self._written() if reusable else None
        self._spoilt = not reusable or (written is None and left > 0)
        if self._place is not None:
            self._place.note(0)
        times = started, monotonic()
        self._line.tell("ended", fence, times, _fields(report), *self._meter.end(), not self._spoilt, written)
        # Only now: who dies before has not said how this one ended.
        self._board.end()
        if self._line.muffled and (times[1] - self._rung > _RING_EVERY or not left):
            self._rung = times[1]
            self._line.ring()

    def _written(self) -> tuple[int, int] | None:
        """How much was written so far to each stream; None where that cannot be told."""
        if sys.platform != "linux":
            return None
        out, err = (self._board.written(i, partial(counted, i + 1)) for i in (0, 1))
        return None if out is None or err is None else (out, err)

    def _say(self, fence: int, kind: str, *parts: Any) -> None:
        """Tell the parent what a job says; of a log also what was written before."""
        if kind == "log":
            parts = *parts, self._written() if outlet.is_connected() else None
        self._line.send(kind, fence, *parts)

    def _is_reusable(self, report: Report) -> bool:
        """Whether another job may run here: nothing of this one runs on, there is memory, and output arrives."""
        if report.cause == OUT_OF_MEMORY or not (outlet.is_whole() and self._tickets.whole):
            return False
        # What they print would be the next job's. tqdm's only looks at bars that are.
        if any(thread not in self._own and thread.name != _HARMLESS for thread in threading.enumerate()):
            return False
        try:
            # Also where one has ended that nobody has waited for: whoever did it here would take from a ``Popen`` that
            # the job has kept how it ended, which then says 0; and it may hide another that goes on.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return False
        except ChildProcessError:
            return True
        except (AttributeError, OSError):
            return True

    def _begin(self, claim: Claim) -> RemoteContext:
        say = partial(self._say, claim.fence)
        capture = RemoteCapture(say, self._line.ask, key=self._services.key, owner=claim.job_id)
        context = RemoteContext(claim, self._services.dispatcher, capture, self._job.started)
        context.ask, context.send = self._line.ask, say
        with self._lock:
            self._context = context
            early, self._early = self._early, None
            if early is not None and early[0] == claim.fence:
                context.request_stop(StopReason(early[1]))
        return context

    def _surround(self, job: _Job) -> None:
        """Run it where the parent runs now."""
        # Said only where it has changed there; the job before may have changed it here.
        if job.where is not None:
            self._directory, self._path, environment = job.where
            self._set_environment(environment)
            self._environment = _environment.copy()
        if sys.path != self._path:
            sys.path[:] = self._path
        if _environment != self._environment:
            self._set_environment({os.fsdecode(k): os.fsdecode(v) for k, v in self._environment.items()})
        os.umask(self._umask)
        if self._directory:
            with contextlib.suppress(OSError):
                os.chdir(self._directory)

    @staticmethod
    def _set_environment(environment: dict[str, str]) -> None:
        os.environ.clear()
        os.environ.update(environment)

    def _handler(self, _spec: Spec) -> Handler:
        job = self._job
        try:
            if job.classes is not None:
                take_classes(job.classes)
            if job.code is not None:
                assert job.whose is not None
                self._handlers.pop(self._versions.get(job.whose, 0), None)
                self._versions[job.whose] = job.version
                self._handlers[job.version] = unpack(job.code)
        except NbqueueError:
            raise
        except BaseException as error:
            raise UnknownType(
                f"the code of the job cannot be rebuilt in another process ({told(error)}); "
                "mend that, or run it on a thread worker"
            ) from error
        return self._handlers[job.version]

    def _perform(self, call: Callable[[], Any], is_async: bool) -> Any:  # noqa: FBT001 - see Perform
        context = self._context
        assert context is not None
        if is_async:
            return self._await(context, call)
        value, returned = None, False
        try:
            try:
                self._armed = True
                context.raise_if_stopped()
                value = call()
                returned = True
            finally:
                self._armed = False
        except JobStopped:
            # One that arrives as the job returns has come too late.
            if not returned:
                raise
        return value

    def _await(self, context: RemoteContext, call: Callable[[], Any]) -> Any:
        async def whole() -> Any:
            task = asyncio.current_task()
            assert task is not None
            with self._lock:
                self._task = asyncio.get_running_loop(), task
            context.raise_if_stopped()
            try:
                return await call()
            finally:
                with self._lock:
                    self._task = None

        # One for each job: whatever a job leaves on it is cancelled.
        with asyncio.Runner() as runner:
            try:
                return runner.run(whole(), context=contextvars.copy_context())
            except asyncio.CancelledError:
                if context.stop_reason is None:
                    raise
                raise JobStopped(context.stop_reason) from None


def _fields(report: Report) -> tuple[Any, ...]:
    """How it ended; when, and what was said, the parent knows itself."""
    return (
        report.kind.value,
        None if report.outcome is None else report.outcome.value,
        report.result,
        report.error,
        report.kinds,
        report.cause,
        report.traceback,
        report.fingerprint,
    )


def main() -> None:
    """Run jobs for the parent whose descriptors are the arguments."""
    number, lifeline, board, tickets, bell, memory, slot, place = map(int, sys.argv[1:9])
    key, home = hold_on(lifeline)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for descriptor in (number, tickets, bell):
        os.set_inheritable(descriptor, False)
    connection = socket.socket(fileno=number)
    contexts.home = home
    grafts.want(shells.GRAFTS)
    # What functions of the notebook take for their own.
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv[1:] = []
    outlet.set_up()
    channel = Channel(connection, key, server=False)
    if memory:
        measures.limit_memory(memory)
    shared = Shared(Board(board), Tickets(tickets), Place(place, slot) if place >= 0 else None)
    _Worker(channel, shared, bell).serve()


if __name__ == "__main__":
    # Under its own name, as anybody else would import it.
    from nbqueue.executors.child import main as run

    run()
