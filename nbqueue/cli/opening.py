"""Opens the queue that a command is about, and says which one that is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nbqueue.cli import terminal
from nbqueue.cli.shift import say
from nbqueue.errors import QueueUnavailable
from nbqueue.facade.manager import QueueConfig, QueueManager, connect

__all__ = ["opened"]


@contextlib.contextmanager
def opened(url: str | None, *, make: bool = False) -> Iterator[QueueManager]:
    """Open a queue and say where it is; make its file only where work may be put into it."""
    config = QueueConfig.read(url)
    if not make and not config.is_there():
        raise QueueUnavailable(
            f"there is no queue {config.shown}; name another with --db or $NBQUEUE_URL,"
            " or make one with nbqueue dispatch or nbqueue work"
        )
    with connect(config) as queues:
        say(terminal.opening(queues))
        yield queues
