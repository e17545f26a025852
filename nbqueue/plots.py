"""Four plots of a queue, fit for a report: throughput, latency, backlog, timeline; only draws what ``frames`` counts.

A state has one colour in all of them, out of a palette that colour-blind people can tell apart (Okabe and Ito's).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes

    from nbqueue.facade.manager import QueueManager

__all__ = ["COLORS", "Plots"]

#: The colour of each state and outcome.
COLORS: dict[str, str] = {
    "pending": "#56B4E9",
    "running": "#0072B2",
    "succeeded": "#009E73",
    "failed": "#D55E00",
    "cancelled": "#999999",
    "interrupted": "#CC79A7",
    "released": "#C8C8C8",
    "refused": "#E69F00",
}
_INK = "#333333"
_FAINT = "#767676"
_GRID = "#E8E8E8"

_ATTEMPTS_SHOWN = 2_000
_COMMANDS_SHOWN = 12
_WORKERS_NAMED = 30
#: Where a logarithmic axis of durations has its ticks, in seconds.
_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1, 10, 60, 600, 3_600, 36_000, 86_400, 864_000, 8_640_000)
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
_UNIT_NAMES = {86_400.0: "day", 3_600.0: "hour", 60.0: "minute", 1.0: "second"}


class Plots:
    """The plots of one queue manager: ``queues.plot``.

    Each draws into ``ax``, or into a figure of its own, and gives back the Axes. Times are UTC.

    Parameters
    ----------
    queues : QueueManager
        Whose jobs are drawn.

    Example
    -------
    ::

        ax = queues.plot.throughput(every="5min")
        ax.figure.savefig("throughput.png", dpi=200)
    """

    #: When it is, for what still runs.
    _now: Callable[[], datetime] = staticmethod(lambda: datetime.now(UTC))

    def __init__(self, queues: QueueManager):
        self._queues = queues

    def throughput(self, every: float | str | None = None, ax: Axes | None = None) -> Axes:
        """Draw how many jobs ended in each stretch of time, stacked by how they ended.

        Parameters
        ----------
        every : float or str, optional
            The length of a stretch: seconds, ``"10s"``, ``"1min"``; picked to read well unless it is given.
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            One container of bars for each way to end that there was.
        """
        found = self._queues.throughput(every)
        ax = _axes(ax, "Throughput")
        if found.empty:
            return _nothing(ax, "no finished jobs yet")
        times = _numbers(found.index)
        seconds = float(found.attrs["every"])
        width = seconds / 86_400
        base = found["succeeded"].to_numpy() * 0
        for outcome in found.columns.astype(str):
            counts = found[outcome].to_numpy()
            if counts.any():
                ax.bar(
                    *(times, counts, width * (0.86 if len(times) <= 60 else 1.0)),
                    bottom=base,
                    align="edge",
                    color=COLORS[outcome],
                    label=f"{outcome} {counts.sum():,}",
                    linewidth=0,
                )
                base = base + counts
        # A few bars in the whole width would be slabs.
        least = max(0, 12 - len(times)) / 2 * width
        ax.set_xlim(times[0] - least - width * 0.5, times[-1] + width * 1.5 + least)
        ax.set_ylim(0, base.max() * 1.08)
        ax.set_ylabel(f"jobs finished per {_UNIT_NAMES.get(seconds) or _human(seconds)}")
        _time_axis(ax)
        _count_axis(ax)
        _legend(ax)
        return ax

    def latency(self, ax: Axes | None = None) -> Axes:
        """Draw how long jobs waited and how long they ran, by command: median, slowest 5 % and slowest 1 %.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            Durations on a logarithmic axis, the busiest commands from the top.
        """
        found = self._queues.latency()
        shown = found.head(_COMMANDS_SHOWN)
        title = (
            "Latency"
            if len(shown) == len(found)
            else f"Latency: busiest {len(shown)} of {len(found)} commands"
        )
        ax = _axes(ax, title, height=1.6 + 0.45 * max(len(shown), 2))
        if found.empty:
            return _nothing(ax, "no finished jobs yet")
        least = 1e-6
        for what, color, offset in (("wait", COLORS["pending"], -0.16), ("run", COLORS["running"], 0.16)):
            rows = [row + offset for row in range(len(shown))]
            p50, p95, p99 = (shown[f"{what}_p{p}"].clip(lower=least).to_numpy() for p in (50, 95, 99))
            ax.hlines(rows, p50, p99, color=color, linewidth=1.2)
            ax.hlines(rows, p50, p95, color=color, linewidth=5)
            label = "waited" if what == "wait" else "ran"
            ax.plot(p50, rows, "o", color=color, markersize=8, markeredgecolor="white", label=label)
            for row, at, end in zip(rows, p99, p95, strict=True):
                ax.annotate(
                    *(_human(end), (at, row)),
                    xytext=(7, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize="x-small",
                    color=_FAINT,
                )
        names = [f"{c}  ({n:,})" for c, n in zip(shown["command"], shown["jobs"], strict=True)]
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        every = shown.filter(regex="_p").clip(lower=least).to_numpy()
        _duration_axis(ax, float(every.min()), float(every.max()))
        ax.set_xlabel("duration of 50 % (dot), 95 % (bar, number) and 99 % (line) of the jobs")
        _legend(ax)
        return ax

    def backlog(self, ax: Axes | None = None) -> Axes:
        """Draw how many jobs were pending and how many running, over time.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            Two step lines, with what they came to last and at most.
        """
        found = self._queues.backlog()
        ax = _axes(ax, "Backlog")
        if found.empty:
            return _nothing(ax, "no jobs yet")
        times = _numbers(found.index)
        for state in ("pending", "running"):
            counts = found[state].to_numpy()
            color = COLORS[state]
            ax.fill_between(times, counts, step="post", color=color, alpha=0.18, linewidth=0)
            label = f"{state}: {counts[-1]:,} at the end, {found[f'{state}_max'].max():,} at most"
            ax.step(times, counts, where="post", color=color, linewidth=1.4, label=label)
        ax.set_xlim(times[0], times[-1])
        ax.set_ylim(0, max(1, found.to_numpy().max() * 1.08))
        ax.set_ylabel("jobs")
        _time_axis(ax)
        _count_axis(ax)
        _legend(ax)
        return ax

    def timeline(self, ax: Axes | None = None) -> Axes:
        """Draw when each attempt ran, a lane a slot of each worker; the newest 2,000 at most.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw.

        Returns
        -------
        matplotlib.axes.Axes
            A collection of bars for each outcome that there was.
        """
        found = self._queues.timeline(limit=_ATTEMPTS_SHOWN)
        rows, names = _rows(found)
        of = found.attrs["of"]
        title = "Timeline" if of <= len(found) else f"Timeline: newest {len(found):,} of {of:,} attempts"
        ax = _axes(ax, title, height=min(1.6 + 0.24 * (rows.max(initial=0) + 1), 9.0))
        if found.empty:
            return _nothing(ax, "no finished jobs yet")
        starts = _numbers(found["started_at"])
        now = max(self._now(), found["started_at"].max().to_pydatetime())
        ends = _numbers(found["finished_at"].fillna(now))
        span = (ends.max() - starts.min()) or 1 / 86_400
        for outcome, color in COLORS.items():
            mine = (found["outcome"] == outcome).to_numpy()
            if mine.any():
                label = f"{outcome} {mine.sum():,}"
                bars = _bars(starts[mine], ends[mine], rows[mine], color, label, shortest=span / 200)
                ax.add_collection(bars)
        ax.set_xlim(starts.min() - span * 0.015, ends.max() + span * 0.015)
        ax.set_ylim(rows.max() + 0.7, -0.7)
        ax.set_yticks([at for at, _ in names], [name for _, name in names])
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        _time_axis(ax)
        _legend(ax)
        return ax


def _rows(found: pd.DataFrame) -> tuple[np.ndarray[Any, Any], list[tuple[float, str]]]:
    """Give each attempt its row, worker after worker as they began, and each worker's middle and name."""
    import numpy as np

    rows = np.zeros(len(found))
    names: list[tuple[float, str]] = []
    top = 0.0
    by_worker = found.groupby("worker", observed=True)
    for worker in by_worker["started_at"].min().sort_values().index:
        mine = by_worker.indices[worker]
        lanes = found["lane"].to_numpy()[mine]
        rows[mine] = top + lanes
        names.append((top + lanes.max() / 2, str(worker)))
        # A gap tells one worker's lanes from the next one's.
        top += lanes.max() + 1.4
    every = -(-len(names) // _WORKERS_NAMED) or 1
    return rows, names[::every]


def _bars(starts: Any, ends: Any, rows: Any, color: str, label: str, *, shortest: float) -> Any:
    """Bars as one collection: thousands of patches would take seconds."""
    import numpy as np
    from matplotlib.collections import PolyCollection

    low, high = rows - 0.4, rows + 0.4
    corners = np.stack(
        [
            np.stack([starts, ends, ends, starts], axis=1),
            np.stack([low, low, high, high], axis=1),
        ],
        axis=2,
    )
    # A white edge tells neighbours apart; one of its own colour keeps what is shorter than a pixel in sight.
    edges = ["white" if wide else color for wide in (ends - starts) > shortest]
    return PolyCollection(list(corners), facecolors=color, edgecolors=edges, linewidths=0.6, label=label)


# ------------------------------------------------------------------------------------------ what all of them share
def _axes(ax: Axes | None, title: str, *, height: float = 3.4) -> Axes:
    """Give the Axes to draw in, dressed alike."""
    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(figsize=(8.5, height), layout="constrained")
    ax.set_title(title, loc="left", fontsize="medium", fontweight="bold", color=_INK)
    ax.set_axisbelow(True)
    ax.grid(visible=True, color=_GRID, linewidth=0.8)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color("#BBBBBB")
    ax.tick_params(colors=_INK, labelsize="small", length=3, color="#BBBBBB")
    ax.tick_params(axis="y", length=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(color=_INK, fontsize="small")
    return ax


def _nothing(ax: Axes, sentence: str) -> Axes:
    ax.grid(visible=False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(0.5, 0.5, sentence, transform=ax.transAxes, ha="center", va="center", color=_FAINT)
    return ax


def _legend(ax: Axes) -> None:
    """In a line between the title and the plot, over no data."""
    handles, _ = ax.get_legend_handles_labels()
    ax.set_title(
        ax.get_title(loc="left"), loc="left", pad=24, fontsize="medium", fontweight="bold", color=_INK
    )
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize="small",
        labelcolor=_INK,
        handlelength=1.0,
        handletextpad=0.5,
        columnspacing=1.6,
        borderaxespad=0.2,
        borderpad=0.2,
    )


def _time_axis(ax: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=9)  # type: ignore[no-untyped-call]
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    ax.xaxis.get_offset_text().set(fontsize="small", color=_FAINT)
    ax.set_xlabel("time (UTC)")
    if ax.yaxis.get_gridlines()[0].get_visible():
        ax.grid(visible=False, axis="x")


def _count_axis(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _duration_axis(ax: Axes, least: float, most: float) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    ax.set_xscale("log")
    low, high = least / 1.6, most * 2.2
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    # The axis ends at ticks, so that there are two of them at least.
    low = max((t for t in _TICKS if t <= low), default=low)
    high = high if len(ticks) > 1 else min((t for t in _TICKS if t >= high), default=high) * 1.3
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator(list(_TICKS)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _human(value)))
    ax.grid(visible=False, axis="y")


def _numbers(times: pd.Index[Any] | pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Times as Matplotlib's days."""
    import pandas as pd
    from matplotlib.dates import date2num

    plain = pd.DatetimeIndex(times).tz_convert(None).to_numpy()
    found: np.ndarray[Any, Any] = date2num(plain)  # type: ignore[no-untyped-call]
    return found


def _human(seconds: float) -> str:
    """A duration in its unit, three digits at most.

    >>> _human(0.25), _human(90), _human(86_400)
    ('250 ms', '1.5 min', '1 d')
    """
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size * 0.9995), (1e-6, "µs"))
    return f"{seconds / size:.3g} {unit}"
