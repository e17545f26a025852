"""The director of a chaos run: lets jobs in, kills, waits for the end, and has the account settled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nbqueue.chaos.account import Account
from nbqueue.chaos.audit import settle
from nbqueue.chaos.crew import Crew, Death, Freeze, Member
from nbqueue.chaos.plan import DISPATCHERS, LEASE, Plan
from nbqueue.chaos.roles import ACKNOWLEDGED, ALLOWED
from nbqueue.chaos.stage import Stage
from nbqueue.errors import NbqueueError, NotSupported
from nbqueue.facade.manager import QueueManager, connect
from nbqueue.jobs import State

__all__ = ["run"]

#: Long enough for the lease to run out, and for somebody to notice.
_FROZEN = LEASE * 1.5
#: So often a kill waits until everybody is back from the one before.
_ALL_THERE = 0.8
#: Between looks at what goes on, seconds.
_GLANCE = 0.002
#: Between questions to the queue itself.
_ASK = 0.05
#: So long is waited for a process of the kind to be killed, before another kind is taken.
_PATIENCE = 5.0


class _Director:
    def __init__(self, plan: Plan, stage: Stage, say: Callable[[str], None]):
        self.plan, self.stage, self._say = plan, stage, say
        self.folder = stage.folder
        self.crew = Crew(plan, stage)
        self.deaths: list[Death] = []
        self.takeovers: list[float] = []
        self.freezes: list[Freeze] = []
        #: How often there was no server for a moment.
        self.restarts = 0
        self._frozen: tuple[Member, float] | None = None
        self.faults: list[str] = []
        #: Processes that ended with an error, as they may.
        self.gave_up = 0
        self._rng = random.Random(f"kills {plan.seed}")
        self._effects = _Tail(self.folder / "effects")
        #: The owner that was killed, and when, until another serves.
        self._orphaned: tuple[int, float] | None = None
        self._until = time.monotonic() + plan.seconds

    # -- the course of a run

    def direct(self) -> None:
        """Let in, kill, and wait until every job has ended."""
        self._allow(0)
        for role in self.stage.roles:
            self.crew.start(role)
        self._until_true(self._all_ready, "all to be ready")
        kills, jobs = self.plan.kills, self.plan.jobs
        for number in range(kills):
            # Mostly all are at work when one is killed, and sometimes the last one is still missed.
            if self._rng.random() < _ALL_THERE:
                self._until_true(self._all_ready, "all to be ready")
            # Somewhere in the share of the jobs that is let in for this kill.
            share = jobs * (number + 1) // (kills + 1)
            done = self._effects.read()
            self._allow(share)
            here = self._rng.random() * 0.9 * jobs / (kills + 1)
            if len(self.freezes) < self.plan.freezes * (number + 1) / kills and self._frozen is None:
                # In the middle of its work, as the one that is killed.
                self._await_effects(done + int(here / 2))
                self._freeze()
            self._await_effects(done + int(here))
            if self.restarts < self.plan.restarts * (number + 1) // kills:
                self._restart()
            self._kill()
            self._say(f"{len(self.deaths)} of {kills} killed, {self._effects.count:,} runs of {jobs:,} jobs")
        self._until_true(lambda: self._frozen is None, "who is frozen to go on")
        self._allow(jobs)
        self._until_true(self._all_handed_in, "all jobs to be handed in")
        with connect(self.stage.target) as queues:
            self._until_true(lambda: not self._unfinished(queues), "all jobs to end")
            self.faults += self.crew.dismiss()

    def _allow(self, jobs: int) -> None:
        draft = self.folder / f"{ALLOWED}.new"
        draft.write_text(str(jobs))
        draft.replace(self.folder / ALLOWED)

    def _await_effects(self, count: int) -> None:
        # What was begun by those that were killed may be missing from the count for a while: go on all the same.
        until = time.monotonic() + 2.0
        while self._effects.read() < count and time.monotonic() < until:
            self._look()

    def _kill(self) -> None:
        # A new owner would give who is frozen a whole lease anew.
        kinds = {
            kind: share for kind, share in self.stage.kinds.items() if kind != "owner" or self._frozen is None
        }
        kind = self._rng.choices([*kinds], weights=[*kinds.values()])[0]
        until = time.monotonic() + _PATIENCE
        while not (victims := self.crew.victims(kind)):
            self._look()
            if time.monotonic() > until:
                kind = next(other for other in kinds if other != kind)
                until += _PATIENCE
        member, pid = self._rng.choice(victims)
        others = [
            one for one in self.crew.members.values() if one.ready and not one.frozen and one is not member
        ]
        death = self.crew.kill(kind, member, pid)
        self.deaths.append(death)
        if kind == "owner":
            self._orphaned = (pid, death.at) if others else None

    def _restart(self) -> None:
        """Have no server for a moment, in the middle of everything."""
        if self.stage.restart is not None:
            self.stage.restart()
            self.restarts += 1

    def _freeze(self) -> None:
        """Stop the kernel while it runs a job, unless it has the file or has nothing to do for long."""
        until = time.monotonic() + _PATIENCE
        while self.crew.members["kernel"].pid not in self._effects.begun.values():
            if time.monotonic() > until:
                return
            self._look()
            self._effects.read()
        member = self.crew.freeze()
        if member is not None:
            self._frozen = member, time.time()

    def _thaw(self) -> None:
        if self._frozen is None:
            return
        member, since = self._frozen
        if time.time() > since + _FROZEN:
            os.kill(member.pid, signal.SIGCONT)
            member.frozen, self._frozen = False, None
            self.freezes.append(Freeze(member.pid, since, time.time()))

    # -- meanwhile

    def _look(self) -> None:
        """See what goes on for a moment."""
        self._thaw()
        if self._orphaned is not None:
            was, since = self._orphaned
            pid, serves = self.crew.holder()
            if pid not in {was, 0} and serves:
                self.takeovers.append(time.time() - since)
                self._orphaned = None
        self.gave_up += self.crew.replace_those_that_gave_up()
        for fallen in self.crew.fallen():
            raise _FailedError(fallen)
        if time.monotonic() > self._until:
            raise _FailedError(f"it did not end within {self.plan.seconds:g} s")
        time.sleep(_GLANCE)

    def _until_true(self, is_so: Callable[[], bool], what: str) -> None:
        try:
            while not is_so():
                self._look()
        except _FailedError as error:
            raise _FailedError(f"while waiting for {what}: {error}") from None

    def _all_ready(self) -> bool:
        return all(one.ready for one in self.crew.members.values())

    def _unfinished(self, queues: QueueManager) -> int:
        # A server has other work.
        time.sleep(_ASK)
        return sum(info.counts[State.PENDING] + info.counts[State.RUNNING] for info in queues.queues())

    def _all_handed_in(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / ACKNOWLEDGED).read_text().splitlines()
            return all(f"done {dispatcher}" in lines for dispatcher in range(DISPATCHERS))
        return False


class _FailedError(Exception):
    """The run could not be brought to its end; what there is can be audited all the same."""


class _Tail:
    """Follows the lines that the jobs leave: how many have done their work, and which processes are at it."""

    def __init__(self, path: Path):
        self._path, self._at = path, 0
        self.count = 0
        #: Claims that were begun and are not done, and by which process.
        self.begun: dict[bytes, int] = {}

    def read(self) -> int:
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._at)
            new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._at += len(whole)
            for line in whole.splitlines():
                kind, _, _, fence, pid, *_ = line.split()
                if kind == b"b":
                    self.begun[fence] = int(pid)
                else:
                    self.begun.pop(fence, None)
                    self.count += 1
        return self.count


def run(plan: Plan, stage: Stage, say: Callable[[str], None] = lambda _: None) -> Account:
    """Run a plan on an empty stage, and settle the account; whatever is wrong is in its ``faults``.

    Parameters
    ----------
    plan : Plan
        How many jobs and kills.
    stage : Stage
        Of this run alone; all that is left stays in its folder.
    say : callable
        Is told how far it is.

    Raises
    ------
    NotSupported
        On a system that has no SIGKILL.
    """
    if os.name != "posix" or not hasattr(signal, "SIGKILL"):
        raise NotSupported("chaos kills with SIGKILL, which this system does not have")
    began = time.monotonic()
    director = _Director(plan, replace(stage, folder=stage.folder.resolve()), say)
    try:
        director.direct()
    except (_FailedError, NbqueueError) as error:
        director.faults.append(str(error))
    finally:
        director.crew.disband()
    say("settling the account")
    account = settle(director.stage, plan, director.deaths, director.freezes)
    account.takeovers, account.restarts = director.takeovers, director.restarts
    account.faults[:0] = director.faults
    account.refused += director.gave_up
    account.seconds = time.monotonic() - began
    return account
