"""The connections of a process to one PostgreSQL server: as many as verbs run at once, and no more than a few."""

from __future__ import annotations

import contextlib
import os
import threading

import psycopg
from psycopg import sql

from nbqueue.stores.postgres.address import Address

__all__ = ["Connection", "Pool", "connect"]

Connection = psycopg.Connection[tuple[object, ...]]

#: So many verbs of one process run at once; more wait for one of them.
CONNECTIONS_MAX = 8
#: A host that does not answer is given up after so many seconds; what was sent to one, twice that.
CONNECT_SECONDS = 5
_SILENCE_SECONDS = 10

_SETTINGS = {
    # A lock of ours is held for milliseconds; who waits longer waits for somebody who hangs.
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    "TimeZone": "UTC",
    "jit": "off",
    # A queue's tables are empty at one moment and long at the next: what was planned for them empty must not stay.
    "enable_seqscan": "off",
}


def connect(address: Address) -> psycopg.Connection[tuple[object, ...]]:
    """Connect to the server; a connection says where its tables are, and gives up on a host that is silent.

    Raises
    ------
    psycopg.Error
        If it cannot be had.
    """
    connection = psycopg.connect(
        address.dsn,
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        application_name="nbqueue",
        client_encoding="utf8",
        keepalives_idle=_SILENCE_SECONDS,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=2_000 * _SILENCE_SECONDS,
    )
    try:
        settings = {**_SETTINGS, "search_path": sql.Identifier(address.schema).as_string(connection)}
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        connection.execute("SELECT " + calls, [text for setting in settings.items() for text in setting])
    except BaseException:
        connection.close()
        raise
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
