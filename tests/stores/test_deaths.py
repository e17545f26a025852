"""What a store does when workers, owners and clocks fail: leases, ghosts, burials and who is blamed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from nbqueue.jobs import Claim, State
from nbqueue.lifecycle import Outcome
from nbqueue.slots import SlotFile
from nbqueue.store import LogChunk, ReportKind, Selection
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.memory import MemoryStore
from nbqueue.stores.pulse import Pulse
from nbqueue.testing import FakeClock, FakeWorker, new_job
from nbqueue.testing.workers import check_books, events_of, get, ids
from tests.halting import halt

LEASE = 15.0


@pytest.fixture
def slots(path: Path) -> Iterator[Callable[[str], SlotFile]]:
    """Gives the slot file of a worker, held as by its process; ``unlock`` is that process's death."""
    made: dict[str, SlotFile] = {}

    def of(worker_id: str) -> SlotFile:
        if worker_id not in made:
            made[worker_id] = SlotFile(path.with_name(path.name + ".slots") / f"{worker_id}.slots", 4)
        return made[worker_id]

    yield of
    for file in made.values():
        file.close()


def crash(store: DuckDBStore) -> None:
    """Leave a store as a death does: the file, its log and its journal are what they were before anybody tidied up."""
    beside = [store._path.with_name(store._path.name + end) for end in (".wal", ".journal")]
    found = {path: path.read_bytes() for path in (store._path, *beside) if path.exists()}
    store.close()
    for path in beside:
        path.unlink(missing_ok=True)
    for path, data in found.items():
        path.write_bytes(data)


def causes(store: DuckDBStore, claim: Claim) -> list[str]:
    """What is said of the end of a claim."""
    frame = store.query("SELECT cause FROM events WHERE fence = ? AND event <> 'claimed'", [claim.fence])
    return [str(cause) for cause in frame["cause"]]


Opened = Callable[..., DuckDBStore]
Slots = Callable[[str], SlotFile]


# ------------------------------------------------------------------------------------------------- take-over
def test_the_living_go_on(opened: Opened, slots: Slots, clock: FakeClock) -> None:
    """Jobs of a worker whose process lives are its own under the next owner, and what it reports is accepted."""
    store = opened()
    alive, dead = FakeWorker(store, "alive", lease=40.0, pid=7, host="h"), FakeWorker(store, "dead")
    for worker in (alive, dead):
        slots(worker.info.worker_id)
    jobs = [new_job(clock) for _ in range(4)]
    store.insert(jobs)
    mine, ahead = alive.take(2)
    begun, waiting = dead.take(2)
    slots("dead").begin(0, begun.fence)
    slots("dead").unlock()
    crash(store)

    again = opened()
    assert [get(again, job).state for job in jobs] == [State.RUNNING] * 2 + [State.PENDING] * 2
    assert [get(again, job).crashes for job in jobs] == [0, 0, 1, 0]
    assert [(one.job_id, one.begun) for one in again.interrupted] == [
        (begun.job_id, True),
        (waiting.job_id, False),
    ]
    assert causes(again, begun) == causes(again, waiting) == ["killed"]
    assert again.workers() == []
    assert again.slot_folder
    assert [file.stem for file in again.slot_folder.iterdir()] == ["alive"]
    clock.advance(39.0)  # nearly its whole lease
    other = FakeWorker(again, "other")
    assert ids(other.take(9)) == ids(jobs[2:])
    alive.store = again
    alive.join(held=[mine.fence])
    assert {info.worker_id for info in again.workers()} == {"alive", "other"}
    assert alive.end(mine, result="1").done
    assert get(again, mine).result == "1"
    assert get(again, ahead).state is State.PENDING  # given to it in an answer that it never got
    assert (get(again, ahead).attempt, get(again, ahead).crashes) == (0, 0)
    check_books(again)


def test_one_who_stays_away(opened: Opened, slots: Slots, clock: FakeClock) -> None:
    """A ghost that does not come back within its lease is a worker that fell silent; it is blamed as one."""
    store = opened()
    worker = FakeWorker(store, "w1", lease=20.0)
    store.insert([new_job(clock) for _ in range(2)])
    begun, ahead = worker.take(2)
    slots("w1").begin(3, ahead.fence)  # a worker may take them in another order
    crash(store)
    again = opened()
    other = FakeWorker(again, "other", lease=1_000.0)
    clock.advance(19.0)
    assert other.take(2) == []
    clock.advance(2.0)
    assert ids(other.turn(slots=2).claims) == ids([begun, ahead])
    assert [get(again, claim).crashes for claim in (begun, ahead)] == [0, 1]
    assert causes(again, ahead) == ["lease expired"]
    worker.store = again
    assert not worker.end(ahead).done
    assert worker.turn().expired


