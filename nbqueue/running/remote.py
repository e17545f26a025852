"""What a job in another process says and asks for, as messages to the process that has its queue."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, Self

from nbqueue.jobs import Claim
from nbqueue.running import grafts
from nbqueue.running.capture import Capture
from nbqueue.running.context import Context, Dispatcher
from nbqueue.running.handing import take_apart
from nbqueue.running.standins import target
from nbqueue.store import LogChunk

__all__ = ["Ask", "RemoteCapture", "RemoteContext", "RemoteDispatcher", "Send"]

#: Tells something: its kind and its parts.
Send = Callable[..., None]
#: Asks for something, and gives the answer.
Ask = Callable[..., Any]

#: Progress is told this often at most, seconds.
_EVERY = 0.1


class RemoteCapture(Capture):
    """Passes on what a job displays and logs; what it prints goes where the process prints.

    Parameters
    ----------
    send, ask
        The ways to the other process.
    key, owner
        As of ``Capture``.
    """

    __slots__ = ("_ask", "_send")

    def __init__(self, send: Send, ask: Ask, *, key: Callable[[], bytes], owner: object) -> None:
        super().__init__(key=key, owner=owner)
        self._send = send
        self._ask = ask

    def begin(self) -> Self:
        """Take what is said in this context from now on."""
        grafts.install()
        self._token = target.set(self)
        return self

    def write(self, stream: str, text: str) -> None:
        """Pass on a record of a log; print what is none."""
        if stream == "log":
            if not self._ended:
                self._send("log", text)
        else:
            (sys.stdout if stream == "stdout" else sys.stderr).write(text)

    def take(self, text: str, *, display_id: str = "", update: bool = False) -> None:
        """Pass on one display, and wait until it is taken: what is printed next comes after it."""
        if not self._ended:
            self._ask("show", text, display_id, update)

    def clear(self, *, wait: bool = False) -> None:
        """Clear what was said and shown so far."""
        if not self._ended:
            self._ask("clear", wait)

    def drain(self) -> tuple[LogChunk, ...]:
        """Give nothing: it was passed on."""
        return ()


class RemoteContext(Context):
    """Tells how far the job is, now and then.

    Parameters
    ----------
    claim, dispatcher, capture, started
        As of ``Context``.
    """

    __slots__ = ("_next", "ask", "send")

    ask: Ask
    send: Send

    def __init__(self, claim: Claim, dispatcher: Dispatcher, capture: Capture, started: float) -> None:
        super().__init__(claim, dispatcher, capture, started)
        self._next = 0.0

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the job is; only the latest word is kept."""
        super().progress(done, total, note)
        now = monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            news = self.fresh_news()
            if news is not None:
                # Whoever looks after the job has gone on is to see it.
                self.ask("progress", *news)

    def tell(self) -> None:
        """Tell what was held back."""
        news = self.fresh_news()
        if news is not None:
            self.send("progress", *news)

    def take_progress(self) -> str:
        """Give nothing, after telling it."""
        self.tell()
        return ""


class RemoteDispatcher:
    """Has the other process hand in what a job dispatches.

    Parameters
    ----------
    ask : Callable
        The way there.
    away : bool
        Whether that process may be on another machine, so that its queue cannot be joined from here.
    """

    def __init__(self, ask: Ask, *, away: bool = False) -> None:
        self._ask = ask
        self.away = away

    def dispatch(self, work: Any, **options: Any) -> Any:
        """Hand in work; it is durable when this returns."""
        handed = take_apart(work, options, lambda: self._ask("key"))
        return _receipt(*self._ask("dispatch", handed))

    async def adispatch(self, work: Any, **options: Any) -> Any:
        """Hand in work without blocking the running loop."""
        import asyncio

        return await asyncio.to_thread(self.dispatch, work, **options)


def _receipt(job_id: Any, command: str, queue: str, scheduled_at: float | None) -> Any:
    from nbqueue.facade.manager import receipt_from_home

    return receipt_from_home(job_id, command, queue, scheduled_at)
