"""One job from near: all that is known of it, as plain values, for a view that is kept up to date; changes nothing."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from nbqueue.facade.looking import Looking
from nbqueue.facade.watching.folding import TEXT

__all__ = ["ROW", "Closeup"]

#: A job as plain values, as the fields of a STRUCT over the view ``jobs``.
ROW = f"""
    id: job_id::VARCHAR, command: command, queue: queue, state: state::VARCHAR, status: status::VARCHAR,
    attempt: attempt, max_attempts: max_attempts, priority: priority,
    dispatched: epoch_ms(dispatched_at), scheduled: epoch_ms(scheduled_at),
    started: epoch_ms(started_at), finished: epoch_ms(finished_at), wait: wait_seconds, run: run_seconds,
    error: left(error, {TEXT}), fingerprint: fingerprint, progress: progress, worker: worker,
    arguments: left(arguments, {TEXT}), batch: batch_id::VARCHAR, origin: origin, code: code
"""


class Closeup:
    """Looks at single jobs; reads only. Times are milliseconds since the epoch.

    Parameters
    ----------
    queues : QueueManager
        Where they are.
    """

    def __init__(self, queues: Looking) -> None:
        self._queues = queues

    def number(self, job_id: str) -> int | None:
        """Give a job's number, None if it is not there."""
        try:
            wanted = UUID(job_id)
        except ValueError:
            return None
        found = self._queues.store.query(
            "SELECT job AS number FROM ledger WHERE event = 'dispatched' AND job_id = ?::UUID", (str(wanted),)
        )
        return int(found["number"].iloc[0]) if len(found) else None

    def job(self, number: int) -> dict[str, Any] | None:
        """Give all that the view ``jobs`` says of a job, with its long texts."""
        found = self._queues.store.query(
            f"SELECT to_json({{{ROW}, arguments_text: left(arguments, 20000), metadata: metadata,"
            " traceback: traceback, cause: cause})::VARCHAR AS row FROM jobs WHERE number BETWEEN ? AND ?",
            (number, number),
        )
        return json.loads(found["row"].iloc[0]) if len(found) else None

    def attempts(self, number: int) -> list[dict[str, Any]]:
        """Give a job's attempts, the newest first."""
        found = self._queues.store.query(
            "SELECT to_json({attempt: attempt, outcome: outcome::VARCHAR, started: epoch_ms(started_at),"
            " finished: epoch_ms(finished_at), run: run_seconds, worker: worker, error: error, cause: cause,"
            " traceback: traceback})::VARCHAR AS row FROM attempts WHERE number BETWEEN ? AND ?"
            " ORDER BY fence DESC LIMIT 100",
            (number, number),
        )
        return [json.loads(row) for row in found["row"]]

    def logs(self, job_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """Give what a job wrote after this number, in order; each with its ``seq``."""
        found = self._queues.store.query(
            "SELECT to_json({seq: seq, attempt: attempt, stream: stream, text: text,"
            " 'at': epoch_ms(written_at)})::VARCHAR AS row FROM logs WHERE job_id = ?::UUID AND seq > ?"
            " ORDER BY seq DESC LIMIT 5000",
            (job_id, after),
        )
        return [json.loads(row) for row in reversed(found["row"].tolist())]

    def outputs(self, job_id: str) -> list[dict[str, Any]]:
        """Give what a job displayed in its newest attempt, as far as it may be shown here."""
        from nbqueue.facade.outputs import outputs_of

        return [
            {
                "attempt": output.attempt,
                "at": None if output.at is None else round(output.at.timestamp() * 1000),
                "data": dict(output.data),
                "metadata": dict(output.metadata),
                "trusted": output.trusted,
            }
            for output in outputs_of(self._queues.store, UUID(job_id), text=False)
        ]
