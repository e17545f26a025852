"""The panel's table: which jobs a filter lets through, and the page of them that is looked at.

After the first look only those jobs are read that something has happened to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nbqueue.facade.watching.filtering import WAITING, JobFilter
from nbqueue.facade.watching.following import Following
from nbqueue.facade.watching.news import News
from nbqueue.widgets.panel.rows import row_of
from nbqueue.widgets.panel.state import Row, State

__all__ = ["Looked", "Table"]

#: A page is no longer than this.
SIZE = 1_000


class Looked(NamedTuple):
    """What somebody looks at."""

    filter: JobFilter = JobFilter()
    page: int = 0
    size: int = SIZE


class Table:
    """A page of jobs, newest first.

    Parameters
    ----------
    following : Following
        Where they are.
    """

    def __init__(self, following: Following) -> None:
        import numpy as np

        self._following = following
        self.looked = Looked()
        #: The numbers of all jobs that the filter lets through, rising.
        self._numbers: Any = np.array([], dtype=np.int64)
        #: What the numbers are the beginning of, where they were appended to.
        self._room: Any = np.array([], dtype=np.int64)
        #: Where time takes jobs out of the filter: when those come due that wait, rising, and which they are.
        self._due_at: Any = np.array([], dtype=np.int64)
        self._due: Any = np.array([], dtype=np.int64)
        #: The rows of the page, by number.
        self._rows: dict[int, Row] = {}
        #: Rows of the page that are to be read, in that order: those that have waited longest come first.
        self._unread: dict[int, None] = {}

    @property
    def unread(self) -> bool:
        """Whether the page has rows that something has happened to since they were read, or that were not yet."""
        return bool(self._unread)

    def look(self, looked: Looked, *, at_once: int = SIZE) -> None:
        """Look at something else, or at the same thing from the beginning.

        Parameters
        ----------
        looked : Looked
            What.
        at_once : int
            So many rows are read now, and the others by ``read``.

        Raises
        ------
        InvalidCommand
            For a filter that means nothing; what was looked at stays.
        """
        self._numbers = self._following.matching(looked.filter)
        self.looked = looked
        self._due_at, self._due = self._due_at[:0], self._due[:0]
        self._await(self._numbers)
        self._rows, self._unread = {}, {}
        self._turn_to(())
        self.read(at_once)

    def follow(self, news: News, *, now: int) -> None:
        """Take in what has happened, and what only time has made different, in milliseconds since the epoch.

        What there is to read of it is left to ``read``.
        """
        due = {n for n, row in self._rows.items() if row["status"] in WAITING and row["scheduled"] <= now}
        due.update(self._come_due(now))
        changed = sorted({*news.changed, *due}) if due else list(news.changed)
        if not changed:
            return
        if self.looked.filter.everything:
            self._add(news.dispatched)
        else:
            self._remove(changed)
            found = self._following.matching(self.looked.filter, changed)
            self._add(found.tolist())
            self._await(found)
        self._turn_to(changed)

    def name(self, number: int) -> tuple[str, str] | None:
        """Give the id and the command of a job whose row was read."""
        row = self._rows.get(number)
        return None if row is None else (row["id"], row["command"])

    def due_in(self, *, now: int) -> float | None:
        """Say in how many seconds a row will be different by itself; None: not before something happens."""
        if self._unread:
            return 0.0
        times = [row["scheduled"] for row in self._rows.values() if row["status"] in WAITING]
        times += self._due_at[:1].tolist()
        return max(0.0, (min(times) - now) / 1000) if times else None

    def show(self, state: State) -> None:
        """Bring a state up to date."""
        order = [row["id"] for _, row in sorted(self._rows.items(), reverse=True)]
        state.set_rows({row["id"]: row for row in self._rows.values()})
        state.set_order(order)
        state.set("jobs.total", len(self._numbers))
        state.set("jobs.page", self.looked.page)
        state.set("jobs.size", self.looked.size)
        wanted = self.looked.filter
        state.set(
            "jobs.filter",
            {
                "states": list(wanted.states),
                **{
                    name: getattr(wanted, name)
                    for name in ("queue", "command", "text", "fingerprint", "batch")
                },
            },
        )

    def read(self, at_once: int = SIZE) -> None:
        """Read rows that are to be read, so many of them."""
        wanted = [*self._unread][:at_once]
        if not wanted:
            return
        found = self._following.rows(wanted)
        # One that is not there any more goes with the next look.
        self._rows.update((number, row_of(job)) for number, job in found.items())
        for number in wanted:
            del self._unread[number]

    def _turn_to(self, changed: Iterable[int]) -> None:
        """Find out which rows the page has now, and which of them are to be read."""
        last = len(self._numbers) - self.looked.page * self.looked.size
        page = set(self._numbers[max(0, last - self.looked.size) : max(0, last)].tolist())
        self._rows = {number: row for number, row in self._rows.items() if number in page}
        self._unread = {number: None for number in self._unread if number in page}
        # People look at the top first.
        fresh = sorted(page.intersection(changed) | (page - self._rows.keys()), reverse=True)
        self._unread.update(dict.fromkeys(fresh))

    def _await(self, numbers: Any) -> None:
        """Note when these jobs come due, beyond the page too; one that is noted twice is looked at twice."""
        import numpy as np

        if not self.looked.filter.timed or not len(numbers):
            return
        due_at, due = self._following.due(numbers)
        places = np.searchsorted(self._due_at, due_at)
        self._due_at = np.insert(self._due_at, places, due_at)
        self._due = np.insert(self._due, places, due)

    def _come_due(self, now: int) -> list[int]:
        """Give the jobs noted that have come due, and note them no longer."""
        count = int(self._due_at.searchsorted(now, side="right"))
        found: list[int] = self._due[:count].tolist()
        self._due_at, self._due = self._due_at[count:], self._due[count:]
        return found

    # The numbers of a million jobs are a sorted array: to change a few of them is a copy, which takes a millisecond.

    def _remove(self, numbers: Sequence[int]) -> None:
        import numpy as np

        places, there = self._find(numbers)
        self._numbers = np.delete(self._numbers, places[there])

    def _add(self, numbers: Sequence[int]) -> None:
        import numpy as np

        if len(numbers) and (not len(self._numbers) or numbers[0] > self._numbers[-1]):
            # New jobs have the highest numbers: where there is room behind the others they cost what they are, and to
            # copy a million takes 2 ms.
            before, after = len(self._numbers), len(self._numbers) + len(numbers)
            if self._numbers.base is not self._room or len(self._room) < after:
                self._room = np.empty(after + after // 8, dtype=np.int64)
                self._room[:before] = self._numbers
            self._room[before:after] = numbers
            self._numbers = self._room[:after]
            return
        # A filter that was looked at since the last news lets through what the news are about.
        places, there = self._find(numbers)
        self._numbers = np.insert(self._numbers, places[~there], np.asarray(numbers, dtype=np.int64)[~there])

    def _find(self, numbers: Sequence[int]) -> tuple[Any, Any]:
        """Where these are or would be, and which of them are there."""
        import numpy as np

        places = np.searchsorted(self._numbers, np.asarray(numbers, dtype=np.int64))
        there = np.zeros(len(places), dtype=bool)
        inside = places < len(self._numbers)
        there[inside] = self._numbers[places[inside]] == np.asarray(numbers, dtype=np.int64)[inside]
        return places, there
