"""What a worker may say of a job, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nbqueue.jobs import State
from nbqueue.lifecycle import Event, Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import (
    OUTPUT,
    Capability,
    LogChunk,
    Report,
    ReportKind,
    Store,
)
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    FakeWorker,
    check_books,
    events_of,
    get,
    ids,
    need,
    new_job,
)

__all__ = ["Reporting"]


class Reporting:
    """What a worker may say of a job, and what comes of it."""

    @pytest.mark.parametrize("outcome", list(Outcome), ids=str)
    @pytest.mark.parametrize("last", [False, True], ids=["more tries", "last try"])
    def test_outcome(self, store: Store, clock: FakeClock, outcome: Outcome, last: bool) -> None:  # noqa: FBT001
        """Each outcome leads where the lifecycle says, with what the worker said of it."""
        job = new_job(clock, tries=1 if last else 3, retry=RetryPolicy(backoff=(30.0,)))
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        started = clock.time() + 1.0
        clock.advance(5.0)
        good = outcome is Outcome.SUCCEEDED
        said = (
            {"result": "42"} if good else {"error": "E: x", "traceback": "T", "kinds": ("builtins.OSError",)}
        )
        assert worker.end(claim, outcome, started_at=started, finished_at=clock.time(), **said).done
        record = get(store, job)
        ends = {
            Outcome.SUCCEEDED: (State.SUCCEEDED, ""),
            Outcome.FAILED: (State.FAILED, "error"),
            Outcome.TIMED_OUT: (State.FAILED, "timeout"),
            Outcome.CRASHED: (State.FAILED, "crashed"),
            Outcome.CANCELLED: (State.CANCELLED, "cancelled"),
            Outcome.STUCK: (State.FAILED, "stuck"),
        }
        state, cause = ends[outcome]
        waits = state is State.FAILED and not last
        assert (record.state, record.cause) == (State.PENDING if waits else state, cause)
        assert (record.result, record.error, record.traceback) == (
            ("42", "", "") if good else ("", "E: x", "T")
        )
        assert (record.attempt, record.started_at) == (1, started)
        assert record.finished_at == (None if waits else clock.time())
        if waits:
            assert record.scheduled_at == clock.time() + 30.0
            assert worker.take() == []
            clock.advance(30.0)
            assert worker.take_one().attempt == 2

    @pytest.mark.parametrize("kind", list(ReportKind), ids=str)
    def test_report_kind(self, store: Store, clock: FakeClock, kind: ReportKind) -> None:
        """Each kind of report does its thing to a running job."""
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        outcome = Outcome.SUCCEEDED if kind is ReportKind.ENDED else None
        error = "PayloadUntrusted: not signed by you" if kind is ReportKind.REFUSED else ""
        assert worker.say(claim, kind, outcome=outcome, error=error).done
        record = get(store, job)
        stands = {
            ReportKind.ENDED: (State.SUCCEEDED, 1),
            ReportKind.RELEASED: (State.PENDING, 0),
            ReportKind.REFUSED: (State.PENDING, 0),
            ReportKind.NEWS: (State.RUNNING, 1),
        }
        assert (record.state, record.attempt) == stands[kind]
        again = ids(worker.take(1)) == [job.job_id]
        assert again == (kind is ReportKind.RELEASED)

    def test_refused_is_held(self, store: Store, clock: FakeClock) -> None:
        """A refused job goes to nobody until somebody retries it, and says why."""
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        worker.say(worker.take_one(), ReportKind.REFUSED, error="PayloadUntrusted: not signed by you")
        assert FakeWorker(store, "other").take() == []
        assert "not signed by you" in store.explain(job.job_id)
        (answer,) = store.retry([job.job_id])
        assert answer.done
        assert ids(worker.take()) == [job.job_id]

    def test_logs_progress_and_outputs(self, store: Store, clock: FakeClock) -> None:
        """What a job says is kept in order, while it runs and with its end."""
        need(store, Capability.SQL)
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        at = clock.time()
        worker.say(
            claim,
            ReportKind.NEWS,
            logs=(LogChunk("stdout", "one\n", at), LogChunk("stderr", "two\n", at)),
            progress='{"done":1,"total":2,"note":""}',
        )
        assert store.query("SELECT progress FROM jobs")["progress"][0] == '{"done":1,"total":2,"note":""}'
        logs = (
            LogChunk(OUTPUT, '{"text/plain":"x"}', at),
            LogChunk("log", "three \x00 ü\n", at),
            LogChunk(OUTPUT, '{"text/plain":"y"}', at),
        )
        worker.end(claim, logs=logs, progress='{"done":2}')
        frame = store.query(
            "SELECT stream, text, attempt FROM logs WHERE job_id = ? ORDER BY seq", [job.job_id]
        )
        assert list(frame["text"]) == ["one\n", "two\n", "three \x00 ü\n"]
        assert [str(stream) for stream in frame["stream"]] == ["stdout", "stderr", "log"]
        both = store.query(
            "SELECT seq, text FROM logs UNION ALL SELECT seq, mimebundle FROM outputs ORDER BY seq"
        )
        assert list(both["text"])[2:] == ['{"text/plain":"x"}', "three \x00 ü\n", '{"text/plain":"y"}']

    def test_text_that_is_no_text(self, store: Store, clock: FakeClock) -> None:
        """An error that names a file whose name is no UTF-8 is kept, and fails nobody's report."""
        job, other = new_job(clock), new_job(clock)
        store.insert([job, other])
        worker = FakeWorker(store)
        bad, good = worker.take(2)
        reports = [
            Report(bad, ReportKind.ENDED, Outcome.FAILED, error="OSError: 'caf\udce9'", traceback="\udce9"),
            Report(good, ReportKind.ENDED, Outcome.SUCCEEDED),
        ]
        assert [answer.done for answer in worker.turn(*reports).answers] == [True, True]
        assert get(store, job).state is State.FAILED
        assert get(store, other).state is State.SUCCEEDED
        check_books(store)

    def test_news_after_the_end(self, store: Store, clock: FakeClock) -> None:
        """News of a claim that is over are dropped, and the worker is told."""
        job = new_job(clock)
        store.insert([job])
        worker = FakeWorker(store)
        claim = worker.take_one()
        worker.end(claim)
        assert not worker.say(claim, ReportKind.NEWS, logs=(LogChunk("stdout", "late", clock.time()),)).done
        if Capability.SQL in store.capabilities:
            assert len(store.query("SELECT * FROM logs")) == 0

    @pytest.mark.parametrize("event", list(Event), ids=str)
    def test_event(self, store: Store, clock: FakeClock, event: Event) -> None:
        """Each event there is gets written when its thing happens."""
        need(store, Capability.SQL)
        need(store, Capability.CANCEL)
        job = new_job(clock, tries=2)
        store.insert([job])
        worker = FakeWorker(store)
        claim = None if event is Event.DISPATCHED else worker.take_one()

        def lapse() -> None:
            clock.advance(worker.info.lease + 1)
            FakeWorker(store, "other").turn()

        def stale() -> None:
            assert claim
            worker.end(claim)
            worker.end(claim, Outcome.FAILED)

        def retried() -> None:
            assert claim
            worker.end(claim)
            store.retry([job.job_id])

        def said(**what: Any) -> None:
            assert claim
            worker.say(claim, ReportKind.NEWS, **what)

        def end(outcome: Outcome, kind: ReportKind = ReportKind.ENDED) -> None:
            assert claim
            worker.say(claim, kind, outcome=outcome)

        def fail() -> None:
            end(Outcome.FAILED)
            clock.advance(2.0)
            worker.end(worker.take_one(), Outcome.FAILED)

        happen: dict[Event, Callable[[], object]] = {
            Event.DISPATCHED: lambda: None,
            Event.CLAIMED: lambda: None,
            Event.SUCCEEDED: lambda: end(Outcome.SUCCEEDED),
            Event.RETRYING: lambda: end(Outcome.FAILED),
            Event.FAILED: fail,
            Event.INTERRUPTED: lapse,
            Event.RELEASED: worker.leave,
            Event.REFUSED: lambda: end(Outcome.FAILED, ReportKind.REFUSED),
            Event.CANCELLING: lambda: store.cancel([job.job_id]),
            Event.CANCELLED: lambda: end(Outcome.CANCELLED),
            Event.RETRIED: retried,
            Event.STALE: stale,
            Event.PROGRESS: lambda: said(progress='{"done":1}'),
            Event.LOG: lambda: said(logs=(LogChunk("stdout", "x", clock.time()),)),
            Event.OUTPUT: lambda: said(logs=(LogChunk(OUTPUT, "{}", clock.time()),)),
            Event.USAGE: lambda: said(usage='{"peak_memory":1}'),
        }
        assert set(happen) == set(Event), "a new event needs its cause here"
        happen[event]()
        if event is Event.LOG:
            assert len(store.query("SELECT * FROM logs")) == 1
        else:
            assert events_of(store, job)[-1] == event.value
