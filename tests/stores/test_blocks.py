"""Many rows of one batch go by columns: the jobs, the books and the file are those of rows that go one by one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from nbqueue.errors import DispatchFailed
from nbqueue.jobs import NewBatch, State
from nbqueue.rows import Rows
from nbqueue.store import Selection
from nbqueue.stores import heads, inserting
from nbqueue.stores.blocks import BLOCK_ROWS
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.index import limits
from nbqueue.testing import FakeClock, FakeWorker, new_job
from nbqueue.testing.workers import check_books, ids, new_rows

Opened = Callable[..., DuckDBStore]
#: More than go one by one.
COUNT = BLOCK_ROWS + 50
HOSTILE = ["", "\0\x1f\x7f", "\u2028\ud7ff\U0001f600", '"]}\\n\\u0041', "null", "x" * 5_000]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows went in one piece, a number each time."""
    sizes: list[int] = []
    real = inserting._insert_block
    monkeypatch.setattr(
        inserting, "_insert_block", lambda con, block: (sizes.append(len(block)), real(con, block))[1]
    )
    return sizes


def many(clock: FakeClock, count: int = COUNT, **given: object) -> tuple[NewBatch, Rows]:
    texts = {str(n): HOSTILE[n % len(HOSTILE)] + str(n) for n in range(count)}
    return new_rows(clock, texts, **given)


def told(store: DuckDBStore, batch: NewBatch) -> dict[State, int]:
    count = store.count_batch(batch.batch_id)
    assert count is not None
    return {state: number for state, number in count.states.items() if number}


def test_are_what_they_are_one_by_one(opened: Opened, clock: FakeClock, blocks: list[int]) -> None:
    """Whatever their texts hold; in the order of the input, after what was there and before what comes."""
    store = opened()
    before = new_job(clock)
    store.insert([before])
    batch, rows = many(clock, origin="module:x", priority=0, metadata='{"a":1}', tries=3)
    store.put_batch(batch, rows)
    after = new_job(clock)
    store.insert([after])
    assert blocks == [COUNT]
    found = store.get(list(rows.ids))
    assert [(r.job_id, r.spec, r.payload, r.metadata, r.batch_id, r.row) for r in found] == [
        (job.job_id, job.spec, job.payload, job.metadata, batch.batch_id, job.row) for job in rows
    ]
    assert {(r.state, r.dispatched_at, r.scheduled_at) for r in found} == {
        (State.PENDING, clock.time(), clock.time())
    }
    taken = ids(FakeWorker(store).take(COUNT + 2))
    assert taken == [before.job_id, *rows.ids, after.job_id]
    check_books(store)


