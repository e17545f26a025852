"""What one attempt of a job says, in order and within bounds; knows no job and no store."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from contextvars import Token
from itertools import groupby
from operator import itemgetter
from time import time
from typing import Self

from nbqueue.running.standins import Sink, install, settled, target, uninstall
from nbqueue.store import LogChunk

__all__ = ["CHARACTERS_MAX", "Capture", "active", "install", "uninstall"]

#: So much of one attempt's text is kept, half of it from the beginning and half from the end.
CHARACTERS_MAX = 1_000_000
# Fold what was written into chunks after so many writes, or at once for so long a text: bounds what waits.
_WRITES_MAX = 512
_LONG = 16_384


def active() -> Sink | None:
    """Give the capture that takes what is said in this context, None where nothing is captured."""
    return target.get()


class Capture:
    """What one attempt says, in order, within a number of characters.

    Parameters
    ----------
    limit : int
        Of what goes beyond it the middle is left out, and a mark says how much.

    Notes
    -----
    A write takes no lock: one ``list.append``. Text beyond the first half of the limit comes out of
    ``drain`` when the capture has ended, since only then it is known what is left out.

    Example
    -------
    >>> with Capture() as said:
    ...     print("two lines,")
    ...     print("one chunk")
    >>> [(chunk.stream, chunk.text.split()) for chunk in said.drain()]
    [('stdout', ['two', 'lines,', 'one', 'chunk'])]
    """

    __slots__ = ("_ended", "_kept", "_limit", "_lock", "_raw", "_token")

    def __init__(self, limit: int = CHARACTERS_MAX) -> None:
        self._limit = limit
        self._raw: list[LogChunk] = []
        self._kept: _Kept | None = None
        # Reentrant: a destructor that prints may run while this thread folds.
        self._lock = threading.RLock()
        self._token: Token[Sink | None] | None = None
        self._ended = False

    def begin(self) -> Self:
        """Take what is said in this context from now on."""
        if not settled():
            install()
        self._token = target.set(self)
        return self

    def end(self) -> None:
        """Take no more; what was active here before is so again."""
        self._ended = True
        if self._token is not None:
            target.reset(self._token)
            self._token = None

    def __enter__(self) -> Self:
        return self.begin()

    def __exit__(self, *exc: object) -> None:
        self.end()

    def write(self, stream: str, text: str) -> None:
        """Take one piece of text; what comes after the end is dropped, since nobody would read it."""
        if self._ended:
            return
        raw = self._raw
        raw.append(LogChunk(stream, text, time()))
        if len(raw) >= _WRITES_MAX or len(text) >= _LONG:
            self._fold()

    def drain(self) -> tuple[LogChunk, ...]:
        """Give what is new since the last call; any thread may ask."""
        if not self._raw and self._kept is None:
            return ()
        with self._lock:
            return tuple(_merged(self._fold().fresh(ended=self._ended)))

    def text(self) -> str:
        """Give all that was said so far, drained or not."""
        with self._lock:
            return "".join(chunk.text for chunk in _merged(self._fold().all()))

    def _fold(self) -> _Kept:
        with self._lock:
            if self._kept is None:
                self._kept = _Kept(self._limit)
            # Writers append meanwhile: take what is counted here, and no more.
            count = len(self._raw)
            taken = self._raw[:count]
            del self._raw[:count]
            for chunk in _merged(taken):
                self._kept.take(chunk)
            return self._kept


class _Kept:
    """The head and the tail of what was written."""

    __slots__ = (
        "_drained",
        "_head",
        "_head_room",
        "_left_out",
        "_shown",
        "_tail",
        "_tail_length",
        "_tail_room",
    )

    def __init__(self, limit: int) -> None:
        self._head: list[LogChunk] = []
        self._head_room = limit // 2
        self._tail: deque[LogChunk] = deque()
        self._tail_room = limit - limit // 2
        self._tail_length = 0
        self._left_out = 0
        #: How many chunks of the head were given by ``fresh``, and whether the rest was.
        self._drained = 0
        self._shown = False

    def take(self, chunk: LogChunk) -> None:
        text = chunk.text
        if self._head_room:
            self._head.append(chunk._replace(text=text[: self._head_room]))
            text = text[self._head_room :]
            self._head_room -= len(self._head[-1].text)
        if text:
            self._tail.append(chunk._replace(text=text))
            self._tail_length += len(text)
            self._trim()

    def _trim(self) -> None:
        while self._tail and (excess := self._tail_length - self._tail_room) > 0:
            first = self._tail.popleft()
            if len(first.text) > excess:
                self._tail.appendleft(first._replace(text=first.text[excess:]))
            cut = min(excess, len(first.text))
            self._tail_length -= cut
            self._left_out += cut

    def fresh(self, *, ended: bool) -> list[LogChunk]:
        chunks = self._head[self._drained :]
        self._drained = len(self._head)
        if ended and not self._shown:
            self._shown = True
            chunks += self._rest()
        return chunks

    def all(self) -> list[LogChunk]:
        return self._head + self._rest()

    def _rest(self) -> list[LogChunk]:
        if not self._left_out:
            return list(self._tail)
        mark = f"\n… [truncated: {self._left_out:,} characters left out] …\n"
        at = self._tail[0].at if self._tail else self._head[-1].at if self._head else 0.0
        return [LogChunk("log", mark, at), *self._tail]


def _merged(chunks: Iterable[LogChunk]) -> Iterable[LogChunk]:
    for stream, group in groupby(chunks, key=itemgetter(0)):
        written = list(group)
        text = "".join([chunk.text for chunk in written])
        if not text.isascii():
            # A lone surrogate, as in a file's undecodable name, is what no store can write.
            text = text.encode("utf-8", "backslashreplace").decode()
        if text:
            yield LogChunk(stream, text, written[0].at)
