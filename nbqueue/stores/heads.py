"""The table of batches in a ledger, and what the ledger knows of their rows; each call runs on the connection given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from nbqueue.jobs import BatchRecord, State
from nbqueue.stores.batching import RowJob
from nbqueue.stores.live import micros

if TYPE_CHECKING:
    import duckdb

__all__ = ["find_batch", "put_heads", "row_counts", "row_jobs"]

_COLUMNS = "batch_id, command, origin, key, head, created_us, mapped_us, runs"


def put_heads(con: duckdb.DuckDBPyConnection, batches: Sequence[BatchRecord]) -> None:
    """Write batches down, in place of what is known of them; the caller has begun a transaction."""
    for batch in batches:
        con.execute("DELETE FROM batches WHERE batch_id = ?::UUID", [str(batch.batch_id)])
        con.execute(
            f"INSERT INTO batches ({_COLUMNS}) VALUES (?::UUID, ?, ?, ?, ?, ?, ?, ?::BIGINT[][])",
            [
                *(str(batch.batch_id), batch.command, batch.origin, batch.key, batch.head),
                *(micros(batch.created_at), micros(batch.mapped_at), [list(run) for run in batch.runs]),
            ],
        )


def find_batch(con: duckdb.DuckDBPyConnection, which: UUID | str) -> BatchRecord | None:
    """Give a batch by its id or its key."""
    column = "batch_id = ?::UUID" if isinstance(which, UUID) else "key <> '' AND key = ?"
    row = con.execute(f"SELECT {_COLUMNS} FROM batches WHERE {column}", [str(which)]).fetchone()
    if row is None:
        return None
    batch_id, command, origin, key, head, created_us, mapped_us, runs = row
    return BatchRecord(
        batch_id=batch_id,
        command=command,
        origin=origin,
        key=key,
        head=head,
        created_at=created_us / 1e6,
        mapped_at=mapped_us / 1e6,
        runs=tuple((first, last) for first, last in runs),
    )


def row_jobs(con: duckdb.DuckDBPyConnection, batch_id: UUID) -> dict[str, RowJob]:
    """Give the latest job of each row that a batch ever had, by label."""
    # The view folds only what it must where the numbers are bounded by constants.
    (first,) = con.execute(
        "SELECT min(job) FROM ledger WHERE event = 'dispatched' AND batch_id = ?::UUID", [str(batch_id)]
    ).fetchall()[0]
    found = con.execute(
        "SELECT row_label, number, job_id, arguments, state::VARCHAR FROM jobs"
        " WHERE batch_id = ?::UUID AND number >= ? ORDER BY number",
        [str(batch_id), first or 0],
    ).fetchall()
    return {label: RowJob(number, job_id, text, State(state)) for label, number, job_id, text, state in found}


def row_counts(con: duckdb.DuckDBPyConnection, batch: BatchRecord) -> dict[State, int]:
    """Count the rows of a batch by state."""
    if not batch.runs:
        return {}
    firsts, lasts = [first for first, _ in batch.runs], [last for _, last in batch.runs]
    found = con.execute(
        "SELECT j.state::VARCHAR, count(*) FROM jobs j"
        " JOIN (SELECT unnest(?::BIGINT[]) AS first, unnest(?::BIGINT[]) AS last) r"
        " ON j.number BETWEEN r.first AND r.last WHERE j.number BETWEEN ? AND ? GROUP BY 1",
        [firsts, lasts, min(firsts), max(lasts)],
    ).fetchall()
    return {State(state): count for state, count in found}
