"""What SQS is told of jobs, whatever it answers: nothing is lost by it, and what runs stays hidden."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from nbqueue.errors import QueueUnavailable
from nbqueue.jobs import Claim, State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import Report, ReportKind
from nbqueue.stores.sqs.client import SqsTroubleError, Why
from nbqueue.stores.sqs.hand import Hand
from nbqueue.stores.sqs.sending import Post
from nbqueue.stores.sqs.settling import Settler
from nbqueue.stores.sqs.store import SQSStore
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, get, new_job
from tests.stores.sqs.behind import Sqs

Opened = Callable[..., SQSStore]
Call = Callable[..., dict[str, Any]]
DELETE, HIDE, SEND = "delete_message_batch", "change_message_visibility_batch", "send_message_batch"


def through(store: SQSStore, monkeypatch: pytest.MonkeyPatch, wrap: Callable[[Call], Call]) -> None:
    """Have the calls of a store go through this."""
    monkeypatch.setattr(store._client, "call", wrap(store._client.call))


def test_hidden_while_much_is_told(opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling SQS what has ended may take longer than a message is hidden: what still runs stays so."""
    store, other = opened(), opened()
    store.insert([new_job(clock) for _ in range(31)])
    worker, elsewhere = FakeWorker(store, lease=1e9), FakeWorker(other, lease=1e9)
    running, *ended = worker.turn(slots=31).claims
    taken: list[Claim] = []

    def slow(call: Call) -> Call:
        def answer(verb: str, *about: str, **given: Any) -> dict[str, Any]:
            if verb == DELETE:
                clock.advance(25.0)
                taken.extend(elsewhere.take(5))
            return call(verb, *about, **given)

        return answer

    with monkeypatch.context() as patch:
        through(store, patch, slow)
        worker.turn(*(Report(claim, ReportKind.ENDED, Outcome.SUCCEEDED) for claim in ended))
    assert taken == []
    assert worker.end(running).done
    assert Sqs(store).counts() == (0, 0, 0)


def test_pauses_are_short_beside_the_hiding(opened: Opened) -> None:
    """However long SQS is away, it is asked again several times while a message that was hidden still is."""

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            if len(pauses) == 8:
                self.set()
            return self.is_set()

    def away() -> None:
        raise SqsTroubleError("away", Why.DEAD)

    pauses: list[float] = []
    store = opened("&visibility=30")
    post = Post(store.address, store._client, store._queues, store._sender)
    settler = Settler(post, Hand(), iter(range(1_000)).__next__)
    settler._stopping = Impatient()
    settler._news.set()
    settler._chore = away
    settler._work()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0]


def test_a_dead_letter_as_large_as_may_be(opened: Opened, clock: FakeClock) -> None:
    """A job as large as SQS takes goes to the dead letters without its error, and is gone where it was."""
    store = opened()
    sqs, dead = Sqs(store), Sqs(store, dead=True)
    for one in (sqs, dead):
        one.client.set_queue_attributes(QueueUrl=one.url, Attributes={"MaximumMessageSize": "4096"})
    store._queues.lose("default")
    store.insert([new_job(clock)])
    (body,) = sqs.raw()
    worker = FakeWorker(store)
    worker.end(worker.take_one())
    job = new_job(clock, payload="1" * (4_096 - 64 - len(body) + len("[]")))
    store.insert([job])
    worker.end(worker.take_one(), Outcome.FAILED, error="E" * 900)
    assert sqs.counts() == (0, 0, 0)
    (letter,) = dead.bodies()
    assert (letter["id"], letter.get("dead", "")) == (str(job.job_id), "")


