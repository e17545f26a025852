"""Batches that several processes hand in, count and forget on one server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg

from nbqueue.jobs import State
from nbqueue.store import Mapped, Selection
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.stores.postgres.writing import COPY_ROWS
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, check_books, ids, new_batch

Opened = Callable[..., PostgresStore]
Connected = Callable[[], psycopg.Connection[Any]]


def labels(store: PostgresStore, batch_id: UUID) -> list[str]:
    """The rows that a batch has by now, in its order, each with its one job."""
    record = store.get_batch(batch_id)
    assert record is not None
    found = store.query("SELECT number, row_label FROM jobs WHERE batch_id = ?", [batch_id])
    rows = dict(zip(found["number"], found["row_label"], strict=True))
    return [rows[number] for first, last in record.runs for number in range(first, last + 1)]


def test_one_key_from_two_processes(opened: Opened, clock: FakeClock) -> None:
    """Whoever hands in rows under one key at the same time hands in to one batch, and no row has two jobs at work."""
    stores = [opened() for _ in range(4)]

    def put(store: PostgresStore) -> Mapped:
        return store.put_batch(*new_batch(clock, {str(n): f"[{n}]" for n in range(20)}, key="scores"))

    with ThreadPoolExecutor(4) as pool:
        mapped = list(pool.map(put, stores))
    assert len({one.batch.batch_id for one in mapped}) == 1
    assert sorted(len(one.left) for one in mapped) == [0, 20, 20, 20]
    batch_id = mapped[0].batch.batch_id
    for store in stores:
        assert len(store.find(Selection())) == 20
        assert labels(store, batch_id) == [str(n) for n in range(20)]
    check_books(stores[0])


def test_other_rows_from_two_processes(opened: Opened, clock: FakeClock) -> None:
    """Whoever comes second replaces what the first asked for: its unfinished job is cancelled, in whatever process."""
    first, second = opened(), opened()
    worker = FakeWorker(first)
    put = first.put_batch(*new_batch(clock, {"a": "[1]", "b": "[1]"}, key="scores"))
    running = worker.take_one()
    again = second.put_batch(*new_batch(clock, {"a": "[2]", "b": "[2]", "c": "[2]"}, key="scores"))
    assert (again.batch.batch_id, list(again.left)) == (put.batch.batch_id, [])
    assert list(worker.turn().cancels) == [running.fence]
    count = first.count_batch(put.batch.batch_id)
    assert count is not None
    assert (count.total, count.states[State.PENDING]) == (3, 3)
    assert labels(first, put.batch.batch_id) == ["a", "b", "c"]
    check_books(second)


def test_many_rows(opened: Opened, clock: FakeClock) -> None:
    """A batch of more rows than go in one statement is one commit all the same, and found in order."""
    store, other = opened(), opened()
    rows = {f"row {n}": f'["{n}", "\u00e9\\t"]' for n in range(COPY_ROWS + 50)}
    batch, jobs = new_batch(clock, rows)
    store.put_batch(batch, jobs)
    assert labels(other, batch.batch_id) == list(rows)
    assert [record.payload for record in other.get(ids(jobs))] == list(rows.values())
    assert store.put_batch(batch, jobs).batch == other.get_batch(batch.batch_id)
    assert len(other.find(Selection(batch_id=batch.batch_id))) == len(rows)


def test_forgotten_while_it_is_handed_in(opened: Opened, connected: Connected, clock: FakeClock) -> None:
    """A batch that loses its last job while somebody holds it is none, and its key is free for another."""
    store, other = opened(), opened()
    batch, jobs = new_batch(clock, {"a": "[1]"}, key="scores")
    store.put_batch(batch, jobs)
    store.cancel(ids(jobs))
    holder = connected()
    with holder.transaction():
        holder.execute("SELECT FROM batches FOR UPDATE")
        assert store.forget(Selection()) == 1
    assert store.get_batch("scores") is store.count_batch(batch.batch_id) is None
    assert other.query("SELECT key FROM batches")["key"].tolist() == ["scores"]  # nobody could take it away
    put = other.put_batch(*new_batch(clock, {"a": "[2]"}, key="scores"))
    assert put.batch.batch_id != batch.batch_id
    assert store.get_batch("scores") == put.batch
    for each in (store, other):
        assert each.query("SELECT batch_id FROM batches")["batch_id"].tolist() == [put.batch.batch_id]


def test_texts_that_postgres_does_not_take(opened: Opened, clock: FakeClock) -> None:
    """A key, a label and a payload may hold a NUL; half a character is spelt out, as in a queue file."""
    store, other = opened(), opened()
    batch, jobs = new_batch(clock, {"a\x00b": '["\x00"]', "c\udce9": "[2]"}, key="sco\x00res")
    store.put_batch(batch, jobs)
    record = other.get_batch("sco\x00res")
    assert record is not None
    assert record.key == "sco\x00res"
    assert labels(other, batch.batch_id) == ["a\x00b", "c\\udce9"]
    assert [found.row for found in other.get(ids(jobs))] == ["a\x00b", "c\\udce9"]
    again = other.put_batch(*new_batch(clock, {"a\x00b": '["\x00"]'}, key="sco\x00res"))
    assert list(again.left) == [0]
