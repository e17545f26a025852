"""The Store contract: a dozen verbs on jobs, each taking and returning batches; knows no implementation.

A store keeps jobs, hands them to workers and applies what workers report. It never runs anything. Every verb may be
called from any thread and is idempotent, so that a call whose answer was lost is simply made again: ids are made by
the caller, reports carry a fence, and a worker that has lost its connection joins again first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID

from nbqueue.jobs import BatchRecord, Claim, JobRecord, NewBatch, NewJob, Spec, State
from nbqueue.lifecycle import Outcome

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "OUTPUT",
    "Answer",
    "Capability",
    "Handlers",
    "LogChunk",
    "Mapped",
    "QueueInfo",
    "Report",
    "ReportKind",
    "Selection",
    "Store",
    "Turn",
    "WorkerInfo",
]


class Capability(StrEnum):
    """What a store may or may not be able to do; what is missing raises ``NotSupported``."""

    ALL_OR_NONE = "all_or_none"
    PRIORITY = "priority"
    CANCEL = "cancel"
    PAUSE = "pause"
    SQL = "sql"
    #: What was acknowledged survives ``kill -9``.
    DURABLE = "durable"
    #: A job is seen and steered whoever has it, and wherever it waits.
    EVERYWHERE = "everywhere"


@dataclass(frozen=True, slots=True)
class Handlers:
    """Which jobs a worker can run: its handlers by name and origin, and the code it trusts by hash."""

    #: Names any job without an origin may use.
    commands: frozenset[str] = frozenset()
    #: (command, origin) of functions and Job classes.
    owned: frozenset[tuple[str, str]] = frozenset()
    #: Hashes of code by value that was verified.
    code: frozenset[str] = frozenset()
    #: Take everything; for tests and tools.
    everything: bool = False

    def accepts(self, spec: Spec) -> bool:
        """Whether a job of this spec can run here."""
        if self.everything:
            return True
        if not spec.origin:
            return spec.command in self.commands
        return (spec.command, spec.origin) in self.owned or (bool(spec.code) and spec.code in self.code)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """Who works, where and on what."""

    #: Unique for ever: a restarted worker has another.
    worker_id: str
    #: None: every queue.
    queues: tuple[str, ...] | None = None
    concurrency: int = 1
    executor: str = "thread"
    host: str = ""
    pid: int = 0
    #: For jobs that name none.
    tries: int = 1
    timeout: float | None = None
    #: Seconds without a turn after which its jobs are given to others.
    lease: float = 15.0


#: The stream of what a job displays.
OUTPUT = "output"


class LogChunk(NamedTuple):
    """What a job wrote or displayed, in the order it did."""

    #: "stdout", "stderr", "log", or ``OUTPUT``.
    stream: str
    #: Of a display its JSON text, see ``payload.bundles``.
    text: str
    #: Seconds since the epoch.
    at: float


class ReportKind(StrEnum):
    """What a worker may say of a claim."""

    #: It ran to an end.
    ENDED = "ended"
    #: It is given back, run or not.
    RELEASED = "released"
    #: It may not be run here.
    REFUSED = "refused"
    #: Still running: logs and progress so far.
    NEWS = "news"


class Report(NamedTuple):
    """What a worker says of one claim."""

    claim: Claim
    kind: ReportKind
    outcome: Outcome | None = None
    started_at: float | None = None
    finished_at: float | None = None
    #: ``payload.encode`` of the result, "" for None.
    result: str = ""
    #: "KeyError: 'x'".
    error: str = ""
    #: Dotted names of the error's classes.
    kinds: tuple[str, ...] = ()
    #: A cause more exact than the outcome's: "killed (SIGKILL)", "out of memory" …
    cause: str = ""
    traceback: str = ""
    #: What failures of the same kind have in common: "KeyError at clean.py:88 in clean"; "" where it did not fail.
    fingerprint: str = ""
    #: What it wrote and displayed, in one order.
    logs: tuple[LogChunk, ...] = ()
    #: JSON text {"done":…, "total":…, "note":…}, "" for no news.
    progress: str = ""
    #: What it took, as JSON text {"peak_memory": bytes, "cpu_seconds":…, "exit": "SIGSEGV"}; any may be missing.
    usage: str = ""


class Answer(NamedTuple):
    """What came of one request about one job."""

    job_id: UUID
    done: bool
    #: Why not, as a sentence; "" where it was done.
    reason: str = ""


class Turn(NamedTuple):
    """What a worker gets for its report: how each was taken, what to run next, what to stop."""

    answers: Sequence[Answer]
    claims: Sequence[Claim]
    #: Fences of this worker's claims that somebody wants cancelled.
    cancels: Sequence[int]
    #: Seconds until a delayed job of its queues may be due; None: none waits.
    next_due: float | None
    #: Specs with pending jobs in its queues that its handlers do not accept.
    unknown: Sequence[Spec] = ()
    #: The store no longer knows this worker: its lease ran out, and it must join again.
    expired: bool = False


class Mapped(NamedTuple):
    """What became of a batch that was handed in."""

    batch: BatchRecord
    #: The positions of the rows that were left as they are: a job with the same arguments has them.
    left: Sequence[int] = ()


class BatchCount(NamedTuple):
    """How many rows a batch has, and where they stand."""

    total: int
    #: By state; every state is there. Rows whose jobs were forgotten are in ``total`` alone.
    states: Mapping[State, int]


class QueueInfo(NamedTuple):
    """A queue and how it stands."""

    name: str
    paused: bool
    #: Jobs by state; every state is there. Pending ones that wait for their time are in ``waiting`` too.
    counts: Mapping[State, int]
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs; every field narrows it, an empty one selects all."""

    ids: tuple[UUID, ...] | None = None
    states: tuple[State, ...] | None = None
    queues: tuple[str, ...] | None = None
    commands: tuple[str, ...] | None = None
    batch_id: UUID | None = None
    #: Whose latest failure has this fingerprint.
    fingerprint: str | None = None
    #: Dispatched at or after this, seconds since the epoch.
    since: float | None = None
    #: Finished before this, seconds since the epoch.
    finished_before: float | None = None


