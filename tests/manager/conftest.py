"""A queue of each kind for the tests of the facade, and handlers that are forgotten afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import nbqueue as nbq
from nbqueue.handlers.registry import registry


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    """What a test defines is gone after it, and what modules of other folders have defined is there again."""
    before = dict(registry._owned)
    registry.clear()
    yield
    registry.clear()
    for handler in before.values():
        registry.register(handler)


@pytest.fixture(params=["memory", "duckdb"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What to connect to."""
    return ":memory:" if request.param == "memory" else str(tmp_path / "jobs.duckdb")


@pytest.fixture
def queues(target: str) -> Iterator[nbq.QueueManager]:
    """An open queue, of each kind."""
    with nbq.connect(target) as opened:
        yield opened
