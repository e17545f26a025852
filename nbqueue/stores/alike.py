"""Rows of the ledger that are alike but for a few numbers, by columns: nearly all of what a backlog's end takes.

Of each job that is run one row tells its claim and one its success. As two tuples of 21 values they were made, turned
into columns, written as text, and looked at by each collection in between: 4.5 us a job, where these take 1.2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import repeat

from nbqueue.stores.live import Row

__all__ = ["ALIKE_LEAST", "INSERT_ALIKE", "LONG_DATA", "Alike", "encode"]

#: Fewer go as the rows that they are: a statement of its own takes 1.5 ms to plan.
ALIKE_LEAST = 32
#: A row with more characters of data than this goes for itself.
LONG_DATA = 1_024

#: Gives a value as JSON that is as short as can be.
encode = json.JSONEncoder(check_circular=False, ensure_ascii=False, separators=(",", ":")).encode

_ONE = {
    "seq": "BIGINT",
    "event": "VARCHAR",
    "attempt": "INTEGER",
    "max_attempts": "INTEGER",
    "worker": "INTEGER",
}
_MANY = {
    "job": "BIGINT",
    "fence": "BIGINT",
    "happened_us": "BIGINT",
    "started_us": "BIGINT",
    "data": "VARCHAR",
}
_SHAPE = ", ".join(
    [
        *(f'"{name}":"{kind}"' for name, kind in _ONE.items()),
        *(f'"{name}":["{kind}"]' for name, kind in _MANY.items()),
    ]
)
_OF = {
    "seq": "seq + place",
    "happened_us": "coalesce(happened_us, first_happened_us)",
    "event": "event",
    "job": "job",
    "fence": "coalesce(fence, first_fence + place)",
    "attempt": "attempt",
    "max_attempts": "max_attempts",
    "worker": "worker",
    "started_us": "coalesce(started_us, first_started_us)",
    "data": "nullif(data, '')",
}
_READ = ", ".join(
    [
        *(f"c.{name}" for name in _ONE),
        *(f"unnest(c.{name}) AS {name}" for name in _MANY),
        # What is shorter than the rest is filled up with NULL.
        *(f"c.{name}[1] AS first_{name}" for name in ("fence", "happened_us", "started_us")),
        "unnest(range(len(c.job))) AS place",
    ]
)
#: Inserts all rows of a list of texts.
INSERT_ALIKE = (
    f"INSERT INTO ledger ({', '.join(_OF)}) SELECT {', '.join(_OF.values())}"
    f" FROM (SELECT {_READ} FROM (SELECT from_json(unnest(?::VARCHAR[]), '{{{_SHAPE}}}') AS c))"
)


class Alike:
    """Rows that follow one another; a column of one value holds for all, and a fence of one goes on by one each.

    Parameters
    ----------
    seq : int
        Of the first row.
    event : str
        What happened.
    attempt, max_attempts : int
        Of all of these jobs.
    worker : int, optional
        Who claimed them.
    fence : int, optional
        Of the first row, where they go on from there.
    at : int, optional
        When it happened, and when what was done began, in microseconds since the epoch; where that is the same for all.
    """

    __slots__ = (
        "attempt",
        "data",
        "event",
        "fences",
        "happened",
        "jobs",
        "max_attempts",
        "seq",
        "started",
        "worker",
    )

    def __init__(
        self,
        seq: int,
        event: str,
        attempt: int,
        max_attempts: int,
        worker: int | None = None,
        *,
        fence: int | None = None,
        at: int | None = None,
    ):
        self.seq = seq
        self.event = event
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.worker = worker
        self.jobs: list[int] = []
        self.fences: list[int] = [] if fence is None else [fence]
        #: In microseconds since the epoch.
        self.happened: list[int] = [] if at is None else [at]
        self.started: list[int] = [] if at is None else [at]
        #: "" for none; empty where no row has any.
        self.data: list[str] = []

    def __len__(self) -> int:
        return len(self.jobs)

    def rows(self) -> Iterator[Row]:
        """Give them one by one."""
        count = len(self.jobs)
        seq, event, attempt, tries, worker = (
            self.seq,
            self.event,
            self.attempt,
            self.max_attempts,
            self.worker,
        )
        fences = self.fences if len(self.fences) == count else range(self.fences[0], self.fences[0] + count)
        happened = self.happened if len(self.happened) == count else repeat(self.happened[0])
        started = self.started if len(self.started) == count else repeat(self.started[0])
        data = self.data or repeat("")
        for place, (job, fence, at, began, text) in enumerate(
            zip(self.jobs, fences, happened, started, data, strict=False)
        ):
            yield (
                seq + place, at, event, job, fence, attempt, tries, None, None, worker, began, None, text or None,
                None, None, None, None, None, None, None, None,
            )  # fmt: skip

    def text(self) -> str:
        """Give them as a line of JSON.

        Raises
        ------
        UnicodeEncodeError
            Not here, but when it is encoded: where a text has halves of characters.
        """
        columns = {
            "seq": self.seq,
            "event": self.event,
            "attempt": self.attempt,
            "max_attempts": self.max_attempts,
            "worker": self.worker,
            "job": self.jobs,
            "fence": self.fences,
            "happened_us": self.happened,
            "started_us": self.started,
        }
        return encode(columns | {"data": self.data} if any(self.data) else columns)

    @classmethod
    def read(cls, text: str) -> Alike:
        """Give back what ``text`` was made of."""
        columns = json.loads(text)
        alike = cls(*(columns[name] for name in ("seq", "event", "attempt", "max_attempts", "worker")))
        alike.jobs, alike.fences = columns["job"], columns["fence"]
        alike.happened, alike.started = columns["happened_us"], columns["started_us"]
        alike.data = columns.get("data", [])
        return alike
