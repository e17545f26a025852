"""The executors that come with nbqueue, by name; each is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbqueue.errors import InvalidCommand, NotSupported

if TYPE_CHECKING:
    from nbqueue.executor import Executor

__all__ = ["make_executor"]


def make_executor(executor: str | Executor, slots: int) -> Executor:
    """Give the executor of a name, or the one given.

    Parameters
    ----------
    executor : str or Executor
        ``"thread"``, or one of your own.
    slots : int
        How many jobs run at once; an executor of your own knows that itself.

    Raises
    ------
    NotSupported
        For one that this version has not.
    InvalidCommand
        For a name that means nothing.

    Example
    -------
    >>> make_executor("thread", 2).slots
    2
    """
    if not isinstance(executor, str):
        return executor
    if executor == "thread":
        from nbqueue.executors.thread import ThreadExecutor

        return ThreadExecutor(slots)
    if executor == "process" or executor.startswith("dask://"):
        msg = f'the {executor.partition(":")[0]} executor is not in this version yet; use executor="thread"'
        raise NotSupported(msg)
    msg = f'there is no executor {executor!r}; use "thread"'
    raise InvalidCommand(msg)
