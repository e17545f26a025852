"""The worker: claims jobs from a store, hands them to an executor, and records what came of them.

``step()`` is one turn of that; a supervisor thread calls it and waits on an event in between. This is its face for
people; what a turn does is in ``turns``, and how it ends in ``stopping``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from nbqueue.errors import NbqueueError
from nbqueue.executor import Executor
from nbqueue.handlers.handler import Registry
from nbqueue.jobs import State
from nbqueue.patience import within
from nbqueue.running.context import current
from nbqueue.running.run import Services
from nbqueue.store import Store, WorkerInfo
from nbqueue.worker.options import Means, WorkerOptions
from nbqueue.worker.stopping import shut
from nbqueue.worker.turns import HURRY_LEAST, HURRY_MOST, PATIENCE, Turns

__all__ = ["Worker", "WorkerOptions"]

_log = logging.getLogger("nbqueue.worker")


class Worker:
    """Runs jobs of a store's queues in the background.

    Made by ``queues.worker(...)``; use it in a ``with``, or ``start()`` and ``stop()`` it.

    Parameters
    ----------
    store : Store
        Where the jobs are.
    registry : Registry
        The handlers of this process.
    executor : Executor
        What runs them.
    services : Services
        What running jobs need.
    options : WorkerOptions
        See there.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        executor: Executor,
        services: Services,
        options: WorkerOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ):
        self._means = Means(store, registry, executor, services, options or WorkerOptions(), clock, ticks)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        #: The supervisor has done all that it had to. Not the thread itself is asked: up to CPython 3.12 one whose
        #: ``join`` is interrupted by Ctrl-C counts as ended from then on, though it is not.
        self._gone = threading.Event()
        self._failure: BaseException | None = None
        self._turns = Turns(self._means)

    # -- for people

    @property
    def info(self) -> WorkerInfo:
        """Who it is, and what its store is told of it."""
        return self._turns.info

    @property
    def worker_id(self) -> str:
        """Its name in frames; unique for ever."""
        return self.info.worker_id

    @property
    def running(self) -> bool:
        """Whether its supervisor is at work."""
        return self._thread is not None and not self._gone.is_set()

    @property
    def stopping(self) -> bool:
        """Whether it takes no more jobs."""
        return self._turns.stopping.is_set()

    def under_way(self) -> int:
        """Count its jobs that run now."""
        return len(self._means.executor.running())

    def start(self) -> Self:
        """Begin to work in the background; a worker that works already is left alone.

        One that was stopped begins anew, under another name.
        """
        with self._starting:
            if self.running and not self.stopping:
                return self
            self.wait()
            self.open()
            self._gone = threading.Event()
            self._thread = threading.Thread(target=self._supervise, name="nbqueue-worker", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                # The system has no more threads to give.
                self._thread = None
                self.shut()
                raise
        return self

    def stop(self, timeout: float = PATIENCE) -> None:
        """Take no more jobs, let those that run end for up to ``timeout`` seconds, then give them back.

        Asked again meanwhile, from a signal handler or another thread, it is the latest ``timeout`` that counts. One
        of its own jobs may ask too, and does not wait: it is among those that are let end.
        """
        self.request_stop(timeout)
        if self._thread is None:
            self.shut()
        elif self._thread is not threading.current_thread() and not self.runs_caller():
            self.wait()

    def runs_caller(self) -> bool:
        """Whether it is asked from within one of its own jobs."""
        context = current(None)
        return context is not None and context.claim.fence in self._turns.held

    def request_stop(self, timeout: float = PATIENCE) -> None:
        """Take no more jobs from now on, as ``stop`` does, but wait for nothing."""
        turns = self._turns
        turns.grace = timeout
        turns.patience.shorten(max(HURRY_LEAST, min(HURRY_MOST, timeout / 3)))
        turns.stopping.set()
        turns.wakeup.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has stopped; whether it has within ``timeout`` seconds."""
        thread = self._thread
        # A fork has no such thread, and nobody else who would say that it has gone.
        if thread is not None and (not thread.is_alive() or self._gone.wait(timeout)):
            # It has nothing left to do but to end.
            thread.join()
        return not self.running

    def drain(self, timeout: float | None = None) -> Self:
        """Work until no job of its queues is left unfinished, delayed ones included.

        Ctrl-C ends the waiting at once. A worker that was at work before goes on; one that was not takes no more jobs
        and stops behind the scenes, as ``stop()`` does.

        Parameters
        ----------
        timeout : float | None
            Seconds.

        Raises
        ------
        TimeoutError
            Says how many are left, and which have no handler here.
        NbqueueError
            In one of its own jobs, which would wait for itself.
        """
        if self.runs_caller():
            raise NbqueueError("a job cannot wait for all jobs of its own worker: it is one of them")
        # Leaves it as it was: one that was at work goes on.
        with self if not self.running else contextlib.nullcontext():
            unfinished = self._wait_until_done(timeout)
        if unfinished and self._failure is not None:
            raise self._failure
        return self

    def _wait_until_done(self, timeout: float | None) -> int:
        """Wait until no job is left, or this worker has gone; gives how many are left."""
        ticks = self._means.ticks
        deadline = None if timeout is None else ticks() + timeout
        while True:
            rested = self._turns.rested
            rested.clear()
            if not (unfinished := self._unfinished()) or not self.running:
                return unfinished
            left = None if deadline is None else deadline - ticks()
            if left is not None and left <= 0:
                raise TimeoutError(self._what_is_left(unfinished, timeout or 0.0))
            # Another worker may finish the last one, which this one is not told.
            rested.wait(0.2 if left is None else min(0.2, left))

    def _what_is_left(self, unfinished: int, timeout: float) -> str:
        jobs, missing = "1 job" if unfinished == 1 else f"{unfinished:,} jobs", self._turns.known.missing
        hint = f"; no handler here for {', '.join(missing[:3])}" if missing else ""
        return f"{jobs} of {self._queue_names()} did not end within {timeout:g} s{hint}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            # Whoever interrupts wants the prompt, and not to wait for jobs.
            self.request_stop()
        else:
            self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<Worker {self.worker_id} on {self._queue_names()}: {state}, {self.info.concurrency} slots>"

    def _queue_names(self) -> str:
        return "every queue" if self.info.queues is None else ", ".join(self.info.queues)

    def _unfinished(self) -> int:
        mine = self.info.queues
        return sum(
            info.counts[State.PENDING] + info.counts[State.RUNNING]
            for info in self._means.store.queues()
            if mine is None or info.name in mine
        )

    # -- turn by turn

    def open(self) -> None:
        """Join the store and start the executor; ``start`` does it, and whoever calls ``step`` by hand."""
        if self._turns.joined:
            return
        if self._turns.over:
            self._turns = Turns(self._means)
        self._failure = None
        self._turns.open()

    def step(self) -> float:
        """Take one turn; gives the seconds until the next is due, unless something wakes it before."""
        return self._turns.step()

    def shut(self) -> None:
        """Take no more, end or give back what is held, and leave the store."""
        failure = shut(self._turns)
        self._failure = self._failure or failure

    # -- the supervisor

    def _supervise(self) -> None:
        try:
            with within(self._turns.patience):
                self._work()
                self.shut()
        finally:
            self._gone.set()

    def _work(self) -> None:
        wait, wakeup = 0.0, self._turns.wakeup
        while not self.stopping:
            if wait > 0:
                wakeup.wait(wait)
            wakeup.clear()
            try:
                wait = self.step()
            except NbqueueError as error:
                self._failure = error
                _log.error("worker %s stops: %s", self.worker_id, error)
                break
            except Exception as error:
                self._failure = error
                _log.exception("worker %s stops on an error of its own", self.worker_id)
                break
