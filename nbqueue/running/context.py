"""What a running job sees: who it is, whether it should stop, and how to report; knows no worker and no store."""

from __future__ import annotations

import json
import logging
import math
import weakref
from collections.abc import Iterable, Iterator, Sized
from contextvars import ContextVar, Token
from numbers import Integral, Real
from time import monotonic
from typing import Any, Final, Protocol, TypeVar, cast, overload
from uuid import UUID

from nbqueue.errors import InvalidCommand, NbqueueError
from nbqueue.executor import StopReason
from nbqueue.jobs import Claim
from nbqueue.running.capture import Capture

__all__ = [
    "Context",
    "Dispatcher",
    "JobStopped",
    "NotInJob",
    "current",
    "enter",
    "entering",
    "leave",
]

T = TypeVar("T")
D = TypeVar("D")
NOTE_MAX = 500
#: What is shown of a job that was told to stop and does not.
STUCK_NOTE = "cannot stop"

#: In a process that runs another one's jobs, the queue that they come from; "" elsewhere.
home = ""

_log = logging.getLogger("nbqueue.job")
if _log.level == logging.NOTSET:
    # A job's own log is there to be read: INFO is not lost to the root's default of WARNING.
    _log.setLevel(logging.INFO)


class NotInJob(NbqueueError, RuntimeError):
    """Asked for the running job where none runs."""


class JobStopped(BaseException):
    """Ends a job that was told to stop.

    No ``Exception``, so that an ``except Exception`` inside a handler does not swallow it.
    """

    def __init__(self, reason: StopReason) -> None:
        super().__init__(_STOPPED[reason])
        self.reason = reason

    def __reduce__(self) -> tuple[type[JobStopped], tuple[StopReason]]:
        return type(self), (self.reason,)


_STOPPED = {
    StopReason.CANCEL: "the job was told to stop: it was cancelled",
    StopReason.TIMEOUT: "the job was told to stop: its time is up",
    StopReason.SHUTDOWN: "the job was told to stop: its worker stops, and gives it back",
}


class Dispatcher(Protocol):
    """Where a running job hands in more work: the store that it came from."""

    def dispatch(self, work: Any, **options: Any) -> Any:
        """Hand in work; it is durable when this returns."""

    async def adispatch(self, work: Any, **options: Any) -> Any:
        """Hand in work without blocking the running loop."""


