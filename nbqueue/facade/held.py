"""The receipts of a store's jobs that somebody in this process holds, and what they are told; keeps none alive."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable
from weakref import ref

from nbqueue.facade.receipt import JobDispatch, Source
from nbqueue.jobs import Claim, JobRecord, State
from nbqueue.store import Store

__all__ = ["HeldReceipts"]

#: So many ends are asked for at once.
_FEW = 5_000


class _Sought(JobDispatch):
    """Equal to the receipt of a job, to find that one by."""

    __slots__ = ()

    def __init__(self, job_id: uuid.UUID) -> None:
        self._id = job_id


class HeldReceipts:
    """Those that somebody holds, one a job.

    Parameters
    ----------
    store : Store
        Which has the jobs.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        #: References are equal as their receipts are, and those whose receipts are gone to themselves alone. So one
        #: that goes takes out itself, in one step and never another's that has come meanwhile. Every dispatch makes
        #: one: 0.6 us until it is gone again, in a WeakValueDictionary 4 us.
        self._held: dict[ref[JobDispatch], ref[JobDispatch]] = {}
        self._drop = self._held.pop
        #: Those that were handed out since the ends of jobs were last asked for.
        self._unfollowed: list[ref[JobDispatch]] = []
        self._kept = _FEW
        self._lock = threading.Lock()

    def keep(self, receipt: JobDispatch) -> JobDispatch:
        """Let results reach this receipt while somebody holds it; gives the one that is held already, if one is."""
        one = ref(receipt, self._drop)
        while (first := self._held.setdefault(one, one)) is not one:
            # Unless it has gone this very moment, and is equal to nothing any more.
            if (held := first()) is not None:
                # Before its receipt goes: it is noted nowhere, so it cannot take itself out.
                del one
                return held
        self._unfollowed.append(one)
        if len(self._unfollowed) > self._kept:
            # Most callers drop their receipts, and what nobody holds is not worth following.
            with self._lock:
                self._unfollowed = [one for one in self._unfollowed if one() is not None]
                self._kept = max(_FEW, 2 * len(self._unfollowed))
        return receipt

    def get(self, job_id: uuid.UUID) -> JobDispatch | None:
        """Give the receipt of a job, if somebody holds one."""
        # A process that only works holds none, and asks for every value.
        if not self._held:
            return None
        sought = _Sought(job_id)
        found = self._held.get(ref(sought))
        return None if found is None else found()

    def receipt(self, job_id: uuid.UUID, make: Callable[[], JobDispatch], source: Source) -> JobDispatch:
        """Give the receipt that somebody holds already, else a new one."""
        held = self.get(job_id)
        if held is None:
            held = self.keep(make())
        return held if held.belongs_to(source) else make().with_value_of(held)

    def follow(self) -> None:
        """Have the ends of all jobs told whose receipts somebody holds: one question, instead of one a receipt."""
        with self._lock:
            noted, self._unfollowed = self._unfollowed, []
        ids = [receipt.job_id for one in noted if (receipt := one()) is not None]
        for start in range(0, len(ids), _FEW):
            self._store.watch(ids[start : start + _FEW], self._on_end)

    def _on_end(self, record: JobRecord | None) -> None:
        # Who failed may be retried by another process, so only success is worth remembering.
        if record is not None and record.state is State.SUCCEEDED:
            receipt = self.get(record.job_id)
            if receipt is not None:
                receipt.keep_end(record)

    def retried(self, ids: Iterable[uuid.UUID]) -> None:
        """Forget how these jobs ended, as they run again."""
        for job_id in ids:
            receipt = self.get(job_id)
            if receipt is not None:
                receipt.keep_end(None)

    def on_value(self, claim: Claim, value: object) -> None:
        """Keep what a job returned here, until the store tells whether it counts."""
        receipt = self.get(claim.job_id)
        if receipt is not None:
            receipt.keep_value(claim.fence, value)
