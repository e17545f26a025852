"""A slot as its conversations see it: where attempts begin and end, and where more is to be had; knows no message."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from nbqueue.errors import NbqueueError, QueueError
from nbqueue.executors.conversation import Surroundings
from nbqueue.executors.pace import AHEAD, Pace
from nbqueue.executors.thread import ThreadSlot
from nbqueue.executors.tickets import AT_ONCE
from nbqueue.handlers.handler import Kind
from nbqueue.running.capture import Capture
from nbqueue.running.context import Context
from nbqueue.running.run import Attempt, Runner
from nbqueue.running.shipping import classes_in, parcel_of

if TYPE_CHECKING:
    from nbqueue.executors.children import Child
    from nbqueue.executors.conversation import Conversation
    from nbqueue.executors.todo import Todo
    from nbqueue.jobs import Claim, Spec
    from nbqueue.store import Report

__all__ = ["ProcessSlot", "SlotDesk"]

#: Elsewhere a child cannot tell how much of its output waits in a pipe, so what two jobs write cannot be parted.
_CAN_CUT = sys.platform == "linux"

#: So many characters of arguments are sent ahead at once: a child that has no room for them dies of it, and not of its
#: job; and one that hears of nothing, in C code, has a socket that takes as much.
_SMALL = 65_536


class ProcessSlot(ThreadSlot):
    """A thread, and its child."""

    __slots__ = ("child", "conversation", "failures", "trouble")

    def __init__(self, number: int):
        super().__init__(number)
        self.child: Child | None = None
        #: What it has with its child; None for a cell, which runs in the thread.
        self.conversation: Conversation | None = None
        #: Why there is no child, and how often in a row there was none.
        self.trouble: QueueError | None = None
        self.failures = 0


class SlotDesk:
    """A slot, for the conversations that it has with its children.

    Parameters
    ----------
    slot : ProcessSlot
        See there.
    runner : Runner
        Makes attempts.
    todo : Todo
        What waits for a slot.
    pace : Pace
        How long jobs take.
    take : Callable[[Report], None]
        Takes reports.
    """

    def __init__(
        self,
        slot: ProcessSlot,
        runner: Runner,
        todo: Todo[Claim | None],
        pace: Pace,
        take: Callable[[Report], None],
    ):
        self._slot = slot
        self._runner = runner
        self._pace = pace
        self._todo = todo
        self._take = take
        self.look_at_clock()

    @property
    def attempt(self) -> Attempt | None:
        """What runs, as far as is known here."""
        return self._slot.attempt

    @property
    def told(self) -> float | None:
        """Since when it is to stop."""
        return self._slot.told

    @property
    def closed(self) -> bool:
        """Nobody wants to know any more."""
        return self._slot.closed

    def begin(self, claim: Claim, started: float) -> Attempt:
        """Begin the attempt of a claim that the child began at this time."""
        services = self._runner.services

        def context(claim: Claim) -> Context:
            capture = Capture(key=services.key, owner=claim.job_id)
            return Context(claim, services.dispatcher, capture, started)

        attempt = Attempt(replace(self._runner, context=context), claim)
        attempt.started_at = self.wall(started)
        with self._slot.lock:
            self._slot.attempt = attempt
        return attempt

    def end(self, report: Report, seconds: float | None = None) -> None:
        """Take the report of what ran, and how long that took."""
        slot = self._slot
        if seconds is not None:
            self._pace.learn(report.claim.spec.command, seconds)
        with slot.lock:
            slot.attempt = slot.told = None
            slot.ended += 1
            if not slot.closed:
                # Together: whoever closes the executor finds it here or there.
                if slot.conversation is not None:
                    slot.conversation.strike(report.claim)
                self._take(report)

    def look_at_clock(self) -> None:
        """Give times as seconds since the epoch as the clock has it now."""
        self._epoch = self._runner.clock() - time.monotonic()

    def wall(self, moment: float) -> float:
        """Give a time of ``monotonic`` as seconds since the epoch."""
        return self._epoch + moment

    def back(self, claims: Sequence[Claim]) -> None:
        """Take back what was not begun: whatever slot is free takes it next."""
        self._todo.put_back(claims)

    def more(self, child: Child, had: Sequence[Claim]) -> list[tuple[Claim, int]]:
        """Give claims that may be sent behind these, with the numbers of their parcels, which the child has."""
        todo, expected = self._todo, self._pace.expected
        room = AHEAD - sum(expected(claim.spec.command) or AHEAD for claim in had)
        if room < AHEAD / 2 or not todo.qsize() or not _CAN_CUT:
            return []
        if child.outdated or Surroundings.here() != child.surroundings:
            return []

        size = _SMALL

        def fits(claim: Claim | None) -> bool:
            nonlocal room, size
            if claim is None:
                return False
            size -= len(claim.payload) + len(claim.metadata)
            if size < 0:
                return False
            room -= expected(claim.spec.command) or AHEAD
            return room >= 0

        # The other slots have a share in it, too.
        most = min(AT_ONCE, 1 + todo.qsize() // self._pace.slots)
        if child.limits.max_jobs is not None:
            most = min(most, child.limits.max_jobs - child.jobs)
        claims = [claim for claim in todo.take_while(fits, most) if claim is not None]
        numbers: dict[Spec, int | None] = {}
        found: list[tuple[Claim, int]] = []
        for claim in claims:
            spec = claim.spec
            number = numbers[spec] if spec in numbers else numbers.setdefault(spec, self._number(child, spec))
            if number is None or classes_in(claim.payload):
                break
            found.append((claim, number))
        self.back(claims[len(found) :])
        return found

    def _number(self, child: Child, spec: Spec) -> int | None:
        """The number of the parcel of a job's handler, if the child has it and runs such jobs."""
        try:
            handler = self._runner.resolve(spec)
            if handler is None or handler.kind is Kind.CELL:
                return None
            number = parcel_of(handler).number
        except NbqueueError:
            return None
        return number if child.parcels.get((handler.name, handler.origin)) == number else None
