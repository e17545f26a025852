"""Pyplot's figures in a job are the job's: nobody else sees them, and what it leaves open is shown and closed."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib._pylab_helpers import Gcf

from nbqueue.running import figures, grafts
from nbqueue.running.capture import Capture, uninstall

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    grafts.want(figures.GRAFTS)
    plt.close("all")
    yield
    plt.close("all")
    uninstall()


def shown(capture: Capture) -> list[dict[str, Any]]:
    return [json.loads(chunk.text)["data"] for chunk in capture.drain() if chunk.stream == "output"]


def test_a_job_has_figures_of_its_own() -> None:
    """A job neither sees the user's figure nor draws into it, and the user does not see the job's."""
    mine = plt.figure()
    with Capture() as capture:
        assert plt.get_fignums() == []
        theirs = plt.gcf()
        assert theirs is not mine
        plt.plot([1, 2])
        assert mine.axes == []
        figures.show_open(capture)
        assert plt.get_fignums() == []
    assert plt.gcf() is mine
    (data,) = shown(capture)
    assert base64.b64decode(data["image/png"]).startswith(PNG)
    assert data["text/plain"].startswith("<Figure size")


def test_two_jobs_at_once_do_not_draw_into_one_figure() -> None:
    """Jobs in two threads have a figure 1 each."""
    barrier = threading.Barrier(2, timeout=20)
    lines: dict[int, int] = {}

    def job(count: int) -> None:
        with Capture():
            for _ in range(count):
                barrier.wait()
                plt.plot([1, 2])
            lines[count] = len(plt.gca().lines)
            plt.close("all")

    threads = [threading.Thread(target=job, args=(3,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert lines == {3: 3}
    assert plt.get_fignums() == []


def test_show_in_a_job_shows_and_closes() -> None:
    """plt.show() displays what is open, in order, and begins anew; twice shows nothing twice."""
    with Capture() as capture:
        print("before")
        plt.plot([1])
        plt.figure()
        plt.show()
        plt.show()
        print("after")
        assert plt.get_fignums() == []
    chunks = capture.drain()
    assert [chunk.stream for chunk in chunks] == ["stdout", "output", "output", "stdout"]


def test_a_figure_that_cannot_be_drawn_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure that fails to draw is an error in the job's log, and none of its result."""
    with Capture() as capture:
        plt.title("$\\notamathword$")
        figures.show_open(capture)
        assert plt.get_fignums() == []
    (chunk,) = capture.drain()
    assert chunk.stream == "stderr"
    assert "could not be drawn" in chunk.text
    assert "notamathword" in chunk.text


@pytest.mark.parametrize("choose", [mpl.use, plt.switch_backend])
def test_a_job_does_not_change_the_backend(choose: Any) -> None:
    """The line that many scripts begin with, and one that asks for a window: the notebook keeps its own."""
    plt.switch_backend("svg")
    name = choose.__name__
    with Capture() as capture:
        for backend in ("Agg", "pdf"):
            getattr(mpl if name == "use" else plt, name)(backend)
        plt.plot([1, 2])
        figures.show_open(capture)
        assert plt.get_backend() == "svg"
    assert plt.get_backend() == "svg"
    assert type(plt.figure().canvas).__name__ == "FigureCanvasSVG"
    (data,) = shown(capture)
    assert base64.b64decode(data["image/png"]).startswith(PNG)
    plt.switch_backend("agg")
    assert plt.get_backend() == "agg"


def test_everything_is_put_back() -> None:
    """Uninstalled, pyplot has its own collection again, with what was in it."""
    mine = plt.figure()
    with Capture():
        assert not isinstance(Gcf.figs, OrderedDict)
    uninstall()
    assert isinstance(Gcf.figs, OrderedDict)
    assert plt.gcf() is mine


def test_a_job_may_be_the_first_to_import_pyplot() -> None:
    """Nothing was there to be changed when it began, and yet its figures are its own, and the backend is not."""
    code = """
import os, sys
os.environ["MPLBACKEND"] = "svg"
from nbqueue.running import figures, run
from nbqueue.running.capture import Capture
with Capture() as capture:
    assert "matplotlib" not in sys.modules
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.plot([1, 2])
    figures.show_open(capture)
    plt.figure()
assert plt.get_fignums() == []
print([chunk.stream for chunk in capture.drain()], plt.get_backend())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['output'] svg\n", "")
