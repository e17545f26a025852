"""What a worker can run: the handlers of this process, and signed code that came with jobs; knows no executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nbqueue.handlers.handler import Handler
from nbqueue.jobs import Spec
from nbqueue.store import Handlers
from nbqueue.worker.options import Means
from nbqueue.worker.trusted import TrustedCode

__all__ = ["Known"]


class Known:
    """The handlers of a worker.

    Parameters
    ----------
    means : Means
        Of the worker.
    """

    def __init__(self, means: Means):
        self._registry = means.registry
        self.trusted = TrustedCode(means.store.get_code, means.services.key)
        self._handlers = Handlers()
        #: What these were made of.
        self._made_of: tuple[Handlers, frozenset[str]] = (self._handlers, frozenset())
        #: Commands that wait in its queues and that it could not run, when it was last told.
        self.missing: tuple[str, ...] = ()

    def handlers(self) -> Handlers:
        """Give all there are; the same object while that does not change."""
        made_of = (self._registry.handlers(), self.trusted.hashes)
        if made_of[0] is not self._made_of[0] or made_of[1] is not self._made_of[1]:
            self._made_of = made_of
            self._handlers = replace(made_of[0], code=made_of[1])
        return self._handlers

    def learn(self, unknown: Sequence[Spec]) -> bool:
        """Take the code of jobs that nobody here knows, if they came with any; whether there is more now."""
        self.missing = tuple(dict.fromkeys(spec.command for spec in unknown))
        return any(self.trusted.adopt(spec) for spec in unknown)

    def resolve(self, spec: Spec) -> Handler | None:
        """Give the handler of a job, None where it is not here."""
        return self._registry.resolve(spec) or self.trusted.resolve(spec)
