"""persist-queue and litequeue, on SQLite: they keep messages and have no workers, so a loop takes and acknowledges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.beside.peer import Missing
from benchmarks.harness import timed

__all__ = ["LiteQueue", "PersistQueue", "lite_queue", "needed", "persist_queue"]


def needed(module: str, package: str) -> Any:
    """Give a module; Missing if its package is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Missing(f"{package}, which is not installed") from error


class PersistQueue:
    """A queue of persist-queue that wants acknowledgements; its defaults.

    Parameters
    ----------
    path : Path
        The folder it keeps its file in.
    """

    def __init__(self, path: Path) -> None:
        self._queue = needed("persistqueue", "persist-queue").SQLiteAckQueue(str(path))

    def enqueue(self, jobs: int) -> None:
        """Put so many messages."""
        for _ in range(jobs):
            self._queue.put("nothing")

    def drain(self, jobs: int) -> float:
        """Get and acknowledge them; gives the seconds."""

        def run() -> None:
            for _ in range(jobs):
                self._queue.ack(self._queue.get(block=False))

        return timed(run)

    def close(self) -> None:
        """Let go of the file."""
        self._queue.close()


class LiteQueue:
    """A queue of litequeue; its defaults.

    Parameters
    ----------
    path : Path
        Its file.
    """

    def __init__(self, path: Path) -> None:
        self._queue = needed("litequeue", "litequeue").LiteQueue(str(path))

    def enqueue(self, jobs: int) -> None:
        """Put so many messages."""
        for _ in range(jobs):
            self._queue.put("nothing")

    def drain(self, jobs: int) -> float:
        """Pop them and say that they are done; gives the seconds."""

        def run() -> None:
            for _ in range(jobs):
                self._queue.done(self._queue.pop().message_id)

        return timed(run)

    def close(self) -> None:
        """Let go of the file."""
        self._queue.conn.close()


@contextmanager
def persist_queue(path: Path) -> Iterator[PersistQueue]:
    """Give an empty queue of persist-queue, closed in the end."""
    opened = PersistQueue(path)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def lite_queue(path: Path) -> Iterator[LiteQueue]:
    """Give an empty queue of litequeue, closed in the end."""
    opened = LiteQueue(path)
    try:
        yield opened
    finally:
        opened.close()
