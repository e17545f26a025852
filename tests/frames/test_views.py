"""The views over a ledger filled by hand: where a job stands, how long it waited and ran, what its attempts came to."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import duckdb
import pandas as pd
import pytest

from nbqueue.lifecycle import LIFECYCLE_EVENTS, STATE_AFTER, Event, Outcome
from nbqueue.stores import schema

if TYPE_CHECKING:
    from conftest import Book

#: After any day these tests run on, and before: seconds from 2026-01-01.
FAR, PAST = 3e9, -1e9


def at(seconds: float) -> pd.Timestamp:
    """The moment so many seconds into a book."""
    return pd.Timestamp(datetime(2026, 1, 1, tzinfo=UTC)) + pd.Timedelta(seconds=seconds)


def fields(row: dict[str, object], *names: str) -> tuple[object, ...]:
    """Some fields of a row, what is missing as None."""
    return tuple(None if pd.isna(row[name]) else row[name] for name in names)  # type: ignore[call-overload]


# -------------------------------------------------------------------------------------------- jobs: where they stand
def test_dispatched_job(book: Book) -> None:
    """A job that was dispatched is pending, at no attempt, and has all that was said of it."""
    batch = uuid.uuid4()
    job = book.job(5, "mail", "emails", priority=7, tries=3, metadata='{"user":1}', batch=batch, row="r1")
    row = book.view(job)
    assert fields(row, "command", "queue", "state", "status") == ("mail", "emails", "pending", "pending")
    assert fields(row, "attempt", "max_attempts", "priority", "crashes") == (0, 3, 7, 0)
    assert fields(row, "dispatched_at", "scheduled_at", "started_at", "finished_at") == (
        at(5),
        at(5),
        None,
        None,
    )
    assert fields(row, "wait_seconds", "run_seconds", "worker", "error", "cause") == (None,) * 5
    assert fields(row, "metadata", "batch_id", "row_label", "result") == ('{"user":1}', batch, "r1", None)
    assert fields(row, "arguments", "job_id") == ('{"args":[],"kwargs":{}}', book.ids[job])


@pytest.mark.parametrize(("due", "status"), [(FAR, "scheduled"), (PAST, "pending")])
def test_delayed_job(book: Book, due: float, status: str) -> None:
    """A delayed job is shown as scheduled until its time has come; its state is pending throughout."""
    row = book.view(book.job(0, due=due))
    assert fields(row, "state", "status", "scheduled_at") == ("pending", status, at(due))


def test_running_job(book: Book) -> None:
    """A running job has started when it was claimed, has waited since its dispatch, and has no run time yet."""
    job = book.job(0)
    book.claim(job, 4, "w7", tries=2)
    row = book.view(job)
    assert fields(row, "state", "status", "attempt", "max_attempts") == ("running", "running", 1, 2)
    assert fields(row, "started_at", "wait_seconds", "run_seconds", "worker") == (at(4), 4.0, None, "w7")


def test_succeeded_job(book: Book) -> None:
    """A job that succeeded has its result, waited until it was begun (not claimed), and ran from then on."""
    job = book.job(0, due=2)
    book.claim(job, 3)
    book.end(job, 9.5, started=5, data="42")
    row = book.view(job)
    assert fields(row, "state", "status", "result", "error", "cause") == (
        "succeeded",
        "succeeded",
        "42",
        None,
        None,
    )
    assert fields(row, "started_at", "finished_at", "wait_seconds", "run_seconds") == (
        at(5),
        at(9.5),
        3.0,
        4.5,
    )


def test_succeeded_with_nothing(book: Book) -> None:
    """A success without a result has none, and not its arguments instead."""
    job = book.job(0)
    book.run(job, 1, 2)
    assert fields(book.view(job), "result", "arguments") == (None, '{"args":[],"kwargs":{}}')


def test_failed_job(book: Book) -> None:
    """A job whose last attempt failed is failed, with error, cause and traceback."""
    job = book.job(0)
    book.run(job, 1, 3, Outcome.TIMED_OUT)
    row = book.view(job)
    assert fields(row, "state", "error", "cause") == ("failed", "ValueError: at 3", "timeout")
    assert fields(row, "traceback", "finished_at", "run_seconds") == ("Traceback of 3", at(3), 2.0)


@pytest.mark.parametrize(("end", "status"), [(FAR, "retrying"), (3, "pending")])
def test_retrying_job(book: Book, end: float, status: str) -> None:
    """A job between attempts is shown as retrying until its time has come, with the attempt that failed."""
    job = book.job(0, tries=2)
    book.run(job, end - 2, end, Outcome.FAILED)
    row = book.view(job)
    assert fields(row, "state", "status", "attempt", "max_attempts") == ("pending", status, 1, 2)
    assert fields(row, "scheduled_at", "started_at", "error") == (
        at(end + 10),
        at(end - 2),
        f"ValueError: at {end:g}",
    )
    assert fields(row, "finished_at", "wait_seconds", "run_seconds") == (None, None, None)


def test_second_attempt(book: Book) -> None:
    """While a second attempt runs its own start counts, its wait from the end of the backoff, the last error shows."""
    job = book.job(0, tries=2)
    book.run(job, 1, 3, Outcome.FAILED, worker="w1")  # may run again at 13
    book.claim(job, 15, "w2")
    row = book.view(job)
    assert fields(row, "state", "attempt", "worker", "error") == ("running", 2, "w2", "ValueError: at 3")
    assert fields(row, "started_at", "wait_seconds", "cause") == (at(15), 2.0, None)
    book.end(job, 20, started=16, data="1")
    row = book.view(job)
    assert fields(row, "error", "traceback", "wait_seconds", "run_seconds") == (None, None, 3.0, 4.0)


def test_error_and_traceback_are_of_one_attempt(book: Book) -> None:
    """An error without a traceback does not get an earlier attempt's."""
    job = book.job(0, tries=2)
    book.run(job, 1, 3, Outcome.FAILED)
    book.claim(job, 15)
    book.lose(job, 16, begun=True)
    assert fields(book.view(job), "error", "traceback") == ("worker went away", None)


