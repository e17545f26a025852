"""A manager in memory, and a way to work off what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbqueue.testing.clock import FakeClock

if TYPE_CHECKING:
    from nbqueue.facade.manager import QueueManager

__all__ = ["drain", "memory_manager"]


def memory_manager(clock: FakeClock | None = None) -> QueueManager:
    """Make a queue in memory, on a clock of the test's own.

    Parameters
    ----------
    clock : FakeClock, optional
        For jobs with a delay: they are due when it is told so.

    Example
    -------
    >>> with memory_manager() as queues:
    ...     queues.list()
    ['default']
    """
    from nbqueue.facade.manager import QueueManager
    from nbqueue.stores.memory import MemoryStore

    if clock is None:
        return QueueManager(store=MemoryStore())
    return QueueManager(store=MemoryStore(clock=clock.time, ticks=clock.ticks), clock=clock.time)


def drain(queues: QueueManager, timeout: float = 10.0) -> None:
    """Run every job that could run now, and what those dispatch; delayed ones stay.

    Parameters
    ----------
    queues : QueueManager
        Where they are.
    timeout : float
        Seconds.

    Raises
    ------
    TimeoutError
        If they take longer.
    """
    worker = queues.worker(concurrency=1, when_empty=True).start()
    if not worker.wait(timeout):
        worker.stop(0.0)
        msg = f"jobs of {queues.name} still ran after {timeout:g} s"
        raise TimeoutError(msg)
