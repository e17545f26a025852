"""What a queue shows of its jobs: frames, counts and SQL; changes nothing."""

from __future__ import annotations

import builtins
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbqueue.durations import ago
from nbqueue.errors import InvalidCommand
from nbqueue.facade.configuring import MEMORY
from nbqueue.facade.opened import Opened
from nbqueue.facade.selecting import Names, Picked, Since, pick
from nbqueue.store import QueueInfo, WorkerInfo

if TYPE_CHECKING:
    import pandas as pd

    from nbqueue.facade.batches.batch import Batch
    from nbqueue.facade.checks.finding import Finding

__all__ = ["Looking"]

#: Nobody has more rows than a trillion, and DuckDB's numbers end not far above.
_MOST = 10**12
_VIEWS = frozenset(("jobs", "attempts", "events", "logs", "outputs"))


class Looking(Opened):
    """The verbs that only look; ``QueueManager`` has them."""

    def list(self) -> list[str]:
        """Give the names of all queues."""
        return [queue.name for queue in self.store.queues()]

    def queues(self) -> builtins.list[QueueInfo]:
        """Give every queue with its counts, and whether it is paused."""
        return self.store.queues()

    def workers(self) -> builtins.list[WorkerInfo]:
        """Give the workers that are here now, those of other processes too."""
        return self.store.workers()

    def jobs(
        self,
        *,
        state: Names = None,
        queue: Names = None,
        command: object = None,
        since: Since = None,
        batch: Batch | uuid.UUID | str | None = None,
        fingerprint: str | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Give jobs, a row each, newest first.

        Parameters
        ----------
        state, queue, command : str or iterable of str, optional
            Only those; "scheduled" and "retrying" are pending jobs that wait for their time.
        since : str, float, timedelta or datetime, optional
            Dispatched no longer ago than ``"1h"``, or at this time or later.
        batch : Batch, UUID or str, optional
            Of this batch.
        fingerprint : str, optional
            That failed with this, as ``failures`` shows it.
        limit : int, optional
            At most so many; None is all.

        Raises
        ------
        InvalidCommand, QueueUnavailable
            For a state or a queue that does not exist, naming near matches.
        """
        from nbqueue import frames

        picked = self._pick(
            state=state, queue=queue, command=command, since=since, batch=batch, fingerprint=fingerprint
        )
        status = sorted(picked.statuses) or None
        return frames.jobs(self.store, picked.selection, _check_limit(limit), status=status)

    def attempts(
        self,
        *,
        state: Names = None,
        queue: Names = None,
        command: object = None,
        since: Since = None,
        batch: Batch | uuid.UUID | str | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Give attempts, a row each, newest first, of the jobs that ``jobs`` would give."""
        from nbqueue import frames

        picked = self._pick(state=state, queue=queue, command=command, since=since, batch=batch)
        return frames.attempts(self.store, _whole(picked), _check_limit(limit))

    def events(
        self,
        *,
        state: Names = None,
        queue: Names = None,
        command: object = None,
        since: Since = None,
        batch: Batch | uuid.UUID | str | None = None,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Give what happened, a row an event, newest first, to the jobs that ``jobs`` would give."""
        from nbqueue import frames

        picked = self._pick(state=state, queue=queue, command=command, since=since, batch=batch)
        return frames.events(self.store, _whole(picked), _check_limit(limit))

    def stats(self) -> pd.DataFrame:
        """Give a row a queue with a column a state."""
        from nbqueue import frames

        return frames.stats(self.store)

    def failures(
        self,
        *,
        queue: Names = None,
        command: object = None,
        since: Since = None,
        batch: Batch | uuid.UUID | str | None = None,
    ) -> pd.DataFrame:
        """Give what failed jobs failed with, a row a fingerprint, the most frequent first.

        A fingerprint is the error's class and the line of the user's own code it came from, without the message:
        "KeyError at clean.py:88 in clean". ``jobs(fingerprint=...)`` gives these jobs, ``retry_all(fingerprint=...)``
        lets them run again.
        """
        from nbqueue import frames

        picked = self._pick(queue=queue, command=command, since=since, batch=batch)
        return frames.failures(self.store, picked.selection)

    def throughput(self, every: float | str | None = "1min", *, since: Since = None) -> pd.DataFrame:
        """Give how many jobs ended in each stretch of time.

        Parameters
        ----------
        every : float, str or None
            The length of a stretch, ``"10s"``, ``"1min"``, ``"1h"``; None picks one that reads well.
        since : str, float, timedelta or datetime, optional
            From when on.
        """
        from nbqueue import frames

        return frames.throughput(self.store, every, self._since(since))

    def backlog(self, every: float | str | None = None, *, since: Since = None) -> pd.DataFrame:
        """Give how many jobs were pending and how many running, over time; as ``throughput``."""
        from nbqueue import frames

        return frames.backlog(self.store, every, self._since(since))

    def latency(self, *, queue: Names = None, command: object = None, since: Since = None) -> pd.DataFrame:
        """Give how long ended jobs waited and ran, a row a command: the median, and the slowest 5 % and 1 %."""
        from nbqueue import frames

        return frames.latency(self.store, self._pick(queue=queue, command=command, since=since).selection)

    def timeline(
        self, *, queue: Names = None, command: object = None, since: Since = None, limit: int | None = 2_000
    ) -> pd.DataFrame:
        """Give when attempts ran and beside which others, the newest, oldest first."""
        from nbqueue import frames

        picked = self._pick(queue=queue, command=command, since=since)
        return frames.timeline(self.store, picked.selection, _check_limit(limit))

    def sql(
        self, query: str, params: Sequence[object] = (), *, names: Mapping[str, object] | None = None
    ) -> pd.DataFrame:
        """Run one SELECT over ``jobs, attempts, events, logs, outputs`` and the caller's DataFrames; it only reads.

        Parameters
        ----------
        query : str
            What to ask; a name of a DataFrame where it is called is a table.
        params : sequence
            For the ``?`` in it.
        names : mapping, optional
            Where to look for DataFrames instead.

        Example
        -------
        ::

            queues.sql("SELECT command, quantile_cont(run_seconds, 0.95) FROM attempts GROUP BY 1")
        """
        spaces: list[Mapping[str, Any]]
        if names is None:
            frame = sys._getframe(1)  # noqa: SLF001 - the caller's names are the point
            spaces = [frame.f_locals, frame.f_globals]
        else:
            spaces = [names]
        return self.store.query(query, tuple(params), dict(_frames_in(query, spaces)))

    def doctor(self) -> pd.DataFrame:
        """Check this queue and what it rests on; a row a finding, in which ``ok`` is missing for a mere note.

        Example
        -------
        What is wrong::

            queues.doctor().query("ok == False")
        """
        import pandas as pd

        findings = self.findings()
        return pd.DataFrame(
            {
                "ok": pd.array([found.ok for found in findings], dtype="boolean"),
                "what": [found.what for found in findings],
                "sentence": [found.sentence for found in findings],
            }
        )

    def findings(self) -> builtins.list[Finding]:
        """Give what ``doctor`` finds, as values."""
        from nbqueue.facade.checkup import look_at

        path = None if self.name == MEMORY else self.config.location()
        drift = self._clock() - time.monotonic() - self._offset
        return [*look_at(self.store, path, self.config, self._clock, drift)]

    def _pick(self, **words: Any) -> Picked:
        known = self.list() if words.get("queue") is not None else ()
        return pick(**words, queues=known, now=self._clock())

    def _since(self, since: Since) -> float | None:
        return None if since is None else ago(since, now=self._clock(), what="since")


def _whole(picked: Picked) -> Any:
    if picked.statuses:
        waiting = ", ".join(sorted(picked.statuses))
        raise InvalidCommand(f'{waiting} jobs are told apart in jobs() alone; write state="pending" here')
    return picked.selection


def _check_limit(limit: object) -> int | None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise InvalidCommand(f"limit must be a whole number from 0 up, or None for all, not {limit!r}")
    if limit is not None and limit > _MOST:
        # It is not shown: there are numbers too long for that.
        raise InvalidCommand(f"limit is {_MOST:,} at most; leave it out to have all")
    return limit


def _frames_in(query: str, spaces: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The DataFrames that the query may mean by a word of it; a view's name is the view's."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(query, str):
        return
    for word in dict.fromkeys(re.findall(r"[^\W\d]\w*", query)):
        if word.lower() in _VIEWS:
            continue
        value = next((space[word] for space in spaces if word in space), None)
        if isinstance(value, pandas.DataFrame):
            yield word, value
