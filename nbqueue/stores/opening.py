"""Opens a queue's DuckDB file as its owner, and sees to it that nobody else may read what is made here.

DuckDB makes its files as the process's umask says, and makes the log beside the file anew after every checkpoint. The
umask belongs to the whole process, so it stays as it is; files are there, and private, before DuckDB opens them.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from pathlib import Path

import duckdb

from nbqueue.errors import QueueUnavailable
from nbqueue.stores.journal import journal_path
from nbqueue.stores.reader import first_line

__all__ = ["cannot_open", "connect", "damage", "drop_empty_log", "is_damaged", "keep_log_private", "log_size"]

#: How long another program may have the file before that is an error.
FOREIGN_SECONDS = 1.0
_PRIVATE = 0o600
_OTHERS = 0o077


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """Open a file, and make it first if there is none; the caller has its lock.

    A new file is its user's alone. One that was there keeps its mode.
    """
    is_new = not path.exists()
    journal = journal_path(path)
    if is_new and journal.exists():
        raise QueueUnavailable(
            f"there is no {path}, but its journal {journal.name} is there: the file was moved or deleted alone; put it"
            " back, or move the journal away, and with it what was handed in last"
        )
    if is_new and stat.S_IMODE(path.parent.stat().st_mode) & _OTHERS:
        _make_apart(path)
    until = time.monotonic() + FOREIGN_SECONDS
    while True:
        try:
            connection = duckdb.connect(str(path), config={"enable_external_access": "false"})
            break
        except duckdb.IOException as error:
            # An owner that is being killed lets go of its files one after the other.
            if "Could not set lock" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
    if is_new:
        path.chmod(_PRIVATE)
    keep_log_private(path)
    return connection


def _make_apart(path: Path) -> None:
    """Make an empty database where nobody looks, and put it in its place when it is private."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        draft = Path(folder) / path.name
        duckdb.connect(str(draft)).close()
        draft.chmod(_PRIVATE)
        try:
            # A link, unlike a rename, never replaces what another program put there meanwhile.
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:
            draft.rename(path)


def keep_log_private(path: Path) -> None:
    """Let the log that the next commit writes be readable for whom the file is, and nobody else."""
    with contextlib.suppress(OSError):
        mode = stat.S_IMODE(path.stat().st_mode) & 0o666
        os.close(os.open(f"{path}.wal", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))


def log_size(path: Path) -> int:
    """How many bytes have not been folded into the file."""
    with contextlib.suppress(OSError):
        return Path(f"{path}.wal").stat().st_size
    return 0


def drop_empty_log(path: Path) -> None:
    """Remove the log that was made for a commit which never came; the caller has closed the file, and has its lock."""
    log = path.with_name(path.name + ".wal")
    with contextlib.suppress(OSError):
        if not log.stat().st_size:
            log.unlink()


def cannot_open(path: Path, error: duckdb.Error | OSError) -> str:
    """Say in a sentence why a file cannot be opened, and who has it."""
    text = first_line(error)
    if "Could not set lock" in text:
        holder = text.partition("held in ")[2].partition(". See")[0] or "another program"
        return f"{path} is open in {holder}; close it there, or use another file here"
    if "not a valid DuckDB" in text:
        return f"{path} is not a DuckDB database; move it away, or name another file for the queue"
    if is_damaged(error):
        return damage(path, error)
    if any(sign in text for sign in ("No space left", "File too large", "quota exceeded")):
        return (
            f"{path} cannot be opened for want of room ({text}); everything acknowledged is in it: free some room on"
            " its disk, then open it again"
        )
    return f"{path} cannot be opened: {text}"


_DAMAGED = (
    "Could not read enough bytes",
    "Corrupt database file",
    "replaying WAL",
    "Failed to load metadata",
)


def is_damaged(error: BaseException) -> bool:
    """Whether what DuckDB read was not what it had written."""
    return any(sign in str(error) for sign in _DAMAGED)


def damage(path: Path, error: BaseException) -> str:
    """Say in a sentence that a file or its log was cut or overwritten, and what can be done."""
    text = first_line(error)
    if "replaying WAL" in text:
        return (
            f"{path} is damaged: something has overwritten a part of its log, {path.name}.wal ({text}); put a copy of"
            " both back in their place, or move the log away, and with it what was written last"
        )
    return (
        f"{path} is damaged: something has cut or overwritten a part of it ({text}); put a copy back in its place, or"
        " begin a new file"
    )
