"""The streams of a child: what Python, C code and a crash write there is written at once; knows no job."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

__all__ = ["flush", "is_connected", "is_whole", "set_up"]


def flush() -> None:
    """Write out what C code has printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if _libc is not None:
        _libc.fflush(None)


def is_whole() -> bool:
    """Whether what is written still arrives: a job may have closed or replaced what it goes through."""
    streams = sys.stdout, sys.stderr
    return streams == _streams and not any(stream.closed for stream in streams) and is_connected()


def is_connected() -> bool:
    """Whether standard output and error are the parent's pipes: a job may send them elsewhere for a while."""
    return _ends() == _pipes


def _ends() -> list[int]:
    try:
        return [os.fstat(descriptor).st_ino for descriptor in (1, 2)]
    except OSError:
        return []


_libc: Any = None
_streams: tuple[Any, ...] = ()
_pipes: list[int] = []


def set_up() -> None:
    """Have text written at once, and by lines what C code prints: what a job has said is there however it ends."""
    global _libc, _pipes, _streams  # noqa: PLW0603 - a process has one of each
    _streams, _pipes = (sys.stdout, sys.stderr), _ends()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    import faulthandler

    # Where it was when it crashed, for its log.
    faulthandler.enable(all_threads=False)
    with contextlib.suppress(Exception):
        import ctypes

        _libc = ctypes.CDLL(None)
        _libc.setvbuf(ctypes.c_void_p.in_dll(_libc, "stdout"), None, 1, 0)