def test_retried_by_hand(book: Book) -> None:
    """After a retry by hand a job is pending, its allowance begins anew, and the old error is gone."""
    job = book.job(0)
    book.run(job, 1, 2, Outcome.FAILED)
    book.retry(job, 50)
    row = book.view(job)
    assert fields(row, "state", "status", "attempt", "max_attempts") == ("pending", "pending", 1, 2)
    assert fields(row, "error", "traceback", "finished_at", "wait_seconds") == (None, None, None, None)
    book.run(job, 53, 55)
    assert fields(book.view(job), "attempt", "wait_seconds", "run_seconds") == (2, 3.0, 2.0)


def test_released_job(book: Book) -> None:
    """A job that was claimed ahead and given back has not started, and waited from its dispatch when it does."""
    job = book.job(0)
    book.claim(job, 1)
    book.release(job, 8)
    row = book.view(job)
    assert fields(row, "state", "status", "attempt", "started_at") == ("pending", "pending", 0, None)
    book.claim(job, 9)
    assert fields(book.view(job), "attempt", "wait_seconds") == (1, 9.0)


@pytest.mark.parametrize(("begun", "waited", "crashes"), [(True, 1.0, 1), (False, 9.0, 0)])
def test_interrupted_job(book: Book, begun: bool, waited: float, crashes: int) -> None:
    """An interrupted job is pending at once; its wait counts from there if it had begun, else from its dispatch."""
    job = book.job(0)
    book.claim(job, 1)
    book.lose(job, 8, begun=begun)
    row = book.view(job)
    assert fields(row, "state", "attempt", "crashes", "cause") == ("pending", 0, crashes, "interrupted")
    assert fields(row, "started_at", "error") == (None, "worker went away")
    book.claim(job, 9)
    assert fields(book.view(job), "wait_seconds", "crashes") == (waited, crashes)


def test_third_crash(book: Book) -> None:
    """The third death of its worker fails a job, by name; it ran from its claim, since nobody said more."""
    job = book.job(0)
    for start in (1, 11, 21):
        book.claim(job, start)
        book.lose(job, start + 5, begun=True)
    row = book.view(job)
    assert fields(row, "state", "cause", "crashes", "attempt") == ("failed", "crashes", 3, 1)
    assert fields(row, "started_at", "finished_at", "run_seconds") == (at(21), at(26), 5.0)


def test_held_job(book: Book) -> None:
    """A job that no worker may run is shown as held until somebody retries it."""
    job = book.job(0)
    book.claim(job, 1)
    book.refuse(job, 2)
    assert fields(book.view(job), "state", "status", "cause") == ("pending", "held", "untrusted")
    book.retry(job, 3)
    assert fields(book.view(job), "state", "status") == ("pending", "pending")


def test_cancelled_while_pending(book: Book) -> None:
    """A job cancelled before it ran has an end and no run."""
    job = book.job(0, tries=3)
    book.cancel(job, 6)
    row = book.view(job)
    assert fields(row, "attempt", "max_attempts") == (0, 3)
    assert fields(row, "state", "cause", "finished_at") == ("cancelled", "cancelled", at(6))
    assert fields(row, "started_at", "wait_seconds", "run_seconds") == (None, None, None)