def test_a_ghost_must_join(opened: Opened, slots: Slots, clock: FakeClock) -> None:
    """Reports of one who has not joined again count; it gets nothing, and is told to join."""
    store = opened()
    worker = FakeWorker(store, "w1")
    slots("w1")
    store.insert([new_job(clock) for _ in range(2)])
    claim = worker.take_one()
    crash(store)
    worker.store = again = opened()
    turn = worker.turn(slots=5)
    assert (turn.expired, list(turn.claims)) == (True, [])
    assert worker.end(claim).done
    worker.join()
    assert len(worker.take(5)) == 1
    check_books(again)


def test_reported_to_the_owner_before(opened: Opened, slots: Slots, clock: FakeClock) -> None:
    """What was reported and kept, though the answer was lost with its owner, is done under the next one, once."""
    store = opened()
    worker = FakeWorker(store, "w1")
    slots("w1")
    jobs = [new_job(clock) for _ in range(2)]
    store.insert(jobs)
    first, second = worker.take(2)
    line = LogChunk("stdout", "x\n", clock.time())
    worker.say(second, ReportKind.NEWS, logs=(line,))
    worker.end(first, result="1", finished_at=clock.time())
    crash(store)
    worker.store = again = opened()
    worker.join(held=[first.fence, second.fence])
    assert first.fence in worker.turn().cancels  # it is over here, and it has not been told
    assert worker.end(first, result="1", finished_at=clock.time()).done
    worker.say(second, ReportKind.NEWS, logs=(line,))
    assert list(worker.turn().cancels) == []
    assert events_of(again, jobs[0]) == ["dispatched", "claimed", "succeeded"]
    assert len(again.query("SELECT * FROM logs")) == 1


def test_lease_of_a_file_that_does_not_know_it(
    opened: Opened, slots: Slots, path: Path, clock: FakeClock
) -> None:
    """In a file of an older version no lease is written down: such a worker gets the usual one."""
    store = opened()
    worker = FakeWorker(store, "w1", lease=1_000.0)
    slots("w1")
    store.insert([new_job(clock)])
    worker.take_one()
    store.query("SELECT 1")  # so that it is in the file
    crash(store)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE workers SET lease = NULL")
    again = opened()
    clock.advance(LEASE + 1)
    assert len(FakeWorker(again, "other").take()) == 1


# ------------------------------------------------------------------------------------------------ burials
def test_bury(opened: Opened, slots: Slots, clock: FakeClock) -> None:
    """Of those named, who has died loses everything at once; who lives, or cannot be told of, is left alone."""
    store = opened()
    workers = {name: FakeWorker(store, name) for name in ("dead", "alive", "unknown")}
    jobs = [new_job(clock, tries=1) for _ in range(4)]
    store.insert(jobs)
    claims = {
        "dead": workers["dead"].take(2),
        "alive": workers["alive"].take(1),
        "unknown": workers["unknown"].take(1),
    }
    slots("alive")
    slots("dead").begin(0, claims["dead"][1].fence)
    slots("dead").unlock()
    idle = FakeWorker(store, "idle")
    idle.turn(slots=1)
    assert store.bury(["dead", "alive", "unknown", "nobody"]) == ["dead"]
    assert store.bury(["dead"]) == []
    assert [get(store, job).crashes for job in jobs] == [0, 1, 0, 0]
    assert [get(store, job).attempt for job in jobs] == [1, 0, 1, 1]
    assert ids(idle.handed) == [jobs[0].job_id]  # at once, without backoff
    assert causes(store, claims["dead"][0]) == ["killed"]
    assert store.slot_folder
    assert [file.stem for file in store.slot_folder.iterdir()] == ["alive"]
    assert not workers["alive"].end(claims["dead"][1]).done
    assert {info.worker_id for info in store.workers()} == {"alive", "unknown", "idle"}
    check_books(store)


