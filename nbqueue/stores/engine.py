"""The verbs of a store as changes to an index; knows neither who runs them nor where they are kept.

``IndexStore`` is what the memory and the DuckDB store share. A verb is a function of the index; ``_run`` brings it to
the one thread that may touch the index, and returns when what it wrote is kept.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from nbqueue.errors import QueueUnavailable
from nbqueue.jobs import BatchRecord, Claim, JobRecord, NewBatch, NewJob, State
from nbqueue.store import (
    Answer,
    BatchCount,
    Capability,
    Handlers,
    Mapped,
    QueueInfo,
    Report,
    ReportKind,
    Selection,
    Turn,
    WorkerInfo,
)
from nbqueue.stores.asking import Moment
from nbqueue.stores.batching import put_batch
from nbqueue.stores.index import Index
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.live import Seat
from nbqueue.stores.pruning import Pruning
from nbqueue.stores.pulse import Pulse
from nbqueue.stores.repeats import Closing, without_said
from nbqueue.stores.retention import Retention
from nbqueue.stores.why import explain

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["IndexStore", "Interruption"]

_log = logging.getLogger("nbqueue.store")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Interruption:
    """A job that was running when its store was left without a word."""

    job_id: UUID
    command: str
    queue: str
    worker: str
    attempt: int
    #: It had really been started, not only claimed ahead.
    begun: bool
    #: What became of it, as a sentence.
    reason: str


class IndexStore:
    """A store whose live jobs are in an ``Index``; subclasses say where verbs run and where rows go.

    Parameters
    ----------
    name : str
        What people call it.
    clock : Callable[[], float]
        Seconds since the epoch.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back, for leases.
    pulse : Pulse | None
        Tells how long nobody could be heard. None: never, as in a test whose time stands still.
    """

    capabilities: frozenset[Capability] = frozenset(Capability) - {Capability.DURABLE}
    #: Where workers note which job each slot has begun; None: nowhere.
    slot_folder: Path | None = None

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        pulse: Pulse | None = None,
    ):
        self.name = name
        self.created = True
        self.interrupted: list[Interruption] = []
        self._clock = clock
        self._ticks = ticks
        self._pulse = pulse
        self._chance = random.random
        self._retention: Retention[Pruning] = Retention()
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._listening = threading.Lock()
        #: Something was changed that listeners have not been told of.
        self._changed = False
        self._index: Index
        self._ledger: Ledger

    def _run(self, verb: Callable[[Index], T]) -> T:
        raise NotImplementedError

    # -- the verbs

    def insert(self, jobs: Sequence[NewJob], worker_id: str | None = None) -> list[Claim]:
        """Take new jobs, all or none; with ``worker_id`` for that worker alone."""
        return self._run(lambda index: index.insert(jobs, self._clock(), worker_id))

    def put_batch(self, batch: NewBatch, jobs: Sequence[NewJob]) -> Mapped:
        """Take the rows of a batch, all or none and in one commit."""

        def verb(index: Index) -> Mapped:
            self._write_out(index)
            known = self._ledger.batch(batch.key or batch.batch_id)
            if known is not None and not batch.key:
                return Mapped(known)
            rows = self._ledger.batch_rows(known.batch_id) if known is not None else {}
            return put_batch(index, batch, jobs, self._clock(), known=known, rows=rows)

        return self._run(verb)

    def get_batch(self, which: UUID | str) -> BatchRecord | None:
        """Give a batch by its id or its key."""

        def verb(index: Index) -> BatchRecord | None:
            self._write_out(index)
            return self._ledger.batch(which)

        return self._run(verb)

    def count_batch(self, batch_id: UUID) -> BatchCount | None:
        """Give how many rows of a batch stand where."""

        def verb(index: Index) -> BatchCount | None:
            count = index.books.count(batch_id)
            if count is None:
                self._write_out(index)
                batch = self._ledger.batch(batch_id)
                if batch is not None:
                    index.books.open(batch, self._ledger.batch_counts(batch))
                    count = index.books.count(batch_id)
            return count

        return self._run(verb)

    def put_code(self, code: str, blob: bytes) -> None:
        """Keep code by value under its hash."""
        self._run(lambda _: self._ledger.put_code(code, blob, self._clock()))

    def get_code(self, code: str) -> bytes | None:
        """Give code by its hash."""
        return self._run(lambda _: self._ledger.get_code(code))

    def join(
        self,
        worker: WorkerInfo,
        handlers: Handlers,
        wake: Callable[[Sequence[Claim]], None],
        held: Collection[int] = (),
    ) -> None:
        """Make a worker known, or have it come back with the claims it holds."""

        def verb(index: Index) -> None:
            lease_until = self._ticks() + worker.lease
            index.join(
                lambda number: Seat(worker, number, handlers, wake, lease_until), worker, held, self._clock()
            )

        self._run(verb)

    def turn(
        self, worker_id: str, reports: Sequence[Report], slots: int, handlers: Handlers | None = None
    ) -> Turn:
        """Record reports, renew the lease, and claim, in one commit."""

        def verb(index: Index) -> Turn:
            now, ticks = self._clock(), self._ticks()
            seat = index.seats.get(worker_id)
            said = reports if seat is None else self._unsaid(index, seat, reports)
            answers = index.apply(said, now, functools.cache(lambda: self._closings(index, reports)))
            if seat is None or seat.away:
                return Turn(answers, (), (), None, expired=True)
            seat.lease_until = ticks + seat.info.lease
            index.lapse(now, ticks, self._begun)
            if handlers is not None:
                seat.use(handlers)
            seat.slots = slots
            claims = index.claim(seat, now)
            cancels = [fence for fence, job in seat.claims.items() if job.life.cancelling]
            cancels += seat.gone
            due_at = index.lanes.next_due()
            next_due = None if due_at is None else max(0.0, due_at - now)
            return Turn(answers, claims, cancels, next_due, index.unknown(seat))

        return self._run(verb)

    def _unsaid(self, index: Index, seat: Seat, reports: Sequence[Report]) -> Sequence[Report]:
        """Give what a worker that has come back says, without the log lines that it had said before."""
        if not seat.gone and not seat.doubtful:
            return reports
        seat.gone -= {report.claim.fence for report in reports if report.kind is not ReportKind.NEWS}
        doubtful = {r.claim.fence for r in reports if r.logs} & seat.doubtful
        if not doubtful:
            return reports
        seat.doubtful -= doubtful
        self._write_out(index)
        known = self._ledger.lines(doubtful)
        return [without_said(r, known) if r.claim.fence in doubtful else r for r in reports]

    def _closings(self, index: Index, reports: Sequence[Report]) -> dict[int, Closing]:
        """What ended the claims of these reports."""
        self._write_out(index)
        return self._ledger.closings([report.claim.fence for report in reports])

    def leave(self, worker_id: str) -> None:
        """Forget a worker; what it still has is given back."""

        def verb(index: Index) -> None:
            index.leave(worker_id, self._clock())
            self._changed = True

        self._run(verb)

    def get(self, ids: Sequence[UUID]) -> list[JobRecord]:
        """Give the records of these jobs, in this order."""

        def verb(index: Index) -> list[JobRecord]:
            found = {job.job_id: job for job in index.jobs(ids)}
            return [found[i].record() for i in ids if i in found]

        return self._run(verb)

    def watch(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]) -> Callable[[], None]:
        """Call ``notify`` once for each of these jobs when it has ended."""

        def verb(index: Index) -> None:
            index.watch(ids, notify)

        def stop() -> None:
            def verb(index: Index) -> None:
                for job_id in ids:
                    index.unwatch(job_id, notify)

            with contextlib.suppress(QueueUnavailable):
                # A closed store calls nobody any more.
                self._run(verb)

        self._run(verb)
        return stop

    def listen(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` whenever something has changed that people can see."""

        def verb(_index: Index) -> None:
            with self._listening:
                self._listeners = (*self._listeners, notify)

        def stop() -> None:
            # No verb: whoever stops may be the writer itself, and the store may be closed.
            with self._listening:
                self._listeners = tuple(one for one in self._listeners if one is not notify)

        self._run(verb)
        return stop

    def cancel(self, ids: Sequence[UUID], *, again: bool = False) -> list[Answer]:
        """Cancel pending jobs, ask running ones to stop; asked ``again``, what is cancelled is done."""
        return self._run(lambda index: index.cancel(ids, self._clock(), again=again))

    def retry(self, ids: Sequence[UUID], fences: Sequence[int] | None = None) -> list[Answer]:
        """Let ended jobs run again and waiting ones run now; with ``fences`` it may be asked again."""
        return self._run(lambda index: index.retry(ids, self._clock(), fences))

    def forget(self, selection: Selection, keep: int | None = None) -> int:
        """Remove ended jobs with all their history, piece by piece: other verbs are answered in between."""

        def begin(index: Index) -> Pruning:
            self._write_out(index)
            return self._ledger.begin_pruning(selection, keep)

        going = self._run(begin)
        while not going.over:
            self._run(lambda index: self._prune(index, going))
        return going.forgotten

    def _prune(self, index: Index, going: Pruning) -> None:
        before = going.forgotten
        self._write_out(index)
        self._ledger.prune(going, index, self._clock())
        self._changed |= going.forgotten > before

    def retain(self, seconds: float | None, keep: int | None = None) -> None:
        """Forget ended jobs this long after their end, and the oldest of more than ``keep``; None: no such limit."""
        self._run(lambda _: self._retention.limit(seconds, keep))

    @property
    def _is_retiring(self) -> bool:
        return self._retention.is_due(self._ticks())

    def _retire(self, index: Index) -> None:
        """Let a piece of what has been kept long enough go, if there is any."""
        self._write_out(index)
        going = self._retention.take(
            self._ledger.begin_pruning, index.count_ended, self._clock(), self._ticks()
        )
        if going is not None:
            self._prune(index, going)
            self._retention.put_back(going)

    def find(self, selection: Selection) -> list[UUID]:
        """Give the ids of the jobs selected, oldest first, while other verbs are answered."""
        self._run(self._write_out)
        return self._ledger.find(selection)

    def explain(self, job_id: UUID) -> str:
        """Say in a sentence why a job is not running; "" if it is running."""

        def verb(index: Index) -> str:
            job = next(iter(index.jobs((job_id,))), None)
            return (
                f"there is no job {job_id} in {self.name}"
                if job is None
                else explain(job, index, self._clock())
            )

        return self._run(verb)

    def add_queue(self, name: str) -> None:
        """Make a queue known."""
        self._run(lambda index: index.add_queue(name))

    def pause(self, queue: str, *, paused: bool) -> None:
        """Stop handing out a queue's jobs, or go on."""

        def verb(index: Index) -> None:
            state = index.queues.get(queue)
            if state is None:
                msg = f"there is no queue {queue!r} in {self.name}; there are: {', '.join(sorted(index.queues))}"
                raise QueueUnavailable(msg)
            self._write_out(index)
            self._ledger.set_paused(queue, paused=paused)
            state.paused = paused
            index.fresh = self._changed = True

        self._run(verb)

    def queues(self) -> list[QueueInfo]:
        """Every queue, by name."""
        return self._run(lambda index: self._queues(index, index.waiting(self._clock())))

    @staticmethod
    def _queues(index: Index, waiting: Mapping[str, int]) -> list[QueueInfo]:
        return [
            # A clock that was set back makes a wait of what was due, which nobody has counted yet.
            QueueInfo(name, q.paused, dict(q.counts), max(0, min(waiting[name], q.counts[State.PENDING])))
            for name, q in sorted(index.queues.items())
        ]

    def workers(self) -> list[WorkerInfo]:
        """The workers that are here now."""
        return self._run(self._workers)

    @staticmethod
    def _workers(index: Index) -> list[WorkerInfo]:
        return [seat.info for seat in index.seats.values() if not seat.away]

    def moment(self, _after: int = 0) -> Moment:
        """Give how it stands now, all in one turn, after which ``read`` knows all that has happened."""

        def verb(index: Index) -> Moment:
            self._write_out(index)
            index.waiting(self._clock())
            return self._moment(index)

        return self._run(verb)

    def _moment(self, index: Index) -> Moment:
        # What has come due since somebody asked waits on: to let it go is not for who only looks.
        return Moment(self._queues(index, index.lanes.waiting), self._workers(index), index.seq - 1)

    def query(
        self, sql: str, params: Sequence[object] = (), frames: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """Run one read-only SELECT over the views and the given frames."""
        self._run(self._write_out)
        return self._ledger.query(sql, params, frames or {})

    def read(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        """Run one SELECT of nbqueue's own on what was written out last, without a turn."""
        return self._ledger.read(sql, params)

    def close(self) -> None:
        """Let go of everything."""
        raise NotImplementedError

    # -- what subclasses share

    def _begun(self, worker_id: str) -> Collection[int] | None:
        """The fences of what a worker has begun; None where nobody knows."""
        return None

    def _listen_again(self, index: Index) -> None:
        """Let no worker pay for the time in which this process could not hear it."""
        if self._pulse is not None and (deaf := self._pulse.beat()):
            index.lengthen_leases(deaf)

    def _write_out(self, index: Index) -> None:
        """Bring what the index has ready into the ledger now, so that SQL sees it."""
        raise NotImplementedError

    def _fill_open_slots(self, index: Index) -> list[tuple[Seat, list[Claim]]]:
        """Claim for workers that have room, so that a claim rides in the commit of its dispatch."""
        if not index.fresh:
            return []
        index.fresh = False
        now = self._clock()
        handed = []
        for seat in list(index.seats.values()):
            claims = index.claim(seat, now)
            if claims or len(seat.claims) < seat.slots:
                handed.append((seat, claims))
        return handed

    def _tell_listeners(self) -> None:
        """Tell who listens that something has changed, if it has."""
        if not self._changed:
            return
        self._changed = False
        for notify in self._listeners:
            try:
                notify()
            except Exception:  # noqa: BLE001 - whatever it is, the store goes on
                _log.exception("who was to be told of a change raised")

    @staticmethod
    def _hand_out(handed: list[tuple[Seat, list[Claim]]], calls: list[Callable[[], None]]) -> None:
        """Tell workers and watchers what is kept now; one that raises does not keep it from the others."""
        for seat, claims in handed:
            calls.insert(0, functools.partial(seat.wake, claims))
        for call in calls:
            try:
                call()
            except Exception:  # noqa: BLE001 - whatever it is, the store goes on
                _log.exception("what was to be told of a job's end, or of new jobs, raised")
