"""What processes tell one another: a thread that hears and looks after things, another that tells.

Nobody relies on it: who hears nothing finds out with its next turn, or its next look. So a word is said after the
commit that it is about, many at once, and never in a verb's way: NOTIFY has all commits that say something wait for
one another.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

import psycopg

from nbqueue.errors import QueueUnavailable
from nbqueue.stores.postgres.link import Link, Tx
from nbqueue.stores.postgres.pool import Connection, connect
from nbqueue.stores.postgres.trouble import sentence

__all__ = ["Listening"]

_log = logging.getLogger("nbqueue.store")

#: PostgreSQL takes messages of fewer than 8,000 bytes.
_MESSAGE = 7_800
#: How often a process looks after leases, seconds.
LOOK_EVERY = 1.0
#: The longest pause between two tries to hear again.
_PAUSE_MAX = 5.0


class Listening:
    """The threads of a process; they begin when somebody has something to hear or to say.

    Parameters
    ----------
    link : Link
        The server.
    hear : Callable[[list[str]], None]
        Takes the words of other processes; [] means: words may have been lost, look at everything.
    look : Callable[[], None]
        Called about once a second while somebody listens.
    """

    def __init__(self, link: Link, hear: Callable[[list[str]], None], look: Callable[[], None]):
        self._link, self._hear, self._look = link, hear, look
        self._channel = f"nbqueue_{zlib.crc32(link.address.schema.encode()):08x}"
        #: Whose words are not for us: they are ours.
        self._me = uuid.uuid4().hex[:12]
        self._lock = threading.Condition()
        self._words: dict[str, None] = {}
        self._closed = False
        self._hearing: threading.Thread | None = None
        self._telling: threading.Thread | None = None
        #: A byte in it ends the wait for words.
        self._awake, self._end = socket.socketpair()

    # -- hearing

    def begin(self) -> None:
        """Hear what other processes say, from now on; does nothing under the clock of a test, nor a second time."""
        with self._lock:
            if self._hearing is not None or self._closed or self._link.clock is not None:
                return
            self._hearing = threading.Thread(target=self._listen, name="nbq-postgres-listen", daemon=True)
            self._hearing.start()

    def _listen(self) -> None:
        failures = 0
        while not self._closed:
            try:
                with connect(self._link.address, listens=True) as connection:
                    connection.execute(f"LISTEN {self._channel}")
                    # What was said before nobody has heard.
                    self._safely(partial(self._hear, []))
                    if failures:
                        _log.info("%s is reached again", self._link.name)
                    failures = 0
                    self._follow(connection)
            except psycopg.Error as error:
                failures += 1
                if failures == 1:
                    _log.warning("%s; it is tried again", sentence(error, self._link.address))
                self._link.wait(min(_PAUSE_MAX, 0.05 * 2 ** min(failures, 10)))

    def _follow(self, connection: Connection) -> None:
        look_at = 0.0
        while not self._closed:
            select.select(
                [connection.fileno(), self._awake.fileno()], [], [], max(0.0, look_at - time.monotonic())
            )
            words = [word for notify in connection.notifies(timeout=0) for word in self._read(notify.payload)]
            if words and not self._closed:
                self._safely(partial(self._hear, words))
            if time.monotonic() >= look_at and not self._closed:
                look_at = time.monotonic() + LOOK_EVERY
                self._safely(self._look)

    def _read(self, payload: str) -> list[str]:
        sender, *words = payload.split("\n")
        return [] if sender == self._me else words

    @staticmethod
    def _safely(call: Callable[[], None]) -> None:
        try:
            call()
        except QueueUnavailable as error:
            _log.debug("looking after the queue: %s", error)
        except Exception:  # noqa: BLE001 - whatever it is, others are to be heard
            _log.exception("looking after the queue failed")

    # -- telling

    def tell(self, words: Iterable[str]) -> None:
        """Have other processes told; nobody waits for it."""
        with self._lock:
            if self._closed or self._link.clock is not None:
                return
            self._words.update(dict.fromkeys(words))
            if self._telling is None:
                self._telling = threading.Thread(target=self._speak, name="nbq-postgres-tell", daemon=True)
                self._telling.start()
            self._lock.notify()

    def _speak(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._words or self._closed)
                words, self._words = self._words, {}
                if not words:
                    return
            messages = list(_messages(self._me, words))
            with suppress(QueueUnavailable):
                # Whoever hears nothing looks by itself.
                self._link.run(partial(self._say, messages))

    def _say(self, messages: list[str], tx: Tx) -> None:
        tx.execute("SELECT pg_notify(%s, m) FROM unnest(%s::text[]) AS m", [self._channel, messages])

    def close(self) -> None:
        """Say what is left to say, and hear no more."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._lock.notify_all()
        self._end.send(b"x")
        for thread in (self._telling, self._hearing):
            if thread is not None and thread is not threading.current_thread():
                thread.join(2 * LOOK_EVERY)
        for end in (self._awake, self._end):
            end.close()


def _messages(sender: str, words: Iterable[str]) -> Iterator[str]:
    """Pack words into as few messages as they fit."""
    message = sender
    for word in words:
        if len(message.encode()) + len(word.encode()) + 1 > _MESSAGE:
            yield message
            message = sender
        message += "\n" + word
    if message != sender:
        yield message
