"""What cannot be had, and what a server says no to: one sentence each, without a password."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import pytest

from nbqueue.errors import InvalidCommand, QueueUnavailable
from nbqueue.store import Handlers
from nbqueue.stores.postgres import link, pool, tables
from nbqueue.stores.postgres.address import read
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.stores.postgres.tx import Tx
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, ids, new_job
from tests.halting import halt
from tests.servers import PASSWORD, PostgresServer, fresh_schema, with_schema
from tests.stores.postgres.cutting import Knife

Connect = Callable[[], psycopg.Connection[Any]]


def _refused(url: str) -> str:
    """Open what cannot be opened, and give the sentence."""
    began = time.monotonic()
    with pytest.raises(QueueUnavailable) as caught:
        PostgresStore(url)
    assert time.monotonic() - began < 15.0
    said = str(caught.value)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert PASSWORD not in str(chain)
        chain = chain.__cause__
    assert "\n" not in said
    return said


def test_wrong_password(postgres_url: str) -> None:
    """A wrong password is called that, and not repeated."""
    said = _refused(postgres_url.replace(PASSWORD, "hush%40me"))
    assert said.endswith("the password or the user is wrong")
    assert "hush" not in said


def test_nobody_there(postgres_url: str) -> None:
    """A port at which nobody listens, and a host that there is not."""
    port = read(postgres_url).name.rpartition(":")[2].partition("/")[0]
    assert "refused" in _refused(postgres_url.replace(f":{port}/", ":1/"))
    assert "nohost.invalid" in _refused(postgres_url.replace("127.0.0.1", "nohost.invalid"))


def test_no_such_database(postgres_url: str) -> None:
    """A database that there is not."""
    assert "there is no such database" in _refused(postgres_url.replace("/postgres?", "/nosuch?"))


@pytest.fixture
def stranger(postgres_url: str, connected: Connect) -> Iterator[str]:
    """The URL of the same queue for somebody who has no rights."""
    admin = connected()
    admin.execute("DROP ROLE IF EXISTS nbq_stranger")
    admin.execute("CREATE ROLE nbq_stranger LOGIN PASSWORD 'nothing-here'")
    yield postgres_url.replace(f"postgres:{PASSWORD}", "nbq_stranger:nothing-here")
    admin.execute("DROP OWNED BY nbq_stranger")
    admin.execute("DROP ROLE nbq_stranger")


def test_no_rights(postgres_url: str, stranger: str, connected: Connect) -> None:
    """Somebody who may not make a queue, then may not read it, then may not write to it, is told so."""
    assert "may not make one" in _refused(stranger)
    PostgresStore(postgres_url).close()
    assert "may not read" in _refused(stranger)
    schema, admin = read(postgres_url).schema, connected()
    admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO nbq_stranger")
    admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO nbq_stranger")
    store = PostgresStore(stranger)
    try:
        assert [queue.name for queue in store.queues()] == ["default"]
        with pytest.raises(QueueUnavailable, match="may not"):
            store.add_queue("other")
    finally:
        store.close()


def test_somebody_elses_schema(postgres: str) -> None:
    """A schema with other tables is left alone."""
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA theirs")
        try:
            admin.execute("CREATE TABLE theirs.invoices (id integer)")
            assert "invoices" in _refused(with_schema(postgres, "theirs"))
            # A table of ours by name alone is none of ours.
            admin.execute("CREATE TABLE theirs.meta (id integer)")
            assert "tables of its own" in _refused(with_schema(postgres, "theirs"))
        finally:
            admin.execute("DROP SCHEMA theirs CASCADE")


def test_newer_tables(postgres_url: str, connected: Connect) -> None:
    """Tables of a newer nbqueue are left alone, and the version is named."""
    PostgresStore(postgres_url).close()
    connected().execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    assert "version 99" in _refused(postgres_url)


def test_made_once(postgres_url: str) -> None:
    """Who comes second finds what the first has made."""
    first = PostgresStore(postgres_url)
    second = PostgresStore(postgres_url)
    assert (first.created, second.created) == (True, False)
    assert first.slot_folder == second.slot_folder
    first.close()
    second.close()


def test_older_tables(postgres_url: str, monkeypatch: pytest.MonkeyPatch, connected: Connect) -> None:
    """Tables of an older nbqueue are brought up to date once, with what is in them."""
    clock = FakeClock()
    store = PostgresStore(postgres_url, clock=clock.time)
    store.insert([job := new_job(clock)])
    store.close()
    monkeypatch.setattr(tables, "VERSION", tables.VERSION + 1)
    monkeypatch.setitem(tables._STEPS, tables.VERSION - 1, ("CREATE TABLE later (x integer)",))
    for _ in range(2):
        store = PostgresStore(postgres_url, clock=clock.time)
        assert ids(FakeWorker(store).take(2)) == [job.job_id]
        store.leave("w1")
        store.close()
    assert connected().execute("SELECT count(*) FROM later").fetchone() == (0,)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mysql://u:open-sesame-42@h/d", "begins with"),
        ("postgresql://u:open-sesame-42@h:port/d", "cannot be read"),
        ("postgresql://u:open-sesame-42@h/d?schema=pg_mine", "pg_mine"),
        (f"postgresql://u:open-sesame-42@h/d?schema={'x' * 64}", "schema"),
    ],
)
def test_no_such_url(url: str, says: str) -> None:
    """What is no URL of a queue is refused before anybody is asked."""
    with pytest.raises(InvalidCommand, match=says) as caught:
        read(url)
    assert PASSWORD not in str(caught.value)


def test_one_key() -> None:
    """Two ways to write where a queue is are one queue; another schema is another."""
    one = read("postgresql://me:x@db/jobs")
    assert one.key == read("postgres://me:y@db:5432/jobs?schema=nbqueue").key
    assert one.key != read("postgresql://me:x@db/jobs?schema=other").key
    assert read("postgresql://db/jobs?password=a+b&options=-c%20x=1").dsn.endswith(
        "password=a%2Bb&options=-c%20x%3D1"
    )
    assert repr(one) == "Address('postgresql://me@db:5432/jobs')"


@pytest.mark.parametrize("code", ["40P01", "40001", "55P03"])
def test_tried_again(
    opened: Callable[..., PostgresStore], monkeypatch: pytest.MonkeyPatch, clock: FakeClock, code: str
) -> None:
    """A deadlock, a failed serialization and a lock that was not to be had are nobody's error."""
    store = opened()
    store.insert([new_job(clock)])
    worker, knife = FakeWorker(store), Knife(monkeypatch)

    def fail(tx: Tx) -> None:
        tx.cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$")

    knife.lay("COMMIT", fail)
    claim = worker.take_one()
    assert knife.strikes == 1
    assert worker.end(claim).done


