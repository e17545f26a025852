"""What a slot and its child say to each other about one attempt, as the slot has it.

The attempt's context and capture are the parent's: what the child tells of goes into them as it comes, so that logs,
displays and progress are where those of threads are, and are there however the child ends.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from nbqueue.executors.children import import_path
from nbqueue.executors.messages import Handed
from nbqueue.running.handing import put_together
from nbqueue.running.run import Ending
from nbqueue.running.shipping import classes_in, pack_classes, parcel_of
from nbqueue.store import ReportKind
from nbqueue.wire import ChannelClosedError, WireError, pack_error

if TYPE_CHECKING:
    from nbqueue.executors.children import Child
    from nbqueue.handlers.handler import Handler
    from nbqueue.running.run import Attempt
    from nbqueue.store import Report

__all__ = ["Conversation"]

_FAREWELL = 0.2


#: The environment as the system has it, which is compared many times faster than as text.
_environment: Any = getattr(os.environ, "_data", os.environ)


class Surroundings(NamedTuple):
    """Where a process runs: its directory, where it imports from, and its environment."""

    directory: str
    path: list[str]
    environment: dict[Any, Any]

    @classmethod
    def here(cls) -> Self:
        """Give this process's."""
        try:
            directory = os.getcwd()  # noqa: PTH109 - before every job, and Path takes ten times as long
        except FileNotFoundError:
            directory = ""
        return cls(directory, import_path(), _environment.copy())

    def message(self) -> tuple[str, list[str], dict[str, str]]:
        """Give it as it travels."""
        return self.directory, self.path, dict(os.environ)


