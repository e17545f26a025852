"""The state machine: from where a job stands and what happened to where it stands then and what to write.

The only one in the project: stores use it live, in recovery and in tests. It knows no store, no clock and no
randomness; those come in as arguments.

::

                        ┌── released, interrupted, refused, retrying ──┐
                        ▼                                              │
    dispatched ──▶   pending ── claimed ──▶ running ───────────────────┤
                        │                   │  (cancelling)            ├──▶ succeeded
                        └── cancelled ──▶   └──▶ cancelled             └──▶ failed
                        ▲
                        └── retried ── from succeeded, failed, cancelled, and from a wait
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from nbqueue.jobs import Spec, State

__all__ = [
    "CRASHES_MAX",
    "LIFECYCLE_EVENTS",
    "STATE_AFTER",
    "CancelAsked",
    "Claimed",
    "Ended",
    "Event",
    "Life",
    "Lost",
    "Outcome",
    "Refused",
    "Released",
    "RetryAsked",
    "Step",
    "What",
    "advance",
]

#: So many deaths of its worker while it ran, and a job is failed instead of tried again.
CRASHES_MAX = 3


class Event(StrEnum):
    """What is written down; the history of a job is the list of its events."""

    DISPATCHED = "dispatched"
    CLAIMED = "claimed"
    SUCCEEDED = "succeeded"
    RETRYING = "retrying"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    RELEASED = "released"
    REFUSED = "refused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    RETRIED = "retried"
    # These say something of a job without moving it.
    STALE = "stale"
    PROGRESS = "progress"
    LOG = "log"
    OUTPUT = "output"
    USAGE = "usage"


#: The state that each event leaves a job in; what is not here does not move it.
STATE_AFTER: dict[Event, State] = {
    Event.DISPATCHED: State.PENDING,
    Event.CLAIMED: State.RUNNING,
    Event.SUCCEEDED: State.SUCCEEDED,
    Event.RETRYING: State.PENDING,
    Event.FAILED: State.FAILED,
    Event.INTERRUPTED: State.PENDING,
    Event.RELEASED: State.PENDING,
    Event.REFUSED: State.PENDING,
    Event.CANCELLING: State.RUNNING,
    Event.CANCELLED: State.CANCELLED,
    Event.RETRIED: State.PENDING,
}

LIFECYCLE_EVENTS: tuple[Event, ...] = tuple(STATE_AFTER)


class Outcome(StrEnum):
    """How an attempt that ran to its end ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    #: The child process that ran it died; its kernel did not.
    CRASHED = "crashed"
    #: It stopped because it had been asked to.
    CANCELLED = "cancelled"
    #: It was told to stop, did not, and was left behind by its worker: it may be running still.
    STUCK = "stuck"


# Every job passes twice. A look at a member of an enum takes 0.07 us, and a NamedTuple is made in Python code: a life
# in 0.35 us, where the tuple that it is takes 0.2.
_PENDING, _RUNNING, _SUCCEEDED = State.PENDING, State.RUNNING, State.SUCCEEDED
_AS_SUCCEEDED, _EVENT_CLAIMED, _EVENT_SUCCEEDED = Outcome.SUCCEEDED, Event.CLAIMED, Event.SUCCEEDED
_new = tuple.__new__


class Life(NamedTuple):
    """Where a job stands, as far as its next step depends on it."""

    state: State = State.PENDING
    #: Attempts begun so far; those given back do not count.
    attempt: int = 0
    #: Attempts spent before somebody retried it by hand: the allowance starts anew from there.
    base: int = 0
    crashes: int = 0
    #: The current claim's number, of the last claim where there is none.
    fence: int = 0
    #: Attempts it is allowed, settled by the claim that begins the first of them.
    tries: int = 1
    #: Seconds since the epoch before which it may not run; None for none.
    due_at: float | None = None
    #: Somebody asked for it to stop while it runs.
    cancelling: bool = False
    #: Nobody here may run it (untrusted payload); a retry lifts that.
    held: bool = False

    @property
    def max_attempts(self) -> int:
        """The number of the attempt that is its last."""
        return self.base + self.tries


class Claimed(NamedTuple):
    """A worker takes it; ``tries`` is what applies if the job names none."""

    fence: int
    tries: int = 1


class Ended(NamedTuple):
    """Its attempt ran to an end."""

    fence: int
    outcome: Outcome
    #: Dotted names of the error's classes, most special first.
    kinds: tuple[str, ...] = ()


class Lost(NamedTuple):
    """The worker, kernel or owner that had it died; ``begun``: the job had really been started."""

    fence: int
    begun: bool


class Released(NamedTuple):
    """Its worker gave it back."""

    fence: int


class Refused(NamedTuple):
    """Its worker may not run it: the payload is not trusted or cannot be read here."""

    fence: int


class CancelAsked(NamedTuple):
    """Somebody wants it cancelled."""


class RetryAsked(NamedTuple):
    """Somebody wants it run again, now, with a fresh allowance."""


What = Claimed | Ended | Lost | Released | Refused | CancelAsked | RetryAsked


class Step(NamedTuple):
    """What follows: the new standing, and the event to write (None: nothing to write)."""

    life: Life
    event: Event | None
    #: Why nothing was changed; "" where something was, or where it was so already.
    refusal: str = ""
    #: Why it ended so, where the event alone does not say: "error", "timeout", "crashed", "crashes", "stuck".
    cause: str = ""


