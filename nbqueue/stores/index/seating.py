"""Workers come and go: their seats, their leases, and what becomes of the jobs of those that are gone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from nbqueue.lifecycle import Lost, Released, Step
from nbqueue.store import WorkerInfo
from nbqueue.stores.index.moving import Moving
from nbqueue.stores.live import LiveJob, Seat

__all__ = ["Seating"]


class Seating(Moving):
    """Who works, and for how long nobody need doubt it."""

    def join(
        self, seat_of: Callable[[int], Seat], info: WorkerInfo, held: Collection[int], now: float
    ) -> None:
        """Seat a worker, anew if it has a seat: what it has got and does not hold is given back."""
        before = self.seats.get(info.worker_id)
        if before is None:
            number = self.worker
            self.worker = number + 1
            self.new_workers.append((number, info, now))
            seat = seat_of(number)
        else:
            seat = seat_of(before.number)
            seat.claims = before.claims
            # Its open slots were of a turn whose answer it may not have got.
            self.calls.append(partial(seat.wake, ()))
        self.seats[info.worker_id] = seat
        for fence, job in list(seat.claims.items()):
            if fence not in held:
                self._happen(job, Released(fence), now)
        seat.doubtful = set(seat.claims)
        seat.gone = set(held) - seat.doubtful

    def leave(self, worker_id: str, now: float) -> None:
        """Unseat a worker; what it holds is given back."""
        seat = self.seats.pop(worker_id, None)
        if seat is not None:
            for fence in list(seat.claims):
                self._happen(seat.claims[fence], Released(fence), now)

    def lapse(self, now: float, ticks: float, begun: Callable[[str], Collection[int] | None]) -> None:
        """Take the jobs of workers whose lease has run out; ``ticks`` is by the clock of leases."""
        for worker_id, seat in list(self.seats.items()):
            if seat.lease_until < ticks:
                error = f"worker {worker_id} was silent for longer than its lease of {seat.info.lease:g} s"
                self.bury(seat, begun(worker_id), now, error=error, cause="lease expired")

    def bury(self, seat: Seat, begun: Collection[int] | None, now: float, *, error: str, cause: str) -> None:
        """Take a worker's seat and its jobs; ``begun`` are the fences of those that it had begun, if that is known."""
        del self.seats[seat.info.worker_id]
        if begun is None:
            # It runs them in the order it got them: those after its first few were only claimed ahead.
            begun = list(seat.claims)[: seat.info.concurrency]
        for fence, job in list(seat.claims.items()):
            self._happen(job, Lost(fence, fence in begun), now, error=error, cause=cause)
        self.calls.append(partial(seat.wake, ()))

    def lengthen_leases(self, seconds: float) -> None:
        """Give every worker so much longer: nobody could be heard meanwhile."""
        for seat in self.seats.values():
            seat.lease_until += seconds

    def lose(self, job: LiveJob, what: Lost, now: float, *, error: str, cause: str) -> Step:
        """Take a job from a worker that is gone."""
        return self._happen(job, what, now, error=error, cause=cause)

    def give_back(self, job: LiveJob, now: float) -> None:
        """Take a job from a worker that does not know that it has it."""
        self._happen(job, Released(job.life.fence), now)
