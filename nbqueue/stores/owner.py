"""Who owns a queue file: one process at a time, by a lock beside the file; knows no DuckDB.

DuckDB's own lock does not ensure it: it is a POSIX lock, which any ``open(path).close()`` in the owning process drops.
The flock on ``<path>.lock`` is taken before DuckDB opens the file and held to the end. What the lock file says is for
people, and for processes that want to join; the lock alone decides.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
import weakref
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from nbqueue.errors import QueueUnavailable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FileHeldError",
    "Holder",
    "Note",
    "Ownership",
    "Standing",
    "check_file",
    "check_folder",
    "check_path",
]

#: Where a DuckDB file says that it is one.
_MAGIC_AT, _MAGIC = 8, b"DUCK"
#: How long the lock on the file may outlast the one beside it.
_DYING_SECONDS = 1.0
#: What a file system says that has no locks; nothing less than a real one keeps two owners apart.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


def check_path(path: Path) -> None:
    """Refuse a path that cannot be a queue file, before anything is written."""
    check_folder(path)
    check_file(path)


def check_folder(path: Path) -> None:
    """Refuse a path whose folder cannot hold a queue."""
    folder = path.parent
    if not folder.is_dir():
        msg = f"the folder {folder} does not exist; make it, or name another file than {path}"
        raise QueueUnavailable(msg)
    if path.is_dir():
        msg = f"{path} is a folder; name a file in it, e.g. {path / 'jobs.duckdb'}"
        raise QueueUnavailable(msg)
    if "?" in str(path):
        # To DuckDB, what follows it is no part of the name.
        msg = f'{path} has a "?" in it, and DuckDB could not keep its log beside it; choose another name'
        raise QueueUnavailable(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = (
            f"the folder {folder} is not writable for you, and a queue keeps its log beside its file;"
            " choose another folder"
        )
        raise QueueUnavailable(msg)


def check_file(path: Path) -> None:
    """Refuse a file that is no queue; nobody else may be making it meanwhile."""
    if not path.exists():
        return
    if not path.is_file():
        msg = f"{path} is no file; nothing was read from it: move it away, or name another file for the queue"
        raise QueueUnavailable(msg)
    if not os.access(path, os.R_OK | os.W_OK):
        msg = f"{path} is not readable and writable for you; change its permissions, or name another file"
        raise QueueUnavailable(msg)
    with path.open("rb") as file:
        head = file.read(_MAGIC_AT + len(_MAGIC))
    if head[_MAGIC_AT:] != _MAGIC:
        what = "is empty" if not head else "is not a DuckDB database"
        msg = f"{path} {what}; nothing in it was touched: move it away, or name another file for the queue"
        raise QueueUnavailable(msg)


class Holder(NamedTuple):
    """The process that has a queue file."""

    pid: int
    host: str
    #: "ipykernel_launcher", "nbqueue", the name of a script.
    program: str
    #: "2026-03-01 06:00:12 UTC".
    since: str
    #: It is this process.
    here: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program}) on {self.host} since {self.since}"

    @classmethod
    def myself(cls) -> Holder:
        """Describe this process, as of now."""
        script = Path(sys.argv[0] if sys.argv and sys.argv[0] not in ("", "-c", "-m") else sys.executable)
        # python -m nbqueue
        program = script.parent.name if script.stem == "__main__" else script.stem
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        return cls(os.getpid(), platform.node(), program or "python", since, here=True)


class Standing(StrEnum):
    """How the process that has the lock stands to others."""

    #: It opens the file, or closes it: wait.
    BUSY = "busy"
    #: It answers at its socket.
    SERVING = "serving"
    #: It has the file for itself.
    ALONE = "alone"


class Note(NamedTuple):
    """What a lock file says."""

    holder: Holder
    standing: Standing
    socket: str = ""
    #: Why it serves nobody.
    reason: str = ""

    @classmethod
    def read(cls, file: Path) -> Note | None:
        """Give what a lock file says; None where it says nothing, or nothing that can be read."""
        try:
            # What follows the first object is the rest of a longer note that is being replaced.
            said, _ = json.JSONDecoder().raw_decode(file.read_text(encoding="utf-8"))
            pid, host = int(said["pid"]), str(said["host"])
            here = pid == os.getpid() and host == platform.node()
            holder = Holder(pid, host, str(said["program"]), str(said["since"]), here)
            return cls(holder, Standing(said["state"]), str(said["socket"]), str(said["reason"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def text(self) -> str:
        """Give it as the text of a lock file."""
        said = self.holder._asdict() | {"state": self.standing, "socket": self.socket, "reason": self.reason}
        del said["here"]
        return json.dumps(said) + "\n"


class FileHeldError(QueueUnavailable):
    """Another process has the file.

    Parameters
    ----------
    path : Path
        The file.
    note : Note | None
        What is known of it.
    why : str
        Why it cannot be joined.
    """

    def __init__(self, path: Path, note: Note | None, why: str = ""):
        who = "another process" if note is None else str(note.holder)
        because = f", {why}" if why else ""
        super().__init__(
            f"{path} is held by {who}{because}; close it there (queues.close(), or shut that kernel down),"
            " or use another file here"
        )
        self.note = note


class Ownership:
    """The lock on a queue file, with the holder's name in it."""

    def __init__(self, path: Path):
        self._path = path
        #: The lock file.
        self.file = path.with_name(path.name + ".lock")
        # Any thread may close the store, so the lock must not belong to the one that opened it. A fork's copy of it
        # is closed by filelock, or the lock would outlive its owner.
        self._lock = FileLock(self.file, mode=0o600, thread_local=False, fallback_to_soft=False)
        self._holder = Holder.myself()
        #: Our end of the lock on the queue file itself.
        self._end: int | None = None
        _ownerships.add(self)

    def take(self) -> None:
        """Become the owner.

        Raises
        ------
        FileHeldError
            If another process is.
        QueueUnavailable
            If there can be no lock.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FileHeldError(self._path, Note.read(self.file)) from None
        except (OSError, NotImplementedError) as error:
            raise QueueUnavailable(self._no_lock(error)) from error
        self._holder = Holder.myself()
        self.tell(Standing.BUSY)
        try:
            self.hold()
        except BaseException:
            self.release()
            raise

    def hold(self) -> None:
        """Lock the queue file too, once there is one: by a hard link it has another name, and another lock file.

        Raises
        ------
        QueueUnavailable
            If an owner has it under another name.
        """
        if fcntl is None or self._end is not None:
            return
        try:
            end = os.open(self._path, os.O_RDONLY)
        except OSError:
            # There is none yet, or it cannot be read, which whoever opens it says better.
            return
        until = time.monotonic() + _DYING_SECONDS
        while self._end is None:
            try:
                fcntl.flock(end, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._end = end
            except BlockingIOError:
                # An owner that is being killed lets go of its locks one after the other.
                if time.monotonic() < until:
                    time.sleep(0.005)
                    continue
                os.close(end)
                msg = (
                    f"{self._path} is held already, by a process that knows it by another name (a hard link) or whose"
                    f" {self.file.name} was removed; close it there, or open it by that other name"
                )
                raise QueueUnavailable(msg) from None
            except OSError:
                # The lock beside it was to be had, which is what counts.
                os.close(end)
                return

    def close_end(self) -> None:
        """Close this process's end of the lock on the file; a fork's, or the lock would outlive its owner."""
        end, self._end = self._end, None
        if end is not None:
            os.close(end)

    def _no_lock(self, error: OSError | NotImplementedError) -> str:
        if isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS:
            return (
                f"the file system of {self._path.parent} has no file locks, without which two processes would write"
                f" {self._path.name} at once; keep the queue on a local disk"
            )
        if isinstance(error, PermissionError):
            return f"{self.file} belongs to another user, and a queue is its user's own; name another file"
        return (
            f"{self.file} cannot be locked ({error.strerror or error}); a queue needs a folder that allows it"
        )

    def tell(self, standing: Standing, *, socket: str = "", reason: str = "") -> None:
        """Say in the lock file how this process stands to others; the lock holds without it."""
        self._write(Note(self._holder, standing, socket, reason).text())

    def _write(self, text: str) -> None:
        data = text.encode()
        with contextlib.suppress(OSError):
            # In place, as the lock is on this very file, and at once: others read it at any moment.
            descriptor = os.open(self.file, os.O_WRONLY)
            try:
                if hasattr(os, "fchmod"):
                    os.fchmod(descriptor, 0o600)
                os.write(descriptor, data)
                os.ftruncate(descriptor, len(data))
            finally:
                os.close(descriptor)

    def holder(self) -> Holder:
        """Give who has it, which is this process."""
        return self._holder

    def release(self, *, remove: bool = False) -> None:
        """Let the next one have it; ``remove`` leaves no lock file either, beside a file that is none of ours."""
        # Closing any descriptor of the file drops DuckDB's own lock on it, so only now that DuckDB has closed it.
        self.close_end()
        if not self._lock.is_locked:
            return
        if remove:
            # Whoever has opened it meanwhile sees that it is gone once he has locked it, and tries again.
            with contextlib.suppress(OSError):
                self.file.unlink()
        else:
            self._write("")
        self._lock.release()


_ownerships: weakref.WeakSet[Ownership] = weakref.WeakSet()


def _let_go_in_fork() -> None:
    for ownership in list(_ownerships):
        ownership.close_end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_fork)
