"""What a worker says of its claims: that an attempt has ended, what it has said so far, or that it gives one back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nbqueue.jobs import State
from nbqueue.lifecycle import Ended, Event, Refused, Released, What
from nbqueue.store import OUTPUT, Answer, Report, ReportKind
from nbqueue.stores.index.moving import Moving
from nbqueue.stores.live import LiveJob
from nbqueue.stores.repeats import Closing, is_repeated

__all__ = ["Closings", "Reporting"]

#: Gives what ended the claims that a call reports on, by fence.
Closings = Callable[[], Mapping[int, Closing]]

# Every job passes here: a look at a member of an enum takes 0.07 us, and a NamedTuple is made in Python code.
_new = tuple.__new__
_RUNNING = State.RUNNING
_ENDED, _NEWS = ReportKind.ENDED, ReportKind.NEWS


class Reporting(Moving):
    """What comes of reports."""

    def apply(self, reports: Sequence[Report], now: float, closings: Closings) -> list[Answer]:
        """Take what a worker says of its claims; ``closings`` is asked where one is not its own any more."""
        return [self._apply(report, now, closings) for report in reports]

    def _apply(self, report: Report, now: float, closings: Closings) -> Answer:
        (
            claim, kind, outcome, started_at, finished_at, result, error, kinds, cause, traceback, fingerprint,
            logs, progress, usage,
        ) = report  # fmt: skip
        job_id, fence = claim.job_id, claim.fence
        job = self.live.get(self._by_id.get(job_id.int, -1))
        held = job is not None and job.life.fence == fence and job.life.state is _RUNNING
        if not held and kind is not _NEWS and is_repeated(report, closings().get(fence)):
            return Answer(job_id, done=True)
        if job is None:
            return self._stale(report, now)
        if held and (logs or progress or usage):
            self._write_news(job, report, now)
        what: What
        if kind is _ENDED:
            assert outcome is not None
            what = _new(Ended, (fence, outcome, kinds))
        elif kind is ReportKind.RELEASED:
            what = Released(fence)
        elif kind is ReportKind.REFUSED:
            what = Refused(fence)
        else:
            return Answer(job_id, held, "" if held else "the claim was taken back")
        _, _, refusal, _ = self._happen(
            job,
            what,
            now if finished_at is None else finished_at,
            data=result or fingerprint,
            error=error,
            cause=cause,
            traceback=traceback,
            started_at=started_at,
        )
        return _new(Answer, (job_id, not refusal, refusal))

    def _stale(self, report: Report, now: float) -> Answer:
        """Record that a report came for a job that has ended and left, or was never here."""
        job = self.ended.get(report.claim.job_id.int) or next(iter(self._load((report.claim.job_id,))), None)
        if job is None:
            return Answer(report.claim.job_id, done=False, reason="there is no such job any more")
        refusal = f"the job is {job.life.state.value}, not running"
        if report.kind is not ReportKind.NEWS:
            self._row(job, Event.STALE, now, fence=report.claim.fence, cause=report.kind.value, error=refusal)
        return Answer(report.claim.job_id, done=False, reason=refusal)

    def _write_news(self, job: LiveJob, report: Report, now: float) -> None:
        fence = report.claim.fence
        for stream, text, at in report.logs:
            if stream == OUTPUT:
                self._row(job, Event.OUTPUT, at, fence=fence, data=text)
            else:
                self._row(job, Event.LOG, at, fence=fence, cause=stream, data=text)
        if report.progress:
            job.progress = report.progress
            self._row(job, Event.PROGRESS, now, fence=fence, data=report.progress)
        if report.usage:
            self._row(job, Event.USAGE, now, fence=fence, data=report.usage)
