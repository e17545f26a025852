"""What nbqueue costs while nothing happens: an idle worker with an open panel, alone and beside a cell that computes.

1. The processor time of a process with a worker of four threads that has nothing to do and a panel that is shown, as a
   part of one core: once what opening has set going (a checkpoint, the panel's look back) has come to rest, and from a
   second after it was opened.
2. A loop in pure Python beside that worker and panel, and alone, in one process on one core. A machine's speed drifts
   by more than what is looked for, and what ran just before matters. So before each loop the same is done: worker and
   panel are opened (and, where it is to run alone, closed again), a second passes, and a part of the loop runs
   that does not count. What comes first changes from round to round, in all six orders. Each round has it
   alone twice: where those differ, this measurement cannot tell. Beside the time that passes stands the processor time
   of the loop's own thread.

All of it happens in a process of its own, since a progress bar takes half a percent of a core by itself. The panel
lives there without a front end: what it would send goes nowhere. ``python -m benchmarks.panel`` measures it in
JupyterLab.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from itertools import cycle, permutations
from pathlib import Path

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS
from benchmarks.harness import Figure, Ratio, forget, rounds
from benchmarks.script import Script, Size, scratch

BAR_IDLE, BAR_SLOWER = 0.5, 1.03
#: How long an answer to the last job may take, and how long what was set going by opening takes to come to rest.
ANSWERED, RESTED = 1.0, 10.0
ALONE, BESIDE, AGAIN = KINDS = "alone", "beside an idle worker and an open panel", "alone again"
#: Such a part of a loop runs before it: the first slices after a change are slower by up to a tenth.
WARM = 5


class Idle:
    """The figures, and the process in which they are measured.

    Parameters
    ----------
    seconds : float
        How long it is watched while it is idle.
    steps : int
        Of the loop.
    folder : Path
        Where its file goes.
    """

    def __init__(self, seconds: float, steps: int, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.idle", "--in", str(folder)]
        pipe, root = subprocess.PIPE, Path(__file__).parents[1]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root)
        self._seconds, self._steps = seconds, steps
        self._orders = cycle(permutations(KINDS))
        self.idle = Figure("idle worker and open panel", "% of a core")
        self.opened = Figure("the same, right after opening", "% of a core")
        self.passed = {kind: Figure(f"loop {kind}", "ms") for kind in KINDS}
        self.spent = {kind: Figure(f"processor time of the loop {kind}", "ms") for kind in KINDS}

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.idle, self.opened, *self.passed.values(), *self.spent.values()]

    def watch(self) -> None:
        """Have it wait, and see what that took."""
        opened, idle = self._ask("watch", self._seconds)
        self.opened.values.append(opened)
        self.idle.values.append(idle)

    def loop(self) -> None:
        """Have it compute, alone and beside, in the next order."""
        for kind in next(self._orders):
            passed, spent = self._ask("beside" if kind == BESIDE else "alone", self._steps)
            self.passed[kind].values.append(passed)
            self.spent[kind].values.append(spent)

    def _ask(self, what: str, much: float) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(what, much, file=self._process.stdin, flush=True)
        return [float(word) for word in self._process.stdout.readline().split()]

    def close(self) -> None:
        """End the process: nobody tells it anything any more."""
        self._process.communicate()

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        return [
            Ratio.of(self.idle, BAR_IDLE, at_most=True),
            Ratio.of(self.opened, BAR_IDLE, at_most=True),
            _slower("loop beside / alone", self.passed, BESIDE, BAR_SLOWER),
            _slower("its processor time beside / alone", self.spent, BESIDE, BAR_SLOWER),
            _slower("loop alone again / alone", self.passed, AGAIN),
            _slower("its processor time alone again / alone", self.spent, AGAIN),
        ]


def _slower(name: str, figures: dict[str, Figure], kind: str, bar: float | None = None) -> Ratio:
    return Ratio.between(name, figures[kind], figures[ALONE], bar, at_most=True)


def _serve(path: Path) -> None:
    """Do what comes in line by line, on one core, and say what it took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kinds = {
        "watch": _watch,
        "alone": partial(_compute, alone=True),
        "beside": partial(_compute, alone=False),
    }
    for line in sys.stdin:
        what, much = line.split()
        print(*kinds[what](float(much), path), flush=True)


def _watch(seconds: float, path: Path) -> list[float]:
    with _opened(path):
        begun = time.perf_counter()
        opened = _load(seconds)
        time.sleep(max(0.0, min(RESTED, 10 * seconds) - (time.perf_counter() - begun)))
        return [opened, _load(seconds)]


def _compute(steps: float, path: Path, *, alone: bool) -> tuple[float, float]:
    if alone:
        with _opened(path):
            pass
        time.sleep(ANSWERED)
    with nullcontext() if alone else _opened(path):
        _loop(int(steps) // WARM)
        return _loop(int(steps))


def _load(seconds: float) -> float:
    """How much of a core this process takes, in percent."""
    before, begun = time.process_time(), time.perf_counter()
    time.sleep(seconds)
    return (time.process_time() - before) / (time.perf_counter() - begun) * 100


def _loop(steps: int) -> tuple[float, float]:
    """Compute; gives the milliseconds that passed, and those that this thread was running."""
    begun, before = time.perf_counter(), time.thread_time()
    total = 0
    for number in range(steps):
        total += number & 7
    return (time.perf_counter() - begun) * 1e3, (time.thread_time() - before) * 1e3


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    """A worker that has worked and now rests, and a panel that is seen and shows what there is."""
    with nbq.connect(path) as queues, queues.worker(concurrency=THREADS):
        panel = queues.panel()
        panel.wake()
        panel.set_state({"_view_count": 1})
        queues.dispatch(NOTHING).result(PATIENCE)
        time.sleep(ANSWERED)
        if panel.closed or not panel.state["queues"][0]["succeeded"]:
            raise RuntimeError("the panel does not show what there is")
        try:
            yield
        finally:
            panel.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/idle.json``."""
    sizes = (
        Size("seconds", 30.0, 15.0, "how long an idle process is watched"),
        Size("watches", 3, 1, "how often"),
        Size("steps", 10_000_000, 10_000_000, "of the loop"),
        Size("rounds", 24, 6, "how often the loop runs, in steps of 6"),
    )
    script = Script("idle", __doc__, sizes, ("duckdb", "anywidget", "ipywidgets"))
    script.parser.add_argument(
        "--in", dest="folder", type=Path, help="do what is asked for, with a file in there"
    )
    given = script.read(arguments)
    if given.folder:
        _serve(given.folder / "queue.duckdb")
        return 0
    with scratch() as folder, closing(Idle(given.seconds, given.steps, folder)) as bench:
        rounds(1, {"loop": bench.loop}, script.console)
        forget(bench.figures)
        rounds(given.rounds, {"loop": bench.loop}, script.console)
        rounds(given.watches, {"idle": bench.watch}, script.console)
    title = f"{given.seconds:g} s of idling, a loop of {given.steps:,} steps, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
