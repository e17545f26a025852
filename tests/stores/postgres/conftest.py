"""Stores on a PostgreSQL schema of their own, and connections that do what no verb does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg import sql

from nbqueue.stores.postgres.address import read
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def opened(postgres_url: str, clock: FakeClock) -> Iterator[Callable[..., PostgresStore]]:
    """Opens the queue, under a clock that stands still unless ``real``; closes in the end what is still open."""
    with ExitStack() as stack:

        def make(*, real: bool = False) -> PostgresStore:
            given: dict[str, Any] = {} if real else {"clock": clock.time, "ticks": clock.ticks}
            store = PostgresStore(postgres_url, **given)
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture
def connected(postgres_url: str) -> Iterator[Callable[[], psycopg.Connection[Any]]]:
    """Connects to the server itself, as nobody does who uses verbs; closes all in the end."""
    address = read(postgres_url)
    with ExitStack() as stack:

        def make() -> psycopg.Connection[Any]:
            connection = stack.enter_context(
                psycopg.connect(address.dsn, autocommit=True, connect_timeout=10)
            )
            connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(address.schema)))
            return connection

        yield make
