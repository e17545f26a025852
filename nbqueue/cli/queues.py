"""The commands about queues: each makes one call of the facade, and prints."""

from __future__ import annotations

import click

from nbqueue.cli import terminal
from nbqueue.cli.opening import opened
from nbqueue.cli.parsing import Command, db
from nbqueue.jobs import State

__all__ = ["pause", "resume", "stats"]


@click.command(cls=Command, short_help="Hand out no more jobs of a queue.")
@click.argument("queue")
@db
def pause(queue: str, url: str | None) -> None:
    """Hand out no more jobs of a queue, until it is resumed; what runs goes on.

    For example:
      nbqueue pause emails
    """
    with opened(url) as queues:
        queues.pause(queue)
        click.echo(f"queue {queue} is paused")


@click.command(cls=Command)
@click.argument("queue")
@db
def resume(queue: str, url: str | None) -> None:
    """Hand out a queue's jobs again.

    For example:
      nbqueue resume emails
    """
    with opened(url) as queues:
        queues.resume(queue)
        click.echo(f"queue {queue} is resumed")


@click.command(cls=Command)
@db
def stats(url: str | None) -> None:
    """Count the jobs of each queue by state.

    Those under "later" are pending ones that wait for their time.

    For example:
      nbqueue stats --db /data/jobs.duckdb
    """
    with opened(url) as queues:
        pending, *others = (state.value for state in State)
        rows = [("queue", pending, "later", *others, "")]
        for queue in queues.queues():
            first, *rest = (str(queue.counts[state]) for state in State)
            rows.append((queue.name, first, str(queue.waiting), *rest, "paused" if queue.paused else ""))
        click.echo(terminal.table(rows, right=range(1, len(rows[0]) - 1)))
