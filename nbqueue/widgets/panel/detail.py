"""The one job that is looked at closely: what it was given, its attempts, what it wrote and displayed."""

from __future__ import annotations

import json
from typing import Any

from nbqueue.errors import JobNotFound, NbqueueError
from nbqueue.facade.manager import QueueManager
from nbqueue.facade.watching.closeup import Closeup
from nbqueue.widgets.panel.rows import arguments_text, row_of, tail_of
from nbqueue.widgets.panel.state import State

__all__ = ["Detail"]

#: Of what a job wrote, and of what it displayed, the last so many characters are shown.
_LOGS = 200_000
_OUTPUTS = 2_000_000
_TEXTS = ("arguments_text", "metadata", "traceback", "cause")


class Detail:
    """A job with all that is known of it, kept up to date.

    Parameters
    ----------
    queues : QueueManager
        Where it is.
    job_id : str
        Which.

    Raises
    ------
    JobNotFound
        If there is none.
    """

    def __init__(self, queues: QueueManager, job_id: str) -> None:
        self._queues = queues
        self._closeup = Closeup(queues)
        number = self._closeup.number(job_id)
        if number is None:
            raise JobNotFound(
                f"there is no job {job_id[:60]} in {queues.name}; it was forgotten, or another file has it"
            )
        self.number = number
        self.job_id = job_id
        self._chunks: list[dict[str, Any]] = []
        self._seq = 0
        self._left_out = False

    def show(self, state: State) -> None:
        """Bring a state's detail up to date."""
        opened = state.get("detail")
        values = self._values()
        if values is None:
            state.set("detail", None)
        elif opened is None or opened["id"] != self.job_id:
            state.set("detail", values)
        else:
            state.set_detail(**values)

    def _values(self) -> dict[str, Any] | None:
        job = self._closeup.job(self.number)
        if job is None:
            return None
        texts = {name: job.pop(name) for name in _TEXTS}
        logs = self._logs()
        return {
            **row_of(job),
            "why": self._why(),
            "cause": texts["cause"],
            "traceback": texts["traceback"],
            "arguments_text": arguments_text(texts["arguments_text"]),
            "metadata": _metadata(texts["metadata"]),
            "attempts": self._closeup.attempts(self.number),
            "logs": logs,
            "logs_truncated": self._left_out,
            "outputs": _fitting(self._closeup.outputs(self.job_id)),
        }

    def _why(self) -> str:
        try:
            return self._queues.why(self.job_id)
        except NbqueueError as error:
            return str(error)

    def _logs(self) -> list[dict[str, Any]]:
        for chunk in self._closeup.logs(self.job_id, after=self._seq):
            self._seq = chunk.pop("seq")
            self._chunks.append(chunk)
        self._chunks, left_out = tail_of(self._chunks, _LOGS)
        self._left_out = self._left_out or left_out
        return list(self._chunks)


def _metadata(stored: str | None) -> dict[str, str]:
    try:
        found = json.loads(stored or "{}")
    except ValueError:
        found = {"": stored}
    if not isinstance(found, dict):
        return {"": str(stored)}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in found.items()}


def _fitting(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the last outputs that fit; one that is too long by itself says so."""
    room, kept = _OUTPUTS, []
    for output in reversed(outputs):
        length = len(json.dumps(output["data"], default=str))
        if length > room:
            note = f"(output of {length:,} characters: too long to be shown here, see receipt.outputs())"
            kept.append({**output, "data": {"text/plain": note}, "metadata": {}})
            break
        room -= length
        kept.append(output)
    return kept[::-1]
