"""A durable job queue that lives in a notebook; the public names, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbqueue.errors import (
    DispatchFailed,
    InvalidCommand,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobTimeout,
    NbqueueError,
    NotSupported,
    PayloadUntrusted,
    QueueError,
    QueueUnavailable,
    StaleClaim,
)
from nbqueue.facade.batches.batch import Batch
from nbqueue.facade.manager import CommandQueue, QueueConfig, QueueManager, connect, dispatch, manager
from nbqueue.facade.receipt import JobDispatch
from nbqueue.facade.trusting import trust
from nbqueue.handlers.registry import Job, command, job
from nbqueue.jobs import QueuedCommand, State
from nbqueue.running.context import Context, current

if TYPE_CHECKING:
    from nbqueue.executors.dask.executor import DaskExecutor
    from nbqueue.executors.process import ProcessExecutor

__all__ = [
    "Batch",
    "CommandQueue",
    "Context",
    "DaskExecutor",
    "DispatchFailed",
    "InvalidCommand",
    "Job",
    "JobCancelled",
    "JobDispatch",
    "JobFailed",
    "JobNotFound",
    "JobTimeout",
    "NbqueueError",
    "NotSupported",
    "PayloadUntrusted",
    "ProcessExecutor",
    "QueueConfig",
    "QueueError",
    "QueueManager",
    "QueueUnavailable",
    "QueuedCommand",
    "StaleClaim",
    "State",
    "command",
    "connect",
    "current",
    "dispatch",
    "job",
    "manager",
    "trust",
]

__version__ = "0.1.0"

#: What few need takes half of the time of the import: it is imported when it is first named.
_LATE = {"DaskExecutor": "nbqueue.executors.dask.executor", "ProcessExecutor": "nbqueue.executors.process"}

if not TYPE_CHECKING:
    # Whoever checks types would take any name for one of ours.

    def __getattr__(name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(_LATE[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})


def load_ipython_extension(ipython: Any) -> None:
    """Serve ``%load_ext nbqueue``."""
    from nbqueue.magics import extension

    extension.load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Serve ``%unload_ext nbqueue``."""
    from nbqueue.magics import extension

    extension.unload(ipython)
