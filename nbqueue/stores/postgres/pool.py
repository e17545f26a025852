"""The connections of a process to one PostgreSQL server: as many as verbs run at once, and no more than a few.

A server that is frozen, and not down, breaks no connection and answers nothing. So whoever waits for long asks, by
another connection, whether it is there at all.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import sql

from nbqueue.patience import patience
from nbqueue.stores.postgres.address import Address

__all__ = ["Connection", "Pool", "connect"]

#: So many verbs of one process run at once; more wait for one of them.
CONNECTIONS_MAX = 8
#: A host that does not answer is given up after so many seconds.
CONNECT_SECONDS = 5
#: Whoever has waited so long for an answer asks whether anybody is there; who has less patience asks sooner, but not
#: sooner than a statement may well take.
_SILENCE_SECONDS = 10.0
_SILENCE_LEAST = 0.5
#: The first version that has one.
_TRANSACTION_TIMEOUT = 170_000

#: Whatever the role or the database has been given instead.
_SETTINGS = {
    # A lock of ours is held for milliseconds; who waits longer waits for somebody who hangs.
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    # Most take milliseconds; a hundred thousand jobs that come or are cancelled at once, and a first copy, do not.
    "statement_timeout": "10min",
    "transaction_timeout": "0",
    # Who listens is idle.
    "idle_session_timeout": "0",
    "array_nulls": "on",
    "extra_float_digits": "1",
    "TimeZone": "UTC",
    "jit": "off",
    # A queue's tables are empty at one moment and long at the next: what was planned for them empty must not stay.
    "enable_seqscan": "off",
}


class _SilentError(psycopg.OperationalError):
    """Nobody answers."""


class Connection(psycopg.Connection[tuple[object, ...]]):
    """One that breaks off where its server answers nobody any more."""

    #: Where its server is; None while it is made, which has a limit of its own, and for one that listens.
    address: Address | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **named: Any) -> Any:
        """Wait for what a statement gives, as long as there is a server that may give it."""
        if self.address is None:
            return super().wait(gen, *args, **named)
        try:
            return super().wait(_while_there(gen, self.address), *args, **named)
        except _SilentError:
            # Whatever was sent may still be done: this is as good as a connection that was cut.
            self.pgconn.finish()
            raise


def _while_there(gen: Generator[Any, Any, Any], address: Address) -> Generator[Any, Any, Any]:
    """Hand on what a statement waits for, and raise where it waits for a server that has fallen silent."""
    since = time.monotonic()
    ready = None
    while True:
        try:
            wanted = gen.send(ready)
        except StopIteration as end:
            return end.value
        # psycopg says now and then that there is nothing.
        ready = yield wanted
        now = time.monotonic()
        if ready:
            since = now
        elif now - since > max(_SILENCE_LEAST, min(_SILENCE_SECONDS, patience())):
            _ask_for(address, now - since)
            since = time.monotonic()


def _ask_for(address: Address, silence: float) -> None:
    try:
        psycopg.connect(address.dsn, connect_timeout=CONNECT_SECONDS, application_name="nbqueue").close()
    except psycopg.OperationalError as error:
        # Who is refused has been answered.
        if "FATAL:" not in str(error):
            words = f"it has not answered for {silence:.0f} s, and no other connection can be had"
            raise _SilentError(words) from None


def connect(address: Address, *, listens: bool = False) -> Connection:
    """Connect to the server; a connection says where its tables are, and gives up on a host that is silent.

    Parameters
    ----------
    address : Address
        Where it is.
    listens : bool
        Silence is no news to it.

    Raises
    ------
    psycopg.Error
        If it cannot be had.
    """
    connection: Connection = Connection.connect(
        address.dsn,
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        application_name="nbqueue",
        client_encoding="utf8",
        keepalives_idle=10,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=20_000,
    )
    try:
        settings = {**_SETTINGS, "search_path": sql.Identifier(address.schema).as_string(connection)}
        if connection.info.server_version < _TRANSACTION_TIMEOUT:
            del settings["transaction_timeout"]
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        connection.execute("SELECT " + calls, [text for setting in settings.items() for text in setting])
    except BaseException:
        connection.close()
        raise
    connection.address = None if listens else address
    return connection


class Pool:
    """Connections that are lent, one verb at a time.

    Parameters
    ----------
    address : Address
        Where to.
    """

    def __init__(self, address: Address):
        self._address = address
        self._free = threading.Condition()
        self._idle: list[Connection] = []
        self._count = 0
        self._closed = False
        self.pid = os.getpid()

    def take(self) -> Connection:
        """Lend a connection, a new one if none is idle."""
        with self._free:
            self._free.wait_for(lambda: self._idle or self._count < CONNECTIONS_MAX or self._closed)
            if self._idle:
                return self._idle.pop()
            self._count += 1
        try:
            return connect(self._address)
        except BaseException:
            self._lose()
            raise

    def give_back(self, connection: Connection) -> None:
        """Take back what was lent; what is broken, or in the middle of something, is let go of."""
        usable = (
            not connection.closed and connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        )
        with self._free:
            if usable and not self._closed:
                self._idle.append(connection)
                self._free.notify()
                return
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Let go of a connection, and of all that are idle if the server has let go of this one."""
        with self._free:
            gone = self._idle if connection.closed else []
            if gone:
                self._idle = []
            self._count -= len(gone) + 1
            self._free.notify_all()
        for one in (connection, *gone):
            with contextlib.suppress(psycopg.Error):
                one.close()

    def _lose(self) -> None:
        with self._free:
            self._count -= 1
            self._free.notify()

    def close(self) -> None:
        """Let go of those that are idle, and of the others when they come back."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            self._free.notify_all()
        for connection in idle:
            connection.close()
