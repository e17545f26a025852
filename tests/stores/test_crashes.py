"""A process killed with -9 wherever something could be lost, torn or done twice; and files that were cut."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from nbqueue.errors import QueueUnavailable
from nbqueue.jobs import State
from nbqueue.store import Selection
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.testing import FakeClock, FakeWorker, new_job
from nbqueue.testing.workers import check_books

#: Takes a point at which it dies, and says on stdout what it was answered.
CHILD = """
import os, signal, sys, threading
from pathlib import Path

import duckdb

from nbqueue.slots import SlotFile
from nbqueue.stores import duckdb as module, journal
from nbqueue.stores.ledger import Ledger
from nbqueue.testing import FakeClock, FakeWorker, new_job

path, point = Path(sys.argv[1]), sys.argv[2]
clock = FakeClock()


def die(*_args):
    os.kill(os.getpid(), signal.SIGKILL)


def say(word, jobs):
    for job in jobs:
        print(word, job.job_id, flush=True)


def before(name, then=die):
    real = getattr(Ledger, name)
    setattr(Ledger, name, lambda *args: (then(), real(*args))[1])


def after(name):
    real = getattr(Ledger, name)
    setattr(Ledger, name, lambda *args: (real(*args), die())[0])


if point == "in a checkpoint":
    connect = duckdb.connect

    def slow(name, config):
        return connect(name, config={**config, "debug_checkpoint_scan_sleep_ms": "60000"})

    module.duckdb.connect = slow

store = module.DuckDBStore(path)


def insert(count):
    jobs = [new_job(clock, "work", payload='["' + "x" * 100 + '"]') for _ in range(count)]
    store.insert(jobs)
    say("accepted", jobs)


insert(30)
worker = FakeWorker(store, "w1", concurrency=2)
slots = SlotFile(store.slot_folder / "w1.slots", 2)
first, second, *_ahead = worker.take(4)
slots.begin(0, first.fence)
assert worker.end(first, result="1", finished_at=clock.time()).done
say("ended", [first])

if point == "between claim and start":
    die()
slots.begin(0, second.fence)
say("begun", [second])
if point == "while it runs":
    die()
elif point == "between result and commit":
    before("commit")
    worker.end(second, result="1")
