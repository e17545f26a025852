"""What is not there of a batch's rows when they are shown, and the warnings that say so."""

from __future__ import annotations

import warnings
from collections.abc import Callable

__all__ = ["Gaps"]


class Gaps:
    """Collects what is missing while rows are read."""

    __slots__ = ("_arguments", "_kept", "_results", "_unstored")

    def __init__(self, kept: Callable[[str], tuple[bool, object]]) -> None:
        #: Gives, by a job's id, whether a value that could not be stored is kept in this process, and the value.
        self._kept = kept
        self._unstored = 0
        #: By the row's label, why what is stored cannot be read.
        self._results: list[tuple[str, Exception]] = []
        self._arguments: list[tuple[str, Exception]] = []

    def unstored(self, job_id: str) -> tuple[bool, object]:
        """Give what a row returned that could not be stored, where it is still known."""
        found = self._kept(job_id)
        self._unstored += not found[0]
        return found

    def result(self, label: str, error: Exception) -> None:
        """Note that a row's result cannot be read."""
        self._results.append((label, error))

    def arguments(self, label: str, error: Exception) -> None:
        """Note that a row's arguments cannot be read."""
        self._arguments.append((label, error))

    def tell(self, name: str, total: int, found: int) -> None:
        """Warn the caller's caller of what is missing, each kind by itself; quiet where nothing is."""
        said = []
        if forgotten := total - found:
            said.append(
                f"{forgotten} of the {total} rows of {name} were pruned or forgotten, and are left out"
            )
        if self._unstored:
            said.append(
                f"{self._unstored} results of {name} could not be stored, and are missing: only the process that ran"
                " them had them"
            )
        for what, that, unread in (
            ("results", "that", self._results),
            ("arguments", "those", self._arguments),
        ):
            if unread:
                label, error = unread[0]
                said.append(
                    f"the {what} of {len(unread)} of the {total} rows of {name} cannot be read here, and are missing;"
                    f" {that} of row {label}: {type(error).__name__}: {error}"
                )
        for sentence in said:
            warnings.warn(sentence, stacklevel=3)
