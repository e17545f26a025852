"""What a child writes to its streams, as text for whoever listens; knows no child and no message."""

from __future__ import annotations

import codecs
import math
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbqueue.executors.board import Board
    from nbqueue.running.capture import Capture

__all__ = ["Streams"]

_PIECE = 65_536
#: More than any pipe holds.
_PIECES = 17


class Streams:
    """The reading ends of a child's standard output and error; any thread may listen.

    Parameters
    ----------
    out, err : int
        Their descriptors, which this closes.
    board : Board
        Where it counts what it reads.
    """

    def __init__(self, out: int, err: int, board: Board):
        self._lock = threading.RLock()
        self._board = board
        self._capture: Capture | None = None
        self._both = _Stream("stdout"), _Stream("stderr")
        #: The numbers of those at which something may be read yet, by descriptor.
        self._open = {out: 0, err: 1}
        self._last = b""
        #: What is there may be of several jobs, so it is given to nobody before it is known whose it is.
        self.shared = False
        for descriptor in (out, err):
            os.set_blocking(descriptor, False)

    @property
    def descriptors(self) -> list[int]:
        """Those at which something may be read yet."""
        return list(self._open)

    @property
    def last_words(self) -> str:
        """Give the end of all that was written."""
        return self._last.decode(errors="replace").strip()

    def listen_for(self, capture: Capture | None) -> None:
        """Give what is written from now on to this capture; what was written before is the one's before."""
        with self._lock:
            self.listen(last=True)
            self._capture = capture

    def go_on(self, capture: Capture | None) -> None:
        """Give to this capture what was not given to the one before, and what is written from now on."""
        with self._lock:
            self._capture = capture

    def listen_unless_shared(self) -> None:
        """Take in what was written, if it can only be that of one job."""
        with self._lock:
            if not self.shared:
                self.listen()

    def fill_unless_shared(self, *, age: float) -> bool:
        """Read what was written, if it can only be that of one job; whether there is something to be given.

        Parameters
        ----------
        age : float
            The half of a line that was to be given so many seconds ago is given.
        """
        with self._lock:
            if self.shared:
                return False
            self.fill()
            for stream in self._both:
                if stream.is_older(age):
                    self._write(stream, stream.rest(last=False))
            return any(stream.given < stream.count for stream in self._both)

    def share(self) -> None:
        """Give what is there to nobody who only asks: from now on it may be of another job."""
        with self._lock:
            self.shared = True

    @property
    def counts(self) -> tuple[int, int]:
        """How many bytes of each were read so far."""
        out, err = self._both
        return out.count, err.count

    def fill(self) -> None:
        """Read what was written, and keep it; never waits."""
        with self._lock:
            for descriptor, number in list(self._open.items()):
                # Who writes as fast as this reads must not keep it for ever.
                for _ in range(_PIECES):
                    if len(self._read(descriptor, number)) < _PIECE:
                        break

    def listen(self, *, age: float = math.inf, last: bool = False) -> None:
        """Take in what was written; never waits.

        Parameters
        ----------
        age : float
            A line that is not at its end is left to grow until it is so many seconds old.
        last : bool
            Whether the half of a line, and of a character, is all there is of it.
        """
        with self._lock:
            self.fill()
            self.give(age=age, last=last)

    def give(self, *, age: float = math.inf, last: bool = False) -> None:
        """Give the capture what was read."""
        with self._lock:
            for stream in self._both:
                self._give(stream, stream.count, age=age, last=last)

    def give_until(self, *counts: int, last: bool = False) -> None:
        """Give the capture what was written up to here, each stream by its count; reads what is missing of that."""
        with self._lock:
            if any(stream.count < count for stream, count in zip(self._both, counts, strict=True)):
                self.fill()
            for stream, count in zip(self._both, counts, strict=True):
                self._give(stream, count, last=last)

    def has_until(self, *counts: int) -> bool:
        """Whether any of what was written up to here was not given yet."""
        return any(stream.given < count for stream, count in zip(self._both, counts, strict=True))

    def _give(self, stream: _Stream, count: int, *, age: float = math.inf, last: bool = False) -> None:
        self._write(stream, stream.lines_until(count))
        if last or stream.is_older(age):
            self._write(stream, stream.rest(last=last))

    def _read(self, descriptor: int, number: int) -> bytes:
        try:
            data = self._board.read(number, descriptor, _PIECE)
        except BlockingIOError:
            return b""
        if data:
            self._last = (self._last + data)[-4_000:]
            self._both[number].take(data)
        else:
            # Nobody can write there any more.
            del self._open[descriptor]
            os.close(descriptor)
        return data

    def _write(self, stream: _Stream, text: str) -> None:
        if text and self._capture is not None:
            self._capture.write(stream.name, text)

    def close(self) -> None:
        """Let go of them; doing it again does nothing."""
        with self._lock:
            for descriptor in self._open:
                os.close(descriptor)
            self._open.clear()


class _Stream:
    """One of them: from pieces of bytes to whole lines.

    A ``print`` writes its text and the end of the line one after the other, and what comes from the other stream in
    between must not part them.
    """

    __slots__ = ("_decoder", "_held", "_read", "_since", "count", "name")

    def __init__(self, name: str):
        self.name = name
        #: How many bytes were read in all, and those that were not given to anybody yet.
        self.count = 0
        self._read = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._since = 0.0

    @property
    def given(self) -> int:
        """How many bytes were given in all."""
        return self.count - len(self._read)

    def take(self, data: bytes) -> None:
        """Take a piece in."""
        self._read += data
        self.count += len(data)

    def lines_until(self, count: int) -> str:
        """Give the lines that are at their ends, of what was written up to here."""
        length = count - self.given
        if length <= 0 and not self._held:
            return ""
        data = bytes(self._read[:length]) if length > 0 else b""
        del self._read[: len(data)]
        text = self._held + self._decoder.decode(data)
        end = len(text) if len(text) >= _PIECE else text.rfind("\n") + 1
        if end or not self._held:
            self._since = time.monotonic()
        self._held = text[end:]
        return text[:end]

    def is_older(self, age: float) -> bool:
        """Whether a line is not at its end, and has been for so long."""
        return bool(self._held) and time.monotonic() - self._since >= age

    def rest(self, *, last: bool) -> str:
        """Give the line that is not at its end."""
        text, self._held = self._held, ""
        if last:
            text += self._decoder.decode(b"", final=True)
            self._decoder.reset()
        return text
