"""Calls on their way to a store's writer, and what wakes it; knows neither the store nor its file.

Both use bare locks: one call of C each, which Ctrl-C cannot break in two.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nbqueue.jobs import NewJob
from nbqueue.stores.index import Index

__all__ = ["Bell", "Op", "Tell", "finish"]

_log = logging.getLogger("nbqueue.store")

#: Is told by the writer what came of a call: None, or why it failed. What it gives is called once, however many give
#: it, when everybody in that commit has been told.
Tell = Callable[[BaseException | None], Callable[[], object] | None]


class Op:
    """A verb on its way through the writer, or jobs to take.

    Parameters
    ----------
    verb : Callable[[Index], Any], optional
        What to do with the index.
    jobs : Sequence[NewJob]
        To take instead, for no worker: next to others of this kind they go in together.
    tell : Tell, optional
        Told when it is done, for whoever has no thread that waits.
    """

    __slots__ = ("done", "error", "jobs", "result", "tell", "verb")

    def __init__(
        self,
        verb: Callable[[Index], Any] | None = None,
        jobs: Sequence[NewJob] = (),
        tell: Tell | None = None,
    ):
        self.verb = verb
        self.jobs = jobs
        self.tell = tell
        self.result: Any = None
        self.error: BaseException | None = None
        # A bare lock is the cheapest thing to wait on that Ctrl-C can break.
        self.done = threading.Lock()
        self.done.acquire()


class Bell:
    """Wakes one thread. Rung however often before that listens, it is heard once.

    Example
    -------
    >>> bell = Bell()
    >>> bell.set(), bell.set(), bell.wait(0), bell.wait(0)
    (None, None, True, False)
    """

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        # Held while it has not been rung; an Event makes a lock for every wait, and takes two more to be set.
        self._silent = threading.Lock()
        self._silent.acquire()

    def set(self) -> None:
        """Ring."""
        if self._silent.locked():
            with contextlib.suppress(RuntimeError):  # another thread did in this moment
                self._silent.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has been rung, and make it silent; gives whether it was."""
        return self._silent.acquire(timeout=-1 if seconds is None else seconds)


def finish(ops: Iterable[Op]) -> None:
    """Let go of who waits for these."""
    afterwards: set[Callable[[], object]] = set()
    for op in ops:
        if op.tell is None:
            op.done.release()
            continue
        try:
            if (after := op.tell(op.error)) is not None:
                afterwards.add(after)
        except Exception:  # noqa: BLE001 - whatever it is, the store goes on
            _log.exception("who was to be told that a call is done raised")
    # Not one by one: a loop that is woken by the first takes the GIL from who has the others to tell.
    for after in afterwards:
        try:
            after()
        except Exception:  # noqa: BLE001 - as above
            _log.exception("who was to be woken after a commit raised")
