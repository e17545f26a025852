"""What lanes say, on its way to the scheduler and from there to whoever listens; in order, and in batches.

The scheduler acknowledges each batch. What was acknowledged outlives the Dask worker that said it, so a lane that waits
for that before it begins its next job leaves no doubt which job a dead worker was running.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import deque
from typing import Any

from nbqueue.wire import encode

__all__ = ["Mark", "Outbox"]

_log = logging.getLogger("nbqueue.worker")

#: How often a batch is sent, if the scheduler does not answer, and the first pause in between, seconds.
_TRIES = 8
_PAUSE = 0.05
#: The scheduler keeps the last thousand messages of a topic; what is longer is fetched from the worker itself.
_LONG = 16_384


class Mark(threading.Event):
    """Set when a message has arrived, or never will."""

    arrived = False


class Outbox:
    """Sends what the lanes of one session on one Dask worker say.

    Parameters
    ----------
    worker : distributed.Worker
        By whose connection.
    topic : str
        Under which.
    name : str
        Tells this process from one that had the same address.
    """

    def __init__(self, worker: Any, topic: str, name: str):
        self._worker = worker
        self._topic = topic
        self._name = name
        self._lock = threading.Lock()
        self._waiting: deque[tuple[bytes, Mark]] = deque()
        self._sending = False
        self._batches = itertools.count(1)
        self._numbers = itertools.count(1)
        self._kept: dict[int, bytes] = {}

    def put(self, *message: Any) -> Mark:
        """Send something, from any thread; gives what is set when it has arrived."""
        data, mark = encode(message), Mark()
        with self._lock:
            if len(data) > _LONG:
                number = next(self._numbers)
                self._kept[number] = data
                data = encode(("kept", number))
            self._waiting.append((data, mark))
            if self._sending:
                return mark
            self._sending = True
        self._worker.loop.add_callback(self._send)
        return mark

    def fetch(self, number: int) -> bytes | None:
        """Give a long message, as often as it is asked for."""
        return self._kept.get(number)

    def drop(self, number: int) -> None:
        """Forget a long message: it has arrived."""
        self._kept.pop(number, None)

    async def _send(self) -> None:
        while True:
            with self._lock:
                batch = list(self._waiting)
                self._waiting.clear()
                if not batch:
                    self._sending = False
                    return
            arrived = await self._tell([data for data, _ in batch])
            for _, mark in batch:
                mark.arrived = arrived
                mark.set()

    async def _tell(self, said: list[bytes]) -> bool:
        """Tell the scheduler; whether it has heard."""
        # By its number the other end knows one that comes twice, since only the answer was lost.
        message = {
            "from": self._worker.address,
            "name": self._name,
            "batch": next(self._batches),
            "said": said,
        }
        for failures in range(_TRIES):
            try:
                await self._worker.scheduler.log_event(topic=self._topic, msg=message)
            except Exception as error:
                _log.info("the scheduler of %s cannot be told: %s", self._worker.address, error)
                if self._worker.status.name != "running":
                    break
                await asyncio.sleep(_PAUSE * 2**failures)
            else:
                return True
        return False
