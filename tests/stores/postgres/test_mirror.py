"""What people's SQL reads is what was committed on the server: all of it, nothing twice, whoever wrote it and when."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import psycopg
import pytest

from nbqueue import frames
from nbqueue.errors import NotSupported, QueueError, QueueUnavailable
from nbqueue.facade.watching.following import Following
from nbqueue.ids import new_job_ids
from nbqueue.jobs import State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import OUTPUT, LogChunk, Report, ReportKind, Selection, Store
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.postgres import mirror, reading
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, new_batch, new_job
from tests.servers import PostgresServer, fresh_schema

Opened = Callable[..., PostgresStore]
Connected = Callable[[], psycopg.Connection[Any]]

_SPEC = (
    "INSERT INTO specs (command, queue, priority, origin, code, retry) VALUES ('work', 'default', 0, '', '', '{}')"
    " ON CONFLICT DO NOTHING"
)
_JOB = (
    "INSERT INTO jobs (job, job_id, spec, dispatched_us, payload)"
    " SELECT n, gen_random_uuid(), 1, 1, '[]' FROM generate_series(%s::bigint, %s::bigint) AS n"
)


def numbers(store: Store, since: int = 0) -> list[tuple[int, int]]:
    """(seq, job) of what has come since."""
    found = store.query("SELECT seq, job FROM ledger WHERE seq > ? ORDER BY seq", [since])
    return list(zip(found["seq"].tolist(), found["job"].tolist(), strict=True))


class TestExact:
    """Nothing is missed, and nothing comes twice."""

    def test_what_is_committed_late(self, opened: Opened, connected: Connected) -> None:
        """A transaction that took its numbers early and is committed late is not missed, and comes as the latest."""
        store, early, late = opened(), connected(), connected()
        late.execute(_SPEC)
        with early.transaction():
            early.execute(_JOB, [1, 1])
            late.execute(_JOB, [2, 2])
            first = numbers(store)
            assert [job for _, job in first] == [2]
            assert numbers(store) == first
        last = first[-1][0]
        assert [job for _, job in numbers(store, last)] == [1]
        assert [job for _, job in numbers(store)] == [2, 1]

    def test_what_is_rolled_back(self, opened: Opened, connected: Connected) -> None:
        """What was rolled back never comes, and what another does with its numbers does."""
        store, one = opened(), connected()
        one.execute(_SPEC)
        with one.transaction(force_rollback=True):
            one.execute(_JOB, [1, 1])
            assert numbers(store) == []
        assert numbers(store) == []
        one.execute(_JOB, [1, 1])
        assert [job for _, job in numbers(store)] == [1]

    @pytest.mark.parametrize("seed", range(3))
    def test_any_interleaving(self, opened: Opened, connected: Connected, seed: int) -> None:
        """However transactions overlap, each look gives what was committed since the last, under rising numbers."""
        chance = random.Random(seed)
        store, watcher = opened(), connected()
        watcher.execute(_SPEC)
        writers = [connected() for _ in range(5)]
        for writer in writers:
            writer.autocommit = False
        job, seen, last = 0, list[int](), 0
        for _ in range(80):
            writer = chance.choice(writers)
            match chance.choice(("write", "write", "commit", "roll back", "look")):
                case "write":
                    job += 1
                    writer.execute(_JOB, [job, job])
                    if chance.random() < 0.3:
                        with writer.transaction():  # a savepoint, whose own number nobody must go by
                            job += 1
                            writer.execute(_JOB, [job, job])
                case "commit":
                    writer.commit()
                case "roll back":
                    writer.rollback()
                case _:
                    new = numbers(store, last)
                    last = new[-1][0] if new else last
                    seen += [number for _, number in new]
                    there = {number for (number,) in watcher.execute("SELECT job FROM jobs").fetchall()}
                    assert (len(seen), set(seen)) == (len(there), there)
        assert seen

    def test_one_sees_what_it_has_done(self, opened: Opened, clock: FakeClock) -> None:
        """Whatever many threads dispatch and look at together, each sees its own, and history only grows."""
        store = opened()

        def dispatch_and_look(_: int) -> None:
            for _ in range(5):
                job = new_job(clock)
                before = len(numbers(store))
                store.insert([job])
                found = store.query("SELECT count(*) AS n FROM jobs WHERE job_id = ?", [job.job_id])
                assert found["n"].tolist() == [1]
                assert len(numbers(store)) > before

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(dispatch_and_look, range(8)))
        assert len(numbers(store)) == 40

    def test_following_misses_nothing(self, opened: Opened, connected: Connected) -> None:
        """Whoever follows the news hears of every job once, though they are committed in another order."""
        store, one, other = opened(), connected(), connected()
        one.execute(_SPEC)
        following = Following(_Queues(store))  # type: ignore[arg-type]
        seen, heard = following.seen(), list[int]()

        def hear() -> None:
            nonlocal seen
            news = following.news(seen)
            seen = news.seen
            heard.extend(news.dispatched)
            assert sorted(news.dispatched) == list(news.dispatched)

        for first in range(1, 41, 4):
            with one.transaction():
                one.execute(_JOB, [first + 1, first + 1])
                one.execute(_JOB, [first, first])
                other.execute(_JOB, [first + 2, first + 3])
                hear()
            hear()
        assert sorted(heard) == list(range(1, 41))
        assert seen.jobs == 40


class _Queues:
    """As much of a manager as following needs."""

    def __init__(self, store: Store):
        self.store = store
        self.queues = store.queues


# ------------------------------------------------------------------------------------------------ the same everywhere
def live_through(store: Store, clock: FakeClock) -> None:
    """Have a bit of everything happen."""
    jobs = [new_job(clock, payload=f'["{n}, \\"x\\""]', metadata='{"a": 1}') for n in range(6)]
    flaky = new_job(clock, "flaky", tries=3, retry=RetryPolicy(backoff=(30.0,)), queue="other", priority=5)
    later = new_job(clock, delay=500.0)
    store.insert([*jobs, flaky, later])
    store.put_batch(*new_batch(clock, {"a": "[1]", "b": "[2]"}, key="scores"))
    worker = FakeWorker(store, "w1", concurrency=4, host="here", pid=7)
    claims = worker.take(4)
    clock.advance(1.0)
    chunks = (
        LogChunk("stdout", 'line\nof "two", halves \udce9\x00', clock.time()),
        LogChunk(OUTPUT, '{"data": {}}', clock.time()),
    )
    worker.say(claims[0], ReportKind.NEWS, logs=chunks, progress='{"done":1}')
    clock.advance(2.0)
    said = {"started_at": clock.time() - 2, "finished_at": clock.time()}
    for claim in claims[:2]:
        worker.turn(
            Report(
                claim, ReportKind.ENDED, Outcome.SUCCEEDED, result='{"ok": true}', usage='{"exit":0}', **said
            )
        )
    worker.end(
        claims[2], Outcome.FAILED, error="KeyError: 'x'", traceback="Traceback\n  …", fingerprint="K", **said
    )
    worker.say(claims[3], ReportKind.RELEASED)
    clock.advance(1.0)
    some = [claim.job_id for claim in worker.take(3)]
    store.cancel([jobs[5].job_id, some[0]])
    store.retry([claims[2].job_id])
    store.pause("other", paused=True)
    clock.advance(100.0)
    FakeWorker(store, "w2").turn()  # the first is taken for dead
    store.put_batch(*new_batch(clock, {"b": "[3]", "c": "[4]"}, key="scores"))
    last = FakeWorker(store, "w3")
    failing, _runs = last.take(2)
    clock.advance(1.0)
    last.end(failing, Outcome.TIMED_OUT, error="it took longer than 1 s", cause="timeout")


_ALL = {
    "jobs": "SELECT * EXCLUDE (worker) FROM jobs ORDER BY number",
    "attempts": "SELECT * EXCLUDE (fence) FROM attempts ORDER BY claimed_at, number, attempt",
    "events": "SELECT * EXCLUDE (seq, fence) FROM events ORDER BY seq",
    "logs": "SELECT * EXCLUDE (seq, fence) FROM logs ORDER BY seq",
    "outputs": "SELECT * EXCLUDE (seq, fence) FROM outputs ORDER BY seq",
    "queues": "SELECT * FROM queues ORDER BY queue",
    "batches": "SELECT * FROM batches ORDER BY batch_id",
    "workers": "SELECT * EXCLUDE (worker) FROM workers ORDER BY worker_id",
}


def everything(store: Store) -> dict[str, pd.DataFrame]:
    """All that can be read, but for numbers that only tell one thing from another."""
    return {name: store.query(sql) for name, sql in _ALL.items()}


def assert_same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    for name, frame in one.items():
        pd.testing.assert_frame_equal(frame, other[name], obj=name)


class TestSame:
    """Whoever reads a history reads the same."""

    def test_as_a_file(
        self, opened: Opened, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was done through the same verbs reads as it does from a queue file: views, tables and frames."""
        chance = random.Random()

        def same_ids(count: int, *, now: float, randomness: bytes) -> list[UUID]:
            return new_job_ids(count, now=now, randomness=chance.randbytes(len(randomness)))

        monkeypatch.setattr("nbqueue.testing.workers.new_job_ids", same_ids)
        chance.seed(1)
        store = opened()
        live_through(store, clock)
        chance.seed(1)
        again = FakeClock()
        file = DuckDBStore(tmp_path / "jobs.duckdb", clock=again.time, ticks=again.ticks)
        try:
            live_through(file, again)
            assert_same(everything(file), everything(store))
            for frame in (frames.stats, frames.failures, frames.latency, frames.throughput, frames.backlog):
                pd.testing.assert_frame_equal(frame(file), frame(store), obj=frame.__name__)
            assert [q._asdict() for q in file.queues()] == [q._asdict() for q in store.queues()]
            everybody = file.find(Selection())
            assert store.find(Selection()) == everybody
            assert [file.explain(job) for job in everybody] == [store.explain(job) for job in everybody]
        finally:
            file.close()
        assert set(State) == set(store.query("SELECT DISTINCT state::VARCHAR AS state FROM jobs")["state"])

    def test_loaded_at_once(self, opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
        """A long history, which is loaded at once, reads as one that came bit by bit, whatever its texts are."""
        monkeypatch.setattr(reading, "LARGE", 5_000)
        bit_by_bit, at_once = opened(), opened()
        bit_by_bit.query("SELECT 1")
        hostile = [
            "",
            '"',
            '""',
            ",",
            "\n",
            "\r\n",
            "\\N",
            "\\.",
            "NULL",
            "\uffff",
            "\x00",
            "é😀",
            "x" * 9_000,
        ]
        bit_by_bit.insert([new_job(clock, payload=text, metadata=text) for text in hostile])
        live_through(bit_by_bit, clock)
        monkeypatch.setattr(mirror, "FEW", 0)
        assert_same(everything(bit_by_bit), everything(at_once))
        found = at_once.query("SELECT arguments FROM jobs ORDER BY number")["arguments"]
        assert found.tolist()[: len(hostile)] == [text.replace("\uffff", "\x00") for text in hostile]
        bit_by_bit.insert([new_job(clock)])
        assert_same(everything(bit_by_bit), everything(at_once))

    def test_in_another_process(self, opened: Opened, postgres_url: str, clock: FakeClock) -> None:
        """Another process reads the same, and so does one that was there before it."""
        store, early = opened(), opened()
        early.query("SELECT 1")
        live_through(store, clock)
        script = (
            "import sys, pickle\n"
            "from nbqueue.stores.postgres.store import PostgresStore\n"
            "store = PostgresStore(sys.argv[1])\n"
            "sqls = pickle.load(sys.stdin.buffer)\n"
            "pickle.dump({name: store.query(sql) for name, sql in sqls.items()}, sys.stdout.buffer)\n"
            "store.close()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, postgres_url],
            input=pickle.dumps(_ALL),
            capture_output=True,
            check=True,
        )
        theirs = pickle.loads(done.stdout)
        assert_same(theirs, everything(store))
        assert_same(theirs, everything(early))


# ------------------------------------------------------------------------------------------------ trouble
class TestTrouble:
    """Servers that stop, tables that are not what they were, processes that are killed."""

    @pytest.mark.parametrize("few", [mirror.FEW, 0], ids=["bit by bit", "at once"])
    def test_restart_in_the_middle(
        self, private_postgres: PostgresServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, few: int
    ) -> None:
        """A server that stops and starts again while a history is read costs time, and no row comes twice."""
        monkeypatch.setattr(mirror, "FEW", few)
        restarts = iter((True, False, True))

        def restarting(given: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                if next(restarts, False):
                    private_postgres.restart(immediate=True)
                return given(*args)

            return call

        with fresh_schema(private_postgres.url) as url:
            store = PostgresStore(url, clock=clock.time, ticks=clock.ticks)
            try:
                jobs = [new_job(clock) for _ in range(20)]
                store.insert(jobs)
                monkeypatch.setattr(reading, "read_news", restarting(reading.read_news))
                assert [job for _, job in numbers(store)] == list(range(1, 21))
                store.insert([new_job(clock)])
                assert [job for _, job in numbers(store)] == list(range(1, 22))
            finally:
                store.close()
        assert next(restarts, None) is None

    def test_restored_from_a_dump(self, opened: Opened, connected: Connected, clock: FakeClock) -> None:
        """Rows that another server wrote, under transactions that are still to come on this one, hide no new ones."""
        store, admin = opened(), connected()
        live_through(store, clock)
        for table in reading.MARKED:
            admin.execute(f"UPDATE {table} SET xid = (xid::text::bigint + 1000000)::text::xid8")
        restored = opened()
        found = everything(restored)
        assert len(found["jobs"]) == 12
        job = new_job(clock)
        restored.insert([job])
        assert len(restored.query("SELECT * FROM jobs")) == 13
        assert_same(everything(restored), everything(opened()))

    def test_another_queue_in_its_place(
        self, opened: Opened, connected: Connected, postgres_url: str, clock: FakeClock
    ) -> None:
        """Tables that were dropped and made anew are not mixed up with those that were there."""
        store = opened()
        live_through(store, clock)
        store.query("SELECT 1")
        connection = connected()
        connection.execute(f"DROP SCHEMA {postgres_url.rpartition('=')[2]} CASCADE")
        with pytest.raises(QueueUnavailable, match="has gone"):
            store.query("SELECT 1")
        anew = opened()
        anew.insert([new_job(clock)])
        with pytest.raises(QueueUnavailable, match=r"not what it was .* restart the kernel"):
            store.query("SELECT 1")
        assert len(anew.query("SELECT * FROM jobs")) == 1

    def test_files_go_with_their_process(
        self, opened: Opened, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The copy's files are the user's alone; they go with the queue, and after ``kill -9`` when the next comes."""
        script = (
            "import sys\n"
            "from nbqueue.stores.postgres.store import PostgresStore\n"
            "PostgresStore(sys.argv[1]).query('SELECT 1')\n"
            "print('ready', flush=True)\n"
            "sys.stdin.read()\n"
        )
        killed = subprocess.Popen(
            [sys.executable, "-c", script, postgres_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        assert killed.stdout is not None
        assert killed.stdout.readline() == "ready\n"
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        first, second = opened(), opened()
        first.query("SELECT 1")
        left = set(tmp_path.iterdir())
        assert [folder.stat().st_mode & 0o777 for folder in left] == [0o700, 0o700]
        killed.kill()
        killed.communicate()
        assert set(tmp_path.iterdir()) == left
        second.query("SELECT 1")
        assert len(set(tmp_path.iterdir()) & left) == 1
        first.query("SELECT 1")
        first.close()
        second.close()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("few", [mirror.FEW, 0], ids=["bit by bit", "at once"])
    def test_sql_reads_the_queue_only(
        self, opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, few: int
    ) -> None:
        """What people ask can neither read a file nor change anything, however the history was loaded."""
        monkeypatch.setattr(mirror, "FEW", few)
        secret = tmp_path / "secret.csv"
        secret.write_text("a\n1\n")
        store = opened()
        live_through(store, clock)
        for sql in (f"SELECT * FROM read_csv('{secret}')", f"SELECT * FROM '{secret}'"):
            with pytest.raises(QueueError, match="no files"):
                store.query(sql)
        for sql in (
            "DELETE FROM ledger",
            f"COPY ledger TO '{tmp_path}/out.csv'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(NotSupported):
                store.query(sql)
        assert list(tmp_path.iterdir()) == [secret]
        frame = pd.DataFrame({"queue": ["default"], "team": ["red"]})
        joined = store.query(
            "SELECT DISTINCT team FROM jobs JOIN teams USING (queue)", frames={"teams": frame}
        )
        assert joined["team"].tolist() == ["red"]

    def test_full_disk(self, opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Where there is no room for the copy, the sentence says where it would be."""
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        with pytest.raises(QueueError, match=r"cannot be copied to this machine .* TMPDIR"):
            opened().query("SELECT 1")

    def test_closing_breaks_off(self, opened: Opened, clock: FakeClock) -> None:
        """Closing the queue breaks off what is read, and a query afterwards says that it was closed."""
        store = opened()
        store.insert([new_job(clock)])
        reads = threading.Event()
        told: list[BaseException] = []

        def read() -> None:
            try:
                store.query("SELECT 1")
                reads.set()
                store.query("SELECT count(*) FROM range(10_000_000_000) a, range(1000) b")
            except BaseException as error:
                told.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        reads.wait()
        store.close()
        thread.join()
        assert [type(error) for error in told] == [QueueUnavailable]
        with pytest.raises(QueueUnavailable, match="closed"):
            store.query("SELECT 1")

    def test_one_look_serves_all_who_wait(
        self, opened: Opened, connected: Connected, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of many who ask while the copy is brought up to date, all wait for the next time, and see what is new."""
        store = opened()
        store.query("SELECT 1")
        looks: list[int] = []
        begun, go_on, asking = threading.Event(), threading.Event(), threading.Semaphore(0)
        read_news = reading.read_news

        def slow(*args: Any) -> Any:
            news = read_news(*args)
            looks.append(len(news.rows))
            begun.set()
            go_on.wait(60.0)
            return news

        def ask() -> list[tuple[int, int]]:
            asking.release()
            return numbers(store)

        monkeypatch.setattr(reading, "read_news", slow)
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(numbers, store)
            begun.wait()
            connected().execute(_SPEC)
            connected().execute(_JOB, [1, 1])
            others = [pool.submit(ask) for _ in range(8)]
            for _ in others:
                asking.acquire()
            go_on.set()
            assert first.result() == []
            assert [[job for _, job in other.result()] for other in others] == [[1]] * 8
        assert looks[:2] == [0, 1]
        assert not any(looks[2:])
