"""Other queues, each by its public interface, in turn with nbqueue: jobs handed in, jobs run, and a round trip.

nbqueue hands in by ``dispatch_many``; the others one by one, as their users do, Procrastinate in bulk too. What is
measured of those that begin at once is handing in and running together; where workers are processes of their own, the
time from the first job that has ended to the last counts, without their start. A round trip lasts from the call until
the result is there.

Redis and PostgreSQL are started in a temporary folder if there are any, and have the same cores as everybody; what
cannot be had is left out, and said. Each peer runs as many jobs as take some seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console

import nbqueue as nbq
from benchmarks.another import NOTHING, PATIENCE, THREADS
from benchmarks.beside import futures, redis
from benchmarks.beside.huey import huey
from benchmarks.beside.peer import Missing
from benchmarks.beside.sqlite import lite_queue, needed, persist_queue
from benchmarks.harness import Figure, Ratio, rounds, shown, timed, typical
from benchmarks.script import Script, Size, scratch
from benchmarks.servers import fresh_schema, postgres

#: Whose round trips nbqueue's should be below, with a bar of once theirs.
SLOWER = ("Dask distributed, threads", "ipyparallel, 2 engines", "Celery, Redis, 4 threads")
NBQUEUE = "nbqueue, 4 threads"


class NbQueue:
    """nbqueue, as the others are asked.

    Parameters
    ----------
    queues : QueueManager
        Empty.
    """

    def __init__(self, queues: nbq.QueueManager) -> None:
        self._queues = queues

    def enqueue(self, jobs: int) -> None:
        """Dispatch them together."""
        self._queues.dispatch_many([NOTHING] * jobs)

    def drain(self, jobs: int) -> float:
        """Run them."""
        worker = self._queues.worker(concurrency=THREADS)
        seconds = timed(lambda: worker.start().drain(PATIENCE))
        worker.stop()
        return seconds

    @contextmanager
    def working(self) -> Iterator[None]:
        """Have a worker."""
        with self._queues.worker(concurrency=THREADS):
            yield

    def round_trip(self) -> None:
        """Dispatch one and wait for its result."""
        self._queues.dispatch(NOTHING).result(PATIENCE)


class Procrastinate:
    """Procrastinate, as the others are asked.

    Parameters
    ----------
    other : benchmarks.beside.procrastinate.Procrastinate
        Opened.
    bulk : bool
        Whether jobs are handed in together.
    """

    def __init__(self, other: Any, *, bulk: bool = False) -> None:
        self._other, self._bulk = other, bulk
        self.typical = None if bulk else lambda calls: other.round_trip(calls) * 1e3

    def enqueue(self, jobs: int) -> None:
        """Defer them."""
        if self._bulk:
            self._other.defer_many(jobs)
            return
        for _ in range(jobs):
            self._other.defer()

    def drain(self, jobs: int) -> float:
        """Work them off."""
        self._other.analyze()
        return float(self._other.work_off(jobs))


class Subject:
    """One line of the table.

    Parameters
    ----------
    name : str
        What it is.
    share : float
        Of nbqueue's jobs, how many it runs.
    opened : callable
        Gives it, empty.
    """

    def __init__(self, name: str, share: float, opened: Callable[[], AbstractContextManager[Any]]) -> None:
        self.name, self._share, self._opened = name, share, opened
        self.enqueue = Figure(f"{name}: enqueue", "jobs/s")
        self.drain = Figure(f"{name}: drain", "jobs/s")
        self.round_trip = Figure(f"{name}: round trip", "ms")
        self.missing = ""

    @property
    def figures(self) -> list[Figure]:
        """What was taken of it."""
        return [one for one in (self.enqueue, self.drain, self.round_trip) if one.values]

    def run(self, jobs: int, calls: int) -> None:
        """Measure it, unless it cannot be had."""
        if self.missing:
            return
        some = max(10, round(jobs * self._share))
        try:
            with self._opened() as peer:
                handed_in = timed(partial(peer.enqueue, some))
                self.drain.values.append(some / peer.drain(some))
                self.enqueue.values.append(some / handed_in)
                if hasattr(peer, "round_trip"):
                    with peer.working():
                        peer.round_trip()  # its workers may have to start first
                        self.round_trip.values.append(typical(peer.round_trip, calls))
                elif getattr(peer, "typical", None):
                    self.round_trip.values.append(peer.typical(calls))
        except Missing as error:
            self.missing = f"{self.name}: {error}"


@contextmanager
def _nbqueue(folder: Path, numbers: Iterator[int]) -> Iterator[NbQueue]:
    with nbq.connect(folder / f"{next(numbers)}.duckdb") as queues:
        yield NbQueue(queues)


@contextmanager
def _procrastinate(server: str, *, bulk: bool) -> Iterator[Procrastinate]:
    needed("procrastinate", "procrastinate")
    from benchmarks.beside import procrastinate

    with (
        fresh_schema(server, "peers") as schema,
        procrastinate.Procrastinate(server, schema, THREADS).opened() as other,
    ):
        yield Procrastinate(other, bulk=bulk)


class _Server:
    """A server that is started when it is first asked for, and ends with the stack."""

    def __init__(
        self, stack: ExitStack, starts: Callable[[Path], AbstractContextManager[str]], folder: Path
    ) -> None:
        self._stack, self._starts, self._folder = stack, starts, folder
        self._url = ""

    @property
    def url(self) -> str:
        """Where it is; Missing if there is none to be had."""
        if not self._url:
            try:
                self._url = self._stack.enter_context(self._starts(self._folder))
            except ImportError as error:
                raise Missing(f"{error.name}, which is not installed") from error
        return self._url


def subjects(folder: Path, stack: ExitStack) -> list[Subject]:
    """Give all of them, in the order of the table, with the servers that there are."""
    numbers = count()
    on_redis, on_postgres = _Server(stack, redis.redis_server, folder), _Server(stack, postgres, folder)
    return [
        Subject(NBQUEUE, 1.0, lambda: _nbqueue(folder, numbers)),
        Subject("ThreadPoolExecutor, 4 threads, in memory only", 1.0, futures.threads),
        Subject("Huey, SQLite, 4 threads", 0.2, lambda: huey(folder / f"{next(numbers)}.sqlite")),
        Subject(
            "persist-queue, get and ack", 0.1, lambda: persist_queue(folder / f"{next(numbers)}.persist")
        ),
        Subject("litequeue, pop and done", 0.1, lambda: lite_queue(folder / f"{next(numbers)}.sqlite")),
        Subject("RQ, Redis, 2 workers", 0.02, lambda: redis.rq(on_redis.url)),
        Subject(SLOWER[2], 0.05, lambda: redis.celery(on_redis.url)),
        Subject("Dramatiq, Redis, 2×4 threads", 0.1, lambda: redis.dramatiq(on_redis.url)),
        Subject("Procrastinate, PostgreSQL", 0.02, lambda: _procrastinate(on_postgres.url, bulk=False)),
        Subject("Procrastinate, PostgreSQL, bulk", 0.05, lambda: _procrastinate(on_postgres.url, bulk=True)),
        Subject(SLOWER[0], 0.05, futures.dask),
        Subject(SLOWER[1], 0.02, futures.ipyparallel),
        Subject("Ray, 2 processors", 0.1, futures.ray),
    ]


def ratios(measured: Sequence[Subject]) -> list[Ratio]:
    """Hold nbqueue against each: how many times as fast it drains, and what part of its round trip it takes."""
    ours = next(subject for subject in measured if subject.name == NBQUEUE)
    others = [subject for subject in measured if subject is not ours and subject.drain.values]
    return [
        *(Ratio.between(f"drain: nbqueue / {one.name}", ours.drain, one.drain) for one in others),
        *(
            Ratio.between(
                f"round trip: nbqueue / {one.name}",
                *(ours.round_trip, one.round_trip),
                1.0 if one.name in SLOWER else None,
                at_most=one.name in SLOWER,
            )
            for one in others
            if one.round_trip.values
        ),
    ]


def grid(measured: Sequence[Subject]) -> list[str]:
    """Write a row for each: the medians."""
    rows = [
        [shown(one.median) if one.values else "" for one in (it.enqueue, it.drain, it.round_trip)]
        for it in measured
    ]
    lines = (f"| {it.name} | {' | '.join(row)} |" for it, row in zip(measured, rows, strict=True) if row[1])
    return ["| | enqueue, jobs/s | drain, jobs/s | round trip, ms |", "|---|---:|---:|---:|", *lines]


def measure(measured: Sequence[Subject], jobs: int, calls: int, count: int, console: Console) -> None:
    """Run so many rounds."""
    rounds(count, {one.name: partial(one.run, jobs, calls) for one in measured}, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write ``benchmarks/results/peers.json``."""
    sizes = (
        Size("jobs", 20_000, 5_000, "no-op jobs of nbqueue a round; the others run a part of that"),
        Size("calls", 100, 50, "round trips a round"),
        Size("rounds", 3, 1, "how often everything is measured"),
    )
    packages = (
        "duckdb",
        "huey",
        "persist-queue",
        "litequeue",
        "rq",
        "celery",
        "dramatiq",
        "redis",
        "procrastinate",
    )
    script = Script("peers", __doc__, sizes, (*packages, "distributed", "ipyparallel", "ray"))
    script.parser.add_argument("--only", nargs="+", metavar="NAME", help="beginnings of names: only these")
    given = script.read(arguments)
    with scratch() as folder, ExitStack() as stack:
        measured = subjects(folder, stack)
        if given.only:
            names = (NBQUEUE, *given.only)
            measured = [one for one in measured if one.name.startswith(names)]
        measure(measured, given.jobs, given.calls, given.rounds, script.console)
    figures = [figure for one in measured for figure in one.figures]
    title = f"{given.jobs:,} no-op jobs of nbqueue, {given.calls} round trips, rounds: {given.rounds}"
    left_out = [one.missing for one in measured if one.missing]
    return script.report(given, title, figures, ratios(measured), notes=left_out, body=grid(measured))


if __name__ == "__main__":
    raise SystemExit(main())