def test_gone_while_open(opened: Callable[..., PostgresStore], connected: Connect, clock: FakeClock) -> None:
    """A queue whose tables were dropped is missed by name."""
    store = opened()
    connected().execute("DROP TABLE standing CASCADE")
    with pytest.raises(QueueUnavailable, match="has gone"):
        store.insert([new_job(clock)])


def test_settings_of_somebody_else(postgres_url: str) -> None:
    """What a role or a database sets for its own ends neither cuts a verb short nor changes what it sees."""
    given = "statement_timeout=300", "idle_session_timeout=300", "default_transaction_isolation=serializable"
    options = quote(" ".join(f"-c {setting}" for setting in (*given, "array_nulls=off")))
    store = PostgresStore(f"{postgres_url}&options={options}")
    try:
        assert (
            store._link.run(
                lambda tx: tx.one("SELECT pg_sleep(0.4), current_setting('transaction_isolation')")
            )[1]
            == "read committed"
        )
        assert store._link.run(lambda tx: tx.one("SELECT '{NULL}'::integer[]"))[0] == [None]
        assert store._link.run(lambda tx: tx.one("SHOW idle_session_timeout"))[0] == "0"
    finally:
        store.close()


def test_halves_of_characters(opened: Callable[..., PostgresStore], clock: FakeClock) -> None:
    """A script in a folder whose name is no text has its handlers all the same."""
    store = opened()
    origin = "script:/tmp/caf\udce9.py"
    worker = FakeWorker(store, handlers=Handlers(owned=frozenset({("work", origin)})))
    store.insert([job := new_job(clock, origin=origin)])
    assert ids(worker.take(2)) == [job.job_id]


def test_frozen(private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is frozen breaks no connection; it is noticed nevertheless, and served again when it thaws."""
    monkeypatch.setattr(pool, "_SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(link, "PATIENCE", 1.0)
    with fresh_schema(private_postgres.url) as url:
        store = PostgresStore(url)
        job = new_job(FakeClock(time.time()))
        try:
            with psycopg.connect(private_postgres.url) as connection:
                postmaster = psutil.Process(connection.info.backend_pid).parent()
                assert postmaster is not None
            frozen = [postmaster, *postmaster.children()]
            try:
                for process in frozen:
                    # The one of the connection that was closed may be on its way out.
                    with contextlib.suppress(ProcessLookupError):
                        halt(process.pid)
                with pytest.raises(QueueUnavailable) as caught:
                    store.insert([job])
            finally:
                for process in frozen:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.resume()
            assert "cannot be reached" in str(caught.value)
            assert PASSWORD not in str(caught.value)
            store.insert([job])
            assert ids(store.get([job.job_id])) == [job.job_id]
        finally:
            store.close()
