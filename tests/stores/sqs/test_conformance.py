"""The SQS store passes the suite of every store, less what it declares that it cannot do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from moto.sqs.models import sqs_backends

from nbqueue.store import Capability, Store
from nbqueue.stores.sqs.queues import Place, Queues
from nbqueue.stores.sqs.store import SQSStore
from nbqueue.testing.stores import StoreConformance


@pytest.fixture(scope="module")
def places() -> dict[tuple[str, str], Place]:
    """The queues that were made: each takes six requests, and there are two for each that a test names."""
    return {}


@pytest.fixture
def url(sqs_endpoint: str, places: dict[tuple[str, str], Place], monkeypatch: pytest.MonkeyPatch) -> str:
    """Of the queues of this suite, with nothing in them."""
    for backends in sqs_backends.values():
        for queue in backends["eu-west-1"].queues.values():
            queue._messages, queue._pending_messages = [], set()
    look_up = Queues._look_up

    def look_up_once(self: Queues, queue: str, name: str, *, dead: bool) -> Place:
        if (sqs_endpoint, name) not in places:
            places[sqs_endpoint, name] = look_up(self, queue, name, dead=dead)
        return places[sqs_endpoint, name]

    monkeypatch.setattr(Queues, "_look_up", look_up_once)
    return f"sqs://eu-west-1/suite?endpoint={sqs_endpoint}&wait=0"


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
