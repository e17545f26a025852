"""The messages that this process has in hand, and those that it has put away for a while; asks nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from nbqueue.stores.sqs.message import Draft

__all__ = ["HIDE_MAX", "Deed", "Hand", "Held", "Order"]

_log = logging.getLogger("nbqueue.store")

#: SQS hides a message for so long in all, counted from when it was received, seconds.
HIDE_MAX = 43_200
#: What was put away is remembered so long after it has come out again.
_REMEMBERED = 60.0


@dataclass(slots=True)
class Held:
    """A message that was received."""

    queue: str
    #: What SQS wants to be shown; another each time it is received.
    receipt: str
    message_id: str
    #: How often SQS has handed it out, to anybody.
    receives: int
    draft: Draft
    #: By the clock of leases: when it was received, and until when nobody else gets it.
    since: float
    until: float
    #: Since when nobody here runs it.
    idle: float
    #: Its job, in the ledger.
    number: int = 0
    #: It was not kept hidden, or is not ours any more: somebody else may have it.
    lapsed: bool = False

    @property
    def job_id(self) -> UUID:
        """Whose it is."""
        return self.draft.job.job_id

    def check(self, ticks: float) -> bool:
        """Whether it may be somebody else's by now, which is said once."""
        if self.until < ticks:
            self.lapse()
        return self.lapsed

    def lapse(self) -> None:
        """Note that somebody else may have it."""
        if not self.lapsed:
            self.lapsed = True
            _log.warning(
                "the message of job %s was not kept hidden (this process stood still, or SQS could not be reached):"
                " another process may run it too",
                self.job_id,
            )

    def hideable(self, ticks: float) -> float:
        """How long SQS would still hide it, seconds; a little less, as clocks and requests take their time."""
        return max(0.0, HIDE_MAX - (ticks - self.since) - 300.0)


class Deed(StrEnum):
    """What is to be done about a message."""

    DELETE = "delete"
    HIDE = "hide"
    #: Sent anew, as the draft has it, then deleted.
    REPLACE = "replace"
    #: Sent to the queue for what has failed, then deleted.
    BURY = "bury"
    #: Sent for the first time.
    SEND = "send"


class Order(NamedTuple):
    """Something to be done in SQS, after it was written down here."""

    deed: Deed
    held: Held | None = None
    draft: Draft | None = None
    #: To hide it, or to hold it back.
    seconds: float = 0.0


class Hand:
    """What is in hand; the writer of the ledger changes it, any thread may look.

    Parameters
    ----------
    fifo : bool
        The queues keep an order, and hold nothing back.
    """

    def __init__(self, *, fifo: bool = False) -> None:
        self.fifo = fifo
        self._lock = threading.Lock()
        self._held: dict[UUID, Held] = {}
        self._hidden: dict[UUID, Held] = {}
        #: What came for a job that is still being dispatched here.
        self._parked: dict[UUID, list[Held]] = {}
        #: The numbers of the jobs whose messages are here: nothing else may be claimed.
        self.numbers: set[int] = set()
        #: Jobs that were handed to a worker of this process directly, and were never sent.
        self.alone: set[UUID] = set()

    def take(self, held: Held) -> None:
        """Have a message in hand; its number is set."""
        with self._lock:
            self._hidden.pop(held.job_id, None)
            self._held[held.job_id] = held
            self.numbers.add(held.number)

    def get(self, job_id: UUID) -> Held | None:
        """Give the message of a job, if it is in hand."""
        return self._held.get(job_id)

    def let_go(self, job_id: UUID) -> None:
        """Have it in hand no more."""
        with self._lock:
            held = self._held.pop(job_id, None)
            if held is not None:
                self.numbers.discard(held.number)

    def put_away(self, held: Held, until: float) -> None:
        """Have it in hand no more, and remember that nobody gets it until then."""
        self.let_go(held.job_id)
        held.until = until
        with self._lock:
            self._hidden[held.job_id] = held

    def hidden(self, job_id: UUID) -> Held | None:
        """Give what was put away; it may have come out again."""
        return self._hidden.get(job_id)

    def forget_hidden(self, job_id: UUID) -> None:
        """Strike it off."""
        with self._lock:
            self._hidden.pop(job_id, None)

    def sweep(self, ticks: float) -> None:
        """Forget what came out again a while ago."""
        with self._lock:
            over = [i for i, held in self._hidden.items() if held.until + _REMEMBERED < ticks]
            for job_id in over:
                del self._hidden[job_id]

    def all(self) -> list[Held]:
        """Give what is in hand."""
        with self._lock:
            return list(self._held.values())

    def kept(self) -> list[Held]:
        """Give what has to be kept hidden: what is in hand, and what is parked."""
        with self._lock:
            parked = [held for some in self._parked.values() for held in some]
            return [*self._held.values(), *parked]

    def extend(self, held: Held, until: float) -> None:
        """Note that nobody else gets it until then; what was put away meanwhile has a time of its own."""
        with self._lock:
            if held.job_id not in self._hidden:
                held.until = until

    # -- what comes while it is dispatched

    def park(self, held: Held) -> None:
        """Keep a message until its dispatch is over."""
        with self._lock:
            self._parked.setdefault(held.job_id, []).append(held)

    def unpark(self, ids: Collection[UUID]) -> list[Held]:
        """Give what was parked of these jobs, no longer parked."""
        with self._lock:
            return [held for job_id in ids if job_id in self._parked for held in self._parked.pop(job_id)]

    def parked(self, queue: str) -> int:
        """How many messages of a queue are parked."""
        with self._lock:
            return sum(held.queue == queue for some in self._parked.values() for held in some)
