"""Does in SQS what was written down here: deletes, hides, sends anew; and keeps what is in hand hidden."""

from __future__ import annotations

import logging
import math
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbqueue.errors import InvalidCommand, NbqueueError
from nbqueue.stores.sqs.client import SqsTroubleError, Why
from nbqueue.stores.sqs.hand import HIDE_MAX, Deed, Hand, Held, Order
from nbqueue.stores.sqs.sending import BATCH, Letter, Post

__all__ = ["Settler"]

_log = logging.getLogger("nbqueue.store")

#: The longest pause between tries where SQS cannot be reached, seconds.
_PAUSE_MAX = 30.0
#: Its thread looks around this often.
_BEAT = 0.5
#: An order that SQS refuses is tried so often.
_TRIES = 5


class Settler:
    """Carries out orders, ten a request, again until SQS has heard them.

    Parameters
    ----------
    post : Post
        What SQS is asked through.
    hand : Hand
        What is to be kept hidden.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back.
    """

    def __init__(
        self,
        post: Post,
        hand: Hand,
        ticks: Callable[[], float],
    ):
        self._client, self._queues, self._sender = post.client, post.queues, post.sender
        self._visibility = post.address.visibility
        self._hand = hand
        self._ticks = ticks
        self._orders: deque[tuple[Order, int]] = deque()
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._working = threading.Lock()
        self._thread: threading.Thread | None = None
        #: Does what is due now and then; runs in our thread.
        self._chore: Callable[[], None] | None = None
        self._trouble = ""
        #: Messages that cannot be hidden any longer, and that was told.
        self._lost: set[str] = set()

    def take(self, orders: Iterable[Order]) -> None:
        """Be told what to do; it is done soon."""
        self._orders.extend((order, 0) for order in orders)
        self._news.set()

    def start(self, chore: Callable[[], None]) -> None:
        """Begin to work in the background."""
        self._chore = chore
        self._thread = threading.Thread(target=self._work, name="nbqueue-sqs-settler", daemon=True)
        self._thread.start()

    def stop(self, patience: float) -> int:
        """Do what is left, as far as it can be done in this time; gives how many orders are left."""
        self._stopping.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(patience)
        else:
            self.flush()
        return len(self._orders)

    def _work(self) -> None:
        pause = 0.0
        while True:
            if pause:
                self._stopping.wait(pause)
            else:
                self._news.wait(_BEAT)
            self._news.clear()
            try:
                self.renew()
                self.flush()
                if self._chore is not None and not self._stopping.is_set():
                    self._chore()
                pause = 0.0
                self._mend()
            except NbqueueError as error:
                pause = min(_PAUSE_MAX, max(0.5, pause * 2))
                self._complain(error)
            except Exception:  # noqa: BLE001 - whatever it is, it goes on
                # Without this thread nothing stays hidden.
                pause = _PAUSE_MAX
                _log.exception("what ended here could not be told to SQS, which is tried again")
            if self._stopping.is_set() and (pause or not self._orders):
                return

    def _complain(self, error: NbqueueError) -> None:
        if not self._trouble and not self._stopping.is_set():
            self._trouble = str(error)
            _log.warning("what ended here cannot be told to SQS for now, and is told later: %s", error)

    def _mend(self) -> None:
        if self._trouble:
            self._trouble = ""
            _log.warning("SQS can be told again what ended here")

    # -- orders

    def flush(self) -> None:
        """Carry out what there is to do.

        Raises
        ------
        SqsTroubleError
            Where SQS cannot be reached; the orders stay.
        """
        with self._working:
            while self._orders:
                batch = [self._orders.popleft() for _ in range(len(self._orders))]
                try:
                    self._carry_out(batch)
                finally:
                    # What could not be done; in front, as it came first.
                    self._orders.extendleft(reversed(batch))

    def _carry_out(self, batch: list[tuple[Order, int]]) -> None:
        """Carry these out, and take what is done from the list."""
        for chunk in _by_queue(batch, _is_sent):
            self._send(chunk)
            _strike(batch, chunk)
        for chunk in _by_queue(batch, lambda order: order.deed is Deed.HIDE):
            self._change(chunk, "change_message_visibility_batch", _hidden)
            _strike(batch, chunk)
        for chunk in _by_queue(batch, lambda order: order.deed is Deed.DELETE):
            self._change(chunk, "delete_message_batch", _deleted)
            _strike(batch, chunk)

    def _send(self, chunk: list[tuple[Order, int]]) -> None:
        pairs, letters = [], []
        for order, tries in chunk:
            try:
                letters.append(self._letter(order))
                pairs.append((order, tries))
            except InvalidCommand as error:
                _log.warning("a message of queue %s cannot be sent anew: %s", _queue_of(order), error)
        sent = self._sender.send(letters)
        if sent.error and not sent.sent:
            # To send one twice does no harm that SQS itself might not do.
            raise SqsTroubleError(sent.error, Why.OTHER)
        done = [order for (order, _), letter in zip(pairs, letters, strict=True) if letter in sent.sent]
        left = [pair for pair, letter in zip(pairs, letters, strict=True) if letter not in sent.sent]
        self._orders.extend((order._replace(deed=Deed.DELETE), 0) for order in done if order.held is not None)
        self._try_again(left, sent.error)

    def _letter(self, order: Order) -> Letter:
        assert order.draft is not None
        dead = order.deed is Deed.BURY
        edition = f"-{uuid.uuid4().hex[:8]}" if order.held is not None and self._hand.fifo else ""
        return self._sender.letter(order.draft, delay=order.seconds, dead=dead, edition=edition)

    def _change(
        self,
        chunk: list[tuple[Order, int]],
        verb: str,
        entry_of: Callable[[Order], dict[str, Any]],
    ) -> None:
        queue = _queue_of(chunk[0][0])
        entries = [{"Id": str(i), **entry_of(order)} for i, (order, _) in enumerate(chunk)]
        try:
            answer = self._client.call(verb, queue, QueueUrl=self._queues.place(queue).url, Entries=entries)
        except SqsTroubleError as error:
            if error.why is not Why.MISSING:
                raise
            # With its queue the message has gone.
            self._queues.lose(queue)
            return
        failed = {int(one["Id"]): one for one in answer.get("Failed", ())}
        # What SQS calls our fault is a message that has come out again, or has gone: nothing is left to do.
        left = [chunk[i] for i, one in failed.items() if not one.get("SenderFault")]
        said = next((f"{one.get('Code')}: {one.get('Message')}" for one in failed.values()), "")
        self._try_again(left, said)

    def _try_again(self, pairs: list[tuple[Order, int]], said: str) -> None:
        for order, tries in pairs:
            if tries + 1 >= _TRIES:
                _log.warning(
                    "SQS refused to %s a message of queue %s: %s", order.deed, _queue_of(order), said
                )
        self._orders.extend((order, tries + 1) for order, tries in pairs if tries + 1 < _TRIES)

    # -- keeping hidden

    def renew(self) -> None:
        """Hide what is in hand for longer, where a third of its time is over."""
        ticks = self._ticks()
        due = [held for held in self._hand.all() if held.until - ticks <= self._visibility * 2 / 3]
        pairs = [
            (Order(Deed.HIDE, held, seconds=self._visibility), 0)
            for held in due
            if self._may_hide(held, ticks)
        ]
        for chunk in _by_queue(pairs, lambda _order: True):
            self._change(chunk, "change_message_visibility_batch", _hidden)
            for order, _ in chunk:
                assert order.held is not None
                if self._hand.get(order.held.job_id) is order.held:
                    order.held.until = ticks + self._visibility

    def _may_hide(self, held: Held, ticks: float) -> bool:
        if ticks - held.since + self._visibility < HIDE_MAX:
            return True
        if held.message_id not in self._lost:
            self._lost.add(held.message_id)
            _log.warning(
                "job %s has run for 12 hours, and SQS hides no message for longer: it may be begun elsewhere too",
                held.job_id,
            )
        return False


