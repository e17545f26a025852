"""Many workers, many threads, many jobs: nothing leaks, nothing runs twice, everything ends."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbqueue as nbq

RAN: Counter[int] = Counter()
LOCK = threading.Lock()


@nbq.command("stress:count")
def count(number: int) -> None:
    with LOCK:
        RAN[number] += 1


@nbq.command("stress:flaky", tries=2, backoff=0.0)
def flaky(ctx: nbq.Context, number: int) -> None:
    with LOCK:
        RAN[number] += 1
    if ctx.attempt == 1:
        raise ValueError(number)


@nbq.command("stress:async")
async def count_async(number: int) -> None:
    count(number)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing has run."""
    RAN.clear()
    yield
    RAN.clear()


@pytest.fixture(params=["memory", "duckdb"])
def queues(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[nbq.QueueManager]:
    """A queue of each kind."""
    with nbq.connect(":memory:" if request.param == "memory" else tmp_path / "jobs.duckdb") as queues:
        yield queues


def numbers(first: int, last: int, command: str = "stress:count") -> list[nbq.QueuedCommand]:
    return [nbq.QueuedCommand(command).with_args([i]) for i in range(first, last)]


def test_one_worker_starts_and_stops_many_times(queues: nbq.QueueManager) -> None:
    """The same worker can be stopped and started, and drained, again and again."""
    worker = queues.worker(concurrency=2)
    for i in range(20):
        queues.dispatch_many(numbers(i * 10, i * 10 + 10))
        worker.drain(20)
        assert not worker.running
        assert len(RAN) == i * 10 + 10
    assert set(RAN.values()) == {1}


def test_two_workers_run_each_job_once(queues: nbq.QueueManager) -> None:
    """2,000 jobs are divided among two workers: each runs exactly once, and has one ending."""
    queues.dispatch_many(numbers(0, 2_000))
    with queues.worker(concurrency=4) as one, queues.worker(concurrency=4) as two:
        one.drain(60)
        two.drain(60)
    assert len(RAN) == 2_000
    assert set(RAN.values()) == {1}
    assert_each_ended_once(queues, 2_000, claims=2_000)


def test_16_threads_dispatch_while_2_workers_drain(queues: nbq.QueueManager) -> None:
    """Whatever comes in from 16 threads, one by one and in batches, ends once; what fails is tried again once."""
    start = threading.Barrier(16)
    failures: list[BaseException] = []

    def dispatch(part: int) -> None:
        try:
            start.wait()
            at = part * 100
            for i in range(at, at + 30):
                queues.dispatch(nbq.QueuedCommand("stress:count").with_args([i]))
            queues.dispatch_many(numbers(at + 30, at + 60))
            queues.dispatch_many(numbers(at + 60, at + 80, "stress:flaky"))
            queues.dispatch_many(numbers(at + 80, at + 100, "stress:async"))
        except BaseException as error:
            failures.append(error)

    with queues.worker(concurrency=4) as one, queues.worker(concurrency=2, queues="default") as two:
        threads = [threading.Thread(target=dispatch, args=(part,)) for part in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        one.drain(60)
        two.drain(60)
    assert failures == []
    assert {
        number: times for number, times in RAN.items() if times != (2 if 60 <= number % 100 < 80 else 1)
    } == {}
    assert_each_ended_once(queues, 1_600, claims=1_600 + 16 * 20)


def test_jobs_that_dispatch_jobs(queues: nbq.QueueManager) -> None:
    """Jobs hand in more work from within their threads while all slots are busy; the whole tree ends."""

    @nbq.command("stress:tree")
    def tree(ctx: nbq.Context, number: int) -> None:
        count(number)
        if number < 256:
            ctx.dispatch(nbq.QueuedCommand("stress:tree").with_args([2 * number]))
            ctx.dispatch(nbq.QueuedCommand("stress:tree").with_args([2 * number + 1]))

    queues.dispatch(nbq.QueuedCommand("stress:tree").with_args([1]))
    with queues.worker(concurrency=4) as worker:
        worker.drain(60)
    assert sorted(RAN) == list(range(1, 512))
    assert set(RAN.values()) == {1}


def assert_each_ended_once(queues: nbq.QueueManager, jobs: int, *, claims: int) -> None:
    """Every job has one ending; all that was claimed and given back was claimed again."""
    counts = queues.store.query("SELECT event, count(*) AS n FROM events GROUP BY 1")
    events = {str(event): int(n) for event, n in zip(counts["event"], counts["n"], strict=True)}
    assert events["dispatched"] == events["succeeded"] == jobs
    assert events["claimed"] - events.get("released", 0) == claims
    assert not {"failed", "cancelled", "interrupted", "refused", "stale"} & events.keys()


def test_what_cannot_be_stopped_is_not_said_to_have_stopped(tmp_path: Path) -> None:
    """A job that was cancelled, and goes on in its thread when its queue closes, is failed as stuck, not cancelled."""
    began, let_go = threading.Event(), threading.Event()

    @nbq.command("stress:deaf")
    def deaf() -> None:
        began.set()
        while not let_go.is_set():
            with contextlib.suppress(BaseException):
                let_go.wait()

    path = tmp_path / "jobs.duckdb"
    try:
        with nbq.connect(path) as queues:
            queues.worker().start()
            receipt = queues.dispatch(nbq.QueuedCommand("stress:deaf"))
            assert began.wait(20)
            receipt.cancel()
            queues.close(0.3)
        with nbq.connect(path) as queues:
            record = queues.jobs().iloc[0]
            assert (record["state"], record["cause"]) == ("failed", "stuck")
            assert "it did not" in record["error"]
    finally:
        let_go.set()
