"""``nbqueue work`` and ``nbqueue serve``: what goes on until it is told to stop."""

from __future__ import annotations

from typing import Any

import click

from nbqueue.cli import serving, shift
from nbqueue.cli.opening import opened
from nbqueue.cli.parsing import TIME, Command, db, names_of, together

__all__ = ["serve", "work"]


@click.command(cls=Command, short_help="Run jobs until told to stop.")
@together(
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
    db,
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
    with shift.Signals() as signals, opened(url, make=True) as queues:
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


@click.command(cls=Command, short_help="Hold a queue file for other processes.")
@click.option("--wait", is_flag=True, help="If another process holds it: wait until that goes.")
@db
def serve(url: str | None, *, wait: bool) -> None:
    """Hold a queue file for the notebooks, scripts and workers that use it, and do nothing else until stopped.

    Nobody needs it: the first process that opens a file serves it to the others, and when it goes another takes over.
    It is for whoever wants that no notebook has that on its side. A line on stderr says who joins and who leaves.

    If another process holds the file the exit code is 1. With --wait it waits there and may be next.

    For example:
      nbqueue serve --db /data/jobs.duckdb
      nbqueue serve --wait
    """
    with shift.Signals() as signals, opened(url, make=True) as queues:
        serving.serve(queues, signals, wait=wait)
