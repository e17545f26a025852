"""A tqdm bar in a job is the job's progress and draws nothing; outside it draws as ever."""

from __future__ import annotations

import inspect
import io
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any, Self

import pytest
import tqdm
import tqdm.auto
import tqdm.std

from nbqueue.jobs import Claim, Spec
from nbqueue.running import bars, grafts
from nbqueue.running.capture import Capture, uninstall
from nbqueue.running.context import Context, entering


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    grafts.want(bars.GRAFTS)
    yield
    uninstall()


class Job:
    """A running job, as a ``with``."""

    def __init__(self) -> None:
        claim = Claim(uuid.uuid4(), 1, 1, 1, None, Spec("work"), "[]", "", None, None)
        self.context = Context(claim, None)  # type: ignore[arg-type] # it dispatches nothing

    def __enter__(self) -> Self:
        self._entering = entering(self.context)
        self._entering.__enter__()
        self.context.capture.begin()
        return self

    def __exit__(self, *exc: object) -> None:
        self.context.capture.end()
        self._entering.__exit__(*exc)

    def progress(self) -> tuple[Any, ...] | None:
        text = self.context.take_progress()
        return tuple(json.loads(text).values()) if text else None

    def said(self) -> str:
        return self.context.capture.text()


def test_a_bar_is_the_progress_of_its_job() -> None:
    """What it counts, of how many, and its description; nothing of it is drawn."""
    with Job() as job:
        rows = iter(tqdm.tqdm(range(5), desc="rows"))
        next(rows)
        assert job.progress() == (0, 5, "rows")
        assert list(rows) == [1, 2, 3, 4]
        assert job.progress() == (5, 5, "rows")
        with tqdm.trange(3) as bar:
            bar.update(2)
        assert job.progress() == (2, 3, "")
    assert job.said() == ""


def test_the_outermost_bar_speaks() -> None:
    """Bars inside it are not heard, and the next one that begins when it has ended is."""
    with Job() as job:
        for _ in tqdm.tqdm(range(2), desc="outer"):
            for _ in tqdm.tqdm(range(50), desc="inner", mininterval=0):
                pass
        assert job.progress() == (2, 2, "outer")
        for _ in tqdm.tqdm(range(4), desc="second"):
            pass
        assert job.progress() == (4, 4, "second")


def test_a_bar_without_an_end() -> None:
    """How many there are need not be known, and what is no count is no error."""
    with Job() as job:
        with tqdm.tqdm() as bar:
            bar.update(3)
        assert job.progress() == (3, None, "")
        with tqdm.tqdm(total=9, initial=-5) as bar:
            bar.update(1)
        assert job.progress() is None


def test_a_bar_outside_of_a_job_draws() -> None:
    """It is drawn where it was told to, also while tqdm is changed for jobs."""
    with Capture():
        pass
    drawn = io.StringIO()
    for _ in tqdm.tqdm(range(5), desc="mine", file=drawn):
        pass
    assert "mine: 100%" in drawn.getvalue()


def test_a_bar_with_a_file_of_its_own_draws_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A job that asks for a bar in a file gets it there, and the queue hears of it too."""
    drawn = io.StringIO()
    with Job() as job:
        for _ in tqdm.tqdm(range(5), file=drawn):
            pass
        tqdm.tqdm.write("said beside a bar")
    assert "100%" in drawn.getvalue()
    assert job.progress() == (5, 5, "")
    assert job.said() == "said beside a bar\n"
    assert capsys.readouterr() == ("", "")


def test_everything_is_put_back() -> None:
    """Uninstalled, tqdm's class has its own methods again."""
    before = {name: vars(tqdm.std.tqdm)[name] for name in ("__init__", "display", "close")}
    with Capture():
        assert vars(tqdm.std.tqdm)["display"] is not before["display"]
    uninstall()
    assert {name: vars(tqdm.std.tqdm)[name] for name in before} == before


def test_a_job_may_be_the_first_to_import_tqdm() -> None:
    """Its bar is its progress as well."""
    code = """
import sys, uuid
import nbqueue as nbq

@nbq.job
def work():
    assert "tqdm" not in sys.modules
    from tqdm import tqdm
    for _ in tqdm(range(6), desc="first"):
        pass

queues = nbq.connect(":memory:")
with queues.worker():
    receipt = work.dispatch()
    receipt.result(30)
print(queues.sql("select progress from jobs")["progress"][0], repr(str(receipt.logs())))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("""{"done":6,"total":6,"note":"first"} ''\n""", "")


def test_a_bar_that_is_switched_off_silences_nobody() -> None:
    """Within a disabled bar the next one is the outermost."""
    with Job() as job:
        for _ in tqdm.tqdm(range(2), disable=True):
            inner = tqdm.tqdm(range(3), desc="inner", mininterval=0)
            assert list(inner) == [0, 1, 2]
        assert job.progress() == (3, 3, "inner")


def test_its_signature_can_be_read() -> None:
    """Whoever inspects tqdm afterwards, as editors do, sees its parameters."""
    with Job():
        assert "iterable" in inspect.signature(tqdm.tqdm.__init__).parameters
