"""Many jobs as one thing: the rows of an input, and what became of them; hands in nothing."""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from nbqueue.errors import QueueUnavailable
from nbqueue.facade.batches import rowframes
from nbqueue.facade.batches.gaps import Gaps
from nbqueue.facade.receipt import JobDispatch, Source
from nbqueue.jobs import BatchRecord, JobRecord, State, seconds, utc
from nbqueue.patience import within

if TYPE_CHECKING:
    import pandas as pd

    from nbqueue.facade.intake import Live

__all__ = ["Batch", "BatchProgress"]

#: So many jobs are asked for, or told something, at once: the store has others to serve.
_FEW = 2_000
#: Between two looks of who waits, while much is going on, and while nothing is heard.
_PAUSE, _PATIENCE = 0.02, 5.0


class BatchProgress(NamedTuple):
    """How many rows of a batch stand where; those whose jobs were forgotten are in ``total`` alone.

    Example
    -------
    >>> progress = BatchProgress(total=4, pending=1, running=1, succeeded=1, failed=1, cancelled=0)
    >>> progress.ended, progress.fraction
    (2, 0.5)
    """

    total: int
    pending: int
    running: int
    succeeded: int
    failed: int
    cancelled: int

    @property
    def ended(self) -> int:
        """How many have come to an end, whichever."""
        return self.total - self.pending - self.running

    @property
    def forgotten(self) -> int:
        """How many had ended and were pruned or forgotten since."""
        return self.ended - self.succeeded - self.failed - self.cancelled

    @property
    def fraction(self) -> float:
        """How much of it has ended, from 0 to 1; an empty batch has."""
        return self.ended / self.total if self.total else 1.0

    def __str__(self) -> str:
        parts = [f"{count} {name}" for name, count in zip(self._fields[1:], self[1:], strict=True) if count]
        if self.forgotten:
            parts.append(f"{self.forgotten} forgotten")
        return f"{self.ended} of {self.total} ended" + (f" ({', '.join(parts)})" if parts else "")


