"""The Executor contract: takes chunks of claimed jobs, gives back reports; knows no store and no worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from nbqueue.jobs import Claim

if TYPE_CHECKING:
    from nbqueue.running.run import Runner
    from nbqueue.slots import SlotFile
    from nbqueue.store import Report

__all__ = ["SPARE_SLOTS", "Executor", "Running", "StopReason"]

#: An executor may open so many slots in place of those whose job cannot be stopped.
SPARE_SLOTS = 64


class StopReason(StrEnum):
    """Why a running job is told to stop."""

    CANCEL = "cancel"
    TIMEOUT = "timeout"
    #: Its worker stops: what it has done does not count.
    SHUTDOWN = "shutdown"


class Running(NamedTuple):
    """A job that runs now."""

    claim: Claim
    #: Seconds since the epoch, for people.
    started_at: float
    #: Seconds by a clock that never steps back, for deadlines.
    started: float
    #: Why it was told to stop; None: it was not.
    stopping: StopReason | None
    #: It was told to stop long ago and goes on; another slot was opened in place of its own.
    stuck: bool = False


class Executor(Protocol):
    """Runs claimed jobs in its slots."""

    #: "thread", "process" …
    name: str
    #: How many run at once.
    slots: int
    #: Whether functions go to other processes by value, so that what they use must be picklable.
    ships_code: bool

    def start(self, runner: Runner, done: Callable[[], None], slot_file: SlotFile | None) -> None:
        """Begin to take jobs; ``done`` is called, from any thread, when there is something to collect.

        Each slot notes in ``slot_file`` which claim it has begun.
        """

    def submit(self, claims: Sequence[Claim]) -> None:
        """Take these; they run in this order as slots come free."""

    def collect(self) -> list[Report]:
        """Give the reports that have come since the last call."""

    def news(self) -> list[Report]:
        """Give what running jobs have said since the last call: logs and progress."""

    def waiting(self) -> int:
        """How many were taken and not begun."""

    def withdraw(self, keep: int = 0) -> list[Claim]:
        """Give back what was not begun, but for the first ``keep``; those will not run."""

    def running(self) -> list[Running]:
        """What runs now."""

    def stop_job(self, fence: int, reason: StopReason) -> bool:
        """Tell one running job to stop; whether there was one. Its report comes when it has really ended."""

    def close(self, timeout: float) -> list[Claim]:
        """Run what has begun to its end for up to ``timeout`` seconds, then give back what has not ended.

        What is given back is not reported any more. ``start`` opens the executor anew.
        """
