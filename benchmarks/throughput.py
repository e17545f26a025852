"""How many no-op jobs a second, and how long one takes: nbqueue, Huey on SQLite, and a ThreadPoolExecutor.

All of them run the same number of no-op jobs in four threads of this process. nbqueue and Huey find them in a file and
keep them there: with nbqueue every claim is on disk before its job runs, and every completion before it counts.
The pool keeps nothing, so it shows what the threads themselves can do.

Slowness is no error: the exit code is 0 whenever everything ran.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
from rich.console import Console

import nbqueue as nbq
from benchmarks.harness import Figure, Ratio, machine, rounds, show, timed, typical, write

THREADS = 4
#: How many times Huey it should be at least.
BAR_HUEY = 5.0


@nbq.job
def no_op() -> None:
    """Do nothing."""


class Throughput:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        A round.
    calls : int
        How often a single dispatch or round trip is measured a round.
    folder : Path
        Where the files go.
    """

    def __init__(self, jobs: int, calls: int, folder: Path) -> None:
        self.jobs, self.calls, self._folder = jobs, calls, folder
        self._files = 0
        self.nbqueue = Figure("nbqueue: run", "jobs/s")
        self.dispatch_many = Figure("nbqueue: dispatch_many", "jobs/s")
        self.huey = Figure("Huey on SQLite: run", "jobs/s")
        self.huey_enqueue = Figure("Huey on SQLite: enqueue", "jobs/s")
        self.pool = Figure("ThreadPoolExecutor", "jobs/s")
        self.dispatch = Figure("nbqueue: one dispatch", "ms")
        self.insert = Figure("bare DuckDB INSERT", "ms")
        self.round_trip = Figure("nbqueue: dispatch to result", "ms")

    def _file(self, ending: str) -> Path:
        self._files += 1
        return self._folder / f"{self._files}.{ending}"

    def run_nbqueue(self) -> None:
        """Dispatch all, then run all."""
        with nbq.connect(self._file("duckdb")) as queues:
            calls = [no_op.call() for _ in range(self.jobs)]
            self.dispatch_many.values.append(self.jobs / timed(lambda: queues.dispatch_many(calls)))
            worker = queues.worker(concurrency=THREADS)
            seconds = timed(worker.start().drain)
            worker.stop()
            succeeded = int(queues.stats()["succeeded"].sum())
        if succeeded != self.jobs:
            msg = f"nbqueue ran {succeeded:,} of {self.jobs:,} jobs"
            raise RuntimeError(msg)
        self.nbqueue.values.append(self.jobs / seconds)

    def run_huey(self) -> None:
        """The same with Huey: its own consumer with four thread workers, its defaults."""
        from huey import SqliteHuey  # type: ignore[import-untyped]

        huey = SqliteHuey(filename=str(self._file("sqlite")))
        ran = _Countdown(self.jobs)
        task = huey.task()(ran.count)

        def enqueue() -> None:
            for _ in range(self.jobs):
                task()

        self.huey_enqueue.values.append(self.jobs / timed(enqueue))
        consumer = huey.create_consumer(workers=THREADS)

        def run() -> None:
            consumer.start()
            ran.wait()

        self.huey.values.append(self.jobs / timed(run))
        consumer.stop(graceful=True)
        huey.storage.close()

    def run_pool(self) -> None:
        """The same without a queue."""

        def run() -> None:
            with ThreadPoolExecutor(THREADS) as pool:
                for _ in range(self.jobs):
                    pool.submit(no_op)

        self.pool.values.append(self.jobs / timed(run))

    def run_single(self) -> None:
        """One job after another: what a caller waits for."""
        with nbq.connect(self._file("duckdb")) as queues:
            self.dispatch.values.append(typical(no_op.dispatch, self.calls))
            with queues.worker(queues="quick", concurrency=THREADS):
                quick = no_op.options(queue="quick")
                self.round_trip.values.append(typical(lambda: quick.dispatch().result(60), self.calls))
        path = self._file("duckdb")
        with duckdb.connect(str(path)) as bare:
            bare.execute("CREATE TABLE jobs (id BIGINT, queue VARCHAR, payload VARCHAR)")
            sql = "INSERT INTO jobs VALUES (?, ?, ?)"
            self.insert.values.append(
                typical(lambda: bare.execute(sql, [1, "default", '{"args":[]}']), self.calls)
            )

    def measure(self, count: int, console: Console) -> None:
        """Run so many rounds."""
        subjects = {
            "nbqueue": self.run_nbqueue,
            "Huey on SQLite": self.run_huey,
            "ThreadPoolExecutor": self.run_pool,
            "single calls": self.run_single,
        }
        rounds(count, subjects, console)

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [
            *(self.nbqueue, self.huey, self.pool, self.dispatch_many, self.huey_enqueue),
            *(self.dispatch, self.insert, self.round_trip),
        ]

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        return [
            Ratio("nbqueue / Huey", self.nbqueue.median / self.huey.median, BAR_HUEY),
            Ratio("nbqueue / ThreadPoolExecutor", self.nbqueue.median / self.pool.median),
            Ratio("one dispatch / bare INSERT", self.dispatch.median / self.insert.median),
        ]


class _Countdown:
    """Tells when something was called so many times."""

    def __init__(self, times: int) -> None:
        self._left = times
        self._lock = threading.Lock()
        self._over = threading.Event()

    def count(self) -> None:
        """Be called."""
        with self._lock:
            self._left -= 1
            if not self._left:
                self._over.set()

    def wait(self) -> None:
        """Wait for the last call."""
        self._over.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/throughput.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (5)")
    parser.add_argument("--jobs", type=int, default=20_000, help="no-op jobs a round (20,000)")
    parser.add_argument("--calls", type=int, default=200, help="single dispatches a round (200)")
    given = parser.parse_args(arguments)
    console = Console()
    logging.getLogger("huey").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as folder:
        bench = Throughput(given.jobs, given.calls, Path(folder))
        bench.measure(given.rounds, console)
    title = f"{given.jobs:,} no-op jobs, {THREADS} threads, {given.rounds} rounds"
    show(title, bench.figures, bench.ratios, console)
    about = {"jobs": given.jobs, "rounds": given.rounds, "threads": THREADS}
    path = write("throughput", {**about, **machine("nbqueue", "duckdb", "huey")}, bench.figures, bench.ratios)
    console.print(f"written to {path}", style="dim", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
