"""The jobs of a chaos run: each leaves a line when it begins and one when it has done its work."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nbqueue.chaos.plan import FLAKY_FAILS
from nbqueue.handlers.registry import command

if TYPE_CHECKING:
    from nbqueue.running.context import Context

__all__ = ["FOLDER", "append"]

#: Names the folder of a run, also to the children of its processes.
FOLDER = "NBQUEUE_CHAOS_FOLDER"
#: Enough for whoever is killed again and again: what counts as an attempt here is the death of a child.
_TRIES = 50
_BACKOFF = 0.01


def append(name: str, text: str) -> None:
    """Write to the end of a file of the run by one call, so that a kill leaves all of it or nothing."""
    file = os.open(Path(os.environ[FOLDER]) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _leave(kind: str, ctx: Context) -> None:
    line = (
        f"{kind} {ctx.job_id} {ctx.attempt} {ctx.claim.fence} {os.getpid()} {os.getppid()} {time.time():.6f}"
    )
    append("effects", f"{line}\n")


@command("chaos:quick", tries=_TRIES, backoff=_BACKOFF)
def quick(ctx: Context, number: int) -> int:
    """Do next to nothing."""
    _leave("b", ctx)
    _leave("e", ctx)
    return number


@command("chaos:brief", tries=_TRIES, backoff=_BACKOFF)
def brief(ctx: Context, number: int) -> int:
    """Take a few milliseconds."""
    _leave("b", ctx)
    time.sleep(0.002 + number % 7 / 1_000)
    _leave("e", ctx)
    return number


@command("chaos:slow", tries=_TRIES, backoff=_BACKOFF)
def slow(ctx: Context, number: int) -> int:
    """Take long enough to be caught at it."""
    _leave("b", ctx)
    time.sleep(0.05 + number % 11 / 100)
    _leave("e", ctx)
    return number


@command("chaos:flaky", tries=_TRIES, backoff=_BACKOFF)
def flaky(ctx: Context, number: int) -> int:
    """Fail at first, then succeed."""
    _leave("b", ctx)
    _leave("e", ctx)
    if ctx.attempt <= FLAKY_FAILS:
        raise ConnectionError("503, by design")
    return number
