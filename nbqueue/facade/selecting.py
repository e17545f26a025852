"""From the words people pick jobs by to a ``Selection``, with near matches for what does not exist; asks no store."""

from __future__ import annotations

import difflib
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.durations import ago
from nbqueue.errors import InvalidCommand, QueueUnavailable
from nbqueue.jobs import State
from nbqueue.store import Selection

if TYPE_CHECKING:
    from nbqueue.facade.batches.batch import Batch

__all__ = ["Names", "Picked", "Since", "names_of", "near", "pick", "unknown_queue"]

#: One name or several.
Names = str | Iterable[str] | None
#: "1h", "7d", a timedelta or seconds back from now; or a datetime.
Since = str | float | timedelta | datetime | None

#: Shown where a pending job waits for its time, and understood wherever a state is.
_WAITING = ("scheduled", "retrying")


class Picked(NamedTuple):
    """Which jobs were meant."""

    selection: Selection
    #: Of the pending ones only those shown as one of these; empty: no such limit.
    statuses: frozenset[str] = frozenset()


def pick(
    *,
    state: Names = None,
    queue: Names = None,
    command: object = None,
    since: Since = None,
    batch: Batch | uuid.UUID | str | None = None,
    fingerprint: str | None = None,
    queues: Sequence[str] = (),
    now: float = 0.0,
) -> Picked:
    """Read what somebody picks jobs by.

    Parameters
    ----------
    state : str or iterable of str, optional
        States; "scheduled" and "retrying" are pending jobs that wait for their time.
    queue, command : str or iterable of str, optional
        Names; a command may also be the function or class that was decorated.
    since : str, float, timedelta or datetime, optional
        Dispatched no longer ago than this, or at this time or later.
    batch : Batch, UUID or str, optional
        The batch they belong to.
    fingerprint : str, optional
        What they failed with, as ``failures`` shows it.
    queues : sequence of str
        The queues there are.
    now : float
        Seconds since the epoch.

    Raises
    ------
    InvalidCommand, QueueUnavailable
        For a state or a queue that does not exist, naming near matches.

    Example
    -------
    >>> pick(state=["failed", "scheduled"]).statuses
    frozenset({'scheduled'})
    """
    words = names_of(state, what="state")
    states, statuses = (None, frozenset[str]()) if words is None else _states(words)
    wanted = names_of(queue, what="queue")
    for name in wanted or ():
        if name not in queues:
            raise unknown_queue(name, queues)
    selection = Selection(
        states=states,
        queues=wanted,
        commands=names_of(getattr(command, "command", command), what="command"),
        batch_id=_batch(batch),
        fingerprint=fingerprint,
        since=None if since is None else ago(since, now=now, what="since"),
    )
    return Picked(selection, statuses)


def names_of(given: object, *, what: str) -> tuple[str, ...] | None:
    """Give one name or several as a tuple, None for none given."""
    if given is None:
        return None
    names = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    for name in names:
        if not isinstance(name, str):
            raise InvalidCommand(
                f"{what} must be a name or a list of names, not {type(name).__name__} {name!r}"
            )
    # A StrEnum's members are strings, and shown as such.
    return tuple(str(name) for name in names)


def _states(words: Sequence[str]) -> tuple[tuple[State, ...], frozenset[str]]:
    known = [*(state.value for state in State), *_WAITING]
    for word in words:
        if word not in known:
            raise InvalidCommand(f"there is no state {word!r}{near(word, known)}")
    waiting = frozenset(word for word in words if word in _WAITING)
    states = dict.fromkeys(State.PENDING if word in _WAITING else State(word) for word in words)
    # Whoever asks for pending ones as well asks for all of them.
    return tuple(states), frozenset() if State.PENDING.value in words else waiting


def _batch(batch: Batch | uuid.UUID | str | None) -> uuid.UUID | None:
    given: Any = getattr(batch, "batch_id", batch)
    if given is None or isinstance(given, uuid.UUID):
        return given
    try:
        return uuid.UUID(given)
    except (ValueError, AttributeError, TypeError):
        raise InvalidCommand(f"batch {given!r} is no batch id; it looks like {uuid.UUID(int=0)}") from None


def near(name: str, known: Iterable[str]) -> str:
    """Say what may have been meant: near matches, else all there is.

    Example
    -------
    >>> near("import", ["imports", "emails"]), near("x", ["b", "a"])
    ('; did you mean "imports"?', '; there is "a", "b"')
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(_quoted(close))}?"
    return f"; there is {', '.join(_quoted(names[:12]))}{' …' if len(names) > 12 else ''}" if names else ""


def _quoted(names: Iterable[str]) -> list[str]:
    return [f'"{name}"' for name in names]


def unknown_queue(name: str, known: Iterable[str]) -> QueueUnavailable:
    """Give the error for a queue that nobody made."""
    meant = near(name, known)
    way_out = f'add_queue("{name}") makes it'
    return QueueUnavailable(
        f'queue "{name}" does not exist{meant}{" " if meant.endswith("?") else "; "}{way_out}'
    )
