"""Read-only SQL: what it answers, what it refuses, and what hostile statements come to."""

from __future__ import annotations

import threading
import uuid
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from nbqueue.errors import NotSupported, QueueError
from nbqueue.lifecycle import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Book


@pytest.fixture
def filled(book: Book) -> Book:
    """One succeeded, one failed, one pending job."""
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
        book.run(book.job(0), 1, 3, outcome)
    book.job(0, "other")
    book.flush()
    return book


def ledger(book: Book) -> int:
    """How many rows there are, asked past the reader."""
    found = book.connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert found is not None
    return int(found[0])


# --------------------------------------------------------------------------------------------------- answers
def test_select(filled: Book) -> None:
    """A SELECT over a view gives its rows."""
    found = filled.query("SELECT command, count(*) AS n FROM jobs GROUP BY command ORDER BY command")
    assert found.values.tolist() == [["import", 2], ["other", 1]]


@pytest.mark.parametrize(
    "sql",
    [
        "FROM jobs",
        "DESCRIBE jobs",
        "SUMMARIZE jobs",
        "SHOW TABLES",
        "VALUES (1)",
        "WITH j AS (FROM jobs) SELECT * FROM j",
        "EXPLAIN SELECT * FROM jobs",
        "EXPLAIN ANALYZE SELECT * FROM jobs",
        "explain (analyze, format json) select * from jobs",
        "explain analyze (select 1)",
        "SELECT 1;",
    ],
)
def test_other_ways_to_read(filled: Book, sql: str) -> None:
    """What only reads is let through however it is written."""
    assert len(filled.query(sql)) > 0


def test_parameters(filled: Book) -> None:
    """Parameters are values, NumPy's numbers and lists too, never SQL."""
    assert filled.query("SELECT ? AS x", ["1; DROP TABLE ledger"])["x"].tolist() == ["1; DROP TABLE ledger"]
    assert filled.query("SELECT ? + 1 AS x", [np.int64(2)])["x"].tolist() == [3]
    sql = "SELECT number FROM jobs WHERE number IN (SELECT unnest(?::BIGINT[])) ORDER BY number"
    assert filled.query(sql, [[0, 2]])["number"].tolist() == [0, 2]


def test_frames_by_name(filled: Book) -> None:
    """The caller's DataFrames are tables of this query, and gone after it."""
    owners = pd.DataFrame({"command": ["import", "other"], "owner": ["ann", "bob"]})
    sql = "SELECT owner, count(*) AS n FROM jobs JOIN owners USING (command) GROUP BY owner ORDER BY owner"
    assert filled.query(sql, (), {"owners": owners}).values.tolist() == [["ann", 2], ["bob", 1]]
    with pytest.raises(QueueError, match="owners does not exist"):
        filled.query(sql)


def test_a_frame_that_is_not_needed(filled: Book) -> None:
    """A DataFrame that DuckDB cannot read is no trouble unless the query needs it; then the error says so."""
    odd = pd.DataFrame({"p": pd.period_range("2020", "2021", freq="Y")})
    assert filled.query("SELECT 1 AS odd", (), {"odd": odd})["odd"].tolist() == [1]
    with pytest.raises(QueueError, match=r"(?s)odd.*period"):
        filled.query("SELECT * FROM odd", (), {"odd": odd})


def test_types_full_and_empty() -> None:
    """Each kind of column has its type, without a warning and without pytz."""
    import duckdb

    from nbqueue.stores.reader import run_query

    sql = (
        "SELECT * FROM (SELECT 'a'::ENUM('a', 'b') AS word, 'x' AS text, make_timestamptz(0) AS at, 1.5::DOUBLE AS s,"
        " 1::BIGINT AS n, true AS yes, DATE '2026-01-02' AS day, uuid() AS id, INTERVAL 2 DAY AS span"
        " UNION ALL BY NAME SELECT NULL::BIGINT AS n WHERE ?)"
    )
    with duckdb.connect() as connection, warnings.catch_warnings():
        warnings.simplefilter("error")
        connection.execute("SET TimeZone='UTC'")
        whole = run_query(connection, sql, [False], {})
        empty = run_query(connection, sql + " WHERE false", [False], {})
        gaps = run_query(connection, sql, [True], {})
    text = pd.Series(["x"]).dtype
    expected = {"text": text, "at": "datetime64[us, UTC]", "s": "float64", "n": "int64", "yes": "bool"}
    for frame in (whole, empty):
        assert {name: frame[name].dtype for name in expected} == expected
        assert frame["word"].cat.categories.tolist() == ["a", "b"]
        assert not frame["word"].cat.ordered
        assert frame["day"].dtype == "datetime64[us]"
        assert frame["span"].dtype == "timedelta64[us]"
    assert isinstance(whole["id"][0], uuid.UUID)
    assert whole["at"][0] == pd.Timestamp("1970-01-01", tz="UTC")
    assert gaps.iloc[1].isna().all()
    assert gaps["n"].dtype == "Int64"
    assert gaps["yes"].dtype == "boolean"
    assert gaps["at"].dtype == "datetime64[us, UTC]"


