"""The store of a queue file for any process: it owns the file, or is the guest of who does, and changes over by itself.

What a caller sees is a store. While it is a guest, what was registered is kept here, so that it can be registered anew
when the owner goes: at the next owner, or in this very process, if that is the next.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from nbqueue.errors import NbqueueError, QueueError, QueueUnavailable
from nbqueue.jobs import Claim, JobRecord, NewJob
from nbqueue.store import Answer, Handlers, Report, Store, Turn, WorkerInfo
from nbqueue.stores.asking import Moment
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.engine import Interruption
from nbqueue.stores.handover import Tell
from nbqueue.stores.owner import FileHeldError, Holder, Note, Ownership, Standing, check_folder
from nbqueue.stores.sharing.guest import Guest, OwnerGoneError
from nbqueue.stores.sharing.joining import own_or_join
from nbqueue.stores.sharing.registration import (
    Desk,
    Listening,
    Registration,
    Retaining,
    Seated,
    Wake,
    Watching,
)
from nbqueue.stores.sharing.server import Server, channel_key
from nbqueue.stores.sharing.succession import FileGoneError, Role, Succession
from nbqueue.stores.sharing.verbs import Verbs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SharedStore"]

_log = logging.getLogger("nbqueue.sharing")

#: A call is made so often at most, where owners die over it; a query that kills its owner kills no third one.
_SENDS, _SENDS_OF_QUERY = 8, 2


class SharedStore(Verbs):
    """Jobs in one file that processes share.

    Parameters
    ----------
    path : Path
        The file; made if there is none.
    secret : Callable[[], bytes]
        Gives what all processes of this user know.
    clock : Callable[[], float]
        Seconds since the epoch.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back.

    Raises
    ------
    QueueUnavailable
        Where the file can neither be owned nor joined; the sentence says why and who has it.
    """

    def __init__(
        self,
        path: Path,
        secret: Callable[[], bytes],
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ):
        # One file has one lock, whatever link it was reached by.
        self._path = path = Path(path).resolve()
        check_folder(path)
        #: What people call it.
        self.name = str(path)
        #: Where workers note which job each slot has begun.
        self.slot_folder = path.with_name(path.name + ".slots")
        #: Whether this made the file, and what it found interrupted in it; a guest has done neither.
        self.created = False
        self.interrupted: list[Interruption] = []
        self._secret, self._clock, self._ticks = secret, clock, ticks
        self._guest_id = uuid.uuid4().hex
        self._desk = Desk()
        self._owned: DuckDBStore | None = None
        self._myself = Holder.myself()
        self._server: Server | None = None
        self._file: tuple[int, int] | None = None
        #: Whether there is what this process's own store could not be told yet.
        self._untold = False
        self._role = Succession(self.name, self._settle, self._introduce, self._give_up)
        self._role.begin()

    # -- who has the file

    def holder(self) -> Holder:
        """Give the process that has the file.

        Raises
        ------
        QueueUnavailable
            If nobody has it now, and why nobody can.
        """
        role = self._role.reach()
        return role.holder if isinstance(role, Guest) else self._myself

    @property
    def broken(self) -> bool:
        """Whether it failed for good; whoever connects again finds all that was acknowledged."""
        return bool(self._role.gone) if self._owned is None else self._owned.broken

    def _settle(self, stop: threading.Event) -> Role:
        """Own the file, or join its owner."""
        return own_or_join(self._path, self._own, self._join, stop)

    def _join(self, note: Note) -> Guest:
        guest = Guest(self._path, note, channel_key(self._secret()), self._guest_id)
        self._file = self._file or _identity(self._path)
        if self._file != _identity(self._path):
            guest.close()
            raise self._gone()
        _log.info("%s is held by %s", self.name, note.holder)
        return guest

    def _own(self, ownership: Ownership) -> DuckDBStore:
        try:
            if self._file not in (None, _identity(self._path)):
                raise self._gone()
            store = DuckDBStore(self._path, clock=self._clock, ticks=self._ticks, ownership=ownership)
        except BaseException:
            ownership.release(remove=True)
            raise
        self._owned, self._myself = store, ownership.holder()
        self.created, self.interrupted = store.created, store.interrupted
        try:
            self._server = Server(store, self._path, self._secret(), partial(self._serve_at, ownership))
        except NbqueueError as error:
            ownership.tell(Standing.ALONE, reason=str(error))
        else:
            self._serve_at(ownership, self._server.path)
        _log.info("%s is held by this process", self.name)
        return store

    @staticmethod
    def _serve_at(ownership: Ownership, socket: Path) -> None:
        ownership.tell(Standing.SERVING, socket=str(socket))

    def _gone(self) -> FileGoneError:
        return FileGoneError(
            f"{self.name} was deleted or replaced while it was open, and what it held went with it;"
            " connect again to go on with what is there now"
        )

    def _introduce(self, role: Role) -> bool:
        """Register at the next owner, here or elsewhere, what was registered at the last; whether that is done."""
        with self._role.change:
            registered = self._desk.all()
        untold = False
        for one in registered:
            try:
                one.register(role, self._wake_of)
            except QueueError:
                if isinstance(role, Guest):
                    raise
                # It cannot write, and is the owner nevertheless; whoever asks it next is told why.
                untold = True
        self._untold = untold
        return not untold

    def _give_up(self) -> None:
        for one in self._desk.all():
            one.give_up()

    def _wake_of(self, role: Store, seat: Seated) -> Wake:
        """Give what hands claims to a worker, and keeps which it has; what a lost owner gave counts for nothing."""
        if role is self._owned:
            return seat.wake

        def wake(claims: Sequence[Claim]) -> None:
            with self._role.change:
                if self._role.current is not role:
                    return
                seat.took(claims)
            seat.wake(claims)

        return wake

    # -- asking

    def _ask(self, verb: str, *args: Any, **named: Any) -> Any:
        return self._send(verb, args, named)

    def _send(
        self,
        verb: str,
        args: Sequence[Any],
        named: Mapping[str, Any],
        again: Mapping[str, Any] | None = None,
        keep: Callable[[Any], None] | None = None,
    ) -> Any:
        """Ask, and ask again where the owner went over it, saying so; ``keep`` is given the answer that counts."""
        for _ in range(_SENDS_OF_QUERY if verb == "query" else _SENDS):
            role = self._role.reach()
            try:
                answer = getattr(role, verb)(*args, **named)
            except OwnerGoneError:
                self._role.lose(role)
                named = {**named, **(again or {})}
                continue
            except FileHeldError:
                # It does not answer, and may still do what it was asked.
                self._role.lose(role)
                raise
            if role is self._owned:
                return answer
            with self._role.change:
                # The answer of an owner that is lost meanwhile: what it gave has been taken back from whoever has it.
                if self._role.current is role:
                    if keep is not None:
                        keep(answer)
                    return answer
        raise QueueUnavailable(
            f"every process that had {self.name} ended over this call ({verb}); it is not tried again"
        )

    def insert(self, jobs: Sequence[NewJob], worker_id: str | None = None) -> list[Claim]:
        """Take new jobs, all or none; with ``worker_id`` for that worker alone."""
        seat = None if worker_id is None else self._desk.seated.get(worker_id)
        claims: list[Claim] = self._send("insert", (jobs, worker_id), {}, keep=seat.took if seat else None)
        return claims

    def insert_soon(self, jobs: Sequence[NewJob], tell: Tell) -> bool:
        """Have this process's own store take new jobs while nobody waits; another's is asked by a thread."""
        owned = self._owned
        return owned is not None and self._role.ready is owned and owned.insert_soon(jobs, tell)

    def moment(self, after: int = 0) -> Moment | None:
        """Have this process's own store say how it stands, in one turn; another's cannot be asked so."""
        owned = self._owned
        return owned.moment(after) if owned is not None and self._role.ready is owned else None

    def read(self, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
        """Run one SELECT of nbqueue's own, in this process without a turn."""
        owned = self._owned
        if owned is not None and self._role.ready is owned:
            return owned.read(sql, params)
        return self.query(sql, params)

    def cancel(self, ids: Sequence[UUID], *, again: bool = False) -> list[Answer]:
        """Cancel pending jobs, ask running ones to stop."""
        answers: list[Answer] = self._send("cancel", (ids,), {"again": again}, {"again": True})
        return answers

    def retry(self, ids: Sequence[UUID], fences: Sequence[int] | None = None) -> list[Answer]:
        """Let ended jobs run again and waiting ones run now."""
        if fences is None and self._role.ready is not self._owned:
            # Sent again, it is to change nothing that the first time has changed.
            seen = {record.job_id: record.fence for record in self.get(ids)}
            again = {"fences": [seen.get(job_id, 0) for job_id in ids]}
        else:
            again = {}
        answers: list[Answer] = self._send("retry", (ids,), {"fences": fences}, again)
        return answers

    def turn(
        self, worker_id: str, reports: Sequence[Report], slots: int, handlers: Handlers | None = None
    ) -> Turn:
        """Record reports, renew the lease, and claim, in one commit."""
        seat = self._desk.seated.get(worker_id)
        if seat is not None and self._untold and self._owned is not None:
            # Who is not seated yet would be told that its lease is over.
            seat.register(self._owned, self._wake_of)

        def keep(turn: Turn) -> None:
            if seat is not None:
                seat.said(reports)
                seat.took(turn.claims)
                seat.handlers = handlers or seat.handlers

        turn: Turn = self._send("turn", (worker_id, reports, slots, handlers), {}, keep=keep)
        return turn

    # -- registering

    def join(
        self,
        worker: WorkerInfo,
        handlers: Handlers,
        wake: Callable[[Sequence[Claim]], None],
        held: Collection[int] = (),
    ) -> None:
        """Make a worker known, or have it come back."""
        before = self._desk.seated.get(worker.worker_id)
        if before is not None:
            before.stop()
        self._register(Seated(worker, handlers, wake, set(held)))

    def leave(self, worker_id: str) -> None:
        """Forget a worker; what it still has is given back."""
        seat = self._desk.seated.pop(worker_id, None)
        if seat is not None:
            seat.stop()
        super().leave(worker_id)

    def retain(self, seconds: float | None, keep: int | None = None) -> None:
        """From now on forget ended jobs this long after their end, and the oldest of too many."""
        self._register(Retaining(seconds, keep))

    def watch(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]) -> Callable[[], None]:
        """Call ``notify`` once for each of these jobs when it has ended."""
        if self._role.ready is self._owned is not None:
            return self._owned.watch(ids, notify)
        return self._register(Watching(ids, notify))

    def listen(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` whenever something has changed that people can see."""
        if self._role.ready is self._owned is not None:
            return self._owned.listen(notify)
        return self._register(Listening(notify))

    def _register(self, one: Registration) -> Callable[[], None]:
        with self._role.change:
            self._desk.add(one)
        try:
            while True:
                role = self._role.reach()
                try:
                    one.register(role, self._wake_of)
                except OwnerGoneError:
                    self._role.lose(role)
                except FileHeldError:
                    self._role.lose(role)
                    raise
                else:
                    return partial(self._unregister, one)
        except BaseException:
            self._unregister(one)
            raise

    def _unregister(self, one: Registration) -> None:
        with self._role.change:
            self._desk.drop(one)
        one.stop()

    # -- closing

    def close(self) -> None:
        """Write what is left and let go of the file, which a guest takes over; a guest only goes."""
        if not self._role.close():
            return
        # It may have come to own the file in its last moment.
        if self._server is not None:
            self._server.close()
        if self._owned is not None:
            self._owned.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)
