"""Processes on one queue, killed at random: nothing acknowledged is lost, and the audit would tell if it were."""

from __future__ import annotations

import os
import random
import time
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner

import nbqueue as nbq
from nbqueue.chaos import tasks
from nbqueue.chaos.account import Account
from nbqueue.chaos.audit import settle
from nbqueue.chaos.crew import Death
from nbqueue.chaos.plan import COMMANDS, DISPATCHERS, Plan
from nbqueue.chaos.roles import ACKNOWLEDGED
from nbqueue.chaos.running import run
from nbqueue.chaos.stage import Stage
from nbqueue.cli.commands import main
from nbqueue.cli.doctoring import account as shown
from tests.servers import PostgresServer, fresh_schema

PLAN = Plan(jobs=10, kills=1)


# ------------------------------------------------------------------------- the proof, at a small size


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """Owners, workers and children die while 300 jobs run: each ends once, and none runs twice without a kill."""
    seed = int(os.environ.get("NBQUEUE_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"NBQUEUE_TEST_SEED={seed}")
    account = run(Plan(jobs=300, kills=6, seed=seed, seconds=90.0), Stage(tmp_path))
    print(shown(account))
    assert account.faults == []
    assert (account.lost, account.ended_twice, account.stale_applied) == (0, 0, 0)
    assert account.acknowledged == 300
    assert account.ended >= 300
    assert sum(account.kills.values()) == 6


def test_nothing_is_lost_on_a_server(tmp_path: Path, private_postgres: PostgresServer) -> None:
    """Workers and children of four processes die while 200 jobs run, and the server crashes in the middle of it."""
    seed = int(os.environ.get("NBQUEUE_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"NBQUEUE_TEST_SEED={seed}")
    with fresh_schema(private_postgres.url) as url:
        stage = Stage(tmp_path, url, lambda: private_postgres.restart(immediate=True))
        account = run(Plan(jobs=200, kills=3, restarts=1, seed=seed, seconds=90.0), stage)
        print(shown(account))
        assert account.faults == []
    assert (account.lost, account.ended_twice, account.stale_applied) == (0, 0, 0)
    assert (account.acknowledged, account.restarts, sum(account.kills.values())) == (200, 1, 3)
    assert account.ended >= 200


def test_the_plan_follows_from_its_seed() -> None:
    """Every number is handed in by one dispatcher, and the same seed gives the same plan."""
    plan = Plan(jobs=500, seed=7)
    shares = [list(plan.operations(dispatcher)) for dispatcher in range(DISPATCHERS)]
    numbers = [n for share in shares for one in share for n in range(one.first, one.first + one.size)]
    assert sorted(numbers) == list(range(500))
    assert {one.kind for share in shares for one in share} == {"one", "many", "map"}
    assert {one.command for share in shares for one in share} == set(COMMANDS)
    assert shares == [
        list(Plan(jobs=500, seed=7).operations(dispatcher)) for dispatcher in range(DISPATCHERS)
    ]


# ------------------------------------------------------------------------- the audit of a run that was tampered with


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run without a kill leaves: ten jobs that have ended, their lines, and who acknowledged them."""
    monkeypatch.setenv(tasks.FOLDER, str(tmp_path))
    work = [nbq.QueuedCommand(COMMANDS[n % len(COMMANDS)]).with_args([n]) for n in range(10)]
    with nbq.connect(tmp_path / "jobs.duckdb") as queues, queues.worker() as worker:
        for receipt in queues.dispatch_many(work):
            tasks.append(ACKNOWLEDGED, f"job {receipt.job_id}\n")
        worker.drain(30)
    return tmp_path


def audited(folder: Path, *deaths: Death) -> Account:
    return settle(Stage(folder), PLAN, deaths)


def test_what_is_right_is_found_right(folder: Path) -> None:
    """Nothing is held against a run in which nothing happened."""
    account = audited(folder)
    assert account.faults == []
    assert (account.acknowledged, account.ended, account.lost, account.run_twice) == (10, 10, 0, 0)


def test_a_lost_job_is_found(folder: Path) -> None:
    """One that was acknowledged and is not there; one that has not ended; a batch that is not whole."""
    tasks.append(ACKNOWLEDGED, f"job {uuid.UUID(int=7)}\nbatch {uuid.UUID(int=8)} 4\n")
    with nbq.connect(folder / "jobs.duckdb") as queues:
        waiting = queues.dispatch(nbq.QueuedCommand("chaos:quick").with_args([1]))
    account = audited(folder)
    assert account.lost == 3
    assert account.faults == [
        f"1 acknowledged and not there: {uuid.UUID(int=7)}",
        f"1 batches acknowledged and not whole: {uuid.UUID(int=8)}",
        f"1 not ended: {waiting} is pending",
    ]


def test_a_second_run_has_to_be_explained(folder: Path) -> None:
    """Work under a claim that did not count is held against the queue, unless its process was killed after it."""
    lines = (folder / "effects").read_text().splitlines()
    with nbq.connect(folder / "jobs.duckdb") as queues:
        job = queues.dispatch(nbq.QueuedCommand("chaos:flaky").with_args([3]))
        tasks.append(ACKNOWLEDGED, f"job {job.job_id}\n")
        # Its attempts fail otherwise than by design.
        original, tasks.FLAKY_FAILS = tasks.FLAKY_FAILS, 3
        try:
            with queues.worker() as worker:
                worker.drain(30)
        finally:
            tasks.FLAKY_FAILS = original
    account = audited(folder)
    assert account.run_twice == 1
    assert [fault.partition(":")[0] for fault in account.faults] == [
        "1 run twice without having been in flight at a kill",
        "1 attempts cut short without a kill",
    ]
    assert audited(folder, Death("worker", "kernel", os.getpid(), time.time())).faults == []
    # A kill that came before it ran explains nothing.
    before = float(lines[-1].split()[-1]) - 1.0
    assert len(audited(folder, Death("worker", "kernel", os.getpid(), before)).faults) == 2


def test_a_claim_that_is_run_twice_is_found(folder: Path) -> None:
    """Each claim leaves its lines once, and what succeeded has left them."""
    lines = (folder / "effects").read_text().splitlines()
    (folder / "effects").write_text("\n".join([*lines, lines[-1], ""]))
    assert audited(folder).faults[0].startswith("1 claims run more than once: ")
    (folder / "effects").write_text("\n".join([*lines[:-1], ""]))
    assert audited(folder).faults[0].startswith("1 succeeded without having done their work: ")


def test_a_job_may_fail_only_of_three_deaths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that failed by itself is a fault."""
    monkeypatch.setattr(tasks, "FLAKY_FAILS", 99)
    with nbq.connect(folder / "jobs.duckdb") as queues, queues.worker() as worker:
        queues.dispatch(nbq.QueuedCommand("chaos:flaky").with_args([3]).with_max_attempts(2))
        worker.drain(30)
    assert any(fault.startswith("1 failed: ") for fault in audited(folder).faults)


# ------------------------------------------------------------------------- the command


def test_doctor_runs_it(tmp_path: Path) -> None:
    """``nbqueue doctor --chaos`` prints the account, ends with 0, and leaves nothing behind."""
    result = CliRunner().invoke(
        main,
        [
            "doctor",
            "--chaos",
            "--jobs",
            "20",
            "--kills",
            "0",
            "--seed",
            "5",
            "--db",
            str(tmp_path / "q.duckdb"),
        ],
    )
    assert result.exit_code == 0, result.output
    rows = dict(line.rsplit("  ", 1) for line in result.stdout.splitlines())
    assert {name.strip(): value for name, value in rows.items()}.items() >= {
        ("dispatched and acknowledged", "20"),
        ("lost", "0"),
        ("killed with SIGKILL", "0"),
    }
    assert "seed 5" in result.stderr
    assert list(tmp_path.iterdir()) == []
