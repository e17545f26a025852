"""The facade: ``connect``, ``QueueManager`` and ``CommandQueue``, through which people and faces do everything.

It decides nothing that a store, a worker or the lifecycle decides; it checks what is asked for, and hands it on.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import time
import uuid
import weakref
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nbqueue.durations import duration
from nbqueue.errors import InvalidCommand, NbqueueError, NotSupported
from nbqueue.executor import Executor
from nbqueue.facade import cells
from nbqueue.facade.batches.mapping import Batching
from nbqueue.facade.commandqueue import CommandQueue, connected
from nbqueue.facade.configuring import MEMORY, QueueConfig
from nbqueue.facade.forms.forming import Forming
from nbqueue.facade.opened import Target
from nbqueue.facade.receipt import JobDispatch
from nbqueue.facade.selecting import Names, names_of, unknown_queue
from nbqueue.handlers.registry import registry
from nbqueue.jobs import State, check_queue, check_tries
from nbqueue.patience import within
from nbqueue.running import context as contexts
from nbqueue.running.context import current
from nbqueue.secret import load_secret
from nbqueue.store import Store

if TYPE_CHECKING:
    from nbqueue.handlers.handler import Handler
    from nbqueue.running.run import Services
    from nbqueue.store import Report
    from nbqueue.worker.worker import Worker

__all__ = [
    "CommandQueue",
    "JobDispatch",
    "QueueConfig",
    "QueueManager",
    "adispatch",
    "connect",
    "dispatch",
    "manager",
]

# A kernel is given 2.5 s to go.
_PATIENCE_AT_EXIT = 1.0
#: So long a store that does not answer is tried for a text.
_PATIENCE_OF_REPR = 1.0


class QueueManager(Forming, Batching):
    """An open queue: hands in work, starts workers, and shows what became of it.

    Parameters
    ----------
    target : str, Path or QueueConfig, optional
        A path, ``":memory:"``, or a URL: ``"duckdb:///jobs.duckdb"``, ``"postgresql://me@host/db"``,
        ``"sqs://eu-west-1/jobs"``; ``$NBQUEUE_URL``, else ./nbqueue.duckdb, unless given.
    store : Store, optional
        An open store instead, which is closed with this.
    clock : callable, optional
        Seconds since the epoch.

    Raises
    ------
    QueueUnavailable
        Where it cannot be had; the sentence says why, and of a file who holds it.
    NotSupported
        Where it takes a package that is not installed; the sentence has the line that installs it.

    Example
    -------
    >>> with QueueManager(":memory:") as queues:
    ...     queues.add_queue("imports").name
    'imports'
    """

    def __init__(
        self, target: Target = None, *, store: Store | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(target, store=store, clock=clock)
        #: One that runs is held by its thread.
        self._workers: weakref.WeakSet[Worker] = weakref.WeakSet()
        #: Those of them that send functions to other processes.
        self._shippers: weakref.WeakSet[Worker] = weakref.WeakSet()
        connected.add(self)
        cells.follow_again(self)

    # -- queues

    def add_queue(self, name: str) -> CommandQueue:
        """Make a queue, if there is none of that name yet."""
        self.store.add_queue(check_queue(name))
        return CommandQueue.of(self, name)

    def queue(self, name: str) -> CommandQueue:
        """Give a queue to dispatch on.

        Raises
        ------
        QueueUnavailable
            If nobody made it; the sentence names near matches.
        """
        known = self.list()
        if name not in known:
            raise unknown_queue(name, known)
        return CommandQueue.of(self, name)

    # -- work

    def run(self, work: object, **options: Any) -> Any:
        """Run a job at once, here, in the foreground, recorded like any other, and give what it returns.

        Raises
        ------
        JobFailed, JobTimeout, JobCancelled
            If it did not succeed.
        """
        from nbqueue.worker.foreground import run_here

        (item,), (receipt,) = self.prepare(None, (work,), options)
        job = item.job._replace(due_at=None)
        return receipt.outcome(run_here(self.store, registry, job, self._services()))

    def worker(
        self,
        queues: Names = None,
        concurrency: int | None = None,
        executor: str | Executor = "thread",
        *,
        tries: int | None = None,
        timeout: float | timedelta | None = None,
        lease: float | timedelta = 15.0,
        sleep: float | timedelta = 5.0,
        max_jobs: int | None = None,
        max_seconds: float | timedelta | None = None,
        when_empty: bool = False,
        max_jobs_per_child: int | None = None,
        memory_limit: str | int | None = None,
        on_ended: Callable[[Report], None] | None = None,
    ) -> Worker:
        """Make a worker, to be started with ``start()`` or ``with``; it stops when this closes.

        Parameters
        ----------
        queues : str or sequence of str, optional
            Served in this order; None is every queue.
        concurrency : int, optional
            How many jobs run at once: 4 unless given; on a Dask cluster as many as it has threads.
        executor : str or Executor
            ``"thread"``, ``"process"``, a Dask cluster as ``"dask://HOST:PORT"``, or one of your own.
        tries, timeout : optional
            For jobs that name none.
        lease : float or timedelta
            Without a sign of life for so long, its jobs are given to others.
        sleep : float or timedelta
            The longest wait between looks at a store that cannot wake it.
        max_jobs, max_seconds, when_empty : optional
            It stops by itself after so many jobs, so long, or when nothing is left to do.
        max_jobs_per_child : int, optional
            Of ``"process"``: a child process is replaced after so many jobs.
        memory_limit : str or int, optional
            Of ``"process"``: ``"2GB"`` or bytes; a job that asks for more gets a ``MemoryError``.
        on_ended : callable, optional
            Called in the worker's thread with the report of each attempt that ended, once recorded; must be quick.
        """
        from nbqueue.executors import make_executor
        from nbqueue.worker.worker import Worker, WorkerOptions

        store = self.store
        wanted = names_of(queues, what="queues")
        if wanted is not None:
            wanted = tuple(dict.fromkeys(check_queue(name) for name in wanted))
            if not wanted:
                raise InvalidCommand("queues is an empty list; name a queue, or leave it out for every queue")
        options = WorkerOptions(
            queues=wanted,
            tries=1 if tries is None else check_tries(tries, what="tries"),
            timeout=None if timeout is None else duration(timeout, what="timeout", least=0.001),
            lease=duration(lease, what="lease", least=0.1),
            sleep=duration(sleep, what="sleep", least=0.01),
            max_jobs=None if max_jobs is None else check_tries(max_jobs, what="max_jobs"),
            max_seconds=None if max_seconds is None else duration(max_seconds, what="max_seconds"),
            when_empty=when_empty,
            on_ended=on_ended,
        )
        slots = None if concurrency is None else check_tries(concurrency, what="concurrency")
        made = make_executor(
            executor, slots, max_jobs_per_child=max_jobs_per_child, memory_limit=memory_limit
        )
        worker = Worker(store, registry, made, self._services(), options, clock=self._clock)
        self._workers.add(worker)
        if getattr(made, "ships_code", False):
            self._shippers.add(worker)
        return worker

    def admit(self, work: Iterable[tuple[Handler | None, str]]) -> None:
        """Refuse what a worker here would take and could not send to its child processes.

        Raises
        ------
        InvalidCommand
            Naming the variable that cannot be sent.
        """
        # A weak set takes ten times as long to go through as to be found empty, which it mostly is.
        if not self._shippers:
            return
        shippers = [worker for worker in self._shippers if worker.running]
        if not shippers:
            return
        from nbqueue.running.shipping import check

        for handler, queue in {(id(handler), queue): (handler, queue) for handler, queue in work}.values():
            served = any(worker.info.queues is None or queue in worker.info.queues for worker in shippers)
            if handler is not None and served:
                check(handler)

    @staticmethod
    def handlers() -> tuple[str, ...]:
        """Give the names that this process has handlers for, sorted."""
        return registry.names()

    def _services(self) -> Services:
        from nbqueue.running.run import Services

        return Services(
            key=load_secret,
            dispatcher=self,
            live_call=self.live.call,
            on_value=self.live.receipts.on_value,
            on_unstored=self.live.on_unstored,
        )

    # -- faces

    @property
    def plot(self) -> Any:
        """The plots: ``plot.throughput()``, ``.latency()``, ``.backlog()``, ``.timeline()``."""
        return _face("plots").Plots(self)

    def form(self, work: object) -> Any:
        """Show a form in the notebook that dispatches a job, made from a handler's signature, hints and docstring.

        Parameters
        ----------
        work : str, job or Job class
            A command's name, a function under ``@job`` (with ``.options(...)`` if wanted), or a ``Job`` class.

        Raises
        ------
        InvalidCommand
            For a name that has no handler here, naming near matches.
        """
        return _face("widgets.form").Form(self, work)

    def panel(
        self,
        *,
        state: Names = None,
        queue: str | None = None,
        command: str | None = None,
        text: str = "",
        batch: uuid.UUID | str | None = None,
        fingerprint: str | None = None,
        height: int = 360,
    ) -> Any:
        """Show the queue live in the notebook: queues, jobs, failures and workers, with what can be done to them.

        Parameters
        ----------
        state, queue, command, batch, fingerprint : optional
            What the table shows at first, as of ``jobs``.
        text : str
            Only jobs with this in their id, command, queue, error, arguments or metadata.
        height : int
            Of the table, in pixels.

        Raises
        ------
        InvalidCommand
            For a state that does not exist, or a batch that is no id.
        """
        return _face("widgets.panel.panel").panel(
            self,
            states=names_of(state, what="state") or (),
            queue=queue,
            command=command,
            text=text,
            batch=None if batch is None else str(batch),
            fingerprint=fingerprint,
            height=height,
        )

    def show(self, shown: object) -> None:
        """Show a receipt or a batch as a live card in the notebook.

        Raises
        ------
        NotImplementedError
            Outside of a notebook, where its text is all there is to show.
        """
        if current(None) is not None:
            # What a job shows is kept as it was, and a card lives.
            raise NotImplementedError
        _face("widgets.card.card").show(self, shown)

    # -- closing

    def close(self, timeout: float = 10.0) -> None:
        """Stop its workers and let go of the file; doing it again does nothing.

        Parameters
        ----------
        timeout : float
            Seconds that running jobs are given to end, before they are given back.

        Raises
        ------
        NbqueueError
            In one of its own jobs, whose end could not be recorded then.
        """
        super().close(timeout)
        connected.discard(self)

    def _finish(self, timeout: float) -> None:
        if any(worker.runs_caller() for worker in self._workers):
            raise NbqueueError(
                f"a job cannot close {self.name} while it runs there, as its end could not be recorded;"
                f" worker.stop() in it ends its worker once it has ended"
            )
        deadline = time.monotonic() + timeout
        for worker in list(self._workers):
            worker.stop(max(0.0, deadline - time.monotonic()))
        self._workers.clear()
        super()._finish(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whoever interrupts wants the prompt, and not to wait for jobs.
        self.close(_PATIENCE_AT_EXIT if isinstance(error, KeyboardInterrupt) else 10.0)

    def __repr__(self) -> str:
        if self.closed:
            return f"QueueManager({self.name}: closed)"
        try:
            with within(_PATIENCE_OF_REPR):
                queues = self.store.queues()
        except NbqueueError:
            return f"QueueManager({self.name}: unavailable)"
        waiting, running = (
            sum(queue.counts[state] for queue in queues) for state in (State.PENDING, State.RUNNING)
        )
        return f"QueueManager({self.name.rstrip(':')}: {waiting} waiting, {running} running)"


@atexit.register
def _close_all() -> None:
    for one in connected.all():
        with contextlib.suppress(Exception):
            one.close(_PATIENCE_AT_EXIT)


def connect(target: Target = None) -> QueueManager:
    """Open a queue, or join it where it is open already.

    Parameters
    ----------
    target : str, Path or QueueConfig, optional
        A path, ``":memory:"``, or a URL: ``"duckdb:///jobs.duckdb"``, ``"postgresql://me@host/db"``,
        ``"sqs://eu-west-1/jobs"``; ``$NBQUEUE_URL``, else ./nbqueue.duckdb, unless given.

    Raises
    ------
    QueueUnavailable
        Where it cannot be had; the sentence says why, and of a file who holds it.
    NotSupported
        Where it takes a package that is not installed; the sentence has the line that installs it.
    """
    return QueueManager(target)


def manager() -> QueueManager:
    """Give the manager that was connected last and is open; connect the default where there is none."""
    return connected.latest(_connect_home)


def _connect_home() -> QueueManager:
    """Connect what is meant where nothing was connected: in a child process the queue that its jobs come from."""
    context = contexts.current(None)
    if context is not None and getattr(context.dispatcher, "away", False):
        raise NotSupported(
            "the queue that this job came from cannot be asked from a Dask cluster: use what the job is given "
            "(ctx.dispatch), or a worker in threads or processes"
        )
    if contexts.home == MEMORY:
        raise NotSupported(
            "the queue that this job came from is in the memory of another process: use what the job is given "
            "(ctx.dispatch), a queue in a file, or a thread worker"
        )
    return QueueManager(contexts.home or None)


class _Home:
    """Where receipts ask that a job in a child process is given: its queue, connected when one of them asks."""

    @property
    def store(self) -> Store:
        return manager().store

    def heir(self) -> _Home:
        return self

    def follow(self) -> None:
        manager().follow()

    def retry(self, id: uuid.UUID) -> object:
        return manager().retry(id)

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        return manager().on_close(callback)

    def show(self, shown: object) -> None:
        raise NotImplementedError


_home = _Home()


def receipt_from_home(job_id: uuid.UUID, command: str, queue: str, scheduled_at: float | None) -> JobDispatch:
    """Give the receipt of what a job in a child process has dispatched."""
    return JobDispatch(job_id, command, queue, scheduled_at=scheduled_at, source=_home)


def latest() -> QueueManager | None:
    """Give the manager that was connected last and is open, None where there is none."""
    return next(reversed(connected.all()), None)


def dispatch(work: object, **options: Any) -> JobDispatch:
    """Hand in one job to the queue connected last; inside a job, to the one that the job came from."""
    context = current(None)
    receipt: JobDispatch = (manager() if context is None else context).dispatch(work, **options)
    return receipt


async def adispatch(work: object, **options: Any) -> JobDispatch:
    """Hand in one job without blocking the running loop; otherwise as ``dispatch``."""
    context = current(None)
    receipt: JobDispatch = await (manager() if context is None else context).adispatch(work, **options)
    return receipt


def _face(name: str) -> Any:
    """Give a module of the layer above, which knows this one; the only way up."""
    return importlib.import_module(f"nbqueue.{name}")
