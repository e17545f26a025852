"""The records that travel between the layers, and what a user may ask of a job; does no I/O and reads no clock."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Self, TypedDict

from nbqueue.errors import InvalidCommand
from nbqueue.retry import RetryPolicy

__all__ = [
    "PRIORITY_MAX",
    "PRIORITY_MIN",
    "BatchRecord",
    "Claim",
    "JobRecord",
    "NewBatch",
    "NewJob",
    "Options",
    "QueuedCommand",
    "Spec",
    "State",
    "seconds",
    "timestamp",
]

PRIORITY_MIN = -100
PRIORITY_MAX = 100
TRIES_MAX = 10_000
#: Ten years: a longer delay is a unit mistaken (milliseconds for seconds).
SECONDS_MAX = 10 * 365 * 86_400.0


class State(StrEnum):
    """Where a job stands. ``scheduled`` and ``retrying`` are pending jobs that wait for their time."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens unless somebody retries it."""
        return self in _ENDED


_ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


def seconds(value: float | timedelta, *, what: str, least: float = 0.0) -> float:
    """Give a duration in float seconds, or refuse it by name.

    >>> seconds(timedelta(minutes=5), what="delay")
    300.0
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{what} must be seconds or a timedelta, not {type(value).__name__} {value!r}"
        raise InvalidCommand(msg)
    else:
        number = float(value)
    if not math.isfinite(number):
        msg = f"{what} must be a finite number of seconds, not {value!r}"
        raise InvalidCommand(msg)
    if number < least or (least > 0 and number <= 0):
        msg = f"{what} cannot be {number:g} s; give {least:g} s or more"
        raise InvalidCommand(msg)
    if number > SECONDS_MAX:
        msg = f"{what} of {number:g} s is more than ten years; give seconds, not milliseconds"
        raise InvalidCommand(msg)
    return number


def timestamp(value: datetime, *, what: str) -> float:
    """Give an aware datetime as seconds since the epoch, or refuse it by name."""
    if not isinstance(value, datetime):
        msg = f"{what} must be a datetime, not {type(value).__name__} {value!r}"
        raise InvalidCommand(msg)
    if value.tzinfo is None:
        msg = f"{what} {value.isoformat()} has no time zone; write e.g. datetime.now(UTC) or .astimezone()"
        raise InvalidCommand(msg)
    return value.timestamp()


def utc(at: float) -> datetime:
    """Give seconds since the epoch as an aware UTC datetime."""
    return datetime.fromtimestamp(at, UTC)


def check_name(name: object, *, what: str) -> str:
    """Give a queue's or command's name, or refuse it."""
    if not isinstance(name, str):
        msg = f"{what} must be a string, not {type(name).__name__} {name!r}"
        raise InvalidCommand(msg)
    if not name or not name.strip():
        example = "import:data" if what == "command" else "imports"
        msg = f'{what} is empty; give it a name such as "{example}"'
        raise InvalidCommand(msg)
    if name != name.strip() or not name.isprintable() or len(name) > 200:
        msg = f"{what} {name[:60]!r} must be at most 200 printable characters without spaces around it"
        raise InvalidCommand(msg)
    return name


def check_queue(name: object) -> str:
    """Give a queue's name, or refuse it; ``*`` and commas mean something to a worker."""
    checked = check_name(name, what="queue")
    if "," in checked or "*" in checked:
        msg = f'queue {checked!r} must not contain "," or "*": workers read these as lists and as every queue'
        raise InvalidCommand(msg)
    return checked


def check_priority(value: object) -> int:
    """Give a priority from -100 to 100 (higher first), or refuse it."""
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"priority must be a whole number, not {type(value).__name__} {value!r}"
        raise InvalidCommand(msg)
    if not PRIORITY_MIN <= value <= PRIORITY_MAX:
        msg = f"priority {value} is out of range; give {PRIORITY_MIN} to {PRIORITY_MAX} (higher runs first)"
        raise InvalidCommand(msg)
    return int(value)


def check_tries(value: object, *, what: str = "max_attempts") -> int:
    """Give a number of attempts from 1 to 10,000, or refuse it."""
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{what} must be a whole number, not {type(value).__name__} {value!r}"
        raise InvalidCommand(msg)
    if not 1 <= value <= TRIES_MAX:
        once = " (run once)" if what in ("max_attempts", "tries") else ""
        msg = f"{what} cannot be {value}; give 1{once} to {TRIES_MAX:,}"
        raise InvalidCommand(msg)
    return int(value)


