"""Children never outlive the process whose jobs they run, and no Ctrl-C meant for it reaches them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.executors.test_process import is_gone, wait_gone

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0

#: What stands in for a kernel: it runs jobs in children, says which processes they are, and waits.
PARENT = """
import os, signal, subprocess, sys, threading, time
import nbqueue as nbq

@nbq.job
def hold_gil():
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(os.getpid(), other.pid, flush=True)
    sum(range(10**14))

@nbq.job
def sleep():
    print(os.getpid(), os.getpid(), flush=True)
    time.sleep(600)

def pids(receipt):
    while not (said := str(receipt.logs()).split()):
        time.sleep(0.02)
    return said

queues = nbq.connect(":memory:")
queues.worker(executor="process", concurrency=3).start()
found = [*pids(hold_gil.dispatch()), *pids(sleep.dispatch())]
signal.signal(signal.SIGINT, signal.SIG_IGN)
if not (forked := os.fork()):
    time.sleep(600)
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
print(*found, forked, flush=True)
time.sleep(600)
"""


class Parent:
    """A process with children at work."""

    def __init__(self, folder: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.children = [int(pid) for pid in self.read().split()]

    def read(self) -> str:
        """Give a line of what it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> None:
        """End it and what it left."""
        for pid in (self.process.pid, *self.children):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.communicate()


@pytest.fixture
def parents() -> Iterator[list[Parent]]:
    """Ends what is put in."""
    made: list[Parent] = []
    yield made
    for one in made:
        one.end()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child in C code cannot be reached")
def test_children_die_with_their_kernel_and_of_nothing_else(parents: list[Parent], tmp_path: Path) -> None:
    """SIGINT to the process group, as by Ctrl-C, interrupts the cell and no job. After ``kill -9`` no job is left.

    Neither what sleeps nor what is in C code, nor what either has started: at once. What the kernel has forked off
    itself goes on, and keeps no child alive.
    """
    parents.append(parent := Parent(tmp_path))
    os.killpg(parent.process.pid, signal.SIGINT)
    assert parent.read() == "interrupted\n"
    *own, forked = parent.children
    assert not any(map(is_gone, own))
    before = time.monotonic()
    parent.process.kill()
    for pid in own:
        wait_gone(pid)
    assert time.monotonic() - before < 1.0
    assert not is_gone(forked)
