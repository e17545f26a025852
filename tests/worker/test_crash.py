"""Real processes, real signals: what was acknowledged is there afterwards, and every job ends exactly once.

The processes are this file, run as a script: ``python test_crash.py ROLE FILE SEED``.
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
from pathlib import Path

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


def leave(path: str) -> None:
    """Dispatch, start a worker on a job that does not end, and simply end."""
    queues = nbq.connect(path)
    mark = path + ".mark"
    queues.worker(concurrency=1).start()
    receipts = queues.dispatch_many(
        [nbq.QueuedCommand("crash:endless").with_args([mark])]
        + [nbq.QueuedCommand("crash:quick").with_args([i]) for i in range(20)]
    )
    while not Path(mark).exists():
        pass
    os.write(1, "".join(f"{receipt}\n" for receipt in receipts).encode())


def start(role: str, path: Path, seed: int = 0) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(HERE), role, str(path), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


# ------------------------------------------------------------------------- the tests


def drain(path: Path) -> None:
    """Run what is left in this process."""
    with nbq.connect(path) as queues, queues.worker(concurrency=4) as worker:
        worker.drain(60)


def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path: Path) -> None:
    """After 30 kills at random points of one file, every acknowledged job ended exactly once."""
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    rng = random.Random(seed)
    path = tmp_path / "jobs.duckdb"
    acknowledged: list[str] = []
    interrupted = begun = 0
    process = start("dispatch_and_work", path, seed)
    for turn in range(ROUNDS):
        assert process.stdout is not None
        assert process.stderr is not None
        # By how much it has said, not by time: so that slow machines are killed at the same points.
        lines = [process.stdout.readline()]
        assert lines == [b"working\n"], process.stderr.read().decode()
        lines += [process.stdout.readline() for _ in range(rng.choice((0, 1, 5, 50, 150, 300)))]
        process.kill()
        out, errors = process.communicate()
        assert errors == b""
        # What was written before the kill was acknowledged; a line that was cut is none.
        lines += out.splitlines(keepends=True)
        acknowledged += [line.decode().strip() for line in lines[1:] if line.endswith(b"\n")]
        if turn < ROUNDS - 1:
            process = start("dispatch_and_work", path, seed + turn + 1)
    with nbq.connect(path) as queues:
        interrupted, begun = len(queues.interrupted), sum(one.begun for one in queues.interrupted)
        assert begun <= 4
        assert all(one.reason and one.job_id for one in queues.interrupted)
        worker = queues.worker(concurrency=4)
        worker.drain(60)
        rows = queues.store.query("SELECT job_id, state, crashes, attempt, max_attempts, command, cause FROM jobs")
        jobs = {str(row.job_id): row for row in rows.itertuples()}
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
        assert set(lost["cause"]) <= {"interrupted"}
        assert lost["error"].str.contains("went away").all()
        # At most one job a slot and a death had begun.
        blamed = queues.store.query("SELECT sum(crashes) AS n FROM jobs")["n"][0]
        assert blamed <= 4 * ROUNDS
    print(f"{len(acknowledged)} acknowledged, {len(lost)} interrupted, the last time {interrupted} of which {begun} begun")
    assert len(acknowledged) > 500


def test_a_job_that_kills_its_process_is_stopped_after_three_deaths(tmp_path: Path) -> None:
    """The third death fails it with the cause "crashes"; jobs claimed ahead of their slot are never blamed."""
    path = tmp_path / "jobs.duckdb"
    with nbq.connect(path) as queues:
        warmers = queues.dispatch_many(
            [nbq.QueuedCommand("crash:quick").with_args([i]).with_priority(9) for i in range(200)]
        )
        fatal = queues.dispatch(nbq.QueuedCommand("crash:deadly").with_priority(5))
        innocents = queues.dispatch_many([nbq.QueuedCommand("crash:quick").with_args([i]) for i in range(200)])
    deaths, ahead = 0, 0
    for _ in range(3):
        process = start("work", path)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (-signal.SIGKILL, b"")
        with nbq.connect(path) as queues:
            deaths += 1
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
        for receipt in (*warmers, *innocents):
            one = queues.job(receipt.job_id).record()
            assert (one.state, one.crashes, one.attempt) == ("succeeded", 0, 1)


def test_sigterm_leaves_a_file_that_opens(tmp_path: Path) -> None:
    """A process that does not handle SIGTERM dies of it like of any other; its jobs go on elsewhere."""
    path = tmp_path / "jobs.duckdb"
    process = start("dispatch_and_work", path, 7)
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    lines = [process.stdout.readline() for _ in range(100)]
    process.terminate()
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (-signal.SIGTERM, b"")
    lines += [line for line in out.splitlines(keepends=True) if line.endswith(b"\n")]
    drain(path)
    with nbq.connect(path) as queues:
        found = queues.store.get([uuid.UUID(line.decode().strip()) for line in lines])
        assert len(found) == len(lines)
        assert all(record.state.ended for record in found)


def test_an_interpreter_that_ends_closes_its_queue(tmp_path: Path) -> None:
    """A script may simply end with a worker at work: exit code 0, no word on stderr, and the file has everything."""
    path = tmp_path / "jobs.duckdb"
    process = start("leave", path)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, b"")
    ids = [uuid.UUID(line) for line in out.decode().split()]
    assert len(ids) == 21
    assert not list(path.parent.glob("*.slots/*"))
    with nbq.connect(path) as queues:
        assert queues.interrupted == []
        endless_one, *quick_ones = queues.store.get(ids)
        assert (endless_one.state, endless_one.attempt, endless_one.crashes) == ("pending", 0, 0)
        assert {record.state for record in quick_ones} == {"pending"}


def test_the_lock_is_free_at_once_after_kill_9(tmp_path: Path) -> None:
    """Whoever opens the file after a kill need not wait, and is told what was interrupted."""
    path = tmp_path / "jobs.duckdb"
    mark = tmp_path / "mark"
    with nbq.connect(path) as queues:
        receipt = queues.dispatch(nbq.QueuedCommand("crash:endless").with_args([str(mark)]))
    process = start("work", path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    while not mark.exists():
        assert process.poll() is None
    with pytest.raises(nbq.QueueUnavailable, match=str(process.pid)):
        nbq.connect(path)
    process.kill()
    process.communicate()
    with nbq.connect(path) as queues:
        (one,) = queues.interrupted
        assert (one.job_id, one.begun, one.command) == (receipt.job_id, True, "crash:endless")
        assert "was killed" in one.reason
        assert "given back" in one.reason
        record = queues.job(receipt.job_id).record()
        assert (record.state, record.attempt, record.crashes) == ("pending", 0, 1)


if __name__ == "__main__":
    role, where, given = sys.argv[1:]
    if role == "dispatch_and_work":
        dispatch_and_work(where, int(given))
    elif role == "work":
        work(where)
    else:
        leave(where)
