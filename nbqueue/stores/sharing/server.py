"""The owner's side: takes in guests at a local socket and answers them, each connection in a thread of its own.

Whatever a guest sends, rightly or not, concerns its own connection alone.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbqueue.errors import NbqueueError
from nbqueue.stores.sharing import sockets
from nbqueue.stores.sharing.session import Peer, Served, Session
from nbqueue.wire import Channel, ChannelClosedError, WireError, pack_error

__all__ = ["CONNECTIONS_MAX", "Server", "channel_key"]

_log = logging.getLogger("nbqueue.sharing")

#: One more is closed at once.
CONNECTIONS_MAX = 512
#: Verbs under way when it closes are given so many seconds.
_PATIENCE = 5.0
#: So many seconds guests are given to take in what they are told last.
_LAST_WORDS = 1.0
#: So often it looks whether its socket can still be found, seconds.
_GLANCE = 1.0


def channel_key(secret: bytes) -> bytes:
    """Give the key of connections: the secret itself signs jobs, and nothing else."""
    return hmac.digest(secret, b"nbqueue: connections between processes", "sha256")


class Server:
    """Serves a store to the other processes of this user, until it is closed.

    Parameters
    ----------
    store : Served
        What is served; it stays open when this closes.
    queue : Path
        Its file.
    secret : bytes
        What guests have to know.
    moved : Callable[[Path], None]
        Is told where guests come from now on, where somebody has removed the socket.

    Raises
    ------
    QueueUnavailable
        Where no socket can be had.
    """

    def __init__(self, store: Served, queue: Path, secret: bytes, moved: Callable[[Path], None]):
        self._store, self._queue, self._moved = store, queue, moved
        self._key = channel_key(secret)
        self._listener, self.path = sockets.listen(queue)
        self._listener.settimeout(_GLANCE)
        self._change = threading.Condition()
        self._stopping = threading.Event()
        #: Verbs that are being done, and their answers sent.
        self._under_way = 0
        self._threads: set[threading.Thread] = set()
        self._channels: set[Channel] = set()
        #: By the id that calls name, and the latest of each guest.
        self._sessions: dict[str, Session] = {}
        self._latest: dict[str, Session] = {}
        self._doorman = threading.Thread(target=self._take_in, name="nbqueue-server", daemon=True)
        self._doorman.start()

    def guests(self) -> list[Peer]:
        """Give who is here now."""
        with self._change:
            return [session.peer for session in self._latest.values()]

    # -- coming

    def _take_in(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = sockets.keep(self._listener.accept()[0])
            except TimeoutError:
                self._stay_findable()
                continue
            except OSError:
                # Closed; or out of descriptors, which others may give back.
                self._stopping.wait(0.05)
                continue
            with self._change:
                if self._stopping.is_set() or len(self._threads) >= CONNECTIONS_MAX:
                    connection.close()
                    continue
                thread = threading.Thread(
                    target=self._attend, args=(connection,), name="nbqueue-guest", daemon=True
                )
                self._threads.add(thread)
            thread.start()

    def _stay_findable(self) -> None:
        """Listen elsewhere where the socket was removed: runtime folders go with the last login of their user."""
        if self.path.exists():
            return
        try:
            listener, path = sockets.listen(self._queue)
        except (NbqueueError, OSError) as error:
            _log.debug("%s is gone, and there is no other: %s", self.path, error)
            return
        listener.settimeout(_GLANCE)
        with self._change:
            if self._stopping.is_set():
                listener.close()
                path.unlink(missing_ok=True)
                return
            self._listener.close()
            self._listener, self.path = listener, path
        self._moved(path)

    def _attend(self, connection: socket.socket) -> None:
        """See one connection through, from its handshake to its end."""
        channel: Channel | None = None
        try:
            channel = Channel(connection, self._key, server=True)
            with self._change:
                self._channels.add(channel)
            if not self._stopping.is_set():
                self._greet(channel)
        except (NbqueueError, TimeoutError, OSError) as error:
            if isinstance(error, WireError):
                _log.debug("a connection was ended: %s", error)
        except Exception:  # noqa: BLE001 - whatever it is, it concerns this connection alone
            _log.exception("a connection ended on an error")
        finally:
            if channel is not None:
                channel.close()
            with self._change:
                self._threads.discard(threading.current_thread())
                if channel is not None:
                    self._channels.discard(channel)

    def _greet(self, channel: Channel) -> None:
        match channel.recv(_PATIENCE):
            case ("told", Peer() as peer):
                self._begin(channel, peer)
            case ("asks", str() as session_id) if session_id in self._sessions:
                self._serve(channel, self._sessions[session_id])
            case _:
                raise WireError("a connection begins by saying what it is for")

    def _begin(self, channel: Channel, peer: Peer) -> None:
        session_id = secrets.token_hex(8)
        with self._change:
            before = self._latest.get(peer.guest_id)
            order = threading.Lock() if before is None else before.order
            if self._stopping.is_set():
                return
            session = Session(self._store, channel, peer, order)
            self._sessions[session_id] = self._latest[peer.guest_id] = session
        if before is not None:
            before.end()
        else:
            _log.info("%s joined", peer)
        try:
            channel.send(session_id)
            session.run()
        finally:
            with self._change:
                del self._sessions[session_id]
                gone = self._latest[peer.guest_id] is session
                if gone:
                    del self._latest[peer.guest_id]
            if gone:
                _log.info("%s left", peer)

    # -- asking

    def _serve(self, channel: Channel, session: Session) -> None:
        while True:
            match channel.recv():
                case (str() as verb, tuple() as args, dict() as named):
                    if not self._do(channel, session, (verb, args, named)):
                        return
                case _:
                    raise WireError("what is asked is a verb with its arguments")

    def _do(self, channel: Channel, session: Session, asked: tuple[str, Any, Any]) -> bool:
        """Do a verb and answer; whether to go on. One that comes too late is left to the next owner."""
        with self._change:
            if self._stopping.is_set():
                return False
            self._under_way += 1
        failed = False
        try:
            try:
                answer = (True, session.answer(*asked))
            except ChannelClosedError:
                return False
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                failed = True
                if self._stopping.is_set():
                    # The store was closed over it.
                    return False
                answer = (False, pack_error(error))
            try:
                channel.send(answer)
            except (WireError, NbqueueError) as error:
                if isinstance(error, ChannelClosedError):
                    raise
                channel.send((False, pack_error(error)))
        finally:
            with self._change:
                self._under_way -= 1
                self._change.notify_all()
        if failed and self._store.broken:
            # Elsewhere it may be opened again.
            threading.Thread(target=self.close, name="nbqueue-closer", daemon=True).start()
        return True

    # -- going

    def close(self) -> None:
        """Take in nobody more, let what is under way end, and end all connections; guests go on elsewhere."""
        with self._change:
            if self._stopping.is_set():
                return
            self._stopping.set()
        # Closing a socket does not wake who waits at it; a caller does.
        with contextlib.suppress(OSError):
            sockets.call(str(self.path)).close()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._doorman.join(_PATIENCE)
        self._listener.close()
        with self._change:
            self._change.wait_for(lambda: not self._under_way, _PATIENCE)
            sessions, threads = list(self._sessions.values()), list(self._threads)
            told = {session.channel for session in sessions}
            asking = self._channels - told
        for channel in asking:
            channel.close()
        # Claims that are on their way to a guest would have to be taken back from it.
        for session in sessions:
            session.finish()
        until = time.monotonic() + _LAST_WORDS
        for channels in ((), told):
            for channel in channels:
                channel.close()
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            until += _PATIENCE
