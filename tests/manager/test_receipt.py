"""What a receipt tells of its job, before, while and after it runs."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nbqueue as nbq
from nbqueue.facade.receipt import Logs

#: Longer than anything here takes; a test that needs it has failed.
SOON = 20.0


def test_made_by_hand_it_holds_what_it_was_given() -> None:
    """Without a queue its fields can be read, whatever the id is."""
    receipt = nbq.JobDispatch("job123", "import:data", "default")
    assert (str(receipt), receipt.job_id, receipt.command, receipt.queue) == (
        "job123",
        "job123",
        "import:data",
        "default",
    )
    assert receipt.scheduled_at is None
    assert receipt.metadata == {}


@pytest.mark.parametrize(
    "when", ["2026-03-01T06:00:00Z", "2026-03-01T08:00:00+02:00", datetime(2026, 3, 1, 6, tzinfo=UTC)]
)
def test_made_by_hand_it_can_be_given_its_time(when: str | datetime) -> None:
    """The time comes as text or datetime and is UTC afterwards; the receipt before is left as it was."""
    before = nbq.JobDispatch(str(uuid.UUID(int=7)), "import:data", "default")
    after = before.with_scheduled_at(when)
    assert after.scheduled_at == datetime(2026, 3, 1, 6, tzinfo=UTC)
    assert before.scheduled_at is None
    assert after.job_id == uuid.UUID(int=7)


@pytest.mark.parametrize("when", ["tomorrow", "2026-03-01T06:00:00", datetime(2026, 3, 1)])  # noqa: DTZ001
def test_a_time_without_a_zone_is_refused(when: str | datetime) -> None:
    """Nobody can tell when that is."""
    with pytest.raises(nbq.InvalidCommand, match="scheduled_at"):
        nbq.JobDispatch("job123", "import:data").with_scheduled_at(when)


def test_made_by_hand_it_cannot_be_asked() -> None:
    """It belongs to no queue, and says how to ask one."""
    with pytest.raises(nbq.QueueUnavailable, match=r"queues\.job\('job123'\)"):
        _ = nbq.JobDispatch("job123", "import:data").state


def test_a_dispatched_job_is_not_moved(queues: nbq.QueueManager) -> None:
    """A receipt's time cannot be changed once there is a job behind it."""
    receipt = queues.dispatch(nbq.QueuedCommand("import:data"))
    with pytest.raises(nbq.InvalidCommand, match="dispatched already"):
        receipt.with_scheduled_at("2026-03-01T06:00:00Z")


def test_fields_are_known_without_asking(queues: nbq.QueueManager) -> None:
    """Command, queue, time and metadata are the receipt's own."""
    command = nbq.QueuedCommand("import:data").on_queue("imports").with_delay(60).with_metadata("user_id", 7)
    before = datetime.now(UTC)
    receipt = queues.dispatch(command)
    assert isinstance(receipt.job_id, uuid.UUID)
    assert (receipt.command, receipt.queue, receipt.metadata) == ("import:data", "imports", {"user_id": 7})
    assert receipt.scheduled_at is not None
    assert timedelta(seconds=60) <= receipt.scheduled_at - before < timedelta(seconds=80)
    assert str(receipt) == str(receipt.job_id)
    assert repr(receipt) == f"<JobDispatch import:data {receipt.job_id} on imports>"
    assert (receipt.state, receipt.attempt) == (nbq.State.PENDING, 0)


def test_result_is_what_the_job_returned(queues: nbq.QueueManager) -> None:
    """It waits, and gives the value."""

    @nbq.job
    def double(x: int) -> int:
        return 2 * x

    with queues.worker():
        receipt = double.dispatch(21)
        assert receipt.result(SOON) == 42
        assert receipt.wait(SOON) is receipt
        assert receipt.exception(SOON) is None
    assert (receipt.state, receipt.attempt) == (nbq.State.SUCCEEDED, 1)