class Conversation:
    """One attempt in a child.

    Parameters
    ----------
    child : Child
        Ready, and idle.
    attempt : Attempt
        Which has begun.
    grace : float
        Seconds from being told to stop to being killed.
    """

    def __init__(self, child: Child, attempt: Attempt, grace: float):
        self._child = child
        self._attempt = attempt
        self._grace = grace
        #: When it was to be told to stop, and whether it was told.
        self._stop_at: float | None = None
        self._told = False
        #: The child runs nothing any more.
        self.over = False

    # -- from any thread

    def stop(self, told: float) -> None:
        """Have it stop; ``told`` is since when, by ``time.monotonic``."""
        self._stop_at = told
        self._child.wake()

    # -- in the slot's thread

    def open(self, handler: Handler) -> None:
        """Send the job.

        Raises
        ------
        InvalidCommand
            If it uses what cannot be sent; nothing was.
        """
        child, attempt = self._child, self._attempt
        parcel = parcel_of(handler)
        whose = handler.name, handler.origin
        data = None if child.parcels.get(whose) == parcel.number else parcel.data
        classes = {
            name: kind
            for name, kind in classes_in(attempt.claim.payload).items()
            if child.classes.get(name) is not kind
        }
        packed = pack_classes(classes) if classes else None
        here = Surroundings.here()
        where = None if here == child.surroundings else here.message()
        child.streams.listen_for(attempt.context.capture)
        child.jobs += 1
        channel = child.channel
        assert channel is not None
        try:
            channel.send(
                ("job", attempt.claim, attempt.context.started, whose, parcel.number, data, packed, where)
            )
        except ChannelClosedError:
            # It has gone, and how is found out where it is heard out.
            return
        child.parcels[whose] = parcel.number
        child.classes |= classes
        child.surroundings = here

    def hear_out(self, *, again: bool = False) -> Report | None:
        """Listen until the attempt has ended; None if the child has gone and had not begun it.

        Parameters
        ----------
        again : bool
            It happened before: two in a row are no accident, and what is the matter is told.
        """
        child, attempt = self._child, self._attempt
        try:
            return self._listen()
        except (ChannelClosedError, WireError) as error:
            self.over = True
            if isinstance(error, WireError):
                child.kill()
            ended = child.ended()
            child.streams.listen_for(None)
            begun = child.mark.get() == attempt.claim.fence
            if not (begun or again or attempt.context.stop_reason is not None):
                return None
            how = (
                f"what the process that ran it said is not understood: {error}"
                if isinstance(error, WireError)
                else ended.how
            )
            return attempt.report(attempt.died(how, ended.cause), usage=ended.usage)

    def _listen(self) -> Report:
        child, channel = self._child, self._child.channel
        assert channel is not None
        while True:
            if child.wait(self._see_to_its_end()):
                try:
                    message = channel.recv(timeout=_FAREWELL)
                except TimeoutError:
                    # A long one is under way.
                    continue
                if (report := self._take(message)) is not None:
                    return report
            elif not child.alive:
                # Something that it left behind holds its end of the channel.
                raise ChannelClosedError("the process has ended")

    def _see_to_its_end(self) -> float | None:
        """Do what is to be done about a job that is to stop; gives the seconds until there is more to do."""
        stop_at = self._stop_at
        if stop_at is None:
            return None
        if not self._told:
            self._told = True
            reason = self._attempt.context.stop_reason
            assert self._child.channel is not None
            assert reason is not None
            self._child.channel.send(("stop", self._attempt.claim.fence, reason.value, self._grace))
        left = stop_at + self._grace - time.monotonic()
        if left <= 0:
            self._child.kill()
            return _FAREWELL
        return left

    # -- what the child says

    def _take(self, message: Any) -> Report | None:
        """Take in one message; gives the report, if it is the last."""
        try:
            kind, *parts = message
            take = self._takes[kind]
        except (TypeError, ValueError, KeyError) as error:
            raise WireError(f"it sent {message!r:.60}") from error
        # What it has written was written before; half a line only where the job waits for the answer.
        self._child.streams.listen(age=0.0 if kind == "ask" else math.inf)
        try:
            report: Report | None = take(self, *parts)
        except (TypeError, ValueError, AttributeError) as error:
            raise WireError(f"it sent {message!r:.60}, which cannot be taken ({error})") from error
        return report

    def _take_log(self, text: str) -> None:
        self._attempt.context.capture.write("log", str(text))

    def _take_progress(self, done: float, total: float | None, note: str) -> None:
        self._attempt.context.progress(done, total, note)

    def _take_question(self, number: int, what: str, *parts: Any) -> None:
        answer: Any
        try:
            answer = self._answers[what](self, *parts)
        except Exception as error:
            answer = pack_error(error)
        assert self._child.channel is not None
        self._child.channel.send(("answer", number, answer))

    def _show(self, text: str, display_id: str, update: bool) -> None:  # noqa: FBT001 - as it comes
        self._attempt.context.capture.take(text, display_id=display_id, update=update)

    def _clear(self, wait: bool) -> None:  # noqa: FBT001 - as it comes
        self._attempt.context.capture.clear(wait=wait)

    def _key(self) -> bytes:
        return self._attempt.runner.services.key()

    def _dispatch(self, handed: Handed) -> tuple[Any, ...]:
        services = self._attempt.runner.services
        receipt = services.dispatcher.dispatch(put_together(handed, services.key))
        at = receipt.scheduled_at
        return receipt.job_id, receipt.command, receipt.queue, None if at is None else at.timestamp()

    def _take_end(self, fields: tuple[Any, ...], usage: str, cpu_seconds: float, reusable: bool) -> Report:  # noqa: FBT001 - as it comes
        child, attempt = self._child, self._attempt
        child.streams.listen(last=True)
        child.streams.listen_for(None)
        child.cpu_seconds = cpu_seconds
        self.over = not reusable
        return attempt.report(Ending(ReportKind(fields[0]), *fields[1:]), usage=usage)

    _takes: dict[str, Callable[..., Any]] = {  # noqa: RUF012 - nobody changes it
        "log": _take_log,
        "progress": _take_progress,
        "ask": _take_question,
        "ended": _take_end,
    }
    _answers: dict[str, Callable[..., Any]] = {  # noqa: RUF012 - nobody changes it
        "show": _show,
        "clear": _clear,
        "progress": _take_progress,
        "key": _key,
        "dispatch": _dispatch,
    }
