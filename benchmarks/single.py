"""One job at a time: a dispatch and a round trip, beside a bare INSERT of one row into a DuckDB file.

1. The bare INSERT commits a row of three columns by itself, as a dispatch does; beside it the same row that nbqueue
   writes for a job, into a table with the columns of its ledger. A dispatch is on disk when it returns.
2. Dispatches by 32 threads, and by 32 tasks of one loop, at once: how many a second, against one caller alone.
3. Round trips: from the dispatch of a job that does nothing to its result in hand, with a worker in this process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

import nbqueue as nbq
from benchmarks.another import NOTHING, THREADS
from benchmarks.harness import Figure, Ratio, forget, rounds, timed, typical
from benchmarks.script import Script, Size, scratch

CROWD = 32
BAR_DISPATCH, BAR_CROWD, BAR_ROUND_TRIP = 1.5, 8.0, 3.0


class Single:
    """The figures, and what measures them.

    Parameters
    ----------
    calls : int
        How often each is called a round; each of a crowd calls a fifth as often.
    folder : Path
        Where the files go.
    """

    def __init__(self, calls: int, folder: Path) -> None:
        self._calls = calls
        self._queues = nbq.connect(folder / "queue.duckdb")
        self._bare = duckdb.connect(str(folder / "bare.duckdb"))
        self._bare.execute("CREATE TABLE jobs (id BIGINT, queue VARCHAR, payload VARCHAR)")
        self._row = _row_of_a_job(folder / "shape.duckdb", self._bare)
        self.insert = Figure("bare INSERT, 3 columns", "ms")
        self.wide = Figure(f"bare INSERT, the ledger's {len(self._row)} columns", "ms")
        self.dispatch = Figure("one dispatch", "ms")
        self.alone = Figure("dispatches by one thread", "1/s")
        self.threads = Figure(f"dispatches by {CROWD} threads", "1/s")
        self.tasks = Figure(f"dispatches by {CROWD} tasks", "1/s")
        self.round_trip = Figure("round trip", "ms")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [
            *(self.insert, self.wide, self.dispatch, self.alone, self.threads, self.tasks, self.round_trip)
        ]

    @property
    def subjects(self) -> dict[str, Callable[[], object]]:
        """What a round consists of."""
        return {
            "INSERT": self.run_insert,
            "dispatch": self.run_dispatch,
            "round trip": self.run_round_trip,
            "threads": self.run_threads,
            "tasks": self.run_tasks,
        }

    def close(self) -> None:
        """Let go of the files."""
        self._queues.close()
        self._bare.close()

    def run_insert(self) -> None:
        """Insert one row after the other."""
        three, wide = "INSERT INTO jobs VALUES (?, ?, ?)", f"INSERT INTO wide VALUES ({_marks(self._row)})"
        self.insert.values.append(
            typical(lambda: self._bare.execute(three, [1, "default", "[]"]), self._calls)
        )
        self.wide.values.append(typical(lambda: self._bare.execute(wide, self._row), self._calls))

    def run_dispatch(self) -> None:
        """Dispatch one after the other; nobody runs them."""
        later = NOTHING.on_queue("later")
        self.dispatch.values.append(typical(lambda: self._queues.dispatch(later), self._calls))

        def some() -> None:
            for _ in range(self._calls):
                self._queues.dispatch(later)

        self.alone.values.append(self._calls / timed(some))

    def run_threads(self) -> None:
        """Dispatch by many threads."""
        later, each = NOTHING.on_queue("later"), self._each

        def some() -> None:
            for _ in range(each):
                self._queues.dispatch(later)

        def crowd() -> None:
            threads = [threading.Thread(target=some) for _ in range(CROWD)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        self.threads.values.append(CROWD * each / timed(crowd))

    def run_tasks(self) -> None:
        """Dispatch by many tasks."""
        later, each = NOTHING.on_queue("later"), self._each

        async def some() -> None:
            for _ in range(each):
                await self._queues.adispatch(later)

        async def crowd() -> None:
            await asyncio.gather(*(some() for _ in range(CROWD)))

        self.tasks.values.append(CROWD * each / timed(lambda: asyncio.run(crowd())))

    @property
    def _each(self) -> int:
        return max(1, self._calls // 5)

    def run_round_trip(self) -> None:
        """Dispatch and wait for the result."""
        with self._queues.worker(queues="default", concurrency=THREADS):
            self.round_trip.values.append(
                typical(lambda: self._queues.dispatch(NOTHING).result(60), self._calls)
            )

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        between = Ratio.between
        return [
            between("one dispatch / bare INSERT", self.dispatch, self.insert, BAR_DISPATCH, at_most=True),
            between("one dispatch / bare INSERT of the ledger's columns", self.dispatch, self.wide),
            between(f"{CROWD} threads / one", self.threads, self.alone, BAR_CROWD),
            between(f"{CROWD} tasks / one", self.tasks, self.alone, BAR_CROWD),
            # What the machine gives one who waits for each row: it does not move when a dispatch alone gets faster.
            Ratio(f"{CROWD} threads / bare INSERTs by one", self.threads.median * self.insert.median / 1e3),
            Ratio(f"{CROWD} tasks / bare INSERTs by one", self.tasks.median * self.insert.median / 1e3),
            between("round trip / bare INSERT", self.round_trip, self.insert, BAR_ROUND_TRIP, at_most=True),
        ]


def _row_of_a_job(path: Path, bare: duckdb.DuckDBPyConnection) -> list[object]:
    """Make the table ``wide`` with the columns of the ledger; gives the row that a dispatch writes into it."""
    with nbq.connect(path) as queues:
        queues.dispatch(NOTHING)
    with duckdb.connect(str(path), read_only=True) as file:
        columns = [(name, kind) for name, kind, *_ in file.execute("DESCRIBE ledger").fetchall()]
        row = file.execute("SELECT * FROM ledger WHERE event = 'dispatched'").fetchone()
    bare.execute(f"CREATE TABLE wide ({', '.join(f'{name} {kind}' for name, kind in columns)})")
    return list(row or ())


def _marks(row: Sequence[object]) -> str:
    return ", ".join("?" * len(row))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/single.json``."""
    sizes = (
        # Few calls a round and many rounds: a disk has good and bad seconds, and both sides should meet them alike.
        Size("calls", 50, 40, "single calls a round"),
        Size("rounds", 31, 11, "how often everything is measured"),
    )
    script = Script("single", __doc__, sizes, ("duckdb",))
    given = script.read(arguments)
    with scratch() as folder:
        bench = Single(given.calls, folder)
        try:
            rounds(1, bench.subjects, script.console)
            forget(bench.figures)
            rounds(given.rounds, bench.subjects, script.console)
        finally:
            bench.close()
    title = f"{given.calls:,} calls a round, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
