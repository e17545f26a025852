"""A disk that is full or gone for a while, and a database that DuckDB gives up: said clearly, lost nothing, goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import duckdb
import pytest

from nbqueue.errors import DispatchFailed, QueueUnavailable
from nbqueue.jobs import JobRecord, State
from nbqueue.store import LogChunk, Report, ReportKind, Selection
from nbqueue.stores import duckdb as duckdb_module
from nbqueue.stores import opening
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.writes import Writes
from nbqueue.testing import FakeClock, FakeWorker, new_job
from nbqueue.testing.workers import check_books, get, ids

FULL = "IO Error: Could not write file: No space left on device"


class Faulty:
    """A connection, or a journal, that raises in place of its next statements."""

    def __init__(self, real: Any, errors: list[Exception]) -> None:
        self._real, self._errors = real, errors

    def __getattr__(self, name: str) -> Any:
        if name in ("execute", "begin", "cursor", "append") and self._errors:
            raise self._errors.pop(0)
        return getattr(self._real, name)


def inject(store: DuckDBStore, *errors: Exception) -> None:
    ledger, left = cast("Any", store._ledger), list(errors)
    ledger._connection, ledger._journal = Faulty(ledger._connection, left), Faulty(ledger._journal, left)


# ------------------------------------------------------------------------------------------------- full disk
#: Fills its disk in each place that writes, and tells on stdout what it was told and what was acknowledged.
FILL = """
import json, os, resource, signal, sys, threading
from pathlib import Path
from nbqueue.errors import QueueError
from nbqueue.store import LogChunk, Report, ReportKind, Selection
from nbqueue.stores import duckdb
from nbqueue.testing import FakeClock, FakeWorker, new_job

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that may not grow is an error then, as a full disk is
duckdb.RETRY_SECONDS = 0.05
path, clock = Path(sys.argv[1]), FakeClock()
log, journal = (path.with_name(path.name + end) for end in (".wal", ".journal"))
kept, said = [], {}

def room(most=resource.RLIM_INFINITY):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

def dispatch(store, size=500):
    job = new_job(clock, payload=json.dumps(os.urandom(size).hex()))
    store.insert([job])
    kept.append(str(job.job_id))

def refused(what, act):
    try:
        act()
    except QueueError as error:
        said[what] = [type(error).__name__, str(error)]

def until_full():
    while True:
        dispatch(store)

def opens():
    return duckdb.DuckDBStore(path, clock=clock.time, ticks=clock.ticks)

store, better = opens(), threading.Event()
for _ in range(20):
    dispatch(store)
worker = FakeWorker(store, lease=1e9)
claim = worker.take_one()
store.listen(better.set)

room(journal.stat().st_size + 4_000)
refused("dispatch", until_full)
room(1)
refused("report", lambda: worker.end(claim))
refused("while full", lambda: dispatch(store))
better.clear()
room()
said["better"] = better.wait(20)
said["report again"] = worker.end(claim).done
dispatch(store, 200_000)

room(300_000)  # less than the table needs
better.clear()
store._run(lambda _: store._news.set() or setattr(store._ledger, "commits", 10**6))  # a checkpoint is due
refused("after checkpoint", lambda: dispatch(store))
room()
said["better again"] = better.wait(20)
dispatch(store)
said["found"] = sorted(map(str, store.find(Selection()))) == sorted(kept)

print(json.dumps({"said": said, "kept": kept}), flush=True)
room(log.stat().st_size if log.exists() else 1)
os.kill(os.getpid(), signal.SIGKILL)
"""

OPEN_FULL = """
import resource, signal, sys
from pathlib import Path
from nbqueue.errors import QueueUnavailable
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.writes import Writes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
try:
    DuckDBStore(Path(sys.argv[1]))
except QueueUnavailable as error:
    print(error)
