"""What becomes of workers that are silent or dead: their claims are taken back, and they are told if they live."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from nbqueue.jobs import Claim
from nbqueue.store import Handlers, WorkerInfo
from nbqueue.stores.live import Seat
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.part import Part

__all__ = ["TICKS", "Burying", "lengthen_leases"]

#: Where a lease counts from; its parameter is ``Tx.ticks``.
TICKS = "coalesce(%s::float8, extract(epoch FROM clock_timestamp())::float8)"
#: Nobody has looked for longer than this: nobody could be heard either.
_GAP = 5.0

_WORKERS = "SELECT worker, worker_id, concurrency, lease FROM workers WHERE NOT gone AND {} ORDER BY worker FOR UPDATE"
_LAPSED = _WORKERS.format(f"lease_until < {TICKS} AND worker <> %s") + " SKIP LOCKED"
_DEAD = _WORKERS.format("worker_id = ANY(%s)")


class Burying(Part):
    """What a store does about the dead."""

    def _bury_lapsed(self, tx: Tx, but: int = 0) -> None:
        """Take what workers have whose lease has run out; not that of ``but``, who is about to renew it."""
        rows = tx.execute(_LAPSED, [tx.ticks, but]).fetchall()

        def why(worker_id: str, lease: float) -> str:
            return f"worker {worker_id} was silent for longer than its lease of {lease:g} s"

        self._bury(tx, rows, "lease expired", why)

    def _bury_dead(self, tx: Tx, worker_ids: Collection[str]) -> None:
        """Take what these workers have, whose process has gone."""
        rows = tx.execute(_DEAD, [list(worker_ids)]).fetchall()

        def why(worker_id: str, _lease: float) -> str:
            return f"worker {worker_id} went away (its kernel or process was killed)"

        self._bury(tx, rows, "killed", why)

    def _bury(
        self, tx: Tx, rows: Sequence[tuple[Any, ...]], cause: str, why: Callable[[str, float], str]
    ) -> None:
        if not rows:
            return
        numbers = [row[0] for row in rows]
        tx.execute("UPDATE workers SET gone = true WHERE worker = ANY(%s)", [numbers])
        index = self._lock(tx)
        seats = {}
        for number, worker_id, concurrency, lease in rows:
            info = WorkerInfo(worker_id=worker_id, concurrency=concurrency, lease=lease)
            seats[worker_id] = Seat(info, number, Handlers(), _tell_nobody, 0.0)
            index.seat(seats[worker_id])
        for job in sorted(index.take(index.lock_running(numbers)), key=lambda job: job.life.fence):
            seats[job.worker].claims[job.life.fence] = job
        for worker_id, seat in seats.items():
            begun = self._slots.begun(worker_id)
            index.bury(seat, begun, tx.now, error=why(worker_id, seat.info.lease), cause=cause)
            tx.tell(f"turn {worker_id}")
        self._write(index)
        tx.changed = True


def _tell_nobody(_claims: Sequence[Claim]) -> None:
    """Wake somebody who may be dead; ``Tx.tell`` does that."""


def lengthen_leases(tx: Tx) -> None:
    """Note that somebody looks; where nobody has for a while, give everybody time to be heard again.

    The server was down, or its machine asleep: no worker pays for that, and none gets more than one full lease.
    """
    (looked_at,) = tx.one("SELECT value FROM meta WHERE name = 'looked_at' FOR UPDATE")
    gap = tx.now - float(looked_at)
    tx.execute("UPDATE meta SET value = %s WHERE name = 'looked_at'", [repr(tx.now)])
    if gap > _GAP:
        tx.execute(
            "UPDATE workers SET lease_until = least(lease_until + %s, %s + lease) WHERE NOT gone",
            [gap, tx.now],
        )
