"""Dispatches: several requests at a time, exact about what was sent, and no job waits for the end of a long call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from nbqueue.lifecycle import Outcome
from nbqueue.stores.sqs import dispatching
from nbqueue.stores.sqs.client import SqsTroubleError, Why
from nbqueue.stores.sqs.sending import PartlySentError
from nbqueue.stores.sqs.store import SQSStore
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, events_of, ids, new_batch, new_job
from tests.stores.sqs.behind import Sqs

Opened = Callable[..., SQSStore]
SEND = "send_message_batch"


def test_requests_side_by_side(opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of several requests has some on their way at the same time."""
    store = opened()
    call, both = store._client.call, threading.Barrier(2)

    def together(verb: str, about: str = "", **given: Any) -> dict[str, Any]:
        if verb == SEND:
            both.wait(60.0)
        return call(verb, about, **given)

    monkeypatch.setattr(store._client, "call", together)
    store.insert([new_job(clock) for _ in range(20)])
    monkeypatch.setattr(store._client, "call", call)
    assert Sqs(store).counts() == (20, 0, 0)


def test_one_of_them_fails(opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a request fails beside others, each job is sent, unsent or unsure, as it is."""
    store = opened()
    jobs = [new_job(clock) for _ in range(95)]
    call = store._client.call

    def refuse(verb: str, about: str = "", **given: Any) -> dict[str, Any]:
        if str(jobs[42].job_id) in str(given):
            raise SqsTroubleError("turned down", Why.THROTTLED)
        if str(jobs[3].job_id) in str(given):
            raise SqsTroubleError("silence", Why.SILENT)
        return call(verb, about, **given)

    monkeypatch.setattr(store._client, "call", refuse)
    with pytest.raises(PartlySentError, match=r"turned down|silence") as caught:
        store.insert(jobs)
    monkeypatch.setattr(store._client, "call", call)
    said = caught.value
    assert sorted([*said.sent, *said.unsent, *said.unsure]) == sorted(ids(jobs))
    assert said.unsure == tuple(ids(jobs[:10]))
    assert set(ids(jobs[40:50])) <= set(said.unsent)
    assert {record.job_id for record in store.get(ids(jobs))} == set(said.sent)
    assert Sqs(store).counts() == (len(said.sent), 0, 0)


def test_received_before_it_is_written_down(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that comes back during a long dispatch waits for nobody, stays hidden, and runs once afterwards."""
    store, other = opened(), opened()
    batch, jobs = new_batch(clock, {str(n): f"[{n}]" for n in range(12)})
    worker, elsewhere = FakeWorker(store, lease=1e9), FakeWorker(other, lease=1e9)
    call, received = store._client.call, []

    def slow(verb: str, about: str = "", **given: Any) -> dict[str, Any]:
        answer = call(verb, about, **given)
        if verb == SEND:
            with receiving:
                received.append(store._intake.take_in(store._intake.receive("default", 10, 0.0)))
                for _ in range(4):
                    clock.advance(25.0)
                    store._settler.renew()
        return answer

    receiving = threading.Lock()
    monkeypatch.setattr(store._client, "call", slow)
    store.put_batch(batch, jobs)
    monkeypatch.setattr(store._client, "call", call)
    assert sum(received) > 0
    claims = worker.take(12)
    assert elsewhere.take(12) == []
    assert sorted(claim.job_id for claim in claims) == sorted(ids(jobs))
    assert {events_of(store, job)[0] for job in jobs} == {"dispatched"}
    for claim in claims:
        assert worker.end(claim).done
    assert Sqs(store).counts() == (0, 0, 0)


def test_a_long_call_is_written_down_as_it_goes(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first jobs of a long call may run before the last ones are sent; the error of a later one counts them."""
    store = opened()
    jobs = [new_job(clock) for _ in range(25)]
    monkeypatch.setattr(dispatching, "_TOGETHER", 10)
    call, seen = store._client.call, []

    def last_fails(verb: str, about: str = "", **given: Any) -> dict[str, Any]:
        if verb == SEND:
            seen.append(len(store.get(ids(jobs))))
        if str(jobs[15].job_id) in str(given):
            raise SqsTroubleError("turned down", Why.THROTTLED)
        return call(verb, about, **given)

    monkeypatch.setattr(store._client, "call", last_fails)
    with pytest.raises(PartlySentError, match=r"turned down. 10 of 25 jobs were sent") as caught:
        store.insert(jobs)
    monkeypatch.setattr(store._client, "call", call)
    assert seen == [0, 10]
    assert caught.value.unsent == tuple(ids(jobs[10:]))


def test_sent_and_not_written_down(opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the ledger fails after the sending, nobody says that nothing was accepted: those jobs will run."""
    store, other = opened(), opened()
    jobs = [new_job(clock) for _ in range(3)]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._desk._ledger, "commit", full)
    says = r"could not be written down in .* \(.*No space left.*\). 3 of 3 jobs were sent to .*, and those will run$"
    with pytest.raises(PartlySentError, match=says) as caught:
        store.insert(jobs)
    assert caught.value.sent == tuple(ids(jobs))
    worker = FakeWorker(other)
    for claim in worker.take(3):
        worker.end(claim, Outcome.SUCCEEDED)
    assert Sqs(store).counts() == (0, 0, 0)
