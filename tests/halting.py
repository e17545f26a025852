"""Stops a process as Ctrl-Z does, and waits until it has: the signal alone may come after its next answer."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

__all__ = ["halt", "state_of"]

#: Seconds.
_PATIENCE = 20.0


def halt(pid: int) -> None:
    """Stop a process, and wait until none of its threads goes on."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _PATIENCE
    # One that is a zombie has nothing left to stop.
    while any(state_of(stat) not in "TZX" for stat in Path(f"/proc/{pid}/task").glob("*/stat")):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.002)


def state_of(stat: Path) -> str:
    """The letter of a process or thread, as of its file in /proc; X where it has gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
