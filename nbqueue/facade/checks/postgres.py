"""What can be said of a PostgreSQL server that a queue is on; over a connection of its own, which only reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nbqueue.facade.checks.finding import Finding, Looked, fine, note, of_seconds, some, wrong

if TYPE_CHECKING:
    from nbqueue.stores.postgres.address import Address

__all__ = ["look_at"]

#: A server that does not answer is not waited for any longer, seconds.
_PATIENCE = 5
#: Of NULLS NOT DISTINCT, which the tables have.
_OLDEST = 150_000
#: Between two machines this is a clock that nobody sets.
_SLACK = 5.0
#: From here on every turn of a worker is felt.
_SLOW = 0.1
#: A transaction that is open for so long keeps the server from sweeping.
_LONG = 600.0
#: Of the connections that the server has, this share is too many.
_FULL = 0.8
#: So many times the answer is timed.
_TIMES = 3

_SERVER = """
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
           pg_is_in_recovery() AS standby, current_setting('fsync') = 'on' AS fsync,
           current_setting('synchronous_commit') <> 'off' AS commits, quote_ident(current_user) AS me,
           current_setting('max_connections')::int AS room,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS taken,
           has_database_privilege(current_database(), 'CREATE') AS creates,
           to_regnamespace(quote_ident(%s)) IS NOT NULL AS has_schema,
           to_regclass(quote_ident(%s) || '.meta') IS NOT NULL AS has_queue
"""
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"
_MISSING = """
    SELECT c.relname, r.verb FROM pg_class c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS r (verb)
    WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relkind = 'r'
      AND NOT has_table_privilege(c.oid, r.verb)
    ORDER BY 1, 2
"""
_OPEN = """
    SELECT pid, coalesce(nullif(application_name, ''), 'no name') AS program, usename AS who,
           extract(epoch FROM now() - xact_start)::float8 AS seconds
    FROM pg_stat_activity WHERE xact_start < now() - make_interval(secs => %s) AND pid <> pg_backend_pid()
      AND backend_type = 'client backend' ORDER BY xact_start LIMIT 3
"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE prepared < now() - make_interval(secs => %s) LIMIT 3"
_VERSION = "SELECT value::int FROM {} WHERE name = 'version'"


def look_at(url: str, clock: Callable[[], float]) -> Looked:
    """Look at a server, and at whether there is a queue on it; nothing is made."""
    import psycopg
    from psycopg.rows import namedtuple_row

    from nbqueue.stores.postgres.address import read
    from nbqueue.stores.postgres.trouble import sentence

    address = read(url)
    try:
        connection = psycopg.connect(
            address.dsn, autocommit=True, connect_timeout=_PATIENCE, row_factory=namedtuple_row
        )
    except (psycopg.Error, OSError) as error:
        return Looked([wrong("server", sentence(error, address))])
    with connection:
        try:
            connection.execute(
                f"SET statement_timeout = '{_PATIENCE}s'; SET default_transaction_read_only = on"
            )
            return _look(connection, address, clock)
        except psycopg.Error as error:
            return Looked([wrong("server", sentence(error, address))])


def _look(connection: Any, address: Address, clock: Callable[[], float]) -> Looked:
    server = connection.execute(_SERVER, [address.schema, address.schema]).fetchone()
    found = [*_answers(connection, address, server, clock), *_keeps(server), *_holds_back(connection)]
    if not server.has_queue:
        return Looked([*found, _unmade(address, server)])
    missing = connection.execute(_MISSING, [address.schema]).fetchall()
    if missing:
        named = ", ".join(f"{row.verb} on {row.relname}" for row in missing[:3])
        found.append(
            wrong(
                "rights",
                f"{server.me} lacks {some(len(missing), 'right')} in schema {address.schema} ({named}); have its owner"
                f' run: GRANT ALL ON ALL TABLES IN SCHEMA "{address.schema}" TO {server.me}',
            )
        )
        return Looked(found)
    found.append(fine("rights", f"{server.me} may read and write every table of schema {address.schema}"))
    return Looked([*found, *(said := [*_tables(connection, address)])], all(one.ok for one in said))


# -- the server


