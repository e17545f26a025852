"""How large a queue file becomes under churn, how long a prune keeps others waiting, and what reading a log costs.

1. Rounds of dispatch, run, prune and checkpoint: the size of the file after each. As much goes as comes, so it should
   stop growing.
2. One prune of a long history while another thread asks for the queues all the time: how long that one waits.
3. Commits of one job each, then a death: how large log and journal are, and how long the next owner takes to open the
   file.

The store is driven by a worker that runs nothing, so that the figures are those of the file. Slowness is no error: the
exit code is 0 whenever everything was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from rich.console import Console

from benchmarks.harness import Figure, Ratio, machine, show, timed, write
from nbqueue.lifecycle import Outcome
from nbqueue.store import LogChunk, Report, ReportKind, Selection
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.testing import FakeClock, FakeWorker, new_job

#: Jobs a commit, as a busy worker's.
BATCH = 500
MEBIBYTE = 1 << 20


class Room:
    """The figures, and what measures them.

    Parameters
    ----------
    folder : Path
        Where the files go.
    console : Console
        Where each round is shown.
    """

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder, self._console = folder, console
        self._clock = FakeClock()
        self.size = Figure("file after a round", "MiB")
        self.run = Figure("dispatch and run a round", "jobs/s")
        self.prune_round = Figure("prune a round", "ms")
        self.prune = Figure("prune a long history", "s")
        self.wait = Figure("longest wait during that", "ms")
        self.log = Figure("log and journal at their largest", "MiB")
        self.commit = Figure("commits of one job", "1/s")
        self.reopen = Figure("open after a death", "s")

    def _open(self, name: str) -> DuckDBStore:
        return DuckDBStore(self._folder / name, clock=self._clock.time, ticks=self._clock.ticks)

    def _run(self, store: DuckDBStore, worker: FakeWorker, jobs: int) -> None:
        """Dispatch jobs and have them succeed, each with a payload, a result and a line of output of its own."""
        for at in range(0, jobs, BATCH):
            store.insert([new_job(self._clock, payload=_text(100)) for _ in range(min(BATCH, jobs - at))])
            claims = worker.turn(slots=BATCH).claims
            self._clock.advance(1.0)
            line = LogChunk("stdout", _text(100), self._clock.time())
            worker.turn(
                *(
                    Report(claim, ReportKind.ENDED, Outcome.SUCCEEDED, result=_text(40), logs=(line,))
                    for claim in claims
                )
            )

    def churn(self, rounds: int, jobs: int) -> None:
        """Run so many rounds, after each of which only its own jobs are kept."""
        store = self._open("churn.duckdb")
        worker = FakeWorker(store, lease=1e12)
        for number in range(1, rounds + 1):
            self.run.values.append(jobs / timed(lambda: self._run(store, worker, jobs)))
            self.prune_round.values.append(timed(lambda: store.forget(Selection(), jobs)) * 1e3)
            store._run(lambda _: store._ledger.checkpoint())
            self.size.values.append((self._folder / "churn.duckdb").stat().st_size / MEBIBYTE)
            self._console.print(f"round {number}: {self.size.values[-1]:.2f} MiB", highlight=False)
        store.close()

    def long_history(self, jobs: int) -> None:
        """Prune so many jobs at once, while another thread asks all the time."""
        store = self._open("history.duckdb")
        self._run(store, FakeWorker(store, lease=1e12), jobs)
        over, waits = threading.Event(), [0.0]

        def ask() -> None:
            while not over.is_set():
                waits.append(timed(store.queues))
                over.wait(0.005)

        asker = threading.Thread(target=ask)
        asker.start()
        start = perf_counter()
        forgotten = store.forget(Selection())
        self.prune.values.append(perf_counter() - start)
        over.set()
        asker.join()
        store.close()
        if forgotten != jobs:
            msg = f"{forgotten:,} of {jobs:,} jobs were pruned"
            raise RuntimeError(msg)
        self.wait.values.append(max(waits) * 1e3)

    def death(self, commits: int) -> None:
        """Commit one job so many times, and open what a death would have left."""
        store, largest, left = self._open("log.duckdb"), 0, self._folder / "left.duckdb"
        path = self._folder / "log.duckdb"
        beside = [path.with_name(path.name + end) for end in (".wal", ".journal")]
        start = perf_counter()
        for _ in range(commits):
            store.insert([new_job(self._clock, payload=_text(100))])
            size = sum(file.stat().st_size for file in beside if file.exists())
            if size > largest:
                largest = size
                # The worst moment for a death is the one with the most to take over.
                for file in (path, *beside):
                    copy = left.with_name(file.name.replace(path.name, left.name))
                    copy.unlink(missing_ok=True)
                    if file.exists():
                        shutil.copyfile(file, copy)
        self.commit.values.append(commits / (perf_counter() - start))
        self.log.values.append(largest / MEBIBYTE)
        store.close()
        heirs: list[DuckDBStore] = []
        self.reopen.values.append(timed(lambda: heirs.append(self._open(left.name))))
        heirs[0].close()

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [
            *(self.size, self.run, self.prune_round, self.prune, self.wait),
            *(self.commit, self.log, self.reopen),
        ]

    @property
    def ratios(self) -> list[Ratio]:
        """Whether the file stops growing: its size in the end, as a multiple of that after a seventh of the rounds."""
        sizes = self.size.values
        return [Ratio("file in the end / early on", sizes[-1] / sizes[len(sizes) // 7])]


def _text(size: int) -> str:
    """JSON text that does not compress."""
    return json.dumps(os.urandom(size // 2).hex())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/room.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.room", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="rounds of churn (30)")
    parser.add_argument("--jobs", type=int, default=5_000, help="jobs a round (5,000)")
    parser.add_argument("--history", type=int, default=500_000, help="jobs of the long history (500,000)")
    parser.add_argument("--commits", type=int, default=5_000, help="commits of one job (5,000)")
    given = parser.parse_args(arguments)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as folder:
        bench = Room(Path(folder), console)
        bench.churn(given.rounds, given.jobs)
        bench.long_history(given.history)
        bench.death(given.commits)
    show(f"{given.rounds} rounds of {given.jobs:,} jobs", bench.figures, bench.ratios, console)
    path = write("room", {**vars(given), **machine("nbqueue", "duckdb")}, bench.figures, bench.ratios)
    console.print(f"written to {path}", style="dim", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
