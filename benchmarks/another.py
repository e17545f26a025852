"""A second process on a queue, which works when it is told to; and the job that does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import nbqueue as nbq

__all__ = ["NOTHING", "PATIENCE", "THREADS", "Second", "another"]

THREADS = 4
PATIENCE = 300.0
_DONE = "done"


@nbq.command("nothing")
def no_op() -> None:
    """Do nothing."""


NOTHING = nbq.QueuedCommand("nothing")


class Second:
    """That process, as the first one sees it.

    Parameters
    ----------
    url : str
        Of the queue.
    """

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "benchmarks.another", url]
        root = Path(__file__).parents[1]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root)
        self.ended()

    def begin(self) -> None:
        """Have it work; when all is done its worker stays for what comes."""
        assert self._process.stdin is not None
        print("work", file=self._process.stdin, flush=True)

    def ended(self) -> None:
        """Wait until it has done what it was told."""
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != _DONE:
            raise RuntimeError("the second process has ended before its work was done")

    def work_off(self) -> None:
        """Do both."""
        self.begin()
        self.ended()

    def close(self) -> None:
        """End it."""
        self._process.communicate("")


@contextmanager
def another(url: str) -> Iterator[Second]:
    """Have a second process on a queue."""
    second = Second(url)
    try:
        yield second
    finally:
        second.close()


def _main(url: str) -> None:
    with nbq.connect(url) as queues:
        worker = queues.worker(concurrency=THREADS)
        for told in chain(("",), sys.stdin):
            if told:
                worker.start().drain(PATIENCE)
            print(_DONE, flush=True)
        worker.stop()


if __name__ == "__main__":
    _main(*sys.argv[1:])
