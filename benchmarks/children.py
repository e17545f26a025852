"""What child processes cost, and how fast they end: beside ``ProcessPoolExecutor`` in the same rounds.

1. A child's start until it could run a job; and a job that does nothing in one that is warm, there and back.
2. Many such jobs through a queue in memory with two children, and through a pool of two processes.
3. From a deadline until a job in C code, which no signal reaches, has been reported, with all of its processes gone.
4. From the ``kill -9`` of a process until its children in C code, and what those started, are gone.

Slowness is no error: the exit code is 0 whenever everything was measured.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import monotonic, perf_counter, sleep

from rich.console import Console

import nbqueue as nbq
from benchmarks.harness import Figure, Ratio, machine, rounds, show, write
from nbqueue.executors.children import Child, Limits

_PARENT = """
import time
import nbqueue as nbq
from benchmarks.children import endless
nbq.connect(":memory:").worker(executor="process", concurrency=1).start()
receipt = endless.dispatch()
while not (said := str(receipt.logs()).split()):
    time.sleep(0.02)
print(*said, flush=True)
time.sleep(600)
"""


@nbq.job
def nothing(number: int) -> int:
    """Cost as little as a job can."""
    return number


@nbq.job(timeout=0.5)
def hold() -> None:
    """Hold the GIL in C code, with a program started before."""
    _hold()


@nbq.job
def endless() -> None:
    """Do the same without a timeout."""
    _hold()


def _hold() -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(os.getpid(), other.pid, flush=True)
    sum(range(10**14))


def _same(number: int) -> int:
    return number


def _gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


class Children:
    """The figures, and what measures them.

    Parameters
    ----------
    jobs : int
        So many at once.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self.start = Figure("start of a child", "ms")
        self.warm = Figure("one job, there and back", "ms")
        self.queue = Figure("nbqueue, two children", "jobs/s")
        self.pool = Figure("ProcessPoolExecutor(2)", "jobs/s")
        self.deadline = Figure("C code, after its deadline", "ms")
        self.orphan = Figure("children, after kill -9", "ms")

    def measure_start(self) -> None:
        """Start one, and let it go."""
        start = perf_counter()
        child = Child(Limits())
        child.shake_hands()
        self.start.values.append((perf_counter() - start) * 1e3)
        child.end()

    def measure_jobs(self) -> None:
        """Run jobs one by one, then all at once."""
        with nbq.connect(":memory:") as queues:
            queues.worker(executor="process", concurrency=2).start()
            for receipt in [nothing.dispatch(i) for i in range(8)]:
                receipt.result(60)
            taken = sorted(self._one(queues) for _ in range(100))
            self.warm.values.append(taken[50] * 1e3)
            start = perf_counter()
            for receipt in queues.dispatch_many([nothing.call(i) for i in range(self._jobs)]):
                receipt.result(600)
            self.queue.values.append(self._jobs / (perf_counter() - start))

    def _one(self, queues: nbq.QueueManager) -> float:
        start = perf_counter()
        queues.dispatch(nothing.call(1)).result(60)
        return perf_counter() - start

    def measure_pool(self) -> None:
        """Run the same in a pool."""
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_same, range(8)))
            start = perf_counter()
            for future in [pool.submit(_same, i) for i in range(self._jobs)]:
                future.result()
            self.pool.values.append(self._jobs / (perf_counter() - start))

    def measure_deadline(self) -> None:
        """Let a job run out of its time."""
        with nbq.connect(":memory:") as queues:
            queues.worker(executor="process", concurrency=1).start()
            nothing.dispatch(1).result(60)
            receipt = hold.dispatch().wait(60)
            pids = [int(pid) for pid in str(receipt.logs()).split()]
            if not all(map(_gone, pids)):
                msg = "a job is said to have timed out, and its processes go on"
                raise RuntimeError(msg)
            (took,) = receipt.attempts()["run_seconds"]
            self.deadline.values.append((took - 0.5) * 1e3)

    def measure_orphan(self) -> None:
        """Kill a process with a child at work."""
        parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        start = monotonic()
        parent.kill()
        while not all(map(_gone, pids)):
            sleep(0.001)
        self.orphan.values.append((monotonic() - start) * 1e3)
        parent.communicate()

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.start, self.warm, self.queue, self.pool, self.deadline, self.orphan]

    @property
    def subjects(self) -> dict[str, Callable[[], object]]:
        """What a round consists of."""
        return {
            "start": self.measure_start,
            "jobs": self.measure_jobs,
            "pool": self.measure_pool,
            "deadline": self.measure_deadline,
            "kill": self.measure_orphan,
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/children.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.children", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=2_000, help="at once, in each round")
    given = parser.parse_args(arguments)
    console, children = Console(), Children(given.jobs)
    rounds(given.rounds, children.subjects, console)
    ratios = [Ratio("nbqueue / ProcessPoolExecutor", children.queue.median / children.pool.median)]
    show("Child processes", children.figures, ratios, console)
    path = write(
        "children", {"jobs": given.jobs, **machine("nbqueue", "cloudpickle")}, children.figures, ratios
    )
    console.print(f"written to {path}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
