"""What Dask is given as a task: a lane, which has no job of its own.

It says that it is there, is given jobs, and runs them one after the other. Dask runs a task again when the worker that
had it has died; a lane that comes again is told to go, so Dask never runs a job a second time.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from nbqueue.executors.dask.messages import OPERATION, Setup
from nbqueue.executors.dask.station import Station
from nbqueue.running import grafts, shells
from nbqueue.wire import encode

__all__ = ["serve"]

#: By the address of a Dask worker, of which a process may have several, and the session.
_stations: dict[tuple[str, str], Station] = {}
_making = threading.Lock()


def serve(setup: Setup, number: int, key: str) -> None:
    """Run a lane in this thread of a Dask worker, until it is told to go.

    Parameters
    ----------
    setup : Setup
        Whose lane it is.
    number : int
        Of the lane.
    key : str
        Of the Dask task.
    """
    from distributed import get_worker

    _station_of(get_worker(), setup).serve(number, key)


def _station_of(worker: Any, setup: Setup) -> Station:
    place = worker.address, setup.session
    with _making:
        found = _stations.get(place)
        if found is None:
            for other in list(_stations.values()):
                other.close_if_forsaken()
            grafts.want(shells.GRAFTS)
            found = _stations[place] = Station(worker, setup, partial(_stations.pop, place, None))
            worker.handlers[OPERATION] = _make_ear(worker.address)
        return found


def _make_ear(address: str) -> Any:
    """Give what a Dask worker calls when it is asked under ``OPERATION``."""

    def hear(session: str, data: bytes) -> bytes:
        station = _stations.get((address, session))
        return encode(("", None) if station is None else (station.identity, station.hear(data)))

    return hear
