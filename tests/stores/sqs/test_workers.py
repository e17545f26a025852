"""Real workers on queues in SQS, in one process and in several."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nbqueue as nbq
from nbqueue.facade.manager import QueueManager
from tests.stores.sqs.trouble import Relay

ERRANDS = Path(__file__).with_name("errands.py")
PATIENCE = 60.0


def wait_until(so: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait for what another process or thread does, which tells nobody."""
    until = time.monotonic() + patience
    while not so():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def queues(url: str, tmp_path: Path) -> Iterator[QueueManager]:
    with nbq.connect(f"{url}&ledger={tmp_path / 'here.duckdb'}") as queues:
        yield queues


def test_from_dispatch_to_result(queues: QueueManager, caplog: pytest.LogCaptureFixture) -> None:
    """What works on a file works on SQS: results, retries, failures, code by value, batches, frames."""
    tried: list[int] = []

    @nbq.command("flaky")
    def flaky(x: int) -> int:
        tried.append(x)
        if len(tried) < 2:
            raise ValueError(x)
        return x * 2

    @nbq.command("bad")
    def bad() -> None:
        raise KeyError("boo")

    @nbq.job
    def half(x: int) -> float:
        return x / 2

    with queues.worker(concurrency=4):
        twice = nbq.QueuedCommand("flaky").with_args([4]).with_max_attempts(3).with_backoff(0.0)
        assert queues.dispatch(twice).result(timeout=PATIENCE) == 8
        with pytest.raises(nbq.JobFailed, match="boo"):
            queues.dispatch(nbq.QueuedCommand("bad")).result(timeout=PATIENCE)
        batch = queues.map(half, range(12))
        assert list(batch.wait(timeout=PATIENCE).results()) == [x / 2 for x in range(12)]
    frame = queues.jobs()
    assert Counter(frame["state"]) == {"succeeded": 13, "failed": 1}
    assert list(frame[frame["command"] == "flaky"]["attempt"]) == [2]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_worker_on_every_queue(queues: QueueManager, url: str, tmp_path: Path) -> None:
    """It works on queues that its own ledger has never heard of, and not on dead letters."""
    ran: list[str] = []

    @nbq.command("say")
    def say(text: str) -> None:
        ran.append(text)
        if text == "bad":
            raise ValueError

    with nbq.connect(f"{url}&ledger={tmp_path / 'other.duckdb'}") as elsewhere:
        for queue, text in (("e mails", "a"), ("imports", "bad")):
            elsewhere.dispatch(nbq.QueuedCommand("say").with_args([text]).on_queue(queue))
    with queues.worker(concurrency=2):
        wait_until(lambda: sorted(ran) == ["a", "bad"])
        wait_until(lambda: set(queues.jobs()["state"]) == {"succeeded", "failed"})
    assert queues.list() == ["default", "e mails", "imports"]


def test_a_job_longer_than_its_message_is_hidden(url: str, tmp_path: Path) -> None:
    """A job that takes twice the time for which its message is hidden runs once, though another worker waits for it."""
    runs: list[int] = []
    until = threading.Event()

    @nbq.command("long")
    def long() -> str:
        runs.append(1)
        until.wait(5.0)
        return "done"

    short = f"{url}&visibility=2"
    with (
        nbq.connect(f"{short}&ledger={tmp_path / 'a.duckdb'}") as here,
        nbq.connect(f"{short}&ledger={tmp_path / 'b.duckdb'}") as there,
        here.worker(concurrency=1),
    ):
        receipt = here.dispatch(nbq.QueuedCommand("long"))
        wait_until(lambda: runs)
        with there.worker(concurrency=1):
            assert not until.wait(4.5)
            assert receipt.state == "running"
            until.set()
            assert receipt.result(timeout=PATIENCE) == "done"
    assert runs == [1]


def test_an_outage(url: str, sqs_endpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that cannot reach SQS says so once, tries on, and goes on when it can."""

    @nbq.command("one")
    def one() -> int:
        return 1

    relay = Relay(sqs_endpoint)
    address = url.replace(sqs_endpoint, relay.endpoint) + f"&ledger={tmp_path / 'a.duckdb'}"
    try:
        with nbq.connect(address) as queues, queues.worker(concurrency=1):
            assert queues.dispatch(nbq.QueuedCommand("one")).result(timeout=PATIENCE) == 1
            relay.cut()
            wait_until(lambda: "cannot be received" in caplog.text)
            with pytest.raises(nbq.DispatchFailed):
                queues.dispatch(nbq.QueuedCommand("one"))
            relay.mend()
            wait_until(lambda: "can be received again" in caplog.text)
            assert queues.dispatch(nbq.QueuedCommand("one")).result(timeout=PATIENCE) == 1
    finally:
        relay.close()
    assert caplog.text.count("cannot be received") == 1


def test_two_processes_and_a_death(queues: QueueManager, url: str, tmp_path: Path) -> None:
    """Two processes share a queue, each job runs once; what one had when it was killed runs at the other."""
    notes = tmp_path / "notes"
    notes.touch()

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, ERRANDS, f"{url}&visibility=2", notes]
        return subprocess.Popen(command, stdin=subprocess.PIPE)

    def ran(what: str) -> list[str]:
        lines = [line.split() for line in notes.read_text().splitlines()]
        return [line[-1] for line in lines if line[0] == what]

    crew = [start(), start()]
    try:
        wait_until(lambda: len(ran("interrupted")) == 2)
        queues.dispatch_many([nbq.QueuedCommand("note").with_args([n]) for n in range(60)])
        wait_until(lambda: len(notes.read_text().splitlines()) == 62)
        pids = Counter(ran(str(n))[0] for n in range(60))
        assert all(len(ran(str(n))) == 1 for n in range(60))
        assert set(pids) == {str(one.pid) for one in crew}
        queues.dispatch(nbq.QueuedCommand("hang"))
        wait_until(lambda: ran("hang"))
        (dead,) = (one for one in crew if str(one.pid) == ran("hang")[0])
        dead.kill()
        dead.wait()
        wait_until(lambda: len(ran("hang")) == 2)
        crew.append(start())
        wait_until(lambda: len(ran("interrupted")) == 3)
        assert f"interrupted 1 {crew[-1].pid}" in notes.read_text()
    finally:
        for one in crew:
            one.kill()
            one.communicate()
