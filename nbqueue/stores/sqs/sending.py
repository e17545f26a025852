"""Sends messages ten at a time, and tells exactly which of them SQS has; knows no ledger."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from nbqueue.errors import DispatchFailed, InvalidCommand
from nbqueue.stores.sqs import message
from nbqueue.stores.sqs.address import Address
from nbqueue.stores.sqs.client import Client, SqsTroubleError, Why
from nbqueue.stores.sqs.message import Draft
from nbqueue.stores.sqs.queues import Place, Queues

__all__ = ["BATCH", "DELAY_MAX", "Letter", "PartlySentError", "Post", "Sender", "Sent", "in_batches"]

_log = logging.getLogger("nbqueue.store")

T = TypeVar("T")

#: So many messages go by one request.
BATCH = 10
#: The longest that SQS holds a message back, seconds.
DELAY_MAX = 900
#: So many requests of one call are on their way at a time.
_AT_A_TIME = 8
#: An entry that SQS refused for no fault of ours is sent so often in all.
_TRIES = 3


class PartlySentError(DispatchFailed):
    """Some jobs of a call are in SQS, and others are not; these say which."""

    def __init__(self, text: str, sent: Sequence[UUID], unsent: Sequence[UUID], unsure: Sequence[UUID]):
        super().__init__(text)
        self.sent = tuple(sent)
        self.unsent = tuple(unsent)
        #: Nobody answered: these may be there, or not.
        self.unsure = tuple(unsure)


class Letter(NamedTuple):
    """A message on its way."""

    job_id: UUID
    queue: str
    text: str
    #: Seconds.
    delay: int = 0
    #: To the queue for what has failed.
    dead: bool = False
    #: What tells it from an earlier message of the same job, where SQS looks for doubles.
    edition: str = ""


class Sent(NamedTuple):
    """What became of some letters."""

    sent: tuple[Letter, ...] = ()
    unsent: tuple[Letter, ...] = ()
    unsure: tuple[Letter, ...] = ()
    #: Of the first that was not sent.
    error: str = ""
    why: Why = Why.OTHER


class _Sending:
    """One call's batches, and what has become of them; several threads work on it."""

    def __init__(self, batches: Iterator[tuple[Place, list[Letter]]]):
        self._batches = batches
        self._lock = threading.Lock()
        self._stopped = False
        #: Letters by identity: two may be equal.
        self.sent: set[int] = set()
        self.unsure: set[int] = set()
        self.trouble: tuple[str, Why] = ("", Why.OTHER)

    def next(self) -> tuple[Place, list[Letter]] | None:
        """Give what to send next; None where all is sent, or something failed."""
        with self._lock:
            if self._stopped:
                return None
            try:
                return next(self._batches, None)
            except SqsTroubleError as error:
                # The next queue is not to be had.
                self._note(error)
                return None

    def succeed(self, batch: Sequence[Letter], missed: Sequence[Letter], error: str) -> None:
        """Note what SQS took of a batch."""
        with self._lock:
            self.sent.update({id(one) for one in batch} - {id(one) for one in missed})
            if missed:
                self._note(SqsTroubleError(error, Why.OTHER))

    def fail(self, error: SqsTroubleError, unsure: Sequence[Letter]) -> None:
        """Note that a request failed."""
        with self._lock:
            self.unsure.update(id(one) for one in unsure)
            self._note(error)

    def stop(self) -> None:
        """Let no more be begun."""
        self._stopped = True

    def _note(self, error: SqsTroubleError) -> None:
        self._stopped = True
        if not self.trouble[0]:
            self.trouble = (str(error), error.why)


