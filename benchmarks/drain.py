"""How many no-op jobs a second: nbqueue, Huey on SQLite, and a ThreadPoolExecutor, four threads each.

nbqueue and Huey find their jobs in a file: with nbqueue every claim is on disk before its job runs, and every
completion before it counts. The pool keeps nothing; what is measured of it is handing in and running, as it begins at
once. So it shows what the threads themselves can do.

After that a process drains a queue of as many jobs and is killed with SIGKILL the moment drain() returns; the file is
opened again and its jobs are counted. A job that is missing ends this with an error. Slowness is no error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE
from benchmarks.beside.huey import THREADS, huey
from benchmarks.harness import Figure, Ratio, forget, rounds, timed
from benchmarks.script import Script, Size, scratch

BAR_HUEY, BAR_POOL = 10.0, 0.4


class Drain:
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
        self.nbqueue = Figure("nbqueue", "jobs/s")
        self.huey = Figure("Huey, SQLite", "jobs/s")
        self.pool = Figure("ThreadPoolExecutor, nothing kept", "jobs/s")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.nbqueue, self.huey, self.pool]

    def _file(self, ending: str) -> Path:
        self._files += 1
        return self._folder / f"{self._files}.{ending}"

    def run_nbqueue(self) -> None:
        """Run what was dispatched before."""
        with nbq.connect(self._file("duckdb")) as queues:
            queues.dispatch_many([NOTHING] * self.jobs)
            worker = queues.worker(concurrency=THREADS)
            seconds = timed(lambda: worker.start().drain(PATIENCE))
            worker.stop()
            _check(queues, self.jobs)
        self.nbqueue.values.append(self.jobs / seconds)

    def run_huey(self) -> None:
        """The same."""
        with huey(self._file("sqlite")) as queue:
            queue.enqueue(self.jobs)
            self.huey.values.append(self.jobs / queue.drain(self.jobs))

    def run_pool(self) -> None:
        """The same without a queue."""

        def run() -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in range(self.jobs):
                    pool.submit(_nothing)

        self.pool.values.append(self.jobs / timed(run))

    def measure(self, count: int, console: Console) -> None:
        """Warm up with a tenth of the jobs, then run so many rounds."""
        subjects = {"nbqueue": self.run_nbqueue, "Huey": self.run_huey, "ThreadPoolExecutor": self.run_pool}
        jobs, self.jobs = self.jobs, max(1, self.jobs // 10)
        rounds(1, subjects, console)
        forget(self.figures)
        self.jobs = jobs
        rounds(count, subjects, console)

    def killed(self) -> int:
        """Give how many jobs have succeeded in a file whose process was killed when drain() had returned."""
        path = self._file("duckdb")
        command = [sys.executable, "-m", "benchmarks.drain", "--die", str(path), "--jobs", str(self.jobs)]
        ended = subprocess.run(command, cwd=Path(__file__).parents[1], check=False)
        if ended.returncode != -signal.SIGKILL:
            raise RuntimeError(f"the process to be killed ended with {ended.returncode} before")
        with nbq.connect(path) as queues:
            return _check(queues, self.jobs)

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        return [
            Ratio.between("nbqueue / Huey", self.nbqueue, self.huey, BAR_HUEY),
            Ratio.between("nbqueue / ThreadPoolExecutor", self.nbqueue, self.pool, BAR_POOL),
        ]


def _nothing() -> None:
    pass


def _check(queues: nbq.QueueManager, jobs: int) -> int:
    succeeded = int(queues.stats()["succeeded"].sum())
    if succeeded != jobs:
        raise RuntimeError(f"{succeeded:,} of {jobs:,} jobs have succeeded")
    return succeeded


def _die(path: str, jobs: int) -> None:
    with nbq.connect(path) as queues:
        queues.dispatch_many([NOTHING] * jobs)
        queues.worker(concurrency=THREADS).start().drain(PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/drain.json``."""
    sizes = (
        Size("jobs", 100_000, 20_000, "no-op jobs a round"),
        Size("rounds", 5, 3, "how often everything is measured"),
    )
    script = Script("drain", __doc__, sizes, ("duckdb", "huey"))
    script.parser.add_argument("--die", metavar="PATH", help="drain this file and be killed")
    given = script.read(arguments)
    if given.die:
        _die(given.die, given.jobs)
    with scratch() as folder:
        bench = Drain(given.jobs, folder)
        bench.measure(given.rounds, script.console)
        found = Ratio(
            "jobs that ended before a kill -9, found after it", float(bench.killed()), given.jobs, unit=""
        )
    title = f"{given.jobs:,} no-op jobs, {THREADS} threads, {given.rounds} rounds"
    return script.report(given, title, bench.figures, [*bench.ratios, found])


if __name__ == "__main__":
    raise SystemExit(main())
