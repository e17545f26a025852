"""A worker in a terminal: what it imports, what it says, and how signals end it; knows workers only from the facade."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import math
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import click

from nbqueue.cli.terminal import count, one_line, span
from nbqueue.errors import NbqueueError
from nbqueue.facade.manager import QueueManager
from nbqueue.jobs import State
from nbqueue.patience import within

__all__ = ["Shift", "Signals", "import_handlers", "say_handlers"]

_SHOWN = 12
_WAITING = """
    SELECT command, queue, count(*) AS jobs FROM jobs WHERE state = 'pending' GROUP BY ALL ORDER BY jobs DESC, 1, 2
"""


def say(text: str) -> None:
    """For people; what programs read goes to stdout alone."""
    with contextlib.suppress(
        OSError
    ):  # whoever read this has gone, with the terminal maybe; the work goes on
        click.echo(text, err=True)


# ---------------------------------------------------------------------------------------- handlers


def import_handlers(name: str) -> str:
    """Import a module, or a .py file, from the working directory or anywhere on the path; gives its name.

    Raises
    ------
    click.ClickException
        If there is none, or it fails; the sentence says where.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        if name.endswith(".py"):
            return _import_file(Path(name))
        return importlib.import_module(name).__name__
    except click.ClickException:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name is not None and _is_part(error.name, name):
            sentence = f"--import {name}: there is no module {error.name} in {here} or on the Python path"
            raise click.ClickException(sentence) from error
        said = str(error) if isinstance(error, NbqueueError) else f"{type(error).__name__}: {error}"
        raise click.ClickException(f"--import {name} failed{_where(error)}: {said}") from error


def _is_part(missing: str, name: str) -> bool:
    return name == missing or name.startswith(f"{missing}.")


def _import_file(path: Path) -> str:
    if not path.is_file():
        raise click.ClickException(f"--import {path}: there is no such file in {Path.cwd()}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    # Known by its name, so that its handlers are those of `import tasks` and it is not run a second time.
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path.stem


def _where(error: Exception) -> str:
    """Where the user's own code failed."""
    if isinstance(error, SyntaxError):
        return f" in {error.filename}, line {error.lineno}"
    ours = (str(Path(__file__).parent.parent), "importlib")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(p in f.filename for p in ours)]
    return f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def say_handlers(queues: QueueManager, served: Sequence[str] | None, imported: Sequence[str]) -> None:
    """Say what this worker can run, and what waits since it cannot."""
    known = queues.handlers()
    source = f"imported: {', '.join(imported)}" if imported else "no --import was given"
    if known:
        say(f"Handlers: {_listed(known)} ({source})")
    else:
        say(
            f"No handlers ({source}): named commands and Job classes will wait. What was dispatched from a notebook"
            " brings its code along and runs; for the rest add --import MODULE."
        )
    missing = [name for name in served or () if name not in queues.list()]
    if missing:
        say(f"Not there yet, until somebody dispatches to it: {_listed(missing)}")
    waiting = queues.sql(_WAITING).to_dict("records")
    here = [row for row in waiting if served is None or row["queue"] in served]
    if foreign := [f"{row['command']} ({row['jobs']})" for row in here if row["command"] not in known]:
        say(f"Waiting without a handler here: {_listed(foreign)}")
    elsewhere: Counter[str] = Counter()
    for row in waiting:
        if row not in here:
            elsewhere[row["queue"]] += int(row["jobs"])
    if elsewhere:
        others = [f"{name} ({jobs})" for name, jobs in elsewhere.most_common()]
        say(f"Waiting on queues that this worker does not serve: {_listed(others)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")


# ------------------------------------------------------------------------------------------- work


