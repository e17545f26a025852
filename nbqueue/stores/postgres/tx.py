"""One transaction on a PostgreSQL server, and what is done once it is kept; knows no verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg

from nbqueue.stores.postgres.pool import Connection

if TYPE_CHECKING:
    from nbqueue.stores.postgres.link import Link

__all__ = ["HELLO", "Cursor", "Tx"]

Cursor = psycopg.Cursor[tuple[Any, ...]]

# Both say how they are isolated: a role or a database may have another default, and what is looked at again once it is
# locked must be what is there then.
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED"
_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
#: The first columns of what a verb asks first, where it greets by itself.
HELLO = "extract(epoch FROM clock_timestamp())::float8, pg_current_xact_id()::text, pg_backend_pid()"
_HELLO_READ = "SELECT extract(epoch FROM clock_timestamp())::float8, ''::text, pg_backend_pid()"


class Tx:
    """One transaction.

    Several statements travel together: what is executed is sent at once, and waited for when it is fetched.
    """

    __slots__ = (
        "_link",
        "_write",
        "again",
        "begun",
        "calls",
        "changed",
        "committing",
        "cursor",
        "ended",
        "fresh",
        "pipelined",
        "result",
        "served",
        "words",
    )

    def __init__(self, link: Link, connection: Connection, *, write: bool, again: bool):
        self._link = link
        #: Of the connection that this runs on.
        self.cursor: Cursor = connection.cursor()
        #: It may have been done already: an earlier try ended nobody knows how.
        self.again = again
        #: What other processes are told once this is kept; see ``listening``.
        self.words: dict[str, None] = {}
        #: What is called once this is kept.
        self.calls: list[Callable[[], object]] = []
        #: People can see that something has changed.
        self.changed = False
        #: Whether COMMIT was sent, and what the verb gave.
        self.committing = False
        self.result: Any = None
        #: Jobs that ended, and queues in which there may be more to claim.
        self.ended: list[UUID] = []
        self.fresh: set[str] = set()
        #: The workers of this process have been handed what there is.
        self.served = False
        #: Whether statements travel together, so that there can be no COPY.
        self.pipelined = True
        self._write = write
        #: What ``hello`` gives, once somebody has waited for it.
        self.begun: Any = None

    def begin(self, *, greets: bool) -> None:
        """Begin, and ask for the time unless the verb does; nobody waits for either."""
        self.execute(_WRITE if self._write else _READ)
        if not greets:
            self.begun = self.execute(f"SELECT {HELLO}" if self._write else _HELLO_READ)

    def greet(self, hello: Sequence[Any]) -> None:
        """Take what ``HELLO`` gave to a verb that greets by itself."""
        now, number, backend = hello
        self.begun = (now, number, backend)

    def execute(self, statement: Any, params: Sequence[object] | None = None) -> Cursor:
        """Send a statement; what it gives is fetched from the cursor."""
        cursor: Cursor = self.cursor.connection.cursor()
        return cursor.execute(statement, params)

    def one(self, statement: Any, params: Sequence[object] | None = None) -> tuple[Any, ...]:
        """Send a statement that gives one row, and wait for it."""
        row = self.execute(statement, params).fetchone()
        assert row is not None
        return row

    @property
    def schema(self) -> str:
        """Where the tables are; statements need not name it."""
        return self._link.address.schema

    @property
    def clock(self) -> float | None:
        """The time as a test has it, else None: a statement takes ``clock_timestamp()`` then."""
        return None if self._link.clock is None else self._link.clock()

    @property
    def ticks(self) -> float | None:
        """The time of leases as a test has it, else None."""
        return None if self._link.ticks is None else self._link.ticks()

    @property
    def now(self) -> float:
        """Seconds since the epoch by the server's clock; waits for all that was sent."""
        clock = self.clock
        return float(self.hello()[0]) if clock is None else clock

    def hello(self) -> tuple[float, str, int]:
        """When it began, its number and the process that serves it."""
        if not isinstance(self.begun, tuple):
            self.begun = self.begun.fetchone()
        hello: tuple[float, str, int] = self.begun
        return hello

    def tell(self, word: str) -> None:
        """Have other processes told something once this is kept."""
        self.words[word] = None

    def after(self, call: Callable[[], object]) -> None:
        """Have something called once this is kept."""
        self.calls.append(call)
