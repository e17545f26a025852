"""Many rows of one batch in one piece, from the call to the ledger: columns, and no object a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from nbqueue.lifecycle import Life
from nbqueue.rows import Rows
from nbqueue.stores.live import LiveJob

__all__ = ["BLOCK_ROWS", "Block"]

#: Fewer go one by one, into the journal: a commit past it takes 10 ms longer, and of so many 10 ms less to fold in.
BLOCK_ROWS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The dispatches of a batch: jobs whose numbers follow one another, as the next commit writes them."""

    rows: Rows
    #: Of its first row in the ledger, and of its first job.
    seq: int
    number: int
    spec_number: int
    #: Seconds since the epoch.
    dispatched_at: float

    def __len__(self) -> int:
        return len(self.rows)

    def numbered(self, number: int) -> LiveJob | None:
        """Give the job of this number, if it is one of these."""
        at = number - self.number
        return self._job(at) if 0 <= at < len(self.rows) else None

    def named(self, job_id: UUID) -> LiveJob | None:
        """Give the job of this id, if it is one of these."""
        at = self.rows.ids.find(job_id)
        return None if at is None else self._job(at)

    def first(self, count: int) -> Iterator[LiveJob]:
        """Give the first so many jobs."""
        life = Life(due_at=self.rows.due_at)
        for number, new in enumerate(self.rows[:count], self.number):
            yield LiveJob(number, new, self.spec_number, self.dispatched_at, life)

    def _job(self, at: int) -> LiveJob:
        life = Life(due_at=self.rows.due_at)
        return LiveJob(self.number + at, self.rows[at], self.spec_number, self.dispatched_at, life)
