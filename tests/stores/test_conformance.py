"""Every store passes the suite that third parties run theirs through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbqueue.store import Store
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.memory import MemoryStore
from nbqueue.testing import FakeClock
from nbqueue.testing.stores import StoreConformance


def memory(_path: Path, clock: FakeClock) -> Store:
    return MemoryStore(clock=clock.time, ticks=clock.ticks)


def duckdb(path: Path, clock: FakeClock) -> Store:
    return DuckDBStore(path / "jobs.duckdb", clock=clock.time, ticks=clock.ticks)


class TestConformance(StoreConformance):
    @pytest.fixture(params=[memory, duckdb], ids=lambda make: make.__name__)
    def store(self, request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
        """One of each."""
        make: Callable[[Path, FakeClock], Store] = request.param
        store = make(tmp_path, clock)
        yield store
        store.close()
