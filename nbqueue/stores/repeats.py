"""What is said a second time: a report that was applied, log lines that are on disk; knows no index and no file.

A caller whose connection broke cannot know whether its last call was heard, so it says it again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from nbqueue.lifecycle import Event, Outcome
from nbqueue.store import OUTPUT, LogChunk, Report, ReportKind

__all__ = ["Closing", "Line", "is_repeated", "line_of", "without_said"]


class Closing(NamedTuple):
    """What ended a claim, as it was written down."""

    event: Event
    #: Microseconds since the epoch.
    happened_us: int
    error: str


#: A log line or a display as it was written down: its claim, its stream, its text, microseconds since the epoch.
Line = tuple[int, str, str, int]

_FROM_END = frozenset((Event.RETRYING, Event.FAILED, Event.CANCELLED))
_FROM_KIND = {
    ReportKind.RELEASED: frozenset((Event.RELEASED, Event.CANCELLED)),
    ReportKind.REFUSED: frozenset((Event.REFUSED, Event.CANCELLED)),
}


def is_repeated(report: Report, closing: Closing | None) -> bool:
    """Whether it is this very report that ended its claim, and not a death or another report.

    Parameters
    ----------
    report : Report
        No news.
    closing : Closing | None
        What ended the claim it is about; None where nothing has.
    """
    if closing is None:
        return False
    if report.kind is not ReportKind.ENDED:
        may = _FROM_KIND.get(report.kind, frozenset())
    elif report.outcome is Outcome.SUCCEEDED:
        may = frozenset((Event.SUCCEEDED,))
    else:
        may = _FROM_END
    if closing.event not in may or closing.error != _written(report.error):
        return False
    return report.finished_at is None or round(report.finished_at * 1e6) == closing.happened_us


def line_of(fence: int, chunk: LogChunk) -> Line:
    """Give a log line or a display as it is written down."""
    return (
        fence,
        chunk.stream if chunk.stream != OUTPUT else "",
        _written(chunk.text),
        round(chunk.at * 1e6),
    )


def without_said(report: Report, said: Iterable[Line]) -> Report:
    """Give a report without the lines that are on disk."""
    known = Counter(said)
    logs = []
    for chunk in report.logs:
        line = line_of(report.claim.fence, chunk)
        if known[line]:
            known[line] -= 1
        else:
            logs.append(chunk)
    return report._replace(logs=tuple(logs))


def _written(text: str) -> str:
    """As the ledger keeps it: halves of characters are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()
