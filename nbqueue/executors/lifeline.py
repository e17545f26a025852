"""A pipe by which children end with their parent, whatever they are doing; knows no jobs.

The parent holds the writing end, and writes nothing into it but what the child alone is to know. When the parent goes,
however it goes, the kernel of the system sends SIGKILL to the child's whole process group: also where C code holds the
GIL, and to its own children. That takes Linux; elsewhere a child sees the end of its channel, and that takes a thread
of Python's.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

__all__ = ["Lifeline", "hold_on"]

KEY_SIZE = 32
#: Bytes of the length of what follows the key.
_LENGTH = 2

#: The writing ends that this process holds.
_held: set[int] = set()


class Lifeline:
    """The parent's end.

    Parameters
    ----------
    key : bytes
        What the child reads from it, ``KEY_SIZE`` bytes.
    home : str
        Where its jobs come from. A password may be in it, and everybody on the machine sees a command line.
    """

    def __init__(self, key: bytes, home: str = ""):
        #: What the child is given.
        self.reading, self._writing = os.pipe()
        _held.add(self._writing)
        place = home.encode()
        os.write(self._writing, key + len(place).to_bytes(_LENGTH) + place)

    def handed_over(self) -> None:
        """Let go of the end that the child has now."""
        reading, self.reading = self.reading, -1
        if reading >= 0:
            os.close(reading)

    def cut(self) -> None:
        """End the child and all of its process group, where the system does that."""
        self.handed_over()
        writing, self._writing = self._writing, -1
        if writing >= 0:
            _held.discard(writing)
            os.close(writing)


def _forget() -> None:
    # What is forked off this process must not keep the children of one that is gone alive.
    while _held:
        with contextlib.suppress(OSError):
            os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def hold_on(reading: int) -> tuple[bytes, str]:
    """Hang on the lifeline, in the child; gives the key, and where its jobs come from."""
    os.set_inheritable(reading, False)
    # It was written at once, and before the child was made.
    key, length = os.read(reading, KEY_SIZE), int.from_bytes(os.read(reading, _LENGTH))
    home = os.read(reading, length).decode() if length else ""
    try:
        import fcntl

        # 10 is F_SETSIG, which Python has no name for; only Linux knows it.
        set_signal = {"linux": 10}[os.uname().sysname.lower()]
        fcntl.fcntl(reading, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(reading, set_signal, signal.SIGKILL)
        flags = fcntl.fcntl(reading, fcntl.F_GETFL)
        fcntl.fcntl(reading, fcntl.F_SETFL, flags | os.O_ASYNC)
    except (ImportError, KeyError, OSError, AttributeError):
        return key, home
    # It may have been cut before.
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    if poll.poll(0):
        os._exit(1)
    return key, home
