"""The stores that are open in this process: those of one queue share one store; knows no job."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Self

from nbqueue.errors import QueueUnavailable
from nbqueue.facade.configuring import DEFAULT_PATH, QueueConfig
from nbqueue.facade.drivers import SERVERS, address_of, open_store
from nbqueue.facade.intake import Live
from nbqueue.secret import load_secret
from nbqueue.store import Store

__all__ = ["Connection"]


class _Shared:
    """A store with those who use it."""

    __slots__ = ("live", "store", "users")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.live = Live(store)
        self.users = 1


#: By what two names of one queue have in common: the file's real path, or what a URL leads to.
_shared: dict[Hashable, _Shared] = {}
#: One opens a queue, the others wait for that.
_doors: dict[Hashable, contextlib.AbstractContextManager[object]] = {}
_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
# What the garbage collector found: it may come at any moment, so it only leaves a note.
_abandoned: deque[Callable[[], None]] = deque()
_lock = threading.RLock()


class Connection:
    """One user's hold on a store; those of one queue in a process share one store, closed with the last of them.

    Parameters
    ----------
    config : QueueConfig
        What to open.
    store : Store, optional
        An open one to take instead; closed with this.
    """

    def __init__(self, config: QueueConfig, store: Store | None = None) -> None:
        key = _key_of(config) if store is None else None
        _sweep()
        #: Whether this made the queue, rather than found it.
        self.created = False
        # It may take a while until one can be had; meanwhile who uses others goes on.
        with _door(key):
            shared = _enter(key)
            if shared is None:
                shared = _Shared(_open(config) if store is None else store)
                self.created = bool(getattr(shared.store, "created", True))
                if key is not None:
                    with _lock:
                        _shared[key] = shared
        with _lock:
            self.store: Store = shared.store
            self.live = shared.live
            self._release = weakref.finalize(self, _abandoned.append, functools.partial(_drop, key, shared))
            self._release.atexit = False
            self._drop = functools.partial(_drop, key, shared)
            _connections.add(self)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._release.alive

    def close(self) -> None:
        """Let go of the store; doing it again does nothing."""
        with _lock:
            is_open = self._release.detach() is not None
            _connections.discard(self)
        if is_open:
            self._drop()
        _sweep()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _key_of(config: QueueConfig) -> Hashable:
    """Give what two names of one queue have in common, None for one in memory, which is like no other."""
    if config.driver in SERVERS:
        return config.driver, address_of(config.driver, os.fspath(config.path)).key
    return config.location()


def _door(key: Hashable) -> contextlib.AbstractContextManager[object]:
    """Give what is held while a queue is opened or closed here; one in memory has nobody to wait for."""
    if key is None:
        return contextlib.nullcontext()
    return _doors.setdefault(key, threading.RLock())


def _enter(key: Hashable) -> _Shared | None:
    """Give the store of a queue that is open here, with one user more; None where it is not. Behind its door."""
    shared = None if key is None else _shared.get(key)
    if shared is None or getattr(shared.store, "broken", False):
        return None
    with _lock:
        shared.users += 1
    return shared


def _open(config: QueueConfig) -> Store:
    if config.driver in SERVERS:
        return open_store(config.driver, os.fspath(config.path))
    path = config.location()
    if path is None:
        from nbqueue.stores.memory import MemoryStore

        return MemoryStore()
    if path.is_dir():
        raise QueueUnavailable(
            f'{path} is a directory; name a file in it, e.g. connect("{path / DEFAULT_PATH}")'
        )
    if not path.parent.is_dir():
        absolute = Path("/") / Path(config.path)
        hint = (
            f"; did you mean {absolute}?"
            if absolute.parent.is_dir()
            else "; make it, or check the working directory"
        )
        raise QueueUnavailable(
            f"the directory {path.parent} of the queue file {path.name} does not exist{hint}"
        )
    from nbqueue.stores.shared import SharedStore

    return SharedStore(path, load_secret)


def _drop(key: Hashable, shared: _Shared) -> None:
    # Closing may take a while as well; who opens this very queue meanwhile waits for it, or it would join itself.
    with _door(key):
        with _lock:
            shared.users -= 1
            if shared.users > 0:
                return
            if key is not None and _shared.get(key) is shared:
                del _shared[key]
        shared.store.close()


def _sweep() -> None:
    """Let go of what the garbage collector found; behind no door, or two threads might wait for each other's."""
    with contextlib.suppress(IndexError):
        while True:
            _abandoned.popleft()()


def _begin_in_fork() -> None:
    """Share nothing with the parent, whose stores stay its own: who connects in a fork joins like anybody else."""
    global _lock  # noqa: PLW0603 - another thread may have held it, and there is no other thread here
    _lock = threading.RLock()
    _shared.clear()
    _doors.clear()
    _abandoned.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_fork)


@atexit.register
def _close_all() -> None:
    """Close what is left at exit; the file is right without it, it only opens faster next time."""
    for connection in list(_connections):
        with contextlib.suppress(Exception):
            connection.close()
    with contextlib.suppress(Exception):
        _sweep()
