"""The state machine, case by case; every (state, what happened) pair is in the table or a test says which is not."""

from __future__ import annotations

import itertools
import typing
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.jobs import Spec, State
from nbqueue.lifecycle import (
    CRASHES_MAX,
    LIFECYCLE_EVENTS,
    STATE_AFTER,
    CancelAsked,
    Claimed,
    Ended,
    Event,
    Life,
    Lost,
    Outcome,
    Refused,
    Released,
    RetryAsked,
    Step,
    What,
    advance,
)
from nbqueue.retry import RetryPolicy

PENDING, RUNNING = State.PENDING, State.RUNNING
SUCCEEDED, FAILED, CANCELLED = State.SUCCEEDED, State.FAILED, State.CANCELLED

NOW = 1_000.0
#: 10 s before the second try, 20 s before every later one.
SPEC = Spec("work", retry=RetryPolicy(backoff=(10.0, 20.0), give_up_on=("builtins.KeyError",)))
KEY_ERROR = ("builtins.KeyError", "builtins.LookupError", "builtins.Exception", "builtins.BaseException")
OS_ERROR = ("builtins.OSError", "builtins.Exception", "builtins.BaseException")

# Where jobs stand before: three tries, claim 7.
FIRST = Life(RUNNING, attempt=1, fence=7, tries=3)
SECOND = Life(RUNNING, attempt=2, fence=7, tries=3)
THIRD = Life(RUNNING, attempt=3, fence=7, tries=3)
CRASHED_TWICE = Life(RUNNING, attempt=1, crashes=2, fence=7, tries=3)
STOPPING = Life(RUNNING, attempt=1, fence=7, tries=3, cancelling=True)
AGAIN = Life(RUNNING, attempt=4, base=3, fence=9, tries=3)  # retried by hand after three
NEW = Life()
DELAYED = Life(due_at=1_060.0)
WAITING = Life(attempt=1, fence=7, tries=3, due_at=1_010.0)
HELD = Life(attempt=0, fence=7, tries=3, held=True)
GIVEN_BACK = Life(attempt=0, fence=7, tries=3)
DONE = Life(SUCCEEDED, attempt=1, fence=7, tries=3)
BROKEN = Life(FAILED, attempt=3, fence=7, tries=3)
KILLED = Life(FAILED, attempt=1, crashes=3, fence=7, tries=3)
DROPPED = Life(CANCELLED, attempt=1, fence=7, tries=3)
NEVER_RUN = Life(CANCELLED)


class Case(NamedTuple):
    before: Life
    what: What
    after: Life
    event: Event | None
    cause: str = ""
    refusal: str = ""
    spec: Spec = SPEC


def unchanged(before: Life, what: What, refusal: str = "") -> Case:
    return Case(before, what, before, None, refusal=refusal)


def stale(before: Life, what: What, refusal: str) -> Case:
    return Case(before, what, before, Event.STALE, refusal=refusal)


REPORTS: tuple[What, ...] = (
    *(Ended(7, outcome) for outcome in Outcome),
    Lost(7, begun=True),
    Lost(7, begun=False),
    Released(7),
    Refused(7),
)

CLAIMS = {
    "new": Case(NEW, Claimed(7, 3), FIRST, Event.CLAIMED),
    "own tries win": Case(
        NEW, Claimed(7, 3), Life(RUNNING, 1, fence=7, tries=5), Event.CLAIMED, spec=SPEC._replace(tries=5)
    ),
    "delay is over": Case(DELAYED, Claimed(7, 3), FIRST, Event.CLAIMED),
    "second try": Case(WAITING, Claimed(8, 3), Life(RUNNING, 2, fence=8, tries=3), Event.CLAIMED),
    "a worker of fewer tries": Case(
        WAITING, Claimed(8, 1), Life(RUNNING, 2, fence=8, tries=3), Event.CLAIMED
    ),
    "a worker of more tries": Case(WAITING, Claimed(8, 9), Life(RUNNING, 2, fence=8, tries=3), Event.CLAIMED),
    "given back": Case(GIVEN_BACK, Claimed(8, 2), Life(RUNNING, 1, fence=8, tries=2), Event.CLAIMED),
    "crashes are kept": Case(
        Life(crashes=2, fence=7, tries=3), Claimed(8, 3), Life(RUNNING, 1, 0, 2, 8, 3), Event.CLAIMED
    ),
    "retried by hand": Case(
        Life(attempt=3, base=3, fence=7, tries=3), Claimed(9, 3), Life(RUNNING, 4, 3, 0, 9, 3), Event.CLAIMED
    ),
    "held": unchanged(HELD, Claimed(8, 3), "the job is held: nobody here may run it"),
    "running": unchanged(FIRST, Claimed(8, 3), "the job is running, not pending"),
    "succeeded": unchanged(DONE, Claimed(8, 3), "the job is succeeded, not pending"),
    "failed": unchanged(BROKEN, Claimed(8, 3), "the job is failed, not pending"),
    "cancelled": unchanged(DROPPED, Claimed(8, 3), "the job is cancelled, not pending"),
}

