"""Files of older versions: what was in them is there, goes on, and a step that fails changes nothing."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from nbqueue.errors import QueueUnavailable
from nbqueue.jobs import State
from nbqueue.store import Selection
from nbqueue.stores import migrations, schema
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.testing import FakeClock, FakeWorker
from nbqueue.testing.workers import check_books

VERSION_1 = Path(__file__).with_name("schema_1.sql").read_text(encoding="utf-8")

#: What the file says of its jobs: command to (state, attempt, error, result).
STANDINGS = {
    "succeeded": (State.SUCCEEDED, 1, "", '{"x":1}'),
    "failed": (State.FAILED, 1, "KeyError: 'x'", ""),
    "retrying": (State.PENDING, 1, "E: 1", ""),
    "held": (State.PENDING, 0, "PayloadUntrusted: no", ""),
    "cancelled": (State.CANCELLED, 1, "", ""),
    "retried": (State.PENDING, 1, "", ""),
    "pending": (State.PENDING, 0, "", ""),
    "scheduled": (State.PENDING, 0, "", ""),
    "row": (State.PENDING, 0, "", ""),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of version 1."""
    path = tmp_path / "jobs.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(VERSION_1)
    return path


def columns(path: Path) -> list[tuple[object, ...]]:
    """Every column of every table in its order, and the version."""
    with duckdb.connect(str(path)) as con:
        tables = con.execute(
            "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() WHERE NOT internal"
            " AND table_name NOT IN (SELECT view_name FROM duckdb_views()) ORDER BY table_name, column_index"
        ).fetchall()
        return tables + con.execute("SELECT value FROM meta WHERE name = 'schema'").fetchall()


def test_all_of_version_1_is_there(path: Path) -> None:
    """Every job stands where it stood, with its attempts, logs, output, batch, code and switch."""
    clock = FakeClock()
    clock.advance(10.0)
    store = DuckDBStore(path, clock=clock.time, ticks=clock.ticks)
    records = {record.spec.command: record for record in store.get(store.find(Selection()))}
    found = {
        name: (r.state, r.attempt, r.error, r.result) for name, r in records.items() if name in STANDINGS
    }
    assert found == STANDINGS
    assert set(records) == {*STANDINGS, "running"}
    assert records["succeeded"].payload == '{"args":["ü"],"kwargs":{}}'
    said = store.query("SELECT text FROM logs")["text"].tolist()
    assert said == ["hello it's\nme\n"]
    assert store.query("SELECT mimebundle FROM outputs")["mimebundle"].tolist() == [
        '{"data":{"text/plain":"1"}}'
    ]
    outcomes = store.query("SELECT command, outcome::VARCHAR AS o FROM attempts ORDER BY fence")
    assert dict(zip(outcomes["command"], outcomes["o"], strict=True)) == {
        "succeeded": "succeeded",
        "failed": "failed",
        "retrying": "failed",
        "held": "refused",
        "cancelled": "cancelled",
        "retried": "failed",
        "running": "interrupted",
    }
    batch = store.get_batch("rows")
    assert batch is not None
    count = store.count_batch(batch.batch_id)
    assert count is not None
    assert (count.total, count.states[State.PENDING]) == (3, 3)
    assert store.get_code("c0de") == b"\x00code\xff"
    assert {q.name: q.paused for q in store.queues()} == {"default": False, "imports": False, "paused": True}
    assert [i.command for i in store.interrupted] == ["running"]
    check_books(store)
    store.close()


def test_what_waited_in_version_1_runs(path: Path) -> None:
    """Pending jobs are handed out, and new ones go on behind them with numbers and claims of their own."""
    clock = FakeClock()
    clock.advance(600.0)
    store = DuckDBStore(path, clock=clock.time, ticks=clock.ticks)
    before = store.query("SELECT max(number) AS n, max(fence) AS f FROM events")
    worker = FakeWorker(store, lease=7.0)
    claims = worker.take(20)
    assert {claim.spec.command for claim in claims} == {
        *("retrying", "retried", "pending", "scheduled", "row", "running")
    }
    assert min(claim.fence for claim in claims) > before["f"][0]
    for claim in claims:
        assert worker.end(claim).done
    store.close()
    with duckdb.connect(str(path)) as con:
        assert con.execute("SELECT worker_id, lease FROM workers ORDER BY worker").fetchall() == [
            ("keeper", None),
            ("w1", 7.0),
        ]


def test_migrated_is_as_if_new(path: Path, tmp_path: Path) -> None:
    """After all steps the tables are those of a new file, column by column: rows are inserted by position."""
    new = tmp_path / "new.duckdb"
    for one in (new, path):
        DuckDBStore(one).close()
    assert columns(path) == columns(new)


def test_early_version_1(path: Path) -> None:
    """The first files had no batches; theirs are made."""
    with duckdb.connect(str(path)) as con:
        con.execute("DROP TABLE batches")
    store = DuckDBStore(path)
    assert store.get_batch("rows") is None
    store.close()


def test_failed_step_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails half-way leaves the file of the old version, which opens once the cause is gone."""
    before = columns(path)
    with monkeypatch.context() as patch:
        patch.setitem(migrations.STEPS, 2, (*migrations.STEPS[2], "ALTER TABLE nosuch ADD COLUMN x INTEGER"))
        with pytest.raises(QueueUnavailable, match=r"cannot be opened.*nosuch"):
            DuckDBStore(path)
    assert columns(path) == before
    store = DuckDBStore(path)
    assert len(store.find(Selection())) == 12
    store.close()


def test_every_version_has_its_step() -> None:
    """From the first version to this one none is missing."""
    assert list(migrations.STEPS) == list(range(2, schema.SCHEMA_VERSION + 1))
