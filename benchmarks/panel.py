"""What an open panel costs, and how soon it shows and does things: in JupyterLab, with a short and a long history.

Everything is measured where people would notice it: from the click in the page to the first line of the handler, from
the report of a job to the frame that shows it, and the processor time of the whole kernel. Page, kernel and this
process share one machine and so one clock.

Slowness is no error: the exit code is 0 whenever everything ran.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.harness import Figure, Ratio, machine, show, write
from benchmarks.history import write_history
from tests.browser.notebook import PATIENCE, Notebook
from tests.browser.server import JupyterServer
from tests.kernel_lines import write_kernelspecs

JOBS = 4
HISTORIES = (1_000, 1_000_000)

SETUP = """
%config NBQueue.autostart = False
%load_ext nbqueue
import os, time
from pathlib import Path
import nbqueue as nbq
queues = nbq.manager()
worker = queues.worker(concurrency=8).start()

@nbq.job
def report(step):
    '''Report ten times a second when it was, until there is a file.'''
    ctx, done = nbq.current(), 0
    while not Path(f"stop-{step}").exists():
        done += 1
        ctx.progress(done, 10_000, f"at {time.time() * 1e3:.0f}")
        time.sleep(0.1)

@nbq.job
def pressed():
    '''Write down when it began, and fail, so that it can be retried.'''
    with Path("pressed").open("a") as file:
        file.write(f"{time.time() * 1e3}\\n")
    raise RuntimeError("retry me")

def loop():
    began, total = time.perf_counter(), 0
    for number in range(20_000_000):
        total += number & 7
    return time.perf_counter() - began