class BatchSource(Source, Protocol):
    """Where a batch asks; raises ``QueueUnavailable`` once it is closed."""

    def heir(self) -> BatchSource:
        """Give where to ask from now on: here, unless this was closed and its queue was opened again."""

    @property
    def live(self) -> Live:
        """What is known only in this process."""

    def receipt_of(self, record: JobRecord) -> JobDispatch:
        """Give the receipt of a job."""

    def run_again(self, ids: list[uuid.UUID], *, strict: bool) -> int:
        """Let jobs run again."""

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call this when something has changed."""


class Batch:
    """The jobs that were handed in together, one for each row of an input.

    Made by ``queues.map``, ``frame.nbq.dispatch`` and ``queues.batch``.

    Example
    -------
    >>> import nbqueue as nbq
    >>> @nbq.job
    ... def double(number: int) -> int:
    ...     return 2 * number
    >>> with nbq.connect(":memory:") as queues, queues.worker():
    ...     queues.map(double, [1, 2, 3]).wait(timeout=30).results().tolist()
    [2, 4, 6]
    """

    __slots__ = ("__weakref__", "_asked", "_batch", "_dispatched", "_total", "_values")

    def __init__(self, source: BatchSource, batch: BatchRecord, dispatched: int | None = None) -> None:
        self._asked = source
        self._batch = batch
        # It is a sum over all runs of it, and asked for often.
        self._total = batch.total
        self._dispatched = dispatched
        # What no store can keep comes here, as long as somebody holds this.
        self._values = source.live.row_values(batch.batch_id)

    @property
    def _source(self) -> BatchSource:
        self._asked = self._asked.heir()
        return self._asked

    # -- what is known without asking

    @property
    def batch_id(self) -> uuid.UUID:
        """Its id; ``queues.batch(id)`` takes it up again."""
        return self._batch.batch_id

    @property
    def key(self) -> str | None:
        """The name that it was mapped under, None for one without."""
        return self._batch.key or None

    @property
    def command(self) -> str:
        """The name of what runs for each row."""
        return self._batch.command

    @property
    def created_at(self) -> datetime:
        """When it was handed in, with a ``key`` for the first time; UTC."""
        return utc(self._batch.created_at)

    @property
    def dispatched(self) -> int | None:
        """How many of its rows this call of ``map`` handed in; None for a batch that was taken up again."""
        return self._dispatched

    def __len__(self) -> int:
        return self._total

    def __bool__(self) -> bool:
        """A batch is one even if it has no rows."""
        return True

    # -- how it stands

    def progress(self) -> BatchProgress:
        """Give how many rows stand where; cheap enough to be asked a few times a second."""
        counted = self._source.store.count_batch(self.batch_id)
        if counted is None:
            return BatchProgress(self._total, **dict.fromkeys(State, 0))
        self._total = counted.total
        return BatchProgress(counted.total, **{state.value: counted.states[state] for state in State})

    def wait(self, timeout: float | timedelta | None = None) -> Self:
        """Wait until all rows have ended, however they did.

        Parameters
        ----------
        timeout : float or timedelta, optional
            How long at most.

        Raises
        ------
        TimeoutError
            If that was not long enough; it says how far the batch is.
        """
        patience = None if timeout is None else seconds(timeout, what="timeout")
        with within(math.inf if patience is None else patience):
            self._wait(patience, threading.Event(), threading.Event())
        return self

    def __await__(self) -> Generator[Any, None, pd.Series[Any]]:
        return self._wait_for_results().__await__()

    async def _wait_for_results(self) -> pd.Series[Any]:
        import asyncio

        changed, given_up = threading.Event(), threading.Event()
        try:
            await asyncio.to_thread(self._wait, None, changed, given_up)
            return await asyncio.to_thread(self.results)
        finally:
            given_up.set()
            changed.set()

    def _wait(self, patience: float | None, changed: threading.Event, given_up: threading.Event) -> None:
        deadline = None if patience is None else time.monotonic() + patience
        stops = (self._source.on_change(changed.set), self._source.on_close(changed.set))
        try:
            while True:
                changed.clear()
                if given_up.is_set():
                    return
                progress = self.progress()
                if progress.ended == progress.total:
                    return
                left = _PATIENCE if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{self._named()} has not ended within {patience:g} s; {progress}")
                changed.wait(min(left, _PATIENCE))
                # A busy store changes thousands of times a second.
                given_up.wait(min(left, _PAUSE))
        finally:
            for stop in stops:
                stop()

    # -- what became of its rows

    def results(self) -> pd.Series[Any]:
        """Give what the rows returned, on the input's index; missing where one has not succeeded.

        Values are read from the store. What it could not keep is there as long as the process that ran the row lives
        and somebody holds this batch.
        """
        gaps = Gaps(self._kept)
        results = rowframes.rows_results(self._source.store, self._latest(), gaps)
        gaps.tell(self._named(), self._total, len(results))
        return results

    def frame(self) -> pd.DataFrame:
        """Give the input with the columns ``state, result, error, seconds``, on the input's index.

        A column of the input that has one of these names keeps it; the other is then ``job_state``, ``job_result`` …
        """
        gaps = Gaps(self._kept)
        frame = rowframes.rows_frame(self._source.store, self._latest(), gaps)
        gaps.tell(self._named(), self._total, len(frame))
        return frame

    def failed(self) -> pd.DataFrame:
        """Give the rows of ``frame`` that failed."""
        gaps = Gaps(self._kept)
        frame = rowframes.rows_frame(self._source.store, self._latest(), gaps, State.FAILED)
        gaps.tell(self._named(), len(frame), len(frame))
        return frame

    def receipts(self) -> Iterator[JobDispatch]:
        """Give the receipts of its jobs one by one, in the order of the input."""
        for some in self._ids(*State):
            for record in self._source.store.get(some):
                yield self._source.receipt_of(record)

    __iter__ = receipts

    # -- what can be done

    def retry_failed(self) -> int:
        """Let the rows that failed run again; gives how many."""
        return sum(self._source.run_again(some, strict=False) for some in self._ids(State.FAILED))

    def cancel(self) -> int:
        """Cancel the rows that have not ended; running ones are asked to stop. Gives how many there were."""
        answers = (self._source.store.cancel(some) for some in self._ids(State.PENDING, State.RUNNING))
        return sum(answer.done for some in answers for answer in some)

    # -- for people

    def _ipython_display_(self) -> None:
        self._source.show(self)

    def __repr__(self) -> str:
        try:
            return f"<{self._named()}: {self.progress()}>"
        except QueueUnavailable:
            return f"<{self._named()}>"

    def _named(self) -> str:
        name = f'"{self.key}"' if self.key else str(self.batch_id)
        return f"Batch {name} of {self.command}"

    def _latest(self) -> BatchRecord:
        """The batch as it was mapped last: one with a key may have other rows by now."""
        if self._batch.key:
            self._batch = self._source.store.get_batch(self.batch_id) or self._batch
            self._total = self._batch.total
        return self._batch

    def _ids(self, *states: State) -> Iterator[list[uuid.UUID]]:
        """The ids of the jobs at these states, some at a time."""
        ids = rowframes.job_ids(self._source.store, self._latest(), *states)
        for start in range(0, len(ids), _FEW):
            yield [uuid.UUID(text) for text in ids[start : start + _FEW]]

    def _kept(self, job_id: str) -> tuple[bool, object]:
        """Whether a value that could not be stored is kept here, and the value."""
        kept = self._values.get(uuid.UUID(job_id))
        found = self._source.store.get((uuid.UUID(job_id),)) if kept is not None else ()
        # A value of a claim that was taken back meanwhile is not the row's.
        if kept is not None and found and found[0].fence == kept[0]:
            return True, kept[1]
        return False, None
