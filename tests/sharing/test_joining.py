"""Who may have a file, who may join, and what the others are told."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock

import nbqueue as nbq
from nbqueue.cli import serving, terminal
from nbqueue.cli.commands import main
from nbqueue.errors import DispatchFailed, QueueUnavailable
from nbqueue.facade.configuring import QueueConfig
from nbqueue.facade.connecting import Connection
from nbqueue.secret import load_secret
from nbqueue.store import Handlers, Selection, WorkerInfo
from nbqueue.stores import opening
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.memory import MemoryStore
from nbqueue.stores.owner import Holder, Note, Ownership, Standing
from nbqueue.stores.shared import SharedStore
from nbqueue.stores.sharing import joining
from nbqueue.stores.sharing.guest import Guest, OwnerGoneError
from nbqueue.testing import FakeClock, new_job
from tests.hostile import check_reads_only

Open = Callable[..., SharedStore]


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Opens the file; each store is as another process's."""
    stores: list[SharedStore] = []

    def make(secret: bytes = b"a secret of tests") -> SharedStore:
        stores.append(SharedStore(path, lambda: secret))
        return stores[-1]

    yield make
    for store in reversed(stores):
        store.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a file that cannot be had."""
    monkeypatch.setattr(joining, "PATIENCE", dict.fromkeys(Standing, 0.0))
    monkeypatch.setattr(opening, "FOREIGN_SECONDS", 0.0)


# ------------------------------------------------------------------------------------------------- the lock file
def test_what_the_lock_file_says(path: Path, opened: Open) -> None:
    """It names who has the file and where he answers, to nobody but this user; afterwards it is empty."""
    store = opened()
    file = path.with_name("jobs.duckdb.lock")
    assert file.stat().st_mode & 0o777 == 0o600
    said = json.loads(file.read_text())
    assert (said["pid"], said["state"]) == (os.getpid(), "serving")
    socket = Path(said["socket"])
    assert (socket.stat().st_mode & 0o077, socket.parent.stat().st_mode & 0o777) == (0, 0o700)
    assert Note.read(file) == Note(store.holder(), Standing.SERVING, str(socket))
    store.close()
    assert file.read_text() == ""
    assert not socket.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"pid": "x"}', '{"pid": 1, "host": "h"}', "null", "\x00\xff"]
)
@pytest.mark.usefixtures("impatient")
def test_an_unreadable_note(path: Path, opened: Open, text: str) -> None:
    """Whatever is in the lock file, the lock counts: free it is taken, held it is said that it is."""
    file = path.with_name("jobs.duckdb.lock")
    file.write_text(text, encoding="latin-1")
    with FileLock(file, thread_local=False), pytest.raises(QueueUnavailable, match="held by another process"):
        opened()
    assert opened().holder().here


def test_a_note_that_is_being_replaced(tmp_path: Path) -> None:
    """What remains of a longer note behind a shorter one does not make it unreadable."""
    note = Note(Holder(7, "ada", "nbqueue", "2026-03-01 06:00:12 UTC"), Standing.ALONE, "", "no sockets")
    file = tmp_path / "note"
    file.write_text(note.text() + '": "the rest of a longer one"}\n')
    assert Note.read(file) == note


def test_a_note_of_the_dead(path: Path, opened: Open) -> None:
    """A name that was left by kill -9, and a process that has its number now, keep nobody out."""
    note = Note(Holder(os.getppid(), "elsewhere", "x", "long ago"), Standing.SERVING, "/nowhere")
    path.with_name("jobs.duckdb.lock").write_text(note.text())
    assert opened().holder().here


def test_opening_takes_a_while(path: Path, opened: Open) -> None:
    """Who comes while another process opens the file waits for it, and joins."""
    ownership = Ownership(path)
    ownership.take()
    assert Note.read(ownership.file) == Note(ownership.holder(), Standing.BUSY)
    joined: list[SharedStore] = []
    thread = threading.Thread(target=lambda: joined.append(opened()))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    ownership.release()
    thread.join(10)
    assert joined[0].holder().here


# ------------------------------------------------------------------------------------------- who cannot be joined
@pytest.mark.parametrize(
    ("standing", "change", "why"),
    [
        (Standing.SERVING, {"host": "another-host"}, "shared by processes of one machine"),
        (Standing.SERVING, {}, "does not answer where it says it does"),
        (Standing.ALONE, {}, r"cannot share it \(this system has no local sockets\)"),
        (Standing.BUSY, {}, "opening or closing it"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_held(path: Path, opened: Open, standing: Standing, change: dict[str, str], why: str) -> None:
    """Who has the file is named, and why he cannot be joined."""
    holder = Holder.myself()._replace(program="other", **change)
    with FileLock(path.with_name("jobs.duckdb.lock"), thread_local=False) as lock:
        Path(lock.lock_file).write_text(
            Note(holder, standing, "/nowhere", "this system has no local sockets").text()
        )
        with pytest.raises(QueueUnavailable, match=rf"held by process {os.getpid()} \(other\) .*{why}"):
            opened()


def test_another_secret(path: Path, opened: Open) -> None:
    """A process with another secret is not let in, and told what differs; the owner goes on."""
    owner = opened()
    with pytest.raises(QueueUnavailable, match=r"another secret.*NBQUEUE_SECRET"):
        opened(b"another secret")
    assert [queue.name for queue in owner.queues()] == ["default"]


def test_no_folder_for_a_socket(
    opened: Open, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that others may enter is refused: its owner works on alone, and says so to who comes."""
    # A short path, as a socket's has to be.
    folder = tmp_path_factory.mktemp("s") / "sockets"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("NBQUEUE_DATA_DIR", str(folder.parent))
    owner = opened()
    owner.insert([new_job(FakeClock())])
    with pytest.raises(QueueUnavailable, match=r"not a folder of yours alone.*chmod 700"):
        opened()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_no_locks(path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """On a file system without locks there is no queue: nothing less keeps two processes apart."""

    def flock(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(QueueUnavailable, match=r"has no file locks.*local disk"):
        opened()
    assert not path.exists()


@pytest.mark.usefixtures("impatient")
def test_a_stranger(path: Path, opened: Open) -> None:
    """A program that has the file open without asking, such as the DuckDB CLI, is named."""
    opened().close()
    code = (
        "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    stranger = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "open\n"
        with pytest.raises(QueueUnavailable, match=rf"is open in .*{stranger.pid}.*close it there"):
            opened()
        stranger.communicate("")
    assert opened().holder().here


# --------------------------------------------------------------------------------------------- what people see
def test_what_people_see(path: Path) -> None:
    """Whoever opens a queue for a person says that it joined, and whom; in one process it is shared as ever."""
    with nbq.connect(path) as queues:
        assert terminal.opening(queues) == f"{path}: created"
        owner = queues.owner
        with nbq.QueueManager(store=SharedStore(path, load_secret)) as joined:
            # Another process has another number.
            joined.store._role.ready._note = note = Note(owner._replace(here=False), Standing.SERVING)  # type: ignore[attr-defined]
            who = f"process {note.holder.pid} ({note.holder.program}), which holds it"
            assert terminal.opening(joined) == f"{path}: joined {who}, 0 waiting"
        with nbq.connect(path) as same:
            assert same.store is queues.store
    with nbq.connect(":memory:") as queues:
        assert queues.owner.here


def test_hostile_statements_from_a_guest(opened: Open, tmp_path: Path) -> None:
    """Who has joined can read, and no more than that, like its owner."""
    opened()
    with nbq.QueueManager(store=opened()) as queues:
        assert isinstance(queues.store, SharedStore)
        assert isinstance(queues.store._role.ready, Guest)
        queues.dispatch(nbq.QueuedCommand("greet").with_arg("Ann"))
        check_reads_only(queues, tmp_path)


# ------------------------------------------------------------------------------------------------ an owner in trouble
def test_the_file_is_deleted(path: Path, opened: Open) -> None:
    """Its owner's guests are told so, once and for all; who connects again begins a new one."""
    owner, guest = opened(), opened()
    job = new_job(FakeClock())
    guest.insert([job])
    told: list[object] = []
    ended = threading.Event()
    guest.watch([job.job_id], lambda record: (told.append(record), ended.set()))  # type: ignore[func-returns-value]
    path.unlink()
    with pytest.raises(QueueUnavailable, match="deleted or replaced"):
        guest.insert([new_job(FakeClock())])
    assert ended.wait(10)
    assert told == [None]
    assert (owner.broken, guest.broken) == (True, True)
    with pytest.raises(QueueUnavailable, match="deleted or replaced"):
        guest.queues()
    assert opened().get([job.job_id]) == []


def test_serving_ends_with_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``nbqueue serve`` does not go on holding what has been deleted, and says why it ends."""
    monkeypatch.setattr(serving, "_GLANCE", 0.02)

    def delete() -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            note = Note.read(path.with_name("jobs.duckdb.lock"))
            if note is not None and note.standing is Standing.SERVING:
                break
            time.sleep(0.01)
        path.unlink()

    thread = threading.Thread(target=delete)
    thread.start()
    ended = CliRunner().invoke(main, ["serve", "--db", str(path)])
    thread.join()
    assert ended.exit_code == 1
    assert "until Ctrl-C" in ended.stderr
    assert f"Error: {path} was deleted or replaced" in ended.stderr


def test_takes_over_on_a_full_disk(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes over and cannot write is the owner nevertheless; what is registered there is, once it can."""
    owner, guest = opened(), opened()
    job = new_job(FakeClock())
    guest.insert([job])
    guest.join(WorkerInfo(worker_id="w1", queues=()), Handlers(), lambda _claims: None)
    ended, changed = threading.Event(), threading.Event()
    guest.watch([job.job_id], lambda _record: ended.set())
    guest.listen(changed.set)

    def refuse(*_args: object, **_named: object) -> None:
        raise DispatchFailed("there is no room")

    with monkeypatch.context() as full:
        for verb in ("join", "watch", "listen"):
            full.setattr(DuckDBStore, verb, refuse)
        owner.close()
        assert guest.holder().here
        assert isinstance(guest._role.ready, DuckDBStore)
        with pytest.raises(DispatchFailed, match="no room"):
            guest.turn("w1", (), 1)
    assert not guest.turn("w1", (), 1).expired
    assert [info.worker_id for info in guest.workers()] == ["w1"]
    assert guest._role._keeper is not None
    guest._role._keeper.join(10)
    guest.cancel([job.job_id])
    assert ended.wait(10)
    assert changed.wait(10)


def test_a_guest_comes_back(opened: Open) -> None:
    """Watches and listeners are at the next owner what they were at the last."""
    clock = FakeClock()
    owner, guest, other = opened(), opened(), opened()
    job = new_job(clock)
    guest.insert([job])
    ended, changed = threading.Event(), threading.Event()
    guest.watch([job.job_id], lambda _record: ended.set())
    stop = guest.listen(changed.set)
    owner.close()
    assert guest.holder() == other.holder()
    changed.clear()
    other.cancel([job.job_id])
    assert ended.wait(10)
    assert changed.wait(10)
    stop()
    changed.clear()
    guest.insert([new_job(clock)])
    assert not changed.is_set()


# ----------------------------------------------------------------------------------------------- opening and closing
def test_a_slow_close_stops_nobody_else() -> None:
    """While a store is closed, others of this process are opened."""
    closing, go = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def close(self) -> None:
            closing.set()
            go.wait(30)

    slow = Connection(QueueConfig(driver="memory"), Slow())
    threads = [threading.Thread(target=slow.close)]
    threads[0].start()
    try:
        assert closing.wait(10)
        opened: list[Connection] = []
        threads.append(
            threading.Thread(target=lambda: opened.append(Connection(QueueConfig(driver="memory"))))
        )
        threads[1].start()
        threads[1].join(10)
        assert opened
        assert slow.closed
    finally:
        go.set()
        for thread in threads:
            thread.join(10)
    opened[0].close()


def test_opened_while_it_is_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens a file that another thread is closing waits for that, and owns it then."""
    closing, go = threading.Event(), threading.Event()
    close = SharedStore.close

    def slowly(store: SharedStore) -> None:
        closing.set()
        go.wait(30)
        close(store)

    monkeypatch.setattr(SharedStore, "close", slowly)
    first = Connection(QueueConfig(path=path))
    opened: list[Connection] = []
    threads = [
        threading.Thread(target=first.close),
        threading.Thread(target=lambda: opened.append(Connection(QueueConfig(path=path)))),
    ]
    try:
        threads[0].start()
        assert closing.wait(10)
        threads[1].start()
        threads[1].join(0.2)
        assert not opened
    finally:
        go.set()
        for thread in threads:
            thread.join(30)
    store = opened[0].store
    assert isinstance(store, SharedStore)
    assert isinstance(store._role.ready, DuckDBStore)
    assert store is not first.store
    opened[0].close()


@pytest.mark.parametrize(("verb", "times"), [("query", 2), ("find", 8)])
def test_a_call_that_ends_its_owner(
    opened: Open, monkeypatch: pytest.MonkeyPatch, verb: str, times: int
) -> None:
    """A call that owner after owner ends over is given up, and a query, which may be the cause, before a third one."""
    opened()
    guest = opened()
    asked: list[str] = []
    ask = Guest._ask

    def end(role: Guest, name: str, *args: object, **named: object) -> object:
        if name == verb:
            asked.append(name)
            raise OwnerGoneError("it went")
        return ask(role, name, *args, **named)

    monkeypatch.setattr(Guest, "_ask", end)
    with pytest.raises(QueueUnavailable, match=rf"ended over this call \({verb}\)"):
        guest.query("SELECT 1") if verb == "query" else guest.find(Selection())
    assert asked == [verb] * times
    assert guest.queues()


def test_coming_and_going_leaves_nothing(path: Path, opened: Open) -> None:
    """Fifty guests come and go, and leave no thread and no open file behind."""
    opened()

    def open_files() -> int:
        folder = Path("/proc/self/fd")
        return len(list(folder.iterdir())) if folder.exists() else 0

    def once() -> None:
        guest = opened()
        guest.queues()
        guest.close()

    once()
    before = open_files(), threading.active_count()
    for _ in range(50):
        once()
    for thread in threading.enumerate():
        if thread.name == "nbqueue-guest":
            thread.join(10)
    assert (open_files(), threading.active_count()) <= before
