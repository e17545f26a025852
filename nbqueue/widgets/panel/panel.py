"""The panel: a widget that shows a queue live and passes on what is clicked.

Threads: whoever makes it looks at the queue once; from then on only the publisher's thread does. What the front end
sends arrives in a thread of the kernel's, is acknowledged there, and carried out in the publisher's.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from nbqueue.errors import NbqueueError, QueueUnavailable
from nbqueue.facade.manager import QueueManager
from nbqueue.facade.watching.filtering import JobFilter
from nbqueue.widgets import display
from nbqueue.widgets.commands import Done, sentence
from nbqueue.widgets.fallback import Renewal, as_html, as_text
from nbqueue.widgets.link import answer_at_once, front
from nbqueue.widgets.panel.commands import carry_out
from nbqueue.widgets.panel.feed import Feed
from nbqueue.widgets.panel.table import Looked
from nbqueue.widgets.publisher import RETRY, Publisher, publisher

__all__ = ["Panel", "panel"]

_log = logging.getLogger("nbqueue.widgets")

#: Seconds without a view, as while a cell is run again, before it rests.
_REST_AFTER = 10.0
#: Seconds that the end of a cell waits for what is to be stored.
_PATIENCE = 2.0


class Panel(anywidget.AnyWidget):
    """A queue, live: ``queues.panel()`` makes it.

    Parameters
    ----------
    queues : QueueManager
        What it shows.
    looked : Looked
        What its table shows first.
    height : int
        Of the table, in pixels.
    publisher : Publisher
        Keeps it up to date.
    """

    _esm = front(
        *("dom.js", "format.js", "controls.js", "charts.js", "store.js", "filters.js", "overview.js"),
        *("table.js", "detail.js", "form.js", "panel.js"),
    )
    _css = front("theme.css", "panel.css")

    #: The whole state, read when a front end asks for it; changes travel as messages.
    snapshot = traitlets.Dict().tag(
        sync=True, to_json=lambda _, panel: panel.state, from_json=lambda _value, _panel: {}
    )
    height = traitlets.Int(360).tag(sync=True)

    def __init__(
        self,
        queues: QueueManager,
        looked: Looked = Looked(),  # noqa: B008 - a frozen value
        *,
        height: int = 360,
        publisher: Publisher = publisher,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues = queues
        self._publisher = publisher
        self._ticks = ticks
        self._looked = looked
        self._feed: Feed | None = Feed(queues, looked)
        self._feed.state.take(now=self._feed.now)
        #: What was shown last, of a panel that rests or whose queue was closed.
        self._last: dict[str, Any] = {}
        #: Whether the queue did not answer when it was looked at last.
        self.troubled = False
        self._over = False
        self._seen = False
        self._unseen_since: float | None = None
        self._renewal = Renewal(ticks)
        self._display_ids: list[str] = []
        # The front end counts the views that there are, from here on.
        super().__init__(height=height, _view_count=0)
        self.on_msg(_heard)
        self.observe(_views_changed, "_view_count")
        answer_at_once(self)
        me = weakref.ref(self)
        self._forgetting = (queues.before_close(lambda: _look(me)), queues.on_close(lambda: _tell(me)))

    # -- for the publisher

    @property
    def closed(self) -> bool:
        """Whether it is not kept up to date: it rests, was closed, or its queue was."""
        return self.comm is None or self._over or self._feed is None

    def refresh(self) -> float | None:
        """Send what has changed."""
        feed = self._feed
        if feed is None or self.comm is None:
            return None
        if self._rests():
            self._rest(feed)
            return None
        again, self.troubled = None, False
        try:
            if self._queues.closed:
                raise QueueUnavailable(f"{self._queues.name} was closed")
            again = feed.refresh()
            feed.state.set("notice", feed.notice)
        except QueueUnavailable as error:
            if self._queues.comes_back:
                again, self.troubled = self._fail(feed, error), True
            else:
                feed.state.set("notice", self._end(error))
        except Exception as error:  # noqa: BLE001 - who looks at it is told, and it is tried again
            again = self._fail(feed, error)
        if self._flush(feed):
            self._renewal.changed()
        if self._over:
            # From here on nobody asks for it to be stored.
            with contextlib.suppress(Exception):  # the kernel may be going
                self.renew()
        waits = (again, self._renew(), self._unseen_for())
        return min((wait for wait in waits if wait is not None), default=None)

    def _flush(self, feed: Feed) -> bool:
        patch = feed.state.take(now=feed.now)
        if patch is not None:
            self.send(patch)
        return patch is not None

    @staticmethod
    def _fail(feed: Feed, error: Exception) -> float:
        """Say above what is shown that it is not the latest; gives in how many seconds to look again."""
        text = f"{sentence(error)}; this is how it stood before, and it is looked at again soon"
        notice = {"level": "error", "text": text}
        if notice != feed.state.get("notice") and not isinstance(error, NbqueueError):
            _log.error("a panel could not be brought up to date; it is tried again", exc_info=error)
        feed.state.set("notice", notice)
        return RETRY

    def _end(self, error: QueueUnavailable) -> dict[str, str]:
        """Show the last state from now on; gives what to say of it."""
        text = (
            f"{error}; this is how it stood last"
            if not self._queues.closed
            else "closed; this is how it stood last"
        )
        self._over = True
        self._forget_close()
        return {"level": "closed", "text": text}

    def _forget_close(self) -> None:
        for stop in self._forgetting:
            stop()

    # -- views come and go

    def wake(self) -> None:
        """Be kept up to date from now on, again if it rested."""
        self._unseen_since = None
        if self._over or self.comm is None:
            return
        try:
            if self._feed is None:
                # Other front ends of this panel go on from the version they have seen last.
                self._feed = Feed(self._queues, self._looked, v=self._last["v"])
                self._feed.state.take(now=self._feed.now)
            self._publisher.add(self, self._feed.following.on_change)
        except QueueUnavailable as error:
            if self._feed is None and self._queues.comes_back:
                # It goes on resting; the next view that comes wakes it.
                text = f"{error}; this is how it stood before"
                self._last = {**self._last, "notice": {"level": "error", "text": text}}
                return
            notice = self._end(error)
            if self._feed is None:
                self._last = {**self._last, "notice": notice}
            else:
                self._feed.state.set("notice", notice)
                self._flush(self._feed)

    def views_changed(self) -> None:
        """Take note of how many views there are."""
        self._renewal.watched = True
        self._seen = self._seen or bool(self._view_count)
        self._unseen_since = self._ticks() if self._seen and not self._view_count else None
        self._publisher.changed(self)

    def _unseen_for(self) -> float | None:
        since = self._unseen_since
        return None if since is None else max(0.0, since + _REST_AFTER - self._ticks())

    def _rests(self) -> bool:
        return self._unseen_for() == 0.0

    def _rest(self, feed: Feed) -> None:
        """Let go of what a panel that nobody sees has no use for; a view that comes back wakes it."""
        self._looked = feed.looked
        state = feed.state.snapshot()
        self._last = {
            **state,
            "jobs": {**state["jobs"], "order": [], "rows": {}, "total": None},
            "detail": None,
        }
        self._feed = None

    # -- the front end's words

    def obey(self, message: dict[str, Any]) -> None:
        """Carry out what the front end asked for; in the publisher's thread."""
        if self.comm is None:
            return
        what, number = message.get("do"), message.get("id")
        self._renewal.watched = True
        if what == "idle":
            self._renewal.busy = bool(message.get("busy"))
            return
        if what == "hello":
            self.wake()
            self.send({"type": "snapshot", "state": self.state})
            return
        feed = self._feed
        if feed is None or self._over:
            done = Done(False, f"{self._queues.name} was closed here; connect again, and show another panel")
        else:
            done = carry_out(self._queues, feed, message)
            self._flush(feed)
        self.send(done.message(number))

    # -- what is shown without a kernel

    @property
    def state(self) -> dict[str, Any]:
        """The whole state as it was sent last."""
        feed = self._feed
        return self._last if feed is None else feed.state.snapshot()

    def _ipython_display_(self, **_options: Any) -> None:
        self.wake()
        shown = uuid.uuid4().hex
        self._display_ids = [*self._display_ids[-4:], shown]
        display.publish(self._bundle(), shown)
        self._renewal.stored()
        display.after_cells(self)

    def _repr_mimebundle_(self, **_options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return self._bundle(), {}

    def _bundle(self) -> dict[str, Any]:
        state = self.state
        bundle: dict[str, Any] = {"text/plain": as_text(state), "text/html": as_html(state)}
        if self.comm is not None:
            view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
            bundle["application/vnd.jupyter.widget-view+json"] = view
        return bundle

    def _renew(self) -> float | None:
        """Store the last state where it is due; gives in how many seconds it will be."""
        if not self._display_ids:
            return None
        due = self._renewal.due_in()
        if due == 0.0 and self.renew():
            return None
        return due or None

    def renew(self) -> bool:
        """Have the notebook keep the state as it is now; says whether it does."""
        bundle = self._bundle()
        kept = all(display.renew(bundle, shown) for shown in self._display_ids)
        if kept:
            self._renewal.stored()
        return kept

    def cell_ended(self) -> None:
        """Store the last state before a notebook that nobody looks at goes on; waits for it a moment."""
        if self._renewal.watched or self.closed:
            return
        ended = threading.Event()

        def look() -> None:
            with contextlib.suppress(Exception):
                self.refresh()
                if self._renewal.wanted:
                    self.renew()
            ended.set()

        self._publisher.submit(look)
        ended.wait(_PATIENCE)

    def close(self) -> None:
        """Take its views away and let go of the queue."""
        if self.comm is not None:
            self._forget_close()
            self._publisher.discard(self)
        super().close()

    def __repr__(self) -> str:
        return as_text(self.state) if self.state else object.__repr__(self)


def _heard(panel: Panel, content: Any, _buffers: Any) -> None:
    # In the kernel's thread or a subshell's, maybe while a cell runs: say that it came, and be gone.
    if not isinstance(content, dict):
        return
    panel.send({"type": "received", "id": content.get("id")})
    panel._publisher.submit(lambda: panel.obey(content), then=panel)  # noqa: SLF001 - its own


def _views_changed(change: Any) -> None:
    change["owner"].views_changed()


def _tell(panel: weakref.ref[Panel]) -> None:
    if (found := panel()) is not None:
        found._publisher.changed(found)  # noqa: SLF001 - its own


def _look(panel: weakref.ref[Panel]) -> None:
    if (found := panel()) is not None:
        found._publisher.look(found)  # noqa: SLF001 - its own


def panel(queues: QueueManager, *, height: int, **words: Any) -> Panel:
    """Make the panel of a queue; as ``QueueManager.panel``."""
    return Panel(queues, Looked(JobFilter(**words)), height=height)
