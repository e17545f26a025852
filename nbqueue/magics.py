"""``%nbq`` and ``%config NBQueue``: parse, make one call of the facade, give what it gives; knows only the facade."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from typing import Any

import click
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from traitlets import Bool, Int, TraitError, Unicode, observe

from nbqueue.cli import terminal
from nbqueue.cli.commands import (
    Group,
    PassesOn,
    cancelled,
    dispatch_options,
    filter_options,
    names_of,
    to_work,
)
from nbqueue.errors import NbqueueError
from nbqueue.facade.manager import QueueConfig, QueueManager, connect, latest
from nbqueue.jobs import State

__all__ = ["NBQueue", "load", "unload"]

_PLOTS = ("throughput", "latency", "backlog", "timeline")


@magics_class
class NBQueue(Magics):
    """The magics, and what ``%config NBQueue`` sets."""

    url = Unicode("", help="The queue's file or URL; empty: $NBQUEUE_URL, else ./nbqueue.duckdb.").tag(
        config=True
    )
    autostart = Bool(True, help="Start a worker on every queue when the extension is loaded.").tag(
        config=True
    )
    concurrency = Int(4, help="How many jobs the worker runs at a time.").tag(config=True)
    executor = Unicode("thread", help="What the worker runs jobs with.").tag(config=True)
    default_queue = Unicode("default", help="The queue of jobs that name none.").tag(config=True)

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell, parent=shell)
        self._opened: QueueManager | None = None
        self._worker: Any = None
        self._loaded = False

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
        worker = self.queues.worker(
            concurrency=self.concurrency if concurrency is None else concurrency,
            executor=self.executor if executor is None else executor,
        )
        self.stop()
        self._worker = worker.start()
        return f"a worker here serves every queue, {worker.info.concurrency} jobs at a time"

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

    @observe("url", "default_queue")
    def _reopen(self, _change: object) -> None:
        if not self._loaded:
            return
        try:
            # Before the old one is let go: a mistyped url must not end the jobs that run.
            opened = self._open()
        except NbqueueError as error:
            kept = latest()
            _complain(f"{error}" + (f"\nThe queue stays {kept.name}, and its jobs go on." if kept else ""))
            return
        self.close()
        self.open()
        opened.close()

    @observe("concurrency", "executor")
    def _change(self, _change: object) -> None:
        if self.working is not None:
            print(_sentence(self._start_again()))

    def _start_again(self) -> str:
        try:
            return self.start()
        except NbqueueError as error:
            _complain(str(error))
            return "the worker goes on as it was" if self.working is not None else "no worker was started"

    # -- the magic

    @line_magic
    def nbq(self, line: str) -> Any:
        """A durable job queue in this notebook.

        ::

            %nbq                                   where the queue is, what runs, what waits
            %nbq dispatch import:data users.csv --queue imports --delay 30
            %nbq work --concurrency 8              start the worker anew
            %nbq stop                              stop it; what runs may finish for 10 s
            %nbq jobs --state failed --since 1h    a DataFrame, newest first
            %nbq stats                             a DataFrame, a row a queue
            %nbq show ID                           all of a job: attempts, tracebacks, output
            %nbq why ID                            why it is not running
            %nbq retry ID                          let it run again
            %nbq cancel ID                         cancel it, or ask it to stop
            %nbq plot throughput                   or latency, backlog, timeline
            %nbq sql SELECT command, count(*) FROM jobs GROUP BY 1

        An ID is a job's id, or as much of its beginning as tells it from others. ``{name}`` and ``$name`` stand for
        variables of the notebook. ``%nbq dispatch --help`` shows the options of a subcommand, ``%config NBQueue``
        what can be set.
        """
        name, _, rest = line.strip().partition(" ")
        try:
            # SQL has quotes of its own.
            words = [name, rest] if name == "sql" and "--help" not in rest else shlex.split(line)
            with nbq.make_context("%nbq", words, obj=self) as context:
                return nbq.invoke(context)
        except click.exceptions.Exit:
            return None
        except click.ClickException as error:
            _complain(error.format_message())
        except ValueError as error:
            _complain(f"%nbq cannot read that line: {error}")
        return None


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:]}."


def _complain(sentence: str) -> None:
    print(f"Error: {sentence}", file=sys.stderr)


# ------------------------------------------------------------------------------------- subcommands


@click.group(cls=Group, invoke_without_command=True, context_settings={"max_content_width": 100})
@click.pass_context
def nbq(context: click.Context) -> None:
    """A durable job queue in this notebook; by itself, where it is, what runs and what waits."""
    if context.invoked_subcommand is None:
        _status(context.obj)


def _status(magics: NBQueue) -> None:
    queues = magics.queues
    infos = queues.queues()
    worker = magics.working
    print(queues.name)
    if worker is None:
        print("No worker here; %nbq work starts one.")
    else:
        print(f"A worker here serves every queue, {worker.info.concurrency} jobs at a time.")
    running = queues.jobs(state="running", limit=10)
    for row in terminal.rows_of(running):
        progress = row.get("progress")
        done = f"  {terminal.text_of(progress)}" if progress else ""
        print(f"running  {row['job_id']}  {row['command']}{done}")
    waiting = [_waiting(info) for info in infos if info.counts[State.PENDING]]
    print(
        f"{sum(info.counts[State.RUNNING] for info in infos)} running; waiting: {', '.join(waiting) or 'nothing'}"
    )


def _waiting(info: Any) -> str:
    said = f"{info.counts[State.PENDING]} on {info.name}"
    notes = [f"{info.waiting} for their time"] * bool(info.waiting) + ["paused"] * info.paused
    return f"{said} ({', '.join(notes)})" if notes else said


@nbq.command(cls=PassesOn, short_help="Hand in a command with its arguments; gives its receipt.")
@dispatch_options
@click.pass_obj
def dispatch(magics: NBQueue, /, command: str, args: tuple[str, ...], **given: Any) -> Any:
    """Hand in a named command; gives its receipt. Arguments that look like options stand after --."""
    return magics.queues.dispatch(to_work(command, args, given))


@nbq.command(short_help="Start the worker, in place of the one that works.")
@click.option(
    "--concurrency", type=int, metavar="N", help="Jobs at a time; %config NBQueue.concurrency unless given."
)
@click.option("--executor", metavar="NAME", help="What runs them; %config NBQueue.executor unless given.")
@click.pass_obj
def work(magics: NBQueue, /, concurrency: int | None, executor: str | None) -> None:
    """Start the worker on every queue, in place of the one that works."""
    print(_sentence(magics.start(concurrency, executor)))


@nbq.command(short_help="Stop the worker.")
@click.pass_obj
def stop(magics: NBQueue) -> None:
    """Stop the worker: what runs may finish for 10 s, then it is given back to its queue."""
    print("The worker is stopped." if magics.stop() else "There is no worker to stop.")


@nbq.command(short_help="Give jobs as a DataFrame.")
@filter_options
@click.pass_obj
def jobs(magics: NBQueue, /, limit: int | None, since: str | None, **picked: Any) -> Any:
    """Give jobs as a DataFrame, newest first. Names and states may be separated by commas."""
    words = {name: names_of(names) for name, names in picked.items()}
    return magics.queues.jobs(since=since, limit=limit, **words)  # type: ignore[arg-type]


@nbq.command()
@click.pass_obj
def stats(magics: NBQueue) -> Any:
    """Give a DataFrame with a row a queue and a column a state."""
    return magics.queues.stats()


@nbq.command(short_help="Show all of a job: attempts, errors, output.")
@click.argument("job", metavar="ID")
@click.pass_obj
def show(magics: NBQueue, /, job: str) -> None:
    """Show all of a job: how it stands, its attempts, tracebacks and output."""
    print(terminal.describe(magics.queues.job(job)))


@nbq.command()
@click.argument("job", metavar="ID")
@click.pass_obj
def why(magics: NBQueue, /, job: str) -> None:
    """Say in a sentence why a job is not running."""
    print(magics.queues.why(job) or "it is running")


@nbq.command(short_help="Let jobs run again.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def retry(magics: NBQueue, /, ids: tuple[str, ...]) -> None:
    """Let jobs that ended run again, and jobs that wait for their time run now."""
    for receipt in [magics.queues.job(job) for job in ids]:
        receipt.retry()
        print(f"{receipt.command} {receipt} may run again")


@nbq.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def cancel(magics: NBQueue, /, ids: tuple[str, ...]) -> None:
    """Cancel jobs that wait, and ask those that run to stop."""
    for receipt in [magics.queues.job(job) for job in ids]:
        print(cancelled(receipt))


@nbq.command(short_help="Draw throughput, latency, backlog or timeline.")
@click.argument("what", type=click.Choice(_PLOTS), default="throughput", metavar="WHAT")
@click.pass_obj
def plot(magics: NBQueue, /, what: str) -> Any:
    """Draw throughput, latency, backlog or timeline; gives matplotlib Axes."""
    return getattr(magics.queues.plot, what)()


@nbq.command(
    short_help="Run one SELECT; gives a DataFrame.", context_settings={"ignore_unknown_options": True}
)
@click.argument("query", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def sql(magics: NBQueue, /, query: tuple[str, ...]) -> Any:
    """Run one SELECT over jobs, attempts, events, logs, outputs and the notebook's DataFrames; gives a DataFrame."""
    assert magics.shell is not None
    return magics.queues.sql(" ".join(query), names=magics.shell.user_ns)


