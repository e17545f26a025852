"""What the copy of a PostgreSQL queue's history costs that people's SQL reads: to make it, to keep it, to ask it.

The history is written by SQL, as jobs that were dispatched, claimed and succeeded: three rows each. Each round makes
the copy in a process of its own, so that the memory is that of one copy.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter

from rich.console import Console

from benchmarks.harness import Figure, machine, show, timed, write
from benchmarks.servers import at, fresh_schema, postgres
from nbqueue.store import Selection
from nbqueue.stores.postgres.store import PostgresStore
from nbqueue.testing import FakeClock, new_job

MEBIBYTE = 1 << 20
_SINCE = 1_700_000_000_000_000

_FILL = (
    (
        "INSERT INTO specs (command, queue, priority, origin, code, retry)"
        " VALUES ('import', 'default', 0, '', '', '{}') ON CONFLICT DO NOTHING"
    ),
    (
        "INSERT INTO workers (worker_id, host, pid, executor, concurrency, tries, handlers, joined_us, lease,"
        " lease_until, gone)"
        " VALUES ('w', 'here', 1, 'thread', 4, 1, '{}', 0, 15, 0, true) ON CONFLICT DO NOTHING"
    ),
    (
        "INSERT INTO jobs (job, job_id, spec, dispatched_us, payload) SELECT n, gen_random_uuid(), 1, at + n * 100,"
        """ '["users-' || n || '.csv", {"verbose": true}]' FROM given"""
    ),
    "INSERT INTO standing SELECT n, 1, 'succeeded', 1, 0, 0, n, 1, NULL, false, false, false, 1 FROM given",
    "INSERT INTO counts SELECT 'default', 'succeeded', count(*) FROM given",
    (
        "INSERT INTO ledger (happened_us, event, job, fence, attempt, max_attempts, worker, started_us)"
        " SELECT at + n * 100 + 40, 'claimed', n, n, 1, 1, 1, at + n * 100 + 40 FROM given"
    ),
    (
        "INSERT INTO ledger (happened_us, event, job, fence, attempt, max_attempts, started_us, data)"
        """ SELECT at + n * 100 + 90, 'succeeded', n, n, 1, 1, at + n * 100 + 40, '{"rows": ' || n || '}' FROM given"""
    ),
)


def fill(url: str, schema: str, first: int, last: int) -> None:
    """Write the history of these jobs."""
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute(f"SET search_path = {schema}")
        given = f"WITH given AS (SELECT n, {_SINCE} AS at FROM generate_series({first}, {last}) AS n) "
        for statement in _FILL:
            into, select, rest = statement.partition("SELECT")
            connection.execute(f"{into}{given}{select}{rest}" if "given" in statement else statement)
        connection.execute("SELECT setval('job_numbers', %s)", [last])


def copy(url: str) -> dict[str, float]:
    """Make a copy and ask it; gives what that took."""
    store = PostgresStore(url)
    import_module("pandas")  # whoever asks has it
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    first = timed(partial(store.query, "SELECT count(*) FROM ledger"))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    idle = min(timed(partial(store.query, "SELECT 1")) for _ in range(20))
    clock = FakeClock()
    new = []
    for _ in range(20):
        store.insert([new_job(clock) for _ in range(100)])
        new.append(timed(partial(store.query, "SELECT 1")))
    view = timed(partial(store.query, "SELECT state, count(*) FROM jobs GROUP BY state"))
    size = (
        sum(file.stat().st_size for file in Path(tempfile.gettempdir()).glob("nbqueue-mirror-*/*")) / MEBIBYTE
    )
    found = timed(partial(store.find, Selection(commands=("other",))))
    store.close()
    return {
        "first": first,
        "memory": after - before,
        "idle": idle * 1e3,
        "new": sorted(new)[10] * 1e3,
        "view": view,
        "size": size,
        "find": found,
    }


class Copies:
    """The figures, and what measures them.

    Parameters
    ----------
    url : str
        Of the queue.
    jobs : int
        How many it has.
    """

    def __init__(self, url: str, jobs: int) -> None:
        self._url, self._jobs, self._more = url, jobs, jobs // 10
        self.rate = Figure("first copy", "rows/s")
        self.figures = {
            "first": Figure("first copy", "s"),
            "memory": Figure("more memory at its largest", "MiB"),
            "size": Figure("file of the copy", "MiB"),
            "idle": Figure("query, nothing new", "ms"),
            "new": Figure("query, 100 jobs new", "ms"),
            "late": Figure(f"query, {3 * self._more:,} rows new", "s"),
            "view": Figure("jobs by state", "s"),
            "find": Figure("find among all, on the server", "s"),
            "forget": Figure(f"forget {self._more:,} jobs", "s"),
        }

    def measure(self) -> None:
        """Make a copy in a process of its own."""
        with tempfile.TemporaryDirectory(prefix="nbq-bench-") as folder:
            command = [sys.executable, "-m", "benchmarks.mirror", "--copy", self._url]
            root = Path(__file__).parents[1]
            done = subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                cwd=root,
                env={**os.environ, "TMPDIR": folder},
            )
        found = json.loads(done.stdout)
        for name, value in found.items():
            self.figures[name].values.append(value)
        self.rate.values.append(3 * self._jobs / found["first"])

    def grow_and_shrink(self, server: str, schema: str) -> None:
        """Have a copy that is there see much that is new, and have as much forgotten."""
        store = PostgresStore(self._url)
        store.query("SELECT 1")
        first = self._jobs + 1_000_001
        fill(server, schema, first, first + self._more - 1)
        self.figures["late"].values.append(timed(partial(store.query, "SELECT 1")))
        start = perf_counter()
        store.forget(Selection(), keep=self._jobs)
        self.figures["forget"].values.append(perf_counter() - start)
        store.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="how many, of three rows each")
    parser.add_argument("--rounds", type=int, default=3, help="how many copies")
    parser.add_argument("--copy", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.copy:
        print(json.dumps(copy(given.copy)))
        return 0
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="nbq-bench-") as folder,
        postgres(Path(folder)) as server,
        fresh_schema(server, "mirror") as schema,
    ):
        url = at(server, schema)
        PostgresStore(url).close()
        fill(server, schema, 1, given.jobs)
        copies = Copies(url, given.jobs)
        for _ in range(given.rounds):
            copies.measure()
        copies.grow_and_shrink(server, schema)
    figures = [copies.rate, *copies.figures.values()]
    show(f"The copy of a history of {3 * given.jobs:,} rows", figures, [], console)
    console.print(write("mirror", {**machine("duckdb", "psycopg"), "jobs": given.jobs}, figures, []))
    return 0


if __name__ == "__main__":
    sys.exit(main())
