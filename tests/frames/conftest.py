"""A ledger filled by hand: what a store would write, one event at a time, with the views and the reader over it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import duckdb
import pytest

from nbqueue.jobs import Spec, State
from nbqueue.lifecycle import (
    CancelAsked,
    Claimed,
    Ended,
    Event,
    Life,
    Lost,
    Outcome,
    Refused,
    Released,
    RetryAsked,
    What,
    advance,
)
from nbqueue.retry import RetryPolicy
from nbqueue.store import QueueInfo
from nbqueue.stores import schema
from nbqueue.stores.reader import run_query

if TYPE_CHECKING:
    import pandas as pd

#: 2026-01-01 00:00:00 UTC; the times of a book are seconds after it.
START = 1_767_225_600


class Book:
    """A store that can only be read, and written to by hand."""

    name = ":by hand:"

    def __init__(self) -> None:
        self.connection = duckdb.connect(config={"enable_external_access": "false"})
        for statement in (*schema.TABLES, *schema.VIEWS):
            self.connection.execute(statement)
        self.connection.execute("SET TimeZone='UTC'")
        self.connection.execute("SET lock_configuration=true")
        self.rows: list[tuple[object, ...]] = []
        self.written = 0
        self.ids: list[uuid.UUID] = []
        self.lives: list[Life] = []
        self.specs: list[Spec] = []
        self.spec_of: list[Spec] = []
        self.workers: list[str] = []
        self.fence = 1 << 32
        self.paused: set[str] = set()

    # -- what happens

    def job(
        self,
        at: float = 0,
        command: str = "import",
        queue: str = "default",
        *,
        due: float | None = None,
        tries: int | None = None,
        priority: int = 0,
        payload: str = '{"args":[],"kwargs":{}}',
        metadata: str | None = None,
        batch: uuid.UUID | None = None,
        row: str | None = None,
    ) -> int:
        """Dispatch; gives the job's number. A failed attempt is tried again after 10 s."""
        spec = Spec(command, queue, priority, tries=tries, retry=RetryPolicy(backoff=(10.0,), jitter=0.0))
        if spec not in self.specs:
            self.specs.append(spec)
            self.connection.execute(
                "INSERT INTO specs VALUES (?, ?, ?, ?, '', '', ?, NULL, '')",
                [len(self.specs) - 1, command, queue, priority, tries],
            )
        number = len(self.ids)
        self.ids.append(uuid.UUID(int=(0x7 << 76) | (0x2 << 62) | number))
        self.lives.append(Life(due_at=None if due is None else START + due))
        self.spec_of.append(spec)
        self._row(
            at,
            Event.DISPATCHED,
            number,
            due_us=None if due is None else _us(due),
            data=payload,
            job_id=self.ids[number],
            spec=self.specs.index(spec),
            metadata=metadata,
            batch_id=batch,
            row_label=row,
        )
        return number

    def claim(self, job: int, at: float, worker: str = "w1", *, tries: int = 1) -> int:
        """Hand a job to a worker; gives the claim's fence."""
        if worker not in self.workers:
            self.workers.append(worker)
            self.connection.execute(
                "INSERT INTO workers VALUES (?, ?, 'host', 1, 'thread', 1, 0, 15.0)",
                [len(self.workers) - 1, worker],
            )
        self.fence += 1
        self._happen(job, Claimed(self.fence, tries), at, worker=self.workers.index(worker))
        return self.fence

    def end(
        self,
        job: int,
        at: float,
        outcome: Outcome = Outcome.SUCCEEDED,
        *,
        started: float | None = None,
        fence: int | None = None,
        **columns: object,
    ) -> None:
        """Report an attempt's end."""
        if outcome not in {Outcome.SUCCEEDED, Outcome.CANCELLED}:
            columns.setdefault("error", f"ValueError: at {at:g}")
            columns.setdefault("traceback", f"Traceback of {at:g}")
        started_us = None if started is None else _us(started)
        what = Ended(self.lives[job].fence if fence is None else fence, outcome)
        self._happen(job, what, at, started_us=started_us, **columns)

    def run(
        self, job: int, start: float, end: float, outcome: Outcome = Outcome.SUCCEEDED, **claim: object
    ) -> None:
        """Claim, begin at once and end."""
        self.claim(job, start, **claim)  # type: ignore[arg-type]
        self.end(job, end, outcome, started=start)

    def lose(self, job: int, at: float, *, begun: bool) -> None:
        self._happen(job, Lost(self.lives[job].fence, begun), at, error="worker went away")

    def release(self, job: int, at: float, *, started: float | None = None) -> None:
        started_us = None if started is None else _us(started)
        self._happen(job, Released(self.lives[job].fence), at, started_us=started_us)

    def refuse(self, job: int, at: float) -> None:
        self._happen(job, Refused(self.lives[job].fence), at)

    def cancel(self, job: int, at: float) -> None:
        self._happen(job, CancelAsked(), at)

    def retry(self, job: int, at: float) -> None:
        self._happen(job, RetryAsked(), at)

    def say(self, job: int, at: float, event: Event, data: str, *, cause: str | None = None) -> None:
        """Write a log line, an output or progress of the attempt that runs."""
        life = self.lives[job]
        self._row(at, event, job, fence=life.fence, attempt=life.attempt, data=data, cause=cause)

    # -- as a store

    def query(
        self, sql: str, params: Sequence[object] = (), frames: Mapping[str, pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        self.flush()
        with self.connection.cursor() as cursor:
            return run_query(cursor, sql, params, frames or {})

    def close(self) -> None:
        """Stay open: the fixture closes it."""

    def queues(self) -> list[QueueInfo]:
        names = sorted({spec.queue for spec in self.specs} | {"default"})
        lives = list(zip(self.spec_of, self.lives, strict=True))
        return [
            QueueInfo(
                name,
                name in self.paused,
                {state: sum(s.queue == name and life.state is state for s, life in lives) for state in State},
                sum(s.queue == name and life.due_at is not None for s, life in lives),
            )
            for name in names
        ]

    @property
    def store(self) -> Book:
        """As a manager has it."""
        return self

    def one(self, sql: str, *params: object) -> dict[str, object]:
        """The only row of a query."""
        frame = self.query(sql, params)
        assert len(frame) == 1
        return dict(frame.iloc[0])

    def view(self, job: int) -> dict[str, object]:
        """A job as the view shows it."""
        return self.one("SELECT * FROM jobs WHERE number = ?", job)

    def flush(self) -> None:
        if self.rows:
            with self.connection.appender("ledger") as appender:
                appender.append_rows(self.rows)
            self.written += len(self.rows)
            self.rows = []

    def _happen(self, job: int, what: What, at: float, **columns: object) -> None:
        step = advance(self.lives[job], what, self.spec_of[job], now=START + at, chance=0.5)
        assert step.event is not None, step.refusal
        fence = getattr(what, "fence", None)
        if step.event is Event.STALE:
            self._row(at, Event.STALE, job, fence=fence, error=step.refusal)
            return
        life = self.lives[job] = step.life
        columns.setdefault("cause", step.cause or None)
        self._row(
            at,
            step.event,
            job,
            fence=fence,
            attempt=life.attempt,
            max_attempts=life.max_attempts,
            base=life.base or None,
            crashes=life.crashes or None,
            due_us=None if life.due_at is None else round(life.due_at * 1e6),
            **columns,
        )

    def _row(self, at: float, event: Event, job: int, **columns: object) -> None:
        seq = self.written + len(self.rows) + 1
        row = {"seq": seq, "happened_us": _us(at), "event": event.value, "job": job, **columns}
        assert row.keys() <= schema.COLUMNS.keys()
        self.rows.append(tuple(row.get(name) for name in schema.COLUMNS))


def _us(at: float) -> int:
    return round((START + at) * 1e6)


@pytest.fixture
def book() -> Iterator[Book]:
    """An empty one."""
    made = Book()
    yield made
    made.connection.close()
