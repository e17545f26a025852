"""The guest's side: the verbs of a store as questions to the owner of the file, for as long as it is there.

A guest belongs to one owner. When that goes, every call ends with ``OwnerGoneError`` and nobody knows how far it came;
what happens then is for whoever made the guest.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from nbqueue.errors import QueueError, QueueUnavailable
from nbqueue.jobs import Claim, JobRecord
from nbqueue.store import Handlers, WorkerInfo
from nbqueue.stores.owner import FileHeldError, Holder, Note
from nbqueue.stores.sharing import sockets
from nbqueue.stores.sharing.session import Peer
from nbqueue.stores.sharing.verbs import Verbs
from nbqueue.wire import Channel, ChannelClosedError, WireError, unpack_error

__all__ = ["Guest", "OwnerGoneError"]

_log = logging.getLogger("nbqueue.sharing")

#: Without an answer for so long it is asked whether the owner is still at work, seconds.
PATIENCE = 10.0
#: Calls at a time, of which each has a connection; and connections that are kept for the next call.
_CALLS_MAX, _IDLE_MAX = 32, 8


class OwnerGoneError(QueueUnavailable):
    """The owner went while it was asked; whether it did what it was asked is not known."""


class Guest(Verbs):
    """A store that another process owns.

    Parameters
    ----------
    path : Path
        Its file.
    note : Note
        Who has it, and where he answers.
    key : bytes
        What the owner has to know.
    guest_id : str
        Of this process, for ever.

    Raises
    ------
    OwnerGoneError
        If nobody is there (any more).
    FileHeldError
        If whoever is there does not answer, or has another secret.
    """

    def __init__(self, path: Path, note: Note, key: bytes, guest_id: str):
        self.name = str(path)
        self._path, self._note, self._key = path, note, key
        self._closed = False
        self._lock = threading.Lock()
        self._few = threading.BoundedSemaphore(_CALLS_MAX)
        self._idle: list[Channel] = []
        self._busy: set[Channel] = set()
        self._numbers = itertools.count(1)
        #: What is called when the owner tells of it: by worker, and by number.
        self._wakes: dict[str, Callable[[Sequence[Claim]], None]] = {}
        self._watches: dict[int, Callable[[JobRecord | None], None]] = {}
        #: How many ends of jobs each watch has still to be told of.
        self._to_come: dict[int, int] = {}
        self._listeners: dict[int, Callable[[], None]] = {}
        #: The thread that is calling one of these.
        self._telling: int | None = None
        me = Holder.myself()
        self._told = self._dial(("told", Peer(guest_id, me.pid, me.host, me.program)))
        try:
            self._session: str = self._told.recv(PATIENCE)
        except TimeoutError:
            self._told.close()
            raise self._silent() from None
        except (ChannelClosedError, WireError) as error:
            self._told.close()
            raise OwnerGoneError(str(error)) from error

    @property
    def holder(self) -> Holder:
        """Who has the file."""
        return self._note.holder

    # -- asking

    def _dial(self, greeting: tuple[object, ...]) -> Channel:
        try:
            channel = Channel(sockets.call(self._note.socket), self._key, server=False)
        except (ChannelClosedError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise self._silent() from error
            raise OwnerGoneError(f"{self._note.holder} is gone ({error})") from error
        except WireError as error:
            raise FileHeldError(self._path, self._note, f"which cannot be joined: {error}") from error
        try:
            channel.send(greeting)
        except ChannelClosedError as error:
            raise OwnerGoneError(str(error)) from error
        return channel

    def _silent(self) -> FileHeldError:
        return FileHeldError(self._path, self._note, "which does not answer (is it stopped, or very busy?)")

    def _ask(self, verb: str, *args: Any, **named: Any) -> Any:
        if self._telling == threading.get_ident():
            msg = "a callback of the queue may not ask the queue: it runs in the thread that would have to answer"
            raise QueueUnavailable(msg)
        with self._few:
            done, answer = self._exchange((verb, args, named))
        if not done:
            raise unpack_error(answer)
        return answer

    def _exchange(self, question: tuple[object, ...]) -> Any:
        channel = self._take()
        try:
            try:
                channel.send(question)
            except WireError as error:
                raise QueueError(f"{question[0]}: {error}") from error
            answer = self._answer(channel)
        except (ChannelClosedError, WireError) as error:
            self._drop(channel)
            raise OwnerGoneError(str(error)) from error
        except BaseException:
            # Whatever is still to come on it would be taken for the answer to something else.
            self._drop(channel)
            raise
        self._give_back(channel)
        return answer

    def _answer(self, channel: Channel) -> Any:
        """Wait for an answer for as long as the owner is at work."""
        while True:
            try:
                return channel.recv(PATIENCE)
            except TimeoutError:
                self._check_owner()

    def _check_owner(self) -> None:
        """Ask the owner for a sign of life, which takes it no time at all."""
        channel = self._dial(("asks", self._session))
        try:
            channel.send(("ping", (), {}))
            channel.recv(PATIENCE)
        except TimeoutError:
            raise self._silent() from None
        except (ChannelClosedError, WireError) as error:
            raise OwnerGoneError(str(error)) from error
        finally:
            channel.close()

    def _take(self) -> Channel:
        with self._lock:
            if self._closed:
                raise OwnerGoneError("the connection to the owner is closed")
            channel = self._idle.pop() if self._idle else None
            if channel is not None:
                self._busy.add(channel)
                return channel
        channel = self._dial(("asks", self._session))
        with self._lock:
            self._busy.add(channel)
            closed = self._closed
        if closed:
            self._drop(channel)
            raise OwnerGoneError("the connection to the owner is closed")
        return channel

    def _give_back(self, channel: Channel) -> None:
        with self._lock:
            self._busy.discard(channel)
            if not self._closed and len(self._idle) < _IDLE_MAX:
                self._idle.append(channel)
                return
        channel.close()

    def _drop(self, channel: Channel) -> None:
        with self._lock:
            self._busy.discard(channel)
        channel.close()

    # -- registering

    def join(
        self,
        worker: WorkerInfo,
        handlers: Handlers,
        wake: Callable[[Sequence[Claim]], None],
        held: Collection[int] = (),
    ) -> None:
        """Make a worker known, or have it come back."""
        self._wakes[worker.worker_id] = wake
        self._ask("join", worker, handlers, list(held))

    def leave(self, worker_id: str) -> None:
        """Forget a worker; what it still has is given back."""
        super().leave(worker_id)
        self._wakes.pop(worker_id, None)

    def watch(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]) -> Callable[[], None]:
        """Call ``notify`` once for each of these jobs when it has ended."""
        number = next(self._numbers)
        self._watches[number], self._to_come[number] = notify, len(ids)
        self._ask("watch", number, list(ids))
        return partial(self._unregister, self._watches, number)

    def listen(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` whenever something has changed that people can see."""
        number = next(self._numbers)
        self._listeners[number] = notify
        self._ask("listen", number)
        return partial(self._unregister, self._listeners, number)

    def _unregister(self, where: dict[int, Any], number: int) -> None:
        # A closed or lost owner calls nobody any more.
        self._to_come.pop(number, None)
        if where.pop(number, None) is not None and not self._closed:
            with contextlib.suppress(QueueUnavailable):
                self._ask("unregister", number)

    # -- being told

    def follow(self) -> None:
        """Pass on what the owner tells, until it is gone or this is closed."""
        while not self._closed:
            try:
                said = self._told.recv()
            except (ChannelClosedError, WireError) as error:
                _log.debug("the connection to %s ended: %s", self._note.holder, error)
                break
            self._telling = threading.get_ident()
            try:
                for what, *rest in said:
                    self._pass_on(what, *rest)
            finally:
                self._telling = None
        self.close()

    def _pass_on(self, what: str, *rest: Any) -> None:
        if what == "wake":
            worker_id, claims = rest
            _call(self._wakes.get(worker_id), claims)
        elif what == "ended":
            number, record = rest
            _call(self._watches.get(number), record)
            left = self._to_come[number] = self._to_come.get(number, 1) - 1
            if not left:
                # The owner has struck it off as well.
                self._watches.pop(number, None)
                self._to_come.pop(number, None)
        elif what == "changed":
            for listener in list(self._listeners.values()):
                _call(listener)

    def close(self) -> None:
        """End the connection; calls that are under way end with ``OwnerGoneError``."""
        with self._lock:
            self._closed = True
            channels = [*self._idle, *self._busy]
            self._idle.clear()
        for channel in channels:
            channel.close()
        self._told.close()


def _call(function: Callable[..., None] | None, *args: object) -> None:
    try:
        if function is not None:
            function(*args)
    except Exception:  # noqa: BLE001 - whatever it is, the others are told
        _log.exception("who was to be told of a change, a job's end, or of new jobs, raised")
