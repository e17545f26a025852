"""The way to the workers of a cluster and back, on one connection; knows no job.

What this end says goes by the scheduler to one worker, and is answered. What workers say comes as events, in order,
under a topic that is this connection's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from nbqueue.executors.dask.messages import OPERATION, topic_of
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
        #: Tells this connection from every other.
        self.name = uuid.uuid4().hex
        self.over = asyncio.Event()
        self._comm = client.scheduler_comm
        self._tasks: set[asyncio.Task[Any]] = set()
        self._topics: list[str] = []

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
        self.listen(topic_of(self.name), take)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something besides."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def call(self, address: str, *message: Any) -> Any:
        """Tell a worker something; gives which process has answered, and what; None where none has.

        That may take as long as C code of a job there keeps its process busy. It fails when the worker goes.
        """
        data = encode(message)
        try:
            found = await self.client.scheduler.broadcast(
                msg={"op": OPERATION, "session": self.name, "data": data},
                workers=[address],
                on_error="ignore",
            )
        except (OSError, ValueError) as error:
            _log.debug("%s cannot be told: %r", address, error)
            return None
        answer = found.get(address)
        return decode(answer) if isinstance(answer, bytes) else None

    def tell(self, address: str, *message: Any) -> None:
        """Tell a worker something, whatever it answers."""
        self.spawn(self.call(address, *message))

    async def run_at(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a worker that may have no lane; None where that fails."""
        try:
            found = await self.client.run(function, *arguments, workers=[address], on_error="ignore")
        except (OSError, ValueError) as error:
            _log.debug("%s cannot be asked: %r", address, error)
            return None
        return found.get(address)

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
        try:
            async with asyncio.timeout(_FAREWELL):
                if self.connected:
                    # Else the scheduler would tell this connection of its own end.
                    for topic in self._topics:
                        self.client.unsubscribe_topic(topic)
                    await asyncio.gather(*(self.call(address, "close") for address in addresses))
                await self.client.close(timeout=1.0)
        except Exception as error:
            _log.debug("a connection to a Dask cluster did not close in order: %r", error)
