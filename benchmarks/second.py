"""How many no-op jobs a second a second process runs: through the owner's socket, beside Huey on its SQLite file.

This process holds the file and does nothing else; the worker, with four threads, is in another one, which asks the
owner for jobs and tells it what became of them. Huey's consumer has four threads, too, in the process that measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS, another
from benchmarks.beside.huey import huey
from benchmarks.harness import Figure, Ratio, forget, rounds, timed
from benchmarks.script import Script, Size, scratch

BAR_HUEY = 5.0


class Second:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        A round.
    folder : Path
        Where the files go.
    """

    def __init__(self, jobs: int, folder: Path) -> None:
        self.jobs, self._folder = jobs, folder
        self._files = 0
        self.guest = Figure("nbqueue, by a second process", "jobs/s")
        self.owner = Figure("nbqueue, by the process that holds the file", "jobs/s")
        self.huey = Figure("Huey, SQLite", "jobs/s")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.guest, self.owner, self.huey]

    def _file(self, ending: str) -> Path:
        self._files += 1
        return self._folder / f"{self._files}.{ending}"

    def run_guest(self) -> None:
        """Have another process work off what is dispatched here."""
        path = self._file("duckdb")
        with nbq.connect(path) as queues, another(str(path)) as child:
            queues.dispatch_many([NOTHING] * self.jobs)
            self.guest.values.append(self.jobs / timed(child.work_off))
            _check(queues, self.jobs)

    def run_owner(self) -> None:
        """Work it off here."""
        with nbq.connect(self._file("duckdb")) as queues:
            queues.dispatch_many([NOTHING] * self.jobs)
            worker = queues.worker(concurrency=THREADS)
            self.owner.values.append(self.jobs / timed(lambda: worker.start().drain(PATIENCE)))
            worker.stop()
            _check(queues, self.jobs)

    def run_huey(self) -> None:
        """Have Huey do it."""
        with huey(self._file("sqlite")) as queue:
            queue.enqueue(self.jobs)
            self.huey.values.append(self.jobs / queue.drain(self.jobs))

    def measure(self, count: int, console: Console) -> None:
        """Warm up with a tenth of the jobs, then run so many rounds."""
        subjects = {"guest": self.run_guest, "Huey": self.run_huey, "owner": self.run_owner}
        jobs, self.jobs = self.jobs, max(1, self.jobs // 10)
        rounds(1, subjects, console)
        forget(self.figures)
        self.jobs = jobs
        rounds(count, subjects, console)

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        return [
            Ratio.between("by a second process / Huey", self.guest, self.huey, BAR_HUEY),
            Ratio.between("by a second process / by the owner", self.guest, self.owner),
        ]


def _check(queues: nbq.QueueManager, jobs: int) -> None:
    succeeded = int(queues.stats()["succeeded"].sum())
    if succeeded != jobs:
        raise RuntimeError(f"{succeeded:,} of {jobs:,} jobs have succeeded")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/second.json``."""
    sizes = (
        Size("jobs", 50_000, 10_000, "no-op jobs a round"),
        Size("rounds", 5, 3, "how often everything is measured"),
    )
    script = Script("second", __doc__, sizes, ("duckdb", "huey"))
    given = script.read(arguments)
    with scratch() as folder:
        bench = Second(given.jobs, folder)
        bench.measure(given.rounds, script.console)
    title = f"{given.jobs:,} no-op jobs, {THREADS} threads, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
