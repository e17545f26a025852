"""Whether a queue stays as fast as it fills: claims beside a long backlog and a long history, opening, and room.

1. Claim and completion of a job, both on disk and brought into the tables, with many jobs pending, with many finished,
   and with a thousand; of jobs that were dispatched since the file was opened, and of jobs that were found in it, whose
   arguments have to be read.
   The store is driven by a worker that runs nothing, a hundred jobs at a time, so that the store alone is measured.
2. A process opens the file with the many pending jobs: how long until it has claimed one, and how much memory that is.
3. The size of a file of finished no-op jobs, which a worker really ran, after a checkpoint.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS
from benchmarks.harness import Figure, Ratio, forget, rounds
from benchmarks.history import write_history
from benchmarks.script import Script, Size, scratch
from nbqueue.jobs import Claim
from nbqueue.lifecycle import Outcome
from nbqueue.store import Report, ReportKind
from nbqueue.testing import FakeWorker

#: Jobs a sample, and with how many the others are compared.
FEW = 1_000
#: Jobs a turn of the worker.
TURN = 100
BAR_FLAT, BAR_OPEN, BAR_MEMORY, BAR_ROOM = 1.3, 4.0, 500.0, 100.0
MEBIBYTE = 1 << 20


class Flat:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        How many are many.
    folder : Path
        Where the files go.
    stack : ExitStack
        Closes them.
    """

    def __init__(self, jobs: int, folder: Path, stack: ExitStack) -> None:
        self.many = jobs
        self._folder = folder
        self._pending, self._found = folder / "pending.duckdb", folder / "found.duckdb"
        self.claims = {
            name: Figure(f"claim and complete, {what}", "µs a job")
            for name, what in (
                ("few", f"{FEW:,} pending"),
                ("pending", f"{jobs:,} pending"),
                ("finished", f"{jobs:,} finished"),
                ("few found", f"{FEW:,} found on opening"),
                ("found", f"{jobs:,} found on opening"),
            )
        }
        self.open = Figure(f"open {jobs:,} pending, claim one", "s")
        self.memory = Figure("memory of the process that did", "MiB")
        self.more = Figure("of which the queue takes", "MiB")
        self.room: list[Figure] = []
        # The backlog is written first, and opened by others before it is used here.
        with nbq.connect(self._pending) as queues:
            queues.dispatch_many([NOTHING] * jobs)
        self._stack = stack
        self._queues: dict[str, nbq.QueueManager] = {}

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [*self.claims.values(), self.open, self.memory, self.more, *self.room]

    def open_again(self) -> None:
        """Open the backlog in a process of its own."""
        command = [sys.executable, "-m", "benchmarks.flat", "--open", str(self._pending)]
        root = Path(__file__).parents[1]
        said = json.loads(subprocess.run(command, cwd=root, check=True, capture_output=True).stdout)
        self.open.values.append(said["seconds"])
        self.memory.values.append(said["after"] / MEBIBYTE)
        self.more.values.append((said["after"] - said["before"]) / MEBIBYTE)

    def prepare(self) -> None:
        """Open the backlog here, make another one and a history, and a file with next to nothing."""
        history = self._folder / "history.duckdb"
        write_history(history, self.many)
        for name, path in (
            ("found", self._pending),
            ("finished", history),
            ("few", self._folder / "few.duckdb"),
            ("pending", self._folder / "backlog.duckdb"),
        ):
            self._queues[name] = self._stack.enter_context(nbq.connect(path))
        self._queues["pending"].dispatch_many([NOTHING] * self.many)

    @property
    def subjects(self) -> dict[str, Callable[[], object]]:
        """What a round of claims consists of."""
        return {name: partial(self._sample, name) for name in self.claims}

    def _sample(self, name: str) -> None:
        figure = self.claims[name]
        if name == "few found":
            with nbq.connect(self._found) as queues:
                queues.dispatch_many([NOTHING] * FEW)
            with nbq.connect(self._found) as queues:
                figure.values.append(_claim_and_complete(queues))
            return
        if name != "found":  # as many come as go
            self._queues[name].dispatch_many([NOTHING] * FEW)
        figure.values.append(_claim_and_complete(self._queues[name]))

    def fill(self, jobs: int) -> None:
        """Run so many jobs in a file of their own, and look how large it is."""
        path = self._folder / f"room-{jobs}.duckdb"
        with nbq.connect(path) as queues:
            queues.dispatch_many([NOTHING] * jobs)
            worker = queues.worker(concurrency=THREADS)
            worker.start().drain(PATIENCE)
            worker.stop()
        # Closing it made a checkpoint; what a log would hold counts too.
        size = sum(file.stat().st_size for file in self._folder.glob(f"{path.name}*"))
        self.room.append(Figure(f"file of {jobs:,} finished jobs", "bytes a job", [size / jobs]))

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        between = Ratio.between
        return [
            *(
                between(
                    f"{self.many:,} {what} / {FEW:,}",
                    self.claims[name],
                    self.claims[few],
                    BAR_FLAT,
                    at_most=True,
                )
                for what, name, few in (
                    ("pending", "pending", "few"),
                    ("finished", "finished", "few"),
                    ("found on opening", "found", "few found"),
                )
            ),
            between(f"{FEW:,} found on opening / {FEW:,}", self.claims["few found"], self.claims["few"]),
            Ratio.of(self.open, BAR_OPEN, at_most=True),
            Ratio.of(self.memory, BAR_MEMORY, at_most=True),
            *(Ratio.of(one, BAR_ROOM, at_most=True) for one in self.room),
        ]


