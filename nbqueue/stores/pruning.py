"""Ended jobs on their way out of a ledger, piece by piece, so that verbs are answered in between; knows no thread.

Each call runs on the connection given, in a transaction of its caller. A piece is a range of job numbers: those lie
together in the ledger, so that only the part of it is read that the piece is about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from nbqueue.jobs import State
from nbqueue.lifecycle import LIFECYCLE_EVENTS, STATE_AFTER, Event
from nbqueue.store import Selection
from nbqueue.stores.live import micros
from nbqueue.stores.selecting import conditions, texts

if TYPE_CHECKING:
    import duckdb

__all__ = ["ENDINGS", "Gone", "Pruning", "begin", "delete_piece", "delete_unused"]

#: A piece is made so large that it takes about so many seconds.
PIECE_SECONDS = 0.1
FIRST_PIECE = 20_000
#: So many jobs that are named by their ids are one piece, however far apart they lie.
FEW_IDS = 1_000
#: Code that no job refers to stays so long: who put it there may dispatch without putting it again.
CODE_KEPT = 86_400.0

#: The events that end a job.
ENDINGS = texts(event for event in LIFECYCLE_EVENTS if STATE_AFTER[event].ended)
_ENDED = texts(state.value for state in State if state.ended)
#: Of an event ``e`` that ended a job: it has stayed so. A job leaves its end by being retried, and in no other way.
_NOT_RETRIED = (
    "NOT EXISTS"
    f" (SELECT 1 FROM ledger r WHERE r.event = '{Event.RETRIED}' AND r.job = e.job AND r.seq > e.seq)"
)


@dataclass(slots=True)
class Pruning:
    """What is to go, and how far that has come."""

    selection: Selection
    #: The numbers of the jobs that are still to be looked at.
    first: int = 1
    last: int = 0
    #: Jobs stay that ended by a later event than this; None: that does not matter.
    through: int | None = None
    #: How many numbers the next piece has.
    width: int = field(default_factory=lambda: FIRST_PIECE)
    forgotten: int = 0

    @property
    def over(self) -> bool:
        """Whether all of them have been looked at."""
        return self.first > self.last


@dataclass(slots=True)
class Gone:
    """What a piece took out of the ledger."""

    #: The numbers of the jobs by queue and state.
    jobs: dict[tuple[str, State], list[int]] = field(default_factory=dict)
    #: The numbers of specs that no job has any more.
    specs: list[int] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many jobs."""
        return sum(map(len, self.jobs.values()))


def begin(con: duckdb.DuckDBPyConnection, selection: Selection, keep: int | None) -> Pruning:
    """Find out where the jobs are that may go; quick also where there are none.

    Parameters
    ----------
    con : duckdb.DuckDBPyConnection
        Of a ledger.
    selection : Selection
        Which of the ended jobs.
    keep : int, optional
        So many of all ended jobs stay, those that ended last.
    """
    pruning = Pruning(selection)
    parts, params = [f"event IN {ENDINGS}"], list[object]()
    if keep is not None:
        pruning.through = _last_to_go(con, keep)
        if pruning.through is None:
            return pruning
        parts.append(f"seq <= {pruning.through}")
    if selection.finished_before is not None:
        # Where there is nothing to find, nobody is to look again and again.
        parts.append(f"happened_us < ? AND {_NOT_RETRIED}")
        params.append(micros(selection.finished_before))
    if selection.ids is not None:
        parts.append(
            "job IN (SELECT job FROM ledger WHERE event = 'dispatched' AND job_id IN (SELECT unnest(?::UUID[])))"
        )
        params.append([str(job_id) for job_id in selection.ids])
    # Jobs in between may stay: which ones go is for the piece to say.
    first, last = con.execute(
        f"SELECT min(job), max(job) FROM ledger e WHERE {' AND '.join(parts)}", params
    ).fetchall()[0]
    if first is not None:
        pruning.first, pruning.last = first, last
        if selection.ids is not None and len(selection.ids) <= FEW_IDS:
            pruning.width = last - first + 1
    return pruning


def _last_to_go(con: duckdb.DuckDBPyConnection, keep: int) -> int | None:
    """The event that ended the latest job of those that are too many, None where there are no more than ``keep``."""
    row = con.execute(
        f"SELECT seq FROM ledger e WHERE event IN {ENDINGS} AND {_NOT_RETRIED}"
        " ORDER BY seq DESC LIMIT 1 OFFSET ?",
        [keep],
    ).fetchone()
    return None if row is None else int(row[0])


def delete_piece(con: duckdb.DuckDBPyConnection, pruning: Pruning) -> Gone:
    """Delete the next jobs with all their events; ``pruning`` moves on by what was looked at."""
    start = perf_counter()
    first, last = pruning.first, min(pruning.first + pruning.width - 1, pruning.last)
    parts, params = conditions(pruning.selection)
    if pruning.through is not None:
        parts.append(
            f"number NOT IN (SELECT job FROM ledger WHERE event IN {ENDINGS} AND seq > {pruning.through}"
            f" AND job BETWEEN {first} AND {last})"
        )
    con.execute(
        "CREATE OR REPLACE TEMP TABLE doomed AS SELECT number, queue, state::VARCHAR AS state FROM jobs WHERE "
        + " AND ".join([f"number BETWEEN {first} AND {last}", f"state IN {_ENDED}", *parts]),
        params,
    )
    found = con.execute("SELECT queue, state, list(number) FROM doomed GROUP BY ALL").fetchall()
    gone = Gone({(queue, State(state)): numbers for queue, state, numbers in found})
    if found:
        con.execute(
            f"DELETE FROM ledger WHERE job BETWEEN {first} AND {last} AND job IN (SELECT number FROM doomed)"
        )
    con.execute("DROP TABLE doomed")
    (following,) = con.execute(f"SELECT min(job) FROM ledger WHERE job > {last}").fetchall()[0]
    pruning.first = pruning.last + 1 if following is None else following
    took = perf_counter() - start
    # Halved or doubled, so that a single slow piece does not make a thousand tiny ones.
    pruning.width = max(1_000, pruning.width // 2) if took > 1.5 * PIECE_SECONDS else pruning.width
    pruning.width = min(1 << 30, pruning.width * 2) if took < PIECE_SECONDS / 2 else pruning.width
    return gone


def delete_unused(con: duckdb.DuckDBPyConnection, seated: list[int], now: float) -> list[int]:
    """Delete what no job of the ledger refers to any more; gives the numbers of the specs that went.

    Parameters
    ----------
    con : duckdb.DuckDBPyConnection
        Of a ledger, in which all is that its index knows.
    seated : list of int
        The numbers of the workers that are here.
    now : float
        Seconds since the epoch.
    """
    dispatched = "FROM ledger WHERE event = 'dispatched'"
    specs = con.execute(
        f"DELETE FROM specs WHERE spec NOT IN (SELECT spec {dispatched}) RETURNING spec"
    ).fetchall()
    con.execute(
        "DELETE FROM workers WHERE worker NOT IN (SELECT worker FROM ledger WHERE worker IS NOT NULL)"
        " AND worker NOT IN (SELECT unnest(?::INTEGER[]))",
        [seated],
    )
    # One that was handed in without a row has none to lose.
    con.execute(
        "DELETE FROM batches WHERE len(runs) > 0 AND batch_id NOT IN"
        f" (SELECT batch_id {dispatched} AND batch_id IS NOT NULL)"
    )
    con.execute(
        "DELETE FROM code WHERE code NOT IN (SELECT code FROM specs) AND coalesce(put_us, 0) < ?",
        [micros(now - CODE_KEPT)],
    )
    return [number for (number,) in specs]
