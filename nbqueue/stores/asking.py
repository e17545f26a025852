"""What a look needs that asks several things of a store: how it stands at one moment, and then to read no older.

To ask a store is a turn of its writer, who is busy while a backlog is drained: 13 ms each, and a look asked for four.
What one turn wrote out stays, so the questions that follow are put to DuckDB alone. A store that has no such turn, as
one on a server or in another process, is asked by its verbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from nbqueue.store import QueueInfo, Store, WorkerInfo

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Moment", "moment_of", "read_from"]


class Moment(NamedTuple):
    """How a store stood when it was asked; what had happened until then can be read."""

    queues: list[QueueInfo]
    workers: list[WorkerInfo]
    #: The number of the last event.
    seq: int
    #: Whether it was asked for just now; else something may have happened since.
    latest: bool = True


def moment_of(store: Store, after: int) -> Moment | None:
    """Give how a store stands by one turn of its writer; None where that cannot be had.

    Parameters
    ----------
    store : Store
        Which.
    after : int
        The number of an event that whoever asks has seen: it is not shown how it stood before.
    """
    ask = getattr(store, "moment", None)
    found: Moment | None = None if ask is None else ask(after)
    return found


def read_from(store: Store, sql: str, params: Sequence[object] = ()) -> pd.DataFrame:
    """Run one SELECT of nbqueue's own on what was written out when the store was last asked, or on something newer.

    Parameters
    ----------
    store : Store
        One that was asked before.
    sql : str
        One of few texts, that is without values in it: each is kept as DuckDB has understood it.
    params : sequence
        For the ``?`` in it.
    """
    ask = getattr(store, "read", store.query)
    found: pd.DataFrame = ask(sql, params)
    return found
