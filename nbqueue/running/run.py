"""One job from claim to report, as a pipeline: resolve, decode, call, encode, say how it ended; knows no store."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from nbqueue import payload
from nbqueue.errors import InvalidCommand, NbqueueError, PayloadUntrusted
from nbqueue.executor import StopReason
from nbqueue.handlers.handler import Handler
from nbqueue.jobs import Claim, Spec
from nbqueue.lifecycle import Outcome
from nbqueue.retry import kinds_of
from nbqueue.running import bars, displays, figures, grafts, scripts, tracebacks
from nbqueue.running.capture import Capture
from nbqueue.running.context import Context, Dispatcher, JobStopped, enter, leave
from nbqueue.running.fingerprints import fingerprint
from nbqueue.store import Report, ReportKind

__all__ = [
    "OUT_OF_MEMORY",
    "Attempt",
    "Ending",
    "Perform",
    "Runner",
    "Services",
    "refused",
    "unstored_reason",
]

ERROR_MAX = 2_000
RESULT_MAX = 64 * 1024 * 1024
#: The cause of what failed for lack of memory.
OUT_OF_MEMORY = "out of memory"
_UNSTORED = '{"$nbq-unstored": '

for _grafts in (displays.GRAFTS, figures.GRAFTS, bars.GRAFTS, scripts.GRAFTS):
    grafts.want(_grafts)

#: Calls the handler's call, and brings it to its value if the handler is ``async def``.
Perform = Callable[[Callable[[], Any], bool], Any]


@dataclass(frozen=True, slots=True)
class Services:
    """What running jobs need from whoever made their worker."""

    #: Gives this user's secret; called only where something is signed.
    key: Callable[[], bytes]
    #: Takes what jobs dispatch.
    dispatcher: Dispatcher
    #: Gives the arguments of a job as they were handed in, to its first attempt here; None: decode the stored ones.
    live_call: Callable[[UUID], tuple[tuple[Any, ...], dict[str, Any]] | None]
    #: Takes what a job returned, before its store knows.
    on_value: Callable[[Claim, object], None]
    #: Takes it as well where it cannot be stored.
    on_unstored: Callable[[Claim, object], None] = lambda _claim, _value: None


@dataclass(frozen=True, slots=True)
class Runner:
    """Makes an attempt of each claim.

    Parameters
    ----------
    resolve : Callable[[Spec], Handler | None]
        Gives the handler of a job.
    services : Services
        See there.
    clock : Callable[[], float]
        Seconds since the epoch.
    context : Callable[[Claim], Context], optional
        Makes the context of an attempt, for those who have one of their own.
    """

    resolve: Callable[[Spec], Handler | None]
    services: Services
    clock: Callable[[], float] = time.time
    context: Callable[[Claim], Context] | None = None

    def begin(self, claim: Claim) -> Attempt:
        """Start an attempt; its clock runs from here."""
        return Attempt(self, claim)


class Ending(NamedTuple):
    """How an attempt ended, before what it said is added."""

    kind: ReportKind
    outcome: Outcome | None = None
    result: str = ""
    error: str = ""
    kinds: tuple[str, ...] = ()
    cause: str = ""
    traceback: str = ""
    fingerprint: str = ""


_RETURNED_NOTHING = Ending(ReportKind.ENDED, Outcome.SUCCEEDED)
_NO_ARGUMENTS = payload.encode_call((), {})
_new = tuple.__new__


class Attempt:
    """One attempt: its context, and the report that comes of it."""

    __slots__ = ("claim", "context", "runner", "started_at")

    def __init__(self, runner: Runner, claim: Claim):
        self.runner = runner
        self.claim = claim
        if runner.context is None:
            services = runner.services
            self.context = Context(claim, services.dispatcher, Capture(key=services.key, owner=claim.job_id))
        else:
            self.context = runner.context(claim)
        self.started_at = runner.clock()

    def run(self, perform: Perform) -> Report:
        """Run it to its end, whatever that is; never raises.

        Parameters
        ----------
        perform : Perform
            Calls the handler. It alone may be broken off from outside, by a ``JobStopped``.
        """
        context = self.context
        capture = context.capture
        token = enter(context)
        try:
            capture.begin()
            ending = self._end(perform)
            if capture.figures:
                figures.show_open(capture)
            return self.report(ending)
        finally:
            capture.end()
            leave(token)

    def report(self, ending: Ending, *, usage: str = "") -> Report:
        """Say that it ended, and how; it has said all that it will."""
        context = self.context
        capture = context.capture
        capture.end()
        context.stuck = False
        kind, outcome, result, error, kinds, cause, trace, mark = ending
        if error or trace or mark:
            error, trace, mark = _storable(error), _storable(trace), _storable(mark)
        said, progress = capture.drain(), context.take_progress()
        now = self.runner.clock()
        # Past the constructor of NamedTuples, which is Python code: 0.3 us instead of 0.5.
        return _new(
            Report,
            (self.claim, kind, outcome, self.started_at, now, result, error, kinds, cause, trace, mark,
             said, progress, usage),
        )  # fmt: skip

    def find(self) -> Handler | Ending:
        """Give its handler, or how it ends without one; never raises."""
        try:
            handler = self.runner.resolve(self.claim.spec)
        except NbqueueError as error:
            return refused(error)
        except BaseException as error:
            return self._failed(error)
        # Forgotten since it was claimed: it waits in its queue, as one that nobody here knows does.
        return Ending(ReportKind.RELEASED) if handler is None else handler

    def died(self, how: str, cause: str) -> Ending:
        """Say how it ends if what ran it has died: as it was told to, else as a crash."""
        reason = self.context.stop_reason
        if reason is StopReason.TIMEOUT:
            return self._timed_out(how)
        if reason is not None:
            return self._stopped(JobStopped(reason))
        return Ending(
            ReportKind.ENDED,
            Outcome.CRASHED,
            error=how,
            cause=cause,
            fingerprint=f"{cause} in {self.claim.spec.command}",
        )

    def _end(self, perform: Perform) -> Ending:
        handler = self.find()
        if isinstance(handler, Ending):
            return handler
        try:
            args, kwargs = self._arguments()
            handler.admit(args, kwargs)
        except NbqueueError as error:
            return refused(error)
        except BaseException as error:
            return self._failed(error)
        try:
            value = perform(functools.partial(handler.invoke, self.context, args, kwargs), handler.is_async)
        except JobStopped as stopped:
            return self._stopped(stopped)
        except BaseException as error:
            return self._failed(error)
        return self._returned(value)

    def _arguments(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        claim, services = self.claim, self.runner.services
        if claim.payload == _NO_ARGUMENTS:
            return (), {}
        if not payload.needs_pickle(claim.payload):
            return payload.decode_call(claim.payload)
        live = services.live_call(claim.job_id)
        if live is not None:
            return live
        return payload.decode_call(claim.payload, key=services.key(), context=claim.spec.command)

    # -- how it ended

    def _returned(self, value: object) -> Ending:
        reason = self.context.stop_reason
        if reason is not None:
            if reason is StopReason.TIMEOUT:
                return self._timed_out("it went on and returned late")
            if self.context.noticed:
                # It asked, heard that it should stop, and did: what it returned is of half its work.
                return self._stopped(JobStopped(reason))
        if value is None:
            # Whoever asks for it is given None where nothing was stored.
            return _RETURNED_NOTHING
        services = self.runner.services
        services.on_value(self.claim, value)
        text = self._encode(value)
        if unstored_reason(text) is not None:
            services.on_unstored(self.claim, value)
        return Ending(ReportKind.ENDED, Outcome.SUCCEEDED, text)

    def _encode(self, value: object) -> str:
        try:
            try:
                text = payload.encode(value, what="result")
            except InvalidCommand:
                key = self.runner.services.key()
                text = payload.encode(value, key=key, context=self.claim.spec.command, what="result")
        except NbqueueError as error:
            return _unstored(str(error))
        except BaseException as error:  # encoding runs the value's own code
            return _unstored(f"storing it failed with {_sentence(error)}")
        if len(text) > RESULT_MAX:
            return _unstored(
                f"it is {len(text):,} characters long and a stored result may have {RESULT_MAX:,}"
            )
        return text

    def _stopped(self, stopped: JobStopped) -> Ending:
        if stopped.reason is StopReason.TIMEOUT:
            return self._timed_out("it stopped when told to")
        if stopped.reason is StopReason.SHUTDOWN:
            return Ending(ReportKind.RELEASED)
        return Ending(ReportKind.ENDED, Outcome.CANCELLED)

    def _timed_out(self, how: str) -> Ending:
        took = max(0.0, self.runner.clock() - self.started_at)
        error = f"TimeoutError: it took {took:.2f} s, longer than its timeout of {self.claim.timeout or 0:g} s; {how}"
        return Ending(
            ReportKind.ENDED,
            Outcome.TIMED_OUT,
            error=error,
            kinds=kinds_of(TimeoutError()),
            fingerprint=f"timeout of {self.claim.timeout or 0:g} s in {self.claim.spec.command}",
        )

    def _failed(self, error: BaseException) -> Ending:
        reason = self.context.stop_reason
        if reason is StopReason.TIMEOUT:
            return self._timed_out(f"it ended with {_sentence(error)}")
        if reason is StopReason.SHUTDOWN:
            return Ending(ReportKind.RELEASED)
        outcome = Outcome.CANCELLED if reason is StopReason.CANCEL else Outcome.FAILED
        return Ending(
            ReportKind.ENDED,
            outcome,
            error=_sentence(error),
            kinds=kinds_of(error),
            cause=OUT_OF_MEMORY if isinstance(error, MemoryError) and outcome is Outcome.FAILED else "",
            traceback=_traceback(error),
            fingerprint=fingerprint(error),
        )


def refused(error: NbqueueError) -> Ending:
    """Say that it may not run here: nothing of it was run."""
    cause = "untrusted" if isinstance(error, PayloadUntrusted) else "unreadable"
    return Ending(ReportKind.REFUSED, error=str(error), cause=cause)


def _storable(text: str) -> str:
    """The text without lone surrogates, as in a file's undecodable name: no store can write them."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _unstored(reason: str) -> str:
    import json

    return _UNSTORED + json.dumps(reason) + "}"


def unstored_reason(result: str) -> str | None:
    """Why a result was not stored, None where it was.

    >>> unstored_reason('{"$nbq-unstored": "it is a socket"}')
    'it is a socket'
    """
    if not result.startswith(_UNSTORED):
        return None
    import json

    reason: str = json.loads(result)["$nbq-unstored"]
    return reason


def _sentence(error: BaseException) -> str:
    """The error in one line, as a traceback ends."""
    try:
        text = str(error)
    except BaseException as broken:  # an error whose own text fails is still an error
        text = f"<its text failed with {type(broken).__name__}>"
    name = type(error).__name__
    sentence = f"{name}: {text}" if text else name
    return sentence if len(sentence) <= ERROR_MAX else sentence[: ERROR_MAX - 1] + "…"


def _traceback(error: BaseException) -> str:
    try:
        return tracebacks.of(error)
    except BaseException as broken:  # formatting runs the error's own code
        return f"{_sentence(error)}\n(its traceback could not be formatted: {type(broken).__name__})"
