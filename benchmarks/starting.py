"""What a notebook waits for: ``import nbqueue`` and ``%load_ext nbqueue``, beside imports that it has anyway.

Each is timed inside a process of its own that was started for it, in turn, with the files in the system's cache:
``import nbqueue`` against ``import duckdb`` in plain Python; in IPython ``%load_ext nbqueue`` on a queue file without
jobs, until its worker waits for some, against ``import pandas, ipywidgets, duckdb``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import nbqueue as nbq
from benchmarks.harness import Figure, Ratio, forget, rounds
from benchmarks.script import Script, Size, scratch

BAR_IMPORT, BAR_LOAD = 1.6, 1.5

_PLAIN = """
from time import perf_counter
begun = perf_counter()
{what}
print(f"took {{perf_counter() - begun}}", flush=True)
"""
_SHELL = """
import os
from time import perf_counter
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
begun = perf_counter()
{what}
took = perf_counter() - begun
print(f"took {{took}}", flush=True)
os._exit(0)  # the worker has nothing to do, and the file is thrown away
"""


class Starting:
    """The figures, and what measures them.

    Parameters
    ----------
    folder : Path
        Where the processes are at home.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._empty = folder / "empty.duckdb"
        nbq.connect(self._empty).close()
        self.duckdb = Figure("import duckdb", "ms")
        self.nbqueue = Figure("import nbqueue", "ms")
        self.others = Figure("import pandas, ipywidgets, duckdb", "ms")
        self.load = Figure("%load_ext nbqueue", "ms")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.duckdb, self.nbqueue, self.others, self.load]

    @property
    def subjects(self) -> dict[str, Callable[[], object]]:
        """What a round consists of."""
        return {
            "import duckdb": partial(self._run, self.duckdb, _PLAIN, "import duckdb"),
            "import nbqueue": partial(self._run, self.nbqueue, _PLAIN, "import nbqueue"),
            "import the others": partial(self._run, self.others, _SHELL, "import pandas, ipywidgets, duckdb"),
            "%load_ext": self.run_load,
        }

    def run_load(self) -> None:
        """Load the extension in a folder with an empty queue."""
        shutil.copy(self._empty, self._folder / "nbqueue.duckdb")
        self._run(self.load, _SHELL, "shell.run_line_magic('load_ext', 'nbqueue')")

    def _run(self, figure: Figure, script: str, what: str) -> None:
        root = str(Path(__file__).parents[1])
        environment = {
            **os.environ,
            "PYTHONPATH": root,
            "IPYTHONDIR": str(self._folder / "ipython"),
            "NBQUEUE_URL": "",
            # As an installed package has its own: where it is not written, every start compiles what was edited.
            "PYTHONDONTWRITEBYTECODE": "",
        }
        done = subprocess.run(
            [sys.executable, "-c", script.format(what=what)],
            capture_output=True,
            text=True,
            check=True,
            cwd=self._folder,
            env=environment,
        )
        _, found, took = done.stdout.rpartition("took ")
        if not found or ("load_ext" in what and "worker" not in done.stdout):
            raise RuntimeError(f"{what} did not come to its end: {done.stdout}{done.stderr}")
        figure.values.append(float(took) * 1e3)

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        between = Ratio.between
        return [
            between("import nbqueue / import duckdb", self.nbqueue, self.duckdb, BAR_IMPORT, at_most=True),
            between("%load_ext nbqueue / those imports", self.load, self.others, BAR_LOAD, at_most=True),
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/starting.json``."""
    sizes = (Size("rounds", 31, 9, "how many processes are started for each"),)
    script = Script("starting", __doc__, sizes, ("duckdb", "pandas", "ipywidgets", "ipython"))
    given = script.read(arguments)
    with scratch() as folder:
        bench = Starting(folder)
        rounds(1, bench.subjects, script.console)
        forget(bench.figures)
        rounds(given.rounds, bench.subjects, script.console)
    return script.report(given, f"{given.rounds} processes for each", bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
