"""Stand-ins for ``sys.stdout``, ``sys.stderr`` and logging that hand a job's text to its capture; know no capture.

They are put in place once and ask a ContextVar where text belongs: to what is the target in this context, else to
what was there before. So text of a job never lands in the cell of a stranger, and prints of everybody else go
where they always went. Limits, each of which only a child process lifts:

- Threads that a job starts by itself have a context of their own and are not captured, unless they run in
  ``contextvars.copy_context().run``.
- What bypasses ``sys.stdout`` is not captured: ``os.write(1, ...)``, programs that a job starts.
- Whoever replaces ``sys.stdout`` for a while (``%%capture``, ``redirect_stdout``) replaces it for jobs that are
  running as well; the next job that begins is captured again.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, TextIO, cast

__all__ = ["Sink", "install", "settled", "target", "uninstall"]


class Sink(Protocol):
    """What takes what a job says."""

    #: Its open figures by number, as pyplot keeps them; None before the first.
    figures: OrderedDict[Any, Any] | None

    def write(self, stream: str, text: str) -> None:
        """Take one piece of the text of "stdout", "stderr" or "log"."""

    def show(
        self, data: Mapping[str, Any], metadata: Mapping[str, Any], *, display_id: str, update: bool
    ) -> None:
        """Take one display, by MIME type."""

    def clear(self, *, wait: bool) -> None:
        """Clear what was shown so far, now or when there is something new to show."""


#: Where what is said in this context goes, None for where it always went.
target: ContextVar[Sink | None] = ContextVar("nbqueue_target", default=None)

_root = logging.getLogger()
_installing = threading.Lock()


class _Stream:
    """Stands in for ``sys.stdout`` or ``sys.stderr``.

    No subclass of an ``io`` class: those have methods of their own, which would hide the original's.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self.replaced: TextIO | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "replaced":  # while it is being made
            raise AttributeError(name)
        return getattr(self.replaced, name)

    def __repr__(self) -> str:
        return f"<nbqueue stand-in for {self.replaced!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (sys, self._stream)

    def write(self, text: str) -> int:
        sink = target.get()
        if sink is None:
            return self.replaced.write(text) if self.replaced is not None else len(text)
        if type(text) is not str:
            if not isinstance(text, str):
                msg = f"write() argument must be str, not {type(text).__name__}"
                raise TypeError(msg)
            text = str(text)
        sink.write(self._stream, text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if target.get() is None and self.replaced is not None:
            self.replaced.flush()

    def close(self) -> None:
        if target.get() is None and self.replaced is not None:
            self.replaced.close()

    def isatty(self) -> bool:
        return target.get() is None and self.replaced is not None and self.replaced.isatty()

    def fileno(self) -> int:
        return cast("int", self.__getattr__("fileno")())

    @property
    def encoding(self) -> str:
        return "utf-8" if target.get() is not None else cast("str", self.__getattr__("encoding"))

    @property
    def buffer(self) -> Any:
        sink = target.get()
        return self.__getattr__("buffer") if sink is None else _Bytes(sink, self._stream)


class _Bytes:
    """The ``buffer`` of a captured stream, for those who print bytes."""

    def __init__(self, sink: Sink, stream: str) -> None:
        self._sink = sink
        self._stream = stream

    def write(self, data: bytes | bytearray | memoryview) -> int:
        view = bytes(data)
        self._sink.write(self._stream, view.decode("utf-8", "replace"))
        return len(view)

    def flush(self) -> None:
        pass


class _JobLog(logging.Handler):
    """Puts the records of a captured context into its capture."""

    def createLock(self) -> None:  # noqa: N802 - the name is logging's
        self.lock = None  # an append needs none

    def handle(self, record: logging.LogRecord) -> bool:
        # The inherited one locks, and since Python 3.13 does not ask whether there is a lock.
        kept = self.filter(record)
        if kept:
            # Since Python 3.12 a filter may give another record in place of this one.
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        sink = target.get()
        if sink is None or _written_anyway(record):
            return
        try:
            sink.write("log", self.format(record) + "\n")
        except Exception:
            self.handleError(record)


class _LastResort(_JobLog):
    """Is asked where nobody configured logging; outside of a job it asks its predecessor."""

    predecessor: logging.Handler | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        if target.get() is not None:
            return super().handle(record)
        if self.predecessor is None or record.levelno < self.predecessor.level:
            return False
        return bool(self.predecessor.handle(record))


def _written_anyway(record: logging.LogRecord) -> bool:
    """Whether a handler of the user's writes this record to a stream that is captured."""
    return any(
        isinstance(getattr(handler, "stream", None), _Stream) and record.levelno >= handler.level
        for handler in _root.handlers
        if not isinstance(handler, _JobLog)
    )


_job_log = _JobLog()
_last_resort = _LastResort()
for _handler in (_job_log, _last_resort):
    _handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))


def install() -> None:
    """Put the stand-ins in their places; does nothing where they are. A capture that begins calls it."""
    with _installing:
        # In one statement each: no other thread can come between reading and replacing.
        if type(sys.stdout) is not _Stream:
            out = _Stream("stdout")
            face = cast("TextIO", out)
            out.replaced, sys.stdout = sys.stdout, face
            _lead_handlers(out.replaced, face)
        if type(sys.stderr) is not _Stream:
            err = _Stream("stderr")
            face = cast("TextIO", err)
            err.replaced, sys.stderr = sys.stderr, face
            _lead_handlers(err.replaced, face)
        _install_logging()


def uninstall() -> None:
    """Put back what was there before ``install``; a capture that begins later installs anew."""
    with _installing:
        if isinstance(sys.stdout, _Stream):
            _lead_handlers(sys.stdout, sys.stdout.replaced)
            sys.stdout = sys.stdout.replaced
        if isinstance(sys.stderr, _Stream):
            _lead_handlers(sys.stderr, sys.stderr.replaced)
            sys.stderr = sys.stderr.replaced
        _root.removeHandler(_job_log)
        if logging.lastResort is _last_resort:
            logging.lastResort = cast("Any", _last_resort.predecessor)


def settled() -> bool:
    """Whether everything is in its place; asked before every job, so it is quick."""
    handlers = _root.handlers
    return (
        type(sys.stdout) is _Stream
        and type(sys.stderr) is _Stream
        and (_job_log in handlers and len(handlers) > 1 if handlers else logging.lastResort is _last_resort)
    )


def _install_logging() -> None:
    # The root gets our handler only where it has others: alone, it would make logging.basicConfig() do nothing.
    others = [handler for handler in _root.handlers if handler is not _job_log]
    if others:
        _root.addHandler(_job_log)
    else:
        _root.removeHandler(_job_log)
    if logging.lastResort is not _last_resort:
        _last_resort.predecessor = logging.lastResort
        logging.lastResort = cast("Any", _last_resort)


def _lead_handlers(old: object, new: TextIO | None) -> None:
    """Let the root's handlers that were bound to ``old`` write to ``new``: a job's records are the job's."""
    for handler in _root.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is old and new is not None:
            handler.setStream(new)
