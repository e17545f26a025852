"""What travels between the process that has the queue and the workers of a cluster; both ends import it."""

from __future__ import annotations

from typing import NamedTuple

from nbqueue.executors import messages
from nbqueue.jobs import Claim
from nbqueue.wire import allow

__all__ = ["OPERATION", "Load", "Setup", "messages"]

#: What a Dask worker is asked under.
OPERATION = "nbqueue"


class Setup(NamedTuple):
    """What a lane is told when it is opened."""

    #: Which connection of which executor it belongs to; also the topic of the cluster's events under which it reports.
    session: str
    #: Signs what travels, and nothing else: the user's own secret stays at home.
    key: bytes


class Load(NamedTuple):
    """A job on its way to a lane."""

    claim: Claim
    #: Whose code it is, and which of its versions.
    whose: tuple[str, str]
    parcel: int
    #: The hash of that code where it was dispatched; "" where it travels by value, and is the same.
    code: str
    #: The classes of its arguments, by value.
    classes: bytes | None


allow(Load)
