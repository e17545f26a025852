"""What a card shows: one job, or the rows of a batch; asks the queue, and says what came of it as plain data."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from nbqueue.errors import JobNotFound
from nbqueue.facade.receipt import JobDispatch
from nbqueue.facade.watching.glancing import glance
from nbqueue.widgets.card.state import batch_state, job_state

if TYPE_CHECKING:
    from nbqueue.widgets.card.feed import Feed

__all__ = ["Job", "Rows"]

#: The rate of a batch is that of the last so many seconds.
_LATELY = 20.0
#: Of a job's log, so many characters from its end.
TAIL = 20_000
# Of the failed rows nothing is read but their errors: what they were given may be large, or not to be read here.
_ERRORS = """
    SELECT error, count(*) AS jobs FROM jobs WHERE batch_id = ?::UUID AND state = 'failed' AND error IS NOT NULL
    GROUP BY error ORDER BY jobs DESC, error LIMIT 5
"""


class Job:
    """A receipt as a card shows it; holds none, since that would hold what the job returned."""

    def __init__(self, receipt: JobDispatch, feed: Feed) -> None:
        self.job_id = receipt.job_id
        self.text = repr(receipt)
        self._feed = feed

    def first(self) -> dict[str, Any]:
        """Give what it shows first."""
        seen = glance(self._feed.queues, (self.job_id,))
        if self.job_id not in seen:
            raise JobNotFound(f"{self.text} is not there any more")
        return job_state(seen[self.job_id], now=self._feed.now())

    @staticmethod
    def ended(state: dict[str, Any]) -> bool:
        """Whether nothing more will happen."""
        return state["finished"] is not None

    def cancel(self) -> None:
        """Cancel it."""
        self._feed.queues.cancel(self.job_id)

    def retry(self) -> None:
        """Let it run again."""
        self._feed.queues.retry(self.job_id)

    def why(self) -> str:
        """Say why it is not running."""
        return self._feed.queues.why(self.job_id)

    def detail(self) -> dict[str, Any]:
        """Give its error, its traceback and the end of its log."""
        receipt = self._feed.queues.job(self.job_id)
        record = receipt.record()
        log = str(receipt.logs())
        return {
            "why": "" if record.state.ended else receipt.why(),
            "error": record.error,
            "traceback": record.traceback,
            "log": log[-TAIL:],
            "cut": len(log) > TAIL,
        }


class Rows:
    """A batch as a card shows it."""

    def __init__(self, batch: Any, feed: Feed) -> None:
        self.batch = batch
        self.text = repr(batch)
        self._feed = feed
        self._since = feed.now()
        self._ends: deque[tuple[float, int]] = deque()

    def first(self) -> dict[str, Any]:
        """Give what it shows first."""
        return batch_state(self.batch, now=self._feed.now())

    def state(self) -> dict[str, Any]:
        """Give what it shows now, its rate over the last seconds."""
        now = self._feed.now()
        state = batch_state(self.batch, now=now, rate=self._rate(), started=self._since)
        self._ends.append((now, state["ended"]))
        while self._ends[0][0] < now - _LATELY and len(self._ends) > 2:
            self._ends.popleft()
        return state

    def _rate(self) -> float | None:
        if len(self._ends) < 2:
            return None
        (begun, before), (at, ended) = self._ends[0], self._ends[-1]
        return (ended - before) / (at - begun) if at > begun and ended > before else None

    @staticmethod
    def ended(state: dict[str, Any]) -> bool:
        """Whether nothing more will happen."""
        return bool(state["ended"] >= state["total"])

    def cancel(self) -> None:
        """Cancel what has not ended."""
        self.batch.cancel()

    def retry(self) -> None:
        """Let those run again that failed."""
        self._ends.clear()
        self.batch.retry_failed()

    def detail(self) -> dict[str, Any]:
        """Give which errors there were, the most frequent first."""
        found = self._feed.queues.sql(_ERRORS, (str(self.batch.batch_id),), names={})
        errors = zip(found["error"].tolist(), found["jobs"].tolist(), strict=True)
        lines = [f"{count:,} × {error}" for error, count in errors]
        return {"why": "", "error": "\n".join(lines), "traceback": "", "log": "", "cut": False}
