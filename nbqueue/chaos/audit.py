"""The account of a chaos run, settled from the queue's history, from what was acknowledged and from what jobs left."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nbqueue.chaos.account import Account
from nbqueue.chaos.crew import Death, Freeze
from nbqueue.chaos.plan import FLAKY_FAILS, Plan
from nbqueue.chaos.roles import ACKNOWLEDGED
from nbqueue.chaos.stage import Stage
from nbqueue.facade.manager import QueueManager, connect

__all__ = ["settle"]

#: Clocks are read a moment apart.
_SLACK = 0.05
#: A child may work on for so long after its worker was killed.
_ORPHAN = 1.0
#: Of faults of one kind, so many are named.
_NAMED = 5

_JOBS = """
    SELECT job_id::VARCHAR AS job_id, command, state::VARCHAR AS state, cause, crashes, result, arguments,
           batch_id::VARCHAR AS batch_id, row_label
    FROM jobs
"""
_ATTEMPTS = """
    SELECT job_id::VARCHAR AS job_id, attempt, outcome::VARCHAR AS outcome, cause, epoch(claimed_at) AS claimed,
           epoch(finished_at) AS finished, worker, fence
    FROM attempts
"""
_ENDINGS = """
    SELECT job_id::VARCHAR AS job_id, count(*) AS times FROM events
    WHERE event IN ('succeeded', 'failed', 'cancelled') GROUP BY job_id
"""
_STALE = "SELECT count(*) AS reports FROM events WHERE event = 'stale'"
# What ends an attempt must carry the fence of the claim that was the job's latest at that moment.
_APPLIED = """
    SELECT job_id::VARCHAR AS job_id, event, fence, latest FROM (
        SELECT job_id, event, fence,
               max(CASE WHEN event = 'claimed' THEN fence END) OVER (PARTITION BY job_id ORDER BY seq) AS latest
        FROM events)
    WHERE event IN ('succeeded', 'failed', 'retrying', 'interrupted', 'released', 'refused', 'cancelled')
      AND fence IS NOT NULL AND fence IS DISTINCT FROM latest
