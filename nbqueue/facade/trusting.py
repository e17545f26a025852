"""Trusts what is in a queue file from elsewhere, or from before the secret changed; decodes nothing of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nbqueue.errors import NotSupported
from nbqueue.facade.configuring import QueueConfig
from nbqueue.facade.drivers import SERVERS
from nbqueue.facade.opened import Target
from nbqueue.secret import load_secret
from nbqueue.stores.foreign import Foreign

if TYPE_CHECKING:
    from nbqueue.stores.trusting import ForeignFile

__all__ = ["Foreign", "foreign_in", "trust"]


@contextmanager
def foreign_in(target: Target = None) -> Iterator[ForeignFile]:
    """Have a queue file for oneself, to look at what is foreign in it and sign that.

    Parameters
    ----------
    target : str, Path or QueueConfig, optional
        The file.

    Raises
    ------
    QueueUnavailable
        If it is open in a process, this one or another.
    """
    from nbqueue.stores.trusting import ForeignFile

    config = QueueConfig.read(target)
    path = config.location()
    if config.driver in SERVERS:
        title = SERVERS[config.driver].title
        raise NotSupported(
            f"what is in a {title} queue is trusted by the secret it was signed with: give every process that uses it"
            " the same one, in NBQUEUE_SECRET; only a file can be signed anew"
        )
    if path is None:
        raise NotSupported("a queue in memory holds only what this process put there; name a file")
    with ForeignFile(path, load_secret()) as file:
        yield file


def trust(target: Target = None) -> Foreign:
    """Say that you trust what is in a queue file: it is signed as yours, and jobs that were held run again.

    Whoever wrote it can then run code as you. Look at what it is first, with ``nbqueue trust FILE`` in a terminal,
    which asks. Nothing of it is unpickled here.

    Parameters
    ----------
    target : str, Path or QueueConfig, optional
        The file; it must not be open.

    Returns
    -------
    Foreign
        What was signed: ``jobs``, ``code``, ``displays``, and how many jobs were ``held``.

    Raises
    ------
    QueueUnavailable
        If it is open in a process, which the sentence names.
    """
    with foreign_in(target) as file:
        file.sign(now=time.time())
        return file.foreign
