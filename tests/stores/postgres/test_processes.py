"""Stores of several processes on one server: who is woken, who is told, and what becomes of the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nbqueue.errors import QueueUnavailable
from nbqueue.jobs import State
from nbqueue.lifecycle import Outcome
from nbqueue.store import Report, ReportKind, Selection, Turn
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.stores.postgres.tx import Tx
from nbqueue.stores.postgres.writing import COPY_ROWS
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, check_books, get, ids, new_job
from tests.servers import PostgresServer, fresh_schema
from tests.stores.postgres.cutting import Knife

#: Longer than anything here takes, on a machine that is busy.
PATIENCE = 30.0

Opened = Callable[..., PostgresStore]


class _Worker(FakeWorker):
    """A worker that tells when it is called or handed something."""

    def __init__(self, store: PostgresStore, worker_id: str, **info: Any):
        self.woken = threading.Event()
        super().__init__(store, worker_id, **info)

    def _wake(self, claims: Any) -> None:
        super()._wake(claims)
        self.woken.set()

    def rest(self, slots: int) -> None:
        """Leave slots open, and wait until what its store had to say at first has been said."""
        self.turn(slots=slots)
        self.woken.clear()


@pytest.fixture
def now() -> FakeClock:
    """Gives new jobs ids of today."""
    return FakeClock(time.time())


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what another process or thread does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def _listens(connected: Callable[[], psycopg.Connection[Any]], n: int) -> None:
    """Wait until so many stores hear one another."""
    watch = connected()
    _until(
        lambda: (
            watch.execute(
                "SELECT count(*) >= %s FROM pg_stat_activity WHERE query LIKE 'LISTEN nbqueue%%'", [n]
            ).fetchone()
            == (True,)
        )
    )


# -- what others say


def test_work_wakes_another_process(opened: Opened, now: FakeClock) -> None:
    """A job that one process dispatches wakes a worker that waits in another."""
    here, there = opened(real=True), opened(real=True)
    worker = _Worker(there, "there")
    worker.rest(1)
    job = new_job(now)
    here.insert([job])
    assert worker.woken.wait(PATIENCE)
    _until(lambda: ids([*worker.handed, *worker.turn(slots=1).claims]) == [job.job_id])


def test_cancel_reaches_another_process(opened: Opened, now: FakeClock) -> None:
    """A job that runs elsewhere is asked to stop at once, not with its worker's next turn."""
    here, there = opened(real=True), opened(real=True)
    worker = _Worker(there, "there", lease=600.0)
    here.insert([new_job(now)])
    claim = worker.take_one()
    worker.rest(0)
    began = time.monotonic()
    assert here.cancel([claim.job_id])[0].done
    assert worker.woken.wait(PATIENCE)
    assert time.monotonic() - began < worker.info.lease / 3
    assert list(worker.turn().cancels) == [claim.fence]


def test_end_is_told_to_another_process(opened: Opened, now: FakeClock) -> None:
    """Who watches a job or listens is told what happens elsewhere."""
    here, there = opened(real=True), opened(real=True)
    job = new_job(now)
    here.insert([job])
    told: list[Any] = []
    changed, ended = threading.Event(), threading.Event()
    here.listen(changed.set)
    here.watch([job.job_id], lambda record: (told.append(record), ended.set()))
    worker = FakeWorker(there)
    claim = worker.take_one()
    worker.end(claim, result="7")
    assert ended.wait(PATIENCE)
    assert [(record.state, record.result) for record in told] == [(State.SUCCEEDED, "7")]
    assert changed.wait(PATIENCE)


def test_heard_again_after_a_restart(private_postgres: PostgresServer, now: FakeClock) -> None:
    """What ended while nobody could hear is told once the server is back, and so is what ends later."""
    with fresh_schema(private_postgres.url) as url:
        here, there = PostgresStore(url), PostgresStore(url)
        try:
            jobs = [new_job(now) for _ in range(2)]
            here.insert(jobs)
            ended = [threading.Event() for _ in jobs]
            for job, event in zip(jobs, ended, strict=True):
                here.watch([job.job_id], lambda _record, event=event: event.set())
            worker = FakeWorker(there, lease=600.0)
            claims = worker.take(2)
            private_postgres.restart(immediate=True)
            for claim, event in zip(claims, ended, strict=True):
                assert worker.end(claim).done
                assert event.wait(PATIENCE)
        finally:
            here.close()
            there.close()


