"""The way to the workers of a cluster and back, on one connection; knows no job.

What this end says goes by the scheduler to one worker, and is answered. What workers say comes as events, in order,
under a topic that is this connection's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from nbqueue.executors.dask.messages import OPERATION
from nbqueue.wire import decode, encode

__all__ = ["Post"]

_log = logging.getLogger("nbqueue.worker")

#: How long it may take to say farewell to the cluster.
_FAREWELL = 2.0


class Post:
    """One connection to a cluster, from its opening to its end; of one loop.

    Parameters
    ----------
    client : distributed.Client
        Connected, and nobody else's.
    """

    def __init__(self, client: Any):
        self.client = client
        #: Tells this connection from every other; as a topic it is one that Dask forgets some time after its end.
        self.name: str = client.id
        self.over = asyncio.Event()
        self._comm = client.scheduler_comm
        self._tasks: set[asyncio.Task[Any]] = set()
        self._topics: list[str] = []
        #: Workers that have gone, and what is being asked of the others.
        self._gone: set[str] = set()
        self._asking: defaultdict[str, set[asyncio.Future[Any]]] = defaultdict(set)

    @property
    def connected(self) -> bool:
        """Whether the connection is the one it was: one that was lost and found has forgotten everything."""
        return self.client.status == "running" and self.client.scheduler_comm is self._comm

    def listen(self, topic: str, take: Callable[[Any], None]) -> None:
        """Hear what is said under a topic."""
        self._topics.append(topic)
        self.client.subscribe_topic(topic, lambda event: take(event[1]))

    def listen_to_lanes(self, take: Callable[[Any], None]) -> None:
        """Hear what this connection's own lanes say."""
        # Dask itself has something to say under it, too.
        self.listen(self.name, lambda said: take(said) if "batch" in said else None)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something besides."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def call(self, address: str, *message: Any) -> Any:
        """Tell a worker something; gives which process has answered, "" for one that has no lanes, and what.

        That may take as long as C code of a job there keeps its process busy. It is None where none has answered.
        """
        msg = {"op": OPERATION, "session": self.name, "data": encode(message)}
        answer = await self._ask(
            address, partial(self.client.scheduler.broadcast, msg=msg, workers=[address], on_error="ignore")
        )
        return decode(answer) if isinstance(answer, bytes) else None

    def tell(self, address: str, *message: Any) -> None:
        """Tell a worker something, whatever it answers."""
        self.spawn(self.call(address, *message))

    async def run_at(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a worker that may have no lane; None where that fails."""
        return await self._ask(
            address, partial(self.client.run, function, *arguments, workers=[address], on_error="ignore")
        )

    async def _ask(self, address: str, ask: Callable[[], Awaitable[dict[str, Any]]]) -> Any:
        if not self.reaches(address):
            return None
        asking = self._asking[address]
        future = asyncio.ensure_future(ask())
        asking.add(future)
        try:
            return (await future).get(address)
        except (OSError, ValueError) as error:
            _log.debug("%s cannot be asked: %r", address, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.reaches(address) or (task is not None and task.cancelling()):
                raise
        finally:
            asking.discard(future)
        return None

    def reaches(self, address: str) -> bool:
        """Whether a worker is there, as far as the scheduler has said."""
        return address not in self._gone

    def lose(self, address: str) -> None:
        """Wait for no answer of a worker that has gone: the scheduler would try to reach it for half a minute."""
        self._gone.add(address)
        for future in self._asking.pop(address, ()):
            future.cancel()

    def regain(self, address: str) -> None:
        """Take note of a worker that has come, maybe at the address of another one."""
        self._gone.discard(address)

    async def cancel(self, future: Any) -> None:
        """Have Dask forget a task."""
        if self.connected:
            with contextlib.suppress(OSError, ValueError):
                await self.client.cancel([future])

    async def end(self, addresses: Iterable[str]) -> None:
        """Stop all that is under way, and let go of the connection."""
        self.over.set()
        for task in list(self._tasks):
            task.cancel()
        for leave in (partial(self._take_leave, addresses), partial(self.client.close, timeout=1.0)):
            try:
                async with asyncio.timeout(_FAREWELL):
                    await leave()
            except Exception as error:
                _log.debug("a connection to a Dask cluster did not close in order: %r", error)

    async def _take_leave(self, addresses: Iterable[str]) -> None:
        if self.connected:
            # Else the scheduler would tell this connection of its own end.
            for topic in self._topics:
                self.client.unsubscribe_topic(topic)
            await asyncio.gather(*(self.call(address, "close") for address in addresses))
