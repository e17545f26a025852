"""Errors as values: one is packed where it was raised, and raised again where the answer is read."""

from __future__ import annotations

from typing import NamedTuple

from nbqueue import errors
from nbqueue.errors import JobFailed, QueueError
from nbqueue.wire.makers import allow

__all__ = ["Fault", "pack_error", "unpack_error"]


class Fault(NamedTuple):
    """An error on its way."""

    #: Its class: one of nbqueue's, or of Python's in ``_PYTHON``.
    kind: str
    #: What it says.
    sentence: str
    #: What a ``JobFailed`` carries besides.
    details: dict[str, str] | None = None


allow(Fault)

_OURS = {name: getattr(errors, name) for name in errors.__all__}
_PYTHON = {
    kind.__name__: kind for kind in (TimeoutError, ValueError, TypeError, NotImplementedError, MemoryError)
}
_KINDS: dict[str, type[Exception]] = {**_OURS, **_PYTHON}
_DETAILS = ("job_id", "cause", "error", "traceback")


def pack_error(error: BaseException) -> Fault:
    """Give an error as a value that travels; what is neither nbqueue's nor one of Python's plain ones is a QueueError.

    Examples
    --------
    >>> unpack_error(pack_error(errors.JobNotFound("no job 7 in this queue")))
    JobNotFound('no job 7 in this queue')
    >>> unpack_error(pack_error(ZeroDivisionError("division by zero")))
    QueueError('ZeroDivisionError: division by zero')
    """
    sentence = str(error)
    for kind in type(error).__mro__:
        if _KINDS.get(kind.__name__) is kind:
            details = (
                {name: getattr(error, name) for name in _DETAILS} if isinstance(error, JobFailed) else None
            )
            return Fault(kind.__name__, sentence, details)
    name = type(error).__name__
    return Fault(QueueError.__name__, f"{name}: {sentence}" if sentence else name)


def unpack_error(fault: Fault) -> Exception:
    """Give the error that ``pack_error`` was given, to be raised; one of a class unknown here is a QueueError."""
    kind = _KINDS.get(fault.kind, QueueError)
    if issubclass(kind, JobFailed):
        return kind(fault.sentence, **(fault.details or {}))
    return kind(fault.sentence)
