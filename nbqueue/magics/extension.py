"""Loading and unloading: the magics, what ``%config NBQueue`` sets, and the worker of the notebook."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from traitlets import Bool, Int, TraitError, Unicode, observe

from nbqueue.cli import terminal
from nbqueue.errors import NbqueueError
from nbqueue.facade.drivers import veiled
from nbqueue.facade.manager import QueueConfig, QueueManager, connect, latest
from nbqueue.magics import completing
from nbqueue.magics.cells import Given, job
from nbqueue.magics.subcommands import nbq

__all__ = ["NBQueue", "load", "unload"]

_WHERE = {"process": ", in processes of their own", "dask": ", on a Dask cluster"}


class _Veiled(str):
    """A text that shows no password; to whoever uses it, it is the whole text."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(veiled(self))


class Url(Unicode[str, str | bytes]):
    """A URL whose password ``%config NBQueue`` does not show."""

    def validate(self, obj: Any, value: Any) -> str:
        return _Veiled(super().validate(obj, value))


@magics_class
class NBQueue(Magics):
    """The magics, and what ``%config NBQueue`` sets."""

    url = Url("", help="The queue's file or URL; empty: $NBQUEUE_URL, else ./nbqueue.duckdb.").tag(
        config=True
    )
    autostart = Bool(True, help="Start a worker on every queue when the extension is loaded.").tag(
        config=True
    )
    concurrency = Int(4, help="How many jobs the worker runs at a time.").tag(config=True)
    executor = Unicode("thread", help="What the worker runs jobs with.").tag(config=True)
    default_queue = Unicode("default", help="The queue of jobs that name none.").tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        # First, as a setting that was made before loading is observed while this is being made.
        self._opened: QueueManager | None = None
        self._worker: Any = None
        self._loaded = False
        super().__init__(shell, parent=shell)

    @property
    def queues(self) -> QueueManager:
        """The queue connected last, which is the one opened here unless the notebook connected another."""
        found = latest()
        if found is None:
            found = self._opened = self._open()
        return found

    # -- loading

    def open(self) -> None:
        """Open the queue, start the worker, and say where and what waits; what is wrong is said, not raised."""
        self._loaded = True
        try:
            # A queue that the notebook has connected already is meant, unless something else is asked for.
            if self.url or self.default_queue != "default" or latest() is None:
                self._opened = self._open()
            where, *interrupted = terminal.opening(self.queues).splitlines()
        except NbqueueError as error:
            _complain(f"{error}\nNo queue is open; %config NBQueue.url = '...' opens another.")
            return
        worker = f"; {self._start_again()}" if self.autostart else ""
        print("\n".join((where + worker, *interrupted)))

    def _open(self) -> QueueManager:
        config = QueueConfig.read(self.url or None)
        if self.default_queue != "default":
            config = replace(config, default_queue=self.default_queue)
        return connect(config)

    def close(self) -> None:
        """Stop the worker, and close the queue if it was opened here."""
        self.stop()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def start(self, concurrency: int | None = None, executor: str | None = None) -> str:
        """Start the worker on every queue, in place of the one that works; gives a sentence."""
        name = self.executor if executor is None else executor
        # A cluster knows by itself how much it can do.
        wanted = None if "://" in name else self.concurrency
        worker = self.queues.worker(concurrency=wanted if concurrency is None else concurrency, executor=name)
        self.stop()
        self._worker = worker.start()
        return self.work()

    def work(self) -> str:
        """Say what the worker here does."""
        worker = self.working
        if worker is None:
            return "no worker here"
        info = worker.info
        where = _WHERE.get(info.executor, "")
        return f"a worker here serves every queue, {info.concurrency} jobs at a time{where}"

    def stop(self) -> bool:
        """Stop the worker; whether there was one."""
        worker, self._worker = self._worker, None
        if worker is None or not worker.running:
            return False
        worker.stop()
        return True

    @property
    def working(self) -> Any:
        """The worker that was started here, if it works."""
        return self._worker if self._worker is not None and self._worker.running else None

    def update_config(self, config: Any) -> None:
        """Serve ``%config NBQueue``; a value that was refused is not kept, or it would come back with the next one."""
        super().update_config(config)
        for name in config.get("NBQueue", ()):
            self.config.NBQueue[name] = getattr(self, name)

    def _take_back(self, change: Any) -> None:
        loaded, self._loaded = self._loaded, False
        setattr(self, change.name, change.old)
        self._loaded = loaded

    @observe("url", "default_queue")
    def _reopen(self, change: Any) -> None:
        if not self._loaded:
            return
        try:
            # Before the old one is let go: a mistyped url must not end the jobs that run.
            opened = self._open()
        except NbqueueError as error:
            kept = latest()
            _complain(f"{error}" + (f"\nThe queue stays {kept.name}, and its jobs go on." if kept else ""))
            self._take_back(change)
            return
        self.close()
        self.open()
        opened.close()

    @observe("concurrency", "executor")
    def _change(self, change: Any) -> None:
        if not self._loaded or self.working is None:
            return
        try:
            said = self.start()
        except NbqueueError as error:
            _complain(f"{error}\nThe worker goes on as it was.")
            self._take_back(change)
        else:
            print(f"{said[0].upper()}{said[1:]}.")

    def _start_again(self) -> str:
        try:
            return self.start()
        except NbqueueError as error:
            _complain(str(error))
            return "the worker goes on as it was" if self.working is not None else "no worker was started"

    # -- the magics

    @line_magic
    def nbq(self, line: str) -> Any:
        """A durable job queue in this notebook.

        ::

            %nbq                                   where the queue is, what runs, what waits
            %nbq panel                             all of it live: queues, jobs, errors, buttons
            %nbq dispatch import:data users.csv --queue imports --delay 30
            %nbq form import:data                  a form that dispatches it
            %nbq work --concurrency 8              start the worker anew
            %nbq stop                              stop it; what runs may finish for 10 s
            %nbq jobs --state failed --since 1h    a DataFrame, newest first
            %nbq failures --since 1d               what failed jobs failed with, a row an error
            %nbq stats                             a DataFrame, a row a queue
            %nbq show ID                           all of a job: attempts, tracebacks, output
            %nbq why ID                            why it is not running
            %nbq retry ID                          let it run again
            %nbq retry-all --queue imports         let all jobs that failed run again
            %nbq cancel ID                         cancel it, or ask it to stop
            %nbq batch ID                          take up the jobs of a map again
            %nbq pause QUEUE                       hand out no more of its jobs
            %nbq resume QUEUE                      hand them out again
            %nbq prune --older-than 7d             remove jobs that ended a while ago
            %nbq plot throughput                   or latency, backlog, timeline
            %nbq sql SELECT command, count(*) FROM jobs GROUP BY 1
            %nbq doctor                            is the set-up right?

        An ID is a job's id, or as much of its beginning as tells it from others. ``{name}`` and ``$name`` stand for
        variables of the notebook. ``%nbq dispatch --help`` shows the options of a subcommand, ``%config NBQueue``
        what can be set, and ``%%job?`` how a whole cell runs in the background.
        """
        name, _, rest = line.strip().partition(" ")
        # SQL has quotes of its own.
        words = [name, rest] if name == "sql" and "--help" not in rest else None
        return _obey(nbq, "%nbq", line, self, words)

    @cell_magic
    def job(self, line: str, cell: str) -> Any:
        """Run this cell in the background, as a job like any other; gives its receipt.

        ::

            %%job --out total --tries 3 --timeout 60
            prices = load(path)
            sum(prices)

        It runs on a copy of the notebook's names, as they are now: what it assigns stays its own. The value of its
        last expression is displayed, unless a semicolon follows it, and is the job's result; ``--out total`` gives
        it to the notebook under that name once the job has succeeded. ``await``, ``!command`` and ``%magic`` work
        as in any cell. What it prints and displays is kept with the job: ``receipt.outputs()`` shows it again.

        It belongs to this kernel, whose names it uses: after a restart it waits, and ``%nbq why`` says so. The
        names are copied, not what they mean: a list that the cell appends to is the notebook's list.

        ``%%job --help`` shows the options.
        """
        return _obey(job, "%%job", line, Given(self, f"%%job {line}".rstrip(), cell))