def test_the_very_object_comes_back_in_its_process(queues: nbq.QueueManager) -> None:
    """While somebody holds the receipt, the result is the object that was returned."""
    made = []

    @nbq.job
    def make() -> object:
        made.append({1, 2})
        return made[0]

    with queues.worker():
        receipt = make.dispatch()
        assert receipt.result(SOON) is made[0]


@pytest.mark.parametrize("target", ["duckdb"], indirect=True)  # one in memory ends with its connection
def test_a_receipt_taken_up_later_decodes_the_result(target: str, tmp_path: object) -> None:
    """Whoever has only the id gets an equal value."""

    @nbq.job
    def make() -> tuple[int, timedelta]:
        return 1, timedelta(days=2)

    with nbq.connect(target) as queues, queues.worker():
        job_id = make.dispatch().wait(SOON).job_id
    with nbq.connect(target) as queues:
        assert queues.job(str(job_id)).result() == (1, timedelta(days=2))


def test_failure_carries_the_jobs_error(queues: nbq.QueueManager) -> None:
    """The sentence names command, attempts and error; the traceback is the job's."""

    @nbq.job(name="import:csv", tries=3, backoff=0)
    def import_csv(path: str) -> None:
        raise KeyError(path)

    with queues.worker():
        receipt = import_csv.dispatch("x")
        with pytest.raises(
            nbq.JobFailed, match="import:csv failed after 3 attempts: KeyError: 'x'"
        ) as caught:
            receipt.result(SOON)
    error = caught.value
    assert (error.job_id, error.cause, error.error) == (str(receipt), "error", "KeyError: 'x'")
    assert "raise KeyError(path)" in error.traceback
    assert error.traceback.rstrip() in error.__notes__[0]
    assert isinstance(receipt.exception(), nbq.JobFailed)
    assert receipt.wait().state is nbq.State.FAILED


def test_timeout_of_the_job_is_told_apart(queues: nbq.QueueManager) -> None:
    """A job that ran out of its own time raises JobTimeout, not the caller's TimeoutError."""
    gate = threading.Event()

    @nbq.job(timeout=0.05)
    def slow(ctx: nbq.Context) -> None:
        while not ctx.should_stop():
            gate.wait(0.01)

    with queues.worker(), pytest.raises(nbq.JobTimeout, match="slow failed after 1 attempt"):
        slow.dispatch().result(SOON)


def test_callers_patience_ends_with_what_the_job_is_doing(queues: nbq.QueueManager) -> None:
    """TimeoutError names the job and why it has not ended."""
    receipt = queues.dispatch(nbq.QueuedCommand("import:data").with_delay(600))
    with pytest.raises(
        TimeoutError, match=f"import:data {receipt} has not ended within 0 s; it is pending: delayed"
    ):
        receipt.wait(0)
    with pytest.raises(TimeoutError):
        receipt.result(timedelta(milliseconds=1))
    with pytest.raises(nbq.InvalidCommand, match="timeout"):
        receipt.wait(-1)


def test_cancelled_job_has_no_result(queues: nbq.QueueManager) -> None:
    """Cancelling says whether there was anything to cancel, and result says that it was."""
    receipt = queues.dispatch(nbq.QueuedCommand("import:data"))
    assert receipt.cancel() is True
    assert receipt.cancel() is False
    with pytest.raises(nbq.JobCancelled, match=f"import:data {receipt} was cancelled"):
        receipt.result()
    assert isinstance(receipt.exception(), nbq.JobCancelled)
    assert "cancelled" in receipt.why()


def test_retry_lets_it_run_again(queues: nbq.QueueManager) -> None:
    """After a retry the receipt waits for the new end, and gives its result, not the old one."""
    answers = iter([None, "first", "second"])

    @nbq.job
    def ask() -> str:
        answer = next(answers)
        if answer is None:
            raise ValueError("not yet")
        return answer

    receipt = queues.dispatch(ask.call())
    with queues.worker():
        assert isinstance(receipt.exception(SOON), nbq.JobFailed)
        assert receipt.retry() is receipt
        assert receipt.result(SOON) == "first"
        assert receipt.retry().result(SOON) == "second"
        assert queues.retry(receipt.job_id) == 1
        assert isinstance(receipt.exception(SOON), nbq.JobFailed)


