"""A file of numbered frames beside a queue file: what one append has synced is committed; knows neither jobs nor SQL.

The file is a head, which binds it to one opening of one queue file, and frames. A frame is its number, the length and
the checksum of its body, and the body. Numbers rise by one from each frame to the next and never start again. Once
the frames have been folded into the queue file the next one is written over the first: writing where the disk has
room already is quicker to sync than making a file longer (0.09 against 0.15 ms).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nbqueue.errors import QueueUnavailable

__all__ = ["Found", "Frame", "Journal", "file_mode", "journal_path", "read_journal"]

_MAGIC = b"nbqueue journal\n"
_HEAD = struct.Struct("<16sQI")
_FRAME = struct.Struct("<QII")
#: The upper bytes of every number that will ever be, and where they are in it.
_NUMBER_END_AT, _NUMBER_END = 5, bytes(3)
#: The file grows in steps of so many bytes.
_STEP = 1 << 18
#: What a file system says that cannot set room aside: ZFS, and others where the C library does not help out.
_NOT_SET_ASIDE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# One call that writes and syncs gives the GIL up once, where a job may take its time to give it back.
_SYNCED = 0 if sys.platform in ("darwin", "win32") else getattr(os, "O_DSYNC", 0)
_OPEN = os.O_RDWR | _SYNCED | getattr(os, "O_BINARY", 0)


class Frame(NamedTuple):
    """What one append wrote."""

    number: int
    body: bytes


class Found(NamedTuple):
    """What a journal has, as some process left it."""

    #: Of the opening that wrote it.
    identity: int
    #: Those that the queue file does not have.
    frames: list[Frame]


def journal_path(path: Path) -> Path:
    """Where the journal of a queue file is."""
    return path.with_name(path.name + ".journal")


def read_journal(path: Path, folded: int) -> Found | None:
    """Give what a journal has, up to the first frame that was not written to its end; None where there is none.

    Parameters
    ----------
    path : Path
        The journal.
    folded : int
        The number of the last frame that the queue file has.

    Raises
    ------
    QueueUnavailable
        If it is none of ours, or damaged.
    """
    data = _read(path)
    if data is None:
        return None
    head = data[: _HEAD.size]
    if len(head) < _HEAD.size or head != _head(_HEAD.unpack(head)[1]):
        # It was complete before it had this name.
        raise QueueUnavailable(_damage(path, "it does not begin as a journal does"))
    return Found(
        _HEAD.unpack(head)[1], [frame for frame in _frames(path, data, folded) if frame.number > folded]
    )


def _read(path: Path) -> bytes | None:
    """Give what is in a file, None where there is none; what is no file at all is refused, and not waited for."""
    try:
        # To open a FIFO would wait until somebody writes into it.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        if path.is_symlink():
            # What it leads to may be on a disk that is not there just now.
            raise QueueUnavailable(_no_file(path)) from None
        return None
    except OSError:
        # Windows opens no folder, and nobody a socket.
        if path.is_file():
            raise
        raise QueueUnavailable(_no_file(path)) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise QueueUnavailable(_no_file(path))
    with os.fdopen(file, "rb") as opened:
        return opened.read()


def _no_file(path: Path) -> str:
    return (
        f"{path} is no file, and a queue keeps there what was handed in last; move it away, and if it stands for the"
        " journal of this queue, put the journal itself there"
    )


def _head(identity: int) -> bytes:
    return _HEAD.pack(_MAGIC, identity, zlib.crc32(_MAGIC + identity.to_bytes(8, "little")))


def _frames(path: Path, data: bytes, folded: int) -> Iterator[Frame]:
    at, before = _HEAD.size, None
    while frame := _frame_at(data, at):
        if before is not None and frame.number != before + 1:
            break  # of an earlier round, which the queue file has
        yield frame
        at, before = at + _FRAME.size + len(frame.body), frame.number
    # A frame is begun when the one before it is on disk: one that was torn by a death has none after it.
    torn = max(before or 0, folded) + 1
    if _has_frame_above(data, at, torn):
        raise QueueUnavailable(_damage(path, f"frame {torn} is not what was written"))


def _has_frame_above(data: bytes, at: int, number: int) -> bool:
    """Whether a whole frame with a higher number begins anywhere from here on: heads may be damaged as well."""
    # Room that was set aside is zeros to the end of the file.
    end = len(data.rstrip(b"\0"))
    # A number has such an end, and a text has no such character.
    zeros = data.find(_NUMBER_END, at + _NUMBER_END_AT)
    while 0 <= zeros < end:
        start = zeros - _NUMBER_END_AT
        # Frames of earlier rounds, and what is no number, are told without their checksum.
        above = int.from_bytes(data[start : start + 8], "little") - number
        if 0 < above < len(data) and _frame_at(data, start):
            return True
        zeros = data.find(_NUMBER_END, zeros + 1)
    return False


def _frame_at(data: bytes, at: int) -> Frame | None:
    if at + _FRAME.size > len(data):
        return None
    number, length, checksum = _FRAME.unpack_from(data, at)
    body = data[at + _FRAME.size : at + _FRAME.size + length]
    if not number or len(body) < length or checksum != _checksum(number, body):
        return None
    return Frame(number, body)


def _checksum(number: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(number.to_bytes(8, "little")))


def _damage(path: Path, why: str) -> str:
    return (
        f"{path} is damaged: something has cut or overwritten a part of it ({why}); put a copy of it and of the queue"
        " file back in their place, or move it away, and with it what was handed in last"
    )


class Journal:
    """A new journal, in place of one that is spent.

    Parameters
    ----------
    path : Path
        The journal.
    identity : int
        Of this opening of the queue file.
    number : int
        The last that was ever given to a frame of this queue.
    mode : int
        Who may read it: whoever may read the queue file.
    """

    def __init__(self, path: Path, identity: int, number: int, mode: int):
        self._path, self._identity, self._mode = path, identity, mode
        self.number = number
        self._begin(_head(identity))
        self._file = os.open(path, _OPEN)
        found = os.fstat(self._file)
        self._found = (found.st_dev, found.st_ino)
        self._at = _HEAD.size
        #: How far the file reaches.
        self._room = _HEAD.size

    def _begin(self, data: bytes) -> None:
        """Make the file, with this in it."""
        path = self._path
        draft = path.with_name(path.name + ".new")
        if draft.is_dir() and not draft.is_symlink():
            raise IsADirectoryError(f"{draft} is a folder, where a queue begins its journal; move it away")
        draft.unlink(missing_ok=True)
        try:
            self._file = os.open(draft, _OPEN | os.O_CREAT | os.O_EXCL, self._mode)
            try:
                self._write(data, 0)
            finally:
                os.close(self._file)
            # Under its own name it is complete, so a head that cannot be read is a damaged one.
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    @property
    def size(self) -> int:
        """How many bytes are in use."""
        return self._at - _HEAD.size

    def is_there(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - a fifth of what Path.stat takes, and asked at every commit
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._found

    def is_gone(self) -> bool:
        """Whether there is none any more."""
        return not self.is_there() and not self._path.exists()

    def again(self) -> Journal:
        """Make it anew, after it was removed; the queue file has all that it had."""
        fresh = Journal(self._path, self._identity, self.number, self._mode)
        # Only now: whoever is left with this one closes it.
        self.close(remove=False)
        return fresh

    def append(self, body: bytes) -> int:
        """Write a frame; it is on disk when its number is returned, and not at all where this raises."""
        number = self.number + 1
        frame = _FRAME.pack(number, len(body), _checksum(number, body)) + body
        try:
            self._make_room(self._at + len(frame))
            self._write(frame, self._at)
        except BaseException:
            # Nobody will be told that it was kept, so the next opening must not find it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._at)
                self._room = self._at
            raise
        self.number = number
        self._at += len(frame)
        return number

    def _make_room(self, end: int) -> None:
        if end > self._room and hasattr(os, "posix_fallocate"):
            step = -(-(end - self._room) // _STEP) * _STEP
            try:
                os.posix_fallocate(self._file, self._room, step)
            except OSError as error:
                if error.errno not in _NOT_SET_ASIDE:
                    raise
            self._room += step

    def _write(self, data: bytes, at: int) -> None:
        left = memoryview(data)
        while left:
            done = _write_at(self._file, left, at)
            left, at = left[done:], at + done
        if not _SYNCED:
            _sync(self._file)

    def begin_again(self) -> None:
        """Write the next frame over the first: the queue file has them all."""
        self._at = _HEAD.size

    def close(self, *, remove: bool) -> None:
        """Let go of it; ``remove`` where the queue file has all that it had, else it is put back if it was removed."""
        data = b""
        with contextlib.suppress(OSError):
            if not remove and self.size and self.is_gone():
                # Where a file can be removed that is open, there is this.
                data = os.pread(self._file, self._at, 0)
        os.close(self._file)
        with contextlib.suppress(OSError):
            if data:
                self._begin(data)
            elif remove and self.is_there():
                self._path.unlink()


def file_mode(path: Path) -> int:
    """Who may read what lies beside a queue file: whoever may read that."""
    return stat.S_IMODE(path.stat().st_mode) & 0o666


def _write_at(file: int, data: memoryview, at: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, at)
    os.lseek(file, at, os.SEEK_SET)
    return os.write(file, data)


def _sync(file: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        # There, fsync leaves it to the disk when it writes; not every file system knows better.
        with contextlib.suppress(OSError):
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
            return
    os.fsync(file)


def _sync_folder(folder: Path) -> None:
    """Have a file's name on disk as well, where folders can be synced."""
    with contextlib.suppress(OSError):
        end = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(end)
        finally:
            os.close(end)
