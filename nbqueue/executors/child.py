"""The child that runs jobs: ``python -m nbqueue.executors.child``, started and told what to run by a ``Child``.

The main thread runs the jobs. Another one reads what the parent says, since a job that is to stop must be told while
it runs. The streams of this process are pipes that the parent reads; displays, log records and progress go to it as
messages, and those after which the order matters are answered before the job goes on.
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
from queue import SimpleQueue
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.errors import NbqueueError
from nbqueue.executor import StopReason
from nbqueue.executors import measures, messages, outlet
from nbqueue.executors.lifeline import hold_on
from nbqueue.executors.line import Line
from nbqueue.executors.mark import Mark
from nbqueue.payload.errors import UnknownType, told
from nbqueue.running import context as contexts
from nbqueue.running import grafts, shells
from nbqueue.running.context import JobStopped
from nbqueue.running.remote import RemoteCapture, RemoteContext, RemoteDispatcher
from nbqueue.running.run import OUT_OF_MEMORY, Runner, Services
from nbqueue.running.shipping import take_classes, unpack
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


class _Job(NamedTuple):
    """What is to be run, as the parent says it."""

    claim: Claim
    #: When its time began, by a clock that all processes share.
    started: float
    #: Whose code it is, and which of its versions.
    whose: tuple[str, str]
    version: int
    code: bytes | None
    classes: bytes | None
    where: tuple[str, list[str], dict[str, str]] | None


class _Worker:
    """Runs jobs in the main thread."""

    def __init__(self, channel: Channel, mark: Mark) -> None:
        self._channel = channel
        self._mark = mark
        self._line = Line(channel)
        self._pid = os.getpid()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._handlers: dict[tuple[str, str], tuple[int, Handler]] = {}
        self._context: RemoteContext | None = None
        #: Somebody is to look now and then whether there is something to tell, or to break off.
        self._busy = False
        #: A stop that came before its job had begun here: its fence, the reason and the grace.
        self._early: tuple[int, str, float] | None = None
        #: A stop may be raised in the main thread; at once, or at this time.
        self._armed = False
        self._spared_until: float | None = None
        #: The task of an ``async def`` handler, and its loop.
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._lock = threading.Lock()
        self._main = threading.get_ident()
        self._where: tuple[str, list[str], dict[str, str]] = "", sys.path[:], dict(os.environ)
        self._umask = os.umask(0o77)
        #: The threads that are there before any job.
        self._own: set[threading.Thread] = set()
        self._services = Services(
            key=lambda: self._line.ask("key"),
            dispatcher=RemoteDispatcher(self._line.ask),
            live_call=lambda _: None,
            on_value=lambda _claim, _value: None,
        )

    def serve(self) -> None:
        """Run jobs until the parent says that there are no more."""
        signal.signal(_STOP, self._on_stop)
        threading.Thread(target=self._read, name="nbqueue-parent", daemon=True).start()
        self._own = set(threading.enumerate())
        while (job := self._jobs.get()) is not None:
            self._do(job)

    # -- from the parent, in a thread of its own

    def _read(self) -> None:
        try:
            while True:
                try:
                    kind, *parts = self._channel.recv(timeout=_TICK if self._busy else None)
                except TimeoutError:
                    self._tick()
                    continue
                if kind == "job":
                    self._busy = True
                    self._jobs.put(_Job(*parts))
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

    def _tick(self) -> None:
        context = self._context
        if context is None:
            return
        context.tell()
        until = self._spared_until
        if until is not None and monotonic() >= until:
            self._spared_until = None
            self._break_off()

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
        self._break_off()

    def _break_off(self) -> None:
        with self._lock:
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

    def _do(self, job: _Job) -> None:
        self._mark.set(job.claim.fence)
        self._surround(job)
        measures.reset_peak()
        before = measures.spent()
        runner = Runner(
            lambda spec: self._handler(spec, job),
            self._services,
            context=lambda claim: self._begin(claim, job),
        )
        attempt = runner.begin(job.claim)
        report = contextvars.Context().run(attempt.run, self._perform)
        if os.getpid() != self._pid:
            outlet.flush()
            os._exit(0)
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        with self._lock:
            self._context = self._spared_until = self._early = None
            self._busy = False
        outlet.flush()
        after = measures.spent()
        usage = measures.usage_text(after.cpu_seconds - before.cpu_seconds, after.peak_memory)
        self._line.send("ended", _fields(report), usage, after.cpu_seconds, self._is_reusable(report))

    def _is_reusable(self, report: Report) -> bool:
        """Whether another job may run here: nothing of this one runs on, there is memory, and output arrives."""
        if report.cause == OUT_OF_MEMORY or not outlet.is_whole():
            return False
        # What they print would be the next job's. tqdm's only looks at bars that are.
        if any(thread not in self._own and thread.name != _HARMLESS for thread in threading.enumerate()):
            return False
        try:
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True
        except (AttributeError, OSError):
            return True

    def _begin(self, claim: Claim, job: _Job) -> RemoteContext:
        capture = RemoteCapture(self._line.send, self._line.ask, key=self._services.key, owner=claim.job_id)
        context = RemoteContext(claim, self._services.dispatcher, capture, job.started)
        context.ask, context.send = self._line.ask, self._line.send
        with self._lock:
            self._context = context
            early, self._early = self._early, None
            if early is not None and early[0] == claim.fence:
                context.request_stop(StopReason(early[1]))
        return context

    def _surround(self, job: _Job) -> None:
        """Run it where the parent runs now."""
        # Said only where it has changed there; the job before may have changed it here.
        self._where = directory, path, environment = job.where or self._where
        if sys.path != path:
            sys.path[:] = path
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        os.umask(self._umask)
        if directory:
            with contextlib.suppress(OSError):
                os.chdir(directory)

    def _handler(self, _spec: Spec, job: _Job) -> Handler:
        try:
            if job.classes is not None:
                take_classes(job.classes)
            if job.code is not None:
                self._handlers[job.whose] = job.version, unpack(job.code)
        except NbqueueError:
            raise
        except BaseException as error:
            raise UnknownType(
                f"the code of the job cannot be rebuilt in another process ({told(error)}); "
                "mend that, or run it on a thread worker"
            ) from error
        return self._handlers[job.whose][1]

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
        report.kind,
        report.outcome,
        report.result,
        report.error,
        report.kinds,
        report.cause,
        report.traceback,
        report.fingerprint,
    )


def main() -> None:
    """Run jobs for the parent whose descriptors are the arguments."""
    number, lifeline, mark, memory = sys.argv[1:5]
    key, home = hold_on(int(lifeline))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    connection = socket.socket(fileno=int(number))
    connection.set_inheritable(False)
    contexts.home = home
    grafts.want(shells.GRAFTS)
    # What functions of the notebook take for their own.
    sys.modules["__main__"] = ModuleType("__main__")
    sys.argv[1:] = []
    outlet.set_up()
    channel = Channel(connection, key, server=False)
    if int(memory):
        measures.limit_memory(int(memory))
    _Worker(channel, Mark(int(mark))).serve()


if __name__ == "__main__":
    # Under its own name, as anybody else would import it.
    from nbqueue.executors.child import main as run

    run()
