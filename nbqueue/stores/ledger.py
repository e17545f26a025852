"""The ledger in DuckDB: appends what an index wrote, and gives it back after a restart; knows no lock and no thread.

One thread at a time may call what writes. ``query`` may be called from any thread: it has a cursor of its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID

import duckdb

from nbqueue.errors import QueueError, QueueUnavailable
from nbqueue.jobs import BatchRecord, NewJob, Spec, State
from nbqueue.lifecycle import LIFECYCLE_EVENTS, STATE_AFTER, Event, Life
from nbqueue.retry import RetryPolicy
from nbqueue.store import Selection, WorkerInfo
from nbqueue.stores import heads, migrations, pruning, schema
from nbqueue.stores.batching import RowJob
from nbqueue.stores.index import Index
from nbqueue.stores.live import LiveJob, Numbers, QueueState, Row, micros
from nbqueue.stores.pruning import Gone, Pruning
from nbqueue.stores.repeats import Closing, Line
from nbqueue.stores.selecting import conditions

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Ledger", "Recovered", "Writes"]

#: Up to so many rows go by INSERT; an appender costs more to open than these take.
INSERT_ROWS = 4
#: Readers are told to break off when a ledger closes, and have so many seconds to do it.
READERS_PATIENCE = 5.0
#: A checkpoint waits so long for readers; one that reads for longer keeps some room from being used again.
READERS_PAUSE = 0.2

_MOVES = ", ".join(f"'{event}'" for event in LIFECYCLE_EVENTS if event is not Event.DISPATCHED)
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
_INSERTS = {
    n: "INSERT INTO ledger VALUES " + ", ".join(["(" + ", ".join("?" * len(schema.COLUMNS)) + ")"] * n)
    for n in range(1, INSERT_ROWS + 1)
}


@dataclass(slots=True)
class Writes:
    """What one commit takes: rows for the ledger, and what they refer to."""

    rows: list[Row] = field(default_factory=list)
    specs: list[tuple[int, Spec]] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    #: (number, worker id, host, pid, executor, concurrency, joined in microseconds, lease in seconds).
    workers: list[tuple[int, str, str, int, str, int, int, float]] = field(default_factory=list)
    batches: list[BatchRecord] = field(default_factory=list)

    @classmethod
    def of(cls, index: Index) -> Writes:
        """Take what an index has ready, and leave it none."""
        workers = [
            (number, w.worker_id, w.host, w.pid, w.executor, w.concurrency, round(now * 1e6), w.lease)
            for number, w, now in index.new_workers
        ]
        writes = cls(index.rows, index.new_specs, index.new_queues, workers, index.new_batches)
        index.rows, index.new_specs, index.new_queues, index.new_workers = [], [], [], []
        index.new_batches = []
        return writes

    def __bool__(self) -> bool:
        return bool(self.rows or self.specs or self.queues or self.workers or self.batches)

    def extend(self, other: Writes) -> None:
        """Put another's after these."""
        self.rows += other.rows
        self.specs += other.specs
        self.queues += other.queues
        self.workers += other.workers
        self.batches += other.batches