@pytest.mark.parametrize("kept", [0, 100])
def test_most_are_not_in_memory(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """What no room was left for is loaded when it is its turn, by a worker that waits for it as well."""
    monkeypatch.setattr(limits, "PENDING_KEPT", kept)
    monkeypatch.setattr(limits, "LOAD_AHEAD", 50)
    store = opened()
    worker = FakeWorker(store)
    worker.turn(slots=20)
    batch, rows = many(clock)
    store.put_batch(batch, rows)
    assert ids(worker.handed) == rows.ids[:20]
    assert len(store._index.live) < kept + 100
    assert told(store, batch) == {State.PENDING: COUNT - 20, State.RUNNING: 20}
    assert {store.get([rows.ids[at]])[0].row for at in (0, 500, COUNT - 1)} == {"0", "500", str(COUNT - 1)}
    assert ids(FakeWorker(store, "other").take(COUNT)) == rows.ids[20:]
    check_books(store)


def test_due_later(opened: Opened, clock: FakeClock) -> None:
    """Rows with a time wait for it, here and after a restart; one that has passed is none."""
    store = opened()
    batch, rows = many(clock, due_at=clock.time() + 60)
    store.put_batch(batch, rows)
    passed = many(clock, due_at=clock.time() - 60)
    store.put_batch(*passed)
    assert store.queues()[0].waiting == COUNT
    assert ids(FakeWorker(store).take(2 * COUNT)) == list(passed[1].ids)
    store.close()
    store = opened()
    clock.advance(61)
    claims = FakeWorker(store).take(2 * COUNT)
    assert ids(claim for claim in claims if claim.batch_id == batch.batch_id) == list(rows.ids)
    check_books(store)


@pytest.mark.parametrize("where", ["block", "head"])
def test_all_or_none(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, blocks: list[int], where: str
) -> None:
    """If one of the statements fails, nothing of the batch is there; sent again, all of it is."""
    store = opened()
    batch, rows = many(clock)

    def fail(*_given: object) -> None:
        raise duckdb.IOException("IO Error: No space left on device")

    with monkeypatch.context() as patch:
        if where == "block":
            patch.setattr(inserting, "_INSERT_BLOCK", "INSERT INTO ledger SELECT * FROM block")
        else:
            patch.setattr(heads, "put_heads", fail)
        with pytest.raises(DispatchFailed, match="nothing of this call was accepted"):
            store.put_batch(batch, rows)
    assert store.find(Selection()) == []
    assert store.get_batch(batch.batch_id) is None
    store.put_batch(batch, rows)
    assert store.find(Selection()) == list(rows.ids)
    assert told(store, batch) == {State.PENDING: COUNT}
    check_books(store)


def test_ids_that_are_there(opened: Opened, clock: FakeClock, blocks: list[int]) -> None:
    """A batch that is sent again is the same; rows whose ids others have are not doubled, wherever those are."""
    store = opened()
    batch, rows = many(clock)
    put = store.put_batch(batch, rows)
    assert store.put_batch(batch, rows) == put
    other, _ = new_rows(clock, {}, key="scores")
    named = store.put_batch(other, rows)
    assert (named.batch.runs, len(store.find(Selection()))) == (put.batch.runs, COUNT)
    store.close()
    store = opened()
    assert store.put_batch(batch, rows) == put
    other, _ = new_rows(clock, {}, key="again")
    assert store.put_batch(other, rows).batch.runs == put.batch.runs
    store.insert(rows[COUNT - 3 :])
    assert len(store.find(Selection())) == COUNT
    # Later ids than theirs are in the file, and none among them.
    late = many(clock)
    store.put_batch(*many(clock))
    store.put_batch(*late)
    assert (len(store.find(Selection())), blocks) == (3 * COUNT, [COUNT] * 3)
    check_books(store)


@pytest.mark.parametrize("where", ["payload", "label", "metadata"])
def test_halves_of_characters(opened: Opened, clock: FakeClock, blocks: list[int], where: str) -> None:
    """A text that is no UTF-8, as names of files may be, is spelled out as that of a single row is."""
    store = opened()
    half = '"\udcff"'
    said = {
        half if where == "label" and n == 7 else str(n): half if where == "payload" else "[]"
        for n in range(COUNT)
    }
    batch, rows = new_rows(clock, said, metadata=half if where == "metadata" else "")
    store.put_batch(batch, rows)
    found = store.query("SELECT arguments, row_label, metadata FROM jobs WHERE number = 8").iloc[0].tolist()
    assert '"\\udcff"' in found
    assert told(store, batch) == {State.PENDING: COUNT}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9 here")
def test_killed_after_the_answer(opened: Opened, path: Path) -> None:
    """A process that is killed as soon as it has the answer leaves every row."""
    code = """
import os, signal, sys
from pathlib import Path
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import new_rows
store = DuckDBStore(Path(sys.argv[1]))
batch, rows = new_rows(FakeClock(), {str(n): f"[{n}]" for n in range(150_000)})
store.put_batch(batch, rows)
os.write(1, f"{batch.batch_id} {rows.ids[-1]}".encode())
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    batch_id, last = done.stdout.split()
    store = opened()
    found = store.query(
        "SELECT count(*) AS jobs, count(DISTINCT job_id) AS ids, max(job_id)::VARCHAR AS last,"
        " count(*) FILTER (arguments = format('[{}]', row_label) AND batch_id::VARCHAR = ?) AS right FROM jobs",
        [batch_id],
    )
    assert found.iloc[0].to_dict() == {"jobs": 150_000, "ids": 150_000, "last": last, "right": 150_000}
    assert [claim.row for claim in FakeWorker(store).take(3)] == ["0", "1", "2"]
