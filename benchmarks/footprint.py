"""What a queue takes of its disk and its server: bytes a job, connections, idle traffic; and commits that are shared.

A job has 100 bytes of arguments that do not compress, as much output, and a result. Single dispatches are made by
several threads at once, in a file and on PostgreSQL: each waits for its commit, and commits are shared.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS
from benchmarks.harness import Figure, machine, rounds, show, timed, write
from benchmarks.servers import at, fresh_schema, postgres

#: How many threads dispatch at once.
CROWDS = (1, 4, 16)


@nbq.command("row")
def row(text: str) -> dict[str, int]:
    """Print and return something."""
    print(os.urandom(50).hex())
    return {"length": len(text)}


class Footprint:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        A round.
    calls : int
        How many single dispatches each thread makes.
    idle : float
        How many seconds an idle worker is looked at.
    folder : Path
        Where the files go.
    server : str
        The URL of a PostgreSQL server.
    """

    def __init__(self, jobs: int, calls: int, idle: float, folder: Path, server: str) -> None:
        self.jobs, self.calls, self.seconds, self._folder, self._server = jobs, calls, idle, folder, server
        self._files = 0
        self.room = {name: Figure(f"{name}: room", "bytes a job") for name in ("file", "PostgreSQL")}
        self.crowds = {
            (name, crowd): Figure(f"{name}: {crowd} at once", "dispatches/s")
            for name in self.room
            for crowd in CROWDS
        }
        self.looking = Figure("PostgreSQL: who looks", "connections")
        self.working = Figure("PostgreSQL: who works", "connections")
        self.idle = Figure("PostgreSQL: an idle worker", "transactions/s")

    def in_a_file(self) -> None:
        """Fill a file."""
        self._files += 1
        path = self._folder / f"{self._files}.duckdb"
        with nbq.connect(path) as queues:
            self._fill(queues)
        self.room["file"].values.append(path.stat().st_size / self.jobs)
        with nbq.connect(path) as queues:
            self._dispatch(queues, "file")

    def on_postgres(self) -> None:
        """Fill a schema, and look at what the server sees of it."""
        import psycopg

        with fresh_schema(self._server, "footprint") as schema, psycopg.connect(self._server) as admin:
            admin.autocommit = True
            server = _Seen(admin, schema)
            with nbq.connect(at(self._server, schema)) as queues:
                self._fill(queues)
                self.room["PostgreSQL"].values.append(server.size() / self.jobs)
                with queues.worker(queues="default", concurrency=THREADS):
                    self.idle.values.append(server.transactions(self.seconds))
                    self.working.values.append(self._dispatch(queues, "PostgreSQL", server))
            with nbq.connect(at(self._server, schema)) as queues:
                queues.jobs(limit=10)
                self.looking.values.append(server.connections())

    def _fill(self, queues: nbq.QueueManager) -> None:
        call = nbq.QueuedCommand("row")
        queues.dispatch_many(call.with_arg(os.urandom(50).hex()) for _ in range(self.jobs))
        worker = queues.worker(concurrency=THREADS)
        worker.start().drain(PATIENCE)
        worker.stop()

    def _dispatch(self, queues: nbq.QueueManager, name: str, server: _Seen | None = None) -> float:
        """Dispatch by more and more threads; gives the most connections that there were."""
        later = NOTHING.on_queue("later")

        def some() -> None:
            for _ in range(self.calls):
                queues.dispatch(later)

        most = 0.0
        for crowd in CROWDS:
            seconds = timed(partial(_at_once, some, crowd))
            self.crowds[name, crowd].values.append(crowd * self.calls / seconds)
            if server is not None:
                most = max(most, server.connections())
        return most

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [*self.room.values(), *self.crowds.values(), self.looking, self.working, self.idle]


class _Seen:
    """What the server knows of the queue."""

    def __init__(self, admin: Any, schema: str) -> None:
        self._admin, self._schema = admin, schema

    def _ask(self, query: str, *given: object) -> float:
        return float(self._admin.execute(query, given).fetchone()[0])

    def size(self) -> float:
        """Give the bytes of its tables and their indexes."""
        return self._ask(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind = 'r'",
            self._schema,
        )

    def connections(self) -> float:
        """Give how many there are of nbqueue."""
        return self._ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'nbqueue'")

    def transactions(self, seconds: float) -> float:
        """Give how many were committed a second, ours that ask left out."""
        count = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        time.sleep(min(seconds, 2.0))  # what was before is told to the statistics within a second
        before = self._ask(count)
        time.sleep(seconds)
        return max(0.0, self._ask(count) - before - 1) / seconds


def _at_once(work: Any, crowd: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(crowd)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/footprint.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs of a history (10,000)")
    parser.add_argument("--calls", type=int, default=100, help="single dispatches a thread (100)")
    parser.add_argument("--idle", type=float, default=6.0, help="seconds of an idle worker a round (6)")
    given = parser.parse_args(arguments)
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as name,
        patch.dict(os.environ, NBQUEUE_DATA_DIR=name),
        postgres(Path(name)) as server,
    ):
        bench = Footprint(given.jobs, given.calls, given.idle, Path(name), server)
        rounds(given.rounds, {"file": bench.in_a_file, "PostgreSQL": bench.on_postgres}, console)
    show(f"{given.jobs:,} jobs, {given.rounds} rounds", bench.figures, [], console)
    about = {"jobs": given.jobs, "rounds": given.rounds, "calls": given.calls}
    path = write("footprint", {**about, **machine("nbqueue", "duckdb", "psycopg")}, bench.figures, [])
    console.print(f"written to {path}", style="dim", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
