"""Failures as a live view remembers them: what the frame of failures says, whatever has happened since."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import nbqueue as nbq
from nbqueue.facade.watching.failing import Failing
from nbqueue.facade.watching.following import Following
from nbqueue.lifecycle import Outcome
from nbqueue.testing import FakeClock, memory_manager
from nbqueue.testing.workers import FakeWorker


class Watched:
    """A queue whose jobs fail as they are told, and somebody who has looked at it since before."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.queues = memory_manager(self.clock)
        self.worker = FakeWorker(self.queues.store)
        self.following = Following(self.queues)
        self.seen = self.following.seen()
        self.failing = Failing(self.following, self.seen.seq)

    def fail(self, *errors: str) -> list[Any]:
        """Run a job for each of them, a second apart; an empty one succeeds."""
        ids = []
        for error in errors:
            self.clock.advance(1)
            ids.append(self.queues.dispatch(nbq.QueuedCommand("work")).job_id)
            self.run(error)
        return ids

    def run(self, error: str) -> None:
        """Run the job that waits."""
        (claim,) = self.worker.take(1)
        at = self.clock.time()
        said = {"error": error, "traceback": error} if error else {}
        self.worker.end(
            claim, Outcome.FAILED if error else Outcome.SUCCEEDED, started_at=at, finished_at=at, **said
        )

    def look(self) -> list[tuple[object, ...]]:
        """Take in the news; gives what is remembered."""
        news = self.following.news(self.seen)
        self.failing.follow(news)
        self.seen = news.seen
        return [tuple(one) for one in self.failing.value(self.following.names)]

    def told(self) -> list[tuple[object, ...]]:
        """What the frame says."""
        frame = self.queues.failures()
        columns: Sequence[Any] = [
            frame["fingerprint"],
            frame["jobs"],
            frame["first_at"].astype("int64") // 1000,
            frame["last_at"].astype("int64") // 1000,
            frame["job_id"],
            frame["command"],
        ]
        return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.queues.close()


def test_failures_are_remembered(watched: Watched) -> None:
    """After failures, a retry that succeeds, one that fails otherwise, and one that waits, both say the same."""
    ids = watched.fail("KeyError: 1", "OSError: 2", "KeyError: 3", "", "OSError: 5", "OSError: 6")
    assert watched.look() == watched.told()
    assert [one[:2] for one in watched.told()] == [("OSError", 3), ("KeyError", 2)]
    for job_id, error in ((ids[1], ""), (ids[0], "OSError: 7"), (ids[5], None)):
        watched.clock.advance(1)
        watched.queues.retry([job_id])
        if error is not None:
            watched.run(error)
        assert watched.look() == watched.told()
    assert sorted(one[:2] for one in watched.told()) == [("KeyError", 1), ("OSError", 2)]


def test_a_long_history_is_read_in_pieces(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history longer than a piece is read by several, while jobs go on failing and being retried."""
    monkeypatch.setattr("nbqueue.facade.watching.failing.PIECE", 4)
    ids = watched.fail(*["KeyError: 1", "OSError: 2"] * 3)
    watched.seen = watched.following.seen()
    watched.failing = Failing(watched.following, watched.seen.seq)
    pieces = 0
    while watched.failing.go():
        pieces += 1
        if pieces == 2:
            watched.queues.retry([ids[0]])
            watched.run("IndexError: 3")
            watched.look()
    assert pieces > 3
    assert watched.look() == watched.told()


def test_nothing_is_read_twice(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all was read, what is new comes with the news: the ledger is not asked for failures again."""
    watched.fail("KeyError: 1")
    watched.look()

    def asked(*_args: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Following, "failures", asked)
    watched.fail("KeyError: 2", "OSError: 3")
    assert watched.look() == watched.told()
    assert not watched.failing.go()
