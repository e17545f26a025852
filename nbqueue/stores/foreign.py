"""What in a queue file another secret signed, as values; knows no file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Foreign", "ForeignCode", "ForeignJobs"]


class ForeignJobs(NamedTuple):
    """What of the jobs of one command was pickled and signed by somebody else."""

    command: str
    #: How many jobs' arguments.
    arguments: int
    #: How many jobs' results.
    results: int
    #: How many labels of a batch's rows.
    labels: int


class ForeignCode(NamedTuple):
    """One function by value that somebody else signed."""

    #: Its hash.
    code: str
    #: The commands of the jobs that would run it.
    commands: tuple[str, ...]
    #: The notebooks, scripts and modules that those were dispatched from.
    origins: tuple[str, ...]
    #: Bytes, as stored.
    size: int


@dataclass(frozen=True, slots=True)
class Foreign:
    """What is in a queue file that this user has not signed."""

    jobs: tuple[ForeignJobs, ...] = ()
    code: tuple[ForeignCode, ...] = ()
    #: How many displays, such as HTML, of which only the text is shown.
    displays: int = 0
    #: How many jobs are held since a worker was not to run them; they run again once they are trusted.
    held: int = 0

    def __bool__(self) -> bool:
        return bool(self.jobs or self.code or self.displays or self.held)
