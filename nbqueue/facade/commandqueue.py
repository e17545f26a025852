"""A queue by its name, and which manager a name without one is meant for; knows managers only by what they do."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nbqueue.facade.receipt import JobDispatch
from nbqueue.jobs import check_queue
from nbqueue.running.context import current

if TYPE_CHECKING:
    import pandas as pd

    from nbqueue.facade.batches.batch import Batch
    from nbqueue.facade.manager import QueueManager

__all__ = ["CommandQueue", "Connected", "connected"]


class Connected:
    """The managers that are open, the latest last; holds the latest, and only that."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: list[weakref.ref[QueueManager]] = []
        self._latest: QueueManager | None = None
        #: Queues that were named before anything was connected.
        self._wanted: list[str] = []

    def add(self, opened: QueueManager) -> None:
        """Take one that was opened; queues that were named before are made on it."""
        with self._lock:
            self._open.append(weakref.ref(opened))
            self._latest = opened
            wanted, self._wanted = self._wanted, []
        for name in wanted:
            opened.store.add_queue(name)

    def discard(self, closed: QueueManager) -> None:
        """Let go of one that was closed."""
        with self._lock:
            found = self.all()
            self._open = [weakref.ref(one) for one in found if one is not closed]
            self._latest = next((one for one in reversed(found) if one is not closed), None)

    def all(self) -> list[QueueManager]:
        """Give those that are open, the latest last."""
        with self._lock:
            return [one for ref in self._open if (one := ref()) is not None]

    def latest(self, make: Callable[[], QueueManager]) -> QueueManager:
        """Give the one that was opened last; make one where there is none."""
        with self._lock:
            return self._latest or make()

    def want(self, name: str) -> None:
        """Make a queue on the latest, or on the first to come."""
        with self._lock:
            latest = self._latest
            if latest is None:
                self._wanted.append(name)
        if latest is not None:
            latest.store.add_queue(name)


connected = Connected()


class CommandQueue:
    """A queue to dispatch on; of the manager that was connected last, unless a manager gave it.

    Parameters
    ----------
    name : str
        Its name; it comes to be if there is none of it yet.

    Raises
    ------
    InvalidCommand
        For a name that no queue can have.

    Example
    -------
    >>> from nbqueue import QueuedCommand, connect
    >>> with connect(":memory:"):
    ...     CommandQueue("imports").dispatch(QueuedCommand("import:data")).queue
    'imports'
    """

    __slots__ = ("_bound", "_name")

    def __init__(self, name: str) -> None:
        self._name: str | None = check_queue(name)
        self._bound: QueueManager | None = None
        connected.want(name)

    @classmethod
    def default(cls) -> CommandQueue:
        """Give the queue of jobs that name none."""
        return cls.of(None, None)

    @classmethod
    def of(cls, bound: QueueManager | None, name: str | None) -> CommandQueue:
        """Give a manager's queue, without making it."""
        made = cls.__new__(cls)
        made._bound, made._name = bound, name  # noqa: SLF001 - its own, just made
        return made

    @property
    def name(self) -> str:
        """Its name."""
        return self._name or self._manager().config.default_queue

    def dispatch(self, work: object, **options: Any) -> JobDispatch:
        """Hand in one job; on disk when this returns. A queue that the work itself names wins."""
        return self._manager().dispatch_on(self._name, (work,), options)[0]

    def dispatch_many(self, works: Iterable[object], **options: Any) -> list[JobDispatch]:
        """Hand in many jobs, all or none, in one transaction."""
        return self._manager().dispatch_on(self._name, works, options)

    async def adispatch(self, work: object, **options: Any) -> JobDispatch:
        """Hand in one job without blocking the running loop."""
        return await self._manager().adispatch_on(self._name, work, options)

    def map(self, work: object, items: object, *, key: str | None = None, **options: Any) -> Batch:
        """Hand in one job for each row or item, as ``QueueManager.map``. A queue that the work itself names wins."""
        return self._manager().map_on(self._name, work, items, key, options)

    def pause(self) -> None:
        """Hand out no more of its jobs; what runs goes on."""
        self._existing().pause(self.name)

    def resume(self) -> None:
        """Hand out its jobs again."""
        self._existing().resume(self.name)

    def jobs(self, **words: Any) -> pd.DataFrame:
        """Give its jobs as a frame; as ``QueueManager.jobs``."""
        return self._existing().jobs(queue=self.name, **words)

    def __repr__(self) -> str:
        return f"CommandQueue({self._name!r})" if self._name else "CommandQueue.default()"

    def _manager(self) -> QueueManager:
        if self._bound is not None:
            return self._bound
        from nbqueue.facade.manager import QueueManager, manager

        context = current(None)
        # Inside a job: the store that the job came from, which need not be the one connected last.
        if context is not None and isinstance(context.dispatcher, QueueManager):
            return context.dispatcher
        return manager()

    def _existing(self) -> QueueManager:
        found = self._manager()
        found.store.add_queue(self.name)
        return found
