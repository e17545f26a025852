"""Which jobs a live view shows, as one value; asks no queue."""

from __future__ import annotations

import json
from dataclasses import dataclass

from nbqueue.facade.selecting import pick
from nbqueue.stores.selecting import conditions, texts

__all__ = ["WAITING", "JobFilter"]

#: Statuses of a job that only waits for its time.
WAITING = frozenset(("scheduled", "retrying"))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a table shows; every field narrows it.

    Parameters
    ----------
    states : tuple of str
        States, or "scheduled" and "retrying" for pending jobs that wait for their time; empty: all.
    queue, command, fingerprint, batch : str, optional
        Exactly these.
    text : str
        Somewhere in its id, command, queue, error, arguments or metadata, in capitals or not.
    """

    states: tuple[str, ...] = ()
    queue: str | None = None
    command: str | None = None
    text: str = ""
    fingerprint: str | None = None
    batch: str | None = None

    @property
    def everything(self) -> bool:
        """Whether it narrows nothing."""
        return self == JobFilter()

    @property
    def timed(self) -> bool:
        """Whether time alone takes jobs out of it: they wait no longer."""
        return not WAITING.isdisjoint(self.states)

    def condition(self) -> tuple[str, list[object]]:
        """Give it as SQL over the view ``jobs``, with its parameters.

        Raises
        ------
        InvalidCommand
            For a state that does not exist, or a batch that is no id.
        """
        picked = pick(
            state=self.states or None, command=self.command, batch=self.batch, fingerprint=self.fingerprint
        )
        parts, params = conditions(picked.selection)
        if picked.statuses:
            whole = texts(word for word in self.states if word not in picked.statuses)
            parts.append(f"(status IN {texts(sorted(picked.statuses))} OR state IN {whole})")
        if self.queue is not None:
            parts.append("queue = ?")
            params.append(self.queue)
        if self.text:
            parts.append(
                f"({_contains('job_id::VARCHAR', 'command', 'queue', 'error')} OR {_contains('arguments', 'metadata')})"
            )
            # These are JSON, in which a backslash and a quote are written otherwise.
            params += [self.text, json.dumps(self.text, ensure_ascii=False)[1:-1]]
        return " AND ".join(parts) or "true", params


def _contains(*fields: str) -> str:
    return f"contains(lower(concat_ws(chr(10), {', '.join(fields)})), lower(?))"
