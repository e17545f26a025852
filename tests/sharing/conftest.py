"""A folder with one queue file, and processes to use it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sharing.children import Child


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The queue file of a test and its children."""
    return tmp_path / "jobs.duckdb"


@pytest.fixture
def notes(tmp_path: Path) -> Callable[[], list[str]]:
    """What was noted by anybody, sorted."""
    file = tmp_path / "notes"
    return lambda: sorted(file.read_text().split()) if file.exists() else []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    """Starts processes; whatever becomes of them, they end with the test."""
    children: list[Child] = []

    def make(name: str) -> Child:
        children.append(Child(name, tmp_path))
        return children[-1]

    yield make
    for child in children:
        if child.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                child.signal(signal.SIGKILL)
        child.process.join()
