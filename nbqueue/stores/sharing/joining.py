"""How a process comes to a queue file: it takes the lock and owns it, or joins whoever has it."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nbqueue.errors import QueueUnavailable
from nbqueue.stores.owner import FileHeldError, Note, Ownership, Standing
from nbqueue.stores.sharing.guest import Guest, OwnerGoneError

__all__ = ["own_or_join"]

T = TypeVar("T")

#: How long who has the file may be in a state in which it cannot be joined, seconds: opening and closing may take a
#: while; one that cannot be reached where it says it is has died, or the note is not written yet.
PATIENCE = {Standing.BUSY: 60.0, Standing.SERVING: 10.0, Standing.ALONE: 0.5}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1


def own_or_join(
    path: Path, own: Callable[[Ownership], T], join: Callable[[Note], Guest], stop: threading.Event
) -> T | Guest:
    """Give what ``own`` makes where nobody has the file, else what ``join`` makes.

    Parameters
    ----------
    path : Path
        The queue file.
    own : callable
        Opens it; it has the lock then, and lets go of it where it fails.
    join : callable
        Goes to whoever has it.
    stop : threading.Event
        Ends the waiting.

    Raises
    ------
    QueueUnavailable
        Where neither is possible; the sentence names who has the file, and why it cannot be joined.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        ownership = Ownership(path)
        try:
            ownership.take()
        except FileHeldError as error:
            held = error
        else:
            return own(ownership)
        note = held.note
        try:
            if note is not None and note.standing is Standing.SERVING:
                return join(note)
        except OwnerGoneError:
            pass
        if time.monotonic() - began > _patience(note):
            raise FileHeldError(path, note, _why(note)) from None
        if stop.wait(pause):
            raise QueueUnavailable(f"{path} was closed here")
        pause = min(2 * pause, _LONGEST_PAUSE)


def _patience(note: Note | None) -> float:
    if note is None:
        return PATIENCE[Standing.SERVING]
    if _is_elsewhere(note):
        return PATIENCE[Standing.ALONE]
    return PATIENCE[note.standing]


def _is_elsewhere(note: Note) -> bool:
    return note.holder.host != platform.node()


def _why(note: Note | None) -> str:
    if note is None:
        return "which does not say how to join it"
    if _is_elsewhere(note):
        return "and a queue file is shared by processes of one machine"
    if note.standing is Standing.BUSY:
        return f"which has been opening or closing it for more than {PATIENCE[Standing.BUSY]:g} s"
    if note.standing is Standing.ALONE:
        return f"which cannot share it ({note.reason})"
    return "which does not answer where it says it does"
