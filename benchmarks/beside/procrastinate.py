"""Procrastinate, a queue on PostgreSQL, as it is measured beside nbqueue: its public interface, at its fastest."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median
from typing import Any

import procrastinate
import psycopg

from benchmarks.harness import timed

__all__ = ["Procrastinate"]

#: How long one job may take to arrive.
PATIENCE = 60.0
#: How often its worker looks although nobody woke it. It is woken by NOTIFY, but for one that comes while it looks;
#: with its default of 5 s these few would make up most of the time that the measurement takes.
LOOK = 0.5


class Procrastinate:
    """One queue of Procrastinate in a schema of its own, filled and worked off.

    Its task is ``async``: for plain functions it starts a hop to a thread each, which is slower. The worker's pool has
    more connections than by default, and finished jobs stay, as they do with nbqueue.

    Parameters
    ----------
    url : str
        Of the server.
    schema : str
        Where its tables go; it is made here.
    concurrency : int
        How many jobs at a time.
    """

    def __init__(self, url: str, schema: str, concurrency: int) -> None:
        logging.getLogger("procrastinate").setLevel(logging.WARNING)
        self._url, self._schema, self._concurrency = url, schema, concurrency
        self.ran = 0
        self._arrived = threading.Event()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f'CREATE SCHEMA "{schema}"')
        self._here = procrastinate.App(
            connector=procrastinate.SyncPsycopgConnector(**self._pool()),
            worker_defaults={"concurrency": concurrency, "install_signal_handlers": False},
        )
        self._task = self._here.task(name="nothing")(self._nothing)

    def _pool(self) -> dict[str, Any]:
        settings = {"options": f"-c search_path={self._schema}"}
        return {"conninfo": self._url, "kwargs": settings, "min_size": 1, "max_size": 2 * self._concurrency}

    async def _nothing(self) -> None:
        self.ran += 1
        self._arrived.set()

    @contextmanager
    def opened(self) -> Iterator[Procrastinate]:
        """Make its tables, and be there to hand in jobs."""
        with self._here.open():
            self._here.schema_manager.apply_schema()
            yield self

    def defer(self) -> None:
        """Hand in one job."""
        self._task.defer()

    def defer_many(self, jobs: int) -> None:
        """Hand in many jobs with one call."""
        self._task.batch_defer(*({} for _ in range(jobs)))

    def analyze(self) -> None:
        """Give the server the statistics that it has of a queue that is not a second old."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(f'ANALYZE "{self._schema}".procrastinate_jobs')

    def work_off(self, jobs: int) -> float:
        """Run all that waits, in this thread; gives the seconds, and raises unless it was that many jobs."""
        before = self.ran
        seconds = timed(lambda: asyncio.run(self._work(wait=False)))
        if self.ran - before != jobs or self._succeeded() != self.ran:
            raise RuntimeError(f"Procrastinate ran {self.ran - before:,} of {jobs:,} jobs")
        return seconds

    async def _work(self, *, wait: bool) -> None:
        there = self._here.with_connector(procrastinate.PsycopgConnector(**self._pool()))
        async with there.open_async():
            await there.run_worker_async(wait=wait, fetch_job_polling_interval=LOOK)

    def _succeeded(self) -> int:
        with psycopg.connect(self._url, options=f"-c search_path={self._schema}") as connection:
            (count,) = connection.execute(
                "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
            ).fetchone() or (0,)
            return int(count)

    def round_trip(self, calls: int) -> float:
        """Give the seconds from a defer until the task runs, the median of so many, with a worker that listens.

        It has no results to wait for, so what nbqueue does after that, the end on disk and its way back, is not in it.
        """
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._work(wait=True))
        thread = threading.Thread(target=_until_cancelled, args=(loop, work))
        thread.start()
        try:
            self._arrive()  # the first one finds out when the worker listens
            return median(timed(self._arrive) for _ in range(calls))
        finally:
            loop.call_soon_threadsafe(work.cancel)
            thread.join(PATIENCE)
            loop.close()

    def _arrive(self) -> None:
        self._arrived.clear()
        self.defer()
        if not self._arrived.wait(PATIENCE):
            raise RuntimeError(f"Procrastinate did not run a job within {PATIENCE:g} s")


def _until_cancelled(loop: asyncio.AbstractEventLoop, work: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(work)
