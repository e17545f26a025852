"""Copies of a notebook's functions, put into a store for the workers of other processes; runs none."""

from __future__ import annotations

import threading
import time

from nbqueue import payload
from nbqueue.errors import NbqueueError
from nbqueue.handlers.handler import Handler, Kind
from nbqueue.jobs import Spec
from nbqueue.secret import load_secret
from nbqueue.store import Store

__all__ = ["CODE_MAX", "Copies"]

#: A larger copy of a function drags data along that it should be given as an argument.
CODE_MAX = 8 * 1024 * 1024
#: Code that no job refers to stays in a store for a day after it was put there, so it is put again before that.
CODE_SECONDS = 6 * 3_600.0


class Copies:
    """Those that were put into a store, once each.

    Parameters
    ----------
    store : Store
        Where they go.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Hashes of code that was put there, or cannot be, and until when it need not be put again.
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def are_there(self, spec: Spec, handler: Handler | None) -> bool:
        """Whether a job has all that there can be of its handler's code."""
        return not spec.code or handler is None or self._is_there(spec.code)

    def offer(self, spec: Spec, handler: Handler | None) -> None:
        """Put a copy of a job's function there; one that cannot be copied runs only here."""
        if spec.code and handler is not None and not self._is_there(spec.code):
            self._put(spec, handler)

    def _is_there(self, code: str) -> bool:
        # A clock that was set back makes it the older, not the younger.
        left = self._until.get(code, 0.0) - time.time()
        return 0.0 < left <= CODE_SECONDS

    def _put(self, spec: Spec, handler: Handler) -> None:
        with self._lock:
            if self._is_there(spec.code):
                return
            if handler.kind is Kind.FUNCTION and not spec.origin.startswith("module:"):
                try:
                    _, blob = payload.pack_code(handler.code_target, key=load_secret(), context=spec.code)
                except NbqueueError:
                    blob = b""
                if 0 < len(blob) <= CODE_MAX:
                    self._store.put_code(spec.code, blob)
            self._until[spec.code] = time.time() + CODE_SECONDS
