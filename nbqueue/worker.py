"""The worker: claims jobs from a store, hands them to an executor, and records what came of them.

``step()`` is one turn of that; a supervisor thread calls it and waits on an event in between. It knows the two contracts and no
implementation of either.
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
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from nbqueue.errors import NbqueueError, QueueError
from nbqueue.executor import Executor, StopReason
from nbqueue.handlers import Handler, Registry
from nbqueue.jobs import Claim, Spec, State
from nbqueue.prefetch import Prefetch
from nbqueue.run import Runner, Services
from nbqueue.slots import SlotFile
from nbqueue.store import Handlers, Report, ReportKind, Store, WorkerInfo
from nbqueue.trusted import TrustedCode

__all__ = ["Worker", "WorkerOptions"]

_log = logging.getLogger("nbqueue.worker")

#: Logs and progress of running jobs are recorded this often, seconds.
NEWS_EVERY = 0.5
#: Slots that replace stuck ones are noted too.
SPARE_SLOTS = 64


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
        options = options or WorkerOptions()
        self._store = store
        self._registry = registry
        self._executor = executor
        self._clock = clock
        self._ticks = ticks
        self._options = options
        self.info = WorkerInfo(
            worker_id=f"{platform.node() or 'local'}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
            queues=options.queues,
            concurrency=executor.slots,
            executor=executor.name,
            host=platform.node(),
            pid=os.getpid(),
            tries=options.tries,
            timeout=options.timeout,
            lease=options.lease,
        )
        self._trusted = TrustedCode(store.get_code, services.key)
        self._runner = Runner(self._resolve, services, clock)
        self._prefetch = Prefetch(executor.slots)
        self._inbox: deque[Claim] = deque()
        #: The store asked for a turn.
        self._called = True
        self._wakeup = threading.Event()
        self._stopping = threading.Event()
        self._grace = 10.0
        self._thread: threading.Thread | None = None
        self._slot_file: SlotFile | None = None
        #: Reports that the store has not taken yet.
        self._unsent: list[Report] = []
        self._failures = 0
        self._handlers: Handlers | None = None
        self._next_turn = 0.0
        self._next_news = 0.0
        self._born = 0.0
        self._due_at: float | None = None
        #: Attempts claimed and not ended.
        self._held: set[int] = set()
        self._taken = 0
        self._turned = threading.Condition()
        self._joined = False

    # -- for people

    @property
    def worker_id(self) -> str:
        """Its name in frames; unique for ever."""
        return self.info.worker_id

    @property
    def running(self) -> bool:
        """Whether its supervisor is at work."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> Self:
        """Begin to work in the background; a worker that works already is left alone."""
        if self.running:
            return self
        self.open()
        self._thread = threading.Thread(target=self._supervise, name="nbqueue-worker", daemon=True)
        self._thread.start()
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Take no more jobs, let those that run end for up to ``timeout`` seconds, then give them back."""
        self._grace = timeout
        self._stopping.set()
        self._wakeup.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

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
            Names what is left.
        """
        started_here = not self.running
        self.start()
        deadline = None if timeout is None else self._ticks() + timeout
        try:
            while self._unfinished():
                left = None if deadline is None else deadline - self._ticks()
                if left is not None and left <= 0:
                    msg = f"{self._unfinished()} jobs of {self._queue_names()} are unfinished after {timeout:g} s"
                    raise TimeoutError(msg)
                with self._turned:
                    # Another worker may finish the last one, which this one is not told.
                    self._turned.wait(0.2 if left is None else min(0.2, left))
                if not self.running:
                    break
        finally:
            if started_here:
                self.stop()
        return self

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
        folder: Path | None = getattr(self._store, "slot_folder", None)
        if folder is not None:
            self._slot_file = SlotFile(folder / f"{self.worker_id}.slots", self.info.concurrency + SPARE_SLOTS)
        self._stopping.clear()
        self._handlers = self._registry.handlers()
        self._store.join(self.info, self._handlers, self._wake)
        self._executor.start(self._runner, self._wakeup_if_asleep, self._slot_file)
        self._unlisten = self._registry.on_change(self._call)
        self._born = self._ticks()
        self._joined = True

    def _wake(self, claims: Sequence[Claim]) -> None:
        """Be handed claims, or be asked for a turn; runs in the store's thread."""
        self._inbox.extend(claims)
        if not claims:
            self._called = True
        self._wakeup.set()

    def _call(self) -> None:
        self._called = True
        self._wakeup.set()

    def _wakeup_if_asleep(self) -> None:
        if not self._wakeup.is_set():
            self._wakeup.set()

    def step(self) -> float:
        """Take one turn: submit, stop what is overdue, collect, record, claim.

        Returns
        -------
        float
            Seconds until the next turn is due, unless something wakes it before.
        """
        now = self._ticks()
        self._submit_inbox()
        overdue_in = self._stop_overdue(now)
        reports = self._unsent
        self._unsent = []
        if now >= self._next_news:
            self._next_news = now + NEWS_EVERY
            reports += self._executor.news()
        ended = self._executor.collect()
        reports += ended
        self._prefetch.learn(ended)
        reports += self._give_back_stuck(now)
        handlers = self._known_handlers()
        slots = self._slots()
        room = slots > len(self._held) - sum(report.kind is not ReportKind.NEWS for report in reports)
        if reports or self._called or handlers is not None or now >= self._next_turn or (room and self._due(now)):
            self._turn(reports, slots, handlers, now)
        wait = self._next_turn - now
        if self._due_at is not None and room:
            wait = min(wait, self._due_at - now)
        if self._held:
            wait = min(wait, NEWS_EVERY)
        return max(0.0, min(wait, overdue_in, self._options.sleep))

    def _due(self, now: float) -> bool:
        return self._due_at is not None and now >= self._due_at

    def _slots(self) -> int:
        """How many claims it would hold at once."""
        if self._stopping.is_set():
            return 0
        slots = self.info.concurrency + self._prefetch.ahead
        if self._options.max_jobs is not None:
            slots = min(slots, self.info.concurrency, self._options.max_jobs - self._taken + len(self._held))
        return slots

    def _turn(self, reports: list[Report], slots: int, handlers: Handlers | None, now: float) -> None:
        self._called = False
        try:
            turn = self._store.turn(self.worker_id, reports, slots, handlers)
        except QueueError as error:
            self._failed_turn(reports, error, now)
            return
        self._failures = 0
        self._next_turn = now + self.info.lease / 3
        for report in reports:
            if report.kind is not ReportKind.NEWS:
                self._held.discard(report.claim.fence)
        for answer in turn.answers:
            if not answer.done:
                _log.info("job %s: %s", answer.job_id, answer.reason)
        if self._options.on_ended is not None:
            for report, answer in zip(reports, turn.answers, strict=True):
                if answer.done and report.kind is ReportKind.ENDED:
                    self._options.on_ended(report)
        if turn.expired:
            self._rejoin()
            return
        self._submit(turn.claims)
        self._submit_inbox()
        for fence in turn.cancels:
            self._executor.stop_job(fence, StopReason.CANCEL)
        self._due_at = None if turn.next_due is None else now + turn.next_due
        if turn.unknown and any(self._trusted.adopt(spec) for spec in turn.unknown):
            self._call()
        with self._turned:
            self._turned.notify_all()
        self._check_limits(now)

    def _failed_turn(self, reports: list[Report], error: QueueError, now: float) -> None:
        """Keep what was not taken, and try again after a while that grows."""
        self._unsent = reports
        self._failures += 1
        pause = min(5.0, 0.1 * 2**self._failures)
        self._next_turn = now + pause
        if self._failures == 1:
            _log.warning("worker %s could not reach its store and tries again: %s", self.worker_id, error)

    def _rejoin(self) -> None:
        """Start anew after the lease has run out: what is claimed already is refused when it comes."""
        _log.warning("worker %s was silent for longer than its lease; its jobs were given to others", self.worker_id)
        for claim in self._executor.withdraw():
            self._held.discard(claim.fence)
        self._store.join(self.info, self._registry.handlers(), self._wake)
        self._handlers = None
        self._called = True

    def _submit_inbox(self) -> None:
        inbox = self._inbox
        if inbox:
            self._submit([inbox.popleft() for _ in range(len(inbox))])

    def _submit(self, claims: Sequence[Claim]) -> None:
        if claims:
            self._held.update(claim.fence for claim in claims)
            self._taken += len(claims)
            self._executor.submit(claims)

    def _stop_overdue(self, now: float) -> float:
        """Stop jobs that ran out of their time; gives the seconds until the next one does."""
        soonest = float("inf")
        for running in self._executor.running():
            timeout = running.claim.timeout
            if timeout is None or running.stopping is not None:
                continue
            left = running.started + timeout - now
            if left <= 0:
                self._executor.stop_job(running.claim.fence, StopReason.TIMEOUT)
            else:
                soonest = min(soonest, left)
        return soonest

    def _give_back_stuck(self, now: float) -> list[Report]:
        """Give back what was claimed ahead when the jobs before it turn out to be long."""
        waiting = self._executor.waiting()
        if not waiting or not self._prefetch.stalled(now, self._executor.running()):
            return []
        return [Report(claim, ReportKind.RELEASED) for claim in self._executor.withdraw()]

    # -- handlers

    def _known_handlers(self) -> Handlers | None:
        """What this worker can run, where that has changed since the last turn."""
        handlers = self._registry.handlers()
        code = self._trusted.hashes
        if code:
            handlers = Handlers(handlers.commands, handlers.owned, code)
        if handlers == self._handlers:
            return None
        self._handlers = handlers
        return handlers

    def _resolve(self, spec: Spec) -> Handler | None:
        return self._registry.resolve(spec) or self._trusted.resolve(spec)

    # -- the supervisor

    def _supervise(self) -> None:
        wait = 0.0
        while not self._stopping.is_set():
            if wait > 0:
                self._wakeup.wait(wait)
            self._wakeup.clear()
            try:
                wait = self.step()
            except NbqueueError as error:
                _log.error("worker %s stops: %s", self.worker_id, error)
                break
            except Exception:
                _log.exception("worker %s stops on an error of its own", self.worker_id)
                break
        self.shut()

    def _check_limits(self, now: float) -> None:
        limits = self._options
        spent = limits.max_jobs is not None and self._taken >= limits.max_jobs and not self._held
        late = limits.max_seconds is not None and now - self._born >= limits.max_seconds
        empty = limits.when_empty and not self._held and not self._inbox and not self._called
        if spent or late or empty:
            self._stopping.set()

    def _let_end(self) -> None:
        """Go on with turns that claim nothing, so that the lease holds, until all has ended or patience has."""
        since = self._ticks()
        while True:
            wait = self.step()
            left = since + self._grace - self._ticks()
            if not self._held or left <= 0:
                return
            self._wakeup.wait(min(wait, left))
            self._wakeup.clear()

    def shut(self) -> None:
        """Take no more, end or give back what is held, and leave the store."""
        if not self._joined:
            return
        self._joined = False
        self._stopping.set()
        self._unlisten()
        self._submit_inbox()
        self._unsent += [Report(claim, ReportKind.RELEASED) for claim in self._executor.withdraw()]
        self._called = True
        try:
            self._let_end()
            left = self._executor.close(0.0)
            reports = self._unsent + self._executor.news() + self._executor.collect()
            reports += [Report(claim, ReportKind.RELEASED) for claim in (*left, *self._inbox)]
            self._store.turn(self.worker_id, reports, 0)
            self._store.leave(self.worker_id)
        except QueueError as error:
            _log.warning("worker %s could not report its last jobs: %s", self.worker_id, error)
        if self._slot_file is not None:
            self._slot_file.close()
        with self._turned:
            self._turned.notify_all()
