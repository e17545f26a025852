"""From what a user names to an open store: the configuration, and the stores that a process shares; knows no job."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from nbqueue.durations import duration
from nbqueue.errors import InvalidCommand, NotSupported, QueueUnavailable
from nbqueue.facade.intake import Live
from nbqueue.jobs import check_queue
from nbqueue.secret import load_secret
from nbqueue.store import Store

__all__ = ["MEMORY", "Connection", "QueueConfig", "check_keep"]

MEMORY = ":memory:"
_DEFAULT_PATH = "nbqueue.duckdb"
_SCHEMES = {"duckdb": "duckdb", "postgres": "postgresql", "postgresql": "postgresql", "sqs": "sqs"}
_LATER = {
    driver: f"{name} queues are not in this version yet; use a DuckDB file"
    for driver, name in (("postgresql", "PostgreSQL"), ("sqs", "SQS"))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """Where a queue is and what it takes for granted.

    Parameters
    ----------
    driver : str
        ``"duckdb"``, or ``"memory"`` for one that ends with the process.
    path : str or Path
        The file; relative to the working directory, ``~`` is the home directory.
    default_queue : str
        The queue of a job that names none.
    retention : str, float or timedelta, optional
        How long the history of a job that has ended is kept, ``"30d"``; None: until it is pruned.
    keep : int, optional
        Of how many jobs that have ended the history is kept, the latest; None: of all. With ``retention`` both hold.

    Raises
    ------
    InvalidCommand, QueueUnavailable, NotSupported
        Where one of them cannot be; the sentence names it.

    Example
    -------
    >>> QueueConfig(path="jobs.duckdb").default_queue
    'default'
    """

    driver: str = "duckdb"
    path: str | Path = _DEFAULT_PATH
    default_queue: str = "default"
    retention: str | float | timedelta | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        check_queue(self.default_queue)
        if self.retention is not None:
            duration(self.retention, what="retention", least=1.0)
        if self.keep is not None:
            check_keep(self.keep)
        if self.driver in _LATER:
            raise NotSupported(_LATER[self.driver])
        if self.driver not in ("duckdb", "memory"):
            raise QueueUnavailable(
                f'driver {self.driver!r} is unknown; use "duckdb" (a file) or "memory" (until the process ends)'
            )
        if not isinstance(self.path, str | os.PathLike):
            raise QueueUnavailable(
                f"path must be a string or a Path, not {type(self.path).__name__} {self.path!r}"
            )
        if not os.fspath(self.path):
            raise QueueUnavailable(f'path is empty; name a file such as "{_DEFAULT_PATH}", or ":memory:"')

    @classmethod
    def read(cls, target: str | os.PathLike[str] | QueueConfig | None) -> QueueConfig:
        """Read what ``connect`` takes: nothing (``$NBQUEUE_URL``, else ./nbqueue.duckdb), a path, a URL or a config.

        Example
        -------
        >>> QueueConfig.read("duckdb:///jobs.duckdb").path, QueueConfig.read(":memory:").driver
        ('jobs.duckdb', 'memory')
        """
        if isinstance(target, QueueConfig):
            return target
        if target is None or target == "":
            target = os.environ.get("NBQUEUE_URL") or _DEFAULT_PATH
        if not isinstance(target, str | os.PathLike):
            raise QueueUnavailable(
                f"connect takes a path such as 'jobs.duckdb', a URL or a QueueConfig, not {type(target).__name__}"
            )
        text = os.fspath(target)
        scheme, found, rest = text.partition("://")
        if not found:
            return cls(driver="memory" if text == MEMORY else "duckdb", path=text)
        driver = _SCHEMES.get(scheme.lower())
        if driver is None:
            raise QueueUnavailable(
                f'"{scheme}://" is no queue; connect to a path, "duckdb:///jobs.duckdb" or ":memory:"'
            )
        # As everywhere in Python's databases: three slashes and a relative path, or four and an absolute one.
        path = rest.removeprefix("/")
        if driver == "duckdb" and not path:
            raise QueueUnavailable(f'{text!r} names no file; write e.g. "duckdb:///jobs.duckdb"')
        return cls(driver="memory" if path == MEMORY else driver, path=path)

    def location(self) -> Path | None:
        """Where the file really is, links followed; None for a queue in memory."""
        if self.driver == "memory" or os.fspath(self.path) == MEMORY:
            return None
        try:
            return Path(self.path).expanduser().resolve()
        except (OSError, RuntimeError) as error:
            raise QueueUnavailable(
                f"the path {os.fspath(self.path)!r} cannot be followed: {error}"
            ) from error


def check_keep(keep: object) -> int:
    """Give a number of jobs to keep, or refuse it."""
    if isinstance(keep, bool) or not isinstance(keep, int) or not 0 <= keep < 1 << 53:
        raise InvalidCommand(f"keep must be a whole number of jobs from 0 up, not {keep!r}")
    return keep


class _Shared:
    """A store with those who use it."""

    __slots__ = ("live", "store", "users")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.live = Live(store)
        self.users = 1


_shared: dict[Path, _Shared] = {}
#: One opens a file, the others wait for that.
_doors: dict[Path, contextlib.AbstractContextManager[object]] = {}
_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
# What the garbage collector found: it may come at any moment, so it only leaves a note.
_abandoned: deque[Callable[[], None]] = deque()
_lock = threading.RLock()


class Connection:
    """One user's hold on a store; those of one file in a process share one store, closed with the last of them.

    Parameters
    ----------
    config : QueueConfig
        What to open.
    store : Store, optional
        An open one to take instead; closed with this.
    """

    def __init__(self, config: QueueConfig, store: Store | None = None) -> None:
        path = config.location() if store is None else None
        _sweep()
        #: Whether this made the file, rather than found it.
        self.created = False
        # It may take a while until a file can be had; meanwhile who uses other files goes on.
        with _door(path):
            shared = _enter(path)
            if shared is None:
                shared = _Shared(_open(config, path) if store is None else store)
                self.created = bool(getattr(shared.store, "created", True))
                if path:
                    with _lock:
                        _shared[path] = shared
        with _lock:
            self.store: Store = shared.store
            self.live = shared.live
            self._release = weakref.finalize(self, _abandoned.append, functools.partial(_drop, path, shared))
            self._release.atexit = False
            self._drop = functools.partial(_drop, path, shared)
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


def _door(path: Path | None) -> contextlib.AbstractContextManager[object]:
    """Give what is held while a file is opened or closed here; one of memory has nobody to wait for."""
    if path is None:
        return contextlib.nullcontext()
    return _doors.setdefault(path, threading.RLock())


def _enter(path: Path | None) -> _Shared | None:
    """Give the store of a file that is open here, with one user more; None where it is not. Behind its door."""
    shared = _shared.get(path) if path else None
    if shared is None or getattr(shared.store, "broken", False):
        return None
    with _lock:
        shared.users += 1
    return shared


def _open(config: QueueConfig, path: Path | None) -> Store:
    if path is None:
        from nbqueue.stores.memory import MemoryStore

        return MemoryStore()
    if path.is_dir():
        raise QueueUnavailable(
            f'{path} is a directory; name a file in it, e.g. connect("{path / _DEFAULT_PATH}")'
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


def _drop(path: Path | None, shared: _Shared) -> None:
    # Closing may take a while as well; who opens this very file meanwhile waits for it, or it would join itself.
    with _door(path):
        with _lock:
            shared.users -= 1
            if shared.users > 0:
                return
            if path and _shared.get(path) is shared:
                del _shared[path]
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