def test_what_waits_already_is_not_retried(queues: nbq.QueueManager) -> None:
    """The refusal says why."""
    receipt = queues.dispatch(nbq.QueuedCommand("import:data"))
    with pytest.raises(nbq.InvalidCommand, match="cannot be retried: the job is pending already"):
        receipt.retry()


def test_await_gives_the_result(queues: nbq.QueueManager) -> None:
    """Awaiting many at once blocks no loop, and failures are raised."""

    @nbq.job
    def double(x: int) -> int:
        return 2 * x

    @nbq.job
    def fail() -> None:
        raise KeyError("x")

    async def main() -> list[int]:
        receipts = await asyncio.gather(*(queues.adispatch(double.call(x)) for x in range(100)))
        with pytest.raises(nbq.JobFailed, match="KeyError"):
            await queues.dispatch(fail.call())
        return await asyncio.gather(*receipts)

    with queues.worker():
        assert asyncio.run(main()) == [2 * x for x in range(100)]


def test_awaiting_leaves_the_loop_free(queues: nbq.QueueManager) -> None:
    """While one task awaits a job, another runs; it is what lets the job go on."""
    gate = threading.Event()

    @nbq.job
    def held() -> str:
        assert gate.wait(SOON)
        return "done"

    async def main() -> str:
        receipt = await held.adispatch()

        async def wait() -> str:
            answer: str = await receipt
            return answer

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.wait_for(task, SOON)

    with queues.worker():
        assert asyncio.run(main()) == "done"


def test_awaiting_can_be_given_up(queues: nbq.QueueManager) -> None:
    """A cancelled task stops watching, however often; the job is left alone."""
    receipt = queues.dispatch(nbq.QueuedCommand("import:data"))

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receipt, 0.05)

    asyncio.run(main())
    assert receipt.state is nbq.State.PENDING
    # Left is what tells the receipt itself of the end.
    store: Any = queues.store
    watchers = getattr(store, "_owned", store)._index.watchers()
    assert [len(found) for found in watchers.values()] == [1]


def test_closing_the_queue_wakes_who_waits(target: str) -> None:
    """Nobody waits for ever for a queue that was closed."""
    queues = nbq.connect(target)
    receipt = queues.dispatch(nbq.QueuedCommand("import:data"))
    caught: list[BaseException] = []
    watching = threading.Event()
    watch = queues.store.watch

    def tell(ids: Sequence[uuid.UUID], notify: Callable[..., None]) -> Callable[[], None]:
        stop = watch(ids, notify)
        watching.set()
        return stop

    queues.store.watch = tell  # type: ignore[method-assign]

    def wait() -> None:
        try:
            receipt.wait(SOON)
        except nbq.QueueUnavailable as error:
            caught.append(error)

    queues.follow()
    watching.clear()
    thread = threading.Thread(target=wait)
    thread.start()
    assert watching.wait(SOON)
    queues.close()
    thread.join(SOON)
    assert "closed" in str(caught[0])


def test_many_results_are_asked_for_together(queues: nbq.QueueManager) -> None:
    """Results of jobs that ended long ago come without a question each."""

    @nbq.job
    def double(x: int) -> int:
        return 2 * x

    asked = 0
    get = queues.store.get

    def count(ids: object) -> object:
        nonlocal asked
        asked += 1
        return get(ids)  # type: ignore[arg-type]

    receipts = queues.dispatch_many([double.call(x) for x in range(200)])
    queues.worker().drain(SOON)
    queues.store.get = count  # type: ignore[method-assign, assignment]
    assert [receipt.result() for receipt in receipts] == [2 * x for x in range(200)]
    assert asked == 0