def test_same_column_twice(filled: Book) -> None:
    """Two columns of one name are told apart."""
    assert filled.query("SELECT 1 AS a, 2 AS a").iloc[0].tolist() == [1, 2]


def test_many_threads(filled: Book) -> None:
    """Queries from several threads at once do not see one another's frames, or trip over one another."""
    seen: list[int] = []

    def ask(n: int) -> None:
        for _ in range(10):
            mine = pd.DataFrame({"n": [n]})
            seen.append(
                filled.query("SELECT n + count(*) AS n FROM mine, jobs GROUP BY n", (), {"mine": mine})["n"][
                    0
                ]
                - n
            )

    threads = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [3] * 40


# -------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("DELETE FROM ledger", "DELETE"),
        ("INSERT INTO queues VALUES ('x', false)", "INSERT"),
        ("UPDATE queues SET paused = true", "UPDATE"),
        ("DROP TABLE ledger", "DROP"),
        ("CREATE TABLE x (a INT)", "CREATE"),
        ("CREATE TEMP TABLE x (a INT)", "CREATE"),
        ("CREATE OR REPLACE TEMP VIEW jobs AS SELECT 1", "CREATE"),
        ("ALTER TABLE ledger ADD COLUMN x INT", "ALTER"),
        ("ATTACH ':memory:' AS other", "ATTACH"),
        ("DETACH memory", "DETACH"),
        ("COPY jobs TO 'jobs.csv'", "COPY"),
        ("COPY queues FROM 'jobs.csv'", "COPY"),
        ("EXPORT DATABASE 'out'", "EXPORT"),
        ("PRAGMA database_list", "PRAGMA"),
        ("SET threads = 1", "SET"),
        ("RESET lock_configuration", "SET"),
        ("USE memory", "SET"),
        ("INSTALL httpfs", "LOAD"),
        ("LOAD json", "LOAD"),
        ("CHECKPOINT", "CALL"),
        ("CALL pragma_version()", "CALL"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("BEGIN", "TRANSACTION"),
        ("COMMIT", "TRANSACTION"),
        ("VACUUM", "VACUUM"),
        ("EXPLAIN ANALYZE COMMIT", "EXPLAIN of TRANSACTION"),
        ("EXPLAIN (ANALYZE) COMMIT", "EXPLAIN of TRANSACTION"),
        ("EXPLAIN ANALYZE DELETE FROM ledger", "EXPLAIN of DELETE"),
        ("EXPLAIN ANALYZE CHECKPOINT", "EXPLAIN of CALL"),
        ("EXPLAIN ANALYZE CREATE TEMP TABLE x (a INT)", "EXPLAIN of CREATE"),
        ("EXPLAIN ANALYZE SET threads = 1", "EXPLAIN of SET"),
        ("EXPLAIN /* x */ ANALYZE COMMIT", "EXPLAIN of"),
        ("/* /* */ EXPLAIN SELECT 1 -- */ EXPLAIN ANALYZE COMMIT", "EXPLAIN of"),
        ("PIVOT jobs ON state", "MULTI"),
    ],
)
def test_what_does_not_read(filled: Book, sql: str, named: str) -> None:
    """What is no SELECT is refused by its kind, before anything runs."""
    before = ledger(filled)
    with pytest.raises(NotSupported, match=rf"queues\.sql reads only.*not {named}"):
        filled.query(sql)
    assert ledger(filled) == before
    assert len(filled.query("SELECT * FROM jobs")) == 3


@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "SELECT 1; DELETE FROM ledger", "COMMIT; SELECT 1", "", "  ", "-- nothing"]
)
def test_exactly_one_statement(filled: Book, sql: str) -> None:
    """Several statements, or none, are refused, and none of them runs."""
    with pytest.raises(NotSupported, match="one SELECT at a time"):
        filled.query(sql)
    assert ledger(filled) == 7


