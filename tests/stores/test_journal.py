"""The journal beside a queue file: what is torn, foreign, gone or full, and that what it has is taken exactly once."""

from __future__ import annotations

import errno
import os
import random
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from nbqueue.errors import DispatchFailed, QueueUnavailable
from nbqueue.jobs import BatchRecord, NewJob, Spec, State
from nbqueue.retry import RetryPolicy
from nbqueue.store import Selection
from nbqueue.stores import inserting, schema
from nbqueue.stores import journal as journal_module
from nbqueue.stores import ledger as ledger_module
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.journal import Journal, journal_path, read_journal
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.onlooker import Onlooker
from nbqueue.stores.writes import Writes
from nbqueue.testing import FakeClock, FakeWorker, new_job
from nbqueue.testing.workers import bring, check_books, get, ids

Opened = Callable[..., DuckDBStore]
HOSTILE = ["", "\0\x1f\x7f", "\u2028\ud7ff\U0001f600", '"]}\\n\\u0041', "null", "x" * 5_000]


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is folded in because it is quiet, however slow this machine is."""
    monkeypatch.setattr("nbqueue.stores.duckdb.FOLD_SECONDS", 1e3)


def left(store: DuckDBStore, to: Path) -> None:
    """Copy what a death would leave now."""
    for path in store._path.parent.glob(f"{store._path.name}*"):
        if path.is_file() and path.suffix != ".lock":
            shutil.copy(path, to.with_name(path.name.replace(store._path.name, to.name)))


# ------------------------------------------------------------------------------------------------- the file
def written(path: Path, *rounds: list[bytes]) -> tuple[bytes, list[int]]:
    """A journal of so many rounds, and where each frame of the last one ends."""
    journal = Journal(path, 7, 0, 0o600)
    ends: list[int] = []
    for bodies in rounds:
        journal.begin_again()
        ends = [(journal.append(body), journal.size)[1] for body in bodies]
    journal.close(remove=False)
    head = journal_module._HEAD.size
    return path.read_bytes(), [head + end for end in ends]


def found(path: Path, data: bytes, folded: int) -> list[int]:
    path.write_bytes(data)
    journal = read_journal(path, folded)
    assert journal is not None
    return [frame.number for frame in journal.frames]


@pytest.mark.parametrize("before", [[], [b"b" * 9] * 3, [b"b" * 30], [b""] * 9], ids=len)
def test_torn_at_every_byte(tmp_path: Path, before: list[bytes]) -> None:
    """Wherever the last write broke off, the frames before it are there, and nothing else."""
    path = tmp_path / "x.journal"
    bodies = [b"", b"a" * 20, b"\0" * 9]
    data, ends = written(path, before, bodies)
    old = written(path, before)[0].ljust(len(data), b"\0")
    head, folded = journal_module._HEAD.size, len(before)
    for at in range(head, ends[-1] + 1):
        whole = [folded + n for n, end in enumerate(ends, 1) if end <= at]
        # What was not written is what was there before, nothing at all, or zeros.
        for rest in (old[at:], b"", bytes(len(data) - at)):
            got = found(path, data[:at] + rest, folded)
            # The last body ends in zeros, so a cut within them may have cut nothing.
            assert got == whole or (data[:at] + rest)[: ends[-1]] == data[: ends[-1]], at


def test_any_other_byte(tmp_path: Path) -> None:
    """A byte that changed before the last frame is damage, and said; in the last one it is a torn write."""
    path = tmp_path / "x.journal"
    data, ends = written(path, [b"one", b"two", b"three"])
    for at in range(ends[-1]):
        changed = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        if at < ends[1]:
            with pytest.raises(QueueUnavailable, match=r"x\.journal is damaged"):
                found(path, changed, 0)
        else:
            assert found(path, changed, 0) == [1, 2]


@pytest.mark.parametrize("rest", [b"", b"\0" * 9_000, b"\xff" * 9_000], ids=["end", "zeros", "ones"])
def test_a_block_of_many_frames(tmp_path: Path, rest: bytes) -> None:
    """A damaged block takes many small frames with it, heads and all: it is damage as long as one after it is whole."""
    path = tmp_path / "x.journal"
    data, ends = written(path, [b"b" * 40] * 200, [b"a" * 30] * 150)
    at, last = ends[9] + 7, ends[-2]
    data = data[: ends[-1]] + rest
    for block in (bytes(4_096), b"\xff" * 4_096, data[:4_096]):
        changed = data[:at] + block + data[at + 4_096 :]
        with pytest.raises(QueueUnavailable, match=r"x\.journal is damaged"):
            found(path, changed, 200)
        assert found(path, changed, 350) == []
    assert found(path, data[:last] + bytes(99) + rest, 200) == list(range(201, 350))


def test_failed_append_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written to its end is cut off, and the next frame goes in its place."""
    path = tmp_path / "x.journal"
    journal = Journal(path, 7, 4, 0o600)
    assert journal.append(b"five") == 5
    real = journal_module._write_at

    def half(file: int, data: memoryview, at: int) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data[: len(data) - 9], at)

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_write_at", half)
        with pytest.raises(OSError, match="No space left"):
            journal.append(b"lost" * 9)
    assert found(path, path.read_bytes(), 4) == [5]
    assert journal.append(b"six") == 6
    journal.close(remove=False)
    assert found(path, path.read_bytes(), 4) == [5, 6]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no room is set aside here")