@dataclass(slots=True)
class Recovered:
    """What stood open in a file: the jobs that were running, by the fence of their claim, and who had them."""

    running: list[LiveJob] = field(default_factory=list)
    #: By id the number that each of these workers has, and what is known of it: it takes nothing yet.
    workers: dict[str, tuple[int, WorkerInfo]] = field(default_factory=dict)


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
            "INSERT INTO meta VALUES ('schema', ?), ('views', 0), ('seq', 0), ('job', 0), ('worker', 0), ('epoch', 0)",
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

    def numbers(self) -> Numbers:
        """Where the numbers go on, and a new epoch, written at once."""
        con = self._connection
        con.execute("UPDATE meta SET value = value + 1 WHERE name = 'epoch'")
        meta = dict(con.execute("SELECT name, value FROM meta").fetchall())
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
            index.restore_spec(row[0], _spec(row))
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
        # numpy comes with every DuckDB result of this kind; importing it here keeps an empty file's opening fast.
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

    # -- writing

    def commit(self, writes: Writes) -> None:
        """Make these durable, all or none."""
        try:
            self._commit(writes)
        except duckdb.InvalidInputException:
            # Names of files that are no UTF-8 come with halves of characters, which DuckDB does not take.
            rows = [_whole(row) for row in writes.rows]
            if rows == writes.rows:
                raise
            writes.rows = rows
            self._commit(writes)
        self.unchecked += len(writes.rows)
        self.commits += 1

    def _commit(self, writes: Writes) -> None:
        con, rows = self._connection, writes.rows
        alone = not (writes.specs or writes.queues or writes.workers or writes.batches)
        if alone and 0 < len(rows) <= INSERT_ROWS:
            con.execute(_INSERTS[len(rows)], [value for row in rows for value in row])
            return
        con.begin()
        try:
            self._write(writes)
            con.commit()
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        # A commit that failed has rolled back already, and its error is the one that tells why.
        with contextlib.suppress(duckdb.Error):
            self._connection.rollback()

    def _write(self, writes: Writes) -> None:
        con, rows = self._connection, writes.rows
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
            con.execute(_INSERTS[len(rows)], [value for row in rows for value in row])
        elif rows:
            with con.appender("ledger") as appender:
                appender.append_rows(rows)
        if writes.batches:
            heads.put_heads(con, writes.batches)

    def set_paused(self, queue: str, *, paused: bool) -> None:
        """Remember a queue's switch."""
        self._connection.execute("UPDATE queues SET paused = ? WHERE queue = ?", [paused, queue])

    def put_code(self, code: str, blob: bytes, now: float) -> None:
        """Keep code by its hash, once, and when it was last put."""
        con = self._connection
        if con.execute("UPDATE code SET put_us = ? WHERE code = ?", [micros(now), code]).fetchall() == [(0,)]:
            con.execute("INSERT INTO code VALUES (?, ?, ?)", [code, blob, micros(now)])

    def get_code(self, code: str) -> bytes | None:
        """Give code by its hash."""
        row = self._connection.execute("SELECT blob FROM code WHERE code = ?", [code]).fetchone()
        return bytes(row[0]) if row else None

    def begin_pruning(self, selection: Selection, keep: int | None = None) -> Pruning:
        """Find out which ended jobs are to go; ``prune`` lets them go piece by piece."""
        return pruning.begin(self._connection, selection, keep)

    def prune(self, going: Pruning, index: Index, now: float) -> None:
        """Delete the next piece of ended jobs and all their events; their numbers are never used again."""
        con, gone = self._connection, Gone()
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
        with self._between_readers():
            try:
                self._connection.execute("CHECKPOINT")
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

    def pending(self, numbers: Sequence[int]) -> list[LiveJob]:
        """Those of these jobs that nothing has happened to since their dispatch."""
        con, span = self._connection, [min(numbers), max(numbers), list(numbers)]
        within = "job BETWEEN ? AND ? AND job IN (SELECT unnest(?::BIGINT[]))"
        rows = con.execute(
            f"SELECT {_DISPATCH} FROM ledger WHERE event = 'dispatched' AND {within} ORDER BY job", span
        ).fetchall()
        moved = {
            n
            for (n,) in con.execute(
                f"SELECT DISTINCT job FROM ledger WHERE event IN ({_MOVES}) AND {within}", span
            ).fetchall()
        }
        specs = self._specs({row[5] for row in rows})
        return [_dispatched(row, specs) for row in rows if row[0] not in moved]

    def jobs(self, ids: Sequence[UUID]) -> list[LiveJob]:
        """These jobs, wherever they stand."""
        con = self._connection
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
        rows = self._connection.execute(
            "SELECT job_id FROM ledger WHERE event = 'dispatched' AND job_id IN (SELECT unnest(?::UUID[]))",
            [[str(i) for i in ids]],
        ).fetchall()
        return {job_id for (job_id,) in rows}

    def closings(self, fences: Collection[int]) -> dict[int, Closing]:
        """What ended these claims, by fence; of one that goes on, nothing."""
        rows = self._connection.execute(
            f"SELECT fence, event, happened_us, coalesce(error, '') FROM ledger WHERE event IN ({_MOVES})"
            " AND event <> 'claimed' AND fence IN (SELECT unnest(?::BIGINT[]))",
            [list(fences)],
        ).fetchall()
        return {fence: Closing(Event(event), happened_us, error) for fence, event, happened_us, error in rows}

    def lines(self, fences: Collection[int]) -> list[Line]:
        """The log lines and displays of these claims."""
        return self._connection.execute(
            "SELECT fence, CASE event WHEN 'log' THEN cause ELSE '' END, coalesce(data, ''), happened_us FROM ledger"
            " WHERE event IN ('log', 'output') AND fence IN (SELECT unnest(?::BIGINT[]))",
            [list(fences)],
        ).fetchall()

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
        rows = self._connection.execute(
            "SELECT * FROM specs WHERE spec IN (SELECT unnest(?::INTEGER[]))", [list(numbers)]
        ).fetchall()
        return {row[0]: _spec(row) for row in rows}

    def find(self, selection: Selection) -> list[UUID]:
        """The ids of the jobs selected, oldest first."""
        parts, params = conditions(selection)
        where = " AND ".join(parts) or "true"
        return [
            i
            for (i,) in self._connection.execute(
                f"SELECT job_id FROM jobs WHERE {where} ORDER BY number", params
            ).fetchall()
        ]

    def batch(self, which: UUID | str) -> BatchRecord | None:
        """A batch by its id or its key."""
        return heads.find_batch(self._connection, which)

    def batch_rows(self, batch_id: UUID) -> dict[str, RowJob]:
        """The latest job of each row that a batch ever had, by label."""
        return heads.row_jobs(self._connection, batch_id)

    def batch_counts(self, batch: BatchRecord) -> dict[State, int]:
        """How many rows of a batch stand where."""
        return heads.row_counts(self._connection, batch)

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
        """Break off what readers do, fold in the log and let go of the file; doing it again does nothing.

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


def _whole(row: Row) -> Row:
    return tuple(
        value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for value in row
    )


def _spec(row: tuple[Any, ...]) -> Spec:
    _, command, queue, priority, origin, code, tries, timeout, retry = row
    return Spec(command, queue, priority, origin, code, tries, timeout, RetryPolicy.from_json(retry))


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
