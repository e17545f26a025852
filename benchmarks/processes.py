"""How many no-op jobs a second in warm child processes: nbqueue's process executor beside a ProcessPoolExecutor.

Both have two processes that are warm. nbqueue's jobs are dispatched together and their results collected, by a queue in
a file, where claims and completions are on disk as always, and by one in memory. The pool is handed its calls one by
one, as people do, and by map() in chunks, for which a single call has no share in the traffic any more.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import nbqueue as nbq
from benchmarks.harness import Figure, Ratio, forget, rounds, timed
from benchmarks.script import Script, Size, scratch

CHILDREN = 2
BAR_POOL = 0.5
PATIENCE = 600.0


@nbq.job
def echo(number: int) -> int:
    """Cost as little as a job can."""
    return number


def same(number: int) -> int:
    """The same for the pool."""
    return number


class Processes:
    """The figures, and what measures them; children and pool stay warm from round to round.

    Parameters
    ----------
    jobs : int
        A round.
    folder : Path
        Where the file goes.
    stack : ExitStack
        Ends the processes.
    """

    def __init__(self, jobs: int, folder: Path, stack: ExitStack) -> None:
        self._jobs = jobs
        self._file, self._memory = (
            stack.enter_context(nbq.connect(url)) for url in (folder / "queue.duckdb", ":memory:")
        )
        for queues in (self._file, self._memory):
            queues.worker(executor="process", concurrency=CHILDREN).start()
        context = multiprocessing.get_context("spawn")
        self._pool = stack.enter_context(ProcessPoolExecutor(CHILDREN, mp_context=context))
        self.file = Figure("nbqueue, in a file", "jobs/s")
        self.memory = Figure("nbqueue, in memory", "jobs/s")
        self.pool = Figure("ProcessPoolExecutor, submit", "jobs/s")
        self.chunks = Figure("ProcessPoolExecutor, map in chunks of 100", "jobs/s")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.file, self.memory, self.pool, self.chunks]

    @property
    def subjects(self) -> dict[str, Callable[[], object]]:
        """What a round consists of."""
        return {
            "pool": self.run_pool,
            "file": lambda: self._run(self._file, self.file),
            "chunks": self.run_chunks,
            "memory": lambda: self._run(self._memory, self.memory),
        }

    def _run(self, queues: nbq.QueueManager, figure: Figure) -> None:
        def run() -> None:
            for receipt in queues.dispatch_many([echo.call(number) for number in range(self._jobs)]):
                receipt.result(PATIENCE)

        figure.values.append(self._jobs / timed(run))

    def run_pool(self) -> None:
        """Hand in one by one."""

        def run() -> None:
            for future in [self._pool.submit(same, number) for number in range(self._jobs)]:
                future.result(PATIENCE)

        self.pool.values.append(self._jobs / timed(run))

    def run_chunks(self) -> None:
        """Hand in a hundred at a time."""
        seconds = timed(lambda: list(self._pool.map(same, range(self._jobs), chunksize=100)))
        self.chunks.values.append(self._jobs / seconds)

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        return [
            Ratio.between("in a file / ProcessPoolExecutor, submit", self.file, self.pool, BAR_POOL),
            Ratio.between("in memory / ProcessPoolExecutor, submit", self.memory, self.pool, BAR_POOL),
            Ratio.between("in a file / ProcessPoolExecutor, map in chunks", self.file, self.chunks),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/processes.json``."""
    sizes = (
        Size("jobs", 10_000, 4_000, "no-op jobs a round"),
        Size("rounds", 7, 3, "how often everything is measured"),
    )
    script = Script("processes", __doc__, sizes, ("duckdb", "cloudpickle"))
    given = script.read(arguments)
    with scratch() as folder, ExitStack() as stack:
        bench = Processes(given.jobs, folder, stack)
        rounds(1, bench.subjects, script.console)
        forget(bench.figures)
        rounds(given.rounds, bench.subjects, script.console)
    title = f"{given.jobs:,} no-op jobs, {CHILDREN} processes, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
