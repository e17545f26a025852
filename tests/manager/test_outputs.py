"""What a job displayed comes home: by its receipt, in order, folded, and only as far as this user may trust it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

import nbqueue as nbq
from nbqueue.facade.outputs import Output, outputs_of
from nbqueue.testing import drain, memory_manager

HTML = {"text/html": "<b>7</b>", "text/plain": "seven"}
PNG = {"image/png": b"\x89PNG", "text/plain": "a picture"}


def test_outputs_come_in_order_with_the_text_around_them() -> None:
    """Displays are a sequence; as text they stand where they stood."""

    @nbq.job
    def show(ctx: nbq.Context) -> None:
        print("one")
        ctx.capture.show(HTML, {"text/html": {"isolated": True}})
        print("two")
        ctx.capture.show(PNG, {})

    with memory_manager() as queues:
        receipt = queues.dispatch(show.call())
        assert list(receipt.outputs()) == []
        drain(queues)
        outputs = receipt.outputs()
        assert str(outputs) == "one\nseven\ntwo\na picture\n"
        assert repr(outputs) == "<Outputs of show: 2 displays>"
        html, png = outputs
        assert (html.data, html.metadata, html.attempt) == (HTML, {"text/html": {"isolated": True}}, 1)
        assert html.trusted
        assert html.at is not None
        assert html.at.utcoffset() is not None
        assert html._repr_mimebundle_()[0] == HTML
        assert list(outputs[1:]) == [png]
        assert str(receipt.logs()) == "one\ntwo\n"


def test_updates_and_clearings_are_folded() -> None:
    """A display shows its last update wherever it stands, and what was cleared is gone."""

    @nbq.job
    def show(ctx: nbq.Context) -> None:
        capture = ctx.capture
        print("cleared")
        capture.show({"text/plain": "cleared"}, {})
        capture.clear(wait=True)
        for place in ("x", "y", "x"):
            capture.show({"text/plain": place}, {}, display_id=place)
        capture.show({"text/plain": "x2"}, {}, display_id="x", update=True)
        capture.show({"text/plain": "of a cell"}, {}, display_id="z", update=True)

    with memory_manager() as queues:
        receipt = queues.dispatch(show.call())
        drain(queues)
        assert str(receipt.outputs()) == "x2\ny\nx2\nof a cell\n"


def test_the_newest_attempt_that_displayed_is_shown() -> None:
    """An attempt that displayed nothing hides none before it, and each can be asked for."""

    @nbq.job(tries=3, backoff=0)
    def show(ctx: nbq.Context) -> None:
        print("attempt", ctx.attempt)
        if ctx.attempt < 3:
            ctx.capture.show({"text/plain": str(ctx.attempt)}, {})
            raise ValueError

    with memory_manager() as queues:
        receipt = queues.dispatch(show.call())
        drain(queues)
        assert str(receipt.outputs()) == "attempt 2\n2\n"
        assert [output.attempt for output in receipt.outputs(attempt=1)] == [1]
        assert str(receipt.outputs(attempt=1)) == "attempt 1\n1\n"
        assert list(receipt.outputs(attempt=3)) == []
        assert str(outputs_of(queues.store, receipt.job_id, text=False)) == "2\n"


def test_a_running_job_shows_what_it_has(tmp_path: Path) -> None:
    """Displays come with the news of a job, before it has ended."""
    go_on = threading.Event()

    @nbq.job
    def show(ctx: nbq.Context) -> None:
        ctx.capture.show({"text/plain": "so far"}, {})
        go_on.wait(30)

    seen = threading.Event()
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        receipt = queues.dispatch(show.call())
        stop = queues.store.listen(seen.set)
        with queues.worker():
            while not len(receipt.outputs()):
                assert seen.wait(20), "nothing came of it"
                seen.clear()
            assert (str(receipt.outputs()), receipt.state) == ("so far\n", "running")
            go_on.set()
            receipt.wait(20)
        stop()


# ------------------------------------------------------------------------------------- trust
def show_as(monkeypatch: pytest.MonkeyPatch, secret: str, data: dict[str, Any], reader: str) -> Output:
    """Display this with one user's secret and look at it with another's."""

    @nbq.job
    def show(ctx: nbq.Context) -> None:
        ctx.capture.show(data, {"image/png": {"width": 3, "height": "3 onload=alert(1)"}, "x": "y"})

    with memory_manager() as queues:
        monkeypatch.setenv("NBQUEUE_SECRET", secret)
        receipt = queues.dispatch(show.call())
        drain(queues)
        monkeypatch.setenv("NBQUEUE_SECRET", reader)
        (output,) = receipt.outputs()
        return output


def test_html_of_a_stranger_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an output that this user did not sign, text and images are shown, and a sentence says why."""
    data = {**HTML, **PNG, "application/javascript": "alert(1)"}
    stranger = show_as(monkeypatch, "a stranger's secret", data, "the secret of this user")
    assert set(stranger.data) == {"text/plain", "image/png"}
    assert stranger.metadata == {"image/png": {"width": 3}}
    assert not stranger.trusted
    assert set(stranger.withheld) == {"text/html", "application/javascript"}
    shown, _ = stranger._repr_mimebundle_()
    assert set(shown) == {"text/plain", "image/png"}
    assert "a picture\n[text/html, application/javascript of this output withheld" in shown["text/plain"]

    own = show_as(monkeypatch, "the secret of this user", data, "the secret of this user")
    assert own.trusted
    assert set(own.data) == set(data)


def test_what_is_harmless_needs_no_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's picture is shown as it is."""
    stranger = show_as(monkeypatch, "a stranger's secret", PNG, "the secret of this user")
    assert stranger.trusted
    assert set(stranger.data) == {"text/plain", "image/png"}


