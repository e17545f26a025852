"""Where processes of one user meet: sockets in a folder of their own, which nobody else may enter; knows no message."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import stat
import struct
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path

from nbqueue.errors import QueueUnavailable

__all__ = ["call", "left_over", "listen"]

#: A socket's path has room for 104 bytes on macOS, and 108 on Linux.
_LONGEST = 100
#: Connections that wait to be taken in.
_BACKLOG = 128
#: Whoever takes nothing in for so long is let go, seconds.
_SEND_SECONDS = 30

_numbers = itertools.count(1)
_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def listen(queue: Path) -> tuple[socket.socket, Path]:
    """Open a socket for a queue file, under a name that no process before had.

    Only the owner of the file may do so: what earlier ones left is removed.

    Raises
    ------
    QueueUnavailable
        Where there can be none; the sentence says why.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise QueueUnavailable("this system has no local sockets")
    folder, prefix = _folder(), f"{hashlib.sha256(os.fsencode(queue)).hexdigest()[:16]}-"
    _sweep(folder, prefix)
    path = folder / f"{prefix}{os.getpid()}-{next(_numbers)}"
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(os.fspath(path))
        path.chmod(0o600)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise QueueUnavailable(f"no socket can be made in {folder} ({error.strerror})") from error
    _sockets.add(sock)
    return sock, path


def call(path: str) -> socket.socket:
    """Connect to a socket.

    Raises
    ------
    OSError
        If nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return keep(sock)


def keep(sock: socket.socket) -> socket.socket:
    """Have a connected socket closed in forks, and nobody wait for ever for its other end to read."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _SEND_SECONDS, 0))
    _sockets.add(sock)
    return sock


def _folder() -> Path:
    """Give the folder of this user's sockets; one that others may enter is refused."""
    for folder in _folders():
        if not _has_room(folder):
            continue
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check(folder)
        except OSError:
            continue
        return folder
    raise QueueUnavailable("no folder was found for a socket; name a short one in XDG_RUNTIME_DIR or TMPDIR")


def _check(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise QueueUnavailable(
            f"{folder} is not a folder of yours alone, and sockets in it could be another's;"
            f" remove it, or run `chmod 700 '{folder}'`"
        )


def left_over() -> list[Path]:
    """Give the sockets of processes that are gone; makes no folder, and removes nothing.

    Raises
    ------
    QueueUnavailable
        If others may enter the folder.
    """
    # The first that a socket's path has room for: that it is missing says that nobody met anybody yet.
    folder = next((folder for folder in _folders() if _has_room(folder)), None)
    if folder is None or not folder.exists():
        return []
    _check(folder)
    return [path for path in folder.iterdir() if not _lives(path.name.partition("-")[2].partition("-")[0])]


def _has_room(folder: Path) -> bool:
    # 16 + 1 + a pid and a number.
    return len(os.fsencode(folder)) + 40 <= _LONGEST


def _folders() -> Iterator[Path]:
    from platformdirs import user_runtime_path

    if named := os.environ.get("NBQUEUE_DATA_DIR"):
        yield Path(named).expanduser() / "sockets"
    with warnings.catch_warnings():
        # Where the system names no folder it has one of its own, and says so to whoever looks at warnings.
        warnings.simplefilter("ignore")
        found = user_runtime_path("nbqueue")
    yield found
    yield Path(tempfile.gettempdir()) / f"nbqueue-{os.geteuid()}"


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what owners left that were killed: those of this queue, and those whose process is gone."""
    for path in folder.iterdir():
        _, _, name = path.name.partition("-")
        if path.name.startswith(prefix) or not _lives(name.partition("-")[0]):
            with contextlib.suppress(OSError):
                path.unlink()


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, ValueError, OverflowError):
        return True
    return True


def _leave_to_parent() -> None:
    # A copy in a fork would keep the other end from learning that this process is gone.
    for sock in list(_sockets):
        with contextlib.suppress(OSError):
            os.close(sock.detach())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