def test_quarantine(opened: Opened, slots: Slots, clock: FakeClock) -> None:
    """Three deaths of whatever kind of a job that had begun end it; those of one claimed ahead do not count."""
    store = opened()
    poison, bystander = new_job(clock), new_job(clock)
    store.insert([poison, bystander])
    for n, kind in enumerate(["buried", "lapsed", "restarted"]):
        name = f"w{n}"
        first, second = FakeWorker(store, name).take(2)
        slots(name).begin(0, first.fence)
        assert (first.attempt, second.attempt) == (1, 1)
        if kind == "buried":
            slots(name).unlock()
            assert store.bury([name]) == [name]
        elif kind == "lapsed":
            clock.advance(LEASE + 1)
            FakeWorker(store, "other").turn()
        else:
            slots(name).unlock()
            crash(store)
            store = opened()
    record = get(store, poison)
    assert (record.state, record.cause, record.crashes) == (State.FAILED, "crashes", 3)
    assert "w2" in record.error
    assert "3 times" in store.explain(poison.job_id)
    assert (get(store, bystander).state, get(store, bystander).crashes) == (State.PENDING, 0)
    frame = store.query("SELECT cause FROM attempts WHERE job_id = ? ORDER BY fence", [poison.job_id])
    assert list(frame["cause"]) == ["killed", "lease expired", "crashes"]


@pytest.mark.parametrize("cause", ["killed", "lease expired", "interrupted"])
def test_cause(opened: Opened, slots: Slots, clock: FakeClock, cause: str) -> None:
    """An interruption says by what; the page that people read lists these words."""
    store = opened()
    store.insert([new_job(clock)])
    claim = FakeWorker(store, "w1").take_one()
    if cause == "lease expired":
        clock.advance(LEASE + 1)
        FakeWorker(store, "other").turn()
    else:
        if cause == "killed":
            slots("w1").unlock()
        crash(store)
        store = opened()
    assert causes(store, claim) == [cause]
    page = Path(__file__).parents[2] / "docs" / "lifecycle.md"
    assert f"\n| `{cause}` |" in page.read_text(encoding="utf-8")


def test_a_childs_death_counts(opened: Opened, clock: FakeClock) -> None:
    """A child that died cost an attempt, and no crash: its kernel lives, and the retry policy has the say."""
    store = opened()
    job = new_job(clock, tries=2)
    store.insert([job])
    worker = FakeWorker(store)
    worker.end(worker.take_one(), Outcome.CRASHED, cause="killed (SIGKILL)", error="WorkerDied: SIGKILL")
    record = get(store, job)
    assert (record.state, record.attempt, record.crashes, record.cause) == (
        State.PENDING,
        1,
        0,
        "killed (SIGKILL)",
    )
    clock.advance(60.0)
    worker.join()
    worker.end(worker.take_one(), Outcome.CRASHED, cause="killed (SIGKILL)")
    record = get(store, job)
    assert (record.state, record.attempt, record.cause) == (State.FAILED, 2, "killed (SIGKILL)")


