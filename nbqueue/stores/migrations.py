"""From the tables of an older nbqueue to those of this one; each step holds what one version brought, and stays.

A step is never changed once a version with it is out: files that went through it exist. A new one goes at the end of
``STEPS``, and ``schema.TABLES`` shows what a file looks like after all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbqueue.errors import QueueUnavailable
from nbqueue.stores.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    import duckdb

__all__ = ["STEPS", "migrate"]

#: By the version that they lead to, in order.
STEPS: dict[int, tuple[str, ...]] = {
    2: (
        # The last files of version 1 have these already.
        (
            "CREATE TABLE IF NOT EXISTS batches (batch_id UUID NOT NULL, key VARCHAR NOT NULL,"
            " command VARCHAR NOT NULL, origin VARCHAR NOT NULL, head VARCHAR NOT NULL, created_us BIGINT NOT NULL,"
            " mapped_us BIGINT NOT NULL, runs BIGINT[][] NOT NULL)"
        ),
        # How long a worker may be silent, which the next owner of the file must know.
        "ALTER TABLE workers ADD COLUMN lease DOUBLE",
        # What was handed in lately is kept, though no job refers to it yet.
        "ALTER TABLE code ADD COLUMN put_us BIGINT",
    ),
    # What is committed may be in a journal beside the file, which an older nbqueue would not read.
    3: ("INSERT INTO meta VALUES ('folded', 0), ('journal', 0), ('journal_before', 0)",),
}


def migrate(con: duckdb.DuckDBPyConnection, name: str, version: int) -> None:
    """Bring the tables of a version up to this one's; the caller has begun a transaction, and ends it.

    Parameters
    ----------
    con : duckdb.DuckDBPyConnection
        In a transaction: a step that fails leaves the file as it was.
    name : str
        The file, for people.
    version : int
        What its tables are of.

    Raises
    ------
    QueueUnavailable
        If a newer nbqueue wrote them.
    """
    if version > SCHEMA_VERSION:
        msg = (
            f"{name} was written by a newer nbqueue (schema {version}, this one knows {SCHEMA_VERSION}); upgrade with:"
            " pip install -U nbqueue"
        )
        raise QueueUnavailable(msg)
    for step in range(version + 1, SCHEMA_VERSION + 1):
        for statement in STEPS[step]:
            con.execute(statement)
    con.execute("UPDATE meta SET value = ? WHERE name = 'schema'", [SCHEMA_VERSION])
    # A view remembers what the tables under it were like: whoever prepares the file makes them all anew.
    con.execute("UPDATE meta SET value = 0 WHERE name = 'views'")
