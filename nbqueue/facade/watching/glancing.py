"""What a card shows of a few jobs, by one look at all of them; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple
from uuid import UUID

from nbqueue.facade.looking import Looking
from nbqueue.jobs import JobRecord, State

__all__ = ["Glance", "glance"]

# Progress of the attempt that runs: an earlier one's is under another fence.
_PROGRESS = """
    SELECT fence, max_by(data, seq) AS data FROM events
    WHERE event = 'progress' AND job_id IN (SELECT unnest(?::UUID[])) GROUP BY fence
"""


class Glance(NamedTuple):
    """A job at one moment."""

    record: JobRecord
    #: ``{"done": …, "total": …, "note": …}`` of the attempt that runs or ran last.
    progress: dict[str, Any] | None = None

    @property
    def job_id(self) -> UUID:
        """Its id."""
        return self.record.job_id

    def status(self, now: float) -> str:
        """The state, or where it says more: scheduled, retrying, cancelling."""
        record = self.record
        if record.state is State.RUNNING and record.cancelling:
            return "cancelling"
        if record.state is State.PENDING and record.scheduled_at > now:
            return "retrying" if record.attempt else "scheduled"
        return record.state.value


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
    begun = [record for record in records if record.attempt]
    progress: dict[int, dict[str, Any]] = {}
    if begun:
        found = queues.store.query(_PROGRESS, ([str(record.job_id) for record in begun],))
        for fence, data in zip(found["fence"].tolist(), found["data"].tolist(), strict=True):
            progress[int(fence)] = json.loads(data)
    return {record.job_id: Glance(record, progress.get(record.fence)) for record in records}