def test_forgotten_job_is_not_found(queues: nbq.QueueManager) -> None:
    """A receipt outlives its job, and says so."""
    receipt = queues.dispatch(nbq.QueuedCommand("import:data"))
    receipt.cancel()
    assert queues.forget(receipt) == 1
    with pytest.raises(nbq.JobNotFound, match=f"import:data {receipt}"):
        _ = receipt.state
    with pytest.raises(nbq.JobNotFound):
        receipt.wait()


@pytest.mark.parametrize("target", ["duckdb"], indirect=True)  # one in memory ends with its connection
def test_result_that_cannot_be_stored_says_so(target: str) -> None:
    """The object is there while its receipt lives; afterwards the sentence tells why it is not."""

    @nbq.job
    def make() -> object:
        return threading.Lock()

    with nbq.connect(target) as queues, queues.worker():
        receipt = make.dispatch()
        assert receipt.result(SOON) is not None
    with nbq.connect(target) as queues:
        later = queues.job(receipt.job_id)
        with pytest.raises(nbq.NbqueueError, match="succeeded, but what it returned could not be stored"):
            later.result()


def test_logs_are_the_text_in_order(queues: nbq.QueueManager) -> None:
    """str() is what was printed, repr is short, and one stream can be picked."""
    import sys

    @nbq.job
    def talk() -> None:
        print("one")
        print("two", file=sys.stderr)
        print("three")

    with queues.worker():
        logs = talk.dispatch().wait(SOON).logs()
    assert str(logs) == "one\ntwo\nthree\n"
    assert repr(logs) == "<Logs of talk: 3 lines>"
    assert str(logs.only("stderr")) == "two\n"
    assert str(logs.only(attempt=2)) == ""
    assert "two" in logs
    assert list(logs) == ["one", "two", "three"]


def test_logs_show_their_text_in_ipython() -> None:
    """The text is what a cell shows; where there is none, that is said."""
    from IPython.lib.pretty import pretty

    assert pretty(Logs("talk", [(1, "stdout", "one\ntwo\n")])) == "one\ntwo"
    assert pretty(Logs("talk", [])) == "<Logs of talk: 0 lines>"


def test_attempts_are_a_frame(queues: nbq.QueueManager) -> None:
    """A row an attempt of this job alone."""

    @nbq.job(tries=2, backoff=0)
    def fail() -> None:
        raise ValueError("no")

    with queues.worker():
        receipt, other = fail.dispatch().wait(SOON), fail.dispatch().wait(SOON)
    assert sorted(receipt.attempts()["attempt"]) == [1, 2]
    assert len(other.attempts()) == 2


def test_equal_receipts_are_of_one_job(queues: nbq.QueueManager) -> None:
    """Two receipts of one job are equal; those of two jobs are not."""
    first, second = queues.dispatch_many([nbq.QueuedCommand("a"), nbq.QueuedCommand("b")])
    same = nbq.JobDispatch(first.job_id, "a")
    assert first == same
    assert len({first, same, second}) == 2
    assert first != second
    assert first != str(first)


def test_it_follows_a_queue_that_is_opened_again(tmp_path: Path) -> None:
    """A receipt and a batch from before go on working once their file is open here again, however it was closed."""

    @nbq.command("receipt:double")
    def double(number: int) -> int:
        return 2 * number

    queues = nbq.connect(tmp_path / "jobs.duckdb")
    receipt = queues.dispatch(nbq.QueuedCommand("receipt:double").with_args([3]))
    batch = queues.map("receipt:double", [1, 2])
    queues.close()
    with pytest.raises(nbq.QueueUnavailable, match=r"nbqueue\.connect\("):
        _ = receipt.state
    with nbq.connect(":memory:"), nbq.connect(tmp_path / "jobs.duckdb") as again, again.worker():
        assert receipt.result(SOON) == 6
        assert batch.wait(timeout=SOON).results().tolist() == [2, 4]
        assert queues.closed