def _claim_and_complete(queues: nbq.QueueManager) -> float:
    """Take a thousand jobs and end them, until the tables have it; gives the microseconds a job."""
    worker = FakeWorker(queues.store, lease=PATIENCE)
    # What waits in the journal comes into the tables a quarter of a second later, in the middle of another's sample:
    # whichever came third was half as slow again. So each sample begins with nothing waiting, and leaves nothing.
    queues.store.query("SELECT 1")
    begun = perf_counter()
    claims = worker.turn(slots=TURN).claims
    for _ in range(FEW // TURN - 1):
        claims = worker.turn(*map(_ended, claims), slots=TURN).claims
    worker.turn(*map(_ended, claims))
    worker.leave()
    queues.store.query("SELECT 1")
    seconds = perf_counter() - begun
    return seconds / FEW * 1e6


def _ended(claim: Claim) -> Report:
    return Report(claim, ReportKind.ENDED, Outcome.SUCCEEDED)


def _open(path: str) -> None:
    """Open a queue, claim a job, and say how long that took and how much memory there is before and after."""
    import psutil

    this = psutil.Process()
    before, begun = this.memory_info().rss, perf_counter()
    with nbq.connect(path) as queues:
        worker = FakeWorker(queues.store)
        claim = worker.take_one()
        seconds, after = perf_counter() - begun, this.memory_info().rss
        worker.end(claim)
    print(json.dumps({"seconds": seconds, "before": before, "after": after}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/flat.json``."""
    sizes = (
        Size("jobs", 1_000_000, 200_000, "how many are many, in steps of 1,000"),
        Size("room", 1_000_000, 100_000, "finished jobs of the largest file whose size is taken"),
        Size("opens", 5, 3, "how often the file is opened"),
        Size("rounds", 31, 11, "how often jobs are claimed and completed"),
    )
    script = Script("flat", __doc__, sizes, ("duckdb",))
    script.parser.add_argument("--open", metavar="PATH", help="open this file and claim a job")
    given = script.read(arguments)
    if given.open:
        _open(given.open)
        return 0
    with scratch() as folder, ExitStack() as stack:
        bench = Flat(given.jobs, folder, stack)
        rounds(given.opens, {"open": bench.open_again}, script.console)
        for jobs in sorted({min(given.room, 100_000), given.room}):
            rounds(1, {f"fill with {jobs:,}": partial(bench.fill, jobs)}, script.console)
        bench.prepare()
        rounds(1, bench.subjects, script.console)
        forget(bench.claims.values())
        rounds(given.rounds, bench.subjects, script.console)
    title = f"{given.jobs:,} jobs against {FEW:,}, {given.rounds} rounds, opened {given.opens} times"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