ENDS = {
    "succeeded": Case(FIRST, Ended(7, Outcome.SUCCEEDED), DONE, Event.SUCCEEDED),
    "succeeded at last": Case(
        THIRD, Ended(7, Outcome.SUCCEEDED), Life(SUCCEEDED, 3, fence=7, tries=3), Event.SUCCEEDED
    ),
    "succeeded though asked to stop": Case(STOPPING, Ended(7, Outcome.SUCCEEDED), DONE, Event.SUCCEEDED),
    "failed, is tried again": Case(
        FIRST, Ended(7, Outcome.FAILED, OS_ERROR), WAITING, Event.RETRYING, "error"
    ),
    "failed twice, waits longer": Case(
        SECOND,
        Ended(7, Outcome.FAILED, OS_ERROR),
        Life(attempt=2, fence=7, tries=3, due_at=1_020.0),
        Event.RETRYING,
        "error",
    ),
    "failed the last try": Case(THIRD, Ended(7, Outcome.FAILED, OS_ERROR), BROKEN, Event.FAILED, "error"),
    "failed, policy gives up": Case(
        FIRST, Ended(7, Outcome.FAILED, KEY_ERROR), Life(FAILED, 1, fence=7, tries=3), Event.FAILED, "error"
    ),
    "failed after a retry by hand": Case(
        AGAIN._replace(fence=7),
        Ended(7, Outcome.FAILED),
        Life(attempt=4, base=3, fence=7, tries=3, due_at=1_010.0),
        Event.RETRYING,
        "error",
    ),
    "failed when asked to stop": Case(
        STOPPING, Ended(7, Outcome.FAILED), DROPPED, Event.CANCELLED, "cancelled"
    ),
    "timed out": Case(FIRST, Ended(7, Outcome.TIMED_OUT), WAITING, Event.RETRYING, "timeout"),
    "timed out at last": Case(THIRD, Ended(7, Outcome.TIMED_OUT), BROKEN, Event.FAILED, "timeout"),
    # The policy speaks of errors; a timeout is none that it could name.
    "timed out, policy is not asked": Case(
        FIRST, Ended(7, Outcome.TIMED_OUT, KEY_ERROR), WAITING, Event.RETRYING, "timeout"
    ),
    "timed out when asked to stop": Case(
        STOPPING, Ended(7, Outcome.TIMED_OUT), DROPPED, Event.CANCELLED, "cancelled"
    ),
    "crashed": Case(FIRST, Ended(7, Outcome.CRASHED), WAITING, Event.RETRYING, "crashed"),
    "crashed at last": Case(THIRD, Ended(7, Outcome.CRASHED), BROKEN, Event.FAILED, "crashed"),
    "crashed when asked to stop": Case(
        STOPPING, Ended(7, Outcome.CRASHED), DROPPED, Event.CANCELLED, "cancelled"
    ),
    "stuck": Case(FIRST, Ended(7, Outcome.STUCK), WAITING, Event.RETRYING, "stuck"),
    "stuck at last": Case(THIRD, Ended(7, Outcome.STUCK), BROKEN, Event.FAILED, "stuck"),
    # It was not cancelled, since that would mean that it has stopped.
    "stuck when asked to stop": Case(
        STOPPING, Ended(7, Outcome.STUCK), Life(FAILED, 1, fence=7, tries=3), Event.FAILED, "stuck"
    ),
    "stopped as asked": Case(STOPPING, Ended(7, Outcome.CANCELLED), DROPPED, Event.CANCELLED, "cancelled"),
    "stopped by itself": Case(FIRST, Ended(7, Outcome.CANCELLED), DROPPED, Event.CANCELLED, "cancelled"),
}

