"""What people ask of a queue on a server: jobs, queues, workers, and why a job does not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from nbqueue.errors import QueueUnavailable
from nbqueue.jobs import JobRecord, State
from nbqueue.store import QueueInfo, Selection, WorkerInfo
from nbqueue.stores.live import LiveJob, QueueState, Seat, micros
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.part import Part
from nbqueue.stores.postgres.records import load
from nbqueue.stores.postgres.selecting import conditions, source
from nbqueue.stores.postgres.texts import handlers_of
from nbqueue.stores.why import explain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LookingVerbs"]

_NOW_US = "1e6 * coalesce(%s::float8, extract(epoch FROM clock_timestamp()))"
_WAITING = (
    "SELECT p.queue, count(*) FROM standing s JOIN specs p ON p.spec = s.spec"
    f" WHERE s.waits AND s.due_us > {_NOW_US} GROUP BY p.queue"
)
_COUNTS = "SELECT queue, state, sum(delta)::bigint FROM counts GROUP BY queue, state"
_WORKER = "w.worker_id, w.queues, w.concurrency, w.executor, w.host, w.pid, w.tries, w.timeout, w.lease"
_SEATS = (
    f"SELECT {_WORKER}, w.worker, w.handlers,"
    " (SELECT count(*) FROM standing s WHERE s.worker = w.worker AND s.state = 'running')"
    " FROM workers w WHERE NOT w.gone ORDER BY w.worker"
)


class _Around(NamedTuple):
    """What a job depends on, as far as it was read."""

    queues: Mapping[str, QueueState]
    seats: Mapping[str, Seat]


class LookingVerbs(Part):
    """The verbs that look, and those that keep what is no job."""

    def get(self, ids: Sequence[UUID]) -> list[JobRecord]:
        """Give the records of these jobs, in this order."""
        found = self._link.run(lambda tx: load(tx, self._specs, ids), write=False)
        jobs = {job.job_id: job for job in found}
        return [jobs[job_id].record() for job_id in ids if job_id in jobs]

    def find(self, selection: Selection) -> list[UUID]:
        """Give the ids of the jobs selected, oldest first."""
        parts, params = conditions(selection)
        where = f" WHERE {' AND '.join(parts)}" if parts else ""

        def verb(tx: Tx) -> list[UUID]:
            rows = tx.execute(
                f"SELECT j.job_id FROM {source(selection)}{where} ORDER BY s.job", params
            ).fetchall()
            return [job_id for (job_id,) in rows]

        return self._link.run(verb, write=False)

    def explain(self, job_id: UUID) -> str:
        """Say in a sentence why a job is not running; "" if it is running."""

        def verb(tx: Tx) -> str:
            paused = tx.execute("SELECT queue, paused FROM queues")
            found = tx.execute(_SEATS)
            job = next(iter(load(tx, self._specs, (job_id,))), None)
            if job is None:
                return f"there is no job {job_id} in {self.name}"
            queues = {name: QueueState(paused=is_paused) for name, is_paused in paused.fetchall()}
            seats = [_seat(row, job) for row in found.fetchall()]
            return explain(job, _Around(queues, {seat.info.worker_id: seat for seat in seats}), tx.now)

        return self._link.run(verb, write=False)

    def queues(self) -> list[QueueInfo]:
        """Every queue, by name."""

        def verb(tx: Tx) -> tuple[list[Any], list[Any], list[Any]]:
            asked = (
                tx.execute("SELECT queue, paused FROM queues"),
                tx.execute(_COUNTS),
                tx.execute(_WAITING, [tx.clock]),
            )
            names, counts, waiting = (cursor.fetchall() for cursor in asked)
            return names, counts, waiting

        names, counted, waiting = self._link.run(verb, write=False)
        counts = {name: dict.fromkeys(State, 0) for name, _ in names}
        for name, state, count in counted:
            if name in counts:
                counts[name][State(state)] = count
        waits = dict(waiting)
        return [
            QueueInfo(name, paused, counts[name], min(waits.get(name, 0), counts[name][State.PENDING]))
            for name, paused in sorted(names)
        ]

    def workers(self) -> list[WorkerInfo]:
        """The workers that are here now."""

        def verb(tx: Tx) -> list[Any]:
            return tx.execute(
                f"SELECT {_WORKER} FROM workers w WHERE NOT w.gone ORDER BY w.worker"
            ).fetchall()

        return [_info(row) for row in self._link.run(verb, write=False)]

    def query(
        self, sql: str, params: Sequence[object] = (), frames: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """Run one read-only SELECT over the views and the given frames, on this machine."""
        return self._mirror.query(sql, params, frames or {})

    # -- what is no job

    def add_queue(self, name: str) -> None:
        """Make a queue known."""

        def verb(tx: Tx) -> None:
            made = tx.execute(
                "INSERT INTO queues (queue) VALUES (%s) ON CONFLICT DO NOTHING RETURNING queue", [name]
            )
            tx.changed = made.fetchone() is not None

        self._link.run(verb)

    def pause(self, queue: str, *, paused: bool) -> None:
        """Stop handing out a queue's jobs, or go on."""

        def verb(tx: Tx) -> list[str]:
            found = tx.execute(
                "UPDATE queues SET paused = %s, xid = DEFAULT WHERE queue = %s RETURNING queue",
                [paused, queue],
            ).fetchall()
            if found:
                tx.changed = True
                if not paused:
                    tx.fresh.add(queue)
                return []
            return sorted(name for (name,) in tx.execute("SELECT queue FROM queues").fetchall())

        others = self._link.run(verb)
        if others:
            raise QueueUnavailable(
                f"there is no queue {queue!r} in {self.name}; there are: {', '.join(others)}"
            )

    def put_code(self, code: str, blob: bytes) -> None:
        """Keep code by value under its hash."""

        def verb(tx: Tx) -> None:
            tx.execute(
                "INSERT INTO code (code, blob, put_us) VALUES (%s, %s, %s)"
                " ON CONFLICT (code) DO UPDATE SET put_us = EXCLUDED.put_us",
                [code, blob, micros(tx.now)],
            )

        self._link.run(verb)

    def get_code(self, code: str) -> bytes | None:
        """Give code by its hash."""

        def verb(tx: Tx) -> bytes | None:
            row = tx.execute("SELECT blob FROM code WHERE code = %s", [code]).fetchone()
            return bytes(row[0]) if row else None

        return self._link.run(verb, write=False)


def _info(row: Sequence[Any]) -> WorkerInfo:
    worker_id, queues, concurrency, executor, host, pid, tries, timeout, lease = row
    return WorkerInfo(
        worker_id=worker_id,
        queues=None if queues is None else tuple(queues),
        concurrency=concurrency,
        executor=executor,
        host=host,
        pid=pid,
        tries=tries,
        timeout=timeout,
        lease=lease,
    )


def _seat(row: Sequence[Any], some: LiveJob) -> Seat:
    """A worker of whatever process, as far as it matters why a job is not its own: what it has is only counted."""
    *info, number, handlers, held = row
    seat = Seat(_info(info), number, handlers_of(handlers), lambda _claims: None, 0.0)
    seat.claims = dict.fromkeys(range(held), some)
    return seat
