"""A lane as the process that has the queue knows it: where it runs, and what it was given."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from nbqueue.executors.dask.marks import Place

if TYPE_CHECKING:
    from nbqueue.jobs import Claim

__all__ = ["Lane"]


class Lane:
    """A Dask task that runs jobs, as this end has it."""

    __slots__ = (
        *("address", "future", "giving", "identity", "loads", "marks", "number"),
        *("place", "since", "skew", "stuck", "turn"),
    )

    def __init__(self, number: int, place: int, future: Any):
        self.number = number
        #: The smallest number that no other lane has.
        self.place = place
        self.future = future
        #: Where it runs, and in which process; "" until it has said so.
        self.address = self.identity = ""
        #: Where that process notes what it has begun.
        self.marks = Place()
        #: How far its clock is behind this one, seconds.
        self.skew = 0.0
        #: What it was given and has not ended; the first has begun.
        self.loads: deque[Claim] = deque()
        #: How often it was given something, and since when it runs the first, or waits for a thread of the cluster.
        self.turn = 0
        self.since = time.monotonic()
        self.giving: asyncio.Task[None] | None = None
        #: Its job cannot be stopped; it goes when that ends.
        self.stuck = False

    @property
    def idle(self) -> bool:
        """Whether it waits for something to run."""
        return bool(self.address) and not self.loads and not self.stuck
