"""From a queue to the state of a panel: everything once, then only what has changed; sends and shows nothing."""

from __future__ import annotations

import heapq
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from nbqueue.errors import JobNotFound
from nbqueue.facade.manager import QueueManager
from nbqueue.facade.watching.failing import Failing, Failure
from nbqueue.facade.watching.following import Following
from nbqueue.facade.watching.news import Claims, News, Seen
from nbqueue.jobs import State as JobState
from nbqueue.widgets.link import kernel_version
from nbqueue.widgets.panel.detail import Detail
from nbqueue.widgets.panel.past import Past
from nbqueue.widgets.panel.series import Series
from nbqueue.widgets.panel.state import State
from nbqueue.widgets.panel.table import SIZE, Looked, Table

__all__ = ["Feed"]

#: Waits are read from a good part of the history: no more of the time than this goes into it.
_PACE = 0.02
#: A history of no more events than this is looked at whole at once.
_SHORT = 50_000
#: Of a longer one so many rows are read in one look: a thousand take 25 ms longer.
_ROWS = 200
#: So many jobs that something happened to take as long as a few rows: the look after it reads those.
_MUCH = 2_000
#: What is dear waits until nothing new has come, but no longer than for so many looks.
_PUT_OFF = 4
#: Failures that were never shown wait less: of a million jobs they come in three pieces.
_FIRST_PUT_OFF = 2
#: So many names are kept, of which a panel shows a hundred at most.
_NAMES = 1_000
#: Of so many jobs that ended last, the median wait is shown.
_WAITS = 100


class _Paced:
    """Something that is dear to ask: asked when it may be different, but not all the time."""

    def __init__(self, ask: Callable[[], None], least: float, ticks: Callable[[], float]) -> None:
        self._ask = ask
        self._least = least
        self._ticks = ticks
        self._free_at = 0.0
        #: Whether it may be different from what was asked last.
        self.wanted = True

    def go(self) -> bool:
        """Ask, where that is wanted and its time has come; says whether it was."""
        begun = self._ticks()
        if not self.wanted or begun < self._free_at:
            return False
        self.wanted = False
        self._ask()
        self._free_at = begun + max(self._least, (self._ticks() - begun) / _PACE)
        return True

    def due_in(self) -> float | None:
        """Say in how many seconds it wants to be asked; None: not at all."""
        return max(0.0, self._free_at - self._ticks()) if self.wanted else None


