"""Slot files: what they say of the living and the dead, by real processes and real signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbqueue import slots as slots_module
from nbqueue.slots import SlotFile, begun_claims, is_alive
from nbqueue.stores.recovery import SlotFolder
from tests.halting import halt

pytestmark = pytest.mark.skipif(slots_module.fcntl is None, reason="there is no flock here")

HOLDER = """
import os, sys
from pathlib import Path
from nbqueue.slots import SlotFile
file = SlotFile(Path(sys.argv[1]), 3)
file.begin(1, 7)
if sys.argv[2] == "fork":
    child = os.fork()
    if not child:
        file.begin(2, 8)
        print(os.getpid(), flush=True)
        sys.stdin.read()
        os._exit(0)
else:
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.duckdb.slots" / "w1.slots"


@contextlib.contextmanager
def holder(path: Path, how: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that holds a slot file, once it does."""
    path.parent.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield process
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def test_killed(path: Path) -> None:
    """A worker lives until its process is killed; what it had begun is still there."""
    with holder(path) as process:
        assert process.stdout
        process.stdout.readline()
        assert is_alive(path) is True
        halt(process.pid)
        assert is_alive(path) is True
        process.kill()
        process.wait()
        assert is_alive(path) is False
        assert list(begun_claims(path)) == list(begun_claims(path.parent)) == [7]


def test_room_is_taken_at_once(path: Path) -> None:
    """A mark that found no room on a full disk would end the process, so the room is had when the file is made."""
    file = SlotFile(path, 600)
    assert path.stat().st_blocks * 512 >= 600 * 8
    file.close()


def test_fork_does_not_keep_it_alive(path: Path) -> None:
    """A forked child that outlives the worker's process is not that worker; its marks are still read."""
    with holder(path, "fork") as process:
        assert process.stdout
        child = int(process.stdout.readline())
        assert is_alive(path) is True
        process.kill()
        process.wait()
        try:
            os.kill(child, 0)
            assert is_alive(path) is False
            assert list(begun_claims(path)) == [7, 8]
        finally:
            os.kill(child, signal.SIGKILL)


def test_fork_leaves_the_file_to_its_parent(path: Path) -> None:
    """A fork that tidies up neither removes its parent's file nor unlocks it."""
    file = SlotFile(path, 1)
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            file.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_alive(path) is True
    file.close()
    assert not path.exists()


def test_own(path: Path) -> None:
    """The process that holds it is asked like any other; after an orderly end nothing can be told."""
    file = SlotFile(path, 2)
    assert is_alive(path) is True
    assert list(path.parent.iterdir()) == [path]
    file.begin(0, 5)
    file.close()
    file.begin(1, 6)
    file.close()
    assert is_alive(path) is None
    assert list(begun_claims(path)) == []


def test_leaks_nothing(path: Path) -> None:
    """Descriptors are closed with the file."""
    before = len(list(Path("/dev/fd").iterdir()))
    for _ in range(50):
        SlotFile(path, 4).close()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_sweep_what_was_being_made(path: Path) -> None:
    """What a process left that was killed while it made a slot file goes; what another is making stays."""
    path.parent.mkdir()
    dead, making = (path.with_name(f"{name}.slots.new") for name in ("dead", "making"))
    dead.touch()
    with making.open("wb") as file:
        slots_module.fcntl.flock(file, slots_module.fcntl.LOCK_EX)
        SlotFolder(path.parent).sweep()
        assert list(path.parent.iterdir()) == [making]


@pytest.mark.parametrize("when", ["before", "after"])
def test_swept_before_it_is_locked(path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Who sweeps just then may take what is being made for a left-over: it is made again."""
    lock, times = slots_module._lock, []

    def swept(new: Path) -> int | None:
        times.append(new)
        if len(times) > 1:
            return lock(new)
        if when == "before":
            new.unlink()
            return lock(new)
        descriptor = lock(new)
        new.unlink()
        return descriptor

    monkeypatch.setattr(slots_module, "_lock", swept)
    file = SlotFile(path, 2)
    assert len(times) == 2
    assert is_alive(path) is True
    file.begin(0, 5)
    assert list(begun_claims(path)) == [5]
    file.close()
    assert list(path.parent.iterdir()) == []


def test_no_room_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot file that cannot be made leaves neither a half one nor a descriptor."""

    def refuse(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    before = len(list(Path("/dev/fd").iterdir()))
    monkeypatch.setattr(slots_module.mmap, "mmap", refuse)
    with pytest.raises(OSError, match="No space"):
        SlotFile(path, 2)
    assert list(path.parent.iterdir()) == []
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_without_flock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no flock it works as well, and nobody can tell who lives."""
    monkeypatch.setattr(slots_module, "fcntl", None)
    file = SlotFile(path, 1)
    file.begin(0, 3)
    assert is_alive(path) is None
    assert list(begun_claims(path)) == [3]
    file.close()


def test_where_flock_fails(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor on a file system that refuses it."""

    def refuse(*_args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(slots_module.fcntl, "flock", refuse)
    file = SlotFile(path, 1)
    assert is_alive(path) is None
    file.close()
