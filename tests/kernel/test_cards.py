"""A receipt at the end of a cell is a live card, and what a notebook keeps of it is brought up to its end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.kernel import PATIENCE, Kernel

pytestmark = pytest.mark.kernel

DEFINE = """
from pathlib import Path
import time
import nbqueue as nbq

queues = nbq.connect("jobs.duckdb")

@nbq.job
def work(name):
    while not Path(name).exists():
        time.sleep(0.01)

worker = queues.worker().start()
"""
VIEW = "application/vnd.jupyter.widget-view+json"


def displays(kernel: Kernel, code: str) -> list[dict[str, Any]]:
    """Run a cell; gives what it displayed, as messages."""
    shown: list[dict[str, Any]] = []

    def hook(message: dict[str, Any]) -> None:
        if message["msg_type"] in ("display_data", "execute_result"):
            shown.append(message)

    reply = kernel.client.execute_interactive(code, timeout=PATIENCE, output_hook=hook)
    assert reply["content"]["status"] == "ok", reply
    return shown


def renewed(kernel: Kernel, display_id: str) -> dict[str, Any]:
    """Wait until what was displayed under this name is replaced; gives by what."""
    while True:
        message = kernel.client.get_iopub_msg(timeout=PATIENCE)
        if message["msg_type"] == "update_display_data":
            assert message["content"]["transient"]["display_id"] == display_id
            return dict(message["content"]["data"])


def test_receipt(kernel: Kernel) -> None:
    """It is a widget, HTML and text at once; when the job has ended the kept HTML says so, with no cell run."""
    kernel.run(DEFINE)
    (message,) = displays(kernel, "work.dispatch('go')")
    data = message["content"]["data"]
    assert set(data) == {VIEW, "text/html", "text/plain"}
    assert data["text/plain"].startswith("<JobDispatch work ")
    assert "succeeded" not in data["text/html"]
    (kernel.folder / "go").touch()
    data = renewed(kernel, message["content"]["transient"]["display_id"])
    assert set(data) == {VIEW, "text/html", "text/plain"}
    assert "<em>succeeded</em>" in data["text/html"]


def test_batch(kernel: Kernel) -> None:
    """A batch is one too."""
    kernel.run(DEFINE)
    (message,) = displays(kernel, "queues.map(work, ['a', 'b'])")
    assert VIEW in message["content"]["data"]
    (kernel.folder / "a").touch()
    (kernel.folder / "b").touch()
    assert "2 of 2 ended" in renewed(kernel, message["content"]["transient"]["display_id"])["text/html"]


def test_form(kernel: Kernel) -> None:
    """A form at the end of a cell is a widget, and a table of its fields for who has no kernel."""
    kernel.run(DEFINE)
    (message,) = displays(kernel, "work.form()")
    data = message["content"]["data"]
    assert set(data) == {VIEW, "text/html", "text/plain"}
    assert "<code>name</code>" in data["text/html"]


def test_in_a_job(kernel: Kernel) -> None:
    """A job that displays a receipt displays its text: a card belongs to the notebook."""
    kernel.run(DEFINE)
    kernel.run(
        "from IPython.display import display\n"
        "@nbq.job\n"
        "def outer():\n"
        "    display(work.dispatch('later'))\n"
        "outer.dispatch().result(30)"
    )
    shown = kernel.ask(
        "import json; print(json.dumps(queues.sql('SELECT mimebundle FROM outputs')['mimebundle'].tolist()))"
    )
    assert not any(VIEW in bundle for bundle in shown)
    (kernel.folder / "later").touch()


def test_closed(kernel: Kernel) -> None:
    """A receipt of a queue that was closed is its text."""
    kernel.run(DEFINE + "receipt = work.dispatch('go')\nPath('go').touch()\nreceipt.wait(30)\nqueues.close()")
    (message,) = displays(kernel, "receipt")
    assert set(message["content"]["data"]) == {"text/plain"}
