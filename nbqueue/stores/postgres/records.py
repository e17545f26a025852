"""Jobs as people see them, read from the server by their ids: where they stand and how their last attempt went."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from nbqueue.jobs import State
from nbqueue.lifecycle import LIFECYCLE_EVENTS, Event
from nbqueue.stores.live import LiveJob
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.locked import DISPATCH, LIFE, life_of, new_job_of
from nbqueue.stores.postgres.specs import Specs
from nbqueue.stores.postgres.texts import read_text

__all__ = ["load"]

_FROM = "FROM jobs j JOIN standing s USING (job) LEFT JOIN workers w ON w.worker = s.worker"
_JOBS = (
    f"SELECT j.job, j.spec, j.dispatched_us, w.worker_id, {LIFE}, {DISPATCH} {_FROM} WHERE j.job_id = ANY(%s)"
)
_MOVES = ", ".join(f"'{event}'" for event in LIFECYCLE_EVENTS if event is not Event.DISPATCHED)


def _latest(column: str, condition: str) -> str:
    return f"(array_agg({column} ORDER BY seq DESC) FILTER (WHERE {condition}))[1]"


# An error stays until another comes, a success, or a retry by hand: as in ``stores.index.moving``.
_SHOWN = f"error IS NOT NULL OR event IN ('{Event.SUCCEEDED}', '{Event.RETRIED}')"
_LAST = f"""
    SELECT job,
           {_latest("happened_us", "true")},
           {_latest("started_us", "started_us IS NOT NULL")},
           {_latest("data", f"event = '{Event.SUCCEEDED}'")},
           {_latest("error", _SHOWN)},
           {_latest("cause", f"event NOT IN ('{Event.CLAIMED}', '{Event.CANCELLING}')")},
           {_latest("traceback", _SHOWN)}
    FROM ledger WHERE job = ANY(%s) AND event IN ({_MOVES}) GROUP BY job"""


def load(tx: Tx, specs: Specs, ids: Collection[UUID]) -> list[LiveJob]:
    """Give the jobs of these ids, in no order; unknown ones are left out.

    Parameters
    ----------
    tx : Tx
        The transaction.
    specs : Specs
        Gives specs by their numbers.
    ids : collection of UUID
        Which.
    """
    rows = tx.execute(_JOBS, [list(ids)]).fetchall()
    if not rows:
        return []
    known = specs.of(tx, {row[1] for row in rows})
    found: dict[int, LiveJob] = {}
    for number, spec, dispatched_us, worker_id, *rest in rows:
        new = new_job_of(known[spec], rest[9:])
        job = LiveJob(number, new, spec, dispatched_us / 1e6, life_of(rest[:9]))
        job.worker = worker_id or ""
        found[number] = job
    for row in tx.execute(_LAST, [list(found)]).fetchall():
        _complete(found[row[0]], *row[1:])
    return list(found.values())


def _complete(job: LiveJob, *said: Any) -> None:
    """Add how the last attempt went."""
    happened_us, started_us, result, error, cause, traceback = said
    job.started_at = None if started_us is None else started_us / 1e6
    job.finished_at = happened_us / 1e6
    job.last = (
        read_text(result) if job.life.state is State.SUCCEEDED else "",
        read_text(error),
        read_text(cause),
        read_text(traceback),
    )
