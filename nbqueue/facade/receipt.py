"""What dispatching gives back: a job's id and a way to ask what became of it; knows stores only by their contract."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import uuid
from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, cast

from nbqueue import payload
from nbqueue.errors import (
    InvalidCommand,
    JobCancelled,
    JobFailed,
    JobNotFound,
    NbqueueError,
    QueueUnavailable,
)
from nbqueue.facade.ending import Logs, failure_of
from nbqueue.facade.outputs import Outputs, outputs_of
from nbqueue.jobs import JobRecord, State, check_name, check_queue, seconds, timestamp, utc
from nbqueue.patience import within
from nbqueue.running.run import unstored_reason
from nbqueue.secret import load_secret
from nbqueue.store import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["JobDispatch", "Logs", "Source"]

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Source(Protocol):
    """Where a receipt asks; raises ``QueueUnavailable`` once it is closed."""

    @property
    def store(self) -> Store:
        """The store, if it is open."""

    def heir(self) -> Source:
        """Give where to ask from now on: here, unless this was closed and its queue was opened again."""

    def follow(self) -> None:
        """Have the ends of jobs told to the receipts that somebody holds."""

    def retry(self, id: uuid.UUID) -> object:
        """Let a job run again."""

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call this when it closes; gives a way to stop that."""

    def show(self, shown: object) -> None:
        """Show a receipt as a live card, or raise ``NotImplementedError`` where there is no notebook."""


