"""What nbqueue costs while nothing happens: an idle worker with an open panel, alone and beside a cell that computes.

1. The processor time of a process with a worker of four threads that has nothing to do and a panel that is shown, as a
   part of one core: once what opening has set going (a checkpoint, the panel's look back) has come to rest, and from a
   second after it was opened.
2. A loop in pure Python beside that worker and panel, and alone. Three processes on one core take turns by slices of
   some 10 ms, in all orders, so that a machine whose speed drifts hits all alike. One has worker and panel open; two
   have had them, and closed them again: where those two differ, this measurement cannot tell. The loop makes no
   objects, since how fast Python makes them depends on where the first of them happen to lie: two processes that
   do the same differ by a third then, for as long as they live. Each round has new processes.

The processes are their own, since a progress bar takes half a percent of a core by itself. The panel lives there
without a front end: what it would send goes nowhere. ``python -m benchmarks.panel`` measures it in JupyterLab.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle, islice, permutations, repeat
from pathlib import Path
from statistics import fmean

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS
from benchmarks.harness import Figure, Ratio, rounds
from benchmarks.script import Script, Size, scratch

BAR_IDLE, BAR_SLOWER = 0.5, 1.03
#: How long an answer to the last job may take, and how long what was set going by opening takes to come to rest.
ANSWERED, RESTED = 1.0, 10.0
ALONE, BESIDE, AGAIN = KINDS = "alone", "beside an idle worker and an open panel", "alone again"
STEPS = 400_000


class Idle:
    """The figures, and the processes in which they are measured.

    Parameters
    ----------
    seconds : float
        How long one is watched while it is idle.
    slices : int
        Of the loop, a round, in each process.
    folder : Path
        Where their files go.
    """

    def __init__(self, seconds: float, slices: int, folder: Path) -> None:
        self._seconds, self._slices, self._folder = seconds, slices, folder
        self.idle = Figure("idle worker and open panel", "% of a core")
        self.opened = Figure("the same, right after opening", "% of a core")
        self.passed = {kind: Figure(f"a slice of a loop {kind}", "ms") for kind in KINDS}
        self.spent = {kind: Figure(f"processor time of a slice {kind}", "ms") for kind in KINDS}

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.idle, self.opened, *self.passed.values(), *self.spent.values()]

    def watch(self) -> None:
        """Have one wait, and see what that took."""
        with closing(_Child("watched", self._folder)) as child:
            child.answer()
            before, begun = child.ask(), time.perf_counter()
            time.sleep(self._seconds)
            self.opened.values.append(_share(before, child.ask(), begun))
            time.sleep(max(0.0, min(RESTED, 10 * self._seconds) - (time.perf_counter() - begun)))
            before, begun = child.ask(), time.perf_counter()
            time.sleep(self._seconds)
            self.idle.values.append(_share(before, child.ask(), begun))

    def loop(self) -> None:
        """Have them compute, slice by slice."""
        with ExitStack() as ending:
            children = {kind: ending.enter_context(closing(_Child(kind, self._folder))) for kind in KINDS}
            for child in children.values():
                child.answer()
            time.sleep(min(RESTED, 10 * self._seconds))
            slices: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
            for order in islice(cycle(permutations(KINDS)), self._slices):
                for kind in order:
                    slices[kind].append(children[kind].ask())
        for kind, found in slices.items():
            self.passed[kind].values.append(fmean(passed for passed, _ in found))
            self.spent[kind].values.append(fmean(spent for _, spent in found))

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


class _Child:
    """A process of one kind; asked, it computes, or says how much processor time it has taken.

    Parameters
    ----------
    kind : str
        "watched", or one of ``KINDS``.
    folder : Path
        Where its file goes.
    """

    _made = 0

    def __init__(self, kind: str, folder: Path) -> None:
        _Child._made += 1
        path = folder / f"{_Child._made}.duckdb"
        command = [sys.executable, "-m", "benchmarks.idle", "--in", str(path), "--kind", kind]
        pipe, root = subprocess.PIPE, Path(__file__).parents[1]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root)

    def ask(self) -> list[float]:
        """Have it do what it is there for."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return self.answer()

    def answer(self) -> list[float]:
        """Wait for what it says; at first, for nothing, when it is ready."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that was measured ended with {self._process.wait()}")
        return [float(word) for word in line.split()]

    def close(self) -> None:
        """End it: nobody tells it anything any more."""
        self._process.communicate()


def _share(before: Sequence[float], after: Sequence[float], begun: float) -> float:
    """How much of a core was taken, in percent."""
    return (after[0] - before[0]) / (time.perf_counter() - begun) * 100


def _slower(name: str, figures: dict[str, Figure], kind: str, bar: float | None = None) -> Ratio:
    return Ratio.between(name, figures[kind], figures[ALONE], bar, at_most=True)


def _serve(path: Path, kind: str) -> None:
    """Be the process that is measured: answer line by line, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with ExitStack() as opened:
        if kind in (ALONE, AGAIN):
            with _opened(path):
                pass
        else:
            opened.enter_context(_opened(path))
        print(flush=True)
        for _ in sys.stdin:
            print(*((time.process_time(),) if kind == "watched" else _loop()), flush=True)


def _loop() -> tuple[float, float]:
    """Compute; gives the milliseconds that passed, and those that this thread was running."""
    begun, before = time.perf_counter(), time.thread_time()
    total = 0
    for _ in repeat(None, STEPS):
        total = (total ^ 5) & 7
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
        Size("seconds", 30.0, 10.0, "how long an idle process is watched"),
        Size("watches", 3, 1, "how often"),
        Size("slices", 120, 60, "of the loop, a round, in each process"),
        Size("rounds", 7, 2, "how often the loop runs, in new processes"),
    )
    script = Script("idle", __doc__, sizes, ("duckdb", "anywidget", "ipywidgets"))
    script.parser.add_argument("--in", dest="path", type=Path, help="be measured, with this file")
    script.parser.add_argument("--kind", choices=("watched", *KINDS), help="as what")
    given = script.read(arguments)
    if given.path:
        _serve(given.path, given.kind)
        return 0
    with scratch() as folder:
        bench = Idle(given.seconds, given.slices, folder)
        rounds(given.rounds, {"loop": bench.loop}, script.console)
        rounds(given.watches, {"idle": bench.watch}, script.console)
    title = f"{given.seconds:g} s of idling, {given.slices} slices of {STEPS:,} steps, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