def _answers(connection: Any, address: Address, server: Any, clock: Callable[[], float]) -> Iterator[Finding]:
    took, ahead = min(_timed(connection, clock) for _ in range(_TIMES))
    if server.number < _OLDEST:
        yield wrong(
            "server", f"{address.name} runs PostgreSQL {server.version}; nbqueue needs {_OLDEST // 10_000}"
        )
    elif server.standby:
        yield wrong("server", f"{address.name} is a standby, which only reads; name the primary")
    elif took > _SLOW:
        yield note(
            "server",
            f"{address.name} (PostgreSQL {server.version}) answers in {took * 1e3:.0f} ms, and dispatching or taking"
            " a job waits for that a few times; let workers be closer to it",
        )
    else:
        yield fine("server", f"{address.name}, PostgreSQL {server.version}, answers in {took * 1e3:.1f} ms")
    if abs(ahead) > _SLACK:
        way = "ahead of" if ahead > 0 else "behind"
        yield wrong(
            "clock",
            f"this machine's clock is {of_seconds(abs(ahead))} {way} the server's: delays and schedules are that much"
            " off; set it by NTP (leases go by the server's alone)",
        )
    else:
        yield fine("clock", f"this machine's and the server's differ by {abs(ahead) * 1e3:.0f} ms")
    if server.taken > server.room * _FULL:
        yield wrong(
            "connections",
            f"{server.taken} of the server's {server.room} connections are taken, and each process here needs a few;"
            " raise max_connections",
        )


def _timed(connection: Any, clock: Callable[[], float]) -> tuple[float, float]:
    """How long an answer takes, and by how much this clock goes ahead of the server's."""
    before, start = clock(), time.perf_counter()
    (there,) = connection.execute(_CLOCK).fetchone()
    took = time.perf_counter() - start
    return took, before + took / 2 - there


def _keeps(server: Any) -> Iterator[Finding]:
    """What is acknowledged is to be on the server's disk."""
    if not server.fsync:
        yield wrong(
            "durability",
            "the server does not wait for its disk (fsync = off): a loss of power may damage all that is in it; set"
            " fsync = on",
        )
    elif not server.commits:
        yield note(
            "durability",
            "the server acknowledges before it has written (synchronous_commit = off): the jobs of the last moment may"
            " be lost with it",
        )


def _holds_back(connection: Any) -> Iterator[Finding]:
    for row in connection.execute(_OPEN, [_LONG]).fetchall():
        yield wrong(
            "transactions",
            f"server process {row.pid} ({row.program}, user {row.who}) has had a transaction open for"
            f" {of_seconds(row.seconds)}, and the server can sweep nothing that has changed since: the queue becomes"
            f" slower; end it there, or: SELECT pg_terminate_backend({row.pid})",
        )
    for row in connection.execute(_PREPARED, [_LONG]).fetchall():
        yield wrong(
            "transactions",
            f"the prepared transaction {row.gid!r} was left open, and the server can sweep nothing that has changed"
            f" since; ROLLBACK PREPARED {row.gid!r}, or commit it",
        )


# -- the queue on it


def _unmade(address: Address, server: Any) -> Finding:
    if server.has_schema or server.creates:
        return note(
            "queue",
            f"there is no queue in schema {address.schema} yet; the first dispatch or worker makes it",
        )
    return wrong(
        "rights",
        f"there is no schema {address.schema}, and {server.me} may not make one; have the database's owner run: CREATE"
        f' SCHEMA "{address.schema}" AUTHORIZATION {server.me}',
    )


def _tables(connection: Any, address: Address) -> Iterator[Finding]:
    from psycopg import sql

    from nbqueue.stores.postgres.tables import VERSION

    meta = sql.Identifier(address.schema, "meta")
    row = connection.execute(sql.SQL(_VERSION).format(meta)).fetchone()
    version = row.value if row else 0
    if version > VERSION:
        yield wrong(
            "queue",
            f"the tables in schema {address.schema} are of a newer nbqueue (version {version}, this one knows"
            f" {VERSION}); upgrade with: pip install -U nbqueue",
        )
    elif version < VERSION:
        yield note(
            "queue",
            f"the tables in schema {address.schema} are of an older nbqueue (version {version}); whoever opens it"
            f" next brings them to version {VERSION}",
        )
    else:
        yield fine("queue", f"its tables are in schema {address.schema}, version {version}")