@pytest.mark.parametrize(
    "sql",
    [
        "WITH x AS (DELETE FROM ledger RETURNING *) SELECT * FROM x",
        "WITH x AS (INSERT INTO queues VALUES ('x', true) RETURNING *) SELECT * FROM x",
        "WITH x AS (UPDATE ledger SET job = 0 RETURNING *) SELECT count(*) FROM x",
        "EXPLAIN ANALYZE WITH x AS (DELETE FROM ledger RETURNING *) SELECT * FROM x",
        "SELECT * FROM query('DELETE FROM ledger')",
        "SELECT * FROM json_execute_serialized_sql('{\"statements\": []}')",
        "SELECT * FROM force_checkpoint()",
        "SELECT * FROM enable_logging()",
        "SELECT nextval('s')",
    ],
)
def test_writes_inside_a_select(filled: Book, sql: str) -> None:
    """A write that hides in a SELECT is stopped by the transaction, and nothing has changed."""
    with pytest.raises(QueueError):
        filled.query(sql)
    assert ledger(filled) == 7
    assert filled.connection.execute("SELECT count(*) FROM queues").fetchone() == (0,)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{path}')",
        "SELECT * FROM read_text('{path}')",
        "SELECT * FROM read_blob('{path}')",
        "SELECT * FROM read_json('{path}')",
        "SELECT * FROM read_parquet('{path}')",
        "SELECT * FROM sniff_csv('{path}')",
        "SELECT * FROM read_duckdb('{path}')",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM '{path}'",
        'SELECT * FROM "{path}"',
        "SELECT * FROM duckdb_secrets()",
    ],
)
def test_no_files(filled: Book, tmp_path: Path, sql: str) -> None:
    """No file can be read, listed or guessed at."""
    path = tmp_path / "secret.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(QueueError, match="no files"):
        filled.query(sql.format(path=path, folder=tmp_path))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT getenv('HOME')",
        "SELECT * FROM here",
        "SELECT * FROM frames",
        "SELECT * FROM named",
        "SELECT * FROM 'https://example.org/x.csv'",
    ],
)
def test_nothing_of_this_process(filled: Book, sql: str) -> None:
    """Neither the environment, nor variables that nobody handed over, nor the network can be read."""
    here = pd.DataFrame({"a": [1]})
    assert len(here) == 1
    with pytest.raises(QueueError):
        filled.query(sql)


def test_settings_stay(filled: Book) -> None:
    """After all that, the connection's settings are what they were."""
    found = filled.query(
        "SELECT current_setting('enable_external_access') AS files, current_setting('lock_configuration') AS locked,"
        " current_setting('TimeZone') AS zone"
    )
    assert found[["files", "locked"]].iloc[0].tolist() == [False, True]
    assert found["zone"][0] in {"UTC", "Etc/UTC"}


# ---------------------------------------------------------------------------------------------------- errors
def test_a_mistake_names_what_is_readable(filled: Book) -> None:
    """A mistake is told in DuckDB's sentence, with what there is to read."""
    with pytest.raises(QueueError) as caught:
        filled.query("SELECT * FROM job", (), {"users": pd.DataFrame({"a": [1]})})
    assert str(caught.value) == (
        "Catalog Error: Table with name job does not exist; readable here: jobs, attempts, events, logs, outputs,"
        " and the DataFrame users"
    )
    with pytest.raises(QueueError, match="syntax error"):
        filled.query("SELEC 1")


def test_wrong_parameters(filled: Book) -> None:
    """Too few and too many parameters are an error of ours."""
    for params in ([], [1, 2]):
        with pytest.raises(QueueError):
            filled.query("SELECT ? AS x", params)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("jobs", "'jobs' is a view of the queue"),
        ("Attempts", "'Attempts' is a view of the queue"),
        ("ledger", "'ledger' is a table of the queue"),
        ("Specs", "'Specs' is a table of the queue"),
        ("a b", "plain name"),
        ('x"; DROP TABLE ledger; --', "plain name"),
        ("", "plain name"),
    ],
)
def test_frames_that_would_shadow(filled: Book, name: str, sentence: str) -> None:
    """A DataFrame cannot take a view's place, nor that of a table that a view reads, nor a name that is none."""
    with pytest.raises(QueueError, match=sentence):
        filled.query("SELECT 1", (), {name: pd.DataFrame({"a": [1]})})


def test_frames_that_differ_in_case(filled: Book) -> None:
    """Two names that are one to SQL are refused, since one would win in silence."""
    one, two = pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]})
    with pytest.raises(QueueError, match="cannot tell 'df' from 'DF'"):
        filled.query("SELECT * FROM df", (), {"df": one, "DF": two})


def test_timestamps_inside_a_struct(filled: Book) -> None:
    """What needs pytz inside DuckDB is told in a sentence that helps."""
    with pytest.raises(QueueError, match="column of its own"):
        filled.query("SELECT {'at': dispatched_at} AS s FROM jobs")
