"""Doctor on a server: what is wrong with it is made for real, and said in its sentence; nothing is made or changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

import nbqueue as nbq
from nbqueue.facade.checks import postgres as checks
from nbqueue.facade.checks.finding import Finding
from nbqueue.facade.checkup import checkup
from nbqueue.stores.postgres.tables import VERSION
from tests.servers import PASSWORD, PostgresServer, fresh_schema, with_schema


@pytest.fixture
def direct(postgres: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to the server as its administrator."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        yield connection


def said(found: list[Finding], what: str) -> list[tuple[bool | None, str]]:
    """What was found of one thing."""
    assert not any(PASSWORD in finding.sentence for finding in found)
    return [(finding.ok, finding.sentence) for finding in found if finding.what == what]


def schema_of(url: str) -> str:
    return url.rpartition("=")[2]


def has_schema(direct: psycopg.Connection[tuple[Any, ...]], url: str) -> bool:
    return direct.execute("SELECT to_regnamespace(%s) IS NOT NULL", [schema_of(url)]).fetchone() == (True,)


def test_a_queue_that_is_not_there_is_not_made(
    postgres_url: str, direct: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """It is a note, and the server is found in order."""
    found = checkup(postgres_url)
    ((ok, sentence),) = said(found, "server")
    assert ok
    assert ", PostgreSQL " in sentence
    ((ok, sentence),) = said(found, "queue")
    assert ok is None
    assert f"no queue in schema {schema_of(postgres_url)} yet" in sentence
    assert said(found, "clock")[0][0]
    assert not has_schema(direct, postgres_url)


def test_a_server_that_is_not_there(private_postgres: PostgresServer) -> None:
    """One sentence, and nothing beyond the server is looked at."""
    private_postgres.stop()
    found = checkup(private_postgres.url)
    ((ok, sentence),) = said(found, "server")
    assert ok is False
    assert "cannot be reached" in sentence
    assert {finding.what for finding in found} <= {"versions", "secret", "server"}


def test_a_queue_in_order(postgres_url: str, direct: psycopg.Connection[tuple[Any, ...]]) -> None:
    """What is in it is looked at as in a file, open here or not; nothing but fsync is wrong with a server of tests."""
    with nbq.connect(postgres_url) as queues:
        queues.dispatch(nbq.QueuedCommand("import:data"))
        here = queues.findings()
    for found in (here, checkup(postgres_url)):
        assert said(found, "queue") == [
            (True, f"its tables are in schema {schema_of(postgres_url)}, version {VERSION}")
        ]
        assert said(found, "rights")[0][0]
        ((ok, sentence),) = said(found, "workers")
        assert ok is False
        assert sentence.startswith("1 job waits and there is no worker: import:data (1)")
        wrong = {finding.what for finding in found if finding.ok is False}
        keeps = direct.execute("SHOW fsync").fetchone() == ("on",)
        assert wrong == {"workers"} | (set() if keeps else {"durability"})


@pytest.mark.parametrize(
    ("version", "ok", "part"),
    [(VERSION + 1, False, "a newer nbqueue"), (VERSION - 1, None, "an older nbqueue")],
)
def test_tables_of_another_version(
    version: int, ok: bool | None, part: str, postgres_url: str, direct: psycopg.Connection[tuple[Any, ...]]
) -> None:
    """They are left as they are, and what is in them is not asked for."""
    nbq.connect(postgres_url).close()
    meta = sql.Identifier(schema_of(postgres_url), "meta")
    direct.execute(sql.SQL("UPDATE {} SET value = %s WHERE name = 'version'").format(meta), [str(version)])
    found = checkup(postgres_url)
    ((found_ok, sentence),) = said(found, "queue")
    assert (found_ok, part in sentence) == (ok, True)
    assert not said(found, "workers")
    row = direct.execute(sql.SQL("SELECT value FROM {} WHERE name = 'version'").format(meta)).fetchone()
    assert row == (str(version),)


def test_a_user_with_too_few_rights(private_postgres: PostgresServer) -> None:
    """What is lacking is named, with the statement that gives it."""
    with (
        fresh_schema(private_postgres.url) as postgres_url,
        psycopg.connect(private_postgres.url, autocommit=True) as direct,
    ):
        look_as_somebody_else(postgres_url, private_postgres.url, direct)


def look_as_somebody_else(
    postgres_url: str, server: str, direct: psycopg.Connection[tuple[Any, ...]]
) -> None:
    user, schema = f"{schema_of(postgres_url)}_u", schema_of(postgres_url)
    name = sql.Identifier(user)
    direct.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(name))
    url = with_schema(server.replace(f"postgres:{PASSWORD}@", f"{user}:x@"), schema)
    try:
        ((ok, sentence),) = said(checkup(url), "rights")
        assert ok is False
        assert f"there is no schema {schema}, and {user} may not make one" in sentence
        nbq.connect(postgres_url).close()
        direct.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(schema), name))
        ((ok, sentence),) = said(checkup(url), "rights")
        assert ok is False
        grant = sentence.partition("run: ")[2]
        direct.execute(grant)  # type: ignore[call-overload]
        assert said(checkup(url), "rights")[0][0]
    finally:
        direct.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(name, name))


def test_a_transaction_that_is_left_open(
    postgres_url: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose it is, and how to end it."""
    monkeypatch.setattr(checks, "_LONG", 0.0)
    with psycopg.connect(postgres, application_name="forgotten") as other:
        other.execute("SELECT 1")
        pid = other.info.backend_pid
        sentences = [sentence for ok, sentence in said(checkup(postgres_url), "transactions") if ok is False]
    assert any(f"server process {pid} (forgotten, user " in sentence for sentence in sentences)


def test_a_clock_that_is_off(postgres_url: str) -> None:
    """By how much, and in which direction."""
    for seconds, part in ((60.0, "60 s ahead of the server's"), (-60.0, "60 s behind the server's")):
        found = checkup(postgres_url, clock=lambda off=seconds: time.time() + off)
        ((ok, sentence),) = said(found, "clock")
        assert (ok, part in sentence) == (False, True)
