"""What it costs to be a guest: calls and jobs in the process that holds the file and in one that joined; take-overs.

A take-over is measured from ``kill -9`` of the owner to the end of the next dispatch in a process that goes on, with
three processes on the file: whoever is first takes it, and that process is not always this one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console

import nbqueue as nbq
from benchmarks.harness import Figure, Ratio, machine, rounds, show, timed, write

THREADS = 4


@nbq.command("nothing")
def no_op() -> None:
    """Do nothing."""


NOTHING = nbq.QueuedCommand("nothing")


def hold(path: str) -> None:
    """Be another process on the file until there is no more input."""
    with nbq.connect(path):
        print("ready", flush=True)
        sys.stdin.read()


def another(path: Path) -> subprocess.Popen[str]:
    """Start another process on the file."""
    command = [sys.executable, "-m", "benchmarks.sharing", "--hold", str(path)]
    root = Path(__file__).parents[1]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    assert child.stdout is not None
    child.stdout.readline()
    return child


class Sharing:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        A round.
    calls : int
        How often a single call is measured a round.
    folder : Path
        Where the files go.
    """

    def __init__(self, jobs: int, calls: int, folder: Path) -> None:
        self.jobs, self.calls, self._folder = jobs, calls, folder
        self._files = 0
        kinds = ("look at queues", "ms"), ("dispatch", "ms"), ("dispatch_many", "jobs/s"), ("run", "jobs/s")
        self.owner, self.guest = (
            {name: Figure(f"{who}: {name}", unit) for name, unit in kinds} for who in ("owner", "guest")
        )
        self.take_over = Figure("take-over", "ms")

    def _file(self) -> Path:
        self._files += 1
        return self._folder / f"{self._files}.duckdb"

    def as_owner(self) -> None:
        """Hold the file here."""
        with nbq.connect(self._file()) as queues:
            self._measure(queues, self.owner)

    def as_guest(self) -> None:
        """Join another process."""
        path = self._file()
        with _ended(another(path)), nbq.connect(path) as queues:
            assert not queues.owner.here
            self._measure(queues, self.guest)

    def _measure(self, queues: nbq.QueueManager, figures: dict[str, Figure]) -> None:
        figures["look at queues"].values.append(self._each(queues.queues))
        figures["dispatch"].values.append(self._each(partial(queues.dispatch, NOTHING)))
        many = [NOTHING] * self.jobs
        figures["dispatch_many"].values.append(self.jobs / timed(lambda: queues.dispatch_many(many)))
        worker = queues.worker(concurrency=THREADS)
        figures["run"].values.append(self.jobs / timed(worker.start().drain))
        worker.stop()

    def _each(self, call: Callable[[], object]) -> float:
        call()
        return median(timed(call) for _ in range(self.calls)) * 1e3

    def kill_owners(self, times: int) -> None:
        """Kill owner after owner."""
        path = self._file()
        first = another(path)
        children = {child.pid: child for child in (first, another(path))}
        while len(self.take_over.values) < times:
            with nbq.connect(path) as queues:
                while not queues.owner.here and len(self.take_over.values) < times:
                    owner = children.pop(queues.owner.pid)
                    began = time.perf_counter()
                    owner.kill()
                    queues.dispatch(NOTHING)
                    self.take_over.values.append((time.perf_counter() - began) * 1e3)
                    owner.communicate()
                    child = another(path)
                    children[child.pid] = child
            # One of the children has it now.
            time.sleep(0.5)
        for child in children.values():
            child.communicate("")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        pairs = zip(self.owner.values(), self.guest.values(), strict=True)
        return [*(figure for pair in pairs for figure in pair), self.take_over]

    @property
    def ratios(self) -> list[Ratio]:
        """What it costs to be a guest."""
        return [
            Ratio(f"guest / owner: {name}", self.guest[name].median / self.owner[name].median)
            for name in self.owner
        ]


@contextmanager
def _ended(child: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        child.communicate("")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/sharing.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--jobs", type=int, default=10_000, help="no-op jobs a round (10,000)")
    parser.add_argument("--calls", type=int, default=300, help="single calls a round (300)")
    parser.add_argument("--kills", type=int, default=20, help="owners killed (20)")
    parser.add_argument("--hold", metavar="PATH", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.hold:
        hold(given.hold)
        return 0
    console = Console()
    with tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as folder:
        os.environ["NBQUEUE_DATA_DIR"] = folder
        bench = Sharing(given.jobs, given.calls, Path(folder))
        rounds(given.rounds, {"owner": bench.as_owner, "guest": bench.as_guest}, console)
        bench.kill_owners(given.kills)
    title = (
        f"{given.jobs:,} no-op jobs, {THREADS} threads, {given.rounds} rounds, {given.kills} owners killed"
    )
    show(title, bench.figures, bench.ratios, console)
    about = {"jobs": given.jobs, "rounds": given.rounds, "threads": THREADS, "kills": given.kills}
    path = write("sharing", {**about, **machine("nbqueue", "duckdb")}, bench.figures, bench.ratios)
    console.print(f"written to {path}", style="dim", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
