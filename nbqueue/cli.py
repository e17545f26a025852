"""The command line: parses, makes one call of the facade, and prints; knows no store, worker or executor.

What the magics share stands here too: the options of ``dispatch`` and ``jobs``, and how a job is described. Longer than
most modules, since half of it is what ``--help`` says.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import logging
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from nbqueue.durations import duration, moment
from nbqueue.errors import InvalidCommand, NbqueueError, QueueUnavailable
from nbqueue.jobs import JobRecord, QueuedCommand, State
from nbqueue.manager import QueueConfig, QueueManager, connect

if TYPE_CHECKING:
    import pandas as pd

    from nbqueue.manager import JobDispatch

__all__ = ["Group", "describe", "dispatch_options", "filter_options", "main", "opening", "split", "to_work"]

F = TypeVar("F", bound=Callable[..., Any])

#: Rows of a table for people; programs get all.
SHOWN = 20


# ----------------------------------------------------------------------------------------- parsing


class Group(click.Group):
    """Commands whose errors are their sentence, and which are listed in the order they were written."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names of the commands, as they were written."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what goes wrong is its sentence and exit code 1."""
        try:
            return super().invoke(ctx)
        except NbqueueError as error:
            raise click.ClickException(str(error)) from error


class _PassesOn(click.Command):
    """Takes arguments that are meant for a job."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            error.message = (
                f"{error.message} (what is meant for the job stands after --, as in: -- {error.option_name})"
            )
            raise


class _Duration(click.ParamType):
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


DURATION = _Duration()


def _url_option(command: F) -> F:
    return click.option(
        "--db", "url", metavar="PATH", help="The queue's file or URL; $NBQUEUE_URL, else ./nbqueue.duckdb."
    )(command)


def dispatch_options(command: F) -> F:
    """Give a command what ``dispatch`` takes."""
    for decorate in reversed(
        (
            click.argument("command"),
            click.argument("args", nargs=-1, type=click.UNPROCESSED),
            click.option("--queue", metavar="NAME", help="The queue; it is made if there is none."),
            click.option("--delay", type=DURATION, metavar="TIME", help="Run no earlier than this from now."),
            click.option(
                "--at", metavar="WHEN", help='Run no earlier than this: "2026-03-01 06:00", local time.'
            ),
            click.option(
                "--priority", type=int, metavar="N", help="-100 to 100; higher runs first. [default: 0]"
            ),
            click.option(
                "--tries", type=int, metavar="N", help="Attempts at most. [default: as the worker says]"
            ),
            click.option("--timeout", type=DURATION, metavar="TIME", help="How long one attempt may take."),
            click.option(
                "--metadata",
                multiple=True,
                metavar="KEY=VALUE",
                help="For tracking; a JSON value, or text. Repeatable.",
            ),
        )
    ):
        command = decorate(command)
    return command


def to_work(command: str, args: Sequence[str], given: dict[str, Any]) -> tuple[QueuedCommand, dict[str, Any]]:
    """Make what ``dispatch`` takes out of what ``dispatch_options`` parsed."""
    at = given.pop("at")
    if at is not None:
        if given["delay"] is not None:
            raise click.UsageError("--delay and --at both say when; give one of them")
        given["scheduled_at"] = datetime.fromtimestamp(moment(at, now=time.time(), what="at"), UTC)
    given["metadata"] = dict(map(_pair, given["metadata"]))
    work = QueuedCommand(command).with_args(args)
    return work, {name: value for name, value in given.items() if value is not None}


