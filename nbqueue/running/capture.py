"""What one attempt of a job says, in order and within bounds; knows no job and no store."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextvars import Token
from time import time
from typing import Any, Self

from nbqueue.payload import bundles
from nbqueue.running import grafts, records, standins
from nbqueue.running.kept import Kept, merged
from nbqueue.running.shown import DISPLAY_MAX, DISPLAYS_MAX, Display, Shown
from nbqueue.running.standins import Sink, settled, target
from nbqueue.store import OUTPUT, LogChunk

__all__ = ["CHARACTERS_MAX", "Capture", "active", "install", "uninstall"]

#: So much of one attempt's text is kept, half of it from the beginning and half from the end.
CHARACTERS_MAX = 1_000_000
# Fold what was written into chunks after so many writes, or at once for so long a text: bounds what waits.
_WRITES_MAX = 512
_LONG = 16_384

grafts.want(records.GRAFTS)


def active() -> Sink | None:
    """Give the capture that takes what is said in this context, None where nothing is captured."""
    return target.get()


def install() -> None:
    """Put everything that captures in its place; does nothing where it is. A capture that begins calls it."""
    # The stand-ins last: by them it is told whether all is in its place.
    grafts.install()
    standins.install()


def uninstall() -> None:
    """Put back what was there; a capture that begins later installs anew."""
    standins.uninstall()
    grafts.uninstall()


class Capture:
    """What one attempt says and displays, in order, within bounds.

    Parameters
    ----------
    limit : int
        In characters of text; of what goes beyond it the middle is left out, and a mark says how much.
    displays : int
        In bytes of displays, the same way.
    largest : int
        Of one display.
    key : Callable[[], bytes], optional
        Gives the user's secret, to sign displays that could run something where they are shown.
    owner : object
        Whose the displays are, as text: the signature is good for it alone.

    Notes
    -----
    A write takes no lock: one ``list.append``. What goes beyond the first half of a limit comes out of
    ``drain`` when the capture has ended, since only then it is known what is left out.

    Example
    -------
    >>> with Capture() as said:
    ...     print("two lines,")
    ...     print("one chunk")
    >>> [(chunk.stream, chunk.text.split()) for chunk in said.drain()]
    [('stdout', ['two', 'lines,', 'one', 'chunk'])]
    """

    __slots__ = (
        *("_bounds", "_ended", "_kept", "_key", "_limit", "_lock", "_owner", "_raw", "_shown", "_token"),
        *("figures", "streams"),
    )

    def __init__(
        self,
        limit: int = CHARACTERS_MAX,
        displays: int = DISPLAYS_MAX,
        largest: int = DISPLAY_MAX,
        *,
        key: Callable[[], bytes] | None = None,
        owner: object = "",
    ) -> None:
        self._limit = limit
        self._bounds = displays, largest
        self._key = key
        self._owner = owner
        self._shown: Shown | None = None
        #: What pyplot has open in this context.
        self.figures: OrderedDict[Any, Any] | None = None
        #: What it put in the place of "stdout" and "stderr" in this context.
        self.streams: dict[str, Any] | None = None
        self._raw: list[LogChunk] = []
        self._kept: Kept | None = None
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

    def show(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any],
        *,
        display_id: str = "",
        update: bool = False,
    ) -> None:
        """Take one display, by MIME type; what comes after the end is dropped."""
        if self._ended:
            return
        text = bundles.write(
            data, metadata, display_id=display_id, update=update, key=self._key, context=str(self._owner)
        )
        self.take(text, display_id=display_id, update=update)

    def take(self, text: str, *, display_id: str = "", update: bool = False) -> None:
        """Take one display as its JSON text."""
        if self._ended:
            return
        with self._lock:
            place = self._fold().count()
            display = Display(text, time(), place, display_id=display_id, update=update)
            self._displays().show(display)

    def clear(self, *, wait: bool = False) -> None:
        """Clear what was said and shown so far, now or when there is something new."""
        if self._ended:
            return
        with self._lock:
            place = self._fold().count()
            self._displays().clear(time(), place, wait=wait)

    def drain(self) -> tuple[LogChunk, ...]:
        """Give what is new since the last call; any thread may ask."""
        if not self._raw and self._kept is None:
            return ()
        with self._lock:
            kept = self._fold()
            if self._shown is None:
                return tuple(merged(kept.fresh(ended=self._ended)))
            chunks: list[LogChunk] = []
            for display in self._shown.fresh():
                chunks += merged(kept.fresh(display.place))
                chunks.append(LogChunk(OUTPUT, display.text, display.at))
            chunks += merged(kept.fresh(ended=self._ended))
            if self._ended:
                chunks += [LogChunk(OUTPUT, display.text, display.at) for display in self._shown.late()]
            return tuple(chunks)

    def text(self) -> str:
        """Give all that was said so far, drained or not."""
        with self._lock:
            return "".join(chunk.text for chunk in merged(self._fold().all()))

    def _displays(self) -> Shown:
        if self._shown is None:
            self._shown = Shown(*self._bounds)
        return self._shown

    def _fold(self) -> Kept:
        with self._lock:
            if self._shown is not None and self._raw:
                self._shown.settle()
            if self._kept is None:
                self._kept = Kept(self._limit)
            # Writers append meanwhile: take what is counted here, and no more.
            count = len(self._raw)
            taken = self._raw[:count]
            del self._raw[:count]
            for chunk in merged(taken):
                self._kept.take(chunk)
            return self._kept