def test_cancelled_between_attempts(book: Book) -> None:
    """A job cancelled while it waited for its second attempt shows the start of its first, and no run time."""
    job = book.job(0, tries=2)
    book.run(job, 1, 3, Outcome.FAILED)
    book.cancel(job, 60)
    assert fields(book.view(job), "state", "attempt", "started_at") == ("cancelled", 1, at(1))
    assert fields(book.view(job), "wait_seconds", "run_seconds") == (None, None)


def test_cancelled_while_running(book: Book) -> None:
    """A running job that is asked to stop shows it, and has its run time once it has."""
    job = book.job(0)
    book.claim(job, 2)
    book.cancel(job, 4)
    assert fields(book.view(job), "state", "status", "started_at") == ("running", "cancelling", at(2))
    book.end(job, 7, Outcome.CANCELLED, started=3)
    row = book.view(job)
    assert fields(row, "state", "wait_seconds", "run_seconds") == ("cancelled", 3.0, 4.0)


def test_late_report_changes_nothing(book: Book) -> None:
    """A report under a claim that was taken back is an event and moves nothing."""
    job = book.job(0)
    old = book.claim(job, 1)
    book.lose(job, 2, begun=True)
    book.claim(job, 3)
    book.end(job, 4, started=1, fence=old)
    assert fields(book.view(job), "state", "error") == ("running", "worker went away")
    assert book.query("SELECT event FROM events ORDER BY seq")["event"].tolist()[-1] == "stale"


def test_progress_is_of_this_attempt(book: Book) -> None:
    """The latest progress shows, and an earlier attempt's no more once the next has begun."""
    job = book.job(0, tries=2)
    book.claim(job, 1)
    book.say(job, 2, Event.PROGRESS, '{"done":1}')
    book.say(job, 3, Event.PROGRESS, '{"done":2}')
    assert book.view(job)["progress"] == '{"done":2}'
    book.end(job, 4, Outcome.FAILED, started=1)
    assert book.view(job)["progress"] == '{"done":2}'
    book.claim(job, 20)
    assert fields(book.view(job), "progress") == (None,)


def test_order_is_by_seq_and_not_by_time(book: Book) -> None:
    """When the clock steps back between two events, the later written one still counts."""
    job = book.job(100)
    book.run(job, 90, 80)
    assert fields(book.view(job), "state", "wait_seconds", "run_seconds") == ("succeeded", 0.0, 0.0)


# ------------------------------------------------------------------------------------------------- attempts
def test_attempts_of_one_job(book: Book) -> None:
    """Each claim is a row with its outcome; one given back before it began has no start and no run time."""
    job = book.job(0, tries=3)
    book.claim(job, 1)
    book.release(job, 2)
    book.run(job, 3, 5, Outcome.FAILED, worker="w2")
    book.claim(job, 20)
    book.lose(job, 26, begun=True)
    book.claim(job, 30)
    book.lose(job, 31, begun=False)
    book.claim(job, 40)
    book.end(job, 44, started=41)
    found = book.query("SELECT * FROM attempts ORDER BY fence")
    assert found["outcome"].tolist() == ["released", "failed", "interrupted", "interrupted", "succeeded"]
    assert found["attempt"].tolist() == [1, 1, 2, 2, 2]
    assert found["started_at"].tolist() == [pd.NaT, at(3), at(20), pd.NaT, at(41)]
    assert found["finished_at"].tolist() == [at(2), at(5), at(26), at(31), at(44)]
    assert found["run_seconds"].fillna(-1).tolist() == [-1, 2, 6, -1, 3]
    assert found["worker"].tolist() == ["w1", "w2", "w1", "w1", "w1"]
    assert found["cause"].fillna("").tolist() == ["", "error", "interrupted", "interrupted", ""]
    assert found["max_attempts"].tolist() == [3] * 5


def test_running_attempt(book: Book) -> None:
    """An attempt that runs has a start and no end; asking it to stop is no end either."""
    job = book.job(0)
    book.claim(job, 3)
    book.cancel(job, 4)
    row = book.one("SELECT * FROM attempts")
    assert fields(row, "outcome", "started_at", "finished_at", "run_seconds") == (
        "running",
        at(3),
        None,
        None,
    )


