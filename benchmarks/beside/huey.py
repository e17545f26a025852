"""Huey on SQLite: its own consumer with thread workers, its defaults."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.beside.peer import PATIENCE, Countdown
from benchmarks.harness import timed

__all__ = ["Huey", "huey"]

THREADS = 4
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Huey:
    """One queue of Huey, in a file.

    Parameters
    ----------
    path : Path
        Where it keeps its jobs.
    fsync : bool, optional
        Whether a job is on disk when it is handed in; by default Huey leaves that to SQLite's own settings.
    """

    def __init__(self, path: Path, *, fsync: bool | None = None) -> None:
        from huey import SqliteHuey  # type: ignore[import-untyped]

        logging.getLogger("huey").setLevel(logging.WARNING)
        self._huey = SqliteHuey(filename=str(path), fsync=fsync)
        self._left = Countdown(0)
        self._task = self._huey.task()(self._no_op)
        self._answer = self._huey.task()(_one)

    def _no_op(self) -> None:
        self._left.count()

    def enqueue(self, jobs: int) -> None:
        """Hand in so many jobs."""
        for _ in range(jobs):
            self._task()

    def drain(self, jobs: int) -> float:
        """Run them in four threads; gives the seconds."""
        self._left = Countdown(jobs)
        with self._consumer() as start:
            return timed(lambda: (start(), self._left.wait()))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Have workers, for round trips."""
        with self._consumer() as start:
            start()
            yield

    @contextmanager
    def _consumer(self) -> Iterator[Callable[[], None]]:
        consumer = self._huey.create_consumer(workers=THREADS)
        # It takes the process's signals, and keeps them.
        before = {one: signal.getsignal(one) for one in _SIGNALS}
        try:
            yield consumer.start
        finally:
            consumer.stop(graceful=True)
            for one, handler in before.items():
                signal.signal(one, handler)

    def round_trip(self) -> None:
        """Hand in a job and wait for its result, looking for it all the time."""
        if self._answer().get(blocking=True, timeout=PATIENCE, backoff=1.0, max_delay=0.0001) != 1:
            raise RuntimeError("Huey gave another result")

    def close(self) -> None:
        """Let go of the file."""
        self._huey.storage.close()


def _one() -> int:
    return 1


@contextmanager
def huey(path: Path, *, fsync: bool | None = None) -> Iterator[Huey]:
    """Give an empty queue of Huey, closed in the end."""
    opened = Huey(path, fsync=fsync)
    try:
        yield opened
    finally:
        opened.close()
