"""``queues.run``: one job at once, in the caller's thread, recorded like any other."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbqueue as nbq
from nbqueue.worker import foreground

ROOT = Path(__file__).parent.parent.parent


@nbq.job
def add(a: int, b: int) -> int:
    print("adding")
    return a + b


@nbq.job
async def add_async(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@nbq.job(tries=3)
def fail() -> None:
    raise ValueError("no")


@nbq.job
def interrupted() -> None:
    raise KeyboardInterrupt


@nbq.job
def where() -> str:
    return threading.current_thread().name


@nbq.job
def nested() -> int:
    value: int = nbq.current().dispatch(add.call(1, 1)).wait(20).result()
    return value


@pytest.fixture
def queues(tmp_path: Path) -> Iterator[nbq.QueueManager]:
    """A queue in a file."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        yield queues


def test_gives_the_value_and_keeps_the_record(
    queues: nbq.QueueManager, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs in the caller's thread, shows what the job prints, and is in the history with its log."""
    assert queues.run(add.call(1, 2)) == 3
    assert capsys.readouterr().out == "adding\n"
    assert queues.run(where.call()) == threading.current_thread().name
    events = queues.store.query("SELECT event FROM events WHERE command = 'add' ORDER BY seq")["event"]
    assert list(events) == ["dispatched", "claimed", "succeeded"]
    assert list(queues.store.query("SELECT text FROM logs")["text"]) == ["adding\n"]
    assert queues.store.workers() == []


def test_is_left_alone_by_workers(queues: nbq.QueueManager) -> None:
    """A worker on every queue does not take it, and what the job itself dispatches it does."""
    with queues.worker(concurrency=1):
        assert queues.run(nested.call()) == 2
    workers = queues.store.query("SELECT command, worker FROM jobs")
    assert len(set(workers["worker"])) == 2


def test_fails_at_once(queues: nbq.QueueManager) -> None:
    """Its one attempt is the only one, whatever its tries."""
    with pytest.raises(nbq.JobFailed, match="ValueError: no"):
        queues.run(fail.call())
    (row,) = queues.store.query("SELECT state, attempt FROM jobs").itertuples(index=False)
    assert tuple(row) == ("failed", 1)


def test_refuses_what_nobody_here_can_run(queues: nbq.QueueManager) -> None:
    """A command without a handler is refused by name before anything is written."""
    with pytest.raises(nbq.InvalidCommand, match='no handler for "nobody:knows"'):
        queues.run(nbq.QueuedCommand("nobody:knows"))
    assert len(queues.store.query("SELECT * FROM jobs")) == 0


def test_an_interrupt_ends_the_job_and_goes_on(queues: nbq.QueueManager) -> None:
    """Ctrl-C in a job fails it, and is raised in the cell."""
    with pytest.raises(KeyboardInterrupt):
        queues.run(interrupted.call())
    (row,) = queues.store.query("SELECT state, error FROM jobs").itertuples(index=False)
    assert tuple(row) == ("failed", "KeyboardInterrupt")


def test_runs_async_handlers_without_a_loop(queues: nbq.QueueManager) -> None:
    """In a script an async handler gets a loop of its own."""
    assert queues.run(add_async.call(2, 3)) == 5


def test_runs_async_handlers_beside_a_loop(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """On ipykernel 7, whose loop must not be re-entered, an async handler runs on another one."""
    monkeypatch.setattr(foreground, "_reentrant_is_safe", lambda: False)

    async def cell() -> int:
        value: int = queues.run(add_async.call(2, 3))
        return value

    assert asyncio.run(cell()) == 5


NESTED = """
import asyncio
import nbqueue as nbq

@nbq.job
async def whose_loop():
    await asyncio.sleep(0)
    return id(asyncio.get_running_loop())

async def cell():
    with nbq.connect(":memory:") as queues:
        assert queues.run(whose_loop.call()) == id(asyncio.get_running_loop())
        # Afterwards everything works as before.
        with queues.worker(concurrency=2):
            assert await whose_loop.dispatch() != id(asyncio.get_running_loop())
    print("ran")

asyncio.run(cell())
"""


def test_runs_async_handlers_on_the_loop_that_runs() -> None:
    """Elsewhere a handler that needs the running loop has it: the one use of nest-asyncio, which patches a process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", NESTED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
