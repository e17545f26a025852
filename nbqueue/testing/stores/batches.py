"""Rows that are handed in together, once or again."""

from __future__ import annotations

from uuid import UUID

import pytest

from nbqueue.errors import InvalidCommand
from nbqueue.jobs import NewBatch, State
from nbqueue.lifecycle import Outcome
from nbqueue.store import (
    ReportKind,
    Selection,
    Store,
)
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    NO_WAIT,
    FakeWorker,
    get,
    ids,
    new_batch,
    new_job,
    new_rows,
)

__all__ = ["Batches"]


def batch_of(batch: NewBatch) -> tuple[object, ...]:
    """What a record has of a batch as it was handed in."""
    return (batch.batch_id, batch.command, batch.origin, batch.key, batch.head)


def counted(store: Store, batch: NewBatch) -> dict[State, int]:
    """The states that rows of a batch are at, and how many."""
    return counted_by_id(store, batch.batch_id)


def counted_by_id(store: Store, batch_id: UUID) -> dict[State, int]:
    """As ``counted``; of a batch that is not there, nothing."""
    count = store.count_batch(batch_id)
    return {} if count is None else {state: number for state, number in count.states.items() if number}


class Batches:
    """Rows that are handed in together, once or again."""

    def test_batch(self, store: Store, clock: FakeClock) -> None:
        """A batch is its rows' jobs in their order, and is found again by its id."""
        batch, jobs = new_batch(clock, {"b": "[1]", "a": "[2]", "c": "[1]"}, origin="module:x")
        put = store.put_batch(batch, jobs)
        record = store.get_batch(batch.batch_id)
        assert record is not None
        assert put.batch == record
        assert list(put.left) == []
        assert (record.batch_id, record.command, record.origin, record.key, record.head) == batch_of(batch)
        assert (record.total, record.created_at, record.mapped_at) == (3, clock.time(), clock.time())
        assert [(r.batch_id, r.row, r.payload) for r in store.get(ids(jobs))] == [
            (batch.batch_id, "b", "[1]"),
            (batch.batch_id, "a", "[2]"),
            (batch.batch_id, "c", "[1]"),
        ]
        assert ids(FakeWorker(store).take(9)) == ids(jobs)

    def test_batch_by_columns(self, store: Store, clock: FakeClock) -> None:
        """Rows that come as columns are the jobs that they are one by one, and the same ones when sent again."""
        batch, rows = new_rows(clock, {"b": "[1]", "a": "[2]", "c": "[1]"}, key="scores", metadata='{"a":1}')
        put = store.put_batch(batch, rows)
        again = store.put_batch(batch, rows)
        assert (again.batch.runs, list(again.left)) == (put.batch.runs, [0, 1, 2])
        assert [
            (r.job_id, r.spec, r.payload, r.metadata, r.batch_id, r.row) for r in store.get(rows.ids)
        ] == [(job.job_id, job.spec, job.payload, job.metadata, batch.batch_id, job.row) for job in rows]
        assert counted(store, batch) == {State.PENDING: 3}
        assert ids(FakeWorker(store).take(9)) == list(rows.ids)

    def test_batch_is_idempotent(self, store: Store, clock: FakeClock) -> None:
        """A batch that is sent again after a lost reply is the same batch, wherever its rows stand by now."""
        batch, jobs = new_batch(clock, {"1": "[1]", "2": "[2]"})
        put = store.put_batch(batch, jobs)
        worker = FakeWorker(store)
        worker.end(worker.take_one())
        assert store.put_batch(batch, jobs).batch == put.batch
        assert len(store.find(Selection())) == 2
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.PENDING: 1}

    def test_named_batch_is_idempotent(self, store: Store, clock: FakeClock) -> None:
        """The same goes for one with a key, even where a row has failed meanwhile."""
        batch, jobs = new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores")
        put = store.put_batch(batch, jobs)
        worker = FakeWorker(store)
        worker.end(worker.take_one(), Outcome.FAILED)
        again = store.put_batch(batch, jobs)
        assert (again.batch.runs, list(again.left)) == (put.batch.runs, [0, 1])
        assert len(store.find(Selection())) == 2

    def test_empty_batch(self, store: Store, clock: FakeClock) -> None:
        """A batch without rows is one."""
        batch, jobs = new_batch(clock, {})
        assert store.put_batch(batch, jobs).batch.total == 0
        record = store.get_batch(batch.batch_id)
        assert record is not None
        assert (record.total, counted(store, batch)) == (0, {})

    def test_unknown_batch(self, store: Store, clock: FakeClock) -> None:
        """There is no batch that nobody handed in, and none without a key has the key ""."""
        store.put_batch(*new_batch(clock, {"1": "[1]"}))
        unknown = new_job(clock).job_id
        assert [store.get_batch(which) for which in (unknown, "scores", "")] == [None] * 3
        assert store.count_batch(unknown) is None

    def test_batch_is_counted(self, store: Store, clock: FakeClock) -> None:
        """A batch's rows are counted where they stand, through everything that may happen to them."""
        batch, jobs = new_batch(clock, {str(n): f"[{n}]" for n in range(4)}, tries=2, retry=NO_WAIT)
        store.insert([new_job(clock)])
        store.put_batch(batch, jobs)
        assert counted(store, batch) == {State.PENDING: 4}
        worker = FakeWorker(store)
        _, first, second, third = worker.take(4)
        assert counted(store, batch) == {State.PENDING: 1, State.RUNNING: 3}
        worker.end(first)
        worker.say(second, ReportKind.RELEASED)
        worker.end(third, Outcome.FAILED)
        assert counted(store, batch) == {State.PENDING: 3, State.SUCCEEDED: 1}
        store.cancel([jobs[3].job_id])
        again, last = worker.take(3)  # one slot has the job of no batch still
        worker.end(again, Outcome.CANCELLED)
        worker.end(last, Outcome.FAILED)
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.CANCELLED: 2, State.FAILED: 1}
        store.retry([jobs[2].job_id])
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.CANCELLED: 2, State.PENDING: 1}

    def test_batch_again_under_its_key(self, store: Store, clock: FakeClock) -> None:
        """Of a batch that is handed in again, only rows that are new, changed, failed or cancelled get a job."""
        rows = {
            name: f'["{name}"]' for name in ("done", "failed", "cancelled", "waits", "changed", "dropped")
        }
        batch, jobs = new_batch(clock, rows, key="scores")
        store.put_batch(batch, jobs)
        worker = FakeWorker(store)
        done, failed = worker.take(2)
        worker.end(done)
        worker.end(failed, Outcome.FAILED)
        store.cancel([jobs[2].job_id])
        clock.advance(60.0)
        del rows["dropped"]
        other, more = new_batch(clock, {"new": "[0]", **rows, "changed": "[1]"}, key="scores")
        put = store.put_batch(other, more)
        record = store.get_batch("scores")
        assert record == put.batch == store.get_batch(batch.batch_id)
        assert (record.batch_id, record.total, record.created_at) == (
            batch.batch_id,
            6,
            clock.time() - 60.0,
        )
        assert record.mapped_at == clock.time()
        assert sorted(put.left) == [1, 4]  # "done" and "waits"
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.PENDING: 5}
        assert get(store, jobs[4]).state is State.CANCELLED  # what "changed" asked for before
        assert get(store, jobs[5]).state is State.PENDING  # "dropped" is not in the batch, and goes on
        found = [get(store, claim) for claim in worker.take(9)]
        waiting = ["waits", "dropped", "new", "failed", "cancelled", "changed"]
        assert [record.row for record in found] == waiting
        assert {record.batch_id for record in found} == {batch.batch_id}
        assert counted(store, batch) == {State.SUCCEEDED: 1, State.RUNNING: 5}

    def test_row_comes_back_to_its_batch(self, store: Store, clock: FakeClock) -> None:
        """A row that was left out for a while has its latest job still."""
        store.put_batch(*new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores"))
        worker = FakeWorker(store)
        for claim in worker.take(2):
            worker.end(claim)
        store.put_batch(*new_batch(clock, {"1": "[1]"}, key="scores"))
        batch, jobs = new_batch(clock, {"2": "[2]", "1": "[1]"}, key="scores")
        put = store.put_batch(batch, jobs)
        assert sorted(put.left) == [0, 1]
        assert len(store.find(Selection())) == 2
        assert put.batch.total == 2

    def test_job_that_was_replaced_counts_no_more(self, store: Store, clock: FakeClock) -> None:
        """What a row's former job does is not seen in its batch; it was asked to stop."""
        first, _ = store.put_batch(*new_batch(clock, {"1": "[1]"}, key="scores"))
        worker = FakeWorker(store)
        running = worker.take_one()
        store.put_batch(*new_batch(clock, {"1": "[2]"}, key="scores"))
        assert list(worker.turn().cancels) == [running.fence]
        worker.end(running, Outcome.CANCELLED)
        assert counted_by_id(store, first.batch_id) == {State.PENDING: 1}

    @pytest.mark.parametrize("given", [{"command": "other"}, {"origin": "notebook:b.ipynb"}], ids=str)
    def test_key_of_another_handler(self, store: Store, clock: FakeClock, given: dict[str, str]) -> None:
        """A key belongs to one handler: what another would do is not the same, and nothing of it is taken."""
        store.put_batch(*new_batch(clock, {"1": "[1]"}, key="scores"))
        with pytest.raises(InvalidCommand, match="another key"):
            store.put_batch(*new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores", **given))
        assert len(store.find(Selection())) == 1

    def test_batch_is_forgotten_with_its_jobs(self, store: Store, clock: FakeClock) -> None:
        """Rows whose jobs were forgotten are counted nowhere; with the last of them the batch has gone, key and all."""
        batch, jobs = new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores")
        store.put_batch(batch, jobs)
        worker = FakeWorker(store)
        worker.end(worker.take_one())
        store.forget(Selection())
        assert counted(store, batch) == {State.PENDING: 1}
        record = store.get_batch("scores")
        assert record is not None
        count = store.count_batch(batch.batch_id)
        assert count is not None
        assert record.total == count.total == 2
        worker.end(worker.take_one(), Outcome.FAILED)
        store.forget(Selection())
        assert store.get_batch("scores") is store.get_batch(batch.batch_id) is None
        assert store.count_batch(batch.batch_id) is None

    def test_forgotten_row_is_new(self, store: Store, clock: FakeClock) -> None:
        """A row whose job was forgotten gets another when it comes again."""
        store.put_batch(*new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores"))
        worker = FakeWorker(store)
        worker.end(worker.take_one())
        store.forget(Selection())
        put = store.put_batch(*new_batch(clock, {"1": "[1]", "2": "[2]"}, key="scores"))
        assert list(put.left) == [1]
        assert counted_by_id(store, put.batch.batch_id) == {State.PENDING: 2}
