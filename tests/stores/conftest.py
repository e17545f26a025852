"""A DuckDB store on a file of its own, under a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.pulse import Pulse
from nbqueue.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.duckdb"


@pytest.fixture
def opened(path: Path, clock: FakeClock) -> Iterator[Callable[..., DuckDBStore]]:
    """Opens the file; closes in the end whatever is still open."""
    stores: list[DuckDBStore] = []

    def make(pulse: Pulse | None = None) -> DuckDBStore:
        stores.append(DuckDBStore(path, clock=clock.time, ticks=clock.ticks, pulse=pulse))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