class Context:
    """One attempt as its handler sees it.

    Parameters
    ----------
    claim : Claim
        What was claimed.
    dispatcher : Dispatcher
        Takes what the job dispatches.
    capture : Capture, optional
        Takes what the job says; it is the executor that begins and ends it.
    started : float, optional
        By ``time.monotonic``, from which on its timeout counts; now, unless given.

    Example
    -------
    A handler whose first parameter is named ``ctx`` is given one::

        @nbq.job
        def resize(ctx, folder):
            for path in ctx.track(sorted(Path(folder).iterdir())):
                ctx.raise_if_stopped()
                ctx.log.info("resizing %s", path)
    """

    __slots__ = (
        "_dispatcher",
        "_metadata",
        "_news",
        "_stop",
        "_taken",
        "asks",
        "bar",
        "capture",
        "claim",
        "noticed",
        "started",
        "stuck",
    )

    def __init__(
        self,
        claim: Claim,
        dispatcher: Dispatcher,
        capture: Capture | None = None,
        started: float | None = None,
    ) -> None:
        self.claim = claim
        self.capture: Final = Capture() if capture is None else capture
        self.started: Final = monotonic() if started is None else started
        self._dispatcher = dispatcher
        self._metadata: dict[str, Any] | None = None
        self._news: tuple[float, float | None, str] | None = None
        self._taken: tuple[float, float | None, str] | None = None
        self._stop: StopReason | None = None
        #: It has asked whether it should stop, so it may be trusted to.
        self.asks = False
        #: It was told to stop long ago and goes on, which is shown where its progress is.
        self.stuck = False
        #: It was told that it should, so if it returns then, that is why.
        self.noticed = False
        #: The outermost of the job's progress bars, which speaks for it.
        self.bar: weakref.ref[Any] | None = None

    def __repr__(self) -> str:
        return f"<Context {self.command} {self.job_id} attempt {self.attempt} of {self.max_attempts}>"

    @property
    def job_id(self) -> UUID:
        """The job's id, as its receipt shows it."""
        return self.claim.job_id

    @property
    def command(self) -> str:
        """The name its handler was registered under."""
        return self.claim.spec.command

    @property
    def queue(self) -> str:
        """The queue it was dispatched to."""
        return self.claim.spec.queue

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.claim.attempt

    @property
    def max_attempts(self) -> int:
        """The number of the attempt that is its last."""
        return self.claim.max_attempts

    @property
    def batch_id(self) -> UUID | None:
        """The batch it belongs to, None for a job dispatched alone."""
        return self.claim.batch_id

    @property
    def metadata(self) -> dict[str, Any]:
        """What was attached to it at dispatch; a copy of its own, empty where there is nothing."""
        if self._metadata is None:
            self._metadata = _decoded(self.claim.metadata)
        return self._metadata

    @property
    def dispatcher(self) -> Dispatcher:
        """Where it hands in more work: the store this job came from."""
        return self._dispatcher

    @property
    def log(self) -> logging.Logger:
        """A logger whose records, from INFO up, land in the job's log."""
        return _log

    def dispatch(self, work: Any, **options: Any) -> Any:
        """Hand in more work, to the store this job came from; durable when it returns the receipt."""
        return self._dispatcher.dispatch(work, **options)

    async def adispatch(self, work: Any, **options: Any) -> Any:
        """Hand in more work without blocking the running loop."""
        return await self._dispatcher.adispatch(work, **options)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the job is; only the latest word is kept.

        Parameters
        ----------
        done : float
            How much is done, 0 or more.
        total : float, optional
            Of how much, where that is known.
        note : str
            What is being done; shown beside the bar.

        Raises
        ------
        InvalidCommand
            For what is no number, negative or not finite.
        """
        counted = _number(done, "done"), None if total is None else _number(total, "total")
        self._news = (*counted, str(note)[:NOTE_MAX])

    def take_progress(self) -> str:
        """Give the latest progress as JSON text, "" if nothing has changed since the last call."""
        news = self.fresh_news()
        return (
            ""
            if news is None
            else json.dumps(dict(zip(("done", "total", "note"), news, strict=True)), separators=(",", ":"))
        )

    def fresh_news(self) -> tuple[float, float | None, str] | None:
        """Give the latest progress, None if nothing has changed since the last call."""
        news = self._news
        if self.stuck:
            done, total, _ = news or (0.0, None, "")
            news = (done, total, STUCK_NOTE)
        if news is None or news == self._taken:
            return None
        self._taken = news
        return news

    def track(self, items: Iterable[T], total: float | None = None, note: str = "") -> Iterator[T]:
        """Give the items one by one and report how many are done.

        Parameters
        ----------
        items : iterable
            What to work through.
        total : float, optional
            How many there are; asked of ``items`` where it can tell.
        note : str
            Shown beside the bar.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        self.progress(0, total, note)
        for done, item in enumerate(items, start=1):
            yield item
            self.progress(done, total, note)

    def should_stop(self) -> bool:
        """Whether the job was told to stop.

        A job that asks now and then is given a few seconds to end by itself, before it is broken off where it is.
        """
        self.asks = True
        self.noticed = self._stop is not None
        return self.noticed

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the job was told to stop, None while it was not."""
        return self._stop

    def raise_if_stopped(self) -> None:
        """End the job here if it was told to stop; ``finally`` and ``with`` clean up on the way out.

        Raises
        ------
        JobStopped
            Which ``except Exception`` does not swallow.
        """
        if self._stop is not None:
            raise JobStopped(self._stop)

    def seconds_left(self) -> float | None:
        """How long this attempt may still take, None where it has no timeout."""
        timeout = self.claim.timeout
        return None if timeout is None else max(0.0, self.started + timeout - monotonic())

    def request_stop(self, reason: StopReason) -> None:
        """Tell the job to stop, from any thread; the first reason stays."""
        if self._stop is None:
            self._stop = reason


def _number(value: object, what: str) -> float:
    number: float | None = None
    if isinstance(value, Integral) and not isinstance(value, bool):
        number = int(value)
    elif isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
    if number is None or not math.isfinite(number) or number < 0:
        msg = f"progress takes numbers from 0 up; {what} was {value!r}"
        raise InvalidCommand(msg)
    return number


def _decoded(text: str) -> dict[str, Any]:
    if not text:
        return {}
    from nbqueue import payload  # not needed by the many jobs that never look

    return cast("dict[str, Any]", payload.decode(text))


_current: ContextVar[Context | None] = ContextVar("nbqueue_context", default=None)
_RAISE: Any = object()


@overload
def current() -> Context: ...
@overload
def current(default: D) -> Context | D: ...
def current(default: Any = _RAISE) -> Any:
    """Give the context of the job that runs here.

    Parameters
    ----------
    default : optional
        What to give where no job runs.

    Raises
    ------
    NotInJob
        Where no job runs and no default is given.

    Example
    -------
    >>> current(None) is None
    True
    """
    context = _current.get()
    if context is not None:
        return context
    if default is _RAISE:
        msg = (
            "no job runs here: current() works inside a handler, and in threads it starts "
            "only through contextvars.copy_context().run; elsewhere write current(None)"
        )
        raise NotInJob(msg)
    return default


#: ``entering`` by hand, for every job: an object and its two methods take 0.4 us.
enter, leave = _current.set, _current.reset


class entering:  # noqa: N801 - used as a verb, and a class is several times cheaper than @contextmanager
    """Make a context the current one, for the length of a ``with``.

    Example
    -------
    ::

        with entering(context), context.capture:
            handler.invoke(context, args, kwargs)
    """

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._token: Token[Context | None] | None = None

    def __enter__(self) -> Context:
        self._token = _current.set(self._context)
        return self._context

    def __exit__(self, *exc: object) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
