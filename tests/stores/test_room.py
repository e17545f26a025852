"""How history goes: piece by piece, by itself, with all that belonged to it, and so that its room is used again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbqueue.jobs import NewJob, State
from nbqueue.lifecycle import Outcome
from nbqueue.store import Report, ReportKind, Selection
from nbqueue.stores import duckdb as duckdb_module
from nbqueue.stores import ledger as ledger_module
from nbqueue.stores import pruning
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.handover import Op
from nbqueue.stores.index import Index
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.pruning import Pruning
from nbqueue.testing import FakeClock, FakeWorker, new_job
from nbqueue.testing.workers import bring, check_books, ids, new_batch


def run(store: DuckDBStore, clock: FakeClock, jobs: list[NewJob]) -> None:
    """Dispatch jobs and have them succeed, one after the other."""
    store.insert(jobs)
    worker = FakeWorker(store, f"w{clock.time()}")
    reports = []
    for claim in worker.turn(slots=1_000).claims:
        clock.advance(0.001)
        reports.append(Report(claim, ReportKind.ENDED, Outcome.SUCCEEDED, finished_at=clock.time()))
    worker.turn(*reports)
    worker.leave()


def rows(store: DuckDBStore, table: str) -> int:
    """How many rows a table has."""
    count: int = store._run(
        lambda _: store._ledger._sql().execute(f"SELECT count(*) FROM {table}").fetchall()[0][0]
    )
    return count


# --------------------------------------------------------------------------------------------------- pieces
def test_verbs_are_answered_between_pieces(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks while much is forgotten waits for one piece of it, not for the whole."""
    monkeypatch.setattr(pruning, "FIRST_PIECE", 10)
    # However fast or slow this machine is, the pieces stay as they are.
    monkeypatch.setattr(pruning, "perf_counter", lambda: 0.0)
    monkeypatch.setattr(pruning, "PIECE_SECONDS", 0.0)
    store = opened()
    run(store, clock, [new_job(clock) for _ in range(30)])
    asked: list[Op] = []
    real = Ledger.prune

    def prune(ledger: Ledger, going: Pruning, index: Index, now: float) -> None:
        real(ledger, going, index, now)
        asked.append(Op(lambda index: index.queues["default"].counts[State.SUCCEEDED]))
        store._inbox.append(asked[-1])

    monkeypatch.setattr(Ledger, "prune", prune)
    assert store.forget(Selection()) == 30
    assert store.queues()[0].counts[State.SUCCEEDED] == 0
    assert [op.result for op in asked] == [20, 10, 0]
    check_books(store)


