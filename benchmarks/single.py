"""One job at a time: a dispatch and a round trip, beside a bare INSERT of one row into a DuckDB file.

1. The bare INSERT commits a row of three columns by itself, as a dispatch does; beside it the same row that nbqueue
   writes for a job, into a table with the columns of its ledger. A dispatch is on disk when it returns.
2. Dispatches by 32 threads, and by 32 tasks of one loop, at once: how many a second, against one caller alone. All
   stand ready before the clock starts, each goes on until it has run out, and one alone is measured in the same way.
   Beside them hand-overs alone, without any queue: as many threads that each have one thread append a line to a file,
   synced, which takes all lines that wait at once. That is what the machine and the interpreter give.
3. Round trips: from the dispatch of a job that does nothing to its result in hand, with a worker in this process.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, sleep

import duckdb

import nbqueue as nbq
from benchmarks.another import NOTHING, THREADS
from benchmarks.harness import Figure, Ratio, forget, rounds, typical
from benchmarks.script import Script, Size, scratch

CROWD = 32
BAR_DISPATCH, BAR_CROWD, BAR_ROUND_TRIP = 1.5, 8.0, 3.0


class Single:
    """The figures, and what measures them.

    Parameters
    ----------
    calls : int
        How often each is called a round.
    seconds : float
        How long a crowd dispatches a round, and one alone beside it.
    folder : Path
        Where the files go.
    """

    def __init__(self, calls: int, seconds: float, folder: Path) -> None:
        self._calls, self._seconds = calls, seconds
        self._bare_hands = HandOver(folder / "hand-over")
        self._queues = nbq.connect(folder / "queue.duckdb")
        self._bare = duckdb.connect(str(folder / "bare.duckdb"))
        self._bare.execute("CREATE TABLE jobs (id BIGINT, queue VARCHAR, payload VARCHAR)")
        self._row = _row_of_a_job(folder / "shape.duckdb", self._bare)
        self.insert = Figure("bare INSERT, 3 columns", "ms")
        self.wide = Figure(f"bare INSERT, the ledger's {len(self._row)} columns", "ms")
        self.dispatch = Figure("one dispatch", "ms")
        self.alone = Figure("dispatches by one thread", "1/s")
        self.threads = Figure(f"dispatches by {CROWD} threads", "1/s")
        self.task = Figure("dispatches by one task", "1/s")
        self.tasks = Figure(f"dispatches by {CROWD} tasks", "1/s")
        self.hand = Figure("hand-overs alone by one thread", "1/s")
        self.hands = Figure(f"hand-overs alone by {CROWD} threads", "1/s")
        self.round_trip = Figure("round trip", "ms")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [
            *(self.insert, self.wide, self.dispatch, self.alone, self.threads, self.task, self.tasks),
            *(self.hand, self.hands, self.round_trip),
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
            "hand-overs": self.run_hand_overs,
        }

    def close(self) -> None:
        """Let go of the files."""
        self._bare_hands.close()
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

    def run_threads(self) -> None:
        """Dispatch by one thread, then by many."""
        later = NOTHING.on_queue("later")
        self.alone.values.append(self._rate(lambda: self._queues.dispatch(later), 1))
        self.threads.values.append(self._rate(lambda: self._queues.dispatch(later), CROWD))

    def run_tasks(self) -> None:
        """Dispatch by one task, then by many of one loop."""
        self.task.values.append(asyncio.run(self._rate_of_tasks(1)))
        self.tasks.values.append(asyncio.run(self._rate_of_tasks(CROWD)))

    def run_hand_overs(self) -> None:
        """Hand over by one thread, then by many."""
        self.hand.values.append(self._rate(self._bare_hands.call, 1))
        self.hands.values.append(self._rate(self._bare_hands.call, CROWD))

    def _rate(self, call: Callable[[], object], count: int) -> float:
        """Give how often a second so many threads call together."""
        ready, over, made = threading.Barrier(count + 1), threading.Event(), [0] * count

        def some(number: int) -> None:
            ready.wait()
            while not over.is_set():
                call()
                made[number] += 1

        threads = [threading.Thread(target=some, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        ready.wait()
        start = perf_counter()
        sleep(self._seconds)
        over.set()
        for thread in threads:
            thread.join()
        return sum(made) / (perf_counter() - start)

    async def _rate_of_tasks(self, count: int) -> float:
        """Give how often a second so many tasks of this loop dispatch together."""
        later, made, over = NOTHING.on_queue("later"), 0, False

        async def some() -> None:
            nonlocal made
            while not over:
                await self._queues.adispatch(later)
                made += 1

        # The first in a loop has modules to import.
        await self._queues.adispatch(later)
        start = perf_counter()
        tasks = [asyncio.create_task(some()) for _ in range(count)]
        await asyncio.sleep(self._seconds)
        over = True
        await asyncio.gather(*tasks)
        return made / (perf_counter() - start)

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
            between(f"{CROWD} tasks / one thread", self.tasks, self.alone, BAR_CROWD),
            between(f"{CROWD} tasks / one task", self.tasks, self.task),
            # What no dispatch can exceed that waits for a disk: it has next to no work of its own to share the GIL.
            between(f"{CROWD} hand-overs alone / one", self.hands, self.hand),
            # What the machine gives one who waits for each row: it does not move when a dispatch alone gets faster.
            Ratio(f"{CROWD} threads / bare INSERTs by one", self.threads.median * self.insert.median / 1e3),
            Ratio(f"{CROWD} tasks / bare INSERTs by one", self.tasks.median * self.insert.median / 1e3),
            between("round trip / bare INSERT", self.round_trip, self.insert, BAR_ROUND_TRIP, at_most=True),
        ]


class HandOver:
    """Lines that one thread appends for others, synced: what a dispatch does once everything of a queue is left out.

    Parameters
    ----------
    path : Path
        The file; made anew.
    """

    #: What the journal takes for a job without arguments, about.
    _LINE = bytes(300)

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_DSYNC", 0))
        self._inbox: deque[threading.Lock] = deque()
        self._news, self._is_over = threading.Event(), False
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def call(self) -> None:
        """Have a line written; it is on disk when this returns."""
        done = threading.Lock()
        done.acquire()
        self._inbox.append(done)
        self._news.set()
        done.acquire()

    def close(self) -> None:
        """Let go of the file."""
        self._is_over = True
        self._news.set()
        self._thread.join()
        os.close(self._file)

    def _write(self) -> None:
        while not self._is_over:
            self._news.wait()
            self._news.clear()
            together = [self._inbox.popleft() for _ in range(len(self._inbox))]
            if not together:
                continue
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, self._LINE * len(together))
            if not hasattr(os, "O_DSYNC"):
                os.fsync(self._file)
            for done in together:
                done.release()


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
        Size("milliseconds", 300, 60, "how long each crowd dispatches a round"),
        Size("rounds", 31, 11, "how often everything is measured"),
    )
    script = Script("single", __doc__, sizes, ("duckdb",))
    given = script.read(arguments)
    with scratch() as folder:
        bench = Single(given.calls, given.milliseconds / 1e3, folder)
        try:
            rounds(1, bench.subjects, script.console)
            forget(bench.figures)
            rounds(given.rounds, bench.subjects, script.console)
        finally:
            bench.close()
    title = f"{given.calls:,} calls or {given.milliseconds:,} ms a round, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
