"""What has changed since one last looked, and pages of jobs, for views that are kept up to date; changes nothing.

A look at what is new costs milliseconds however long the history is: events are numbered as they come, and jobs as
they are dispatched, and DuckDB reads only the stretch that is asked for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.facade.looking import Looking
from nbqueue.facade.watching.filtering import JobFilter
from nbqueue.facade.watching.folding import EVENTS_OF, EVENTS_OF_FAR, EVENTS_OF_SOME, SPECS, Kind, folded
from nbqueue.facade.watching.news import EVENTS_SINCE, FAILED_WITH, Claims, News, Seen, read
from nbqueue.frames.stretches import PENDING_STEP, RUNNING_STEP
from nbqueue.handlers.handler import main_origin
from nbqueue.handlers.registry import registry
from nbqueue.jobs import Spec
from nbqueue.lifecycle import STATE_AFTER, Event
from nbqueue.shortcuts import OPEN_CLAIMS
from nbqueue.store import QueueInfo, WorkerInfo
from nbqueue.stores.asking import moment_of, read_from
from nbqueue.stores.selecting import texts

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["Following", "Look", "Stretch"]

#: Numbers that lie closer than this are read in one stretch.
_NEAR = 5_000
#: More stretches than this are read as one.
_STRETCHES = 3
# DuckDB knows these without reading a row.
_BOUNDS = """
    SELECT coalesce(max(seq), 0) AS seq, coalesce(min(job), 0) AS least, coalesce(max(job), -1) AS most FROM ledger
"""
_COUNTED = _BOUNDS.replace("FROM", ", count(*) FILTER (event = 'dispatched') AS jobs FROM")
_DISPATCHED = "SELECT job AS number, job_id::VARCHAR AS id, spec FROM ledger WHERE event = 'dispatched'"
_FAILURES = f"""
    SELECT job AS number, happened_us // 1000 AS at, {FAILED_WITH} AS fingerprint
    FROM ledger WHERE (event = 'failed' OR event = 'retried') AND seq > ? AND seq <= ? ORDER BY seq
"""
#: More events than there will be.
_ALL = 1 << 62
#: Of the last so many events the claims are looked at first, and of eight times as many then.
_WINDOW = 20_000
_ENDED = tuple(event for event, state in STATE_AFTER.items() if state.ended)


# Until when jobs wait for their time; of those that do not wait any more there may be one as well.
_DUE = f"""
    SELECT job AS number, max_by(coalesce(due_us, 0), seq) // 1000 AS due
    FROM ledger WHERE job BETWEEN ? AND ?{{among}} AND event IN {texts(STATE_AFTER)} GROUP BY job HAVING due > 0
"""
_DUE_OF = _DUE.format(among="")
#: Of ten jobs among a million 6 ms, and all of them 320.
_DUE_OF_FAR = _DUE.format(among=" AND job IN (SELECT unnest(?::BIGINT[]))")
# First counted, then told what each kind of event does: three million events take 50 ms so, and 70 the other way round.
# A retry by hand lets a job wait only if it had ended, which the event before it says.
_RECENT = f"""
    WITH counted AS (
        SELECT happened_us // $1::BIGINT AS stretch, event, CASE WHEN fence IS NOT NULL THEN 1 END AS fence,
               count(*) AS n
        FROM ledger WHERE seq BETWEEN $2 AND $3 AND happened_us >= $4 AND event <> 'retried' GROUP BY ALL
        UNION ALL
        SELECT happened_us // $1::BIGINT, 'waits again', NULL, count(*)
        FROM (SELECT seq, happened_us, event, lag(event) OVER (PARTITION BY job ORDER BY seq) AS before
              FROM ledger WHERE event IN {texts(STATE_AFTER)}
                AND job IN (SELECT job FROM ledger WHERE event = 'retried' AND seq BETWEEN $2 AND $3))
        WHERE event = 'retried' AND before IN {texts(_ENDED)} AND seq BETWEEN $2 AND $3 AND happened_us >= $4
        GROUP BY ALL
    )
    SELECT stretch,
           coalesce(sum(n) FILTER (event = 'succeeded'), 0)::BIGINT AS succeeded,
           coalesce(sum(n) FILTER (event = 'failed'), 0)::BIGINT AS failed,
           sum(CASE event WHEN 'waits again' THEN n ELSE n * ({PENDING_STEP}) END)::BIGINT AS pending,
           sum(n * ({RUNNING_STEP}))::BIGINT AS running
    FROM counted GROUP BY stretch
