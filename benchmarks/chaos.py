"""Whether nothing is lost: processes on one queue, killed with SIGKILL at random points while they work.

A kernel with a thread worker, a second notebook with a process worker and ``nbqueue work`` in a terminal hand in and
run 20,000 jobs on one file; owners, workers and children of the process executor are killed 200 times, and workers
stopped for longer than their lease. With ``--store postgresql`` there are two terminals, 5,000 jobs and 20 kills, and
their server is stopped twice and started again. The account is settled from the queue's own history and from the lines
that the jobs wrote. The exit code is 1 if a promise was broken; the run's folder stays then.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import harness
from nbqueue.chaos.account import Account
from nbqueue.chaos.plan import Plan
from nbqueue.chaos.running import run
from nbqueue.chaos.stage import Stage
from tests.servers import PostgresServer, with_schema

#: By store: jobs, kills, freezes, restarts of the server.
USUAL = {"duckdb": (20_000, 200, 5, 0), "postgresql": (5_000, 20, 0, 2)}
#: How long there is no server, seconds.
OUTAGE = 1.0


def show(account: Account, console: Console) -> None:
    """Print the account, and whatever broke a promise."""
    plan = account.plan
    table = Table(title=f"{plan.jobs:,} jobs, {plan.kills} kills, seed {plan.seed}", show_header=False)
    for name, value in account.rows():
        table.add_row(name, value)
    console.print(table)
    for fault in account.faults:
        console.print(fault, style="red", highlight=False, markup=False)


@contextmanager
def set_up(store: str, folder: Path) -> Iterator[Stage]:
    """Give where a run takes place; a server of its own ends with it."""
    if store == "duckdb":
        yield Stage(folder)
        return
    with PostgresServer() as server:
        times = 0

        def restart() -> None:
            # In turn as if it had crashed, and as an administrator does it.
            nonlocal times
            server.stop(immediate=times % 2 == 0)
            times += 1
            time.sleep(OUTAGE)
            server.start()

        yield Stage(folder, with_schema(server.url, "chaos"), restart)


def write(account: Account, store: str) -> Path:
    """Write the account beside the other results; gives its path."""
    harness.RESULTS.mkdir(exist_ok=True)
    path = harness.RESULTS / ("chaos.json" if store == "duckdb" else f"chaos-{store}.json")
    plan = account.plan
    about = {"jobs": plan.jobs, "kills": plan.kills, "freezes": plan.freezes, "seed": plan.seed}
    packages = ("nbqueue", "duckdb") if store == "duckdb" else ("nbqueue", "duckdb", "psycopg")
    content = {
        **about,
        **({"restarts": plan.restarts} if plan.restarts else {}),
        **harness.machine(*packages),
        "account": dict(account.rows()),
        "takeovers": [round(seconds, 3) for seconds in account.takeovers],
        "faults": account.faults,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and write ``benchmarks/results/chaos.json`` or ``chaos-postgresql.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--store", choices=USUAL, default="duckdb", help="what the queue is on (duckdb)")
    parser.add_argument("--jobs", type=int, help="how many are handed in (20,000; on a server 5,000)")
    parser.add_argument("--kills", type=int, help="how often a process is killed (200; on a server 20)")
    parser.add_argument("--freezes", type=int, help="how often a worker is stopped past its lease (5; 0)")
    parser.add_argument("--restarts", type=int, help="how often the server is stopped and started (2)")
    parser.add_argument("--seed", type=int, help="of what is killed and when (another each time)")
    given = parser.parse_args(arguments)
    asked = (given.jobs, given.kills, given.freezes, given.restarts)
    usual = USUAL[given.store]
    jobs, kills, freezes, restarts = (
        much if one is None else one for one, much in zip(asked, usual, strict=True)
    )
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    seconds = 300.0 + 10.0 * kills
    plan = Plan(jobs=jobs, kills=kills, freezes=freezes, restarts=restarts, seed=seed, seconds=seconds)
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="nbqueue-chaos-"))
    console.print(f"seed {seed}, in {folder}", style="dim", highlight=False)
    said = [time.monotonic()]

    def say(text: str) -> None:
        # A line every few seconds, for terminals and logs alike.
        if time.monotonic() - said[0] > 5.0:
            said[0] = time.monotonic()
            console.print(text, style="dim", highlight=False)

    with set_up(given.store, folder) as stage:
        account = run(plan, stage, say)
    show(account, console)
    console.print(f"written to {write(account, given.store)}", style="dim", highlight=False)
    if account.ok:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    console.print(f"what is left of it stays in {folder}", style="red", highlight=False)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
