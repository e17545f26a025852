"""What can be done to jobs and queues that are there already; hands in no work and runs none."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from nbqueue import payload
from nbqueue.durations import duration
from nbqueue.errors import InvalidCommand, JobNotFound
from nbqueue.facade import cells
from nbqueue.facade.commandqueue import connected
from nbqueue.facade.configuring import MEMORY, check_keep
from nbqueue.facade.looking import Looking
from nbqueue.facade.receipt import JobDispatch
from nbqueue.facade.selecting import Names, Since, unknown_queue
from nbqueue.jobs import JobRecord, State
from nbqueue.store import Selection

if TYPE_CHECKING:
    from nbqueue.facade.batches.batch import Batch

__all__ = ["Controls", "JobId"]

#: A job by its receipt, its id, or the first four digits of it or more.
JobId = uuid.UUID | str | JobDispatch

#: So many jobs are let run again in one commit.
_AT_ONCE = 2_000

_BEGINS_SO = """
    SELECT DISTINCT job_id FROM events WHERE event = 'dispatched' AND job_id BETWEEN ?::UUID AND ?::UUID LIMIT 4
"""


class Controls(Looking):
    """The verbs on jobs and queues that exist; ``QueueManager`` has them."""

    def heir(self) -> Any:
        """Give where receipts and batches ask: here, unless this was closed and its file is open here anew."""
        if not self.closed or self.name == MEMORY:
            return self
        return next((one for one in reversed(connected.all()) if one.name == self.name), self)

    def job(self, id: JobId) -> JobDispatch:
        """Give the receipt of a job.

        Parameters
        ----------
        id : UUID, str or JobDispatch
            Its id; of a text the first four digits do, or as many as it takes to tell it from others.

        Raises
        ------
        JobNotFound
            If there is none, or more than one that begins so.
        """
        job_id = self._id_of(id)
        found = self.store.get((job_id,))
        if not found:
            raise self._not_found(job_id)
        return self.receipt_of(found[0])

    get = job

    def receipt_of(self, record: JobRecord) -> JobDispatch:
        """Give the receipt of a job that the store has given."""

        def make() -> JobDispatch:
            metadata: Any = payload.decode(record.metadata) if record.metadata else {}
            spec, at = record.spec, record.scheduled_at
            return JobDispatch(
                record.job_id, spec.command, spec.queue, scheduled_at=at, metadata=metadata, source=self
            )

        return self.live.receipts.receipt(record.job_id, make, self)

    def why(self, id: JobId) -> str:
        """Say in a sentence why a job is not running; "" if it is."""
        return self.job(id).why()

    def cancel(self, id: JobId | Iterable[JobId]) -> int:
        """Cancel a job, or several; running ones are asked to stop. Gives how many there were to cancel."""
        ids = self._ids(id)
        return sum(answer.done for answer in self.store.cancel(ids)) if ids else 0

    def retry(self, id: JobId | Iterable[JobId]) -> int:
        """Let an ended job run again, or a waiting one run now; or several.

        Raises
        ------
        InvalidCommand
            If one runs, or waits for a worker already.
        """
        ids = self._ids(id)
        self.run_again(ids, strict=True)
        return len(ids)

    def retry_all(
        self,
        state: Names = "failed",
        *,
        queue: Names = None,
        command: object = None,
        since: Since = None,
        batch: Batch | uuid.UUID | str | None = None,
        fingerprint: str | None = None,
    ) -> int:
        """Let all jobs of a state run again that ``jobs`` would give; gives how many.

        Example
        -------
        All that failed with the same error as the most frequent one::

            queues.retry_all(fingerprint=queues.failures().fingerprint[0])
        """
        words: dict[str, Any] = {
            "queue": queue,
            "command": command,
            "since": since,
            "batch": batch,
            "fingerprint": fingerprint,
        }
        picked = self._pick(state=state, **words)
        ids = self.store.find(picked.selection)
        if picked.statuses:
            frame = self.jobs(state=state, **words)
            ids = [uuid.UUID(str(job_id)) for job_id in frame["job_id"]]
        return self.run_again(ids, strict=False)

    def run_again(self, ids: list[uuid.UUID], *, strict: bool) -> int:
        """Let those of these jobs run again that can; if ``strict``, raise for the first that cannot.

        They go slice by slice, and dispatches and workers have their turn in between.
        """
        done = 0
        for at in range(0, len(ids), _AT_ONCE):
            answers = self.store.retry(ids[at : at + _AT_ONCE])
            self.live.receipts.retried(answer.job_id for answer in answers if answer.done)
            done += sum(answer.done for answer in answers)
            for answer in answers:
                if strict and not answer.done:
                    raise InvalidCommand(f"job {answer.job_id} cannot be retried: {answer.reason}")
        return done

    def forget(self, id: JobId | Iterable[JobId]) -> int:
        """Remove an ended job, or several, with all that is known of it.

        Raises
        ------
        InvalidCommand
            If one has not ended.
        """
        ids = tuple(self._ids(id))
        for record in self.store.get(ids):
            if not record.state.ended:
                named = f"{record.spec.command} {record.job_id}"
                raise InvalidCommand(
                    f"{named} is {record.state.value}, so it cannot be forgotten; cancel it first"
                )
        return self._forget(Selection(ids=ids)) if ids else 0

    def prune(self, older_than: float | str | timedelta | None = None, keep: Names | int = None) -> int:
        """Remove jobs that ended longer ago than this, or that are too many, with all that is known of them.

        Parameters
        ----------
        older_than : str, float or timedelta, optional
            ``"7d"`` (that, unless ``keep`` is a number), ``"12h"``, or seconds.
        keep : int, str or iterable of str, optional
            A number: of the jobs that ended at most so many stay, the latest. Otherwise states to leave alone, e.g.
            ``"failed"``.

        Returns
        -------
        int
            How many were removed.

        Example
        -------
        What is older than a month, and of the rest all but the latest hundred thousand::

            queues.prune("30d", keep=100_000)
        """
        count = None
        if isinstance(keep, int):
            keep, count = None, check_keep(keep)
        removed = 0
        if older_than is not None or count is None:
            age = duration("7d" if older_than is None else older_than, what="older_than")
            kept = self._pick(state=keep).selection.states or ()
            states = tuple(state for state in State if state.ended and state not in kept)
            if states:
                removed += self._forget(Selection(states=states, finished_before=self._clock() - age))
        if count is not None:
            removed += self._forget(Selection(), count)
        return removed

    def _forget(self, selection: Selection, keep: int | None = None) -> int:
        forgotten = self.store.forget(selection, keep)
        cells.follow_again(self)
        return forgotten

    def _ids(self, id: JobId | Iterable[JobId]) -> list[uuid.UUID]:
        """Give the ids of jobs that are there, of one or of several."""
        given = (id,) if isinstance(id, uuid.UUID | str | JobDispatch) else id
        ids = list(dict.fromkeys(self._id_of(one) for one in given))
        known = {record.job_id for record in self.store.get(ids)}
        for job_id in ids:
            if job_id not in known:
                raise self._not_found(job_id)
        return ids

    def _not_found(self, job_id: uuid.UUID) -> JobNotFound:
        return JobNotFound(
            f"there is no job {job_id} in {self.name}; it was forgotten, or another file has it"
        )

    def _id_of(self, given: JobId) -> uuid.UUID:
        found = given.job_id if isinstance(given, JobDispatch) else given
        if isinstance(found, uuid.UUID):
            return found
        text = str(found).strip().lower()
        with contextlib.suppress(ValueError):
            return uuid.UUID(text)
        digits = text.replace("-", "")
        if not re.fullmatch(r"[0-9a-f]{4,31}", digits):
            raise JobNotFound(
                f"{text[:60]!r} is no job id; give one from jobs(), or at least its first four digits"
            )
        first, last = (str(uuid.UUID(digits.ljust(32, end))) for end in "0f")
        fitting = self.store.query(_BEGINS_SO, (first, last))["job_id"].tolist()
        if not fitting:
            raise JobNotFound(f"no job in {self.name} has an id that begins with {text!r}; jobs() shows them")
        if len(fitting) > 1:
            some = ", ".join(map(str, fitting[:3])) + (" …" if len(fitting) > 3 else "")
            raise JobNotFound(
                f"more than one job has an id that begins with {text!r} ({some}); give more of it"
            )
        return uuid.UUID(str(fitting[0]))

    # -- queues

    def pause(self, queue: str) -> None:
        """Hand out no more jobs of a queue; what runs goes on."""
        self._switch(queue, paused=True)

    def resume(self, queue: str) -> None:
        """Hand out a queue's jobs again."""
        self._switch(queue, paused=False)

    def _switch(self, queue: str, *, paused: bool) -> None:
        known = self.list()
        if queue not in known:
            raise unknown_queue(queue, known)
        self.store.pause(queue, paused=paused)
