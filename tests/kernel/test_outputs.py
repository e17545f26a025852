"""What a job displays in a real kernel is its own: kept, shown again when asked for, and in nobody's cell."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.kernel import PATIENCE, Kernel

pytestmark = pytest.mark.kernel

DISPLAYS = {"display_data", "update_display_data", "execute_result", "clear_output", "stream"}

BEGIN = """
import asyncio, json, threading
import nbqueue as nbq
from IPython.display import HTML, Markdown, clear_output, display

before, after = threading.Event(), threading.Event()
queues = nbq.connect("jobs.duckdb")
worker = queues.worker(concurrency=2).start()

def told(receipt):
    return [[output.trusted, dict(output.data)] for output in receipt.outputs()]
"""


def seen(kernel: Kernel, code: str) -> list[dict[str, Any]]:
    """Run a cell; gives whatever the kernel showed meanwhile, in this cell or in another."""
    asked = kernel.client.execute(code)
    found = []
    while True:
        message = kernel.client.get_iopub_msg(timeout=PATIENCE)
        kind, content = message["msg_type"], message["content"]
        assert kind != "error", "\n".join(content["traceback"])
        if kind in DISPLAYS or kind.startswith("comm"):
            found.append({"kind": kind, **content})
        ours = message["parent_header"].get("msg_id") == asked
        if ours and kind == "status" and content["execution_state"] == "idle":
            return found


def shown(kernel: Kernel, code: str) -> list[dict[str, Any]]:
    """What a cell displayed, by MIME type."""
    return [message["data"] for message in seen(kernel, code) if message["kind"] == "display_data"]


def test_displays_of_a_job_are_kept_and_land_in_no_cell(kernel: Kernel) -> None:
    """A frame, HTML, an update and a clearing are the job's, in order with its text, after a restart too."""
    kernel.run(
        BEGIN
        + """
import pandas as pd

@nbq.job
def show():
    display("cleared")
    clear_output()
    print("one")
    display(HTML("<b>two</b>"))
    before.set()
    after.wait()
    handle = display(Markdown("draft"), display_id=True)
    print("three")
    handle.update(Markdown("**final**"))
    display(pd.DataFrame({"n": [1, 2]}))
    display(HTML("x" * 5_000_000))
"""
    )
    assert seen(kernel, "receipt = show.dispatch(); _ = before.wait()") == []
    busy = seen(kernel, "after.set(); _ = receipt.wait(30); print('the cell')")
    assert [(message["kind"], message["text"]) for message in busy] == [("stream", "the cell\n")]
    assert seen(kernel, "pass") == []

    html, markdown, frame, large = kernel.ask("print(json.dumps(told(receipt)))")
    assert html == [True, {"text/html": "<b>two</b>", "text/plain": "<IPython.core.display.HTML object>"}]
    assert (markdown[0], markdown[1]["text/markdown"]) == (True, "**final**")
    assert (frame[0], "<table" in frame[1]["text/html"]) == (True, True)
    assert large == [True, {"text/plain": "… [truncated: an output of 5.0 MB left out] …"}]
    job = kernel.ask("print(json.dumps(str(receipt)))")

    kernel.restart()
    again = seen(
        kernel, f"import nbqueue as nbq; queues = nbq.connect('jobs.duckdb'); queues.job({job!r}).outputs()"
    )
    kinds = [(message["kind"], message.get("text")) for message in again]
    assert kinds == [
        ("stream", "one\n"),
        ("display_data", None),
        ("display_data", None),
        ("stream", "three\n"),
        ("display_data", None),
        ("display_data", None),
    ]
    assert again[1]["data"]["text/html"] == "<b>two</b>"
    assert again[2]["data"]["text/markdown"] == "**final**"

    # As in a file that somebody else has sent: signed, but not by this user.
    stranger = shown(
        kernel, f"import os; os.environ['NBQUEUE_SECRET'] = 'another secret'; queues.job({job!r}).outputs()"
    )
    assert [set(data) for data in stranger] == [{"text/plain"}] * 4
    assert "withheld" in stranger[0]["text/plain"]