def _pair(text: str) -> tuple[str, object]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise click.UsageError(f"--metadata takes KEY=VALUE, e.g. --metadata user_id=7, not {text!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def filter_options(command: F) -> F:
    """Give a command what ``jobs`` picks by."""
    states = ", ".join((*(state.value for state in State), "scheduled", "retrying"))
    for decorate in reversed(
        (
            click.option("--state", multiple=True, metavar="STATE", help=f"Only these: {states}."),
            click.option("--queue", multiple=True, metavar="NAME", help="Only of these queues."),
            click.option("--command", multiple=True, metavar="NAME", help="Only of these commands."),
            click.option(
                "--since", metavar="TIME", help='Dispatched in the last "1h", "7d", or since "2026-03-01".'
            ),
            click.option("--limit", type=int, metavar="N", help="At most so many, the newest."),
        )
    ):
        command = decorate(command)
    return command


def split(names: Iterable[str]) -> list[str] | None:
    """Give names that were repeated, or separated by commas; None for none."""
    found = [name.strip() for text in names for name in text.split(",") if name.strip()]
    return found or None


# ---------------------------------------------------------------------------------------- commands


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="nbqueue", prog_name="nbqueue")
def main() -> None:
    """A durable job queue that lives in a notebook, and in one file.

    The queue is ./nbqueue.duckdb, unless $NBQUEUE_URL or --db names another. One process at a time has the file: a
    worker, a notebook, or the command that looks.

    \b
    Examples:
      nbqueue dispatch import:data users.csv --queue imports
      nbqueue work --queue imports,default --import tasks
      nbqueue jobs --state failed --since 1h
      nbqueue show 019ad0f2-1c3b
      nbqueue retry 019ad0f2-1c3b
    """


@main.command()
@click.option(
    "--queue",
    "names",
    default="default",
    show_default=True,
    metavar="NAMES",
    help="Queues, separated by commas, the first served first; '*' is every queue.",
)
@_url_option
@click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import this module, or .py file, so that its handlers are known. Repeatable.",
)
@click.option(
    "--concurrency", type=int, default=4, show_default=True, metavar="N", help="How many jobs run at once."
)
@click.option("--executor", default="thread", show_default=True, metavar="NAME", help="What runs them.")
@click.option("--tries", type=int, metavar="N", help="Attempts for jobs that name none. [default: 1]")
@click.option("--timeout", type=DURATION, metavar="TIME", help="For jobs that name none. [default: no limit]")
@click.option(
    "--sleep",
    type=DURATION,
    default=5.0,
    metavar="TIME",
    help="Longest wait between looks at a store that cannot wake the worker. [default: 5s]",
)
@click.option("--once", is_flag=True, help="Run one job, if there is one, and stop.")
@click.option("--stop-when-empty", is_flag=True, help="Stop when nothing is left that could run now.")
@click.option("--max-jobs", type=int, metavar="N", help="Stop after so many jobs.")
@click.option("--max-time", type=DURATION, metavar="TIME", help="Stop after so long.")
def work(names: str, url: str | None, modules: tuple[str, ...], once: bool, **given: Any) -> None:  # noqa: FBT001 - click's flag
    """Run jobs until told to stop.

    SIGTERM and Ctrl-C let the jobs that run finish, however long that takes; a second one gives them back to their queue.
    Either way the exit code is 0.

    A handler is known by importing what defines it: --import tasks runs what tasks.py (here, or anywhere on the Python
    path) has under @job, Job and @command. A job that no worker knows waits in its queue.

    TIME is seconds, or as in 90s, 5m, 1h30m.

    \b
    Examples:
      nbqueue work --import tasks                            the default queue
      nbqueue work --queue urgent,default --sleep 5 --tries 3 --import tasks
      nbqueue work --queue '*' --import jobs/nightly.py --stop-when-empty
      nbqueue work --import tasks --max-jobs 1000 --max-time 1h
    """
    if once:
        given.update(max_jobs=1, concurrency=1, stop_when_empty=True)
    wanted = None if names.strip() == "*" else names.split(",")
    imported = [_import(name) for name in modules]
    with _opened(url, make=True) as queues:
        worker = queues.worker(
            queues=None if wanted is None else [name.strip() for name in wanted],
            max_seconds=given.pop("max_time"),
            when_empty=given.pop("stop_when_empty"),
            **given,
        )
        _say_handlers(queues, worker, imported)
        if not _Shift(queues, worker).run():
            raise click.ClickException(
                "the worker stopped on an error, see above; its jobs are in their queue"
            )


@main.command(cls=_PassesOn)
@dispatch_options
@_url_option
def dispatch(command: str, args: tuple[str, ...], url: str | None, **given: Any) -> None:
    """Hand in a named command with its arguments, to be run by a worker.

    Prints the job's id when it is on disk. What a handler is to get that looks like an option stands after --.

    TIME is seconds, or as in 90s, 5m, 1h30m.

    \b
    Examples:
      nbqueue dispatch import:data users.csv --queue imports --delay 300
      nbqueue dispatch import:data users.csv --tries 5 --timeout 10m -- --force
      nbqueue dispatch report:generate --at "2026-03-01 06:00" --metadata user_id=7
    """
    work, options = to_work(command, args, given)
    with _opened(url, make=True) as queues:
        receipt = queues.dispatch(work, **options)
        _say(f"{command} is on queue {receipt.queue}{_due(receipt)}")
        click.echo(str(receipt))


