"""One queue, four stores: what a dispatch, a bulk dispatch, the drain and a round trip take in each.

In memory; in a DuckDB file; in that file shared, the worker in a second process through the owner's socket; and on
PostgreSQL, where Procrastinate is measured on the same server in the same rounds. Every job does nothing, every worker
has four threads (Procrastinate: four tasks of one loop), and each round begins with tables that are new.

The server is started in a temporary folder and has PostgreSQL's own settings, unless $NBQUEUE_BENCH_POSTGRES names
another one. Slowness is no error: the exit code is 0 whenever everything ran.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

from rich.console import Console

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS, another
from benchmarks.beside.procrastinate import Procrastinate
from benchmarks.harness import Figure, Ratio, machine, rounds, show, timed, typical, write
from benchmarks.servers import at, fresh_schema, postgres

#: How many times Procrastinate's drain it should be at least.
BAR_PROCRASTINATE = 5.0


class Subject:
    """What is measured of one store.

    Parameters
    ----------
    name : str
        What stands in the table.
    """

    def __init__(self, name: str) -> None:
        self.dispatch = Figure(f"{name}: one dispatch", "ms")
        self.many = Figure(f"{name}: bulk dispatch", "jobs/s")
        self.run = Figure(f"{name}: run", "jobs/s")
        self.round_trip = Figure(f"{name}: round trip", "ms")

    @property
    def figures(self) -> list[Figure]:
        """All that were taken."""
        return [one for one in (self.dispatch, self.many, self.run, self.round_trip) if one.values]


class Stores:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        A round.
    calls : int
        How often a single dispatch or round trip is measured a round.
    folder : Path
        Where the files go.
    server : str
        The URL of a PostgreSQL server.
    """

    def __init__(self, jobs: int, calls: int, folder: Path, server: str) -> None:
        self.jobs, self.calls, self._folder, self._server = jobs, calls, folder, server
        self._files = 0
        self.memory, self.duckdb, self.shared = Subject("memory"), Subject("DuckDB"), Subject("shared")
        self.postgres, self.two = Subject("PostgreSQL"), Subject("PostgreSQL by two")
        self.procrastinate = Subject("Procrastinate")

    def _file(self) -> str:
        self._files += 1
        return str(self._folder / f"{self._files}.duckdb")

    def in_memory(self) -> None:
        """Keep all of it in this process."""
        self._alone(self.memory, ":memory:")

    def in_a_file(self) -> None:
        """Own the file, and work on it."""
        self._alone(self.duckdb, self._file())

    def through_the_owner(self) -> None:
        """Own the file, with the worker in a second process."""
        self._beside(self.shared, self._file())

    def on_postgres(self) -> None:
        """Use a server, alone; then with a second process that works beside this one."""
        with fresh_schema(self._server, "nbqueue") as schema:
            self._alone(self.postgres, at(self._server, schema))
        with fresh_schema(self._server, "nbqueue") as schema:
            url = at(self._server, schema)
            with nbq.connect(url) as queues, another(url) as child:
                queues.dispatch_many([NOTHING] * self.jobs)
                child.begin()
                self._work_off(queues, self.two.run)
                child.ended()

    def on_procrastinate(self) -> None:
        """Use the same server by Procrastinate."""
        figures = self.procrastinate
        with (
            fresh_schema(self._server, "procrastinate") as schema,
            Procrastinate(self._server, schema, THREADS).opened() as other,
        ):
            figures.many.values.append(self.jobs / timed(partial(other.defer_many, self.jobs)))
            other.analyze()
            figures.run.values.append(self.jobs / other.work_off(self.jobs))
            figures.dispatch.values.append(typical(other.defer, self.calls))
            other.work_off(self.calls + 1)
            figures.round_trip.values.append(other.round_trip(self.calls) * 1e3)

    def _alone(self, figures: Subject, url: str) -> None:
        with nbq.connect(url) as queues:
            self._fill(queues, figures.many)
            self._work_off(queues, figures.run)
            later = NOTHING.on_queue("later")
            figures.dispatch.values.append(typical(partial(queues.dispatch, later), self.calls))
            with queues.worker(queues="default", concurrency=THREADS):
                figures.round_trip.values.append(typical(partial(_there_and_back, queues), self.calls))

    def _beside(self, figures: Subject, url: str) -> None:
        with nbq.connect(url) as queues, another(url) as child:
            self._fill(queues, figures.many)
            figures.run.values.append(self.jobs / timed(child.work_off))
            self._check(queues)
            figures.round_trip.values.append(typical(partial(_there_and_back, queues), self.calls))

    def _fill(self, queues: nbq.QueueManager, figure: Figure) -> None:
        many = [NOTHING] * self.jobs
        figure.values.append(self.jobs / timed(lambda: queues.dispatch_many(many)))

    def _work_off(self, queues: nbq.QueueManager, figure: Figure) -> None:
        worker = queues.worker(concurrency=THREADS)
        figure.values.append(self.jobs / timed(lambda: worker.start().drain(PATIENCE)))
        worker.stop()
        self._check(queues)

    def _check(self, queues: nbq.QueueManager) -> None:
        succeeded = int(queues.stats()["succeeded"].sum())
        if succeeded != self.jobs:
            raise RuntimeError(f"{succeeded:,} of {self.jobs:,} jobs have succeeded")

    def measure(self, count: int, console: Console) -> None:
        """Run so many rounds."""
        subjects = {
            "memory": self.in_memory,
            "DuckDB": self.in_a_file,
            "shared": self.through_the_owner,
            "PostgreSQL": self.on_postgres,
            "Procrastinate": self.on_procrastinate,
        }
        rounds(count, subjects, console)

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        subjects = (self.memory, self.duckdb, self.shared, self.postgres, self.two, self.procrastinate)
        return [figure for subject in subjects for figure in subject.figures]

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        mine, theirs = self.postgres, self.procrastinate
        return [
            Ratio("run: PostgreSQL / Procrastinate", mine.run.median / theirs.run.median, BAR_PROCRASTINATE),
            Ratio("bulk dispatch: PostgreSQL / Procrastinate", mine.many.median / theirs.many.median),
            Ratio("run: shared / DuckDB", self.shared.run.median / self.duckdb.run.median),
            Ratio("run: PostgreSQL / DuckDB", mine.run.median / self.duckdb.run.median),
            Ratio("run: PostgreSQL by two processes / by one", self.two.run.median / mine.run.median),
        ]


def _there_and_back(queues: nbq.QueueManager) -> None:
    queues.dispatch(NOTHING).result(PATIENCE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/stores.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--jobs", type=int, default=3_000, help="no-op jobs a round (3,000)")
    parser.add_argument("--calls", type=int, default=100, help="single calls a round (100)")
    given = parser.parse_args(arguments)
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as name,
        patch.dict(os.environ, NBQUEUE_DATA_DIR=name),
        postgres(Path(name)) as server,
    ):
        bench = Stores(given.jobs, given.calls, Path(name), server)
        bench.measure(given.rounds, console)
    title = f"{given.jobs:,} no-op jobs, {THREADS} threads, {given.rounds} rounds"
    show(title, bench.figures, bench.ratios, console)
    about = {"jobs": given.jobs, "rounds": given.rounds, "threads": THREADS, "calls": given.calls}
    packages = machine("nbqueue", "duckdb", "psycopg", "procrastinate")
    path = write("stores", {**about, **packages}, bench.figures, bench.ratios)
    console.print(f"written to {path}", style="dim", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
