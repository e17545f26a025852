"""The quick ways to first pages, failures and what runs give exactly what the views give, whatever happened before."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbqueue import frames
from nbqueue.errors import QueueError
from nbqueue.facade.watching.closeup import ROW
from nbqueue.facade.watching.filtering import WAITING, JobFilter
from nbqueue.facade.watching.following import Following
from nbqueue.frames import columns, summaries
from nbqueue.jobs import State
from nbqueue.lifecycle import Event, Outcome
from nbqueue.store import QueueInfo, Selection
from tests.frames.conftest import Book

if TYPE_CHECKING:
    import pandas as pd

ENDS = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.CANCELLED)
SELECTIONS = (
    Selection(),
    Selection(queues=("q1",)),
    Selection(commands=("mail", "load"), queues=("q0", "q1")),
    Selection(since=1_767_225_600 + 60),
    *(Selection(states=(state,)) for state in State),
    Selection(states=(State.FAILED, State.CANCELLED), commands=("mail",)),
    Selection(states=(State.PENDING, State.RUNNING), queues=("q0",)),
    Selection(states=()),
    Selection(fingerprint="ValueError"),
)


class Story(Book):
    """A history that a seed tells: dispatches, attempts of every end, retries by hand, and jobs that were pruned."""

    def __init__(self, seed: int, steps: int) -> None:
        super().__init__()
        self.dice = random.Random(seed)
        self.gone: set[int] = set()
        self.at = 0.0
        for _ in range(steps):
            self.at += self.dice.uniform(0.5, 9)
            self.step()

    def step(self) -> None:
        """Have one thing happen."""
        here = [number for number in range(len(self.ids)) if number not in self.gone]
        if not here or self.dice.random() < 0.25:
            due = self.at + 50 if self.dice.random() < 0.2 else None
            names = (self.dice.choice(("mail", "load", "it's")), self.dice.choice(("q0", "q1")))
            self.job(self.at, *names, due=due, tries=self.dice.choice((None, 3)))
            return
        job = self.dice.choice(here)
        life = self.lives[job]
        if life.state is State.RUNNING:
            self.go_on(job)
        elif life.state.ended:
            self.retry(job, self.at) if self.dice.random() < 0.5 else self.prune(job)
        elif life.held or (life.due_at is not None and self.dice.random() < 0.3):
            self.retry(job, self.at)
        elif self.dice.random() < 0.15:
            self.cancel(job, self.at)
        else:
            self.claim(job, self.at, self.dice.choice(("w1", "w2")), tries=self.dice.choice((1, 2)))

    def go_on(self, job: int) -> None:
        """Have something happen to a job that runs."""
        what = self.dice.randrange(9)
        if what < 5:
            outcome = self.dice.choice(ENDS)
            if outcome is Outcome.CANCELLED and not self.lives[job].cancelling:
                self.cancel(job, self.at)
            silent = {"error": None, "traceback": None} if what == 0 else {}
            self.end(job, self.at, outcome, started=self.at - 0.1, **silent)
        elif what == 5:
            self.lose(job, self.at, begun=self.dice.random() < 0.5)
        elif what == 6:
            self.release(job, self.at)
        elif what == 7:
            self.refuse(job, self.at)
        else:
            self.say(job, self.at, Event.PROGRESS, '{"done": 1}')
            self.say(job, self.at, Event.LOG, "said", cause="stdout")

    def prune(self, job: int) -> None:
        """Forget a job that has ended."""
        self.flush()
        self.connection.execute("DELETE FROM ledger WHERE job = ?", [job])
        self.gone.add(job)

    def queues(self) -> list[QueueInfo]:
        here = [life for number, life in enumerate(self.lives) if number not in self.gone]
        return [
            QueueInfo("all", False, {state: sum(one.state is state for one in here) for state in State}, 0)
        ]


@contextmanager
def told(seed: int, steps: int) -> Iterator[Story]:
    story = Story(seed, steps)
    try:
        yield story
    finally:
        story.connection.close()


def plain(frame: pd.DataFrame) -> list[list[Any]]:
    """Its values, with None for what is missing."""
    return [
        [None if missing else value for value, missing in zip(row, gaps, strict=True)]
        for row, gaps in zip(
            frame.astype(object).itertuples(index=False), frame.isna().itertuples(index=False), strict=True
        )
    ]


stories = given(seed=st.integers(0, 10**6), steps=st.integers(0, 40), limit=st.integers(0, 12))
few = settings(max_examples=6)


@few
@stories
def test_first_page_of_jobs(seed: int, steps: int, limit: int) -> None:
    """The newest so many are the first of all, by whatever they are picked."""
    with told(seed, steps) as story:
        for selection in SELECTIONS:
            whole = plain(frames.jobs(story, selection))
            with patch("nbqueue.shortcuts._NEAR", 3):
                assert plain(frames.jobs(story, selection, limit)) == whole[:limit], selection


@few
@stories
def test_first_page_of_attempts_and_events(seed: int, steps: int, limit: int) -> None:
    """The newest attempts and events are the first of all."""
    with told(seed, steps) as story:
        assert plain(frames.attempts(story, None, limit)) == plain(frames.attempts(story))[:limit]
        assert plain(frames.events(story, None, limit)) == plain(frames.events(story))[:limit]


@few
@stories
def test_failures_are_those_of_the_view(seed: int, steps: int, limit: int) -> None:
    """Failures by the ledger are failures by the view, whoever had an error before."""
    with told(seed, steps + limit) as story:
        for selection in SELECTIONS:
            found = frames.failures(story, selection)
            by_view = summaries._failures(
                story, "jobs", Selection(**{**fields(selection), "states": (State.FAILED,)})
            )
            assert sorted(plain(found)) == sorted(plain(columns.shaped(by_view, columns.FAILURES))), selection


def fields(selection: Selection) -> dict[str, Any]:
    return {name: getattr(selection, name) for name in Selection.__dataclass_fields__}


@few
@stories
def test_what_runs_and_all_numbers(seed: int, steps: int, limit: int) -> None:
    """What runs is what the view says runs, however far back it was claimed; all jobs are all jobs."""
    with told(seed, steps) as story, patch("nbqueue.facade.watching.following._WINDOW", 1 + limit):
        following = Following(story)  # type: ignore[arg-type]
        seen = following.seen()
        view = story.query(
            "SELECT number, epoch_ms(started_at), worker, job_id::VARCHAR, command FROM jobs WHERE state = 'running'"
            " ORDER BY number"
        )
        found = following.running(seen, len(view))
        names = following.names(found.numbers)
        assert [[*claim, *names[claim[0]]] for claim in sorted(zip(*found, strict=True))] == plain(view)
        numbers = story.query("SELECT number FROM jobs ORDER BY number")["number"].tolist()
        assert following.matching(JobFilter()).tolist() == numbers
        assert seen.jobs == len(numbers)
        if seen.numbers:
            assert [*seen.numbers] == numbers


@few
@stories
def test_rows_are_those_of_the_view(seed: int, steps: int, limit: int) -> None:
    """Jobs folded from their events are what the view says of them, whatever happened to them, some of them or all."""
    with told(seed, 4 * steps) as story, patch("nbqueue.facade.watching.following._NEAR", 1 + limit):
        rare(story)
        view = story.query(f"SELECT number, to_json({{{ROW}}})::VARCHAR AS row FROM jobs ORDER BY number")
        rows = dict(zip(view["number"].tolist(), map(json.loads, view["row"]), strict=True))
        following = Following(story)  # type: ignore[arg-type]
        for wanted in (range(len(story.ids)), range(0, len(story.ids), 1 + limit)):
            assert following.rows(wanted) == {number: rows[number] for number in wanted if number in rows}
            waiting = {n: rows[n]["scheduled"] for n in wanted if n in rows and rows[n]["status"] in WAITING}
            due_at, due = following.due(np.array(wanted))
            found = dict(zip(due.tolist(), due_at.tolist(), strict=True))
            assert waiting == {number: found.get(number) for number in waiting}


def rare(story: Story) -> None:
    """Have happen what dice seldom tell: times to come, a clock that was set back, and texts of all kinds."""
    begin, later = story.at, 10**9
    story.job(begin, due=later, priority=2, batch=UUID(int=7), payload="é" * 5_000)

    def ran(*, tries: int = 3) -> int:
        job = story.job(begin, tries=tries)
        story.claim(job, begin + 2)
        return job

    story.end(ran(), later, Outcome.FAILED, started=begin + 3, error="x" * 5_000, data="ValueError in load")
    story.end(ran(tries=1), begin - 50, Outcome.TIMED_OUT, started=begin + 1)
    story.end(ran(), begin - 50, started=begin - 60)
    story.end(ran(tries=1), begin + 9, Outcome.CRASHED, error=None)
    stopped = ran()
    story.cancel(stopped, begin + 4)
    story.end(stopped, begin + 9, Outcome.CANCELLED, started=begin + 3)
    crashed = ran()
    for at in (3, 4):
        story.lose(crashed, begin + at, begun=True)
        story.claim(crashed, begin + at + 0.5, "w2")
    story.lose(crashed, begin + 9, begun=True)
    # One that was lost before it began, one whose end says neither when it began nor why, and one that began late.
    lost, silent, late = ran(), ran(), ran()
    story.lose(lost, begin + 3, begun=False)
    story.claim(lost, begin + 4, "w2")
    story.end(silent, begin + 3, Outcome.FAILED, started=begin + 2.5)
    story.claim(silent, begin + 20)
    story.end(silent, begin + 21, Outcome.FAILED, cause=None)
    story.flush()
    story.connection.execute(
        "UPDATE ledger SET started_us = happened_us + 500_000 WHERE event = 'claimed' AND job = ?", [late]
    )
    # One whose second attempt has told nothing yet, one that was given back and retried by hand, and one that goes.
    for last in ("claims", "retries", "stops"):
        job = ran()
        story.say(job, begin + 3, Event.PROGRESS, '{"done": 1}')
        story.end(job, begin + 4, Outcome.FAILED, started=begin + 2.5)
        if last == "retries":
            story.retry(job, begin + 5)
        story.claim(job, begin + 20, "w2")
        if last == "retries":
            story.release(job, begin + 21, started=begin + 20.5)
        if last == "stops":
            story.cancel(job, begin + 22)


def test_rows_of_a_newer_nbqueue(book: Book) -> None:
    """An event that is not known moves no job and is no trouble."""
    job = book.job(0)
    book.claim(job, 1)
    book._row(2, Event.PROGRESS, job)
    book.rows[-1] = tuple("frozen" if value == "progress" else value for value in book.rows[-1])
    assert Following(book).rows([job])[job]["state"] == "running"  # type: ignore[arg-type]


@few
@stories
def test_the_past_in_pieces(seed: int, steps: int, limit: int) -> None:
    """What happened, read piece by piece, adds up to what there is."""
    with told(seed, steps) as story:
        following, last = Following(story), story.written + len(story.rows)  # type: ignore[arg-type]
        first = following.first_since(0)
        bounds = [*range(first, last + 1, 1 + limit), last + 1]
        pieces = [following.recent(0, 10, first=begin, until=end - 1) for begin, end in pairwise(bounds)]
        sums = [sum(stretch[column] for piece in pieces for stretch in piece) for column in range(1, 5)]
        (states,) = [queue.counts for queue in story.queues()]
        # A job that is there ended as often as it was said to, and waits or runs, or does neither, in the end.
        ended = story.query(
            "SELECT count(*) FILTER (event = 'succeeded'), count(*) FILTER (event = 'failed') FROM events"
        )
        assert sums == [*ended.iloc[0].tolist(), states[State.PENDING], states[State.RUNNING]]


def test_names_as_numbers(book: Book) -> None:
    """A frame of all jobs has the names that it would have, sorted, quotes and all, and no other."""
    for name in ("b", "it's", "a", "b"):
        book.job(0, name, "q" + name)
    book.connection.execute("INSERT INTO specs VALUES (99, 'unused', 'none', 0, '', '', NULL, NULL, '')")
    found = frames.jobs(book)
    assert found["command"].tolist() == ["b", "a", "it's", "b"]
    assert found["command"].cat.categories.tolist() == ["a", "b", "it's"]
    assert found["worker"].isna().all()
    assert found["state"].cat.categories.tolist() == [state.value for state in State]


def test_a_name_that_comes_up_meanwhile(book: Book) -> None:
    """A command that is new since the names were asked for is in the frame."""
    book.job(0, "old")
    query = book.query

    def late(sql: str, *rest: Any) -> pd.DataFrame:
        found = query(sql, *rest)
        if "DISTINCT" in sql:
            book.job(1, "new")
        return found

    with patch.object(book, "query", late):
        assert frames.jobs(book)["command"].tolist() == ["new", "old"]


def test_what_is_wrong_stays_wrong(book: Book) -> None:
    """A query that cannot be run says so, also where it would be tried again."""
    book.job(0)
    with pytest.raises(QueueError, match="no_such"):
        columns.ask(book, {"no_such": "text"}, "jobs", (), whole=True)


def test_a_page_that_moves(book: Book) -> None:
    """Jobs that change their state between the two looks of a page are looked up again."""
    jobs = [book.job(number) for number in range(3)]
    for job in jobs:
        book.claim(job, 10)
    query, ended = book.query, []

    def moving(sql: str, *rest: Any) -> pd.DataFrame:
        found = query(sql, *rest)
        if "max_by(event, seq)" in sql and not ended:
            ended.append(book.end(jobs[2], 20))
        return found

    with patch.object(book, "query", moving):
        found = frames.jobs(book, Selection(states=(State.RUNNING,)), 2)
    assert found["job_id"].tolist() == [str(book.ids[1]), str(book.ids[0])]