class Signals:
    """Notes signals, once it listens, instead of dying of them.

    A process that was told to end stays deaf until it has: one more SIGTERM must not keep it from closing its file.
    """

    def __init__(self) -> None:
        #: The numbers of those that came. A signal handler may put into a SimpleQueue, whatever it interrupts.
        self.happened: SimpleQueue[int | None] = SimpleQueue()
        self._before: dict[int, Any] = {}
        self._came = False

    def listen(self) -> None:
        """Note them from now on; in the main thread. What the caller has ignored, as nohup does, stays ignored."""
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._notice)

    def _notice(self, number: int, _frame: object) -> None:
        self._came = True
        self.happened.put(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            # Python's own handlers are taken out while the interpreter goes; what is ignored stays ignored.
            signal.signal(number, signal.SIG_IGN if self._came else handler)


class Shift:
    """A worker at work until it ends by itself or is told to by a signal; a line for each attempt.

    Parameters
    ----------
    queues : QueueManager
        Whose worker it is.
    signals : Signals
        Tells it to stop.
    served : Sequence[str] | None
        The queues it serves, None for every queue.
    **options
        Of the worker, as ``queues.worker`` takes them.
    """

    def __init__(
        self, queues: QueueManager, signals: Signals, served: Sequence[str] | None, **options: Any
    ) -> None:
        self._queues = queues
        self._signals = signals
        self._worker = queues.worker(served, on_ended=self._show, **options)
        self._ended: Counter[str] = Counter()
        self._log = _WorkerLog()

    @property
    def served(self) -> tuple[str, ...] | None:
        """The queues it serves, None for every queue."""
        return self._worker.info.queues

    def run(self) -> bool:
        """Work until the end, in the main thread; whether it was a good end."""
        worker, began = self._worker, time.monotonic()
        logger = logging.getLogger("nbqueue.worker")
        logger.addHandler(self._log)
        self._signals.listen()
        try:
            worker.start()
            served = "every queue" if worker.info.queues is None else ", ".join(worker.info.queues)
            slots = worker.info.concurrency
            say(
                f"Working on {served}, {slots} job{'s' if slots > 1 else ''} at a time."
                " Ctrl-C lets what runs finish; a second one gives it back."
            )
            threading.Thread(target=self._await_end, name="nbqueue-end", daemon=True).start()
            self._serve()
        finally:
            logger.removeHandler(self._log)
        ended = ", ".join(f"{times} {how}" for how, times in sorted(self._ended.items())) or "no job ended"
        say(f"Stopped after {span(time.monotonic() - began)}: {ended}{self._waiting()}.")
        return not self._log.failed

    def _waiting(self) -> str:
        """What is left for others, where that can be told."""
        try:
            with within(1.0):
                return f", {count(self._queues, State.PENDING)} waiting"
        except NbqueueError:
            return ""

    def _await_end(self) -> None:
        self._worker.wait()
        self._signals.happened.put(None)

    def _serve(self) -> None:
        """Wait for the worker's end; the first signal asks for it, the second insists."""
        asked = 0
        while (number := self._signals.happened.get()) is not None:
            asked += 1
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            if asked == 1:
                # Before it is said: whoever reads it may count on it. The end is what this loop waits for already.
                self._worker.request_stop(math.inf)
                running = self._worker.under_way()
                doing = f"finishing {running}; a second one gives back what runs" if running else "stopping"
                say(f"{name}: takes no more jobs, {doing}.")
            elif asked == 2:
                say(f"{name} again: gives back what runs.")
                self._worker.stop(0)

    def _show(self, report: Any) -> None:
        """One line for an attempt that ended; called in the worker's thread."""
        claim, how = report.claim, str(report.outcome).replace("_", " ")
        self._ended[how] += 1
        seconds = max(0.0, (report.finished_at or 0.0) - (report.started_at or 0.0))
        at, short = time.strftime("%H:%M:%S"), str(claim.job_id)[:13]
        line = f"{at}  {short}  {claim.spec.command}  {how}  {seconds:.2f} s"
        if report.error:
            line += f"  attempt {claim.attempt} of {claim.max_attempts}: {one_line(report.error)}"
        with contextlib.suppress(OSError):  # whoever read this has gone; the jobs go on
            click.echo(line)


class _WorkerLog(logging.Handler):
    """Shows what a worker has to say of itself, and keeps whether it failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.failed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.failed = self.failed or record.levelno >= logging.ERROR
        say(f"{time.strftime('%H:%M:%S')}  {self.format(record)}")
