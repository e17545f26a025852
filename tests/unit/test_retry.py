"""What a retry policy promises: how long it waits, which errors it retries, what it refuses."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.errors import InvalidCommand
from nbqueue.retry import RetryPolicy, kinds_of

chances = st.floats(0, 1, exclude_max=True)


class Flaky(ConnectionError):
    """An error of a user's own."""


def test_default_doubles_from_one_second_to_five_minutes():
    """Without jitter the default waits 1, 2, 4 … seconds and never more than 300."""
    waits = [RetryPolicy(jitter=0).delay(attempt, 0.7) for attempt in range(1, 12)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(st.integers(1, 10**9), chances)
def test_default_strays_by_a_fifth_and_stays_under_five_minutes(attempt, chance):
    """Jitter moves the default by 20 % at most, and never past 300 s, however many attempts there were."""
    plain = RetryPolicy(jitter=0).delay(attempt, chance)
    wait = RetryPolicy().delay(attempt, chance)
    assert 0.8 * plain <= wait <= min(1.2 * plain, 300)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 50), chances)
def test_given_seconds_are_kept_to_and_the_last_repeats(seconds, attempt, chance):
    """Seconds that a user wrote are waited exactly, without jitter, the last of them for all later tries."""
    assert RetryPolicy.make(backoff=seconds).delay(attempt, chance) == seconds[min(attempt, len(seconds)) - 1]
    assert (
        RetryPolicy(backoff=tuple(seconds)).delay(attempt, chance) == seconds[min(attempt, len(seconds)) - 1]
    )


def test_jitter_that_was_asked_for_applies_to_given_seconds():
    """`jitter=` moves given seconds too."""
    assert RetryPolicy.make(backoff=10, jitter=0.5).delay(1, 0.0) == 5
    assert RetryPolicy.make(backoff=10, jitter=0.5).delay(1, 0.75) == 12.5


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (None, None),
        ("exponential", None),
        (3, (3.0,)),
        (timedelta(minutes=1), (60.0,)),
        ([1, timedelta(seconds=5), 30.5], (1.0, 5.0, 30.5)),
        ((0,), (0.0,)),
    ],
)
def test_backoff_takes_what_users_write(written, kept):
    """A number, a timedelta, a list of them, "exponential" and None all mean what they say."""
    assert RetryPolicy.make(backoff=written).backoff == kept


@pytest.mark.parametrize(
    "wrong",
    [-1, math.nan, math.inf, 10**400, [], [1, -1], [None], True, "2s", Decimal(1), timedelta(-1), {1: 2}],
)
def test_backoff_refuses_what_is_no_delay(wrong):
    """Negative, endless, empty and meaningless delays are refused by a sentence that names the backoff."""
    with pytest.raises(InvalidCommand, match="backoff"):
        RetryPolicy.make(backoff=wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan, math.inf, "much", True])
def test_jitter_refuses_what_is_no_fraction(wrong):
    """Jitter is a fraction from 0 to 1 or is refused by a sentence that names it."""
    with pytest.raises(InvalidCommand, match="jitter"):
        RetryPolicy.make(jitter=wrong)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (KeyError, ("builtins.KeyError",)),
        ("KeyError", ("builtins.KeyError",)),
        ([OSError, "http.client.HTTPException"], ("builtins.OSError", "http.client.HTTPException")),
        ((KeyError, KeyError), ("builtins.KeyError",)),
        ({ValueError, KeyError}, ("builtins.KeyError", "builtins.ValueError")),
        (Flaky, (f"{__name__}.Flaky",)),
    ],
)
def test_exceptions_are_kept_by_dotted_name(written, kept):
    """A class, a name and a sequence of either are kept as dotted names."""
    assert (
        RetryPolicy.make(retry_on=written).retry_on == RetryPolicy.make(give_up_on=written).give_up_on == kept
    )


@pytest.mark.parametrize("option", ["retry_on", "give_up_on"])
@pytest.mark.parametrize(
    "wrong", [[], (), int, 3, "", "Nonsense", "no name.at all", "builtins.int", [KeyError, 3]]
)
def test_what_is_no_exception_is_refused(option, wrong):
    """An empty list or anything but an exception is refused by a sentence that names the option."""
    with pytest.raises(InvalidCommand, match=option):
        RetryPolicy.make(**{option: wrong})


def test_a_base_class_covers_its_subclasses():
    """retry_on and give_up_on match the whole ancestry of an error."""
    assert RetryPolicy.make(retry_on=OSError).allows(kinds_of(Flaky()))
    assert not RetryPolicy.make(retry_on=KeyError).allows(kinds_of(Flaky()))
    assert not RetryPolicy.make(give_up_on=ConnectionError).allows(kinds_of(Flaky()))


def test_give_up_on_wins():
    """An error that both lists name is not retried, and with neither list all are."""
    both = RetryPolicy.make(retry_on=OSError, give_up_on=Flaky)
    assert not both.allows(kinds_of(Flaky()))
    assert both.allows(kinds_of(TimeoutError()))
    assert RetryPolicy().allows(kinds_of(Flaky()))
    assert RetryPolicy().allows([])


def test_the_default_is_stored_as_nothing():
    """The default costs no bytes, and comes back from none."""
    assert RetryPolicy().to_json() == ""
    assert RetryPolicy.from_json("") == RetryPolicy()


names = st.sampled_from(["builtins.KeyError", "http.client.HTTPException", "__main__.f.<locals>.Odd"])


@given(
    st.builds(
        RetryPolicy,
        backoff=st.none() | st.lists(st.floats(0, 1e6), min_size=1).map(tuple),
        jitter=st.none() | st.floats(0, 1),
        retry_on=st.lists(names, unique=True).map(tuple),
        give_up_on=st.lists(names, unique=True).map(tuple),
    )
)
def test_json_gives_back_an_equal_policy_of_equal_hash(one):
    """A policy comes back from its text equal, with an equal hash."""
    again = RetryPolicy.from_json(one.to_json())
    assert again == one
    assert hash(again) == hash(one)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"backoff":[-1]}', '{"backoff":{}}', '{"retry_on":[3]}'])
def test_damaged_text_is_refused(text):
    """Text that holds no policy is refused with a sentence, not with a parser's error."""
    with pytest.raises(InvalidCommand):
        RetryPolicy.from_json(text)


def test_a_later_option_is_passed_over():
    """An option that a later version wrote does not keep a job from running."""
    assert RetryPolicy.from_json('{"backoff":[1],"mood":"good"}') == RetryPolicy.make(backoff=1)


def test_import_is_light():
    """Importing the module loads no data library."""
    code = "import sys, nbqueue.retry; print(sorted({'pandas', 'numpy', 'duckdb', 'IPython'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
