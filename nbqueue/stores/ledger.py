"""The ledger in DuckDB: appends what an index wrote, and gives it back after a restart; knows no lock and no thread.

One thread at a time may call what writes. ``query`` may be called from any thread: it has a cursor of its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast
from uuid import UUID

import duckdb

from nbqueue.errors import QueueError, QueueUnavailable
from nbqueue.jobs import BatchRecord, NewJob, Spec, State
from nbqueue.lifecycle import LIFECYCLE_EVENTS, STATE_AFTER, Event, Life
from nbqueue.store import Selection, WorkerInfo
from nbqueue.stores import heads, migrations, pruning, schema
from nbqueue.stores.batching import RowJob
from nbqueue.stores.index import Index
from nbqueue.stores.journal import Found, Journal, file_mode, journal_path, read_journal
from nbqueue.stores.live import LiveJob, Numbers, QueueState, Row, micros
from nbqueue.stores.pruning import Gone, Pruning
from nbqueue.stores.repeats import Closing, Line
from nbqueue.stores.selecting import conditions
from nbqueue.stores.writes import INSERT_TEXTS, Writes, rows_text, spec_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Ledger", "Recovered", "Writes", "waiting_in", "write"]

#: Up to so many rows go by INSERT; an appender costs more to open than these take.
INSERT_ROWS = 4
#: More rows than this go as text, in pieces of so many: to bind a statement for it takes 3 ms.
APPEND_ROWS = 1_000
TEXT_ROWS = 10_000
#: Rows of more characters than this go by an appender: written as text again, they would fill the memory.
LONG_ROW = 4_096
#: A commit of so many rows, or characters of what jobs bring along, does not go through the journal.
MUCH_ROWS = 4_000
MUCH_SIZE = 2 << 20
#: So many rows, or bytes of the journal, are folded into the queue file at the latest.
FOLD_ROWS = 10_000
FOLD_SIZE = 4 << 20
#: Readers are told to break off when a ledger closes, and have so many seconds to do it.
READERS_PATIENCE = 5.0
#: A checkpoint waits so long for readers; one that reads for longer keeps some room from being used again.
READERS_PAUSE = 0.2

_MOVES = ", ".join(f"'{event}'" for event in LIFECYCLE_EVENTS if event is not Event.DISPATCHED)
# A list of more than a few values becomes a join, which keeps filters from the scan.
_LIFECYCLE = " AND ".join(f"event <> '{event}'" for event in Event if event not in STATE_AFTER)
_ENDINGS = ", ".join(f"'{event}'" for event in LIFECYCLE_EVENTS if STATE_AFTER[event].ended)
_DISPATCH = "job, happened_us, due_us, data, job_id, spec, metadata, batch_id, row_label"
# A job's standing is in its last lifecycle event, and in the last claim.
_FOLD = """
    job,
    max_by(event, seq) AS event,
    max_by(happened_us, seq) AS happened_us,
    max_by(attempt, seq) AS attempt,
    max_by(max_attempts, seq) AS max_attempts,
    max_by(coalesce(base, 0), seq) AS base,
    max_by(coalesce(crashes, 0), seq) AS crashes,
    max(fence) AS fence,
    max_by(coalesce(due_us, 0), seq) AS due_us,
    max_by(started_us, seq) FILTER (started_us IS NOT NULL) AS started_us,
    max_by(worker, seq) FILTER (worker IS NOT NULL) AS worker,
    max_by(coalesce(data, ''), seq) AS data,
    max_by(coalesce(error, ''), seq) FILTER (error IS NOT NULL OR event IN ('succeeded', 'retried')) AS error,
    max_by(coalesce(cause, ''), seq) FILTER (event NOT IN ('claimed', 'cancelling')) AS cause,
    max_by(coalesce(traceback, ''), seq) FILTER (error IS NOT NULL OR event IN ('succeeded', 'retried')) AS traceback
