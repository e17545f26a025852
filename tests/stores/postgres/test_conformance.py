"""The store in PostgreSQL passes the suite that every store passes, with every capability there is."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from nbqueue.store import Capability, Store
from nbqueue.stores.postgres.address import read
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.testing import FakeClock
from nbqueue.testing.stores import StoreConformance
from tests.servers import fresh_schema

_TABLES = ("jobs", "standing", "ledger", "counts", "batches", "gone", "workers", "code", "specs", "queues")


@pytest.fixture(scope="module")
def emptied(postgres: str) -> Iterator[str]:
    """The URL of a queue that each test finds empty: to make the tables anew takes longer than most tests."""
    with fresh_schema(postgres) as url:
        yield url


class TestConformance(StoreConformance):
    @pytest.fixture
    def store(self, emptied: str, clock: FakeClock) -> Iterator[Store]:
        store = PostgresStore(emptied, clock=clock.time, ticks=clock.ticks)
        yield store
        store.close()
        address = read(emptied)
        with psycopg.connect(address.dsn, options=f"-c search_path={address.schema}") as connection:
            for table in _TABLES:
                connection.execute(f"DELETE FROM {table}")
            connection.execute("INSERT INTO queues (queue) VALUES ('default')")


def test_declares_everything() -> None:
    """Nothing of the suite is skipped."""
    assert PostgresStore.capabilities == frozenset(Capability)
