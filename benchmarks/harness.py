"""What every benchmark needs: rounds in turn, medians and spread, bars, a table, and a file to compare with later."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

__all__ = [
    "RESULTS",
    "Figure",
    "Ratio",
    "forget",
    "machine",
    "rounds",
    "show",
    "shown",
    "timed",
    "typical",
    "write",
]

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
    """How many times one figure is another, or what a figure is, and how much it should be where that is set.

    Parameters
    ----------
    name : str
        What it is.
    value : float
        How much it is.
    bar : float, optional
        How much it should be at least.
    at_most : bool
        The bar is the most that it should be.
    unit : str
        Of value and bar; "x" is "times".
    """

    name: str
    value: float
    bar: float | None = None
    at_most: bool = False
    unit: str = "x"

    @classmethod
    def between(
        cls, name: str, one: Figure, other: Figure, bar: float | None = None, *, at_most: bool = False
    ) -> Ratio:
        """Compare two figures round by round: what else the machine did hit both sides of a round alike."""
        if len(one.values) == len(other.values):
            times = median(a / b for a, b in zip(one.values, other.values, strict=True))
        else:
            times = one.median / other.median
        return cls(name, times, bar, at_most)

    @classmethod
    def of(cls, figure: Figure, bar: float, *, at_most: bool = False) -> Ratio:
        """Hold a figure against a bar of its own unit."""
        return cls(figure.name, figure.median, bar, at_most, f" {figure.unit}")

    @property
    def reached(self) -> bool | None:
        """Whether it is what it should be; None if nothing is set."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def __str__(self) -> str:
        said = f"{self.name}: {shown(self.value)}{self.unit}"
        if self.bar is None:
            return said
        wanted = f"bar at {'most' if self.at_most else 'least'} {self.bar:,g}{self.unit}"
        return f"{said}, {wanted}: {'reached' if self.reached else 'NOT reached'}"


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
                # What one has left is not for the next to clear away.
                gc.collect()
                run()
                progress.advance(bar)


def forget(figures: Iterable[Figure]) -> None:
    """Let go of what was measured so far: of a round to warm up."""
    for figure in figures:
        figure.values.clear()


def show(title: str, figures: Iterable[Figure], ratios: Sequence[Ratio], console: Console) -> None:
    """Print a table of figures, where there are any, and the ratios below it."""
    table, figures = Table(title=title), list(figures)
    for heading in ("", "median", "lowest", "highest", "spread"):
        table.add_column(heading, justify="left" if not heading else "right")
    for one in figures:
        values = [shown(value) for value in (one.median, min(one.values), max(one.values))]
        table.add_row(one.name, f"{values[0]} {one.unit}", *values[1:], f"{one.spread:.0%}")
    if figures:
        console.print(table)
    for ratio in ratios:
        style = "yellow" if ratio.reached is False else "green"
        console.print(str(ratio), style=style, highlight=False, soft_wrap=True)


def shown(value: float) -> str:
    """Write a number as a table has it: three digits that count, and no fraction from a hundred up."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine(*packages: str) -> dict[str, Any]:
    """Say what the figures were measured on; of packages that are not there, nothing."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "python": sys.version.split()[0],
        "packages": {name: found for name in packages if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


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
        "ratios": [
            {
                "name": one.name,
                "value": one.value,
                "unit": one.unit.strip(),
                "bar": one.bar,
                "at_most": one.at_most,
                "reached": one.reached,
            }
            for one in ratios
        ],
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
