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
# Those that move a job come first.
_TOLD = (*STATE_AFTER, *(event for event in Event if event not in STATE_AFTER and event not in _SILENT))
_MOVING = len(STATE_AFTER)
_CODES = {event: code for code, event in enumerate(_TOLD)}
# An enum's value takes 0.3 µs, and a look may tell of 20,000 events.
_WORDS = tuple(event.value for event in _TOLD)
_DISPATCHED, _CLAIMED, _CANCELLING = (
    _CODES[event] for event in (Event.DISPATCHED, Event.CLAIMED, Event.CANCELLING)
)
_RUNNING = frozenset(_CODES[event] for event, state in STATE_AFTER.items() if state is State.RUNNING)
_ENDED = [_CODES[event] for event, state in STATE_AFTER.items() if state.ended]
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

    # Each step of NumPy's over so many gives the interpreter's lock away, and busy threads give it back 3 ms later; and
    # thousands of tuples set the garbage collector going. What is not dear is left to Python, by columns.
    numbers, at, codes, worker = (
        found[name].to_numpy("int64") for name in ("number", "at", "code", "worker")
    )
    moves = np.flatnonzero(codes < _MOVING)
    all_move = len(moves) == len(codes)
    moved, places = _last(numbers if all_move else numbers[moves])
    places = places if all_move else moves[places]
    ends = np.flatnonzero(np.isin(codes, _ENDED))
    here, stands = moved.tolist(), codes[places].tolist()
    claimed = [place for place, code in zip(places.tolist(), stands, strict=True) if code == _CLAIMED]
    for number in [number for number, code in zip(here, stands, strict=True) if code == _CANCELLING]:
        # One that was claimed since and is asked to stop runs as it did.
        claimed += np.flatnonzero((numbers == number) & (codes == _CLAIMED))[-1:].tolist()
    # In the order in which they were claimed, which is that in which they are run.
    claimed.sort()
    who = worker[claimed].tolist()
    ids = workers(set(who)) if who else {}
    return News(
        Seen(int(found["seq"].iloc[-1]), since.jobs + int((codes == _DISPATCHED).sum())),
        tuple(here if all_move else np.unique(numbers).tolist()),
        # They come in order, but for those of a server.
        tuple(sorted(numbers[codes == _DISPATCHED].tolist())),
        Claims(numbers[claimed].tolist(), at[claimed].tolist(), [ids.get(one, "") for one in who]),
        tuple(number for number, code in zip(here, stands, strict=True) if code not in _RUNNING),
        Ended(numbers[ends].tolist(), at[ends].tolist(), [_WORDS[code] for code in codes[ends].tolist()]),
        _failures(numbers, at, codes, found["fingerprint"]),
    )


def _failures(
    numbers: np.ndarray[Any, Any], at: np.ndarray[Any, Any], codes: np.ndarray[Any, Any], texts: pd.Series
) -> tuple[Failed, ...]:
    import numpy as np

    places = np.flatnonzero((codes == _CODES[Event.FAILED]) | (codes == _CODES[Event.RETRIED]))
    fingerprints = (
        None if code == _CODES[Event.RETRIED] else text
        for code, text in zip(codes[places].tolist(), texts.iloc[places].tolist(), strict=True)
    )
    return tuple(map(Failed, numbers[places].tolist(), at[places].tolist(), fingerprints))


def _last(numbers: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The different numbers, rising, and where each stands last."""
    import numpy as np

    found, places = np.unique(numbers[::-1], return_index=True)
    return found, len(numbers) - 1 - places
