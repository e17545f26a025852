"""An error's traceback as its user wants to read it: from the handler on, and with the names of notebook cells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from traceback import TracebackException

from nbqueue.running.displays import shell

__all__ = ["of"]

TRACEBACK_MAX = 100_000
_HERE = str(Path(__file__).parent.parent) + os.sep


def of(error: BaseException) -> str:
    """Give the traceback from the handler on, without the frames that called it.

    A cell's code is compiled under the name of a file that does not exist. The shell knows which cell that was, so a
    frame of one reads ``Cell In[3], line 2``.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    read = TracebackException(type(error), error, trace or error.__traceback__)
    cells = {name for one in _chained(read) if (name := _name_cells(one))}
    text = "".join(read.format())
    for cell in set().union(*cells):
        text = text.replace(f'File "{cell}"', cell)
    if len(text) <= TRACEBACK_MAX:
        return text
    half = TRACEBACK_MAX // 2
    return f"{text[:half]}\n… [{len(text) - TRACEBACK_MAX:,} characters left out] …\n{text[-half:]}"


def _chained(read: TracebackException) -> Iterator[TracebackException]:
    """This error and all that led to it or are in it."""
    todo = [read]
    while todo:
        one = todo.pop()
        yield one
        more = (one.__cause__, one.__context__, *(one.exceptions or ()))
        todo += [other for other in more if other is not None]


def _name_cells(read: TracebackException) -> frozenset[str]:
    """Name the frames that are cells as such; gives the names."""
    name = getattr(getattr(shell(), "compile", None), "format_code_name", None)
    if name is None:
        return frozenset()
    cells = set()
    for frame in read.stack:
        found = name(frame.filename)
        if found is not None:
            # Its line was read when the frame was, so nobody asks for the file any more.
            frame.filename = " ".join(found)
            cells.add(frame.filename)
    return frozenset(cells)
