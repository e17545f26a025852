"""The DuckDB store where it is more than the suite: its file, its lock, its commits, and coming back after a death."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from nbqueue.errors import DispatchFailed, QueueUnavailable
from nbqueue.jobs import JobRecord, Spec, State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.slots import SlotFile
from nbqueue.store import Report, ReportKind, Selection
from nbqueue.stores import schema
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.handover import Op
from nbqueue.stores.index import Index, limits
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.memory import MemoryStore
from nbqueue.stores.writes import Writes
from nbqueue.testing import FakeClock, FakeWorker, new_job
from nbqueue.testing.workers import bring, check_books, get, ids, new_batch


def crash(store: DuckDBStore) -> None:
    """Leave a store as a death does: the file, its log and its journal are what they were before anybody tidied up."""
    beside = [store._path.with_name(store._path.name + end) for end in (".wal", ".journal")]
    found = {path: path.read_bytes() for path in (store._path, *beside) if path.exists()}
    store.close()
    for path in beside:
        path.unlink(missing_ok=True)
    for path, data in found.items():
        path.write_bytes(data)


def at_once(store: DuckDBStore, *verbs: Callable[[Index], Any]) -> list[Op]:
    """Have the writer meet these verbs in one batch, and wait for it."""
    entered, go = threading.Event(), threading.Event()

    def block(_index: Index) -> None:
        entered.set()
        assert go.wait(10)

    ops = [Op(block), *map(Op, verbs)]
    store._inbox.append(ops[0])
    store._news.set()
    assert entered.wait(10)
    store._inbox.extend(ops[1:])
    store._news.set()
    go.set()
    for op in ops:
        assert op.done.acquire(timeout=10)
    return ops[1:]


class Commits:
    """Counts what goes to disk, and fails when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.fail = 0
        real = Ledger.commit

        def commit(ledger: Ledger, writes: Writes) -> None:
            if self.fail:
                self.fail -= 1
                raise duckdb.IOException("IO Error: No space left on device\nand more")
            if writes.rows:
                self.sizes.append(len(writes.rows))
            real(ledger, writes)

        monkeypatch.setattr(Ledger, "commit", commit)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Commits:
    return Commits(monkeypatch)


# ------------------------------------------------------------------------------------------------ reopening
def zoo(store: DuckDBStore, clock: FakeClock) -> list[JobRecord]:
    """One job in each standing there is, none of them running."""
    wait = RetryPolicy(backoff=(50.0,))
    for state in State:
        if state is not State.RUNNING:
            bring(store, clock, state, queue=f"q-{state}")
    names = (
        "retrying",
        "held",
        "released",
        "retried",
        "again",
        "cancelled",
        "overdue",
        "lost",
        "failed",
        "won",
    )
    jobs = {
        name: new_job(
            clock, name, queue="zoo", tries=3, retry=wait, payload='["ü"]', metadata='{"a":1}', row="1", timeout=2.5,
            origin="notebook:a.ipynb", code="c0de", batch_id=new_job(clock).job_id, priority=-3,
        )
        for name in names
    }  # fmt: skip
    store.insert(list(jobs.values()))
    worker = FakeWorker(store, "keeper", queues=("zoo",), tries=7)
    claims = {claim.spec.command: claim for claim in worker.turn(slots=len(names)).claims}
    clock.advance(1.5)

    def fail(name: str, outcome: Outcome = Outcome.FAILED) -> None:
        worker.end(claims[name], outcome, error=f"E: {name}", traceback="T", started_at=clock.time() - 1)

    for name in ("retrying", "retried", "again", "cancelled", "overdue", "failed"):
        fail(name)
    worker.end(claims["won"], result='{"x":1}', started_at=clock.time() - 0.5)
    worker.say(claims["held"], ReportKind.REFUSED, error="PayloadUntrusted: no")
    worker.say(claims["released"], ReportKind.RELEASED)
    store.cancel([jobs["cancelled"].job_id])
    store.retry([jobs["retried"].job_id, jobs["again"].job_id, jobs["failed"].job_id, jobs["overdue"].job_id])
    clock.advance(20.0)
    other = FakeWorker(store, "other", queues=("zoo",), tries=7)
    other.turn()  # "lost" was the keeper's
    store.pause("zoo", paused=False)
    got = {claim.spec.command: claim for claim in other.turn(slots=9).claims}
    assert {"lost", "retried", "failed", "again", "released", "overdue"} <= set(got)
    other.end(got["failed"], Outcome.FAILED, error="E: last", traceback="T2")
    other.say(got["again"], ReportKind.RELEASED)
    other.end(got["lost"], Outcome.TIMED_OUT)
    store.cancel([jobs["overdue"].job_id])
    other.end(got["overdue"], Outcome.CANCELLED)
    other.leave()
    store.insert([new_job(clock, "delayed", delay=500.0, queue="zoo"), new_job(clock, "past", delay=-5.0)])
    store.insert([new_job(clock, "run", queue="runs") for _ in range(5)])
    store.pause("zoo", paused=True)
    store.add_queue("empty")
    return store.get(store.find(Selection()))


def seen(store: DuckDBStore) -> dict[str, object]:
    """All that a store tells."""
    everything = store.find(Selection())
    return {
        "records": store.get(everything),
        "why": [store.explain(job_id) for job_id in everything],
        "queues": store.queues(),
        "events": store.query(
            "SELECT seq, event, state, attempt, cause, error, data FROM events ORDER BY seq"
        ).to_dict(),
        "code": store.get_code("c0de"),
    }


