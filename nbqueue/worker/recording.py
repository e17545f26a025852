"""Records what has run when nobody comes back to do it later: lost, it would run twice; knows no supervisor."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from nbqueue.errors import DispatchFailed
from nbqueue.store import Report, Store, Turn

__all__ = ["last_turn"]


def last_turn(store: Store, worker_id: str, reports: Sequence[Report]) -> Turn:
    """Report for the last time, and again where the commit failed: every report may be sent again."""
    for _ in range(2):
        with contextlib.suppress(DispatchFailed):
            return store.turn(worker_id, reports, 0)
    return store.turn(worker_id, reports, 0)