RETURNS = {
    "released": Case(FIRST, Released(7), GIVEN_BACK, Event.RELEASED),
    "released, was last": Case(THIRD, Released(7), Life(attempt=2, fence=7, tries=3), Event.RELEASED),
    "released when asked to stop": Case(STOPPING, Released(7), DROPPED, Event.CANCELLED, "cancelled"),
    "refused": Case(FIRST, Refused(7), HELD, Event.REFUSED, "untrusted"),
    "refused when asked to stop": Case(STOPPING, Refused(7), DROPPED, Event.CANCELLED, "cancelled"),
    "lost ahead": Case(FIRST, Lost(7, begun=False), GIVEN_BACK, Event.INTERRUPTED, "interrupted"),
    "lost ahead after two crashes": Case(
        CRASHED_TWICE, Lost(7, begun=False), Life(crashes=2, fence=7, tries=3), Event.INTERRUPTED, "interrupted"
    ),
    "lost": Case(FIRST, Lost(7, begun=True), Life(crashes=1, fence=7, tries=3), Event.INTERRUPTED, "interrupted"),
    "lost on its last try": Case(
        THIRD, Lost(7, begun=True), Life(attempt=2, crashes=1, fence=7, tries=3), Event.INTERRUPTED, "interrupted"
    ),
    "lost the third time": Case(CRASHED_TWICE, Lost(7, begun=True), KILLED, Event.FAILED, "crashes"),
    "lost when asked to stop": Case(
        STOPPING, Lost(7, begun=True), DROPPED, Event.CANCELLED, "cancelled"
    ),
}  # fmt: skip

ASKED = {
    "cancel new": Case(NEW, CancelAsked(), NEVER_RUN, Event.CANCELLED, "cancelled"),
    "cancel delayed": Case(DELAYED, CancelAsked(), NEVER_RUN, Event.CANCELLED, "cancelled"),
    "cancel waiting": Case(WAITING, CancelAsked(), DROPPED, Event.CANCELLED, "cancelled"),
    "cancel held": Case(
        HELD, CancelAsked(), Life(CANCELLED, 0, fence=7, tries=3), Event.CANCELLED, "cancelled"
    ),
    "cancel running": Case(FIRST, CancelAsked(), STOPPING, Event.CANCELLING),
    "cancel twice": unchanged(STOPPING, CancelAsked()),
    "cancel succeeded": unchanged(DONE, CancelAsked(), "the job has succeeded already"),
    "cancel failed": unchanged(BROKEN, CancelAsked(), "the job has failed already"),
    "cancel cancelled": unchanged(DROPPED, CancelAsked(), "the job has been cancelled already"),
    "retry new": unchanged(NEW, RetryAsked(), "the job is pending already and waits for a worker"),
    "retry given back": unchanged(
        GIVEN_BACK, RetryAsked(), "the job is pending already and waits for a worker"
    ),
    "retry delayed": Case(DELAYED, RetryAsked(), NEW, Event.RETRIED),
    "retry waiting": Case(WAITING, RetryAsked(), Life(attempt=1, fence=7, tries=3), Event.RETRIED),
    "retry held": Case(HELD, RetryAsked(), GIVEN_BACK, Event.RETRIED),
    "retry running": unchanged(FIRST, RetryAsked(), "the job is running; cancel it first, or let it end"),
    "retry stopping": unchanged(STOPPING, RetryAsked(), "the job is running; cancel it first, or let it end"),
    "retry succeeded": Case(DONE, RetryAsked(), Life(attempt=1, base=1, fence=7, tries=3), Event.RETRIED),
    "retry failed": Case(BROKEN, RetryAsked(), Life(attempt=3, base=3, fence=7, tries=3), Event.RETRIED),
    "retry killed": Case(KILLED, RetryAsked(), Life(attempt=1, base=1, fence=7, tries=3), Event.RETRIED),
    "retry cancelled": Case(DROPPED, RetryAsked(), Life(attempt=1, base=1, fence=7, tries=3), Event.RETRIED),
    "retry never run": Case(NEVER_RUN, RetryAsked(), NEW, Event.RETRIED),
}

LATE = {
    **{
        f"{what} {why}": stale(before, what, refusal)
        for what in REPORTS
        for why, before, refusal in (
            ("taken back", FIRST._replace(fence=8), "claim 7 was taken back; the job runs under claim 8"),
            ("taken back, stopping", STOPPING._replace(fence=8), "claim 7 was taken back; the job runs under claim 8"),
            ("of a new one", NEW, "the job is pending, not running"),
            ("of one that waits", WAITING, "the job is pending, not running"),
            ("of one that is held", HELD, "the job is pending, not running"),
            ("of a succeeded one", DONE, "the job is succeeded, not running"),
            ("of a failed one", BROKEN, "the job is failed, not running"),
            ("of a cancelled one", DROPPED, "the job is cancelled, not running"),
        )
    }
}  # fmt: skip

TABLE = {**CLAIMS, **{f"end: {k}": v for k, v in ENDS.items()}, **RETURNS, **ASKED, **LATE}


