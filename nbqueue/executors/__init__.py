"""The executors that come with nbqueue, by name; each is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbqueue.errors import InvalidCommand, NotSupported

if TYPE_CHECKING:
    from nbqueue.executor import Executor

__all__ = ["make_executor"]


def make_executor(executor: str | Executor, slots: int, **limits: Any) -> Executor:
    """Give the executor of a name, or the one given.

    Parameters
    ----------
    executor : str or Executor
        ``"thread"``, ``"process"``, or one of your own.
    slots : int
        How many jobs run at once; an executor of your own knows that itself.
    **limits
        Of ``"process"``: ``max_jobs_per_child``, ``memory_limit``; None is no limit.

    Raises
    ------
    NotSupported
        For one that this version has not.
    InvalidCommand
        For a name that means nothing, and for limits of what has none.

    Example
    -------
    >>> make_executor("thread", 2).slots
    2
    """
    if executor == "process":
        from nbqueue.executors.process import ProcessExecutor

        return ProcessExecutor(slots, **limits)
    if said := [name for name, limit in limits.items() if limit is not None]:
        what = f'executor="{executor}"' if isinstance(executor, str) else "an executor of your own"
        msg = f'{said[0]} is a limit of child processes, which {what} has not; use executor="process"'
        raise InvalidCommand(msg)
    if not isinstance(executor, str):
        return executor
    if executor == "thread":
        from nbqueue.executors.thread import ThreadExecutor

        return ThreadExecutor(slots)
    if executor.startswith("dask://"):
        msg = 'the dask executor is not in this version yet; use executor="process"'
        raise NotSupported(msg)
    msg = f'there is no executor {executor!r}; use "thread" or "process"'
    raise InvalidCommand(msg)
