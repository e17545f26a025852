"""What can be said of a queue file from outside: its folder, its lock, its size, and what lies beside it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from nbqueue.errors import QueueUnavailable
from nbqueue.facade.checks.finding import Finding, fine, listed, note, of_seconds, some, wrong
from nbqueue.sizes import shown
from nbqueue.slots import is_alive
from nbqueue.stores.owner import Note, check_file, check_folder
from nbqueue.stores.sharing.sockets import left_over as sockets_left_over

__all__ = ["LARGE", "Lock", "beside", "lock_of", "locking", "place"]

#: From so many bytes on a file is worth a word about retention.
LARGE = 1 << 30
#: With less than this left, a checkpoint may not find room.
_ROOM = 256 << 20
#: Kinds of file system whose locks cannot be relied on between machines, or at all.
_REMOTE = (
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "vboxsf", "drvfs", "ceph", "glusterfs", "lustre"),
    *("fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone", "fuse.glusterfs", "fuse.blobfuse"),
)
#: Folders that a program copies to other machines while they are written.
_SYNCED = ("dropbox", "onedrive", "google drive", "icloud drive", "nextcloud")
_MOUNTS = Path("/proc/self/mountinfo")


class Lock(NamedTuple):
    """How the lock beside a file stands."""

    #: None: this machine has none that could be asked.
    held: bool | None
    #: What the process says that has it, or had it.
    note: Note | None

    @property
    def who(self) -> str:
        """The holder as people say it."""
        return "another process" if self.note is None else str(self.note.holder)


# -- the place


def place(path: Path, *, held: bool, mounts: Path = _MOUNTS) -> Iterator[Finding]:
    """Check whether a queue file can be there at all; the last finding tells what is there."""
    try:
        check_folder(path)
        # Opening and closing it would take DuckDB's own lock from whoever has it open in this process.
        if not held:
            check_file(path)
    except QueueUnavailable as error:
        yield wrong("file", str(error))
        return
    if kind := _file_system(path.parent, mounts):
        yield wrong(
            "file system",
            f"{path.parent} is on {kind}, and network file systems often have no locks worth the name: two machines"
            " could write at once; keep the queue on a local disk",
        )
    if synced := [part for part in path.parts if part.lower().startswith(_SYNCED)]:
        yield wrong(
            "file system",
            f"{path} is in a folder that is synchronised ({synced[0]}), which copies a file while it is"
            " written; keep the queue outside of it",
        )
    if path.exists():
        yield fine("file", f"{path}, {_sizes(path)}")
    elif found := [what for what, file in _beside(path).items() if file.exists()]:
        name = _beside(path)[found[0]].name
        yield wrong(
            "file",
            f"there is no {path}, but its {found[0]} {name} is there: the file was moved or deleted alone;"
            f" put it back, or move the {found[0]} away",
        )
    else:
        yield note("file", f"there is no queue file {path} yet; the first dispatch or worker makes it")


def _file_system(folder: Path, mounts: Path) -> str:
    """Name the kind of a remote file system, "" for a local one, or where nobody says."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, what = before.split(), after.split()
        if len(fields) < 5 or len(what) < 2:
            continue
        # Spaces in it are written \040.
        mount = Path(fields[4].encode().decode("unicode_escape"))
        # Of mounts on the same folder, the last one is seen.
        if folder.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), what[0]
    return kind if kind in _REMOTE else ""


# -- the lock


def lock_of(path: Path) -> Lock:
    """Say how the lock of a file stands, without keeping it."""
    file = path.with_name(path.name + ".lock")
    try:
        with file.open("rb") as opened:
            free = _try_lock(opened)
            return Lock(None if free is None else not free, Note.read(file))
    except OSError:
        return Lock(False, None)


def _try_lock(file: IO[bytes]) -> bool | None:
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def locking(path: Path, lock: Lock) -> Iterator[Finding]:
    """Check whether locks can be trusted here, and say who has the file."""
    if lock.held:
        if lock.note is not None and lock.note.holder.host != platform.node():
            yield wrong(
                "lock",
                f"{path} is held by {lock.who}, and this is {platform.node()}: a queue file belongs to one machine;"
                " give this one a file of its own",
            )
        return
    if _locks_hold(path.parent) is False:
        yield wrong(
            "lock",
            f"locks in {path.parent} mean nothing: two could hold one at once; keep the queue on a local disk",
        )
    elif path.exists():
        yield fine("lock", f"locks can be trusted in {path.parent}, and nobody has the file now")
    else:
        yield fine("lock", f"locks can be trusted in {path.parent}")


def _locks_hold(folder: Path) -> bool | None:
    """Whether a lock that is held keeps others out; None where that cannot be tried."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".nbqueue-") as first:
            if _try_lock(first.file) is None:
                return None if os.name != "posix" else False
            with Path(first.name).open("rb") as second:
                return not _try_lock(second)
    except OSError:
        return None


# -- room


def room(path: Path) -> Iterator[Finding]:
    """Check what room there is."""
    free = shutil.disk_usage(path.parent).free
    needed = max(_ROOM, 2 * _size(_beside(path)["log"]))
    size = _size(path)
    limit = _size_limit()
    if free < needed:
        yield wrong(
            "room",
            f"{shown(free)} are free in {path.parent}, and a checkpoint of this file may take {shown(needed)};"
            " make room before dispatches fail",
        )
    elif limit is not None and limit < 2 * size + _ROOM:
        yield wrong(
            "room",
            f"this process may write no file of more than {shown(limit)} (ulimit -f), and {path.name} has"
            f" {shown(size)}; raise the limit",
        )
    else:
        yield fine("room", f"{shown(free)} are free in {path.parent}")


def _size_limit() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _sizes(path: Path) -> str:
    log = _size(_beside(path)["log"])
    return shown(_size(path)) + (f", and {shown(log)} in its log" if log else "")


def _beside(path: Path) -> dict[str, Path]:
    """What belongs to a queue file and may have to be moved over into it."""
    return {"log": path.with_name(path.name + ".wal"), "journal": path.with_name(path.name + ".journal")}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# -- what was left over


def left_over(path: Path, lock: Lock) -> Iterator[Finding]:
    """Name the slot files of workers that have gone."""
    gone = [file for file in _slot_files(path) if is_alive(file) is False]
    if not gone:
        return
    ages = [time.time() - file.stat().st_mtime for file in gone]
    what = f"{some(len(gone), 'worker')} went without a word ({listed([file.stem for file in gone])}"
    if lock.held:
        yield note("workers", f"{what}); whoever has the file gives their jobs to others within a lease")
    else:
        yield note(
            "workers",
            f"{what}, the last {of_seconds(min(ages))} ago); their jobs are given back when the file is next opened",
        )


def sockets() -> Iterator[Finding]:
    """Check the folder in which processes meet, and count what was left in it."""
    try:
        gone = sockets_left_over()
    except QueueUnavailable as error:
        yield wrong("sockets", str(error))
        return
    if gone:
        folders = sorted({str(file.parent) for file in gone})
        yield note(
            "sockets",
            f"{some(len(gone), 'socket')} of processes that have gone in {listed(folders)}; whoever opens a queue next"
            " removes them",
        )


def _slot_files(path: Path) -> list[Path]:
    return sorted(path.with_name(path.name + ".slots").glob("*.slots"))


def beside(path: Path, lock: Lock) -> Iterator[Finding]:
    """Check all that lies beside a file that is there, and what its processes meet by."""
    yield from room(path)
    yield from left_over(path, lock)
    yield from sockets()
