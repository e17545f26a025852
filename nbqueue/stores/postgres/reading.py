"""The SQL that brings a mirror what is new on the server, exactly and without a lock; keeps nothing itself.

Every row that a mirror copies names the transaction that wrote it. What a snapshot did not see was written either
by a later transaction than any that it saw, or by one that was under way. So a ``Mark`` of these two finds what is new,
however late a transaction is committed, and whatever numbers its rows have. It counts from what was *seen*: such a
transaction is on the server's disk, so that a server that crashed never gives its number to another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg

from nbqueue.stores.schema import COLUMNS

__all__ = [
    "LARGE",
    "MARKED",
    "SMALL_TABLES",
    "Mark",
    "News",
    "bulk_sql",
    "is_small",
    "read_mark",
    "read_news",
]

#: Texts of more bytes than this go one by one: what reads CSV has to hold a whole line.
LARGE = 500_000

_DISPATCH = {
    "seq": "seq",
    "happened_us": "dispatched_us",
    "event": "'dispatched'",
    "job": "job",
    "due_us": "due_us",
    "data": "payload",
    "job_id": "job_id",
    "spec": "spec",
    "metadata": "metadata",
    "batch_id": "batch_id",
    "row_label": "row_label",
}
_ONLY_OF_DISPATCH = ("job_id", "spec", "metadata", "batch_id", "row_label")
_JOB = ", ".join(_DISPATCH.get(name, "NULL") for name in COLUMNS)
_EVENT = ", ".join("NULL" if name in _ONLY_OF_DISPATCH else name for name in COLUMNS)
_JOB_SIZE = " + ".join(f"coalesce(octet_length({name}), 0)" for name in ("payload", "metadata", "row_label"))
_EVENT_SIZE = " + ".join(f"coalesce(octet_length({name}), 0)" for name in ("data", "error", "traceback"))
_NEW = "(xid > %(last)s::xid8 OR xid = ANY(%(open)s::xid8[]))"
# The planner knows little of transactions' numbers, and must not take the order as a reason to read everything.
_NEW_ROWS = f"""
    WITH new AS MATERIALIZED (
        SELECT {_EVENT}, xid::text FROM ledger WHERE {_NEW} UNION ALL SELECT {_JOB}, xid::text FROM jobs WHERE {_NEW}
    ) SELECT * FROM new ORDER BY 1"""
#: What goes whole where it is new, by the column that tells one row from another: as in the mirror, so on the server.
SMALL_TABLES: dict[str, tuple[str, str]] = {
    "specs": ("spec", "spec, command, queue, priority, origin, code, tries, timeout, retry"),
    "queues": ("queue", "queue, paused"),
    "workers": ("worker", "worker, worker_id, host, pid, executor, concurrency, joined_us, lease"),
    "batches": ("batch_id", "batch_id, key, command, origin, head, created_us, mapped_us, runs"),
}
#: Those whose rows name the transaction that wrote them.
MARKED = ("ledger", "jobs", *SMALL_TABLES, "gone")

Row = tuple[Any, ...]


class Mark(NamedTuple):
    """Up to where the server has been read."""

    #: Which tables these are: others of the same name have other numbers.
    tables: int
    #: The latest transaction of which something was seen.
    last: int
    #: Those before it that were under way.
    open: tuple[int, ...]

    def params(self) -> dict[str, str]:
        """Give it as the parameters of a condition on what is new."""
        return {"last": str(self.last), "open": f"{{{','.join(map(str, self.open))}}}"}


class News(NamedTuple):
    """What is new since a mark."""

    mark: Mark
    #: Rows for the ledger, in the server's order.
    rows: list[Row]
    #: By table.
    small: dict[str, list[Row]]
    #: What was forgotten: (runs of job numbers, specs, workers, batches), a row a piece.
    gone: list[Row]
    #: The latest transaction that is behind the snapshot, seen or not.
    horizon: int


def is_small(cursor: psycopg.Cursor[Any], rows: int) -> bool:
    """Whether the history has no more rows than this."""
    found = cursor.execute(
        "SELECT count(*) FROM (SELECT FROM jobs UNION ALL SELECT FROM ledger LIMIT %s) few", [rows + 1]
    ).fetchone()
    return found is not None and found[0] <= rows


def read_mark(cursor: psycopg.Cursor[Any]) -> tuple[Mark, int]:
    """Give the mark of this snapshot, by what of each table is latest in it; and its horizon."""
    latest = ", ".join(f"(SELECT xid FROM {name} ORDER BY xid DESC LIMIT 1)" for name in MARKED)
    found = cursor.execute(
        f"SELECT 'ledger'::regclass::oid, pg_current_snapshot()::text, greatest({latest})::text"
    ).fetchone()
    assert found is not None
    tables, snapshot, last = found
    return _mark(tables, snapshot, int(last or 0))


def _mark(tables: int, snapshot: str, last: int) -> tuple[Mark, int]:
    _, following, under_way = snapshot.split(":")
    still = tuple(int(xid) for xid in under_way.split(",") if xid and int(xid) <= last)
    return Mark(int(tables), last, still), int(following) - 1


def read_news(cursor: psycopg.Cursor[Any], since: Mark) -> News:
    """Read what is new since a mark, in one snapshot and one round trip.

    Parameters
    ----------
    cursor : psycopg.Cursor
        In a transaction that sees one snapshot and has read nothing yet.
    since : Mark
        Up to where it is known.
    """
    con, params = cursor.connection, since.params()
    asked: dict[str, psycopg.Cursor[Any]] = {}
    with con.pipeline():
        head = con.execute("SELECT 'ledger'::regclass::oid, pg_current_snapshot()::text")
        asked["gone"] = con.execute(
            f"SELECT jobs, specs, workers, batches, xid::text FROM gone WHERE {_NEW}", params
        )
        for name, (_, columns) in SMALL_TABLES.items():
            asked[name] = con.execute(f"SELECT {columns}, xid::text FROM {name} WHERE {_NEW}", params)
        asked["rows"] = con.execute(_NEW_ROWS, params, binary=True)
    last = since.last
    found: dict[str, list[Row]] = {}
    for name, answer in asked.items():
        rows = answer.fetchall()
        last = max(last, max((int(row[-1]) for row in rows), default=0))
        found[name] = [row[:-1] for row in rows]
    first = head.fetchone()
    assert first is not None
    tables, snapshot = first
    mark, horizon = _mark(tables, snapshot, last)
    rows, gone = found.pop("rows"), found.pop("gone")
    return News(mark, rows, found, gone, horizon)


def bulk_sql() -> tuple[list[tuple[list[str], str]], str]:
    """The columns and the query of each half of the ledger but its large rows, and the query for all of those."""
    few_jobs, few_events = (
        f"FROM jobs WHERE {_JOB_SIZE} <= {LARGE}",
        f"FROM ledger WHERE {_EVENT_SIZE} <= {LARGE}",
    )
    names = [name for name in COLUMNS if name not in _ONLY_OF_DISPATCH]
    halves = [
        ([*_DISPATCH], f"SELECT {', '.join(_DISPATCH.values())} {few_jobs}"),
        (names, f"SELECT {', '.join(names)} {few_events}"),
    ]
    large = (
        f"SELECT {_JOB} FROM jobs WHERE {_JOB_SIZE} > {LARGE}"
        f" UNION ALL SELECT {_EVENT} FROM ledger WHERE {_EVENT_SIZE} > {LARGE}"
    )
    return halves, large
