"""The SQS store passes the suite of every store, less what it declares that it cannot do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nbqueue.store import Capability, Store
from nbqueue.stores.sqs.store import SQSStore
from nbqueue.testing.stores import StoreConformance


class TestSqs(StoreConformance):
    @pytest.fixture
    def store(self, opened: Callable[..., SQSStore], blank: Path, tmp_path: Path) -> Store:
        """A new one each."""
        return opened(f"&ledger={shutil.copy(blank, tmp_path / 'ledger.duckdb')}")


def test_what_it_cannot_do() -> None:
    """These and no others are missing; the suite above skips their tests by name."""
    missing = set(Capability) - SQSStore.capabilities
    print("the SQS store does not declare:", ", ".join(sorted(missing)))
    assert missing == {
        Capability.ALL_OR_NONE,
        Capability.PRIORITY,
        Capability.PAUSE,
        Capability.EVERYWHERE,
    }
