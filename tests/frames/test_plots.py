"""The plots: what is drawn and how it is labelled; not how it looks to the pixel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.dates import ConciseDateFormatter, date2num
from matplotlib.figure import Figure

from nbqueue import plots
from nbqueue.facade.manager import QueueManager
from nbqueue.lifecycle import Outcome
from nbqueue.plots import COLORS, _human

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Book

EACH = ["throughput", "latency", "backlog", "timeline"]
NOON = datetime(2026, 1, 1, tzinfo=UTC)
OPEN: list[QueueManager] = []


@pytest.fixture(autouse=True)
def agg() -> Iterator[None]:
    """Figures on no screen, none left behind."""
    mpl.use("agg")
    yield
    plt.close("all")
    while OPEN:
        OPEN.pop().close()


def Plots(book: Book) -> plots.Plots:  # noqa: N802 - stands for the class
    """The plots of a manager on a store that was written by hand."""
    OPEN.append(QueueManager(store=book))
    return plots.Plots(OPEN[-1])


@pytest.fixture
def filled(book: Book) -> Book:
    """Ten jobs that succeeded and two that failed, over five minutes, on two workers."""
    for n in range(12):
        outcome = Outcome.FAILED if n % 6 == 5 else Outcome.SUCCEEDED
        book.run(
            book.job(n * 25, "mail" if n % 3 else "load"), n * 25 + 1, n * 25 + 9, outcome, worker=f"w{n % 2}"
        )
    return book


def legend(ax: Axes) -> list[str]:
    """The words of the legend."""
    found = ax.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def days(seconds: float) -> float:
    """A moment of a book as Matplotlib counts."""
    return float(date2num(NOON + timedelta(seconds=seconds)))


# ------------------------------------------------------------------------------------------------------- all
@pytest.mark.parametrize("name", EACH)
def test_makes_a_figure(filled: Book, name: str) -> None:
    """Without an Axes each makes a figure of its own, with a title, and it can be saved."""
    ax = getattr(Plots(filled), name)()
    assert isinstance(ax, Axes)
    assert ax.get_title(loc="left") == name.capitalize()
    ax.figure.canvas.draw()
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("full", [True, False])
def test_draws_where_it_is_told(request: pytest.FixtureRequest, name: str, full: bool) -> None:
    """Given an Axes each draws there, and pyplot never hears of it."""
    ax = Figure().subplots()
    before = mpl.rcParams.copy()
    found = getattr(Plots(request.getfixturevalue("filled" if full else "book")), name)(ax=ax)
    assert found is ax
    assert plt.get_fignums() == []
    assert mpl.rcParams == before


@pytest.mark.parametrize("name", EACH)
def test_nothing_yet(book: Book, name: str) -> None:
    """With no job each says so."""
    ax = getattr(Plots(book), name)()
    sentence = "no jobs yet" if name == "backlog" else "no finished jobs yet"
    assert [text.get_text() for text in ax.texts] == [sentence]
    ax.figure.canvas.draw()


@pytest.mark.parametrize("name", EACH)
def test_one_job_that_took_no_time(book: Book, name: str) -> None:
    """One job, begun and ended in the instant of its dispatch, makes a plot like any other."""
    book.run(book.job(0), 0, 0)
    ax = getattr(Plots(book), name)()
    low, high = ax.get_xlim()
    assert low < high
    ax.figure.canvas.draw()


@pytest.mark.parametrize("name", ["throughput", "backlog", "timeline"])
def test_time_axis(filled: Book, name: str) -> None:
    """Time is UTC, says so, and is formatted concisely."""
    ax = getattr(Plots(filled), name)()
    assert ax.get_xlabel() == "time (UTC)"
    assert isinstance(ax.xaxis.get_major_formatter(), ConciseDateFormatter)


def test_colours() -> None:
    """Every state and outcome has a colour, and no two share one."""
    words = {"pending", "running", "succeeded", "failed", "cancelled", "interrupted", "released", "refused"}
    assert set(COLORS) == words
    assert len(set(COLORS.values())) == len(words)


# ------------------------------------------------------------------------------------------------ throughput
def test_throughput_bars(filled: Book) -> None:
    """Bars are stacked: jobs that failed stand on those that succeeded, in the colours of both."""
    ax = Plots(filled).throughput(every="1min")
    # Ends at 9, 34, 59 | 84, 109 | 134*, 159 | 184, 209, 234 | 259, 284*; those with a star failed.
    succeeded, failed = ax.containers
    assert [bar.get_height() for bar in succeeded] == [3, 2, 1, 3, 1]
    assert [bar.get_height() for bar in failed] == [0, 0, 1, 0, 1]
    assert [bar.get_y() for bar in failed] == [3, 2, 1, 3, 1]
    assert [bar.get_x() for bar in succeeded] == pytest.approx([days(60 * n) for n in range(5)])
    assert to_hex(succeeded[0].get_facecolor()) == COLORS["succeeded"].lower()
    assert to_hex(failed[0].get_facecolor()) == COLORS["failed"].lower()
    assert legend(ax) == ["succeeded 10", "failed 2"]


@pytest.mark.parametrize(
    ("every", "label"),
    [
        ("1min", "per minute"),
        ("30s", "per 30 s"),
        ("1h", "per hour"),
        ("5min", "per 5 min"),
        (1, "per second"),
    ],
)
def test_throughput_unit(filled: Book, every: float | str, label: str) -> None:
    """The axis says of what length a stretch is."""
    assert Plots(filled).throughput(every).get_ylabel() == f"jobs finished {label}"


# --------------------------------------------------------------------------------------------------- latency
def test_latency_rows(filled: Book) -> None:
    """A row a command, busiest first, each with its number of jobs; medians where they belong."""
    ax = Plots(filled).latency()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["mail  (8)", "load  (4)"]
    assert legend(ax) == ["waited", "ran"]
    waited, ran = ax.lines
    assert list(waited.get_xdata()) == [1, 1]
    assert list(ran.get_xdata()) == [8, 8]
    assert {text.get_text() for text in ax.texts} == {"1 s", "8 s"}
    assert ax.get_xscale() == "log"


def test_latency_of_many_commands(book: Book) -> None:
    """Of more commands than fit, the busiest are shown, and the title says so."""
    for n in range(20):
        for _ in range(2 if n == 19 else 1):
            book.run(book.job(0, f"c{n}"), 1, 2)
    ax = Plots(book).latency()
    assert ax.get_title(loc="left") == "Latency: busiest 12 of 20 commands"
    assert ax.get_yticklabels()[0].get_text() == "c19  (2)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 µs"), (2e-6, "2 µs"), (0.0015, "1.5 ms"), (0.25, "250 ms"), (0.9999, "1 s"), (1, "1 s")),
        *(
            (12.34, "12.3 s"),
            (60, "1 min"),
            (90, "1.5 min"),
            (3_600, "1 h"),
            (86_400, "1 d"),
            (864_000, "10 d"),
        ),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    """Durations are in a unit that people would use."""
    assert _human(seconds) == text


# --------------------------------------------------------------------------------------------------- backlog
def test_backlog_lines(book: Book) -> None:
    """Two lines, labelled with what they came to and the most there were."""
    first, _ = book.job(0), book.job(0)
    book.claim(first, 3)
    ax = Plots(book).backlog()
    pending, running = ax.lines
    assert (pending.get_ydata()[-1], running.get_ydata()[-1]) == (1, 1)
    assert max(pending.get_ydata()) == 2
    assert to_hex(pending.get_color()) == COLORS["pending"].lower()
    assert legend(ax) == ["pending: 1 at the end, 2 at most", "running: 1 at the end, 1 at most"]
    assert ax.get_ylim()[0] == 0


# -------------------------------------------------------------------------------------------------- timeline
def bars(ax: Axes) -> dict[str, list[tuple[float, float, float]]]:
    """Begin, end and row of every bar, by its colour's name."""
    names = {color.lower(): name for name, color in COLORS.items()}
    found: dict[str, list[tuple[float, float, float]]] = {}
    for collection in ax.collections:
        assert isinstance(collection, PolyCollection)
        name = names[to_hex(collection.get_facecolor()[0])]
        for path in collection.get_paths():
            (left, top), (right, bottom) = path.vertices.min(axis=0), path.vertices.max(axis=0)
            found.setdefault(name, []).append((left, right, (top + bottom) / 2))
    return found