def _is_sent(order: Order) -> bool:
    return order.deed in (Deed.SEND, Deed.REPLACE, Deed.BURY)


def _queue_of(order: Order) -> str:
    if order.held is not None:
        return order.held.queue
    assert order.draft is not None
    return order.draft.job.spec.queue


def _hidden(order: Order) -> dict[str, Any]:
    assert order.held is not None
    return {"ReceiptHandle": order.held.receipt, "VisibilityTimeout": math.ceil(order.seconds)}


def _deleted(order: Order) -> dict[str, Any]:
    assert order.held is not None
    return {"ReceiptHandle": order.held.receipt}


def _by_queue(
    pairs: Sequence[tuple[Order, int]], fits: Callable[[Order], bool]
) -> list[list[tuple[Order, int]]]:
    """Give those that fit in lists of ten for one queue each."""
    groups: dict[str, list[tuple[Order, int]]] = {}
    for pair in pairs:
        if fits(pair[0]):
            groups.setdefault(_queue_of(pair[0]), []).append(pair)
    return [group[at : at + BATCH] for group in groups.values() for at in range(0, len(group), BATCH)]


def _strike(batch: list[tuple[Order, int]], done: list[tuple[Order, int]]) -> None:
    gone = {id(pair) for pair in done}
    batch[:] = [pair for pair in batch if id(pair) not in gone]