def test_no_room_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot set room aside takes frames all the same; one that is full does not."""
    path, codes = tmp_path / "x.journal", [errno.ENOSPC, errno.EINVAL, errno.EOPNOTSUPP]
    journal = Journal(path, 7, 0, 0o600)

    def refuse(*_given: object) -> None:
        raise OSError(codes[0], os.strerror(codes[0]))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space left"):
        journal.append(b"lost")
    for number in (1, 2):
        del codes[0]
        assert journal.append(b"kept" * 9) == number
    journal.close(remove=False)
    assert found(path, path.read_bytes(), 0) == [1, 2]


def test_made_anew_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no new journal can be made in place of one that was removed, the old one is let go of only once."""
    path = tmp_path / "x.journal"
    journal = Journal(path, 7, 0, 0o600)
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_write_at", lambda *_given: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            journal.again()
    journal.close(remove=True)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- the text
def test_all_that_is_written_comes_back() -> None:
    """Rows, specs, queues, workers and batches are read as they were written."""
    chance = random.Random(7)
    kinds: dict[str, Callable[[], object]] = {"VARCHAR": lambda: chance.choice(HOSTILE), "UUID": uuid4}

    def value(kind: str) -> object:
        if "NOT NULL" not in kind and chance.random() < 0.4:
            return None
        return kinds.get(kind.split(maxsplit=1)[0], lambda: chance.choice([0, -1, 2**31 - 1]))()

    batch = (uuid4(), "c", "o", "key", "head", 1.25, 0.1, ((1, 2), (5, 9)))
    writes = Writes(
        [tuple(map(value, schema.COLUMNS.values())) for _ in range(50)],
        [(3, Spec("c", "q", -1, "o", "", 2, 1.5, RetryPolicy(backoff=(1.0,)))), (4, Spec("d"))],
        ["ü", "q"],
        [(1, "w", "h", 7, "thread", 4, 10**15, 15.25)],
        [BatchRecord(**dict(zip(BatchRecord.__slots__, batch, strict=True)))],
    )
    assert Writes.read(writes.text()) == writes
    assert Writes.read(Writes(queues=["q"]).text()) == Writes(queues=["q"])


@pytest.mark.parametrize("count", [1, 300, 1_500])
def test_folded_is_as_it_was_handed_in(opened: Opened, clock: FakeClock, count: int) -> None:
    """By whatever way rows go into the tables, texts, ids and times are the same."""
    store = opened()
    jobs = [
        new_job(
            clock,
            f"c{n % 3}",
            payload=HOSTILE[n % 6],
            metadata=HOSTILE[-n % 5],
            row=str(n),
            delay=n % 2 * 9.5,
        )
        for n in range(count)
    ]
    for at in range(0, count, 100):
        store.insert(jobs[at : at + 100])
    told = store.get(ids(jobs))
    store.close()
    assert opened().get(ids(jobs)) == told
    assert [record.payload for record in told] == [job.payload for job in jobs]


# -------------------------------------------------------------------------------------------- the queue file
def test_a_clean_end_leaves_one_file(opened: Opened, clock: FakeClock, path: Path) -> None:
    """While a queue is open its journal is its user's alone; after an orderly end there is none."""
    store = opened()
    job = bring(store, clock, State.SUCCEEDED)
    assert stat.S_IMODE(journal_path(path).stat().st_mode) == (0o600 if sys.platform != "win32" else 0o666)
    store.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["jobs.duckdb", "jobs.duckdb.lock"]
    path.chmod(0o640)
    again = opened()
    assert get(again, job).state is State.SUCCEEDED
    if sys.platform != "win32":
        assert stat.S_IMODE(journal_path(path).stat().st_mode) == 0o640


