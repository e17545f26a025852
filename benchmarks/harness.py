"""What every benchmark needs: rounds in turn, medians and spread, a table, and a file to compare with later."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = ["RESULTS", "Figure", "Ratio", "machine", "rounds", "show", "timed", "typical", "write"]

RESULTS = Path(__file__).parent / "results"


@dataclass(slots=True)
class Figure:
    """One thing that is measured again and again.

    Parameters
    ----------
    name : str
        What it is.
    unit : str
        Of its values, e.g. ``"jobs/s"``.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Half of the rounds were below, half above."""
        return median(self.values)

    @property
    def spread(self) -> float:
        """From the lowest to the highest, as a fraction of the median."""
        return (max(self.values) - min(self.values)) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one figure is another, and how many times it should be at least, where that is set."""

    name: str
    value: float
    bar: float | None = None

    def __str__(self) -> str:
        bar = "" if self.bar is None else f", bar {self.bar:g}x"
        return f"{self.name}: {self.value:.2f}x{bar}"


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = perf_counter()
    work()
    return perf_counter() - start


def typical(call: Callable[[], object], calls: int) -> float:
    """Give the median of so many calls in milliseconds; a first one does not count."""
    call()
    return median(timed(call) for _ in range(calls)) * 1e3


def rounds(count: int, subjects: Mapping[str, Callable[[], object]], console: Console) -> None:
    """Run every subject once a round, in turn, so that what else the machine does hits all alike."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=count * len(subjects))
        for number in range(count):
            for name, run in subjects.items():
                progress.update(bar, description=f"round {number + 1}: {name}")
                run()
                progress.advance(bar)


def show(title: str, figures: Iterable[Figure], ratios: Sequence[Ratio], console: Console) -> None:
    """Print a table of figures, and the ratios below it."""
    table = Table(title=title)
    for heading in ("", "median", "lowest", "highest", "spread"):
        table.add_column(heading, justify="left" if not heading else "right")
    for one in figures:
        shown = [
            f"{value:,.{_digits(one.median)}f}" for value in (one.median, min(one.values), max(one.values))
        ]
        table.add_row(one.name, f"{shown[0]} {one.unit}", *shown[1:], f"{one.spread:.0%}")
    console.print(table)
    for ratio in ratios:
        console.print(
            str(ratio),
            style="yellow" if ratio.bar is not None and ratio.value < ratio.bar else "green",
            highlight=False,
        )


def _digits(value: float) -> int:
    return 0 if value >= 100 else 2


def machine(*packages: str) -> dict[str, Any]:
    """Say what the figures were measured on."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "python": sys.version.split()[0],
        "packages": {package: version(package) for package in packages},
    }


def write(name: str, about: Mapping[str, Any], figures: Iterable[Figure], ratios: Iterable[Ratio]) -> Path:
    """Write a result file; gives its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        **about,
        "figures": [
            {"name": one.name, "unit": one.unit, "median": one.median, "values": one.values}
            for one in figures
        ],
        "ratios": [{"name": one.name, "value": one.value, "bar": one.bar} for one in ratios],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
