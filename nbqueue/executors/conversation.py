"""What a slot and its child say to each other about the claims that the child has, as the slot has it.

Attempts, with their contexts and captures, are the parent's: what the child tells of goes into them as it comes, so
that logs, displays and progress are where those of threads are, and are there however the child ends. Of the claims the
first runs. What stands behind it has not begun, and is taken back where that takes long.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from nbqueue.errors import NbqueueError
from nbqueue.executors.children import import_path
from nbqueue.executors.messages import Handed
from nbqueue.lifecycle import Outcome
from nbqueue.running.handing import put_together
from nbqueue.running.run import Ending
from nbqueue.running.shipping import classes_in, pack_classes, parcel_of
from nbqueue.store import Report, ReportKind
from nbqueue.wire import ChannelClosedError, WireError, pack_error

if TYPE_CHECKING:
    from nbqueue.executors.children import Child
    from nbqueue.handlers.handler import Handler
    from nbqueue.jobs import Claim
    from nbqueue.running.run import Attempt

__all__ = ["Conversation", "Desk", "Surroundings"]

_FAREWELL = 0.2
#: A child that has several claims is looked after this often, seconds.
_GLANCE = 0.005
#: A job that takes so long is no tiny one: what waits behind it is taken back.
_LONG = 0.02


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


class Desk(Protocol):
    """The slot that a conversation is for."""

    @property
    def attempt(self) -> Attempt | None:
        """What runs, as far as is known here."""

    @property
    def told(self) -> float | None:
        """Since when it is to stop."""

    @property
    def closed(self) -> bool:
        """Nobody wants to know any more."""

    def begin(self, claim: Claim, started: float) -> Attempt:
        """Begin the attempt of a claim that the child began at this time."""

    def end(self, report: Report, seconds: float | None = None) -> None:
        """Take the report of what ran, and how long that took."""

    def look_at_clock(self) -> None:
        """Give times as seconds since the epoch as the clock has it now."""

    def wall(self, moment: float) -> float:
        """Give a time of ``monotonic`` as seconds since the epoch."""

    def back(self, claims: Sequence[Claim]) -> None:
        """Take back what was not begun."""

    def more(self, child: Child, had: Sequence[Claim]) -> list[tuple[Claim, int]]:
        """Give claims that may be sent behind these, with the numbers of their parcels, which the child has."""


class Conversation:
    """The claims of one child.

    Parameters
    ----------
    child : Child
        Ready, and idle.
    desk : Desk
        The slot, whose attempt has begun here and is to begin there.
    grace : float
        Seconds from being told to stop to being killed.
    """

    def __init__(self, child: Child, desk: Desk, grace: float):
        assert desk.attempt is not None
        self._child = child
        self._desk = desk
        self._grace = grace
        self._first = desk.attempt.claim
        # Once for all of them: who is held up between two looks would have them overlap.
        desk.look_at_clock()
        #: In the order in which they are run.
        self._claims: deque[Claim] = deque([self._first])
        self._lock = threading.Lock()
        #: Of what it was sent, some was taken back.
        self._took_back = False
        #: Which was told to stop.
        self._told: int | None = None
        #: When the one before was heard to have ended.
        self._ended = monotonic()
        #: The child runs nothing any more.
        self.over = False

    # -- from any thread

    @property
    def claims(self) -> list[Claim]:
        """What the child has, begun or not."""
        with self._lock:
            return list(self._claims)

    def take_back(self) -> list[Claim]:
        """Take back what has not begun; it will not."""
        with self._lock:
            if len(self._claims) < 1 + (self._desk.attempt is not None):
                return []
            fences = self._child.tickets.take_all()
            back = [claim for claim in self._claims if claim.fence in fences]
            self._claims = deque(claim for claim in self._claims if claim.fence not in fences)
            if back:
                self._took_back = self._child.stale = True
        if back:
            self._child.wake()
        return back

    def strike(self, claim: Claim) -> None:
        """Strike off what was reported."""
        with self._lock:
            if self._claims and self._claims[0] is claim:
                self._claims.popleft()

    def give_up(self, keep: int = 0) -> None:
        """Give back what was not begun, all but the first so many: the child begins nothing any more."""
        if self._desk.closed:
            # Whoever closed it sees to that.
            return
        with self._lock:
            claims = list(self._claims)
            self._claims = deque(claims[:keep])
        self._desk.back(claims[keep:])

    def waiting(self) -> int:
        """Count what has not begun."""
        with self._lock:
            return self._child.tickets.left() if len(self._claims) > 1 else 0

    # -- in the slot's thread

    def open(self, handler: Handler) -> None:
        """Send the first job, and what may go with it.

        Raises
        ------
        InvalidCommand
            If it uses what cannot be sent; nothing was.
        """
        child, attempt = self._child, self._desk.attempt
        assert attempt is not None
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
        child.streams.shared = False
        child.streams.listen_for(attempt.context.capture)
        child.jobs += 1
        job = attempt.claim, attempt.context.started, parcel.number, whose, data, packed, where
        more = [] if child.stale else self._desk.more(child, self.claims)
        self._send(job, more)
        child.parcels[whose] = parcel.number
        child.classes |= classes
        child.surroundings = here

    def _send(self, job: tuple[Any, ...] | None, more: Sequence[tuple[Claim, int]]) -> None:
        child, claims = self._child, [claim for claim, _ in more]
        if more:
            # From here on it may be another's what is written there.
            child.streams.share()
            with self._lock:
                if child.stale or not child.tickets.put([claim.fence for claim in claims]):
                    self._desk.back(claims)
                    claims, more = [], []
                else:
                    self._claims += claims
            child.jobs += len(more)
        self._tell(("jobs", job, claims, [number for _, number in more]))

    def _tell(self, message: tuple[Any, ...]) -> None:
        # That it has gone is found out where it is heard out: it may have said how jobs ended before it went.
        assert self._child.channel is not None
        with contextlib.suppress(ChannelClosedError):
            self._child.channel.send(message)

    def hear_out(self, *, again: bool = False) -> bool:
        """Listen until the child has nothing more; whether its first claim was begun, or is not to be tried again.

        Parameters
        ----------
        again : bool
            It was not begun once before: two in a row are no accident, and what is the matter is told.
        """
        try:
            while self._claims and not (self.over or self._desk.closed):
                self._turn()
        except (ChannelClosedError, WireError) as error:
            return self._see_off(error, again=again)
        if self.over:
            # What the last one left makes it unfit for others.
            self.give_up()
        return True

    def _turn(self) -> None:
        child, desk, channel = self._child, self._desk, self._child.channel
        assert channel is not None
        self._see_to_its_end()
        alone = len(self._claims) == 1 and desk.attempt is not None
        child.streams.shared = not alone
        heard = child.wait(self._patience(alone=alone), hear=alone)
        # Of what was read by now nothing can be that of a job whose predecessor's end does not come with it.
        read = child.streams.counts
        if not self._hear() and not heard and not child.alive and not self._hear():
            # Something that it left behind holds its end of the channel.
            raise ChannelClosedError("the process has ended")
        if self._catch_up():
            child.streams.give_until(*read)
        if not self.over:
            self._look_ahead()

    def _hear(self) -> bool:
        """Take what the child has said; whether that was anything."""
        assert self._child.channel is not None
        messages = self._child.channel.recv_all()
        for message in messages:
            self._take(message)
        return bool(messages)

    def _catch_up(self) -> bool:
        """Begin here what has begun there; whether there is something that has."""
        if self._desk.attempt is not None:
            return True
        with self._lock:
            claim = self._claims[0] if self._claims else None
        started = None if claim is None else self._child.board.started_of(claim.fence)
        if claim is None or started is None:
            return False
        self._begin(claim, started)
        return True

    def _begin(self, claim: Claim, started: float) -> Attempt:
        attempt = self._desk.begin(claim, started)
        self._child.streams.go_on(attempt.context.capture)
        return attempt

    def _look_ahead(self) -> None:
        """Take back what would have to wait, or send more."""
        child, attempt = self._child, self._desk.attempt
        if child.board.fence == self._first.fence:
            self._note_begun()
        # Also where none has begun for so long: it may have been stopped between two.
        since = self._ended if attempt is None else attempt.context.started
        if monotonic() - since > _LONG or self._desk.told is not None:
            self._desk.back(self.take_back())
            self._begin_what_was_taken()
        elif attempt is not None and not child.stale and (more := self._desk.more(child, self.claims)):
            self._send(None, more)

    def _begin_what_was_taken(self) -> None:
        """Begin here what the child has the ticket of: stopped before it could say so, it may not go on for long."""
        if self._desk.attempt is None and (claims := self.claims):
            self._begin(claims[0], self._ended)

    def _note_begun(self) -> None:
        """Note that the first has begun: what was taken back before that is not in its way any more."""
        with self._lock:
            self._child.stale = self._took_back

    def _patience(self, *, alone: bool) -> float | None:
        told = self._desk.told
        if told is not None and self._told is not None:
            left = told + self._grace - monotonic()
            return left if left > 0 else _FAREWELL
        return None if alone else _GLANCE

    def _see_to_its_end(self) -> None:
        """Do what is to be done about a job that is to stop."""
        told, attempt = self._desk.told, self._desk.attempt
        if told is None or attempt is None:
            return
        fence, reason = attempt.claim.fence, attempt.context.stop_reason
        assert reason is not None
        if self._told != fence:
            self._told = fence
            self._tell(("stop", fence, reason.value, self._grace))
        elif monotonic() >= told + self._grace:
            # Where it has ended by now, another may have begun; from here on none does.
            self._desk.back(self.take_back())
            self._hear()
            if self._desk.attempt is attempt:
                self._child.kill()

    def _see_off(self, error: ChannelClosedError | WireError, *, again: bool) -> bool:
        """See to what a child leaves that has gone: it costs what had begun, and nothing else."""
        child, desk = self._child, self._desk
        self.over = True
        if isinstance(error, WireError):
            child.kill()
        self._catch_up()
        ended = child.ended()
        child.streams.go_on(None)
        attempt = desk.attempt
        if attempt is None or desk.closed:
            self.give_up()
            return True
        self.give_up(keep=1)
        # What is not understood may have been how it ended.
        begun = child.board.fence == attempt.claim.fence or (
            isinstance(error, WireError) and child.board.started > attempt.context.started
        )
        if not begun and attempt.context.stop_reason is None:
            if attempt.claim is not self._first:
                desk.end(attempt.report(Ending(ReportKind.RELEASED)))
                return True
            if not again:
                return False
        how = (
            f"what the process that ran it said is not understood: {error}"
            if isinstance(error, WireError)
            else ended.how
        )
        desk.end(attempt.report(attempt.died(how, ended.cause), usage=ended.usage))
        return True

    # -- what the child says

    def _take(self, message: Any) -> None:
        """Take in one message."""
        try:
            kind, *parts = message
            take = self._takes[kind]
        except (TypeError, ValueError, KeyError) as error:
            raise WireError(f"it sent {message!r:.60}") from error
        try:
            take(self, *parts)
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise WireError(f"it sent {message!r:.60}, which cannot be taken ({error})") from error

    def _begun(self, fence: int) -> Attempt | None:
        """Give what says something, which has begun; None where it has ended, and a thread of it comes too late."""
        claims = self.claims
        if not claims or claims[0].fence != fence:
            return None
        return self._desk.attempt or self._begin(claims[0], self._child.board.started)

    @property
    def _attempt(self) -> Attempt:
        if self._desk.attempt is None:
            raise NbqueueError("the job has ended")
        return self._desk.attempt

    def _take_log(self, fence: int, text: str, written: tuple[int, int] | None) -> None:
        attempt = self._begun(fence)
        if attempt is None:
            return
        capture, streams = attempt.context.capture, self._child.streams
        # What was written before it was written before.
        if written is None:
            streams.listen_unless_shared()
        else:
            streams.give_until(*written)
        capture.write("log", str(text))

    def _take_progress(self, fence: int, *news: Any) -> None:
        if (attempt := self._begun(fence)) is not None:
            attempt.context.progress(*news)

    def _take_question(self, number: int, what: str, *parts: Any) -> None:
        answer: Any
        if self._catch_up():
            # It waits for the answer, so half a line is all there is of it, and all of it is its own.
            self._child.streams.listen(age=0.0)
        try:
            answer = self._answers[what](self, *parts)
        except Exception as error:
            answer = pack_error(error)
        self._tell(("answer", number, answer))

    def _show(self, text: str, display_id: str, update: bool) -> None:  # noqa: FBT001 - as it comes
        self._attempt.context.capture.take(text, display_id=display_id, update=update)

    def _progress(self, *news: Any) -> None:
        self._attempt.context.progress(*news)

    def _clear(self, wait: bool) -> None:  # noqa: FBT001 - as it comes
        self._attempt.context.capture.clear(wait=wait)

    def _key(self) -> bytes:
        return self._attempt.runner.services.key()

    def _dispatch(self, handed: Handed) -> tuple[Any, ...]:
        services = self._attempt.runner.services
        receipt = services.dispatcher.dispatch(put_together(handed, services.key))
        at = receipt.scheduled_at
        return receipt.job_id, receipt.command, receipt.queue, None if at is None else at.timestamp()

    def _take_end(self, fence: int, times: tuple[float, float], *said: Any) -> None:
        fields, usage, cpu_seconds, reusable, written = said
        child, desk, claim = self._child, self._desk, self._claims[0]
        if claim.fence != fence:
            raise WireError(f"it sent the end of claim {fence}, and has claim {claim.fence}")
        kind, outcome, *rest = fields
        ending = Ending(ReportKind(kind), None if outcome is None else Outcome(outcome), *rest)
        finished_at = desk.wall(times[1])
        attempt, streams = desk.attempt, child.streams
        if attempt is None and (written is None or streams.has_until(*written)):
            attempt = self._begin(claim, times[0])
        if attempt is None:
            # It has said nothing, and nobody has asked for it: an attempt would be made for nothing.
            times_here = desk.wall(times[0]), finished_at
            report = Report._make((claim, *ending[:2], *times_here, *ending[2:], (), "", usage))
        else:
            if written is None:
                streams.listen(last=True)
            else:
                streams.give_until(*written, last=True)
            streams.go_on(None)
            started_at = attempt.started_at if claim is self._first else desk.wall(times[0])
            report = attempt.report(ending, usage=usage)
            report = report._replace(started_at=started_at, finished_at=max(started_at, finished_at))
        child.cpu_seconds = cpu_seconds
        self._ended = monotonic()
        self.over = not reusable
        if claim is self._first:
            self._note_begun()
        desk.end(report, times[1] - times[0])

    _takes: dict[str, Callable[..., Any]] = {  # noqa: RUF012 - nobody changes it
        "log": _take_log,
        "progress": _take_progress,
        "ask": _take_question,
        "ended": _take_end,
    }
    _answers: dict[str, Callable[..., Any]] = {  # noqa: RUF012 - nobody changes it
        "show": _show,
        "clear": _clear,
        "progress": _progress,
        "key": _key,
        "dispatch": _dispatch,
    }
