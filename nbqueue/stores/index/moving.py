"""The one place where a job moves: what follows from what happened is written down, and told to who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from nbqueue.jobs import JobRecord, State
from nbqueue.lifecycle import Event, Life, Step, What, advance
from nbqueue.stores.alike import LONG_DATA, Alike
from nbqueue.stores.index import limits
from nbqueue.stores.index.held import Held
from nbqueue.stores.live import NO_WORD, LiveJob, micros

__all__ = ["Moving"]

# Every job passes here twice: a look at a member of an enum takes 0.07 us, at its value 0.2.
_PENDING, _RUNNING = State.PENDING, State.RUNNING
_SUCCEEDED, _CANCELLING, _STALE = Event.SUCCEEDED, Event.CANCELLING, Event.STALE
_WORDS = {event: event.value for event in Event}


def _last(
    before: tuple[str, str, str, str], event: Event, now: tuple[str, str, str, str]
) -> tuple[str, str, str, str]:
    """What is shown of the last attempt: its error stays until another comes, a success, or a retry by hand."""
    data, error, cause, traceback = now
    if not error and event is not _SUCCEEDED and event is not Event.RETRIED:
        _, error, _, traceback = before
    return (data, error, cause, traceback)


class Moving(Held):
    """What happens to a job, and who is told when it has ended."""

    def _happen(
        self,
        job: LiveJob,
        what: What,
        now: float,
        *,
        data: str = "",
        error: str = "",
        cause: str = "",
        traceback: str = "",
        started_at: float | None = None,
    ) -> Step:
        before = job.life
        spec = job.spec
        step = advance(before, what, spec, now=now, chance=self._chance())
        life, event, refusal, why = step
        if event is None:
            return step
        if event is _STALE:
            fence = getattr(what, "fence", None)
            self._row(job, event, now, fence=fence, cause=type(what).__name__.lower(), error=refusal)
            return step
        job.life = life
        was, (state, _, base, crashes, _, _, due_at, _, _) = before.state, life
        if before.due_at is not None and before.due_at > now:
            self.lanes.overtake(spec, before.due_at)
        # A reporter may know more exactly why an attempt failed, but not why the job ended over it.
        cause = cause if cause and why not in ("", "cancelled", "crashes") else why
        plain = not (base or crashes or cause or error or traceback)
        if plain and event is _SUCCEEDED and started_at is not None and len(data) <= LONG_DATA:
            self._write_success(job, life, now, started_at, data)
        else:
            fence = getattr(what, "fence", None)
            self._row(
                job, event, now, fence=fence, started_at=started_at, due_at=due_at,
                data=data, cause=cause, error=error, traceback=traceback,
            )  # fmt: skip
        seat = self.seats.get(job.worker) if was is _RUNNING and state is not _RUNNING else None
        if seat is not None:
            seat.claims.pop(before.fence, None)
        if started_at is not None:
            job.started_at = started_at
        if plain and event is _SUCCEEDED and not data:
            job.last = NO_WORD
        elif event is not _CANCELLING:
            job.last = _last(job.last, event, (data, error, cause, traceback))
        if was is not state:
            self._count(job, was, state)
        if state is _PENDING:
            self._wait(job)
        elif state is not _RUNNING:
            self._end(job, now)
        return step

    def _write_success(self, job: LiveJob, life: Life, now: float, started_at: float, data: str) -> None:
        """Write down what most attempts come to, by columns."""
        _, attempt, _, _, fence, tries, _, _, _ = life
        seq = self.seq
        self.seq = seq + 1
        alike = self.alike[-1] if self.alike else None
        if (
            alike is None
            or alike.seq + len(alike.jobs) != seq
            or alike.attempt != attempt
            or alike.max_attempts != tries
            or alike.event != "succeeded"
        ):
            alike = Alike(seq, "succeeded", attempt, tries)
            self.alike.append(alike)
        alike.jobs.append(job.number)
        alike.fences.append(fence)
        alike.happened.append(round(now * 1e6))
        alike.started.append(round(started_at * 1e6))
        alike.data.append(data)

    def _count(self, job: LiveJob, was: State, state: State) -> None:
        """Have the books say where it stands now."""
        counts = self.queues[job.spec.queue].counts
        counts[was] -= 1
        counts[state] += 1
        if job.batch_id is not None:
            self.books.move(job.batch_id, job.number, was, state)

    def _wait(self, job: LiveJob) -> None:
        if not job.life.held:
            self.lanes.push(job.spec, job.number, job.number, job.life.due_at)
            self.fresh = True

    def _end(self, job: LiveJob, now: float) -> None:
        job.finished_at = now
        number, last = job.number, job.last
        job_id, payload = job.job_id, job.payload
        rank = job_id.int
        self.live.pop(number, None)
        self._gone.add(number)
        self._by_id.pop(rank, None)
        self.ended[rank] = job
        if len(payload) + len(last[0]) + len(last[3]) > limits.LARGE:
            self._large.append(rank)
        # Few are waited for, and a look by a UUID runs its hash, which is Python code.
        watchers = self._watchers.pop(job_id, None) if self._watchers else None
        if watchers:
            self._told.setdefault(job_id, []).extend(watchers)
            record = job.record()
            self.calls.extend(partial(notify, record) for notify in watchers)

    def _row(
        self,
        job: LiveJob,
        event: Event,
        now: float,
        *,
        fence: int | None = None,
        started_at: float | None = None,
        due_at: float | None = None,
        data: str = "",
        cause: str = "",
        error: str = "",
        traceback: str = "",
    ) -> None:
        """Write down what happened to it."""
        _, attempt, base, crashes, _, tries, _, _, _ = job.life
        seq = self.seq
        self.seq = seq + 1
        self.rows.append(
            (seq, round(now * 1e6), _WORDS[event], job.number, fence, attempt, base + tries, base or None,
             crashes or None, None, micros(started_at), micros(due_at), data or None, cause or None, error or None,
             traceback or None, None, None, None, None, None)
        )  # fmt: skip

    # -- who waits for an end

    def watch(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]) -> None:
        """Have ``notify`` called for each of these jobs when it has ended; at once if it has."""
        ended = {job.job_id: job for job in self.jobs(ids) if job.life.state.ended}
        for job_id in ids:
            job = ended.get(job_id)
            if job is None:
                self._watchers.setdefault(job_id, []).append(notify)
            else:
                self.calls.append(partial(notify, job.record()))

    def unwatch(self, job_id: UUID, notify: Callable[[JobRecord | None], None]) -> None:
        """Take a watcher back."""
        watchers = self._watchers.get(job_id, [])
        if notify in watchers:
            watchers.remove(notify)
            if not watchers:
                del self._watchers[job_id]

    def watchers(self) -> dict[UUID, list[Callable[[JobRecord | None], None]]]:
        """Who waits for what, those included whose call waits for a commit."""
        told = self._told
        return {i: self._watchers.get(i, []) + told.get(i, []) for i in {**self._watchers, **told}}

    def rewatch(self, watchers: dict[UUID, list[Callable[[JobRecord | None], None]]]) -> None:
        """Take over the watchers of an index that this one replaces."""
        for job_id, notifies in watchers.items():
            for notify in notifies:
                self.watch((job_id,), notify)
