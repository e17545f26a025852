"""The jobs that tests of executors run; imports no pytest, since child processes import it too."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbqueue.running.context import Context

__all__ = ["JOBS", "Pickled"]


def say_there(there: str, text: str = "") -> None:
    with Path(there).open("w") as pipe:
        pipe.write(text or "there")


def wait_to_go(go: str) -> None:
    with Path(go).open() as pipe:
        pipe.read()


def give(value: Any) -> Any:
    return value


async def give_async(value: Any) -> Any:
    import asyncio

    await asyncio.sleep(0)
    return value


def meet(there: str, go: str) -> str:
    say_there(there)
    wait_to_go(go)
    return "met"


def note(path: str, text: str) -> None:
    with Path(path).open("a") as file:
        file.write(text + "\n")


def fail(text: str) -> None:
    raise KeyError(text)


def leave(kind: str) -> None:
    raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[kind]


async def leave_async(kind: str) -> None:
    leave(kind)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail_unspeakably() -> None:
    raise Unspeakable


def fail_unprintably() -> None:
    raise ValueError("name \udcff.csv")


def fail_at_length() -> None:
    raise ValueError("x" * 10_000_000)


def recurse(n: int = 0) -> int:
    return recurse(n + 1) + 1


def give_lock() -> Any:
    return threading.Lock()


def give_generator() -> Any:
    return (i for i in range(3))


class Unpicklable:
    def __reduce__(self) -> Any:
        raise SystemExit("cannot be taken apart")


def give_unpicklable() -> Any:
    return Unpicklable()


def until_told(ctx: Context, there: str) -> str:
    say_there(there)
    while not ctx.should_stop():
        pass
    ctx.raise_if_stopped()
    return "never"


def talk(ctx: Context, name: str, there: str, go: str) -> None:
    for i in range(20):
        print(f"{name} out {i}")
        print(f"{name} err {i}", file=sys.stderr)
        ctx.log.info("%s log %d", name, i)
        logging.getLogger("library").warning("%s library %d", name, i)
        if i == 10:
            say_there(there)
            wait_to_go(go)


def report_progress(ctx: Context, there: str, go: str) -> None:
    print("half done")
    ctx.progress(1, 2, "halfway")
    say_there(there)
    wait_to_go(go)


JOBS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(give, give_async, meet, note, fail, leave, leave_async, fail_unspeakably, fail_unprintably),
        *(
            fail_at_length,
            recurse,
            give_lock,
            give_generator,
            give_unpicklable,
            until_told,
            talk,
            report_progress,
        ),
    )
}


class Pickled:
    """Leaves a trace where it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)
