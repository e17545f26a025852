"""The command line: parses, makes one call of the facade, and prints; knows no store, worker or executor.

Much of it is what ``--help`` says. The options of ``dispatch`` and ``jobs`` are those of the magics too.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from nbqueue.cli import doctoring, serving, shift, terminal, trusting
from nbqueue.cli.shift import say
from nbqueue.durations import duration, moment
from nbqueue.errors import InvalidCommand, NbqueueError, QueueUnavailable
from nbqueue.facade.checkup import checkup
from nbqueue.facade.manager import QueueConfig, QueueManager, connect
from nbqueue.facade.trusting import foreign_in
from nbqueue.jobs import Options, QueuedCommand, State

__all__ = [
    "STATES",
    "TIME",
    "Command",
    "Group",
    "PassesOn",
    "cancelled",
    "dispatch_options",
    "filter_options",
    "job_options",
    "left_alone",
    "main",
    "names_of",
    "pruned",
    "retried",
    "to_options",
    "to_work",
]

F = TypeVar("F", bound=Callable[..., Any])

#: Rows of a table for people; programs get all.
SHOWN = 20
STATES = (*(state.value for state in State), "scheduled", "retrying")


# ----------------------------------------------------------------------------------------- parsing


class Command(click.Command):
    """A command whose examples in ``--help`` stay as they are written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if text := kwargs.get("help"):
            kwargs["help"] = re.sub(r"(?m)^(?=For example:$)", "\b\n", inspect.cleandoc(text))
        super().__init__(*args, **kwargs)


class Group(Command, click.Group):
    """Commands whose errors are their sentence, and which are listed in the order they were written."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names of the commands, as they were written."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what goes wrong is its sentence, and exit code 1."""
        try:
            return super().invoke(ctx)
        except NbqueueError as error:
            raise click.ClickException(str(error)) from error


class PassesOn(Command):
    """Takes arguments that are meant for a job."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse them; an option that is unknown may have been meant for the job."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = f"If it is meant for the job, put it after --, as in: -- {error.option_name}"
            raise click.UsageError(f"{error.format_message()} {hint}", ctx) from error


class _Time(click.ParamType[float]):
    """Seconds, or "90s", "5m", "1h30m", "7d"."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        what = param.name if param is not None and param.name else "duration"
        number: object = value
        with contextlib.suppress(ValueError):
            number = float(value)
        try:
            return duration(number, what=what)
        except InvalidCommand as error:
            raise click.ClickException(str(error)) from error


TIME = _Time()


