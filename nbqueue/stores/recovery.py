"""What a store does about workers that have died: when it opens, and while it is open; knows no thread.

Who lives is asked of the slot files. Jobs of a worker whose process lives go on: it keeps a seat, as somebody who is
away, and has one full lease to come back. All others' jobs are given back at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from nbqueue.jobs import Claim
from nbqueue.lifecycle import Lost
from nbqueue.slots import begun_claims, is_alive
from nbqueue.store import Handlers
from nbqueue.stores.engine import Interruption
from nbqueue.stores.index import Index
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.live import LiveJob, Seat

__all__ = ["SlotFolder", "bury", "recover"]


class SlotFolder:
    """The slot files beside a queue file."""

    def __init__(self, path: Path):
        self.path = path

    def file(self, worker_id: str) -> Path:
        """The slot file of a worker, whether or not there is one."""
        return self.path / f"{worker_id}.slots"

    def is_alive(self, worker_id: str) -> bool | None:
        """Whether a worker's process lives; None where that cannot be told."""
        return is_alive(self.file(worker_id))

    def begun(self, worker_id: str) -> frozenset[int] | None:
        """What a worker had begun, by fence; None where it left no slot file."""
        file = self.file(worker_id)
        return frozenset(begun_claims(file)) if file.exists() else None

    def sweep(self) -> None:
        """Remove the files of workers whose process has gone, and of those of which nobody can tell."""
        for file in self.path.glob("*.slots"):
            if not is_alive(file):
                file.unlink(missing_ok=True)
        # A process was killed while it made one. Where nobody can tell, it may be at it.
        for file in self.path.glob("*.slots.new"):
            if is_alive(file) is False:
                file.unlink(missing_ok=True)


def recover(
    ledger: Ledger, index: Index, before: Index | None, slots: SlotFolder, *, now: float, ticks: float
) -> list[Interruption]:
    """Fill an empty index with what is not ended, and seat who works on it; gives what was interrupted.

    Parameters
    ----------
    ledger : Ledger
        What is on disk.
    index : Index
        Takes it.
    before : Index | None
        The one that this one replaces, whose last commit failed.
    slots : SlotFolder
        Tells who lives, and what the others had begun.
    now, ticks : float
        The time, and the time by the clock of leases.
    """
    recovered = ledger.recover(index, now)
    if before is not None:
        # One whose joining was not kept has to join again.
        index.seats = {i: seat for i, seat in before.seats.items() if seat.number < index.worker}
    for seat in index.seats.values():
        seat.claims.clear()
    for worker_id, (number, info) in recovered.workers.items():
        if worker_id not in index.seats and slots.is_alive(worker_id):
            seat = Seat(info, number, Handlers(), _tell_nobody, ticks + info.lease)
            seat.away = True
            index.seats[worker_id] = seat
    begun = frozenset(begun_claims(slots.path))
    interrupted = []
    for job in recovered.running:
        holder, fence = index.seats.get(job.worker), job.life.fence
        if holder is not None and before is not None and fence > before.settled_fence:
            # The commit that failed was on disk nevertheless, and its answers were not given.
            index.give_back(job, now)
        elif holder is not None:
            holder.claims[fence] = job
            holder.doubtful.add(fence)
        else:
            killed = slots.is_alive(job.worker) is False
            interrupted.append(_interrupt(job, index, begun, now, killed=killed))
    return interrupted


def _tell_nobody(_claims: Sequence[Claim]) -> None:
    """Wake somebody who is away."""


def _interrupt(
    job: LiveJob, index: Index, begun: Collection[int], now: float, *, killed: bool
) -> Interruption:
    life, worker = job.life, job.worker or "its worker"
    had_begun = life.fence in begun
    error = (
        f"worker {worker} went away while the job ran (its kernel or process was killed)"
        if had_begun
        else f"worker {worker} went away before the job was begun"
    )
    what = Lost(life.fence, had_begun)
    step = index.lose(job, what, now, error=error, cause="killed" if killed else "")
    became = "failed" if step.life.state.ended else "given back to its queue"
    return Interruption(
        job.job_id,
        job.spec.command,
        job.spec.queue,
        job.worker,
        life.attempt,
        had_begun,
        f"{error}; {became}",
    )


def bury(index: Index, worker_ids: Collection[str], slots: SlotFolder, now: float) -> list[str]:
    """Take the seats and jobs of those of these workers whose process has gone; gives who they were."""
    buried = []
    for worker_id in worker_ids:
        seat = index.seats.get(worker_id)
        if seat is None or slots.is_alive(worker_id) is not False:
            continue
        error = f"worker {worker_id} went away (its kernel or process was killed)"
        index.bury(seat, slots.begun(worker_id), now, error=error, cause="killed")
        # What it says is needed until all this is on disk.
        index.calls.append(partial(slots.file(worker_id).unlink, missing_ok=True))
        buried.append(worker_id)
    return buried