def test_a_burial_that_is_not_kept(
    opened: Opened, slots: Slots, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot file is removed only when what it said is on disk."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    slots("w1").begin(0, FakeWorker(store, "w1").take_one().fence)
    slots("w1").unlock()
    fails = iter([True])
    real = store._ledger.commit

    def commit(writes: object) -> None:
        if next(fails, False):
            raise duckdb.IOException("IO Error: No space left on device")
        real(writes)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(store._ledger, "commit", commit)
        with pytest.raises(Exception, match="No space left"):
            store.bury(["w1"])
    # It is found dead when the store has gone back to what is on disk.
    assert store.workers() == []
    assert (get(store, job).state, get(store, job).crashes) == (State.PENDING, 1)


# ------------------------------------------------------------------------------------------------ the beat
def wait_for(told: threading.Event) -> None:
    assert told.wait(20)


def test_leases_end_without_a_turn(opened: Opened, clock: FakeClock) -> None:
    """Nobody has to ask for anything: the store finds by itself that a worker fell silent, and says so."""
    store = opened(Pulse(0.01))
    store.insert([new_job(clock)])
    worker = FakeWorker(store)
    claim = worker.take_one()
    told = threading.Event()
    stop = store.listen(told.set)
    clock.advance(worker.info.lease + 3_600)  # far more than this machine may have been deaf
    wait_for(told)
    stop()
    assert store.workers() == []
    assert get(store, claim).state is State.PENDING


def test_the_dead_are_found_without_a_turn(opened: Opened, slots: Slots, clock: FakeClock) -> None:
    """A worker whose process has gone is buried at the next beat, long before its lease ends."""
    store = opened(Pulse(0.01))
    store.insert([new_job(clock)])
    slots("w1")
    worker = FakeWorker(store, "w1")
    idle = FakeWorker(store, "idle")
    worker.take_one()
    idle.turn(slots=1)
    told = threading.Event()
    stop = store.listen(told.set)
    slots("w1").unlock()
    wait_for(told)
    stop()
    assert len(idle.handed) == 1


def test_the_dead_are_found_under_load(opened: Opened, slots: Slots, clock: FakeClock) -> None:
    """Nor does it need a moment in which nobody asks for anything."""
    real = FakeClock()
    store = opened(Pulse(1.0, real.ticks))
    slots("w1")
    worker = FakeWorker(store, "w1")
    slots("w1").unlock()
    real.advance(1.0)
    store.insert([new_job(clock)])
    store.queues()
    assert store.workers() == []
    assert worker.called


@pytest.mark.parametrize("where", ["file", "memory"])
def test_deaf_time_lengthens_leases(opened: Opened, clock: FakeClock, where: str) -> None:
    """A stall of the owner costs no worker its jobs, however long: both were as deaf as it was."""
    real = FakeClock()
    if where == "file":
        store = opened(Pulse(1.0, real.ticks))
    else:
        memory = MemoryStore(clock=clock.time, ticks=clock.ticks)
        memory._pulse = Pulse(1.0, real.ticks)
        store = memory  # type: ignore[assignment]
    store.insert([new_job(clock) for _ in range(2)])
    a, b = FakeWorker(store, "a"), FakeWorker(store, "b")
    held = [worker.take_one() for worker in (a, b)]
    for seconds in (60.0, 3_600.0):
        clock.advance(seconds)
        real.advance(seconds)
        a.turn()  # the first of them to be heard again
        assert len(store.workers()) == 2
    assert [worker.end(claim).done for worker, claim in zip((a, b), held, strict=True)] == [True, True]
    for _ in range(20):
        clock.advance(1.0)
        real.advance(1.0)
        a.turn()
    assert [info.worker_id for info in store.workers()] == ["a"]  # b was silent while everybody listened
    if where == "memory":
        store.close()


def test_a_slow_commit_is_deaf_time(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is slow nobody is heard, and nobody is to blame."""
    real = FakeClock()
    store = opened(Pulse(1.0, real.ticks))
    store.insert([new_job(clock)])
    worker = FakeWorker(store)
    claim = worker.take_one()
    commit = store._ledger.commit

    def slow(writes: object) -> None:
        clock.advance(100.0)
        real.advance(100.0)
        commit(writes)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(store._ledger, "commit", slow)
        store.insert([new_job(clock, delay=1e6)])
    other = FakeWorker(store, "other")
    assert other.take() == []
    assert worker.end(claim).done


STOPPED = """
import sys, threading
from pathlib import Path
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.testing import FakeClock, FakeWorker, new_job
store = DuckDBStore(Path(sys.argv[1]))
store.insert([new_job(FakeClock())])
worker = FakeWorker(store, "w1", lease=3.0)
worker.take_one()
print("ready", flush=True)
for line in sys.stdin:
    print(len(store.workers()), flush=True)
"""


def test_stopped_owner(path: Path) -> None:
    """An owner that was stopped with SIGSTOP for longer than a lease frees none when it goes on."""
    command = [sys.executable, "-c", STOPPED, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        halt(process.pid)
        # No event ends this: it is the time itself that must pass.
        threading.Event().wait(4.0)
        process.stdin.write("?\n")
        process.stdin.flush()
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "1\n"
        process.stdin.close()
        process.kill()


# ------------------------------------------------------------------------------------------------- the clock
@pytest.mark.parametrize("step", [-86_400.0, 86_400.0])
def test_steps_of_the_wall_clock(opened: Opened, clock: FakeClock, step: float) -> None:
    """A wall clock that jumps neither ends a lease nor keeps one."""
    store = opened()
    store.insert([new_job(clock) for _ in range(2)])
    worker, other = FakeWorker(store), FakeWorker(store, "other", lease=1_000.0)
    held = worker.take_one()
    clock.set_back(step)
    assert other.take_one().job_id != held.job_id
    assert get(store, held).state is State.RUNNING
    clock.advance(LEASE + 1)
    assert ids(other.turn(slots=2).claims) == [held.job_id]
    assert len(store.find(Selection(states=(State.RUNNING,)))) == 2
