"""Pending jobs out of the ledger, by thousands: what a long backlog costs each job beside running it.

They come as rows, and become jobs when they are claimed: the collector lets go of tuples of numbers and texts, and a
job with its id and its parts is three objects that each of its rounds looks at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID, SafeUUID

from nbqueue.jobs import Spec
from nbqueue.lifecycle import STATE_AFTER, Event, Life
from nbqueue.stores import schema
from nbqueue.stores.alike import Alike
from nbqueue.stores.live import LiveJob, PendingRow, Row

if TYPE_CHECKING:
    import duckdb

__all__ = ["job_of", "pending_of"]

_COLUMNS = "job, event, spec, happened_us, due_us, data, metadata, batch_id, row_label, job_id"
# DuckDB makes a UUID by its constructor, from text: 1.2 us an id; out of its digits here it takes 0.5.
_READ = _COLUMNS.removesuffix("job_id") + "replace(job_id::VARCHAR, '-', '')"
_AT = tuple(list(schema.COLUMNS).index(name) for name in _COLUMNS.split(", "))
_JOB, _EVENT = _AT[:2]
# A list of more than a few values becomes a join, which keeps filters from the scan.
_LIFECYCLE = " AND ".join(f"event <> '{event}'" for event in Event if event not in STATE_AFTER)
_DISPATCHED = Event.DISPATCHED.value
_number = itemgetter(0)
_make, _set, _UNKNOWN = object.__new__, object.__setattr__, SafeUUID.unknown
#: Where all stand that wait for nothing but a worker.
_NEW = Life()


def pending_of(
    con: duckdb.DuckDBPyConnection,
    waiting: Sequence[Sequence[Row]],
    alike: Sequence[Alike],
    numbers: Sequence[int],
    longest: int | None = None,
) -> list[PendingRow]:
    """Give those of these jobs that nothing has happened to since their dispatch.

    Parameters
    ----------
    con : DuckDBPyConnection
        Has the ledger.
    waiting : sequence of sequences of rows
        Commits that are not in it yet.
    alike : sequence of Alike
        More rows of theirs, none of them a dispatch.
    numbers : sequence of int
        Of the jobs.
    longest : int, optional
        None with a longer payload is given.
    """
    wanted = set(numbers)
    new, moved = _waiting_of(waiting, wanted)
    moved.update(*[wanted.intersection(one.jobs) for one in alike])
    left = [n for n in numbers if n not in new and n not in moved] if new or moved else numbers
    rows = list(new.values())
    if left:
        rows += _rows_of(con, left, longest)
    # What has moved may be one whose dispatch waits, or is in the file.
    moved.update([row[0] for row in rows if row[1] != _DISPATCHED])
    rows = [row for row in rows if row[0] not in moved and (longest is None or len(row[5]) <= longest)]
    rows.sort(key=_number)
    return rows


def _waiting_of(
    waiting: Sequence[Sequence[Row]], numbers: set[int]
) -> tuple[dict[int, tuple[Any, ...]], set[int]]:
    """What waits of these jobs: their dispatches, and which of them have moved."""
    new: dict[int, tuple[Any, ...]] = {}
    moved: set[int] = set()
    for rows in waiting:
        for row in rows:
            number = row[_JOB]
            if number not in numbers:
                continue
            if row[_EVENT] == _DISPATCHED:
                new[number] = tuple([row[at] for at in _AT])
            elif row[_EVENT] in STATE_AFTER:
                moved.add(number)
    return new, moved


def _rows_of(
    con: duckdb.DuckDBPyConnection, numbers: Sequence[int], longest: int | None
) -> list[tuple[Any, ...]]:
    """What the file has of these jobs, but for payloads that are too long."""
    first, last = min(numbers), max(numbers)
    # Bounds that are constants keep most of the ledger from being read; for jobs that lie together, as those of a
    # backlog do, they say it all: 4 ms for 1,024 of 100,000 jobs, where two looks by a list took 13.
    which, params = f"job BETWEEN {first} AND {last}", list[object]()
    if last - first + 1 != len(numbers):
        which, params = f"{which} AND job IN (SELECT unnest(?::BIGINT[]))", [numbers]
    if longest is not None:
        which = f"{which} AND (event <> 'dispatched' OR length(data) <= {longest})"
    return con.execute(f"SELECT {_READ} FROM ledger WHERE {which} AND {_LIFECYCLE}", params).fetchall()


def job_of(row: PendingRow, specs: Mapping[int, Spec]) -> LiveJob:
    """Make a job of its row."""
    number, _, spec, happened_us, due_us, data, metadata, batch_id, label, job_id = row
    if job_id.__class__ is str:
        digits, job_id = job_id, _make(UUID)
        _set(job_id, "int", int(digits, 16))
        _set(job_id, "is_safe", _UNKNOWN)
    due_at, life = None, _NEW
    if due_us is not None:
        due_at = due_us / 1e6
        life = Life(due_at=due_at)
    new = (job_id, specs[spec], data, metadata or "", due_at, batch_id, label)
    return LiveJob(number, new, spec, happened_us / 1e6, life)