def test_reopened_is_equal(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """After closing and opening again every record, reason, count and switch is what it was."""
    store = opened()
    store.put_code("c0de", b"code")
    records = zoo(store, clock)
    assert {record.state for record in records} == set(State) - {State.RUNNING}
    before = seen(store)
    lives = {job.new.job_id: job.life for job in store._index.jobs([r.job_id for r in records])}
    store.close()
    again = opened()
    after = seen(again)
    for name, value in before.items():
        assert after[name] == value, name
    assert {job.new.job_id: job.life for job in again._index.jobs(list(lives))} == lives
    assert (again.created, again.interrupted, again.workers()) == (False, [], [])
    check_books(again)


def test_evicted_is_equal(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was put out of memory comes back out of the file as it was."""
    monkeypatch.setattr(limits, "ENDED_KEPT", 0)
    store = opened()
    told = zoo(store, clock)
    assert not store._index.ended
    store.close()
    monkeypatch.undo()
    again = opened()
    assert again.get([r.job_id for r in told]) == told


def test_much_text_leaves_memory(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few jobs with large payloads or results do not fill it: they are where they are safe, and come from there."""
    monkeypatch.setattr(limits, "LARGE", 100)
    store = opened()
    large, small = new_job(clock, payload=f'{{"args":["{"x" * 100}"],"kwargs":{{}}}}'), new_job(clock)
    store.insert([large, small])
    assert [job.new.job_id for job in store._index.live.values()] == [small.job_id]
    worker = FakeWorker(store)
    first, second = worker.take(2)
    assert (first.job_id, first.payload) == (large.job_id, large.payload)
    worker.end(first)
    worker.end(second, result=f'"{"y" * 100}"')
    assert not store._index.ended
    assert [record.result[1:-1] for record in store.get(ids([large, small]))] == ["", "y" * 100]
    store.insert([large, small])
    assert len(store.find(Selection())) == 2
    check_books(store)


def test_running_is_equal_in_the_fold(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """A running job and one that is asked to stop are read back as they stand, the error of the last try included."""
    store = opened()
    jobs = [new_job(clock, tries=3, retry=RetryPolicy(backoff=(0.0,))) for _ in range(2)]
    store.insert(jobs)
    worker = FakeWorker(store)
    for claim in worker.take(2):
        worker.end(claim, Outcome.FAILED, error="E: 1", traceback="T")
    clock.advance(1.0)
    worker.take(2)
    store.cancel([jobs[1].job_id])
    live = store.get(ids(jobs))
    assert [record.cancelling for record in live] == [False, True]
    loaded = {job.new.job_id: job.record() for job in store._run(lambda _: store._ledger.jobs(ids(jobs)))}
    assert [loaded[record.job_id] for record in live] == live


def test_numbers_are_never_used_again(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """After forgetting everything and opening anew, event, job and claim numbers go on rising."""
    store = opened()
    bring(store, clock, State.SUCCEEDED)
    rows = store.query("SELECT max(seq) AS seq, max(number) AS number, max(fence) AS fence FROM events")
    assert store.forget(Selection()) == 1
    store.close()
    again = opened()
    job = bring(again, clock, State.SUCCEEDED)
    after = again.query("SELECT min(seq) AS seq, min(number) AS number, min(fence) AS fence FROM events")
    for name in ("seq", "number", "fence"):
        assert after[name][0] > rows[name][0], name
    assert get(again, job).state is State.SUCCEEDED


def test_dispatch_repeated_after_a_restart(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """A dispatch that is sent again to the next owner is no second job, wherever the first one stands."""
    store = opened()
    jobs = [new_job(clock, delay=d) for d in (None, None, 50.0)]
    store.insert(jobs)
    worker = FakeWorker(store)
    worker.end(worker.take_one())
    store.close()
    again = opened()
    again.insert([*jobs, new_job(clock)])
    assert len(again.find(Selection())) == 4
    assert len(FakeWorker(again).take(9)) == 2


def test_dispatch_repeated_after_eviction(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of a job that has left memory, ended or pending, nor one that comes twice in a batch."""
    monkeypatch.setattr(limits, "ENDED_KEPT", 1)
    monkeypatch.setattr(limits, "PENDING_KEPT", 1)
    store = opened()
    jobs = [new_job(clock) for _ in range(6)]
    store.insert(jobs)
    store.cancel(ids(jobs[:3]))
    store.insert(jobs)
    late = new_job(clock)
    at_once(
        store,
        lambda index: index.insert([late], clock.time()),
        lambda index: index.insert([late, late], clock.time()),
    )
    assert sorted(store.find(Selection())) == sorted([*ids(jobs), late.job_id])
    check_books(store)


def test_specs_keep_their_numbers(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """Two stored specs that are read back as equal do not shift those after them."""
    store = opened()
    odd, plain = RetryPolicy(give_up_on=("KeyError",)), RetryPolicy(give_up_on=("builtins.KeyError",))
    store.insert([new_job(clock, "a", retry=odd), new_job(clock, "a", retry=plain)])
    last = new_job(clock, "b", queue="other")
    store.insert([last])
    store.close()
    again = opened()
    assert get(again, last).spec == last.spec
    assert ids(FakeWorker(again, queues=("other",)).take(5)) == [last.job_id]
    check_books(again)


# ------------------------------------------------------------------------------------------------- recovery
def test_recovery(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """After a death what had begun is blamed, what was claimed ahead is not, and both are told and run again."""
    store = opened()
    begun, ahead, idle = (new_job(clock, name) for name in ("begun", "ahead", "idle"))
    store.insert([begun, ahead, idle])
    worker = FakeWorker(store)
    claims = worker.turn(slots=2).claims
    assert store.slot_folder is not None
    slots = SlotFile(store.slot_folder / "w1.slots", 4)
    slots.begin(2, claims[0].fence)
    slots.unlock()
    crash(store)
    again = opened()
    told = [(i.job_id, i.command, i.worker, i.attempt, i.begun) for i in again.interrupted]
    assert told == [(begun.job_id, "begun", "w1", 1, True), (ahead.job_id, "ahead", "w1", 1, False)]
    assert all("given back to its queue" in i.reason for i in again.interrupted)
    assert [get(again, job).crashes for job in (begun, ahead, idle)] == [1, 0, 0]
    assert list(again.slot_folder.glob("*")) == []
    second = FakeWorker(again, "w2")
    new = second.take(3)
    assert ids(new) == ids([begun, ahead, idle])
    assert not second.end(claims[0]).done
    assert new[0].fence > claims[1].fence
    check_books(again)


def test_third_death_fails(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """A job that kills its kernel three times is failed, with the cause named, and the list says so."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    for n in range(3):
        claim = FakeWorker(store, f"w{n}").take_one()
        assert store.slot_folder is not None
        slots = SlotFile(store.slot_folder / f"w{n}.slots", 1)
        slots.begin(0, claim.fence)
        slots.unlock()
        crash(store)
        store = opened()
    record = get(store, job)
    assert (record.state, record.cause, record.crashes) == (State.FAILED, "crashes", 3)
    assert store.interrupted[0].reason.endswith("failed")
    store.close()
    assert opened().interrupted == []


def test_what_was_acknowledged_survives(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """Whatever a verb returned for is in the file of a store that died right after."""
    store = opened()
    jobs = [new_job(clock) for _ in range(3)]
    store.insert(jobs)
    store.cancel([jobs[0].job_id])
    store.pause("default", paused=True)
    store.put_code("c", b"x")
    worker = FakeWorker(store)
    worker.turn()
    crash(store)
    again = opened()
    assert [get(again, job).state for job in jobs] == [State.CANCELLED, State.PENDING, State.PENDING]
    assert again.queues()[0].paused
    assert again.get_code("c") == b"x"


# ------------------------------------------------------------------------------------------ lock and paths
TRY = """
import json, sys
from pathlib import Path
from nbqueue.errors import QueueUnavailable
from nbqueue.stores.duckdb import DuckDBStore
try:
    DuckDBStore(Path(sys.argv[1])).close()
except QueueUnavailable as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps(""))
"""


def try_elsewhere(path: Path, code: str = TRY) -> str:
    """What a second process is told; "" if it got the file."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    said: str = json.loads(done.stdout)
    return said


def test_second_process_is_refused(opened: Callable[[], DuckDBStore], path: Path, clock: FakeClock) -> None:
    """One owner at a time: the second is told who has it, even after the owner copied and opened its own file."""
    store = opened()
    store.insert([new_job(clock)])
    # Each of these drops DuckDB's own lock, which is a POSIX one.
    shutil.copy(path, path.with_name("copy.duckdb"))
    path.open("rb").close()
    said = try_elsewhere(path)
    assert f"process {os.getpid()} (" in said
    assert "close it there" in said
    store.close()
    assert try_elsewhere(path) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_is_no_owner(opened: Callable[[], DuckDBStore], path: Path) -> None:
    """A fork has no writer: its verbs are refused at once, it touches neither file nor lock, and its parent goes on."""
    program = """
import os, signal, sys
from pathlib import Path
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.testing import FakeClock, new_job

store = DuckDBStore(Path(sys.argv[1]))
store.insert([new_job(FakeClock())])
child = os.fork()
if not child:
    signal.alarm(10)
    try:
        store.insert([new_job(FakeClock())])
    except Exception as error:
        print(error, flush=True)
    store.close()
    os._exit(0)
ledger = store._ledger
print(os.waitpid(child, 0)[1], ledger.unchecked + ledger._waiting_rows, flush=True)
store.insert([new_job(FakeClock())])
store.close()
"""
    command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    refusal, after = done.stdout.splitlines()
    assert "was opened before this process was forked" in refusal
    assert after == "0 1"
    assert len(opened().find(Selection())) == 2


def test_link_is_the_same_file(opened: Callable[[], DuckDBStore], path: Path, tmp_path: Path) -> None:
    """A link to a queue is that queue, with the same lock."""
    opened()
    link = tmp_path / "link.duckdb"
    link.symlink_to(path)
    with pytest.raises(QueueUnavailable, match="is held by process"):
        DuckDBStore(link)
    assert not (tmp_path / "link.duckdb.lock").exists()


def test_another_name_is_refused(opened: Callable[[], DuckDBStore], path: Path, tmp_path: Path) -> None:
    """A hard link is the same file behind another lock: neither this process nor another opens it."""
    opened()
    other = tmp_path / "other.duckdb"
    os.link(path, other)
    # Which drops DuckDB's own lock on it.
    other.read_bytes()
    program = f"import pathlib, nbqueue.stores.duckdb as d; d.DuckDBStore(pathlib.Path({str(other)!r}))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "is held already, by a process that knows it by another name (a hard link)" in done.stderr
    with pytest.raises(QueueUnavailable, match="by another name"):
        DuckDBStore(other)


def test_a_removed_lock_file_lets_nobody_in(opened: Callable[[], DuckDBStore], path: Path) -> None:
    """Whoever takes the new lock file is not the owner for that."""
    opened()
    path.with_name("jobs.duckdb.lock").unlink()
    with pytest.raises(QueueUnavailable, match=r"whose jobs\.duckdb\.lock was removed"):
        DuckDBStore(path)


def foreign(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as con:
        for statement in statements:
            con.execute(statement)


def newer(path: Path) -> None:
    DuckDBStore(path).close()
    foreign(path, "UPDATE meta SET value = 99 WHERE name = 'schema'")
    path.with_name(path.name + ".lock").unlink()


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "not DuckDB": (lambda p: p.write_bytes(b"id,name\n" * 9_000), "is not a DuckDB database"),
    "short": (lambda p: p.write_bytes(b"x"), "is not a DuckDB database"),
    "empty": (lambda p: p.touch(), "is empty"),
    "damaged": (lambda p: p.write_bytes(bytes(8) + b"DUCK" + bytes(9_000)), "is damaged: .*put a copy back"),
    "foreign": (lambda p: foreign(p, "CREATE TABLE sales (x INT)"), "tables of its own \\(sales\\)"),
    "foreign ledger": (lambda p: foreign(p, "CREATE TABLE ledger (x INT)"), "tables of its own \\(ledger\\)"),
    "foreign meta": (
        lambda p: foreign(p, *(f"CREATE TABLE {table} (x INT)" for table in schema.TABLE_NAMES)),
        "tables of its own",
    ),
    "newer": (newer, "newer nbqueue \\(schema 99"),
    "directory": (lambda p: p.mkdir(), "is a folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_file(path: Path, tmp_path: Path, case: str) -> None:
    """What is no queue of ours is refused in a sentence, and nothing is written to it or beside it."""
    make, sentence = REFUSED[case]
    make(path)

    def content() -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}

    before = content()
    with pytest.raises(QueueUnavailable, match=sentence) as refused:
        DuckDBStore(path)
    assert str(path) in str(refused.value)
    assert content() == before


@pytest.mark.parametrize("name", ["what?.duckdb", "what?/jobs.duckdb"])
def test_a_question_mark(tmp_path: Path, name: str) -> None:
    """A path whose log DuckDB would put elsewhere is refused, with the sign named, and nothing is made."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    with pytest.raises(QueueUnavailable, match=r'has a "\?" in it'):
        DuckDBStore(path)
    assert list(path.parent.iterdir()) == []


def test_missing_folder(tmp_path: Path) -> None:
    """A folder that is not there is named, and not made."""
    with pytest.raises(QueueUnavailable, match=r"nosuch does not exist"):
        DuckDBStore(tmp_path / "nosuch" / "jobs.duckdb")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "file"])
def test_no_permission(tmp_path: Path, what: str) -> None:
    """Without the right to write there is a sentence, and nothing is left behind."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    path = folder / "jobs.duckdb"
    if what == "file":
        DuckDBStore(path).close()
        path.with_name(path.name + ".lock").unlink()
        path.chmod(0o444)
        folder.chmod(0o777)
    else:
        folder.chmod(0o555)
    drop = ""
    if os.geteuid() == 0:  # for root there are no permissions: the try is made as somebody else
        for parent in [folder, *folder.parents]:
            if len(parent.parts) > 2:  # below the system's own, all of it is this test run's
                parent.chmod(parent.stat().st_mode | 0o055)
        drop = "import nbqueue.stores.duckdb, os; os.setgid(65534); os.setuid(65534)\n"
    said = try_elsewhere(path, drop + TRY)
    assert "writable for you" in said
    assert sorted(p.name for p in folder.iterdir()) == (["jobs.duckdb"] if what == "file" else [])


# --------------------------------------------------------------------------------------------- group commit
def test_commits_are_shared(opened: Callable[[], DuckDBStore], clock: FakeClock, commits: Commits) -> None:
    """What arrives during a commit goes into the next one: many dispatches, one commit."""
    store = opened()
    store.insert([new_job(clock)])
    before = len(commits.sizes)
    jobs = [new_job(clock) for _ in range(50)]
    at_once(store, *(lambda index, job=job: index.insert([job], clock.time()) for job in jobs))
    assert commits.sizes[before:] == [50]


def test_threads_share_commits(opened: Callable[[], DuckDBStore], clock: FakeClock, commits: Commits) -> None:
    """Threads that dispatch at once get all their jobs in, each once, with no more commits than dispatches."""
    store = opened()
    start = threading.Barrier(8)

    def dispatch() -> None:
        start.wait()
        for _ in range(20):
            store.insert([new_job(clock)])

    threads = [threading.Thread(target=dispatch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.find(Selection())) == 160
    assert sum(commits.sizes) == 160
    assert len(commits.sizes) < 160


def test_lone_dispatch_is_one_commit(
    opened: Callable[[], DuckDBStore], clock: FakeClock, commits: Commits
) -> None:
    """The claim of an idle worker rides in the commit of the dispatch."""
    store = opened()
    store.insert([new_job(clock)])
    worker = FakeWorker(store)
    worker.turn(slots=5)
    commits.sizes.clear()
    store.insert([new_job(clock)])
    assert commits.sizes == [2]
    assert len(worker.handed) == 1


def test_cancelled_in_the_batch_of_a_claim(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """A job that is cancelled and would be claimed in one batch does not run: the file does not know yet."""
    job, kept = new_job(clock), new_job(clock)
    store = opened()
    store.insert([job, kept])
    store.close()
    store = opened()  # so that neither is in memory
    worker = FakeWorker(store)
    cancel, _ = at_once(
        store,
        lambda index: index.cancel([job.job_id], clock.time()),
        lambda index: setattr(index.seats["w1"], "slots", 2) or setattr(index, "fresh", True),
    )
    assert cancel.result[0].done
    assert ids(worker.handed) == [kept.job_id]
    assert get(store, job).state is State.CANCELLED
    check_books(store)


def test_claimed_before_it_is_on_disk(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a backlog too long for memory, a new job still goes to an idle worker in its own commit."""
    monkeypatch.setattr(limits, "PENDING_KEPT", 2)
    store = opened()
    store.insert([new_job(clock, queue="backlog") for _ in range(3)])
    worker = FakeWorker(store, queues=("default",))
    worker.turn(slots=1)
    batch = new_job(clock).job_id
    job = new_job(clock, payload="[7]", metadata='{"a":1}', batch_id=batch, row="9", timeout=3.0)
    store.insert([job])
    assert ids(worker.handed) == [job.job_id]
    (claim,) = worker.handed
    assert (claim.payload, claim.metadata, claim.batch_id, claim.row, claim.spec) == (
        "[7]",
        '{"a":1}',
        batch,
        "9",
        job.spec,
    )
    worker.end(claim)
    assert get(store, job).state is State.SUCCEEDED
    check_books(store)


def test_evicted_only_when_on_disk(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that end in one batch with a question about them are known as ended to it."""
    monkeypatch.setattr(limits, "ENDED_KEPT", 1)
    store = opened()
    jobs = [new_job(clock) for _ in range(4)]
    store.insert(jobs)
    _, retried = at_once(
        store,
        lambda index: index.cancel(ids(jobs), clock.time()),
        lambda index: index.retry(ids(jobs[:2]), clock.time()),
    )
    assert [answer.done for answer in retried.result] == [True, True]
    assert ids(FakeWorker(store).take(9)) == ids(jobs[:2])
    check_books(store)


# -------------------------------------------------------------------------------------------------- failure
def test_failed_commit(opened: Callable[[], DuckDBStore], clock: FakeClock, commits: Commits) -> None:
    """A commit that fails is told to its caller, leaves nothing behind, and the store goes on."""
    store = opened()
    kept = new_job(clock)
    store.insert([kept])
    worker = FakeWorker(store)
    claim = worker.take_one()
    told: list[JobRecord] = []
    store.watch([kept.job_id], told.append)
    commits.fail = 1
    lost = new_job(clock)
    with pytest.raises(DispatchFailed, match="No space left on device\\); nothing of this call was accepted"):
        store.insert([lost])
    assert store.get([lost.job_id]) == []
    assert get(store, kept).state is State.RUNNING
    commits.fail = 1
    with pytest.raises(DispatchFailed):
        worker.end(claim)
    assert get(store, kept).state is State.RUNNING
    assert told == []
    assert worker.end(claim).done
    assert [record.state for record in told] == [State.SUCCEEDED]
    store.insert([lost])
    assert ids(worker.take()) == [lost.job_id]
    check_books(store)


def test_failed_join(opened: Callable[[], DuckDBStore], clock: FakeClock, commits: Commits) -> None:
    """A worker whose joining was not kept is no worker: it joins again, and its jobs are known as its own."""
    store = opened()
    commits.fail = 1
    with pytest.raises(DispatchFailed):
        FakeWorker(store, "w1")
    assert store.workers() == []
    FakeWorker(store, "w2")
    worker = FakeWorker(store, "w1")
    job = new_job(clock)
    store.insert([job])
    worker.take_one()
    commits.fail = 1
    with pytest.raises(DispatchFailed):
        store.insert([new_job(clock)])
    assert (get(store, job).state, get(store, job).worker) == (State.RUNNING, "w1")
    assert store.interrupted == []


def test_failed_commit_of_a_handed_claim(
    opened: Callable[[], DuckDBStore], clock: FakeClock, commits: Commits
) -> None:
    """A claim whose commit failed was never handed out, and its worker is asked for a turn instead."""
    store = opened()
    worker = FakeWorker(store)
    worker.turn(slots=1)
    commits.fail = 1
    with pytest.raises(DispatchFailed):
        store.insert([new_job(clock)])
    assert worker.handed == []
    assert worker.called


def test_what_was_kept_is_said_so(
    opened: Callable[[], DuckDBStore], clock: FakeClock, commits: Commits
) -> None:
    """In a batch that fails half-way, whoever's rows were on disk before is not told that they are not."""
    store = opened()
    early, late = new_job(clock), new_job(clock)

    def fail(_index: Index) -> None:
        commits.fail = 1

    ops = at_once(
        store,
        lambda index: index.insert([early], clock.time()),
        store._write_out,
        fail,
        lambda index: index.insert([late], clock.time()),
    )
    assert ops[0].error is None
    assert isinstance(ops[3].error, DispatchFailed)
    assert store.find(Selection()) == [early.job_id]


def test_broken_for_good(
    opened: Callable[[], DuckDBStore], clock: FakeClock, commits: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be written any more says so at every verb, lets go, and has everything when opened again."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    commits.fail = 1
    with monkeypatch.context() as patch:
        patch.setattr(
            Ledger, "prepare", lambda _self: (_ for _ in ()).throw(QueueUnavailable("it is another's"))
        )
        with pytest.raises(
            QueueUnavailable, match=r"another's.*everything acknowledged is in it.*open it again"
        ):
            store.insert([new_job(clock)])
    assert store.broken
    with pytest.raises(QueueUnavailable, match="cannot be written any more"):
        store.queues()
    again = opened()
    assert again.find(Selection()) == [job.job_id]
    store.close()
    with pytest.raises(QueueUnavailable, match=f"process {os.getpid()}"):
        opened()


def test_trouble_in_handing_out(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while open slots are filled is told to whoever dispatched; the writer lives on."""
    store = opened()
    FakeWorker(store).turn(slots=1)
    with monkeypatch.context() as patch:
        patch.setattr(Index, "claim", lambda *_args: 1 / 0)
        with pytest.raises(DispatchFailed):
            store.insert([new_job(clock)])
    store.insert([new_job(clock)])
    assert len(store.find(Selection())) == 1


def test_closing_breaks_off_a_query(opened: Callable[[], DuckDBStore], path: Path) -> None:
    """Who reads when a store is closed is told so at once; nothing of the file is held, and a closed ledger says so."""
    store = opened()
    ledger, errors = store._ledger, []

    def read() -> None:
        try:
            store.query("SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 3")
        except QueueUnavailable as error:
            errors.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    while not ledger._cursors:
        assert thread.is_alive()
    store.close()
    thread.join(10)
    assert not thread.is_alive()
    assert errors == [f"{path} was closed while a query ran"]
    with pytest.raises(QueueUnavailable, match="was closed; open it again"):
        ledger.known([])
    ledger.close()
    assert not [value for value in vars(ledger).values() if type(value).__module__.startswith("_duckdb")]
    duckdb.connect(str(path)).close()


@pytest.mark.parametrize("where", ["file", "memory"])
def test_finding_keeps_nobody_waiting(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Other calls are answered while jobs are looked for; what was handed in before is found."""
    store = opened() if where == "file" else MemoryStore(clock=clock.time, ticks=clock.ticks)
    reading, go_on, real = threading.Event(), threading.Event(), Ledger.cursor

    @contextlib.contextmanager
    def held(ledger: Ledger) -> Iterator[duckdb.DuckDBPyConnection]:
        with real(ledger) as cursor:
            reading.set()
            assert go_on.wait(60)
            yield cursor

    monkeypatch.setattr(Ledger, "cursor", held)
    before, meanwhile = new_job(clock), new_job(clock)
    store.insert([before])
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(store.find, Selection())
        try:
            assert reading.wait(60)
            store.insert([meanwhile])
            assert store.cancel(ids([before, meanwhile]))[1].done
        finally:
            go_on.set()
        assert before.job_id in found.result(60)
    store.close()


def test_batch_repeated_after_another(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """A batch handed in again after another of its key has the jobs that it had, and none of whoever comes next."""
    store = opened()
    first = new_batch(clock, {"a": "[1]", "b": "[2]"}, key="k")
    store.put_batch(*first)
    store.put_batch(*new_batch(clock, {"a": "[3]", "b": "[4]"}, key="k"))
    mapped = store.put_batch(*first)
    store.insert([new_job(clock)])
    assert mapped.batch.runs == ((1, 2),)
    count = store.count_batch(mapped.batch.batch_id)
    assert count is not None
    assert (count.total, count.states[State.CANCELLED], count.states[State.PENDING]) == (2, 2, 0)


# --------------------------------------------------------------------------------------------------- paging
def test_reading_ahead_spares_memory(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes next is loaded along, but for much text, and no more of it for many queues than for one."""
    for name, value in (("PENDING_KEPT", 0), ("LOAD_AHEAD", 4), ("LARGE", 100)):
        monkeypatch.setattr(limits, name, value)
    store = opened()
    large = f'{{"args":["{"x" * 100}"],"kwargs":{{}}}}'
    jobs = [
        new_job(clock, queue="a", payload=text) for text in ("[]", "[1]", large, "[2]", "[3]", "[4]", large)
    ]
    others = [new_job(clock, queue=queue) for queue in "bcd" for _ in range(5)]
    store.insert([*jobs, *others])
    workers = {queue: FakeWorker(store, queue, queues=(queue,)) for queue in "abcd"}
    claims = workers["a"].take(1)
    assert [job.payload for job in store._index.live.values()] == ["[]"]
    assert {row[0] for row in store._index._ahead.values()} == {2, 4}
    for queue in "bcd":
        claims += workers[queue].take(1)
    assert store._index._in_memory - len(claims) <= 4
    for worker in workers.values():
        claims += worker.take(9)
    assert sorted(ids(claims)) == sorted(ids([*jobs, *others]))
    assert {claim.job_id: claim.payload for claim in claims}[jobs[2].job_id] == large
    check_books(store)


def test_what_is_read_ahead_can_be_asked_for(
    opened: Callable[[], DuckDBStore], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was read ahead is known, shown, cancelled, retried and handed over as one that lies in the file."""
    for name, value in (("PENDING_KEPT", 0), ("LOAD_AHEAD", 9)):
        monkeypatch.setattr(limits, name, value)
    store = opened()
    jobs = [new_job(clock, payload=f'{{"args":[{i}],"kwargs":{{}}}}') for i in range(6)]
    store.insert(jobs)
    worker = FakeWorker(store)
    claims = worker.take(1)
    assert sorted(store._index._ahead) == [2, 3, 4, 5, 6]
    cancelled, retried, reserved = jobs[1:4]
    store.insert([cancelled])
    assert get(store, cancelled.job_id).payload == cancelled.payload
    assert store.cancel([cancelled.job_id])[0].done
    store.cancel([retried.job_id])
    assert store.retry([retried.job_id])[0].done
    claims += store.insert([reserved], "w1")
    assert ids(claims) == ids([jobs[0], reserved])
    claims += worker.take(9)
    assert sorted(ids(claims)) == sorted(ids([jobs[0], *jobs[2:]]))
    assert {claim.job_id: claim.payload for claim in claims} == {
        job.job_id: job.payload for job in jobs if job is not cancelled
    }
    assert get(store, cancelled.job_id).state is State.CANCELLED
    assert not store._index._ahead
    check_books(store)


def test_paging(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """More pending jobs than are kept in memory are all claimed, each once and in order, before and after a restart."""
    store = opened()
    jobs = [new_job(clock) for _ in range(30_000)]
    store.insert(jobs)
    assert len(store._index.live) == limits.PENDING_KEPT
    store.close()
    again = opened()
    assert len(again._index.live) == 0
    worker = FakeWorker(again, lease=1e9)
    claims = [*worker.turn(slots=10).claims]
    for slots in range(5_000, 30_001, 5_000):
        claims += worker.turn(slots=slots).claims
    assert ids(claims) == ids(jobs)
    assert worker.turn(*(Report(c, ReportKind.ENDED, Outcome.SUCCEEDED) for c in claims)).answers[-1].done
    assert len(again._index.ended) <= limits.ENDED_KEPT
    assert again.queues()[0].counts == {**dict.fromkeys(State, 0), State.SUCCEEDED: 30_000}
    assert get(again, jobs[0]).state is State.SUCCEEDED
    assert again.retry([jobs[0].job_id])[0].done
    assert ids(worker.take(1)) == [jobs[0].job_id]


def test_cold_jobs_obey(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """Pending jobs that are only a run of numbers in memory can be cancelled, watched, explained and hastened."""
    store = opened()
    jobs = [new_job(clock, delay=60.0 if n % 2 else None) for n in range(8)]
    store.insert(jobs)
    store.close()
    again = opened()
    told: list[JobRecord] = []
    again.watch([jobs[2].job_id], told.append)
    assert [a.done for a in again.cancel(ids(jobs[:4]))] == [True] * 4
    assert [record.state for record in told] == [State.CANCELLED]
    assert again.explain(jobs[5].job_id).startswith("delayed until")
    assert again.retry([jobs[5].job_id])[0].done
    worker = FakeWorker(again)
    assert ids(worker.take(9)) == ids([jobs[4], jobs[5], jobs[6]])
    clock.advance(61.0)
    assert ids(worker.turn(slots=9).claims) == [jobs[7].job_id]
    check_books(again)


def test_spec_is_read_back(opened: Callable[[], DuckDBStore], clock: FakeClock) -> None:
    """Every field of a spec survives."""
    store = opened()
    spec = dict(
        queue="q",
        priority=-7,
        origin="o",
        code="c",
        tries=3,
        timeout=1.5,
        retry=RetryPolicy(backoff=(1, 2.5)),
    )
    job = new_job(clock, "x", **spec)
    assert set(spec) | {"command"} == set(Spec._fields)
    store.insert([job])
    store.close()
    assert get(opened(), job).spec == job.spec


def test_views_of_another_version_are_renewed(tmp_path: Path) -> None:
    """A file whose views another nbqueue made gets this one's when it is opened; what is in it stays."""
    path = tmp_path / "jobs.duckdb"
    store = DuckDBStore(path)
    store.insert([new_job(FakeClock())])
    store.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE OR REPLACE VIEW jobs AS SELECT 1 AS number")
        connection.execute("UPDATE meta SET value = 1 WHERE name = 'views'")
    store = DuckDBStore(path)
    assert store.query("SELECT state::VARCHAR AS state FROM jobs")["state"].tolist() == ["pending"]
    store.close()


def test_a_file_that_is_deleted_takes_no_more(tmp_path: Path) -> None:
    """A file that was deleted while it is open refuses what it could not keep; a new one begins in its place."""
    path = tmp_path / "jobs.duckdb"
    clock = FakeClock()
    store = DuckDBStore(path)
    job = new_job(clock)
    store.insert([job])
    told: list[JobRecord | None] = []
    store.watch([job.job_id], told.append)
    path.unlink()
    assert store.broken
    assert told == [None]
    with pytest.raises(QueueUnavailable, match="deleted or replaced"):
        store.insert([new_job(clock)])
    again = DuckDBStore(path)
    assert again.find(Selection()) == []
    again.close()
    store.close()


def test_a_file_that_is_replaced_takes_no_more(tmp_path: Path) -> None:
    """Nothing is acknowledged that goes to a file nobody will open again."""
    path, other = tmp_path / "jobs.duckdb", tmp_path / "other.duckdb"
    DuckDBStore(other).close()
    clock = FakeClock()
    store = DuckDBStore(path)
    other.rename(path)
    with pytest.raises(QueueUnavailable, match="deleted or replaced"):
        store.insert([new_job(clock)])
    store.close()


def test_readers_and_the_writer_do_not_meet(tmp_path: Path) -> None:
    """Whoever reads while the writer is at work is not refused: a busy connection gives no cursor."""
    clock = FakeClock()
    store = DuckDBStore(tmp_path / "jobs.duckdb")
    over, errors = threading.Event(), []

    def write() -> None:
        while not over.is_set():
            store.insert([new_job(clock) for _ in range(200)])

    def read() -> None:
        try:
            for _ in range(150):
                store._ledger.query("SELECT count(*) FROM events WHERE number < 3", (), {})
        except Exception as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in (writer, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    over.set()
    writer.join()
    store.close()
    assert errors == []


def test_a_moment_while_thousands_of_jobs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks while jobs run by thousands takes no turn, and can read all that it is told of; later it takes one."""
    monkeypatch.setattr("nbqueue.stores.duckdb.RECENT_SECONDS", 3600.0)
    monkeypatch.setattr("nbqueue.stores.duckdb.LOOK_SECONDS", 3600.0)
    clock = FakeClock()
    store = DuckDBStore(tmp_path / "jobs.duckdb", clock=clock.time)
    worker = FakeWorker(store)
    worker.join()
    assert store.moment().latest
    store.insert([new_job(clock) for _ in range(5_000)])
    (claim,) = worker.take(1)
    found = store.moment()
    assert (found.latest, found.queues[0].counts[State.PENDING]) == (False, 5_000)
    assert len(store.read("SELECT seq FROM ledger WHERE seq <= ?", (found.seq,))) == 5_000
    # Who has seen more is not shown less.
    assert store.moment(found.seq + 1).latest
    worker.end(claim)
    found = store.moment()
    assert (found.latest, found.queues[0].counts[State.SUCCEEDED]) == (True, 1)
    assert store.read("SELECT max(seq) AS seq FROM ledger")["seq"].tolist() == [found.seq]
    store.close()


def test_a_moment_knows_what_leaves_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks while jobs run by thousands does not see again what was forgotten, and sees what is paused."""
    monkeypatch.setattr("nbqueue.stores.duckdb.RECENT_SECONDS", 3600.0)
    monkeypatch.setattr("nbqueue.stores.duckdb.LOOK_SECONDS", 3600.0)
    clock = FakeClock()
    store = DuckDBStore(tmp_path / "jobs.duckdb", clock=clock.time)
    worker = FakeWorker(store)
    store.moment()
    store.insert([new_job(clock) for _ in range(2)])
    ended, _running = worker.take(2)
    worker.end(ended)
    for change in (
        lambda: store.forget(Selection(ids=(ended.job_id,))),
        lambda: store.pause("default", paused=True),
    ):
        store.insert([new_job(clock) for _ in range(5_000)])
        done = store.moment()
        assert not done.latest
        change()
        found = store.moment(done.seq)
        assert (found.queues, found.latest) == (store.queues(), True)
    store.close()


def test_no_moment_of_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks is told why there is nothing to read, however short a time ago there was."""
    monkeypatch.setattr("nbqueue.stores.duckdb.RECENT_SECONDS", 3600.0)
    monkeypatch.setattr("nbqueue.stores.duckdb.LOOK_SECONDS", 3600.0)
    monkeypatch.setattr("nbqueue.stores.duckdb.RETRY_SECONDS", 3600.0)
    clock = FakeClock()
    store = DuckDBStore(tmp_path / "jobs.duckdb", clock=clock.time)
    worker = FakeWorker(store)
    store.moment()
    store.insert([new_job(clock)])
    worker.take(1)
    store.insert([new_job(clock) for _ in range(5_000)])
    assert not store.moment().latest
    begun = threading.Event()

    def fails(*_: object) -> None:
        begun.set()
        raise duckdb.FatalException("no room")

    with monkeypatch.context() as trouble:
        trouble.setattr(Ledger, "checkpoint", fails)
        trouble.setattr("nbqueue.stores.opening.connect", fails)
        trouble.setattr("nbqueue.stores.duckdb.IDLE_SECONDS", 0.01)
        # The writer is woken, and then has nothing to do but that.
        store.queues()
        assert begun.wait(20)
        with pytest.raises(QueueUnavailable, match="cannot be written just now"):
            while True:
                store.queues()
        with pytest.raises(QueueUnavailable, match="cannot be written just now"):
            store.moment()
    store.close()