"""
_AT = {name: at for at, name in enumerate(schema.COLUMNS)}
_EVENT, _JOB, _JOB_ID, _DATA, _TRACEBACK = (
    _AT[name] for name in ("event", "job", "job_id", "data", "traceback")
)
_DISPATCH_AT = tuple(_AT[name] for name in _DISPATCH.split(", "))
_INSERTS = {
    n: "INSERT INTO ledger VALUES " + ", ".join(["(" + ", ".join("?" * len(schema.COLUMNS)) + ")"] * n)
    for n in range(1, INSERT_ROWS + 1)
}


@dataclass(slots=True)
class Recovered:
    """What stood open in a file: the jobs that were running, by the fence of their claim, and who had them."""

    running: list[LiveJob] = field(default_factory=list)
    #: By id the number that each of these workers has, and what is known of it: it takes nothing yet.
    workers: dict[str, tuple[int, WorkerInfo]] = field(default_factory=dict)


class _Waiting(NamedTuple):
    """A commit that is in the journal, and not in the queue file."""

    number: int
    writes: Writes
    #: Of its rows.
    text: str


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
        con = self._connection
        con.execute("SET TimeZone='UTC'")
        # Whoever owns the file has checkpoints when it suits him; this is for a log that got out of hand.
        con.execute("SET checkpoint_threshold='256MB'")
        tables = {
            name
            for (name,) in con.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
        }
        version = self._version() if tables.issuperset(schema.FIRST_TABLES) else 0
        if tables and not version:
            msg = (
                f"{self.name} is a DuckDB database with tables of its own ({', '.join(sorted(tables)[:3])}) and no"
                " queue in it; give the queue a file of its own"
            )
            raise QueueUnavailable(msg)
        con.begin()
        try:
            if not tables:
                self._make_tables()
            elif version != schema.SCHEMA_VERSION:
                migrations.migrate(con, self.name, version)
            self._renew_views()
            con.commit()
        except BaseException:
            self._roll_back()
            raise
        con.execute("SET lock_configuration=true")
        return not tables

    def _make_tables(self) -> None:
        con = self._connection
        for statement in schema.TABLES:
            con.execute(statement)
        con.execute(
            "INSERT INTO meta VALUES ('schema', ?), ('views', 0), ('seq', 0), ('job', 0), ('worker', 0), ('epoch', 0),"
            " ('folded', 0), ('journal', 0), ('journal_before', 0)",
            [schema.SCHEMA_VERSION],
        )
        con.execute("INSERT INTO queues VALUES ('default', false)")

    def _renew_views(self) -> None:
        """Make the views anew where an nbqueue with other views made them: they hold no data."""
        con = self._connection
        fingerprint = zlib.crc32("\n".join(schema.VIEWS).encode())
        row = con.execute("SELECT value FROM meta WHERE name = 'views'").fetchone()
        if row is not None and row[0] == fingerprint:
            return
        for statement in schema.VIEWS:
            con.execute(statement)
        con.execute("DELETE FROM meta WHERE name = 'views'")
        con.execute("INSERT INTO meta VALUES ('views', ?)", [fingerprint])

    def _version(self) -> int:
        """The schema's version, 0 where these tables are not ours."""
        try:
            row = self._connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        except (duckdb.BinderException, duckdb.CatalogException):
            return 0
        return int(row[0]) if row else 0

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
        con = self._connection
        for row in con.execute("SELECT * FROM specs ORDER BY spec").fetchall():
            index.restore_spec(row[0], spec_of(row))
        for name, paused in con.execute("SELECT queue, paused FROM queues").fetchall():
            index.queues[name] = QueueState(paused=paused)
        index.horizon = con.execute("SELECT max(job_id) FROM ledger").fetchall()[0][0]
        recovered = Recovered()
        self._recover_untouched(index, now, recovered)
        open_jobs = self._fold(
            # First which they are: folding the texts of all that has ended would hold them in memory at once.
            f"SELECT {_FOLD} FROM ledger WHERE event IN ({_MOVES}) AND job IN (SELECT job FROM ledger"
            f" WHERE event IN ({_MOVES}) GROUP BY job HAVING max_by(event, seq) NOT IN ({_ENDINGS})) GROUP BY job"
        )
        for job in open_jobs:
            index.keep(job)
            spec = job.new.spec
            index.queues[spec.queue].counts[job.life.state] += 1
            if job.life.state is State.RUNNING:
                recovered.running.append(job)
            elif not job.life.held:
                index.lanes.push(spec, job.number, job.number, job.life.due_at)
        # A worker's claims are in the order it got them.
        recovered.running.sort(key=lambda job: job.life.fence)
        recovered.workers = self._workers({job.worker for job in recovered.running})
        ended = con.execute(
            "SELECT d.spec, e.event, count(*)"
            f" FROM (SELECT job, max_by(event, seq) AS event FROM ledger WHERE event IN ({_MOVES}) GROUP BY job) e"
            " JOIN (SELECT job, spec FROM ledger WHERE event = 'dispatched') d USING (job)"
            f" WHERE e.event IN ({_ENDINGS}) GROUP BY ALL"
        ).fetchall()
        for spec_number, event, count in ended:
            index.queues[index.specs[spec_number].queue].counts[STATE_AFTER[Event(event)]] += count
        return recovered

    def _workers(self, worker_ids: set[str]) -> dict[str, tuple[int, WorkerInfo]]:
        if not worker_ids:
            return {}
        rows = self._connection.execute(
            "SELECT worker, worker_id, host, pid, executor, concurrency, lease FROM workers"
            " WHERE worker_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY worker",
            [list(worker_ids)],
        ).fetchall()
        found = {}
        for number, worker_id, host, pid, executor, concurrency, lease in rows:
            info = WorkerInfo(
                worker_id=worker_id, queues=(), concurrency=concurrency, executor=executor, host=host, pid=pid
            )
            # None is of a version that did not write it down.
            found[worker_id] = (number, info if lease is None else replace(info, lease=lease))
        return found

    def _recover_untouched(self, index: Index, now: float, recovered: Recovered) -> None:
        """Push what was only dispatched into the lanes, as runs of numbers and never as objects."""
        if not self._connection.execute("SELECT EXISTS (FROM ledger)").fetchall()[0][0]:
            return  # numpy comes with every result of the kind below: an empty file opens without it
        found = self._connection.execute(
            "SELECT job, spec, coalesce(due_us, -1) AS due_us FROM ledger WHERE event = 'dispatched' AND job NOT IN"
            f" (SELECT job FROM ledger WHERE event IN ({_MOVES})) ORDER BY job"
        ).fetchnumpy()
        jobs, specs, dues = found["job"], found["spec"], found["due_us"]
        if not len(jobs):
            return
        import numpy as np

        dues = np.where(dues <= now * 1e6, -1, dues)
        breaks = np.flatnonzero((np.diff(jobs) != 1) | (np.diff(specs) != 0) | (np.diff(dues) != 0)) + 1
        starts = np.concatenate(([0], breaks))
        ends = np.concatenate((breaks, [len(jobs)])) - 1
        runs = zip(
            jobs[starts].tolist(),
            jobs[ends].tolist(),
            specs[starts].tolist(),
            dues[starts].tolist(),
            strict=True,
        )
        for first, last, spec_number, due_us in runs:
            spec = index.specs[spec_number]
            index.lanes.push(spec, first, last, None if due_us < 0 else due_us / 1e6)
            index.queues[spec.queue].counts[State.PENDING] += last - first + 1

    # -- the journal

    def use_journal(self, path: Path) -> None:
        """Take what a journal has that this file has not, and commit to a new one from now on.

        Raises
        ------
        QueueUnavailable
            If the journal belongs to another file, or to another copy of this one.
        """
        con, meta = self._connection, self._meta()
        found = _left_in(path, meta)
        for number, body in found.frames if found is not None else ():
            text = body.decode()
            writes = Writes.read(text)
            self._waiting.append(_Waiting(number, writes, text.partition("\n")[0]))
            self._waiting_rows += len(writes.rows)
        con.begin()
        try:
            self._fold_waiting()
            # Should the new journal not come to be, this tells that the old one is spent.
            before = meta["journal"] if found is None else found.identity
            identity = int.from_bytes(os.urandom(7), "little")
            for name, value in (("journal", identity), ("journal_before", before)):
                con.execute("UPDATE meta SET value = ? WHERE name = ?", [value, name])
            con.commit()
        except BaseException:
            self._roll_back()
            raise
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
        con, rows, journal = self._connection, len(writes.rows), self._journal
        # It has a number as well: a frame that follows it does not fit a file without it.
        number = journal.number + 1 if writes and journal is not None else 0
        con.begin()
        try:
            self._fold_waiting()
            self._write(writes)
            if number:
                self._note_folded(number)
            con.commit()
        except BaseException:
            self._roll_back()
            raise
        if number and journal is not None:
            journal.number = number
        self.unchecked += self._waiting_rows + rows
        self.commits += 1
        self._forget_waiting()

    def _fold_waiting(self) -> None:
        if not self._waiting:
            return
        together = Writes()
        for _, writes, _ in self._waiting:
            together.extend(writes)
        self._write(together, [text for _, _, text in self._waiting])
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
            rows = [_whole(row) for row in writes.rows]
            if rows == writes.rows:
                raise
            writes.rows = rows
            self._commit(writes)

    def _commit(self, writes: Writes) -> None:
        journal = self._journal
        is_there = journal is not None and journal.is_there()
        if journal is not None and not is_there and journal.is_gone():
            self.fold_in()
            journal, is_there = journal.again(), True
            self._journal = journal
        # What was put in its place is somebody's: no harm comes of going without one.
        text = "" if journal is None or _is_much(writes) else writes.text()
        # Metadata and errors, which are not counted before, may be much as well.
        if journal is not None and is_there and 0 < len(text) <= FOLD_SIZE:
            number = journal.append(text.encode())
            self._waiting.append(_Waiting(number, writes, text.partition("\n")[0]))
            self._waiting_rows += len(writes.rows)
        elif not self._waiting and writes.are_rows and len(writes.rows) <= INSERT_ROWS:
            _insert(self._connection, writes.rows)
            self.unchecked += len(writes.rows)
            self.commits += 1
        else:
            self._fold_with(writes)

    def _roll_back(self) -> None:
        # A commit that failed has rolled back already, and its error is the one that tells why.
        with contextlib.suppress(duckdb.Error):
            self._connection.rollback()

    def _write(self, writes: Writes, texts: Sequence[str] = ()) -> None:
        write(self._connection, writes, texts)

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
        con.begin()
        try:
            if not going.over:
                gone = pruning.delete_piece(con, going)
            if going.over and going.forgotten + gone.count:
                gone.specs = pruning.delete_unused(con, [seat.number for seat in index.seats.values()], now)
            if gone.count:
                last = {"seq": index.seq - 1, "job": index.job - 1, "worker": index.worker - 1}
                for name, number in last.items():
                    con.execute("UPDATE meta SET value = greatest(value, ?) WHERE name = ?", [number, name])
            con.commit()
        except BaseException:
            going.first = at_first
            self._roll_back()
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

    def pending(self, numbers: Sequence[int], longest: int | None = None) -> list[LiveJob]:
        """Those of these jobs that nothing has happened to since their dispatch; none with a longer payload."""
        # Asked in every turn of a long backlog, for which nothing is folded in.
        new, moved = self._waiting_of(set(numbers))
        left = [n for n in numbers if n not in new and n not in moved]
        rows = list(new.values())
        if left:
            first, last = min(left), max(left)
            # Bounds that are constants keep most of the ledger from being read; for jobs that lie together, as those
            # of a backlog do, they say it all: 4 ms for 1,024 of 100,000 jobs, where two looks by a list took 13.
            which, params = f"job BETWEEN {first} AND {last}", list[object]()
            if last - first + 1 != len(left):
                which, params = f"{which} AND job IN (SELECT unnest(?::BIGINT[]))", [left]
            if longest is not None:
                which = f"{which} AND (event <> 'dispatched' OR length(data) <= {longest})"
            found = self._connection.execute(
                f"SELECT {_DISPATCH}, event FROM ledger WHERE {which} AND {_LIFECYCLE}", params
            ).fetchall()
            rows += sorted(row[:-1] for row in found if row[-1] == Event.DISPATCHED)
            moved |= {row[0] for row in found if row[-1] != Event.DISPATCHED}
        specs = self._specs({row[5] for row in rows})
        jobs = [_dispatched(row, specs) for row in rows if row[0] not in moved]
        return [job for job in jobs if longest is None or len(job.new.payload) <= longest]

    def _waiting_of(self, numbers: set[int]) -> tuple[dict[int, tuple[Any, ...]], set[int]]:
        """What waits of these jobs: their dispatches, and which of them have moved."""
        new: dict[int, tuple[Any, ...]] = {}
        moved: set[int] = set()
        for _, writes, _ in self._waiting:
            for row in writes.rows:
                if row[_JOB] not in numbers:
                    continue
                if row[_EVENT] == Event.DISPATCHED:
                    new[row[_JOB]] = tuple(row[at] for at in _DISPATCH_AT)
                elif row[_EVENT] in STATE_AFTER:
                    moved.add(row[_JOB])
        return new, moved

    def jobs(self, ids: Sequence[UUID]) -> list[LiveJob]:
        """These jobs, wherever they stand."""
        con = self._sql()
        rows = con.execute(
            f"SELECT {_DISPATCH} FROM ledger WHERE event = 'dispatched' AND job_id IN (SELECT unnest(?::UUID[]))",
            [[str(i) for i in ids]],
        ).fetchall()
        if not rows:
            return []
        specs = self._specs({row[5] for row in rows})
        jobs = {row[0]: _dispatched(row, specs) for row in rows}
        for job in self._fold(
            f"SELECT {_FOLD} FROM ledger"
            f" WHERE event IN ({_MOVES}) AND job IN (SELECT unnest(?::BIGINT[])) GROUP BY job",
            [list(jobs)],
        ):
            jobs[job.number] = job
        return list(jobs.values())

    def known(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these ids are taken."""
        asked = set(ids)
        waiting = {
            row[_JOB_ID] for _, writes, _ in self._waiting for row in writes.rows if row[_JOB_ID] in asked
        }
        rows = self._connection.execute(
            "SELECT job_id FROM ledger WHERE event = 'dispatched' AND job_id IN (SELECT unnest(?::UUID[]))",
            [[str(i) for i in asked - waiting]],
        ).fetchall()
        return waiting | {job_id for (job_id,) in rows}

    def closings(self, fences: Collection[int]) -> dict[int, Closing]:
        """What ended these claims, by fence; of one that goes on, nothing."""
        rows = (
            self._sql()
            .execute(
                f"SELECT fence, event, happened_us, coalesce(error, '') FROM ledger WHERE event IN ({_MOVES})"
                " AND event <> 'claimed' AND fence IN (SELECT unnest(?::BIGINT[]))",
                [list(fences)],
            )
            .fetchall()
        )
        return {fence: Closing(Event(event), happened_us, error) for fence, event, happened_us, error in rows}

    def lines(self, fences: Collection[int]) -> list[Line]:
        """The log lines and displays of these claims."""
        return (
            self._sql()
            .execute(
                "SELECT fence, CASE event WHEN 'log' THEN cause ELSE '' END, coalesce(data, ''), happened_us"
                " FROM ledger WHERE event IN ('log', 'output') AND fence IN (SELECT unnest(?::BIGINT[]))",
                [list(fences)],
            )
            .fetchall()
        )

    def _fold(self, sql: str, params: Sequence[object] = ()) -> list[LiveJob]:
        con = self._connection
        cursor = con.execute(sql, list(params))
        names = [column[0] for column in cursor.description]
        folded = {row[0]: dict(zip(names, row, strict=True)) for row in cursor.fetchall()}
        if not folded:
            return []
        rows = con.execute(
            f"SELECT {_DISPATCH} FROM ledger WHERE event = 'dispatched' AND job IN (SELECT unnest(?::BIGINT[]))",
            [list(folded)],
        ).fetchall()
        specs = self._specs({row[5] for row in rows})
        workers = dict(con.execute("SELECT worker, worker_id FROM workers").fetchall())
        return [_stand(_dispatched(row, specs), folded[row[0]], workers) for row in rows]

    def _specs(self, numbers: set[int]) -> dict[int, Spec]:
        found = {n: spec for _, writes, _ in self._waiting for n, spec in writes.specs if n in numbers}
        rows = self._connection.execute(
            "SELECT * FROM specs WHERE spec IN (SELECT unnest(?::INTEGER[]))", [list(numbers - found.keys())]
        ).fetchall()
        return found | {row[0]: spec_of(row) for row in rows}

    def find(self, selection: Selection) -> list[UUID]:
        """The ids of the jobs selected, oldest first."""
        parts, params = conditions(selection)
        where = " AND ".join(parts) or "true"
        return [
            i
            for (i,) in self._sql()
            .execute(f"SELECT job_id FROM jobs WHERE {where} ORDER BY number", params)
            .fetchall()
        ]

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
        from nbqueue.stores.reader import run_query

        try:
            with self.cursor() as cursor:
                return run_query(cursor, sql, params, frames)
        except QueueError as error:
            if self._closed:
                raise QueueUnavailable(f"{self.name} was closed while a query ran") from error
            raise

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


def waiting_in(con: duckdb.DuckDBPyConnection, path: Path) -> list[Writes]:
    """Give what a file's journal has that the file has not.

    Raises
    ------
    QueueUnavailable
        If the journal belongs to another file, or to another copy of this one.
    """
    found = _left_in(path, dict(con.execute("SELECT name, value FROM meta").fetchall()))
    return [Writes.read(frame.body.decode()) for frame in found.frames] if found is not None else []


def _left_in(path: Path, meta: Mapping[str, int]) -> Found | None:
    """Give the journal that a file was left with, and refuse one that does not go with it."""
    file, folded = journal_path(path), meta["folded"]
    found = read_journal(file, folded)
    if found is None:
        return None
    if found.identity == meta["journal_before"]:
        return found._replace(frames=[])  # the file has them all
    if found.identity != meta["journal"]:
        raise QueueUnavailable(
            f"{file} does not belong to {path} as it is now: one of them was replaced, by a copy or by another"
            " queue's. Put back the one that it was with, or move the journal away, and with it what was"
            " handed in last"
        )
    if found.frames and found.frames[0].number != folded + 1:
        raise QueueUnavailable(
            f"{path} is damaged: it ends before {file.name} goes on, so a part of it or of its log was lost, or"
            " an older copy was put in its place; put a copy of all three back, or move the journal away, and"
            " with it what was handed in last"
        )
    return found


def write(con: duckdb.DuckDBPyConnection, writes: Writes, texts: Sequence[str] = ()) -> None:
    """Write these into the tables; ``texts`` are those of the rows, where they are there already."""
    rows = writes.rows
    for number, spec in writes.specs:
        con.execute(
            "INSERT INTO specs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [number, *spec[:7], spec.retry.to_json()],
        )
    if writes.queues:
        con.executemany("INSERT INTO queues VALUES (?, false)", [[name] for name in writes.queues])
    if writes.workers:
        con.executemany("INSERT INTO workers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", writes.workers)
    if 0 < len(rows) <= INSERT_ROWS:
        _insert(con, rows)
    elif 0 < len(rows) <= APPEND_ROWS or _size(rows) > LONG_ROW * len(rows):
        with con.appender("ledger") as appender:
            appender.append_rows(rows)
    elif rows and texts:
        con.execute(INSERT_TEXTS, [texts])
    else:
        for at in range(0, len(rows), TEXT_ROWS):
            con.execute(INSERT_TEXTS, [[rows_text(rows[at : at + TEXT_ROWS])]])
    if writes.batches:
        heads.put_heads(con, writes.batches)


def _insert(con: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> None:
    con.execute(_INSERTS[len(rows)], [value for row in rows for value in row])


def _is_much(writes: Writes) -> bool:
    """Whether a commit is so large that writing it twice would cost more than a commit of DuckDB's."""
    return len(writes.rows) >= MUCH_ROWS or _size(writes.rows) >= MUCH_SIZE


def _size(rows: Sequence[Row]) -> int:
    """How many characters jobs brought along or left."""
    return sum(len(row[_DATA] or "") + len(row[_TRACEBACK] or "") for row in rows)


def _whole(row: Row) -> Row:
    return tuple(
        value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for value in row
    )


def _dispatched(row: tuple[Any, ...], specs: dict[int, Spec]) -> LiveJob:
    number, happened_us, due_us, data, job_id, spec, metadata, batch_id, label = row
    due_at = None if due_us is None else due_us / 1e6
    new = NewJob(job_id, specs[spec], data, metadata or "", due_at, batch_id, label)
    return LiveJob(number, new, spec, happened_us / 1e6, Life(due_at=due_at))


def _stand(job: LiveJob, fold: dict[str, Any], workers: dict[int, str]) -> LiveJob:
    """Put a dispatched job where its last event left it."""
    event = Event(fold["event"])
    due_us = fold["due_us"] or None
    base = fold["base"]
    job.life = Life(
        STATE_AFTER[event],
        fold["attempt"] or 0,
        base,
        fold["crashes"],
        fold["fence"] or 0,
        max(1, (fold["max_attempts"] or 1) - base),
        None if due_us is None else due_us / 1e6,
        event is Event.CANCELLING,
        event is Event.REFUSED,
    )
    job.worker = workers.get(fold["worker"], "")
    job.started_at = None if fold["started_us"] is None else fold["started_us"] / 1e6
    job.finished_at = fold["happened_us"] / 1e6
    result = fold["data"] if event is Event.SUCCEEDED else ""
    job.last = (result, fold["error"] or "", fold["cause"] or "", fold["traceback"] or "")
    return job
