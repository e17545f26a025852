"""What a job costs on a Dask cluster: beside the same work given to the cluster by its own client, in the same rounds.

1. A worker's start on a cluster that is there, and one job that does nothing, there and back; the first, and one after.
2. Many such jobs at once, through a queue in memory; and as many futures of a ``distributed.Client``.
3. From the ``kill -9`` of a Dask worker until its job has run again on another.

Slowness is no error: the exit code is 0 whenever everything was measured.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any

from rich.console import Console

import nbqueue as nbq
from benchmarks.harness import Figure, Ratio, machine, rounds, show, write

WORKERS = 2


@nbq.job
def nothing(number: int) -> int:
    """Cost as little as a job can."""
    return number


@nbq.job(tries=2, backoff=0.0)
def wait(ctx: nbq.Context, path: str) -> int:
    """Say which process it is in, and wait there; the second time return."""
    if ctx.attempt == 1:
        Path(path).write_text(str(os.getpid()))
        sleep(600)
    return ctx.attempt


def _same(number: int) -> int:
    return number


class Cluster:
    """The figures, and what measures them.

    Parameters
    ----------
    cluster : distributed.LocalCluster
        With ``WORKERS`` workers of one thread each.
    jobs : int
        So many at once.
    """

    def __init__(self, cluster: Any, jobs: int) -> None:
        self._cluster, self._jobs = cluster, jobs
        self.start = Figure("start of a worker", "ms")
        self.first = Figure("one job after a pause", "ms")
        self.warm = Figure("one job after another", "ms")
        self.queue = Figure("nbqueue, two Dask workers", "jobs/s")
        self.client = Figure("Client.submit, two Dask workers", "jobs/s")
        self.death = Figure("from a kill to the end of the retry", "ms")

    def measure_jobs(self) -> None:
        """Run jobs one by one, then all at once."""
        with nbq.connect(":memory:") as queues:
            start = perf_counter()
            queues.worker(executor=nbq.DaskExecutor(self._cluster.scheduler_address, WORKERS)).start()
            self.start.values.append((perf_counter() - start) * 1e3)
            self._one(queues)
            for _ in range(5):
                sleep(0.3)
                self.first.values.append(self._one(queues) * 1e3)
            self.warm.values.append(sorted(self._one(queues) for _ in range(50))[25] * 1e3)
            start = perf_counter()
            for receipt in queues.dispatch_many([nothing.call(i) for i in range(self._jobs)]):
                receipt.result(600)
            self.queue.values.append(self._jobs / (perf_counter() - start))

    def _one(self, queues: nbq.QueueManager) -> float:
        start = perf_counter()
        queues.dispatch(nothing.call(1)).result(60)
        return perf_counter() - start

    def measure_client(self) -> None:
        """Run the same as futures."""
        from distributed import Client

        with Client(self._cluster.scheduler_address, set_as_default=False) as client:
            client.submit(_same, 0).result()
            start = perf_counter()
            futures = [client.submit(_same, i, pure=False) for i in range(self._jobs)]
            client.gather(futures)
            self.client.values.append(self._jobs / (perf_counter() - start))

    def measure_death(self) -> None:
        """Kill a Dask worker with a job."""
        with TemporaryDirectory() as folder, nbq.connect(":memory:") as queues:
            queues.worker(executor=nbq.DaskExecutor(self._cluster.scheduler_address, WORKERS)).start()
            path = Path(folder, "pid")
            receipt = wait.dispatch(str(path))
            while not path.exists() or not path.read_text():
                sleep(0.001)
            start = perf_counter()
            os.kill(int(path.read_text()), signal.SIGKILL)
            if receipt.result(60) != WORKERS:
                msg = "the job was not tried again"
                raise RuntimeError(msg)
            self.death.values.append((perf_counter() - start) * 1e3)
        self._wait_for_workers()

    def _wait_for_workers(self) -> None:
        from distributed import Client

        with Client(self._cluster.scheduler_address, set_as_default=False) as client:
            client.wait_for_workers(WORKERS, timeout=60)

    @property
    def figures(self) -> list[Figure]:
        """All of them, in the order of the table."""
        return [self.start, self.first, self.warm, self.queue, self.client, self.death]

    @property
    def subjects(self) -> dict[str, Callable[[], object]]:
        """What a round consists of."""
        return {"jobs": self.measure_jobs, "client": self.measure_client, "kill": self.measure_death}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/cluster.json``."""
    from distributed import LocalCluster

    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1_000, help="at once, in each round")
    given = parser.parse_args(arguments)
    console = Console()
    with LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as made:
        cluster = Cluster(made, given.jobs)
        rounds(given.rounds, cluster.subjects, console)
    ratios = [Ratio("nbqueue / Client.submit", cluster.queue.median / cluster.client.median)]
    show("A Dask cluster", cluster.figures, ratios, console)
    about = {"jobs": given.jobs, **machine("nbqueue", "distributed")}
    console.print(f"written to {write('cluster', about, cluster.figures, ratios)}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
