"""How many jobs a second can be handed in: nbqueue's bulk dispatch and map, beside what others offer.

nbqueue's jobs are on disk when the call returns, all of them or none. Huey is handed its jobs one by one, which is the
way it has: by its defaults, which leave it to SQLite's own whether a commit waits for the disk, with ``fsync=True``,
and with ``fsync=False``, by which jobs that were handed in may be lost with the machine; so are persist-queue and
litequeue. For ``map`` a row of a DataFrame with two columns is a job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console

import nbqueue as nbq
from benchmarks.another import NOTHING
from benchmarks.beside.huey import huey
from benchmarks.beside.peer import Missing
from benchmarks.beside.sqlite import lite_queue, persist_queue
from benchmarks.harness import Figure, Ratio, forget, rounds, timed
from benchmarks.script import Script, Size, scratch

BAR_HUEY, BAR_ROWS = 4.0, 200_000.0
#: The others are handed one job where nbqueue is handed so many.
SHARE = 5


@nbq.job
def row(number: int, name: str) -> int:
    """Take a row."""
    return number


class Enqueue:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        Dispatched a round; the others are handed a fifth of that.
    rows : int
        Of the DataFrame that is mapped a round.
    folder : Path
        Where the files go.
    """

    def __init__(self, jobs: int, rows: int, folder: Path) -> None:
        self.jobs, self.rows, self._folder = jobs, rows, folder
        self._files = 0
        self.left_out: list[str] = []
        self.many = Figure("nbqueue, dispatch_many", "jobs/s")
        self.map = Figure("nbqueue, map over a DataFrame", "rows/s")
        self.huey = Figure("Huey, SQLite", "jobs/s")
        self.synced = Figure("Huey, SQLite, fsync=True", "jobs/s")
        self.unsynced = Figure("Huey, SQLite, fsync=False", "jobs/s")
        self.persist = Figure("persist-queue", "jobs/s")
        self.lite = Figure("litequeue", "jobs/s")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.many, self.map, self.huey, self.synced, self.unsynced, self.persist, self.lite]

    @property
    def some(self) -> int:
        """How many the others are handed: at their pace as many take as long."""
        return max(10, self.jobs // SHARE)

    def _file(self, ending: str) -> Path:
        self._files += 1
        return self._folder / f"{self._files}.{ending}"

    def run_many(self) -> None:
        """Dispatch a list of commands."""
        with nbq.connect(self._file("duckdb")) as queues:
            many = [NOTHING] * self.jobs
            self.many.values.append(self.jobs / timed(lambda: queues.dispatch_many(many)))
            _check(queues, self.jobs)

    def run_map(self) -> None:
        """Make a job of each row of a DataFrame."""
        numbers = range(self.rows)
        frame = pd.DataFrame({"number": numbers, "name": [f"name {number}" for number in numbers]})
        with nbq.connect(self._file("duckdb")) as queues:
            self.map.values.append(self.rows / timed(lambda: queues.map(row, frame)))
            _check(queues, self.rows)

    def run_huey(self, figure: Figure, *, fsync: bool | None = None) -> None:
        """Hand in one by one."""
        with huey(self._file("sqlite"), fsync=fsync) as queue:
            figure.values.append(self.some / timed(lambda: queue.enqueue(self.some)))

    def run_persist(self) -> None:
        """The same with persist-queue."""
        with persist_queue(self._file("persist")) as queue:
            self.persist.values.append(self.some / timed(lambda: queue.enqueue(self.some)))

    def run_lite(self) -> None:
        """The same with litequeue."""
        with lite_queue(self._file("sqlite")) as queue:
            self.lite.values.append(self.some / timed(lambda: queue.enqueue(self.some)))

    def _if_there(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Missing as error:
            if str(error) not in self.left_out:
                self.left_out.append(str(error))

    def measure(self, count: int, console: Console) -> None:
        """Warm up with a tenth, then run so many rounds."""
        subjects: dict[str, Callable[[], object]] = {
            "dispatch_many": self.run_many,
            "Huey": partial(self.run_huey, self.huey),
            "map": self.run_map,
            "Huey, fsync": partial(self.run_huey, self.synced, fsync=True),
            "Huey, no fsync": partial(self.run_huey, self.unsynced, fsync=False),
            "persist-queue": partial(self._if_there, self.run_persist),
            "litequeue": partial(self._if_there, self.run_lite),
        }
        jobs, rows = self.jobs, self.rows
        self.jobs, self.rows = max(1, jobs // 10), max(1, rows // 10)
        rounds(1, subjects, console)
        forget(self.figures)
        self.jobs, self.rows = jobs, rows
        rounds(count, subjects, console)

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        return [
            Ratio.between("dispatch_many / Huey", self.many, self.huey, BAR_HUEY),
            Ratio.between("dispatch_many / Huey, fsync=True", self.many, self.synced),
            Ratio.between("dispatch_many / Huey, fsync=False", self.many, self.unsynced),
            Ratio.of(self.map, BAR_ROWS),
        ]


def _check(queues: nbq.QueueManager, jobs: int) -> None:
    pending = int(queues.stats()["pending"].sum())
    if pending != jobs:
        raise RuntimeError(f"{pending:,} of {jobs:,} jobs are there")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/enqueue.json``."""
    sizes = (
        Size("jobs", 100_000, 20_000, "jobs dispatched a round"),
        Size("rows", 1_000_000, 100_000, "rows mapped a round"),
        Size("rounds", 5, 3, "how often everything is measured"),
    )
    script = Script("enqueue", __doc__, sizes, ("duckdb", "pandas", "huey", "persist-queue", "litequeue"))
    given = script.read(arguments)
    with scratch() as folder:
        bench = Enqueue(given.jobs, given.rows, folder)
        bench.measure(given.rounds, script.console)
    title = f"{given.jobs:,} jobs, {given.rows:,} rows, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios, notes=bench.left_out)


if __name__ == "__main__":
    raise SystemExit(main())
