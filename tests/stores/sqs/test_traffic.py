"""What goes between a ledger and SQS: deliveries that come twice, waits, dead letters, hiding, and order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from nbqueue import payload
from nbqueue.errors import InvalidCommand, NotSupported, QueueError, QueueUnavailable
from nbqueue.jobs import State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import Handlers, ReportKind, Selection
from nbqueue.stores.sqs.client import SqsTroubleError, Why
from nbqueue.stores.sqs.sending import PartlySentError
from nbqueue.stores.sqs.store import ATTEMPT_MAX, SQSStore
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, events_of, get, ids, new_batch, new_job
from tests.stores.sqs.behind import Sqs

Opened = Callable[..., SQSStore]


# -- deliveries


def test_a_message_stays_until_its_job_has_ended(opened: Opened, clock: FakeClock) -> None:
    """A job is a message that is hidden while it runs, and gone when it has succeeded."""
    store = opened()
    sqs = Sqs(store)
    store.insert([new_job(clock)])
    assert sqs.counts() == (1, 0, 0)
    worker = FakeWorker(store)
    claim = worker.take_one()
    assert sqs.counts() == (0, 1, 0)
    worker.end(claim)
    assert sqs.counts() == (0, 0, 0)


def test_delivered_again_after_its_end(opened: Opened, clock: FakeClock) -> None:
    """A second delivery of a job that has ended here is deleted and recorded, and not run."""
    store = opened()
    sqs, job = Sqs(store), new_job(clock)
    store.insert([job])
    (body,) = sqs.bodies()
    worker = FakeWorker(store)
    worker.end(worker.take_one(), result="1")
    sqs.send(json.dumps(body))
    assert worker.take() == []
    assert sqs.counts() == (0, 0, 0)
    assert get(store, job).state is State.SUCCEEDED
    assert events_of(store, job)[-1] == "stale"
    (said,) = store.query("SELECT error FROM events WHERE cause = 'duplicate'")["error"]
    assert "deleted and not run" in said


def test_delivered_again_while_it_runs(opened: Opened, clock: FakeClock) -> None:
    """A second copy of a job that runs here is deleted; it ends once."""
    store = opened()
    sqs, job = Sqs(store), new_job(clock)
    store.insert([job])
    (body,) = sqs.bodies()
    worker = FakeWorker(store)
    claim = worker.take_one()
    sqs.send(json.dumps(body))
    assert worker.turn(slots=5).claims == []
    assert sqs.counts() == (0, 1, 0)
    assert worker.end(claim).done
    assert sqs.counts() == (0, 0, 0)
    assert events_of(store, job) == ["dispatched", "claimed", "stale", "succeeded"]


def test_it_came_out_while_it_ran(opened: Opened, clock: FakeClock) -> None:
    """A message that SQS could not be kept from showing again is not run twice here, and is deleted in the end."""
    store = opened()
    sqs = Sqs(store)
    store.insert([new_job(clock)])
    worker = FakeWorker(store, lease=1e9)
    claim = worker.take_one()
    sqs.client.change_message_visibility(
        QueueUrl=sqs.url, ReceiptHandle=store._hand.all()[0].receipt, VisibilityTimeout=0
    )
    assert worker.turn(slots=5).claims == []
    assert worker.end(claim).done
    assert sqs.counts() == (0, 0, 0)


def test_a_job_of_somebody_else(opened: Opened, clock: FakeClock) -> None:
    """A job that another process dispatched runs here with all that was said of it, and is in this ledger then."""
    ours, theirs = opened(), opened()
    batch = new_job(clock).job_id
    rest = {"payload": '["ü"]', "metadata": '{"a":1}', "row": "7", "batch_id": batch}
    job = new_job(clock, "x", tries=3, timeout=9.0, **rest)
    theirs.insert([job])
    clock.advance(5.0)
    worker = FakeWorker(ours)
    claim = worker.take_one()
    assert (claim.job_id, claim.spec, claim.payload, claim.metadata, claim.row, claim.timeout) == (
        job.job_id, job.spec, '["ü"]', '{"a":1}', "7", 9.0,
    )  # fmt: skip
    worker.end(claim)
    record = get(ours, job)
    assert (record.state, record.dispatched_at) == (State.SUCCEEDED, clock.time() - 5.0)
    assert get(theirs, job).state is State.PENDING
    assert theirs.explain(job.job_id).startswith(
        "its message is in SQS, or another process has received it, and what becomes of it there is not known here"
    )


def test_attempts_elsewhere_are_counted(opened: Opened, clock: FakeClock) -> None:
    """An attempt that failed in one process is spent in the next, and the last one is never taken away."""
    ours, theirs = opened(), opened()
    job = new_job(clock, tries=3, retry=RetryPolicy(backoff=(30.0,)))
    ours.insert([job])
    first = FakeWorker(ours)
    first.end(first.take_one(), Outcome.FAILED)
    clock.advance(31.0)
    second = FakeWorker(theirs)
    claim = second.take_one()
    assert (claim.attempt, claim.max_attempts) == (2, 3)
    for _ in range(4):
        second.say(claim, ReportKind.RELEASED)
        second.leave()
        second = FakeWorker(theirs)
        claim = second.take_one()
        # Nobody else can have had it in between.
        assert claim.attempt == 2
    second.say(claim, ReportKind.RELEASED)
    second.leave()
    third = FakeWorker(opened())
    assert third.take_one().attempt == 3


def test_what_is_no_job(opened: Opened, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """What others put into a queue is left alone, hidden for a while, and told."""
    store = opened()
    sqs = Sqs(store)
    sqs.send("hello")
    store.insert([job := new_job(clock)])
    assert ids(FakeWorker(store).take(5)) == [job.job_id]
    assert sqs.counts() == (0, 2, 0)
    assert "is left alone" in caplog.text


# -- waits


def test_a_long_delay_hops(opened: Opened, clock: FakeClock) -> None:
    """A delay beyond a quarter of an hour is kept by sending the message anew, and nothing runs too early."""
    store = opened()
    job = new_job(clock, delay=2_000.0)
    store.insert([job])
    sqs, worker = Sqs(store), FakeWorker(store, lease=1e9)
    for passed, held_back in ((899.0, 1), (2.0, 1), (901.0, 1), (197.0, 1)):
        clock.advance(passed)
        assert worker.take() == []
        assert sqs.counts()[2] == held_back
    clock.advance(2.0)
    claim = worker.take_one()
    assert (claim.job_id, claim.attempt) == (job.job_id, 1)
    worker.end(claim)
    assert sqs.counts() == (0, 0, 0)


def test_a_delay_hops_at_somebody_elses(opened: Opened, clock: FakeClock) -> None:
    """Whoever receives it too early passes it on, and has nothing of it in its ledger."""
    ours, theirs = opened(), opened()
    job = new_job(clock, delay=1_000.0)
    ours.insert([job])
    clock.advance(901.0)
    worker = FakeWorker(theirs, lease=1e9)
    assert worker.take() == []
    assert theirs.get([job.job_id]) == []
    clock.advance(100.0)
    assert worker.take_one().attempt == 1


def test_a_retry_is_hidden_until_its_time(opened: Opened, clock: FakeClock) -> None:
    """A failed attempt hides its message for as long as the policy says: nobody gets it before."""
    store, other = opened(), opened()
    sqs = Sqs(store)
    store.insert([new_job(clock, tries=2, retry=RetryPolicy(backoff=(100.0,)))])
    worker, elsewhere = FakeWorker(store, lease=1e9), FakeWorker(other, lease=1e9)
    worker.end(worker.take_one(), Outcome.FAILED, error="E")
    assert sqs.counts() == (0, 1, 0)
    clock.advance(99.0)
    assert [worker.take(), elsewhere.take()] == [[], []]
    clock.advance(2.0)
    assert elsewhere.take_one().attempt == 2


def test_a_retry_of_a_day(opened: Opened, clock: FakeClock) -> None:
    """A wait that is longer than SQS hides anything is sent anew, with the attempts that are spent."""
    store, other = opened(), opened()
    store.insert([new_job(clock, tries=3, retry=RetryPolicy(backoff=(86_400.0,)))])
    worker = FakeWorker(store, lease=1e9)
    worker.end(worker.take_one(), Outcome.FAILED, error="E")
    assert Sqs(store).counts() == (0, 0, 1)
    elsewhere = FakeWorker(other, lease=1e9)
    for _ in range(4):
        clock.advance(905.0)
        assert elsewhere.take() == []
    clock.advance(86_400.0)
    assert elsewhere.take_one().attempt == 2


def test_what_waits_in_sqs_is_not_called_forward(opened: Opened, clock: FakeClock) -> None:
    """A delayed job cannot be made to run now, and the answer says until when it waits."""
    store = opened()
    job = new_job(clock, delay=60.0)
    store.insert([job])
    (answer,) = store.retry([job.job_id])
    assert not answer.done
    assert "waits in SQS until 2023-11-14 22:14:20+00:00" in answer.reason


def test_cancelled_before_it_came(opened: Opened, clock: FakeClock) -> None:
    """A job that waits in SQS is cancelled here, and its message is deleted when it comes; elsewhere it runs."""
    store, other = opened(), opened()
    mine, theirs = new_job(clock), new_job(clock)
    store.insert([mine])
    assert store.cancel([mine.job_id])[0].done
    assert FakeWorker(store).take() == []
    assert Sqs(store).counts() == (0, 0, 0)
    store.insert([theirs])
    store.cancel([theirs.job_id])
    assert ids(FakeWorker(other).take()) == [theirs.job_id]


def test_cancelled_while_it_waits_here(opened: Opened, clock: FakeClock) -> None:
    """A job that failed here and waits for its next attempt is cancelled for everybody: its message is deleted."""
    store = opened()
    job = new_job(clock, tries=2, retry=RetryPolicy(backoff=(100.0,)))
    store.insert([job])
    worker = FakeWorker(store)
    worker.end(worker.take_one(), Outcome.FAILED, error="E")
    assert store.cancel([job.job_id])[0].done
    assert Sqs(store).counts() == (0, 0, 0)


# -- ends


def test_the_last_failure_goes_to_the_dead_letters(opened: Opened, clock: FakeClock) -> None:
    """What has failed for good is in the dead-letter queue, with its error; put back from there it runs again."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    worker = FakeWorker(store, lease=1e9)
    worker.end(worker.take_one(), Outcome.FAILED, error="KeyError: 'x'\nand more")
    sqs, dead = Sqs(store), Sqs(store, dead=True)
    assert sqs.counts() == (0, 0, 0)
    (body,) = dead.bodies()
    assert (body["id"], body["dead"]) == (str(job.job_id), "KeyError: 'x'")
    sqs.send(json.dumps(body))
    claim = worker.take_one()
    assert (claim.job_id, claim.attempt, claim.max_attempts) == (job.job_id, 2, 2)
    assert FakeWorker(opened()).take() == []


