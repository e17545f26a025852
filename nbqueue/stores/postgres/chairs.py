"""The workers of this process, and what each was given: what the server cannot know when an answer was lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from nbqueue.jobs import Spec
from nbqueue.stores.live import Seat

__all__ = ["Chair", "Chairs"]


class Chair:
    """A worker of this process; one verb at a time is about it."""

    __slots__ = ("doubt", "lock", "seat", "unknown")

    def __init__(self, seat: Seat):
        #: What is kept: a verb works on a copy, which takes its place when it is.
        self.seat = seat
        self.lock = threading.RLock()
        #: A verb ended nobody knows how: the server may have given it claims that it does not have.
        self.doubt = False
        #: What it could not run when it last looked for work.
        self.unknown: Sequence[Spec] = ()

    @property
    def room(self) -> int:
        """How many more jobs it would take, as of its last turn."""
        return self.seat.slots - len(self.seat.claims)

    def copy(self) -> Seat:
        """Give its seat to work on."""
        seat = self.seat
        copy = Seat(seat.info, seat.number, seat.handlers, seat.wake, 0.0)
        copy.slots = seat.slots
        copy.claims = dict(seat.claims)
        copy.gone, copy.doubtful = set(seat.gone), set(seat.doubtful)
        return copy

    def take(self, seat: Seat) -> None:
        """Let this be its seat: that is kept now."""
        self.seat = seat

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have it to oneself; where that ends with an error, nobody knows what it was given."""
        with self.lock:
            try:
                yield
            except BaseException:
                self.doubt = True
                raise


class Chairs:
    """All of them, by the ids of their workers."""

    def __init__(self) -> None:
        self._chairs: dict[str, Chair] = {}
        self._lock = threading.Lock()

    def get(self, worker_id: str) -> Chair | None:
        """Give a worker's, if it is here."""
        return self._chairs.get(worker_id)

    def put(self, seat: Seat) -> Chair:
        """Seat a worker."""
        with self._lock:
            chair = self._chairs[seat.info.worker_id] = Chair(seat)
        return chair

    def drop(self, worker_id: str) -> Chair | None:
        """Unseat a worker."""
        with self._lock:
            return self._chairs.pop(worker_id, None)

    def all(self) -> list[Chair]:
        """Give all, in the order in which they came."""
        with self._lock:
            return list(self._chairs.values())

    @contextlib.contextmanager
    def idle(self) -> Iterator[tuple[list[Chair], list[Chair]]]:
        """Give those that would take more, for as long as nobody else has them; and those that somebody has."""
        with contextlib.ExitStack() as stack:
            mine, busy = [], []
            for chair in self.all():
                if not chair.lock.acquire(blocking=False):
                    busy.append(chair)
                    continue
                stack.callback(chair.lock.release)
                if chair.room > 0:
                    mine.append(chair)
            yield mine, busy
