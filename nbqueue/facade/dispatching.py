"""Handing in work: everything is checked and encoded before anything is written; runs nothing."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from nbqueue.errors import InvalidCommand
from nbqueue.facade.controls import Controls
from nbqueue.facade.preparing import Prepared, prepare
from nbqueue.facade.receipt import JobDispatch
from nbqueue.handlers.handler import Handler
from nbqueue.jobs import Options

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Dispatching"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
#: So many may wait for one commit together.
_THREADS = 32


class _Arrivals:
    """What came of jobs whose dispatch a loop awaits: one wake-up of the loop for all of a commit.

    Waking it takes a system call, which a call for every job would make most of what a dispatch takes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop):
        # Weak, or the key that this is kept under would live as long as this.
        self._loop = weakref.ref(loop)
        self._is_woken = False
        self._done: deque[tuple[asyncio.Future[None], BaseException | None]] = deque()

    def put(self, arrival: asyncio.Future[None], error: BaseException | None) -> Callable[[], None]:
        """Note, from any thread, that a job is on disk, or why it was not accepted; gives what wakes the loop."""
        self._done.append((arrival, error))
        return self._wake

    def _wake(self) -> None:
        if self._is_woken or (loop := self._loop()) is None:
            return
        self._is_woken = True
        with contextlib.suppress(RuntimeError):  # it was closed, and nobody awaits anything
            loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        # First, so that it is woken once too often rather than once too seldom.
        self._is_woken = False
        while self._done:
            arrival, error = self._done.popleft()
            if arrival.done():
                continue  # whoever awaited it was cancelled
            if error is None:
                arrival.set_result(None)
            else:
                arrival.set_exception(error)


class Dispatching(Controls):
    """The verbs that hand in work; ``QueueManager`` has them."""

    _pool: ThreadPoolExecutor | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not the lock of ``close``: that one is held while jobs end, and they may have work to hand in.
        self._pooling = threading.Lock()
        self._arrivals: WeakKeyDictionary[asyncio.AbstractEventLoop, _Arrivals] = WeakKeyDictionary()

    def dispatch(self, work: object, **options: Any) -> JobDispatch:
        """Hand in one job; it is on disk when this returns.

        Parameters
        ----------
        work : Job, QueuedCommand or Call
            What to run.
        **options
            As ``@job`` takes them; they win over what the work says of itself.

        Raises
        ------
        InvalidCommand
            For work, options or arguments that cannot be stored; nothing was written.
        DispatchFailed, QueueUnavailable
            If it could not be made durable; the job was not accepted.

        Example
        -------
        >>> import nbqueue as nbq
        >>> with nbq.connect(":memory:") as queues:
        ...     queues.dispatch(nbq.QueuedCommand("import:data"), delay=60).queue
        'default'
        """
        return self.dispatch_on(None, (work,), options)[0]

    def dispatch_many(self, works: Iterable[object], **options: Any) -> list[JobDispatch]:
        """Hand in many jobs, all or none, in one transaction."""
        return self.dispatch_on(None, works, options)

    async def adispatch(self, work: object, **options: Any) -> JobDispatch:
        """Hand in one job without blocking the running loop; on disk when it returns."""
        return await self.adispatch_on(None, work, options)

    def dispatch_on(
        self, queue: str | None, works: Iterable[object], options: Mapping[str, Any] = _NOTHING
    ) -> list[JobDispatch]:
        """Hand in jobs, all or none, to this queue unless they name theirs; as ``CommandQueue`` does."""
        if isinstance(works, str) or not isinstance(works, Iterable):
            raise InvalidCommand(
                f"dispatch_many takes a list of work, not {type(works).__name__} {works!r}; for one: dispatch"
            )
        prepared, receipts = self.prepare(queue, tuple(works), options)
        self.admit((item.call.handler, item.job.spec.queue) for item in prepared)
        if prepared:
            self.live.insert(prepared)
        return receipts

    async def adispatch_on(
        self, queue: str | None, work: object, options: Mapping[str, Any] = _NOTHING
    ) -> JobDispatch:
        """Hand in one job to this queue unless it names its own, without blocking the running loop."""
        # Here, as with all of asyncio in the package: it takes 25 ms of an import that most have no loop for.
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        # Arguments are encoded here and now, as whoever awaits this may go on to change them.
        prepared, receipts = self.prepare(queue, (work,), options)
        self.admit((item.call.handler, item.job.spec.queue) for item in prepared)
        loop = asyncio.get_running_loop()
        arrival = loop.create_future()
        if self.live.insert_soon(prepared[0], functools.partial(self._arrivals_at(loop).put, arrival)):
            # Whoever stops waiting for it does not take it back.
            await arrival
            return receipts[0]
        with self._pooling:
            _ = self.store
            pool = self._pool = self._pool or ThreadPoolExecutor(
                _THREADS, thread_name_prefix="nbqueue-dispatch"
            )
            insert = functools.partial(contextvars.copy_context().run, self.live.insert, prepared)
            inserted = loop.run_in_executor(pool, insert)
        await inserted
        return receipts[0]

    def _arrivals_at(self, loop: asyncio.AbstractEventLoop) -> _Arrivals:
        with self._pooling:
            arrivals = self._arrivals.get(loop)
            if arrivals is None:
                arrivals = self._arrivals[loop] = _Arrivals(loop)
            return arrivals

    def prepare(
        self, queue: str | None, works: tuple[object, ...], options: Mapping[str, Any] = _NOTHING
    ) -> tuple[list[Prepared], list[JobDispatch]]:
        """Check and encode work, and make its receipts; nothing is written."""
        _ = self.store
        now = self._clock()
        given = Options.make(**options) if options else None
        prepared = prepare(works, given, queue=queue, default_queue=self.config.default_queue, now=now)
        receipts = [item.receipt(self, now) for item in prepared]
        for receipt in receipts:
            self.live.receipts.keep(receipt)
        return prepared, receipts

    def admit(self, work: Iterable[tuple[Handler | None, str]]) -> None:
        """Refuse what a worker here would take and could not run, of handlers and the queues of their jobs."""

    def _finish(self, timeout: float) -> None:
        super()._finish(timeout)
        with self._pooling:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
