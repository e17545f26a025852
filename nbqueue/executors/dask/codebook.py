"""The code that a Dask worker has been sent, by its versions; unpacked when a job needs it, and kept for the next."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import NamedTuple

from nbqueue.errors import NbqueueError
from nbqueue.executors.dask.messages import Load
from nbqueue.handlers.handler import Handler
from nbqueue.payload.errors import UnknownType, told
from nbqueue.running.shipping import take_classes, unpack

__all__ = ["Codebook"]

_log = logging.getLogger("nbqueue.job")

#: Versions of one handler's code that are kept.
_VERSIONS = 8


class _Code(NamedTuple):
    """A handler as it came, and as it is once it was needed."""

    data: bytes
    handler: Handler | None = None


class Codebook:
    """The handlers that were sent to a worker.

    Parameters
    ----------
    address : str
        Of the worker, for what is said of them.
    """

    def __init__(self, address: str):
        self._address = address
        self._kept: dict[tuple[str, str], OrderedDict[int, _Code]] = {}

    def keep(self, whose: tuple[str, str], number: int, data: bytes) -> None:
        """Keep a version of a handler."""
        kept = self._kept.setdefault(whose, OrderedDict())
        kept[number] = _Code(data)
        while len(kept) > _VERSIONS:
            kept.popitem(last=False)

    def is_async(self, load: Load) -> bool:
        """Whether the handler of a job that has run is ``async def``."""
        code = self._kept.get(load.whose, OrderedDict()).get(load.parcel)
        return code is not None and code.handler is not None and code.handler.is_async

    def handler(self, load: Load) -> Handler:
        """Give the handler of a job, and let the classes of its arguments be found.

        Raises
        ------
        UnknownType
            If it cannot be unpacked here.
        """
        try:
            if load.classes is not None:
                take_classes(load.classes)
            kept = self._kept[load.whose]
            found = kept[load.parcel].handler
            if found is None:
                found = unpack(kept[load.parcel].data)
                kept[load.parcel] = kept[load.parcel]._replace(handler=found)
                if load.code and found.code != load.code:
                    self._warn(found)
        except NbqueueError:
            raise
        except BaseException as error:
            raise UnknownType(
                f"the code of the job cannot be rebuilt on the Dask worker {self._address} ({told(error)}); "
                "install there what it needs, or run it on a worker without Dask"
            ) from error
        return found

    def _warn(self, handler: Handler) -> None:
        _log.warning(
            "%s is another version of itself on the Dask worker %s, which imported %s before it changed; "
            "client.restart() lets the workers import it anew",
            handler.name,
            self._address,
            handler.origin.removeprefix("module:"),
        )
