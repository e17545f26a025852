"""Jobs in a module, as terminal workers import them; state of the module is there in children too."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import nbqueue as nbq
from tests.executors.jobs import meet

#: What could not be pickled, and need not be: children import it.
LOCK = threading.Lock()


@nbq.job
def double(x: int) -> int:
    with LOCK:
        return 2 * x


@nbq.job(tries=2, backoff=0.01)
def die_once(ctx: nbq.Context) -> int:
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return ctx.attempt


@nbq.job(timeout=0.3)
def too_long() -> None:
    sum(range(10**14))


@nbq.job
def for_ever(path: str) -> None:
    with open(path, "w") as pipe:  # noqa: PTH123
        pipe.write("there")
    time.sleep(600)


@nbq.job
def step(path: str, text: str, there: str = "", go: str = "") -> None:
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    if there:
        meet(there, go)


class Greet(nbq.Job):
    who: str

    async def handle(self, ctx: nbq.Context) -> str:
        return f"{self.who} {ctx.attempt}"


@nbq.command("process:named")
def named(*args: str) -> list[str]:
    return [*args, str(double.call(1).command)]


@nbq.job
def ask_home(ctx: nbq.Context, x: int) -> list[Any]:
    receipt = ctx.dispatch(double.call(x))
    owner = nbq.manager().owner
    return [receipt.result(timeout=60), owner.pid, len(nbq.manager().jobs(command="double"))]


@nbq.job
def limited() -> list[int]:
    import resource

    return [os.getppid(), resource.getrlimit(resource.RLIMIT_AS)[0]]


@nbq.job
def ask_memory() -> None:
    nbq.manager()
