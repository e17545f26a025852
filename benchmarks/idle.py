"""What nbqueue costs while nothing happens: an idle worker with an open panel, alone and beside a cell that computes.

1. The processor time of a process with a worker of four threads that has nothing to do and a panel that is shown, as a
   part of one core.
2. A loop in pure Python, with that worker and panel there and without, in turn in one process.

The panel lives here without a front end: what it would send goes nowhere. ``python -m benchmarks.panel`` measures it in
JupyterLab.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS
from benchmarks.harness import Figure, Ratio, forget, rounds, typical
from benchmarks.script import Script, Size, scratch

BAR_IDLE, BAR_SLOWER = 0.5, 1.03
#: How long what was set going by opening may take to come to rest, seconds; before a loop, and before a watch.
REST, LONG_REST = 1.0, 5.0
#: Short loops in a row, of which the median counts: what else the machine does hits some of them only.
LOOPS = 9


class Idle:
    """The figures, and what measures them.

    Parameters
    ----------
    seconds : float
        How long an idle process is watched.
    steps : int
        Of the loop.
    folder : Path
        Where the file goes.
    """

    def __init__(self, seconds: float, steps: int, folder: Path) -> None:
        self._seconds, self._steps, self._path = seconds, steps, folder / "queue.duckdb"
        self.idle = Figure("idle worker and open panel", "% of a core")
        self.alone = Figure("loop alone", "ms")
        self.beside = Figure("loop beside an idle worker and an open panel", "ms")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.idle, self.alone, self.beside]

    def measure(self, count: int, watches: int, console: Console) -> None:
        """Warm up, run so many rounds of the loop, and watch so often."""
        subjects = {"loop": self.run_alone, "loop beside": self.run_beside}
        rounds(1, subjects, console)
        forget(self.figures)
        rounds(count, subjects, console)
        rounds(watches, {"idle": self.watch}, console)

    def run_alone(self) -> None:
        """Compute."""
        self.alone.values.append(typical(self._loop, LOOPS))

    def run_beside(self) -> None:
        """Compute while others wait."""
        with self._opened(REST):
            self.beside.values.append(typical(self._loop, LOOPS))

    def watch(self) -> None:
        """Wait, and see what that took."""
        with self._opened(LONG_REST):
            before, begun = time.process_time(), time.perf_counter()
            time.sleep(self._seconds)
            spent, seconds = time.process_time() - before, time.perf_counter() - begun
        self.idle.values.append(spent / seconds * 100)

    def _loop(self) -> None:
        total = 0
        for number in range(self._steps):
            total += number & 7

    @contextmanager
    def _opened(self, rest: float) -> Iterator[None]:
        """A worker that has worked and now rests, and a panel that is seen and shows what there is."""
        with nbq.connect(self._path) as queues, queues.worker(concurrency=THREADS):
            panel = queues.panel()
            panel.wake()
            panel.set_state({"_view_count": 1})
            queues.dispatch(NOTHING).result(PATIENCE)
            time.sleep(rest)
            if panel.closed or not panel.state["queues"][0]["succeeded"]:
                raise RuntimeError("the panel does not show what there is")
            try:
                yield
            finally:
                panel.close()

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        return [
            Ratio.of(self.idle, BAR_IDLE, at_most=True),
            Ratio.between("loop beside / alone", self.beside, self.alone, BAR_SLOWER, at_most=True),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/idle.json``."""
    sizes = (
        Size("seconds", 30.0, 15.0, "how long an idle process is watched"),
        Size("watches", 3, 1, "how often"),
        Size("steps", 4_000_000, 1_000_000, "of the loop"),
        Size("rounds", 11, 5, "how often the loop runs"),
    )
    script = Script("idle", __doc__, sizes, ("duckdb", "anywidget", "ipywidgets"))
    given = script.read(arguments)
    with scratch() as folder:
        bench = Idle(given.seconds, given.steps, folder)
        bench.measure(given.rounds, given.watches, script.console)
    title = f"{given.seconds:g} s of idling, a loop of {given.steps:,} steps, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