def test_many_behind(
    opened: Opened,
    connected: Callable[[], psycopg.Connection[Any]],
    monkeypatch: pytest.MonkeyPatch,
    now: FakeClock,
) -> None:
    """However many wait, and whatever the server knows of them, a claim reads what is claimed and no more."""
    store, knife = opened(), Knife(monkeypatch)
    store.insert([new_job(now) for _ in range(20_000)])
    connected().execute("ANALYZE")
    read: list[int] = []

    def count(tx: Tx) -> None:
        found = tx.one(
            "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = 'jobs'::regclass"
        )
        read.append(found[0])

    worker = FakeWorker(store)
    # Leases are looked after first.
    knife.lay("COMMIT", count, spared=1)
    assert len(worker.turn(slots=32).claims) == 32
    assert 32 <= read[0] < 100


def test_many_come(opened: Opened, monkeypatch: pytest.MonkeyPatch, now: FakeClock) -> None:
    """While many jobs come, a worker of the same process takes its turns; afterwards it is handed some."""
    store, knife = opened(), Knife(monkeypatch)
    worker = FakeWorker(store)
    worker.turn(slots=2)
    turns: list[Turn] = []

    def turn(_tx: Tx) -> None:
        taking = threading.Thread(target=lambda: turns.append(worker.turn(slots=2)))
        taking.start()
        taking.join(PATIENCE / 2)

    knife.lay("COMMIT", turn)
    store.insert([new_job(now) for _ in range(COPY_ROWS)])
    assert [turn.expired for turn in turns] == [False]
    assert len(worker.handed) == 2


# -- the dead and the silent

