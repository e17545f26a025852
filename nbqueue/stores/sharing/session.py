"""One guest as its owner sees it: what it has registered, what it asks for, and what it is to be told."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from nbqueue.errors import NbqueueError, NotSupported
from nbqueue.jobs import Claim, JobRecord
from nbqueue.store import Handlers, Store, WorkerInfo
from nbqueue.stores.sharing.verbs import VERBS
from nbqueue.wire import Channel, ChannelClosedError, allow

__all__ = ["Peer", "Served", "Session"]

_log = logging.getLogger("nbqueue.sharing")

#: So many things are told in one message, with so many characters of text or little more.
_TOLD_AT_ONCE, _WEIGHT = 500, 1 << 24


class Served(Store, Protocol):
    """What the owner of a file has beyond a store."""

    @property
    def broken(self) -> bool:
        """Whether it failed for good."""

    def bury(self, worker_ids: Collection[str]) -> list[str]:
        """Take their jobs from those of these workers whose process is gone; gives who they were."""


class Peer(NamedTuple):
    """Who a guest is."""

    #: Of the guest's process, for ever; it has one session at a time.
    guest_id: str
    pid: int
    host: str
    program: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program})"


allow(Peer)


class Session:
    """The time between a guest's coming and going.

    Parameters
    ----------
    store : Served
        What it asks.
    channel : Channel
        The one on which it is told of things.
    peer : Peer
        Who it is.
    order : threading.Lock
        One for all sessions of this guest: what concerns its workers comes one after the other, and never after
        something of a later session.
    """

    def __init__(self, store: Served, channel: Channel, peer: Peer, order: threading.Lock):
        self.peer = peer
        self.order = order
        self._store = store
        self.channel = channel
        #: A later session has begun, or this one has ended; under ``order``.
        self._over = False
        self._workers: set[str] = set()
        #: By the numbers that the guest gave them: how to stop, and how many ends of jobs are still to come.
        self._stops: dict[int, Callable[[], None]] = {}
        self._to_come: dict[int, int] = {}
        self._counting = threading.Lock()
        self._outbox: deque[tuple[Any, ...]] = deque()
        #: Told once, however often they happened: who is to take a turn, and that something has changed.
        self._asked: dict[str, None] = {}
        self._changed = self._finishing = False
        self._news = threading.Event()

    # -- what it asks for

    def answer(self, verb: str, args: Sequence[Any], named: dict[str, Any]) -> Any:
        """Do what it asks for."""
        mine = _MINE.get(verb)
        if mine is None and verb not in VERBS:
            raise NotSupported(f"there is no verb {verb!r} that a process which joined may use")
        call = getattr(self._store, verb) if mine is None else functools.partial(mine, self)
        if not _concerns_worker(verb, args):
            return call(*args, **named)
        with self.order:
            if self._over:
                raise ChannelClosedError("this session is over")
            answer = call(*args, **named)
            if verb == "leave":
                self._workers.discard(args[0])
            return answer

    def _join(self, worker: WorkerInfo, handlers: Handlers, held: Collection[int]) -> None:
        self._workers.add(worker.worker_id)
        self._store.join(worker, handlers, functools.partial(self._wake, worker.worker_id), held)

    def _watch(self, number: int, ids: Sequence[UUID]) -> None:
        self._to_come[number] = len(ids)
        stop = self._store.watch(ids, functools.partial(self._ended, number))
        with self._counting:
            if number in self._to_come:
                self._stops[number] = stop
        self._forget_if_over(number)

    def _listen(self, number: int) -> None:
        self._stops[number] = self._store.listen(self._notice)
        self._forget_if_over(number)

    def _forget_if_over(self, number: int) -> None:
        """Take back what came when its guest had gone: nobody else would."""
        if self._over:
            self._unregister(number)

    def _unregister(self, number: int) -> None:
        with self._counting:
            self._to_come.pop(number, None)
            stop = self._stops.pop(number, None)
        if stop is not None:
            stop()

    def _ping(self) -> None:
        """Show that this process is at work."""

    # -- what it is told; called in the store's thread, which waits for nobody

    def _wake(self, worker_id: str, claims: Sequence[Claim]) -> None:
        if claims:
            # As many as the worker's last turn left room for, so the outbox is bounded.
            self._outbox.append(("wake", worker_id, list(claims)))
        else:
            self._asked[worker_id] = None
        self._news.set()

    def _ended(self, number: int, record: JobRecord | None) -> None:
        if record is None:
            # The store broke: what the guest waits for, another owner may know.
            self._finishing = True
        else:
            # As many as jobs are watched, so the outbox is bounded.
            self._outbox.append(("ended", number, record))
            with self._counting:
                left = self._to_come[number] = self._to_come.get(number, 1) - 1
                if not left:
                    del self._to_come[number]
                    self._stops.pop(number, None)
        self._news.set()

    def _notice(self) -> None:
        self._changed = True
        self._news.set()

    def _tell(self) -> None:
        """Send what there is to tell, until the channel closes."""
        try:
            while not self._over:
                self._news.wait()
                self._news.clear()
                finishing = self._finishing
                self._tell_all()
                if finishing:
                    return
        except NbqueueError as error:
            _log.debug("%s is not told any more: %s", self.peer, error)
        finally:
            # A guest that is told nothing has to come anew.
            self.channel.close()

    def _tell_all(self) -> None:
        while self._outbox or self._asked or self._changed:
            said: list[tuple[Any, ...]] = []
            weight = 0
            while self._outbox and len(said) < _TOLD_AT_ONCE and weight < _WEIGHT:
                said.append(self._outbox.popleft())
                weight += _weight(said[-1])
            while self._asked:
                said.append(("wake", self._asked.popitem()[0], []))
            if self._changed:
                self._changed = False
                said.append(("changed",))
            self.channel.send(said)

    # -- its time

    def run(self) -> None:
        """Tell the guest what there is to tell, until it goes; then see to what it leaves."""
        teller = threading.Thread(target=self._tell, name="nbqueue-teller", daemon=True)
        teller.start()
        try:
            # It says nothing here: this ends when the channel does.
            self.channel.recv()
        except NbqueueError:
            pass
        finally:
            self.channel.close()
            self.end()
            self._news.set()
            teller.join()
        self._clear()

    def finish(self) -> None:
        """End it when all is told that there was to tell."""
        self._finishing = True
        self._news.set()

    def end(self) -> None:
        """Let nothing more of it happen to its workers: a later session of the same guest begins, or it went."""
        with self.order:
            self._over = True

    def _clear(self) -> None:
        with contextlib.suppress(NbqueueError):
            for number in list(self._stops):
                self._unregister(number)
            if self._workers:
                self._store.bury(list(self._workers))


_MINE: dict[str, Callable[..., Any]] = {
    "join": Session._join,  # noqa: SLF001 - they are the session's own
    "watch": Session._watch,  # noqa: SLF001
    "listen": Session._listen,  # noqa: SLF001
    "unregister": Session._unregister,  # noqa: SLF001
    "ping": Session._ping,  # noqa: SLF001
}


def _weight(told: tuple[Any, ...]) -> int:
    what, _, about = told
    if what == "wake":
        return sum(len(claim.payload) for claim in about)
    return len(about.payload) + len(about.result) + len(about.traceback)


def _concerns_worker(verb: str, args: Sequence[Any]) -> bool:
    """Whether it would do harm once the worker has joined anew."""
    return verb in ("join", "turn", "leave") or (verb == "insert" and args[1:] not in ((), (None,)))
