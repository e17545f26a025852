"""The tables of a queue file: made in a new one, brought up to date in an old one, refused where they are not ours."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nbqueue.errors import QueueUnavailable
from nbqueue.stores import migrations, schema

if TYPE_CHECKING:
    import duckdb

__all__ = ["prepare", "transaction"]


@contextlib.contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Keep all that is done in here, or nothing of it."""
    import duckdb

    con.begin()
    try:
        yield
        con.commit()
    except BaseException:
        # A commit that failed has rolled back already, and its error is the one that tells why.
        with contextlib.suppress(duckdb.Error):
            con.rollback()
        raise


def prepare(con: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Make the tables if this is a new file, refuse what is no queue of ours; gives whether it is new."""
    con.execute("SET TimeZone='UTC'")
    # Whoever owns the file has checkpoints when it suits him; this is for a log that got out of hand.
    con.execute("SET checkpoint_threshold='256MB'")
    tables = {
        table
        for (table,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
    }
    version = _version(con) if tables.issuperset(schema.FIRST_TABLES) else 0
    if tables and not version:
        msg = (
            f"{name} is a DuckDB database with tables of its own ({', '.join(sorted(tables)[:3])}) and no"
            " queue in it; give the queue a file of its own"
        )
        raise QueueUnavailable(msg)
    with transaction(con):
        if not tables:
            _make_tables(con)
        elif version != schema.SCHEMA_VERSION:
            migrations.migrate(con, name, version)
        _renew_views(con)
    con.execute("SET lock_configuration=true")
    return not tables


def _make_tables(con: duckdb.DuckDBPyConnection) -> None:
    for statement in schema.TABLES:
        con.execute(statement)
    con.execute(
        "INSERT INTO meta VALUES ('schema', ?), ('views', 0), ('seq', 0), ('job', 0), ('worker', 0), ('epoch', 0),"
        " ('folded', 0), ('journal', 0), ('journal_before', 0)",
        [schema.SCHEMA_VERSION],
    )
    con.execute("INSERT INTO queues VALUES ('default', false)")


def _renew_views(con: duckdb.DuckDBPyConnection) -> None:
    """Make the views anew where an nbqueue with other views made them: they hold no data."""
    fingerprint = zlib.crc32("\n".join(schema.VIEWS).encode())
    row = con.execute("SELECT value FROM meta WHERE name = 'views'").fetchone()
    if row is not None and row[0] == fingerprint:
        return
    for statement in schema.VIEWS:
        con.execute(statement)
    con.execute("DELETE FROM meta WHERE name = 'views'")
    con.execute("INSERT INTO meta VALUES ('views', ?)", [fingerprint])


def _version(con: duckdb.DuckDBPyConnection) -> int:
    """The schema's version, 0 where these tables are not ours."""
    import duckdb

    try:
        row = con.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    except (duckdb.BinderException, duckdb.CatalogException):
        return 0
    return int(row[0]) if row else 0
