"""What a docstring says: its first paragraph, and of each parameter; numpy's, Google's and Sphinx's way to write it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence

__all__ = ["parameters_of", "summary_of"]

_GOOGLE = re.compile(r"\s*(?:args|arguments|parameters|keyword args|attributes)\s*:\s*$", re.IGNORECASE)
_NUMPY = re.compile(r"\s*(?:other parameters|parameters|attributes)\s*$", re.IGNORECASE)
_RULE = re.compile(r"\s*-{3,}\s*$")
_SPHINX = re.compile(r"\s*:param\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)$")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


def summary_of(doc: str | None) -> str:
    r"""Give the first paragraph, on one line.

    Example
    -------
    >>> summary_of("Import a file.\n\n    It may be large.\n")
    'Import a file.'
    """
    first = inspect.cleandoc(doc or "").partition("\n\n")[0]
    lines = first.splitlines()
    if lines and (
        _GOOGLE.match(lines[0]) or _SPHINX.match(lines[0]) or (len(lines) > 1 and _RULE.match(lines[1]))
    ):
        return ""
    return " ".join(first.split())


def parameters_of(doc: str | None) -> dict[str, str]:
    r"""Give what is said of each parameter, on one line.

    Example
    -------
    >>> parameters_of("Import.\n\nArgs:\n    path (str): The file.\n    batch: How many\n        at once.\n")
    {'path': 'The file.', 'batch': 'How many at once.'}
    """
    lines = inspect.cleandoc(doc or "").splitlines()
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        if match := _SPHINX.match(line):
            found[match[1]] = [match[2], *_deeper(lines[number + 1 :], _indent(line))]
        elif _GOOGLE.match(line):
            found |= _google(_deeper_block(lines[number + 1 :], _indent(line)))
        elif _NUMPY.match(line) and number + 1 < len(lines) and _RULE.match(lines[number + 1]):
            found |= _numpy(lines[number + 2 :], _indent(line))
    return {name: text for name, said in found.items() if (text := " ".join(" ".join(said).split()))}


def _google(block: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    level = _indent(block[0]) if block else 0
    said: list[str] = []
    for line in block:
        match = _ENTRY.match(line.strip()) if _indent(line) == level else None
        if match:
            said = found[match[1]] = [match[2]]
        elif line.strip():
            said.append(line)
    return found


def _numpy(lines: Sequence[str], level: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        if number + 1 < len(lines) and _RULE.match(lines[number + 1]):
            break
        if line.strip() and _indent(line) == level:
            said = list(_deeper(lines[number + 1 :], level))
            for name in line.partition(":")[0].split(","):
                found[name.strip().lstrip("*")] = said
    return found


def _deeper(lines: Sequence[str], level: int) -> Iterator[str]:
    """The lines that follow and stand further in, up to an empty one."""
    for line in lines:
        if not line.strip() or _indent(line) <= level:
            return
        yield line


def _deeper_block(lines: Sequence[str], level: int) -> list[str]:
    """The same, empty lines between them included."""
    block: list[str] = []
    for line in lines:
        if line.strip():
            if _indent(line) <= level:
                break
            block.append(line)
    return block


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
