"""The streams of a child: what Python, C code and a crash write there is written at once; knows no job."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

__all__ = ["flush", "set_up"]


def flush() -> None:
    """Write out what C code has printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if _libc is not None:
        _libc.fflush(None)


_libc: Any = None


def set_up() -> None:
    """Have text written at once, and by lines what C code prints: what a job has said is there however it ends."""
    global _libc  # noqa: PLW0603 - there is one C library
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    import faulthandler

    # Where it was when it crashed, for its log.
    faulthandler.enable(all_threads=False)
    with contextlib.suppress(Exception):
        import ctypes

        _libc = ctypes.CDLL(None)
        _libc.setvbuf(ctypes.c_void_p.in_dll(_libc, "stdout"), None, 1, 0)
