"""One transaction after another on a PostgreSQL server, whatever happens to the connection; knows no verb.

A verb is a function of a transaction. Where the connection breaks it runs again; and if it broke over COMMIT, so that
nobody knows whether it was done, it is told so (``Tx.again``). The number of a transaction would tell, were it not
given to another one after a crash of the server.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psycopg
from psycopg import errors

from nbqueue.errors import QueueUnavailable
from nbqueue.patience import patience
from nbqueue.stores.postgres.address import Address, read
from nbqueue.stores.postgres.pool import Connection, Pool
from nbqueue.stores.postgres.trouble import is_lost, is_passing, is_starting, unavailable
from nbqueue.stores.postgres.tx import HELLO, Cursor, Tx

__all__ = ["HELLO", "PATIENCE", "Cursor", "Link", "Tx"]

T = TypeVar("T")

#: A verb is tried for so many seconds; a server that crashed is back before.
PATIENCE = 30.0
_PAUSE_MAX = 2.0


class Link:
    """What a process has to do with one queue on one server.

    Parameters
    ----------
    url : str or Address
        Where.
    clock : Callable[[], float], optional
        Seconds since the epoch, in place of the server's clock; for tests.
    ticks : Callable[[], float], optional
        Seconds for leases, in place of the server's clock; for tests. Without it they go by ``clock``.
    """

    def __init__(
        self,
        url: str | Address,
        *,
        clock: Callable[[], float] | None = None,
        ticks: Callable[[], float] | None = None,
    ):
        self.address = url if isinstance(url, Address) else read(url)
        self.name = self.address.name
        self.clock = clock
        self.ticks = ticks or clock
        self._pool = Pool(self.address)
        self._stopped = threading.Event()
        #: Called with what was kept; ``listening`` takes its words from here.
        self.kept: Callable[[Tx], None] = _call_all
        #: It was there once, so that it may well be there again.
        self.known = False

    def run(
        self,
        verb: Callable[[Tx], T],
        *,
        write: bool = True,
        pipelined: bool = True,
        greets: bool = False,
    ) -> T:
        """Run a verb in a transaction of its own, again if need be; gives what it gives, once that is kept.

        Parameters
        ----------
        verb : Callable[[Tx], T]
            May run several times: it changes nothing but the database and its own transaction.
        write : bool
            False: it only reads, and all its statements see one moment.
        pipelined : bool
            Whether statements may travel together. COPY cannot.
        greets : bool
            The verb asks for ``HELLO`` with its first statement, which saves one.

        Raises
        ------
        QueueUnavailable
            If the server cannot be reached, or refuses; the sentence says why.
        """
        trying = _Trying(self)
        again = False
        while True:
            self.check()
            tx = connection = None
            try:
                connection = self._pool.take()
                self.known = True
                tx = Tx(self, connection, write=write, again=again)
                tx.pipelined = pipelined
                with _pipeline(connection) if pipelined else contextlib.nullcontext():
                    tx.begin(greets=greets)
                    tx.result = verb(tx)
                    if write:
                        tx.hello()
                        tx.committing = True
                    tx.execute("COMMIT")
            except psycopg.Error as error:
                lost = is_lost(error, connection)
                self._end(connection)
                again |= (lost and tx is not None and tx.committing) or isinstance(
                    error, errors.UniqueViolation
                )
                trying.go_on(error, connection)
                if lost and tx is not None:
                    self._end_backend(tx)
            except BaseException:
                self._end(connection)
                raise
            else:
                self._pool.give_back(connection)
                break
        self.kept(tx)
        result: T = tx.result
        return result

    def _end(self, connection: Connection | None) -> None:
        """Undo what a connection is in the middle of, and take it back; what does not answer is let go of."""
        if connection is None:
            return
        if not connection.closed:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
        self._pool.give_back(connection)

    def _end_backend(self, tx: Tx) -> None:
        """End what the server still does for a connection that has broken: its locks would be in the way."""
        if not isinstance(tx.begun, tuple):
            return
        _, number, backend = tx.begun
        with contextlib.suppress(psycopg.Error):
            connection = self._pool.take()
            with contextlib.suppress(psycopg.Error):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s"
                    " AND backend_xid = %s::xid8::xid",
                    [backend, number],
                )
            self._pool.give_back(connection)

    def check(self) -> None:
        """Refuse to go on where this was closed, or is another process's.

        Raises
        ------
        QueueUnavailable
            Naming what to do.
        """
        if self._stopped.is_set():
            raise QueueUnavailable(f"{self.name} was closed; open it again with nbqueue.connect")
        if self.is_forked:
            raise QueueUnavailable(
                f"{self.name} was opened in another process (this one is a fork of it); connect again here"
            )

    @property
    def is_forked(self) -> bool:
        """Whether this process is a fork of the one that opened it."""
        return self._pool.pid != os.getpid()

    def close(self) -> None:
        """Let go of the server; what waits for it to come back gives up."""
        self._stopped.set()
        if not self.is_forked:
            self._pool.close()

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        self._stopped.wait(seconds)


class _Trying:
    """How often and for how long a verb was tried."""

    def __init__(self, link: Link):
        self._link = link
        self._since = time.monotonic()
        self._times = 0

    def go_on(self, error: psycopg.Error, connection: Connection | None) -> None:
        """Wait for the next try, or raise what is the matter."""
        spent = time.monotonic() - self._since
        passing = is_passing(error, connection) and (self._link.known or is_starting(error))
        # The caller's may have become shorter meanwhile.
        left = min(PATIENCE, patience()) - spent
        if not passing or left < 0:
            raise unavailable(error, self._link.address, after=spent) from _bare(error, self._link.address)
        self.pause(left)

    def pause(self, most: float) -> None:
        # The first time it is nothing but an old connection, more often than not.
        if self._times:
            self._link.wait(min(most, min(_PAUSE_MAX, 0.02 * 2**self._times) * random.uniform(0.5, 1.0)))
        self._times += 1


@contextlib.contextmanager
def _pipeline(connection: Connection) -> Iterator[None]:
    """Have statements travel together; the first error is the one that is raised, and no other is logged."""
    failed: BaseException | None = None
    try:
        with connection.pipeline():
            try:
                yield
            except BaseException as error:  # noqa: BLE001 - raised below, once the pipeline is over
                failed = error
    except psycopg.Error as error:
        failed = failed or error
    if failed is not None:
        raise failed


def _bare(error: psycopg.Error, address: Address) -> psycopg.Error | None:
    """The error as a cause to show, None where it quotes the password."""
    return error if address.hide(str(error)) == str(error) else None


def _call_all(tx: Tx) -> None:
    for call in tx.calls:
        call()
