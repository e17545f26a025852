"""persist-queue and litequeue, on SQLite: they keep messages and have no workers, so a loop takes and acknowledges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.beside.peer import Missing
from benchmarks.harness import timed

__all__ = ["Messages", "lite_queue", "needed", "persist_queue"]


def needed(module: str, package: str) -> Any:
    """Give a module; Missing if its package is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Missing(f"{package}, which is not installed") from error


class Messages(NamedTuple):
    """A queue of messages, by its own calls; its defaults."""

    put: Callable[[str], object]
    #: Takes one, and says that it is done.
    take: Callable[[], object]

    def enqueue(self, jobs: int) -> None:
        """Put so many messages."""
        for _ in range(jobs):
            self.put("nothing")

    def drain(self, jobs: int) -> float:
        """Take so many; gives the seconds."""

        def run() -> None:
            for _ in range(jobs):
                self.take()

        return timed(run)


@contextmanager
def persist_queue(path: Path) -> Iterator[Messages]:
    """Give an empty queue of persist-queue that wants acknowledgements, closed in the end; its files in a folder."""
    queue = needed("persistqueue", "persist-queue").SQLiteAckQueue(str(path))
    try:
        yield Messages(queue.put, lambda: queue.ack(queue.get(block=False)))
    finally:
        queue.close()


@contextmanager
def lite_queue(path: Path) -> Iterator[Messages]:
    """Give an empty queue of litequeue, closed in the end; its file."""
    queue = needed("litequeue", "litequeue").LiteQueue(str(path))
    try:
        yield Messages(queue.put, lambda: queue.done(queue.pop().message_id))
    finally:
        queue.conn.close()