_DIES = """
import sys, time
from nbqueue.slots import SlotFile
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.testing.workers import FakeWorker
store = PostgresStore(sys.argv[1])
worker = FakeWorker(store, "doomed", concurrency=2, lease=600.0)
claims = worker.turn(slots=3).claims
slots = SlotFile(store.slot_folder / "doomed.slots", 2)
slots.begin(0, claims[0].fence)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def doomed(postgres_url: str) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a process whose worker has three jobs and has begun the first."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", _DIES, postgres_url], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        started.append(child)
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        assert child.stdout
        child.stdout.close()


def test_killed_here(opened: Opened, doomed: Callable[[], subprocess.Popen[str]], now: FakeClock) -> None:
    """The jobs of a worker of this machine that was killed are free at once; only what it had begun is blamed."""
    store = opened(real=True)
    jobs = [new_job(now) for _ in range(3)]
    store.insert(jobs)
    child = doomed()
    FakeWorker(store, "other", queues=())
    assert all(get(store, job).state is State.RUNNING for job in jobs)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    _until(lambda: all(get(store, job).state is State.PENDING for job in jobs))
    assert [get(store, job).crashes for job in jobs] == [1, 0, 0]
    assert [info.worker_id for info in store.workers()] == ["other"]
    _until(lambda: not (store.slot_folder / "doomed.slots").exists())


def test_silent_elsewhere(opened: Opened, now: FakeClock) -> None:
    """A worker of another machine has its lease, and no longer; as many jobs as it runs at once are blamed."""
    store = opened(real=True)
    jobs = [new_job(now) for _ in range(2)]
    store.insert(jobs)
    silent = _Worker(store, "silent", host="elsewhere", lease=0.5)
    assert len(silent.turn(slots=2).claims) == 2
    silent.woken.clear()
    _until(lambda: get(store, jobs[0]).state is State.PENDING)
    assert [get(store, job).crashes for job in jobs] == [1, 0]
    assert silent.woken.wait(PATIENCE)
    assert silent.turn(slots=1).expired


def test_nobody_pays_for_a_gap(
    opened: Opened, connected: Callable[[], psycopg.Connection[Any]], now: FakeClock
) -> None:
    """A worker that could not be heard, since the server was away, gets time to be heard again; no job is taken."""
    store, admin = opened(real=True), connected()
    store.insert([new_job(now)])
    worker = FakeWorker(store, lease=60.0)
    claim = worker.take_one()
    with admin.transaction():
        admin.execute("SELECT 1 FROM meta WHERE name = 'looked_at' FOR UPDATE")
        admin.execute("UPDATE workers SET lease_until = lease_until - 1000")
        admin.execute("UPDATE meta SET value = (value::float8 - 2000)::text WHERE name = 'looked_at'")
    left = "SELECT lease_until - extract(epoch FROM clock_timestamp()) FROM workers"
    _until(lambda: float((admin.execute(left).fetchone() or (0,))[0]) > 0)
    assert float((admin.execute(left).fetchone() or (0,))[0]) <= worker.info.lease
    assert get(store, claim).fence == claim.fence
    assert worker.end(claim).done


# -- many at once


def test_many_at_once(opened: Opened, now: FakeClock) -> None:
    """Workers of several stores share a queue while jobs come and are cancelled: each ends once."""
    stores = [opened(real=True) for _ in range(3)]
    jobs = [new_job(now, command) for command in "abcd" for _ in range(75)]
    stores[0].insert(jobs[:150])
    taken: list[int] = []
    errors: list[BaseException] = []

    def work(store: PostgresStore, name: str) -> None:
        try:
            worker = FakeWorker(store, name, lease=600.0)
            idle, n = 0, 0
            reports: list[Report] = []
            while idle < 3:
                n += 1
                turn = worker.turn(*reports, slots=1 + n % 9)
                taken.extend(claim.fence for claim in turn.claims)
                reports = [
                    Report(claim, ReportKind.ENDED, Outcome.SUCCEEDED, finished_at=time.time())
                    for claim in turn.claims
                ]
                idle = 0 if turn.claims or not dispatched.is_set() else idle + 1
            worker.leave()
        except BaseException as error:
            errors.append(error)
            raise

    dispatched = threading.Event()
    threads = [threading.Thread(target=work, args=(store, f"w{i}")) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for job in jobs[150:]:
        stores[1].insert([job])
    cancelled = [answer.job_id for answer in stores[2].cancel(ids(jobs[100:200])) if answer.done]
    dispatched.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == []
    assert len(taken) == len(set(taken))
    records = stores[0].get(stores[0].find(Selection()))
    ends = {record.job_id: record.state for record in records}
    assert len(ends) == len(jobs)
    assert all(state.ended for state in ends.values())
    assert {job_id for job_id, state in ends.items() if state is State.CANCELLED} <= set(cancelled)
    assert [record.attempt for record in records if record.state is State.SUCCEEDED] == [1] * sum(
        state is State.SUCCEEDED for state in ends.values()
    )
    check_books(stores[0])


# -- forks and ends


def test_a_fork_is_refused(opened: Opened, now: FakeClock) -> None:
    """A fork is told to connect again, and what it does harms nothing here."""
    store = opened(real=True)
    store.insert([new_job(now)])
    child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE))
        try:
            store.queues()
        except QueueUnavailable as error:
            store.close()
            os._exit(0 if "fork" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.insert([new_job(now)])
    assert len(store.find(Selection())) == 2


def test_nothing_is_left(
    opened: Opened, connected: Callable[[], psycopg.Connection[Any]], now: FakeClock
) -> None:
    """A store that was closed has no thread and no connection, and said what it had to say."""
    admin = connected()
    store, other = opened(real=True), opened(real=True)
    before = set(threading.enumerate())
    worker = _Worker(other, "other")
    worker.rest(1)
    FakeWorker(store, "w", queues=())
    store.listen(lambda: None)
    store.insert([new_job(now)])
    store.query("SELECT count(*) FROM jobs")
    began = time.monotonic()
    store.close()
    assert time.monotonic() - began < 5.0
    assert worker.woken.wait(PATIENCE)
    other.close()
    assert [thread for thread in threading.enumerate() if thread not in before and "nbq" in thread.name] == []
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'nbqueue'"
    _until(lambda: admin.execute(mine).fetchone() == (0,))