"""

#: Open the panel, and say after how many milliseconds its first rows were on the screen.
OPEN = """async () => {
  const began = performance.now();
  const content = shown().content;
  const index = content.model.cells.length;
  content.model.sharedModel.insertCell(index, {cell_type: 'code', source: 'panel = queues.panel()\\npanel'});
  content.activeCellIndex = index;
  content.deselectAll();
  app.commands.execute('notebook:run-cell');
  await until('rows', () => document.querySelector('.nbq-panel [role=row][data-job]'));
  await new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)));
  return performance.now() - began;
}"""

#: Collect for a while how old what the rows say is when it has been painted.
WATCH = r"""async ([seconds]) => {
  const ages = [], seen = new Set();
  const look = () => {
    for (const [, at] of document.querySelector('.nbq-panel').textContent.matchAll(/at (\d{13})/g)) {
      if (seen.has(at)) continue;
      seen.add(at);
      requestAnimationFrame(() => requestAnimationFrame(() => ages.push(Date.now() - Number(at))));
    }
  };
  look();
  ages.length = 0;
  const observer = new MutationObserver(look);
  observer.observe(document.querySelector('.nbq-panel'), {subtree: true, childList: true, characterData: true});
  await new Promise(go => setTimeout(go, seconds * 1e3));
  observer.disconnect();
  return ages.slice(JOBS);
}""".replace("JOBS", str(JOBS))

#: Press the button of a job that has failed again, since it said ``before`` how often it was tried.
PRESS = """async ([job, before]) => {
  const row = await until('another failure', () => {
    const found = document.querySelector(`.nbq-panel [role=row][data-job="${job}"]`);
    return found?.dataset.state === 'failed' && found.querySelector('.nbq-c-attempt').textContent !== before && found;
  });
  const button = await until('the button', () => row.querySelector(`[data-key="retry:${job}"]:not([aria-disabled])`));
  const tried = row.querySelector('.nbq-c-attempt').textContent;
  const at = Date.now();
  button.click();
  return {at, tried};
}"""


class PanelBench:
    """The figures, and what measures them.

    Parameters
    ----------
    folder : Path
        Where the files go.
    clicks : int
        How often each button is pressed.
    seconds : float
        How long processor time and latency are watched, each time.
    idle : float
        How long the idle kernel is watched.
    loops : int
        How often the busy loop is timed.
    """

    def __init__(self, folder: Path, *, clicks: int, seconds: float, idle: float, loops: int) -> None:
        self._folder = folder
        self._clicks, self._seconds, self._idle, self._loops = clicks, seconds, idle, loops
        self.figures: list[Figure] = []
        self._by_name: dict[str, Figure] = {}

    def _note(self, name: str, unit: str, *values: float) -> None:
        if name not in self._by_name:
            self._by_name[name] = Figure(name, unit)
            self.figures.append(self._by_name[name])
        self._by_name[name].values.extend(values)

    def measure(self, histories: Sequence[int], console: Console) -> None:
        """Everything with the first history, and what hangs on the history with the others."""
        with _pages(self._folder) as (server, new_page):
            for place, history in enumerate(histories):
                console.print(f"{history:,} jobs of history", style="dim", highlight=False)
                folder = server.root / f"history-{history}"
                folder.mkdir()
                write_history(folder / "nbqueue.duckdb", history)
                notebook = Notebook(new_page(), server, Notebook.create(folder, "ipykernel7"), "lab").open()
                notebook.run(SETUP)
                self._with_history(notebook, f"{history:,} jobs", rest=place == 0)
                notebook.page.close()
                server.shut_down(notebook.kernel)

    def _with_history(self, notebook: Notebook, history: str, *, rest: bool) -> None:
        kernel = psutil.Process(notebook.query("os.getpid()"))
        if rest:
            self._time_loop(notebook, "busy cell: nothing else")
        self._start_reports(notebook, "a")
        self._note(f"{history}: kernel, 4 jobs, no panel", "% of a core", _load(kernel, self._seconds))
        if rest:
            self._time_loop(notebook, "busy cell: 4 jobs")
        self._note(f"{history}: cell to first rows", "ms", notebook.ask(OPEN))
        self._note(f"{history}: report to screen", "ms", *notebook.ask(WATCH, self._seconds))
        self._note(f"{history}: kernel, 4 jobs, panel", "% of a core", _load(kernel, self._seconds))
        if rest:
            self._time_loop(notebook, "busy cell: 4 jobs, panel")
        (notebook.path.parent / "stop-a").touch()
        notebook.run("for receipt in receipts: receipt.wait(30)")
        self._press(notebook, history)
        if rest:
            time.sleep(self._idle / 10)  # what the last clicks have set going comes to rest
            self._note("idle kernel with worker and panel", "% of a core", _load(kernel, self._idle))

    def _start_reports(self, notebook: Notebook, step: str) -> None:
        notebook.run(f"receipts = [report.dispatch({step!r}) for _ in range({JOBS})]")

    def _time_loop(self, notebook: Notebook, name: str) -> None:
        self._note(name, "s", *notebook.query(f"[loop() for _ in range({self._loops})]"))

    def _press(self, notebook: Notebook, history: str) -> None:
        job = notebook.query("str(pressed.dispatch().wait(30))")
        self._note(f"{history}: click to handler, idle", "ms", *self._clicked(notebook, job))
        cell = notebook.start(
            "print('busy', flush=True)\nwhile not Path('go').exists(): sum(range(10_000))"
        ).until("busy")
        self._note(f"{history}: click to handler, busy cell", "ms", *self._clicked(notebook, job))
        (notebook.path.parent / "go").touch()
        cell.finish()

    def _clicked(self, notebook: Notebook, job: str) -> Iterator[float]:
        began = notebook.path.parent / "pressed"
        tried = ""
        for _ in range(self._clicks):
            before = len(began.read_text().splitlines())
            click = notebook.ask(PRESS, job, tried)
            tried = click["tried"]
            deadline = time.monotonic() + PATIENCE / 1e3
            while len(lines := began.read_text().splitlines()) == before:
                if time.monotonic() > deadline:
                    raise TimeoutError("a click had no effect")
                time.sleep(0.005)
            yield float(lines[-1]) - click["at"]

    @property
    def ratios(self) -> list[Ratio]:
        """How much slower the busy cell is."""
        alone, jobs, panel = (
            self._by_name[f"busy cell: {what}"].median for what in ("nothing else", "4 jobs", "4 jobs, panel")
        )
        return [
            Ratio("busy cell with 4 jobs / alone", jobs / alone),
            Ratio("busy cell with 4 jobs and panel / with 4 jobs", panel / jobs),
        ]


def _load(process: psutil.Process, seconds: float) -> float:
    """How much of a core a process takes, in percent."""
    before, began = process.cpu_times(), time.perf_counter()
    time.sleep(seconds)
    after, ended = process.cpu_times(), time.perf_counter()
    return (after.user + after.system - before.user - before.system) / (ended - began) * 100


@contextmanager
def _pages(folder: Path) -> Iterator[tuple[JupyterServer, Any]]:
    """A server, and pages in a browser that look at it."""
    from playwright.sync_api import sync_playwright

    environment = {"NBQUEUE_DATA_DIR": str(folder / "data"), "NBQUEUE_URL": ""}
    server = JupyterServer(
        folder / "jupyter", kernels=write_kernelspecs(folder / "kernels"), environment=environment
    )
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=executable, args=["--no-sandbox", "--disable-gpu"]
            )
            yield server, lambda: browser.new_page(viewport={"width": 1280, "height": 900})
            browser.close()
    finally:
        server.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/panel.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.panel", description=__doc__)
    parser.add_argument("--clicks", type=int, default=20, help="how often each button is pressed (20)")
    parser.add_argument("--seconds", type=float, default=15, help="how long four jobs are watched (15)")
    parser.add_argument("--idle", type=float, default=30, help="how long the idle kernel is watched (30)")
    parser.add_argument("--loops", type=int, default=5, help="how often the busy loop is timed (5)")
    parser.add_argument(
        "--history",
        type=int,
        nargs="+",
        default=HISTORIES,
        help="how many jobs there were before, in steps of 1,000",
    )
    given = parser.parse_args(arguments)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="nbqueue-bench-") as folder:
        os.environ.setdefault("NBQUEUE_DATA_DIR", str(Path(folder) / "data"))
        bench = PanelBench(
            Path(folder), clicks=given.clicks, seconds=given.seconds, idle=given.idle, loops=given.loops
        )
        bench.measure(given.history, console)
    show("The panel in JupyterLab", bench.figures, bench.ratios, console)
    packages = ("nbqueue", "duckdb", "jupyterlab", "ipykernel", "anywidget")
    path = write("panel", {"history": list(given.history), **machine(*packages)}, bench.figures, bench.ratios)
    console.print(f"written to {path}", style="dim", highlight=False)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
