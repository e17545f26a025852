"""The DuckDB store: an index made durable by a ledger in one file, with one writer thread.

Verbs arrive from any thread and wait for the writer. Whatever arrives while it commits goes into the next commit, so
that throughput rises with load while a lone call costs one commit.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import duckdb

from nbqueue.errors import DispatchFailed, NbqueueError, QueueError, QueueUnavailable
from nbqueue.jobs import Claim, NewJob
from nbqueue.store import Capability, Selection
from nbqueue.stores import opening
from nbqueue.stores.asking import Moment
from nbqueue.stores.engine import IndexStore
from nbqueue.stores.handover import Bell, Op, Tell, finish
from nbqueue.stores.index import Index
from nbqueue.stores.ledger import FATAL, Ledger
from nbqueue.stores.owner import Ownership, check_file, check_path
from nbqueue.stores.pruning import Pruning
from nbqueue.stores.pulse import Pulse
from nbqueue.stores.reader import first_line
from nbqueue.stores.recovery import SlotFolder, bury, recover
from nbqueue.stores.writes import Writes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DuckDBStore"]

_log = logging.getLogger("nbqueue.store")

T = TypeVar("T")

#: A checkpoint comes after so many rows, commits or bytes, and as soon as this many seconds pass without a verb.
CHECKPOINT_ROWS = 200_000
CHECKPOINT_COMMITS = 2_000
CHECKPOINT_BYTES = 16 << 20
#: Seconds from one to the next, however long the log is.
CHECKPOINT_PAUSE = 0.5
IDLE_SECONDS = 2.0
#: What waits in the journal is folded in as soon as so many seconds pass without a verb.
FOLD_SECONDS = 0.25
#: Where so many rows came into the tables at once, who looks is shown how it stood then, for so many seconds: jobs run
#: by thousands, and a turn takes 10 to 90 ms.
STORM_ROWS, RECENT_SECONDS = 1_000, 0.5
#: Who has looked looks again within so many seconds, if at all.
LOOK_SECONDS = 2.0
#: Seconds between tries to open a file again that could not be.
RETRY_SECONDS = 0.5
#: Workers are looked after this often, though nobody asks for anything.
BEAT_SECONDS = 1.0


class _FileGoneError(Exception):
    """The file was deleted or replaced under its owner, who would go on writing to nowhere."""


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
    pulse : Pulse | None
        How often leases are looked at though nobody takes a turn, and how long nobody could be heard. None: a real
        one where ``ticks`` are real, otherwise none, since a test moves its time between turns.
    ownership : Ownership | None
        Of the file, if it was taken already; let go of where the file cannot be opened, and when this closes.

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
        pulse: Pulse | None = None,
        ownership: Ownership | None = None,
    ):
        # One file has one lock, whatever link it was reached by.
        path = Path(path).resolve()
        if pulse is None and ticks is time.monotonic:
            pulse = Pulse(BEAT_SECONDS)
        super().__init__(str(path), clock=clock, ticks=ticks, pulse=pulse)
        if ownership is None:
            check_path(path)
        self._path = path
        self._pid = os.getpid()
        self.slot_folder = path.with_name(path.name + ".slots")
        self._slots = SlotFolder(self.slot_folder)
        self._inbox: deque[Op] = deque()
        self._gate = threading.Lock()
        self._news = Bell()
        self._stopping = False
        #: Why it takes no more: for good, or until the file can be opened again.
        self._broken: str = ""
        self._ailing: str = ""
        self._try_at = self._checkpoint_from = 0.0
        #: How it stood when so much had been done that all of it was brought into the tables; until when that is shown.
        self._folded: tuple[float, Moment] | None = None
        #: Until when somebody may want to know that.
        self._looked_until = 0.0
        self._looked_at = 0
        #: Which verb of the batch is at work, and how many before it are on disk.
        self._at = self._kept = 0
        self._ownership = ownership or Ownership(path)
        if ownership is None:
            self._ownership.take()
        try:
            check_file(path)
            self._open()
        except BaseException:
            self._ownership.release(remove=True)
            raise
        self._thread = threading.Thread(target=self._write_loop, name="nbqueue-writer", daemon=True)
        self._thread.start()

    # -- opening and recovery

    def _open(self) -> None:
        unchecked = opening.log_size(self._path) > 0
        try:
            connection = opening.connect(self._path)
        except duckdb.Error as error:
            raise QueueUnavailable(opening.cannot_open(self._path, error)) from error
        self._ledger = Ledger(connection, self.name)
        try:
            self._ownership.hold()
            found = self._path.stat()
            self._file = (found.st_dev, found.st_ino)
            self.created = self._ledger.prepare()
            self._ledger.use_journal(self._path)
            self._index = self._recover(None)
            self._ledger.unchecked += unchecked
        except (duckdb.Error, OSError) as error:
            self._let_go()
            raise QueueUnavailable(opening.cannot_open(self._path, error)) from error
        except BaseException:
            self._let_go()
            raise
        self._slots.sweep()

    def _let_go(self) -> None:
        self._ledger.close()
        opening.drop_empty_log(self._path)

    def _new_index(self) -> Index:
        """Give an empty index whose numbers go on where those of the ledger end."""
        return Index(self._ledger, self._ledger.numbers(), self._chance)

    def _recover(self, before: Index | None) -> Index:
        """Rebuild the index; what ran under a worker that is not seated and has died was interrupted."""
        index = self._new_index()
        now, ticks = self._clock(), self._ticks()
        self.interrupted += recover(self._ledger, index, before, self._slots, now=now, ticks=ticks)
        self._ledger.commit(Writes.of(index))
        index.settle()
        index.take_calls()
        return index

    # -- the writer

    def _run(self, verb: Callable[[Index], T]) -> T:
        op = Op(verb)
        self._wait_for(op)
        result: T = op.result
        return result

    def _wait_for(self, op: Op) -> None:
        self._enter(op)
        op.done.acquire()
        if op.error is not None:
            raise op.error

    def insert(self, jobs: Sequence[NewJob], worker_id: str | None = None) -> list[Claim]:
        """Take new jobs, all or none; with ``worker_id`` for that worker alone."""
        if worker_id is not None:
            return super().insert(jobs, worker_id)
        self._wait_for(Op(jobs=jobs))
        return []

    def insert_soon(self, jobs: Sequence[NewJob], tell: Tell) -> bool:
        """Take new jobs, all or none, while nobody waits.

        ``tell`` is called by the writer with None when they are on disk, or with why they were not accepted. Gives
        whether it took the call, which it always does; a store that cannot says so.
        """
        self._enter(Op(jobs=jobs, tell=tell))
        return True

    def _enter(self, op: Op) -> None:
        """Bring a verb to the writer."""
        if os.getpid() != self._pid:
            # A fork has no writer; whatever it wrote to the file would be behind the owner's back.
            raise QueueUnavailable(
                f"{self.name} was opened before this process was forked, and stays with process {self._pid};"
                " hand in work there, and return to it what it needs to know"
            )
        if threading.current_thread() is self._thread:
            msg = "a callback of the queue may not ask the queue: it runs in the thread that would have to answer"
            raise QueueUnavailable(msg)
        with self._gate:
            # Whatever passes here is answered: the writer leaves only when the inbox is empty and the gate shut.
            if self._stopping or self._broken:
                raise QueueUnavailable(
                    self._broken or f"{self.name} is closed; open it again with nbqueue.connect"
                )
            self._inbox.append(op)
        # Each for himself: Ctrl-C may have struck another caller between coming in and ringing.
        self._news.set()

    def _write_loop(self) -> None:
        news, inbox = self._news, self._inbox
        quiet = 0.0
        while True:
            if not inbox:
                nap = self._nap()
                if not news.wait(nap) and not inbox:
                    quiet += nap or 0.0
                    self._rest(quiet)
                    continue
            quiet = 0.0
            batch = []
            with contextlib.suppress(IndexError):
                while True:
                    batch.append(inbox.popleft())
            if batch and not self._is_well():
                self._refuse(batch)
            elif batch:
                self._listen_again(self._index)
                self._commit(batch + self._chores())
                batch.clear()  # it may be a million rows, and the next verb a long time off
            if self._stopping and not inbox:
                break
            if self._ledger.is_full and self._fold_in():
                self._note_folded(self._index)
            if self._is_log_long():
                self._checkpoint()

    def _is_log_long(self) -> bool:
        ledger = self._ledger
        if ledger.commits == self._looked_at:
            return False  # nothing was folded in, so it is as long as it was
        self._looked_at = ledger.commits
        # DuckDB may have had a checkpoint of its own.
        self._keep_log_private()
        return (
            ledger.unchecked > CHECKPOINT_ROWS
            or ledger.commits > CHECKPOINT_COMMITS
            or opening.log_size(self._path) > CHECKPOINT_BYTES
        ) and time.monotonic() >= self._checkpoint_from

    def _keep_log_private(self) -> None:
        if self._is_there():
            opening.keep_log_private(self._path)

    def _nap(self) -> float | None:
        """How long to wait for a verb before there is something to do without one."""
        if self._ailing:
            return RETRY_SECONDS
        if self._retention.going is not None and not self._broken:
            return 0.0
        naps = [IDLE_SECONDS] if self._ledger.unchecked or self._retention.limited else []
        if self._ledger.waiting and not self._broken:
            naps.append(FOLD_SECONDS)
        if self._pulse is not None and self._index.seats and not self._broken:
            naps.append(self._pulse.every)
        return min(naps, default=None)

    def _rest(self, quiet: float) -> None:
        """Do what has to be done though nobody asks for it."""
        if self._broken or not self._is_well():
            return
        self._listen_again(self._index)
        if chores := self._chores():
            self._commit(chores)
        self._fold_in()
        if quiet >= IDLE_SECONDS and self._ledger.unchecked and self._is_well():
            self._checkpoint()

    def _chores(self) -> list[Op]:
        """What is due though nobody asks for it, as calls of its own: if one fails, nobody who reported is told so."""
        chores = []
        if self._index.seats and self._pulse is not None and self._pulse.is_due():
            chores.append(Op(self._look_after_workers))
        if self._is_retiring:
            chores.append(Op(self._retire))
        return chores

    def _look_after_workers(self, index: Index) -> None:
        now = self._clock()
        bury(index, list(index.seats), self._slots, now)
        index.lapse(now, self._ticks(), self._begun)

    def _begun(self, worker_id: str) -> Collection[int] | None:
        return self._slots.begun(worker_id)

    def bury(self, worker_ids: Collection[str]) -> list[str]:
        """Take the jobs of those of these workers whose process has gone; gives who they were.

        The others are left to their lease: they may have lost no more than a connection.
        """
        return self._run(lambda index: bury(index, worker_ids, self._slots, self._clock()))

    def _commit(self, batch: list[Op]) -> None:
        index = self._index
        self._kept = 0
        try:
            self._ask(index, batch)
            self._at = len(batch)
            handed = self._fill_open_slots(index)
            before = self._ledger.unchecked
            self._keep(index)
            if self._ledger.unchecked - before >= STORM_ROWS:
                self._note_folded(index)
        except Exception as error:  # noqa: BLE001 - every caller is told
            self._reopen(batch, error)
            return
        self._hand_out(handed, index.take_calls())
        finish(batch)
        self._tell_listeners()

    def _ask(self, index: Index, batch: Sequence[Op]) -> None:
        """Do what these calls want; what one is refused touches no other."""
        at, end = 0, len(batch)
        while at < end:
            self._at, op = at, batch[at]
            at += 1
            if op.verb is not None:
                try:
                    op.result = op.verb(index)
                except NbqueueError as error:
                    op.error = error
                continue
            # One call for all that lie together: a job then takes 2 us instead of 6.
            jobs = list(op.jobs)
            while at < end and batch[at].verb is None:
                jobs += batch[at].jobs
                at += 1
            try:
                index.insert(jobs, self._clock())
            except NbqueueError as error:
                for op in batch[self._at : at]:
                    op.error = error

    def _reopen(self, batch: list[Op], error: Exception) -> None:
        """Go back to what is on disk after a failed commit: whoever waited for it is told that it was not kept."""
        before, self._folded = self._index, None
        try:
            if isinstance(error, _FileGoneError):
                # The journal goes with its file, or it would be in the way of the next one.
                with contextlib.suppress(duckdb.Error):
                    self._ledger.fold_in()
            self._ledger.close()
            if isinstance(error, _FileGoneError):
                raise error
            self._connect_again(before)
        except (duckdb.Error, OSError) as again:
            self._ail(again, time.monotonic())
        except Exception as again:  # noqa: BLE001 - the store says so from now on
            self._break(again)
        for i, op in enumerate(batch):
            # What came before a verb that needed SQL was kept with that verb's own commit.
            if i >= self._kept and not isinstance(op.error, NbqueueError):
                op.error = self._failure(error)
                op.error.__cause__ = error
        finish(batch)
        if not self._ailing:
            self._tell_of_reopening(before)

    def _tell_of_reopening(self, before: Index) -> None:
        """Have workers and watchers look at what has become of the store."""
        calls = self._index.take_calls()
        if self._broken:
            waiting = []
            with contextlib.suppress(IndexError):
                while True:
                    waiting.append(self._inbox.popleft())
            self._refuse(waiting)
            # Whoever waits for a job or for work would wait for ever.
            calls = [partial(notify, None) for notifies in before.watchers().values() for notify in notifies]
        # Each worker is asked for a turn: what it was to be handed is pending again.
        self._hand_out([(seat, []) for seat in before.seats.values()], calls)
        self._changed = True
        self._tell_listeners()

    def _refuse(self, batch: list[Op]) -> None:
        for op in batch:
            op.error = QueueUnavailable(self._broken or self._ailing)
        finish(batch)

    def _is_well(self) -> bool:
        """Whether there is an open file; where it could not be opened again, it is tried now and then."""
        if not self._ailing:
            return True
        if time.monotonic() < self._try_at:
            return False
        before, start = self._index, time.monotonic()
        try:
            self._connect_again(before)
        except (duckdb.Error, OSError) as error:
            self._ail(error, start)
            if not self._broken:
                return False
        except Exception as error:  # noqa: BLE001 - the store says so from now on
            self._ailing = ""
            self._break(error)
        else:
            self._ailing = ""
            for seat in self._index.seats.values():
                # Nobody could be heard in the meantime.
                seat.lease_until = max(seat.lease_until, self._ticks() + seat.info.lease)
        self._tell_of_reopening(before)
        return not self._broken

    def _connect_again(self, before: Index) -> None:
        if not self._is_there():
            raise _FileGoneError
        self._ledger = Ledger(opening.connect(self._path), self.name)
        try:
            self._ledger.prepare()
            self._ledger.use_journal(self._path)
            index = self._recover(before)
            index.rewatch(before.watchers())
        except BaseException:
            self._ledger.close()
            raise
        self._index = index

    def _ail(self, error: Exception, start: float) -> None:
        """Take nothing until the file can be opened again: there is no room, or its disk is gone for a while."""
        if opening.is_damaged(error):
            self._ailing = ""
            self._break(error)
            return
        now = time.monotonic()
        # A try reads the whole log, which may take its time.
        self._try_at = now + max(RETRY_SECONDS, now - start)
        self._ailing = (
            f"{self.name} cannot be written just now ({first_line(error)}); nothing of this call was accepted, and"
            " everything acknowledged is in the file. Mend the cause (free some room): it goes on by itself then"
        )

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

    def _failure(self, error: Exception) -> QueueError:
        """What a call is told that met this error."""
        if self._broken:
            return QueueUnavailable(self._broken)
        if opening.is_damaged(error):
            return QueueUnavailable(opening.damage(self._path, error))
        return DispatchFailed(
            f"{self.name} could not be written ({first_line(error)}); nothing of this call was accepted"
        )

    @property
    def broken(self) -> bool:
        """Whether it failed for good and has let go of its file; asks for that itself where the file has gone."""
        if not self._broken and not self._stopping and os.getpid() == self._pid and not self._is_there():
            with contextlib.suppress(NbqueueError):
                self._run(self._find_gone)
        return bool(self._broken)

    def query(
        self, sql: str, params: Sequence[object] = (), frames: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """Run one read-only SELECT over the views and the given frames."""
        with self._reading("query"):
            return super().query(sql, params, frames)

    def moment(self, after: int = 0) -> Moment:
        """Give how it stands now, in one turn; while jobs run by thousands, how it stood a moment ago, without one.

        Not how it stood before the event ``after``: whoever has seen that would see jobs go.
        """
        now, folded = time.monotonic(), self._folded
        self._looked_until = now + LOOK_SECONDS
        if folded is not None and now < folded[0] and folded[1].seq >= after and self._runs():
            return folded[1]
        return super().moment()

    def _runs(self) -> bool:
        """Whether somebody holds claims on jobs; in a fork nobody is told anything but why."""
        return os.getpid() == self._pid and any(seat.claims for seat in list(self._index.seats.values()))

    def _note_folded(self, index: Index) -> None:
        """Remember how it stands where all of it is in the tables, as long as somebody looks at it."""
        now = time.monotonic()
        if now < self._looked_until and not self._ledger.waiting:
            self._folded = now + RECENT_SECONDS, self._moment(index)._replace(latest=False)

    # These leave no event: only so can nobody see what they did undone again.

    def _prune(self, index: Index, going: Pruning) -> None:
        super()._prune(index, going)
        self._folded = None

    def pause(self, queue: str, *, paused: bool) -> None:
        """Stop handing out a queue's jobs, or go on."""
        super().pause(queue, paused=paused)
        self._folded = None

    def read(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        """Run one SELECT of nbqueue's own on what was written out last, without a turn."""
        with self._reading("query"):
            return super().read(sql, params)

    def find(self, selection: Selection) -> list[UUID]:
        """Give the ids of the jobs selected, oldest first, while other verbs are answered."""
        with self._reading("selection"):
            return super().find(selection)

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Have the file opened again where what is read in another thread than the writer's finds it broken."""
        try:
            yield
        except (*FATAL, DispatchFailed) as failed:
            # What waited in the journal could not be folded in, or DuckDB gave up later.
            error = failed.__cause__ if isinstance(failed, DispatchFailed) and failed.__cause__ else failed
            if failed is error:
                with contextlib.suppress(NbqueueError):
                    self._run(partial(_fail, error))
            msg = f"{self.name} was opened again over this {what}, which broke off ({first_line(error)}); ask again"
            raise QueueUnavailable(msg) from error

    def _is_there(self) -> bool:
        """Whether the path still leads to the file that is open."""
        try:
            found = os.stat(self._path)  # noqa: PTH116 - half of what Path.stat takes, and asked at every commit
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def _find_gone(self, _index: Index) -> None:
        if not self._is_there():
            raise _FileGoneError

    def _write_out(self, index: Index) -> None:
        self._keep(index)
        self._ledger.fold_in()

    def _keep(self, index: Index) -> None:
        """Commit what the index has ready."""
        writes = Writes.of(index)
        if writes:
            if not self._is_there():
                raise _FileGoneError
            self._ledger.commit(writes)
            self._changed = True
        self._kept = self._at
        index.settle()

    def _fold_in(self) -> bool:
        """Bring what waits in the journal into the tables; gives whether it is there."""
        try:
            self._ledger.fold_in()
        except Exception as error:  # noqa: BLE001 - the journal has it, and whoever comes next is told
            self._reopen([], error)
            return False
        return True

    def _checkpoint(self) -> None:
        self._checkpoint_from = time.monotonic() + CHECKPOINT_PAUSE
        if not self._fold_in():
            return
        self._looked_at = 0
        try:
            self._ledger.checkpoint()
        except duckdb.Error as error:
            # The log keeps everything, and is tried to be folded in again after the next commit.
            self._ledger.unchecked = self._ledger.commits = 0
            if isinstance(error, FATAL):
                self._reopen([], error)
        self._keep_log_private()

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
        if not self._broken and (self._ledger.unchecked or self._ledger.waiting):
            self._checkpoint()
        with contextlib.suppress(duckdb.Error):
            self._ledger.close()
        opening.drop_empty_log(self._path)
        if self.slot_folder is not None:
            with contextlib.suppress(OSError):
                self.slot_folder.rmdir()
        self._ownership.release()


def _fail(error: BaseException, _index: Index) -> None:
    raise error
