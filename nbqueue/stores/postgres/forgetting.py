"""Ended jobs and all their history leave the server, piece by piece, so that nobody waits long for a lock.

A piece is a range of job numbers and one transaction. What went is written down for the mirrors of all processes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from nbqueue.jobs import State
from nbqueue.store import Selection
from nbqueue.stores.batching import runs_of
from nbqueue.stores.postgres.leftovers import clear_up, tell_mirrors
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.part import Part
from nbqueue.stores.postgres.selecting import ENDINGS, IS_END, NEAR_JOBS, NOT_RETRIED, conditions
from nbqueue.stores.pruning import PIECE_SECONDS
from nbqueue.stores.retention import Retention

__all__ = ["Forgetting", "ForgettingVerbs"]

FIRST_PIECE = 5_000

_ENDED = ", ".join(f"'{state.value}'" for state in State if state.ended)
_TOO_LATE = (
    f"EXISTS (SELECT FROM ledger e WHERE e.job = s.job AND {IS_END}"
    f" AND (e.happened_us, e.seq) > (%s, %s) AND {NOT_RETRIED})"
)


@dataclass(slots=True)
class Forgetting:
    """What is to go, and how far that has come."""

    selection: Selection
    #: The numbers of the jobs that are still to be looked at.
    first: int = 1
    last: int = 0
    #: Jobs stay that ended later than by this (time, event); None: that does not matter.
    through: tuple[int, int] | None = None
    #: How many numbers the next piece has.
    width: int = field(default_factory=lambda: FIRST_PIECE)
    forgotten: int = 0
    #: What may have lost its last job.
    specs: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        """Whether all of them have been looked at."""
        return self.first > self.last


class _Piece(NamedTuple):
    """What came of one piece."""

    forgotten: int
    specs: set[int]
    #: The next job that is there, None where there is none.
    following: int | None


class ForgettingVerbs(Part):
    """The verbs that forget."""

    _retention: Retention[Forgetting]

    def forget(self, selection: Selection, keep: int | None = None) -> int:
        """Remove ended jobs with all their history, piece by piece: others lock what they need in between."""
        going = self._begin(selection, keep)
        while not going.over:
            self._forget_piece(going)
        return going.forgotten

    def retain(self, seconds: float | None, keep: int | None = None) -> None:
        """Forget ended jobs this long after their end, and the oldest of more than ``keep``; None: no such limit."""
        self._retention.limit(seconds, keep)
        if self._retention.limited:
            # It is done where words are heard and leases looked after, which may not have begun.
            self._listening.begin()

    def _retire(self, ticks: float) -> bool:
        """Let a piece of what has been kept long enough go; gives whether there was any. One thread at a time calls it.

        Parameters
        ----------
        ticks : float
            Seconds by a clock that never steps back.
        """
        if not self._retention.is_due(ticks):
            return False
        now = self._link.run(lambda tx: tx.now, write=False)
        going = self._retention.take(
            self._begin, lambda: self._link.run(_count_ended, write=False), now, ticks
        )
        if going is None:
            return False
        self._forget_piece(going)
        self._retention.put_back(going)
        return True

    def _begin(self, selection: Selection, keep: int | None) -> Forgetting:
        """Find out where the jobs are that may go; quick also where there are none."""
        return self._link.run(partial(_begin, selection, keep), write=False)

    def _forget_piece(self, going: Forgetting) -> None:
        start = time.perf_counter()
        piece = self._link.run(partial(_forget, going))
        took = time.perf_counter() - start
        going.forgotten += piece.forgotten
        going.specs |= piece.specs
        going.first = going.last + 1 if piece.following is None else piece.following
        # Halved or doubled, so that a single slow piece does not make a thousand tiny ones.
        if took > 1.5 * PIECE_SECONDS:
            going.width = max(500, going.width // 2)
        elif took < PIECE_SECONDS / 2:
            going.width = min(1 << 30, going.width * 2)
        if going.over and going.forgotten:
            self._link.run(partial(clear_up, going.specs))


def _begin(selection: Selection, keep: int | None, tx: Tx) -> Forgetting:
    going = Forgetting(selection)
    if keep is not None:
        row = tx.execute(
            f"SELECT happened_us, seq FROM ledger e WHERE event IN ({ENDINGS}) AND {NOT_RETRIED}"
            " ORDER BY happened_us DESC, seq DESC OFFSET %s LIMIT 1",
            [keep],
        ).fetchone()
        if row is None:
            return going
        going.through = (row[0], row[1])
    ended_before = None if going.through is None else going.through[0] + 1
    if selection.finished_before is not None:
        cut = round(selection.finished_before * 1e6)
        ended_before = cut if ended_before is None else min(cut, ended_before)
    # Jobs in between may stay: which ones go is for the piece to say.
    span: tuple[str, list[object]] = ("FROM standing", [])
    if selection.ids is not None:
        span = "FROM jobs WHERE job_id = ANY(%s::uuid[])", [list(selection.ids)]
    elif ended_before is not None:
        # Where there is nothing to find, nobody is to look again and again.
        span = (
            f"FROM ledger e WHERE event IN ({ENDINGS}) AND happened_us < %s AND {NOT_RETRIED}",
            [ended_before],
        )
    elif selection.batch_id is not None:
        span = "FROM jobs WHERE batch_id = %s", [selection.batch_id]
    where, params = span
    first, last = tx.one(f"SELECT min(job), max(job) {where}", params)
    if first is not None:
        going.first, going.last = first, last
    return going


def _forget(going: Forgetting, tx: Tx) -> _Piece:
    """Delete the next jobs and all their events."""
    last = min(going.first + going.width - 1, going.last)
    parts, params = conditions(going.selection)
    if going.through is not None:
        parts.append(f"NOT {_TOO_LATE}")
        params += going.through
    where = " AND ".join([f"s.state IN ({_ENDED})", *parts])
    locked = tx.execute(
        f"SELECT s.job FROM {NEAR_JOBS} WHERE s.job BETWEEN %s AND %s AND {where} ORDER BY s.job FOR UPDATE OF s",
        [going.first, last, *params],
    )
    following = tx.execute("SELECT min(job) FROM standing WHERE job > %s AND job <= %s", [last, going.last])
    # Looked at again, now that nobody moves them.
    doomed = tx.execute(
        f"SELECT s.job, s.spec, p.queue, s.state FROM {NEAR_JOBS} WHERE s.job = ANY(%s) AND {where} ORDER BY s.job",
        [[number for (number,) in locked.fetchall()], *params],
    ).fetchall()
    (after,) = following.fetchone() or (None,)
    if doomed:
        _delete(tx, doomed)
    return _Piece(len(doomed), {spec for _, spec, _, _ in doomed}, after)


def _delete(tx: Tx, doomed: Sequence[Any]) -> None:
    numbers = [number for number, *_ in doomed]
    for table in ("ledger", "jobs", "standing"):
        tx.execute(f"DELETE FROM {table} WHERE job = ANY(%s)", [numbers])
    counts = Counter((queue, state) for _, _, queue, state in doomed)
    for (queue, state), count in counts.items():
        tx.execute("INSERT INTO counts (queue, state, delta) VALUES (%s, %s, %s)", [queue, state, -count])
    tell_mirrors(tx, jobs=[number for run in runs_of(numbers) for number in run])
    tx.changed = True


def _count_ended(tx: Tx) -> int:
    (count,) = tx.one(f"SELECT coalesce(sum(delta), 0)::bigint FROM counts WHERE state IN ({_ENDED})")
    return int(count)
