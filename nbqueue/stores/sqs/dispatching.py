"""Dispatch: what is handed in is checked whole, sent, and written down; it says exactly what was sent."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

from nbqueue.errors import InvalidCommand, QueueError
from nbqueue.jobs import NewBatch, NewJob
from nbqueue.store import Mapped
from nbqueue.stores.sqs.desk import Desk
from nbqueue.stores.sqs.hand import HIDE_MAX
from nbqueue.stores.sqs.message import Draft, Standing
from nbqueue.stores.sqs.receiving import Intake
from nbqueue.stores.sqs.sending import Letter, PartlySentError, Post, Sent

__all__ = ["ATTEMPT_MAX", "Dispatcher"]

T = TypeVar("T")

#: The longest that an attempt may take, seconds: SQS hides a message for twelve hours and no longer.
ATTEMPT_MAX = HIDE_MAX - 600.0
#: So many jobs are sent and written down at a time.
_TOGETHER = 1_000
#: A message that is sent anew may be so many bytes longer: it says when it is due, and what was tried.
_GROWTH = 64
#: Of so many functions the code is kept at hand.
_CODE_KEPT = 32


class Dispatcher:
    """Sends jobs and writes them down.

    Parameters
    ----------
    post : Post
        What SQS is asked through.
    desk : Desk
        Where they are written down.
    intake : Intake
        Lets their messages in when both is done.
    clock : Callable[[], float]
        Seconds since the epoch.
    """

    def __init__(self, post: Post, desk: Desk, intake: Intake, clock: Callable[[], float]):
        self._address, self._sender = post.address, post.sender
        self._desk = desk
        self._intake = intake
        self._clock = clock
        self._code: OrderedDict[str, bytes] = OrderedDict()

    def insert(self, jobs: Sequence[NewJob]) -> None:
        """Send those of these jobs that are new, and write them down.

        Raises
        ------
        PartlySentError
            Where some were not sent; the others are written down.
        """
        known = self._desk.known(jobs)
        new = [job for job in jobs if job.job_id not in known]
        letters = self._letters(new)
        there: list[Letter] = []
        # What is sent is written down soon: its jobs may begin, though the call is a long one.
        for at in range(0, len(new), _TOGETHER):
            end = at + _TOGETHER
            with _Sending(self._intake, new[at:end]):
                sent = self._sender.send(letters[at:end])
                there += sent.sent
                so_far = sent._replace(sent=tuple(there), unsent=(*sent.unsent, *letters[end:]))
                with self._written_down(so_far):
                    self._desk.insert(_those(new[at:end], sent))
            if sent.unsent or sent.unsure:
                raise self._partly(so_far, sent.error)

    def put_batch(self, batch: NewBatch, jobs: Sequence[NewJob]) -> Mapped:
        """Send the rows of a batch that need a job, and write the batch down with what was sent.

        Raises
        ------
        PartlySentError
            Where some rows were not sent; the others are the batch.
        """
        new = self._desk.rows_to_send(batch, jobs)
        if new is None:
            return self._desk.put_batch(batch, jobs)
        letters = self._letters(new)
        with _Sending(self._intake, new):
            sent = self._sender.send(letters)
            gone = {letter.job_id for letter in (*sent.unsent, *sent.unsure)}
            with self._written_down(sent):
                mapped = self._desk.put_batch(batch, [job for job in jobs if job.job_id not in gone])
        if gone:
            raise self._partly(sent, sent.error)
        return mapped

    def send_again(self, drafts: Sequence[Draft], then: Callable[[dict[UUID, str]], T]) -> T:
        """Send ended jobs anew, and call this with what could not be sent, and why, before any of them comes."""
        with _Sending(self._intake, [draft.job for draft in drafts]):
            letters = [self._sender.letter(one, edition=f"-{one.standing.attempt}") for one in drafts]
            sent = self._sender.send(letters)
            with self._written_down(sent):
                return then({letter.job_id: sent.error for letter in (*sent.unsent, *sent.unsure)})

    def check(self, jobs: Sequence[NewJob]) -> None:
        """Refuse what SQS cannot do, before anything is sent."""
        for job in jobs:
            spec = job.spec
            if spec.timeout is not None and spec.timeout > ATTEMPT_MAX:
                raise InvalidCommand(
                    f"{spec.command}: a timeout of {spec.timeout:,.0f} s is longer than SQS hides a message; give"
                    f" {ATTEMPT_MAX:,.0f} s at most, or cut the work into several jobs"
                )
            if self._address.fifo and job.due_at is not None and job.due_at > self._clock():
                raise InvalidCommand(
                    f"{spec.command}: a FIFO queue of SQS holds nothing back, so a job there can have no delay;"
                    " dispatch it when it is due, or use queues without fifo=true"
                )

    def _letters(self, jobs: Sequence[NewJob]) -> list[Letter]:
        now = self._clock()
        return [
            self._sender.letter(
                Draft(job, Standing(), now, self._code_of(job)),
                delay=0.0 if job.due_at is None else job.due_at - now,
                spare=_GROWTH,
            )
            for job in jobs
        ]

    @contextlib.contextmanager
    def _written_down(self, sent: Sent) -> Iterator[None]:
        """Say what was sent all the same, where it cannot be written down."""
        try:
            yield
        except QueueError as error:
            if not sent.sent:
                raise
            why = str(error.__cause__ or error).strip().partition("\n")[0]
            raise self._partly(
                sent, f"what was sent could not be written down in {self._desk.path} ({why})"
            ) from error

    def _partly(self, sent: Sent, error: str) -> PartlySentError:
        there, missing, unsure = ([letter.job_id for letter in some] for some in sent[:3])
        total = len(there) + len(missing) + len(unsure)
        said = f"{len(there):,} of {total:,} jobs were sent to {self._address.name}, and those will run"
        if not there:
            said = (
                f"nothing of this call was sent to {self._address.name}"
                if not unsure
                else "nobody knows what was sent"
            )
        if missing:
            said += f"; not sent: {_named(missing)}"
        if unsure:
            said += f"; sent, but without an answer, so that they may be there: {_named(unsure)}"
        return PartlySentError(f"{error}. {said}", there, missing, unsure)

    def _code_of(self, job: NewJob) -> bytes | None:
        code = job.spec.code
        if not code:
            return None
        found = self._code.get(code)
        if found is None:
            found = self._desk.get_code(code)
            if found is not None:
                self._code[code] = found
                while len(self._code) > _CODE_KEPT:
                    self._code.popitem(last=False)
        return found


class _Sending:
    """Jobs that are sent and written down; their messages are let in when both is done."""

    def __init__(self, intake: Intake, jobs: Sequence[NewJob]):
        self._intake = intake
        self._ids = [job.job_id for job in jobs]

    def __enter__(self) -> None:
        self._intake.begin_sending(self._ids)

    def __exit__(self, *_error: object) -> None:
        self._intake.end_sending(self._ids)


def _those(jobs: Sequence[NewJob], sent: Sent) -> list[NewJob]:
    there = {letter.job_id for letter in sent.sent}
    return [job for job in jobs if job.job_id in there]


def _named(ids: Sequence[UUID]) -> str:
    return ", ".join(map(str, ids[:3])) + (f" and {len(ids) - 3:,} more" if len(ids) > 3 else "")
