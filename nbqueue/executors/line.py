"""The line from a child to its parent: tells, and asks and waits; any thread of the child may do either."""

from __future__ import annotations

import contextlib
import itertools
import os
from queue import SimpleQueue
from typing import Any

from nbqueue.errors import NotSupported
from nbqueue.wire import Channel, Fault, unpack_error

__all__ = ["Line"]


class Line:
    """A channel, and what waits for an answer on it.

    Parameters
    ----------
    channel : Channel
        To the parent.
    bell : int
        What the parent waits at while it does not listen to the channel: the writing end of a pipe.
    """

    def __init__(self, channel: Channel, bell: int) -> None:
        self._channel = channel
        self._bell = bell
        #: The parent does not listen to each message, but waits for the bell.
        self.muffled = False
        self._socket = os.fstat(channel.fileno())[:3]
        self._pid = os.getpid()
        self._numbers = itertools.count()
        self._asked: dict[int, SimpleQueue[Any]] = {}

    def send(self, *message: Any) -> None:
        """Tell the parent something, at once."""
        # What a job forks off has all of this, and is not the one that is listened to.
        if os.getpid() == self._pid:
            self.tell(*message)
            self.ring()

    def tell(self, *message: Any) -> None:
        """Tell the parent something that can wait until the bell rings."""
        self._check_channel()
        self._channel.send(message)

    def ring(self) -> None:
        """Have the parent listen now."""
        if self.muffled:
            with contextlib.suppress(OSError):
                os.write(self._bell, b"x")

    def _check_channel(self) -> None:
        # A job that closes descriptors by their numbers leaves the other thread waiting on one that is nobody's.
        try:
            if os.fstat(self._channel.fileno())[:3] == self._socket:
                return
        except OSError:
            pass
        os.write(2, b"nbqueue: the job closed the descriptor by which its process reports\n")
        os._exit(1)

    def ask(self, what: str, *parts: Any) -> Any:
        """Ask the parent for something, and wait for the answer."""
        if os.getpid() != self._pid:
            raise NotSupported(f"a process that a job forks off cannot {what}; let the job itself do it")
        number, answers = next(self._numbers), SimpleQueue[Any]()
        self._asked[number] = answers
        try:
            self.tell("ask", number, what, *parts)
            self.ring()
            answer = answers.get()
        finally:
            self._asked.pop(number, None)
        if isinstance(answer, Fault):
            raise unpack_error(answer)
        return answer

    def answer(self, number: int, answer: Any) -> None:
        """Give an answer that has come to whoever waits for it."""
        asked = self._asked.get(number)
        if asked is not None:
            asked.put(answer)
