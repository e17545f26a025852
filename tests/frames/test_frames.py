"""The frames: which rows in which order, of which types, full and empty."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from nbqueue import frames
from nbqueue.errors import InvalidCommand
from nbqueue.jobs import State
from nbqueue.lifecycle import Event, Outcome
from nbqueue.store import Selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Book

START = 1_767_225_600
#: Of the jobs of a book, in the order of their dispatch.
IDS = tuple(uuid.UUID(int=(0x7 << 76) | (0x2 << 62) | number) for number in range(6))
BATCH = uuid.UUID(int=77)
TEXT = pd.Series(["x"]).dtype


def at(seconds: float) -> pd.Timestamp:
    """The moment so many seconds into a book."""
    return pd.Timestamp(datetime(2026, 1, 1, tzinfo=UTC)) + pd.Timedelta(seconds=seconds)


@pytest.fixture
def filled(book: Book) -> Book:
    """Six jobs: 0 succeeded, 1 failed, 2 running, 3 scheduled, 4 cancelled, 5 pending."""
    book.run(book.job(0, "mail", "emails"), 10, 12)
    book.run(book.job(100, "load", "imports", batch=BATCH), 110, 140, Outcome.FAILED)
    book.claim(book.job(200, "mail", "emails", metadata='{"user":{"id":7}}'), 201, "w2")
    book.job(300, "load", "imports", due=3e9)
    book.cancel(book.job(400, "load", "imports", batch=BATCH), 401)
    book.job(500, "mail", "emails")
    return book


def numbers(book: Book, frame: pd.DataFrame) -> list[int]:
    """Which jobs these are."""
    return [book.ids.index(uuid.UUID(job_id)) for job_id in frame["job_id"]]


# ------------------------------------------------------------------------------------------------------ jobs
def test_jobs_newest_first(filled: Book) -> None:
    """All jobs, the one dispatched last first."""
    assert numbers(filled, frames.jobs(filled)) == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("limit", [0, 1, 4, 6, 100])
def test_jobs_limit(filled: Book, limit: int) -> None:
    """A limit keeps the newest."""
    assert numbers(filled, frames.jobs(filled, None, limit)) == [5, 4, 3, 2, 1, 0][:limit]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(ids=(IDS[1], IDS[4])), [4, 1]),
        (Selection(ids=(uuid.uuid4(),)), []),
        (Selection(ids=()), []),
        (Selection(ids=IDS[:2] * 30), [1, 0]),
        (Selection(states=(State.FAILED, State.CANCELLED)), [4, 1]),
        (Selection(states=()), []),
        (Selection(queues=("imports",)), [4, 3, 1]),
        (Selection(queues=("imports", "emails")), [5, 4, 3, 2, 1, 0]),
        (Selection(queues=()), []),
        (Selection(commands=("mail",)), [5, 2, 0]),
        (Selection(commands=("it's",)), []),
        (Selection(batch_id=BATCH), [4, 1]),
        (Selection(fingerprint="ValueError"), [1]),
        (Selection(fingerprint="Value"), []),
        (Selection(since=START + 400), [5, 4]),
        (Selection(finished_before=START + 141), [1, 0]),
        (Selection(finished_before=START + 140), [0]),
        (Selection(queues=("imports",), states=(State.PENDING,)), [3]),
        (Selection(ids=IDS, batch_id=BATCH, since=START + 200), [4]),
    ],
)
@pytest.mark.parametrize("limit", [None, 1, 10])
def test_every_field_of_a_selection(
    filled: Book, selection: Selection, expected: list[int], limit: int | None
) -> None:
    """Each field narrows, alone and with others, and a limit counts what is left."""
    found = frames.jobs(filled, selection, limit)
    assert numbers(filled, found) == expected[:limit]


def test_no_field_is_forgotten() -> None:
    """A field that a selection gets later fails here until the frames honour it."""
    assert set(Selection.__dataclass_fields__) == {
        *("ids", "states", "queues", "commands", "batch_id", "since", "finished_before", "fingerprint"),
    }


@pytest.mark.parametrize(
    ("states", "status", "expected"),
    [
        (None, "scheduled", [3]),
        (None, "pending", [5]),
        (None, "running", [2]),
        (None, ("scheduled", "failed"), [3, 1]),
        (None, "held", []),
        ((State.PENDING,), "scheduled", [3]),
        ((State.PENDING, State.FAILED), {"scheduled"}, [3, 1]),
        ((State.PENDING, State.RUNNING), ("cancelling",), []),
    ],
)
def test_status(filled: Book, states: tuple[State, ...] | None, status: object, expected: list[int]) -> None:
    """A status narrows to those shown as it, and leaves other states that were asked for whole."""
    if states == (State.PENDING, State.RUNNING):
        expected = [5, 3]
    found = frames.jobs(filled, Selection(states=states), status=status)  # type: ignore[arg-type]
    assert numbers(filled, found) == expected


def test_unknown_status(filled: Book) -> None:
    """A status that does not exist is refused, naming those that do."""
    with pytest.raises(InvalidCommand, match="no status 'done'; there is pending, running"):
        frames.jobs(filled, status="done")


def test_jobs_values(filled: Book) -> None:
    """A row says what the job is, with metadata as a dict of its own and texts that are missing as missing."""
    row = frames.jobs(filled).set_index("job_id").loc[str(filled.ids[2])]
    assert row[["command", "queue", "state", "status", "worker"]].tolist() == [
        "mail",
        "emails",
        *["running"] * 2,
        "w2",
    ]
    assert row[["attempt", "max_attempts", "priority", "crashes"]].tolist() == [1, 1, 0, 0]
    assert row[["dispatched_at", "scheduled_at", "started_at"]].tolist() == [at(200), at(200), at(201)]
    assert row["finished_at"] is pd.NaT
    assert row["wait_seconds"] == 1.0
    assert row["metadata"] == {"user": {"id": 7}}
    assert row[["run_seconds", "error", "cause", "batch_id", "row_label"]].isna().all()
    assert frames.jobs(filled)["metadata"].tolist()[0] is None


def test_metadata_with_tags(book: Book) -> None:
    """Metadata comes back as it went, dates too; what cannot be read here stays text."""
    book.job(0, metadata='{"day":{"$nbq":"date","v":"2026-01-31"}}')
    odd = '{"x":{"$nbq":"nobody-knows","v":1}}'
    book.job(1, metadata=odd)
    unread, read = frames.jobs(book)["metadata"]
    assert read == {"day": datetime(2026, 1, 31, tzinfo=UTC).date()}
    assert unread == odd


# ------------------------------------------------------------------------------------------ attempts, events
def test_attempts_newest_first(filled: Book) -> None:
    """Attempts come newest first, with their outcome; the jobs never claimed have none."""
    found = frames.attempts(filled)
    assert numbers(filled, found) == [2, 1, 0]
    assert found["outcome"].tolist() == ["running", "failed", "succeeded"]
    assert found["run_seconds"].fillna(-1).tolist() == [-1, 30, 2]
    assert found["error"].fillna("").tolist() == ["", "ValueError: at 140", ""]
    assert numbers(filled, frames.attempts(filled, None, 1)) == [2]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(ids=(IDS[1],)), [1]),
        (Selection(states=(State.SUCCEEDED,)), [0]),
        (Selection(queues=("emails",)), [2, 0]),
        (Selection(commands=("load",)), [1]),
        (Selection(batch_id=BATCH), [1]),
        (Selection(since=START + 200), [2]),
        (Selection(finished_before=START + 50), [0]),
    ],
)
def test_attempts_of_selected_jobs(filled: Book, selection: Selection, expected: list[int]) -> None:
    """Every field selects the jobs whose attempts are given, and whose events are."""
    assert numbers(filled, frames.attempts(filled, selection)) == expected
    claimed = frames.events(filled, selection)
    assert numbers(filled, claimed[claimed["event"] == "claimed"]) == expected


def test_events_newest_first(filled: Book) -> None:
    """Events come newest first, with data decoded."""
    filled.say(2, 600, Event.PROGRESS, '{"done":3,"total":9,"note":""}')
    found = frames.events(filled, None, 3)
    assert found["event"].tolist() == ["progress", "dispatched", "cancelled"]
    assert found["data"].tolist() == [{"done": 3, "total": 9, "note": ""}, None, None]
    assert found["happened_at"].tolist() == [at(600), at(500), at(401)]
    assert found["state"].isna().tolist() == [True, False, False]


# ----------------------------------------------------------------------------------------------------- types
JOBS = {
    **dict.fromkeys(("job_id", "error", "batch_id", "row_label"), TEXT),
    **dict.fromkeys(("command", "queue", "state", "status", "worker", "fingerprint", "cause"), "category"),
    **dict.fromkeys(("attempt", "max_attempts", "priority", "crashes"), "int64"),
    **dict.fromkeys(("dispatched_at", "scheduled_at", "started_at", "finished_at"), "datetime64[us, UTC]"),
    **dict.fromkeys(("wait_seconds", "run_seconds"), "float64"),
    **dict.fromkeys(("metadata", "progress"), "object"),
}
ATTEMPTS = {
    **dict.fromkeys(("job_id", "error", "traceback"), TEXT),
    **dict.fromkeys(("command", "queue", "outcome", "worker", "fingerprint", "cause", "exit"), "category"),
    **dict.fromkeys(("attempt", "max_attempts"), "int64"),
    **dict.fromkeys(("claimed_at", "started_at", "finished_at"), "datetime64[us, UTC]"),
    **dict.fromkeys(("run_seconds", "cpu_seconds"), "float64"),
    "peak_memory": "Int64",
}
FAILURES = {
    **dict.fromkeys(("fingerprint", "error", "job_id"), TEXT),
    **dict.fromkeys(("jobs", "commands"), "int64"),
    **dict.fromkeys(("first_at", "last_at"), "datetime64[us, UTC]"),
    "command": "category",
}
EVENTS = {
    **dict.fromkeys(("job_id", "error"), TEXT),
    **dict.fromkeys(("command", "queue", "event", "state", "worker", "cause"), "category"),
    **dict.fromkeys(("seq", "attempt"), "int64"),
    **dict.fromkeys(("happened_at", "due_at"), "datetime64[us, UTC]"),
    "data": "object",
}
COUNTS = dict.fromkeys(("succeeded", "failed", "cancelled"), "int64")
LEVELS = dict.fromkeys(("pending", "running", "pending_max", "running_max"), "int64")
LATENCY = {
    "command": "category",
    "jobs": "int64",
    **dict.fromkeys(("wait_p50", "wait_p95", "wait_p99", "run_p50", "run_p95", "run_p99"), "float64"),
}
TIMELINE = {
    "job_id": TEXT,
    **dict.fromkeys(("command", "queue", "outcome", "worker"), "category"),
    **dict.fromkeys(("attempt", "lane"), "int64"),
    **dict.fromkeys(("started_at", "finished_at"), "datetime64[us, UTC]"),
    "run_seconds": "float64",
}
STATS = {"queue": "category", **dict.fromkeys((*State, "waiting"), "int64"), "paused": "bool"}


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize(
    ("make", "types"),
    [
        (frames.jobs, JOBS),
        (frames.attempts, ATTEMPTS),
        (frames.events, EVENTS),
        (frames.failures, FAILURES),
        (frames.throughput, COUNTS),
        (frames.backlog, LEVELS),
        (frames.latency, LATENCY),
        (frames.timeline, TIMELINE),
        (frames.stats, STATS),
    ],
)
def test_types(
    request: pytest.FixtureRequest, full: bool, make: Callable[[Book], pd.DataFrame], types: dict[str, object]
) -> None:
    """Columns and types are as documented, whether there are rows or none."""
    frame = make(request.getfixturevalue("filled" if full else "book"))
    assert {name: frame[name].dtype for name in frame} == types
    if make in {frames.throughput, frames.backlog}:
        assert frame.index.dtype == "datetime64[us, UTC]"
    for name in frame.select_dtypes("category"):
        assert frame[name].cat.categories.dtype == TEXT


def test_types_do_not_depend_on_the_rows(book: Book) -> None:
    """Columns in which everything is missing keep their types."""
    book.job(0)
    frame = frames.jobs(book)
    assert {name: frame[name].dtype for name in frame} == JOBS


# ------------------------------------------------------------------------------------------------- summaries
def test_stats(filled: Book) -> None:
    """A row a queue, by name, with every state; the paused one says so."""
    filled.paused.add("imports")
    found = frames.stats(filled)
    assert found.columns.tolist() == ["queue", *State, "waiting", "paused"]
    assert found.values.tolist() == [
        ["default", 0, 0, 0, 0, 0, 0, False],
        ["emails", 1, 1, 1, 0, 0, 0, False],
        ["imports", 1, 0, 0, 1, 1, 1, True],
    ]


def test_throughput(book: Book) -> None:
    """Ends are counted by the minute they fall in, minutes without any are 0, and attempts that go on are no ends."""
    book.run(book.job(0), 1, 59.9)
    book.run(book.job(0), 1, 60, Outcome.FAILED)
    book.run(book.job(0), 1, 61)
    book.run(book.job(0, tries=2), 1, 62, Outcome.FAILED)
    book.cancel(book.job(0), 240)
    found = frames.throughput(book)
    assert found.index.tolist() == [at(0), at(60), at(120), at(180), at(240)]
    assert found["succeeded"].tolist() == [1, 1, 0, 0, 0]
    assert found["failed"].tolist() == [0, 1, 0, 0, 0]
    assert found["cancelled"].tolist() == [0, 0, 0, 0, 1]
    assert found.attrs["every"] == 60


def test_throughput_counts_each_end(book: Book) -> None:
    """A job that is retried by hand and ends again counts again."""
    job = book.job(0)
    book.run(job, 1, 2, Outcome.FAILED)
    book.retry(job, 3)
    book.run(job, 4, 5)
    assert frames.throughput(book).values.tolist() == [[1, 1, 0]]


def test_throughput_from_when(book: Book) -> None:
    """With ``since`` the frame begins there, whatever came before, and whether or not a job ended just then."""
    for end in (10, 130, 190):
        book.run(book.job(0), 1, end)
    found = frames.throughput(book, "1min", START + 60)
    assert found.index.tolist() == [at(60), at(120), at(180)]
    assert found["succeeded"].tolist() == [0, 1, 1]
    assert frames.throughput(book, 60, START + 500).empty


@pytest.mark.parametrize(
    ("every", "rows"), [("10s", 6), (30, 2), ("1min", 1), ("2 min", 1), ("1h", 1), (None, 12)]
)
def test_throughput_every(book: Book, every: float | str | None, rows: int) -> None:
    """A stretch may be given in many ways, or be picked: 59 s of few jobs fit in 24 rows of at least 2.5, so 5 s."""
    for end in (0, 59):
        book.run(book.job(0), 0, end)
    assert len(frames.throughput(book, every)) == rows


def test_throughput_of_too_many_rows(book: Book) -> None:
    """An interval that would give millions of rows is refused, with their number."""
    for end in (0, 100_000):
        book.run(book.job(0), 0, end)
    with pytest.raises(InvalidCommand, match="10,000,000 rows; take a longer one"):
        frames.throughput(book, 0.01)
    with pytest.raises(InvalidCommand, match="every"):
        frames.throughput(book, "often")


def test_backlog(book: Book) -> None:
    """Pending and running rise and fall with every kind of event."""
    first, second, third = book.job(0.5), book.job(0.6, tries=2), book.job(0.7, due=500)
    book.claim(first, 1.5)
    book.claim(second, 1.6)
    book.end(first, 2.5, started=1.5)
    book.end(second, 2.6, Outcome.FAILED, started=1.6)
    book.cancel(third, 3.5)
    book.claim(second, 4.5)
    book.cancel(second, 4.6)
    book.end(second, 4.7, Outcome.CANCELLED, started=4.5)
    found = frames.backlog(book, 1)
    assert found.index.tolist() == [at(n) for n in range(6)]
    assert found["pending"].tolist() == [0, 3, 1, 2, 1, 0]
    assert found["running"].tolist() == [0, 0, 2, 0, 0, 0]
    assert found["pending_max"].tolist() == [0, 3, 3, 2, 2, 1]
    assert found["running_max"].tolist() == [0, 0, 2, 2, 0, 1]


def test_backlog_of_given_back_jobs(book: Book) -> None:
    """What is released, lost or refused is pending again."""
    for n, give_back in enumerate((book.release, lambda j, t: book.lose(j, t, begun=True), book.refuse)):
        job = book.job(n)
        book.claim(job, n + 0.1)
        give_back(job, n + 0.2)
    assert frames.backlog(book, 1).iloc[-1][["pending", "running"]].tolist() == [3, 0]


def test_backlog_of_retries_by_hand(book: Book) -> None:
    """Retrying an ended job lets it wait again; retrying one that waits already adds nothing."""
    ended, waiting = book.job(0), book.job(0, due=500)
    book.run(ended, 1, 2)
    book.retry(waiting, 3.5)
    book.retry(ended, 4.5)
    assert frames.backlog(book, 1)["pending"].tolist() == [0, 2, 1, 1, 1, 2]


def test_backlog_from_when(book: Book) -> None:
    """With ``since`` the first row holds what had come together before."""
    for when in (0, 0.5, 7.5):
        book.job(when)
    found = frames.backlog(book, 1, START + 6)
    assert found.index.tolist() == [at(6), at(7), at(8)]
    assert found["pending"].tolist() == [2, 2, 3]
    assert found["pending_max"].tolist() == [2, 2, 3]


def test_latency(book: Book) -> None:
    """Quantiles by command, busiest first; jobs that never ran are left out."""
    for wait in (1, 2, 3):
        book.run(book.job(0, "load"), wait, 10 + wait)
    book.run(book.job(0, "mail"), 4, 4.5, Outcome.FAILED)
    book.cancel(book.job(0, "mail"), 9)
    found = frames.latency(book)
    assert found["command"].tolist() == ["load", "mail"]
    assert found["jobs"].tolist() == [3, 1]
    # Between the sorted values 1, 2, 3: the 95 % point lies 0.9 of the way from 2 to 3.
    assert found.iloc[0][["wait_p50", "wait_p95", "wait_p99"]].tolist() == pytest.approx([2, 2.9, 2.98])
    assert found.iloc[0][["run_p50", "run_p95", "run_p99"]].tolist() == [10, 10, 10]
    assert found.iloc[1][["wait_p50", "run_p50"]].tolist() == [4, 0.5]
    assert frames.latency(book, Selection(commands=("mail",)))["command"].tolist() == ["mail"]


def test_timeline_lanes(book: Book) -> None:
    """Attempts of one worker that overlap have lanes of their own; a lane is free as soon as its attempt ends."""
    for start, end, worker in ((0, 10, "a"), (2, 4, "a"), (4, 6, "a"), (5, 7, "a"), (5, 9, "b")):
        book.run(book.job(0), start, end, worker=worker)
    running = book.job(0)
    book.claim(running, 11, "a")
    book.claim(book.job(0), 12, "a")
    found = frames.timeline(book)
    assert found["worker"].tolist() == ["a", "a", "a", "a", "b", "a", "a"]
    assert found["lane"].tolist() == [0, 1, 1, 2, 0, 0, 1]
    assert found["finished_at"].isna().tolist() == [False] * 5 + [True] * 2
    assert found.attrs["of"] == 7


def test_timeline_keeps_the_newest(book: Book) -> None:
    """A limit keeps the newest attempts that began, and says of how many."""
    for start in range(5):
        book.run(book.job(0), start, start + 0.5)
    given_back = book.job(0)
    book.claim(given_back, 6)
    book.release(given_back, 7)
    found = frames.timeline(book, None, 2)
    assert found["started_at"].tolist() == [at(3), at(4)]
    assert found.attrs["of"] == 5
