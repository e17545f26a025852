"""What has happened since somebody looked last, worked out of the ledger's rows; asks no queue.

A drain of tiny jobs writes 20,000 events between two looks, so what is said of each job is found with arrays: a loop
over them in Python would take as long as all else a look does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.jobs import State
from nbqueue.lifecycle import STATE_AFTER, Event
from nbqueue.stores.schema import FINGERPRINT
from nbqueue.stores.selecting import texts

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["EVENTS_SINCE", "FAILED_WITH", "Claims", "Ended", "Failed", "News", "Seen", "read"]

_SILENT = (Event.LOG, Event.OUTPUT, Event.USAGE, Event.STALE)
_TOLD = tuple(event for event in Event if event not in _SILENT)
_CODES = {event: code for code, event in enumerate(_TOLD)}
# An enum's value takes 0.3 µs, and a look may tell of 20,000 events.
_WORDS = tuple(event.value for event in _TOLD)
_ENDED = tuple(event for event, state in STATE_AFTER.items() if state.ended)
#: Of an event that an older nbqueue does not know.
_UNKNOWN = len(_TOLD)

# Whether a job failed is in its last failure or retry: it leaves its end in no other way. Where the failure has no
# error, an earlier attempt may have had one.
FAILED_WITH = f"""
    CASE WHEN event = 'failed' THEN CASE WHEN error IS NULL THEN '' ELSE coalesce({FINGERPRINT}, '') END END
"""

# Of the ledger itself: the view ``events`` finds the job of each event by a join, which takes 30 ms among a million
# jobs however few events are asked for; this takes 1 ms. Numbers of events, since 15,000 texts take 5 ms.
EVENTS_SINCE = f"""
    SELECT seq, job AS number, happened_us // 1000 AS at, coalesce(worker, -1) AS worker,
           coalesce(enum_code(TRY_CAST(event AS ENUM{texts(_TOLD)})), {_UNKNOWN}) AS code,
           {FAILED_WITH} AS fingerprint
    FROM ledger WHERE seq > ? AND seq <= ? AND {" AND ".join(f"event <> '{event}'" for event in _SILENT)} ORDER BY seq
"""


class Seen(NamedTuple):
    """How far somebody has looked."""

    #: The number of the last event.
    seq: int
    #: How many jobs there were.
    jobs: int
    #: Their numbers, where there is none missing in between; else empty.
    numbers: range = range(0)


class Claims(NamedTuple):
    """Who has which jobs: columns, since tiny jobs are claimed by thousands."""

    numbers: Sequence[int] = ()
    #: Milliseconds since the epoch.
    since: Sequence[int] = ()
    workers: Sequence[str] = ()


class Failed(NamedTuple):
    """A job that failed, or one that is to run again."""

    number: int
    #: Milliseconds since the epoch.
    at: int
    #: None for one that is to run again; empty where an earlier attempt may have the error.
    fingerprint: str | None


class Ended(NamedTuple):
    """The jobs that ended: columns, since 5,000 tuples set the garbage collector going for 10 ms."""

    numbers: Sequence[int] = ()
    #: Milliseconds since the epoch.
    at: Sequence[int] = ()
    #: "succeeded", "failed" or "cancelled".
    how: Sequence[str] = ()


class News(NamedTuple):
    """What has happened since."""

    seen: Seen
    #: The jobs that something happened to, by number, rising.
    changed: tuple[int, ...] = ()
    #: Those of them that are new, rising.
    dispatched: tuple[int, ...] = ()
    #: Those that run now, and those that do not (any more).
    running: Claims = Claims()
    resting: tuple[int, ...] = ()
    #: In order.
    ended: Ended = Ended()
    #: In order.
    failures: tuple[Failed, ...] = ()


def read(found: pd.DataFrame, since: Seen, workers: Callable[[Collection[int]], Mapping[int, str]]) -> News:
    """Give the news of some rows of ``EVENTS_SINCE``.

    Parameters
    ----------
    found : pandas.DataFrame
        At least one.
    since : Seen
        How far somebody had looked.
    workers : callable
        Tells the ids of workers by their numbers.
    """
    import numpy as np

    numbers, at, codes, worker = (
        found[name].to_numpy("int64") for name in ("number", "at", "code", "worker")
    )
    dispatched = np.unique(numbers[codes == _CODES[Event.DISPATCHED]])
    # What says something of a job without moving it has no state.
    moves = _is(codes, STATE_AFTER)
    moved, last = _last(numbers[moves])
    runs = _is(codes[moves][last], (event for event, state in STATE_AFTER.items() if state is State.RUNNING))
    claims = np.flatnonzero(codes == _CODES[Event.CLAIMED])
    claimed, last = _last(numbers[claims])
    # One that was claimed before and is asked to stop runs as it did.
    begun = np.isin(claimed, moved[runs], assume_unique=True)
    who = worker[claims[last][begun]].tolist()
    ids = workers(set(who)) if who else {}
    ends = _is(codes, _ENDED)
    fails = _is(codes, (Event.FAILED, Event.RETRIED))
    fingerprints = (
        None if code == _CODES[Event.RETRIED] else text
        for code, text in zip(codes[fails].tolist(), found["fingerprint"][fails].tolist(), strict=True)
    )
    return News(
        Seen(int(found["seq"].iloc[-1]), since.jobs + len(dispatched)),
        tuple(np.unique(numbers).tolist()),
        tuple(dispatched.tolist()),
        Claims(claimed[begun].tolist(), at[claims[last][begun]].tolist(), [ids.get(one, "") for one in who]),
        tuple(moved[~runs].tolist()),
        Ended(numbers[ends].tolist(), at[ends].tolist(), [_WORDS[code] for code in codes[ends].tolist()]),
        tuple(map(Failed, numbers[fails].tolist(), at[fails].tolist(), fingerprints)),
    )


def _is(codes: np.ndarray[Any, Any], events: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    wanted = np.zeros(_UNKNOWN + 1, dtype=bool)
    wanted[[_CODES[event] for event in events]] = True
    found: np.ndarray[Any, Any] = wanted[codes]
    return found


def _last(numbers: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The different numbers, rising, and where each stands last."""
    import numpy as np

    found, places = np.unique(numbers[::-1], return_index=True)
    return found, len(numbers) - 1 - places
