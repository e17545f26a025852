"""From what a user hands in to what a store takes: checks, encodes, and keeps what only lives in this process."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
import weakref
from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, cast
from weakref import WeakValueDictionary

from nbqueue import payload
from nbqueue.errors import InvalidCommand, NbqueueError, QueueUnavailable
from nbqueue.facade.receipt import JobDispatch, Source
from nbqueue.handlers.handler import Handler, Kind
from nbqueue.handlers.registry import Call, to_call
from nbqueue.ids import JobIds, new_job_ids, new_packed_ids
from nbqueue.jobs import Claim, JobRecord, NewBatch, NewJob, Options, Spec, State
from nbqueue.retry import RetryPolicy
from nbqueue.rows import Rows
from nbqueue.secret import load_secret
from nbqueue.store import Mapped, Store

__all__ = [
    "CODE_MAX",
    "Calls",
    "Live",
    "Prepared",
    "RowValues",
    "encode_arguments",
    "new_ids",
    "packed_ids",
    "prepare",
    "specs_of",
]

#: The arguments of jobs as they are.
Calls = dict[uuid.UUID, tuple[tuple[Any, ...], dict[str, Any]]]

#: A larger copy of a function drags data along that it should be given as an argument.
CODE_MAX = 8 * 1024 * 1024
#: Code that no job refers to stays in a store for a day after it was put there, so it is put again before that.
CODE_SECONDS = 6 * 3_600.0

#: So many ends are asked for at once.
_FEW = 5_000
_NO_RETRY = RetryPolicy()
#: Bytes of randomness that are fetched at once, for this many ids of ten.
_AHEAD = 10 * 256


class Prepared(NamedTuple):
    """One job, checked and encoded, with what it was made of."""

    job: NewJob
    call: Call
    metadata: Mapping[str, object]

    def receipt(self, source: Source, now: float) -> JobDispatch:
        """Give its receipt."""
        job = self.job
        return JobDispatch(
            job.job_id,
            job.spec.command,
            job.spec.queue,
            scheduled_at=now if job.due_at is None else job.due_at,
            metadata=self.metadata,
            source=source,
        )


def prepare(
    works: Sequence[object], given: Options | None, *, queue: str | None, default_queue: str, now: float
) -> list[Prepared]:
    """Check and encode what a user hands in; nothing is written.

    Parameters
    ----------
    works : sequence
        Whatever ``to_call`` takes.
    given : Options, optional
        Said at dispatch; wins over what the work says of itself.
    queue : str, optional
        The queue it is handed to, for work that names none.
    default_queue : str
        Where neither names one.
    now : float
        Seconds since the epoch.

    Raises
    ------
    InvalidCommand
        For what cannot be dispatched or stored, by its name.
    """
    ids = new_ids(len(works), now)
    return [
        _prepare(job_id, to_call(work), given, queue or default_queue, now)
        for job_id, work in zip(ids, works, strict=True)
    ]


class _Ids:
    """Makes the ids of this process, each greater than all before."""

    def __init__(self) -> None:
        self._last: uuid.UUID | None = None
        self.forget()

    def forget(self) -> None:
        """Let go of what a fork has as well, and of a lock that one of its other threads may have held."""
        self._lock = threading.Lock()
        #: Randomness that was fetched ahead: asking for it gives the GIL up, which takes 32 threads longer than an id.
        self._ahead, self._at = b"", 0

    def make(self, count: int, now: float) -> list[uuid.UUID]:
        """Make so many, for work that is handed in now."""
        size = 10 * count
        with self._lock:
            if size > _AHEAD:
                randomness = os.urandom(size)
            else:
                if self._at + size > len(self._ahead):
                    self._ahead, self._at = os.urandom(_AHEAD), 0
                at = self._at
                self._at = end = at + size
                randomness = self._ahead[at:end]
            made = new_job_ids(count, now=now, randomness=randomness, after=self._last)
            self._last = made[-1] if made else self._last
        return made

    def make_packed(self, count: int, now: float) -> JobIds:
        """Make so many, 16 bytes each."""
        randomness = os.urandom(10 + 8 * count)
        with self._lock:
            made = new_packed_ids(count, now=now, randomness=randomness, after=self._last)
            self._last = made[-1] if made else self._last
        return made


_ids = _Ids()
new_ids, packed_ids = _ids.make, _ids.make_packed
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.forget)


def _prepare(job_id: uuid.UUID, call: Call, given: Options | None, queue: str, now: float) -> Prepared:
    options = call.options if given is None else given.over(call.options)
    spec = Spec(
        call.command,
        options.queue or queue,
        options.priority or 0,
        call.origin,
        call.code,
        options.tries,
        options.timeout,
        options.retry or _NO_RETRY,
    )
    due_at = options.scheduled_at
    if due_at is None and options.delay:
        due_at = now + options.delay
    metadata = options.metadata
    text = _encode_metadata(call.command, metadata) if metadata else ""
    arguments = encode_arguments(call.command, tuple(call.args), call.kwargs)
    return Prepared(NewJob(job_id, spec, arguments, text, due_at), call, metadata)


def encode_arguments(command: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Give the arguments of a call as text; signed where a part of them must be pickled."""
    try:
        return payload.encode_call(args, kwargs)
    except InvalidCommand:
        # Only what must be pickled needs the secret, and most never make one.
        try:
            return payload.encode_call(args, kwargs, key=load_secret(), context=command)
        except InvalidCommand as error:
            raise InvalidCommand(f"{command}: {error}") from error


