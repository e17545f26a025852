"""``nbqueue work`` and its signals: one asks, a second insists, more change nothing, and the exit code is 0."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nbqueue as nbq

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as of POSIX")

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 60.0
TASKS = """
import os, threading
from pathlib import Path
import nbqueue as nbq

@nbq.command("gate")
def gate(path):
    Path(path + ".runs").touch()
    while not Path(path).exists():
        threading.Event().wait(0.01)

@nbq.command("deaf")
def deaf(path):
    Path(path + ".runs").touch()
    while not Path(path).exists():
        try:
            threading.Event().wait(0.01)
        except BaseException:
            pass
"""
Work = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def queues(tmp_path: Path) -> nbq.QueueManager:
    """A queue that has been closed, with handlers beside it; what it says is asked of a new one."""
    (tmp_path / "signal_tasks.py").write_text(TASKS)
    return nbq.connect(tmp_path / "jobs.duckdb")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    """Starts ``nbqueue work`` on the queue, and ends what is left of it."""
    started = []

    def start(**how: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "nbqueue", "work", "--import", "signal_tasks", "--db", "jobs.duckdb"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            command,
            cwd=tmp_path,
            env=environment,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **how},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def handed_in(queues: nbq.QueueManager, command: str) -> Path:
    """Dispatch a job to a queue and close it; gives the file that lets the job end."""
    go = Path(queues.name).with_name("go")
    with queues:
        queues.dispatch(nbq.QueuedCommand(command).with_args([str(go)]))
    return go


def runs(process: subprocess.Popen[str], go: Path) -> None:
    """Wait until the job runs."""
    while not go.with_name("go.runs").exists():
        assert process.poll() is None, process.communicate()


def stands(go: Path) -> tuple[str, int, int]:
    """How the one job stands in the file afterwards: its state, its attempts, its deaths."""
    with nbq.connect(go.with_name("jobs.duckdb")) as queues:
        assert queues.interrupted == []
        assert queues.workers() == []
        (row,) = queues.jobs().to_dict("records")
        return row["state"], row["attempt"], row["crashes"]


def until(process: subprocess.Popen[str], text: str) -> None:
    """Read what it says up to a line with this."""
    assert process.stdout is not None
    assert any(text in line for line in iter(process.stdout.readline, ""))


def test_sigterm_five_times(queues: nbq.QueueManager, work: Work) -> None:
    """A job that hears nothing is given back at the second; three more, however late they come, do no harm."""
    go = handed_in(queues, "deaf")
    process = work()
    runs(process, go)
    for text in ("finishing 1", "gives back what runs"):
        process.send_signal(signal.SIGTERM)
        until(process, text)
    # Up to its very end: while it gives back, while it closes its file, and while the interpreter goes.
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert stands(go) == ("pending", 0, 0)


def test_ctrl_c_reaches_the_whole_group(queues: nbq.QueueManager, work: Work) -> None:
    """Ctrl-C as a terminal sends it: the first lets the job end, which then counts."""
    go = handed_in(queues, "gate")
    process = work(start_new_session=True)
    runs(process, go)
    os.killpg(process.pid, signal.SIGINT)
    until(process, "Ctrl-C: takes no more jobs, finishing 1")
    go.touch()
    assert process.wait(PATIENCE) == 0
    assert stands(go) == ("succeeded", 1, 0)


def test_a_terminal_that_is_closed(queues: nbq.QueueManager, work: Work) -> None:
    """SIGHUP is a request to stop as well, and the job that runs may end though nobody reads what is said."""
    go = handed_in(queues, "gate")
    ours, theirs = os.openpty()
    process = work(stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    runs(process, go)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    go.touch()
    assert process.wait(PATIENCE) == 0
    assert stands(go) == ("succeeded", 1, 0)


def test_nohup(queues: nbq.QueueManager, work: Work) -> None:
    """What whoever started it has ignored stays ignored."""
    go = handed_in(queues, "gate")
    process = work(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    runs(process, go)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    until(process, "SIGTERM: takes no more jobs, finishing 1")
    go.touch()
    assert process.wait(PATIENCE) == 0
    assert stands(go) == ("succeeded", 1, 0)
