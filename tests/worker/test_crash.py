"""Real processes, real signals: what was acknowledged is there afterwards, and every job ends exactly once.

The processes are this file, run as a script; most are forked off one that has imported everything (``Nursery``), since
a start takes half a second otherwise.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbqueue as nbq

HERE = Path(__file__)
ROOT = HERE.parent.parent.parent
ROUNDS = 30
QUEUES = ("default", "imports", "emails")
ENDINGS = ("succeeded", "failed", "cancelled")

# ------------------------------------------------------------------------- the jobs


@nbq.command("crash:quick")
def quick(number: int) -> int:
    return number


@nbq.command("crash:flaky", tries=3, backoff=[0.01, 0.02])
def flaky(ctx: nbq.Context, number: int) -> str:
    if ctx.attempt < 3:
        raise ValueError(number)
    return "at last"


@nbq.command("crash:broken", tries=2, backoff=0.01)
def broken(number: int) -> None:
    print("about to fail")
    raise KeyError(number)


@nbq.command("crash:slow")
def slow(number: int) -> int:
    time.sleep(0.03)
    return number


@nbq.command("crash:deadly")
def deadly() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@nbq.command("crash:endless")
def endless(path: str) -> None:
    Path(path).touch()
    while True:
        pass


@nbq.command("crash:stuck")
def stuck(path: str) -> None:
    Path(path).touch()
    threading.Event().wait()


NAMES = ("crash:quick", "crash:quick", "crash:quick", "crash:flaky", "crash:broken", "crash:slow")


# ------------------------------------------------------------------------- the processes


def dispatch_and_work(path: str, seed: int) -> None:
    """Dispatch and work until killed; ids go to stdout after their dispatch has returned."""
    rng = random.Random(seed)
    queues = nbq.connect(path)
    worker = queues.worker(concurrency=4).start()
    os.write(1, b"working\n")
    number = 0
    while worker.running:
        works = []
        for _ in range(rng.choice((1, 1, 1, 5, 40))):
            number += 1
            work = nbq.QueuedCommand(rng.choice(NAMES)).with_args([number]).on_queue(rng.choice(QUEUES))
            works.append(work.with_delay(rng.random() / 20) if rng.random() < 0.1 else work)
        receipts = queues.dispatch_many(works)
        os.write(1, "".join(f"{receipt}\n" for receipt in receipts).encode())
        if number > 300:
            receipts[-1].wait(10)


def work(path: str) -> None:
    """Work until killed."""
    queues = nbq.connect(path)
    with queues.worker(concurrency=1):
        os.write(1, b"working\n")
        threading.Event().wait()


def leave(path: str, command: str) -> None:
    """Dispatch, start a worker on a job that does not end, and simply end."""
    queues = nbq.connect(path)
    mark = path + ".mark"
    queues.worker(concurrency=1).start()
    receipts = queues.dispatch_many(
        [nbq.QueuedCommand(command).with_args([mark])]
        + [nbq.QueuedCommand("crash:quick").with_args([i]) for i in range(20)]
    )
    while not Path(mark).exists():
        pass
    os.write(1, "".join(f"{receipt}\n" for receipt in receipts).encode())


ROLES = {
    "dispatch_and_work": lambda path, given: dispatch_and_work(path, int(given)),
    "work": lambda path, _: work(path),
    "leave": leave,
}


def nurse() -> None:
    """Fork a process for every line of stdin; says its pid, and how it ended."""
    import numpy as np  # noqa: F401 - what recovery needs

    import nbqueue.executors.thread
    import nbqueue.stores.duckdb
    import nbqueue.worker.worker  # noqa: F401 - as above

    for line in sys.stdin:
        role, path, given, out, errors = line.split()
        pid = os.fork()
        if not pid:
            random.seed()
            os.dup2(os.open(out, os.O_WRONLY), 1)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
            ROLES[role](path, given)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


class Child:
    """A process of the nursery."""

    def __init__(self, pid: int, out: Path, errors: Path, nursery: subprocess.Popen[str]):
        self.pid, self.errors, self._nursery = pid, errors, nursery
        self.out = out.open("rb")

    def end(self) -> tuple[int, bytes, str]:
        """Wait for its end; gives its exit code and the rest of what it said."""
        assert self._nursery.stdout is not None
        rest = self.out.read()
        self.out.close()
        return int(self._nursery.stdout.readline()), rest, self.errors.read_text()


class Nursery:
    """Where processes come from quickly, one at a time."""

    def __init__(self, folder: Path):
        self._folder, self._count = folder, 0
        self._latest: Child | None = None
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "nurse"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        )

    def start(self, role: str, path: Path, given: object = 0) -> Child:
        """Start a process; its output is a pipe."""
        self._count += 1
        out, errors = self._folder / f"out{self._count}", self._folder / f"errors{self._count}"
        os.mkfifo(out)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{role} {path} {given} {out} {errors}\n")
        self._process.stdin.flush()
        self._latest = Child(int(self._process.stdout.readline()), out, errors, self._process)
        return self._latest

    def close(self) -> None:
        """Send it home, with the child that a test which failed has left with it."""
        if self._latest is not None and not self._latest.out.closed:
            os.kill(self._latest.pid, signal.SIGKILL)
            self._latest.out.close()
        self._process.communicate()


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    """Gives processes, and closes."""
    (tmp_path / "nursery").mkdir()
    nursery = Nursery(tmp_path / "nursery")
    yield nursery
    nursery.close()


def start(role: str, path: Path, given: object = 0) -> subprocess.Popen[bytes]:
    """Start a process the slow way, which ends as processes of users end."""
    return subprocess.Popen(
        [sys.executable, str(HERE), role, str(path), str(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


# ------------------------------------------------------------------------- the tests


def drain(path: Path) -> None:
    """Run what is left in this process."""
    with nbq.connect(path) as queues, queues.worker(concurrency=4) as worker:
        worker.drain(60)


def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path, nursery: Nursery) -> None:
    """After 30 kills at random points of one file, every acknowledged job ended exactly once."""
    seed = int(os.environ.get("NBQUEUE_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"NBQUEUE_TEST_SEED={seed}")
    rng = random.Random(seed)
    path = tmp_path / "jobs.duckdb"
    acknowledged: list[str] = []
    for turn in range(ROUNDS):
        child = nursery.start("dispatch_and_work", path, seed + turn)
        assert child.out.readline() == b"working\n", child.errors.read_text()
        # By how much it has said, not by time, so that slow machines are killed at the same points.
        lines = [child.out.readline() for _ in range(rng.choice((0, 1, 5, 20, 60, 150)))]
        os.kill(child.pid, signal.SIGKILL)
        code, rest, errors = child.end()
        assert (code, errors) == (-signal.SIGKILL, "")
        # What it wrote before the kill was acknowledged; a line that was cut short is none.
        lines += rest.splitlines(keepends=True)
        acknowledged += [line.decode().strip() for line in lines if line.endswith(b"\n")]
    with nbq.connect(path) as queues:
        interrupted, begun = len(queues.interrupted), sum(one.begun for one in queues.interrupted)
        assert begun <= 4
        assert all(one.reason and one.job_id for one in queues.interrupted)
        worker = queues.worker(concurrency=4)
        worker.drain(60)
        rows = queues.store.query(
            "SELECT job_id, state, crashes, attempt, max_attempts, command, cause FROM jobs"
        )
        jobs: dict[str, Any] = {str(row.job_id): row for row in rows.itertuples()}
        assert len(set(acknowledged)) == len(acknowledged)
        assert set(acknowledged) <= jobs.keys()
        assert {row.state for row in jobs.values()} <= {"succeeded", "failed"}
        endings = queues.store.query(
            f"SELECT job_id, count(*) AS n FROM events WHERE event IN {ENDINGS} GROUP BY 1"
        )
        assert len(endings) == len(jobs)
        assert set(endings["n"]) == {1}
        # Deaths are not attempts: every job had all of its tries, and only those.
        for row in jobs.values():
            assert row.crashes < 3 or row.cause == "crashes"
            if row.cause != "crashes":
                expected = {"crash:flaky": 3, "crash:broken": 2}.get(row.command, 1)
                assert (row.attempt, row.max_attempts) == (expected, expected)
                assert (row.state == "failed") == (row.command == "crash:broken")
        lost = queues.store.query(
            "SELECT job_id, error, cause, attempt FROM events WHERE event = 'interrupted'"
        )
        assert set(lost["cause"]) <= {"killed"}
        assert lost["error"].str.contains("went away").all()
        # At most one job a slot and a death had begun.
        blamed = queues.store.query("SELECT sum(crashes) AS n FROM jobs")["n"][0]
        assert blamed <= 4 * ROUNDS
    print(
        f"{len(acknowledged)} acknowledged, {len(lost)} interrupted, the last time {interrupted} of which {begun} begun"
    )
    assert len(acknowledged) > 500


def test_a_job_that_kills_its_process_is_stopped_after_three_deaths(tmp_path: Path, nursery: Nursery) -> None:
    """The third death fails it with the cause "crashes"; jobs claimed ahead of their slot are never blamed."""
    path = tmp_path / "jobs.duckdb"
    with nbq.connect(path) as queues:
        warmers = queues.dispatch_many(
            [nbq.QueuedCommand("crash:quick").with_args([i]).with_priority(9) for i in range(200)]
        )
        fatal = queues.dispatch(nbq.QueuedCommand("crash:deadly").with_priority(5))
        innocents = queues.dispatch_many(
            [nbq.QueuedCommand("crash:quick").with_args([i]) for i in range(200)]
        )
    ahead = 0
    for deaths in (1, 2, 3):
        code, _, errors = nursery.start("work", path).end()
        assert (code, errors) == (-signal.SIGKILL, "")
        with nbq.connect(path) as queues:
            record = queues.job(fatal.job_id).record()
            assert record.crashes == deaths
            assert record.state == ("failed" if deaths == 3 else "pending")
            (mine,) = [one for one in queues.interrupted if one.job_id == fatal.job_id]
            assert mine.begun
            ahead += len(queues.interrupted) - 1
    # Before the first death the worker had learnt how quick its jobs are, so it had claimed ahead.
    assert ahead > 0
    drain(path)
    with nbq.connect(path) as queues:
        record = queues.job(fatal.job_id).record()
        assert (record.state, record.cause, record.crashes) == ("failed", "crashes", 3)
        assert "worker died 3 times" in queues.why(fatal.job_id)
        others = queues.store.get([receipt.job_id for receipt in (*warmers, *innocents)])
        assert {(one.state.value, one.crashes, one.attempt) for one in others} == {("succeeded", 0, 1)}


def test_sigterm_leaves_a_file_that_opens(tmp_path: Path, nursery: Nursery) -> None:
    """A process that does not handle SIGTERM dies of it like of any other; its jobs go on elsewhere."""
    path = tmp_path / "jobs.duckdb"
    child = nursery.start("dispatch_and_work", path, 7)
    assert child.out.readline() == b"working\n"
    lines = [child.out.readline() for _ in range(100)]
    os.kill(child.pid, signal.SIGTERM)
    code, rest, errors = child.end()
    assert (code, errors) == (-signal.SIGTERM, "")
    lines += [line for line in rest.splitlines(keepends=True) if line.endswith(b"\n")]
    drain(path)
    with nbq.connect(path) as queues:
        found = queues.store.get([uuid.UUID(line.decode().strip()) for line in lines])
        assert len(found) == len(lines)
        assert all(record.state.ended for record in found)


@pytest.mark.parametrize("command", ["crash:endless", "crash:stuck"])
def test_an_interpreter_that_ends_closes_its_queue(tmp_path: Path, command: str) -> None:
    """A script may simply end with a worker at work: exit code 0, no word on stderr, and the file has everything."""
    path = tmp_path / "jobs.duckdb"
    process = start("leave", path, command)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")
    ids = [uuid.UUID(line) for line in out.decode().split()]
    assert len(ids) == 21
    assert not list(path.parent.glob("*.slots/*"))
    with nbq.connect(path) as queues:
        assert queues.interrupted == []
        found = queues.store.get(ids)
        assert {(one.state.value, one.attempt, one.crashes) for one in found} == {("pending", 0, 0)}


def test_the_lock_is_free_at_once_after_kill_9(tmp_path: Path, nursery: Nursery) -> None:
    """Whoever opens the file after a kill need not wait, and is told what was interrupted."""
    path, mark = tmp_path / "jobs.duckdb", tmp_path / "mark"
    with nbq.connect(path) as queues:
        receipt = queues.dispatch(nbq.QueuedCommand("crash:stuck").with_args([str(mark)]))
    child = nursery.start("work", path)
    assert child.out.readline() == b"working\n"
    while not mark.exists():
        os.kill(child.pid, 0)
    with nbq.connect(path) as queues:
        assert (queues.owner.pid, queues.owner.here) == (child.pid, False)
        assert queues.job(receipt.job_id).state == "running"
    os.kill(child.pid, signal.SIGKILL)
    assert child.end()[0] == -signal.SIGKILL
    with nbq.connect(path) as queues:
        (one,) = queues.interrupted
        assert (one.job_id, one.begun, one.command) == (receipt.job_id, True, "crash:stuck")
        assert "was killed" in one.reason
        assert "given back" in one.reason
        record = queues.job(receipt.job_id).record()
        assert (record.state, record.attempt, record.crashes) == ("pending", 0, 1)


if __name__ == "__main__":
    if sys.argv[1] == "nurse":
        nurse()
    else:
        ROLES[sys.argv[1]](*sys.argv[2:])
