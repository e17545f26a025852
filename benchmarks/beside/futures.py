"""What begins to run as soon as it is handed in, and is kept nowhere: a thread pool, Dask, ipyparallel and Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter
from typing import Any
from unittest.mock import patch

from benchmarks.beside.jobs import nothing
from benchmarks.beside.peer import PATIENCE
from benchmarks.beside.sqlite import needed

__all__ = ["Futures", "dask", "ipyparallel", "ray", "threads"]

THREADS = 4


class Futures:
    """Something that gives a future for each call.

    Parameters
    ----------
    submit : callable
        Hands in a call; gives its future.
    collect : callable
        Waits for a future.
    """

    def __init__(self, submit: Callable[[int], Any], collect: Callable[[Any], object]) -> None:
        self._submit, self._collect = submit, collect
        self._futures: list[Any] = []
        self._begun = 0.0

    def enqueue(self, jobs: int) -> None:
        """Hand in one by one; they run at once."""
        self._begun = perf_counter()
        self._futures = [self._submit(number) for number in range(jobs)]

    def drain(self, jobs: int) -> float:
        """Wait until all have run; gives the seconds since the first was handed in."""
        for future in self._futures:
            self._collect(future)
        self._futures.clear()
        return perf_counter() - self._begun

    def round_trip(self) -> None:
        """Hand in a call and wait for it."""
        self._collect(self._submit(0))

    @contextmanager
    def working(self) -> Iterator[None]:
        """Nothing: its workers are there all the time."""
        yield


@contextmanager
def threads() -> Iterator[Futures]:
    """Give a pool of four threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        yield Futures(lambda number: pool.submit(nothing, number), lambda future: future.result(PATIENCE))


@contextmanager
def dask() -> Iterator[Futures]:
    """Give Dask with scheduler and one worker of four threads in this process."""
    distributed = needed("distributed", "distributed")
    with distributed.Client(
        processes=False,
        n_workers=1,
        threads_per_worker=THREADS,
        dashboard_address=None,
        set_as_default=False,
        silence_logs=logging.CRITICAL,
    ) as client:
        yield Futures(
            lambda number: client.submit(nothing, number, pure=False), lambda future: future.result(PATIENCE)
        )


@contextmanager
def ipyparallel() -> Iterator[Futures]:
    """Give ipyparallel with two engines."""
    module = needed("ipyparallel", "ipyparallel")
    with module.Cluster(n=2, log_level=logging.CRITICAL) as client:
        view = client.load_balanced_view()
        yield Futures(lambda number: view.apply_async(nothing, number), lambda future: future.get(PATIENCE))


@contextmanager
def ray() -> Iterator[Futures]:
    """Give Ray with two processors."""
    module = needed("ray", "ray")
    with patch.dict(os.environ, RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0"):
        module.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            remote = module.remote(nothing)
            yield Futures(remote.remote, module.get)
        finally:
            module.shutdown()
