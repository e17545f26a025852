"""A notebook open in a browser: cells are written into it and run, and what they show is read from it.

Everything is asked of the application itself (``window.jupyterapp``): its menus say that a kernel is idle before it
is connected, and what has scrolled out of sight has no text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

from tests.browser.server import JupyterServer

__all__ = ["Cell", "Notebook"]

#: How long anything may take on a slow machine, in milliseconds.
PATIENCE = 60_000

#: What the scripts below share: waiting until something holds, and the notebook that is shown.
COMMON = """
  const until = async (what, holds) => {
    const end = performance.now() + PATIENCE;
    for (;;) {
      const found = holds();
      if (found) return found;
      if (performance.now() > end) throw new Error('waited in vain for ' + what);
      await new Promise(go => setTimeout(go, 25));
    }
  };
  const app = window.jupyterapp;
  const shown = () => app.shell.currentWidget;
""".replace("PATIENCE", str(PATIENCE))

READY = """async () => {
  await app.restored;
  const notebook = await until('the notebook', () => shown()?.content?.model?.sharedModel && shown());
  await notebook.context.ready;
  await notebook.sessionContext.ready;
  const kernel = () => notebook.sessionContext.session?.kernel;
  await until('the kernel', kernel);
  await kernel().info;
  await until('an idle kernel',
    () => kernel().connectionStatus === 'connected' && kernel().status === 'idle');
  return kernel().id;
}"""

START = """async ([source]) => {
  const content = shown().content;
  const index = content.model.cells.length;
  content.model.sharedModel.insertCell(index, {cell_type: 'code', source});
  content.activeCellIndex = index;
  content.deselectAll();
  window.nbqRuns ??= {};
  window.nbqRuns[index] = app.commands.execute('notebook:run-cell');
  return index;
}"""

FINISH = """async ([index]) => {
  let over = false;
  window.nbqRuns[index].finally(() => { over = true; });
  await until('the end of the cell', () => over);
}"""

OUTPUTS = "async ([index]) => shown().content.model.cells.get(index).outputs.toJSON()"

UNTIL = """async ([index, text]) => {
  const printed = () => shown().content.model.cells.get(index).outputs.toJSON()
    .map(one => one.text ?? '').flat().join('');
  await until(JSON.stringify(text) + ' in the output', () => printed().includes(text));
}"""

THEME = """async ([theme]) => {
  await app.restored;
  await app.commands.execute('apputils:change-theme', {theme});
  await until(theme, () => document.body.dataset.jpThemeName === theme);
}"""

RESTART = """async () => {
  const session = shown().sessionContext;
  await session.restartKernel();
}"""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that was run.

    Parameters
    ----------
    notebook : Notebook
        Where it is.
    index : int
        How many cells come before it.
    """

    notebook: Notebook
    index: int

    def outputs(self) -> list[dict[str, Any]]:
        """What it has shown so far, as the file format says it."""
        return list(self.notebook.ask(OUTPUTS, self.index))

    def text(self) -> str:
        """What it has printed so far."""
        return "".join(_joined(one["text"]) for one in self.outputs() if one["output_type"] == "stream")

    def until(self, text: str) -> Cell:
        """Wait until it has printed that."""
        self.notebook.ask(UNTIL, self.index, text)
        return self

    def finish(self) -> str:
        """Wait until it has run; gives what it printed, and fails with its traceback."""
        self.notebook.ask(FINISH, self.index)
        for one in self.outputs():
            if one["output_type"] == "error":
                raise AssertionError(re.sub(r"\x1b\[[\d;]*m", "", "\n".join(one["traceback"])))
        return self.text()


class Notebook:
    """A notebook in JupyterLab or Notebook 7.

    Parameters
    ----------
    page : Page
        The browser's page.
    server : JupyterServer
        Who serves it.
    path : Path
        Its file; ``create`` writes one.
    app : str
        ``"lab"`` or ``"notebook"``.
    """

    def __init__(self, page: Page, server: JupyterServer, path: Path, app: str) -> None:
        self.page, self.path, self.app = page, path, app
        self._server = server

    @staticmethod
    def create(folder: Path, kernel: str, *sources: str) -> Path:
        """Write a notebook for that kernel, with a cell a source; gives its path."""
        path = folder / "reports.ipynb"
        kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
        cells = [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "metadata": {},
                "execution_count": None,
                "source": source,
                "outputs": [],
            }
            for number, source in enumerate(sources)
        ]
        content = {"cells": cells, "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5}
        path.write_text(json.dumps(content))
        return path

    def open(self, *, theme: str = "light") -> Notebook:
        """Show it, and wait until its kernel is ready."""
        self.page.goto(self._server.page(self.app, self.path))
        self._until_ready()
        self.use_theme(theme)
        return self

    def use_theme(self, theme: str) -> None:
        """Make the application ``"light"`` or ``"dark"``."""
        self.ask(THEME, {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}[theme])

    def run(self, code: str) -> str:
        """Run a cell to its end; gives what it printed, and fails with its traceback."""
        return self.start(code).finish()

    def start(self, code: str) -> Cell:
        """Run a cell, and do not wait for it."""
        return Cell(self, self.ask(START, code))

    def query(self, expression: str) -> Any:
        """What an expression is in the kernel, by way of JSON."""
        printed = self.run(f"import json; print(json.dumps({expression}))")
        return json.loads(printed.splitlines()[-1])

    def reload(self) -> None:
        """Save it, and load the page anew; the kernel goes on."""
        self.ask("async () => { await shown().context.save(); }")
        self.page.reload()
        self._until_ready()

    def restart(self) -> None:
        """Restart the kernel."""
        self.ask(RESTART)
        self._until_ready()

    def find(self, selector: str) -> Locator:
        """What there is of that in the outputs; text in the cells' sources is not meant."""
        return self.page.locator(".jp-OutputArea-output").locator(selector)

    def ask(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page; promises are waited for."""
        return self.page.evaluate(f"async given => {{ {COMMON} return await ({script})(given); }}", arguments)

    def _until_ready(self) -> None:
        self.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=PATIENCE)
        self.kernel = self.ask(READY)


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
