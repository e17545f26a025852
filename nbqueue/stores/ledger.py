"""The ledger in DuckDB: appends what an index wrote, and gives it back after a restart; knows no lock and no thread.

One thread at a time may call what writes. ``query`` may be called from any thread: it has a cursor of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast
from uuid import UUID

import duckdb

from nbqueue.errors import QueueError, QueueUnavailable
from nbqueue.jobs import BatchRecord, State
from nbqueue.store import Selection
from nbqueue.stores import heads, pruning, tables
from nbqueue.stores.batching import RowJob
from nbqueue.stores.index import Index
from nbqueue.stores.inserting import INSERT_ROWS, insert_few, is_much, write
from nbqueue.stores.journal import Journal, file_mode, journal_path
from nbqueue.stores.leftover import left_in
from nbqueue.stores.live import LiveJob, Numbers, PendingRow, micros
from nbqueue.stores.loading import pending_of
from nbqueue.stores.pruning import Gone, Pruning
from nbqueue.stores.reader import first_line, run_own, run_query
from nbqueue.stores.recall import closings_of, jobs_of, known_of, knows_between, lines_of
from nbqueue.stores.repeats import Closing, Line
from nbqueue.stores.restoring import Recovered, restore
from nbqueue.stores.selecting import conditions
from nbqueue.stores.tables import transaction
from nbqueue.stores.writes import Writes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FATAL", "Ledger"]

#: After one of these DuckDB does nothing more with a file until it is opened again.
FATAL = (duckdb.FatalException, duckdb.InternalException)
#: So many rows, or bytes of the journal, are folded into the queue file at the latest.
FOLD_ROWS = 10_000
FOLD_SIZE = 4 << 20
#: Readers are told to break off when a ledger closes, and have so many seconds to do it.
READERS_PATIENCE = 5.0
#: A checkpoint waits so long for readers; one that reads for longer keeps some room from being used again.
READERS_PAUSE = 0.2


class _Waiting(NamedTuple):
    """A commit that is in the journal, and not in the queue file."""

    number: int
    writes: Writes
    #: Of its rows; and of what is alike.
    rows: str
    alike: list[str]

    @classmethod
    def of(cls, number: int, writes: Writes, text: str) -> _Waiting:
        """Note what was written under a number, and its text."""
        rows, *rest = text.split("\n")
        return cls(number, writes, rows, rest[1:])


class _Closed:
    """Takes the place of a connection that was closed."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> NoReturn:
        msg = f"{self._name} was closed; open it again with nbqueue.connect"
        raise QueueUnavailable(msg)


