"""Every error that nbqueue raises; knows nothing of the rest.

The tree::

    NbqueueError
    ├── QueueError
    │   ├── InvalidCommand     (also ValueError)      refused before anything is written
    │   ├── QueueUnavailable                          no such queue, or its file cannot be had
    │   └── DispatchFailed                            the store could not make it durable
    ├── JobNotFound            (also LookupError)
    ├── JobFailed                                     carries the job's error and traceback
    │   └── JobTimeout                                it ran out of its own time
    ├── JobCancelled
    ├── PayloadUntrusted                              not signed by this user
    ├── StaleClaim                                    a report that came after its claim was taken back
    └── NotSupported           (also NotImplementedError)
"""

from __future__ import annotations

__all__ = [
    "DispatchFailed",
    "InvalidCommand",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobTimeout",
    "NbqueueError",
    "NotSupported",
    "PayloadUntrusted",
    "QueueError",
    "QueueUnavailable",
    "StaleClaim",
]


class NbqueueError(Exception):
    """The root of every error that nbqueue raises."""


class QueueError(NbqueueError):
    """Work could not be handed to a queue; nothing was written."""


class InvalidCommand(QueueError, ValueError):
    """A command, an option or an argument that no queue can take; the sentence names it."""


class QueueUnavailable(QueueError):
    """A queue nobody made, or a file that cannot be opened; the sentence names it and its holder."""


class DispatchFailed(QueueError):
    """The store could not make the job durable; the job was not accepted."""


class JobNotFound(NbqueueError, LookupError):
    """No job of that id in this store."""


class JobFailed(NbqueueError):
    """The job failed for good.

    Parameters
    ----------
    message : str
        What is shown: the job, its error and its attempts.
    job_id : str
        The job's UUID.
    cause : str
        Why, in one word: ``"error"``, ``"timeout"``, ``"killed"``, ``"crashes"`` …
    error : str
        The last attempt's error, ``"KeyError: 'x'"``.
    traceback : str
        The last attempt's traceback, as text; empty where there is none.
    """

    def __init__(
        self, message: str, *, job_id: str = "", cause: str = "error", error: str = "", traceback: str = ""
    ):
        super().__init__(message)
        self.job_id = job_id
        self.cause = cause
        self.error = error
        self.traceback = traceback


class JobTimeout(JobFailed):
    """The job ran out of its time on its last attempt."""


class JobCancelled(NbqueueError):
    """The job was cancelled, so it has no result."""


class PayloadUntrusted(NbqueueError):
    """Signed by nobody, or by somebody else; not a byte of it was decoded."""


class StaleClaim(NbqueueError):
    """The claim was taken back meanwhile: what came under it was refused and recorded."""


class NotSupported(NbqueueError, NotImplementedError):
    """This store or executor declares that it cannot do that."""
