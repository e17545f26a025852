"""The command line: its commands, in the order of ``--help``; they parse, make one call of the facade, and print."""

from __future__ import annotations

import click

from nbqueue.cli import jobs, queues, running, upkeep
from nbqueue.cli.parsing import Group

__all__ = ["main"]


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


for _command in (
    *(running.work, running.serve),
    *(jobs.dispatch, jobs.jobs, jobs.show, jobs.why, jobs.retry, jobs.cancel, jobs.prune),
    *(queues.pause, queues.resume, queues.stats),
    *(upkeep.trust, upkeep.doctor),
):
    main.add_command(_command)

if __name__ == "__main__":
    main()
