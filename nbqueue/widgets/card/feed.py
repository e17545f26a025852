"""Keeps all cards of a queue up to date by one look at all of their jobs, as long as there are cards."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from nbqueue.errors import NbqueueError, QueueUnavailable
from nbqueue.facade.estimating import Estimate
from nbqueue.facade.watching.glancing import Glance, glance, retried
from nbqueue.widgets.card.state import job_state
from nbqueue.widgets.card.subjects import Job, Rows
from nbqueue.widgets.publisher import RETRY, publisher

if TYPE_CHECKING:
    from nbqueue.facade.manager import QueueManager
    from nbqueue.widgets.card.card import Card

__all__ = ["Feed", "feed_of"]

_log = logging.getLogger("nbqueue.widgets")

#: How long an estimate is good for, seconds.
_ESTIMATE_FOR = 30.0
#: Why a job waits is asked for so many at a time.
_WHYS = 20


class Feed:
    """Keeps all cards of one queue up to date.

    A card whose job has ended is looked at again when some job was let run again: it may be this one, from elsewhere.

    Parameters
    ----------
    queues : QueueManager
        Where the jobs are.
    """

    def __init__(self, queues: QueueManager) -> None:
        self.queues = queues
        self.now = time.time
        self._lock = threading.Lock()
        self._cards: list[weakref.ref[Card]] = []
        #: The number of the last event that ended cards know of.
        self._seen = 0
        self._estimates: dict[str, tuple[float, Estimate | None]] = {}
        #: Whether the queue did not answer when it was looked at last.
        self.troubled = False
        me = weakref.ref(self)

        def look() -> None:
            if (feed := me()) is not None:
                publisher.look(feed)

        def lose() -> None:
            feed = me()
            if feed is not None:
                feed.lose()

        queues.before_close(look)
        queues.on_close(lose)

    @property
    def closed(self) -> bool:
        """Whether there is nothing to look at any more."""
        return self.queues.closed or not self._present()

    def add(self, card: Card) -> None:
        """Keep a card up to date from now on, beginning with a look at it soon."""
        card.over = False
        with self._lock:
            if not any(ref() is card for ref in self._cards):
                self._cards.append(weakref.ref(card))
        try:
            publisher.add(self, self.queues.on_change)
        except QueueUnavailable:
            card.lose()
        publisher.changed(self)

    def lose(self) -> None:
        """Tell the cards that the queue was closed."""
        for card in self._present():
            card.lose()

    def refresh(self) -> float | None:
        """Bring every card up to date about which there may be something new."""
        cards = self._present()
        self.troubled = False
        try:
            if any(card.over for card in cards):
                self._seen, again = retried(self.queues, self._seen)
                cards = [card for card in cards if again or not card.over]
            self._refresh(cards)
        except QueueUnavailable as error:
            if self.queues.comes_back:
                self.troubled = True
                for card in cards:
                    if not card.over:
                        card.worry(f"{error}; it is looked at again soon")
                return RETRY
            self.lose()
        return None

    def _refresh(self, cards: list[Card]) -> None:
        seen = glance(self.queues, [card.subject.job_id for card in cards if isinstance(card.subject, Job)])
        whys = _WHYS
        for card in cards:
            try:
                whys -= self._show(card, seen, ask_why=whys > 0)
            except QueueUnavailable:
                raise
            except NbqueueError as error:
                # Forgotten, say, since it was looked at: the next look tells.
                _log.debug("the card of %s was not brought up to date: %s", card.subject.text, error)
            except Exception:  # noqa: BLE001 - whatever it is, the other cards go on
                _log.exception("the card of %s could not be brought up to date", card.subject.text)
                card.lose()
                card.over = True

    def _show(self, card: Card, seen: Mapping[UUID, Glance], *, ask_why: bool) -> bool:
        """Bring one card up to date; says whether it was asked why its job waits."""
        subject, asked = card.subject, False
        if isinstance(subject, Rows):
            card.take(subject.state())
        elif (found := seen.get(subject.job_id)) is None:
            card.take({**card.card, "state": "forgotten", "status": "forgotten", "finished": 0})
        else:
            asked = ask_why and found.waits
            why = subject.why() if asked else ""
            card.take(job_state(found, now=self.now(), usual=self._usual(found), why=why))
        if card.opened and card.card.get("state") != "forgotten":
            card.detail = subject.detail()
        card.over = subject.ended(card.card)
        return asked

    def _present(self) -> list[Card]:
        with self._lock:
            cards = [card for ref in self._cards if (card := ref()) is not None and card.comm is not None]
            self._cards = [weakref.ref(card) for card in cards]
            return cards

    def _usual(self, job: Glance) -> float | None:
        """How long such a job takes, in seconds; what has ended took what it took."""
        if job.record.state.ended or not job.comparable:
            return None
        ticks, command = time.monotonic(), job.record.spec.command
        at, found = self._estimates.get(command, (-_ESTIMATE_FOR, None))
        if ticks - at >= _ESTIMATE_FOR:
            found = self.queues.estimate(command)
            self._estimates[command] = ticks, found
        return None if found is None else found.median


#: By the manager's ``id``; a feed holds its manager, so that no other can have that number meanwhile.
_feeds: weakref.WeakValueDictionary[int, Feed] = weakref.WeakValueDictionary()


def feed_of(queues: QueueManager) -> Feed:
    """Give the feed of a queue, which all of its cards share."""
    feed = _feeds.get(id(queues))
    if feed is None:
        feed = _feeds[id(queues)] = Feed(queues)
    return feed
