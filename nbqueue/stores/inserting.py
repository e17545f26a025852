"""What one commit puts into the tables, by the way that is quickest for so many rows; the caller has begun it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING

from nbqueue.stores import heads, schema
from nbqueue.stores.alike import INSERT_ALIKE, Alike
from nbqueue.stores.blocks import Block
from nbqueue.stores.live import Row, micros
from nbqueue.stores.writes import INSERT_TEXTS, Writes, rows_text

if TYPE_CHECKING:
    import duckdb

__all__ = ["INSERT_ROWS", "insert_few", "is_much", "write"]

#: Up to so many rows go by INSERT; an appender costs more to open than these take.
INSERT_ROWS = 4
#: More rows than this go as text, in pieces of so many: to bind a statement for it takes 3 ms.
APPEND_ROWS = 1_000
TEXT_ROWS = 10_000
#: Rows of more characters than this go by an appender: written as text again, they would fill the memory.
LONG_ROW = 4_096
#: A commit of so many rows, or characters of what jobs bring along, does not go through the journal.
MUCH_ROWS = 4_000
MUCH_SIZE = 2 << 20
_COLUMNS = tuple(schema.COLUMNS)
_data, _traceback = itemgetter(_COLUMNS.index("data")), itemgetter(_COLUMNS.index("traceback"))
_INSERTS = {
    n: "INSERT INTO ledger VALUES " + ", ".join(["(" + ", ".join("?" * len(_COLUMNS)) + ")"] * n)
    for n in range(1, INSERT_ROWS + 1)
}

_OF_BLOCK = {
    "seq": "$seq::BIGINT + place",
    "happened_us": "$happened_us::BIGINT",
    "event": "'dispatched'",
    "job": "$job::BIGINT + place",
    "due_us": "$due_us::BIGINT",
    "data": "payload",
    "job_id": "(high::UHUGEINT << 64 | low)::UUID",
    "spec": "$spec::INTEGER",
    "metadata": "$metadata::VARCHAR",
    "batch_id": "$batch_id::UUID",
    "row_label": "label",
}
_INSERT_BLOCK = (
    f"INSERT INTO ledger ({', '.join(_OF_BLOCK)}) SELECT {', '.join(_OF_BLOCK.values())} FROM block"
)


def write(
    con: duckdb.DuckDBPyConnection, writes: Writes, texts: Sequence[str] = (), alike: Sequence[str] = ()
) -> None:
    """Write these into the tables; ``texts`` and ``alike`` are those of the rows, where they are there already."""
    rows = writes.rows
    for number, spec in writes.specs:
        con.execute(
            "INSERT INTO specs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [number, *spec[:7], spec.retry.to_json()],
        )
    if writes.queues:
        con.executemany("INSERT INTO queues VALUES (?, false)", [[name] for name in writes.queues])
    if writes.workers:
        con.executemany("INSERT INTO workers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", writes.workers)
    if 0 < len(rows) <= INSERT_ROWS:
        insert_few(con, rows)
    elif 0 < len(rows) <= APPEND_ROWS or _size(rows) > LONG_ROW * len(rows):
        with con.appender("ledger") as appender:
            appender.append_rows(rows)
    elif rows and texts:
        con.execute(INSERT_TEXTS, [texts])
    else:
        for at in range(0, len(rows), TEXT_ROWS):
            con.execute(INSERT_TEXTS, [[rows_text(rows[at : at + TEXT_ROWS])]])
    for piece in [alike] if alike else _pieces(writes.alike):
        con.execute(INSERT_ALIKE, [piece])
    for block in writes.blocks:
        _insert_block(con, block)
    if writes.batches:
        heads.put_heads(con, writes.batches)


def _pieces(many: Sequence[Alike]) -> Iterator[list[str]]:
    """Give the texts of what is alike, of so many rows at a time as go at once."""
    piece: list[str] = []
    rows = 0
    for alike in many:
        piece.append(alike.text())
        rows += len(alike)
        if rows >= TEXT_ROWS:
            yield piece
            piece, rows = [], 0
    if piece:
        yield piece


def insert_few(con: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> None:
    """Insert up to ``INSERT_ROWS`` rows, and nothing else."""
    con.execute(_INSERTS[len(rows)], [value for row in rows for value in row])


def _insert_block(con: duckdb.DuckDBPyConnection, block: Block) -> None:
    """Insert a block by its columns, which DuckDB reads where they lie: 1.2 us a row, where tuples take 4.7."""
    import numpy as np

    rows = block.rows
    columns = {
        "place": np.arange(len(rows)),
        "high": np.frombuffer(rows.ids.high, np.uint64),
        "low": np.frombuffer(rows.ids.low, np.uint64),
        "payload": np.array(rows.payloads, dtype=object),
        "label": np.array(rows.labels, dtype=object),
    }
    con.register("block", columns)
    con.execute(
        _INSERT_BLOCK,
        {
            "seq": block.seq,
            "happened_us": micros(block.dispatched_at),
            "job": block.number,
            "due_us": micros(rows.due_at),
            "spec": block.spec_number,
            "metadata": rows.metadata or None,
            "batch_id": str(rows.batch_id),
        },
    )
    # Where that failed nothing can be done before the transaction is undone; then it is registered anew, or closed.
    con.unregister("block")


def is_much(writes: Writes) -> bool:
    """Whether a commit is so large that writing it twice would cost more than a commit of DuckDB's."""
    size = _size(writes.rows) + sum(sum(map(len, alike.data)) for alike in writes.alike)
    return bool(writes.blocks) or writes.count >= MUCH_ROWS or size >= MUCH_SIZE


def _size(rows: Sequence[Row]) -> int:
    """How many characters jobs brought along or left."""
    # All in C: asked of every commit, a loop of Python's takes twice as long, 0.1 us a job.
    return sum(sum(map(len, filter(None, map(text, rows)))) for text in (_data, _traceback))
