"""Does in SQS what was written down here: deletes, hides, sends anew; and keeps what is in hand hidden."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbqueue.errors import InvalidCommand, NbqueueError
from nbqueue.stores.sqs.client import SqsTroubleError, Why
from nbqueue.stores.sqs.hand import HIDE_MAX, Deed, Hand, Held, Order
from nbqueue.stores.sqs.orders import (
    Pair,
    by_queue,
    deleted_entry,
    drop_overtaken,
    hidden_entry,
    is_deleted,
    is_gone,
    is_hidden,
    is_sent,
    put_in_place,
    queue_of,
)
from nbqueue.stores.sqs.sending import Letter, Post

__all__ = ["Settler"]

_log = logging.getLogger("nbqueue.store")

#: The longest pause between tries where SQS cannot be reached, in parts of the time for which a message is hidden:
#: what runs has to be hidden anew in time.
_PAUSES = 6
#: Its thread looks around this often.
_BEAT = 0.5
#: An order that SQS refuses is tried so often.
_TRIES = 20

_Left = tuple[list[Pair], SqsTroubleError | None]


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
        self._pause_max = min(30.0, self._visibility / _PAUSES)
        self._orders: deque[Pair] = deque()
        #: Those that are being carried out.
        self._batch: list[Pair] = []
        #: What is in hand is looked at then.
        self._look_at = 0.0
        self._chore_at = 0.0
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
                self._go_round()
                pause = 0.0
                self._mend()
            except NbqueueError as error:
                pause = min(self._pause_max, max(0.5, pause * 2))
                self._complain(error)
            except Exception:  # noqa: BLE001 - whatever it is, it goes on
                # Without this thread nothing stays hidden.
                pause = self._pause_max
                _log.exception("what ended here could not be told to SQS, which is tried again")
            if self._stopping.is_set() and (pause or not self._orders):
                return

    def _go_round(self) -> None:
        trouble = None
        for part in (self.renew, self.flush, self._do_chore):
            try:
                part()
            except SqsTroubleError as error:
                trouble = trouble or error
                if not error.why.of_one_queue:
                    break
        if trouble is not None:
            raise trouble

    def _do_chore(self) -> None:
        ticks = self._ticks()
        if self._chore is not None and not self._stopping.is_set() and ticks >= self._chore_at:
            self._chore_at = ticks + _BEAT
            self._chore()

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
        """Carry out what there is to do, and keep hidden what is in hand meanwhile.

        Raises
        ------
        SqsTroubleError
            Where SQS cannot be reached, or refuses something; what could not be done stays.
        """
        with self._working:
            trouble = None
            while self._orders and trouble is None:
                self._batch = [self._orders.popleft() for _ in range(len(self._orders))]
                try:
                    trouble = self._carry_out(self._batch)
                finally:
                    # What could not be done; in front, as it came first.
                    self._orders.extendleft(reversed(self._batch))
                    self._batch = []
        if trouble is not None:
            raise trouble

    def _carry_out(self, batch: list[Pair]) -> SqsTroubleError | None:
        """Carry these out, and take what is done from the list; gives what kept the others from it."""
        trouble = None
        drop_overtaken(batch)
        for fits, carry in ((is_sent, self._send), (is_hidden, self._hide), (is_deleted, self._delete)):
            for chunk in by_queue(batch, fits):
                self._renew()
                try:
                    left, error = carry(chunk)
                except SqsTroubleError as found:
                    if not found.why.of_one_queue:
                        raise
                    # One queue that says no keeps no other waiting.
                    left, error = chunk, found
                else:
                    left = _once_more(left, error)
                put_in_place(batch, chunk, left)
                trouble = trouble or error
        return trouble

    def _send(self, chunk: list[Pair]) -> _Left:
        pairs, letters = [], []
        for pair in chunk:
            try:
                letters.append(self._letter(pair[0]))
                pairs.append(pair)
            except InvalidCommand as error:
                self._cannot_send(pair[0], error)
        sent = self._sender.send(letters)
        # To send one twice, of which nobody knows whether it is there, does no harm that SQS itself might not do.
        there = set(sent.sent)
        for (order, _), letter in zip(pairs, letters, strict=True):
            if letter in there and order.held is not None:
                self._orders.append((order._replace(deed=Deed.DELETE), 0))
        left = [pair for pair, letter in zip(pairs, letters, strict=True) if letter not in there]
        if not left:
            return [], None
        trouble = SqsTroubleError(sent.error, sent.why)
        if not sent.sent and sent.why is not Why.OTHER:
            # It is the queue, and not the message: that may be mended at any time.
            raise trouble
        return left, trouble

    def _letter(self, order: Order) -> Letter:
        assert order.draft is not None
        dead = order.deed is Deed.BURY
        edition = f"-{uuid.uuid4().hex[:8]}" if order.held is not None and self._hand.fifo else ""
        return self._sender.letter(order.draft, delay=order.seconds, dead=dead, edition=edition)

    def _cannot_send(self, order: Order, error: InvalidCommand) -> None:
        queue = queue_of(order)
        if order.deed is Deed.BURY:
            # It has failed for good: if it came back somebody would run it again.
            self._orders.append((order._replace(deed=Deed.DELETE), 0))
            _log.warning("a job that failed does not fit into the dead letters of queue %s: %s", queue, error)
        else:
            _log.warning("a message of queue %s cannot be sent anew: %s", queue, error)

    def _hide(self, chunk: list[Pair]) -> _Left:
        left, _, error = self._change(chunk, "change_message_visibility_batch", hidden_entry)
        return left, error

    def _delete(self, chunk: list[Pair]) -> _Left:
        left, _, error = self._change(chunk, "delete_message_batch", deleted_entry)
        return left, error

    def _change(
        self, chunk: list[Pair], verb: str, entry_of: Callable[[Order], dict[str, Any]]
    ) -> tuple[list[Pair], list[Pair], SqsTroubleError | None]:
        """Ask for one change; gives those that SQS refused, those whose messages have gone, and what it said."""
        queue = queue_of(chunk[0][0])
        entries = [{"Id": str(i), **entry_of(order)} for i, (order, _) in enumerate(chunk)]
        try:
            answer = self._client.call(verb, queue, QueueUrl=self._queues.place(queue).url, Entries=entries)
        except SqsTroubleError as error:
            if error.why is not Why.MISSING:
                raise
            # With its queue the message has gone.
            self._queues.lose(queue)
            return [], chunk, None
        failed = {int(one["Id"]): one for one in answer.get("Failed", ())}
        gone = [chunk[i] for i, one in failed.items() if is_gone(one)]
        left = [(chunk[i], one) for i, one in failed.items() if not is_gone(one)]
        if not left:
            return [], gone, None
        first = left[0][1]
        said = (
            f"SQS refused to change a message of queue {queue} ({first.get('Code')}: {first.get('Message')})"
        )
        return [pair for pair, _ in left], gone, SqsTroubleError(said, Why.OTHER)

    # -- keeping hidden

    def renew(self) -> None:
        """Hide what is in hand for longer, where a third of its time is over.

        Raises
        ------
        SqsTroubleError
            Where SQS cannot be reached, or refuses it.
        """
        with self._working:
            trouble = self._renew()
        if trouble is not None:
            raise trouble

    def _renew(self) -> SqsTroubleError | None:
        ticks = self._ticks()
        if ticks < self._look_at:
            return None
        self._look_at = ticks + min(1.0, self._visibility / 12)
        due = [held for held in self._kept() if held.until - ticks <= self._visibility * 2 / 3]
        pairs = [
            (Order(Deed.HIDE, held, seconds=self._visibility), 0)
            for held in due
            if self._may_hide(held, ticks)
        ]
        trouble = None
        for chunk in by_queue(pairs, is_hidden):
            try:
                left, gone, error = self._change(chunk, "change_message_visibility_batch", hidden_entry)
            except SqsTroubleError as found:
                if not found.why.of_one_queue:
                    raise
                left, gone, error = chunk, [], found
            trouble = trouble or error
            self._note_hidden(chunk, left, gone, ticks)
        return trouble

    def _kept(self) -> list[Held]:
        """What nobody else is to get: what is in hand, and what is over and not yet deleted."""
        orders = [order for order, _ in (*self._batch, *self._orders.copy())]
        return self._hand.kept() + [
            order.held for order in orders if order.held is not None and not is_hidden(order)
        ]

    def _note_hidden(
        self, chunk: Sequence[Pair], left: Sequence[Pair], gone: Sequence[Pair], ticks: float
    ) -> None:
        for pair in chunk:
            held = pair[0].held
            assert held is not None
            held.check(ticks)
            if pair in gone:
                held.lapse()
            if pair not in left:
                self._hand.extend(held, ticks + self._visibility)

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


def _once_more(pairs: list[Pair], error: SqsTroubleError | None) -> list[Pair]:
    for order, tries in pairs:
        if tries + 1 >= _TRIES:
            _log.warning("gave up to %s a message of queue %s: %s", order.deed, queue_of(order), error)
    return [(order, tries + 1) for order, tries in pairs if tries + 1 < _TRIES]
