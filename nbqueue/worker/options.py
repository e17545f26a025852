"""What may be said about a worker, and what it works with; runs nothing."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nbqueue.errors import QueueUnavailable
from nbqueue.executor import Executor
from nbqueue.handlers.handler import Registry
from nbqueue.running.run import Services
from nbqueue.slots import SlotFile
from nbqueue.store import Report, Store, WorkerInfo

__all__ = ["Means", "WorkerOptions", "new_info", "new_slot_file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What may be said about a worker; durations in seconds."""

    #: In the order they are served; None: every queue.
    queues: tuple[str, ...] | None = None
    #: Attempts for jobs that name none.
    tries: int = 1
    #: How long an attempt may take, for jobs that name none.
    timeout: float | None = None
    #: Without a word for so long, its jobs go to others.
    lease: float = 15.0
    #: The longest wait between looks at the store.
    sleep: float = 5.0
    #: It stops by itself after so many attempts,
    max_jobs: int | None = None
    #: after so long,
    max_seconds: float | None = None
    #: or as soon as nothing is left that it could run now.
    when_empty: bool = False
    #: Is told of every attempt that ended and was accepted, in the supervisor's thread; it must be quick.
    on_ended: Callable[[Report], None] | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What a worker works with."""

    store: Store
    registry: Registry
    executor: Executor
    services: Services
    options: WorkerOptions
    #: Seconds since the epoch, for people.
    clock: Callable[[], float]
    #: Seconds by a clock that never steps back, for deadlines.
    ticks: Callable[[], float]


def new_info(means: Means) -> WorkerInfo:
    """Say who works, where and on what, under a name that nobody had before."""
    host, options = platform.node(), means.options
    return WorkerInfo(
        worker_id=f"{host or 'local'}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
        queues=options.queues,
        concurrency=means.executor.slots,
        executor=means.executor.name,
        host=host,
        pid=os.getpid(),
        tries=options.tries,
        timeout=options.timeout,
        lease=options.lease,
    )


def new_slot_file(store: Store, info: WorkerInfo, slots: int) -> SlotFile | None:
    """Make the slot file of a worker, before it joins; None for a store that nobody outlives.

    Raises
    ------
    QueueUnavailable
        Where there can be none, as on a full disk.
    """
    folder: Path | None = getattr(store, "slot_folder", None)
    if folder is None:
        return None
    path = folder / f"{info.worker_id}.slots"
    try:
        return SlotFile(path, slots)
    except OSError as error:
        raise QueueUnavailable(
            f"{path} cannot be made ({error.strerror or error}), which tells others when this process dies;"
            f" free some room on its disk, or make {folder} writable"
        ) from error
