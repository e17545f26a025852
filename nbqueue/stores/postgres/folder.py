"""A temporary folder that is its user's alone and goes with its process, also after ``kill -9``; knows no database.

Nothing tells of a ``kill -9``, so whoever makes such a folder first removes those whose process is gone: a process
holds an flock on a file in its folder for as long as it lives.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # there is none on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["TemporaryFolder"]

_LOCK = "lock"


class TemporaryFolder:
    """A folder among the system's temporary files (``TMPDIR``).

    Parameters
    ----------
    prefix : str
        What its name begins with, and those of the folders that are swept up before it is made.
    """

    def __init__(self, prefix: str):
        self._pid = os.getpid()
        _sweep(prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        new = self.path / f"{_LOCK}.new"
        self._lock: int | None = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if fcntl is not None:
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Under its name it is locked from the first moment on: one that is not is of a process that has gone.
        with contextlib.suppress(OSError):
            new.rename(self.path / _LOCK)

    def close(self) -> None:
        """Remove it with all that is in it; doing it again does nothing. A fork's copy leaves it to its parent."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if self._pid == os.getpid():
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(lock)


def _sweep(prefix: str) -> None:
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # Somebody else's, or gone meanwhile.
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                _remove_left(folder)


def _remove_left(folder: Path) -> None:
    """Remove a folder that nobody holds."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
