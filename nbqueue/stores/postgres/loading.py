"""Brings a mirror up to date: all of a long history at once, and afterwards what is new; knows no thread.

Both run within one transaction of the server, which may be run again: what is here changes as a whole, or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from nbqueue.stores.postgres.reading import LARGE, SMALL_TABLES, News, bulk_sql
from nbqueue.stores.postgres.texts import FOR_NUL, read_text
from nbqueue.stores.schema import COLUMNS

if TYPE_CHECKING:
    import duckdb
    import psycopg

__all__ = ["add", "drop_others", "load_all"]

#: So many bytes are read before they are loaded.
_SPOOL = 64 << 20
#: So many rows are written at once.
_ROWS = 100
_CSV = (
    "header = false, auto_detect = false, delim = ',', quote = '\"', escape = '\"', nullstr = '',"
    f" allow_quoted_nulls = false, max_line_size = {8 * LARGE}"
)
Row = tuple[Any, ...]


def load_all(cursor: psycopg.Cursor[Any], con: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Load the whole history into empty tables.

    Parameters
    ----------
    cursor : psycopg.Cursor
        In a transaction that sees one snapshot.
    con : duckdb.DuckDBPyConnection
        May read files in the folder.
    folder : Path
        For what is on its way.
    """
    halves, large = bulk_sql()
    # However long it is: nobody waits for it but who asked.
    cursor.execute("SET LOCAL statement_timeout = 0")
    cursor.execute("SET LOCAL enable_seqscan = on")
    con.begin()
    try:
        # One piece is loaded while the next is read: each keeps another core busy.
        with ThreadPoolExecutor(1, "nbqueue-mirror") as loader:
            under_way = deque[Future[None]]()
            for columns, query in halves:
                for spool in _spools(cursor, query, folder):
                    under_way.append(loader.submit(_load, con, columns, spool))
                    if len(under_way) > 1:
                        under_way.popleft().result()
            for one in under_way:
                one.result()
        cursor.execute(large, binary=True)
        while rows := cursor.fetchmany(100):
            _append(con, "ledger", _read_texts(rows))
        for name, (_, listed) in SMALL_TABLES.items():
            con.execute(f"DELETE FROM {name}")
            _append(con, name, _read_texts(cursor.execute(f"SELECT {listed} FROM {name}").fetchall()))
        con.commit()
    except BaseException:
        con.rollback()
        raise


def _spools(cursor: psycopg.Cursor[Any], query: str, folder: Path) -> Iterator[Path]:
    """Write what a query gives to files, one after the other; whoever gets one removes it."""
    with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv)") as copy:
        rows = iter(copy)
        some = b"".join(islice(rows, _ROWS))
        while some:
            with NamedTemporaryFile(suffix=".csv", dir=folder, delete=False) as file:
                size = 0
                while some and size < _SPOOL:
                    size += file.write(some)
                    some = b"".join(islice(rows, _ROWS))
            yield Path(file.name)


def _load(con: duckdb.DuckDBPyConnection, columns: Sequence[str], spool: Path) -> None:
    types = {name: COLUMNS[name].split()[0] for name in columns}
    read = (
        f"replace({name}, '{FOR_NUL}', chr(0))" if kind == "VARCHAR" else name for name, kind in types.items()
    )
    con.execute(
        f"INSERT INTO ledger ({', '.join(columns)}) SELECT {', '.join(read)}"
        f" FROM read_csv(?, columns = ?, {_CSV})",
        [str(spool), types],
    )
    spool.unlink()


def _read_texts(rows: Iterable[Row]) -> list[Row]:
    """Give rows with their texts as they were written."""
    return [
        row
        if not any(type(value) is str and FOR_NUL in value for value in row)
        else tuple(read_text(value) if type(value) is str else value for value in row)
        for row in rows
    ]


def add(con: duckdb.DuckDBPyConnection, news: News, last: int) -> int:
    """Add what is new in one commit, and take away what was forgotten.

    Parameters
    ----------
    con : duckdb.DuckDBPyConnection
        The mirror.
    news : News
        What is new.
    last : int
        The ``seq`` of the last row here.

    Returns
    -------
    int
        The ``seq`` of the last row now: rows are numbered as they come, so that who asks for what has come since
        misses none that was committed late. Numbers of the server's that are free are kept.
    """
    if not (news.rows or news.gone or any(news.small.values())):
        return last
    rows = []
    for row in _read_texts(news.rows):
        last = max(last + 1, row[0])
        rows.append(row if row[0] == last else (last, *row[1:]))
    con.begin()
    try:
        for name, small in news.small.items():
            _replace(con, name, small)
        _append(con, "ledger", rows)
        for gone in news.gone:
            _take_away(con, *gone)
        con.commit()
    except BaseException:
        con.rollback()
        raise
    return last


def _append(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Row]) -> None:
    if rows:
        with con.appender(table) as appender:
            appender.append_rows(rows)


def _replace(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Row]) -> None:
    """Put rows in place of those of the same key."""
    if rows:
        key, _ = SMALL_TABLES[table]
        kind = {"spec": "INTEGER", "worker": "INTEGER", "queue": "VARCHAR", "batch_id": "UUID"}[key]
        con.execute(
            f"DELETE FROM {table} WHERE {key} IN (SELECT unnest(?::{kind}[]))", [[row[0] for row in rows]]
        )
        _append(con, table, _read_texts(rows))


def _take_away(
    con: duckdb.DuckDBPyConnection,
    runs: Sequence[int],
    specs: Sequence[int],
    workers: Sequence[int],
    batches: Sequence[object],
) -> None:
    if runs:
        firsts, lasts = runs[::2], runs[1::2]
        con.execute(
            "DELETE FROM ledger WHERE job BETWEEN ? AND ? AND job IN (SELECT unnest(range(first, last + 1)) FROM"
            " (SELECT unnest(?::BIGINT[]) AS first, unnest(?::BIGINT[]) AS last))",
            [min(firsts), max(lasts), firsts, lasts],
        )
    for table, key, kind, numbers in (
        ("specs", "spec", "INTEGER", specs),
        ("workers", "worker", "INTEGER", workers),
        ("batches", "batch_id", "UUID", batches),
    ):
        if numbers:
            con.execute(f"DELETE FROM {table} WHERE {key} IN (SELECT unnest(?::{kind}[]))", [list(numbers)])


def drop_others(cursor: psycopg.Cursor[Any], con: duckdb.DuckDBPyConnection) -> None:
    """Take away whatever the server has no longer, where nobody remembers what that was."""
    numbers = [row[0] for row in cursor.execute("SELECT job FROM jobs", binary=True).fetchall()]
    con.begin()
    try:
        con.execute("DELETE FROM ledger WHERE job NOT IN (SELECT unnest(?::BIGINT[]))", [numbers])
        for name, (key, _) in SMALL_TABLES.items():
            kept = [str(row[0]) for row in cursor.execute(f"SELECT {key} FROM {name}").fetchall()]
            con.execute(
                f"DELETE FROM {name} WHERE {key}::VARCHAR NOT IN (SELECT unnest(?::VARCHAR[]))", [kept]
            )
        con.commit()
    except BaseException:
        con.rollback()
        raise
