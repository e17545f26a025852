"""Processes that tests tell what to do: each has a ``__main__`` of its own, like a notebook or a script."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import textwrap
import types
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: Forked off a process without threads that has imported what is needed: a start takes milliseconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["nbqueue.stores.shared", "nbqueue.facade.manager", "nbqueue.worker.worker"]
)

PATIENCE = 30.0
_PRELUDE = """
import os, shutil, signal, sys, threading, time
import nbqueue as nbq

begun, go = threading.Event(), threading.Event()

def note(word):
    "Say in a file, whatever becomes of this process, that something was done."
    with open(notes, "a") as file:
        file.write(f"{word}\\n")
"""


class Child:
    """One process; it goes with the test."""

    def __init__(self, name: str, folder: Path) -> None:
        self._ours, theirs = _processes.Pipe()
        file = folder / f"{name}.py"
        self.process = _processes.Process(
            target=_live, args=(theirs, str(file), dict(os.environ)), name=name, daemon=True
        )
        self.process.start()
        theirs.close()
        self.tell(_PRELUDE, notes=str(folder / "notes"), path=str(folder / "jobs.duckdb"))

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def tell(self, statements: str, **names: Any) -> None:
        """Have it run statements."""
        self._ours.send((textwrap.dedent(statements), "exec", names))
        self.answer()

    def ask(self, expression: str) -> Any:
        """Give what an expression is there."""
        self.begin(expression)
        return self.answer()

    def begin(self, expression: str) -> None:
        """Have it begin with an expression."""
        self._ours.send((expression, "eval", {}))

    def answer(self) -> Any:
        """Give what the expression is that it began with."""
        assert self._ours.poll(PATIENCE), f"{self.process.name} does not answer"
        done, answer = self._ours.recv()
        assert done, f"{self.process.name}: {answer}"
        return answer

    def end(self) -> None:
        """Have it end as a script does."""
        self._ours.close()
        self.process.join(PATIENCE)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as ``kill -9`` does, and wait for that."""
        self.signal(signal.SIGKILL)
        self.process.join(PATIENCE)


def _live(orders: Connection, file: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    main = types.ModuleType("__main__")
    main.__file__ = file
    sys.modules["__main__"], sys.argv = main, [file]
    try:
        while True:
            code, kind, names = orders.recv()
            vars(main).update(names)
            try:
                orders.send((True, eval(compile(code, file, kind), vars(main))))  # noqa: S307 - a test's own
            except Exception as error:
                orders.send((False, f"{type(error).__name__}: {error}"))
    except (EOFError, OSError, KeyboardInterrupt):
        # Children of multiprocessing skip it.
        atexit._run_exitfuncs()
