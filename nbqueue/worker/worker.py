"""The worker: claims jobs from a store, hands them to an executor, and records what came of them.

``step()`` is one turn of that; a supervisor thread calls it and waits on an event in between. It knows the two
contracts and no implementation of either.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Self

from nbqueue.errors import NbqueueError, QueueError
from nbqueue.executor import SPARE_SLOTS, Executor, Running, StopReason
from nbqueue.handlers.handler import Handler, Registry
from nbqueue.jobs import Claim, Spec, State
from nbqueue.lifecycle import Outcome
from nbqueue.running.run import Runner, Services
from nbqueue.slots import SlotFile
from nbqueue.store import Handlers, LogChunk, Report, ReportKind, Store, Turn, WorkerInfo
from nbqueue.worker.prefetch import Prefetch
from nbqueue.worker.trusted import TrustedCode

__all__ = ["Worker", "WorkerOptions"]

_log = logging.getLogger("nbqueue.worker")

#: Logs and progress of running jobs are recorded this often, seconds.
NEWS_EVERY = 0.5
#: The longest pause between attempts to reach a store that fails, seconds.
PAUSE_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What may be said about a worker; durations in seconds."""

    #: In the order they are served; None: every queue.
    queues: tuple[str, ...] | None = None
    #: Attempts for jobs that name none.
    tries: int = 1
    #: How long an attempt may take, for jobs that name none.
    timeout: float | None = None
    #: Without a word for so long, its jobs go to others.
    lease: float = 15.0
    #: The longest wait between looks at the store.
    sleep: float = 5.0
    #: It stops by itself after so many attempts,
    max_jobs: int | None = None
    #: after so long,
    max_seconds: float | None = None
    #: or as soon as nothing is left that it could run now.
    when_empty: bool = False
    #: Is told of every attempt that ended and was accepted, in the supervisor's thread; it must be quick.
    on_ended: Callable[[Report], None] | None = None


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
        self._store = store
        self._registry = registry
        self._executor = executor
        self._services = services
        self._options = options or WorkerOptions()
        self._clock = clock
        self._ticks = ticks
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wakeup = threading.Event()
        self._stopping = threading.Event()
        #: A turn left nothing to do, or the supervisor has gone.
        self._rested = threading.Event()
        self._grace = 10.0
        self._slot_file: SlotFile | None = None
        self._joined = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what a worker before this one did, and take a name of its own."""
        options, executor = self._options, self._executor
        host = platform.node()
        self.info = WorkerInfo(
            worker_id=f"{host or 'local'}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
            queues=options.queues,
            concurrency=executor.slots,
            executor=executor.name,
            host=host,
            pid=os.getpid(),
            tries=options.tries,
            timeout=options.timeout,
            lease=options.lease,
        )
        self._trusted = TrustedCode(self._store.get_code, self._services.key)
        self._runner = Runner(self._resolve, self._services, self._clock)
        self._prefetch = Prefetch(executor.slots)
        #: What the store handed over in between.
        self._inbox: deque[Claim] = deque()
        #: Somebody asked for a turn.
        self._called = True
        #: Reports that the store has not taken yet.
        self._unsent: list[Report] = []
        self._failures = 0
        self._failure: BaseException | None = None
        self._handlers = Handlers()
        #: What these handlers were made of, and what the store was told last.
        self._made_of: tuple[Handlers, frozenset[str]] = (self._handlers, frozenset())
        self._told: Handlers | None = None
        self._unknown: tuple[str, ...] = ()
        self._next_turn = self._next_news = self._born = self._ticks()
        self._due_at: float | None = None
        #: Fences of what was claimed and has not ended; and of what was taken back and still runs.
        self._held: set[int] = set()
        self._lost: set[int] = set()
        #: Of those, the ones to cancel, and the ones that cannot be stopped.
        self._to_cancel: frozenset[int] = frozenset()
        self._stuck: frozenset[int] = frozenset()
        self._ended = 0

    # -- for people

    @property
    def worker_id(self) -> str:
        """Its name in frames; unique for ever."""
        return self.info.worker_id

    @property
    def running(self) -> bool:
        """Whether its supervisor is at work."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether it takes no more jobs."""
        return self._stopping.is_set()

    def start(self) -> Self:
        """Begin to work in the background; a worker that works already is left alone.

        One that was stopped begins anew, under another name.
        """
        with self._starting:
            if self.running and not self.stopping:
                return self
            if self._thread is not None:
                self._thread.join()
            self.open()
            self._thread = threading.Thread(target=self._supervise, name="nbqueue-worker", daemon=True)
            self._thread.start()
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Take no more jobs, let those that run end for up to ``timeout`` seconds, then give them back.

        Asked again meanwhile, from a signal handler or another thread, it is the latest ``timeout`` that counts.
        """
        self.request_stop(timeout)
        thread = self._thread
        if thread is None:
            self.shut()
        elif thread is not threading.current_thread():
            thread.join()

    def request_stop(self, timeout: float = 10.0) -> None:
        """Take no more jobs from now on, as ``stop`` does, but wait for nothing."""
        self._grace = timeout
        self._stopping.set()
        self._wakeup.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has stopped; whether it has within ``timeout`` seconds."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        return not self.running

    def drain(self, timeout: float | None = None) -> Self:
        """Work until no job of its queues is left unfinished, delayed ones included.

        Parameters
        ----------
        timeout : float | None
            Seconds.

        Raises
        ------
        TimeoutError
            Says how many are left, and which have no handler here.
        """
        started_here = not self.running
        self.start()
        deadline = None if timeout is None else self._ticks() + timeout
        try:
            while True:
                self._rested.clear()
                if not (unfinished := self._unfinished()) or not self.running:
                    break
                left = None if deadline is None else deadline - self._ticks()
                if left is not None and left <= 0:
                    raise TimeoutError(self._what_is_left(unfinished, timeout or 0.0))
                # Another worker may finish the last one, which this one is not told.
                self._rested.wait(0.2 if left is None else min(0.2, left))
        finally:
            if started_here:
                self.stop()
        if unfinished and self._failure is not None:
            raise self._failure
        return self

    def _what_is_left(self, unfinished: int, timeout: float) -> str:
        jobs = "1 job" if unfinished == 1 else f"{unfinished:,} jobs"
        hint = f"; no handler here for {', '.join(self._unknown[:3])}" if self._unknown else ""
        return f"{jobs} of {self._queue_names()} did not end within {timeout:g} s{hint}"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            for info in self._store.queues()
            if mine is None or info.name in mine
        )

    # -- one turn

    def open(self) -> None:
        """Join the store and start the executor; ``start`` does it, and whoever calls ``step`` by hand."""
        if self._joined:
            return
        if self._told is not None:
            self._begin_anew()
        folder: Path | None = getattr(self._store, "slot_folder", None)
        if folder is not None:
            self._slot_file = SlotFile(
                folder / f"{self.worker_id}.slots", self.info.concurrency + SPARE_SLOTS
            )
        self._stopping.clear()
        self._next_turn = self._next_news = self._born = self._ticks()
        self._join()
        self._executor.start(self._runner, self._wake_up, self._slot_file)
        self._unlisten = self._registry.on_change(self._call)
        self._joined = True

    def _join(self) -> None:
        handlers = self._known_handlers()
        self._store.join(self.info, handlers, self._wake)
        self._told = handlers

    def _wake(self, claims: Sequence[Claim]) -> None:
        """Be handed claims, or be asked for a turn; runs in the store's thread."""
        if claims:
            self._inbox.extend(claims)
            self._wakeup.set()
        else:
            self._call()

    def _call(self) -> None:
        self._called = True
        self._wakeup.set()

    def _wake_up(self) -> None:
        # Called after every job: asking is cheaper than setting.
        if not self._wakeup.is_set():
            self._wakeup.set()

    def step(self) -> float:
        """Take one turn: submit, stop what is to stop, collect, record, claim.

        Returns
        -------
        float
            Seconds until the next turn is due, unless something wakes it before.
        """
        now = self._ticks()
        self._submit(())
        reports, self._unsent = self._unsent, []
        running = self._executor.running()
        overdue_in = self._stop_some(running, now)
        reports += self._tell_stuck(running)
        if now >= self._next_news:
            self._next_news = now + NEWS_EVERY
            reports += self._executor.news()
        ended = self._executor.collect()
        self._ended += sum(report.kind is ReportKind.ENDED for report in ended)
        self._prefetch.learn(ended)
        reports += ended
        reports += self._give_back_stalled(running, now)
        over = {report.claim.fence for report in reports if report.kind is not ReportKind.NEWS}
        held = len(self._held) - len(self._held & over)
        slots = self._slots(over)
        if self._wants_turn(reports, now, room=slots > held):
            self._turn(reports, slots, now)
        else:
            self._unsent = reports
        self._check_time(now)
        return self._wait(now, overdue_in, room=slots > held)

    def _wants_turn(self, reports: Sequence[Report], now: float, *, room: bool) -> bool:
        if now >= self._next_turn:
            return True
        if self._failures:
            # Whatever there is to say waits until the pause is over.
            return False
        due = room and self._due_at is not None and now >= self._due_at
        return bool(reports) or self._called or due or self._known_handlers() is not self._told

    def _wait(self, now: float, overdue_in: float, *, room: bool) -> float:
        if self._called and not self._failures:
            return 0.0
        waits = [self._next_turn - now, overdue_in, self._options.sleep]
        if self._due_at is not None and room and not self._failures:
            waits.append(self._due_at - now)
        if self._held or self._lost:
            waits.append(NEWS_EVERY)
        if self._options.max_seconds is not None:
            waits.append(self._born + self._options.max_seconds - now)
        return max(0.0, min(waits))

    def _slots(self, over: set[int]) -> int:
        """How many claims it would hold at once, when these are off its hands."""
        if self.stopping:
            return 0
        slots = self.info.concurrency + self._prefetch.ahead
        if self._options.max_jobs is not None:
            slots = min(self.info.concurrency, self._options.max_jobs - self._ended)
        # What cannot be stopped has been replaced; what was taken back is not on the store's list any more.
        stuck, lost = self._stuck & self._held, self._lost - self._stuck
        return max(0, slots + len(stuck - over) - len(lost - over))

    def _turn(self, reports: list[Report], slots: int, now: float) -> None:
        self._called = False
        handlers = self._known_handlers()
        try:
            turn = self._store.turn(
                self.worker_id, reports, slots, None if handlers is self._told else handlers
            )
        except QueueError as error:
            self._unsent = reports
            if getattr(self._store, "broken", False):
                raise
            self._try_again(error, now)
            return
        self._told = handlers
        self._settle(reports, turn)
        if turn.expired:
            self._rejoin(now)
            return
        self._failures = 0
        self._next_turn = now + min(self.info.lease / 3, self._options.sleep)
        self._due_at = None if turn.next_due is None else now + turn.next_due
        self._submit(turn.claims)
        self._cancel(frozenset(turn.cancels))
        self._unknown = tuple(dict.fromkeys(spec.command for spec in turn.unknown))
        if turn.unknown and any(self._trusted.adopt(spec) for spec in turn.unknown):
            self._call()
        if not self._held:
            self._rested.set()
        self._check_limits()

    def _settle(self, reports: Sequence[Report], turn: Turn) -> None:
        """Strike off what the store has taken, or refused: either way it is over here."""
        for report in reports:
            if report.kind is not ReportKind.NEWS:
                self._held.discard(report.claim.fence)
                self._lost.discard(report.claim.fence)
        for answer in turn.answers:
            if not answer.done:
                _log.info("job %s: %s", answer.job_id, answer.reason)
        on_ended = self._options.on_ended
        if on_ended is None:
            return
        for report, answer in zip(reports, turn.answers, strict=True):
            if answer.done and report.kind is ReportKind.ENDED:
                try:
                    on_ended(report)
                except Exception:
                    _log.exception("worker %s could not tell of job %s", self.worker_id, report.claim.job_id)

    def _try_again(self, error: QueueError, now: float) -> None:
        """Take the next turn after a while that grows."""
        self._failures += 1
        self._next_turn = now + min(PAUSE_MAX, 0.1 * 2 ** min(self._failures, 10))
        if self._failures == 1:
            _log.warning("worker %s could not reach its store and tries again: %s", self.worker_id, error)

    def _rejoin(self, now: float) -> None:
        """Start anew after the lease has run out: what is claimed already is refused when it comes."""
        _log.warning(
            "worker %s was silent for longer than its lease; its jobs were given to others", self.worker_id
        )
        withdrawn = {claim.fence for claim in self._executor.withdraw()}
        self._lost |= self._held - withdrawn
        self._held = set()
        self._inbox.clear()
        try:
            self._join()
        except QueueError as error:
            self._try_again(error, now)
            return
        self._call()

    def _submit(self, claims: Sequence[Claim]) -> None:
        """Hand these to the executor, and what the store handed over in between, in the order they were claimed."""
        inbox = self._inbox
        if inbox:
            claims = sorted([*claims, *(inbox.popleft() for _ in range(len(inbox)))], key=_fence)
        if claims:
            self._held.update(map(_fence, claims))
            self._executor.submit(claims)

    def _stop_some(self, running: Sequence[Running], now: float) -> float:
        """Stop what is cancelled or ran out of its time; gives the seconds until the next one does."""
        soonest = float("inf")
        for claim, _, started, stopping, _ in running:
            if stopping is not None:
                continue
            if claim.fence in self._to_cancel:
                self._executor.stop_job(claim.fence, StopReason.CANCEL)
            elif claim.timeout is not None:
                left = started + claim.timeout - now
                if left <= 0:
                    self._executor.stop_job(claim.fence, StopReason.TIMEOUT)
                else:
                    soonest = min(soonest, left)
        return soonest

    def _cancel(self, fences: frozenset[int]) -> None:
        """Stop these; what was only claimed ahead is given back, and that ends it."""
        self._to_cancel = fences
        if not fences:
            return
        running = {running.claim.fence for running in self._executor.running()}
        for fence in fences & running:
            self._executor.stop_job(fence, StopReason.CANCEL)
        if fences <= running or not self._executor.waiting():
            return
        waiting = self._executor.withdraw()
        self._executor.submit([claim for claim in waiting if claim.fence not in fences])
        back = [Report(claim, ReportKind.RELEASED) for claim in waiting if claim.fence in fences]
        if back:
            self._unsent += back
            self._call()

    def _tell_stuck(self, running: Sequence[Running]) -> list[Report]:
        """Say in their logs which jobs cannot be stopped."""
        stuck = frozenset(job.claim.fence for job in running if job.stuck)
        new = stuck - self._stuck
        self._stuck = stuck
        if not new:
            return []
        text = "WARNING nbqueue: told to stop, it goes on; a thread cannot be killed, so another slot took its place\n"
        chunk = LogChunk("log", text, self._clock())
        return [
            Report(job.claim, ReportKind.NEWS, logs=(chunk,)) for job in running if job.claim.fence in new
        ]

    def _give_back_stalled(self, running: Sequence[Running], now: float) -> list[Report]:
        """Give back what was claimed ahead when the jobs before it turn out to be long."""
        if not self._executor.waiting():
            return []
        if not self._prefetch.stalled(now, [job for job in running if not job.stuck]):
            return []
        return [Report(claim, ReportKind.RELEASED) for claim in self._executor.withdraw()]

    def _check_limits(self) -> None:
        limits = self._options
        spent = limits.max_jobs is not None and self._ended >= limits.max_jobs
        empty = limits.when_empty and not (self._held or self._inbox or self._called or self._unsent)
        if spent or empty:
            self._stopping.set()

    def _check_time(self, now: float) -> None:
        limit = self._options.max_seconds
        if limit is not None and now - self._born >= limit:
            self._stopping.set()

    # -- handlers

    def _known_handlers(self) -> Handlers:
        """What this worker can run; the same object while that does not change."""
        made_of = (self._registry.handlers(), self._trusted.hashes)
        if made_of[0] is not self._made_of[0] or made_of[1] is not self._made_of[1]:
            self._made_of = made_of
            self._handlers = replace(made_of[0], code=made_of[1])
        return self._handlers

    def _resolve(self, spec: Spec) -> Handler | None:
        return self._registry.resolve(spec) or self._trusted.resolve(spec)

    # -- the supervisor

    def _supervise(self) -> None:
        wait = 0.0
        while not self.stopping:
            if wait > 0:
                self._wakeup.wait(wait)
            self._wakeup.clear()
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
        self.shut()

    def shut(self) -> None:
        """Take no more, end or give back what is held, and leave the store."""
        if not self._joined:
            return
        self._joined = False
        self._stopping.set()
        self._unlisten()
        self._submit(())
        self._unsent += [Report(claim, ReportKind.RELEASED) for claim in self._executor.withdraw()]
        self._called = True
        try:
            self._let_end()
        except Exception as error:
            self._failure = self._failure or error
            _log.exception("worker %s could not wait for its last jobs", self.worker_id)
        running = {one.claim.fence: one for one in self._executor.running()}
        left = self._executor.close(0.0)
        reports = self._unsent + self._executor.news() + self._executor.collect()
        reports += [self._left_behind(claim, running.get(claim.fence)) for claim in left]
        reports += [Report(claim, ReportKind.RELEASED) for claim in self._inbox]
        try:
            self._settle(reports, self._store.turn(self.worker_id, reports, 0))
            self._store.leave(self.worker_id)
        except QueueError as error:
            _log.warning("worker %s could not report its last jobs: %s", self.worker_id, error)
        except Exception as error:
            self._failure = self._failure or error
            _log.exception("worker %s could not report its last jobs", self.worker_id)
        if self._slot_file is not None:
            self._slot_file.close()
            self._slot_file = None
        self._rested.set()

    def _left_behind(self, claim: Claim, running: Running | None) -> Report:
        """Say of a job that has not ended in time what is true of it."""
        if running is None or running.stopping in (None, StopReason.SHUTDOWN):
            return Report(claim, ReportKind.RELEASED)
        why = "its time was up" if running.stopping is StopReason.TIMEOUT else "it was cancelled"
        error = (
            f"told to stop since {why}, it did not, and may go on for as long as process {self.info.pid} does"
        )
        return Report(claim, ReportKind.ENDED, Outcome.STUCK, running.started_at, self._clock(), error=error)

    def _let_end(self) -> None:
        """Go on with turns that claim nothing, so that the lease holds, until all has ended or patience has."""
        since = self._ticks()
        while True:
            wait = self.step()
            left = since + self._grace - self._ticks()
            if left <= 0 or not (self._held or self._unsent):
                return
            self._wakeup.wait(min(wait, left))
            self._wakeup.clear()


_fence = attrgetter("fence")