"""


def run_child(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on how large files grow")
def test_full_disk(opened: Callable[[], DuckDBStore], tmp_path: Path) -> None:
    """Wherever the disk is full: a sentence, nothing half done, and on it goes when there is room; nothing is lost."""
    path = tmp_path / "jobs.duckdb"
    done = run_child(FILL, path)
    assert done.returncode == -9, done.stderr
    told = json.loads(done.stdout)
    said: dict[str, Any] = told["said"]
    refused = {
        "dispatch": "DispatchFailed",
        "while full": "QueueUnavailable",
        "after checkpoint": "QueueUnavailable",
    }
    for what, kind in refused.items():
        assert said[what][0] == kind, said
        assert str(path) in said[what][1]
        assert "File too large" in said[what][1]
        assert "nothing of this call was accepted" in said[what][1]
    assert "goes on by itself" in said["while full"][1]
    assert said["report"][0] in ("DispatchFailed", "QueueUnavailable")
    assert [said[what] for what in ("better", "report again", "better again", "found")] == [True] * 4
    opening_full = run_child(OPEN_FULL, path).stdout
    assert "cannot be opened for want of room" in opening_full
    assert str(path) in opening_full
    store = opened()
    assert sorted(store.find(Selection())) == sorted(map(UUID, told["kept"]))
    check_books(store)


# ----------------------------------------------------------------------------------------- gone for a while
def test_goes_on_when_its_disk_is_back(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the file cannot be opened every verb says so; then workers have their jobs, and who waits still does."""
    monkeypatch.setattr(duckdb_module, "RETRY_SECONDS", 0.01)
    store = opened()
    job = new_job(clock)
    store.insert([job])
    worker = FakeWorker(store)
    claim = worker.take_one()
    told: list[JobRecord | None] = []
    store.watch([job.job_id], told.append)
    better, tries = threading.Event(), []
    store.listen(better.set)
    with monkeypatch.context() as patch:

        def connect(path: Path) -> duckdb.DuckDBPyConnection:
            tries.append(path)
            raise duckdb.IOException(FULL)

        patch.setattr(opening, "connect", connect)
        inject(store, duckdb.IOException(FULL))
        with pytest.raises(DispatchFailed, match="No space left"):
            store.insert([new_job(clock)])
        for verb in (store.queues, lambda: worker.end(claim), lambda: store.query("SELECT 1")):
            with pytest.raises(
                QueueUnavailable, match=r"cannot be written just now .*No space left.*by itself"
            ):
                verb()
        assert not store.broken
        assert tries
        clock.advance(100.0)  # longer than any lease
        better.clear()
    assert better.wait(10)
    assert told == []
    assert worker.called
    assert worker.end(claim).done
    assert [record and record.state for record in told] == [State.SUCCEEDED]
    check_books(store)


def test_closes_while_its_disk_is_gone(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that cannot be written can be closed, and opens again with what was acknowledged."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    with monkeypatch.context() as patch:
        patch.setattr(opening, "connect", lambda _: (_ for _ in ()).throw(duckdb.IOException(FULL)))
        inject(store, duckdb.IOException(FULL))
        with pytest.raises(DispatchFailed):
            store.insert([new_job(clock)])
        store.close()
    assert opened().find(Selection()) == [job.job_id]


# ------------------------------------------------------------------------------------------ invalidated
def test_invalidated_database(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """After a fatal error DuckDB does nothing more until the file is opened anew, which the store sees to."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    worker = FakeWorker(store)
    claim = worker.take_one()
    inject(store, duckdb.FatalException("FATAL Error: database has been invalidated"))
    with pytest.raises(
        DispatchFailed, match=r"jobs\.duckdb could not be written \(FATAL Error: database has been"
    ):
        store.insert([new_job(clock)])
    assert worker.end(claim).done
    assert get(store, job).state is State.SUCCEEDED
    check_books(store)


def test_invalidated_when_all_was_written(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that failed when it was on disk loses no job and says no line twice: nobody got what it gave."""
    store = opened()
    worker = FakeWorker(store)
    jobs = [new_job(clock), new_job(clock)]
    store.insert(jobs)
    claim = worker.take_one()
    commit = Ledger.commit

    def fail_late(ledger: Ledger, writes: Writes) -> None:
        commit(ledger, writes)
        monkeypatch.undo()
        raise duckdb.FatalException("FATAL Error: a checkpoint went wrong")

    monkeypatch.setattr(Ledger, "commit", fail_late)
    news = Report(claim, ReportKind.NEWS, logs=(LogChunk("stdout", "once\n", clock.time()),))
    with pytest.raises(DispatchFailed):
        worker.turn(news, slots=2)
    turn = worker.turn(news, slots=2)
    assert [claim.job_id for claim in turn.claims] == [jobs[1].job_id]
    assert store.query("SELECT count(*) AS n FROM logs").n[0] == 1
    assert worker.end(claim).done
    assert worker.end(turn.claims[0]).done
    check_books(store)


@pytest.mark.parametrize("what", ["query", "selection"])
def test_invalidated_under_a_reader(opened: Callable[[], DuckDBStore], clock: FakeClock, what: str) -> None:
    """Who reads when DuckDB gives up is told in a sentence, and the next one finds an open file."""
    store = opened()
    jobs = [new_job(clock) for _ in range(3)]
    store.insert(jobs)
    inject(store, duckdb.FatalException("FATAL Error: database has been invalidated"))
    with pytest.raises(QueueUnavailable, match=rf"opened again over this {what}.*invalidated.*ask again"):
        store.query("SELECT count(*) FROM jobs") if what == "query" else store.find(Selection())
    assert store.query("SELECT count(*) AS n FROM jobs")["n"].tolist() == [3]
    assert store.find(Selection()) == ids(jobs)


def test_invalidated_in_a_checkpoint(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """A checkpoint that fails for good is nobody's call: the file is opened anew, and the next dispatch is taken."""
    store = opened()
    kept, new = new_job(clock), new_job(clock)
    store.insert([kept])
    inject(store, duckdb.FatalException("FATAL Error: Failed to create checkpoint"))
    broken = store._ledger
    store._run(lambda _: setattr(broken, "commits", 10**6))
    store.insert([new])
    assert store._ledger is not broken
    assert store.find(Selection()) == ids([kept, new])
