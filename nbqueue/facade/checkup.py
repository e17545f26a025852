"""``doctor``: looks at a set-up and says in sentences what is right and what is wrong; changes and prints nothing."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nbqueue import patience
from nbqueue.durations import duration
from nbqueue.errors import NbqueueError
from nbqueue.facade.checks import postgres, sqs, within
from nbqueue.facade.checks.beside import Lock, beside, lock_of, locking, place
from nbqueue.facade.checks.finding import Finding, fine, note, of_seconds, wrong
from nbqueue.facade.checks.host import host
from nbqueue.facade.configuring import QueueConfig
from nbqueue.facade.connecting import Connection
from nbqueue.facade.drivers import SERVERS, needing
from nbqueue.stores.onlooker import Onlooker

if TYPE_CHECKING:
    from nbqueue.facade.opened import Target
    from nbqueue.store import Store

__all__ = ["Finding", "checkup", "look_at"]

#: What a server does not answer in so many seconds, a question, is wrong with it.
_PATIENCE = 5.0


def checkup(target: Target = None, *, clock: Callable[[], float] = time.time) -> list[Finding]:
    """Look at a queue, whoever has it, and at what it rests on; a file that is not there is not made.

    Parameters
    ----------
    target : str, Path or QueueConfig, optional
        As of ``connect``.
    clock : callable, optional
        Seconds since the epoch.

    Returns
    -------
    list of Finding

    Raises
    ------
    QueueUnavailable
        If that names no queue at all.
    """
    config = QueueConfig.read(target)
    if config.driver in SERVERS:
        return [*_on_server(config, None, clock)]
    path = config.location()
    found = list(host())
    if path is None:
        return [*found, note("file", "a queue in memory is seen by its own process alone: queues.doctor()")]
    lock = lock_of(path)
    found += place(path, held=lock.held is not False)
    if any(finding.what == "file" and finding.ok is False for finding in found):
        return found
    found += locking(path, lock)
    if path.exists():
        found += beside(path, lock)
        found += _through_owner(config, path, lock, clock) if lock.held else _alone(path, clock)
    return found


def look_at(
    store: Store, path: Path | None, config: QueueConfig, clock: Callable[[], float], drift: float
) -> Iterator[Finding]:
    """Look at a queue that is open in this process, and at what it rests on.

    Parameters
    ----------
    store : Store
        The queue.
    path : Path, optional
        Its file.
    config : QueueConfig
        What it was opened with.
    clock : callable
        Seconds since the epoch.
    drift : float
        By how much the clock went ahead of one that cannot be set, since it was opened.
    """
    if config.driver in SERVERS:
        yield from _on_server(config, store, clock)
        return
    yield from host()
    if path is not None:
        lock = lock_of(path)
        yield from place(path, held=True)
        yield fine("lock", f"{path.name} is held by {lock.who}")
        yield from locking(path, lock)
        yield from beside(path, lock)
    yield from within.drifted(drift)
    yield from _inside(store, path, clock(), _retention(config))


def _on_server(config: QueueConfig, store: Store | None, clock: Callable[[], float]) -> Iterator[Finding]:
    """Look at a server first, and then at what is in the queue, if there is one that can be opened as it is."""
    server, url = SERVERS[config.driver], os.fspath(config.path)
    yield from host(server.package)
    try:
        with needing(server):
            looked = postgres.look_at(url, clock) if config.driver == "postgresql" else sqs.look_at(url)
        yield from looked.findings
        # What this process knows of SQS it knows by itself.
        if not looked.has_queue and (store is None or config.driver == "postgresql"):
            return
        with Connection(config) if store is None else contextlib.nullcontext() as connection:
            opened = store if connection is None else connection.store
            assert opened is not None
            with patience.within(_PATIENCE):
                found = [*_within(opened, None, clock(), _retention(config))]
        yield from found
    except NbqueueError as error:
        yield wrong("server", str(error))


def _through_owner(
    config: QueueConfig, path: Path, lock: Lock, clock: Callable[[], float]
) -> Iterator[Finding]:
    try:
        with Connection(config) as connection:
            yield fine("lock", f"{path.name} is held by {lock.who}, which serves it to others")
            yield from _inside(connection.store, path, clock())
    except NbqueueError as error:
        yield wrong("lock", str(error))


def _alone(path: Path, clock: Callable[[], float]) -> Iterator[Finding]:
    """Look at a file that nobody has, as it was left."""
    try:
        with Onlooker(path) as look:
            if look.schema > look.known_schema:
                yield wrong(
                    "versions",
                    f"{path} was written by a newer nbqueue (schema {look.schema}, this one knows {look.known_schema});"
                    " upgrade with: pip install -U nbqueue",
                )
                return
            if look.schema < look.known_schema:
                yield note(
                    "versions",
                    f"{path.name} was written by an older nbqueue (schema {look.schema}); whoever opens it next brings"
                    f" it to schema {look.known_schema}",
                )
            now = clock()
            yield from within.clock(look, now)
            yield from within.waiting(look, None)
            yield from within.crashed(look)
            yield from within.ages(look, None, now, path)
    except NbqueueError as error:
        yield wrong("file", str(error))


def _inside(store: Store, path: Path | None, now: float, retention: str = "") -> Iterator[Finding]:
    yield from within.clock(store, now)
    yield from _within(store, path, now, retention)


def _within(store: Store, path: Path | None, now: float, retention: str) -> Iterator[Finding]:
    yield from within.waiting(store, store)
    yield from within.workers(store, store, now)
    yield from within.crashed(store)
    yield from within.ages(store, store, now, path, retention)


def _retention(config: QueueConfig) -> str:
    said = []
    if config.retention is not None:
        said.append(f"they are kept for {of_seconds(duration(config.retention, what='retention'))}")
    if config.keep is not None:
        said.append(f"the latest {config.keep:,} are kept")
    return ", and ".join(said)