def test_async_jobs_on_one_thread_keep_their_displays_apart(kernel: Kernel) -> None:
    """Two jobs that take turns on the worker's loop, and the threads that one of them asks, display for themselves."""
    kernel.run(
        BEGIN
        + """
turns = {}

@nbq.job
async def show(me, other):
    turns.setdefault(me, asyncio.Event()), turns.setdefault(other, asyncio.Event())
    for number in range(3):
        display(HTML(f"{me}{number}"))
        turns[other].set()
        await turns[me].wait()
        turns[me].clear()
    turns[other].set()
    await asyncio.to_thread(display, HTML(f"{me} from a thread"))
"""
    )
    receipts = "a, b = show.dispatch('a', 'b'), show.dispatch('b', 'a'); _ = a.wait(30), b.wait(30)"
    assert seen(kernel, receipts) == []
    both = kernel.ask("print(json.dumps([[d['text/html'] for _, d in told(one)] for one in (a, b)]))")
    assert both == [[*(f"{me}{n}" for n in range(3)), f"{me} from a thread"] for me in "ab"]


def test_what_a_job_has_ipython_show_lands_in_no_cell(kernel: Kernel) -> None:
    """Values by the display hook, a cell that a job runs, and its traceback are the job's, in order."""
    kernel.run(
        BEGIN
        + """
import sys
from IPython import get_ipython

@nbq.job
def show():
    sys.displayhook(HTML("<b>42</b>"))
    sys.displayhook(None)
    before.set()
    after.wait()
    get_ipython().run_cell("print('ran'); 5")
    sys.displayhook(6)
    get_ipython().run_cell("{}['missing']")
"""
    )
    assert seen(kernel, "receipt = show.dispatch(); _ = before.wait()") == []
    assert seen(kernel, "after.set(); _ = receipt.wait(30)") == []
    html, *values = kernel.ask("print(json.dumps(told(receipt)))")
    assert html[1]["text/html"] == "<b>42</b>"
    assert values == [[True, {"text/plain": "5"}], [True, {"text/plain": "6"}]]
    text = kernel.ask("print(json.dumps(str(receipt.logs())))")
    assert text.startswith("ran\n")
    assert "KeyError" in text
    (mine,) = seen(kernel, "7")
    assert (mine["kind"], mine["data"]) == ("execute_result", {"text/plain": "7"})


def test_output_widgets_in_a_job_clear_nothing_of_it(kernel: Kernel) -> None:
    """``interact`` and others clear the output of their widget; what the job showed before stays."""
    kernel.run(
        BEGIN
        + """
import ipywidgets

@nbq.job
def show():
    display("first")
    out = ipywidgets.Output()
    with out:
        clear_output()
        print("inside")
        {}["missing"]
    out.clear_output(wait=True)
    ipywidgets.interact(lambda x: print("x is", x), x=3)
    display("last")
    return out.msg_id
"""
    )
    busy = seen(kernel, "receipt = show.dispatch(); _ = receipt.wait(30)")
    assert not [message for message in busy if message["kind"] in DISPLAYS]
    texts = kernel.ask("print(json.dumps([output.data['text/plain'] for output in receipt.outputs()]))")
    assert (texts[0], texts[-1]) == ("'first'", "'last'")
    assert kernel.ask("print(json.dumps(receipt.result()))") == ""
    text = kernel.ask("print(json.dumps(str(receipt.logs())))")
    assert text.startswith("inside\n")
    assert text.endswith("x is 3\n")
    assert "KeyError" in text
    cell = "out = ipywidgets.Output()\nwith out:\n    print(bool(out.msg_id))"
    assert [one["text"] for one in seen(kernel, cell) if one["kind"] == "stream"] == ["True\n"]


