"""A selection of jobs as SQL over the server's tables; means what ``stores.selecting`` means."""

from __future__ import annotations

from nbqueue.jobs import State
from nbqueue.lifecycle import LIFECYCLE_EVENTS, STATE_AFTER, Event
from nbqueue.store import Selection
from nbqueue.stores.live import micros
from nbqueue.stores.postgres.texts import write_text

__all__ = ["ENDINGS", "IS_END", "NEAR_JOBS", "NOT_RETRIED", "conditions", "source"]

# Where the planner knows too little of the newest rows it goes through all of a batch for each of them. So it is told
# which row leads to which: OFFSET 0 is looked into by itself.
#: What the conditions are about: a job's dispatch, where it stands, and what it shares with others.
_JOBS = "standing s JOIN jobs j ON j.job = s.job JOIN specs p ON p.spec = s.spec"
#: The same for jobs of few numbers.
NEAR_JOBS = (
    "standing s CROSS JOIN LATERAL"
    " (SELECT job, job_id, batch_id, dispatched_us FROM jobs WHERE jobs.job = s.job OFFSET 0) j"
    " JOIN specs p ON p.spec = s.spec"
)
#: The same for jobs that are found by their ids or their batch.
_NAMED_JOBS = (
    "jobs j CROSS JOIN LATERAL (SELECT job, spec, state FROM standing WHERE standing.job = j.job OFFSET 0) s"
    " JOIN specs p ON p.spec = s.spec"
)
#: The events that end a job.
ENDINGS = ", ".join(f"'{event}'" for event in LIFECYCLE_EVENTS if STATE_AFTER[event].ended)
_MOVES = ", ".join(f"'{event}'" for event in LIFECYCLE_EVENTS if event is not Event.DISPATCHED)
#: Of an event ``e`` that ended a job: it has stayed so.
NOT_RETRIED = (
    f"NOT EXISTS (SELECT FROM ledger r WHERE r.job = e.job AND r.event = '{Event.RETRIED}' AND r.seq > e.seq)"
)
#: Of an event ``e`` of one job: it ended it. Written so that the index of all ends is no help, which would be read anew
#: for each job wherever the planner knows too little of the newest rows.
IS_END = f"(e.event || '') IN ({ENDINGS})"
_ENDED_BEFORE = (
    f"EXISTS (SELECT FROM ledger e WHERE e.job = s.job AND {IS_END} AND e.happened_us < %s AND {NOT_RETRIED})"
)
# Of the latest error that neither a success nor a retry by hand has cleared; else the cause of the failure.
_FINGERPRINT = f"""(
    SELECT coalesce(
        (SELECT coalesce(e.data, CASE e.cause WHEN 'error' THEN split_part(e.error, ':', 1) ELSE e.cause END)
         FROM ledger e WHERE e.job = s.job AND e.error IS NOT NULL AND e.event IN ({_MOVES})
           AND NOT EXISTS (SELECT FROM ledger c WHERE c.job = s.job AND c.event IN ('succeeded', 'retried')
                           AND c.seq >= e.seq)
         ORDER BY e.seq DESC LIMIT 1),
        (SELECT CASE l.event WHEN 'failed' THEN l.cause END
         FROM ledger l WHERE l.job = s.job AND l.event IN ({_MOVES}) ORDER BY l.seq DESC LIMIT 1)))"""


def source(selection: Selection) -> str:
    """The tables in which a selection is found, in the order in which that is quick."""
    return _JOBS if selection.ids is None and selection.batch_id is None else _NAMED_JOBS


def conditions(selection: Selection) -> tuple[list[str], list[object]]:
    """The conditions of a selection over its ``source``, and their parameters."""
    parts: list[str] = []
    params: list[object] = []

    def add(part: str, value: object) -> None:
        parts.append(part)
        params.append(value)

    if selection.ids is not None:
        add("j.job_id = ANY(%s::uuid[])", list(selection.ids))
    if selection.states is not None:
        add("s.state = ANY(%s::text[])", [State(state).value for state in selection.states])
    if selection.queues is not None:
        add("p.queue = ANY(%s::text[])", [write_text(name) for name in selection.queues])
    if selection.commands is not None:
        add("p.command = ANY(%s::text[])", [write_text(name) for name in selection.commands])
    if selection.batch_id is not None:
        add("j.batch_id = %s", selection.batch_id)
    if selection.fingerprint is not None:
        add(f"{_FINGERPRINT} = %s", write_text(selection.fingerprint))
    if selection.since is not None:
        add("j.dispatched_us >= %s", micros(selection.since))
    if selection.finished_before is not None:
        add(_ENDED_BEFORE, micros(selection.finished_before))
    return parts, params
