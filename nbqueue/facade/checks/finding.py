"""What a check found: whether it is right, what it is about, and a sentence; prints nothing."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Finding", "Looked", "fine", "listed", "note", "of_seconds", "some", "wrong"]

#: Of names in a sentence, so many are said.
_SHOWN = 5


class Finding(NamedTuple):
    """One thing that was looked at."""

    #: Whether it is right; None: neither, but worth knowing.
    ok: bool | None
    #: "lock", "secret", "versions" …
    what: str
    #: What is so, and what to do where it is wrong.
    sentence: str


class Looked(NamedTuple):
    """What a look at a server found."""

    findings: list[Finding]
    #: Whether there is a queue on it that can be opened without changing it.
    has_queue: bool = False


def fine(what: str, sentence: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(True, what, sentence)


def note(what: str, sentence: str) -> Finding:
    """Say something that is worth knowing, and not wrong."""
    return Finding(None, what, sentence)


def wrong(what: str, sentence: str) -> Finding:
    """Say what is wrong, and what to do."""
    return Finding(False, what, sentence)


def listed(names: list[str]) -> str:
    """Give names as one text, the first few of them.

    >>> listed(["a", "b"]), listed(list("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def some(number: int, what: str) -> str:
    """Count things.

    >>> some(1, "job"), some(1200, "job")
    ('1 job', '1,200 jobs')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def of_seconds(seconds: float) -> str:
    """Give a time as people say it.

    >>> of_seconds(3), of_seconds(125), of_seconds(7300), of_seconds(200_000)
    ('3 s', '2 min', '2 h', '2 days')
    """
    for unit, name in ((172_800, "days"), (7_200, "h"), (120, "min")):
        if seconds >= unit:
            size = {"days": 86_400, "h": 3_600, "min": 60}[name]
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"