def test_logs_of_a_job_are_in_no_cell(kernel: Kernel) -> None:
    """A logger that had its own handler before: its records are the job's, once; the notebook's are shown."""
    kernel.run(
        "import logging\napp = logging.getLogger('app'); app.setLevel('INFO')\napp.addHandler(logging.StreamHandler())"
    )
    kernel.run(
        BEGIN
        + """
@nbq.job
def work():
    app.info("from the job")
    print("by the interpreter", file=sys.__stdout__)

import sys
"""
    )
    assert seen(kernel, "receipt = work.dispatch(); _ = receipt.wait(30)") == []
    assert kernel.ask("print(json.dumps(str(receipt.logs())))") == "from the job\nby the interpreter\n"
    assert [one["text"] for one in seen(kernel, "app.info('from the cell')")] == ["from the cell\n"]


def test_displays_beside_capture_and_a_display_of_the_cell(kernel: Kernel) -> None:
    """A job displays into no %%capture of the user's, and the user's own displays go where they went."""
    kernel.run(
        BEGIN
        + """
@nbq.job
def show():
    display(HTML("from the job"))
"""
    )
    cell = "%%capture taken\nreceipt = show.dispatch()\n_ = receipt.wait(30)\ndisplay(HTML('from the cell'))"
    assert seen(kernel, cell) == []
    assert kernel.ask("print(json.dumps([one.data['text/html'] for one in taken.outputs]))") == [
        "from the cell"
    ]
    assert shown(kernel, "display(HTML('now'))")[0]["text/html"] == "now"
    (mine,) = kernel.ask("print(json.dumps(told(receipt)))")
    assert mine[1]["text/html"] == "from the job"


def test_figures_of_a_job_are_its_own(kernel: Kernel) -> None:
    """A job that imports pyplot before anybody else: its figures are kept, and not shown in the cell run next."""
    kernel.run(
        BEGIN
        + """
@nbq.job
def plot():
    import matplotlib.pyplot as plt
    plt.plot([1, 2])
    plt.show()
    plt.plot([2, 1])
    before.set()
    after.wait()
    plt.title("later")
"""
    )
    assert seen(kernel, "receipt = plot.dispatch(); _ = before.wait()") == []
    kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt")
    # The cell draws while the job has a figure of its own open.
    (mine,) = shown(kernel, "plt.plot([3, 4]); assert plt.get_fignums() == [1]")
    assert "image/png" in mine
    assert seen(kernel, "after.set(); _ = receipt.wait(30)") == []
    assert seen(kernel, "assert plt.get_fignums() == []") == []
    assert kernel.ask("print(json.dumps([sorted(data) for _, data in told(receipt)]))") == [
        ["image/png", "text/plain"],
        ["image/png", "text/plain"],
    ]


def test_bars_of_a_job_are_its_progress(kernel: Kernel) -> None:
    """A tqdm bar, as widget or as text, becomes the job's progress: no widget is made and nothing is drawn."""
    kernel.run(
        BEGIN
        + """
@nbq.job
def work():
    from tqdm.notebook import tqdm
    from tqdm.auto import trange
    for _ in trange(3, desc="first"):
        pass
    for number in tqdm(range(7), desc="second"):
        for _ in trange(2, desc="inner"):
            pass
"""
    )
    assert seen(kernel, "receipt = work.dispatch(); _ = receipt.result(30)") == []
    told = kernel.ask("""
progress = queues.sql("select progress from jobs")["progress"][0]
print(json.dumps([progress, str(receipt.logs()), len(receipt.outputs())]))
""")
    assert told == ['{"done":7,"total":7,"note":"second"}', "", 0]
    assert "comm_open" in {
        m["kind"] for m in seen(kernel, "from tqdm.notebook import trange; trange(2).close()")
    }


def test_traceback_of_a_job_points_into_its_cell(kernel: Kernel) -> None:
    """A frame that is a cell's reads Cell In[n] with its line, and no file that does not exist is named."""
    kernel.run(BEGIN)
    kernel.run("""@nbq.job
def fail():
    return {}["x"]
""")
    text = kernel.run("print(fail.dispatch().exception(30).traceback)")
    assert text.splitlines()[:3] == [
        "Traceback (most recent call last):",
        "  Cell In[2], line 3, in fail",
        '    return {}["x"]',
    ]
    assert "ipykernel_" not in text