def test_retried_by_hand(opened: Opened, clock: FakeClock) -> None:
    """A job that has ended is sent anew, and runs with a fresh allowance wherever it is received."""
    store, other = opened(), opened()
    job = new_job(clock, tries=2, retry=RetryPolicy(backoff=(0.0,)))
    store.insert([job])
    worker = FakeWorker(store)
    for _ in range(2):
        worker.end(worker.take_one(), Outcome.FAILED, error="E")
    assert store.retry([job.job_id])[0].done
    claim = FakeWorker(other).take_one()
    assert (claim.attempt, claim.max_attempts) == (3, 4)


def test_run_again_where_it_had_ended(opened: Opened, clock: FakeClock) -> None:
    """A job that somebody lets run again is no second delivery where an earlier round of it has ended."""
    ours, theirs = opened(), opened()
    job = new_job(clock)
    ours.insert([job])
    here, there = FakeWorker(ours, lease=1e9), FakeWorker(theirs, lease=1e9)
    there.end(there.take_one(), Outcome.FAILED, error="E")
    (body,) = Sqs(ours, dead=True).bodies()
    Sqs(ours).send(json.dumps(body))
    claim = here.take_one()
    assert (claim.attempt, claim.max_attempts) == (2, 2)
    here.end(claim, Outcome.FAILED, error="E")
    ours.retry([job.job_id])
    claim = there.take_one()
    assert (claim.attempt, claim.max_attempts) == (3, 3)
    there.end(claim)
    assert get(theirs, job).state is State.SUCCEEDED