class OptionKeywords(TypedDict, total=False):
    """What ``@job(...)`` and ``.options(...)`` take by keyword; ``Options.make`` checks them."""

    queue: str | None
    delay: float | timedelta | None
    scheduled_at: datetime | None
    priority: int | None
    tries: int | None
    timeout: float | timedelta | None
    metadata: Mapping[str, object] | None
    backoff: object
    jitter: float | None
    retry_on: object
    give_up_on: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said about a job besides its work; ``None`` means unsaid.

    Built with ``Options.make(...)``, which checks every value and names the one that is wrong.
    """

    queue: str | None = None
    #: Seconds from dispatch until it may run.
    delay: float | None = None
    #: Seconds since the epoch; wins over ``delay``.
    scheduled_at: float | None = None
    priority: int | None = None
    tries: int | None = None
    #: Seconds one attempt may take.
    timeout: float | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    retry: RetryPolicy | None = None

    @classmethod
    def make(cls, **given: Any) -> Self:
        """Check what a user wrote (the keywords of ``OptionKeywords``) and keep it."""
        unknown = given.keys() - OptionKeywords.__annotations__.keys()
        if unknown:
            known = ", ".join(sorted(OptionKeywords.__annotations__))
            msg = f"unknown option {', '.join(sorted(unknown))}; an option is one of {known}"
            raise InvalidCommand(msg)
        found: dict[str, Any] = {}
        if (queue := given.get("queue")) is not None:
            found["queue"] = check_queue(queue)
        if (delay := given.get("delay")) is not None:
            found["delay"] = seconds(delay, what="delay")
        if (when := given.get("scheduled_at")) is not None:
            found["scheduled_at"] = timestamp(when, what="scheduled_at")
        if (priority := given.get("priority")) is not None:
            found["priority"] = check_priority(priority)
        if (tries := given.get("tries")) is not None:
            found["tries"] = check_tries(tries, what="tries")
        if (timeout := given.get("timeout")) is not None:
            found["timeout"] = seconds(timeout, what="timeout", least=0.001)
        if (metadata := given.get("metadata")) is not None:
            found["metadata"] = check_metadata(metadata)
        retry = {
            k: given[k] for k in ("backoff", "jitter", "retry_on", "give_up_on") if given.get(k) is not None
        }
        if retry:
            found["retry"] = RetryPolicy.make(**retry)
        return cls(**found)

    def over(self, base: Options) -> Options:
        """Give these options with what they leave unsaid taken from ``base``; metadata is merged."""
        # Most handlers, and most calls, say nothing: to look costs 0.5 us, to make another 6.
        if base == _UNSAID:
            return self
        if self == _UNSAID:
            return base
        said = {
            f.name: v
            for f in fields(self)
            if f.name != "metadata" and (v := getattr(self, f.name)) is not None
        }
        if "delay" in said and "scheduled_at" not in said:
            said["scheduled_at"] = None
        return replace(base, **said, metadata={**base.metadata, **self.metadata})


_UNSAID = Options()


def check_metadata(metadata: object) -> dict[str, object]:
    """Give metadata as a plain dict with string keys, or refuse it."""
    if not isinstance(metadata, Mapping):
        msg = f'metadata must be a dict such as {{"user_id": 7}}, not {type(metadata).__name__}'
        raise InvalidCommand(msg)
    for key in metadata:
        if not isinstance(key, str) or not key:
            msg = f"metadata key {key!r} must be a non-empty string"
            raise InvalidCommand(msg)
    return dict(metadata)


@dataclass(frozen=True, slots=True)
class QueuedCommand:
    """A named command with its arguments and options, to be handed to a queue; each ``with_…`` gives a new one.

    Parameters
    ----------
    command : str
        The name its handler was registered under.

    Raises
    ------
    InvalidCommand
        For an empty name, and from each builder for a value no queue can take.

    Example
    -------
    >>> cmd = QueuedCommand("import:data").with_args(["users.csv"]).with_arg("--force").with_max_attempts(5)
    >>> cmd.args
    ('users.csv', '--force')
    >>> cmd.is_delayed()
    False
    """

    command: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        check_name(self.command, what="command")

    def with_args(self, args: Sequence[Any]) -> QueuedCommand:
        """Replace the positional arguments."""
        if isinstance(args, str | bytes) or not isinstance(args, Sequence):
            msg = f'with_args takes a list such as ["users.csv"], not {type(args).__name__} {args!r}; for one: with_arg'
            raise InvalidCommand(msg)
        return replace(self, args=tuple(args))

    def with_arg(self, arg: Any) -> QueuedCommand:
        """Append one positional argument."""
        return replace(self, args=(*self.args, arg))

    def with_kwargs(self, **kwargs: Any) -> QueuedCommand:
        """Add keyword arguments."""
        return replace(self, kwargs={**self.kwargs, **kwargs})

    def _with(self, **given: Any) -> QueuedCommand:
        return replace(self, options=Options.make(**given).over(self.options))

    def with_delay(self, delay: float | timedelta) -> QueuedCommand:
        """Let it run no earlier than this long after dispatch (seconds or ``timedelta``)."""
        return self._with(delay=delay)

    def with_scheduled_at(self, when: datetime) -> QueuedCommand:
        """Let it run no earlier than this aware datetime."""
        return self._with(scheduled_at=when)

    def with_max_attempts(self, tries: int) -> QueuedCommand:
        """Try it at most this often, 1 or more."""
        check_tries(tries)
        return self._with(tries=tries)

    def with_backoff(self, backoff: object, *, jitter: float | None = None) -> QueuedCommand:
        """Wait this long between attempts: seconds, a list of them, or ``"exponential"``."""
        return self._with(backoff=backoff, jitter=jitter)

    def with_timeout(self, timeout: float | timedelta) -> QueuedCommand:
        """Let one attempt take at most this long (seconds or ``timedelta``)."""
        return self._with(timeout=timeout)

    def with_metadata(self, key: str, value: object) -> QueuedCommand:
        """Attach one value for tracking; it is shown in frames and panels and handed to the handler's context."""
        return self._with(metadata={key: value})

    def on_queue(self, queue: str) -> QueuedCommand:
        """Name its queue; this wins over the ``CommandQueue`` it is dispatched on."""
        return self._with(queue=queue)

    def with_priority(self, priority: int) -> QueuedCommand:
        """Run it before jobs of a lower priority in its queue, -100 to 100."""
        return self._with(priority=priority)

    def is_delayed(self) -> bool:
        """Whether it was told to wait for a time."""
        return bool(self.options.delay) or self.options.scheduled_at is not None