class Ledger:
    """A connection to the tables and views of one queue."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, name: str):
        self._connection = connection
        self._closed = False
        #: What is being read from; changes under ``_reading``.
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        self._reading = threading.Condition()
        #: Nobody begins to read.
        self._pausing = False
        self.name = name
        #: Rows and commits since the last checkpoint: whoever opens the file after a death goes through them again.
        self.unchecked = 0
        self.commits = 0
        #: Where commits go that DuckDB takes later, and those that it has not taken.
        self._journal: Journal | None = None
        self._waiting: list[_Waiting] = []
        self._waiting_rows = 0

    # -- opening

    def prepare(self) -> bool:
        """Make the tables if this is a new file, refuse what is no queue of ours; gives whether it is new."""
        return tables.prepare(self._connection, self.name)

    def _meta(self) -> dict[str, int]:
        return dict(self._connection.execute("SELECT name, value FROM meta").fetchall())

    def numbers(self) -> Numbers:
        """Where the numbers go on, and a new epoch, written at once."""
        con = self._connection
        con.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")
        meta = self._meta()
        seq, job = con.execute("SELECT coalesce(max(seq), 0), coalesce(max(job), 0) FROM ledger").fetchall()[
            0
        ]
        worker = con.execute("SELECT coalesce(max(worker), 0) FROM workers").fetchall()[0][0]
        return Numbers(
            max(seq, meta["seq"]) + 1,
            max(job, meta["job"]) + 1,
            max(worker, meta["worker"]) + 1,
            meta["epoch"],
        )

    def recover(self, index: Index, now: float) -> Recovered:
        """Fill an empty index with what is not ended."""
        return restore(self._connection, index, now)

    # -- the journal

    def use_journal(self, path: Path) -> None:
        """Take what a journal has that this file has not, and commit to a new one from now on.

        Raises
        ------
        QueueUnavailable
            If the journal belongs to another file, or to another copy of this one.
        """
        con, meta = self._connection, self._meta()
        found = left_in(path, meta)
        for number, body in found.frames if found is not None else ():
            text = body.decode()
            writes = Writes.read(text)
            self._waiting.append(_Waiting.of(number, writes, text))
            self._waiting_rows += writes.count
        with transaction(con):
            self._fold_waiting()
            # Should the new journal not come to be, this tells that the old one is spent.
            before = meta["journal"] if found is None else found.identity
            identity = int.from_bytes(os.urandom(7), "little")
            for name, value in (("journal", identity), ("journal_before", before)):
                con.execute("UPDATE meta SET value = ? WHERE name = ?", [value, name])
        last = self._waiting[-1].number if self._waiting else meta["folded"]
        self.unchecked += self._waiting_rows
        self._forget_waiting()
        self._journal = Journal(journal_path(path), identity, last, file_mode(path))

    @property
    def waiting(self) -> bool:
        """Whether something is in the journal alone."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether so much waits in the journal that it is time to fold it in."""
        journal = self._journal
        return self._waiting_rows >= FOLD_ROWS or (journal is not None and journal.size >= FOLD_SIZE)

    def fold_in(self) -> None:
        """Bring what waits in the journal into the tables, where SQL sees it."""
        if self._waiting:
            self._fold_with(Writes())

    def _sql(self) -> duckdb.DuckDBPyConnection:
        """Give the connection to who needs all that was committed in its tables."""
        self.fold_in()
        return self._connection

    def _fold_with(self, writes: Writes) -> None:
        """Bring what waits, and what comes after it, into the tables, in one transaction."""
        con, rows, journal = self._connection, writes.count, self._journal
        # It has a number as well: a frame that follows it does not fit a file without it.
        number = journal.number + 1 if writes and journal is not None else 0
        with transaction(con):
            self._fold_waiting()
            self._write(writes)
            if number:
                self._note_folded(number)
        if number and journal is not None:
            journal.number = number
        self.unchecked += self._waiting_rows + rows
        self.commits += 1
        self._forget_waiting()

    def _fold_waiting(self) -> None:
        if not self._waiting:
            return
        together = Writes()
        for waiting in self._waiting:
            together.extend(waiting.writes)
        alike = [line for waiting in self._waiting for line in waiting.alike]
        self._write(together, [waiting.rows for waiting in self._waiting], alike)
        # In the transaction of the rows: whatever dies when, none is taken twice.
        self._note_folded(self._waiting[-1].number)

    def _note_folded(self, number: int) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE name = 'folded'", [number])

    def _forget_waiting(self) -> None:
        self._waiting, self._waiting_rows = [], 0
        if self._journal is not None:
            self._journal.begin_again()

    # -- writing

    def commit(self, writes: Writes) -> None:
        """Make these durable, all or none."""
        if not writes:
            return
        try:
            self._commit(writes)
        except (duckdb.InvalidInputException, UnicodeEncodeError):
            # Names of files that are no UTF-8 come with halves of characters, which DuckDB does not take.
            if not writes.mend():
                raise
            self._commit(writes)

    def _commit(self, writes: Writes) -> None:
        journal = self._journal
        is_there = journal is not None and journal.is_there()
        if journal is not None and not is_there and journal.is_gone():
            self.fold_in()
            journal, is_there = journal.again(), True
            self._journal = journal
        # What was put in its place is somebody's: no harm comes of going without one.
        text = "" if journal is None or is_much(writes) else writes.text()
        # Metadata and errors, which are not counted before, may be much as well.
        if journal is not None and is_there and 0 < len(text) <= FOLD_SIZE:
            number = journal.append(text.encode())
            self._waiting.append(_Waiting.of(number, writes, text))
            self._waiting_rows += writes.count
        elif not self._waiting and writes.are_rows and len(writes.rows) <= INSERT_ROWS:
            insert_few(self._connection, writes.rows)
            self.unchecked += len(writes.rows)
            self.commits += 1
        else:
            self._fold_with(writes)

    def _write(self, writes: Writes, texts: Sequence[str] = (), alike: Sequence[str] = ()) -> None:
        write(self._connection, writes, texts, alike)

    def set_paused(self, queue: str, *, paused: bool) -> None:
        """Remember a queue's switch."""
        self._sql().execute("UPDATE queues SET paused = ? WHERE queue = ?", [paused, queue])

    def put_code(self, code: str, blob: bytes, now: float) -> None:
        """Keep code by its hash, once, and when it was last put."""
        con = self._sql()
        if con.execute("UPDATE code SET put_us = ? WHERE code = ?", [micros(now), code]).fetchall() == [(0,)]:
            con.execute("INSERT INTO code VALUES (?, ?, ?)", [code, blob, micros(now)])

    def get_code(self, code: str) -> bytes | None:
        """Give code by its hash."""
        row = self._connection.execute("SELECT blob FROM code WHERE code = ?", [code]).fetchone()
        return bytes(row[0]) if row else None

    def begin_pruning(self, selection: Selection, keep: int | None = None) -> Pruning:
        """Find out which ended jobs are to go; ``prune`` lets them go piece by piece."""
        return pruning.begin(self._sql(), selection, keep)

    def prune(self, going: Pruning, index: Index, now: float) -> None:
        """Delete the next piece of ended jobs and all their events; their numbers are never used again."""
        con, gone = self._sql(), Gone()
        at_first = going.first
        try:
            with transaction(con):
                if not going.over:
                    gone = pruning.delete_piece(con, going)
                if going.over and going.forgotten + gone.count:
                    gone.specs = pruning.delete_unused(
                        con, [seat.number for seat in index.seats.values()], now
                    )
                if gone.count:
                    last = {"seq": index.seq - 1, "job": index.job - 1, "worker": index.worker - 1}
                    for name, number in last.items():
                        con.execute(
                            "UPDATE meta SET value = greatest(value, ?) WHERE name = ?", [number, name]
                        )
        except BaseException:
            going.first = at_first
            raise
        index.forget(gone)
        going.forgotten += gone.count
        self.unchecked += gone.count

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file, between two readers if that can be had."""
        con = self._sql()
        with self._between_readers():
            try:
                con.execute("CHECKPOINT")
            except duckdb.TransactionException:
                return
        self.unchecked = self.commits = 0

    @contextlib.contextmanager
    def _between_readers(self) -> Iterator[None]:
        """Let who reads come to an end, and nobody begin, for a moment: what they see cannot be used again."""
        over = time.monotonic() + READERS_PAUSE
        with self._reading:
            self._pausing = True
            self._reading.notify_all()
            while self._cursors and (left := over - time.monotonic()) > 0:
                self._reading.wait(left)
        try:
            yield
        finally:
            with self._reading:
                self._pausing = False
                self._reading.notify_all()

    # -- reading

    def pending(self, numbers: Sequence[int], longest: int | None = None) -> list[PendingRow]:
        """Those of these jobs that nothing has happened to since their dispatch; none with a longer payload."""
        # Asked in every turn of a long backlog, for which nothing is folded in.
        waiting = self._unfolded()
        rows, alike = [writes.rows for writes in waiting], [one for writes in waiting for one in writes.alike]
        return pending_of(self._connection, rows, alike, numbers, longest)

    def known(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these ids are taken."""
        return known_of(self._connection, self._unfolded(), ids)

    def knows_between(self, first: UUID, last: UUID) -> bool:
        """Whether any id from ``first`` to ``last`` is taken."""
        return knows_between(self._sql(), first, last)

    def _unfolded(self) -> list[Writes]:
        return [waiting.writes for waiting in self._waiting]

    def jobs(self, ids: Sequence[UUID]) -> list[LiveJob]:
        """These jobs, wherever they stand."""
        return jobs_of(self._sql(), ids)

    def closings(self, fences: Collection[int]) -> dict[int, Closing]:
        """What ended these claims, by fence; of one that goes on, nothing."""
        return closings_of(self._sql(), fences)

    def lines(self, fences: Collection[int]) -> list[Line]:
        """The log lines and displays of these claims."""
        return lines_of(self._sql(), fences)

    def batch(self, which: UUID | str) -> BatchRecord | None:
        """A batch by its id or its key."""
        return heads.find_batch(self._sql(), which)

    def batch_rows(self, batch_id: UUID) -> dict[str, RowJob]:
        """The latest job of each row that a batch ever had, by label."""
        return heads.row_jobs(self._sql(), batch_id)

    def batch_counts(self, batch: BatchRecord) -> dict[State, int]:
        """How many rows of a batch stand where."""
        return heads.row_counts(self._sql(), batch)

    @contextlib.contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor for a reader in another thread, closed in the end; ``close`` breaks off what is run on it."""
        with self._reading:
            self._reading.wait_for(lambda: not self._pausing)
            cursor = self._connection.cursor()
            self._cursors.add(cursor)
        try:
            yield cursor
        finally:
            with self._reading:
                self._cursors.discard(cursor)
                self._reading.notify_all()
                cursor.close()

    def query(self, sql: str, params: Sequence[object], frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        """Run one SELECT on a cursor of its own."""
        with self._broken_off("a query"), self.cursor() as cursor:
            return run_query(cursor, sql, params, frames)

    def read(self, sql: str, params: Sequence[object]) -> pd.DataFrame:
        """Run one SELECT of nbqueue's own on a cursor of its own."""
        with self._broken_off("a query"), self.cursor() as cursor:
            return run_own(cursor, sql, params)

    def find(self, selection: Selection) -> list[UUID]:
        """The ids of the jobs selected, oldest first, out of what is folded in; on a cursor of its own."""
        parts, params = conditions(selection)
        where = " AND ".join(parts) or "true"
        sql = f"SELECT job_id FROM jobs WHERE {where} ORDER BY number"
        with self._broken_off("a selection"), self.cursor() as cursor:
            return [job_id for (job_id,) in cursor.execute(sql, params).fetchall()]

    @contextlib.contextmanager
    def _broken_off(self, what: str) -> Iterator[None]:
        """Say what broke a reader off; fatal errors go to the owner of the connection as they are."""
        try:
            yield
        except FATAL:
            raise
        except (QueueError, duckdb.Error) as error:
            if self._closed:
                raise QueueUnavailable(f"{self.name} was closed while {what} ran") from error
            if isinstance(error, QueueError):
                raise
            raise QueueError(f"{self.name} cannot be read ({first_line(error)})") from error

    def close(self) -> None:
        """Break off what readers do, let go of the file, and remove a journal that is folded in; doing it again does
        nothing.

        Nothing of DuckDB's is held any longer: what a thread that never ends still reaches when the interpreter
        ends is reported on stderr.
        """
        over = time.monotonic() + READERS_PATIENCE
        with self._reading:
            if self._closed:
                return
            self._closed = True
            connection, self._connection = self._connection, cast("Any", _Closed(self.name))
            self.unchecked = 0
            # DuckDB does not close a connection that is read from. Who is between two statements is not
            # interrupted, so they are told until they have gone.
            while self._cursors and time.monotonic() < over:
                for cursor in self._cursors:
                    with contextlib.suppress(duckdb.Error):
                        cursor.interrupt()
                self._reading.wait(0.02)
        connection.close()
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close(remove=not self._waiting)
        self._waiting, self._waiting_rows = [], 0
