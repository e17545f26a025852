"""Workers with processes as people use them: retries, figures, refusals at dispatch, and a queue asked from inside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbqueue as nbq
from nbqueue.cli.terminal import describe
from nbqueue.handlers.registry import registry
from tests.executors import process_tasks as tasks
from tests.executors.conformance import Meeting

PATIENCE = 60.0


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[nbq.QueueManager]:
    """A queue in a file, with a worker whose jobs run in two processes."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        queues.worker(executor="process", concurrency=2).start()
        yield queues


def test_runs_what_modules_have(queues: nbq.QueueManager) -> None:
    """Functions, classes and commands of modules go by name, and find their module's state."""
    assert tasks.double.dispatch(4).result(PATIENCE) == 8
    assert tasks.Greet("Ada").dispatch().result(PATIENCE) == "Ada 1"
    work = nbq.QueuedCommand("process:named").with_args(["x"])
    assert queues.dispatch(work).result(PATIENCE) == ["x", "double"]
    batch = queues.map(tasks.double, [1, 2, 3])
    batch.wait(PATIENCE)
    assert list(batch.results()) == [2, 4, 6]


def test_a_death_is_an_attempt(queues: nbq.QueueManager) -> None:
    """A job whose process is killed is retried as its policy says, and the frames say what ended the first attempt."""
    receipt = tasks.die_once.dispatch()
    assert receipt.result(PATIENCE) == 2
    second, first = receipt.attempts().to_dict("records")
    assert (first["outcome"], first["cause"], first["exit"]) == ("failed", "killed (SIGKILL)", "SIGKILL")
    assert (second["outcome"], second["cpu_seconds"] < 5) == ("succeeded", True)
    assert second["peak_memory"] > 1024 * 1024
    rows = {tuple(line.split()[:2]): line for line in describe(receipt).splitlines()}
    assert "SIGKILL" in rows["1", "failed"]
    assert " MB" in rows["2", "succeeded"]
    events = queues.sql("SELECT event FROM events ORDER BY seq")["event"].tolist()
    assert events.count("usage") == 2


def test_a_timeout_is_kept(queues: nbq.QueueManager) -> None:
    """A job in C code is over within a second of its deadline, cleanly timed out."""
    receipt = tasks.too_long.dispatch().wait(PATIENCE)
    (attempt,) = receipt.attempts().to_dict("records")
    assert attempt["error"].startswith("TimeoutError: it took ")
    assert 0.3 <= attempt["run_seconds"] < 1.3


def test_stopping_kills_what_goes_on_and_gives_it_back(tmp_path: Path) -> None:
    """``worker.stop(0)`` leaves no job running: it was told, then killed, and is back in its queue with its attempt."""
    with nbq.connect(":memory:") as queues:
        worker = queues.worker(executor="process", concurrency=1).start()
        meeting = Meeting(tmp_path)
        receipt = tasks.for_ever.dispatch(meeting.paths[0])
        meeting.wait()
        before = time.monotonic()
        worker.stop(0)
        assert time.monotonic() - before < 3.0
        record = receipt.record()
        assert (record.state, record.attempt, record.crashes) == (nbq.State.PENDING, 0, 0)


def test_refuses_at_dispatch_what_cannot_be_sent(queues: nbq.QueueManager, tmp_path: Path) -> None:
    """A function that uses what cannot be pickled is refused before it is stored, with the variable named."""
    file = (tmp_path / "open.txt").open("w")

    def use_file() -> str:
        return str(file.name)

    job = nbq.job(use_file)
    try:
        sentence = r'use_file uses the variable "file" \(a _io\.TextIOWrapper\), which cannot be sent'
        with pytest.raises(nbq.InvalidCommand, match=sentence):
            job.dispatch()
        with pytest.raises(nbq.InvalidCommand, match=sentence):
            queues.map(job, [{}])
        # Here and now it can run, and on a queue that only threads serve.
        assert queues.run(job.call()) == file.name
        assert len(queues.jobs(command="use_file")) == 1
    finally:
        registry.unregister("use_file")
        file.close()


def test_threads_take_what_processes_cannot(tmp_path: Path) -> None:
    """Where no worker here would send it, the same function is dispatched and runs."""
    with nbq.connect(":memory:") as queues, (tmp_path / "open.txt").open("w") as file:
        queues.worker("heavy", executor="process").start()
        queues.worker("light").start()

        def use_file() -> str:
            return str(file.name)

        try:
            assert nbq.job(use_file).options(queue="light").dispatch().result(PATIENCE) == file.name
        finally:
            registry.unregister("use_file")


def test_a_job_may_ask_its_queue(queues: nbq.QueueManager) -> None:
    """In a child ``nbq.manager()`` is the queue that the job came from, joined as a guest; receipts ask there."""
    assert tasks.ask_home.dispatch(4).result(PATIENCE) == [8, os.getpid(), 1]


def test_a_queue_in_memory_cannot_be_asked() -> None:
    """Where the queue is in another process's memory, the job is told so."""
    with nbq.connect(":memory:") as queues:
        queues.worker(executor="process", concurrency=1).start()
        with pytest.raises(nbq.JobFailed, match="is in the memory of another process"):
            tasks.ask_memory.dispatch().result(PATIENCE)


def test_works_in_a_terminal(tmp_path: Path) -> None:
    """``nbqueue work --executor process`` runs jobs in children with the limits that it was given."""
    url, root = str(tmp_path / "jobs.duckdb"), Path(__file__).parent.parent.parent
    with nbq.connect(url):
        receipt = tasks.limited.dispatch()
    limits = ["--max-jobs-per-child", "1", "--memory-limit", "1GB", "--stop-when-empty"]
    arguments = ["work", "--db", url, "--executor", "process", "--import", tasks.__name__, *limits]
    done = subprocess.run(
        [sys.executable, "-m", "nbqueue", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with nbq.connect(url) as queues:
        parent, limit = queues.job(receipt.job_id).result(1)
    assert parent != os.getpid()
    assert limit == 1024**3


def test_an_executor_may_be_handed_over(tmp_path: Path) -> None:
    """``nbq.ProcessExecutor`` is what ``executor="process"`` makes."""
    with nbq.connect(":memory:") as queues:
        queues.worker(executor=nbq.ProcessExecutor(1, max_jobs_per_child=1, memory_limit="2GB")).start()
        assert [worker.executor for worker in queues.workers()] == ["process"]
        assert tasks.double.dispatch(1).result(PATIENCE) == 2
