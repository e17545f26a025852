"""Tables of measurements in Markdown, and the page in which each has its place; measures nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Ratio, shown

__all__ = ["PAGE", "by_median", "markdown", "refresh"]

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def markdown(
    title: str,
    about: Mapping[str, Any],
    body: Iterable[str],
    ratios: Sequence[Ratio],
    notes: Iterable[str] = (),
) -> str:
    """Write what was measured: the figures, and what they are held against.

    Parameters
    ----------
    title : str
        Sizes and rounds.
    about : mapping
        What ``machine`` says; only what is no property of this one machine is written.
    body : iterable of str
        The lines of the first table.
    ratios : sequence of Ratio
        The second.
    notes : iterable of str
        What was left out, and why.
    """
    packages = ", ".join(f"{name} {found}" for name, found in about["packages"].items())
    lines = [
        f"*{title}. {about['measured_at'][:10]}, {about['processors']} cores, Python {about['python']}, {packages}.*",
        "",
        *body,
    ]
    if ratios:
        lines += ["", "| held against | is | bar | |", "|---|---:|---:|---|", *map(_row, ratios)]
    for note in notes:
        lines += ["", f"Left out: {note}."]
    return "\n".join(lines)


def by_median(figures: Iterable[Figure]) -> list[str]:
    """Write a row for each figure: its median, and how far the rounds lay apart."""
    rows = (
        f"| {one.name} | {shown(one.median)} | {shown(min(one.values))} | {shown(max(one.values))} | {one.unit} |"
        for one in figures
    )
    return ["| | median | lowest | highest | |", "|---|---:|---:|---:|---|", *rows]


def _row(ratio: Ratio) -> str:
    unit = " ×" if ratio.unit == "x" else ratio.unit
    if ratio.bar is None:
        return f"| {ratio.name} | {shown(ratio.value)}{unit} | | |"
    wanted = f"{'≤' if ratio.at_most else '≥'} {ratio.bar:,g}{unit}"
    reached = "reached" if ratio.reached else "**not reached**"
    return f"| {ratio.name} | {shown(ratio.value)}{unit} | {wanted} | {reached} |"


def refresh(name: str, text: str) -> None:
    """Put a script's tables between its markers on the page.

    Raises
    ------
    ValueError
        If the page has no such markers.
    """
    page, begin, end = PAGE, f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    whole = page.read_text(encoding="utf-8")
    before, found, rest = whole.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{page.name} has no place for this; it wants the two lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
