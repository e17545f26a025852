"""Whether nothing is lost: three processes on one file, killed with SIGKILL at random points while they work.

A kernel with a thread worker, a second notebook with a process worker and ``nbqueue work`` in a terminal hand in and
run 20,000 jobs; owners, workers and children of the process executor are killed 200 times, and workers
stopped for longer than their lease. The account is settled from
the queue's own history and from the lines that the jobs wrote. The exit code is 1 if a promise was broken; the run's
folder stays then.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import harness
from nbqueue.chaos.account import Account
from nbqueue.chaos.plan import Plan
from nbqueue.chaos.running import run


def show(account: Account, console: Console) -> None:
    """Print the account, and whatever broke a promise."""
    plan = account.plan
    table = Table(title=f"{plan.jobs:,} jobs, {plan.kills} kills, seed {plan.seed}", show_header=False)
    for name, value in account.rows():
        table.add_row(name, value)
    console.print(table)
    for fault in account.faults:
        console.print(fault, style="red", highlight=False, markup=False)


def write(account: Account) -> Path:
    """Write the account beside the other results; gives its path."""
    harness.RESULTS.mkdir(exist_ok=True)
    path = harness.RESULTS / "chaos.json"
    plan = account.plan
    about = {"jobs": plan.jobs, "kills": plan.kills, "freezes": plan.freezes, "seed": plan.seed}
    content = {
        **about,
        **harness.machine("nbqueue", "duckdb"),
        "account": dict(account.rows()),
        "takeovers": [round(seconds, 3) for seconds in account.takeovers],
        "faults": account.faults,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and write ``benchmarks/results/chaos.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="how many are handed in (20,000)")
    parser.add_argument("--kills", type=int, default=200, help="how often a process is killed (200)")
    parser.add_argument(
        "--freezes", type=int, default=5, help="how often a worker is stopped past its lease (5)"
    )
    parser.add_argument("--seed", type=int, help="of what is killed and when (another each time)")
    given = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    seconds = 300.0 + 10.0 * given.kills
    plan = Plan(jobs=given.jobs, kills=given.kills, freezes=given.freezes, seed=seed, seconds=seconds)
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="nbqueue-chaos-"))
    console.print(f"seed {seed}, in {folder}", style="dim", highlight=False)
    said = [time.monotonic()]

    def say(text: str) -> None:
        # A line every few seconds, for terminals and logs alike.
        if time.monotonic() - said[0] > 5.0:
            said[0] = time.monotonic()
            console.print(text, style="dim", highlight=False)

    account = run(plan, folder, say)
    show(account, console)
    console.print(f"written to {write(account)}", style="dim", highlight=False)
    if account.ok:
        shutil.rmtree(folder, ignore_errors=True)
        return 0
    console.print(f"what is left of it stays in {folder}", style="red", highlight=False)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
