"""Lets ``%%bash`` and its like in a job be stopped with it: each gets a process group of its own; knows no shell."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import Context as Variables
from types import ModuleType
from typing import Any

from nbqueue.running import grafts
from nbqueue.running.context import Context, current

__all__ = ["GRAFTS"]

#: A script hears so often whether its job is told to stop, seconds.
_TICK = 0.1


def _graft(module: ModuleType) -> None:
    if os.name == "posix":
        grafts.replace(module.ScriptMagics, "shebang", _stoppable)


GRAFTS = {"IPython.core.magics.script": _graft}


def _stoppable(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give what runs a script, as a job's if a job asks for it; one with ``--bg`` is nobody's to wait for."""

    def shebang(self: Any, line: str, cell: str) -> Any:
        context = current(None)
        if context is None or "--bg" in line.split():
            return original(self, line, cell)
        with _own_loop(context) as loop:
            # The notebook's may be at another script.
            own = copy.copy(self)
            own.event_loop, own.bg_processes = loop, []
            return original(own, line, cell)

    shebang.__dict__.update(vars(original))
    return shebang


@contextlib.contextmanager
def _own_loop(context: Context) -> Iterator[Any]:
    """Give a running event loop, whose processes are killed when the job is told to stop."""
    import asyncio

    loop: Any = asyncio.new_event_loop()
    start, groups = loop.subprocess_exec, []

    async def subprocess_exec(*args: Any, **words: Any) -> Any:
        # An interrupt is sent to the kernel's whole group.
        transport, protocol = await start(*args, start_new_session=True, **words)
        groups.append(transport.get_pid())
        return transport, protocol

    over = asyncio.Event()

    async def watch() -> None:
        while context.stop_reason is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), _TICK)
                return
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    loop.subprocess_exec = subprocess_exec
    thread = threading.Thread(
        target=Variables().run, args=(loop.run_forever,), name="nbqueue-script", daemon=True
    )
    thread.start()
    watching = asyncio.run_coroutine_threadsafe(watch(), loop)
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(over.set)
        watching.result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
