"""The one thread that keeps every live view of this process up to date; knows what a view is, and no queue.

A view is whatever has ``closed`` and ``refresh()``. It is added with a way to hear of changes, and from then on
refreshed soon after each change, but never so often that all views together take more than a tenth of a core. While
nothing changes, nothing is done: what only time moves on (seconds that pass) is the front end's to count.

Example
-------
::

    publisher.add(card, queues.on_change)  # held weakly; dropped when card.closed is true, or card is gone
    publisher.submit(lambda: queues.cancel(job_id), then=card)  # a click: at once, and not in the kernel's loop
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from nbqueue.patience import within

__all__ = ["Changes", "Publisher", "View", "publisher"]

_log = logging.getLogger("nbqueue.widgets")

#: Seconds from one refresh of a view to its next, at least.
EVERY = 0.25
#: Seconds that a queue which is being closed waits for the last look of a view.
LAST_LOOK = 0.5
#: Of one core, how much all refreshing may take.
SHARE = 0.1
#: Seconds until a view that could not be refreshed is tried again.
RETRY = 5.0

#: A store that does not answer is tried for so long, seconds: the other views and clicks wait meanwhile.
_PATIENCE = 0.5

#: ``QueueManager.on_change``: have this called after each change, from any thread; gives a way to stop that.
Changes = Callable[[Callable[[], None]], Callable[[], None]]


class View(Protocol):
    """What is kept up to date."""

    @property
    def closed(self) -> bool:
        """Whether it is shown no more; it is dropped then, and has to be added again if it should come back."""

    def refresh(self) -> float | None:
        """Send what has changed, in the publisher's thread.

        One whose queue does not answer says so in an attribute ``troubled``: what it waited for in vain took no core.

        Gives in how many seconds to be called again even if nothing changes, None for never. One that raises is
        logged, and tried again a while later.
        """


class _Entry:
    """A view, and when it is its turn."""

    __slots__ = ("__weakref__", "again_at", "changed", "failing", "free_at", "stop", "took", "view")

    def __init__(self, view: weakref.ref[View]) -> None:
        self.view = view
        self.changed = True
        #: No sooner than this, however much changes.
        self.free_at = 0.0
        #: Then in any case.
        self.again_at: float | None = None
        #: How long its last refresh took.
        self.took = 0.0
        #: Whether its last refresh raised.
        self.failing = False
        self.stop: Callable[[], None] | None = None

    def due(self) -> float | None:
        """When it is its turn; None: not before something changes."""
        if self.changed:
            return self.free_at
        return None if self.again_at is None else max(self.again_at, self.free_at)


class Publisher:
    """Refreshes views after changes, and carries out what front ends ask for.

    Parameters
    ----------
    ticks : callable
        Seconds by a clock that never steps back.
    every : float
        Seconds from one refresh of a view to its next, at least.
    share : float
        Of one core, how much all refreshing may take.
    threaded : bool
        Whether it has a thread, which starts with the first view; else somebody calls ``step``.
    """

    def __init__(
        self,
        *,
        ticks: Callable[[], float] = time.monotonic,
        every: float = EVERY,
        share: float = SHARE,
        threaded: bool = True,
    ) -> None:
        self._ticks = ticks
        self._every = every
        self._share = share
        self._threaded = threaded
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._commands: deque[tuple[Callable[[], None], weakref.ref[View] | None]] = deque()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None

    # -- for views, from any thread

    def add(self, view: View, on_change: Changes | None = None) -> None:
        """Keep a view up to date from now on, beginning with a refresh soon; adding it again does nothing.

        Parameters
        ----------
        view : View
            Held weakly.
        on_change : callable, optional
            What to hear of changes by, ``queues.on_change``; without it only ``changed`` and its own wish to be called
            again bring a refresh about.
        """
        entry = _Entry(weakref.ref(view))
        with self._lock:
            if any(one.view() is view for one in self._entries):
                return
            self._entries.append(entry)
        if on_change is not None:
            news = self._news

            def notify() -> None:
                # Called by whoever committed, who must not be kept; and of a thousand changes one wakes the thread.
                if not entry.changed:
                    entry.changed = True
                    news.set()

            self._listen(entry, on_change, notify)
        self._wake()

    def _listen(self, entry: _Entry, on_change: Changes, notify: Callable[[], None]) -> None:
        try:
            stop = on_change(notify)
        except BaseException:
            self._drop(entry)
            raise
        with self._lock:
            # It may have been dropped meanwhile: the thread has known of it since before it could hear.
            kept = entry in self._entries
            entry.stop = stop if kept else None
        if not kept:
            stop()

    def discard(self, view: View) -> None:
        """Keep it up to date no longer."""
        for entry in self._found(view):
            self._drop(entry)

    def changed(self, view: View) -> None:
        """Say that something about a view has changed that its source does not tell."""
        for entry in self._found(view):
            entry.changed = True
        self._wake()

    def submit(self, command: Callable[[], None], *, then: View | None = None) -> None:
        """Have this carried out at once in the publisher's thread, and a view refreshed after it.

        Commands are carried out one by one, in the order they came; one that raises is logged.
        """
        self._commands.append((command, None if then is None else weakref.ref(then)))
        self._wake()

    def look(self, view: View, patience: float = LAST_LOOK) -> None:
        """Refresh a view now, and wait for that so long: what it looks at is about to go."""
        if not self._found(view):
            return
        if not self._threaded or self._thread is threading.current_thread():
            view.refresh()
            return
        looked = threading.Event()

        def refresh() -> None:
            try:
                view.refresh()
            finally:
                looked.set()

        self.submit(refresh)
        looked.wait(patience)

    def _wake(self) -> None:
        with self._lock:
            if self._threaded and self._thread is None:
                # A daemon: a kernel that goes waits for nobody.
                self._thread = threading.Thread(target=self._loop, name="nbqueue-publisher", daemon=True)
                self._thread.start()
        self._news.set()

    # -- the thread

    def _loop(self) -> None:
        wait: float | None = None
        with within(_PATIENCE):
            while True:
                self._news.wait(wait)
                wait = self.step()

    def step(self) -> float | None:
        """Do what is due now; gives in how many seconds the next is due, None: when something changes."""
        self._news.clear()
        self._carry_out()
        for entry in self._kept():
            self._drop(entry, closed_only=True)
        now = self._ticks()
        due = [entry for entry in self._kept() if (at := entry.due()) is not None and at <= now]
        for entry in due:
            # Whoever clicks does not wait for what is only looked at.
            self._carry_out()
            self._refresh(entry)
        times = [at for entry in self._kept() if (at := entry.due()) is not None]
        return max(0.0, min(times) - self._ticks()) if times else None

    def _carry_out(self) -> None:
        while self._commands:
            command, then = self._commands.popleft()
            try:
                command()
            except Exception:  # noqa: BLE001 - whatever it is, the others go on
                _log.exception("what a front end asked for could not be done")
            view = None if then is None else then()
            for entry in self._found(view) if view is not None else ():
                # What somebody waits for is shown at once, whatever it costs.
                entry.changed, entry.free_at = True, 0.0

    def _refresh(self, entry: _Entry) -> None:
        view = entry.view()
        if view is None or view.closed:
            self._drop(entry)
            return
        # Before it looks: what changes meanwhile is for the next time.
        entry.changed, entry.again_at = False, None
        begun = self._ticks()
        try:
            again = view.refresh()
            least, entry.failing = self._every, False
        except Exception:  # noqa: BLE001 - as above
            if not entry.failing:
                _log.exception("a live view could not be brought up to date; it is tried again")
            again, least, entry.failing = RETRY, RETRY, True
        ended = self._ticks()
        self._drop(entry, closed_only=True)
        entry.took = 0.0 if entry.failing or getattr(view, "troubled", False) else ended - begun
        # Views that change together share what there is; a dear one does not keep a cheap one waiting.
        beside = [one for one in self._kept() if one is entry or one.free_at > begun]
        cost = sum(min(entry.took, one.took) for one in beside)
        entry.free_at = begun + max(least, cost / self._share)
        entry.again_at = None if again is None else ended + again

    # -- its books

    def _found(self, view: View) -> list[_Entry]:
        with self._lock:
            return [entry for entry in self._entries if entry.view() is view]

    def _kept(self) -> list[_Entry]:
        with self._lock:
            return list(self._entries)

    def _drop(self, entry: _Entry, *, closed_only: bool = False) -> None:
        view = entry.view()
        with self._lock:
            # Asked in here: a view that comes back to life does so before it is added, and is kept then.
            if closed_only and view is not None and not view.closed:
                return
            if entry in self._entries:
                self._entries.remove(entry)
            stop, entry.stop = entry.stop, None
        if stop is not None:
            stop()


#: The one of this process.
publisher = Publisher()