class JobDispatch:
    """The receipt of a dispatched job: its id, and what became of it.

    Parameters
    ----------
    job_id : UUID or str
        The job's id; what is no UUID is kept as it is.
    command : str
        The name of what runs.
    queue : str
        The queue it was dispatched to.
    scheduled_at : float, optional
        When it may run first, seconds since the epoch.
    metadata : mapping, optional
        What was attached to it.
    source : Source, optional
        Where to ask; one made by hand has none and only holds what it was given.

    Example
    -------
    >>> receipt = JobDispatch("job123", "import:data", "default").with_scheduled_at("2026-03-01T06:00:00+00:00")
    >>> print(receipt, receipt.scheduled_at)
    job123 2026-03-01 06:00:00+00:00
    """

    __slots__ = (
        "__weakref__",
        "_command",
        "_end",
        "_id",
        "_metadata",
        "_queue",
        "_scheduled_at",
        "_source",
        "_value",
    )

    def __init__(
        self,
        job_id: uuid.UUID | str,
        command: str,
        queue: str = "default",
        *,
        scheduled_at: float | None = None,
        metadata: Mapping[str, object] = _NOTHING,
        source: Source | None = None,
    ) -> None:
        if source is None:
            job_id = _read_id(job_id)
            check_name(command, what="command")
            check_queue(queue)
        self._id = job_id
        self._command = command
        self._queue = queue
        self._scheduled_at = scheduled_at
        self._metadata = metadata
        self._source = source
        #: The claim's fence and what was returned under it, where that happened in this process.
        self._value: tuple[int, object] | None = None
        #: How it ended, if it succeeded and that was told.
        self._end: JobRecord | None = None

    # -- what is known without asking

    @property
    def job_id(self) -> uuid.UUID:
        """The job's id (of a receipt made by hand whatever it was given)."""
        return cast("uuid.UUID", self._id)

    @property
    def command(self) -> str:
        """The name of what runs."""
        return self._command

    @property
    def queue(self) -> str:
        """The queue it was dispatched to."""
        return self._queue

    @property
    def scheduled_at(self) -> datetime | None:
        """When it may run first, UTC; None only for a receipt made by hand."""
        return None if self._scheduled_at is None else utc(self._scheduled_at)

    @property
    def metadata(self) -> dict[str, Any]:
        """What was attached to it at dispatch."""
        return dict(self._metadata)

    def with_scheduled_at(self, when: datetime | str) -> JobDispatch:
        """Give a receipt made by hand with the time at which it may run first (an aware datetime, or ISO 8601 text).

        Raises
        ------
        InvalidCommand
            For a time without a zone, and for a job that was dispatched: a receipt moves no job.
        """
        if self._source is not None:
            raise InvalidCommand(
                f"{self._named()} was dispatched already, and its receipt cannot move it; "
                f"cancel() it and dispatch it again with the other time"
            )
        read = when
        if isinstance(when, str):
            try:
                read = datetime.fromisoformat(when)
            except ValueError:
                raise InvalidCommand(
                    f'scheduled_at {when[:60]!r} is no ISO 8601 time; write e.g. "2026-03-01T06:00:00+00:00"'
                ) from None
        at = timestamp(cast("datetime", read), what="scheduled_at")
        return JobDispatch(self._id, self._command, self._queue, scheduled_at=at, metadata=self._metadata)

    def __str__(self) -> str:
        return str(self._id)

    def __repr__(self) -> str:
        return f"<JobDispatch {self._command} {self._id} on {self._queue}>"

    def _ipython_display_(self) -> None:
        if self._source is None:
            # IPython then shows the text.
            raise NotImplementedError
        self._source.show(self)

    def __eq__(self, other: object) -> bool:
        return self._id == other._id if isinstance(other, JobDispatch) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._id)

    # -- for who makes receipts

    def belongs_to(self, source: Source) -> bool:
        """Whether this is where it asks."""
        return self._source is source

    def keep_value(self, fence: int, value: object) -> None:
        """Keep what the job returned in this process under this claim."""
        self._value = (fence, value)

    def keep_end(self, record: JobRecord | None) -> None:
        """Keep how the job ended; None as it runs again."""
        self._end = record

    def with_value_of(self, other: JobDispatch) -> Self:
        """Take over what another receipt of the same job was given to keep."""
        self._value = other._value
        return self

    # -- what the store knows

    def record(self) -> JobRecord:
        """All that is known of the job now.

        Raises
        ------
        JobNotFound
            If it was forgotten or pruned.
        """
        found = self._store().get((self.job_id,))
        if not found:
            raise JobNotFound(
                f"{self._named()} is not in {self._store().name}: it was forgotten or pruned, or another file has it"
            )
        return found[0]

    @property
    def state(self) -> State:
        """Where it stands now."""
        return self.record().state

    @property
    def attempt(self) -> int:
        """Which attempt it is at, 0 before the first."""
        return self.record().attempt

    def why(self) -> str:
        """Say in a sentence why it is not running; "" if it is."""
        return self._store().explain(self.job_id)

    def attempts(self) -> pd.DataFrame:
        """Give a row for each of its attempts."""
        from nbqueue import frames
        from nbqueue.store import Selection

        return frames.attempts(self._store(), Selection(ids=(self.job_id,)), None)

    def logs(self) -> Logs:
        """Give what it printed and logged so far, in order."""
        found = self._store().query(
            "SELECT attempt, stream, text FROM logs WHERE job_id = ?::UUID ORDER BY seq", (str(self._id),)
        )
        chunks = zip(found["attempt"].tolist(), found["stream"].tolist(), found["text"].tolist(), strict=True)
        return Logs(self._command, [(int(attempt), stream, text) for attempt, stream, text in chunks])

    def outputs(self, attempt: int | None = None) -> Outputs:
        """Give what it displayed, in order; in a notebook that is shown with the text around it.

        Parameters
        ----------
        attempt : int, optional
            Of which attempt; the newest that displayed anything, unless given.
        """
        return outputs_of(self._store(), self.job_id, attempt, command=self._command)

    def cancel(self) -> bool:
        """Cancel it, or ask it to stop if it runs; whether there was anything to cancel."""
        (answer,) = self._store().cancel((self.job_id,))
        return answer.done

    def retry(self) -> Self:
        """Let it run again, or now if it waits for its time, with its attempts counted anew.

        Raises
        ------
        InvalidCommand
            If it runs or waits for a worker already.
        """
        _ = self._store()
        assert self._source is not None
        self._source.retry(self.job_id)
        return self

    # -- its end

    def wait(self, timeout: float | timedelta | None = None) -> Self:
        """Wait until it has ended, however it did; does not say how.

        Parameters
        ----------
        timeout : float or timedelta, optional
            How long at most.

        Raises
        ------
        TimeoutError
            If that was not long enough; it says what the job is doing.
        """
        self._ended(timeout)
        return self

    def result(self, timeout: float | timedelta | None = None) -> Any:
        """Wait until it has ended and give what it returned.

        Raises
        ------
        JobFailed, JobTimeout, JobCancelled
            If it did not succeed; the error carries the job's traceback.
        TimeoutError
            If it has not ended within ``timeout``.
        """
        return self.outcome(self._ended(timeout))

    def exception(self, timeout: float | timedelta | None = None) -> JobFailed | JobCancelled | None:
        """Wait until it has ended and give what ``result`` would raise, None if it succeeded."""
        return failure_of(self._ended(timeout))

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait_for_result().__await__()

    async def _wait_for_result(self) -> Any:
        import asyncio

        loop = asyncio.get_running_loop()
        ended: asyncio.Future[JobRecord | None] = loop.create_future()

        def settle(record: JobRecord | None = None) -> None:
            if not ended.done():
                ended.set_result(record)

        def notify(record: JobRecord | None = None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, so nobody waits
                loop.call_soon_threadsafe(settle, record)

        # Asking may have to wait for a commit, and the loop has others to serve.
        stop = await asyncio.to_thread(self._notify, notify)
        try:
            record = await ended
        except asyncio.CancelledError:
            # Whoever waits again and again with a patience of its own would leave a watcher each time.
            with contextlib.suppress(RuntimeError):  # the loop is being closed
                loop.run_in_executor(None, functools.partial(stop, unwatch=True))
            raise
        stop(unwatch=False)
        return self.outcome(self._known(record))

    def _ended(self, timeout: float | timedelta | None) -> JobRecord:
        patience = None if timeout is None else seconds(timeout, what="timeout")
        records: list[JobRecord | None] = []
        ended = threading.Event()

        def notify(record: JobRecord | None = None) -> None:
            records.append(record)
            ended.set()

        with within(math.inf if patience is None else patience):
            stop = self._notify(notify)
            try:
                if not ended.wait(patience):
                    self._out_of_time(patience or 0.0)
            finally:
                stop(unwatch=not records)
        return self._known(records[0])

    def _notify(self, notify: Callable[..., None]) -> Callable[..., None]:
        """Have this called with the record when the job has ended, or with nothing when the queue closes."""
        store = self._store()
        assert self._source is not None
        if self._end is None:
            self._source.follow()
        record = self._end or self.record()
        if record.state.ended:
            notify(record)
            return _nothing
        forget_close = self._source.on_close(notify)
        forget_job = store.watch((self.job_id,), notify)

        def stop(*, unwatch: bool) -> None:
            forget_close()
            if unwatch:
                with contextlib.suppress(QueueUnavailable):
                    forget_job()

        return stop

    def outcome(self, record: JobRecord) -> Any:
        """Give what a job returned whose end is known, or raise what it ended with."""
        failure = failure_of(record)
        if failure is not None:
            raise failure
        value = self._value
        # A value of a claim that was taken back meanwhile is not the job's.
        if value is not None and value[0] == record.fence:
            return value[1]
        if not record.result:
            return None
        if (reason := unstored_reason(record.result)) is not None:
            raise NbqueueError(
                f"{self._named()} succeeded, but what it returned could not be stored ({reason}), and only the process "
                f"that ran it had it; let it return what JSON or pickle can hold, and retry() it"
            )
        key = load_secret() if payload.needs_pickle(record.result) else None
        return payload.decode(record.result, key=key, context=record.spec.command)

    def _known(self, record: JobRecord | None) -> JobRecord:
        if record is None:
            with contextlib.suppress(QueueUnavailable):
                store = self._store()
                if getattr(store, "broken", False):
                    return self.record()  # which says what broke
            raise QueueUnavailable(
                f"the queue was closed here before {self._named()} had ended; connect again and ask queues.job(id)"
            )
        return record

    def _out_of_time(self, patience: float) -> NoReturn:
        record = self.record()
        doing = record.state.value
        if record.state is State.RUNNING:
            doing = f"running (attempt {record.attempt} of {record.max_attempts})"
        elif why := self.why():
            doing = f"{doing}: {why}"
        raise TimeoutError(f"{self._named()} has not ended within {patience:g} s; it is {doing}")

    def _named(self) -> str:
        return f"{self._command} {self._id}"

    def _store(self) -> Store:
        if self._source is None:
            raise QueueUnavailable(
                f"the receipt {self._id} was made by hand and belongs to no queue; "
                f"ask one: queues.job({str(self._id)!r})"
            )
        self._source = self._source.heir()
        return self._source.store


def _nothing(*, unwatch: bool) -> None:
    """Stop watching what had ended."""


def _read_id(given: uuid.UUID | str) -> uuid.UUID | str:
    if isinstance(given, uuid.UUID):
        return given
    check_name(given, what="job id")
    try:
        return uuid.UUID(given)
    except ValueError:
        return given
