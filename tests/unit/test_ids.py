"""Ids of jobs: UUIDs of version 7 that only rise, whatever the clock does."""

from __future__ import annotations

import copy
import os
import pickle
import uuid

from hypothesis import given
from hypothesis import strategies as st

from nbqueue.facade.intake import new_ids
from nbqueue.ids import new_job_ids

NOW = 1_700_000_000.0
moments = st.floats(min_value=0, max_value=2**38, allow_nan=False)


@given(st.lists(st.tuples(moments, st.integers(0, 5)), max_size=20), st.randoms(use_true_random=False))
def test_rise_whatever_the_clock_does(calls: list[tuple[float, int]], random: object) -> None:
    """Each is greater than all before, within a millisecond and after the clock was set back, and is a version 7."""
    last, made = None, []
    for now, count in calls:
        made += new_job_ids(count, now=now, randomness=random.randbytes(10 * count), after=last)  # type: ignore[attr-defined]
        last = made[-1] if made else None
    assert made == sorted(set(made))
    assert {(one.version, one.variant) for one in made} <= {(7, uuid.RFC_4122)}


@given(moments)
def test_begin_with_the_time(now: float) -> None:
    """The first 48 bits are the milliseconds since the epoch, so that a look-up by id prunes."""
    (one,) = new_job_ids(1, now=now, randomness=os.urandom(10))
    assert one.int >> 80 == int(now * 1000)


def test_rise_past_the_end_of_a_millisecond() -> None:
    """Where all that is random is spent they go on in the next millisecond."""
    (last,) = new_job_ids(1, now=NOW, randomness=b"\xff" * 10)
    (after,) = new_job_ids(1, now=NOW, randomness=bytes(10), after=last)
    assert (after.version, after.int >> 80) == (7, (last.int >> 80) + 1)


def test_are_like_any_other() -> None:
    """They are made past the constructor of UUIDs; nobody can tell, here or where they are sent."""
    (made,) = new_job_ids(1, now=NOW, randomness=os.urandom(10))
    usual = uuid.UUID(int=made.int)
    slots = [name for name in uuid.UUID.__slots__ if name != "__weakref__"]
    assert [getattr(made, name) for name in slots] == [getattr(usual, name) for name in slots]
    assert (made, hash(made), str(made), repr(made)) == (usual, hash(usual), str(usual), repr(usual))
    assert (made.__reduce_ex__(4), made.fields, made.bytes) == (
        usual.__reduce_ex__(4),
        usual.fields,
        usual.bytes,
    )
    for again in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert (again, again.is_safe) == (usual, usual.is_safe)


def test_of_two_processes_differ() -> None:
    """Two that share their past, as after a fork, and make many within the same moment, make different ones."""
    (shared,) = new_job_ids(1, now=NOW, randomness=os.urandom(10))
    ours, theirs = (
        set(new_job_ids(2_000, now=NOW, randomness=os.urandom(20_000), after=shared)) for _ in range(2)
    )
    assert not ours & theirs


def test_rise_within_a_process() -> None:
    """So do those of one dispatch after another, though all come in the same moment."""
    made = [one for count in (1, 3, 0, 2) for one in new_ids(count, NOW)]
    assert made == sorted(set(made))
    assert len(made) == 6
