"""The Dask executor: jobs run on the workers of a cluster that is there; knows no store.

A Dask worker that dies costs the attempt that it ran. When the scheduler goes, all that was begun or waits is given
back, and it is tried to reach it again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from nbqueue.errors import InvalidCommand
from nbqueue.executor import Running, StopReason
from nbqueue.executors.dask.cluster import Cluster, count_threads
from nbqueue.executors.dask.desk import Desk
from nbqueue.executors.slots import PATIENCE
from nbqueue.executors.thread import ThreadExecutor
from nbqueue.handlers.handler import Kind

if TYPE_CHECKING:
    from nbqueue.executors.dask.line import Line
    from nbqueue.jobs import Claim
    from nbqueue.running.run import Runner
    from nbqueue.slots import SlotFile
    from nbqueue.store import Report

__all__ = ["DaskExecutor"]

#: What is left of a job that was told to stop when its executor closes.
_LAST_WORDS = 1.0


class DaskExecutor:
    """Runs jobs on the workers of a Dask cluster; ``%%job`` cells in threads, since they use the kernel's names.

    Parameters
    ----------
    cluster : str or dask.distributed.Client
        ``"dask://HOST:PORT"``, any address that Dask knows, or a client, whose scheduler and security are taken. The
        executor has a connection of its own, and leaves the client alone.
    concurrency : int, optional
        How many jobs run at once; as many as the cluster has threads, unless given.
    patience : float
        A job that goes on for so many seconds after it was told to stop is shown as stuck, and does not count.

    Raises
    ------
    NotSupported
        Without distributed, for an asynchronous client, or where no worker of the cluster can run jobs of this process.
    InvalidCommand
        For what is no address and no client, and a concurrency that cannot be.
    QueueUnavailable
        Where no scheduler answers.
    """

    name = "dask"
    ships_code = True

    def __init__(self, cluster: Any, concurrency: int | None = None, *, patience: float = PATIENCE):
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise InvalidCommand(f"concurrency must be a whole number from 1 up, not {concurrency!r}")
        self._cluster = Cluster.of(cluster)
        self._concurrency = concurrency
        #: None of them while the scheduler has gone.
        self.slots = concurrency or count_threads(self._cluster)
        self._patience = patience
        self._cells = ThreadExecutor(self.slots, patience=patience)
        self._desk: Desk | None = None
        self._line: Line | None = None

    def __repr__(self) -> str:
        return f"<DaskExecutor {self._cluster.address}, {self.slots} slots>"

    # -- for the worker

    def start(self, runner: Runner, done: Callable[[], None], slot_file: SlotFile | None) -> None:
        """Connect, and begin to take jobs.

        Raises
        ------
        QueueUnavailable
            Where no scheduler answers.
        NotSupported
            Where no worker of the cluster can run jobs of this process.
        """
        from nbqueue.executors.dask.line import Line

        desk = Desk(runner, done, slot_file)
        line = Line(self._cluster, desk, self._concurrency, self._take_slots)
        line.open()
        cells = None if slot_file is None else _Shifted(slot_file, self.slots)
        self._cells.start(runner, done, cells)  # type: ignore[arg-type]  # notes like a slot file
        self._desk, self._line = desk, line

    def _take_slots(self, slots: int) -> None:
        self.slots = slots

    def submit(self, claims: Sequence[Claim]) -> None:
        """Take these."""
        assert self._desk is not None
        assert self._line is not None
        cells = [claim for claim in claims if self._is_cell(claim)]
        if cells:
            self._cells.submit(cells)
        away = claims if not cells else [claim for claim in claims if claim not in cells]
        if away:
            with self._desk.lock:
                self._desk.todo.extend(away)
            self._line.do("feed")

    def _is_cell(self, claim: Claim) -> bool:
        assert self._desk is not None
        # What is wrong with the handler is told when it is looked for again.
        with contextlib.suppress(Exception):
            handler = self._desk.runner.resolve(claim.spec)
            return handler is not None and handler.kind is Kind.CELL
        return False

    def collect(self) -> list[Report]:
        """Give the reports that have come."""
        return [] if self._desk is None else [*self._desk.collect(), *self._cells.collect()]

    def news(self) -> list[Report]:
        """Give what running jobs have said since the last call."""
        return [] if self._desk is None else [*self._desk.news(), *self._cells.news()]

    def waiting(self) -> int:
        """How many were taken and not begun."""
        return 0 if self._desk is None else len(self._desk.todo) + self._cells.waiting()

    def withdraw(self, keep: int = 0) -> list[Claim]:
        """Give back what was not begun; what a lane has been given already is not among it."""
        if self._desk is None:
            return []
        kept = min(keep, len(self._desk.todo))
        return [*self._desk.withdraw(kept), *self._cells.withdraw(keep - kept)]

    def running(self) -> list[Running]:
        """What runs now."""
        if self._desk is None or self._line is None:
            return []
        for run in self._desk.newly_stuck(self._patience):
            self._line.do("replace", run)
        return [*self._desk.running(), *self._cells.running()]

    def stop_job(self, fence: int, reason: StopReason) -> bool:
        """Tell a running job to stop."""
        if self._desk is None or self._line is None:
            return False
        run, untold = self._desk.stop(fence, reason)
        if run is None:
            return self._cells.stop_job(fence, reason)
        if untold:
            self._line.do("tell", run)
        return True

    def close(self, timeout: float) -> list[Claim]:
        """Let what runs end for up to ``timeout`` seconds, then give it back; the client that was given stays open."""
        desk, line = self._desk, self._line
        if desk is None or line is None:
            return []
        deadline = time.monotonic() + timeout
        with desk.lock:
            desk.closing = True
        line.do("recall")
        if not desk.wait_idle(timeout):
            for running in desk.running():
                self.stop_job(running.claim.fence, StopReason.SHUTDOWN)
            desk.wait_idle(_LAST_WORDS)
        left = {claim.fence: claim for claim in desk.abandon()}
        left |= {claim.fence: claim for claim in (*line.close(), *desk.withdraw(0))}
        for claim in self._cells.close(max(0.0, deadline - time.monotonic())):
            left[claim.fence] = claim
        self._line = None
        return [left[fence] for fence in sorted(left)]


class _Shifted:
    """The part of a slot file that begins behind other slots."""

    def __init__(self, file: SlotFile, by: int):
        self._file, self._by = file, by

    def begin(self, slot: int, fence: int) -> None:
        self._file.begin(self._by + slot, fence)

    def end(self, slot: int) -> None:
        self._file.end(self._by + slot)