def advance(life: Life, what: What, spec: Spec, *, now: float, chance: float = 0.5) -> Step:
    """Say what follows from ``what`` happening to a job that stands at ``life``.

    Parameters
    ----------
    life : Life
        Where the job stands.
    what : What
        What happened.
    spec : Spec
        What was asked for: tries and the retry policy.
    now : float
        Seconds since the epoch.
    chance : float
        In [0, 1), for the jitter of the backoff.

    Returns
    -------
    Step
        The new standing and what to write. A report under another claim than the current one, or of a job that
        does not run, changes nothing and is written as ``stale``.
    """
    if isinstance(what, Claimed):
        return _claim(life, what, spec)
    if isinstance(what, CancelAsked):
        return _cancel(life)
    if isinstance(what, RetryAsked):
        return _retry(life)
    if life.state is not _RUNNING:
        return Step(life, Event.STALE, f"the job is {life.state.value}, not running")
    if what.fence != life.fence:
        return Step(
            life, Event.STALE, f"claim {what.fence} was taken back; the job runs under claim {life.fence}"
        )
    if isinstance(what, Ended):
        return _end(life, what, spec, now, chance)
    return _give_back(life, what)


def _claim(life: Life, what: Claimed, spec: Spec) -> Step:
    state, attempt, base, crashes, _, tries, _, _, held = life
    if state is not _PENDING:
        return Step(life, None, f"the job is {state.value}, not pending")
    if held:
        return Step(life, None, "the job is held: nobody here may run it")
    # A worker that allows fewer does not take back what another has promised: attempt 3 of 1 would be nonsense.
    tries = spec.tries or (tries if attempt > base else what.tries)
    claimed = _new(Life, (_RUNNING, attempt + 1, base, crashes, what.fence, tries, None, False, False))
    return _new(Step, (claimed, _EVENT_CLAIMED, "", ""))


def _end(life: Life, what: Ended, spec: Spec, now: float, chance: float) -> Step:
    outcome = what.outcome
    if outcome is _AS_SUCCEEDED:
        return _new(Step, (_ended(life, _SUCCEEDED), _EVENT_SUCCEEDED, "", ""))
    if outcome is Outcome.CANCELLED or (life.cancelling and outcome is not Outcome.STUCK):
        return Step(_ended(life, State.CANCELLED), Event.CANCELLED, cause="cancelled")
    cause = _CAUSES[outcome]
    # Nobody may say of it that it was cancelled: that would mean that it has stopped.
    spent = life.attempt >= life.max_attempts or life.cancelling
    if spent or (outcome is Outcome.FAILED and not spec.retry.allows(what.kinds)):
        return Step(_ended(life, State.FAILED), Event.FAILED, cause=cause)
    wait = spec.retry.delay(life.attempt - life.base, chance)
    due_at = now + wait
    return Step(_pending(life, life.attempt, due_at=due_at), Event.RETRYING, cause=cause)


_CAUSES = {
    Outcome.FAILED: "error",
    Outcome.TIMED_OUT: "timeout",
    Outcome.CRASHED: "crashed",
    Outcome.STUCK: "stuck",
}


def _give_back(life: Life, what: Lost | Released | Refused) -> Step:
    if life.cancelling:
        return Step(_ended(life, State.CANCELLED), Event.CANCELLED, cause="cancelled")
    refunded = life.attempt - 1
    if isinstance(what, Released):
        return Step(_pending(life, refunded), Event.RELEASED)
    if isinstance(what, Refused):
        return Step(_pending(life, refunded, held=True), Event.REFUSED, cause="untrusted")
    crashes = life.crashes + what.begun
    if crashes >= CRASHES_MAX:
        ended = _ended(life._replace(crashes=crashes), State.FAILED)
        return Step(ended, Event.FAILED, cause="crashes")
    return Step(_pending(life._replace(crashes=crashes), refunded), Event.INTERRUPTED, cause="interrupted")


def _cancel(life: Life) -> Step:
    if life.state.ended:
        return Step(life, None, f"the job has {_ENDED_AS[life.state]} already")
    if life.state is State.PENDING:
        return Step(_ended(life, State.CANCELLED), Event.CANCELLED, cause="cancelled")
    if life.cancelling:
        return Step(life, None)
    return Step(life._replace(cancelling=True), Event.CANCELLING)


_ENDED_AS = {State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.CANCELLED: "been cancelled"}


def _retry(life: Life) -> Step:
    if life.state is State.RUNNING:
        return Step(life, None, "the job is running; cancel it first, or let it end")
    waits = life.due_at is not None or life.held
    if life.state is State.PENDING and not waits:
        return Step(life, None, "the job is pending already and waits for a worker")
    if life.state is State.PENDING:
        return Step(life._replace(due_at=None, held=False), Event.RETRIED)
    return Step(Life(State.PENDING, life.attempt, life.attempt, 0, life.fence, life.tries), Event.RETRIED)


def _ended(life: Life, state: State) -> Life:
    _, attempt, base, crashes, fence, tries, _, _, _ = life
    return _new(Life, (state, attempt, base, crashes, fence, tries, None, False, False))


def _pending(life: Life, attempt: int, *, due_at: float | None = None, held: bool = False) -> Life:
    return Life(State.PENDING, attempt, life.base, life.crashes, life.fence, life.tries, due_at, False, held)
