"""The later looks of a panel that stays open, on a queue with a history: at rest, while jobs run, and while many do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS
from benchmarks.harness import Figure, Ratio, timed
from nbqueue.widgets.panel.panel import Panel

__all__ = ["LaterLooks"]

#: Seconds from one look of a panel to its next, and from one job to the next where nobody is in a hurry.
EVERY, APART = 0.25, 0.02
BURST = 5_000


@nbq.job
def now_and_then(number: int) -> None:
    """Fail each tenth time."""
    if number % 10 == 0:
        raise KeyError(number)


class LaterLooks:
    """The figures, and what measures them.

    Parameters
    ----------
    looks : int
        Of each kind, a round.
    """

    def __init__(self, looks: int) -> None:
        self._looks = looks
        self._kinds: dict[str, Callable[[nbq.QueueManager, nbq.Worker, Panel], list[float]]] = {
            "right after opening": self._opening,
            "while 50 jobs a second run": self._running,
            f"after {BURST:,} jobs": self._bursts,
            "while a backlog is drained": self._drained,
        }
        self._typical = {kind: Figure(f"panel, a look {kind}", "ms") for kind in self._kinds}
        self._dearest = {kind: Figure(f"the dearest look {kind}", "ms") for kind in self._kinds}

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [
            one for pair in zip(self._typical.values(), self._dearest.values(), strict=True) for one in pair
        ]

    def ratios(self, bar: float) -> list[Ratio]:
        """Hold them against a bar."""
        return [Ratio.of(one, bar, at_most=True) for one in self._typical.values()]

    def run(self, path: Path) -> None:
        """Open a queue and its panel, and take all looks."""
        with nbq.connect(path) as queues, queues.worker(concurrency=THREADS) as worker:
            panel = queues.panel()
            for kind, take in self._kinds.items():
                taken = take(queues, worker, panel)
                self._typical[kind].values.append(median(taken))
                self._dearest[kind].values.append(max(taken))
            panel.close()

    def _opening(self, _queues: nbq.QueueManager, _worker: nbq.Worker, panel: Panel) -> list[float]:
        # What the first look left: rows, failures, waits, and the minutes before.
        return [_look(panel) for _ in range(self._looks)]

    def _running(self, queues: nbq.QueueManager, _worker: nbq.Worker, panel: Panel) -> list[float]:
        with _again_and_again(lambda number: queues.dispatch(now_and_then.call(number)), APART):
            return [_look(panel) for _ in range(self._looks)]

    def _bursts(self, queues: nbq.QueueManager, worker: nbq.Worker, panel: Panel) -> list[float]:
        taken = []
        for _ in range(self._looks):
            queues.dispatch_many([now_and_then.call(number) for number in range(BURST)])
            worker.drain(PATIENCE)
            taken.append(_look(panel))
        return taken

    def _drained(self, queues: nbq.QueueManager, _worker: nbq.Worker, panel: Panel) -> list[float]:
        with _again_and_again(lambda _number: queues.dispatch_many([NOTHING] * BURST), EVERY):
            return [_look(panel) for _ in range(self._looks)]


def _look(panel: Panel) -> float:
    """Wait for as long as a panel does, and look; gives the milliseconds of the look."""
    time.sleep(EVERY)
    return timed(panel.refresh) * 1e3


@contextmanager
def _again_and_again(work: Callable[[int], object], apart: float) -> Iterator[None]:
    """Have a thread do this all the while."""
    over = threading.Event()

    def loop() -> None:
        number = 0
        while not over.wait(apart):
            work(number)
            number += 1

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
