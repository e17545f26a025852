"""The tables of a queue in PostgreSQL: made once, brought up to date once, whoever comes first.

All are in one schema. ``jobs``, ``ledger`` and ``gone`` only grow; ``standing`` is the one table in which each job has
a row that changes. Whatever mirrors copy carries the transaction that wrote it, so that what is new can be told from
what is known without a lock.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from psycopg import errors, sql

from nbqueue.errors import QueueUnavailable

if TYPE_CHECKING:
    from nbqueue.stores.postgres.link import Link, Tx

__all__ = ["VERSION", "are_made", "prepare"]

#: Raised by one, with a step in ``_STEPS``, whenever the tables of an older nbqueue need one.
VERSION = 1
#: Needed for NULLS NOT DISTINCT.
_SERVER = 150_000

_XID = "xid xid8 NOT NULL DEFAULT pg_current_xact_id()"
# Each job leaves two dead rows behind here; the defaults would let a fifth of the table die before anybody sweeps.
_SWEPT = (
    "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0,"
    " autovacuum_analyze_scale_factor = 0.05"
)

_TABLES = (
    "CREATE TABLE meta (name text PRIMARY KEY, value text NOT NULL)",
    # Of every dispatch and every event, in the order in which they happened to a job.
    "CREATE SEQUENCE seq",
    "CREATE SEQUENCE job_numbers",
    "CREATE SEQUENCE fences",
    (
        "CREATE TABLE specs (spec integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, command text NOT NULL,"
        " queue text NOT NULL, priority integer NOT NULL, origin text NOT NULL, code text NOT NULL, tries integer,"
        f" timeout float8, retry text NOT NULL, {_XID},"
        " UNIQUE NULLS NOT DISTINCT (command, queue, priority, origin, code, tries, timeout, retry))"
    ),
    f"CREATE TABLE queues (queue text PRIMARY KEY, paused boolean NOT NULL DEFAULT false, {_XID})",
    "CREATE TABLE code (code text PRIMARY KEY, blob bytea NOT NULL, put_us bigint NOT NULL)",
    (
        "CREATE TABLE workers (worker integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, worker_id text NOT NULL UNIQUE,"
        " host text NOT NULL, pid integer NOT NULL, executor text NOT NULL, concurrency integer NOT NULL,"
        # NULL: every queue.
        " queues text[], tries integer NOT NULL, timeout float8, handlers text NOT NULL, joined_us bigint NOT NULL,"
        # Seconds by the server's clock.
        " lease float8 NOT NULL, lease_until float8 NOT NULL, gone boolean NOT NULL DEFAULT false,"
        f" {_XID}) WITH (fillfactor = 50)"
    ),
    (
        "CREATE TABLE batches (batch_id uuid PRIMARY KEY, key text NOT NULL, command text NOT NULL,"
        " origin text NOT NULL, head text NOT NULL, created_us bigint NOT NULL, mapped_us bigint NOT NULL,"
        f" runs bigint[] NOT NULL, {_XID})"
    ),
    # What a dispatch says; never changed.
    (
        "CREATE TABLE jobs (job bigint PRIMARY KEY, seq bigint NOT NULL DEFAULT nextval('seq'), job_id uuid NOT NULL,"
        " spec integer NOT NULL, dispatched_us bigint NOT NULL, due_us bigint, payload text NOT NULL, metadata text,"
        f" batch_id uuid, row_label text, {_XID})"
    ),
    # Where a job stands: the fields of lifecycle.Life under their names.
    (
        "CREATE TABLE standing (job bigint PRIMARY KEY, spec integer NOT NULL, state text NOT NULL,"
        " attempt integer NOT NULL, base integer NOT NULL, crashes integer NOT NULL, fence bigint NOT NULL,"
        " tries integer NOT NULL, due_us bigint, cancelling boolean NOT NULL, held boolean NOT NULL,"
        # Its time has not come, as far as anybody has looked; and who has it, or had it last.
        f" waits boolean NOT NULL, worker integer) WITH ({_SWEPT})"
    ),
    # The columns of stores.schema but those of a dispatch.
    (
        "CREATE TABLE ledger (seq bigint NOT NULL DEFAULT nextval('seq'), happened_us bigint NOT NULL,"
        " event text NOT NULL, job bigint NOT NULL, fence bigint, attempt integer, max_attempts integer, base integer,"
        " crashes integer, worker integer, started_us bigint, due_us bigint, data text, cause text, error text,"
        f" traceback text, {_XID})"
    ),
    "CREATE TABLE counts (queue text NOT NULL, state text NOT NULL, delta bigint NOT NULL)",
    # What was forgotten, for mirrors: runs of job numbers (first, last, first, last …).
    (
        "CREATE TABLE gone (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, jobs bigint[] NOT NULL,"
        " specs integer[] NOT NULL, workers integer[] NOT NULL, batches uuid[] NOT NULL, gone_us bigint NOT NULL,"
        f" {_XID})"
    ),
    "CREATE UNIQUE INDEX jobs_by_id ON jobs (job_id)",
    "CREATE INDEX jobs_by_batch ON jobs (batch_id) WHERE batch_id IS NOT NULL",
    "CREATE UNIQUE INDEX batches_by_key ON batches (key) WHERE key <> ''",
    "CREATE INDEX ready ON standing (spec, job) WHERE state = 'pending' AND NOT waits AND NOT held",
    "CREATE INDEX waiting ON standing (due_us) WHERE waits",
    "CREATE INDEX running ON standing (worker) WHERE state = 'running'",
    # Each turn asks for these; the rows that ``running`` has lost since the last vacuum would be in its way.
    "CREATE INDEX stopping ON standing (worker) WHERE state = 'running' AND cancelling",
    "CREATE INDEX ledger_by_job ON ledger (job, seq)",
    # What may be forgotten, oldest first.
    (
        "CREATE INDEX ledger_by_end ON ledger (happened_us) WHERE event IN ('succeeded', 'failed', 'cancelled')"
    ),
    *(
        f"CREATE INDEX {table}_by_xid ON {table} (xid)"
        for table in ("specs", "queues", "workers", "batches", "jobs", "ledger", "gone")
    ),
    # Numbers that follow one another, whoever else takes some: runs of jobs stay runs.
    """CREATE FUNCTION take_numbers(sequence regclass, n bigint) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE first bigint;
    BEGIN
        PERFORM pg_advisory_lock(7411, sequence::oid::integer);
        first := nextval(sequence);
        PERFORM setval(sequence, first + n - 1);
        PERFORM pg_advisory_unlock(7411, sequence::oid::integer);
        RETURN first;
    END $$""",
    "INSERT INTO queues (queue) VALUES ('default')",
)
#: What brings the tables of each older version one version on.
_STEPS: dict[int, tuple[str, ...]] = {}


def are_made(link: Link) -> bool:
    """Whether there are tables of a queue already; none is made."""
    return link.run(_version, write=False, pipelined=False) > 0


def prepare(link: Link) -> bool:
    """Make the tables where there are none, refuse what is no queue of ours; gives whether they are new.

    Raises
    ------
    QueueUnavailable
        If they can be neither found nor made; the sentence says why.
    """
    known = link.run(_version, pipelined=False)
    if known == VERSION:
        return False
    return link.run(lambda tx: _make(tx, link.name), pipelined=False)


def _make(tx: Tx, name: str) -> bool:
    # Whoever comes second waits here, and finds what the first has made.
    tx.execute("SELECT pg_advisory_xact_lock(7410, hashtext(%s))", [tx.schema])
    known = _version(tx)
    if known > VERSION:
        raise QueueUnavailable(
            f"{name} was made by a newer nbqueue (its tables are version {known}, this one knows {VERSION}):"
            " upgrade nbqueue here"
        )
    if known:
        for version in range(known, VERSION):
            for statement in _STEPS[version]:
                tx.execute(statement)
        tx.execute("UPDATE meta SET value = %s WHERE name = 'version'", [str(VERSION)])
        return False
    _refuse_others(tx, name)
    try:
        tx.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(tx.schema)))
        for statement in _TABLES:
            tx.execute(statement)
    except errors.InsufficientPrivilege as error:
        raise QueueUnavailable(
            f"there is no queue in {name} yet, and this user may not make one: {_first_line(error)}; have its owner run"
            f" `GRANT CREATE ON DATABASE … TO …`, or make the schema {tx.schema} for you"
        ) from error
    tx.execute(
        "INSERT INTO meta VALUES ('version', %s), ('store_id', %s), ('looked_at', '0')",
        [str(VERSION), uuid.uuid4().hex],
    )
    return True


def _version(tx: Tx) -> int:
    """The version of the tables; 0 where there are none, or where they are not ours."""
    # Of the catalogue: it may be read by everybody, and tells whoever has waited for a lock what there is now.
    there = tx.one(
        "SELECT count(DISTINCT relname) = 3 FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname = %s AND relname IN ('meta', 'standing', 'ledger')",
        [tx.schema],
    )[0]
    if not there:
        return 0
    try:
        # By its full name: who has no rights on a schema finds nothing in it otherwise.
        query = sql.SQL("SELECT value FROM {} WHERE name = 'version'").format(
            sql.Identifier(tx.schema, "meta")
        )
        row = tx.execute(query).fetchone()
    except errors.InsufficientPrivilege as error:
        raise QueueUnavailable(
            f"this user may not read the queue in the schema {tx.schema}: {_first_line(error)}; have its owner run"
            f" `GRANT USAGE ON SCHEMA {tx.schema} TO …` and `GRANT ALL ON ALL TABLES IN SCHEMA {tx.schema} TO …`"
        ) from error
    return int(row[0]) if row else 0


def _refuse_others(tx: Tx, name: str) -> None:
    """Refuse a server that is too old, and a schema that has tables of somebody else."""
    (version,) = tx.one("SELECT current_setting('server_version_num')::integer")
    (encoding,) = tx.one("SELECT current_setting('server_encoding')")
    if version < _SERVER:
        raise QueueUnavailable(f"{name} runs PostgreSQL {version // 10_000}; nbqueue needs 15 or newer")
    if encoding != "UTF8":
        raise QueueUnavailable(
            f"{name} keeps text as {encoding}, which has no room for every character; make a database for the queue"
            " with ENCODING 'UTF8'"
        )
    tables = tx.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p', 'v', 'm', 'f')"
        " ORDER BY relname LIMIT 3",
        [sql.Identifier(tx.schema).as_string(tx.cursor)],
    ).fetchall()
    if tables:
        raise QueueUnavailable(
            f"the schema {tx.schema} of {name} has tables of its own ({', '.join(row[0] for row in tables)}) and no"
            " queue in it; give the queue a schema of its own: ?schema=…"
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
