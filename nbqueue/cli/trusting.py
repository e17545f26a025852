"""What ``trust`` prints: what in a file another secret signed, before anybody trusts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbqueue.cli.terminal import table
from nbqueue.sizes import shown

if TYPE_CHECKING:
    from nbqueue.facade.trusting import Foreign

__all__ = ["as_text", "question"]


def as_text(foreign: Foreign) -> str:
    """Show all that would be trusted, by command and by function."""
    parts = []
    if foreign.jobs:
        rows: list[tuple[str, ...]] = [("command", "arguments", "results", "labels")]
        rows += [
            (
                _printed(found.command),
                *(str(count) for count in (found.arguments, found.results, found.labels)),
            )
            for found in foreign.jobs
        ]
        parts.append("Pickles of jobs, which may hold any code:\n" + table(rows, right=range(1, 4)))
    if foreign.code:
        rows = [("function", "from", "size", "code")]
        rows += [
            (
                _printed(", ".join(found.commands)) or "(no job)",
                _printed(", ".join(found.origins)),
                shown(found.size),
                _printed(found.code),
            )
            for found in foreign.code
        ]
        parts.append("Functions, which jobs would run:\n" + table(rows, right=(2,)))
    if foreign.displays:
        parts.append(f"Displays, which a browser may run (HTML, SVG and the like): {foreign.displays}")
    if foreign.held:
        parts.append(f"Jobs that are held, and would run again: {foreign.held}")
    return "\n\n".join(parts)


def _printed(name: str) -> str:
    """A name as it may be shown: it comes from a stranger, and a terminal obeys what is not printable."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in name)


def question(name: str) -> str:
    """Ask whether all of it is trusted."""
    return f"Whoever wrote {name} can then run code as you. Trust all of this?"
