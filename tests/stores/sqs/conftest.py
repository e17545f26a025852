"""SQS stores on moto's server, under a clock that stands still and that moto goes by too."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.sqs.address import read
from nbqueue.stores.sqs.client import Client
from nbqueue.stores.sqs.store import SQSStore
from nbqueue.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def moto_clock(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """The clock that moto goes by; a microsecond passes whenever it looks, or nothing would ever be visible again."""
    from moto.sqs import models

    looks = itertools.count()
    monkeypatch.setattr(models, "unix_time_millis", lambda: clock.time() * 1e3 + next(looks) * 1e-3)
    monkeypatch.setattr(models, "unix_time", lambda: clock.time() + next(looks) * 1e-6)
    return clock


@pytest.fixture(scope="session")
def clients() -> dict[tuple[Any, ...], Any]:
    """The clients of boto3 that were made: each takes a tenth of a second."""
    return {}


@pytest.fixture
def quick(clients: dict[tuple[Any, ...], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores have clients that others had before."""
    make = Client._make

    def make_once(self: Client, read: float) -> Any:
        key = (self._address.endpoint, self._limits, read)
        if key not in clients:
            clients[key] = make(self, read)
        return clients[key]

    monkeypatch.setattr(Client, "_make", make_once)


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which nothing is written: to make its tables takes longer than to copy it."""
    path = tmp_path_factory.mktemp("blank") / "blank.duckdb"
    DuckDBStore(path).close()
    return path


@pytest.fixture
def url(sqs_endpoint: str) -> str:
    """Of queues that no other test has."""
    return f"sqs://eu-west-1/t{uuid.uuid4().hex[:12]}?endpoint={sqs_endpoint}&wait=1"


@pytest.fixture
def opened(url: str, tmp_path: Path, moto_clock: FakeClock, quick: None) -> Iterator[Callable[..., SQSStore]]:
    """Opens a store, in another ledger each time; closes in the end whatever is still open."""
    stores: list[SQSStore] = []

    def make(options: str = "", **given: Any) -> SQSStore:
        given = {"folder": tmp_path, "clock": moto_clock.time, "ticks": moto_clock.ticks} | given
        stores.append(SQSStore(read(url + options), **given))
        return stores[-1]

    yield make
    for store in stores:
        store.close()
