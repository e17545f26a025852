"""A connection that is cut in the middle of each verb loses nothing, doubles nothing, and is made anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from nbqueue.jobs import State
from nbqueue.lifecycle import Outcome
from nbqueue.store import LogChunk, Report, ReportKind, Selection
from nbqueue.stores.postgres.address import read
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.stores.postgres.tx import Tx
from nbqueue.stores.postgres.writing import COPY_ROWS
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, check_books, get, ids, new_batch, new_job
from tests.servers import PostgresServer, fresh_schema
from tests.stores.postgres.cutting import Knife, Proxy

#: When a connection breaks: what the next statement begins with, and what is done before it is sent.
_CUTS = [
    "cut at first",
    "backend ended",
    "server crashed",
    "commit unheard",
    "commit unheard, server crashed",
]
#: Under the clock of a test a turn looks after leases first, in a transaction of its own.
_LEASES = 1


@pytest.fixture
def proxied(private_postgres: PostgresServer, clock: FakeClock) -> Iterator[tuple[Proxy, PostgresStore]]:
    """A store that reaches its server by way of a proxy."""
    with Proxy(private_postgres.port) as proxy, fresh_schema(private_postgres.url) as url:
        through = url.replace(f":{private_postgres.port}/", f":{proxy.port}/")
        store = PostgresStore(through, clock=clock.time, ticks=clock.ticks)
        yield proxy, store
        store.close()


class _Cuts:
    """Lays the knife for one verb after another, and sees to it that it struck."""

    def __init__(self, how: str, knife: Knife, proxy: Proxy, server: PostgresServer):
        self._how, self._knife, self._proxy, self._server = how, knife, proxy, server
        self._admin = read(server.url)

    def __call__(self, verb: Callable[[], Any], *, spared: int = 0) -> Any:
        """Call a verb whose connection is cut, in the first of its transactions or after so many."""
        self._proxy.spared = spared
        lay = {
            "cut at first": lambda: self._knife.lay("BEGIN", lambda _tx: self._proxy.cut(), spared=spared),
            "backend ended": lambda: self._knife.lay("COMMIT", self._end_backend, spared=spared),
            "server crashed": lambda: self._knife.lay("COMMIT", self._crash, spared=spared),
            "commit unheard": lambda: self._lay_on_commit(lambda: None),
            "commit unheard, server crashed": lambda: self._lay_on_commit(self._crash),
        }
        lay[self._how]()
        before = self._knife.strikes
        answer = verb()
        if self._how.startswith("commit"):
            assert self._proxy.on_commit is None
        else:
            assert self._knife.strikes == before + 1
        return answer

    def _lay_on_commit(self, call: Callable[[], None]) -> None:
        self._proxy.on_commit = call

    def _crash(self, _tx: Tx | None = None) -> None:
        self._server.restart(immediate=True)

    def _end_backend(self, tx: Tx) -> None:
        with psycopg.connect(self._admin.dsn, autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [tx.hello()[2]])


@pytest.fixture(params=_CUTS)
def cut(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    proxied: tuple[Proxy, PostgresStore],
    private_postgres: PostgresServer,
) -> _Cuts:
    return _Cuts(request.param, Knife(monkeypatch), proxied[0], private_postgres)


def _ended(claim: Any, clock: FakeClock, outcome: Outcome = Outcome.SUCCEEDED, **said: Any) -> Report:
    return Report(claim, ReportKind.ENDED, outcome, clock.time(), clock.time(), **said)


def _events(store: PostgresStore, server: PostgresServer, event: str) -> int:
    """How many events of a kind the server has."""
    schema = store.name.rpartition("=")[2]
    with psycopg.connect(read(server.url).dsn) as admin:
        (n,) = admin.execute(
            f"SELECT count(*) FROM {schema}.ledger WHERE event = %s", [event]
        ).fetchone() or (0,)
    return int(n)


def test_an_old_word_and_an_unheard_claim(proxied: tuple[Proxy, PostgresStore], clock: FakeClock) -> None:
    """What is said of a job under an old claim does not hide that it was claimed anew and nobody heard of it."""
    proxy, store = proxied
    store.insert([job := new_job(clock)])
    worker = FakeWorker(store)
    old = worker.take_one()
    worker.say(old, ReportKind.RELEASED)
    proxy.on_commit, proxy.spared = lambda: None, _LEASES
    turn = worker.turn(_ended(old, clock), slots=1)
    assert proxy.on_commit is None
    assert not turn.answers[0].done
    (claim,) = turn.claims
    assert get(store, job).fence == claim.fence
    check_books(store)
    assert worker.end(claim).done


def test_dispatch(proxied: tuple[Proxy, PostgresStore], cut: _Cuts, clock: FakeClock) -> None:
    """One job, many by COPY, those of a batch, and one for a worker are there once each."""
    _, store = proxied
    one, many = new_job(clock), [new_job(clock) for _ in range(COPY_ROWS + 1)]
    cut(lambda: store.insert([one]))
    cut(lambda: store.insert(many))
    batch, rows = new_batch(clock, {"1": "[1]", "2": "[2]"}, key="nightly")
    mapped = cut(lambda: store.put_batch(batch, rows))
    assert mapped.batch.total == 2
    worker = FakeWorker(store, "cell", queues=())
    mine = new_job(clock)
    (claim,) = cut(lambda: store.insert([mine], "cell"))
    assert store.find(Selection()) == ids([one, *many, *rows, mine])
    assert worker.end(claim).done
    assert get(store, mine).state is State.SUCCEEDED
    check_books(store)


def test_turns(
    proxied: tuple[Proxy, PostgresStore], private_postgres: PostgresServer, cut: _Cuts, clock: FakeClock
) -> None:
    """A worker that lost an answer has what its next one says, not begun; its reports and lines count once."""
    _, store = proxied
    jobs = [new_job(clock, tries=2) for _ in range(6)]
    store.insert(jobs)
    worker = FakeWorker(store)
    first = cut(lambda: worker.turn(slots=2), spared=_LEASES).claims
    assert ids(first) == ids(jobs[:2])
    assert [get(store, claim).fence for claim in first] == [claim.fence for claim in first]
    lines = (LogChunk("stdout", "a\n", clock.time()), LogChunk("stdout", "a\n", clock.time()))
    reports = [
        _ended(first[0], clock, logs=lines),
        _ended(first[1], clock, Outcome.FAILED, error="E: x"),
    ]
    turn = cut(lambda: worker.turn(*reports, slots=2), spared=_LEASES)
    assert [answer.done for answer in turn.answers] == [True, True]
    assert set(ids(turn.claims)) <= set(ids(jobs[2:]))
    held = [claim for claim in turn.claims if get(store, claim).fence == claim.fence]
    assert len(held) == len(turn.claims) == 2
    assert (
        _events(store, private_postgres, "succeeded"),
        _events(store, private_postgres, "retrying"),
        _events(store, private_postgres, "log"),
    ) == (1, 1, 2)
    assert [get(store, job).crashes for job in jobs] == [0] * 6
    cut(lambda: worker.join(held=[held[0].fence]))
    assert [get(store, claim).state for claim in held] == [State.RUNNING, State.PENDING]
    assert worker.end(held[0]).done
    cut(worker.leave)
    assert store.workers() == []
    check_books(store)


def test_handed_to_the_idle(
    proxied: tuple[Proxy, PostgresStore], private_postgres: PostgresServer, cut: _Cuts, clock: FakeClock
) -> None:
    """A worker that waits gets a job whose dispatch was cut, be it by its next turn."""
    _, store = proxied
    worker = FakeWorker(store)
    worker.turn(slots=1)
    job = new_job(clock)
    cut(lambda: store.insert([job]))
    claims = [*worker.handed, *worker.turn(slots=1).claims]
    assert ids(claims) == [job.job_id]
    assert worker.end(claims[0]).done
    assert (_events(store, private_postgres, "succeeded"), get(store, job).attempt) == (1, 1)


def test_steering(
    proxied: tuple[Proxy, PostgresStore], private_postgres: PostgresServer, cut: _Cuts, clock: FakeClock
) -> None:
    """Cancelled is cancelled, retried is retried once, and the answers say so."""
    _, store = proxied
    pending, running, ended = (new_job(clock) for _ in range(3))
    store.insert([ended, running])
    worker = FakeWorker(store)
    done, going = worker.take(2)
    worker.end(done)
    store.insert([pending])
    answers = cut(lambda: store.cancel(ids([pending, running, ended])))
    assert [answer.done for answer in answers] == [True, True, False]
    assert list(worker.turn().cancels) == [going.fence]
    answers = cut(lambda: store.retry(ids([ended, pending, running])))
    assert [answer.done for answer in answers] == [True, True, False]
    assert _events(store, private_postgres, "retried") == 2
    worker.end(going, Outcome.CANCELLED)
    assert cut(lambda: store.forget(Selection(ids=(running.job_id,)))) in (0, 1)
    assert store.get([running.job_id]) == []
    check_books(store)


def test_what_is_no_job(proxied: tuple[Proxy, PostgresStore], cut: _Cuts, clock: FakeClock) -> None:
    """Queues, switches and code are kept; and who only looks sees what there is."""
    _, store = proxied
    cut(lambda: store.add_queue("other"))
    cut(lambda: store.pause("other", paused=True))
    cut(lambda: store.put_code("c0de", b"x"))
    job = new_job(clock)
    store.insert([job])
    assert {queue.name: queue.paused for queue in cut(store.queues)} == {"default": False, "other": True}
    assert cut(lambda: store.get_code("c0de")) == b"x"
    assert cut(lambda: store.get([job.job_id]))[0].state is State.PENDING
    assert len(cut(lambda: store.query("SELECT * FROM jobs"))) == 1


def test_patience_ends(
    proxied: tuple[Proxy, PostgresStore], private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stays away is named in one sentence, without a password, after a while."""
    from nbqueue.errors import QueueUnavailable
    from nbqueue.stores.postgres import link

    _, store = proxied
    monkeypatch.setattr(link, "PATIENCE", 0.3)
    private_postgres.stop(immediate=True)
    began = time.monotonic()
    with pytest.raises(QueueUnavailable, match=r"cannot be reached: .+") as caught:
        store.queues()
    assert time.monotonic() - began < 5.0
    assert "open-sesame" not in str(caught.value)
    private_postgres.start()
    assert store.queues()