def _encode_metadata(command: str, metadata: Mapping[str, object]) -> str:
    try:
        return payload.encode(dict(metadata), what="metadata")
    except InvalidCommand as error:
        raise InvalidCommand(f"{command}: {error}") from error


class _Held(weakref.ref[JobDispatch]):
    """A receipt that somebody may hold, and whose it is."""

    __slots__ = ("job_id",)

    job_id: uuid.UUID


class _Receipts:
    """The receipts that somebody holds, by the ids of their jobs.

    As a ``WeakValueDictionary``, which takes 4 us to put one in and to see it go, for 1: every dispatch makes one.
    """

    __slots__ = ("_drop", "_held")

    def __init__(self) -> None:
        held: dict[uuid.UUID, _Held] = {}

        def drop(one: weakref.ref[JobDispatch]) -> None:
            # Unless another has taken its place: in one step, as a WeakValueDictionary does, since threads interrupt.
            _remove_dead_weakref(held, cast("_Held", one).job_id)

        self._held, self._drop = held, drop

    def add(self, job_id: uuid.UUID, receipt: JobDispatch) -> None:
        """Note this one, unless somebody holds another of the same job."""
        held = _Held(receipt, self._drop)
        held.job_id = job_id
        before = self._held.setdefault(job_id, held)
        if before is not held and before() is None:
            self._held[job_id] = held

    def get(self, job_id: uuid.UUID) -> JobDispatch | None:
        """Give the receipt of a job, if somebody holds one."""
        held = self._held.get(job_id)
        return None if held is None else held()

    def __contains__(self, job_id: uuid.UUID) -> bool:
        return self.get(job_id) is not None


class RowValues(dict[uuid.UUID, tuple[int, object]]):
    """What rows of a batch returned in this process that no store could keep, with the fence of their claim."""

    __slots__ = ("__weakref__",)


def specs_of(jobs: Iterable[NewJob]) -> set[Spec]:
    """Give the specs of jobs; those of a batch share one, whose hash takes 0.6 us."""
    if isinstance(jobs, Rows):
        return {jobs.spec} if jobs else set()
    return {spec for spec, _ in groupby(map(attrgetter("spec"), jobs))}


