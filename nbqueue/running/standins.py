"""Stand-ins for ``sys.stdout`` and ``sys.stderr`` that hand a job's text to its capture; know no capture.

They are put in place once and ask a ContextVar where text belongs: to what is the target in this context, else to
what is there for everybody. So text of a job never lands in the cell of a stranger, and prints of everybody else go
where they always went. Whoever replaces ``sys.stdout`` for a while (``redirect_stdout``, ``%%capture``) replaces it for
himself: a job for this job, everybody else for everybody but the jobs. To know which of them it is, ``sys`` gets a
class of its own, whose properties these streams are. Limits, each of which only a child process lifts:

- Threads that a job starts by itself have a context of their own and are not captured, unless they run in
  ``contextvars.copy_context().run``.
- What bypasses the streams of ``sys`` is not captured: ``os.write(1, ...)``, programs that a job starts.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Protocol, TextIO, cast

__all__ = ["Sink", "install", "is_screen", "settled", "target", "uninstall"]


class Sink(Protocol):
    """What takes what a job says."""

    #: Its open figures by number, as pyplot keeps them; None before the first.
    figures: OrderedDict[Any, Any] | None
    #: What it has put in the place of "stdout" and "stderr" for itself; None before the first.
    streams: dict[str, Any] | None

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

_installing = threading.Lock()
# What interpreters print to is read from here, past all properties.
_sys: dict[str, Any] = vars(sys)


class _Stream:
    """Stands in for one stream, whoever holds it: what a job writes is its sink's, the rest is the stream's.

    No subclass of an ``io`` class: those have methods of their own, which would hide the original's.
    """

    def __init__(self, stream: str, replaced: TextIO | None) -> None:
        self._stream = stream
        self.replaced = replaced

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


class _Place:
    """What ``sys`` holds as one of its streams: leads to the one that is there in this context.

    Only the interpreter sees it. Whoever reads ``sys.stdout`` is given what it leads to, so that what he puts in its
    place may write to it.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self.everybodys: Any = None
        #: The newest stand-in that was everybody's: a job's, until it puts another there.
        self.jobs: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.here(), name)

    def here(self) -> Any:
        """What is there in this context."""
        sink = target.get()
        if sink is None:
            return self.everybodys
        return self.jobs if sink.streams is None else sink.streams.get(self._stream, self.jobs)

    def put(self, stream: Any) -> None:
        """Put this there: a job for itself, everybody else for everybody but the jobs."""
        if type(stream) is _Place:
            # Read past the properties, as ``unittest.mock.patch`` does, and now put back.
            stream = stream.jobs
        sink = target.get()
        if sink is None:
            self.everybodys = stream
            self.settle()
        elif sink.streams is None:
            sink.streams = {self._stream: stream}
        else:
            sink.streams[self._stream] = stream

    def settle(self) -> None:
        """Give jobs the stand-in that is everybody's, if it is one."""
        if type(self.everybodys) is _Stream:
            self.jobs = self.everybodys

    def stand_in(self) -> None:
        """Have a stand-in be everybody's."""
        if type(self.everybodys) is not _Stream:
            self.everybodys = _Stream(self._stream, self.everybodys)
        self.settle()

    def write(self, text: str) -> int:
        sink = target.get()
        if sink is not None and sink.streams is None and type(text) is str:
            sink.write(self._stream, text)  # as its stand-in would: by far the most
            return len(text)
        here = self.here()
        return len(text) if here is None else cast("int", here.write(text))

    def flush(self) -> None:
        here = self.here()
        if here is not None:
            here.flush()


_out, _err = _places = _Place("stdout"), _Place("stderr")


def _placed(place: _Place) -> Any:
    return property(lambda _: place.here(), lambda _, stream: place.put(stream))


def _original(name: str, place: _Place) -> Any:
    """A stream that the interpreter began with; of a job it is the job's."""

    def read(_: ModuleType) -> Any:
        return _sys[name] if target.get() is None else place.jobs

    return property(read, lambda _, stream: _sys.__setitem__(name, stream))


class _Module(type):
    """What others take the class of ``sys`` for: that of all modules."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, ModuleType)


class _Sys(ModuleType, metaclass=_Module):
    """The class of ``sys`` while something may be captured, and of no other module."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # importlib makes every module by type(sys), and one of them may have a ``stdout`` of its own.
        return ModuleType(*args, **kwargs)

    stdout = _placed(_out)
    stderr = _placed(_err)
    __stdout__ = _original("__stdout__", _out)
    __stderr__ = _original("__stderr__", _err)

    def __reduce__(self) -> tuple[Any, ...]:
        # Code that names it may be pickled by those who know plain modules alone.
        return __import__, ("sys",)


def install() -> None:
    """Put the stand-ins in their places; does nothing where they are. A capture that begins calls it."""
    with _installing:
        for name, place in zip(("stdout", "stderr"), _places, strict=True):
            if _sys[name] is not place:
                place.everybodys = _sys[name]
            place.stand_in()
            _sys[name] = place
        sys.__class__ = _Sys


def uninstall() -> None:
    """Put back what was there before ``install``; a capture that begins later installs anew."""
    with _installing:
        sys.__class__ = ModuleType
        for name, place in zip(("stdout", "stderr"), _places, strict=True):
            if _sys[name] is place:
                stream = place.everybodys
                _sys[name] = stream.replaced if type(stream) is _Stream else stream


def settled() -> bool:
    """Whether everything is in its place; asked before every job, so it is quick."""
    return (
        _sys["stdout"] is _out
        and _sys["stderr"] is _err
        and type(_out.everybodys) is _Stream
        and type(_err.everybodys) is _Stream
        and type(sys) is _Sys
    )


def is_screen(stream: object) -> bool:
    """Whether what is written there is for whoever looks at this process, as cells are."""
    screens = [_sys["__stdout__"], _sys["__stderr__"]]
    for place in _places:
        screens += [place.everybodys, getattr(place.everybodys, "replaced", None)]
    return type(stream) is _Stream or (stream is not None and any(stream is one for one in screens))