class Store(Protocol):
    """Where jobs are kept."""

    #: What people call it: a path or a URL without its password.
    name: str
    capabilities: frozenset[Capability]

    def insert(self, jobs: Sequence[NewJob], worker_id: str | None = None) -> list[Claim]:
        """Take new jobs, all or none; they are durable when this returns. A job of a known id is left as it is.

        With ``worker_id`` that worker, which has joined, gets them at once, and nobody else does. Sent again, it gives
        that worker what it holds of these jobs already, and what of them is pending.
        """

    def put_batch(self, batch: NewBatch, jobs: Sequence[NewJob]) -> Mapped:
        """Take the rows of a batch, all or none and in one commit; a batch of a known id is left as it is.

        The ids of its jobs are new, unless the very call is sent again.

        If a batch has this ``key`` already, it stays that batch, with its id, and has these rows now. A row (its label
        is ``NewJob.row``) whose latest job in it has the same payload and neither failed nor was cancelled keeps that
        job. The other rows get theirs, and an unfinished one that these replace is cancelled.

        Raises
        ------
        InvalidCommand
            If the batch of that key is of another command, or of another handler of that name.
        """

    def get_batch(self, which: UUID | str) -> BatchRecord | None:
        """Give a batch by its id or its key, None where there is none or all its jobs were forgotten."""

    def count_batch(self, batch_id: UUID) -> BatchCount | None:
        """Give how many rows of a batch stand where, None where ``get_batch`` has none; it is cheap."""

    def put_code(self, code: str, blob: bytes) -> None:
        """Keep code by value under its hash; durable when this returns."""

    def get_code(self, code: str) -> bytes | None:
        """Give code by its hash, None where nobody put any."""

    def join(
        self,
        worker: WorkerInfo,
        handlers: Handlers,
        wake: Callable[[Sequence[Claim]], None],
        held: Collection[int] = (),
    ) -> None:
        """Make a worker known, or have it come back after a lost connection or to a new owner of the file.

        ``wake`` is called (from any thread; it must be quick) with jobs claimed for it meanwhile, out of the slots that
        its last turn left open, or with nothing, which means: take a turn.

        ``held`` are the fences of the claims that it has. Those that are still its own stay its own. What is not its
        own any more is among the cancels of its turns until it has reported on it. Claims of this worker that it does
        not hold, since the answer that gave them was lost, are given back at once, not begun.
        """

    def turn(
        self, worker_id: str, reports: Sequence[Report], slots: int, handlers: Handlers | None = None
    ) -> Turn:
        """Record what a worker reports, renew its lease, and claim up to ``slots`` jobs for it, in one commit.

        Slots left open stay open until its next turn. ``handlers`` replaces what it joined with.

        A report that was applied already is answered as done again, and nothing is written. One under a claim that was
        taken back is refused, and recorded.
        """

    def leave(self, worker_id: str) -> None:
        """Forget a worker; what it still has is given back."""

    def get(self, ids: Sequence[UUID]) -> list[JobRecord]:
        """Give the records of these jobs, in this order; unknown ones are left out."""

    def watch(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]) -> Callable[[], None]:
        """Call ``notify`` once for each of these jobs when it has ended, at once if it has; gives a way to stop that.

        It is called with None if the store broke, and can never tell.

        ``notify`` is called from any thread and must be quick. A job that is retried by hand is not watched on.
        """

    def listen(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` whenever something has changed that people can see; gives a way to stop that.

        It is called from any thread, once for what one commit changed, and must be quick. It is called as well when
        the store broke.
        """

    def cancel(self, ids: Sequence[UUID], *, again: bool = False) -> list[Answer]:
        """Cancel pending jobs, ask running ones to stop.

        With ``again`` the call may have been heard before: what is cancelled already is done.
        """

    def retry(self, ids: Sequence[UUID], fences: Sequence[int] | None = None) -> list[Answer]:
        """Let ended jobs run again and waiting ones run now.

        ``fences``, one a job, are those of the records that the caller saw, and make the call safe to send again: a job
        that was claimed since, or is ready to be, is answered as done and left alone.
        """

    def forget(self, selection: Selection, keep: int | None = None) -> int:
        """Remove ended jobs with all their history; gives how many this very call removed.

        With ``keep`` so many of all ended jobs stay, those that ended last.
        """

    def retain(self, seconds: float | None, keep: int | None = None) -> None:
        """From now on forget ended jobs this long after their end, and the oldest where there are more than ``keep``.

        None: no such limit. It is done now and then: a tenth longer, or a tenth more, may be there for a while.
        """

    def find(self, selection: Selection) -> list[UUID]:
        """Give the ids of the jobs selected, oldest first."""

    def explain(self, job_id: UUID) -> str:
        """Say in a sentence why a job is not running; "" if it is running."""

    def add_queue(self, name: str) -> None:
        """Make a queue known."""

    def pause(self, queue: str, *, paused: bool) -> None:
        """Stop handing out a queue's jobs, or go on; survives a restart."""

    def queues(self) -> list[QueueInfo]:
        """Every queue, by name."""

    def workers(self) -> list[WorkerInfo]:
        """The workers that are here now."""

    def query(
        self,
        sql: str,
        params: Sequence[object] = (),
        frames: Mapping[str, pd.DataFrame] = field(default_factory=dict),
    ) -> pd.DataFrame:
        """Run one read-only SELECT over the views ``jobs, attempts, events, logs, outputs`` and the given frames."""

    def close(self) -> None:
        """Write what is left, and let go of everything."""
