"""The subcommands of ``%nbq``: each makes one call of the facade and gives what it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nbqueue.cli import doctoring, terminal
from nbqueue.cli.parsing import TIME, Group, PassesOn, dispatch_options, filter_options, names_of, to_work
from nbqueue.cli.verbs import cancelled, left_alone, pruned, retried
from nbqueue.jobs import State

if TYPE_CHECKING:
    from nbqueue.magics.extension import NBQueue

__all__ = ["PLOTS", "nbq"]

PLOTS = ("throughput", "latency", "backlog", "timeline")


@click.group(cls=Group, invoke_without_command=True, context_settings={"max_content_width": 100})
@click.pass_context
def nbq(context: click.Context) -> None:
    """A durable job queue in this notebook; by itself, where it is, what runs and what waits."""
    if context.invoked_subcommand is None:
        _status(context.obj)


def _status(magics: NBQueue) -> None:
    queues = magics.queues
    infos = queues.queues()
    print(queues.name)
    if queues.notice:
        print(queues.notice)
    if magics.working is None:
        print("No worker here; %nbq work starts one.")
    else:
        said = magics.work()
        print(f"{said[0].upper()}{said[1:]}.")
    running = queues.jobs(state="running", limit=10)
    for row in terminal.rows_of(running):
        progress = row.get("progress")
        done = f"  {terminal.progress_of(progress)}" if progress else ""
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
    said = magics.start(concurrency, executor)
    print(f"{said[0].upper()}{said[1:]}.")


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


@nbq.command(short_help="Give what failed jobs failed with, a row an error.")
@click.option("--queue", multiple=True, metavar="NAMES", help="Those of these queues.")
@click.option("--command", multiple=True, metavar="NAMES", help="Those of these commands.")
@click.option("--since", metavar="TIME", help='Dispatched in the last "1h" or "7d", or since "2026-03-01".')
@click.pass_obj
def failures(magics: NBQueue, /, since: str | None, **picked: Any) -> Any:
    """Give what failed jobs failed with as a DataFrame: a row an error and its place, the most frequent first."""
    words = {name: names_of(names) for name, names in picked.items()}
    return magics.queues.failures(since=since, **words)  # type: ignore[arg-type]


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
        print(retried(receipt))


@nbq.command("retry-all", short_help="Let all jobs that failed run again.")
@filter_options
@click.option("--fingerprint", metavar="TEXT", help="Those that failed with this, as %nbq failures shows it.")
@click.pass_obj
def retry_all(
    magics: NBQueue, /, limit: int | None, since: str | None, fingerprint: str | None, **picked: Any
) -> None:
    """Let all jobs run again that failed, or are in another --state. Names and states may be separated by commas."""
    if limit is not None:
        raise click.UsageError("retry-all takes no --limit; %nbq retry takes ids")
    words = {name: names_of(names) for name, names in picked.items()}
    words["state"] = words["state"] or ["failed"]
    count = magics.queues.retry_all(since=since, fingerprint=fingerprint, **words)  # type: ignore[arg-type]
    print(f"{count} job{'' if count == 1 else 's'} may run again")


@nbq.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def cancel(magics: NBQueue, /, ids: tuple[str, ...]) -> None:
    """Cancel jobs that wait, and ask those that run to stop."""
    for receipt in [magics.queues.job(job) for job in ids]:
        print(cancelled(receipt))


@nbq.command(short_help="Draw throughput, latency, backlog or timeline.")
@click.argument("what", type=click.Choice(PLOTS), default="throughput", metavar="WHAT")
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


@nbq.command(short_help="Show queues, jobs, errors and workers, live.")
@click.pass_obj
def panel(magics: NBQueue) -> Any:
    """Show queues, jobs, errors and workers, live, with buttons."""
    return magics.queues.panel()


@nbq.command(short_help="Show a form that dispatches a command.")
@click.argument("command")
@click.pass_obj
def form(magics: NBQueue, /, command: str) -> Any:
    """Show a form that dispatches a command, made from its handler's signature."""
    return magics.queues.form(command)


@nbq.command(short_help="Take up the jobs of a map again.")
@click.argument("batch", metavar="ID")
@click.pass_obj
def batch(magics: NBQueue, /, batch: str) -> Any:
    """Take up the jobs of a map again: their progress, results and errors."""
    return magics.queues.batch(batch)


@nbq.command(short_help="Check the set-up, in sentences.")
@click.pass_obj
def doctor(magics: NBQueue) -> None:
    """Check the set-up: versions, secret, file, lock, room, clock, handlers, workers, queues."""
    findings = magics.queues.findings()
    # It takes the colours out where nothing would show them.
    click.echo(doctoring.as_text(findings))
    click.echo(doctoring.summary(findings))


@nbq.command(short_help="Remove jobs that ended a while ago.")
@click.option("--older-than", type=TIME, metavar="TIME", help="That ended longer ago, e.g. 12h or 7d.")
@click.option(
    "--keep",
    multiple=True,
    metavar="NUMBER|STATES",
    help="At most so many, the latest; or states to leave alone.",
)
@click.option("--yes", is_flag=True, hidden=True, help="As in a terminal; here nothing asks.")
@click.pass_obj
def prune(magics: NBQueue, /, older_than: float | None, keep: tuple[str, ...], **_yes: bool) -> None:
    """Remove jobs that ended a while ago, or are too many, with all that is known of them; what waits or runs stays."""
    print(pruned(magics.queues, older_than, left_alone(older_than, keep)))


@nbq.command(short_help="Hand out no more jobs of a queue.")
@click.argument("queue")
@click.pass_obj
def pause(magics: NBQueue, /, queue: str) -> None:
    """Hand out no more jobs of a queue, until it is resumed; what runs goes on."""
    magics.queues.pause(queue)
    print(f"queue {queue} is paused")


@nbq.command()
@click.argument("queue")
@click.pass_obj
def resume(magics: NBQueue, /, queue: str) -> None:
    """Hand out a queue's jobs again."""
    magics.queues.resume(queue)
    print(f"queue {queue} is resumed")
