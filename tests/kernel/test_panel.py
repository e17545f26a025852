"""The panel in a kernel: it answers while a cell runs, is idle while nothing happens, and is stored as it stands."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import psutil
import pytest

from tests.kernel.kernel import PATIENCE, Kernel

pytestmark = pytest.mark.kernel

OPEN = """
import json, os, time
import nbqueue as nbq
queues = nbq.connect("jobs.duckdb")
@nbq.job
def boom(n: int) -> None:
    raise ValueError("<img src=x onerror=alert(1)>")
worker = queues.worker().start()
shown = queues.panel()
shown
"""


class Front:
    """What a page is to a panel: it hears what the panel says, and sends what is clicked, by a subshell if it can."""

    def __init__(self, kernel: Kernel) -> None:
        self.client = kernel.client
        self.model = kernel.ask("print(json.dumps(shown.model_id))")
        self.numbers = 0
        self.subshell: str | None = None
        info = self.client.kernel_info(reply=True, timeout=PATIENCE)["content"]
        if "kernel subshells" in info.get("supported_features", ()):
            request = self.client.session.msg("create_subshell_request", {})
            self.client.control_channel.send(request)
            self.subshell = self.client.get_control_msg(timeout=PATIENCE)["content"]["subshell_id"]

    def send(self, what: str, **more: Any) -> int:
        """Send a command, as JupyterLab does; gives its number."""
        self.numbers += 1
        content = {"method": "custom", "content": {"id": self.numbers, "do": what, **more}}
        message = self.client.session.msg("comm_msg", {"comm_id": self.model, "data": content})
        if self.subshell is not None:
            message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)
        return self.numbers

    def hear(self, wanted: Callable[[dict[str, Any]], bool], patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for something that the panel says, or that the kernel says of a cell."""
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self.client.get_iopub_msg(timeout=left)
            except queue.Empty:
                break
            content = message["content"]
            said = content["data"].get("content", {}) if message["msg_type"] == "comm_msg" else {}
            found = {"kernel": message["msg_type"], **content, **said}
            if wanted(found):
                return found
        pytest.fail(f"not heard within {patience} s")


def is_done(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda said: said.get("type") == "done" and said["id"] == number


def test_clicks_are_answered_while_a_cell_runs(kernel: Kernel) -> None:
    """On ipykernel 7.4 a click is carried out while a cell sleeps or computes, on 6.31 when it has ended."""
    kernel.run(OPEN)
    front = Front(kernel)
    front.send("hello")
    front.hear(lambda said: said.get("type") == "snapshot")
    kernel.client.execute(
        "print('begun'); end = time.time() + 3\nwhile time.time() < end: pass\nprint('over')"
    )
    front.hear(lambda said: said.get("text") == "begun\n")
    number = front.send("pause", queue="default")
    heard = front.hear(lambda said: is_done(number)(said) or "over" in said.get("text", ""))
    assert ("over" in heard.get("text", "")) == (front.subshell is None)
    if front.subshell is None:
        front.hear(is_done(number))
    else:
        front.hear(lambda said: "over" in said.get("text", ""))
    assert kernel.ask("print(json.dumps(queues.queues()[0].paused))")


def test_idle_kernel_with_a_panel_is_idle(kernel: Kernel) -> None:
    """A worker that waits and an open panel take less than a hundredth of a core."""
    kernel.run(OPEN)
    front = Front(kernel)
    front.send("hello")
    front.hear(lambda said: said.get("type") == "snapshot")
    process = psutil.Process(kernel.ask("print(os.getpid())"))
    # What was begun by opening comes to an end: the file is checked a moment after the last write.
    time.sleep(3.0)
    before, begun = process.cpu_times(), time.monotonic()
    time.sleep(5.0)
    after, ended = process.cpu_times(), time.monotonic()
    busy = after.user + after.system - before.user - before.system
    assert busy / (ended - begun) < 0.01


def test_stored_notebook_has_the_last_state(tmp_path: Path, kernel_line: str) -> None:
    """A notebook that was run from top to bottom shows, without a kernel, how the queue stood at its end."""
    notebook = nbformat.v4.new_notebook()
    sources = (
        OPEN,
        "for receipt in [boom.dispatch(n) for n in range(3)]:\n    receipt.wait(30)",
        "print('end')",
    )
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbclient.NotebookClient(
        notebook, kernel_name=kernel_line, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    (output,) = notebook.cells[0].outputs
    assert "default: 3 failed" in output["data"]["text/plain"]
    page = output["data"]["text/html"]
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") == 3
    assert "<img" not in page
    assert "application/vnd.jupyter.widget-view+json" in output["data"]
    assert [o["text"] for cell in notebook.cells[1:] for o in cell.outputs] == ["end\n"]
    assert json.loads(nbformat.writes(notebook))["cells"]
