"""A job as the text of a message, and back; nothing that it carries is decoded here, and nothing is unpickled."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NamedTuple
from uuid import UUID

from nbqueue.jobs import NewJob, Spec
from nbqueue.lifecycle import Life
from nbqueue.retry import RetryPolicy

__all__ = ["Draft", "Standing", "UnreadableError", "read", "write"]

VERSION = 1


class Standing(NamedTuple):
    """How a job stood when its message was written; later attempts are told by how often it was handed out."""

    attempt: int = 0
    base: int = 0
    crashes: int = 0
    #: Promised by the claim that began the first attempt.
    tries: int = 1

    @classmethod
    def of(cls, life: Life) -> Standing:
        """Take what travels of a life."""
        return cls(life.attempt, life.base, life.crashes, life.tries)


class Draft(NamedTuple):
    """What a message says of a job."""

    job: NewJob
    standing: Standing
    #: When it was dispatched first, seconds since the epoch.
    dispatched_at: float
    #: The code that came with it: signed, and not verified yet.
    code: bytes | None = None
    #: It is, or was, in the queue for what has failed: with its error.
    dead: str = ""


class UnreadableError(ValueError):
    """A message that this nbqueue did not write, or cannot read."""


def write(draft: Draft, *, with_code: bool = True) -> str:
    """Give the text of a message: JSON in ASCII, since SQS does not take every character.

    Example
    -------
    >>> from uuid import uuid4
    >>> draft = Draft(NewJob(uuid4(), Spec("import"), "[1]"), Standing(), 1_700_000_000.0)
    >>> read(write(draft)) == draft
    True
    """
    job, spec = draft.job, draft.job.spec
    said: dict[str, Any] = {
        "nbqueue": VERSION,
        "id": str(job.job_id),
        "spec": [*spec[:7], spec.retry.to_json()],
        "payload": job.payload,
        "standing": list(draft.standing),
        "at": draft.dispatched_at,
    }
    rest: dict[str, Any] = {
        "metadata": job.metadata,
        "due": job.due_at,
        "batch": job.batch_id and str(job.batch_id),
        "row": job.row,
        "dead": draft.dead,
        "code": base64.b64encode(draft.code).decode() if draft.code and with_code else None,
    }
    # An empty row label is a label.
    said |= {
        name: value for name, value in rest.items() if value is not None and (value != "" or name == "row")
    }
    return json.dumps(said, separators=(",", ":"))


def read(text: str) -> Draft:
    """Read the text of a message.

    Raises
    ------
    UnreadableError
        Where it is no message of ours, or of a later nbqueue.
    """
    try:
        said = json.loads(text)
        version = said["nbqueue"]
        if version != VERSION:
            raise UnreadableError(
                f"it was written by another nbqueue (its format is {version!r}, not {VERSION})"
            )
        return _read(said)
    except UnreadableError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, binascii.Error) as error:
        raise UnreadableError(f"it is no job of nbqueue ({type(error).__name__}: {error})") from error


def _read(said: dict[str, Any]) -> Draft:
    command, queue, priority, origin, code, tries, timeout, retry = said["spec"]
    spec = Spec(
        str(command), str(queue), int(priority), str(origin), str(code),
        None if tries is None else int(tries), None if timeout is None else float(timeout),
        RetryPolicy.from_json(str(retry)),
    )  # fmt: skip
    due, batch, row, blob = (said.get(name) for name in ("due", "batch", "row", "code"))
    job = NewJob(
        UUID(said["id"]), spec, str(said["payload"]), str(said.get("metadata", "")),
        None if due is None else float(due), None if batch is None else UUID(batch),
        None if row is None else str(row),
    )  # fmt: skip
    attempt, base, crashes, promised = map(int, said["standing"])
    return Draft(
        job,
        Standing(attempt, base, crashes, promised),
        float(said["at"]),
        None if blob is None else base64.b64decode(blob, validate=True),
        str(said.get("dead", "")),
    )