def _all(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for one in reversed(decorators):
            command = one(command)
        return command

    return decorate


_db = click.option(
    "--db",
    "url",
    metavar="PATH",
    help="The queue's file or URL.  [default: $NBQUEUE_URL, else ./nbqueue.duckdb]",
)

#: What may be said of any job that is handed in.
job_options = _all(
    click.option("--queue", metavar="NAME", help="The queue; it is made if there is none of that name."),
    click.option("--delay", type=TIME, metavar="TIME", help="Run it no earlier than this from now."),
    click.option(
        "--at", metavar="WHEN", help='Run it no earlier than then, e.g. "2026-03-01 06:00" (local time).'
    ),
    click.option("--priority", type=int, metavar="N", help="-100 to 100, higher runs first.  [default: 0]"),
    click.option("--tries", type=int, metavar="N", help="Attempts at most.  [default: what its worker says]"),
    click.option("--timeout", type=TIME, metavar="TIME", help="How long one attempt may take."),
    click.option(
        "--metadata", multiple=True, metavar="KEY=VALUE", help="For tracking: JSON or text. Repeatable."
    ),
)

#: What ``dispatch`` takes.
dispatch_options = _all(
    click.argument("command"), click.argument("args", nargs=-1, type=click.UNPROCESSED), job_options
)

#: What ``jobs`` picks by.
filter_options = _all(
    click.option("--state", multiple=True, metavar="STATES", help=f"{', '.join(STATES)}."),
    click.option("--queue", multiple=True, metavar="NAMES", help="Those of these queues."),
    click.option("--command", multiple=True, metavar="NAMES", help="Those of these commands."),
    click.option(
        "--since", metavar="TIME", help='Dispatched in the last "1h" or "7d", or since "2026-03-01".'
    ),
    click.option("--limit", type=int, metavar="N", help="So many at most, the newest."),
)


def to_work(command: str, args: Sequence[str], given: dict[str, Any]) -> QueuedCommand:
    """Make what the facade dispatches of what ``dispatch_options`` parsed; what no queue can take is refused here."""
    return replace(QueuedCommand(command).with_args(args), options=to_options(given))


def to_options(given: dict[str, Any]) -> Options:
    """Make what the facade takes of what ``job_options`` parsed; what no queue can take is refused here."""
    at = given.pop("at")
    if at is not None:
        if given["delay"] is not None:
            raise click.UsageError("--delay and --at both say when; give one of them")
        given["scheduled_at"] = datetime.fromtimestamp(moment(at, now=time.time(), what="at"), UTC)
    given["metadata"] = dict(map(_pair, given["metadata"]))
    return Options.make(**given)


def _pair(text: str) -> tuple[str, object]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise click.UsageError(f"--metadata takes KEY=VALUE, e.g. --metadata user_id=7, not {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def names_of(given: Iterable[str]) -> list[str] | None:
    """Give names that were repeated, or separated by commas; None for none."""
    return [name.strip() for text in given for name in text.split(",") if name.strip()] or None


@contextlib.contextmanager
def _opened(url: str | None, *, make: bool = False) -> Iterator[QueueManager]:
    """Open a queue and say where it is; make its file only where work may be put into it."""
    config = QueueConfig.read(url)
    if not make and not config.is_there():
        raise QueueUnavailable(
            f"there is no queue {config.shown}; name another with --db or $NBQUEUE_URL,"
            " or make one with nbqueue dispatch or nbqueue work"
        )
    with connect(config) as queues:
        say(terminal.opening(queues))
        yield queues


# ---------------------------------------------------------------------------------------- commands


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="nbqueue", prog_name="nbqueue")
def main() -> None:
    """A durable job queue that lives in a notebook, and in one file.

    The file is ./nbqueue.duckdb unless $NBQUEUE_URL or --db names another, or a URL: postgresql://…, sqs://…. Every
    command says on stderr which one it has opened.

    For example:
      nbqueue dispatch import:data users.csv --queue imports
      nbqueue work --queue imports,default --import tasks
      nbqueue jobs --state failed --since 1h
      nbqueue show 019ad0f2-1c3b
      nbqueue retry 019ad0f2-1c3b
    """


@main.command(short_help="Run jobs until told to stop.")
@_all(
    click.option(
        "--queue",
        "names",
        multiple=True,
        metavar="NAMES",
        help="Served in this order, separated by commas; '*' is every queue.  [default: default]",
    ),
    click.option(
        "--import",
        "modules",
        multiple=True,
        metavar="MODULE",
        help="A module or .py file whose handlers it is to know. Repeatable.",
    ),
    click.option(
        "--concurrency",
        type=int,
        metavar="N",
        help="Jobs at a time.  [default: 4; on a Dask cluster its threads]",
    ),
    click.option(
        "--executor",
        default="thread",
        metavar="NAME",
        help="What runs them: thread, process, or a Dask cluster as in dask://HOST:8786.  [default: thread]",
    ),
    click.option(
        "--max-jobs-per-child",
        type=int,
        metavar="N",
        help="With process: a child is replaced after so many jobs.",
    ),
    click.option("--memory-limit", metavar="SIZE", help="With process: of a child, as in 500MB or 2GB."),
    click.option("--tries", type=int, metavar="N", help="Attempts for jobs that name none.  [default: 1]"),
    click.option(
        "--timeout", type=TIME, metavar="TIME", help="For jobs that name none.  [default: no limit]"
    ),
    click.option(
        "--sleep",
        type=TIME,
        default=5.0,
        metavar="TIME",
        help="Longest wait between looks at a store that cannot wake it.  [default: 5s]",
    ),
    click.option("--once", is_flag=True, help="Run one job, if one waits, and stop."),
    click.option("--stop-when-empty", is_flag=True, help="Stop when nothing is left that can run now."),
    click.option("--max-jobs", type=int, metavar="N", help="Stop after so many jobs."),
    click.option("--max-time", type=TIME, metavar="TIME", help="Stop after so long."),
    _db,
)
def work(url: str | None, names: tuple[str, ...], modules: tuple[str, ...], **given: Any) -> None:
    """Run jobs until told to stop, with a line on stdout for each attempt that ended.

    Ctrl-C, SIGTERM and SIGHUP let the jobs that run finish, however long that takes; a second one gives them back to
    their queue. Either way the exit code is 0.

    A job runs where its handler is known. --import tasks imports tasks.py from here, or a module from the Python
    path, with what it has under @job, Job and @command. A job that nobody knows waits.

    A TIME is seconds, or as in 90s, 5m, 1h30m.

    For example:
      nbqueue work --import tasks
      nbqueue work --queue urgent,default --sleep 5 --tries 3 --import tasks
      nbqueue work --queue '*' --import jobs/nightly.py --stop-when-empty
      nbqueue work --import tasks --max-jobs 1000 --max-time 1h
    """
    if given.pop("once"):
        given.update(max_jobs=1, concurrency=1, stop_when_empty=True)
    served = names_of(names) or ["default"]
    imported = [shift.import_handlers(name) for name in modules]
    with shift.Signals() as signals, _opened(url, make=True) as queues:
        at_work = shift.Shift(
            queues,
            signals,
            served=None if "*" in served else served,
            max_seconds=given.pop("max_time"),
            when_empty=given.pop("stop_when_empty"),
            **given,
        )
        shift.say_handlers(queues, at_work.served, imported)
        if not at_work.run():
            raise click.ClickException(
                "the worker stopped on the error above; what it had goes back to its queue"
            )


@main.command(short_help="Hold a queue file for other processes.")
@click.option("--wait", is_flag=True, help="If another process holds it: wait until that goes.")
@_db
def serve(url: str | None, *, wait: bool) -> None:
    """Hold a queue file for the notebooks, scripts and workers that use it, and do nothing else until stopped.

    Nobody needs it: the first process that opens a file serves it to the others, and when it goes another takes over.
    It is for whoever wants that no notebook has that on its side. A line on stderr says who joins and who leaves.

    If another process holds the file the exit code is 1. With --wait it waits there and may be next.

    For example:
      nbqueue serve --db /data/jobs.duckdb
      nbqueue serve --wait
    """
    with shift.Signals() as signals, _opened(url, make=True) as queues:
        serving.serve(queues, signals, wait=wait)


@main.command(cls=PassesOn, short_help="Hand in a command with its arguments.")
@dispatch_options
@_db
def dispatch(command: str, args: tuple[str, ...], url: str | None, **given: Any) -> None:
    """Hand in a named command with its arguments, for a worker to run.

    Prints the job's id once it is on disk. Arguments that look like options stand after --.

    A TIME is seconds, or as in 90s, 5m, 1h30m.

    For example:
      nbqueue dispatch import:data users.csv --queue imports --delay 300
      nbqueue dispatch import:data users.csv --tries 5 --timeout 10m -- --force
      nbqueue dispatch report:generate --at "2026-03-01 06:00" --metadata user_id=7
    """
    work = to_work(command, args, given)
    with _opened(url, make=True) as queues:
        receipt = queues.dispatch(work)
        at = receipt.scheduled_at
        left = 0.0 if at is None else at.timestamp() - time.time()
        later = f", to run in {terminal.span(left)}" if left > 0 else ""
        say(f"{command} is on queue {receipt.queue}{later}")
        click.echo(str(receipt))


@main.command()
@filter_options
@click.option("--json", "form", flag_value="json", help="All of it as a JSON array, for programs.")
@click.option("--csv", "form", flag_value="csv", help="All of it as CSV, for programs.")
@_db
def jobs(url: str | None, limit: int | None, since: str | None, form: str | None, **picked: Any) -> None:
    """List jobs, newest first.

    A table has the 20 newest unless --limit says otherwise; --json and --csv have all. Names and states may be
    separated by commas.

    For example:
      nbqueue jobs
      nbqueue jobs --state failed,retrying --queue imports --since 1h
      nbqueue jobs --command import:data --json | jq '.[].error'
      nbqueue jobs --csv > jobs.csv
    """
    with _opened(url) as queues:
        words = {name: names_of(names) for name, names in picked.items()}
        # One more than is shown, to know whether there is more.
        asked = SHOWN + 1 if limit is None and form is None else limit
        frame = queues.jobs(since=since, limit=asked, **words)  # type: ignore[arg-type]
        if form == "csv":
            click.echo(frame.to_csv(index=False), nl=False)
            return
        rows = terminal.rows_of(frame)
        if form == "json":
            click.echo(json.dumps(rows, indent=2, ensure_ascii=False, default=str))
            return
        shown = rows if limit is not None else rows[:SHOWN]
        if shown:
            click.echo(terminal.job_table(queues, shown))
        else:
            say("No job fits." if any((since, *picked.values())) else "No jobs.")
        if len(shown) < len(rows):
            say(f"These are the {SHOWN} newest; --limit N shows more.")


@main.command(short_help="Show all of a job: attempts, errors, output.")
@click.argument("job", metavar="ID")
@_db
def show(job: str, url: str | None) -> None:
    """Show all of a job: how it stands, its arguments, and its attempts with their errors, tracebacks and output.

    ID is its id, or as much of the beginning as tells it from others.

    For example:
      nbqueue show 019ad0f2-1c3b
    """
    with _opened(url) as queues:
        click.echo(terminal.describe(queues.job(job)))


@main.command()
@click.argument("job", metavar="ID")
@_db
def why(job: str, url: str | None) -> None:
    """Say in a sentence why a job is not running.

    ID is its id, or as much of the beginning as tells it from others.

    For example:
      nbqueue why 019ad0f2-1c3b
    """
    with _opened(url) as queues:
        click.echo(queues.why(job) or "it is running")


@main.command(short_help="Let jobs run again.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_db
def retry(ids: tuple[str, ...], url: str | None) -> None:
    """Let jobs that ended run again, with their attempts counted anew; jobs that wait for their time run now.

    ID is a job's id, or as much of the beginning as tells it from others.

    For example:
      nbqueue retry 019ad0f2-1c3b
      nbqueue jobs --state failed --json | jq -r '.[].job_id' | xargs nbqueue retry
    """
    with _opened(url) as queues:
        for receipt in [queues.job(job) for job in ids]:
            click.echo(retried(receipt))


def retried(receipt: Any) -> str:
    """Let a job run again and say so."""
    receipt.retry()
    return f"{receipt.command} {receipt} may run again"


@main.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_db
def cancel(ids: tuple[str, ...], url: str | None) -> None:
    """Cancel jobs that wait, and ask those that run to stop.

    ID is a job's id, or as much of the beginning as tells it from others.

    For example:
      nbqueue cancel 019ad0f2-1c3b
    """
    with _opened(url) as queues:
        for receipt in [queues.job(job) for job in ids]:
            click.echo(cancelled(receipt))


def cancelled(receipt: Any) -> str:
    """Cancel a job and say what came of it."""
    done, state = receipt.cancel(), receipt.state
    if done:
        return f"{receipt.command} {receipt} {'is cancelled' if state.ended else 'was asked to stop'}"
    return f"{receipt.command} {receipt} had {'been ' * (state is State.CANCELLED)}{state} already"


@main.command(short_help="Remove jobs that ended a while ago.")
@click.option("--older-than", type=TIME, metavar="TIME", help="That ended longer ago, e.g. 12h or 7d.")
@click.option(
    "--keep",
    multiple=True,
    metavar="NUMBER|STATES",
    help="At most so many, the latest; or states to leave alone.",
)
@click.option("--yes", "sure", is_flag=True, help="Do not ask.")
@_db
def prune(older_than: float | None, keep: tuple[str, ...], url: str | None, **given: Any) -> None:
    """Remove jobs that ended a while ago, or are too many, with their attempts, output and results.

    It asks first, unless there is --yes. Jobs that wait or run stay.

    For example:
      nbqueue prune --older-than 7d
      nbqueue prune --older-than 30d --keep failed --yes
      nbqueue prune --keep 100000
    """
    left = left_alone(older_than, keep)
    with _opened(url) as queues:
        if not given["sure"]:
            old = [] if older_than is None else [f"that ended more than {terminal.span(older_than)} ago"]
            many = [f"all but the latest {left:,} that ended"] if isinstance(left, int) else []
            question = f"Remove {'jobs ' if old else ''}{', and '.join(old + many)}?"
            click.confirm(question, abort=True, err=True)
        click.echo(pruned(queues, older_than, left))


def left_alone(older_than: float | None, keep: Iterable[str]) -> int | list[str] | None:
    """Read what --keep says: how many jobs, or of which states."""
    words = names_of(keep)
    numbers = [int(word) for word in words or () if word.isdecimal()]
    if numbers and len(words or ()) > 1:
        raise click.UsageError("--keep takes one number, or names of states, not both")
    if older_than is None and not numbers:
        raise click.UsageError(
            "say which: --older-than TIME, or --keep NUMBER for all but the latest so many"
        )
    return numbers[0] if numbers else words


def pruned(queues: QueueManager, older_than: float | None, left: int | list[str] | None) -> str:
    """Remove jobs and say how many."""
    removed = queues.prune(older_than, left)
    return f"{removed} job{'' if removed == 1 else 's'} removed"


@main.command(short_help="Hand out no more jobs of a queue.")
@click.argument("queue")
@_db
def pause(queue: str, url: str | None) -> None:
    """Hand out no more jobs of a queue, until it is resumed; what runs goes on.

    For example:
      nbqueue pause emails
    """
    with _opened(url) as queues:
        queues.pause(queue)
        click.echo(f"queue {queue} is paused")


@main.command()
@click.argument("queue")
@_db
def resume(queue: str, url: str | None) -> None:
    """Hand out a queue's jobs again.

    For example:
      nbqueue resume emails
    """
    with _opened(url) as queues:
        queues.resume(queue)
        click.echo(f"queue {queue} is resumed")


@main.command()
@_db
def stats(url: str | None) -> None:
    """Count the jobs of each queue by state.

    Those under "later" are pending ones that wait for their time.

    For example:
      nbqueue stats --db /data/jobs.duckdb
    """
    with _opened(url) as queues:
        pending, *others = (state.value for state in State)
        rows = [("queue", pending, "later", *others, "")]
        for queue in queues.queues():
            first, *rest = (str(queue.counts[state]) for state in State)
            rows.append((queue.name, first, str(queue.waiting), *rest, "paused" if queue.paused else ""))
        click.echo(terminal.table(rows, right=range(1, len(rows[0]) - 1)))


@main.command(short_help="Trust what is in a file from elsewhere.")
@click.argument("file")
@click.option("--yes", "sure", is_flag=True, help="Do not ask.")
def trust(file: str, *, sure: bool) -> None:
    """Trust what is in a queue file that somebody else has written, or that you have written with another secret.

    It shows what of it your secret has not signed: pickles by command, functions by name and origin, displays.
    Then it asks, unless there is --yes, and signs all of that as yours; jobs that were held run again. Nothing of it is
    decoded meanwhile. The file must not be open anywhere.

    For example:
      nbqueue trust jobs.duckdb
    """
    with foreign_in(file) as found:
        if not found.foreign:
            click.echo(f"nothing in {found.name} needs your trust")
            return
        click.echo(trusting.as_text(found.foreign))
        if not sure:
            click.confirm(f"\n{trusting.question(found.name)}", abort=True, err=True)
        found.sign(now=time.time())
        click.echo(f"{found.name} is trusted")


@main.command(short_help="Check a set-up, in sentences.")
@click.option("--json", "form", flag_value="json", help="All findings as a JSON array, for programs.")
@click.option(
    "--chaos", is_flag=True, help="Kill processes of a queue of its own while jobs run; print the account."
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1_000, metavar="N", help="Of --chaos.  [default: 1000]"
)
@click.option("--kills", type=click.IntRange(0), default=20, metavar="N", help="Of --chaos.  [default: 20]")
@click.option("--seed", type=int, metavar="N", help="Of --chaos: what is killed and when.  [default: any]")
@_db
def doctor(url: str | None, form: str | None, **given: Any) -> None:
    """Check a set-up: versions, secret, file, lock, room, clock, handlers, workers, queues.

    It changes nothing, makes no queue, and works while another process has it. Of a queue on a server it looks at that,
    too. The exit code is 1 if something is wrong.

    With --chaos it proves on this machine that nothing is lost: three processes work on one new file, in a folder of
    its own beside the one that --db names, and are killed at random. That takes well under a minute.

    For example:
      nbqueue doctor
      nbqueue doctor --db /data/jobs.duckdb --json
      nbqueue doctor --chaos --jobs 2000 --kills 40
    """
    if given.pop("chaos"):
        seed = given["seed"] if given["seed"] is not None else secrets.randbelow(1_000_000)
        account = doctoring.chaos(url, given["jobs"], given["kills"], seed)
        click.echo(doctoring.account(account))
        good = account.ok
    else:
        findings = checkup(url)
        click.echo(doctoring.as_json(findings) if form else doctoring.as_text(findings))
        say(doctoring.summary(findings))
        good = all(found.ok is not False for found in findings)
    if not good:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
