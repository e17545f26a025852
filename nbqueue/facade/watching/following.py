"""What has changed since one last looked, and pages of jobs, for views that are kept up to date; changes nothing.

A look at what is new costs milliseconds however long the history is: events are numbered as they come, and jobs as
they are dispatched, and DuckDB reads only the stretch that is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.facade.looking import Looking
from nbqueue.facade.selecting import pick
from nbqueue.frames import PENDING_STEP, RUNNING_STEP
from nbqueue.handlers.handler import main_origin
from nbqueue.handlers.registry import registry
from nbqueue.jobs import Spec, State
from nbqueue.lifecycle import STATE_AFTER, Event
from nbqueue.stores.selecting import conditions, texts

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["ROW", "Following", "JobFilter", "News", "Running", "Seen"]

#: Numbers that lie closer than this are read in one stretch.
_NEAR = 5_000
#: More stretches than this are read as one.
_STRETCHES = 3
#: Of an argument's text, so many characters are read.
_TEXT = 4_000

#: A job as plain values, as the fields of a STRUCT over the view ``jobs``.
ROW = f"""
    id: job_id::VARCHAR, command: command, queue: queue, state: state::VARCHAR, status: status::VARCHAR,
    attempt: attempt, max_attempts: max_attempts, priority: priority,
    dispatched: epoch_ms(dispatched_at), scheduled: epoch_ms(scheduled_at),
    started: epoch_ms(started_at), finished: epoch_ms(finished_at), wait: wait_seconds, run: run_seconds,
    error: left(error, {_TEXT}), fingerprint: fingerprint, progress: progress, worker: worker,
    arguments: left(arguments, {_TEXT}), batch: batch_id::VARCHAR, origin: origin, code: code
"""
# Of the ledger itself: the view ``events`` finds the job of each event by a join, which takes 30 ms among a million
# jobs however few events are asked for; this takes 1 ms.
_NEWS = """
    SELECT seq, job AS number, event, happened_us // 1000 AS at FROM ledger
    WHERE seq > ? AND event NOT IN ('log', 'output', 'usage', 'stale') ORDER BY seq
