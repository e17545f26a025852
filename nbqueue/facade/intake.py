"""Hands checked jobs to a store, and keeps what of them only lives in this process; checks and encodes nothing."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakValueDictionary

from nbqueue import payload
from nbqueue.errors import QueueUnavailable
from nbqueue.facade.copies import Copies
from nbqueue.facade.held import HeldReceipts
from nbqueue.facade.preparing import Prepared, specs_of
from nbqueue.handlers.handler import Handler
from nbqueue.jobs import Claim, JobRecord, NewBatch, NewJob
from nbqueue.store import Mapped, Store

__all__ = ["Calls", "Live", "RowValues"]

#: The arguments of jobs as they are.
Calls = dict[uuid.UUID, tuple[tuple[Any, ...], dict[str, Any]]]


class RowValues(dict[uuid.UUID, tuple[int, object]]):
    """What rows of a batch returned in this process that no store could keep, with the fence of their claim."""

    __slots__ = ("__weakref__",)


class Live:
    """What is known of a store's jobs only while this process lives; shared by all who use that store here.

    The arguments and results that JSON has no word for are handed over as they are, and code that other processes
    need is put into the store once.

    Parameters
    ----------
    store : Store
        Which is handed the jobs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.receipts = HeldReceipts(store)
        self._copies = Copies(store)
        self._calls: Calls = {}
        #: Of batches that somebody holds, the values that no store could keep.
        self._values: WeakValueDictionary[uuid.UUID, RowValues] = WeakValueDictionary()
        self._lock = threading.Lock()

    def insert(self, prepared: Sequence[Prepared]) -> None:
        """Hand checked jobs to the store; on disk when this returns."""
        calls: Calls = {}
        offer = self._copies.offer
        for job, call, _ in prepared:
            offer(job.spec, call.handler)
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
        if not self._copies.are_there(job.spec, call.handler):
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
            self._copies.offer(spec, handler)
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

    def row_values(self, batch_id: uuid.UUID) -> RowValues:
        """Give where a batch's values go that cannot be stored, for as long as somebody holds it."""
        with self._lock:
            return self._values.setdefault(batch_id, RowValues())

    def on_unstored(self, claim: Claim, value: object) -> None:
        """Keep what a row returned here, since no store can."""
        values = None if claim.batch_id is None else self._values.get(claim.batch_id)
        if values is not None:
            values[claim.job_id] = (claim.fence, value)