elif point == "in an append":
    write_at = journal._write_at
    journal._write_at = lambda file, data, at: (write_at(file, data[: len(data) // 2], at), die())
    insert(40)
elif point == "in a fold, rows written":
    after("_write")
    store.query("SELECT 1")
elif point == "between fold and cut":
    before("_forget_waiting")
    store.query("SELECT 1")
elif point == "in a commit, rows written":
    after("_write")
    insert(5_000)
elif point == "after an append over what was folded in":
    store.query("SELECT 1")
    after("commit")
    worker.end(second, result="1")
elif point == "between commit and answer":
    after("commit")
    worker.end(second, result="1")
elif point == "at any time in a commit":
    before("_commit", lambda: threading.Timer(float(sys.argv[3]), die).start())
    insert(20_000)
    die()
elif point == "in a checkpoint":
    threading.Timer(0.3, die).start()
    store._run(lambda _: store._ledger.checkpoint())
elif point == "after a checkpoint":
    after("checkpoint")
    store._run(lambda _: store._ledger.checkpoint())
raise SystemExit("it lives")
"""

POINTS = (
    "between claim and start",
    "while it runs",
    "between result and commit",
    "in an append",
    "in a fold, rows written",
    "between fold and cut",
    "after an append over what was folded in",
    "in a commit, rows written",
    "between commit and answer",
    "at any time in a commit",
    "in a checkpoint",
    "after a checkpoint",
)
#: Where the worker died, not knowing that its report had been kept.
REPORTED = ("between commit and answer", "after an append over what was folded in")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
@pytest.mark.parametrize("point", POINTS)
def test_killed(path: Path, point: str) -> None:
    """Whatever was acknowledged is there, whole; what ended has ended once; only what had begun is blamed."""
    delay = random.Random(point).uniform(0.0, 0.02)
    command = [sys.executable, "-c", CHILD, str(path), point, str(delay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    told: dict[str, set[str]] = {"accepted": set(), "ended": set(), "begun": set()}
    for line in done.stdout.splitlines():
        word, job_id = line.split()
        told[word].add(job_id)
    assert len(told["accepted"]) == 30

    store = DuckDBStore(path)
    try:
        audit(store, told, reported=point in REPORTED)
        finish(store)
    finally:
        store.close()


def audit(store: DuckDBStore, told: dict[str, set[str]], *, reported: bool) -> None:
    """Compare what the file has with what its owner was told before it was killed."""
    records = {str(record.job_id): record for record in store.get(store.find(Selection()))}
    assert told["accepted"] <= set(records), "lost"
    assert len(records) == 30, "torn, or kept though nobody was told"
    assert all(record.payload == f'["{"x" * 100}"]' for record in records.values())
    for job_id in told["ended"] | (told["begun"] if reported else set()):
        assert (records[job_id].state, records[job_id].result) == (State.SUCCEEDED, "1")
    blamed = {job_id for job_id, record in records.items() if record.crashes}
    assert blamed == (set() if reported else told["begun"])
    assert all(record.attempt == 0 for record in records.values() if record.state is State.PENDING)
    assert {str(one.job_id) for one in store.interrupted if one.begun} == blamed
    assert store.find(Selection(states=(State.RUNNING,))) == []
    check_books(store)


def finish(store: DuckDBStore) -> None:
    """Run all that is left, and see that every job has ended exactly once."""
    worker = FakeWorker(store, "w2")
    for claim in worker.take(1_000):
        assert worker.end(claim).done
    ended = store.query("SELECT job_id, count(*) AS n FROM events WHERE event = 'succeeded' GROUP BY job_id")
    assert Counter(ended["n"]) == {1: len(store.find(Selection()))}
    check_books(store)


# ------------------------------------------------------------------------------------------------- cut files
#: How many; each takes about a tenth of a second.
CUTS = int(os.environ.get("NBQUEUE_CUTS", "16"))


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A file, its log and its journal, as a death left them."""
    path = tmp_path_factory.mktemp("cut") / "jobs.duckdb"
    clock = FakeClock()
    store = DuckDBStore(path, clock=clock.time, ticks=clock.ticks)
    for _ in range(2):
        store._run(lambda _: store._ledger.checkpoint())
        jobs = [new_job(clock, f"c{n % 7}", payload=f'["{"x" * 200}"]') for n in range(200)]
        store.insert(jobs)
        worker = FakeWorker(store, f"w{jobs[0].job_id}")
        for claim in worker.take(50):
            worker.end(claim, result='"r"')
        worker.leave()
    store.query("SELECT 1")
    store.insert([new_job(clock) for _ in range(50)])
    for job in (new_job(clock) for _ in range(50)):
        store.insert([job])
    found = {end: path.with_name(path.name + end).read_bytes() for end in BESIDE.values()}
    store.close()
    assert all(found.values())
    found[".journal"] = found[".journal"].rstrip(b"\0")
    return found


BESIDE = {"file": "", "log": ".wal", "journal": ".journal"}


def cut(path: Path, left_behind: dict[str, bytes], chance: random.Random) -> str:
    """Write the three with an end of one missing, or nothing but zeros there, as after a power failure."""
    which = chance.choice(tuple(BESIDE))
    for end, data in left_behind.items():
        at = chance.randrange(len(data)) if end == BESIDE[which] else len(data)
        zeros = bytes(len(data) - at) if chance.random() < 0.3 else b""
        path.with_name(path.name + end).write_bytes(data[:at] + zeros)
    return which


def test_cut_files(path: Path, left_behind: dict[str, bytes]) -> None:
    """A file that lacks an end opens, or it is said why it does not: when it is opened, or when that part is read."""
    chance = random.Random(20)
    met: Counter[str] = Counter()
    for _ in range(CUTS):
        which = cut(path, left_behind, chance)
        said = read_all(path)
        assert not said or (said.startswith(str(path)) and "is damaged" in said)
        met[f"{which} {'refused' if said else 'opened'}"] += 1
    assert met["file refused"]
    assert met["log refused"]  # what the journal goes on from is missing
    assert met["journal opened"]


def read_all(path: Path) -> str:
    """Open a file and read all that is in it; gives why it cannot be done, "" if it can."""
    try:
        store = DuckDBStore(path)
    except QueueUnavailable as error:
        return str(error)
    try:
        assert all(record.payload for record in store.get(store.find(Selection())))
        store.query("SELECT * FROM attempts")
        store.insert([new_job(FakeClock())])
    except QueueUnavailable as error:
        return str(error)
    finally:
        store.close()
    return ""
