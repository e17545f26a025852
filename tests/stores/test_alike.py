"""Rows that are alike go by columns: what is in the file, and what a death leaves, is as if they went one by one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from nbqueue.jobs import Claim, State
from nbqueue.lifecycle import Outcome
from nbqueue.store import LogChunk, Report, ReportKind
from nbqueue.stores import inserting, writes
from nbqueue.stores.alike import ALIKE_LEAST, LONG_DATA, Alike
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.index import limits
from nbqueue.stores.onlooker import Onlooker
from nbqueue.stores.schema import TABLES
from nbqueue.testing import FakeClock, FakeWorker, new_job
from nbqueue.testing.workers import NO_WAIT, check_books, ids

Opened = Callable[..., DuckDBStore]
COUNT = 5 * ALIKE_LEAST
#: What jobs return; the third leaves the columns, as it would fill them.
RESULTS = ["", '"\\u2028 \U0001f600 \\n"', f'"{"x" * LONG_DATA}"', "[1,2]", "\0"]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows went by columns, a number each time."""
    sizes: list[int] = []
    real = Alike.text
    monkeypatch.setattr(Alike, "text", lambda self: (sizes.append(len(self)), real(self))[1])
    return sizes


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is folded in because it is quiet, however slow this machine is."""
    monkeypatch.setattr("nbqueue.stores.duckdb.FOLD_SECONDS", 1e3)


def succeeded(clock: FakeClock, claim: Claim, result: str = "", **said: object) -> Report:
    clock.advance(0.001)
    now = clock.time()
    return Report(
        claim,
        ReportKind.ENDED,
        Outcome.SUCCEEDED,
        now - 0.0005,
        now,
        result,
        **said,  # type: ignore[arg-type]
    )


def story(store: DuckDBStore, clock: FakeClock) -> list[Claim]:
    """Jobs that succeed with and without a word, fail and are tried again, are given back, and are retried by hand.

    Gives all claims.
    """
    jobs = [
        new_job(clock, f"c{n // 70 % 2}", tries=1 + n // 80, retry=NO_WAIT, priority=-(n // 100))
        for n in range(COUNT)
    ]
    store.insert(jobs)
    first, second = FakeWorker(store, "first", tries=2), FakeWorker(store, "second")
    mine, yours = first.take(COUNT // 2 + 10), second.take(COUNT)
    reports = [succeeded(clock, claim, RESULTS[n % 5]) for n, claim in enumerate(mine)]
    reports[7] = succeeded(
        clock, mine[7], logs=(LogChunk("stdout", "said", clock.time()),), progress='{"done":1}'
    )
    reports[9] = Report(mine[9], ReportKind.RELEASED)
    reports[11] = reports[11]._replace(started_at=None)
    first.turn(*reports)
    failed = [
        Report(claim, ReportKind.ENDED, Outcome.FAILED, clock.time(), clock.time(), error="E")
        if n % 2
        else None
        for n, claim in enumerate(yours)
    ]
    failed[-1] = Report(yours[-1], ReportKind.RELEASED)
    second.turn(*(report or succeeded(clock, claim) for report, claim in zip(failed, yours, strict=True)))
    again = second.take(COUNT)
    second.turn(*(succeeded(clock, claim, "1") for claim in again))
    store.retry(ids(mine[: ALIKE_LEAST + 5]))
    store.cancel(ids(mine[:3]))
    store.insert([new_job(clock) for _ in range(COUNT)])
    rest = first.take(2 * COUNT)
    first.turn(*(succeeded(clock, claim, RESULTS[n % 2]) for n, claim in enumerate(rest)))
    return [*mine, *yours, *again, *rest]


def ledger(path: Path) -> list[tuple[object, ...]]:
    with duckdb.connect(str(path), read_only=True) as con:
        return con.execute("SELECT * EXCLUDE job_id FROM ledger ORDER BY seq").fetchall()


@pytest.mark.parametrize("through_journal", [True, False])
def test_the_ledger_is_what_it_is_row_by_row(
    tmp_path: Path, told: list[int], monkeypatch: pytest.MonkeyPatch, *, through_journal: bool
) -> None:
    """To the last column of the last row, with a journal and past it."""
    monkeypatch.setattr(inserting, "MUCH_ROWS", 10**9 if through_journal else ALIKE_LEAST)
    kept: dict[str, list[tuple[object, ...]]] = {}
    for name, least in (("columns", ALIKE_LEAST), ("rows", 10**9)):
        monkeypatch.setattr(writes, "ALIKE_LEAST", least)
        told.clear()
        clock = FakeClock()
        store = DuckDBStore(tmp_path / name, clock=clock.time, ticks=clock.ticks)
        claims = story(store, clock)
        check_books(store)
        store.close()
        kept[name] = ledger(tmp_path / name)
        assert all(claim.max_attempts == (claim.spec.tries or 2) for claim in claims if claim.attempt == 1)
        assert [row[4:7] for row in kept[name] if row[2] == "claimed"] == [claim[1:4] for claim in claims]
        assert bool(told) == (name == "columns")
    assert kept["columns"] == kept["rows"]
    assert len(kept["rows"]) > 4 * COUNT


@pytest.mark.usefixtures("still")
def test_a_death_leaves_all(opened: Opened, clock: FakeClock, tmp_path: Path, told: list[int]) -> None:
    """What is in the journal alone is there again: who has what, who has ended with which result."""
    store = opened()
    jobs = [new_job(clock) for _ in range(COUNT)]
    store.insert(jobs)
    worker = FakeWorker(store)
    claims = worker.turn(slots=COUNT).claims
    ended = claims[: COUNT // 2]
    worker.turn(*(succeeded(clock, claim, RESULTS[n % 2]) for n, claim in enumerate(ended)))
    assert sum(told) > COUNT
    for path in tmp_path.glob("jobs.duckdb*"):
        if path.is_file() and path.suffix != ".lock":
            shutil.copy(path, tmp_path / path.name.replace("jobs", "left"))
    with Onlooker(tmp_path / "left.duckdb") as look:
        states = look.query(
            "SELECT state::VARCHAR AS state, count(*) AS n FROM jobs GROUP BY ALL ORDER BY ALL"
        )
    assert states.to_dict("list") == {
        "state": ["running", "succeeded"],
        "n": [COUNT - COUNT // 2, COUNT // 2],
    }
    heir = DuckDBStore(tmp_path / "left.duckdb", clock=clock.time, ticks=clock.ticks)
    found = heir.get(ids(jobs))
    assert [record.result for record in found[: COUNT // 2]] == [RESULTS[n % 2] for n in range(COUNT // 2)]
    assert {record.state for record in found[COUNT // 2 :]} == {State.PENDING}
    assert len(heir.interrupted) == COUNT - COUNT // 2
    check_books(heir)
    FakeWorker(heir, "next").turn(*(succeeded(clock, claim) for claim in ended))
    events = heir.query("SELECT event, count(*) AS n FROM events GROUP BY ALL")
    told_of = dict(zip(events["event"], events["n"], strict=True))
    assert (told_of["claimed"], told_of["succeeded"]) == (COUNT, COUNT // 2)
    heir.close()


@pytest.mark.usefixtures("still")
def test_claimed_once_while_it_waits_in_the_journal(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, told: list[int]
) -> None:
    """Jobs are loaded from a file that does not know yet that they were claimed, and have ended."""
    for name, value in (("PENDING_KEPT", 1), ("ENDED_KEPT", 1), ("LOAD_AHEAD", 3 * ALIKE_LEAST)):
        monkeypatch.setattr(limits, name, value)
    store = opened()
    jobs = [new_job(clock) for _ in range(COUNT)]
    store.insert(jobs)
    store.query("SELECT 1")
    worker = FakeWorker(store)
    taken: list[Claim] = []
    while claims := worker.turn(slots=2 * ALIKE_LEAST).claims:
        taken += claims
        worker.turn(*(succeeded(clock, claim) for claim in claims))
        # By hand and by id: it is not in memory, and the file says that it waits.
        store.retry(ids(claims[:1]))
        taken += (again := worker.turn(slots=1).claims)
        assert ids(again) == ids(claims[:1])
        worker.turn(*(succeeded(clock, claim) for claim in again))
    assert sorted(ids(taken)) == sorted([*ids(jobs), *ids(taken[:: 2 * ALIKE_LEAST + 1])])
    assert {record.state for record in store.get(ids(jobs))} == {State.SUCCEEDED}
    assert told
    check_books(store)


@pytest.mark.usefixtures("still")
def test_not_pending_while_it_waits_in_the_journal(opened: Opened, clock: FakeClock, told: list[int]) -> None:
    """Who asks the ledger for pending jobs is not given those whose end only the journal knows."""
    store = opened()
    jobs = [new_job(clock) for _ in range(COUNT)]
    store.insert(jobs)
    store.query("SELECT 1")
    worker = FakeWorker(store)
    claims = worker.turn(slots=COUNT).claims
    worker.turn(*(succeeded(clock, claim) for claim in claims))
    assert told == [COUNT, COUNT]
    # Nothing was folded in, and what is in memory is not asked.
    assert store._ledger.pending(range(1, COUNT + 1)) == []
    check_books(store)


@pytest.mark.parametrize("much", [1, 10**9])
def test_halves_of_characters(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, told: list[int], much: int
) -> None:
    """One result that no store can write is spelt out, and the others stay as they are."""
    monkeypatch.setattr(inserting, "MUCH_ROWS", much)
    store = opened()
    jobs = [new_job(clock) for _ in range(ALIKE_LEAST)]
    store.insert(jobs)
    worker = FakeWorker(store)
    claims = worker.turn(slots=len(jobs)).claims
    results = ["é", '"\udc80"', *RESULTS[:2]] * len(jobs)
    worker.turn(*(succeeded(clock, claim, result) for claim, result in zip(claims, results, strict=False)))
    store.close()
    assert told
    found = [record.result for record in opened().get(ids(jobs))]
    assert found == ["é", '"\\udc80"', *RESULTS[:2]] * (len(jobs) // 4)


def test_what_is_written_comes_back() -> None:
    """Each way that columns may be short."""
    claims = Alike(7, "claimed", 1, 3, 5, fence=1 << 32, at=10**15)
    claims.jobs += [3, 4, 9]
    ends = Alike(10, "succeeded", 1, 3)
    for at in range(3):
        ends.jobs.append(at)
        ends.fences.append(100 - at)
        ends.happened.append(10**15 + at)
        ends.started.append(10**15 - at)
        ends.data.append(RESULTS[at])
    for alike in (claims, ends):
        assert list(Alike.read(alike.text()).rows()) == list(alike.rows())
    assert [row[:5] for row in claims.rows()] == [
        (7 + n, 10**15, "claimed", job, (1 << 32) + n) for n, job in enumerate((3, 4, 9))
    ]


class _Told:
    """A connection that says how many texts each statement was given."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        self.texts: list[int] = []

    def execute(self, sql: str, params: list[list[str]]) -> object:
        self.texts += map(len, params)
        return self._con.execute(sql, params)


def test_much_goes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a memory has gathered is not written as text all at once, which would take twice its room."""
    monkeypatch.setattr(inserting, "TEXT_ROWS", 2 * ALIKE_LEAST)
    many = []
    for n in range(5):
        many.append(Alike(1 + n * ALIKE_LEAST, "claimed", 1, 1, 1, fence=n, at=n))
        many[-1].jobs += range(ALIKE_LEAST)
    with duckdb.connect() as con:
        for table in TABLES:
            con.execute(table)
        told = _Told(con)
        inserting.write(told, writes.Writes(alike=many))  # type: ignore[arg-type]
        assert told.texts == [2, 2, 1]
        assert con.execute("SELECT count(DISTINCT seq), max(seq) FROM ledger").fetchall() == [(COUNT, COUNT)]
