"""What ``doctor`` prints: a line for each finding, and the account of a chaos run."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nbqueue.cli.terminal import table
from nbqueue.errors import NotSupported
from nbqueue.facade.checkup import Finding
from nbqueue.facade.drivers import SERVERS
from nbqueue.facade.manager import QueueConfig

if TYPE_CHECKING:
    from nbqueue.chaos.account import Account

__all__ = ["account", "as_json", "as_text", "chaos", "summary"]

#: How a finding is marked: the word, and its colour in a terminal.
_MARKS = {True: ("ok", "green"), None: ("note", "yellow"), False: ("WRONG", "red")}
_ORDER = (False, None, True)


def as_text(findings: Sequence[Finding]) -> str:
    """Show findings, a line each, cut into more where a terminal is narrower."""
    rows = [(_MARKS[found.ok][0], found.what, "") for found in findings]
    indent = max(len(row) for row in table(rows).splitlines()) + 2
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = []
    for found, head in zip(findings, table(rows).splitlines(), strict=True):
        word, colour = _MARKS[found.ok]
        first, *rest = textwrap.wrap(
            found.sentence, max(30, room - indent), break_long_words=False, break_on_hyphens=False
        ) or [""]
        lines.append(click.style(word, fg=colour) + head[len(word) :].ljust(indent - len(word)) + first)
        lines += [" " * indent + line for line in rest]
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """Give findings as a JSON array, for programs."""
    return json.dumps([found._asdict() for found in findings], indent=2, ensure_ascii=False)


def summary(findings: Sequence[Finding]) -> str:
    """Say in a line how many findings are right, worth a word, and wrong."""
    count = {ok: sum(found.ok is ok for found in findings) for ok in _ORDER}
    if count[False]:
        return f"{count[False]} wrong, {count[None]} to note, {count[True]} right"
    return f"nothing is wrong: {count[True]} right, {count[None]} to note"


# ------------------------------------------------------------------------------------------- chaos


def chaos(url: str | None, jobs: int, kills: int, seed: int) -> Account:
    """Run chaos on a queue of its own, beside the one that is named; its folder is kept if a promise was broken."""
    from nbqueue.chaos.plan import Plan
    from nbqueue.chaos.running import run
    from nbqueue.chaos.stage import Stage

    plan = Plan(jobs=jobs, kills=kills, seed=seed, seconds=120.0 + kills * 10.0)
    where = _file_of(url) if url else None
    folder = Path(tempfile.mkdtemp(prefix="nbqueue-chaos-", dir=where.parent if where else None))
    click.echo(f"{jobs:,} jobs and {kills} kills in {folder}, seed {seed}", err=True)
    try:
        with _progress() as say:
            settled = run(plan, Stage(folder), say)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if settled.ok:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        click.echo(f"What is left of it stays in {folder}", err=True)
    return settled


def _file_of(url: str) -> Path | None:
    config = QueueConfig.read(url)
    if config.driver in SERVERS:
        raise NotSupported(
            "chaos kills processes on a file of its own; name a path with --db, or leave it out (on a server of its own"
            " it is: python -m benchmarks.chaos --store postgresql)"
        )
    return config.location()


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Give what shows how far something is, in one line that goes again; nothing where nobody watches."""
    watched = sys.stderr.isatty()

    def say(text: str) -> None:
        if watched:
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    yield say
    say("")


def account(settled: Account) -> str:
    """Show the account of a run as a table, and below it every promise that was broken."""
    rows = settled.rows()
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += ["", *settled.faults] if settled.faults else []
    return "\n".join(lines)