class Sender:
    """Sends to the queues of one address; any thread may.

    Parameters
    ----------
    address : Address
        Of the queues.
    client : Client
        Is called.
    queues : Queues
        Where they are.
    """

    def __init__(self, address: Address, client: Client, queues: Queues):
        self._address = address
        self._client = client
        self._queues = queues
        #: Code that was too large to travel, and that was told.
        self._left: set[str] = set()

    def letter(
        self, draft: Draft, *, delay: float = 0.0, dead: bool = False, edition: str = "", spare: int = 0
    ) -> Letter:
        """Write a draft down, as SQS takes it; ``spare`` bytes are left for what it says when it is sent anew.

        Raises
        ------
        InvalidCommand
            Where it is too large, with the sizes.
        SqsTroubleError
            Where its queue is missing or cannot be asked for.
        """
        job = draft.job
        place = self._queues.place(job.spec.queue, dead=dead)
        room = place.most - spare
        text = message.write(draft)
        if len(text) > room and draft.dead:
            draft = draft._replace(dead="")
            text = message.write(draft)
        if len(text) > room and draft.code:
            text = message.write(draft, with_code=False)
            self._tell_of_code(draft, place)
        if len(text) > room:
            size, most = f"{len(text) + spare:,} bytes", f"{place.most:,}"
            raise InvalidCommand(
                f"{job.spec.command}: as a message this job takes {size}, of which its arguments are"
                f' {len(job.payload):,}; SQS queue "{job.spec.queue}" takes {most}: put what is large into a file or a'
                " bucket, and dispatch its name"
            )
        held = 0 if self._address.fifo else min(DELAY_MAX, max(0, -int(-delay // 1)))
        return Letter(job.job_id, job.spec.queue, text, held, dead, edition)

    def _tell_of_code(self, draft: Draft, place: Place) -> None:
        spec = draft.job.spec
        if spec.code not in self._left:
            self._left.add(spec.code)
            _log.warning(
                "the code of %s takes %s bytes and does not fit into a message of %s: only workers that have it run it",
                spec.command,
                f"{len(draft.code or b''):,}",
                f"{place.most:,}",
            )

    def send(self, letters: Sequence[Letter]) -> Sent:
        """Send all that can be sent, some requests at a time; after one that failed no other is begun."""
        sending = _Sending(iter(self._batches(letters)))
        # An order is kept by who sends one after the other.
        many = 1 if self._address.fifo else min(_AT_A_TIME, -(-len(letters) // BATCH))
        if many > 1:
            with ThreadPoolExecutor(many, "nbqueue-sqs-sender") as pool:
                try:
                    for one in [pool.submit(self._send_on, sending) for _ in range(many)]:
                        one.result()
                finally:
                    sending.stop()
        else:
            self._send_on(sending)
        there, unsure = sending.sent, sending.unsure
        return Sent(
            tuple(one for one in letters if id(one) in there),
            tuple(one for one in letters if id(one) not in there and id(one) not in unsure),
            tuple(one for one in letters if id(one) in unsure),
            *sending.trouble,
        )

    def _send_on(self, sending: _Sending) -> None:
        while (found := sending.next()) is not None:
            place, batch = found
            try:
                missed, error = self._send(place, batch)
            except SqsTroubleError as trouble:
                if trouble.why is Why.MISSING:
                    self._queues.lose(batch[0].queue)
                sending.fail(trouble, batch if trouble.maybe else ())
                return
            sending.succeed(batch, missed, error)

    def _batches(self, letters: Iterable[Letter]) -> Iterator[tuple[Place, list[Letter]]]:
        by_queue: dict[tuple[str, bool], list[Letter]] = {}
        for one in letters:
            by_queue.setdefault((one.queue, one.dead), []).append(one)
        for (queue, dead), ours in by_queue.items():
            place = self._queues.place(queue, dead=dead)
            for batch in in_batches(ours, place.most_together, lambda one: len(one.text)):
                yield place, batch

    def _send(self, place: Place, batch: list[Letter]) -> tuple[list[Letter], str]:
        """Send a batch; gives those that SQS did not take, and why."""
        error = ""
        for _ in range(_TRIES):
            entries = [self._entry(i, one) for i, one in enumerate(batch)]
            answer = self._client.call(
                "send_message_batch", batch[0].queue, QueueUrl=place.url, Entries=entries
            )
            failed = {int(one["Id"]): one for one in answer.get("Failed", ())}
            if not failed:
                return [], ""
            batch = [one for i, one in enumerate(batch) if i in failed]
            said = next(iter(failed.values()))
            error = f"SQS did not take it ({said.get('Code')}: {said.get('Message')})"
            if any(one.get("SenderFault") for one in failed.values()):
                break
        return batch, error

    def _entry(self, number: int, letter: Letter) -> dict[str, Any]:
        entry: dict[str, Any] = {"Id": str(number), "MessageBody": letter.text}
        if letter.delay:
            entry["DelaySeconds"] = letter.delay
        if self._address.fifo:
            # One group a queue: whoever wants an order wants this one.
            entry["MessageGroupId"] = self._address.queue_name(letter.queue)
            entry["MessageDeduplicationId"] = f"{letter.job_id}{letter.edition}"
        return entry


class Post(NamedTuple):
    """What SQS is asked through."""

    address: Address
    client: Client
    queues: Queues
    sender: Sender


def in_batches(items: Iterable[T], most: int, size: Callable[[T], int]) -> Iterator[list[T]]:
    """Give items in lists of ten that are no larger together than this."""
    batch: list[T] = []
    weight = 0
    for item in items:
        own = size(item)
        if batch and (len(batch) == BATCH or weight + own > most):
            yield batch
            batch, weight = [], 0
        batch.append(item)
        weight += own
    if batch:
        yield batch