class Spec(NamedTuple):
    """What many jobs have in common; stored once, shared by all of them.

    A ``NamedTuple`` since one is hashed for every dispatch.
    """

    command: str
    queue: str = "default"
    priority: int = 0
    #: Where the handler was defined, "" for a command that any handler of that name may serve.
    origin: str = ""
    #: Hash of the handler's code at dispatch, "" for a named command.
    code: str = ""
    #: None: whatever the worker that takes it says.
    tries: int | None = None
    timeout: float | None = None
    retry: RetryPolicy = RetryPolicy()


class NewJob(NamedTuple):
    """One job on its way into a store; everything is encoded and checked already."""

    job_id: uuid.UUID
    spec: Spec
    #: ``payload.encode_call`` of its arguments.
    payload: str
    #: JSON object, "" for none.
    metadata: str = ""
    #: Seconds since the epoch; None: at once.
    due_at: float | None = None
    #: The batch it belongs to, and its row there.
    batch_id: uuid.UUID | None = None
    row: str | None = None


class NewBatch(NamedTuple):
    """What a store is told of the jobs that are handed in as the rows of one batch."""

    batch_id: uuid.UUID
    #: Of every row, as of their ``Spec``.
    command: str
    origin: str = ""
    #: The name under which its rows are matched with those that came before; "" for none.
    key: str = ""
    #: JSON text of what the input was like, for who shows it again; the store does not look into it.
    head: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """What a store knows of a batch; times are seconds since the epoch."""

    batch_id: uuid.UUID
    command: str
    origin: str
    key: str
    head: str
    #: When it was handed in first, and last.
    created_at: float
    mapped_at: float
    #: The jobs of its rows in the order of the input: runs of job numbers, each the first and the last of it.
    runs: tuple[tuple[int, int], ...]

    @property
    def total(self) -> int:
        """How many rows it has."""
        return sum(last - first + 1 for first, last in self.runs)


class Claim(NamedTuple):
    """One attempt handed to a worker; everything it reports must carry the fence."""

    job_id: uuid.UUID
    fence: int
    #: From 1; counts towards ``tries``.
    attempt: int
    #: The attempt that is the last one.
    max_attempts: int
    #: Seconds, None for no limit.
    timeout: float | None
    spec: Spec
    payload: str
    metadata: str
    batch_id: uuid.UUID | None = None
    row: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What a store knows of one job at one moment; times are seconds since the epoch."""

    job_id: uuid.UUID
    spec: Spec
    state: State
    attempt: int
    max_attempts: int
    crashes: int
    fence: int
    dispatched_at: float
    scheduled_at: float
    started_at: float | None
    finished_at: float | None
    worker: str
    #: ``payload.encode`` of what the handler returned, "" for None or where there is none.
    result: str
    error: str
    cause: str
    traceback: str
    payload: str
    metadata: str
    cancelling: bool
    batch_id: uuid.UUID | None
    row: str | None
