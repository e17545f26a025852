"""The panel as people see it: in JupyterLab 4 and Notebook 7, on kernels of both lines of ipykernel.

The jobs wait for files, so that a test says when they go on.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.notebook import Cell, Notebook
from tests.browser.traffic import Traffic
from tests.browser.views import PanelView

JOBS = """
%load_ext nbqueue
import time
from pathlib import Path
import nbqueue as nbq
queues = nbq.manager()

@nbq.job
def count(steps: int = 3, name: str = "step"):
    '''Count steps, each as its file comes.'''
    for step in range(1, steps + 1):
        while not Path(f"{name}-{step}").exists():
            if nbq.current().should_stop():
                return "stopped"
            time.sleep(0.01)
        nbq.current().progress(step, steps, f"at step {step}")
        print("counted", step)
    return steps

@nbq.job
def fragile(name: str):
    '''Fail while a file is missing.'''
    if not Path(name).exists():
        raise FileNotFoundError(f"there is no {name}")
    return name
"""
PANEL = "panel = queues.panel()\npanel"
BUSY = "print('busy', flush=True)\nwhile not Path('go').exists():\n    time.sleep(0.01)"


@pytest.fixture
def panel(notebook: Notebook) -> PanelView:
    """The panel in a notebook that has loaded nbqueue and a few jobs."""
    notebook.run(JOBS)
    notebook.run(PANEL)
    return shown(notebook)


def shown(notebook: Notebook) -> PanelView:
    view = PanelView(notebook.find(".nbq-panel"))
    expect(view.link).to_have_text("live")
    return view


def dispatched(notebook: Notebook, call: str) -> str:
    """Dispatch a job in a cell; gives its id."""
    return str(notebook.query(f"str({call})"))


def touch(notebook: Notebook, name: str) -> None:
    (notebook.path.parent / name).touch()


def busy(notebook: Notebook) -> Cell:
    """Keep the kernel busy with a cell until the file ``go`` is there."""
    return notebook.start(BUSY).until("busy")


def test_dispatch_and_watch(notebook: Notebook, panel: PanelView) -> None:
    """A job is dispatched from the panel's form, and seen from its first step to its end with no cell run."""
    form = panel.open_form("count")
    steps = form.get_by_label("steps")
    expect(steps).to_have_value("3")
    steps.fill("two")
    form.get_by_role("button", name="Dispatch").click()
    expect(steps).to_have_attribute("aria-invalid", "true")
    expect(panel.rows("count")).to_have_count(0)

    steps.fill("2")
    form.get_by_role("button", name="Dispatch").click()
    row = panel.rows("count")
    expect(row).to_have_attribute("data-state", "running")
    touch(notebook, "step-1")
    expect(row.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "1")
    expect(row).to_contain_text("1/2 · at step 1")
    touch(notebook, "step-2")
    expect(row).to_have_attribute("data-state", "succeeded")

    row.click()
    panel.detail.get_by_role("tab", name="Logs").click()
    expect(panel.detail.get_by_role("tabpanel")).to_contain_text("counted 1\ncounted 2")
    assert notebook.query("len(queues.jobs())") == 1


def test_retry_while_busy(notebook: Notebook, panel: PanelView, kernel_line: str) -> None:
    """While a cell runs, a failed job is retried by its button: at once on 7.4, after the cell on 6.31."""
    job = dispatched(notebook, "fragile.dispatch('data').wait(30)")
    panel.expect_state(job, "failed")
    touch(notebook, "data")
    cell = busy(notebook)
    panel.press("retry", job)
    if kernel_line == "ipykernel6":
        expect(panel.link).to_have_text("waiting for the kernel")
        panel.expect_state(job, "failed")
        touch(notebook, "go")
    panel.expect_state(job, "succeeded")
    touch(notebook, "go")
    cell.finish()
    expect(panel.link).to_have_text("live")


def test_cancel_while_busy(notebook: Notebook, panel: PanelView, kernel_line: str) -> None:
    """While a cell runs, a running job is asked to stop by its button; what it reports meanwhile is seen on both."""
    job = dispatched(notebook, "count.dispatch(3)")
    panel.expect_state(job, "running")
    cell = busy(notebook)
    touch(notebook, "step-1")
    expect(panel.row(job)).to_contain_text("1/3")
    panel.press("cancel", job)
    if kernel_line == "ipykernel6":
        expect(panel.link).to_have_text("waiting for the kernel")
        panel.expect_state(job, "running")
        touch(notebook, "go")
    panel.expect_state(job, "cancelled")
    touch(notebook, "go")
    cell.finish()


def test_reload_and_restart(notebook: Notebook, panel: PanelView) -> None:
    """After a reload the panel is live again; after a restart it says that it is not, and a new one has every job."""
    done = dispatched(notebook, "count.dispatch(1, 'done')")
    failed = dispatched(notebook, "fragile.dispatch('data').wait(30)")
    running = dispatched(notebook, "count.dispatch(2, 'later')")
    notebook.run("queues.job(queues.jobs(state='running')['job_id'].iloc[0])")
    card = notebook.find(".nbq-j")
    expect(card.locator(".nbq-badge")).to_have_attribute("data-state", "running")
    touch(notebook, "done-1")
    panel.expect_state(done, "succeeded")

    notebook.reload()
    panel = shown(notebook)
    panel.expect_state(failed, "failed")
    panel.expect_state(running, "running")
    touch(notebook, "later-1")
    expect(panel.row(running)).to_contain_text("1/2")

    notebook.restart()
    expect(panel.link).to_have_text("shows the last state")
    expect(card).to_contain_text("last seen so")
    notebook.run(JOBS)
    cell = notebook.start(PANEL)
    cell.finish()
    panel = PanelView(notebook.find(".nbq-panel").last)
    panel.expect_state(done, "succeeded")
    panel.expect_state(failed, "failed")
    panel.expect_state(running, "running")
    touch(notebook, "later-2")
    panel.expect_state(running, "succeeded")


EVIL = "<img src=x onerror=alert(1)>"


def test_text_stays_text(notebook: Notebook, panel: PanelView, page: Page, traffic: Traffic) -> None:
    """A job whose name, arguments, error, metadata, logs and displays are markup is shown as text, and runs nothing."""
    job = _dispatch_evil(notebook)
    panel.expect_state(job, "failed")
    row = panel.row(job)
    expect(row).to_contain_text(EVIL)
    expect(panel.failures).to_contain_text(EVIL)
    row.click()
    for tab in ("Overview", "Attempts", "Logs"):
        panel.detail.get_by_role("tab", name=tab).click()
        expect(panel.detail.get_by_role("tabpanel")).to_contain_text(EVIL)
    panel.detail.get_by_role("tab", name="Outputs").click()
    frame = panel.detail.get_by_role("tabpanel").locator("iframe")
    expect(frame).to_have_attribute("sandbox", "")
    expect(panel.element.locator("img")).to_have_count(0)
    assert not [url for url in traffic.asked if Path(url).name == "x"]


def _dispatch_evil(notebook: Notebook) -> str:
    notebook.run(f"""
from IPython.display import HTML, display

@nbq.command({EVIL!r})
def evil(*args):
    print({EVIL!r})
    display(HTML({EVIL!r}))
    raise ValueError({EVIL!r})
""")
    command = f"nbq.QueuedCommand({EVIL!r}).with_args([{EVIL!r}]).with_metadata({EVIL!r}, {EVIL!r}).on_queue({EVIL!r})"
    return dispatched(notebook, f"queues.dispatch({command}).wait(30)")