def test_no_room_among_the_dead_letters(
    opened: Opened, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed job that its dead-letter queue does not take is deleted all the same, or somebody would run it again."""
    store, other = opened(), opened()
    store.insert([new_job(clock, payload='"' + "x" * 2_000 + '"')])
    dead = Sqs(store, dead=True)
    dead.client.set_queue_attributes(QueueUrl=dead.url, Attributes={"MaximumMessageSize": "1024"})
    store._queues.lose("default")
    worker = FakeWorker(store)
    worker.end(worker.take_one(), Outcome.FAILED, error="E")
    clock.advance(100.0)
    assert FakeWorker(other).take() == []
    assert "does not fit into the dead letters of queue default" in caplog.text


@pytest.mark.parametrize("verb", [DELETE, HIDE])
def test_refused_for_a_while(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """What SQS calls our fault, as it does with keys and policies, is told and tried again; nothing is lost."""
    store, other = opened(), opened()
    job = new_job(clock, tries=2, retry=RetryPolicy(backoff=(500.0,)))
    store.insert([job])
    worker, elsewhere = FakeWorker(store, lease=1e9), FakeWorker(other, lease=1e9)
    claim = worker.take_one()

    def refuse(call: Call) -> Call:
        def answer(asked: str, *about: str, **given: Any) -> dict[str, Any]:
            if asked != verb:
                return call(asked, *about, **given)
            fault = {"Id": "0", "SenderFault": True, "Code": "KMS.AccessDeniedException", "Message": "no key"}
            return {"Failed": [fault]}

        return answer

    with monkeypatch.context() as patch:
        through(store, patch, refuse)
        with pytest.raises(QueueUnavailable, match=r"KMS.AccessDeniedException: no key"):
            worker.end(claim, Outcome.SUCCEEDED if verb == DELETE else Outcome.FAILED)
    worker.turn()
    clock.advance(100.0)
    assert elsewhere.take() == []
    assert Sqs(store).counts() == ((0, 0, 0) if verb == DELETE else (0, 1, 0))


def test_dead_letters_that_are_not_allowed(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead-letter queue that says no keeps no success from being told; what failed stays hidden until it may go."""
    store, other = opened(), opened()
    store.insert([new_job(clock) for _ in range(2)])
    worker, elsewhere = FakeWorker(store, lease=1e9), FakeWorker(other, lease=1e9)
    good, bad = worker.turn(slots=2).claims

    def deny(call: Call) -> Call:
        def answer(verb: str, *about: str, **given: Any) -> dict[str, Any]:
            if verb == SEND and given["QueueUrl"].endswith("_dead"):
                raise SqsTroubleError("denied", Why.DENIED)
            return call(verb, *about, **given)

        return answer

    reports = [
        Report(claim, ReportKind.ENDED, outcome, error="E")
        for claim, outcome in ((bad, Outcome.FAILED), (good, Outcome.SUCCEEDED))
    ]
    with monkeypatch.context() as patch:
        through(store, patch, deny)
        with pytest.raises(QueueUnavailable, match="denied"):
            worker.turn(*reports)
        assert Sqs(store).counts() == (0, 1, 0)
        for _ in range(25):
            clock.advance(25.0)
            with pytest.raises(QueueUnavailable, match="denied"):
                worker.turn()
        assert elsewhere.take() == []
    worker.turn()
    assert Sqs(store).counts() == (0, 0, 0)
    assert Sqs(store, dead=True).counts() == (1, 0, 0)


def test_given_back_while_it_is_hidden(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is about to hide a message does not hide what another one gives back meanwhile."""
    store = opened()
    store.insert([new_job(clock)])
    worker = FakeWorker(store, lease=1e9)
    worker.take_one()
    clock.advance(30.0)
    asked, given_back = threading.Event(), threading.Event()

    def late(call: Call) -> Call:
        def answer(verb: str, *about: str, **given: Any) -> dict[str, Any]:
            if threading.current_thread() is hider and verb == HIDE:
                asked.set()
                given_back.wait(0.3)
            return call(verb, *about, **given)

        return answer

    hider = threading.Thread(target=store._settler.renew)
    with monkeypatch.context() as patch:
        through(store, patch, late)
        hider.start()
        assert asked.wait(60.0)
        worker.leave()
        given_back.set()
        hider.join()
    assert Sqs(store).counts() == (1, 0, 0)


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED])
def test_after_standing_still(
    opened: Opened, clock: FakeClock, caplog: pytest.LogCaptureFixture, outcome: Outcome
) -> None:
    """What a process that stood still too long had is somebody else's now: that is said, and their run goes on."""
    store, other = opened(), opened()
    job = new_job(clock, tries=3, retry=RetryPolicy(backoff=(0.0,)))
    store.insert([job])
    worker, elsewhere = FakeWorker(store, lease=1e9), FakeWorker(other, lease=1e9)
    claim = worker.take_one()
    clock.advance(61.0)
    theirs = elsewhere.take_one()
    assert worker.end(claim, outcome, error="E").done
    assert caplog.text.count(f"the message of job {job.job_id} was not kept hidden") == 1
    assert FakeWorker(opened()).take() == []
    assert elsewhere.end(theirs).done
    assert get(other, job).state is State.SUCCEEDED
    assert Sqs(store).counts() == (0, 0, 0)
