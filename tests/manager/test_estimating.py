"""How long jobs took lately, on a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

import nbqueue as nbq
from nbqueue.facade.estimating import Estimate, in_words
from nbqueue.facade.watching.glancing import glance, retried
from nbqueue.lifecycle import Outcome
from nbqueue.store import ReportKind
from nbqueue.testing import FakeClock, memory_manager
from nbqueue.testing.workers import FakeWorker


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def run(queues: nbq.QueueManager, clock: FakeClock, worker: FakeWorker, seconds: float, **how: Any) -> None:
    """Let a job take so long."""
    queues.dispatch(nbq.QueuedCommand(how.pop("command", "work")))
    claim = worker.take_one()
    started = clock.time()
    clock.advance(seconds)
    worker.end(claim, how.get("outcome", Outcome.SUCCEEDED), started_at=started, finished_at=clock.time())


def test_estimate(clock: FakeClock) -> None:
    """The median and the slow end are those of the command's own successful runs."""
    with memory_manager(clock) as queues:
        assert queues.estimate("work") is None
        worker = FakeWorker(queues.store)
        for seconds in (1, 2, 3, 4, 5):
            run(queues, clock, worker, seconds)
            run(queues, clock, worker, 100, command="other")
        run(queues, clock, worker, 1_000, outcome=Outcome.FAILED)
        found = queues.estimate("work")
        assert found is not None
        assert (found.count, found.median) == (5, pytest.approx(3))
        assert found.slow == pytest.approx(4.8)
        assert str(found) == "takes about 3 s: median of the last 5 runs"
        assert queues.estimate("failed only") is None


def test_only_lately(clock: FakeClock) -> None:
    """Only the newest runs count."""
    with memory_manager(clock) as queues:
        worker = FakeWorker(queues.store)
        for seconds in [100] * 10 + [2] * 50:
            run(queues, clock, worker, seconds)
        assert queues.estimate("work") == Estimate(50, pytest.approx(2), pytest.approx(2))  # type: ignore[arg-type]


def test_one_run() -> None:
    """A single run is no median."""
    assert str(Estimate(2, 0.0001, 0.0001)) == "takes less than 1 ms: median of the last 2 runs"
    assert str(Estimate(1, 75.0, 75.0)) == "takes about 1 min 15 s: the last run"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than 1 ms"),
        (0.25, "250 ms"),
        (0.9999, "1 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (3_600, "1 h"),
        (90_000, "1 d 1 h"),
    ],
)
def test_in_words(seconds: float, words: str) -> None:
    """Durations are short, and of two units at most."""
    assert in_words(seconds) == words


def test_glance() -> None:
    """A look at some jobs gives their status as ``jobs`` has it, and the progress of the attempt that runs."""
    with memory_manager() as queues:
        worker = FakeWorker(queues.store)
        receipt = queues.dispatch(nbq.QueuedCommand("work").with_max_attempts(2).with_backoff(60))
        late = queues.dispatch(nbq.QueuedCommand("late").with_delay(60))

        def status(of: nbq.JobDispatch) -> str:
            return glance(queues, [of.job_id])[of.job_id].status

        assert (status(receipt), status(late)) == ("pending", "scheduled")
        claim = worker.take_one()
        worker.say(claim, ReportKind.NEWS, progress='{"done":1,"total":4,"note":""}')
        assert glance(queues, [late.job_id, receipt.job_id])[receipt.job_id].progress == {
            "done": 1,
            "total": 4,
            "note": "",
        }
        worker.end(claim, Outcome.FAILED, error="KeyError: 'x'")
        assert status(receipt) == "retrying"
        receipt.retry()
        claim = worker.take_one()
        assert glance(queues, [receipt.job_id])[receipt.job_id].progress is None
        receipt.cancel()
        assert status(receipt) == "cancelling"
        assert glance(queues, []) == {}


def test_retried() -> None:
    """Whether some job was let run again is told once."""
    with memory_manager() as queues:
        receipt = queues.dispatch(nbq.QueuedCommand("work"))
        seen, again = retried(queues, 0)
        assert not again
        receipt.cancel()
        receipt.retry()
        seen, again = retried(queues, seen)
        assert again
        assert retried(queues, seen) == (seen, False)