def test_a_job_that_runs_again_between_pieces_stays(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a job goes is decided when its piece does: one that was retried meanwhile waits for its worker."""
    monkeypatch.setattr(pruning, "FIRST_PIECE", 2)
    store = opened()
    jobs = [new_job(clock) for _ in range(6)]
    run(store, clock, jobs)
    going = store._run(lambda _: store._ledger.begin_pruning(Selection()))
    store._run(lambda index: store._prune(index, going))
    store.retry([jobs[3].job_id])
    while not going.over:
        store._run(lambda index: store._prune(index, going))
    assert going.forgotten == 5
    assert ids(FakeWorker(store, "late").take(9)) == [jobs[3].job_id]
    check_books(store)


def test_what_was_not_reached_is_there_after_a_death(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A death between two pieces costs nothing: some are gone, the others whole, and numbers go on rising."""
    monkeypatch.setattr(pruning, "FIRST_PIECE", 4)
    store = opened()
    jobs = [new_job(clock, "old", queue="q") for _ in range(10)]
    run(store, clock, jobs)
    going = store._run(lambda _: store._ledger.begin_pruning(Selection()))
    store._run(lambda index: store._prune(index, going))
    store.close()
    again = opened()
    assert again.find(Selection()) == ids(jobs[4:])
    assert {record.state for record in again.get(ids(jobs))} == {State.SUCCEEDED}
    check_books(again)
    assert again.forget(Selection()) == 6
    again.close()
    last = opened()
    new = bring(last, clock, State.SUCCEEDED)
    assert last.query("SELECT number FROM jobs")["number"].tolist() == [11]
    assert last.find(Selection()) == [new.job_id]


# ------------------------------------------------------------------------------------------------- leftovers
def test_what_belonged_to_nobody_else_goes_along(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """Specs, workers, batches and code of forgotten jobs go; what others need, and who is here, stays."""
    store = opened()
    code = {"gone": b"1", "used": b"2", "fresh": b"3"}
    for name in ("gone", "used"):
        store.put_code(name, code[name])
    clock.advance(2 * pruning.CODE_KEPT)
    store.put_code("fresh", code["fresh"])
    _, batch_jobs = new = new_batch(clock, {"a": "[1]"}, key="old")
    store.put_batch(*new)
    run(store, clock, [*(new_job(clock, "old", code="gone", tries=n + 1) for n in range(3))])
    waits = new_job(clock, "kept", code="used", delay=1e9)
    store.insert([waits])
    here = FakeWorker(store, "here")
    assert (rows(store, "specs"), rows(store, "workers"), rows(store, "batches")) == (5, 2, 1)
    assert store.forget(Selection()) == len(batch_jobs) + 3
    assert (rows(store, "specs"), rows(store, "workers"), rows(store, "batches")) == (1, 1, 0)
    assert {name: store.get_code(name) for name in code} == {**code, "gone": None}
    # Numbers of specs have holes now, before and after a restart.
    run(store, clock, [new_job(clock, "old", tries=1), new_job(clock, "new")])
    assert here.turn().expired is False
    store.close()
    again = opened()
    commands = [record.spec.command for record in again.get(again.find(Selection()))]
    assert sorted(commands) == ["kept", "new", "old"]
    check_books(again)
    other = new_job(clock, "other")
    again.insert([other])
    assert [claim.spec for claim in FakeWorker(again, "w2").take(1)] == [other.spec]


def test_code_that_is_put_again_is_new(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """Who puts code may count on it for a while, though others had put it long ago."""
    store = opened()
    store.put_code("c0de", b"1")
    clock.advance(2 * pruning.CODE_KEPT)
    store.put_code("c0de", b"1")
    bring(store, clock, State.SUCCEEDED)
    store.forget(Selection())
    assert store.get_code("c0de") == b"1"


# --------------------------------------------------------------------------------------------------- by itself
def test_retention_needs_no_worker(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been kept long enough goes though nobody works and nobody asks."""
    monkeypatch.setattr(duckdb_module, "IDLE_SECONDS", 0.01)
    store = opened()
    old = bring(store, clock, State.SUCCEEDED)
    store.retain(3600.0)
    assert store.find(Selection()) == [old.job_id]
    told = threading.Event()
    store.listen(told.set)
    clock.advance(4000.0)
    assert told.wait(10)
    assert store.find(Selection()) == []


def test_retention_that_fails_is_nobodys_trouble(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's report counts though the history could not be cut, and that is tried again later."""
    store = opened()
    old = bring(store, clock, State.SUCCEEDED)
    store.insert([new_job(clock)])
    worker = FakeWorker(store, "busy", lease=1e9)
    claim = worker.take_one()
    clock.advance(4000.0)
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "delete_piece", lambda *_: 1 / 0)
        store.retain(3600.0)
        assert worker.end(claim).done
    assert old.job_id in store.find(Selection())
    clock.advance(100.0)
    worker.turn()
    assert store.find(Selection()) == [claim.job_id]
    check_books(store)


# -------------------------------------------------------------------------------------------------------- room
def test_log_of_the_dead_is_folded_in(
    opened: Callable[[], DuckDBStore], clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an owner left in its log is folded in when the next one is idle, though nobody dispatches anything."""
    store = opened()
    store.insert([new_job(clock)])
    for name in ("jobs.duckdb", "jobs.duckdb.wal", "jobs.duckdb.journal"):
        (tmp_path / f"dead-{name}").write_bytes((tmp_path / name).read_bytes())
    done = threading.Event()
    real = Ledger.checkpoint

    def checkpoint(ledger: Ledger) -> None:
        real(ledger)
        done.set()

    monkeypatch.setattr(Ledger, "checkpoint", checkpoint)
    monkeypatch.setattr(duckdb_module, "IDLE_SECONDS", 0.01)
    heir = DuckDBStore(tmp_path / "dead-jobs.duckdb", clock=clock.time, ticks=clock.ticks)
    assert done.wait(10)
    assert len(heir.find(Selection())) == 1
    heir.close()


def test_few_commits_are_gone_through_again(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small they are, so many commits and no more are left to whoever opens the file after a death."""
    monkeypatch.setattr(duckdb_module, "CHECKPOINT_COMMITS", 5)
    monkeypatch.setattr(duckdb_module, "CHECKPOINT_PAUSE", 0.0)
    store, commits = opened(), []
    for _ in range(12):
        store.insert([new_job(clock)])
        store.query("SELECT 1")  # so that it is in the file
        commits.append(store._run(lambda _: store._ledger.commits))
    assert max(commits) <= 6
    assert commits[0] < commits[1]


def test_room_is_used_again(opened: Callable[[], DuckDBStore], clock: FakeClock, tmp_path: Path) -> None:
    """Where as much goes as comes, the file stops growing.

    A round writes about a megabyte. A file that used nothing again would be three times as large after twelve
    rounds as after four. One that does differs by which blocks happen to be free: 256 KiB each, of some 3 MiB.
    """
    store, sizes = opened(), []
    for n in range(12):
        text = f'["{n:x}' + "".join(f"{(k * 2654435761 + n) % 2**32:08x}" for k in range(600)) + '"]'
        run(store, clock, [new_job(clock, payload=text.replace("0", f"{k:x}")) for k in range(200)])
        store.forget(Selection(), 200)
        store._run(lambda _: store._ledger.checkpoint())
        sizes.append((tmp_path / "jobs.duckdb").stat().st_size)
    assert len(store.find(Selection())) == 200
    assert sizes[-1] <= 1.6 * sizes[3], sizes


class Noted:
    """A connection whose statements are noted before they are run."""

    def __init__(self, real: Any, notes: list[str]) -> None:
        self._real, self._notes = real, notes

    def execute(self, sql: str, *given: Any) -> Any:
        """Note it, and run it."""
        self._notes.append(sql)
        return self._real.execute(sql, *given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_checkpoint_is_between_readers(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint lets who reads come to an end, and who begins wait for it, so that no room stays taken."""
    monkeypatch.setattr(ledger_module, "READERS_PAUSE", 10.0)
    store = opened()
    bring(store, clock, State.SUCCEEDED)
    store.query("SELECT 1")
    ledger: Any = store._ledger
    order: list[str] = []
    ledger._connection = Noted(ledger._connection, order)
    reading, coming = threading.Event(), threading.Event()

    def first() -> None:
        with ledger.cursor():
            reading.set()
            assert coming.wait(10)
            order.append("first")

    def second() -> None:
        with ledger._reading:
            assert ledger._reading.wait_for(lambda: ledger._pausing, 10)
            coming.set()
        with ledger.cursor():
            order.append("second")

    readers = [threading.Thread(target=target) for target in (first, second)]
    for reader in readers:
        reader.start()
    assert reading.wait(10)
    store._run(lambda _: ledger.checkpoint())
    for reader in readers:
        reader.join(10)
    assert order == ["first", "CHECKPOINT", "second"]
