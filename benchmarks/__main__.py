"""All tables of ``docs/benchmarks.md``, one script after the other, and in the end every bar: ``make bench``.

Each script runs in a process of its own. The exit code is 0 whenever all of them ran; slowness is no error.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, shown

#: In the order of the page.
SCRIPTS = (
    *("drain", "enqueue", "single", "peers", "flat", "looking", "processes", "second", "starting", "idle"),
)


def bars(names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give what is held against a bar, by script, as the result files have it."""
    for name in names:
        for ratio in json.loads((RESULTS / f"{name}.json").read_text())["ratios"]:
            if ratio["bar"] is not None:
                yield name, ratio


def show(names: Sequence[str], console: Console) -> None:
    """Print a table of all bars."""
    table = Table(title="All bars")
    for heading in ("script", "", "is", "bar", ""):
        table.add_column(heading, justify="right" if heading in ("is", "bar") else "left")
    for name, ratio in bars(names):
        unit = ratio["unit"] if ratio["unit"] == "x" else f" {ratio['unit']}"
        sign, reached = "≤" if ratio["at_most"] else "≥", ratio["reached"]
        table.add_row(
            *(name, ratio["name"], f"{shown(ratio['value'])}{unit}", f"{sign} {ratio['bar']:,g}{unit}"),
            "reached" if reached else "not reached",
            style=None if reached else "yellow",
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCRIPT", help=f"only these of: {', '.join(SCRIPTS)}")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--write-docs", action="store_true", help="put the tables into docs/benchmarks.md")
    given = parser.parse_args(arguments)
    if unknown := set(given.names) - set(SCRIPTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    names = given.names or SCRIPTS
    options = ["--quick"] * given.quick + ["--write-docs"] * given.write_docs
    console, failed = Console(), list[str]()
    for name in names:
        begun = perf_counter()
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        if subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode:
            failed.append(name)
        console.print(f"{name}: {perf_counter() - begun:.0f} s\n", style="dim", highlight=False)
    show([name for name in names if name not in failed], console)
    if failed:
        console.print(f"did not run to their end: {', '.join(failed)}", style="red", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
