"""An open queue: its store for as long as it is open, and who wants to know when it closes; knows no jobs."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable

from nbqueue.durations import duration
from nbqueue.errors import QueueUnavailable
from nbqueue.facade.configuring import QueueConfig
from nbqueue.facade.connecting import Connection
from nbqueue.facade.drivers import SERVERS
from nbqueue.store import Store
from nbqueue.stores.owner import Holder

__all__ = ["Opened", "Target"]

#: What a queue is named by; None is ``$NBQUEUE_URL``, else ./nbqueue.duckdb.
Target = str | os.PathLike[str] | QueueConfig | None


class Opened:
    """A queue that is open until it is closed; the base of ``QueueManager``.

    Parameters
    ----------
    target : str, Path or QueueConfig, optional
        What to open.
    store : Store, optional
        An open store instead, which is closed with this.
    clock : callable, optional
        Seconds since the epoch.
    """

    def __init__(
        self, target: Target = None, *, store: Store | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        #: Where it is, and the queue of jobs that name none.
        self.config = QueueConfig.read(target) if store is None else QueueConfig(driver="memory")
        self._connection = Connection(self.config, store)
        #: What is known of its jobs only in this process.
        self.live = self._connection.live
        self._clock = clock
        #: What the two clocks differed by, which nothing changes but a clock that is set, or a machine asleep.
        self._offset = clock() - time.monotonic()
        opened = self._connection.store
        #: Where it is: the absolute path, ":memory:", or the server, without a password.
        self.name = opened.name
        #: Whether connecting made it.
        self.created = self._connection.created
        #: The jobs that were running when the file was last left without a word, and what became of them.
        self.interrupted = list(getattr(opened, "interrupted", ()))
        self._closing = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._last_looks: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        try:
            self._set_up(opened)
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self, opened: Store) -> None:
        """Tell the store what the configuration says."""
        config = self.config
        if config.default_queue != "default":
            opened.add_queue(config.default_queue)
        if config.retention is not None or config.keep is not None:
            age = None if config.retention is None else duration(config.retention, what="retention")
            opened.retain(age, config.keep)

    @property
    def store(self) -> Store:
        """The store, while it is open.

        Raises
        ------
        QueueUnavailable
            After ``close``.
        """
        if self._connection.closed:
            again = (
                "nbqueue.connect(…)" if self.config.driver in SERVERS else f"nbqueue.connect({self.name!r})"
            )
            raise QueueUnavailable(f"{self.name} was closed here; {again} opens it again")
        return self._connection.store

    @property
    def owner(self) -> Holder:
        """The process that has the file; ``.here`` tells whether it is this one.

        What is no file has no owner: it is this process, as it is for every other.
        """
        holder = getattr(self.store, "holder", None)
        return Holder.myself() if holder is None else holder()

    @property
    def home(self) -> str:
        """What another process of this user opens it by; the password of a URL is in it, so it is never shown."""
        return os.fspath(self.config.path) if self.config.driver in SERVERS else self.name

    @property
    def notice(self) -> str:
        """What whoever opens it is to know of it, as a sentence; mostly nothing."""
        said = str(getattr(self.store, "notice", "")).rstrip(".")
        return f"{said[0].upper()}{said[1:]}." if said else ""

    @property
    def comes_back(self) -> bool:
        """Whether what cannot be had now may be had later: it is on a server, and was not closed here."""
        return self.config.driver in SERVERS and not self.closed

    def can(self, what: str) -> bool:
        """Whether it can do that: ``"pause"``, ``"cancel"``, ``"priority"`` …, see ``nbqueue.store.Capability``."""
        return what in self.store.capabilities

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._connection.closed

    def follow(self) -> None:
        """Have the ends of jobs told to the receipts that somebody holds."""
        self.live.receipts.follow()

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call this when it closes, at once if it has; gives a way to stop that."""
        number = next(self._numbers)
        self._callbacks[number] = callback
        if self.closed:
            callback()

        def stop() -> None:
            self._callbacks.pop(number, None)

        return stop

    def before_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call this when it is about to close: its workers have stopped, and its store is still there.

        Gives a way to stop that. It must be quick, and what it raises is lost.
        """
        number = next(self._numbers)
        self._last_looks[number] = callback

        def stop() -> None:
            self._last_looks.pop(number, None)

        return stop

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call this whenever a job, a queue or a worker has changed; gives a way to stop that.

        It is called from any thread, once for what one commit changed, and must be quick.
        """
        return self.store.listen(callback)

    def show(self, shown: object) -> None:
        """Show a receipt or a batch as a live card; without a face to show it, it is its text.

        Raises
        ------
        NotImplementedError
            Where there is nothing to show it by, which IPython takes for: show the text.
        """
        raise NotImplementedError

    def close(self, timeout: float = 10.0) -> None:
        """Let go of the file; doing it again does nothing.

        Parameters
        ----------
        timeout : float
            Seconds that running jobs are given to end, before they are given back.
        """
        with self._closing:
            if self._connection.closed:
                return
            self._finish(timeout)
            for look in list(self._last_looks.values()):
                with contextlib.suppress(Exception):
                    look()
            self._connection.close()
        for callback in list(self._callbacks.values()):
            callback()

    def _finish(self, timeout: float) -> None:
        """End what still uses the store."""