def test_timeline_bars(book: Book) -> None:
    """A bar an attempt, from its start to its end, on a row of its worker; workers are told apart by a gap."""
    book.run(book.job(0), 1, 5, worker="a")
    book.run(book.job(0), 2, 4, Outcome.FAILED, worker="a")
    book.run(book.job(0), 3, 6, worker="b")
    ax = Plots(book).timeline()
    drawn = bars(ax)
    assert drawn["succeeded"] == [
        pytest.approx((days(1), days(5), 0)),
        pytest.approx((days(3), days(6), 2.4)),
    ]
    assert drawn["failed"] == [pytest.approx((days(2), days(4), 1))]
    assert legend(ax) == ["succeeded 2", "failed 1"]
    assert [
        (tick.get_text(), at) for tick, at in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
    ] == [
        ("a", 0.5),
        ("b", 2.4),
    ]


def test_timeline_of_what_runs(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that runs reaches to now."""
    monkeypatch.setattr(plots.Plots, "_now", staticmethod(lambda: NOON + timedelta(seconds=60)))
    book.claim(book.job(0), 10)
    assert bars(Plots(book).timeline())["running"] == [pytest.approx((days(10), days(60), 0))]


def test_timeline_is_capped(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more attempts than can be seen the newest are drawn, and the title says so."""
    monkeypatch.setattr("nbqueue.plots._ATTEMPTS_SHOWN", 10)
    for n in range(25):
        book.run(book.job(0), n, n + 0.5)
    ax = Plots(book).timeline()
    assert ax.get_title(loc="left") == "Timeline: newest 10 of 25 attempts"
    assert len(bars(ax)["succeeded"]) == 10


def test_timeline_of_many_workers(book: Book) -> None:
    """A figure does not grow for ever, and names do not overlap."""
    for n in range(100):
        book.run(book.job(0), n, n + 1, worker=f"w{n:03}")
    ax = Plots(book).timeline()
    assert ax.figure.get_size_inches()[1] <= 9
    assert len(ax.get_yticks()) <= 30
