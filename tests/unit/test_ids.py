"""Ids of jobs: UUIDs of version 7 that only rise, whatever the clock does."""

from __future__ import annotations

import copy
import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.facade.ids import new_ids, packed_ids
from nbqueue.ids import JobIds, new_job_ids, new_packed_ids

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


@given(st.lists(st.tuples(moments, st.integers(0, 5)), max_size=20), st.randoms(use_true_random=False))
def test_packed_rise_whatever_the_clock_does(calls: list[tuple[float, int]], random: object) -> None:
    """So do those that are packed, and each is found where it stands."""
    last, made = None, []
    for now, count in calls:
        ids = new_packed_ids(count, now=now, randomness=random.randbytes(10 + 8 * count), after=last)  # type: ignore[attr-defined]
        assert [ids.find(one) for one in ids] == list(range(count))
        made += ids
        last = ids[-1] if ids else last
    assert made == sorted(set(made))
    assert {(one.version, one.variant) for one in made} <= {(7, uuid.RFC_4122)}


def test_many_packed_rise_past_what_a_word_holds() -> None:
    """Of so many the second word is spent several times, and the first goes on with it."""
    ids = new_packed_ids(100_000, now=NOW, randomness=os.urandom(800_010))
    numbers = [one.int for one in ids]
    assert numbers == sorted(set(numbers))
    assert len(set(ids.high)) > 2
    assert {(one.version, one.variant) for one in ids} == {(7, uuid.RFC_4122)}
    assert ids[0].int >> 80 == int(NOW * 1000)
    at = [0, 1, 8_191, 8_192, 8_193, 50_000, 99_999]
    assert [ids.find(ids[one]) for one in at] == at
    assert ids.find(uuid.UUID(int=ids[5].int + 1)) is None
    assert ids.find(uuid.UUID(int=0)) is ids.find(uuid.UUID(int=2**128 - 1)) is None
    assert ids[2:5] == [ids[2], ids[3], ids[4]]


def test_packed_go_on_in_the_next_millisecond() -> None:
    """Where all that is random is spent, within the rows that are made together too."""
    (last,) = new_job_ids(1, now=NOW, randomness=b"\xff" * 10)
    ids = new_packed_ids(3, now=NOW, randomness=bytes(34), after=last)
    assert (ids[0].version, ids[0].int >> 80, ids[0] > last) == (7, (last.int >> 80) + 1, True)


def test_packed_rise_among_the_others_in_all_threads() -> None:
    """Whoever makes ids, packed or not, makes none that another has, each greater than its own before."""

    def make(_thread: int) -> list[uuid.UUID]:
        return [one for count in (3, 0, 500, 1) for one in (*packed_ids(count, NOW), *new_ids(count, NOW))]

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(make, range(8)))
    assert all(ids == sorted(ids) for ids in made)
    assert len({one for ids in made for one in ids}) == 8 * 1_008


def test_halves_of_other_numbers_are_refused() -> None:
    """Damaged ones are not taken for fewer."""
    with pytest.raises(ValueError, match="2 first halves of ids go with 1 second"):
        JobIds.from_bytes(bytes(16), bytes(8))
