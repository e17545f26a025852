"""What a worker could run next: found, locked and handed to it, past what others have locked; knows no process.

Ready jobs stand in one index by spec and number. A spec is of one queue, one priority and one handler, so that which
specs have ready jobs is all there is to choose from: the index is jumped through from spec to spec, and only the
first few jobs of those that count are looked at, however many wait behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbqueue.jobs import Claim, Spec
from nbqueue.stores.live import LiveJob, Seat
from nbqueue.stores.postgres.arrays import numbers
from nbqueue.stores.postgres.link import Cursor, Tx
from nbqueue.stores.postgres.locked import DISPATCH, LIFE, Locked, life_of, new_job_of

__all__ = ["Seeking", "promote"]

#: So many whose time has come are looked after at once.
_PROMOTED = 2_000

_READY = "state = 'pending' AND NOT waits AND NOT held"
_NOW_US = "(1e6 * coalesce(%s::float8, extract(epoch FROM clock_timestamp())))::bigint"
_PROMOTE = (
    "UPDATE standing SET waits = false WHERE job IN (SELECT job FROM standing WHERE waits"
    f" AND due_us <= {_NOW_US} ORDER BY due_us LIMIT {_PROMOTED} FOR UPDATE SKIP LOCKED)"
)
_ACTIVE = f"""
    active(spec) AS (
        (SELECT spec FROM standing WHERE {_READY} ORDER BY spec LIMIT 1)
        UNION ALL
        SELECT (SELECT s.spec FROM standing s WHERE {_READY} AND s.spec > a.spec ORDER BY s.spec LIMIT 1)
        FROM active a WHERE a.spec IS NOT NULL
    )"""
# First how many of each spec are among the first of all, which locks nothing; then so many of each that nobody has.
_CLAIM = f"""
    WITH RECURSIVE {_ACTIVE},
    able AS (
        SELECT a.spec, g.rank, p.priority
        FROM active a
        JOIN unnest(%s::integer[], %s::integer[]) AS g(spec, rank) USING (spec)
        JOIN specs p USING (spec)
        JOIN queues q USING (queue)
        WHERE NOT q.paused
    ),
    near AS MATERIALIZED (
        SELECT a.spec, a.rank, a.priority
        FROM able a
        CROSS JOIN LATERAL (
            SELECT job FROM standing WHERE spec = a.spec AND {_READY} ORDER BY job LIMIT %s
        ) n
        ORDER BY a.rank, a.priority DESC, n.job LIMIT %s
    ),
    quota AS MATERIALIZED (SELECT spec, rank, priority, count(*) AS n FROM near GROUP BY spec, rank, priority),
    found AS (
        SELECT s.job, s.spec AS of_spec, {LIFE}, j.dispatched_us, {DISPATCH}
        FROM quota
        CROSS JOIN LATERAL (
            SELECT * FROM standing WHERE spec = quota.spec AND {_READY} ORDER BY job LIMIT quota.n
            FOR UPDATE SKIP LOCKED
        ) s
        -- OFFSET 0: looked up one by one. What is expected of the limits above would have all of them read.
        CROSS JOIN LATERAL (SELECT * FROM jobs WHERE jobs.job = s.job OFFSET 0) j
        ORDER BY quota.rank, quota.priority DESC, s.job
    )
    -- A fence is taken when its row is locked, so that those of a job only rise.
    SELECT array(SELECT spec FROM active WHERE spec IS NOT NULL), nextval('fences'), f.*
    FROM (SELECT) one LEFT JOIN found f ON true
    """


def ranks(seat: Seat, specs: dict[int, Spec]) -> dict[int, int]:
    """Which specs a worker takes, by number, and the place of their queue in the order in which it serves them."""
    names = seat.info.queues
    places = None if names is None else {name: place for place, name in reversed(list(enumerate(names)))}
    found = {}
    for number, spec in specs.items():
        place = 0 if places is None else places.get(spec.queue)
        if place is not None and seat.handlers.accepts(spec):
            found[number] = place
    return found


class Seeking:
    """A look for work for one worker, which is asked for first and waited for later.

    Parameters
    ----------
    index : Locked
        Takes what is found; the worker is in it.
    seat : Seat
        The worker.
    room : int
        How many jobs it takes.
    """

    def __init__(self, index: Locked, seat: Seat, room: int):
        self._index, self._seat, self._room = index, seat, room
        self._tx = index.tx
        #: What waits in its queues, and that it cannot run.
        self.unknown: list[Spec] = []
        self._ranks = ranks(seat, index.know(()))
        self._asked = self._ask(self._ranks, room)

    def _ask(self, able: dict[int, int], room: int) -> Cursor:
        return self._tx.execute(_CLAIM, [numbers(list(able)), numbers(list(able.values())), room, room])

    def take(self, now: float) -> list[Claim]:
        """Wait for what was found, and hand it out."""
        active, claims = self._hand_out(self._asked, now)
        known = self._index.know(active)
        able = ranks(self._seat, {number: known[number] for number in active if number in known})
        new = {number: place for number, place in able.items() if number not in self._ranks}
        if new and len(claims) < self._room:
            # Specs that this process had not seen before.
            claims += self._hand_out(self._ask(new, self._room - len(claims)), now)[1]
        mine = self._seat.info.queues
        self.unknown = [
            known[number]
            for number in sorted(active - able.keys())
            if number in known and (mine is None or known[number].queue in mine)
        ]
        return claims

    def _hand_out(self, asked: Cursor, now: float) -> tuple[set[int], list[Claim]]:
        rows = asked.fetchall()
        active = set(rows[0][0])
        specs = self._index.know(active)
        jobs, early = [], []
        for _, fence, number, *rest in rows:
            if number is None:
                break
            job = _job(number, rest, specs)
            if job.life.due_at is not None and job.life.due_at > now:
                # The clock was set back since it was due.
                early.append(number)
                continue
            self._index.hold(job)
            jobs.append((job, fence))
        if early:
            self._tx.execute("UPDATE standing SET waits = true WHERE job = ANY(%s)", [early])
        return active, self._index.claim_locked(self._seat, jobs, now)


def _job(number: int, row: Sequence[Any], specs: dict[int, Spec]) -> LiveJob:
    spec, *rest = row
    life = life_of(rest[:9])
    dispatched_us, *said = rest[9:]
    return LiveJob(number, new_job_of(specs[spec], said), spec, dispatched_us / 1e6, life)


def promote(tx: Tx) -> None:
    """Let what is due stand with what is ready."""
    tx.execute(_PROMOTE, [tx.clock])
