"""What a card shows of a few jobs, by one look at all of them; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID

from nbqueue.facade.looking import Looking
from nbqueue.facade.watching.following import Following
from nbqueue.jobs import JobRecord

__all__ = ["Glance", "glance", "retried"]

# Ids rise as numbers do: without a stretch of them all jobs there are would be read.
_NUMBERS = """
    SELECT job AS number FROM ledger
    WHERE event = 'dispatched' AND job_id BETWEEN ?::UUID AND ?::UUID AND job_id IN (SELECT unnest(?::UUID[]))
"""
_RETRIED = """
    SELECT coalesce(max(seq), 0) AS seq, count(*) FILTER (event = 'retried') AS retries FROM ledger WHERE seq > ?
"""


class Glance(NamedTuple):
    """A job at one moment."""

    record: JobRecord
    #: As the view ``jobs`` has it: the state, or where it says more scheduled, retrying, held, cancelling.
    status: str
    #: ``{"done": …, "total": …, "note": …}`` of the attempt that runs or ran last.
    progress: dict[str, Any] | None = None

    @property
    def job_id(self) -> UUID:
        """Its id."""
        return self.record.job_id

    @property
    def waits(self) -> bool:
        """Whether it might run now, and does not."""
        return self.status in ("pending", "held")

    @property
    def comparable(self) -> bool:
        """Whether other jobs of its command do the same: the cells of a notebook only share a name."""
        return not self.record.spec.origin.startswith("kernel:")


def glance(queues: Looking, ids: Iterable[UUID]) -> dict[UUID, Glance]:
    """Give these jobs as they are now; unknown ones are left out.

    Parameters
    ----------
    queues : QueueManager
        Where they are.
    ids : iterable of UUID
        Which.
    """
    records = queues.store.get(list(ids))
    if not records:
        return {}
    wanted = sorted(str(record.job_id) for record in records)
    numbers = queues.store.query(_NUMBERS, (wanted[0], wanted[-1], wanted))["number"].tolist()
    rows = {row["id"]: row for row in Following(queues).rows(numbers).values()}
    found = {}
    for record in records:
        # One that was forgotten in between is as its record says.
        row = rows.get(str(record.job_id), {"status": record.state.value, "progress": None})
        found[record.job_id] = Glance(record, row["status"], row["progress"] and json.loads(row["progress"]))
    return found


def retried(queues: Looking, since: int) -> tuple[int, bool]:
    """Give the number of the last event, and whether since this one some job was let run again by hand."""
    found = queues.store.query(_RETRIED, (since,))
    return max(since, int(found["seq"].iloc[0])), bool(found["retries"].iloc[0])
