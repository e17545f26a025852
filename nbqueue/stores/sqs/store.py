"""The SQS store: jobs are messages, and this process's ledger knows what it dispatched and ran.

A dispatch is sent, then written down; what a worker reports is written down, then told to SQS. A death in between
costs a second delivery, which is recognised by the job's id where this ledger knows it, and never a job.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from nbqueue.errors import NotSupported, QueueUnavailable
from nbqueue.jobs import BatchRecord, Claim, JobRecord, NewBatch, NewJob
from nbqueue.store import (
    Answer,
    BatchCount,
    Capability,
    Handlers,
    Mapped,
    QueueInfo,
    Report,
    Selection,
    Turn,
    WorkerInfo,
)
from nbqueue.stores.engine import Interruption
from nbqueue.stores.sqs.address import Address, read
from nbqueue.stores.sqs.client import Client, Limits, SqsTroubleError
from nbqueue.stores.sqs.desk import open_desk
from nbqueue.stores.sqs.dispatching import ATTEMPT_MAX, Dispatcher
from nbqueue.stores.sqs.hand import Hand
from nbqueue.stores.sqs.queues import Queues
from nbqueue.stores.sqs.receiving import Intake, Receivers
from nbqueue.stores.sqs.sending import Post, Sender
from nbqueue.stores.sqs.settling import Settler

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ATTEMPT_MAX", "SQSStore"]

_log = logging.getLogger("nbqueue.store")

#: Closing waits so long for what is to be told to SQS, seconds.
_PATIENCE = 10.0


class SQSStore:
    """Jobs in queues of Amazon SQS.

    Parameters
    ----------
    url : str or Address
        ``sqs://REGION/PREFIX?…``.
    secret : Callable[[], bytes], optional
        Gives this user's secret: code that comes with a message is kept if this user signed it. None: it is kept, and
        whoever runs it verifies it, as always.
    folder : Path, optional
        Where ledgers are that the URL does not name; None: in this user's data directory.
    clock : Callable[[], float]
        Seconds since the epoch.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back. Where it is not the real one nothing happens in the background: each
        verb asks SQS by itself, as tests want it.
    limits : Limits
        How long a call may take.

    Raises
    ------
    QueueUnavailable
        Where SQS cannot be asked, or its queue is missing and must not be made; the sentence says what to do.
    NotSupported
        Where boto3 is missing.
    """

    capabilities = frozenset((Capability.SQL, Capability.DURABLE, Capability.CANCEL))

    def __init__(
        self,
        url: str | Address,
        *,
        secret: Callable[[], bytes] | None = None,
        folder: Path | None = None,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        limits: Limits = Limits(),  # noqa: B008 - a frozen value
    ):
        self.address = address = url if isinstance(url, Address) else read(url)
        #: What people call it.
        self.name = address.name
        self._client = Client(address, limits)
        self._queues = Queues(address, self._client)
        self._sender = Sender(address, self._client, self._queues)
        self._hand = Hand(fifo=address.fifo)
        post = Post(address, self._client, self._queues, self._sender)
        self._settler = Settler(post, self._hand, ticks)
        self._closing = threading.Lock()
        self._closed = False
        try:
            # Wrong credentials and a dead endpoint are told now, and not to the first job.
            self._queues.place("default")
            self._desk = open_desk(
                address, folder or _data_folder(), self._hand, self._settler.take, clock=clock, ticks=ticks
            )
        except BaseException:
            self._client.close()
            raise
        self._intake = Intake(post, self._desk, self._settler, secret, ticks)
        self._dispatcher = Dispatcher(post, self._desk, self._intake, clock)
        self._receivers: Receivers | None = None
        if ticks is time.monotonic:
            self._receivers = Receivers(self._intake, self._desk, self._queues, address.wait)
            self._settler.start(self._look_after)

    # -- what people see of it

    @property
    def created(self) -> bool:
        """Whether its ledger is new."""
        return self._desk.created

    @property
    def notice(self) -> str:
        """What whoever opens it should know."""
        return (
            "frames and panels show what this process has dispatched and run, out of its own ledger"
            f" {self._desk.path.name}: SQS lists no jobs, and what others run is not seen here"
        )

    @property
    def ledger(self) -> Path:
        """The file with what this process has dispatched and run."""
        return self._desk.path

    @property
    def slot_folder(self) -> Path | None:
        """Where workers note which job each slot has begun."""
        return self._desk.slot_folder

    @property
    def interrupted(self) -> list[Interruption]:
        """The jobs that ran when the process died that had this ledger before."""
        again = f"its message comes back to SQS within {self.address.visibility} s, and whoever receives it runs it"
        return [
            replace(one, reason=one.reason.replace("given back to its queue", again))
            for one in self._desk.interrupted
        ]

    @property
    def broken(self) -> bool:
        """Whether its ledger failed for good."""
        return self._desk.broken

    # -- dispatch

    def insert(self, jobs: Sequence[NewJob], worker_id: str | None = None) -> list[Claim]:
        """Send new jobs, then write them down; with ``worker_id`` that worker has them at once, and none is sent.

        Raises
        ------
        InvalidCommand
            For one that SQS does not take; then none is sent.
        PartlySentError
            Where some were sent and others were not: it says which.
        """
        self._dispatcher.check(jobs)
        if worker_id is None:
            self._dispatcher.insert(jobs)
            self._pump()
            return []
        self._hand.alone.update(job.job_id for job in jobs)
        try:
            return _capped(self._desk.insert(jobs, worker_id))
        finally:
            self._settle()

    def put_batch(self, batch: NewBatch, jobs: Sequence[NewJob]) -> Mapped:
        """Send the rows of a batch that need a job, then write the batch down.

        A row whose job is in SQS or has succeeded, in this ledger, keeps it. A row's former job is cancelled here:
        if another process receives it, it runs there.
        """
        jobs = list(jobs)
        self._dispatcher.check(jobs)
        try:
            mapped = self._dispatcher.put_batch(batch, jobs)
        finally:
            self._settle()
        self._pump()
        return mapped

    def put_code(self, code: str, blob: bytes) -> None:
        """Keep code by value under its hash; it travels with each job that needs it."""
        self._desk.put_code(code, blob)

    def get_code(self, code: str) -> bytes | None:
        """Give code by its hash, of this process or of a message that it received."""
        return self._desk.get_code(code)

    # -- workers

    def join(
        self,
        worker: WorkerInfo,
        handlers: Handlers,
        wake: Callable[[Sequence[Claim]], None],
        held: Collection[int] = (),
    ) -> None:
        """Make a worker of this process known."""
        self._desk.join(worker, handlers, lambda claims: wake(_capped(claims)), held)
        self._settle()
        if self._receivers is not None:
            self._receivers.look(around=False)

    def turn(
        self, worker_id: str, reports: Sequence[Report], slots: int, handlers: Handlers | None = None
    ) -> Turn:
        """Write reports down, renew the lease, and claim what is in hand; SQS is told soon after."""
        if self._receivers is None:
            queues, room = self._desk.room_of(worker_id, slots, reports)
            self._draw(queues, room)
        turn = self._desk.turn(worker_id, reports, slots, handlers)
        self._pump()
        return turn._replace(claims=_capped(turn.claims))

    def leave(self, worker_id: str) -> None:
        """Forget a worker; what it still has goes to another one here, or back to SQS at once."""
        self._desk.leave(worker_id)
        self._desk.tidy()
        self._pump()

    def workers(self) -> list[WorkerInfo]:
        """The workers of this process; SQS knows of none."""
        return self._desk.workers()

    # -- what is asked of jobs

    def cancel(self, ids: Sequence[UUID], *, again: bool = False) -> list[Answer]:
        """Cancel jobs as far as this process can: it deletes what it has, and what it receives later.

        A message that waits in SQS stays there. This process deletes it when it receives it; another one runs it.
        """
        answers = self._desk.cancel(ids, again=again)
        self._settle()
        return answers

    def retry(self, ids: Sequence[UUID], fences: Sequence[int] | None = None) -> list[Answer]:
        """Send ended jobs anew, and have those that wait here run now."""
        afar = {job_id: _afar(until) for job_id, until in self._desk.waits_afar(ids).items()}
        answers = self._dispatcher.send_again(
            self._desk.drafts(ids, fences), lambda unsent: self._retry_here(ids, fences, afar | unsent)
        )
        self._pump()
        return answers

    def _retry_here(
        self, ids: Sequence[UUID], fences: Sequence[int] | None, refused: Mapping[UUID, str]
    ) -> list[Answer]:
        left = [i for i, job_id in enumerate(ids) if job_id not in refused]
        told = None if fences is None else [fences[i] for i in left]
        answers = dict(zip(left, self._desk.retry([ids[i] for i in left], told), strict=True))
        return [
            answers[i] if i in answers else Answer(job_id, done=False, reason=refused[job_id])
            for i, job_id in enumerate(ids)
        ]

    def explain(self, job_id: UUID) -> str:
        """Say in a sentence why a job is not running; "" if it is running."""
        said = self._desk.explain(job_id)
        if not said or said.startswith("delayed until") or not self._desk.is_afar(job_id):
            return said
        there = (
            "its message is in SQS, or another process has received it,"
            " and what becomes of it there is not known here"
        )
        # Others may well have workers.
        return f"{there}; in this process {said}" if said.startswith("no worker") else f"{said}; {there}"

    def pause(self, queue: str, *, paused: bool) -> None:
        """Refuse: SQS hands out what it has."""
        self._desk.add_queue("default")  # which a closed store says better
        raise NotSupported(
            f'queue "{queue}" cannot be {"paused" if paused else "resumed"}: SQS hands out what it has to whoever asks;'
            " stop the workers on it instead"
        )

    # -- what this ledger knows

    def get(self, ids: Sequence[UUID]) -> list[JobRecord]:
        """Give the records of these jobs, in this order, as far as this process has seen them."""
        return self._desk.get(ids)

    def watch(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]) -> Callable[[], None]:
        """Call ``notify`` once for each of these jobs when it has ended here."""
        return self._desk.watch(ids, notify)

    def listen(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` whenever something has changed here."""
        return self._desk.listen(notify)

    def get_batch(self, which: UUID | str) -> BatchRecord | None:
        """Give a batch that was handed in here by its id or its key."""
        return self._desk.get_batch(which)

    def count_batch(self, batch_id: UUID) -> BatchCount | None:
        """Give how many rows of such a batch stand where, as far as this process has seen."""
        return self._desk.count_batch(batch_id)

    def forget(self, selection: Selection, keep: int | None = None) -> int:
        """Remove ended jobs from the ledger; a second delivery of one is not recognised after that."""
        return self._desk.forget(selection, keep)

    def retain(self, seconds: float | None, keep: int | None = None) -> None:
        """From now on forget ended jobs this long after their end, and the oldest of more than ``keep``."""
        self._desk.retain(seconds, keep)

    def find(self, selection: Selection) -> list[UUID]:
        """Give the ids of the jobs selected, oldest first."""
        return self._desk.find(selection)

    def add_queue(self, name: str) -> None:
        """Make a queue known, and make it in SQS unless it is there."""
        if not self._closed:
            self._queues.place(name)
        self._desk.add_queue(name)

    def queues(self) -> list[QueueInfo]:
        """Every queue that this process has used, by name, with the jobs that it has seen."""
        return self._desk.queues()

    def query(
        self, sql: str, params: Sequence[object] = (), frames: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """Run one read-only SELECT over the views of the ledger and the given frames."""
        return self._desk.query(sql, params, frames)

    def close(self) -> None:
        """Give back what is in hand, tell SQS what is left to tell, and close the ledger."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        if self._receivers is not None:
            self._receivers.stop()
        try:
            for worker in self._desk.workers():
                self._desk.leave(worker.worker_id)
            self._desk.tidy()
        except QueueUnavailable as error:
            _log.warning("the ledger of %s could not be asked what is to be given back: %s", self.name, error)
        self._finish()
        self._desk.close()
        self._client.close()

    def _finish(self) -> None:
        left, why = 0, "it did not answer in time"
        try:
            left = self._settler.stop(_PATIENCE)
        except SqsTroubleError as error:
            left, why = 1, str(error)
        if left:
            _log.warning(
                "%s was not told everything (%s): some of what ended here may be delivered again, within %d s",
                self.name,
                why,
                self.address.visibility,
            )

    # -- in the background, or by each verb

    def _look_after(self) -> None:
        assert self._receivers is not None
        self._receivers.look(around=True)
        if self._hand.all():
            self._desk.tidy()

    def _settle(self) -> None:
        """Tell SQS now what is to be told, where nobody does it in the background."""
        if self._receivers is None:
            self._settler.renew()
            self._settler.flush()

    def _pump(self) -> None:
        """Bring what may run to workers with open slots, where nobody does it in the background."""
        if self._receivers is not None:
            return
        self._settle()
        for _, queues, room in self._desk.open_rooms():
            self._draw(queues, room)
        self._desk.tidy()
        self._settle()

    def _draw(self, queues: Sequence[str], room: int) -> None:
        self._settle()
        for queue in queues if room > 0 else ():
            while room > 0 and (arrivals := self._intake.receive(queue, room, 0.0)):
                room -= self._intake.take_in(arrivals)
                self._settle()


def _data_folder() -> Path:
    from platformdirs import user_data_path

    named = os.environ.get("NBQUEUE_DATA_DIR", "")
    return Path(named).expanduser() if named else user_data_path("nbqueue")


def _capped(claims: Sequence[Claim]) -> list[Claim]:
    """Let no attempt take longer than SQS hides its message."""
    return [
        claim
        if claim.timeout is not None and claim.timeout <= ATTEMPT_MAX
        else claim._replace(timeout=ATTEMPT_MAX)
        for claim in claims
    ]


def _afar(until: float) -> str:
    when = datetime.fromtimestamp(until, UTC).isoformat(sep=" ", timespec="seconds")
    return f"its message waits in SQS until {when}, and nobody can call it forward"
