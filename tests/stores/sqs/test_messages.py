"""A job as the text of a message."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbqueue.jobs import NewJob, Spec
from nbqueue.retry import RetryPolicy
from nbqueue.stores.sqs.message import Draft, Standing, UnreadableError, read, write

_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
_SOME = st.none() | st.floats(0, 1e10)


@settings(max_examples=30)
@given(
    st.builds(
        Draft,
        st.builds(
            NewJob,
            st.uuids(),
            st.builds(
                Spec,
                _TEXT, _TEXT, st.integers(-100, 100), _TEXT, _TEXT, st.none() | st.integers(1, 99), _SOME,
                st.just(RetryPolicy(backoff=(1.0, 60.0), give_up_on=("requests.Timeout",))),
            ),
            _TEXT, _TEXT, _SOME, st.none() | st.uuids(), st.none() | _TEXT,
        ),
        st.builds(Standing, st.integers(0, 9), st.integers(0, 9), st.integers(0, 2), st.integers(1, 9)),
        st.floats(0, 1e10),
        st.none() | st.binary(min_size=1, max_size=50),
        _TEXT,
    )
)  # fmt: skip
def test_round_trip(draft: Draft) -> None:
    """All that is known of a job travels, in characters that SQS takes."""
    text = write(draft)
    assert text.isascii()
    assert min(text) >= " "
    assert read(text) == draft


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '"x"', '{"nbqueue": 1}', '{"nbqueue": 1, "id": 7, "spec": []}', "[" * 100_000, "\udc80"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_no_message_of_ours(text: str) -> None:
    """Whatever somebody puts into a queue is unreadable, and nothing worse."""
    with pytest.raises(UnreadableError):
        read(text)


def test_a_later_format() -> None:
    """A message of a later nbqueue says that it is one."""
    text = write(Draft(NewJob(uuid.uuid4(), Spec("x"), "[]"), Standing(), 0.0))
    with pytest.raises(UnreadableError, match="another nbqueue"):
        read(text.replace('"nbqueue":1', '"nbqueue":2'))