def test_refused_and_cancelled_attempts(book: Book) -> None:
    """Refused and cancelled attempts are told from failed ones."""
    first, second = book.job(0), book.job(0)
    book.claim(first, 1)
    book.refuse(first, 2)
    book.claim(second, 3)
    book.cancel(second, 4)
    book.end(second, 5, Outcome.CANCELLED, started=3)
    outcomes = book.query("SELECT outcome FROM attempts ORDER BY fence")["outcome"].tolist()
    assert outcomes == ["refused", "cancelled"]


# ------------------------------------------------------------------------------------- events, logs, outputs
def test_events(book: Book) -> None:
    """Each event is a row with the state it left the job in; log lines are not among them."""
    job = book.job(0, due=1, tries=2)
    book.claim(job, 2, "w9")
    book.say(job, 3, Event.LOG, "hello", cause="stdout")
    book.say(job, 4, Event.PROGRESS, '{"done":1}')
    book.end(job, 5, Outcome.FAILED, started=2)
    found = book.query("SELECT * FROM events ORDER BY seq")
    assert found["event"].tolist() == ["dispatched", "claimed", "progress", "retrying"]
    assert found["state"].astype(object).where(found["state"].notna(), None).tolist() == [
        "pending",
        "running",
        None,
        "pending",
    ]
    assert found["happened_at"].tolist() == [at(0), at(2), at(4), at(5)]
    assert found["due_at"].tolist() == [at(1), pd.NaT, pd.NaT, at(15)]
    assert found["attempt"].tolist() == [0, 1, 1, 1]
    assert found["worker"].fillna("").tolist() == ["", "w9", "", ""]
    assert found["data"].fillna("").tolist() == ["", "", '{"done":1}', ""]


def test_logs_and_outputs(book: Book) -> None:
    """Log lines and displays keep their attempt, stream and time, in the order they were written."""
    job = book.job(0, tries=2)
    book.claim(job, 1)
    book.say(job, 2, Event.LOG, "a\n", cause="stdout")
    book.say(job, 2, Event.LOG, "b\n", cause="stderr")
    book.end(job, 3, Outcome.FAILED, started=1)
    book.claim(job, 20)
    book.say(job, 21, Event.LOG, "c\n", cause="log")
    book.say(job, 22, Event.OUTPUT, '{"text/plain":"x"}')
    logs = book.query("SELECT * FROM logs ORDER BY seq")
    assert logs[["attempt", "stream", "text"]].values.tolist() == [
        [1, "stdout", "a\n"],
        [1, "stderr", "b\n"],
        [2, "log", "c\n"],
    ]
    assert logs["written_at"].tolist() == [at(2), at(2), at(21)]
    shown = book.one("SELECT * FROM outputs")
    assert fields(shown, "attempt", "mimebundle", "shown_at", "job_id") == (
        2,
        '{"text/plain":"x"}',
        at(22),
        book.ids[job],
    )


# ------------------------------------------------------------------------------------------------- as a whole
def test_every_event_is_covered(book: Book) -> None:
    """Whatever the last event of a job is, the view shows the state that the lifecycle says it leaves."""
    for number, event in enumerate(LIFECYCLE_EVENTS):
        job = book.job(0)
        if event is not Event.DISPATCHED:
            book._row(1, event, job, fence=number, attempt=1, max_attempts=1)
    found = book.query("SELECT state FROM jobs ORDER BY number")["state"].tolist()
    assert found == [STATE_AFTER[event] for event in LIFECYCLE_EVENTS]
    assert len(found) == 11


def test_types(book: Book) -> None:
    """States, statuses and outcomes are enums with all their words, times have their zone, even in an empty file."""
    jobs = book.query("SELECT state, status, dispatched_at, finished_at FROM jobs")
    assert jobs["state"].cat.categories.tolist() == ["pending", "running", "succeeded", "failed", "cancelled"]
    assert set(jobs["status"].cat.categories) == {
        *("pending", "scheduled", "retrying", "held", "running"),
        *("cancelling", "succeeded", "failed", "cancelled"),
    }
    assert str(jobs["dispatched_at"].dtype) == str(jobs["finished_at"].dtype) == "datetime64[us, UTC]"
    outcome = book.query("SELECT outcome FROM attempts")["outcome"]
    assert outcome.cat.categories.tolist() == [
        *("running", "succeeded", "failed", "cancelled", "interrupted", "released", "refused"),
    ]


def test_names() -> None:
    """The lists of names are those of what is made."""
    with duckdb.connect() as connection:
        for statement in (*schema.TABLES, *schema.VIEWS):
            connection.execute(statement)
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    assert {name for (name,) in views} == set(schema.VIEW_NAMES)
    assert {name for (name,) in tables} == set(schema.TABLE_NAMES)