"""


class _Effect(NamedTuple):
    """A line that a job left: that it began, or that it has done its work."""

    kind: str
    job_id: str
    attempt: int
    fence: int
    pid: int
    parent: int
    at: float


def settle(stage: Stage, plan: Plan, deaths: Sequence[Death], freezes: Sequence[Freeze] = ()) -> Account:
    """Settle the account of a run whose processes have all ended.

    Parameters
    ----------
    stage : Stage
        Where it took place.
    plan : Plan
        What was to be done.
    deaths : sequence of Death
        Who was killed, and when.
    freezes : sequence of Freeze
        Who was stopped for a while.
    """
    with connect(stage.target) as queues:
        return _Audit(queues, stage.folder, deaths, freezes).account(plan)


class _Audit:
    def __init__(
        self, queues: QueueManager, folder: Path, deaths: Sequence[Death], freezes: Sequence[Freeze]
    ):
        def rows(query: str) -> list[dict[str, Any]]:
            frame = queues.sql(query, names={})
            return [
                # A missing number is NaN, which is not even itself.
                {str(name): value if value == value else None for name, value in row.items()}  # noqa: PLR0124
                for row in frame.to_dict("records")
            ]

        self.jobs = {row["job_id"]: row for row in rows(_JOBS)}
        self.attempts = {int(row["fence"]): row for row in rows(_ATTEMPTS)}
        self.endings = {row["job_id"]: int(row["times"]) for row in rows(_ENDINGS)}
        self.applied = rows(_APPLIED)
        self.stale = int(rows(_STALE)[0]["reports"])
        self.deaths, self.freezes = deaths, freezes
        self.died = {death.pid: death.at for death in deaths}
        self.effects = list(_effects(folder / "effects"))
        acknowledged = _text(folder / ACKNOWLEDGED)
        self.acknowledged = set(re.findall(r"^job ([0-9a-f-]{36})$", acknowledged, re.MULTILINE))
        self.batches = {
            batch: int(size)
            for batch, size in re.findall(r"^batch ([0-9a-f-]{36}) (\d+)$", acknowledged, re.MULTILINE)
        }
        self.refused = len(re.findall(r"^\d+ Traceback", _text(folder / "refused"), re.MULTILINE))
        self.faults: list[str] = []

    def account(self, plan: Plan) -> Account:
        """Count everything, and name what breaks a promise."""
        lost = self._lost()
        again = self._ended_twice()
        applied = self._stale_applied()
        quarantined = self._failed()
        run_twice = self._run_twice()
        self._check_begun()
        self._check_interrupted()
        self._check_results()
        return Account(
            plan,
            acknowledged=len(self.acknowledged) + sum(self.batches.values()),
            ended=sum(row["state"] in {"succeeded", "failed"} for row in self.jobs.values()),
            lost=lost,
            ended_twice=again,
            run_twice=run_twice,
            quarantined=quarantined,
            stale_refused=self.stale,
            stale_applied=applied,
            refused=self.refused,
            outlived=self._outlived(),
            interrupted=sum(row["outcome"] == "interrupted" for row in self.attempts.values()),
            kills=dict(Counter(death.kind for death in self.deaths)),
            freezes=len(self.freezes),
            faults=self.faults,
        )

    def _say(self, what: str, found: Sequence[object]) -> int:
        if found:
            named = "; ".join(map(str, found[:_NAMED])) + (" …" if len(found) > _NAMED else "")
            self.faults.append(f"{len(found)} {what}: {named}")
        return len(found)

    # -- lost, or ended more than once

    def _lost(self) -> int:
        """Jobs that were acknowledged and are not there, or have not ended."""
        lost = self._say("acknowledged and not there", sorted(self.acknowledged - self.jobs.keys()))
        labels: dict[str, set[str]] = defaultdict(set)
        for row in self.jobs.values():
            labels[row["batch_id"]].add(row["row_label"])
        short = [batch for batch, size in self.batches.items() if len(labels[batch]) != size]
        lost += self._say("batches acknowledged and not whole", short)
        open_ = [job for job, row in self.jobs.items() if row["state"] not in {"succeeded", "failed"}]
        return lost + self._say("not ended", [f"{job} is {self.jobs[job]['state']}" for job in open_])

    def _ended_twice(self) -> int:
        return self._say("ended more than once", [job for job, times in self.endings.items() if times != 1])

    def _stale_applied(self) -> int:
        return self._say("reports applied under a claim that was taken back", [*self.applied])

    # -- what failed

    def _failed(self) -> int:
        """No job fails here by itself: three deaths while it ran may fail it, and then they must have been three."""
        failed = [(job, row) for job, row in self.jobs.items() if row["state"] == "failed"]
        quarantined = [job for job, row in failed if row["cause"] == "crashes"]
        self._say(
            "failed",
            [f"{job} {row['command']}: {row['cause']}" for job, row in failed if row["cause"] != "crashes"],
        )
        blamed: Counter[str] = Counter()
        for row in self.attempts.values():
            if row["outcome"] in {"interrupted", "failed"} and self._worker_died(row):
                blamed[row["job_id"]] += 1
        self._say("quarantined without three deaths", [job for job in quarantined if blamed[job] < 3])
        return len(quarantined)

    def _worker_died(self, attempt: dict[str, Any]) -> bool:
        """Whether the worker of an attempt was killed while it had it."""
        died = self.died.get(_pid_of(attempt["worker"]))
        return died is not None and died >= attempt["claimed"] - _SLACK

    # -- what ran, and what counted

    def _check_begun(self) -> None:
        """A claim is run once at most, and what succeeded has been run."""
        begun = Counter(one.fence for one in self.effects if one.kind == "b")
        done = Counter(one.fence for one in self.effects if one.kind == "e")
        self._say(
            "claims run more than once", [fence for fence, times in (begun | done).items() if times > 1]
        )
        self._say(
            "succeeded without having done their work",
            [
                f"{row['job_id']} under claim {fence}"
                for fence, row in self.attempts.items()
                if row["outcome"] == "succeeded" and not done[fence]
            ],
        )
        self._say(
            "claims run that nobody has written down",
            [fence for fence in begun if fence not in self.attempts],
        )

    def _run_twice(self) -> int:
        """Jobs that did their work under a claim that did not count, each with the kill that explains it."""
        twice: set[str] = set()
        unexplained = []
        for effect in self.effects:
            attempt = self.attempts.get(effect.fence)
            if effect.kind != "e" or attempt is None or self._counts(attempt):
                continue
            twice.add(effect.job_id)
            if not self._was_killed(effect, attempt):
                unexplained.append(f"{effect.job_id} under claim {effect.fence} in {effect.pid}: {attempt}")
        self._say("run twice without having been in flight at a kill", unexplained)
        return len(twice)

    def _counts(self, attempt: dict[str, Any]) -> bool:
        if attempt["outcome"] == "succeeded":
            return True
        flaky = self.jobs[attempt["job_id"]]["command"] == "chaos:flaky"
        by_design = attempt["outcome"] == "failed" and attempt["cause"] == "error"
        return bool(flaky and by_design and attempt["attempt"] <= FLAKY_FAILS)

    def _was_killed(self, effect: _Effect, attempt: dict[str, Any]) -> bool:
        """Whether the process that ran it, or the worker whose child that was, was killed and not before; or frozen."""
        if self.died.get(effect.pid, 0.0) >= effect.at - _SLACK or self._was_frozen(attempt):
            return True
        died = self.died.get(_pid_of(attempt["worker"]), 0.0)
        # A child learns of its worker's death a moment later, and has no parent any more.
        return died >= effect.at - (_SLACK if effect.pid == _pid_of(attempt["worker"]) else _ORPHAN)

    def _was_frozen(self, attempt: dict[str, Any]) -> bool:
        """Whether an attempt was taken back while its worker was stopped."""
        pid, at = _pid_of(attempt["worker"]), attempt["finished"] or 0.0
        return any(one.pid == pid and one.since <= at <= one.until + _ORPHAN for one in self.freezes)

    def _outlived(self) -> float:
        """How long a child went on after its worker's death, at most."""
        lags = [
            effect.at - died
            for effect in self.effects
            if (attempt := self.attempts.get(effect.fence)) is not None
            and (died := self.died.get(_pid_of(attempt["worker"]))) is not None
        ]
        return max(0.0, *lags) if lags else 0.0

    def _check_interrupted(self) -> None:
        """Every attempt that did not count was cut short by a kill: of its own worker or child if it had begun."""
        begun = {one.fence: one for one in self.effects if one.kind == "b"}
        unexplained = []
        for fence, row in self.attempts.items():
            if self._counts(row):
                continue
            effect = begun.get(fence)
            if effect is not None:
                explained = self._was_killed(effect, row)
            else:
                # Claimed ahead, or on its way to a worker, when somebody died.
                until = (row["finished"] or float("inf")) + _SLACK
                explained = any(row["claimed"] - 1.0 <= death.at <= until for death in self.deaths)
                # Work that was claimed ahead is given back without a death, too.
                explained = explained or row["outcome"] == "released" or self._was_frozen(row)
            if not explained:
                unexplained.append(f"{row} (begun: {effect})")
        self._say("attempts cut short without a kill", unexplained)

    def _check_results(self) -> None:
        wrong = []
        for job, row in self.jobs.items():
            if row["state"] == "succeeded":
                (number,) = json.loads(row["arguments"])["args"]
                if json.loads(row["result"] or "null") != number:
                    wrong.append(f"{job}: {row['result']!r} for {number}")
        self._say("results that are another job's", wrong)


def _pid_of(worker: object) -> int:
    found = re.search(r"-(\d+)-[0-9a-f]{6}$", str(worker))
    return int(found[1]) if found else 0


def _effects(path: Path) -> Iterator[_Effect]:
    for line in _text(path).splitlines():
        kind, job_id, attempt, fence, pid, parent, at = line.split()
        yield _Effect(kind, job_id, int(attempt), int(fence), int(pid), int(parent), float(at))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
