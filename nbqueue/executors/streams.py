"""What a child writes to its streams, as text for whoever listens; knows no child and no message."""

from __future__ import annotations

import codecs
import math
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    """

    def __init__(self, out: int, err: int):
        self._lock = threading.RLock()
        self._capture: Capture | None = None
        self._streams = {out: _Stream("stdout"), err: _Stream("stderr")}
        self._last = b""
        for descriptor in (out, err):
            os.set_blocking(descriptor, False)

    @property
    def descriptors(self) -> list[int]:
        """Those at which something may be read yet."""
        return list(self._streams)

    @property
    def last_words(self) -> str:
        """Give the end of all that was written."""
        return self._last.decode(errors="replace").strip()

    def listen_for(self, capture: Capture | None) -> None:
        """Give what is written from now on to this capture; what was written before is the one's before."""
        with self._lock:
            self.listen(last=True)
            self._capture = capture

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
            for descriptor, stream in list(self._streams.items()):
                # Who writes as fast as this reads must not keep it for ever.
                for _ in range(_PIECES):
                    data = self._read(descriptor)
                    self._write(stream, stream.lines(data))
                    if len(data) < _PIECE:
                        break
                if last or stream.is_older(age):
                    self._write(stream, stream.rest(last=last))

    def _read(self, descriptor: int) -> bytes:
        try:
            data = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return b""
        if data:
            self._last = (self._last + data)[-4_000:]
        else:
            # Nobody can write there any more.
            self._write(stream := self._streams.pop(descriptor), stream.rest(last=True))
            os.close(descriptor)
        return data

    def _write(self, stream: _Stream, text: str) -> None:
        if text and self._capture is not None:
            self._capture.write(stream.name, text)

    def close(self) -> None:
        """Let go of them; doing it again does nothing."""
        with self._lock:
            for descriptor in self._streams:
                os.close(descriptor)
            self._streams.clear()


class _Stream:
    """One of them: from pieces of bytes to whole lines.

    A ``print`` writes its text and the end of the line one after the other, and what comes from the other stream in
    between must not part them.
    """

    __slots__ = ("_decoder", "_held", "_since", "name")

    def __init__(self, name: str):
        self.name = name
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._since = 0.0

    def lines(self, data: bytes) -> str:
        """Take a piece in; gives the lines that are at their ends."""
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
