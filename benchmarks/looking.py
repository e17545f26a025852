"""What a look at a long history costs: counts, a page of jobs, the panel, and all jobs as a DataFrame.

Each round opens the file anew. The first look pays for what is read for the first time, and in the first round for what
is imported, so it has a line of its own; the others are medians of some calls.

A panel looks again for as long as it is open, and each later look is at what is new. They are taken as a panel takes
them, each a quarter of a second after the one before: right after opening, when it reads the rest of the page, failures
and the minutes before; while jobs run, of which each tenth fails; after many jobs that ran as fast as they could; and
while a backlog is drained, when the look shares Python's lock with those who drain it. Median and dearest of a round.

All jobs as a DataFrame stand beside the bare DuckDB query for the same columns, on a connection that is nobody else's,
by ``.df()``: as it would be written by hand; and as fast as it can be asked, that is with ids as text, as nbqueue has
them, since UUID objects take longer; and so with the newest first, as nbqueue has them, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import duckdb

import nbqueue as nbq
from benchmarks.harness import Figure, Ratio, rounds, timed, typical
from benchmarks.history import write_history
from benchmarks.later import LaterLooks
from benchmarks.script import Script, Size, scratch

BAR_STATS, BAR_PAGE, BAR_PANEL, BAR_FRAME = 20.0, 150.0, 50.0, 1.2
PAGE = 100


class Looking:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        Of the history.
    calls : int
        How often each short look is taken a round.
    folder : Path
        Where the file goes.
    """

    def __init__(self, jobs: int, calls: int, folder: Path) -> None:
        self._calls = calls
        self._path, self._bare = folder / "history.duckdb", folder / "bare.duckdb"
        write_history(self._path, jobs)
        shutil.copyfile(self._path, self._bare)
        self._looks: dict[str, Callable[[nbq.QueueManager], object]] = {
            "stats()": lambda queues: queues.stats(),
            f"jobs(limit={PAGE})": lambda queues: queues.jobs(limit=PAGE),
            "panel snapshot": _snapshot,
        }
        self.looks = {name: Figure(name, "ms") for name in self._looks}
        self.first = {name: Figure(f"{name}, right after opening", "ms") for name in self._looks}
        self.later = LaterLooks(calls)
        self.frame = Figure("jobs(), all of them", "ms")
        self.plain = Figure("bare query", "ms")
        self.fast = Figure("bare query, ids as text", "ms")
        self.ordered = Figure("bare query, ids as text, newest first", "ms")

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        frames = (self.frame, self.plain, self.fast, self.ordered)
        return [*self.looks.values(), *self.first.values(), *self.later.figures, *frames]

    def run(self) -> None:
        """Take every look once, then some more; then have all jobs by both ways in turn."""
        with nbq.connect(self._path) as queues:
            for name, look in self._looks.items():
                self.first[name].values.append(timed(partial(look, queues)) * 1e3)
            for name, look in self._looks.items():
                taken = typical(partial(look, queues), self._calls)
                self.looks[name].values.append(taken)
            names = list(queues.jobs(limit=0).columns)
            texts = [
                f"{name}::VARCHAR AS {name}" if name in ("job_id", "batch_id") else name for name in names
            ]
            with duckdb.connect(str(self._bare)) as bare:
                bare.execute("SET TimeZone = 'UTC'")
                plain, fast = (f"SELECT {', '.join(columns)} FROM jobs" for columns in (names, texts))
                ordered = f"{fast} ORDER BY number DESC"
                # Neither side pays for the first time.
                bare.sql(ordered).df()
                queues.jobs()
                for figure, ask in (
                    (self.plain, lambda: bare.sql(plain).df()),
                    (self.frame, queues.jobs),
                    (self.fast, lambda: bare.sql(fast).df()),
                    (self.ordered, lambda: bare.sql(ordered).df()),
                ):
                    figure.values.append(timed(ask) * 1e3)

    def look_again(self) -> None:
        """Take the later looks of a panel, on a copy: jobs are added to it."""
        path = self._path.with_name("later.duckdb")
        shutil.copyfile(self._path, path)
        self.later.run(path)
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()

    @property
    def ratios(self) -> list[Ratio]:
        """What the figures are there for."""
        bars = (BAR_STATS, BAR_PAGE, BAR_PANEL)
        return [
            *(Ratio.of(one, bar, at_most=True) for one, bar in zip(self.looks.values(), bars, strict=True)),
            *self.later.ratios(BAR_PANEL),
            Ratio.between("jobs() / bare query", self.frame, self.plain, BAR_FRAME, at_most=True),
            Ratio.between("jobs() / bare query, ids as text", self.frame, self.fast, BAR_FRAME, at_most=True),
            Ratio.between("jobs() / bare query, ids as text, newest first", self.frame, self.ordered),
        ]


def _snapshot(queues: nbq.QueueManager) -> None:
    """What a panel shows when it comes up."""
    panel = queues.panel()
    if not panel.state["jobs"]["order"]:
        raise RuntimeError("the panel shows no jobs")
    panel.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/looking.json``."""
    sizes = (
        Size("jobs", 1_000_000, 1_000_000, "of the history, in steps of 1,000"),
        Size("calls", 20, 5, "short looks a round"),
        Size("rounds", 7, 3, "how often everything is measured"),
    )
    script = Script("looking", __doc__, sizes, ("duckdb", "pandas"))
    given = script.read(arguments)
    with scratch() as folder:
        bench = Looking(given.jobs, given.calls, folder)
        rounds(given.rounds, {"look": bench.run, "look again": bench.look_again}, script.console)
    title = f"{given.jobs:,} jobs that have ended, {given.rounds} rounds"
    return script.report(given, title, bench.figures, bench.ratios)


if __name__ == "__main__":
    raise SystemExit(main())
