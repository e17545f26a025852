"""What is asked of every queue that is measured beside nbqueue, and how one says that it cannot be had here."""

from __future__ import annotations

import threading
from typing import Protocol

__all__ = ["PATIENCE", "Countdown", "Missing", "Peer"]

#: Nothing that is measured may take longer than this, seconds.
PATIENCE = 600.0


class Missing(Exception):
    """A queue is not to be had on this machine; the message says what is missing."""


class Peer(Protocol):
    """A queue that was opened, empty."""

    def enqueue(self, jobs: int) -> None:
        """Hand in so many jobs that do nothing, one by one, as its users do."""

    def drain(self, jobs: int) -> float:
        """Run so many jobs that wait, by workers of its own; gives the seconds until the last has ended."""


class Countdown:
    """Tells when something was called so many times.

    Parameters
    ----------
    times : int
        How often.
    """

    def __init__(self, times: int) -> None:
        self._left = times
        self._lock = threading.Lock()
        self._over = threading.Event()

    def count(self) -> None:
        """Be called."""
        with self._lock:
            self._left -= 1
            if not self._left:
                self._over.set()

    def wait(self) -> None:
        """Wait for the last call.

        Raises
        ------
        TimeoutError
            If it does not come.
        """
        if not self._over.wait(PATIENCE):
            raise TimeoutError(f"{self._left:,} calls did not come within {PATIENCE:g} s")
