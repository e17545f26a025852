"""Code by value that this user signed: fetched, verified and only then unpacked; knows no worker."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nbqueue import payload
from nbqueue.errors import NbqueueError, QueueError
from nbqueue.handlers.handler import Handler, main_origin
from nbqueue.handlers.registry import adopted
from nbqueue.jobs import Spec

__all__ = ["TrustedCode"]

_log = logging.getLogger("nbqueue.worker")


class TrustedCode:
    """The handlers that came by value, by their hash.

    Parameters
    ----------
    fetch : Callable[[str], bytes | None]
        Gives signed code by its hash.
    key : Callable[[], bytes]
        Gives this user's secret.
    """

    def __init__(self, fetch: Callable[[str], bytes | None], key: Callable[[], bytes]):
        self._fetch = fetch
        self._key = key
        self._handlers: dict[str, Handler] = {}
        self._refused: set[str] = set()
        #: What is adopted.
        self.hashes: frozenset[str] = frozenset()

    def adopt(self, spec: Spec) -> bool:
        """Take the code of a job whose handler is not here; whether it is here now and was not before."""
        code = spec.code
        # After a restart a job waits for its own notebook's cell to be run again: what stands there now is what counts.
        if not code or code in self._handlers or code in self._refused or spec.origin == main_origin():
            return False
        try:
            blob = None if spec.origin.startswith("module:") else self._fetch(code)
        except QueueError:
            # The store cannot be asked now, which says nothing about the code.
            return False
        if blob is None:
            self._refused.add(code)
            return False
        try:
            self._handlers[code] = adopted(
                payload.unpack_code(blob, key=self._key(), context=code), spec.command
            )
        except NbqueueError as error:
            _log.warning('the code of "%s" is not run here: %s', spec.command, error)
            self._refused.add(code)
            return False
        self.hashes = frozenset(self._handlers)
        return True

    def resolve(self, spec: Spec) -> Handler | None:
        """Give the handler of a job that came with its code."""
        return self._handlers.get(spec.code) if spec.code else None
