"""What may be meant while somebody types: ids, commands; a cheap look each, since it is asked for at every key."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from nbqueue.facade.controls import Controls
from nbqueue.handlers.registry import registry
from nbqueue.jobs import State

__all__ = ["commands", "job_ids"]

#: So many of the newest jobs are looked at, and so many at most are offered.
_LOOKED_AT = 200
_OFFERED = 20

# An id begins with the time of its dispatch, so the greatest are the newest.
_NEWEST = f"""
    SELECT job_id FROM events WHERE event = 'dispatched' AND job_id BETWEEN ?::UUID AND ?::UUID
    ORDER BY job_id DESC LIMIT {_LOOKED_AT}
"""

#: The commands of so many of the newest jobs are offered, or of more where older ones were forgotten.
_RECENT = 10_000

# Numbers are given in the order of dispatch, and DuckDB skips what is below one: of 500,000 jobs this takes 5 ms.
_COMMANDS = "SELECT DISTINCT command FROM events WHERE event = 'dispatched' AND number > ?"


def job_ids(queues: Controls, begins: str, states: Collection[State] | None = None) -> list[str]:
    """Give the newest jobs whose ids begin so.

    Parameters
    ----------
    queues : QueueManager
        Where they are.
    begins : str
        What was typed; may be empty.
    states : collection of State, optional
        Only jobs in these.
    """
    digits = begins.replace("-", "").lower()
    try:
        first, last = (str(UUID(digits.ljust(32, end))) for end in "0f")
    except ValueError:
        return []
    ids = [UUID(str(one)) for one in queues.store.query(_NEWEST, (first, last))["job_id"].tolist()]
    if states is not None:
        fitting = {record.job_id for record in queues.store.get(ids) if record.state in states}
        ids = [one for one in ids if one in fitting]
    return [str(one) for one in ids[:_OFFERED]]


def commands(queues: Controls) -> list[str]:
    """Give the names of handlers that are defined here, and of commands that were dispatched lately."""
    total = sum(sum(queue.counts.values()) for queue in queues.store.queues())
    known = queues.store.query(_COMMANDS, (total - _RECENT,))["command"].tolist()
    return sorted({*registry.names(), *map(str, known)})