"""
_ENDED = tuple(event for event, state in STATE_AFTER.items() if state.ended)


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


class Running(NamedTuple):
    """A job that runs."""

    job_id: str
    command: str
    worker: str
    #: Milliseconds since the epoch.
    since: int


class Seen(NamedTuple):
    """How far somebody has looked."""

    #: The number of the last event.
    seq: int
    #: How many jobs there were.
    jobs: int


class News(NamedTuple):
    """What has happened since."""

    seen: Seen
    #: The jobs that something happened to, by number, rising.
    changed: tuple[int, ...] = ()
    #: Those of them that are new, rising.
    dispatched: tuple[int, ...] = ()
    #: Those that run now, and those that do not (any more).
    running: tuple[tuple[int, Running], ...] = ()
    resting: tuple[int, ...] = ()
    #: (number, milliseconds since the epoch, "succeeded", "failed" or "cancelled"), in order.
    ended: tuple[tuple[int, int, str], ...] = ()
    #: Whether a job failed, or one that had is to run again.
    failures: bool = False


class Following:
    """Looks at a queue again and again; reads only, from any one thread at a time.

    Parameters
    ----------
    queues : QueueManager
        Which.
    """

    def __init__(self, queues: Looking) -> None:
        self._queues = queues

    def seen(self) -> Seen:
        """Give where to look from: now."""
        found = self._ask(
            "SELECT coalesce(max(seq), 0) AS seq, count(*) FILTER (event = 'dispatched') AS jobs FROM ledger"
        )
        return Seen(int(found["seq"].iloc[0]), int(found["jobs"].iloc[0]))

    def news(self, since: Seen) -> News:
        """Give what has happened since."""
        found = self._ask(_NEWS, (since.seq,))
        if not len(found):
            return News(since)
        states: dict[int, State | None] = {}
        claimed: dict[int, int] = {}
        dispatched: list[int] = []
        ended: list[tuple[int, int, str]] = []
        failures = False
        columns = (found[name].tolist() for name in ("number", "event", "at"))
        for number, event, at in zip(*columns, strict=True):
            # What says something of a job without moving it has no state.
            states[number] = STATE_AFTER.get(event, states.get(number))
            if event == Event.DISPATCHED:
                dispatched.append(number)
            elif event == Event.CLAIMED:
                claimed[number] = at
            elif event in _ENDED:
                ended.append((number, at, event))
            failures = failures or event in (Event.FAILED, Event.RETRIED)
        begun = {number: at for number, at in claimed.items() if states[number] is State.RUNNING}
        return News(
            Seen(int(found["seq"].iloc[-1]), since.jobs + len(dispatched)),
            tuple(sorted(states)),
            # Where several processes write to a server, jobs need not come in the order of their numbers.
            tuple(sorted(dispatched)),
            self._begun(begun) if begun else (),
            tuple(number for number, state in states.items() if state not in (State.RUNNING, None)),
            tuple(ended),
            failures,
        )

    def _begun(self, since: Mapping[int, int]) -> tuple[tuple[int, Running], ...]:
        found = self._ask(
            "SELECT number, job_id::VARCHAR AS id, command, worker FROM events WHERE number BETWEEN ? AND ?"
            " AND event = 'claimed' ORDER BY seq",
            (min(since), max(since)),
        )
        columns = (found[name].tolist() for name in ("number", "id", "command", "worker"))
        jobs = {
            number: Running(job_id, command, worker, since[number])
            for number, job_id, command, worker in zip(*columns, strict=True)
            if number in since
        }
        return tuple(jobs.items())

    def running(self) -> dict[int, Running]:
        """Give the jobs that run now, by number."""
        found = self._ask(
            "SELECT number, job_id::VARCHAR AS id, command, worker, epoch_ms(started_at) AS since FROM jobs"
            " WHERE state = 'running' ORDER BY number"
        )
        columns = (found[name].tolist() for name in ("number", "id", "command", "worker", "since"))
        return {number: Running(*rest) for number, *rest in zip(*columns, strict=True)}

    def matching(self, wanted: JobFilter, among: Sequence[int] | None = None) -> np.ndarray[Any, Any]:
        """Give the numbers of the jobs that a filter lets through, rising; of all jobs, or of these."""
        import numpy as np

        if among is not None:
            found = [self._matching(wanted, stretch) for stretch in _stretches(among)]
            return np.intersect1d(np.concatenate(found), np.array(among)) if found else np.array([], "int64")
        return self._matching(wanted, None)

    def _matching(self, wanted: JobFilter, stretch: tuple[int, int] | None) -> np.ndarray[Any, Any]:
        within = "" if stretch is None else f" AND number BETWEEN {stretch[0]} AND {stretch[1]}"
        sql, params = f"SELECT number FROM events WHERE event = 'dispatched'{within}", list[object]()
        if not wanted.everything:
            condition, params = wanted.condition()
            sql = f"SELECT number FROM jobs WHERE {condition}{within}"
        return self._ask(f"{sql} ORDER BY number", params)["number"].to_numpy("int64")

    def rows(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Give these jobs by number, as plain values; times in milliseconds since the epoch."""
        wanted = sorted(numbers)
        found: dict[int, dict[str, Any]] = {}
        for first, last in _stretches(wanted):
            some = [number for number in wanted if first <= number <= last]
            # A stretch without a gap needs no list, and a list costs time.
            gaps = len(some) <= last - first
            within = f"number BETWEEN {first} AND {last}" + (
                " AND number IN (SELECT unnest(?::BIGINT[]))" if gaps else ""
            )
            answer = self._ask(
                f"SELECT number, to_json({{{ROW}}})::VARCHAR AS row FROM jobs WHERE {within}",
                [some] if gaps else [],
            )
            found.update(
                zip(answer["number"].tolist(), json.loads(f"[{','.join(answer['row'])}]"), strict=True)
            )
        return found

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
        found = self._ask(
            "SELECT job AS number FROM ledger WHERE event IN ('succeeded', 'failed') ORDER BY seq DESC LIMIT ?",
            (count,),
        )
        return [int(number) for number in found["number"].tolist()]

    def recent(self, since: float, step: int, *, until: int) -> list[tuple[int, int, int, int, int]]:
        """Give what happened since a time, up to the event of this number, by stretches of so many seconds.

        Each is (stretch, succeeded, failed, pending, running): how many ended so, and how many more were pending and
        running after it than before.
        """
        found = self._ask(
            f"""
            WITH lately AS (
                SELECT epoch_ms(happened_at) // ?::BIGINT AS stretch, event, fence, seq, number,
                       lag(event) OVER (PARTITION BY number ORDER BY seq) AS before
                FROM events WHERE happened_at >= make_timestamptz(?::BIGINT) AND seq <= ?
                  AND state IS NOT NULL
            )
            SELECT stretch, count(*) FILTER (event = 'succeeded') AS succeeded,
                   count(*) FILTER (event = 'failed') AS failed,
                   -- A retry by hand changes nothing for a job that waited already.
                   sum({PENDING_STEP} + CASE WHEN event = 'retried' AND (before IS NULL OR before IN {texts(_ENDED)})
                                             THEN 1 ELSE 0 END)::BIGINT AS pending,
                   sum({RUNNING_STEP})::BIGINT AS running
            FROM lately GROUP BY stretch
            """,
            (step * 1000, round(since * 1e6), until),
        )
        columns = (found[name].tolist() for name in ("stretch", "succeeded", "failed", "pending", "running"))
        return list(zip(*columns, strict=True))

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
        return self._ask(
            f"{select} WHERE number BETWEEN ? AND ? AND number IN (SELECT unnest(?::BIGINT[])) {rest}",
            (min(numbers, default=0), max(numbers, default=0), list(numbers)),
        )

    def _ask(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        return self._queues.store.query(sql, params)


def _stretches(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The stretches that rising numbers lie in: few, since each costs a query, and short, since each is read."""
    if not len(numbers):
        return
    breaks = [at for at in range(1, len(numbers)) if numbers[at] - numbers[at - 1] > _NEAR]
    if len(breaks) >= _STRETCHES:
        breaks = []
    for start, stop in zip([0, *breaks], [*breaks, len(numbers)], strict=True):
        yield int(numbers[start]), int(numbers[stop - 1])