class Live:
    """What is known of a store's jobs only while this process lives; shared by all who use that store here.

    The arguments and results that JSON has no word for are handed over as they are, and code that other processes
    need is put into the store once.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calls: Calls = {}
        #: Of batches that somebody holds, the values that no store could keep.
        self._values: WeakValueDictionary[uuid.UUID, RowValues] = WeakValueDictionary()
        self._receipts = _Receipts()
        #: Of receipts that were handed out since the ends of jobs were last asked for, the numbers of their ids: an id
        #: is an object that each full collection of garbage looks at, and of 100,000 jobs these were half of all.
        self._unfollowed: list[int] = []
        self._kept = _FEW
        #: Hashes of code that was put there, or cannot be, and until when it need not be put again.
        self._code: dict[str, float] = {}
        self._lock = threading.Lock()

    def insert(self, prepared: Sequence[Prepared]) -> None:
        """Hand checked jobs to the store; on disk when this returns."""
        calls: Calls = {}
        for job, call, _ in prepared:
            self._offer_code(job.spec, call.handler)
            if payload.needs_pickle(job.payload):
                calls[job.job_id] = (tuple(call.args), dict(call.kwargs))
        jobs = [item.job for item in prepared]
        if not calls:
            self._store.insert(jobs)
            return
        with self._lent(calls):
            self._store.insert(jobs)

    def insert_soon(
        self, prepared: Prepared, tell: Callable[[BaseException | None], Callable[[], object] | None]
    ) -> bool:
        """Hand a checked job to the store while nobody waits; gives whether that can be done with this job there.

        Parameters
        ----------
        prepared : Prepared
            The job.
        tell : callable
            Is called from another thread with None when it is on disk, or with why it was not accepted. What it gives
            is called after all of that commit have been told.
        """
        job, call, _ = prepared
        soon = getattr(self._store, "insert_soon", None)
        if soon is None or payload.needs_pickle(job.payload):
            return False
        if job.spec.code and call.handler is not None and not self._is_there(job.spec.code):
            return False
        return bool(soon((job,), tell))

    def put_batch(
        self, batch: NewBatch, jobs: Sequence[NewJob], handler: Handler | None, calls: Calls
    ) -> Mapped:
        """Hand the rows of a batch to the store; on disk when this returns.

        Parameters
        ----------
        batch, jobs
            As of ``Store.put_batch``.
        handler : Handler, optional
            Of every row.
        calls : mapping
            The arguments of those jobs whose payload had to be pickled.
        """
        for spec in specs_of(jobs):
            self._offer_code(spec, handler)
        with self._lent(calls):
            mapped = self._store.put_batch(batch, jobs)
            for position in mapped.left if calls else ():
                calls.pop(jobs[position].job_id, None)
                self._calls.pop(jobs[position].job_id, None)
        return mapped

    @contextlib.contextmanager
    def _lent(self, calls: Calls) -> Iterator[None]:
        """Keep the arguments of jobs that are handed in meanwhile, until they have ended."""
        # Before a worker can ask for them.
        self._calls.update(calls)
        try:
            yield
        except BaseException:
            for job_id in calls:
                self._calls.pop(job_id, None)
            raise
        if calls:
            # They were accepted, whatever becomes of the store now.
            with contextlib.suppress(QueueUnavailable):
                self._store.watch(list(calls), self._drop_call)

    def call(self, job_id: uuid.UUID) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Give a job's arguments as they are, once: what an attempt does to them is nothing that the next may see.

        None where only their encoding is left.
        """
        return self._calls.pop(job_id, None)

    def _drop_call(self, record: JobRecord | None) -> None:
        if record is not None:
            self._calls.pop(record.job_id, None)

    def keep(self, receipt: JobDispatch) -> None:
        """Let results reach this receipt, while somebody holds it."""
        job_id = receipt.job_id
        self._receipts.add(job_id, receipt)
        self._unfollowed.append(job_id.int)
        if len(self._unfollowed) > self._kept:
            # Most callers drop their receipts, and what nobody holds is not worth following.
            with self._lock:
                self._unfollowed = [job_id.int for job_id in self._held(self._unfollowed)]
                self._kept = max(_FEW, 2 * len(self._unfollowed))

    def follow(self) -> None:
        """Have the ends of all jobs told whose receipts somebody holds: one question, instead of one a receipt."""
        with self._lock:
            numbers, self._unfollowed = self._unfollowed, []
        held = self._held(numbers)
        for start in range(0, len(held), _FEW):
            self._store.watch(held[start : start + _FEW], self._on_end)

    def _held(self, numbers: Iterable[int]) -> list[uuid.UUID]:
        """The ids of those of these whose receipts somebody holds."""
        return [job_id for number in numbers if (job_id := uuid.UUID(int=number)) in self._receipts]

    def _on_end(self, record: JobRecord | None) -> None:
        if record is None:
            return
        receipt = self._receipts.get(record.job_id)
        # Who failed may be retried by another process, so only success is worth remembering.
        if receipt is not None and record.state is State.SUCCEEDED:
            receipt.keep_end(record)

    def retried(self, ids: Iterable[uuid.UUID]) -> None:
        """Forget how these jobs ended, as they run again."""
        for job_id in ids:
            receipt = self._receipts.get(job_id)
            if receipt is not None:
                receipt.keep_end(None)

    def receipt(self, job_id: uuid.UUID, make: Callable[[], JobDispatch], source: Source) -> JobDispatch:
        """Give the receipt that somebody holds already, else a new one."""
        held = self._receipts.get(job_id)
        if held is None:
            held = make()
            self.keep(held)
            return held
        return held if held.belongs_to(source) else make().with_value_of(held)

    def on_value(self, claim: Claim, value: object) -> None:
        """Keep what a job returned here, until the store tells whether it counts."""
        receipt = self._receipts.get(claim.job_id)
        if receipt is not None:
            receipt.keep_value(claim.fence, value)

    def row_values(self, batch_id: uuid.UUID) -> RowValues:
        """Give where a batch's values go that cannot be stored, for as long as somebody holds it."""
        with self._lock:
            return self._values.setdefault(batch_id, RowValues())

    def on_unstored(self, claim: Claim, value: object) -> None:
        """Keep what a row returned here, since no store can."""
        values = None if claim.batch_id is None else self._values.get(claim.batch_id)
        if values is not None:
            values[claim.job_id] = (claim.fence, value)

    def _offer_code(self, spec: Spec, handler: Handler | None) -> None:
        if spec.code and handler is not None and not self._is_there(spec.code):
            self._put_code(spec, handler)

    def _is_there(self, code: str) -> bool:
        # A clock that was set back makes it the older, not the younger.
        left = self._code.get(code, 0.0) - time.time()
        return 0.0 < left <= CODE_SECONDS

    def _put_code(self, spec: Spec, handler: Handler) -> None:
        """Put a copy of a notebook's function there for other workers; one that cannot be copied runs only here."""
        with self._lock:
            if self._is_there(spec.code):
                return
            if handler.kind is Kind.FUNCTION and not spec.origin.startswith("module:"):
                try:
                    _, blob = payload.pack_code(handler.code_target, key=load_secret(), context=spec.code)
                except NbqueueError:
                    blob = b""
                if 0 < len(blob) <= CODE_MAX:
                    self._store.put_code(spec.code, blob)
            self._code[spec.code] = time.time() + CODE_SECONDS
