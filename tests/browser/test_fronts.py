"""Other fronts: Voila shows panel and form, marimo the panel."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.notebook import Notebook
from tests.browser.server import JupyterServer, MarimoServer
from tests.browser.test_panel import JOBS
from tests.browser.traffic import Traffic
from tests.browser.views import PanelView

#: What Voila's own page asks for: icons and formulas, both ornaments.
VOILA_ASKS = ("https://cdn.jsdelivr.net/npm/@fortawesome/", "https://cdnjs.cloudflare.com/ajax/libs/mathjax/")


def test_voila(server: JupyterServer, page: Page, folder: Path, traffic: Traffic) -> None:
    """A job dispatched from the form in Voila is seen in the panel beside it, from its first step to its end."""
    traffic.allow(*VOILA_ASKS)
    path = Notebook.create(folder, "ipykernel7", JOBS, "queues.panel()", "count.form()")
    page.goto(server.page("voila", path))
    panel = PanelView(page.locator(".nbq-panel"))
    expect(panel.link).to_have_text("live")
    form = page.locator(".nbq-f")
    form.get_by_label("steps").fill("2")
    form.get_by_role("button", name="Dispatch").click()
    row = panel.rows("count")
    expect(row).to_have_attribute("data-state", "running")
    (folder / "step-1").touch()
    expect(row).to_contain_text("1/2")
    (folder / "step-2").touch()
    expect(row).to_have_attribute("data-state", "succeeded")
    expect(form.locator(".nbq-j .nbq-badge")).to_have_attribute("data-state", "succeeded")


MARIMO = """
import marimo

app = marimo.App()


@app.cell
def _():
{cell}
    return
"""
CELL = """
import time
from pathlib import Path
import marimo as mo
import nbqueue as nbq

queues = nbq.connect("jobs.duckdb")
worker = queues.worker(concurrency=2).start()

@nbq.job
def count(steps: int = 2):
    for step in range(1, steps + 1):
        while not Path(f"step-{step}").exists():
            time.sleep(0.01)
        nbq.current().progress(step, steps)

count.dispatch()
mo.ui.anywidget(queues.panel())
"""


def test_marimo(marimo: Callable[[Path], MarimoServer], page: Page, tmp_path: Path) -> None:
    """In marimo the panel shows a job from its first step to its end, and retries it by its button."""
    path = tmp_path / "app.py"
    path.write_text(MARIMO.format(cell=textwrap.indent(CELL, "    ")))
    page.goto(marimo(path).url)
    panel = PanelView(page.locator(".nbq-panel"))
    row = panel.rows("count")
    expect(row).to_have_attribute("data-state", "running")
    (tmp_path / "step-1").touch()
    expect(row).to_contain_text("1/2")
    (tmp_path / "step-2").touch()
    expect(row).to_have_attribute("data-state", "succeeded")
    (tmp_path / "step-2").unlink()
    panel.press("retry", str(row.get_attribute("data-job")))
    expect(row).to_have_attribute("data-state", "running")
    (tmp_path / "step-2").touch()
    expect(row).to_have_attribute("data-state", "succeeded")
