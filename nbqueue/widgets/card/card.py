"""Live cards of receipts and batches: one line each in a notebook, kept up to date while there is something to tell."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from nbqueue.errors import NbqueueError
from nbqueue.facade.receipt import JobDispatch
from nbqueue.widgets.card.feed import Feed, feed_of
from nbqueue.widgets.card.state import static_html
from nbqueue.widgets.card.subjects import Job, Rows
from nbqueue.widgets.commands import answer
from nbqueue.widgets.display import publish, renew
from nbqueue.widgets.link import answer_at_once, front, in_kernel
from nbqueue.widgets.publisher import publisher

if TYPE_CHECKING:
    from nbqueue.facade.manager import QueueManager

__all__ = ["Card", "card_of", "show"]


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
        #: It has ended, and was shown so: only a retry makes it different.
        self.over = False
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

    def worry(self, trouble: str) -> None:
        """Say that what is shown may not be the latest, until it is again."""
        self.card = {**self.card, "trouble": trouble}

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
        what = content.get("do")
        command = _COMMANDS.get(what) if isinstance(what, str) else None
        done = answer(what, None if command is None else functools.partial(command, self, content))
        self.send(done.message(content.get("id")))
        self._feed.add(self)


def _hello(_card: Card, _content: dict[str, Any]) -> str:
    return ""


def _cancel(card: Card, _content: dict[str, Any]) -> str:
    card.subject.cancel()
    return ""


def _retry(card: Card, _content: dict[str, Any]) -> str:
    card.subject.retry()
    return ""


def _open(card: Card, content: dict[str, Any]) -> str:
    card.opened = bool(content.get("open"))
    if card.opened:
        card.detail = card.subject.detail()
    return ""


_COMMANDS: dict[str, Callable[[Card, dict[str, Any]], str]] = {
    "hello": _hello,
    "cancel": _cancel,
    "retry": _retry,
    "open": _open,
}


def card_of(queues: QueueManager, shown: object) -> Card:
    """Make the live card of a receipt or a batch, for ``show`` or to stand below a form.

    Raises
    ------
    JobNotFound, QueueUnavailable
        Where there is nothing to show any more.
    """
    feed = feed_of(queues)
    subject = Job(shown, feed) if isinstance(shown, JobDispatch) else Rows(shown, feed)
    card = Card(feed, subject)
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
