"""What commands and magics do alike to jobs, and say of it; parses no command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from nbqueue.cli.parsing import names_of
from nbqueue.facade.manager import QueueManager
from nbqueue.jobs import State

__all__ = ["cancelled", "left_alone", "pruned", "retried"]


def retried(receipt: Any) -> str:
    """Let a job run again and say so."""
    receipt.retry()
    return f"{receipt.command} {receipt} may run again"


def cancelled(receipt: Any) -> str:
    """Cancel a job and say what came of it."""
    done, state = receipt.cancel(), receipt.state
    if done:
        return f"{receipt.command} {receipt} {'is cancelled' if state.ended else 'was asked to stop'}"
    return f"{receipt.command} {receipt} had {'been ' * (state is State.CANCELLED)}{state} already"


def left_alone(older_than: float | None, keep: Iterable[str]) -> int | list[str] | None:
    """Read what --keep says: how many jobs, or of which states."""
    words = names_of(keep)
    numbers = [int(word) for word in words or () if word.isdecimal()]
    if numbers and len(words or ()) > 1:
        raise click.UsageError("--keep takes one number, or names of states, not both")
    if older_than is None and not numbers:
        raise click.UsageError(
            "say which: --older-than TIME, or --keep NUMBER for all but the latest so many"
        )
    return numbers[0] if numbers else words


def pruned(queues: QueueManager, older_than: float | None, left: int | list[str] | None) -> str:
    """Remove jobs and say how many."""
    removed = queues.prune(older_than, left)
    return f"{removed} job{'' if removed == 1 else 's'} removed"
