"""What commands and magics take: their options, how these are read, and what is made of them; opens no queue.

The options of ``dispatch`` and ``jobs`` are those of the magics too.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from nbqueue.durations import duration, moment
from nbqueue.errors import InvalidCommand, NbqueueError
from nbqueue.jobs import Options, QueuedCommand, State

__all__ = [
    "STATES",
    "TIME",
    "Command",
    "Group",
    "PassesOn",
    "db",
    "dispatch_options",
    "filter_options",
    "job_options",
    "names_of",
    "to_options",
    "to_work",
    "together",
]

F = TypeVar("F", bound=Callable[..., Any])

STATES = (*(state.value for state in State), "scheduled", "retrying")


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


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Make one decorator of several; the first is the outermost."""

    def decorate(command: F) -> F:
        for one in reversed(decorators):
            command = one(command)
        return command

    return decorate


#: Of every command that opens a queue.
db = click.option(
    "--db",
    "url",
    metavar="PATH",
    help="The queue's file or URL.  [default: $NBQUEUE_URL, else ./nbqueue.duckdb]",
)

#: What may be said of any job that is handed in.
job_options = together(
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
dispatch_options = together(
    click.argument("command"), click.argument("args", nargs=-1, type=click.UNPROCESSED), job_options
)

#: What ``jobs`` picks by.
filter_options = together(
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
