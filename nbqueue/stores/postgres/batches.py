"""The verbs of batches: rows that are handed in together, once or again, by whatever process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from nbqueue.jobs import BatchRecord, NewBatch, NewJob, State
from nbqueue.store import BatchCount, Mapped
from nbqueue.stores.batching import RowJob, put_batch
from nbqueue.stores.live import micros
from nbqueue.stores.postgres.leftovers import tell_mirrors
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.part import Part
from nbqueue.stores.postgres.texts import read_text, write_text
from nbqueue.stores.postgres.writing import COPY_ROWS

__all__ = ["BatchVerbs"]

_HEAD = "batch_id, command, origin, key, head, created_us, mapped_us, runs"
# Those whose jobs were all forgotten are none; one that was handed in without a row has none to lose.
_HAS_ROWS = "(cardinality(runs) = 0 OR EXISTS (SELECT FROM jobs j WHERE j.batch_id = b.batch_id))"
_PUT = (
    f"INSERT INTO batches ({_HEAD}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s::bigint[])"
    " ON CONFLICT (batch_id) DO UPDATE SET head = EXCLUDED.head, mapped_us = EXCLUDED.mapped_us, runs = EXCLUDED.runs,"
    " xid = EXCLUDED.xid"
)
_ROWS = """
    SELECT DISTINCT ON (j.row_label) j.row_label, j.job, j.job_id, j.payload, s.state
    FROM jobs j JOIN standing s ON s.job = j.job WHERE j.batch_id = %s ORDER BY j.row_label, j.job DESC"""
_COUNT = """
    SELECT s.state, count(*) FROM batches b
    CROSS JOIN LATERAL generate_subscripts(b.runs, 1) AS n
    JOIN standing s ON s.job BETWEEN b.runs[n][1] AND b.runs[n][2]
    WHERE b.batch_id = %s GROUP BY s.state"""


class BatchVerbs(Part):
    """Handing batches in, finding and counting them."""

    def put_batch(self, batch: NewBatch, jobs: Sequence[NewJob]) -> Mapped:
        """Take the rows of a batch, all or none and in one commit."""
        jobs = list(jobs)

        def verb(tx: Tx) -> Mapped:
            _hold(tx, batch.key or str(batch.batch_id))
            known = _known(tx, batch)
            if known is not None and not batch.key:
                return Mapped(known)
            rows = _rows(tx, known.batch_id) if known is not None else {}
            index = self._lock(tx)
            index.prepare(jobs)
            index.take(index.lock(_replaced(rows, jobs)))
            if index.taken:
                # It is sent again, and no row need have what the first time made: another call may have come since.
                index.take(index.lock_ids(index.taken))
            mapped = put_batch(index, batch, jobs, tx.now, known=known, rows=rows)
            _write_head(tx, mapped.batch)
            tx.changed = True
            self._write(index)
            return mapped

        return self._link.run(verb, pipelined=len(jobs) < COPY_ROWS)

    def get_batch(self, which: UUID | str) -> BatchRecord | None:
        """Give a batch by its id or its key."""
        return self._link.run(lambda tx: _find(tx, which, _HAS_ROWS), write=False)

    def count_batch(self, batch_id: UUID) -> BatchCount | None:
        """Give how many rows of a batch stand where."""

        def verb(tx: Tx) -> BatchCount | None:
            counted = tx.execute(_COUNT, [batch_id])
            batch = _find(tx, batch_id, _HAS_ROWS)
            if batch is None:
                return None
            counts = dict.fromkeys(State, 0)
            counts.update({State(state): count for state, count in counted.fetchall()})
            return BatchCount(batch.total, counts)

        return self._link.run(verb, write=False)


def _hold(tx: Tx, name: str) -> None:
    """Let nobody else hand in this batch before the transaction ends, be it here or not."""
    tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 7412))", [f"{tx.schema} {write_text(name)}"]
    )


def _known(tx: Tx, batch: NewBatch) -> BatchRecord | None:
    """Give the batch that is there already, and see to it that it stays; one without any job is not there."""
    which = batch.key or batch.batch_id
    known = _find(tx, which, "true FOR UPDATE")
    if known is None or _find(tx, which, _HAS_ROWS) is not None:
        return known
    tx.execute("DELETE FROM batches WHERE batch_id = %s", [known.batch_id])
    tell_mirrors(tx, batches=[known.batch_id])
    return None


def _find(tx: Tx, which: UUID | str, condition: str) -> BatchRecord | None:
    column, value = (
        ("batch_id", which) if isinstance(which, UUID) else ("key <> '' AND key", write_text(which))
    )
    row = tx.execute(f"SELECT {_HEAD} FROM batches b WHERE {column} = %s AND {condition}", [value]).fetchone()
    return None if row is None else _record(row)


def _record(row: Sequence[Any]) -> BatchRecord:
    batch_id, command, origin, key, head, created_us, mapped_us, runs = row
    return BatchRecord(
        batch_id=batch_id,
        command=command,
        origin=origin,
        key=read_text(key),
        head=read_text(head),
        created_at=created_us / 1e6,
        mapped_at=mapped_us / 1e6,
        runs=tuple((first, last) for first, last in runs),
    )


def _write_head(tx: Tx, batch: BatchRecord) -> None:
    tx.execute(
        _PUT,
        [
            *(batch.batch_id, batch.command, batch.origin, write_text(batch.key), write_text(batch.head)),
            *(micros(batch.created_at), micros(batch.mapped_at), [list(run) for run in batch.runs]),
        ],
    )


def _rows(tx: Tx, batch_id: UUID) -> dict[str, RowJob]:
    """Give the latest job of each row that a batch ever had, by label."""
    return {
        read_text(label): RowJob(number, job_id, read_text(payload), State(state))
        for label, number, job_id, payload, state in tx.execute(_ROWS, [batch_id]).fetchall()
    }


def _replaced(rows: Mapping[str, RowJob], jobs: Sequence[NewJob]) -> list[int]:
    """Give the numbers of the unfinished jobs that rows have and will have no longer."""
    found = ((rows.get(job.row or ""), job) for job in jobs) if rows else ()
    return sorted(row.number for row, job in found if row and not row.state.ended and not row.serves(job))
