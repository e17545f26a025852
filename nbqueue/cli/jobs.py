"""The commands about jobs: each makes one call of the facade, and prints."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from nbqueue.cli import terminal
from nbqueue.cli.opening import opened
from nbqueue.cli.parsing import (
    TIME,
    Command,
    PassesOn,
    db,
    dispatch_options,
    filter_options,
    names_of,
    to_work,
)
from nbqueue.cli.shift import say
from nbqueue.cli.verbs import cancelled, left_alone, pruned, retried

__all__ = ["cancel", "dispatch", "jobs", "prune", "retry", "show", "why"]

#: Rows of a table for people; programs get all.
SHOWN = 20


@click.command(cls=PassesOn, short_help="Hand in a command with its arguments.")
@dispatch_options
@db
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
    with opened(url, make=True) as queues:
        receipt = queues.dispatch(work)
        at = receipt.scheduled_at
        left = 0.0 if at is None else at.timestamp() - time.time()
        later = f", to run in {terminal.span(left)}" if left > 0 else ""
        say(f"{command} is on queue {receipt.queue}{later}")
        click.echo(str(receipt))


@click.command(cls=Command)
@filter_options
@click.option("--json", "form", flag_value="json", help="All of it as a JSON array, for programs.")
@click.option("--csv", "form", flag_value="csv", help="All of it as CSV, for programs.")
@db
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
    with opened(url) as queues:
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


@click.command(cls=Command, short_help="Show all of a job: attempts, errors, output.")
@click.argument("job", metavar="ID")
@db
def show(job: str, url: str | None) -> None:
    """Show all of a job: how it stands, its arguments, and its attempts with their errors, tracebacks and output.

    ID is its id, or as much of the beginning as tells it from others.

    For example:
      nbqueue show 019ad0f2-1c3b
    """
    with opened(url) as queues:
        click.echo(terminal.describe(queues.job(job)))


@click.command(cls=Command)
@click.argument("job", metavar="ID")
@db
def why(job: str, url: str | None) -> None:
    """Say in a sentence why a job is not running.

    ID is its id, or as much of the beginning as tells it from others.

    For example:
      nbqueue why 019ad0f2-1c3b
    """
    with opened(url) as queues:
        click.echo(queues.why(job) or "it is running")


@click.command(cls=Command, short_help="Let jobs run again.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@db
def retry(ids: tuple[str, ...], url: str | None) -> None:
    """Let jobs that ended run again, with their attempts counted anew; jobs that wait for their time run now.

    ID is a job's id, or as much of the beginning as tells it from others.

    For example:
      nbqueue retry 019ad0f2-1c3b
      nbqueue jobs --state failed --json | jq -r '.[].job_id' | xargs nbqueue retry
    """
    with opened(url) as queues:
        for receipt in [queues.job(job) for job in ids]:
            click.echo(retried(receipt))


@click.command(cls=Command)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@db
def cancel(ids: tuple[str, ...], url: str | None) -> None:
    """Cancel jobs that wait, and ask those that run to stop.

    ID is a job's id, or as much of the beginning as tells it from others.

    For example:
      nbqueue cancel 019ad0f2-1c3b
    """
    with opened(url) as queues:
        for receipt in [queues.job(job) for job in ids]:
            click.echo(cancelled(receipt))


@click.command(cls=Command, short_help="Remove jobs that ended a while ago.")
@click.option("--older-than", type=TIME, metavar="TIME", help="That ended longer ago, e.g. 12h or 7d.")
@click.option(
    "--keep",
    multiple=True,
    metavar="NUMBER|STATES",
    help="At most so many, the latest; or states to leave alone.",
)
@click.option("--yes", "sure", is_flag=True, help="Do not ask.")
@db
def prune(older_than: float | None, keep: tuple[str, ...], url: str | None, **given: Any) -> None:
    """Remove jobs that ended a while ago, or are too many, with their attempts, output and results.

    It asks first, unless there is --yes. Jobs that wait or run stay.

    For example:
      nbqueue prune --older-than 7d
      nbqueue prune --older-than 30d --keep failed --yes
      nbqueue prune --keep 100000
    """
    left = left_alone(older_than, keep)
    with opened(url) as queues:
        if not given["sure"]:
            old = [] if older_than is None else [f"that ended more than {terminal.span(older_than)} ago"]
            many = [f"all but the latest {left:,} that ended"] if isinstance(left, int) else []
            question = f"Remove {'jobs ' if old else ''}{', and '.join(old + many)}?"
            click.confirm(question, abort=True, err=True)
        click.echo(pruned(queues, older_than, left))
