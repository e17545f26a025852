"""What people's SQL runs on: a private DuckDB copy of a queue's history, brought up to date before every query.

It has the tables and views of a queue file, so whatever reads a file reads this, and what it reads costs the server
nothing. It is made when somebody first asks. No row is missed, and none comes twice, however late it is committed: see
``reading.Mark``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from nbqueue.errors import QueueError, QueueUnavailable
from nbqueue.patience import within
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.postgres import loading, reading
from nbqueue.stores.postgres.folder import TemporaryFolder
from nbqueue.stores.postgres.link import PATIENCE
from nbqueue.stores.postgres.reading import Mark
from nbqueue.stores.reader import first_line

if TYPE_CHECKING:
    import pandas as pd

    from nbqueue.stores.postgres.link import Link, Tx

__all__ = ["FEW", "GONE_KEPT", "Mirror"]

#: So many seconds the server remembers what was forgotten. A mirror that slept for half of that compares all there is.
GONE_KEPT = 86_400.0
#: A history of so many rows is loaded as if all of it were new.
FEW = 20_000
#: After so many rows the log is moved over, which frees the memory and the room that they take there.
_CHECKED = 200_000
_PREFIX = "nbqueue-mirror-"
#: However long somebody waited for others, the server is tried for so many seconds, or what patience there is.
_TRIED_LEAST = 1.0


class _RestoredError(Exception):
    """Rows were written by transactions that this server has not had yet."""


class _Copy:
    """The DuckDB of a mirror, its folder, and up to where it is."""

    __slots__ = ("at", "connection", "folder", "last", "ledger", "mark", "unchecked")

    def __init__(self, tx: Tx, name: str):
        self.folder = TemporaryFolder(_PREFIX)
        #: When it was brought up to date, by the server's clock; and the ``seq`` of its last row.
        self.at, self.last = tx.now, 0
        #: Rows that came or went since what is in DuckDB's log was last moved over.
        self.unchecked = 0
        try:
            path = self.folder.path / "mirror.duckdb"
            self.mark = self._loaded(tx, path, name)
            # What people's queries run on never could read a file.
            self.connection = _connect(path, external=False)
            self.ledger = Ledger(self.connection, name)
            self.ledger.prepare()
            found = self.connection.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchall()
            self.last = found[0][0]
        except BaseException:
            self.folder.close()
            raise

    def _loaded(self, tx: Tx, path: Path, name: str) -> Mark:
        """Load a long history; of a short one, all is new."""
        mark, horizon = reading.read_mark(tx.cursor)
        if mark.last > horizon:
            raise _RestoredError
        if reading.is_small(tx.cursor, FEW):
            return mark._replace(last=0, open=())
        draft = _connect(path, external=True)
        try:
            Ledger(draft, name).prepare()
            loading.load_all(tx.cursor, draft, self.folder.path)
        finally:
            draft.close()
        return mark

    def close(self) -> None:
        """Let go of everything."""
        self.ledger.close()
        self.folder.close()


def _connect(path: Path, *, external: bool) -> duckdb.DuckDBPyConnection:
    # It is made anew after every death, so nothing waits for a disk.
    return duckdb.connect(str(path), config={"enable_external_access": external, "fsync_mode": "NONE"})


class Mirror:
    """A copy of a queue's history on this machine; may be asked from any thread.

    Parameters
    ----------
    link : Link
        To the server.
    """

    def __init__(self, link: Link):
        self._link = link
        self.name = link.name
        self._turn = threading.Condition()
        self._busy = self._closed = False
        #: Why there is no copy any more; "" while all is well.
        self._trouble = ""
        #: How many times it was begun to be brought up to date, and the last that was done.
        self._begun = self._done = 0
        self._copy: _Copy | None = None

    def query(self, sql: str, params: Sequence[object], frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """Run one read-only SELECT over the views, on all that was committed before this call."""
        ledger = self._brought_up()
        try:
            return ledger.query(sql, params, frames)
        except (duckdb.FatalException, duckdb.InternalException) as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Remove the copy; doing it again does nothing. Who reads is broken off."""
        with self._turn:
            self._closed = True
            # Whoever brings it up to date right now clears up.
            copy, self._copy = (None, self._copy) if self._busy else (self._copy, None)
        if copy is not None:
            copy.close()

    def _brought_up(self) -> Ledger:
        """Have it brought up to date by now: by this thread, or by one that begins after this call."""
        since = time.monotonic()
        with self._turn:
            needed = self._begun + 1
            while self._busy and self._done < needed:
                self._turn.wait()
            if self._closed:
                raise QueueUnavailable(f"{self.name} was closed; open it again with nbqueue.connect")
            if self._trouble:
                raise QueueUnavailable(self._trouble)
            if self._done >= needed and self._copy is not None:
                return self._copy.ledger
            self._busy = True
            self._begun += 1
            number = self._begun
        try:
            # Whoever waited for others that tried in vain has no other half a minute to wait.
            with within(max(_TRIED_LEAST, PATIENCE - (time.monotonic() - since))):
                copy = self._synced()
            self._done = number
            return copy.ledger
        finally:
            with self._turn:
                self._busy = False
                self._turn.notify_all()
                left = None
                if self._closed:
                    left, self._copy = self._copy, None
            if left is not None:
                left.close()

    # -- by one thread at a time

    def _synced(self) -> _Copy:
        """Bring the copy up to date, or make it."""
        try:
            try:
                self._sync()
            except _RestoredError:
                self._link.run(_settle, pipelined=False)
                self._sync()
            copy = self._copy
            assert copy is not None
            if copy.unchecked > _CHECKED:
                copy.ledger.checkpoint()
                copy.unchecked = 0
        except (duckdb.FatalException, duckdb.InternalException) as error:
            raise self._broken(error) from error
        except (duckdb.Error, OSError) as error:
            raise QueueError(
                f"what {self.name} holds cannot be copied to this machine for reading: {first_line(error)}; its copy is"
                " among the temporary files (set TMPDIR to a folder with more room)"
            ) from error
        return copy

    def _sync(self) -> None:
        # COPY travels alone.
        self._link.run(self._read, write=False, pipelined=self._copy is not None)

    def _read(self, tx: Tx) -> None:
        """Read what is new within a transaction that sees one snapshot; it may be run again, and goes on then."""
        if self._copy is not None:
            self._add_news(tx, self._copy, is_new=False)
            return
        copy = _Copy(tx, self.name)
        try:
            self._add_news(tx, copy, is_new=True)
        except BaseException:
            copy.close()
            raise
        self._copy = copy

    def _add_news(self, tx: Tx, copy: _Copy, *, is_new: bool) -> None:
        since = copy.mark
        news = reading.read_news(tx.cursor, since)
        if not is_new and (
            news.mark.tables != since.tables or max(since.last, news.mark.last) > news.horizon
        ):
            raise QueueUnavailable(
                f"{self.name} is not what it was when this process opened it: it was made anew, or its server went back"
                " to an earlier state (a backup, a standby); restart the kernel"
            )
        copy.last = loading.add(copy.connection, news, copy.last)
        copy.unchecked += len(news.rows) + sum(len(runs) for runs, *_ in news.gone)
        if tx.now - copy.at > GONE_KEPT / 2:
            loading.drop_others(tx.cursor, copy.connection)
        copy.mark, copy.at = news.mark, tx.now

    def _broken(self, error: duckdb.Error) -> QueueUnavailable:
        """Give up for good: whoever follows what is new could not tell another copy's numbers from this one's."""
        self._trouble = (
            f"the copy of {self.name} on this machine broke: {first_line(error)}; no job is harmed; close the queue"
            " and connect again, or restart the kernel"
        )
        return QueueUnavailable(self._trouble)


def _settle(tx: Tx) -> None:
    """Let this transaction have written what was restored from another server: its numbers mean nothing here."""
    for table in reading.MARKED:
        tx.cursor.execute(f"UPDATE {table} SET xid = DEFAULT WHERE xid > pg_current_xact_id()")
