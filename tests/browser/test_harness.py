"""The harness itself, with a widget that is nobody's: what the other tests rely on holds on both lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.notebook import Notebook
from tests.browser.traffic import Traffic

WIDGET = """
import time
from pathlib import Path
import anywidget, ipykernel, traitlets
from IPython.display import display

class Counter(anywidget.AnyWidget):
    _esm = '''export default { render({ model, el }) {
        const button = document.createElement("button");
        button.textContent = "one more";
        button.addEventListener("click", () => model.send("click"));
        const value = document.createElement("output");
        const show = () => { value.textContent = String(model.get("value")); };
        model.on("change:value", show);
        show();
        el.append(button, value);
    } }'''
    value = traitlets.Int(0).tag(sync=True)

counter = Counter()
counter.on_msg(lambda *_: setattr(counter, "value", counter.value + 1))
if hasattr(counter.comm, "_reply_subshell_for"):
    counter.comm._reply_subshell_for = lambda data, default: default
display(counter)
"""
BUSY = "print('busy', flush=True)\nwhile not Path('go').exists():\n    time.sleep(0.01)"


def test_click_while_busy(notebook: Notebook, page: Page, kernel_line: str) -> None:
    """A click is handled at once on ipykernel 7.4, and after the cell on 6.31; the kernel is of the line asked for."""
    notebook.run(WIDGET)
    assert notebook.query("ipykernel.__version__").startswith(
        {"ipykernel6": "6.31.", "ipykernel7": "7."}[kernel_line]
    )
    value = notebook.find("output")
    button = notebook.find("button")
    button.click()
    expect(value).to_have_text("1")

    cell = notebook.start(BUSY).until("busy")
    button.click()
    if kernel_line == "ipykernel7":
        expect(value).to_have_text("2")
    (notebook.path.parent / "go").touch()
    cell.finish()
    expect(value).to_have_text("2")


def test_reload_and_restart(open_notebook: Callable[..., Notebook], app: str) -> None:
    """What a widget shows is there after a reload; after a restart the kernel has forgotten its names."""
    notebook = open_notebook(app)
    notebook.run(WIDGET)
    notebook.run("counter.value = 7")
    notebook.reload()
    expect(notebook.find("output")).to_have_text("7")
    assert notebook.query("counter.value") == 7
    notebook.restart()
    assert notebook.query("'counter' in globals()") is False


def test_errors_are_seen(open_notebook: Callable[..., Notebook]) -> None:
    """A cell that raises fails the test, with its traceback."""
    with pytest.raises(AssertionError, match=r"ZeroDivisionError: division by zero"):
        open_notebook().run("1 / 0")


def test_dark(open_notebook: Callable[..., Notebook], page: Page, app: str) -> None:
    """A page can be dark."""
    open_notebook(app, theme="dark")
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "false")


def test_requests_are_seen(open_notebook: Callable[..., Notebook], traffic: Traffic) -> None:
    """A request to another machine is noted, whatever it is for, and gets nowhere; that to the server is no such."""
    notebook = open_notebook()
    script = "async () => { try { await fetch('http://example.org/x'); return 'there'; } catch { return 'nowhere'; } }"
    assert notebook.ask(script) == "nowhere"
    notebook.run("from IPython.display import HTML\nHTML('<img src=http://example.org/y.png alt=picture>')")
    expect(notebook.find("img")).to_be_attached()
    assert traffic.outside() == {"http://example.org/x", "http://example.org/y.png"}
    traffic.allow("http://example.org/")
    assert traffic.outside() == set()
