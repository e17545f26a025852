"""The pictures in the documents, light and dark, are of what the tests see; ``NBQUEUE_SCREENSHOTS=1`` takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from playwright.sync_api import Locator, Page, expect

import nbqueue as nbq
from nbqueue.handlers.registry import registry
from tests.browser.notebook import Notebook
from tests.browser.test_panel import PANEL, shown

#: A worker is named by its machine: in the documents by no machine in particular.
MACHINE = "import platform, socket\nplatform.node = socket.gethostname = lambda: 'laptop'"
JOBS = """
%load_ext nbqueue
import time
from pathlib import Path
from typing import Literal
import nbqueue as nbq
queues = nbq.manager()

@nbq.job(queue="imports", tries=3, backoff=[0.01])
def import_csv(path: str, table: str = "users", on_error: Literal["stop", "skip"] = "stop", batch: int = 1000):
    '''Import a CSV file into a table.

    Parameters
    ----------
    path : str
        The file, below data/.
    table : str
        Where its rows go.
    on_error : str
        What to do with a row that cannot be read.
    batch : int
        Rows a transaction.
    '''
    parts = 24 if path.endswith("orders.csv") else 9
    for part in range(1, parts + 1):
        nbq.current().progress(part, parts, f"part {part}")
        if part == 7 and path.startswith("big/"):
            print("reading", path)
            while not Path("stop").exists():
                if nbq.current().should_stop():
                    return 0
                time.sleep(0.01)
    return parts * batch

from cleaning import clean_rows

@nbq.job(queue="emails")
def send_email(to: str, subject: str):
    '''Send an e-mail.'''
    return f"sent to {to}"
"""
CLEANING = """
import nbqueue as nbq

DAYS = {"month 12": 31}


@nbq.job(queue="reports", tries=2, backoff=[0.01])
def clean_rows(month: int):
    '''Clean the rows of a month.'''
    print("cleaning month", month)
    return DAYS[f"month {month}"]
"""
WORK = """
queues.add_queue("emails")
queues.pause("emails")
for name in ("anna", "ben", "chloe", "dan"):
    send_email.dispatch(f"{name}@example.org", "Your report")
clean_rows.options(delay=3600).dispatch(12)
failed = [clean_rows.dispatch(month) for month in range(1, 7)]
for receipt in failed: receipt.wait(30)
done = [import_csv.dispatch(f"{name}.csv", name) for name in ("users", "items", "visits", "prices")]
for receipt in done: receipt.wait(30)
running = [import_csv.dispatch("big/orders.csv", "orders"), import_csv.dispatch("big/clicks.csv", "clicks")]
"""


PAST = """
def import_csv(path):
    if path.endswith("13.csv"):
        raise ValueError("there is no 13th month")
"""


def write_past(path: Path) -> None:
    """Write a queue whose jobs ran over the last ten minutes, more of them now and then."""
    names: dict[str, Any] = {}
    exec(compile(PAST, "imports.py", "exec"), names)
    nbq.command("import_csv", queue="imports")(names["import_csv"])
    command = nbq.QueuedCommand("import_csv").on_queue("imports")
    try:
        with nbq.connect(path) as queues:
            queues.dispatch_many([command.with_args([f"part-{number % 60:02}.csv"]) for number in range(240)])
            queues.worker(queues="imports", concurrency=4).start().drain()
    finally:
        registry.unregister("import_csv")
    with duckdb.connect(str(path)) as file:
        file.execute("""
            UPDATE ledger SET happened_us = happened_us - back.us, started_us = started_us - back.us
            FROM (SELECT job, CAST(1e6 * (20 + 560 * (1 - job / 240) + 25 * sin(job / 12)) AS BIGINT) AS us
                  FROM ledger WHERE event = 'dispatched') back
            WHERE back.job = ledger.job
        """)


@pytest.fixture
def notebook(open_notebook: Callable[..., Notebook], folder: Path, page: Page) -> Notebook:
    """A notebook whose queue has had some work to do."""
    page.set_viewport_size({"width": 1440, "height": 2400})
    write_past(folder / "nbqueue.duckdb")
    notebook = open_notebook("lab")
    notebook.ask("async () => app.shell.collapseLeft()")
    (folder / "cleaning.py").write_text(CLEANING, encoding="utf-8")
    notebook.run(MACHINE)
    notebook.run(JOBS)
    notebook.run(WORK)
    return notebook


Screenshot = Callable[[str, Locator], None]


def both_themes(
    notebook: Notebook, element: Locator, themed: Locator, name: str, screenshot: Screenshot
) -> None:
    """Take a picture in each theme, and see that the element follows the page's."""
    for theme in ("light", "dark"):
        notebook.use_theme(theme)
        expect(themed).to_have_attribute("data-theme", theme)
        screenshot(f"{name}-{theme}", element)


def test_pictures_of_the_panel(notebook: Notebook, screenshot: Screenshot) -> None:
    """The panel with all that it has to show, and with a job's detail open."""
    notebook.run(PANEL)
    panel = shown(notebook)
    orders, failed = notebook.query("[str(running[0]), str(failed[-1])]")
    expect(panel.row(orders)).to_contain_text("7/24")
    expect(panel.failures).to_contain_text("6 ×")
    expect(panel.failures).to_contain_text("KeyError")
    both_themes(notebook, panel.element, panel.element, "panel", screenshot)

    panel.row(failed).click()
    expect(panel.detail.get_by_role("tabpanel")).to_contain_text("KeyError: 'month 6'")
    both_themes(notebook, panel.element, panel.element, "panel-job", screenshot)


def test_pictures_of_the_panels_form(notebook: Notebook, screenshot: Screenshot) -> None:
    """The form in the panel, with a field that is wrong."""
    notebook.run(PANEL)
    panel = shown(notebook)
    form = panel.open_form("import_csv")
    form.get_by_label("path").fill("users.csv")
    form.get_by_label("batch").fill("many")
    form.get_by_role("button", name="Dispatch").click()
    expect(form.get_by_label("batch")).to_have_attribute("aria-invalid", "true")
    both_themes(notebook, panel.element, panel.element, "panel-form", screenshot)
