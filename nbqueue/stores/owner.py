"""Who owns a queue file: one process at a time, by a lock beside the file; knows no DuckDB.

DuckDB's own lock does not ensure it: it is a POSIX lock, which any ``open(path).close()`` in the owning process drops.
The flock on ``<path>.lock`` is taken before DuckDB opens the file and held to the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout

from nbqueue.errors import QueueUnavailable

__all__ = ["Ownership", "check_path"]

#: Where a DuckDB file says that it is one.
_MAGIC_AT, _MAGIC = 8, b"DUCK"


def check_path(path: Path) -> None:
    """Refuse a path that cannot be a queue file, before anything is written."""
    folder = path.parent
    if not folder.is_dir():
        msg = f"the folder {folder} does not exist; make it, or name another file than {path}"
        raise QueueUnavailable(msg)
    if path.is_dir():
        msg = f"{path} is a folder; name a file in it, e.g. {path / 'jobs.duckdb'}"
        raise QueueUnavailable(msg)
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = (
            f"the folder {folder} is not writable for you, and a queue keeps its log beside its file;"
            " choose another folder"
        )
        raise QueueUnavailable(msg)
    if not path.exists():
        return
    if not os.access(path, os.R_OK | os.W_OK):
        msg = f"{path} is not readable and writable for you; change its permissions, or name another file"
        raise QueueUnavailable(msg)
    with path.open("rb") as file:
        head = file.read(_MAGIC_AT + len(_MAGIC))
    if head[_MAGIC_AT:] != _MAGIC:
        what = "is empty" if not head else "is not a DuckDB database"
        msg = f"{path} {what}; nothing in it was touched: move it away, or name another file for the queue"
        raise QueueUnavailable(msg)


class Ownership:
    """The lock on a queue file, with the holder's name in it."""

    def __init__(self, path: Path):
        self._path = path
        self._file = path.with_name(path.name + ".lock")
        # Any thread may close the store, so the lock must not belong to the one that opened it.
        self._lock = FileLock(self._file, thread_local=False)

    def take(self) -> None:
        """Become the owner, or say who is."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise QueueUnavailable(self._taken()) from None
        except OSError as error:
            msg = f"{self._file} cannot be locked ({error.strerror or error}); a queue needs a folder that allows it"
            raise QueueUnavailable(msg) from error
        holder = {
            "pid": os.getpid(),
            "host": platform.node(),
            "program": Path(sys.argv[0] or sys.executable).name,
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        }
        with contextlib.suppress(OSError):
            # Only for people: the lock holds without it.
            self._file.write_text(json.dumps(holder))

    def _taken(self) -> str:
        try:
            holder = json.loads(self._file.read_text())
            who = f"process {holder['pid']} ({holder['program']}) on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        return (
            f"{self._path} is held by {who}; close it there (queues.close(), or shut that kernel down),"
            " or use another file here"
        )

    def release(self, *, remove: bool = False) -> None:
        """Let the next one have it; ``remove`` leaves no lock file either, beside a file that is none of ours."""
        if not self._lock.is_locked:
            return
        with contextlib.suppress(OSError):
            if remove:
                # Whoever has opened it meanwhile sees that it is gone once he has locked it, and tries again.
                self._file.unlink()
            else:
                self._file.write_text("")
        self._lock.release()
