"""A process that holds a queue file for others and does nothing else; knows queues only from the facade."""

from __future__ import annotations

import logging
import signal
import time
from queue import Empty

import click

from nbqueue.cli.shift import Signals, say
from nbqueue.errors import NbqueueError
from nbqueue.facade.drivers import SERVERS
from nbqueue.facade.manager import QueueManager

__all__ = ["serve"]

#: So often it looks whether there is still something to hold, seconds.
_GLANCE = 1.0


def serve(queues: QueueManager, signals: Signals, *, wait: bool) -> None:
    """Hold a queue file until SIGTERM or Ctrl-C, and say who joins and who leaves.

    Parameters
    ----------
    queues : QueueManager
        The queue, opened or joined.
    signals : Signals
        Tells it to stop.
    wait : bool
        Where another process holds it: wait until that goes, and be there to take over.

    Raises
    ------
    click.ClickException
        Where another process holds it, and nobody said to wait; and once the file was deleted or broke.
    """
    if queues.config.driver in SERVERS:
        raise click.ClickException(
            f"{queues.name} is no file, and nobody has to hold it for others: every process connects to it by itself"
        )
    owner = queues.owner
    if not owner.here and not wait:
        raise click.ClickException(
            f"{owner} holds it, and serves it to others already; stop that process first, or wait for it with --wait"
        )
    log, logger = _SharingLog(), logging.getLogger("nbqueue.sharing")
    level = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    try:
        signals.listen()
        doing = "Serves it to the processes of this user" if owner.here else "Waits for it"
        say(f"{doing} until Ctrl-C; whoever uses it then goes on without this process.")
        number = _await_signal(queues, signals)
    finally:
        logger.setLevel(level)
        logger.removeHandler(log)
    name = "Ctrl-C" if number in (None, signal.SIGINT) else signal.Signals(number).name
    say(f"{name}: lets go of it.")


def _await_signal(queues: QueueManager, signals: Signals) -> int | None:
    while True:
        try:
            return signals.happened.get(timeout=_GLANCE)
        except Empty:
            pass
        if getattr(queues.store, "broken", False):
            try:
                queues.list()
            except NbqueueError as error:
                raise click.ClickException(str(error)) from error


class _SharingLog(logging.Handler):
    """Shows who comes and goes."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{time.strftime('%H:%M:%S')}  {self.format(record)}")
