"""What people ask of jobs: that they stop, or that they run again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from uuid import UUID

from nbqueue.jobs import State
from nbqueue.lifecycle import CancelAsked, Event, RetryAsked
from nbqueue.store import Answer
from nbqueue.stores.index.moving import Moving
from nbqueue.stores.live import LiveJob

__all__ = ["Asking"]


class Asking(Moving):
    """Cancelling and retrying."""

    def cancel(self, ids: Sequence[UUID], now: float, *, again: bool = False) -> list[Answer]:
        """Cancel pending jobs, and mark running ones; asked ``again``, what is cancelled is done."""
        done = self._standing(ids, lambda job: job.life.state is State.CANCELLED) if again else ()
        return self._ask(ids, CancelAsked(), now, done)

    def retry(self, ids: Sequence[UUID], now: float, fences: Sequence[int] | None = None) -> list[Answer]:
        """Let ended jobs run again; of those whose fences are given, only what has not moved on since."""
        if fences is None:
            return self._ask(ids, RetryAsked(), now)
        seen = dict(zip(ids, fences, strict=True))

        def is_done(job: LiveJob) -> bool:
            life = job.life
            ready = life.state is State.PENDING and life.due_at is None and not life.held
            return ready or life.fence != seen[job.job_id]

        return self._ask(ids, RetryAsked(), now, self._standing(ids, is_done))

    def _standing(self, ids: Sequence[UUID], fits: Callable[[LiveJob], bool]) -> set[UUID]:
        return {job.job_id for job in self.jobs(ids) if fits(job)}

    def _ask(
        self, ids: Sequence[UUID], what: CancelAsked | RetryAsked, now: float, done: Collection[UUID] = ()
    ) -> list[Answer]:
        found = {job.job_id: job for job in self.jobs(ids)}
        answers = []
        for job_id in ids:
            if job_id in done:
                answers.append(Answer(job_id, done=True))
                continue
            job = found.get(job_id)
            if job is None:
                answers.append(Answer(job_id, done=False, reason="there is no such job"))
                continue
            if isinstance(what, RetryAsked) and job.life.state.ended:
                self.ended.pop(job_id.int, None)
                self._gone.discard(job.number)
            self.keep(job)
            step = self._happen(job, what, now)
            if step.event is None and job.life.state.ended:
                self._drop(job)
            elif step.event is Event.CANCELLING:
                seat = self.seats.get(job.worker)
                if seat is not None:
                    self.calls.append(partial(seat.wake, ()))
            answers.append(Answer(job_id, not step.refusal, step.refusal))
        return answers
