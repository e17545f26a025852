"""The verbs of a store that are a question and an answer: the one list of what travels between processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from nbqueue.jobs import BatchRecord, Claim, JobRecord, NewBatch, NewJob
from nbqueue.store import (
    Answer,
    BatchCount,
    Capability,
    Handlers,
    Mapped,
    QueueInfo,
    Report,
    Selection,
    Turn,
    WorkerInfo,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["VERBS", "Verbs"]


class Verbs:
    """A store whose verbs are asked of another; subclasses say of whom.

    ``join``, ``watch`` and ``listen``, which take a function to be called, are theirs too.
    """

    capabilities: frozenset[Capability] = frozenset(Capability)

    def _ask(self, verb: str, *args: Any, **named: Any) -> Any:
        raise NotImplementedError

    def insert(self, jobs: Sequence[NewJob], worker_id: str | None = None) -> list[Claim]:
        """Take new jobs, all or none; with ``worker_id`` for that worker alone."""
        return self._ask("insert", jobs, worker_id)  # type: ignore[no-any-return]

    def put_batch(self, batch: NewBatch, jobs: Sequence[NewJob]) -> Mapped:
        """Take the rows of a batch, all or none and in one commit."""
        return self._ask("put_batch", batch, jobs)  # type: ignore[no-any-return]

    def get_batch(self, which: UUID | str) -> BatchRecord | None:
        """Give a batch by its id or its key."""
        return self._ask("get_batch", which)  # type: ignore[no-any-return]

    def count_batch(self, batch_id: UUID) -> BatchCount | None:
        """Give how many rows of a batch stand where."""
        return self._ask("count_batch", batch_id)  # type: ignore[no-any-return]

    def put_code(self, code: str, blob: bytes) -> None:
        """Keep code by value under its hash."""
        self._ask("put_code", code, blob)

    def get_code(self, code: str) -> bytes | None:
        """Give code by its hash."""
        return self._ask("get_code", code)  # type: ignore[no-any-return]

    def turn(
        self, worker_id: str, reports: Sequence[Report], slots: int, handlers: Handlers | None = None
    ) -> Turn:
        """Record reports, renew the lease, and claim, in one commit."""
        return self._ask("turn", worker_id, reports, slots, handlers)  # type: ignore[no-any-return]

    def leave(self, worker_id: str) -> None:
        """Forget a worker; what it still has is given back."""
        self._ask("leave", worker_id)

    def get(self, ids: Sequence[UUID]) -> list[JobRecord]:
        """Give the records of these jobs, in this order."""
        return self._ask("get", ids)  # type: ignore[no-any-return]

    def cancel(self, ids: Sequence[UUID], *, again: bool = False) -> list[Answer]:
        """Cancel pending jobs, ask running ones to stop."""
        return self._ask("cancel", ids, again=again)  # type: ignore[no-any-return]

    def retry(self, ids: Sequence[UUID], fences: Sequence[int] | None = None) -> list[Answer]:
        """Let ended jobs run again and waiting ones run now."""
        return self._ask("retry", ids, fences)  # type: ignore[no-any-return]

    def forget(self, selection: Selection, keep: int | None = None) -> int:
        """Remove ended jobs with all their history; ``keep`` of all that ended stay."""
        return self._ask("forget", selection, keep)  # type: ignore[no-any-return]

    def retain(self, seconds: float | None, keep: int | None = None) -> None:
        """Forget ended jobs this long after their end, and the oldest of more than ``keep``; None: no such limit."""
        self._ask("retain", seconds, keep)

    def find(self, selection: Selection) -> list[UUID]:
        """Give the ids of the jobs selected, oldest first."""
        return self._ask("find", selection)  # type: ignore[no-any-return]

    def explain(self, job_id: UUID) -> str:
        """Say in a sentence why a job is not running; "" if it is running."""
        return self._ask("explain", job_id)  # type: ignore[no-any-return]

    def add_queue(self, name: str) -> None:
        """Make a queue known."""
        self._ask("add_queue", name)

    def pause(self, queue: str, *, paused: bool) -> None:
        """Stop handing out a queue's jobs, or go on."""
        self._ask("pause", queue, paused=paused)

    def queues(self) -> list[QueueInfo]:
        """Every queue, by name."""
        return self._ask("queues")  # type: ignore[no-any-return]

    def workers(self) -> list[WorkerInfo]:
        """The workers that are here now."""
        return self._ask("workers")  # type: ignore[no-any-return]

    def query(
        self, sql: str, params: Sequence[object] = (), frames: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """Run one read-only SELECT over the views and the given frames."""
        return self._ask("query", sql, params, frames or {})  # type: ignore[no-any-return]


#: Their names; whatever else a guest asks for is refused.
VERBS = frozenset(name for name in vars(Verbs) if not name.startswith("_")) - {"capabilities"}
