"""What became of the jobs of a chaos run, as figures and as a table; counts nothing itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from nbqueue.chaos.plan import Plan

__all__ = ["Account"]


@dataclass(slots=True)
class Account:
    """What became of the jobs of a run."""

    plan: Plan
    acknowledged: int = 0
    ended: int = 0
    lost: int = 0
    ended_twice: int = 0
    #: Jobs that did their work more than once though it counted once: allowed where a kill explains it.
    run_twice: int = 0
    quarantined: int = 0
    stale_refused: int = 0
    stale_applied: int = 0
    refused: int = 0
    interrupted: int = 0
    #: So many seconds a child worked on after its worker was killed.
    outlived: float = 0.0
    kills: dict[str, int] = field(default_factory=dict)
    #: Workers that were stopped for longer than their lease.
    freezes: int = 0
    #: How often the server was stopped and started again.
    restarts: int = 0
    takeovers: list[float] = field(default_factory=list)
    seconds: float = 0.0
    #: Whatever breaks a promise, as sentences.
    faults: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.faults

    def rows(self) -> list[tuple[str, str]]:
        """Give the account as a table of two columns."""
        killed = ", ".join(f"{count} {_plural(kind, count)}" for kind, count in self.kills.items())
        rows = [
            ("dispatched and acknowledged", f"{self.acknowledged:,}"),
            ("killed with SIGKILL", f"{sum(self.kills.values()):,}" + (f" ({killed})" if killed else "")),
            *([("stopped for longer than their lease", f"{self.freezes:,}")] if self.freezes else []),
            *([("restarts of the server", f"{self.restarts:,}")] if self.restarts else []),
            ("ended", f"{self.ended:,}"),
            ("lost", f"{self.lost:,}"),
            ("ended more than once", f"{self.ended_twice:,}"),
            ("run twice, in flight at a kill", f"{self.run_twice:,}"),
            ("quarantined after three deaths", f"{self.quarantined:,}"),
            ("attempts interrupted and given back", f"{self.interrupted:,}"),
            ("stale completions refused", f"{self.stale_refused:,}"),
            ("stale completions applied", f"{self.stale_applied:,}"),
            ("calls refused with an error", f"{self.refused:,}"),
        ]
        if self.takeovers:
            times = sorted(self.takeovers)
            middle = times[len(times) // 2]
            rows.append(
                ("take-overs", f"{len(times)}, {middle:.2f} s in the middle, {times[-1]:.2f} s at worst")
            )
        rows.append(("children outlived their worker by", f"{self.outlived * 1e3:.0f} ms at most"))
        rows.append(("seconds", f"{self.seconds:.0f}"))
        return rows


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else {"child": "children"}.get(kind, f"{kind}s")
