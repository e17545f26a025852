"""From what a user hands in to what a store takes: checks and encodes it; writes nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from nbqueue import payload
from nbqueue.errors import InvalidCommand
from nbqueue.facade.ids import new_ids
from nbqueue.facade.receipt import JobDispatch, Source
from nbqueue.handlers.registry import Call, to_call
from nbqueue.jobs import NewJob, Options, Spec
from nbqueue.retry import RetryPolicy
from nbqueue.rows import Rows
from nbqueue.secret import load_secret

__all__ = ["Prepared", "encode_arguments", "prepare", "specs_of"]

_NO_RETRY = RetryPolicy()


class Prepared(NamedTuple):
    """One job, checked and encoded, with what it was made of."""

    job: NewJob
    call: Call
    metadata: Mapping[str, object]

    def receipt(self, source: Source, now: float) -> JobDispatch:
        """Give its receipt."""
        job = self.job
        return JobDispatch(
            job.job_id,
            job.spec.command,
            job.spec.queue,
            scheduled_at=now if job.due_at is None else job.due_at,
            metadata=self.metadata,
            source=source,
        )


def prepare(
    works: Sequence[object], given: Options | None, *, queue: str | None, default_queue: str, now: float
) -> list[Prepared]:
    """Check and encode what a user hands in; nothing is written.

    Parameters
    ----------
    works : sequence
        Whatever ``to_call`` takes.
    given : Options, optional
        Said at dispatch; wins over what the work says of itself.
    queue : str, optional
        The queue it is handed to, for work that names none.
    default_queue : str
        Where neither names one.
    now : float
        Seconds since the epoch.

    Raises
    ------
    InvalidCommand
        For what cannot be dispatched or stored, by its name.
    """
    ids = new_ids(len(works), now)
    return [
        _prepare(job_id, to_call(work), given, queue or default_queue, now)
        for job_id, work in zip(ids, works, strict=True)
    ]


def _prepare(job_id: uuid.UUID, call: Call, given: Options | None, queue: str, now: float) -> Prepared:
    options = call.options if given is None else given.over(call.options)
    spec = Spec(
        call.command,
        options.queue or queue,
        options.priority or 0,
        call.origin,
        call.code,
        options.tries,
        options.timeout,
        options.retry or _NO_RETRY,
    )
    due_at = options.scheduled_at
    if due_at is None and options.delay:
        due_at = now + options.delay
    metadata = options.metadata
    text = _encode_metadata(call.command, metadata) if metadata else ""
    arguments = encode_arguments(call.command, tuple(call.args), call.kwargs)
    return Prepared(NewJob(job_id, spec, arguments, text, due_at), call, metadata)


def encode_arguments(command: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Give the arguments of a call as text; signed where a part of them must be pickled."""
    try:
        return payload.encode_call(args, kwargs)
    except InvalidCommand:
        # Only what must be pickled needs the secret, and most never make one.
        try:
            return payload.encode_call(args, kwargs, key=load_secret(), context=command)
        except InvalidCommand as error:
            raise InvalidCommand(f"{command}: {error}") from error


def _encode_metadata(command: str, metadata: Mapping[str, object]) -> str:
    try:
        return payload.encode(dict(metadata), what="metadata")
    except InvalidCommand as error:
        raise InvalidCommand(f"{command}: {error}") from error


def specs_of(jobs: Iterable[NewJob]) -> set[Spec]:
    """Give the specs of jobs; those of a batch share one, whose hash takes 0.6 us."""
    if isinstance(jobs, Rows):
        return {jobs.spec} if jobs else set()
    return {spec for spec, _ in groupby(map(attrgetter("spec"), jobs))}
