"""The executors that come with nbqueue, by name; each is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbqueue.errors import InvalidCommand

if TYPE_CHECKING:
    from nbqueue.executor import Executor

__all__ = ["make_executor"]


#: How many jobs run at once, where nobody says it.
SLOTS = 4
#: What addresses of Dask schedulers begin with.
_CLUSTERS = ("dask://", "tcp://", "tls://", "ucx://", "ws://", "wss://", "inproc://")


def make_executor(executor: str | Executor, slots: int | None = None, **limits: Any) -> Executor:
    """Give the executor of a name, or the one given.

    Parameters
    ----------
    executor : str or Executor
        ``"thread"``, ``"process"``, the address of a Dask scheduler, or one of your own.
    slots : int, optional
        How many jobs run at once; 4 unless given, and on a cluster as many as it has threads. An executor of your own
        knows that itself.
    **limits
        Of ``"process"``: ``max_jobs_per_child``, ``memory_limit``; None is no limit.

    Raises
    ------
    NotSupported
        For one that needs what is not installed.
    InvalidCommand
        For a name that means nothing, and for limits of what has none.
    QueueUnavailable
        For a cluster that does not answer.

    Example
    -------
    >>> make_executor("thread", 2).slots
    2
    """
    if executor == "process":
        from nbqueue.executors.process import ProcessExecutor

        return ProcessExecutor(SLOTS if slots is None else slots, **limits)
    if said := [name for name, limit in limits.items() if limit is not None]:
        what = f'executor="{executor}"' if isinstance(executor, str) else "an executor of your own"
        msg = f'{said[0]} is a limit of child processes, which {what} has not; use executor="process"'
        raise InvalidCommand(msg)
    if not isinstance(executor, str):
        return executor
    if executor == "thread":
        from nbqueue.executors.thread import ThreadExecutor

        return ThreadExecutor(SLOTS if slots is None else slots)
    if executor.startswith(_CLUSTERS):
        from nbqueue.executors.dask.executor import DaskExecutor

        return DaskExecutor(executor, slots)
    msg = f'there is no executor {executor!r}; use "thread", "process", or a Dask cluster as in "dask://HOST:8786"'
    raise InvalidCommand(msg)
