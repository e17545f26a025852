"""Forgetting on a server that others use: what goes is gone for everybody, and what is in use stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from nbqueue.jobs import State
from nbqueue.lifecycle import Outcome
from nbqueue.store import Selection, Store
from nbqueue.stores.postgres import forgetting, mirror
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, bring, check_books, ids, new_batch, new_job

Opened = Callable[..., PostgresStore]
Connected = Callable[[], psycopg.Connection[Any]]


def ended(store: Store, clock: FakeClock, count: int) -> list[Any]:
    """Dispatch jobs and cancel them."""
    jobs = [new_job(clock) for _ in range(count)]
    store.insert(jobs)
    store.cancel(ids(jobs))
    return jobs


def rows(store: Store) -> list[int]:
    """The jobs of which a copy has a row, by number, once a row."""
    return store.query("SELECT job FROM ledger ORDER BY job, seq")["job"].tolist()


class TestMirrors:
    def test_goes_from_every_copy(self, opened: Opened, clock: FakeClock) -> None:
        """What one process forgets leaves the copies of all others: jobs, events, specs and batches."""
        store, other = opened(), opened()
        batch, jobs = new_batch(clock, {"a": "[1]", "b": "[2]"}, key="scores", command="score")
        store.put_batch(batch, jobs)
        store.cancel(ids(jobs))
        kept = new_job(clock)
        store.insert([kept])
        assert rows(other) == [1, 1, 2, 2, 3]
        assert store.forget(Selection()) == 2
        for each in (other, store, opened()):
            assert rows(each) == [3]
            assert each.query("SELECT command FROM specs")["command"].tolist() == ["work"]
            assert each.query("SELECT * FROM batches").empty
            check_books(each)
        assert other.find(Selection()) == [kept.job_id]

    def test_a_copy_that_slept(self, opened: Opened, connected: Connected, clock: FakeClock) -> None:
        """A copy that was asleep while the server forgot what it had forgotten compares, and is right again."""
        store, asleep = opened(), opened()
        ended(store, clock, 3)
        store.insert([new_job(clock, "other", queue="other")])
        assert len(rows(asleep)) == 7
        store.forget(Selection())
        clock.advance(mirror.GONE_KEPT + 1)
        ended(store, clock, 1)
        store.forget(Selection())
        (told,) = (
            connected()
            .execute("SELECT count(*) FROM gone WHERE gone_us < %s", [clock.time() * 1e6 - 1])
            .fetchone()
        )
        assert told == 0
        assert rows(asleep) == rows(store) == [4]
        assert asleep.query("SELECT command FROM specs")["command"].tolist() == ["other"]

    def test_numbers_rise_for_ever(self, opened: Opened, clock: FakeClock) -> None:
        """What comes after all was forgotten has a higher number than anything before: who follows misses nothing."""
        store = opened()
        ended(store, clock, 2)
        last = store.query("SELECT max(seq) AS seq FROM ledger")["seq"][0]
        store.forget(Selection())
        store.insert([new_job(clock)])
        assert store.query("SELECT seq > ? AS later FROM ledger", [int(last)])["later"].tolist() == [True]


class TestOthers:
    def test_in_pieces(
        self, opened: Opened, connected: Connected, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It goes piece by piece, over gaps and past what is not ended, each in a transaction of its own."""
        monkeypatch.setattr(forgetting, "FIRST_PIECE", 3)
        store = opened()
        first = ended(store, clock, 10)
        waits = new_job(clock)
        store.insert([waits])
        ended(store, clock, 10)
        store.forget(Selection(ids=tuple(ids(first[2:7]))))
        assert store.forget(Selection()) == 15
        pieces = connected().execute("SELECT count(DISTINCT xid) FROM gone WHERE jobs <> '{}'").fetchone()
        assert pieces is not None
        assert pieces[0] >= 4
        assert store.find(Selection()) == [waits.job_id]

    def test_two_at_once(self, opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of two who forget the same, each job is counted by one of them."""
        monkeypatch.setattr(forgetting, "FIRST_PIECE", 5)
        stores = [opened(), opened()]
        ended(stores[0], clock, 60)
        with ThreadPoolExecutor(2) as pool:
            counts = list(pool.map(lambda store: store.forget(Selection()), stores))
        assert sum(counts) == 60
        check_books(stores[0])

    def test_what_is_retried_meanwhile_stays(
        self, opened: Opened, connected: Connected, clock: FakeClock
    ) -> None:
        """A job that somebody retries while it is about to be forgotten stays."""
        store, holder = opened(), connected()
        (job,) = ended(store, clock, 1)
        with ThreadPoolExecutor(1) as pool:
            with holder.transaction():
                holder.execute("UPDATE standing SET state = 'pending'")
                waits = pool.submit(store.forget, Selection())
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                while holder.execute(waiting).fetchone() == (0,):
                    """It is on its way."""
            assert waits.result() == 0
        assert [record.state for record in store.get([job.job_id])] == [State.PENDING]
        holder.execute("UPDATE standing SET state = 'cancelled'")

    def test_specs_in_use_stay(self, opened: Opened, connected: Connected, clock: FakeClock) -> None:
        """Nobody waits for a spec that somebody dispatches with, and it is made anew where it went."""
        store, other = opened(), opened()
        ended(store, clock, 2)
        other.insert([new_job(clock)])
        other.cancel(other.find(Selection()))
        holder = connected()
        with holder.transaction():
            holder.execute("SELECT FROM specs FOR KEY SHARE")
            store.forget(Selection())
        assert connected().execute("SELECT count(*) FROM specs").fetchone() == (1,)
        ended(store, clock, 1)
        store.forget(Selection())
        assert connected().execute("SELECT count(*) FROM specs").fetchone() == (0,)
        # Another process remembers its number, which is nobody's any more.
        other.insert([new_job(clock)])
        assert other.query("SELECT command FROM jobs")["command"].tolist() == ["work"]
        check_books(store)

    def test_no_limit_reaches_what_lives(self, opened: Opened, clock: FakeClock) -> None:
        """Keeping nothing still keeps what waits and what runs, in whatever process."""
        store, other = opened(), opened()
        running = bring(store, clock, State.RUNNING)
        waits = new_job(clock, delay=1e6)
        other.insert([waits])
        ended(store, clock, 3)
        other.retain(1.0, 0)
        clock.advance(10.0)
        FakeWorker(other, "tidy", queues=(), lease=1e9).turn()
        assert store.find(Selection()) == [running.job_id, waits.job_id]

    def test_code_goes_with_its_jobs(self, opened: Opened, clock: FakeClock) -> None:
        """Code that no job needs goes a day after it was last put, and no sooner."""
        store = opened()
        store.put_code("c0de", b"x")
        store.put_code("used", b"y")
        store.insert([new_job(clock, "mine", origin="module:m", code="used")])
        for days, left in ((0.5, b"x"), (1.0, None)):
            clock.advance(days * 86_400)
            ended(store, clock, 1)
            store.forget(Selection())
            assert store.get_code("c0de") == left
        assert store.get_code("used") == b"y"


def test_retaining_by_itself(opened: Opened, clock: FakeClock) -> None:
    """Under a real clock old history goes without any verb, through the process that looks after the queue."""
    store = opened(real=True)
    jobs = ended(store, clock, 3)
    told = threading.Event()
    store.listen(told.set)
    store.retain(0.0)
    while store.find(Selection()):
        told.wait(1.0)
        told.clear()
    assert store.get(ids(jobs)) == []


def test_fingerprint(opened: Opened, clock: FakeClock) -> None:
    """Failures of one kind are found and forgotten on the server as on a copy: by the latest failure alone."""
    store = opened()
    worker = FakeWorker(store)
    jobs = [new_job(clock) for _ in range(4)]
    store.insert(jobs)
    claims = worker.take(4)
    worker.end(claims[0], Outcome.FAILED, error="KeyError: 'x'", fingerprint="K")
    worker.end(claims[1], Outcome.FAILED, error="KeyError: 'x'", cause="error")
    worker.end(claims[2], Outcome.TIMED_OUT, error="it took long")
    worker.end(claims[3], Outcome.FAILED, error="KeyError: 'x'", fingerprint="K")
    store.retry([jobs[3].job_id])
    for text in ("K", "KeyError", "timeout", "error", "nothing"):
        found = store.query("SELECT job_id FROM jobs WHERE fingerprint = ? ORDER BY number", [text])["job_id"]
        assert store.find(Selection(fingerprint=text)) == found.tolist()
    assert store.forget(Selection(fingerprint="K")) == 1
