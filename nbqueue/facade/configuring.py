"""What a user names a queue by, read and checked: ``QueueConfig``; opens nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from nbqueue.durations import duration
from nbqueue.errors import InvalidCommand, QueueUnavailable
from nbqueue.facade.drivers import SCHEMES, SERVERS, is_there, veiled
from nbqueue.jobs import check_queue

__all__ = ["DEFAULT_PATH", "MEMORY", "QueueConfig", "check_keep"]

MEMORY = ":memory:"
DEFAULT_PATH = "nbqueue.duckdb"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """Where a queue is and what it takes for granted.

    Parameters
    ----------
    driver : str
        ``"duckdb"`` for a file, ``"memory"`` for one that ends with the process, ``"postgresql"`` or ``"sqs"``.
    path : str or Path
        The file, relative to the working directory, ``~`` is the home directory; or the URL, with ``postgresql`` and
        ``sqs``.
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
    path: str | Path = DEFAULT_PATH
    default_queue: str = "default"
    retention: str | float | timedelta | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        check_queue(self.default_queue)
        if self.retention is not None:
            duration(self.retention, what="retention", least=1.0)
        if self.keep is not None:
            check_keep(self.keep)
        if self.driver not in ("duckdb", "memory", *SERVERS):
            raise QueueUnavailable(
                f'driver {self.driver!r} is unknown; use "duckdb" (a file), "memory" (until the process ends),'
                ' "postgresql" or "sqs"'
            )
        if not isinstance(self.path, str | os.PathLike):
            raise QueueUnavailable(
                f"path must be a string or a Path, not {type(self.path).__name__} {self.path!r}"
            )
        if not os.fspath(self.path):
            raise QueueUnavailable(f'path is empty; name a file such as "{DEFAULT_PATH}", or ":memory:"')
        meant = _driver_of(os.fspath(self.path))
        if self.driver in SERVERS and meant != self.driver:
            raise QueueUnavailable(
                f"driver {self.driver!r} takes a URL for its path, such as {SERVERS[self.driver].example!r}, not"
                f" {veiled(os.fspath(self.path))!r}"
            )
        if self.driver == "duckdb" and meant in SERVERS:
            raise QueueUnavailable(
                f"the path {veiled(os.fspath(self.path))!r} is no file; give the URL to connect, or say"
                f" driver={meant!r} as well"
            )

    def __repr__(self) -> str:
        # Of a URL the password stays out.
        path = veiled(os.fspath(self.path)) if self.driver in SERVERS else self.path
        return (
            f"QueueConfig(driver={self.driver!r}, path={path!r}, default_queue={self.default_queue!r},"
            f" retention={self.retention!r}, keep={self.keep!r})"
        )

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
            target = os.environ.get("NBQUEUE_URL") or DEFAULT_PATH
        if not isinstance(target, str | os.PathLike):
            raise QueueUnavailable(
                f"connect takes a path such as 'jobs.duckdb', a URL or a QueueConfig, not {type(target).__name__}"
            )
        text = os.fspath(target)
        scheme, found, rest = text.partition("://")
        if not found:
            return cls(driver="memory" if text == MEMORY else "duckdb", path=text)
        driver = SCHEMES.get(scheme.lower())
        if driver is None:
            raise QueueUnavailable(
                f'"{scheme}://" is no queue; connect to a path, "duckdb:///jobs.duckdb", ":memory:",'
                ' "postgresql://…" or "sqs://…"'
            )
        if driver in SERVERS:
            return cls(driver=driver, path=text)
        # As everywhere in Python's databases: three slashes and a relative path, or four and an absolute one.
        path = rest.removeprefix("/")
        if driver == "duckdb" and not path:
            raise QueueUnavailable(f'{text!r} names no file; write e.g. "duckdb:///jobs.duckdb"')
        return cls(driver="memory" if path == MEMORY else driver, path=path)

    def location(self) -> Path | None:
        """Where the file really is, links followed; None for a queue in memory or on a server."""
        if self.driver != "duckdb" or os.fspath(self.path) == MEMORY:
            return None
        try:
            return Path(self.path).expanduser().resolve()
        except (OSError, RuntimeError) as error:
            raise QueueUnavailable(
                f"the path {os.fspath(self.path)!r} cannot be followed: {error}"
            ) from error

    def is_there(self) -> bool:
        """Whether opening it makes nothing, as far as that can be told: a file whose folder is missing is no matter."""
        if self.driver in SERVERS:
            return is_there(self.driver, os.fspath(self.path))
        path = self.location()
        return path is None or path.exists() or not path.parent.is_dir()

    @property
    def shown(self) -> str:
        """Where it is, for people: the file, or the URL without its password."""
        return veiled(os.fspath(self.path)) if self.driver in SERVERS else f"file {self.location()}"


def _driver_of(text: str) -> str | None:
    """Give the driver that a URL names, None for what is no URL of a queue."""
    scheme, found, _ = text.partition("://")
    return SCHEMES.get(scheme.lower()) if found else None


def check_keep(keep: object) -> int:
    """Give a number of jobs to keep, or refuse it."""
    if isinstance(keep, bool) or not isinstance(keep, int) or not 0 <= keep < 1 << 53:
        raise InvalidCommand(f"keep must be a whole number of jobs from 0 up, not {keep!r}")
    return keep
