"""The processes of a chaos run: starts them, knows who they are, who owns the file, and kills them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from nbqueue.chaos.plan import Plan
from nbqueue.chaos.roles import READY
from nbqueue.chaos.stage import Stage
from nbqueue.chaos.tasks import FOLDER

__all__ = ["Crew", "Death", "Freeze", "Member"]

#: A query that may have been the death of its owners is not made for ever: whoever asks is told.
_GIVES_UP = "ended over this call (query)"
#: Who begins while there is no server is told as well.
_NO_SERVER = "cannot be reached"


class Death(NamedTuple):
    """One kill."""

    #: "owner", "worker" or "child".
    kind: str
    role: str
    pid: int
    #: Seconds since the epoch, just before.
    at: float


class Freeze(NamedTuple):
    """A process that was stopped, and went on."""

    pid: int
    #: Seconds since the epoch.
    since: float
    until: float


class Member:
    """One process, and what it says."""

    def __init__(self, role: str, number: int, executor: str, plan: Plan, stage: Stage):
        self.role, self.executor = role, executor
        self.log = stage.folder / f"{role}-{number}.log"
        python = [sys.executable, "-m"]
        if role.startswith("terminal"):
            command = [*python, "nbqueue", "work", "--queue", "*", "--import", "nbqueue.chaos.tasks"]
            command += ["--executor", executor, "--concurrency", "2"]
        else:
            dispatcher = str(list(stage.roles).index(role))
            command = [*python, "nbqueue.chaos.roles", role, executor, dispatcher, json.dumps(asdict(plan))]
        # It is told where to be by its environment, which its children have too; one thread each for linear algebra.
        environment = {**os.environ, FOLDER: str(stage.folder), "NBQUEUE_URL": stage.target}
        environment["OPENBLAS_NUM_THREADS"] = "1"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own modules, with our own interpreter
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        self.pid = self.process.pid
        self._ready = False
        #: It is stopped.
        self.frozen = False

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it has said that it works."""
        self._ready = self._ready or READY in self.said()
        return self._ready and self.alive

    def said(self) -> str:
        """Give what it wrote."""
        return self.log.read_text(errors="replace")

    def gave_up(self) -> bool:
        """Whether it ended as it may."""
        said = self.said()
        return _GIVES_UP in said or (_NO_SERVER in said and READY not in said)

    def children(self) -> list[int]:
        """Give the processes that run jobs for it."""
        return [pid for pid, parent in _parents() if parent == self.pid] if self.executor == "process" else []


class Crew:
    """The processes that take part.

    Parameters
    ----------
    plan : Plan
        What they do.
    stage : Stage
        Where the queue is, and all that they leave.
    """

    def __init__(self, plan: Plan, stage: Stage):
        self._plan, self._stage = plan, stage
        self._lock = stage.folder / "jobs.duckdb.lock"
        self._started = dict.fromkeys(stage.roles, 0)
        self.members: dict[str, Member] = {}

    def start(self, role: str) -> None:
        """Start a process of a role, in place of the one before."""
        number = self._started[role]
        self._started[role] += 1
        executors = self._stage.roles[role]
        self.members[role] = Member(role, number, executors[number % len(executors)], self._plan, self._stage)

    def holder(self) -> tuple[int, bool]:
        """Give the process that the lock names, and whether it serves others already."""
        try:
            found = json.loads(self._lock.read_text())
            return int(found["pid"]), found.get("state", "serving") == "serving"
        except (OSError, ValueError, KeyError, TypeError):
            return 0, False

    def owner(self) -> Member | None:
        """Give the one that has the file; what is on a server nobody has."""
        pid, _ = self.holder()
        return next((one for one in self.members.values() if one.pid == pid and one.ready), None)

    def victims(self, kind: str) -> list[tuple[Member, int]]:
        """Give the processes of a kind that could be killed now."""
        ready = [one for one in self.members.values() if one.ready and not one.frozen]
        if kind == "child":
            return [(one, pid) for one in ready for pid in one.children()]
        owner = self.owner()
        return [(one, one.pid) for one in ready if (one is owner) is (kind == "owner")]

    def freeze(self) -> Member | None:
        """Stop a worker that runs jobs in its own process and does not have the file; None where there is none now."""
        one = self.members["kernel"]
        if one is self.owner() or not one.ready:
            return None
        os.kill(one.pid, signal.SIGSTOP)
        one.frozen = True
        return one

    def kill(self, kind: str, member: Member, pid: int) -> Death:
        """Kill a process with a signal that it cannot notice, and start another in its place if it was no child."""
        death = Death(kind, member.role, pid, time.time())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if pid == member.pid:
            member.process.wait()
            self.start(member.role)
        return death

    def replace_those_that_gave_up(self) -> int:
        """Start those again that said that they gave up: two owners died over one query, or there was no server yet."""
        gave_up = [one for one in self.members.values() if not one.alive and one.gave_up()]
        for one in gave_up:
            self.start(one.role)
        return len(gave_up)

    def fallen(self) -> Iterator[str]:
        """Give those that have ended though nobody killed them."""
        for one in self.members.values():
            if not one.alive:
                yield f"the {one.role} ended by itself with {one.process.returncode}: …{one.said()[-1500:]}"

    def dismiss(self, patience: float = 15.0) -> Iterator[str]:
        """Ask all of them to stop; gives those that did not."""
        for one in self.members.values():
            with contextlib.suppress(ProcessLookupError):
                one.process.terminate()
        for one in self.members.values():
            try:
                one.process.wait(patience)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
                yield f"the {one.role} did not end within {patience:g} s of SIGTERM: …{one.said()[-1500:]}"

    def disband(self) -> None:
        """Kill whoever is left."""
        for one in self.members.values():
            one.process.kill()
            one.process.wait()


def _parents() -> Iterator[tuple[int, int]]:
    """Give every process with its parent."""
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        listing = subprocess.run(["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607
        for line in listing.stdout.splitlines():
            pid, parent = line.split()
            yield int(pid), int(parent)
        return
    for folder in proc.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])