# -------------------------------------------------------------------------------------- completion


def _complete(_shell: Any, event: Any) -> list[str]:
    """Complete subcommands, and then their options and what these take."""
    words = event.line.split()[1:]
    if event.symbol:
        words = words[:-1]
    if not words:
        return [name for name in nbq.commands if name.startswith(event.symbol)]
    command = nbq.commands.get(words[0])
    if command is None:
        return []
    found = [name for option in command.params if isinstance(option, click.Option) for name in option.opts]
    if words[-1] == "--state":
        found = [*(state.value for state in State), "scheduled", "retrying"]
    elif words[0] == "plot":
        found = list(_PLOTS)
    return [word for word in found if word.startswith(event.symbol)]


# ----------------------------------------------------------------------------------------- loading


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
    shell.set_hook("complete_command", _complete, str_key="%nbq")  # type: ignore[no-untyped-call]
    magics.open()


def unload(shell: InteractiveShell) -> None:
    """Serve ``%unload_ext nbqueue``."""
    for magics in [one for one in shell.configurables if isinstance(one, NBQueue)]:
        shell.configurables.remove(magics)
        magics.close()
    shell.magics_manager.magics["line"].pop("nbq", None)
    shell.magics_manager.registry.pop("NBQueue", None)
    shell.strdispatchers["complete_command"].strs.pop("%nbq", None)
