"""The slot file: which job each slot of a worker has begun, kept where ``kill -9`` does not reach; knows no store.

A shared memory map needs no fsync to outlive its process, so a mark costs well under a microsecond. It dies with the
machine, and then nobody is blamed. The worker's process holds an flock on the file for as long as it lives, which
tells a death at once where silence would tell it only after a lease.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # there is none on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Place", "SlotFile", "begun_claims", "is_alive"]

_FENCE = struct.Struct("<q")
#: Those that this process holds.
_held: weakref.WeakSet[SlotFile] = weakref.WeakSet()


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class SlotFile:
    """One number a slot: the fence of the claim that it has begun, 0 for none.

    Parameters
    ----------
    path : Path
        Its file, made anew.
    slots : int
        How many.
    """

    def __init__(self, path: Path, slots: int):
        self._path = path
        self._pid = os.getpid()
        self._slots = slots
        # Nobody may see it unlocked, and take it for that of a worker that has died.
        new = path.with_name(path.name + ".new")
        file, self._lock = _make_locked(new)
        _held.add(self)
        try:
            with file:
                # Written, not merely made so long: on a full disk a mark in a hole of a file ends the process (SIGBUS).
                file.write(bytes(slots * _FENCE.size))
                file.flush()
                # The map keeps a descriptor of its own, and must not keep the lock with it: a fork inherits both.
                self._map = mmap.mmap(file.fileno(), slots * _FENCE.size)
            new.replace(path)
        except BaseException:
            new.unlink(missing_ok=True)
            self.unlock()
            raise

    def begin(self, slot: int, fence: int) -> None:
        """Note that a slot has begun this claim."""
        self._note(slot, fence)

    def end(self, slot: int) -> None:
        """Note that a slot is idle."""
        self._note(slot, 0)

    def _note(self, slot: int, fence: int) -> None:
        # Whoever cannot be stopped may still come here when the file is gone; nobody is left to blame then.
        if slot < self._slots and not self._map.closed:
            try:  # noqa: SIM105 - twice a job, and ``suppress`` takes 0.4 us
                _FENCE.pack_into(self._map, slot * _FENCE.size, fence)
            except ValueError:
                pass

    def descriptor(self) -> int:
        """Open it once more, without its lock, for a process that notes by itself what a slot begins."""
        return os.open(self._path, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Remove the file: this worker ended in order. A fork's copy leaves it, since it is its parent's."""
        self._map.close()
        if self._pid == os.getpid():
            self._path.unlink(missing_ok=True)
        self.unlock()

    def unlock(self) -> None:
        """Close this process's end of the lock; it holds as long as another end is open."""
        _held.discard(self)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


class Place:
    """One slot's number, for the process that runs what the slot begins.

    Parameters
    ----------
    descriptor : int
        As ``SlotFile.descriptor`` gives it; closed when this is made.
    slot : int
        Which.
    """

    def __init__(self, descriptor: int, slot: int):
        try:
            self._map = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map).cast("q")
        self._slot = slot

    def note(self, fence: int) -> None:
        """Note that the slot has begun this claim; 0 for none."""
        if self._slot < len(self._words):
            self._words[self._slot] = fence


def _make_locked(path: Path) -> tuple[BinaryIO, int | None]:
    while True:
        file = _make(path)
        with contextlib.suppress(FileNotFoundError):
            lock = _lock(path)
            if os.fstat(file.fileno()).st_nlink or fcntl is None:
                return file, lock
            if lock is not None:
                os.close(lock)
        # An owner that opened or closed has taken it, not locked yet, for one that a dead process left.
        file.close()


def _make(path: Path) -> BinaryIO:
    while True:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            return open(path, "wb+", opener=_privately)
        except FileNotFoundError:
            # An owner that closed has removed the empty folder meanwhile.
            continue


def _lock(path: Path) -> int | None:
    """Lock a file for as long as the descriptor given is open; None where that is not possible."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        # Nobody has it for longer than it takes to look whether it is free.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _forget_in_fork() -> None:
    # Closed, not unlocked: the lock is one for all ends, and must stay the parent's.
    for file in list(_held):
        file.unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)


def is_alive(path: Path) -> bool | None:
    """Whether the process of the worker with this slot file lives; None where that cannot be told.

    Parameters
    ----------
    path : Path
        The slot file. There is none of a worker that ended in order, which tells nothing.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def begun_claims(path: Path) -> Iterator[int]:
    """Give the fences of every claim that is shown as begun, by a slot file or by all those of a folder."""
    for file in sorted(path.glob("*.slots")) if path.is_dir() else [path]:
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue
        for (fence,) in _FENCE.iter_unpack(data[: len(data) // _FENCE.size * _FENCE.size]):
            if fence:
                yield fence
