"""A queue file that nobody has, opened for reading alone: nothing is recovered, migrated or moved over.

What waits in its journal is shown with it: both are then read through tables in memory.

It is for whoever wants to see a file as it was left. Whoever works on it opens a store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from filelock import FileLock, Timeout

from nbqueue.errors import QueueUnavailable
from nbqueue.stores.inserting import write
from nbqueue.stores.leftover import waiting_in
from nbqueue.stores.opening import cannot_open
from nbqueue.stores.owner import check_path
from nbqueue.stores.reader import run_query
from nbqueue.stores.schema import SCHEMA_VERSION, TABLE_NAMES, TABLES, VIEWS

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from nbqueue.stores.writes import Writes

__all__ = ["Onlooker"]


class Onlooker:
    """A queue file while it is looked at; who wants to open it waits or is refused meanwhile, so be quick.

    Parameters
    ----------
    path : Path
        The file; it has to be there.

    Raises
    ------
    QueueUnavailable
        Where somebody has it, or it is no queue file.
    """

    def __init__(self, path: Path):
        import duckdb

        check_path(path)
        lock_file = path.with_name(path.name + ".lock")
        # No name is left in it: whoever finds it taken tries again.
        self._lock_file = None if lock_file.exists() else lock_file
        self._lock = FileLock(lock_file, mode=0o600, thread_local=False, fallback_to_soft=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise QueueUnavailable(f"{path} is held by another process") from None
        try:
            self._connection = duckdb.connect(
                str(path), read_only=True, config={"enable_external_access": "false"}
            )
            self._connection.execute("SET TimeZone='UTC'")
            #: The version of the file's tables, and the newest that this nbqueue knows.
            self.schema, self.known_schema = self._version(path), SCHEMA_VERSION
            if self.schema == SCHEMA_VERSION and (waiting := waiting_in(self._connection, path)):
                self._connection.close()
                self._connection = _together(path, waiting)
            self._connection.execute("SET lock_configuration=true")
        except duckdb.Error as error:
            self._release()
            raise QueueUnavailable(cannot_open(path, error)) from error
        except BaseException:
            self._release()
            raise

    def _version(self, path: Path) -> int:
        import duckdb

        try:
            row = self._connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        except (duckdb.BinderException, duckdb.CatalogException):
            row = None
        if row is None:
            self._connection.close()
            raise QueueUnavailable(
                f"{path} is a DuckDB database without a queue in it; give the queue a file of its own"
            )
        return int(row[0])

    def query(
        self, sql: str, params: Sequence[object] = (), frames: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """Run one SELECT over the views."""
        with self._connection.cursor() as cursor:
            return run_query(cursor, sql, params, frames or {})

    def close(self) -> None:
        """Let the next one have it."""
        self._connection.close()
        self._release()

    def _release(self) -> None:
        if self._lock_file is not None:
            # Whoever has opened it meanwhile sees that it is gone once he has locked it, and tries again.
            self._lock_file.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _together(path: Path, waiting: Sequence[Writes]) -> duckdb.DuckDBPyConnection:
    """Give the views over a file and what waits in its journal; nothing of the file is copied."""
    import duckdb

    con = duckdb.connect()
    con.execute("SET TimeZone='UTC'")
    quoted = str(path).replace("'", "''")
    con.execute(f"ATTACH '{quoted}' AS file (READ_ONLY)")
    con.execute("SET enable_external_access=false")
    for table in TABLES:
        con.execute(table)
    for writes in waiting:
        write(con, writes)
    for name in TABLE_NAMES:
        con.execute(f"ALTER TABLE {name} RENAME TO waiting_{name}")
        con.execute(f"CREATE VIEW {name} AS SELECT * FROM file.{name} UNION ALL SELECT * FROM waiting_{name}")
    for view in VIEWS:
        con.execute(view)
    return con
