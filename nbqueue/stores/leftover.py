"""The journal that a file was left with: what it has that the file has not, and whether it goes with it at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nbqueue.errors import QueueUnavailable
from nbqueue.stores.journal import Found, journal_path, read_journal
from nbqueue.stores.writes import Writes

if TYPE_CHECKING:
    import duckdb

__all__ = ["left_in", "waiting_in"]


def left_in(path: Path, meta: Mapping[str, int]) -> Found | None:
    """Give the journal that a file was left with, and refuse one that does not go with it."""
    file, folded = journal_path(path), meta["folded"]
    found = read_journal(file, folded)
    if found is None:
        return None
    if found.identity == meta["journal_before"]:
        return found._replace(frames=[])  # the file has them all
    if found.identity != meta["journal"]:
        raise QueueUnavailable(
            f"{file} does not belong to {path} as it is now: one of them was replaced, by a copy or by another"
            " queue's. Put back the one that it was with, or move the journal away, and with it what was"
            " handed in last"
        )
    if found.frames and found.frames[0].number != folded + 1:
        raise QueueUnavailable(
            f"{path} is damaged: it ends before {file.name} goes on, so a part of it or of its log was lost, or"
            " an older copy was put in its place; put a copy of all three back, or move the journal away, and"
            " with it what was handed in last"
        )
    return found


def waiting_in(con: duckdb.DuckDBPyConnection, path: Path) -> list[Writes]:
    """Give what a file's journal has that the file has not.

    Raises
    ------
    QueueUnavailable
        If the journal belongs to another file, or to another copy of this one.
    """
    found = left_in(path, dict(con.execute("SELECT name, value FROM meta").fetchall()))
    return [Writes.read(frame.body.decode()) for frame in found.frames] if found is not None else []
