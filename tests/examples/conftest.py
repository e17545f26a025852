"""What the guides' examples run on: a queue in a DuckDB file, a clock that is set, and a worker that ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nbqueue as nbq
from nbqueue.stores.duckdb import DuckDBStore

#: No example takes so long; one that does has hung.
PATIENCE = 30


class Clock:
    """Seconds since the epoch, which pass when they are told to."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    """The time of ``timed``."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue file is."""
    return tmp_path / "jobs.duckdb"


@pytest.fixture
def queues(path: Path) -> Iterator[nbq.QueueManager]:
    """A queue in a file."""
    with nbq.connect(path) as opened:
        yield opened


@pytest.fixture
def timed(path: Path, clock: Clock) -> Iterator[nbq.QueueManager]:
    """A queue in a file, whose time is ``clock``."""
    with nbq.QueueManager(store=DuckDBStore(path, clock=clock), clock=clock) as opened:
        yield opened


@pytest.fixture
def work_off() -> Callable[..., None]:
    """Run everything that can run now, and return when nothing is left."""

    def run(manager: nbq.QueueManager, **options: object) -> None:
        worker = manager.worker(when_empty=True, **options)
        worker.start()
        assert worker.wait(PATIENCE), "the worker has not run out of work"

    return run