def _obey(
    command: click.Command, name: str, line: str, obj: object, words: Sequence[str] | None = None
) -> Any:
    """Run what a line says; what is wrong with it is a sentence."""
    try:
        with command.make_context(name, list(words or shlex.split(line)), obj=obj) as context:
            return command.invoke(context)
    except click.exceptions.Exit:
        return None
    except click.ClickException as error:
        _complain(error.format_message())
    except NbqueueError as error:
        _complain(str(error))
    except ValueError as error:
        _complain(f"{name} cannot read that line: {error}")
    return None


def _complain(sentence: str) -> None:
    print(f"Error: {sentence}", file=sys.stderr)


def _with_body(lines: list[str]) -> list[str]:
    """Give ``%%job --help`` the empty cell without which IPython would refuse it."""
    bare = len(lines) == 1 and lines[0].split()[:1] == ["%%job"]
    return [lines[0].rstrip("\n") + "\n", "\n"] if bare else lines


# Whether the user has finished typing a cell is not for this to say.
_with_body.has_side_effects = True  # type: ignore[attr-defined]


def load(shell: InteractiveShell) -> None:
    """Serve ``%load_ext nbqueue``."""
    try:
        magics = NBQueue(shell)
    except TraitError as error:
        # A value that was set wrongly once would keep the extension from ever loading again.
        _complain(f"{error} What %config NBQueue had set is dropped; the defaults hold.")
        shell.config.pop("NBQueue", None)
        shell.configurables[:] = [one for one in shell.configurables if not isinstance(one, NBQueue)]
        magics = NBQueue(shell)
    shell.register_magics(magics)
    # They are configurables, whatever its annotation says.
    configurables: list[Any] = shell.configurables
    configurables.append(magics)
    completing.install(shell)
    shell.input_transformers_cleanup.insert(0, _with_body)
    magics.open()


def unload(shell: InteractiveShell) -> None:
    """Serve ``%unload_ext nbqueue``."""
    for magics in [one for one in shell.configurables if isinstance(one, NBQueue)]:
        shell.configurables.remove(magics)
        magics.close()
    shell.magics_manager.magics["line"].pop("nbq", None)
    shell.magics_manager.magics["cell"].pop("job", None)
    shell.magics_manager.registry.pop("NBQueue", None)
    shell.input_transformers_cleanup[:] = [
        one for one in shell.input_transformers_cleanup if one is not _with_body
    ]
    completing.uninstall(shell)