class Feed:
    """Keeps the state of one panel up to date; called by one thread at a time.

    Parameters
    ----------
    queues : QueueManager
        What is shown.
    looked : Looked
        What its table shows first.
    v : int
        The version that its state begins at.
    clock : callable
        Seconds since the epoch.
    ticks : callable
        Seconds by a clock that never steps back.
    """

    def __init__(
        self,
        queues: QueueManager,
        looked: Looked = Looked(),  # noqa: B008 - a frozen value
        *,
        v: int = 0,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues = queues
        self._clock = clock
        self.following = Following(queues)
        #: What is to be known of the queue as long as there is nothing worse to say.
        self.notice = {"level": "note", "text": queues.notice} if queues.notice else None
        self.state = State(
            v, name=queues.name, kernel=kernel_version(), form=None, notice=self.notice, failures=[]
        )
        self._table = Table(self.following)
        self._detail: Detail | None = None
        self._waits = _Paced(self._ask_waits, 5.0, ticks)
        self._median_waits: dict[str, float] = {}
        #: Something failed while news were taken in: what is shown knows of some and not of others.
        self._torn = False
        self._begin(looked)

    # -- looking

    @property
    def now(self) -> int:
        """The time, in milliseconds since the epoch."""
        return round(self._clock() * 1000)

    def _begin(self, looked: Looked) -> None:
        """Look at everything."""
        self._seen: Seen = self.following.seen()
        self._infos, self._here = self._queues.queues(), self._queues.workers()
        counts = self._counts()
        ran = counts[JobState.RUNNING]
        #: Of each running job, since when and by whom.
        self._since: dict[int, int] = {}
        self._runner: dict[int, str] = {}
        if ran:
            self._claimed(self.following.running(self._seen, ran))
        #: The jobs that ended last, once somebody has asked how long they waited.
        self._recent: list[int] | None = None
        self._series = Series()
        self._stand(counts)
        self._past = Past(self.following, self._series, self._clock(), self._seen.seq)
        self._failing = Failing(self.following, self._seen.seq)
        #: Ids and commands of jobs that run or failed, by number: they stay as they are.
        self._names: dict[int, tuple[str, str]] = {}
        #: Whether what there is of failures has changed since it was shown.
        self._failed = not self._failing.unread
        self._waits.wanted = True
        self._put_off = 0
        self._table.look(looked, at_once=SIZE if self._short else _ROWS)
        if self._short:
            self._look_back()
        self._show()

    def refresh(self) -> float | None:
        """Look at what has happened since; gives in how many seconds something will be different by itself."""
        news, self._infos, self._here, whole = self.following.look(self._seen)
        counts = self._counts()
        # Some were forgotten or pruned, which leaves no trace.
        anew = self._torn or sum(counts.values()) < news.seen.jobs
        self._torn = True
        if anew:
            self._begin(self._table.looked)
            self._reopen()
        else:
            self._seen = news.seen
            self._take_in(news, counts)
            self._read(much=len(news.changed) > _MUCH)
            self._show()
        self._torn = False
        dear = (0.0 if self._failing.unread else None, self._past.due_in(), self._waits.due_in())
        waits = (None if whole else 0.0, self._table.due_in(now=self.now), *dear)
        return min((wait for wait in waits if wait is not None), default=None)

    @property
    def _short(self) -> bool:
        return self._seen.seq <= _SHORT

    def _read(self, *, much: bool) -> None:
        """Read what is to be read; of a long history either rows or something dear, so that no look takes long."""
        if self._short:
            self._table.read()
            self._look_back()
            return
        # What has just happened is shown first, unless something happens all the time.
        self._put_off = self._put_off + 1 if self._table.unread else 0
        put_off = _FIRST_PUT_OFF if self._failing.unread and not much else _PUT_OFF
        if self._put_off % put_off == 0 and self._look_back():
            return
        if not much or self._put_off % 2 == 0:
            self._table.read(_ROWS)

    def _look_back(self) -> bool:
        """Ask for what is dear, of a long history for one thing only; says whether there was something."""
        some = False
        for one in (self._read_failures, self._past.go, self._waits.go):
            some = one() or some
            if some and not self._short:
                break
        return some

    def _take_in(self, news: News, counts: dict[JobState, int]) -> None:
        for number in self._since.keys() & news.resting if self._since else ():
            del self._since[number], self._runner[number]
        self._claimed(news.running)
        ends = news.ended
        self._series.ended(zip(ends.at, ends.how, strict=True))
        self._stand(counts)
        if self._recent is not None:
            ended = [n for n, how in zip(ends.numbers, ends.how, strict=True) if how != JobState.CANCELLED]
            self._recent = [*reversed(ended), *self._recent][:_WAITS]
            self._waits.wanted = self._waits.wanted or not set(self._recent).isdisjoint(news.changed)
        self._failed = self._failing.follow(news) or self._failed
        self._table.follow(news, now=self.now)
        # What a job writes is no event.
        if self._detail is not None and (
            self._detail.number in news.changed or self._detail.number in self._since
        ):
            self._detail.show(self.state)

    def _claimed(self, claims: Claims) -> None:
        # Those claimed first stand first, also where one was given back and claimed again meanwhile.
        for number in () if self._since.keys().isdisjoint(claims.numbers) else claims.numbers:
            self._since.pop(number, None)
            self._runner.pop(number, None)
        self._since.update(zip(claims.numbers, claims.since, strict=True))
        self._runner.update(zip(claims.numbers, claims.workers, strict=True))

    def _counts(self) -> dict[JobState, int]:
        return {state: sum(queue.counts[state] for queue in self._infos) for state in JobState}

    def _stand(self, counts: dict[JobState, int]) -> None:
        self._series.stand(self.now, pending=counts[JobState.PENDING], running=counts[JobState.RUNNING])

    # -- showing

    def _show(self) -> None:
        state = self.state
        state.set("queues", [self._queue(queue) for queue in self._infos])
        state.set("workers", self._workers())
        state.set("series", self._series.value())
        if self._failed and not self._failing.unread:
            state.set("failures", [_failure(failure) for failure in self._failing.value(self._names_of)])
            self._failed = False
        state.set("commands", [{"name": name} for name in self._queues.handlers()])
        self._table.show(state)

    def _queue(self, queue: Any) -> dict[str, Any]:
        counts = {state.value: queue.counts[state] for state in JobState}
        return {
            "name": queue.name,
            # Where it cannot be paused there is no button for it.
            "paused": queue.paused if self._queues.can("pause") else None,
            **counts,
            "waiting": queue.waiting,
            "wait": self._median_waits.get(queue.name),
        }

    def _workers(self) -> list[dict[str, Any]]:
        here = (socket.gethostname(), os.getpid())
        claimed: dict[str, list[int]] = {worker.worker_id: [] for worker in self._here}
        for number, runner in self._runner.items():
            if runner in claimed:
                claimed[runner].append(number)
        # Tiny jobs are claimed ahead by thousands: those run that were claimed first, and no more than there are slots.
        runs = {
            worker.worker_id: sorted(
                heapq.nsmallest(worker.concurrency, claimed[worker.worker_id], self._since.__getitem__)
            )
            for worker in self._here
        }
        names = self._names_of([number for numbers in runs.values() for number in numbers])
        running = {
            worker_id: [
                {"id": names[number][0], "command": names[number][1], "since": self._since[number]}
                for number in numbers
                if number in names
            ]
            for worker_id, numbers in runs.items()
        }
        return [
            {
                "id": worker.worker_id,
                "queues": None if worker.queues is None else list(worker.queues),
                "concurrency": worker.concurrency,
                "executor": worker.executor,
                "host": worker.host,
                "pid": worker.pid,
                "here": (worker.host, worker.pid) == here,
                "running": running[worker.worker_id],
            }
            for worker in self._here
        ]

    def _read_failures(self) -> bool:
        """Read of the failures; says whether there was something to read."""
        read = self._failing.go()
        self._failed = self._failed or read
        return read

    def _names_of(self, numbers: Collection[int]) -> Mapping[int, tuple[str, str]]:
        """The ids and commands of jobs, asked for only where neither a row nor memory has them."""
        if len(self._names) > _NAMES:
            self._names = {}
        known = {number: self._names.get(number) or self._table.name(number) for number in numbers}
        asked = self.following.names([number for number, name in known.items() if name is None])
        found = {number: name for number, name in {**known, **asked}.items() if name is not None}
        self._names.update(found)
        return found

    def _ask_waits(self) -> None:
        if self._recent is None:
            self._recent = self.following.recently_ended(_WAITS)
        found = self.following.waits(self._recent) if self._recent else {}
        self._median_waits = {queue: round(wait, 3) for queue, wait in found.items()}

    # -- what the user looks at

    @property
    def looked(self) -> Looked:
        """What its table shows."""
        return self._table.looked

    def look(self, looked: Looked) -> None:
        """Show other jobs in the table."""
        self._table.look(looked)
        self._table.show(self.state)

    def open(self, job_id: str | None) -> None:
        """Look closely at a job, or at none."""
        self._detail = None if job_id is None else Detail(self._queues, job_id)
        if self._detail is None:
            self.state.set("detail", None)
        else:
            self._detail.show(self.state)

    def _reopen(self) -> None:
        if self._detail is None:
            return
        try:
            self.open(self._detail.job_id)
        except JobNotFound:
            self.open(None)


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "fingerprint": failure.fingerprint,
        "count": failure.jobs,
        "first": failure.first,
        "last": failure.last,
        "commands": [failure.command],
        "example": failure.job_id,
    }
