"""An error's traceback as its user wants to read it: from the handler on, and with the names of notebook cells."""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from traceback import TracebackException

from nbqueue.running.displays import shell

__all__ = ["cell_name", "learn", "of"]

TRACEBACK_MAX = 100_000
_HERE = str(Path(__file__).parent.parent) + os.sep
#: In a process that runs code of another one's cells: what they are called there.
_told: dict[str, str] = {}


def cell_name(filename: str) -> str | None:
    """Give what the cell is called whose code was compiled under this name; None where it is no cell's."""
    if filename in _told:
        return _told[filename]
    name = getattr(getattr(shell(), "compile", None), "format_code_name", None)
    found = None if name is None else name(filename)
    return None if found is None else " ".join(found)


def learn(cells: Mapping[str, tuple[str, str]]) -> None:
    """Know cells of another process: their names and sources, by the names that their code was compiled under."""
    for filename, (name, source) in cells.items():
        _told[filename] = name
        linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename


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
    cells = set()
    for frame in read.stack:
        found = cell_name(frame.filename)
        if found is not None:
            # Its line was read when the frame was, so nobody asks for the file any more.
            frame.filename = found
            cells.add(found)
    return frozenset(cells)
