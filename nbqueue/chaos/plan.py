"""What a chaos run does: how many jobs and kills, and which process hands in what; decided by the seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["COMMANDS", "DISPATCHERS", "FLAKY_FAILS", "LEASE", "Operation", "Plan"]

#: The names of the jobs, as often as they come.
COMMANDS = (*("chaos:quick",) * 10, *("chaos:brief",) * 4, *("chaos:flaky",) * 4, "chaos:slow")
#: So many attempts of a flaky job fail by design.
FLAKY_FAILS = 2
#: Of workers that may be frozen: long enough for a machine that has much else to do.
LEASE = 6.0
#: So many processes hand in jobs.
DISPATCHERS = 2
#: How many jobs one call hands in.
_SIZES = (1, 1, 1, 1, 1, 1, 4, 15, 40)
_QUEUES = ("default", "imports", "emails")


class Operation(NamedTuple):
    """One call that hands in jobs."""

    position: int
    #: "one", "many" or "map".
    kind: str
    command: str
    queue: str
    #: The number of its first job, and how many there are.
    first: int
    size: int
    #: Seconds until they may run.
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a run goes.

    Parameters
    ----------
    jobs : int
        How many are handed in.
    kills : int
        How often a process is killed.
    freezes : int
        How often a worker is stopped for longer than its lease, and then goes on.
    restarts : int
        How often the server is stopped and started again, where the queue is on one.
    seed : int
        Of all that is random in it. The machine's own timing is not, so no two runs are the same.
    seconds : float
        The longest that it may take.
    """

    jobs: int = 1_000
    kills: int = 20
    freezes: int = 0
    restarts: int = 0
    seed: int = 1
    seconds: float = 300.0

    def operations(self, dispatcher: int) -> Iterator[Operation]:
        """Give what one of the dispatching processes hands in, in order."""
        rng = random.Random(self.seed)
        first = index = 0
        while first < self.jobs:
            size = min(rng.choice(_SIZES), self.jobs - first)
            kind = "one" if size == 1 else rng.choice(("many", "map"))
            command, queue = rng.choice(COMMANDS), rng.choice(_QUEUES)
            delay = rng.random() * 0.3 if rng.random() < 0.1 else 0.0
            if index % DISPATCHERS == dispatcher:
                yield Operation(index, kind, command, queue, first, size, delay)
            first += size
            index += 1