def _due(receipt: JobDispatch) -> str:
    at = receipt.scheduled_at
    if at is None or (left := at.timestamp() - time.time()) < 0.5:
        return ""
    return f", to run at {at.astimezone():%Y-%m-%d %H:%M:%S}, {_span(left)} from now"


@main.command()
@filter_options
@click.option("--json", "as_json", is_flag=True, help="A JSON array with everything, for programs.")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with everything, for programs.")
@_url_option
def jobs(url: str | None, limit: int | None, as_json: bool, as_csv: bool, **picked: Any) -> None:  # noqa: FBT001 - click's flags
    """List jobs, newest first.

    A table shows the 20 newest unless --limit says otherwise; --json and --csv give all. Names may be separated by commas.

    \b
    Examples:
      nbqueue jobs
      nbqueue jobs --state failed,retrying --queue imports --since 1h
      nbqueue jobs --command import:data --json | jq '.[].error'
      nbqueue jobs --csv > jobs.csv
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two formats; give one of them")
    since = picked.pop("since")
    with _opened(url) as queues:
        words = {name: split(names) for name, names in picked.items()}
        asked = limit if limit is not None or as_json or as_csv else SHOWN + 1
        frame = queues.jobs(**words, since=since, limit=asked)
        if as_csv:
            click.echo(frame.to_csv(index=False), nl=False)
        elif as_json:
            click.echo(json.dumps(_plain(frame), indent=2, ensure_ascii=False, default=str))
        else:
            _print_jobs(queues, _plain(frame), limit)


def _print_jobs(queues: QueueManager, rows: list[dict[str, Any]], limit: int | None) -> None:
    shown = rows if limit is not None else rows[:SHOWN]
    if not shown:
        _say("No jobs." if not _any_jobs(queues) else "No such jobs.")
        return
    length = _id_length(queues, [str(row["job_id"]) for row in shown])
    heading = ("id", "command", "queue", "state", "attempt", "age", "seconds", "error")
    table = [heading, *(_job_row(row, length) for row in shown)]
    click.echo(_table(table, right=(4, 5, 6), fit=True))
    if len(rows) > len(shown):
        _say(f"The {len(shown)} newest are shown; --limit N shows more.")


def _any_jobs(queues: QueueManager) -> bool:
    return any(sum(queue.counts.values()) for queue in queues.queues())


def _job_row(row: dict[str, Any], length: int) -> tuple[str, ...]:
    seconds = row["run_seconds"]
    return (
        str(row["job_id"])[:length],
        str(row["command"]),
        str(row["queue"]),
        str(row.get("status") or row["state"]),
        f"{row['attempt']}/{row['max_attempts']}",
        _span(time.time() - datetime.fromisoformat(row["dispatched_at"]).timestamp()),
        "" if seconds is None else f"{seconds:.2f}",
        _line(row["error"] or ""),
    )


def _id_length(queues: QueueManager, ids: Sequence[str]) -> int:
    """How much of an id tells these jobs from all others: ids begin with a time, so neighbours look alike."""
    lengths = (13, 18, 23, 28)
    if not sys.stdout.isatty():
        return 36
    first, last = (
        edge[:13] + end * 4 for edge, end in ((min(ids), "-0000-0000-000000000000"), (max(ids), ""))
    )
    last = max(ids)[:13] + "-ffff-ffff-ffffffffffff"
    first = min(ids)[:13] + "-0000-0000-000000000000"
    columns = ", ".join(f"count(DISTINCT left(job_id::VARCHAR, {length}))" for length in lengths)
    found = queues.sql(
        f"SELECT count(*), {columns} FROM events WHERE event = 'dispatched' AND job_id BETWEEN ?::UUID AND ?::UUID",
        (first, last),
    )
    total, *distinct = found.iloc[0].tolist()
    return next((length for length, count in zip(lengths, distinct, strict=True) if count == total), 36)


@main.command()
@click.argument("job", metavar="ID")
@_url_option
def show(job: str, url: str | None) -> None:
    """Show a job: how it stands, its arguments, and each attempt with its error, traceback and output.

    ID is a job's id, or as much of its beginning as tells it from others.

    \b
    Example:
      nbqueue show 019ad0f2-1c3b
    """
    with _opened(url) as queues:
        click.echo(describe(queues.job(job)))


@main.command()
@click.argument("job", metavar="ID")
@_url_option
def why(job: str, url: str | None) -> None:
    """Say in a sentence why a job is not running.

    ID is a job's id, or as much of its beginning as tells it from others.

    \b
    Example:
      nbqueue why 019ad0f2-1c3b
    """
    with _opened(url) as queues:
        click.echo(queues.why(job) or "it is running")


@main.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_url_option
def retry(ids: tuple[str, ...], url: str | None) -> None:
    """Let ended jobs run again, with fresh attempts, and jobs that wait for their time run now.

    \b
    Examples:
      nbqueue retry 019ad0f2-1c3b
      nbqueue retry $(nbqueue jobs --state failed --json | jq -r '.[].job_id')
    """
    with _opened(url) as queues:
        for receipt in [queues.job(id) for id in ids]:
            receipt.retry()
            click.echo(f"{receipt.command} {receipt} is pending again")


@main.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@_url_option
def cancel(ids: tuple[str, ...], url: str | None) -> None:
    """Cancel jobs; those that run are asked to stop.

    \b
    Example:
      nbqueue cancel 019ad0f2-1c3b
    """
    with _opened(url) as queues:
        for receipt in [queues.job(id) for id in ids]:
            click.echo(cancelled(receipt))


def cancelled(receipt: JobDispatch) -> str:
    """Cancel a job and say what came of it."""
    done, state = receipt.cancel(), receipt.state
    if not done:
        became = f"has {state}" if state is not State.CANCELLED else "was cancelled"
        return f"{receipt.command} {receipt} {became} already; there is nothing to cancel"
    return f"{receipt.command} {receipt} is {'cancelled' if state.ended else 'asked to stop'}"


@main.command()
@click.option(
    "--older-than", type=DURATION, required=True, metavar="TIME", help="Ended longer ago than this: 7d, 12h."
)
@click.option(
    "--keep", multiple=True, metavar="STATE", help="Leave jobs of these states, e.g. failed. Repeatable."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_url_option
def prune(older_than: float, keep: tuple[str, ...], yes: bool, url: str | None) -> None:  # noqa: FBT001 - click's flag
    """Remove jobs that ended a while ago, with their attempts, output and results.

    It asks before it removes anything; where nobody can answer, as in cron, give --yes. Jobs that wait or run stay.

    \b
    Examples:
      nbqueue prune --older-than 7d
      nbqueue prune --older-than 30d --keep failed --yes
    """
    with _opened(url) as queues:
        if not yes:
            click.confirm(f"Remove jobs that ended more than {_span(older_than)} ago?", abort=True, err=True)
        count = queues.prune(older_than, split(keep))
        click.echo(f"{count} job{'' if count == 1 else 's'} removed")


@main.command()
@click.argument("queue")
@_url_option
def pause(queue: str, url: str | None) -> None:
    """Hand out no more jobs of a queue; what runs goes on. It stays so until resumed.

    \b
    Example:
      nbqueue pause emails
    """
    with _opened(url) as queues:
        queues.pause(queue)
        click.echo(f"queue {queue} is paused; nbqueue resume {queue} lets its jobs run again")


@main.command()
@click.argument("queue")
@_url_option
def resume(queue: str, url: str | None) -> None:
    """Hand out a queue's jobs again.

    \b
    Example:
      nbqueue resume emails
    """
    with _opened(url) as queues:
        queues.resume(queue)
        click.echo(f"queue {queue} is on again")


@main.command()
@_url_option
def stats(url: str | None) -> None:
    """Count the jobs of each queue by state.

    "later" are those of the pending that wait for their time.

    \b
    Example:
      nbqueue stats --db /data/jobs.duckdb
    """
    with _opened(url) as queues:
        rows = [
            ("queue", "pending", "later", *(state.value for state in State if state is not State.PENDING), "")
        ]
        for queue in queues.queues():
            pending, *others = (str(queue.counts[state]) for state in State)
            rows.append((queue.name, pending, str(queue.waiting), *others, "paused" if queue.paused else ""))
        click.echo(_table(rows, right=range(1, len(rows[0]) - 1)))
