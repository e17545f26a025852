"""``%%job``: reads its options and hands in the cell; runs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from nbqueue.cli.parsing import Command, job_options, to_options
from nbqueue.facade.cells import Cell, dispatch_cell, served_here

if TYPE_CHECKING:
    from nbqueue.magics.extension import NBQueue

__all__ = ["Given", "job"]


class Given(NamedTuple):
    """A cell as IPython gives it."""

    magics: NBQueue
    #: The line of the magic.
    head: str
    body: str


@click.command("%%job", cls=Command, context_settings={"max_content_width": 100})
@job_options
@click.option("--name", metavar="NAME", help="What the job is called in tables.  [default: cell]")
@click.option(
    "--out", metavar="NAME", help="Give its value to the notebook under this name once it succeeded."
)
@click.pass_obj
def job(given: Given, /, name: str | None, out: str | None, **options: Any) -> Any:
    """Run this cell in the background, on a copy of the notebook's names; gives the job's receipt.

    A TIME is seconds, or as in 90s, 5m, 1h30m.

    For example:
      %%job --out total --tries 3
      prices = load(path)
      sum(prices)
    """
    shell, queues = given.magics.shell, given.magics.queues
    assert shell is not None
    if not given.body.strip():
        raise click.UsageError("the cell is empty; what is to run stands below the line of %%job")
    # As of its Out[]: some versions of IPython count on before a cell is run, and some after it.
    number = shell.displayhook.prompt_count
    cell = Cell.make(given.head, given.body, number, name=name, out=out)
    try:
        receipt = dispatch_cell(queues, shell, cell, to_options(options))
    except SyntaxError:
        # As any cell would say it, with the line and a mark below it.
        shell.showsyntaxerror()  # type: ignore[no-untyped-call]
        return None
    if not served_here(queues, receipt.queue):
        click.echo(
            f'No worker here serves queue "{receipt.queue}"; the cell waits until %nbq work starts one.'
        )
    return receipt
