"""What failed jobs failed with, remembered: each event is read once, and a look costs what is new; knows no widget.

The million jobs of a long history and their failures would have to be joined for each look. Here stand three numbers
for each job that has failed, 20 bytes of them, in arrays: adding some or taking some out is a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.facade.watching.following import Following
from nbqueue.facade.watching.news import Failed, News

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["PIECE", "Failing", "Failure"]

Names = Callable[[Collection[int]], Mapping[int, tuple[str, str]]]

#: So many events are read at a time; a million take 10 ms, and 20 where nobody has read them before.
PIECE = 1_000_000
#: So many kinds are told.
_KINDS = 20


class Failure(NamedTuple):
    """What jobs have in common that failed alike."""

    fingerprint: str
    #: How many there are.
    jobs: int
    #: When the first and the last of them ended, in milliseconds since the epoch.
    first: int
    last: int
    #: Of the last.
    job_id: str
    command: str


class Failing:
    """Keeps the failures of a queue; called by one thread at a time.

    Parameters
    ----------
    following : Following
        Where to read.
    until : int
        The number of the last event that is not news.
    """

    def __init__(self, following: Following, until: int) -> None:
        import numpy as np

        self._following = following
        #: The last event that was read, and the last there is.
        self._read, self._until = 0, until
        self._kinds: dict[str, int] = {}
        # Of each job that stands as failed: its number, rising, when it failed, and with which kind.
        self._jobs = self._at = self._kind = np.array([], dtype=np.int64)

    def follow(self, news: News) -> bool:
        """Take in what has happened; says whether it makes a difference that can be shown."""
        import pandas as pd

        whole = not self.unread
        self._until = news.seen.seq
        if whole:
            if news.failures:
                self._take(pd.DataFrame(news.failures, columns=list(Failed._fields)))
            self._read = self._until
        return whole and bool(news.failures)

    @property
    def unread(self) -> bool:
        """Whether there are events to read."""
        return self._read < self._until

    def go(self) -> bool:
        """Read a piece; says whether there was one."""
        if not self.unread:
            return False
        last = min(self._until, self._read + PIECE)
        self._take(self._following.failures(self._read, last))
        self._read = last
        return True

    def _take(self, found: pd.DataFrame) -> None:
        """Take in some events; of each job the last one counts."""
        import numpy as np
        import pandas as pd

        found = found.drop_duplicates("number", keep="last").sort_values("number")
        texts = found["fingerprint"]
        failed, untold = texts.notna().to_numpy(), (texts == "").to_numpy(bool)
        if untold.any():
            known = self._following.fingerprints(found["number"][untold].tolist())
            texts = texts.mask(untold, found["number"].map(known).fillna(""))
        places, names = pd.factorize(texts[failed])
        kinds = np.array([self._kinds.setdefault(name, len(self._kinds)) for name in names], dtype=np.int64)
        kind = np.full(len(found), -1)
        kind[failed] = kinds[places]
        self._put(found["number"].to_numpy("int64"), found["at"].to_numpy("int64"), kind)

    def _put(self, jobs: np.ndarray[Any, Any], at: np.ndarray[Any, Any], kind: np.ndarray[Any, Any]) -> None:
        import numpy as np

        kept = ~np.isin(self._jobs, jobs, assume_unique=True)
        old, new = self._jobs[kept], kind >= 0
        places = np.searchsorted(old, jobs[new])
        self._at = np.insert(self._at[kept], places, at[new])
        self._kind = np.insert(self._kind[kept], places, kind[new])
        self._jobs = np.insert(old, places, jobs[new])

    def value(self, names: Names) -> list[Failure]:
        """Give the most frequent ones, of equals the latest first.

        Parameters
        ----------
        names : callable
            Tells the ids and commands of jobs by their numbers.
        """
        import numpy as np

        kinds = list(self._kinds)
        count = np.bincount(self._kind, minlength=len(kinds))
        first = np.full(len(kinds), np.iinfo(np.int64).max)
        last = np.full(len(kinds), -1)
        np.minimum.at(first, self._kind, self._at)
        np.maximum.at(last, self._kind, self._at)
        latest = self._at == last[self._kind]
        example = np.full(len(kinds), -1)
        # Numbers rise: of those that failed in the same moment the one dispatched last stays.
        example[self._kind[latest]] = self._jobs[latest]
        # No two have the same example, so the order is the same for whoever looks, however they came to be known.
        shown = [kind for kind in np.lexsort((-example, -last, -count)).tolist()[:_KINDS] if count[kind]]
        known = names(example[shown].tolist())
        return [
            Failure(kinds[kind], int(count[kind]), int(first[kind]), int(last[kind]), *known[number])
            for kind, number in zip(shown, example[shown].tolist(), strict=True)
            # One that was forgotten meanwhile is not known: the next look begins anew.
            if number in known
        ]
