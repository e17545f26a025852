"""The thread pool of a Dask worker, and a thread that leaves it; as ``distributed.secede``, but from another thread."""

from __future__ import annotations

import threading
import time
from typing import Any

__all__ = ["leave_pool", "replace_thread"]


def replace_thread(worker: Any, thread: threading.Thread, key: str, seconds: float) -> None:
    """Let another thread take the place of one that cannot be stopped; on the worker's own loop.

    Parameters
    ----------
    worker : distributed.Worker
        Whose thread it is.
    thread : Thread
        Which calls ``leave_pool`` when it is done.
    key : str
        Of the task that it runs.
    seconds : float
        For so long.
    """
    from distributed.threadpoolexecutor import threads_lock
    from distributed.worker_state_machine import SecedeEvent

    for pool in worker.executors.values():
        threads: set[Any] = getattr(pool, "_threads", set())
        if thread in threads:
            with threads_lock:
                threads.discard(thread)
                pool._adjust_thread_count()  # noqa: SLF001 - as distributed.secede does
    event = SecedeEvent(key=key, compute_duration=seconds, stimulus_id=f"nbqueue-secede-{time.time()}")
    worker.handle_stimulus(event)


def leave_pool() -> None:
    """Have this thread end with its task: another one has its place."""
    from distributed.threadpoolexecutor import thread_state

    thread_state.proceed = False
