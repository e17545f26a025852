"""``nbqueue trust`` and ``nbqueue doctor``: whether a file and a set-up are what they should be."""

from __future__ import annotations

import secrets
import time
from typing import Any

import click

from nbqueue.cli import doctoring, trusting
from nbqueue.cli.parsing import Command, db
from nbqueue.cli.shift import say
from nbqueue.facade.checkup import checkup
from nbqueue.facade.trusting import foreign_in

__all__ = ["doctor", "trust"]


@click.command(cls=Command, short_help="Trust what is in a file from elsewhere.")
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


@click.command(cls=Command, short_help="Check a set-up, in sentences.")
@click.option("--json", "form", flag_value="json", help="All findings as a JSON array, for programs.")
@click.option(
    "--chaos", is_flag=True, help="Kill processes of a queue of its own while jobs run; print the account."
)
@click.option(
    "--jobs", type=click.IntRange(1), default=1_000, metavar="N", help="Of --chaos.  [default: 1000]"
)
@click.option("--kills", type=click.IntRange(0), default=20, metavar="N", help="Of --chaos.  [default: 20]")
@click.option("--seed", type=int, metavar="N", help="Of --chaos: what is killed and when.  [default: any]")
@db
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
