"""A feed follows what another process does to the file, and goes on when that dies and its own process takes over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nbqueue as nbq
from nbqueue.widgets.panel.feed import Feed
from tests.sharing.children import Child

Start = Callable[[str], Child]

#: A job fails with one of two errors until it is told to go on.
WORK = """
    queues = nbq.connect(path)

    @nbq.command("flaky")
    def flaky(n):
        if not go.is_set():
            raise (KeyError, OSError)[n % 2](n)

    worker = queues.worker(concurrency=2).start()
"""


class Watched:
    """A feed of a queue: an hour passes between two of its looks, so that what is paced is always due."""

    def __init__(self, queues: nbq.QueueManager) -> None:
        self.queues = queues
        self.ticks = 0.0
        self.feed = Feed(queues, ticks=lambda: self.ticks)

    def shows(self) -> dict[str, Any]:
        """Look until there is nothing more to read; gives what can be compared with a first look."""
        while self.feed.refresh() is not None:
            self.ticks += 3600.0
        self.feed.state.take(now=0)
        state = self.feed.state.snapshot()
        return {name: state[name] for name in ("queues", "failures", "jobs")}

    def check(self) -> list[tuple[str, int]]:
        """See that it shows what a first look and the frames say; gives the failures."""
        shown = self.shows()
        assert shown == Watched(self.queues).shows()
        failures = [(one["fingerprint"].split()[0], one["count"]) for one in shown["failures"]]
        frame = self.queues.failures()
        assert sorted(failures) == sorted(
            (fingerprint.split()[0], jobs)
            for fingerprint, jobs in zip(frame["fingerprint"], frame["jobs"], strict=True)
        )
        assert shown["jobs"]["total"] == len(self.queues.jobs())
        return sorted(failures)


@pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
def test_failures_of_another_process(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, *, long: bool
) -> None:
    """Retried, forgotten and pruned elsewhere, with the owner dead, and taken over: each time as a first look."""
    if long:
        for name, less in {
            "widgets.panel.feed._SHORT": 0,
            "widgets.panel.feed._ROWS": 3,
            "widgets.panel.past.PIECE": 7,
            "facade.watching.failing.PIECE": 5,
        }.items():
            monkeypatch.setattr(f"nbqueue.{name}", less)
    owner = start("owner")
    owner.tell(WORK)
    with nbq.connect(path) as queues:
        assert not queues.owner.here
        watched = Watched(queues)
        owner.tell("""
            ids = [queues.dispatch(nbq.QueuedCommand("flaky").with_args([n])).job_id for n in range(10)]
            worker.drain(30)
        """)
        assert watched.check() == [("KeyError", 5), ("OSError", 5)]
        owner.tell("queues.retry(ids[0]); worker.drain(30)")
        assert watched.check() == [("KeyError", 5), ("OSError", 5)]
        owner.tell("""
            go.set()
            (fingerprint,) = (one for one in queues.failures().fingerprint if one.startswith("KeyError"))
            queues.retry_all(fingerprint=fingerprint)
            worker.drain(30)
        """)
        assert watched.check() == [("OSError", 5)]
        owner.tell("queues.forget(ids[1])")
        assert watched.check() == [("OSError", 4)]
        # Those that ended last are the five that succeeded.
        owner.tell("queues.prune(keep=7)")
        assert watched.check() == [("OSError", 2)]
        owner.kill()
        # Whatever is asked of the queue first lets this process take it over.
        again = queues.dispatch(nbq.QueuedCommand("flaky").with_args([11])).job_id
        assert queues.owner.here
        assert watched.check() == [("OSError", 2)]
        queues.cancel(again)
        assert watched.check() == [("OSError", 2)]
        assert queues.retry_all() == 2
        assert watched.check() == []
