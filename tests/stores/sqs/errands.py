"""A process that works on an SQS queue and notes in a file what it ran; killed by the tests that start it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbqueue as nbq

_notes = Path(sys.argv[2])


def _note(text: str) -> None:
    with _notes.open("a") as file:
        file.write(f"{text}\n")


@nbq.command("note")
def note(number: int) -> None:
    """Run for a moment, so that others get their share."""
    time.sleep(0.02)
    _note(f"{number} {os.getpid()}")


@nbq.command("hang")
def hang() -> None:
    """Note that it began; of the first process that runs it, it never ends."""
    first = "hang" not in _notes.read_text()
    _note(f"hang {os.getpid()}")
    while first:
        time.sleep(60.0)


if __name__ == "__main__":
    queues = nbq.connect(sys.argv[1])
    _note(f"interrupted {len(queues.interrupted)} {os.getpid()}")
    with queues.worker(concurrency=2):
        sys.stdin.read()