def test_received_in_a_commit_that_failed(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message whose arrival could not be written down is not in hand, and comes again."""
    ours, theirs = opened(), opened()
    theirs.insert([new_job(clock)])
    worker = FakeWorker(ours, lease=1e9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    # Of the connection that is open now; another one takes its place.
    monkeypatch.setattr(ours._desk._ledger, "commit", full)
    with pytest.raises(QueueError, match="No space left"):
        worker.take()
    assert ours._hand.all() == []
    job = new_job(clock, queue="other")
    ours.insert([job])
    clock.advance(61.0)
    assert len(worker.take(5)) == 2


def test_a_worker_that_goes_gives_back_at_once(opened: Opened, clock: FakeClock) -> None:
    """What a worker leaves, or a store that closes has in hand, is visible to others at once."""
    store, other = opened(), opened()
    jobs = [new_job(clock) for _ in range(3)]
    store.insert(jobs)
    worker = FakeWorker(store)
    worker.turn(slots=3)
    worker.leave()
    assert Sqs(store).counts() == (3, 0, 0)
    FakeWorker(store, "w2").turn(slots=3)
    store.close()
    assert len(FakeWorker(other).take(9)) == 3


def test_hidden_while_it_runs(opened: Opened, clock: FakeClock) -> None:
    """A job may take much longer than a message is hidden at a time: its worker's turns keep it hidden."""
    store, other = opened(), opened()
    store.insert([new_job(clock)])
    worker, elsewhere = FakeWorker(store, lease=1e9), FakeWorker(other, lease=1e9)
    claim = worker.take_one()
    for _ in range(40):
        clock.advance(25.0)
        worker.turn()
        assert elsewhere.take() == []
    assert worker.end(claim).done


def test_twelve_hours(opened: Opened, clock: FakeClock) -> None:
    """No attempt may take longer than SQS hides a message: a longer timeout is refused, and none means that."""
    store = opened()
    with pytest.raises(InvalidCommand, match=r"timeout of 50,000 s is longer than SQS hides a message"):
        store.insert([new_job(clock, timeout=50_000.0)])
    store.insert([new_job(clock)])
    assert FakeWorker(store).take_one().timeout == ATTEMPT_MAX == 42_600.0


def test_twelve_hours_are_over(opened: Opened, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A job that cannot be stopped is not hidden for longer than SQS does it, which is said once, with its id."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    worker = FakeWorker(store, lease=1e9)
    worker.take_one()
    clock.advance(43_150.0)
    for _ in range(2):
        worker.turn()
    assert caplog.text.count(f"job {job.job_id} has run for 12 hours") == 1


def test_nobody_here_can_run_it(opened: Opened, clock: FakeClock) -> None:
    """What no worker here has a handler for goes back after a while, for others, and is not asked for all the time."""
    store, other = opened(), opened()
    job = new_job(clock, "foreign")
    store.insert([job])
    worker = FakeWorker(store, handlers=Handlers(frozenset({"mine"})), lease=1e9)
    assert [spec.command for spec in worker.turn(slots=1).unknown] == ["foreign"]
    clock.advance(4.0)
    worker.turn(slots=1)
    assert Sqs(store).counts() == (0, 1, 0)
    assert worker.turn(slots=1).unknown == []
    clock.advance(11.0)
    assert ids(FakeWorker(other).take()) == [job.job_id]


# -- a death


def test_a_restart_finds_its_ledger(opened: Opened, clock: FakeClock, tmp_path: Any) -> None:
    """The next process has the history of the one before; two at once have a ledger each."""
    first = opened()
    job = new_job(clock)
    first.insert([job])
    worker = FakeWorker(first)
    worker.end(worker.take_one(), result="1")
    second = opened()
    assert second.ledger != first.ledger
    path = first.ledger
    first.close()
    again = opened()
    assert again.ledger == path
    assert get(again, job).result == "1"
    assert path.name in again.notice


def test_interrupted_by_a_death(opened: Opened, clock: FakeClock) -> None:
    """What ran when its process died is shown as interrupted, and its message comes back for anybody."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    FakeWorker(store, lease=1e9).take_one()
    desk, path = store._desk, store.ledger
    store._hand.let_go(job.job_id)
    desk.close()
    again = opened(f"&ledger={path}")
    (interruption,) = again.interrupted
    assert interruption.job_id == job.job_id
    assert "comes back to SQS within 60 s" in interruption.reason
    assert get(again, job).state is State.PENDING
    worker = FakeWorker(again, lease=1e9)
    assert worker.take() == []
    clock.advance(61.0)
    claim = worker.take_one()
    assert (claim.job_id, claim.attempt) == (job.job_id, 1)
    assert worker.end(claim).done
    assert Sqs(again).counts() == (0, 0, 0)
    store._closed = True  # its ledger was closed over its head


# -- dispatch


def test_too_large_is_refused_before_sending(opened: Opened, clock: FakeClock) -> None:
    """One job that does not fit keeps the whole call from being sent, and the sizes are in the sentence."""
    store = opened()
    Sqs(store).client.set_queue_attributes(QueueUrl=Sqs(store).url, Attributes={"MaximumMessageSize": "4096"})
    store._queues.lose("default")
    with pytest.raises(
        InvalidCommand, match=r"takes 5,\d\d\d bytes, of which its arguments are 5,000; .* takes 4,096"
    ):
        store.insert([new_job(clock), new_job(clock, payload='"' + "x" * 4_998 + '"')])
    assert Sqs(store).counts() == (0, 0, 0)


def test_a_batch_is_no_larger_than_sqs_takes(opened: Opened, clock: FakeClock) -> None:
    """Large jobs go by several requests, none larger than SQS takes."""
    store = opened()
    store.insert([new_job(clock, payload='"' + "x" * 300_000 + '"') for _ in range(7)])
    assert Sqs(store).counts() == (7, 0, 0)


def test_partly_sent(opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQS takes some jobs of a call and not others, it is said exactly which; those that it took are here."""
    store = opened()
    jobs = [new_job(clock) for _ in range(25)]
    call = store._client.call

    def third_fails(verb: str, about: str = "", **given: Any) -> dict[str, Any]:
        if verb != "send_message_batch" or str(jobs[22].job_id) not in str(given):
            return call(verb, about, **given)
        fault = {"Id": "2", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"}
        entries = [one for one in given.pop("Entries") if one["Id"] != "2"]
        return {**call(verb, about, Entries=entries, **given), "Failed": [fault]}

    monkeypatch.setattr(store._client, "call", third_fails)
    with pytest.raises(
        PartlySentError, match=r"InvalidMessageContents: no.* 24 of 25 jobs were sent"
    ) as caught:
        store.insert(jobs)
    assert caught.value.unsent == (jobs[22].job_id,)
    assert [record.job_id for record in store.get(ids(jobs))] == ids(jobs[:22] + jobs[23:])
    monkeypatch.setattr(store._client, "call", call)
    assert Sqs(store).counts() == (24, 0, 0)


def test_rows_that_were_not_sent(opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has the rows that were sent; handed in again under its key, it gets those that are missing."""
    store = opened()
    rows = {str(n): f"[{n}]" for n in range(12)}
    call = store._client.call
    sent = []

    def second_throttled(verb: str, about: str = "", **given: Any) -> dict[str, Any]:
        sent.append(verb)
        if sent.count("send_message_batch") == 2:
            raise SqsTroubleError("turned down", Why.THROTTLED)
        return call(verb, about, **given)

    monkeypatch.setattr(store._client, "call", second_throttled)
    with pytest.raises(PartlySentError, match=r"turned down.* 10 of 12 jobs were sent"):
        store.put_batch(*new_batch(clock, rows, key="scores"))
    monkeypatch.setattr(store._client, "call", call)
    mapped = store.put_batch(*new_batch(clock, rows, key="scores"))
    assert (mapped.batch.total, len(mapped.left)) == (12, 10)
    assert Sqs(store).counts() == (12, 0, 0)


def test_code_travels(opened: Opened, clock: FakeClock) -> None:
    """Code by value goes with its job, and only what this user signed is kept at the other end."""
    code, blob = payload.pack_code(lambda: 7, key=b"mine", context="x")
    blob = payload.pack_code(lambda: 7, key=b"mine", context=code)[1]
    ours, trusting, other = opened(), opened(secret=lambda: b"mine"), opened(secret=lambda: b"theirs")
    ours.put_code(code, blob)
    for store, kept in ((other, None), (trusting, blob)):
        ours.insert([new_job(clock, "fn", origin="notebook:a.ipynb", code=code)])
        worker = FakeWorker(store, handlers=Handlers())
        (spec,) = worker.turn(slots=1).unknown
        assert spec.code == code
        assert store.get_code(code) == kept
        worker.leave()
        FakeWorker(store).take_one()


def test_pause(opened: Opened) -> None:
    """SQS has no such switch, and what to do instead is said."""
    with pytest.raises(NotSupported, match="stop the workers on it instead"):
        opened().pause("default", paused=True)


def test_create_false(opened: Opened, clock: FakeClock) -> None:
    """Queues that are missing are not made where that is not wanted: the sentence names the queue."""
    with pytest.raises(
        QueueUnavailable, match=r"there is no queue t\w+__default in SQS at sqs://eu-west-1/t\w+"
    ):
        opened("&create=false")
    opened()
    strict = opened("&create=false")
    with pytest.raises(QueueUnavailable, match=r"there is no queue t\w+__imports in SQS"):
        strict.insert([new_job(clock, queue="imports")])
    assert strict.find(Selection()) == []


# -- FIFO


def test_fifo_keeps_an_order(opened: Opened, clock: FakeClock) -> None:
    """The jobs of a FIFO queue run one after the other in their order; a retry keeps those behind it waiting."""
    store, other = opened("&fifo=true"), opened("&fifo=true")
    assert Sqs(store).name.endswith("__default.fifo")
    jobs = [new_job(clock, tries=2, retry=RetryPolicy(backoff=(10.0,))) for _ in range(3)]
    store.insert(jobs)
    here, there = FakeWorker(store, lease=1e9), FakeWorker(other, lease=1e9)
    (claim,) = here.take(5)
    assert claim.job_id == jobs[0].job_id
    assert there.take(5) == []
    here.end(claim, Outcome.FAILED, error="E")
    assert there.take(5) == []
    clock.advance(11.0)
    (claim,) = there.take(5)
    assert (claim.job_id, claim.attempt) == (jobs[0].job_id, 2)
    there.end(claim)
    for job in jobs[1:]:
        claim = here.take_one()
        assert claim.job_id == job.job_id
        here.end(claim)


def test_fifo_recognises_a_job_sent_twice(opened: Opened, clock: FakeClock) -> None:
    """SQS itself drops a second message of a job within five minutes."""
    store, other = opened("&fifo=true"), opened("&fifo=true")
    job = new_job(clock)
    store.insert([job])
    other.insert([job])
    assert Sqs(store).counts() == (1, 0, 0)


def test_fifo_has_no_delay(opened: Opened, clock: FakeClock) -> None:
    """A FIFO queue holds no single job back, and says so at dispatch."""
    with pytest.raises(InvalidCommand, match="holds nothing back"):
        opened("&fifo=true").insert([new_job(clock, delay=5.0)])
