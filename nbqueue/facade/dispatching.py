"""Handing in work: everything is checked and encoded before anything is written; runs nothing."""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nbqueue.errors import InvalidCommand
from nbqueue.facade.controls import Controls
from nbqueue.facade.intake import Prepared, prepare
from nbqueue.facade.receipt import JobDispatch
from nbqueue.handlers.handler import Handler
from nbqueue.jobs import Options

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["Dispatching"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})
#: So many may wait for one commit together.
_THREADS = 32


class Dispatching(Controls):
    """The verbs that hand in work; ``QueueManager`` has them."""

    _pool: ThreadPoolExecutor | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not the lock of ``close``: that one is held while jobs end, and they may have work to hand in.
        self._pooling = threading.Lock()

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
        # Here, as with all of asyncio in the package: it takes a tenth of an import that most have no loop for.
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        # Arguments are encoded here and now, as whoever awaits this may go on to change them.
        prepared, receipts = self.prepare(queue, (work,), options)
        self.admit((item.call.handler, item.job.spec.queue) for item in prepared)
        with self._pooling:
            _ = self.store
            pool = self._pool = self._pool or ThreadPoolExecutor(
                _THREADS, thread_name_prefix="nbqueue-dispatch"
            )
            insert = functools.partial(contextvars.copy_context().run, self.live.insert, prepared)
            inserted = asyncio.get_running_loop().run_in_executor(pool, insert)
        await inserted
        return receipts[0]

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
            self.live.keep(receipt)
        return prepared, receipts

    def admit(self, work: Iterable[tuple[Handler | None, str]]) -> None:
        """Refuse what a worker here would take and could not run, of handlers and the queues of their jobs."""

    def _finish(self, timeout: float) -> None:
        super()._finish(timeout)
        with self._pooling:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)
