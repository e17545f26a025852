"""What one attempt wrote, within a number of characters: its beginning and its end; knows nothing of displays."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from nbqueue.store import LogChunk

__all__ = ["Kept", "merged"]


class Kept:
    """The head and the tail of what was written; whoever calls it holds a lock.

    Parameters
    ----------
    limit : int
        In characters: half of it is the head's.
    """

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
        """Take one more chunk."""
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

    def count(self) -> int:
        """How many chunks there are at the beginning: where a display stands in it."""
        return len(self._head)

    def fresh(self, place: int | None = None, *, ended: bool = False) -> list[LogChunk]:
        """Give what is new, up to a place."""
        chunks = self._head[self._drained : place]
        self._drained += len(chunks)
        if ended and not self._shown:
            self._shown = True
            chunks += self._rest()
        return chunks

    def all(self) -> list[LogChunk]:
        """Give everything, given before or not."""
        return self._head + self._rest()

    def _rest(self) -> list[LogChunk]:
        if not self._left_out:
            return list(self._tail)
        mark = f"\n… [truncated: {self._left_out:,} characters left out] …\n"
        at = self._tail[0].at if self._tail else self._head[-1].at if self._head else 0.0
        return [LogChunk("log", mark, at), *self._tail]


def merged(chunks: Iterable[LogChunk]) -> Iterable[LogChunk]:
    """Make one chunk of consecutive ones of a stream."""
    for stream, group in groupby(chunks, key=itemgetter(0)):
        written = list(group)
        text = "".join([chunk.text for chunk in written])
        if not text.isascii():
            # A lone surrogate, as in a file's undecodable name, is what no store can write.
            text = text.encode("utf-8", "backslashreplace").decode()
        if text:
            yield LogChunk(stream, text, written[0].at)
