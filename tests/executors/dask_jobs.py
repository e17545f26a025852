"""Jobs for the workers of a Dask cluster, which import this module; and jobs as a notebook's modules have them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import nbqueue as nbq
from nbqueue.payload import needs_pickle
from nbqueue.running.context import Context

__all__ = ["DASK_JOBS"]


def meet_there(there: str, go: str) -> int:
    Path(there).write_text(str(os.getpid()))
    Path(go).read_text()
    return os.getpid()


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def end_process(how: str) -> None:
    print("last words")
    nbq.current().progress(1, 2, "nearly")
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def end_greedily() -> None:
    from distributed import get_worker

    worker = get_worker()
    # As its nanny says it before it ends a process that takes too much.
    worker.log_event("worker-restart-memory", {"worker": worker.address})
    time.sleep(0.5)
    os._exit(3)


def spin(there: str) -> None:
    Path(there).write_text(str(os.getpid()))
    while True:
        pass


def clean_up(there: str, path: str) -> None:
    try:
        spin(there)
    finally:
        Path(path).write_text("cleaned")


def show_signed(value: Any) -> Any:
    from IPython.display import HTML, display

    display(HTML("<b>7</b>"))
    claim = nbq.current().claim
    assert needs_pickle(claim.payload)
    return [claim.payload, value, slice(1, 2)]


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def say_much() -> str:
    print("x" * 200_000)
    return "y" * 300_000


def ask_home() -> None:
    nbq.manager()


# ------------------------------------------------------------------------------------------- as a module has them


@nbq.job(tries=5, backoff=0.0)
def note(ctx: Context, folder: str, number: int) -> int:
    with Path(folder, str(os.getpid())).open("a", buffering=1) as file:
        file.write(f"begun {number}\n")
        if number == 250:
            # Somebody is to kill this very process meanwhile, the first time.
            with contextlib.suppress(FileExistsError):
                Path(folder, "first").touch(exist_ok=False)
                Path(folder, "new").write_text(str(os.getpid()))
                Path(folder, "new").replace(Path(folder, "victim"))
                time.sleep(60)
    return number


@nbq.job
def meet(there: str, go: str) -> str:
    Path(there).write_text("there")
    Path(go).read_text()
    return "met"


@nbq.job
def double(x: int) -> int:
    return 2 * x


@nbq.job
def until_told(ctx: Context, there: str, path: str) -> None:
    Path(there).write_text("there")
    try:
        while True:
            time.sleep(0.01)
    finally:
        Path(path).write_text(str(ctx.stop_reason))


@nbq.job(timeout=0.3)
def too_long() -> None:
    while True:
        pass


DASK_JOBS = {
    function.__name__: function
    for function in (
        *(meet_there, nap, end_process, end_greedily, spin, clean_up, show_signed, burn, say_much, ask_home),
    )
}
