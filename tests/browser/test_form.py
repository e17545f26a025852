"""Forms and cards as people see them: filled in, wrong, dispatched, watched and stopped, also while a cell runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.notebook import Notebook

JOBS = """
import datetime as dt
import time
from enum import Enum
from pathlib import Path
import nbqueue as nbq

queues = nbq.connect("jobs.duckdb")
worker = queues.worker(concurrency=2).start()

class Mode(Enum):
    FAST = 1
    CAREFUL = 2

@nbq.job(queue="imports", tries=3)
def import_csv(
    ctx, path: Path, batch: int = 100, mode: Mode = Mode.FAST, day: dt.date | None = None, dry_run: bool = False
):
    '''Import a CSV file into the warehouse.

    Parameters
    ----------
    path : Path
        The file, as the worker sees it.
    batch : int
        Rows written at once.
    day : date
        Only the rows of that day.
    dry_run : bool
        Read everything, write nothing.
    '''
    print("reading", path)
    ctx.progress(12, 40, "block 12")
    while not Path("done").exists():
        if ctx.should_stop():
            return "stopped"
        time.sleep(0.01)

@nbq.job(name="<img src=x onerror=alert(1)>")
def broken():
    raise ValueError("<img src=x onerror=alert(1)>")
"""
BUSY = "print('busy', flush=True)\nwhile not Path('go').exists():\n    time.sleep(0.01)"


def card_in(notebook: Notebook, name: str) -> Locator:
    """The card of a job of this command."""
    return notebook.find(".nbq-j").filter(has_text=name)


def badge_of(card: Locator) -> Locator:
    return card.locator(".nbq-badge")


@pytest.fixture
def form(notebook: Notebook) -> Locator:
    """The form of a job, in a notebook."""
    notebook.run(JOBS)
    notebook.run("import_csv.form()")
    return notebook.find(".nbq-f")


def test_form(notebook: Notebook, form: Locator) -> None:
    """What is wrong is marked at its field and not dispatched; a double click dispatches once; its card lives below."""
    dispatch = form.get_by_role("button", name="Dispatch")
    batch = form.get_by_label("batch")
    expect(batch).to_have_value("100")
    batch.fill("many")
    dispatch.click()
    alerts = form.get_by_role("alert")
    expect(alerts.filter(has_text="is needed")).to_be_visible()
    expect(alerts.filter(has_text="whole number")).to_be_visible()
    batch.fill("7")
    form.get_by_label("path *").fill("users.csv")
    form.get_by_label("dry_run").check()
    dispatch.dblclick()
    card = card_in(notebook, "import_csv")
    expect(badge_of(card)).to_have_text("running")
    expect(alerts).to_have_count(0)
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "12")
    assert notebook.query(
        "queues.sql('SELECT arguments FROM jobs')['arguments'].str.contains('7,').tolist()"
    ) == [True]
    (notebook.path.parent / "done").touch()
    expect(badge_of(card)).to_have_text("succeeded")


def test_busy_kernel(open_notebook: Callable[..., Notebook]) -> None:
    """While a cell runs a form dispatches, the card follows, and its button stops the job, all at once."""
    notebook = open_notebook("lab", "ipykernel7")
    notebook.run(JOBS)
    notebook.run("import_csv.form()")
    cell = notebook.start(BUSY).until("busy")
    form = notebook.find(".nbq-f")
    form.get_by_label("path *").fill("users.csv")
    form.get_by_role("button", name="Dispatch").click()
    card = card_in(notebook, "import_csv")
    expect(badge_of(card)).to_have_text("running")
    card.get_by_role("button", name="Cancel").click()
    expect(badge_of(card)).to_have_text("cancelled")
    (notebook.path.parent / "go").touch()
    cell.finish()


def test_busy_kernel_without_subshells(open_notebook: Callable[..., Notebook]) -> None:
    """A kernel that answers only between cells is waited for, and the card says so."""
    notebook = open_notebook("lab", "ipykernel6")
    notebook.run(JOBS)
    notebook.run("import_csv.dispatch(Path('users.csv'))")
    card = card_in(notebook, "import_csv")
    expect(badge_of(card)).to_have_text("running")
    cell = notebook.start(BUSY).until("busy")
    card.get_by_role("button", name="Cancel").click()
    expect(card.get_by_role("button", name="waiting for the kernel")).to_be_visible()
    (notebook.path.parent / "go").touch()
    cell.finish()
    expect(badge_of(card)).to_have_text("cancelled")


def test_text_is_text(open_notebook: Callable[..., Notebook]) -> None:
    """A job named and failing with markup shows as text, opened too; its button lets it run again."""
    notebook = open_notebook()
    notebook.run(JOBS)
    notebook.run("receipt = broken.dispatch().wait()\nreceipt")
    card = notebook.find(".nbq-j")
    expect(badge_of(card)).to_have_text("failed")
    expect(card.locator(".nbq-j-error")).to_have_text("ValueError: <img src=x onerror=alert(1)>")
    card.get_by_role("button", name="Show error").click()
    expect(card.locator("pre")).to_contain_text("Traceback")
    assert card.locator("img").count() == 0
    card.get_by_role("button", name="Retry").click()
    notebook.run("receipt.wait(30)\nassert len(receipt.attempts()) == 2")


def test_reload(open_notebook: Callable[..., Notebook]) -> None:
    """After the page was loaded anew the card is there, and goes on."""
    notebook = open_notebook()
    notebook.run(JOBS)
    notebook.run("import_csv.dispatch(Path('users.csv'))")
    card = card_in(notebook, "import_csv")
    expect(badge_of(card)).to_have_text("running")
    notebook.reload()
    expect(badge_of(card)).to_have_text("running")
    (notebook.path.parent / "done").touch()
    expect(badge_of(card)).to_have_text("succeeded")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures(
    open_notebook: Callable[..., Notebook], screenshot: Callable[[str, Locator], None], theme: str
) -> None:
    """The pictures for the documents."""
    notebook = open_notebook("lab", "ipykernel7", theme=theme)
    notebook.run(JOBS)
    notebook.run("import_csv.form()")
    form = notebook.find(".nbq-f")
    form.get_by_label("path *").fill("users.csv")
    form.get_by_label("batch").fill("many")
    form.get_by_role("button", name="Dispatch").click()
    expect(form.get_by_role("alert").filter(has_text="whole number")).to_be_visible()
    screenshot(f"form-{theme}", form)
    notebook.run("import_csv.dispatch(Path('users.csv'))")
    card = card_in(notebook, "import_csv")
    expect(card.get_by_role("progressbar")).to_be_visible()
    screenshot(f"card-{theme}", card)
