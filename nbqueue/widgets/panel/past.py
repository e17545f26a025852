"""The minutes before a panel was opened, read piece by piece from the newest; knows no widget."""

from __future__ import annotations

from nbqueue.facade.watching.following import Following, Stretch
from nbqueue.widgets.panel.series import Series

__all__ = ["Past"]

#: So many events are counted at a time: 8 ms, and 20 where nobody has read them before.
PIECE = 120_000


class Past:
    """What a series has to recall; a queue may have had a million jobs in these minutes.

    Parameters
    ----------
    following : Following
        Where to read.
    series : Series
        Recalls it, once all is read.
    now : float
        Seconds since the epoch.
    until : int
        The number of the last event that is not news.
    """

    def __init__(self, following: Following, series: Series, now: float, until: int) -> None:
        self._following = following
        self._series = series
        self._since = now - series.step * series.length
        self._first = following.first_since(self._since)
        #: The last event that was not read yet.
        self._until = until if self._first else -1
        self._found: list[Stretch] = []
        if not self._first:
            series.recall(())

    def go(self) -> bool:
        """Read a piece; says whether there was one."""
        if self._until < self._first:
            return False
        begin = max(self._first, self._until - PIECE + 1)
        step = self._series.step
        self._found += self._following.recent(self._since, step, first=begin, until=self._until)
        self._until = begin - 1
        if self._until < self._first:
            self._series.recall(self._found)
            self._found = []
        return True

    def due_in(self) -> float | None:
        """Say in how many seconds to read on; None: all is read."""
        return None if self._until < self._first else 0.0
