"""The DuckDB store: an index made durable by a ledger in one file, with one writer thread.

Verbs arrive from any thread and wait for the writer. Whatever arrives while it commits goes into the next commit, so
that throughput rises with load while a lone call costs one commit.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from nbqueue.errors import DispatchFailed, NbqueueError, QueueUnavailable
from nbqueue.lifecycle import Lost
from nbqueue.slots import begun_claims
from nbqueue.store import Capability
from nbqueue.stores.engine import IndexStore, Interruption
from nbqueue.stores.index import Index
from nbqueue.stores.ledger import Ledger, Writes
from nbqueue.stores.live import Seat
from nbqueue.stores.owner import Ownership, check_path
from nbqueue.stores.reader import first_line

__all__ = ["DuckDBStore"]

T = TypeVar("T")

#: A checkpoint comes after so many rows, and as soon as this many seconds pass without a verb.
CHECKPOINT_ROWS = 200_000
IDLE_SECONDS = 2.0


class _FileGoneError(Exception):
    """The file was deleted or replaced under its owner, who would go on writing to nowhere."""


class _Op:
    """A verb on its way through the writer."""

    __slots__ = ("done", "error", "result", "verb")

    def __init__(self, verb: Callable[[Index], Any]):
        self.verb = verb
        self.result: Any = None
        self.error: BaseException | None = None
        # A bare lock is the cheapest thing to wait on that Ctrl-C can break.
        self.done = threading.Lock()
        self.done.acquire()


class DuckDBStore(IndexStore):
    """Jobs in one DuckDB file that this process owns.

    Parameters
    ----------
    path : Path
        The file; made if there is none.
    clock : Callable[[], float]
        Seconds since the epoch.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back.

    Raises
    ------
    QueueUnavailable
        The file is held by another process, is no queue file, was written by a newer nbqueue, or cannot be written.
    """

    capabilities = frozenset(Capability)

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ):
        # One file has one lock, whatever link it was reached by.
        path = Path(path).resolve()
        super().__init__(str(path), clock=clock, ticks=ticks)
        check_path(path)
        self._path = path
        self._pid = os.getpid()
        self.slot_folder = path.with_name(path.name + ".slots")
        self._inbox: deque[_Op] = deque()
        self._gate = threading.Lock()
        self._news = threading.Event()
        self._stopping = False
        self._broken: str = ""
        #: Which verb of the batch is at work, and how many before it are on disk.
        self._at = self._kept = 0
        self._ownership = Ownership(path)
        self._ownership.take()
        try:
            self._open()
        except BaseException:
            self._ownership.release(remove=True)
            raise
        self._thread = threading.Thread(target=self._write_loop, name="nbqueue-writer", daemon=True)
        self._thread.start()

    # -- opening and recovery

    def _open(self) -> None:
        try:
            connection = duckdb.connect(str(self._path), config={"enable_external_access": "false"})
        except duckdb.Error as error:
            raise QueueUnavailable(_cannot_open(self._path, error)) from error
        try:
            found = self._path.stat()
            self._file = (found.st_dev, found.st_ino)
            self._ledger = Ledger(connection, self.name)
            self.created = self._ledger.prepare()
            self._index = self._recover({})
        except duckdb.Error as error:
            connection.close()
            raise QueueUnavailable(_cannot_open(self._path, error)) from error
        except BaseException:
            connection.close()
            raise
        for path in self.slot_folder.glob("*.slots") if self.slot_folder is not None else ():
            path.unlink(missing_ok=True)

    def _recover(self, seats: dict[str, Seat]) -> Index:
        """Rebuild the index; what ran under a worker that is not seated was interrupted."""
        now = self._clock()
        index = Index(self._ledger, self._ledger.numbers(), self._chance)
        recovered = self._ledger.recover(index, now)
        # One whose joining was not kept has to join again.
        index.seats = seats = {i: seat for i, seat in seats.items() if seat.number < index.worker}
        for seat in seats.values():
            seat.claims.clear()
        begun = set(begun_claims(self.slot_folder)) if self.slot_folder is not None else set()
        for job in recovered.running:
            if (holder := seats.get(job.worker)) is not None:
                holder.claims[job.life.fence] = job
                continue
            self.interrupted.append(_interrupt(job, index, begun=job.life.fence in begun, now=now))
        self._ledger.commit(Writes.of(index))
        index.settle()
        index.take_calls()
        return index

    # -- the writer

    def _run(self, verb: Callable[[Index], T]) -> T:
        if os.getpid() != self._pid:
            # A fork has no writer; whatever it wrote to the file would be behind the owner's back.
            raise QueueUnavailable(
                f"{self.name} was opened before this process was forked, and stays with process {self._pid};"
                " hand in work there, and return to it what it needs to know"
            )
        if threading.current_thread() is self._thread:
            msg = "a callback of the queue may not ask the queue: it runs in the thread that would have to answer"
            raise QueueUnavailable(msg)
        op = _Op(verb)
        with self._gate:
            # Whatever passes here is answered: the writer leaves only when the inbox is empty and the gate shut.
            if self._stopping or self._broken:
                raise QueueUnavailable(
                    self._broken or f"{self.name} is closed; open it again with nbqueue.connect"
                )
            self._inbox.append(op)
        # Even where it is set: Ctrl-C may have struck another caller between its setting and its waking.
        self._news.set()
        op.done.acquire()
        if op.error is not None:
            raise op.error
        result: T = op.result
        return result

    def _write_loop(self) -> None:
        news, inbox = self._news, self._inbox
        while True:
            if not inbox:
                idle = not news.wait(IDLE_SECONDS if self._ledger.unchecked else None)
                if idle and not inbox:
                    self._checkpoint()
                    continue
            news.clear()
            batch = []
            with contextlib.suppress(IndexError):
                while True:
                    batch.append(inbox.popleft())
            if batch:
                self._commit(batch)
            if self._stopping and not inbox:
                break
            if self._ledger.unchecked > CHECKPOINT_ROWS:
                self._checkpoint()

    def _commit(self, batch: list[_Op]) -> None:
        index = self._index
        self._kept = 0
        try:
            for self._at, op in enumerate(batch):
                try:
                    op.result = op.verb(index)
                except NbqueueError as error:
                    op.error = error
            self._at = len(batch)
            handed = self._fill_open_slots(index)
            self._write_out(index)
        except Exception as error:  # noqa: BLE001 - every caller is told
            self._reopen(batch, error)
            return
        self._hand_out(handed, index.take_calls())
        for op in batch:
            op.done.release()
        self._tell_listeners()

    def _reopen(self, batch: list[_Op], error: Exception) -> None:
        """Go back to what is on disk after a failed commit: whoever waited for it is told that it was not kept."""
        before = self._index
        try:
            self._ledger.close()
            if isinstance(error, _FileGoneError):
                raise error
            self._connect_again(before)
        except Exception as again:  # noqa: BLE001 - the store says so from now on
            self._break(again)
        for i, op in enumerate(batch):
            # What came before a verb that needed SQL was kept with that verb's own commit.
            if i >= self._kept and not isinstance(op.error, NbqueueError):
                op.error = (
                    QueueUnavailable(self._broken)
                    if self._broken
                    else DispatchFailed(self._not_written(error))
                )
                op.error.__cause__ = error
            op.done.release()
        if self._broken:
            while self._inbox:
                op = self._inbox.popleft()
                op.error = QueueUnavailable(self._broken)
                op.done.release()
            # Whoever waits for a job or for work would wait for ever.
            waiting = [notify for notifies in before.watchers().values() for notify in notifies]
            self._hand_out(
                [(seat, []) for seat in before.seats.values()], [partial(notify, None) for notify in waiting]
            )
        else:
            # Each is asked for a turn: what it was to be handed is pending again.
            self._hand_out([(seat, []) for seat in before.seats.values()], self._index.take_calls())
        self._changed = True
        self._tell_listeners()

    def _connect_again(self, before: Index) -> None:
        connection = duckdb.connect(str(self._path), config={"enable_external_access": "false"})
        try:
            self._ledger = Ledger(connection, self.name)
            self._ledger.prepare()
            index = self._recover(before.seats)
            index.rewatch(before.watchers())
        except BaseException:
            connection.close()
            raise
        self._index = index

    def _break(self, error: Exception) -> None:
        """Take no more; whoever opens the file again, here or elsewhere, finds all that was acknowledged."""
        with self._gate:
            self._broken = (
                f"{self.name} was deleted or replaced while it was open here, and what it held went with it;"
                " connect again to go on with what is there now"
                if isinstance(error, _FileGoneError)
                else f"{self.name} cannot be written any more ({first_line(error)}); everything acknowledged is in"
                " it: mend the cause, then open it again"
            )
        self._ownership.release()

    def _not_written(self, error: Exception) -> str:
        return f"{self.name} could not be written ({first_line(error)}); nothing of this call was accepted"

    @property
    def broken(self) -> bool:
        """Whether it failed for good and has let go of its file; asks for that itself where the file has gone."""
        if not self._broken and not self._stopping and os.getpid() == self._pid and not self._is_there():
            with contextlib.suppress(NbqueueError):
                self._run(self._find_gone)
        return bool(self._broken)

    def _is_there(self) -> bool:
        """Whether the path still leads to the file that is open."""
        try:
            found = self._path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def _find_gone(self, _index: Index) -> None:
        if not self._is_there():
            raise _FileGoneError

    def _write_out(self, index: Index) -> None:
        writes = Writes.of(index)
        if writes:
            if not self._is_there():
                raise _FileGoneError
            self._ledger.commit(writes)
            self._changed = True
        self._kept = self._at
        index.settle()

    def _checkpoint(self) -> None:
        try:
            self._ledger.checkpoint()
        except duckdb.Error:
            # The log keeps everything; the next commit will say what is wrong.
            self._ledger.unchecked = 0

    def close(self) -> None:
        """Write what is left, and let go of the file; a fork's copy does neither, since both are its parent's."""
        if os.getpid() != self._pid:
            return
        with self._gate:
            if self._stopping:
                return
            self._stopping = True
        self._news.set()
        self._thread.join()
        if not self._broken and self._ledger.unchecked:
            self._checkpoint()
        with contextlib.suppress(duckdb.Error):
            self._ledger.close()
        if self.slot_folder is not None:
            with contextlib.suppress(OSError):
                self.slot_folder.rmdir()
        self._ownership.release()


def _interrupt(job: Any, index: Index, *, begun: bool, now: float) -> Interruption:
    worker = job.worker or "its worker"
    error = (
        f"worker {worker} went away while the job ran (its kernel or process was killed)"
        if begun
        else f"worker {worker} went away before the job was begun"
    )
    life = job.life
    step = index.lose(job, Lost(life.fence, begun), now, error=error)
    became = "failed" if step.life.state.ended else "given back to its queue"
    return Interruption(
        job.new.job_id,
        job.new.spec.command,
        job.new.spec.queue,
        job.worker,
        life.attempt,
        begun,
        f"{error}; {became}",
    )


def _cannot_open(path: Path, error: duckdb.Error) -> str:
    text = first_line(error)
    if "Could not set lock" in text:
        holder = text.partition("held in ")[2].partition(". See")[0] or "another program"
        return f"{path} is open in {holder}; close it there, or use another file here"
    if "not a valid DuckDB" in text:
        return f"{path} is not a DuckDB database; move it away, or name another file for the queue"
    return f"{path} cannot be opened: {text}"