"""


class Stretch(NamedTuple):
    """What happened in a stretch of time."""

    #: Its number since the epoch.
    stretch: int
    #: How many jobs ended so.
    succeeded: int
    failed: int
    #: How many more were pending and running after it than before.
    pending: int
    running: int


class Look(NamedTuple):
    """What one look finds."""

    news: News
    queues: list[QueueInfo]
    workers: list[WorkerInfo]
    #: Whether it is all there is: the store was too busy to be asked, else.
    whole: bool = True


class Following:
    """Looks at a queue again and again; reads only, from any one thread at a time.

    Parameters
    ----------
    queues : QueueManager
        Which.
    """

    def __init__(self, queues: Looking) -> None:
        self._queues = queues
        self._last_seen = Seen(-1, 0)
        self._workers: dict[int, str] = {}
        self._kinds: dict[int, Kind] = {}

    def seen(self) -> Seen:
        """Give where to look from: now."""
        # A number that nothing in the ledger has any more may come to stand for another worker.
        self._workers, self._kinds = {}, {}
        seq, least, most = self._bounds()
        jobs = sum(sum(queue.counts.values()) for queue in self._queues.queues())
        if self._bounds()[0] != seq:
            # Something happened in between: then they are counted, which takes 10 ms among a million.
            found = self._ask(_COUNTED)
            seq, jobs, least, most = (int(found[name].iloc[0]) for name in ("seq", "jobs", "least", "most"))
        whole = range(least, most + 1)
        self._last_seen = Seen(seq, jobs, whole if len(whole) == jobs else range(0))
        return self._last_seen

    def _bounds(self) -> tuple[int, int, int]:
        """The last event, and the first and the last job."""
        found = self._ask(_BOUNDS)
        return int(found["seq"].iloc[0]), int(found["least"].iloc[0]), int(found["most"].iloc[0])

    def look(self, since: Seen) -> Look:
        """Give what has happened since, and how queues and workers stand then."""
        moment = moment_of(self._queues.store, since.seq)
        if moment is None:
            # In this order: what happens in between is counted, and told with the next news.
            return Look(self.news(since), self._queues.queues(), self._queues.workers())
        # What was written out since that moment is not counted in it.
        found = self._read(EVENTS_SINCE, (since.seq, moment.seq))
        return Look(self._news(found, since), moment.queues, moment.workers, moment.latest)

    def news(self, since: Seen) -> News:
        """Give what has happened since."""
        return self._news(self._ask(EVENTS_SINCE, (since.seq, _ALL)), since)

    def _news(self, found: pd.DataFrame, since: Seen) -> News:
        return read(found, since, self._worker_ids) if len(found) else News(since)

    def _worker_ids(self, numbers: Collection[int]) -> Mapping[int, str]:
        if not self._workers.keys() >= set(numbers):
            found = self._read("SELECT worker, worker_id FROM workers")
            self._workers = dict(zip(found["worker"].tolist(), found["worker_id"].tolist(), strict=True))
        return self._workers

    def _kinds_of(self, numbers: Collection[int]) -> Mapping[int, Kind]:
        if not self._kinds.keys() >= set(numbers):
            found = json.loads(f"[{','.join(self._read(SPECS)['spec'])}]")
            self._kinds = {number: Kind(*kind) for number, *kind in found}
        return self._kinds

    def running(self, seen: Seen, count: int) -> Claims:
        """Give the jobs that run now, of those that were claimed before somebody had ``seen`` so far.

        Parameters
        ----------
        seen : Seen
            What comes later is news.
        count : int
            How many ran after that: no more have to be looked for.
        """
        width, found = _WINDOW, None
        while found is None or (len(found) < count and width // 8 < seen.seq):
            # Who has run for long was claimed long ago; most were claimed just now.
            first = max(0, seen.seq - width)
            found = self._read(OPEN_CLAIMS, (first, seen.seq, first))
            width *= 8
        return Claims(*(found[name].tolist() for name in ("number", "since", "worker")))

    def failures(self, after: int, until: int) -> pd.DataFrame:
        """Give the failures and the retries by hand among the events after one and up to another, in order.

        Returns
        -------
        pandas.DataFrame
            ``number``, ``at`` and ``fingerprint`` as of ``Failed``.
        """
        return self._read(_FAILURES, (after, until))

    def fingerprints(self, numbers: Sequence[int]) -> dict[int, str]:
        """Give what these jobs failed with, as far as that is known, by number."""
        found = self._within("SELECT number, fingerprint FROM jobs", numbers, "AND fingerprint IS NOT NULL")
        return dict(zip(found["number"].tolist(), found["fingerprint"].tolist(), strict=True))

    def names(self, numbers: Collection[int]) -> dict[int, tuple[str, str]]:
        """Give the id and the command of these few jobs, by number."""
        if not numbers:
            return {}
        # A list is gone through for each job between the first and the last, and a join takes a dozen steps.
        among = "list_contains(?::BIGINT[], job)"
        if max(numbers) - min(numbers) > _NEAR:
            among = "job IN (SELECT unnest(?::BIGINT[]))"
        found = self._read(
            f"{_DISPATCHED} AND job BETWEEN ? AND ? AND {among}", (min(numbers), max(numbers), list(numbers))
        )
        kinds = self._kinds_of(found["spec"].tolist())
        columns = (found[name].tolist() for name in ("number", "id", "spec"))
        return {
            number: (job_id, kinds[spec].command)
            for number, job_id, spec in zip(*columns, strict=True)
            if spec in kinds
        }

    def matching(self, wanted: JobFilter, among: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        """Give the numbers of the jobs that a filter lets through, rising; of all jobs, or of these."""
        import numpy as np

        if among is not None:
            found = [self._matching(wanted, stretch) for stretch in _stretches(among)]
            return np.intersect1d(np.concatenate(found), np.array(among)) if found else np.array([], "int64")
        return self._matching(wanted, None)

    def due(self, among: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Give when those of these jobs that wait come due, in milliseconds since the epoch, rising, and which."""
        import numpy as np

        first, last = int(among.min()), int(among.max())
        far = last - first > max(_NEAR, 10 * len(among))
        sql, params = (_DUE_OF_FAR, (first, last, among.tolist())) if far else (_DUE_OF, (first, last))
        found = self._read(sql, params)
        numbers, due = found["number"].to_numpy("int64"), found["due"].to_numpy("int64")
        order = np.argsort(due, kind="stable")
        order = order[np.isin(numbers[order], among)]
        return due[order], numbers[order]

    def _matching(self, wanted: JobFilter, stretch: tuple[int, int] | None) -> np.ndarray[Any, Any]:
        import numpy as np

        if wanted.everything and stretch is None and (numbers := self._numbers()):
            return np.arange(numbers.start, numbers.stop, dtype="int64")
        within = "" if stretch is None else f" AND number BETWEEN {stretch[0]} AND {stretch[1]}"
        sql, params = f"SELECT job AS number FROM ledger WHERE event = 'dispatched'{within}", list[object]()
        if not wanted.everything:
            condition, params = wanted.condition()
            sql = f"SELECT number FROM jobs WHERE {condition}{within}"
        return self._ask(f"{sql} ORDER BY number", params)["number"].to_numpy("int64")

    def _numbers(self) -> range:
        """The numbers of all jobs, where they are without a gap: that costs no list of them."""
        return (self._last_seen if self._bounds()[0] == self._last_seen.seq else self.seen()).numbers

    def rows(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Give these jobs by number, as plain values; times in milliseconds since the epoch."""
        wanted = sorted(numbers)
        found: list[list[Any]] = []
        for first, last in _stretches(wanted):
            some = [number for number in wanted if first <= number <= last]
            # A stretch without a gap needs no list, and a list costs time.
            gaps = len(some) <= last - first
            sql = (EVENTS_OF_FAR if last - first > _NEAR else EVENTS_OF_SOME) if gaps else EVENTS_OF
            told = self._read(sql, (first, last, *([some] if gaps else [])))
            found += json.loads(f"[{','.join(told['event'])}]")
        kinds = self._kinds_of({one[15] for one in found if one[2] == Event.DISPATCHED})
        workers = self._worker_ids({one[9] for one in found if one[2] == Event.CLAIMED} - {None})
        return folded(found, kinds, workers, time.time())

    def waits(self, numbers: Sequence[int]) -> dict[str, float]:
        """Give the median wait of these jobs, in seconds, by queue."""
        found = self._within(
            "SELECT queue, median(wait_seconds) AS wait FROM jobs", numbers, "GROUP BY queue"
        )
        return {
            queue: wait
            for queue, wait in zip(found["queue"].tolist(), found["wait"].tolist(), strict=True)
            if wait is not None and wait == wait  # noqa: PLR0124 - not missing
        }

    def recently_ended(self, count: int) -> list[int]:
        """Give the numbers of the jobs that succeeded or failed last, the latest first."""
        found = self._read(
            "SELECT job AS number FROM ledger WHERE event IN ('succeeded', 'failed') ORDER BY seq DESC LIMIT ?",
            (count,),
        )
        return [int(number) for number in found["number"].tolist()]

    def first_since(self, since: float) -> int:
        """Give the number of the first event since a time, in seconds since the epoch; 0 where there is none."""
        found = self._read(
            "SELECT coalesce(min(seq), 0) AS seq FROM ledger WHERE happened_us >= ?", (round(since * 1e6),)
        )
        return int(found["seq"].iloc[0])

    def recent(self, since: float, step: int, *, first: int, until: int) -> list[Stretch]:
        """Give what happened since a time, by the events of these numbers, by stretches of so many seconds."""
        found = self._read(_RECENT, (step * 1_000_000, first, until, round(since * 1e6)))
        return [Stretch(*counts) for counts in found[list(Stretch._fields)].itertuples(index=False)]

    # -- beyond the queue

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call this whenever the queue has changed, or a handler was defined here; gives a way to stop that."""
        stops = (self._queues.on_change(callback), registry.on_change(callback))

        def stop() -> None:
            for one in stops:
                one()

        return stop

    @staticmethod
    def stale(command: str, origin: str, code: str) -> bool:
        """Whether a handler of this notebook was changed since a job of it was dispatched."""
        handler = registry.resolve(Spec(command, origin=origin)) if code else None
        # What comes from a module is changed by its author, not by running a cell again.
        return handler is not None and handler.code != code and origin == main_origin()

    def _within(self, select: str, numbers: Sequence[int], rest: str) -> pd.DataFrame:
        return self._read(
            f"{select} WHERE number BETWEEN ? AND ? AND number IN (SELECT unnest(?::BIGINT[])) {rest}",
            (min(numbers, default=0), max(numbers, default=0), list(numbers)),
        )

    def _ask(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        return self._queues.store.query(sql, params)

    def _read(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        """Ask for what is in the ledger since somebody has looked: that takes no turn of its writer."""
        return read_from(self._queues.store, sql, params)


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The stretches that rising numbers lie in: few, since each costs a query, and short, since each is read."""
    if not len(numbers):
        return
    breaks = [at for at in range(1, len(numbers)) if numbers[at] - numbers[at - 1] > _NEAR]
    if len(breaks) >= _STRETCHES:
        breaks = []
    for start, stop in zip([0, *breaks], [*breaks, len(numbers)], strict=True):
        yield int(numbers[start]), int(numbers[stop - 1])