@pytest.mark.usefixtures("still")
def test_each_is_taken_once(
    opened: Opened, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was folded in when its owner died, each event is there once, in its order, and numbers go on."""
    monkeypatch.setattr(ledger_module, "FOLD_ROWS", 7)
    store = opened()
    for n in range(11):
        job = bring(store, clock, State.SUCCEEDED)
        if n % 3 == 0:
            store.query("SELECT 1")
        left(store, tmp_path / f"{n}.duckdb")
        heir = DuckDBStore(tmp_path / f"{n}.duckdb", clock=clock.time, ticks=clock.ticks)
        events = heir.query("SELECT seq, event FROM events ORDER BY seq")
        assert events["seq"].tolist() == list(range(1, 3 * n + 4))
        assert events["event"].tolist() == ["dispatched", "claimed", "succeeded"] * (n + 1)
        assert get(heir, job).state is State.SUCCEEDED
        check_books(heir)
        heir.close()
    assert [file.name for file in tmp_path.glob("*.journal")] == ["jobs.duckdb.journal"]


@pytest.mark.usefixtures("still")
def test_another_files_journal(opened: Opened, clock: FakeClock, tmp_path: Path) -> None:
    """A journal that was written for another file, or beside a later copy, is refused and stays as it is."""
    store = opened()
    store.close()
    shutil.copy(store._path, tmp_path / "older.duckdb")
    store = opened()
    store.insert([new_job(clock)])
    left(store, tmp_path / "later.duckdb")
    shutil.copy(tmp_path / "later.duckdb.journal", tmp_path / "older.duckdb.journal")
    theirs = (tmp_path / "older.duckdb.journal").read_bytes()
    for look in (DuckDBStore, Onlooker, DuckDBStore):
        with pytest.raises(
            QueueUnavailable, match=r"older\.duckdb\.journal does not belong to .*older\.duckdb as it"
        ):
            look(tmp_path / "older.duckdb")
    assert (tmp_path / "older.duckdb.journal").read_bytes() == theirs
    (tmp_path / "older.duckdb.journal").unlink()
    DuckDBStore(tmp_path / "older.duckdb").close()
    later = DuckDBStore(tmp_path / "later.duckdb")
    assert len(later.find(Selection())) == 1
    later.close()


@pytest.mark.parametrize("what", ["fifo", "folder", "loop", "device", "dangling"])
def test_no_file_in_its_place(opened: Opened, clock: FakeClock, path: Path, what: str) -> None:
    """What stands in the journal's place and is no file is named, not waited for, and left as it is."""
    if what == "fifo" and not hasattr(os, "mkfifo"):
        pytest.skip("there are none here")
    store = opened()
    store.insert([new_job(clock)])
    store.close()
    place = journal_path(path)
    lay = {
        "fifo": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "loop": lambda: place.symlink_to(place),
        "device": lambda: place.symlink_to(os.devnull),
        "dangling": lambda: place.symlink_to(path.with_name("on another disk")),
    }
    lay[what]()
    with pytest.raises(QueueUnavailable, match=rf"{place.name} is no file, .* move it away"):
        opened()
    assert os.path.lexists(place)
    place.rmdir() if what == "folder" else place.unlink()
    assert len(opened().find(Selection())) == 1


def test_folder_where_it_is_begun(opened: Opened, path: Path) -> None:
    """It is named and left alone; without it the queue opens."""
    draft = path.with_name(f"{path.name}.journal.new")
    draft.mkdir()
    with pytest.raises(QueueUnavailable, match=rf"{draft.name} is a folder, .* move it away"):
        opened()
    draft.rmdir()
    opened()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are none here")
def test_a_queue_file_that_is_none(opened: Opened, path: Path) -> None:
    """A FIFO at the path of a queue is refused at once."""
    os.mkfifo(path)
    with pytest.raises(QueueUnavailable, match=r"is no file; nothing was read from it: move it away"):
        opened()


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("much", [False, True])
def test_an_older_copy_with_a_later_journal(
    opened: Opened, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, much: bool
) -> None:
    """Copies of different moments do not go together, be it a frame that is missing or a commit that went past them."""
    monkeypatch.setattr(inserting, "MUCH_ROWS", 5)
    store, mixed = opened(), tmp_path / "mixed.duckdb"
    store.insert([new_job(clock)])
    store.query("SELECT 1")
    left(store, mixed)
    store.insert([new_job(clock) for _ in range(5 if much else 4)])
    store.query("SELECT 1")
    store.insert([new_job(clock)])
    left(store, tmp_path / "later.duckdb")
    shutil.copy(tmp_path / "later.duckdb.journal", journal_path(mixed))
    for look in (DuckDBStore, Onlooker):
        with pytest.raises(QueueUnavailable, match=r"mixed\.duckdb is damaged: it ends before"):
            look(mixed)
    later = DuckDBStore(tmp_path / "later.duckdb")
    assert len(later.find(Selection())) == (7 if much else 6)
    later.close()


@pytest.mark.usefixtures("still")
def test_a_journal_without_its_file(opened: Opened, clock: FakeClock, tmp_path: Path) -> None:
    """Where the file alone was moved away no empty queue takes its place: what the journal has was acknowledged."""
    store = opened()
    store.insert([new_job(clock)])
    left(store, tmp_path / "alone.duckdb")
    moved = (tmp_path / "alone.duckdb").rename(tmp_path / "moved.duckdb")
    with pytest.raises(
        QueueUnavailable, match=r"its journal alone\.duckdb\.journal is there: the file was moved"
    ):
        DuckDBStore(tmp_path / "alone.duckdb")
    assert not (tmp_path / "alone.duckdb").exists()
    moved.rename(tmp_path / "alone.duckdb")
    back = DuckDBStore(tmp_path / "alone.duckdb")
    assert len(back.find(Selection())) == 1
    back.close()


def test_died_while_it_made_its_journal(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a death comes between folding a journal in and beginning the next, nothing is taken twice."""
    store = opened()
    jobs = [new_job(clock), new_job(clock)]
    store.insert(jobs)
    left(store, store._path.with_name("dead.duckdb"))
    dead = store._path.with_name("dead.duckdb")
    with monkeypatch.context() as patch:

        def no_room(*_args: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(ledger_module, "Journal", no_room)
        for _ in range(3):
            with pytest.raises(QueueUnavailable, match="cannot be opened for want of room"):
                DuckDBStore(dead)
    heir = DuckDBStore(dead)
    assert heir.query("SELECT count(*) AS n FROM events")["n"].tolist() == [2]
    assert heir.find(Selection()) == ids(jobs)
    heir.close()


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize("name", ["dead.duckdb", "it's dead.duckdb"])
def test_looked_at_as_it_was_left(opened: Opened, clock: FakeClock, path: Path, name: str) -> None:
    """Who only looks at the file of a dead owner sees what its journal has too, and changes neither."""
    store = opened()
    first = bring(store, clock, State.SUCCEEDED)
    store.query("SELECT 1")
    bring(store, clock, State.RUNNING, queue="later")
    dead = path.with_name(name)
    left(store, dead)
    before = {file: file.read_bytes() for file in path.parent.glob(f"{name}*")}
    with Onlooker(dead) as look:
        found = look.query("SELECT job_id, queue, state::VARCHAR AS state, worker FROM jobs ORDER BY number")
    assert found["state"].tolist() == ["succeeded", "running"]
    assert found["queue"].tolist() == ["default", "later"]
    assert found["job_id"][0] == first.job_id
    assert found["worker"].notna().all()
    assert {file: file.read_bytes() for file in path.parent.glob(f"{name}*")} == before
    DuckDBStore(dead).close()
    with Onlooker(dead) as look:
        assert look.query("SELECT count(*) AS n FROM jobs")["n"].tolist() == [2]


# ------------------------------------------------------------------------------------------- under its owner
@pytest.mark.parametrize("replaced", [False, True])
def test_journal_taken_away(opened: Opened, clock: FakeClock, path: Path, *, replaced: bool) -> None:
    """A journal that is removed or replaced under its owner costs nothing, and another's is left alone."""
    store = opened()
    jobs = [new_job(clock) for _ in range(3)]
    store.insert(jobs[:1])
    journal_path(path).unlink()
    if replaced:
        journal_path(path).write_bytes(b"mine")
    store.insert(jobs[1:2])
    store.insert(jobs[2:])
    left(store, path.with_name("dead.duckdb"))
    store.close()
    assert journal_path(path).exists() == replaced
    if replaced:
        assert journal_path(path).read_bytes() == b"mine"
        path.with_name("dead.duckdb.journal").unlink()
    heir = DuckDBStore(path.with_name("dead.duckdb"))
    assert heir.find(Selection()) == ids(jobs)
    heir.close()


@pytest.mark.usefixtures("still")
@pytest.mark.skipif(sys.platform == "win32", reason="nobody can remove it there")
def test_taken_away_and_not_folded_in(
    opened: Opened, clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in a journal that was removed is there though it could not be folded in, and goes on from there."""
    store = opened()
    kept, lost, late = new_job(clock), new_job(clock), new_job(clock)
    store.insert([kept])

    def fail(*_given: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal_path(path).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_fold_with", fail)
        with pytest.raises(DispatchFailed, match="nothing of this call was accepted"):
            store.insert([lost])
    store.insert([late])
    assert store.find(Selection()) == ids([kept, late])
    check_books(store)


@pytest.mark.usefixtures("still")
def test_no_room_in_the_journal(opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose frame finds no room is told so, and only it; what was kept before is there, and it goes on."""
    store = opened()
    kept, lost, late = new_job(clock), new_job(clock), new_job(clock)
    store.insert([kept])
    worker = FakeWorker(store)
    claim = worker.take_one()
    real = journal_module._write_at

    def full(file: int, data: memoryview, at: int) -> int:
        monkeypatch.setattr(journal_module, "_write_at", real)
        real(file, data[:20], at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal_module, "_write_at", full)
    with pytest.raises(DispatchFailed, match="No space left on device"):
        store.insert([lost])
    store.insert([late])
    assert worker.end(claim).done
    assert sorted(store.find(Selection())) == sorted(ids([kept, late]))
    check_books(store)


@pytest.mark.usefixtures("still")
def test_bounded(opened: Opened, clock: FakeClock, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is handed in, the journal stays as large as what is folded in at once; and much goes by it."""
    monkeypatch.setattr(ledger_module, "FOLD_SIZE", 100_000)
    monkeypatch.setattr(inserting, "MUCH_SIZE", 100_000)
    store = opened()
    jobs: list[NewJob] = []
    for size in (10_000,) * 40 + (300_000,):
        jobs.append(new_job(clock, payload="x" * size))
        store.insert(jobs[-1:])
    jobs.append(new_job(clock, metadata="x" * 600_000))
    store.insert(jobs[-1:])
    assert journal_path(path).stat().st_size < 2 * journal_module._STEP
    left(store, path.with_name("dead.duckdb"))
    heir = DuckDBStore(path.with_name("dead.duckdb"))
    assert [len(record.payload) for record in heir.get(ids(jobs))] == [len(job.payload) for job in jobs]
    heir.close()


@pytest.mark.usefixtures("still")
def test_asked_before_it_is_folded_in(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long backlog is handed out without folding anything in, and nothing is handed out that has moved."""
    monkeypatch.setattr("nbqueue.stores.index.limits.PENDING_KEPT", 0)
    folds: list[int] = []
    fold = Ledger._fold_with
    monkeypatch.setattr(Ledger, "_fold_with", lambda *args: (folds.append(1), fold(*args))[1])
    store = opened()
    jobs = [new_job(clock, f"c{n}") for n in range(6)]
    for job in jobs:
        store.insert([job])
    worker = FakeWorker(store)
    claims = worker.take(4)
    assert ids(claims) == ids(jobs[:4])
    assert [claim.spec.command for claim in claims] == ["c0", "c1", "c2", "c3"]
    for claim in claims:
        assert worker.end(claim).done
    assert ids(worker.take(4)) == ids(jobs[4:])
    assert folds == []
    store.insert(jobs)  # ids that are known, though no table has them
    assert len(store.find(Selection())) == 6
    check_books(store)


def test_watch_is_told_after_the_sync(
    opened: Opened, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a job hears of its end when it is on disk, and of none that could not be written."""
    store = opened()
    job = new_job(clock)
    store.insert([job])
    worker = FakeWorker(store)
    claim = worker.take_one()
    order: list[str] = []
    store.watch([job.job_id], lambda _: order.append("told"))
    append = Journal.append

    def noted(journal: Journal, body: bytes) -> int:
        number = append(journal, body)
        order.append("synced")
        return number

    monkeypatch.setattr(Journal, "append", noted)
    worker.end(claim)
    assert order == ["synced", "told"]
