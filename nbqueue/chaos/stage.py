"""Where a chaos run takes place: a file in its own folder, or a queue on a server; starts nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Stage"]

#: Who takes part, and what runs the jobs of each in turn as it is started again.
_ON_A_FILE = {"kernel": ("thread",), "notebook": ("process",), "terminal": ("process", "thread")}
_ON_A_SERVER = {**_ON_A_FILE, "terminal-2": ("thread", "process")}


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a run takes place.

    Parameters
    ----------
    folder : Path
        Of this run alone; all that it leaves stays in it.
    url : str
        Of a queue on a server that nobody else uses; else it is a file in the folder.
    restart : callable, optional
        Stops that server and starts it again.
    """

    folder: Path
    url: str = ""
    restart: Callable[[], None] | None = None

    @property
    def target(self) -> str:
        """What every process connects to."""
        return self.url or str(self.folder / "jobs.duckdb")

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Who takes part: four processes where nobody has the queue, else three of whom one has the file."""
        return _ON_A_SERVER if self.url else _ON_A_FILE

    @property
    def kinds(self) -> dict[str, float]:
        """What is killed, and how often of all times."""
        return {"worker": 0.5, "child": 0.5} if self.url else {"owner": 0.35, "worker": 0.3, "child": 0.35}