def kind(what: What) -> tuple[object, ...]:
    """What sort of happening it is; each outcome, and each way to be lost, is one of its own."""
    if isinstance(what, Ended):
        return (Ended, what.outcome)
    if isinstance(what, Lost):
        return (Lost, what.begun)
    return (type(what),)


def kinds() -> set[tuple[object, ...]]:
    found: set[tuple[object, ...]] = set()
    for happening in typing.get_args(What):
        if happening is Ended:
            found |= {(Ended, outcome) for outcome in Outcome}
        elif happening is Lost:
            found |= {(Lost, begun) for begun in (False, True)}
        else:
            found.add((happening,))
    return found


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
def test_step(case: Case) -> None:
    """From where it stands and what happened follows exactly this."""
    expected = Step(case.after, case.event, case.refusal, case.cause)
    assert advance(case.before, case.what, case.spec, now=NOW) == expected


def test_every_pair_is_in_the_table() -> None:
    """A new state, outcome or happening fails here until its cases are written."""
    said = {(case.before.state, kind(case.what)) for case in TABLE.values()}
    assert set(itertools.product(State, kinds())) - said == set()


@pytest.mark.parametrize("flag", ["cancelling", "held", "due_at"])
def test_every_flag_meets_every_happening(flag: str) -> None:
    """Each flag of a life is in the table with each happening that may come to it."""
    said = {kind(case.what) for case in TABLE.values() if getattr(case.before, flag)}
    missing = kinds() - said
    # A claim of what runs is refused for running, whether or not it is asked to stop.
    assert missing <= ({(Claimed,)} if flag == "cancelling" else set())


def test_every_event_is_placed() -> None:
    """An event moves a job to a state, or is one of the five that only say something."""
    telling = {Event.STALE, Event.PROGRESS, Event.LOG, Event.OUTPUT, Event.USAGE}
    assert set(Event) - set(LIFECYCLE_EVENTS) == telling
    reached = {case.event for case in TABLE.values()} - {None}
    assert reached == {*LIFECYCLE_EVENTS, Event.STALE} - {Event.DISPATCHED}


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
def test_event_tells_the_state(case: Case) -> None:
    """What is written is enough to know where the job stands: recovery has nothing else."""
    if case.event in STATE_AFTER:
        assert STATE_AFTER[case.event] is case.after.state


def test_jitter_is_the_callers() -> None:
    """The state machine rolls no dice: chance is an argument."""
    spec = SPEC._replace(retry=RetryPolicy(backoff=(10.0,), jitter=0.5))
    dues = [advance(FIRST, Ended(7, Outcome.FAILED), spec, now=NOW, chance=c).life.due_at for c in (0.0, 0.5)]
    assert dues == [1_005.0, 1_010.0]


# ------------------------------------------------------------------------------------------- invariants
fences = st.integers(1, 4)
happenings = st.one_of(
    st.builds(Claimed, fence=fences, tries=st.integers(1, 4)),
    st.builds(
        Ended,
        fence=fences,
        outcome=st.sampled_from(Outcome),
        kinds=st.sampled_from([(), KEY_ERROR, OS_ERROR]),
    ),
    st.builds(Lost, fence=fences, begun=st.booleans()),
    st.builds(Released, fence=fences),
    st.builds(Refused, fence=fences),
    st.just(CancelAsked()),
    st.just(RetryAsked()),
)
specs = st.builds(SPEC._replace, tries=st.one_of(st.none(), st.integers(1, 4)))


@given(st.lists(happenings, max_size=40), specs)
def test_invariants(story: list[What], spec: Spec) -> None:
    """Whatever happens in whatever order, no life breaks a rule."""
    life, rising = Life(), 0
    for what in story:
        before = life
        if isinstance(what, Claimed):
            rising += 1
            what = what._replace(fence=rising)  # noqa: PLW2901 - fences only rise
        step = advance(before, what, spec, now=NOW)
        life = step.life
        assert 0 <= life.base <= life.attempt <= life.max_attempts
        assert life.crashes <= CRASHES_MAX
        assert not (life.cancelling and life.state is not RUNNING)
        assert not ((life.held or life.due_at is not None) and life.state is not PENDING)
        assert life.fence >= before.fence
        if life != before:
            assert step.event in STATE_AFTER
            assert STATE_AFTER[step.event] is life.state
            assert not step.refusal
        if before.state.ended and life != before:
            assert isinstance(what, RetryAsked)
        fence = getattr(what, "fence", None)
        if not isinstance(what, Claimed) and fence is not None and fence != before.fence:
            assert (life, step.event) == (before, Event.STALE)
        if isinstance(what, Claimed) and life.state is RUNNING and before.state is PENDING:
            assert life.attempt == before.attempt + 1
