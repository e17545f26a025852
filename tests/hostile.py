"""Statements that ``queues.sql`` must refuse, whoever opened the file and from whatever process it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nbqueue.errors import NbqueueError

if TYPE_CHECKING:
    from nbqueue import QueueManager

__all__ = ["REFUSED", "check_reads_only", "refused"]

#: A word in the file that no statement may bring to light.
WORD = "abracadabra"

_CHANGE_DATA = (
    *("DELETE FROM ledger", "TRUNCATE ledger", "UPDATE queues SET paused = true", "DROP TABLE ledger"),
    *("INSERT INTO queues VALUES ('x', false)", "INSERT INTO jobs SELECT * FROM jobs", "DROP VIEW jobs"),
    "MERGE INTO queues USING (SELECT 1 AS a) s ON true WHEN MATCHED THEN DELETE",
    "WITH x AS (DELETE FROM ledger RETURNING *) SELECT * FROM x",
    "WITH x AS (INSERT INTO queues VALUES ('x', true) RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE ledger SET job = 0 RETURNING *) SELECT count(*) FROM x",
    "WITH x AS (MERGE INTO queues USING (SELECT 1) ON true WHEN MATCHED THEN DELETE RETURNING *) SELECT * FROM x",
    "WITH RECURSIVE x AS (DELETE FROM ledger RETURNING *) SELECT * FROM x",
    *("SELECT * FROM (DELETE FROM ledger RETURNING *)", "SELECT * INTO stolen FROM jobs"),
    *("UPDATE pg_catalog.pg_class SET relname = 'x'", "DELETE FROM duckdb_settings()"),
    *("SELECT nextval('s')", "SELECT setval('s', 1)", "COMMENT ON TABLE ledger IS 'x'", "ANALYZE", "VACUUM"),
)
_CHANGE_CATALOG = (
    *("CREATE TABLE x (a INT)", "CREATE TEMP TABLE x AS FROM jobs", "CREATE SCHEMA s", "CREATE SEQUENCE s"),
    *("CREATE OR REPLACE TEMP VIEW jobs AS SELECT 1", "CREATE OR REPLACE VIEW jobs AS SELECT 1"),
    *(
        "CREATE MACRO f(x) AS x",
        "CREATE OR REPLACE TEMP MACRO epoch_us(x) AS 0",
        "CREATE MACRO t() AS TABLE SELECT 1",
    ),
    *("CREATE TYPE t AS ENUM ('a')", "CREATE INDEX i ON ledger (job)", "ALTER TABLE ledger ADD COLUMN x INT"),
    *("CREATE SECRET s (TYPE http)", "CREATE PERSISTENT SECRET s (TYPE http)", "DROP SECRET s"),
)
_SEVERAL = (
    *(
        "SELECT 1; DELETE FROM ledger",
        "SELECT 1;\n-- just a comment\nDELETE FROM ledger",
        "COMMIT; DELETE FROM ledger",
    ),
    *("SELECT * FROM jobs; COMMIT; DELETE FROM ledger; SELECT 1", ";", "", "-- SELECT 1", "/* SELECT 1 */"),
    *(
        "SELECT 1 /* ; */; DELETE FROM ledger",
        "SELECT ';' ; DELETE FROM ledger --",
        "SELECT $$;$$; DELETE FROM ledger",
    ),
)
_TRANSACTIONS = (
    *("BEGIN", "BEGIN TRANSACTION READ WRITE", "START TRANSACTION", "COMMIT", "ROLLBACK", "ABORT", "END"),
    *("CHECKPOINT", "FORCE CHECKPOINT", "SELECT * FROM force_checkpoint()"),
)
_EXPLAINED = (
    *("EXPLAIN ANALYZE COMMIT", "EXPLAIN (ANALYZE) COMMIT", "EXPLAIN /* x */ ANALYZE COMMIT"),
    *("EXPLAIN ANALYZE DELETE FROM ledger", "EXPLAIN (FORMAT json, ANALYZE) DELETE FROM ledger"),
    *("explain\nanalyze\ndelete from ledger", "EXPLAIN ANALYZE EXPLAIN ANALYZE COMMIT"),
    *(
        "EXPLAIN ANALYZE WITH x AS (DELETE FROM ledger RETURNING *) SELECT * FROM x",
        "EXPLAIN ANALYZE CHECKPOINT",
    ),
    *("EXPLAIN ANALYZE CREATE TEMP TABLE x (a INT)", "EXPLAIN ANALYZE SET threads = 1"),
    *(
        "EXPLAIN ANALYZE COPY jobs TO '{secret}'",
        "EXPLAIN ANALYZE ATTACH ':memory:' AS m",
        "EXPLAIN ANALYZE LOAD json",
    ),
    *("/* /* */ EXPLAIN SELECT 1 -- */ EXPLAIN ANALYZE COMMIT", "EXPLAIN ANALYZE UPDATE EXTENSIONS"),
    *("EXPLAIN SELECT 1; COMMIT", "EXPLAIN ANALYZE EXECUTE p"),
)
_SETTINGS = (
    *("SET threads = 1", "SET GLOBAL enable_external_access = true", "SET lock_configuration = false"),
    *(
        "RESET lock_configuration",
        "RESET ALL",
        "SET VARIABLE x = 1",
        "SET SESSION search_path = 'x'",
        "USE memory",
    ),
    *(
        "PRAGMA database_list",
        "PRAGMA enable_external_access",
        "PRAGMA threads = 1",
        "PRAGMA disable_verification",
    ),
    *(
        "CALL pragma_version()",
        "CALL enable_logging()",
        "CALL force_checkpoint()",
        "PRAGMA import_database('{folder}')",
    ),
    "SELECT * FROM enable_profiling('json', '{folder}/profile.json')",
    "SELECT * FROM enable_profiling(save_location => '{folder}/profile.json')",
    "SELECT * FROM enable_logging('QueryLog', storage => 'file', storage_path => '{folder}/logs')",
    *("SELECT * FROM enable_logging()", "SELECT * FROM disable_logging()"),
)
_PREPARED = (
    *(
        "PREPARE p AS DELETE FROM ledger",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "EXECUTE p(1)",
        "DEALLOCATE p",
    ),
)
_FILES = (
    *("SELECT * FROM '{secret}'", 'SELECT * FROM "{secret}"', "FROM '{secret}'", "SUMMARIZE '{secret}'"),
    *("DESCRIBE '{secret}'", "FROM '{folder}/*.csv'", "FROM 'file:{secret}'", "FROM '{folder}/none.parquet'"),
    *(
        f"SELECT * FROM {read}('{{secret}}')"
        for read in ("read_csv", "read_csv_auto", "read_text", "read_blob")
    ),
    *(
        f"SELECT * FROM {read}('{{secret}}')"
        for read in ("read_json", "read_ndjson_objects", "sniff_csv", "glob")
    ),
    *(f"SELECT * FROM {read}('{{secret}}')" for read in ("read_parquet", "parquet_metadata", "read_duckdb")),
    *("SELECT * FROM read_csv(['{secret}', '{secret}'])", "SELECT * FROM read_single_csv_file('{secret}')"),
    *("SELECT (SELECT content FROM read_text('{secret}'))", "FROM jobs, read_text('{secret}')"),
    *("SELECT * FROM glob('/*')", "FROM read_text('/proc/self/environ')", "FROM read_csv('/dev/stdin')"),
    *("SELECT * FROM query('FROM ''{secret}''')", "SELECT * FROM query_table('{secret}')"),
    *("SELECT * FROM query_table(['{secret}'])", "SELECT * FROM query('DELETE FROM ledger')"),
    "SELECT * FROM query('SELECT 1; DELETE FROM ledger')",
    "SELECT * FROM query('COPY jobs TO ''{folder}/stolen.csv''')",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''{secret}'')'))",
    *("COPY jobs TO '{folder}/stolen.csv'", "COPY (FROM jobs) TO '{folder}/stolen.parquet' (FORMAT parquet)"),
    *(
        "COPY queues FROM '{secret}'",
        "COPY FROM DATABASE memory TO memory",
        "EXPORT DATABASE '{folder}/stolen'",
    ),
    *("IMPORT DATABASE '{folder}'", "WITH x AS (COPY jobs TO '{folder}/stolen.csv') SELECT * FROM x"),
    *(
        "ATTACH ':memory:' AS other",
        "ATTACH '{folder}/other.duckdb'",
        "ATTACH IF NOT EXISTS '{folder}/other.duckdb'",
    ),
    *("DETACH memory", "SELECT * FROM duckdb_secrets()", "SELECT * FROM which_secret('s3://x', 's3')"),
)
_ELSEWHERE = (
    *(
        "FROM 'https://example.org/x.csv'",
        "FROM read_csv('http://127.0.0.1:9/x.csv')",
        "FROM 's3://bucket/x.parquet'",
    ),
    *(
        "INSTALL httpfs",
        "LOAD httpfs",
        "FORCE INSTALL httpfs FROM 'http://127.0.0.1:9'",
        "LOAD '{folder}/x.duckdb_extension'",
    ),
    *("UPDATE EXTENSIONS", "SELECT getenv('HOME')", "SELECT * FROM connection", "SELECT * FROM cursor"),
    *(
        "SELECT * FROM pandas_scan(4096::POINTER)",
        "SELECT * FROM arrow_scan(4096::POINTER, 1::POINTER, 1::POINTER)",
    ),
    *(
        "SELECT * FROM python_map_function((SELECT 1))",
        "SELECT * FROM seq_scan()",
        "SELECT * FROM arrow_scan_dumb()",
    ),
    "SELECT * FROM register_external_resource_type('a', 'b', 'c', 'd', 'e', 'f', 'g')",
    "SELECT * FROM create_external_resource('a', MAP {{'a': 'b'}})",
)

#: ``{secret}`` is a file beside the queue's, ``{folder}`` where both are.
REFUSED = (
    *(_CHANGE_DATA + _CHANGE_CATALOG + _SEVERAL + _TRANSACTIONS + _EXPLAINED),
    *(_SETTINGS + _PREPARED + _FILES + _ELSEWHERE),
)


def refused(folder: Path) -> Iterator[str]:
    """Give each statement for a folder in which there is a file ``secret.csv``."""
    for statement in REFUSED:
        yield statement.format(secret=folder / "secret.csv", folder=folder)


def check_reads_only(queues: QueueManager, folder: Path) -> None:
    """Try them all on an open queue in ``folder``, and see that nothing was read, written, made or set.

    Its jobs must not move meanwhile.
    """
    secret = folder / "secret.csv"
    secret.write_text(f"a,b\n{WORD},2\n")
    before = _standing(queues), _names(folder)
    for statement in refused(folder):
        with pytest.raises(NbqueueError) as caught:
            pytest.fail(f"{statement!r} gave {queues.sql(statement, names={}).to_dict('records')}")
        assert WORD not in str(caught.value), statement
    for one, other in zip((_standing(queues), _names(folder)), before, strict=True):
        assert one == other
    settings = queues.sql(
        "SELECT current_setting('enable_external_access') AS files, current_setting('lock_configuration') AS locked"
    )
    assert settings.iloc[0].tolist() == [False, True]


def _names(folder: Path) -> list[str]:
    # The queue's log comes and goes.
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".wal")


def _standing(queues: QueueManager) -> list[object]:
    names = {
        "duckdb_tables()": "table_name",
        "duckdb_views()": "view_name",
        "duckdb_databases()": "database_name, path",
    }
    views = {**dict.fromkeys(("jobs", "events", "queues"), "*"), **names}
    return [
        queues.sql(f"SELECT {columns} FROM {view} ORDER BY ALL").astype(str).values.tolist()
        for view, columns in views.items()
    ]
