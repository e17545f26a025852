"""What an index is made of: a live job, a worker's seat, a queue's books; knows no verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from nbqueue.jobs import Claim, JobRecord, NewJob, Spec, State
from nbqueue.lifecycle import Life
from nbqueue.store import Handlers, WorkerInfo

__all__ = ["NO_WORD", "LiveJob", "Loader", "Numbers", "PendingRow", "QueueState", "Row", "Seat", "micros"]

#: One row of the ledger, in the order of ``schema.COLUMNS``.
Row = tuple[Any, ...]
#: A pending job as it is loaded, its number first; ``loading.job_of`` makes a job of it.
PendingRow = tuple[Any, ...]
#: A ``NewJob``, or its parts alone.
NewParts = tuple[UUID, Spec, str, str, float | None, UUID | None, str | None]


#: How an attempt ended of which there is nothing to say: a result, an error, a cause and a traceback.
NO_WORD: tuple[str, str, str, str] = ("", "", "", "")


def micros(at: float | None) -> int | None:
    """Seconds since the epoch as the ledger's microseconds."""
    return None if at is None else round(at * 1e6)


class LiveJob:
    """A job that is loaded: where it stands, what it is, and how its last attempt went.

    It has what its ``NewJob`` says, and not that object: the garbage collector looks at all objects the more often, the
    more of them live on, and of each job there are four already.
    """

    __slots__ = (
        "batch_id",
        "dispatched_at",
        "due_at",
        "finished_at",
        "job_id",
        "last",
        "life",
        "metadata",
        "number",
        "payload",
        "progress",
        "row",
        "spec",
        "spec_number",
        "started_at",
        "worker",
    )

    def __init__(self, number: int, new: NewParts, spec_number: int, dispatched_at: float, life: Life):
        self.number = number
        self.job_id, self.spec, self.payload, self.metadata, self.due_at, self.batch_id, self.row = new
        self.spec_number = spec_number
        self.dispatched_at = dispatched_at
        self.life = life
        self.worker = ""
        self.started_at: float | None = None
        self.finished_at: float | None = None
        #: (result, error, cause, traceback) of the last attempt that ended.
        self.last = NO_WORD
        self.progress = ""

    @property
    def new(self) -> NewJob:
        """What it was handed in as."""
        return NewJob(
            self.job_id, self.spec, self.payload, self.metadata, self.due_at, self.batch_id, self.row
        )

    def record(self) -> JobRecord:
        """Give what is known of it, for people."""
        life, spec = self.life, self.spec
        result, error, cause, trace = self.last
        due_at = life.due_at if life.due_at is not None else self.due_at
        tries = life.max_attempts if life.attempt else (spec.tries or 1)
        return JobRecord(
            job_id=self.job_id,
            spec=spec,
            state=life.state,
            attempt=life.attempt,
            max_attempts=tries,
            crashes=life.crashes,
            fence=life.fence,
            dispatched_at=self.dispatched_at,
            scheduled_at=due_at if due_at is not None else self.dispatched_at,
            started_at=self.started_at,
            finished_at=self.finished_at if life.state.ended else None,
            worker=self.worker,
            # Of a failed attempt the same field holds its fingerprint.
            result=result if life.state is State.SUCCEEDED else "",
            error=error,
            cause=cause,
            traceback=trace,
            payload=self.payload,
            metadata=self.metadata,
            cancelling=life.cancelling,
            batch_id=self.batch_id,
            row=self.row,
        )


class Seat:
    """A worker that has joined: what it can run, what it holds, and how much more it would take."""

    __slots__ = (
        "accepted",
        "away",
        "claims",
        "doubtful",
        "gone",
        "handlers",
        "info",
        "lease_until",
        "number",
        "slots",
        "wake",
    )

    def __init__(
        self,
        info: WorkerInfo,
        number: int,
        handlers: Handlers,
        wake: Callable[[Sequence[Claim]], None],
        lease_until: float,
    ):
        self.info = info
        self.number = number
        self.wake = wake
        self.lease_until = lease_until
        self.slots = 0
        #: Its claims by fence.
        self.claims: dict[int, LiveJob] = {}
        #: It joined with an owner before this one, and has not come back yet.
        self.away = False
        #: Fences that it brought along and that are its own no longer.
        self.gone: set[int] = set()
        #: Fences of claims whose latest log lines may be on disk, though their worker does not know.
        self.doubtful: set[int] = set()
        self.use(handlers)

    def use(self, handlers: Handlers) -> None:
        """Take other handlers."""
        self.handlers = handlers
        self.accepted: dict[tuple[str, str, str], bool] = {}

    def claim_of(self, job: LiveJob) -> Claim:
        """Give what it is told of a job that it has."""
        _, attempt, base, _, fence, tries, _, _, _ = job.life
        spec = job.spec
        timeout = spec.timeout if spec.timeout is not None else self.info.timeout
        # Past the constructor of NamedTuples, which is Python code: 0.3 us instead of 0.6.
        return tuple.__new__(
            Claim,
            (
                job.job_id,
                fence,
                attempt,
                base + tries,
                timeout,
                spec,
                job.payload,
                job.metadata,
                job.batch_id,
                job.row,
            ),
        )


class QueueState:
    """A queue's switch and its books."""

    __slots__ = ("counts", "paused")

    def __init__(self, *, paused: bool = False):
        self.paused = paused
        self.counts: dict[State, int] = dict.fromkeys(State, 0)


class Loader(Protocol):
    """Where jobs come from that are not in memory."""

    def pending(self, numbers: Sequence[int], longest: int | None = None) -> list[PendingRow]:
        """Those of these jobs that nothing has happened to since their dispatch; none with a longer payload."""

    def jobs(self, ids: Sequence[UUID]) -> list[LiveJob]:
        """These jobs, wherever they stand."""

    def known(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these ids are taken."""

    def knows_between(self, first: UUID, last: UUID) -> bool:
        """Whether any id from ``first`` to ``last`` is taken."""


class Numbers(NamedTuple):
    """Where the ever-rising numbers go on."""

    seq: int = 1
    job: int = 1
    worker: int = 1
    epoch: int = 1