@pytest.mark.parametrize("text", ["", "nonsense", "7", "[]", '{"data":7}', '{"data":{"text/html":"<b>"}}'])
def test_nonsense_in_a_file_is_shown_as_text(text: str) -> None:
    """What is no display in a file from elsewhere fails nobody who looks."""
    (output,) = outputs_in(text)
    assert dict(output.data) == {"text/plain": text}


@pytest.mark.parametrize(
    "text",
    [
        '{"data":{"text/html":"<b>","x/y":NaN,"text/plain":"P"},"metadata":{},"signature":"x"}',
        '{"data":{"text/html":"<b>","text/plain":"P"},"metadata":{"x":-Infinity},"signature":"\\ud800"}',
        '{"data":{"text/html":"<b>","text/plain":"P"},"metadata":{"image/png":{"width":NaN,"height":1e999}}}',
        '{"data":{"text/html":"<b>","\\ud800":7,"text/plain":"P"},"metadata":{},"display_id":[],"update":7}',
        '{"data":{"x/y":' + "[" * 500 + "]" * 500 + ',"text/plain":"P"},"metadata":{},"signature":"x"}',
        '{"data":' + "[" * 200_000,
    ],
)
def test_a_hostile_display_is_withheld(text: str) -> None:
    """Whatever a stranger has put into a file, it is looked at without an error, and goes into a page without one."""
    (output,) = outputs_in(text)
    assert not output.trusted
    assert set(output.data) <= {"text/plain"}
    shown, metadata = output._repr_mimebundle_()
    assert "withheld" in shown["text/plain"]
    assert json.dumps([shown, metadata], allow_nan=False, ensure_ascii=False).encode()


def test_a_surrogate_in_a_file_can_be_shown() -> None:
    """Text that no page takes is written out."""
    (output,) = outputs_in('{"data":{"text/plain":"caf\\udce9"},"metadata":{}}')
    text = output.data["text/plain"]
    assert text.encode("ascii", "replace") == b"caf\\udce9"


def outputs_in(text: str) -> Any:
    """The outputs of a job in a file that has this for its display."""

    class File:
        def query(self, sql: str, params: object = ()) -> Any:
            import pandas as pd

            at = pd.Timestamp("2026-03-01", tz="UTC")
            return pd.DataFrame({"attempt": [1], "said_at": [at], "stream": ["output"], "text": [text]})

    return outputs_of(File(), uuid.UUID(int=7), key=bytes)  # type: ignore[arg-type] # all it is asked for


def test_a_widget_of_another_kernel_is_shown_as_its_text() -> None:
    """A view whose model went with its kernel would be an error in the page."""
    view = "application/vnd.jupyter.widget-view+json"
    output = Output({view: {"model_id": "gone"}, "text/plain": "IntSlider()"}, {}, 1, None)
    assert output._repr_mimebundle_()[0] == {"text/plain": "IntSlider()"}


# ------------------------------------------------------------------------------------- in a terminal
def run(code: str) -> list[Any]:
    """Run a script; gives the JSON that it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_displays_in_an_ipython_terminal() -> None:
    """They are the job's, as in a notebook; the user's are printed, and so are the job's when asked for."""
    kept, printed = run("""
        import contextlib, io, json
        import nbqueue as nbq
        from IPython.core.interactiveshell import InteractiveShell
        from IPython.display import HTML, display

        shell = InteractiveShell.instance()

        @nbq.job
        def show():
            print("text")
            display(HTML("<b>from the job</b>"), display_id="x")

        queues = nbq.connect(":memory:")
        with contextlib.redirect_stdout(io.StringIO()) as printed, queues.worker():
            receipt = show.dispatch()
            receipt.result(30)
            before = printed.getvalue()
            display(HTML("mine"))
            receipt.outputs()._ipython_display_()
        print(json.dumps([[output.data["text/html"] for output in receipt.outputs()],
                          [before, printed.getvalue()]]))
    """)
    assert kept == ["<b>from the job</b>"]
    html = "<IPython.core.display.HTML object>\n"
    assert printed == ["", f"{html}text\n{html}"]


def test_without_ipython_a_display_is_its_text() -> None:
    """``display`` prints where there is no shell; figures are kept as pictures all the same."""
    logs, kinds = run("""
        import json
        import nbqueue as nbq

        @nbq.job
        def show():
            from IPython.display import display
            import matplotlib.pyplot as plt
            display("text")
            plt.plot([1, 2])

        queues = nbq.connect(":memory:")
        with queues.worker():
            receipt = show.dispatch()
            receipt.result(30)
        print(json.dumps([str(receipt.logs()), [sorted(output.data) for output in receipt.outputs()]]))
    """)
    assert logs == "text\n"
    assert kinds == [["image/png", "text/plain"]]


def test_run_in_the_foreground_shows_it_here(capsys: pytest.CaptureFixture[str]) -> None:
    """``queues.run`` shows in the cell what the job displayed, in order, and keeps it."""

    @nbq.job
    def show(ctx: nbq.Context) -> None:
        print("one")
        ctx.capture.show({"text/plain": "two"}, {})
        print("three")
        ctx.log.info("logged")

    with memory_manager() as queues:
        queues.run(show.call())
        log = "INFO nbqueue.job: logged\n"
        ran = capsys.readouterr()
        assert (ran.out, ran.err) == ("one\ntwo\nthree\n", log)
        outputs = queues.job(queues.jobs()["job_id"][0]).outputs()
        assert str(outputs) == f"one\ntwo\nthree\n{log}"
        outputs._ipython_display_()
        assert capsys.readouterr() == ran
