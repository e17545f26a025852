"""How a job ended, for people: the error that says so, and what it said on the way; asks no store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nbqueue.errors import JobCancelled, JobFailed, JobTimeout
from nbqueue.jobs import JobRecord, State

__all__ = ["Logs", "failure_of"]


def failure_of(record: JobRecord) -> JobFailed | JobCancelled | None:
    """Give the error that says how a job ended, None if it succeeded."""
    command = record.spec.command
    if record.state is State.CANCELLED:
        return JobCancelled(
            f"{command} {record.job_id} was cancelled, so it has no result; retry() runs it again"
        )
    if record.state is not State.FAILED:
        return None
    attempts = "1 attempt" if record.attempt == 1 else f"{record.attempt} attempts"
    kind, why = JobFailed, record.error or record.cause or "for a reason that was not recorded"
    if record.cause == "timeout":
        kind = JobTimeout
    elif record.cause and record.cause not in ("error", why):
        why = f"{record.cause}: {why}"
    failure = kind(
        f"{command} failed after {attempts}: {why}",
        job_id=str(record.job_id),
        cause=record.cause or "error",
        error=record.error,
        traceback=record.traceback,
    )
    if record.traceback:
        failure.add_note(f"\nIn the job:\n{record.traceback.rstrip()}")
    return failure


class Logs:
    """What a job printed and logged, in order; ``str()`` of it is the text.

    Parameters
    ----------
    command : str
        Of the job.
    chunks : sequence of (int, str, str)
        Attempt, stream ("stdout", "stderr" or "log") and text.
    """

    __slots__ = ("_command", "chunks")

    def __init__(self, command: str, chunks: Sequence[tuple[int, str, str]]) -> None:
        self._command = command
        self.chunks = tuple(chunks)

    def only(self, stream: str | None = None, *, attempt: int | None = None) -> Logs:
        """Give those of one stream ("stdout", "stderr" or "log"), of one attempt, or both."""
        return Logs(
            self._command,
            [
                c
                for c in self.chunks
                if (attempt is None or c[0] == attempt) and (stream is None or c[1] == stream)
            ],
        )

    def __str__(self) -> str:
        return "".join(text for _, _, text in self.chunks)

    def __repr__(self) -> str:
        lines = len(str(self).splitlines())
        return f"<Logs of {self._command}: {lines} line{'' if lines == 1 else 's'}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001 - IPython calls it so
        printer.text(repr(self) if cycle or not self else str(self).rstrip("\n"))

    def __contains__(self, text: str) -> bool:
        return text in str(self)

    def __iter__(self) -> Iterator[str]:
        return iter(str(self).splitlines())

    def __len__(self) -> int:
        return len(str(self).splitlines())
