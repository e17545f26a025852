"""Queues on Redis: Celery, RQ and Dramatiq, with a server that is started for them and keeps nothing on disk."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any, Protocol
from unittest.mock import patch

from benchmarks.beside.peer import PATIENCE, Missing
from benchmarks.beside.sqlite import needed

__all__ = ["REDIS", "RedisQueue", "celery", "dramatiq", "redis_server", "rq"]

#: Where the workers that are started here find the server.
REDIS = "NBQUEUE_BENCH_REDIS"
_ROOT = Path(__file__).parents[2]


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Give the URL of a server without its database number, on a port that is free; it ends with this.

    Raises
    ------
    Missing
        If there is no ``redis-server`` on the path.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("no redis-server")
    client = needed("redis", "redis")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # It writes nothing, which is the fastest that it can be.
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with _started(command), client.Redis(port=port) as there:
        _until(lambda: _answers(there, client))
        yield f"redis://127.0.0.1:{port}"


def _answers(there: Any, client: Any) -> bool:
    try:
        return bool(there.ping())
    except client.ConnectionError:
        return False


@contextmanager
def _started(command: Sequence[str]) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(reached: Callable[[], bool], every: float = 0.005) -> None:
    deadline = monotonic() + PATIENCE
    while not reached():
        if monotonic() > deadline:
            raise TimeoutError(f"nothing came within {PATIENCE:g} s")
        sleep(every)


class Handling(Protocol):
    """How one of these queues is spoken to."""

    def send(self) -> object:
        """Hand in a job that does nothing."""

    def finished(self) -> int:
        """Give how many jobs have ended."""

    def round_trip(self) -> object:
        """Hand in a job and wait for its result."""


class RedisQueue:
    """A queue on Redis whose workers are processes of their own.

    Parameters
    ----------
    handling : Handling
        How it is spoken to.
    workers : sequence of sequence of str
        The commands that start its workers.
    """

    def __init__(self, handling: Handling, *workers: Sequence[str]) -> None:
        self._handling, self._workers = handling, workers
        self.round_trip = handling.round_trip

    def enqueue(self, jobs: int) -> None:
        """Hand in one by one."""
        for _ in range(jobs):
            self._handling.send()

    def drain(self, jobs: int) -> float:
        """Run them by workers that are started now; gives the seconds, without those until the first job has ended."""
        finished, total = self._handling.finished, self._handling.finished() + jobs
        before = total - jobs
        start = perf_counter()
        with self.working():
            _until(lambda: finished() > before)
            first = finished() - before
            if first < jobs:  # so few may have ended at once that nothing is left to measure
                start = perf_counter()
            _until(lambda: finished() >= total)
            seconds = perf_counter() - start
        return seconds * jobs / (jobs - first or jobs)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Have its workers, which may still be starting."""
        with _all_started(self._workers):
            yield


@contextmanager
def _all_started(commands: Sequence[Sequence[str]]) -> Iterator[None]:
    if not commands:
        yield
        return
    with _started(commands[0]), _all_started(commands[1:]):
        yield


# ------------------------------------------------------------------------------------------------ one by one
@contextmanager
def celery(url: str) -> Iterator[RedisQueue]:
    """Give Celery with a pool of four threads, its results in Redis too."""
    needed("celery", "celery")
    with _known(url) as there:
        from benchmarks.beside.celery_app import app, nothing

        class _Celery:
            send = staticmethod(nothing.delay)

            def finished(self) -> int:
                return int(there.dbsize())  # its results have a database of their own

            def round_trip(self) -> None:
                nothing.delay().get(timeout=PATIENCE)

        command = [sys.executable, "-m", "celery", "-A", "benchmarks.beside.celery_app", "worker"]
        yield RedisQueue(
            _Celery(), [*command, "--pool", "threads", "--concurrency", "4", "--loglevel", "ERROR"]
        )
        app.close()


@contextmanager
def rq(url: str) -> Iterator[RedisQueue]:
    """Give RQ with two workers, which start a process for each job."""
    module = needed("rq", "rq")
    with _known(url) as there:
        queue = module.Queue("nothing", connection=there)

        class _RQ:
            def send(self) -> None:
                queue.enqueue("benchmarks.beside.jobs.nothing")

            def finished(self) -> int:
                return int(queue.finished_job_registry.get_job_count(cleanup=False))

            def round_trip(self) -> None:
                if (
                    queue.enqueue("benchmarks.beside.jobs.nothing").latest_result(timeout=int(PATIENCE))
                    is None
                ):
                    raise TimeoutError("RQ gave no result")

        command = [sys.executable, "-m", "rq.cli", "worker", "--url", f"{url}/1", "--quiet", "nothing"]
        yield RedisQueue(_RQ(), command, command)


@contextmanager
def dramatiq(url: str) -> Iterator[RedisQueue]:
    """Give Dramatiq with two processes of four threads."""
    needed("dramatiq", "dramatiq")
    with _known(url) as there:
        from benchmarks.beside.dramatiq_app import answer, broker, nothing

        sent = 0

        class _Dramatiq:
            def send(self) -> None:
                nonlocal sent
                sent += 1
                nothing.send()

            def finished(self) -> int:
                # A message goes from there when it was acknowledged.
                return sent - int(there.hlen("dramatiq:default.msgs"))

            def round_trip(self) -> None:
                answer.send().get_result(block=True, timeout=int(PATIENCE * 1000))

        command = [sys.executable, "-m", "dramatiq", "benchmarks.beside.dramatiq_app"]
        yield RedisQueue(_Dramatiq(), [*command, "--processes", "2", "--threads", "4"])
        broker.close()


@contextmanager
def _known(url: str) -> Iterator[Any]:
    """Tell the workers where the server is; gives a client of an empty database of it, number 1."""
    client = needed("redis", "redis")
    with patch.dict(os.environ, {REDIS: url}), client.Redis.from_url(f"{url}/1") as there:
        there.flushall()
        yield there
