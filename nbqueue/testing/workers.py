"""A worker that runs nothing, and what tests of a store say often."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from nbqueue.ids import new_job_ids, new_packed_ids
from nbqueue.jobs import Claim, JobRecord, NewBatch, NewJob, Spec, State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.rows import Rows
from nbqueue.store import (
    Answer,
    Capability,
    Handlers,
    Report,
    ReportKind,
    Selection,
    Store,
    Turn,
    WorkerInfo,
)
from nbqueue.testing.clock import FakeClock

__all__ = [
    "ANY",
    "NO_WAIT",
    "FakeWorker",
    "bring",
    "check_books",
    "events_of",
    "get",
    "ids",
    "need",
    "new_batch",
    "new_job",
    "new_rows",
]

#: Takes every job.
ANY = Handlers(everything=True)
NO_WAIT = RetryPolicy(backoff=(0.0,))


def new_job(clock: FakeClock, command: str = "work", *, delay: float | None = None, **given: Any) -> NewJob:
    """Make a job: the keywords are those of ``Spec`` and of ``NewJob``."""
    (job_id,) = new_job_ids(1, now=clock.time(), randomness=os.urandom(10))
    rest = {name: given.pop(name) for name in ("payload", "metadata", "batch_id", "row") if name in given}
    due_at = None if delay is None else clock.time() + delay
    return NewJob(
        given.pop("job_id", job_id), Spec(command, **given), rest.pop("payload", "[]"), due_at=due_at, **rest
    )


def new_batch(
    clock: FakeClock, rows: Mapping[str, str], key: str = "", **given: Any
) -> tuple[NewBatch, list[NewJob]]:
    """Make a batch of payloads by label: the other keywords are those of ``Spec``."""
    batch_id = new_job(clock).job_id
    jobs = [
        new_job(clock, payload=text, batch_id=batch_id, row=label, **given) for label, text in rows.items()
    ]
    command, origin = given.get("command", "work"), given.get("origin", "")
    return NewBatch(batch_id, command, origin, key, '{"head":1}'), jobs


def new_rows(clock: FakeClock, rows: Mapping[str, str], key: str = "", **given: Any) -> tuple[NewBatch, Rows]:
    """As ``new_batch``, by columns."""
    batch, _ = new_batch(clock, {}, key, **given)
    packed = new_packed_ids(len(rows), now=clock.time(), randomness=os.urandom(10 + 8 * len(rows)))
    due_at, metadata = given.pop("due_at", None), given.pop("metadata", "")
    spec = Spec(given.pop("command", "work"), **given)
    texts, labels = list(rows.values()), list(rows)
    made = Rows(
        ids=packed,
        spec=spec,
        payloads=texts,
        labels=labels,
        batch_id=batch.batch_id,
        metadata=metadata,
        due_at=due_at,
    )
    return batch, made


class FakeWorker:
    """A worker that runs nothing: it takes turns when told, and keeps what it was handed.

    Parameters
    ----------
    store : Store
        It joins this at once.
    worker_id : str
        Its name.
    handlers : Handlers
        What it can run.
    info
        The other fields of ``WorkerInfo``.
    """

    def __init__(self, store: Store, worker_id: str = "w1", *, handlers: Handlers = ANY, **info: Any) -> None:
        self.store = store
        self.info = WorkerInfo(worker_id=worker_id, **info)
        #: What came by ``wake``.
        self.handed: list[Claim] = []
        #: How often it was asked for a turn.
        self.called = 0
        self.join(handlers)

    def join(self, handlers: Handlers = ANY, held: Collection[int] = ()) -> None:
        """Become known, or come back with the claims of these fences."""
        self.store.join(self.info, handlers, self._wake, held)

    def _wake(self, claims: Sequence[Claim]) -> None:
        self.handed += claims
        self.called += not claims

    def turn(self, *reports: Report, slots: int = 0, handlers: Handlers | None = None) -> Turn:
        """Take a turn."""
        return self.store.turn(self.info.worker_id, reports, slots, handlers)

    def take(self, slots: int = 1) -> list[Claim]:
        """Claim; the open slots are closed again."""
        claims = list(self.turn(slots=slots).claims)
        self.turn(slots=0)
        return claims

    def take_one(self) -> Claim:
        """Claim the one job that there is to claim."""
        (claim,) = self.take(1)
        return claim

    def end(self, claim: Claim, outcome: Outcome = Outcome.SUCCEEDED, **said: Any) -> Answer:
        """Report that an attempt has ended."""
        (answer,) = self.turn(Report(claim, ReportKind.ENDED, outcome, **said)).answers
        return answer

    def say(self, claim: Claim, kind: ReportKind, **said: Any) -> Answer:
        """Report something else."""
        (answer,) = self.turn(Report(claim, kind, **said)).answers
        return answer

    def leave(self) -> None:
        """Be forgotten."""
        self.store.leave(self.info.worker_id)


def need(store: Store, capability: Capability) -> None:
    """Skip what this store declares it cannot do, by name."""
    if capability not in store.capabilities:
        import pytest  # only who has a store to prove needs it

        pytest.skip(f"{type(store).__name__} does not declare {capability.value}")


def get(store: Store, job: NewJob | Claim | UUID) -> JobRecord:
    """Give the record of one job."""
    (record,) = store.get([job if isinstance(job, UUID) else job.job_id])
    return record


def ids(jobs: Iterable[NewJob | Claim]) -> list[UUID]:
    """Give the ids of jobs or claims."""
    return [job.job_id for job in jobs]


def events_of(store: Store, job: NewJob) -> list[str]:
    """Give what is written down of a job, in order."""
    frame = store.query("SELECT event FROM events WHERE job_id = ? ORDER BY seq", [job.job_id])
    return [str(event) for event in frame["event"]]


def check_books(store: Store) -> None:
    """Check that the counts a store keeps are those of a recount."""
    kept = {(q.name, state.value): n for q in store.queues() for state, n in q.counts.items() if n}
    if Capability.SQL in store.capabilities:
        frame = store.query("SELECT queue, state::VARCHAR AS state, count(*) AS n FROM jobs GROUP BY ALL")
        counted = {
            (str(q), str(s)): int(n)
            for q, s, n in zip(frame["queue"], frame["state"], frame["n"], strict=True)
        }
    else:
        counted = {}
        for record in store.get(store.find(Selection())):
            key = (record.spec.queue, record.state.value)
            counted[key] = counted.get(key, 0) + 1
    assert kept == counted


def bring(store: Store, clock: FakeClock, state: State, *, fingerprint: str = "", **given: Any) -> NewJob:
    """Make a job that stands at a state; nobody works on the store afterwards unless it runs."""
    job = new_job(clock, **given)
    store.insert([job])
    if state is State.PENDING:
        return job
    if state is State.CANCELLED and Capability.CANCEL in store.capabilities:
        store.cancel([job.job_id])
        return job
    worker = FakeWorker(store, f"bring-{job.job_id}", queues=(job.spec.queue,))
    claim = worker.take_one()
    assert claim.job_id == job.job_id, "bring takes the first job of its queue: it needs one that is empty"
    if state is not State.RUNNING:
        outcome = {
            State.SUCCEEDED: Outcome.SUCCEEDED,
            State.FAILED: Outcome.FAILED,
            State.CANCELLED: Outcome.CANCELLED,
        }
        failed = {"error": "KeyError: 'x'", "fingerprint": fingerprint} if fingerprint else {}
        worker.end(claim, outcome[state], **failed)
        worker.leave()
    return job
