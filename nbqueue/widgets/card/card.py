"""Live cards of receipts and batches: one line each in a notebook, kept up to date while there is something to tell."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from nbqueue.errors import JobNotFound, NbqueueError, QueueUnavailable
from nbqueue.facade.estimating import Estimate
from nbqueue.facade.receipt import JobDispatch
from nbqueue.facade.watching.glancing import glance
from nbqueue.widgets.card.state import batch_state, job_state, static_html
from nbqueue.widgets.display import publish, renew
from nbqueue.widgets.link import answer_at_once, front, in_kernel
from nbqueue.widgets.publisher import publisher

if TYPE_CHECKING:
    from nbqueue.facade.manager import QueueManager

__all__ = ["Card", "card_of", "show"]


#: How long an estimate is good for, seconds.
_ESTIMATE_FOR = 30.0
#: Why a job waits is asked for so many at a time.
_WHYS = 20
#: The rate of a batch is that of the last so many seconds.
_LATELY = 20.0
#: Of a job's log, so many characters from its end.
_TAIL = 20_000


class Card(anywidget.AnyWidget):
    """One receipt or batch, live; ``show`` makes it.

    Parameters
    ----------
    feed : Feed
        What keeps it up to date.
    subject : Job or Rows
        What it shows.
    """

    _esm = front("dom.js", "format.js", "controls.js", "card.js")
    _css = front("theme.css", "card.css")

    #: What is shown, as ``job_state`` or ``batch_state`` has it.
    card = traitlets.Dict().tag(sync=True)
    #: What is shown of it opened: error, traceback, the end of the log.
    detail = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)

    def __init__(self, feed: Feed, subject: Job | Rows) -> None:
        super().__init__(card=subject.first(), detail=None)
        self.subject = subject
        #: Under which the notebook keeps what a reader without a kernel sees.
        self.display_id = uuid.uuid4().hex
        self.opened = False
        self._feed = feed
        self._stored = ""
        self.on_msg(Card._heard)
        answer_at_once(self)

    def bundle(self) -> dict[str, Any]:
        """Give what a notebook shows and keeps: the card, and what stands for it without a kernel."""
        self._stored = static_html(self.card)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {
            "text/plain": self.subject.text,
            "text/html": self._stored,
            "application/vnd.jupyter.widget-view+json": view,
        }

    def take(self, state: dict[str, Any]) -> None:
        """Show this, and once it has ended let the notebook keep it."""
        if state.get("progress") and state["progress"] == self.card.get("progress"):
            # Without news of it nothing new can be said of its end.
            state["finish"] = self.card["finish"]
        if {**self.card, "now": 0} != {**state, "now": 0}:
            self.card = state
        if self.subject.ended(state) and self._stored and static_html(state) != self._stored:
            with contextlib.suppress(Exception):  # the kernel may be going, and the card itself is right
                renew(self.bundle(), self.display_id)

    def lose(self) -> None:
        """Show that nothing more will be heard."""
        with contextlib.suppress(Exception):  # the kernel may be going
            self.card = {**self.card, "live": False}

    # -- the front end's words, in any thread of the kernel

    @staticmethod
    def _heard(card: Card, content: Any, _buffers: Any = None) -> None:
        if not isinstance(content, dict):
            return
        card.send({"type": "received", "id": content.get("id")})
        publisher.submit(lambda: card.carry_out(content))

    def carry_out(self, content: dict[str, Any]) -> None:
        """Do what a button asked for, and say what came of it."""
        said, done = "", True
        try:
            match content.get("do"):
                case "cancel":
                    self.subject.cancel()
                case "retry":
                    self.subject.retry()
                case "open":
                    self.opened = bool(content.get("open"))
                    if self.opened:
                        self.detail = self.subject.detail()
        except NbqueueError as error:
            said, done = str(error), False
        self.send({"type": "done", "id": content.get("id"), "ok": done, "text": said})
        self._feed.add(self)


class Job:
    """A receipt as a card shows it."""

    def __init__(self, receipt: JobDispatch, feed: Feed) -> None:
        self.receipt = receipt
        self.text = repr(receipt)
        self._feed = feed

    def first(self) -> dict[str, Any]:
        """Give what it shows first."""
        seen = glance(self._feed.queues, (self.receipt.job_id,))
        if self.receipt.job_id not in seen:
            raise JobNotFound(f"{self.receipt.command} {self.receipt} is not there any more")
        return job_state(seen[self.receipt.job_id], now=self._feed.now())

    @staticmethod
    def ended(state: dict[str, Any]) -> bool:
        """Whether nothing more will happen."""
        return state["finished"] is not None

    def cancel(self) -> None:
        """Cancel it."""
        self.receipt.cancel()

    def retry(self) -> None:
        """Let it run again."""
        self.receipt.retry()

    def detail(self) -> dict[str, Any]:
        """Give its error, its traceback and the end of its log."""
        record = self.receipt.record()
        log = str(self.receipt.logs())
        return {
            "why": "" if record.state.ended else self.receipt.why(),
            "error": record.error,
            "traceback": record.traceback,
            "log": log[-_TAIL:],
            "cut": len(log) > _TAIL,
        }


class Rows:
    """A batch as a card shows it."""

    def __init__(self, batch: Any, feed: Feed) -> None:
        self.batch = batch
        self.text = repr(batch)
        self._feed = feed
        self._since = feed.now()
        self._ends: deque[tuple[float, int]] = deque()

    def first(self) -> dict[str, Any]:
        """Give what it shows first."""
        return batch_state(self.batch, now=self._feed.now())

    def state(self) -> dict[str, Any]:
        """Give what it shows now, its rate over the last seconds."""
        now = self._feed.now()
        state = batch_state(self.batch, now=now, rate=self._rate(), started=self._since)
        self._ends.append((now, state["ended"]))
        while self._ends[0][0] < now - _LATELY and len(self._ends) > 2:
            self._ends.popleft()
        return state

    def _rate(self) -> float | None:
        if len(self._ends) < 2:
            return None
        (begun, before), (at, ended) = self._ends[0], self._ends[-1]
        return (ended - before) / (at - begun) if at > begun and ended > before else None

    @staticmethod
    def ended(state: dict[str, Any]) -> bool:
        """Whether nothing more will happen."""
        return bool(state["ended"] >= state["total"])

    def cancel(self) -> None:
        """Cancel what has not ended."""
        self.batch.cancel()

    def retry(self) -> None:
        """Let those run again that failed."""
        self._ends.clear()
        self.batch.retry_failed()

    def detail(self) -> dict[str, Any]:
        """Give which errors there were, the most frequent first."""
        failed = self.batch.failed()
        found = failed["error"].value_counts().head(5) if "error" in failed else {}
        lines = [f"{count:,} × {error}" for error, count in dict(found).items()]
        return {"why": "", "error": "\n".join(lines), "traceback": "", "log": "", "cut": False}


class Feed:
    """Keeps all cards of one queue up to date, by one look at all of their jobs."""

    def __init__(self, queues: QueueManager) -> None:
        self.queues = queues
        self.now = time.time
        self._lock = threading.Lock()
        #: Those that have not ended.
        self._cards: list[weakref.ref[Card]] = []
        self._estimates: dict[str, tuple[float, Estimate | None]] = {}
        me = weakref.ref(self)

        def lose() -> None:
            feed = me()
            if feed is not None:
                feed.lose()

        queues.on_close(lose)

    @property
    def closed(self) -> bool:
        """Whether there is nothing to look at any more."""
        return self.queues.closed

    def add(self, card: Card) -> None:
        """Keep a card up to date from now on, until what it shows has ended."""
        with self._lock:
            if not any(ref() is card for ref in self._cards):
                self._cards.append(weakref.ref(card))
        publisher.add(self, self.queues.on_change)
        publisher.changed(self)

    def lose(self) -> None:
        """Tell the cards that the queue was closed."""
        for card in self._present():
            card.lose()

    def refresh(self) -> float | None:
        """Bring every card up to date."""
        cards = self._present()
        try:
            self._refresh(cards)
        except QueueUnavailable:
            self.lose()
        # One that was added meanwhile has not been looked at.
        over = {id(card) for card in cards if card.subject.ended(card.card)}
        with self._lock:
            self._cards = [ref for ref in self._cards if (card := ref()) is not None and id(card) not in over]
        return None

    def _refresh(self, cards: list[Card]) -> None:
        now = self.now()
        seen = glance(self.queues, [c.subject.receipt.job_id for c in cards if isinstance(c.subject, Job)])
        whys = _WHYS
        for card in cards:
            subject = card.subject
            if isinstance(subject, Rows):
                card.take(subject.state())
            elif (found := seen.get(subject.receipt.job_id)) is None:
                card.take({**card.card, "state": "forgotten", "status": "forgotten", "finished": 0})
            else:
                waits = found.status(now) == "pending" and whys > 0
                whys -= waits
                usual = None if found.record.state.ended else self._usual(found.record.spec.command)
                why = subject.receipt.why() if waits else ""
                card.take(job_state(found, now=now, usual=usual, why=why))
            if card.opened:
                card.detail = subject.detail()

    def _present(self) -> list[Card]:
        with self._lock:
            return [card for ref in self._cards if (card := ref()) is not None]

    def _usual(self, command: str) -> float | None:
        ticks = time.monotonic()
        at, found = self._estimates.get(command, (-_ESTIMATE_FOR, None))
        if ticks - at >= _ESTIMATE_FOR:
            found = self.queues.estimate(command)
            self._estimates[command] = ticks, found
        return None if found is None else found.median


#: By the manager's ``id``; a feed holds its manager, so that no other can have that number meanwhile.
_feeds: weakref.WeakValueDictionary[int, Feed] = weakref.WeakValueDictionary()


def card_of(queues: QueueManager, shown: object) -> Card:
    """Make the live card of a receipt or a batch, for ``show`` or to stand below a form.

    Raises
    ------
    JobNotFound, QueueUnavailable
        Where there is nothing to show any more.
    """
    feed = _feeds.get(id(queues))
    if feed is None:
        feed = _feeds[id(queues)] = Feed(queues)
    subject = Job(shown, feed) if isinstance(shown, JobDispatch) else Rows(shown, feed)
    card = Card(feed, subject)
    if not subject.ended(card.card):
        feed.add(card)
    return card


def show(queues: QueueManager, shown: object) -> None:
    """Show a receipt or a batch as a live card in the notebook.

    Raises
    ------
    NotImplementedError
        Outside of a notebook, and where there is nothing to ask any more: its text is all there is to show.
    """
    if not in_kernel():
        raise NotImplementedError
    try:
        card = card_of(queues, shown)
    except NbqueueError:
        raise NotImplementedError from None
    publish(card.bundle(), card.display_id)
