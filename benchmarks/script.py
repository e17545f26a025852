"""What the scripts have in common: sizes with a quick and a full value, and where their results go."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console

from benchmarks import tables
from benchmarks.harness import Figure, Ratio, machine, show, write

__all__ = ["Script", "Size", "scratch"]


@dataclass(frozen=True, slots=True)
class Size:
    """How much of something is measured.

    Parameters
    ----------
    name : str
        Of its option.
    full, quick : float
        Unless the option says otherwise.
    means : str
        What it is, for ``--help``.
    """

    name: str
    full: float
    quick: float
    means: str


class Script:
    """One script: its options, and the report in the end.

    Parameters
    ----------
    name : str
        Of the module, the result file, and the markers in ``docs/benchmarks.md``.
    about : str or None
        The module's docstring.
    sizes : sequence of Size
        What ``--quick`` makes smaller.
    packages : sequence of str
        Those whose versions matter.
    """

    def __init__(self, name: str, about: str | None, sizes: Sequence[Size], packages: Sequence[str]) -> None:
        self.console = Console()
        self._name, self._sizes, self._packages = name, sizes, packages
        self._parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks.{name}",
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self._parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
        self._parser.add_argument(
            "--write-docs", action="store_true", help="put the table into docs/benchmarks.md"
        )
        for size in sizes:
            usual = f"{size.means} ({size.full:,}; quick: {size.quick:,})"
            self._parser.add_argument(f"--{size.name}", type=type(size.full), help=usual)

    @property
    def parser(self) -> argparse.ArgumentParser:
        """For options of the script's own."""
        return self._parser

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Read the options; a size that is not given is the quick or the full one."""
        given = self._parser.parse_args(arguments)
        for size in self._sizes:
            if getattr(given, size.name) is None:
                setattr(given, size.name, size.quick if given.quick else size.full)
        return given

    def report(
        self,
        given: argparse.Namespace,
        title: str,
        figures: Iterable[Figure],
        ratios: Sequence[Ratio],
        *,
        notes: Iterable[str] = (),
        body: Sequence[str] = (),
    ) -> int:
        """Print, write ``benchmarks/results/NAME.json``, and the page if that was asked for; gives the exit code.

        Parameters
        ----------
        given : Namespace
            The options.
        title : str
            Sizes and rounds.
        figures, ratios
            What was measured.
        notes : iterable of str
            What was left out, and why.
        body : sequence of str
            The lines of the first table, if it is not a row for each figure.
        """
        figures, notes = [one for one in figures if one.values], list(notes)
        if body:
            self.console.print(f"{title}\n", *body, sep="\n", highlight=False, soft_wrap=True)
        show(title, () if body else figures, ratios, self.console)
        for note in notes:
            self.console.print(f"left out: {note}", style="dim", highlight=False)
        about: dict[str, Any] = {
            **{size.name: getattr(given, size.name) for size in self._sizes},
            **machine("nbqueue", *self._packages),
        }
        path = write(self._name, {**about, "left_out": notes}, figures, ratios)
        self.console.print(f"written to {path}", style="dim", highlight=False)
        if given.write_docs:
            tables.refresh(
                self._name, tables.markdown(title, about, body or tables.by_median(figures), ratios, notes)
            )
        return 0


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder for files, which is gone in the end; what nbqueue keeps of a user goes there too."""
    with (
        tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as name,
        patch.dict(os.environ, NBQUEUE_DATA_DIR=name),
    ):
        yield Path(name)
