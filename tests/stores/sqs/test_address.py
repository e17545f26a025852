"""URLs of SQS queues, and what a queue is called there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.errors import InvalidCommand, QueueUnavailable
from nbqueue.stores.sqs.address import read

_ALLOWED = re.compile(r"[A-Za-z0-9_-]{1,80}(\.fifo)?")


@given(st.text(min_size=1, max_size=5), st.booleans())
def test_names_are_reversible(queue: str, fifo: bool) -> None:
    """Whatever a queue is called, SQS takes its name, and it is read back; its dead letters are no queue."""
    queue = queue.encode("utf-8", "ignore").decode() or "q"
    address = read(f"sqs://eu-west-1/a_b-c?fifo={str(fifo).lower()}")
    name, dead = address.queue_name(queue), address.queue_name(queue, dead=True)
    assert _ALLOWED.fullmatch(name)
    assert _ALLOWED.fullmatch(dead)
    assert max(len(name), len(dead)) <= 80
    assert address.queue_of(name) == queue
    assert address.queue_of(dead) is None


def test_a_queue_of_another_prefix_is_none_of_ours() -> None:
    """A prefix that begins like another one does not make its queues ours."""
    ours, theirs = read("sqs://eu-west-1/jobs"), read("sqs://eu-west-1/jobs-test")
    assert ours.queue_of(theirs.queue_name("default")) is None
    assert theirs.queue_of(ours.queue_name("default")) is None


def test_too_long_a_name() -> None:
    """A name that SQS would not take is refused with its length."""
    with pytest.raises(InvalidCommand, match=r"96 characters, and SQS takes 80"):
        read("sqs://eu-west-1/team").queue_name("é" * 14 + "x")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqs:///team", "names no region"),
        ("sqs://AKIA:secret@eu-west-1/team", "carries no keys"),
        ("sqs://eu-west-1/my team", "cannot begin the name"),
        ("sqs://eu-west-1/a__b", "cannot begin the name"),
        ("sqs://eu west/team", "is no region"),
        ("sqs://eu-west-1/team?fifo=maybe", "fifo must be true or false"),
        ("sqs://eu-west-1/team?visibility=1", "from 2 to 43,200"),
        ("sqs://eu-west-1/team?visibilty=60", "unknown option visibilty"),
        ("sqs://eu-west-1/team?endpoint=127.0.0.1:5000", "no address of a server"),
    ],
)
def test_urls_that_are_none(url: str, says: str) -> None:
    """What is wrong with a URL is said in a sentence, which repeats no key."""
    with pytest.raises(QueueUnavailable, match=says) as caught:
        read(url)
    assert "secret" not in str(caught.value)


def test_what_makes_two_urls_the_same() -> None:
    """How a queue is used is no part of where it is; its endpoint, its profile and its kind are."""
    plain = read("sqs://eu-west-1/team")
    assert read("sqs://EU-WEST-1/team/?visibility=90&create=false&wait=1").key == plain.key
    for option in ("endpoint=http://localhost:1", "profile=x", "fifo=true", "ledger=x.duckdb"):
        assert read(f"sqs://eu-west-1/team?{option}").key != plain.key
