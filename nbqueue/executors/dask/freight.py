"""Jobs as they travel to a cluster, and what comes back of them: signed anew on each way, by a key of one session.

The user's secret signs everything that is ever stored, so it does not leave this process; what a cluster is given is
good for one session of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue import payload
from nbqueue.errors import NbqueueError, PayloadUntrusted
from nbqueue.executors.dask.messages import Load
from nbqueue.payload.renewal import renew_display, renew_value
from nbqueue.payload.signing import untrusted
from nbqueue.running.run import Attempt, Ending, Runner, refused
from nbqueue.running.shipping import classes_in, pack_classes, parcel_of
from nbqueue.store import OUTPUT, LogChunk, ReportKind

if TYPE_CHECKING:
    from nbqueue.jobs import Claim

__all__ = ["Freight", "Packed"]

Code = dict[tuple[str, str], tuple[int, bytes]]


class Packed(NamedTuple):
    """A job to be sent, and the code that its worker has not."""

    load: Load
    code: Code


class Freight:
    """Packs and unpacks what travels in one session.

    Parameters
    ----------
    runner : Runner
        Knows the handlers, and this user's secret.
    """

    def __init__(self, runner: Runner):
        self._runner = runner
        self.key = secrets.token_bytes(32)
        #: By process and handler: the parcel it has of it.
        self._sent: dict[tuple[str, tuple[str, str]], int] = {}

    def pack(self, claim: Claim, process: str) -> Packed | Ending:
        """Pack a job, or say how it ends unrun.

        Parameters
        ----------
        claim : Claim
            The job.
        process : str
            Which is to run it.
        """
        handler = Attempt(self._runner, claim).find()
        if isinstance(handler, Ending):
            return handler
        try:
            text = self._sign(claim)
        except NbqueueError as error:
            return refused(error)
        try:
            parcel = parcel_of(handler)
            found = classes_in(claim.payload)
            classes = pack_classes(found) if found else None
        except NbqueueError as error:
            # It was not sent, so nothing of it was run.
            return refused(error)._replace(cause="not sent")
        whose = handler.name, handler.origin
        known = self._sent.get((process, whose)) == parcel.number
        code = handler.code if handler.origin.startswith("module:") else ""
        load = Load(claim._replace(payload=text), whose, parcel.number, code, classes)
        return Packed(load, {} if known else {whose: (parcel.number, parcel.data)})

    def arrived(self, process: str, code: Code) -> None:
        """Note that a process has code."""
        for whose, (number, _) in code.items():
            self._sent[process, whose] = number

    def _sign(self, claim: Claim) -> str:
        if not payload.needs_pickle(claim.payload):
            return claim.payload
        context = claim.spec.command
        if renew_value(claim.payload, key=self._runner.services.key(), context=context) is not None:
            untrusted("a pickled value of the job")
        return renew_value(claim.payload, key=self.key, context=context) or claim.payload

    # -- what comes back

    def unpack_ending(self, claim: Claim, fields: Any) -> Ending:
        """Take in how a job ended."""
        ending = Ending(ReportKind(fields[0]), *fields[1:])
        text, context = ending.result, claim.spec.command
        if not text or not payload.needs_pickle(text):
            return ending
        if renew_value(text, key=self.key, context=context) is not None:
            # Another has signed it: whoever asks for it is told so.
            return ending
        try:
            mine = renew_value(text, key=self._runner.services.key(), context=context)
        except PayloadUntrusted:
            mine = None
        return ending._replace(result=mine or text)

    def unpack_logs(self, claim: Claim, logs: Iterable[Any], skew: float) -> list[LogChunk]:
        """Take in what a job has said, with the times of this clock."""
        found = []
        for chunk in logs:
            stream, text, at = chunk
            if stream == OUTPUT:
                text = self._sign_display(str(claim.job_id), text)
            found.append(LogChunk(stream, text, at + skew))
        return found

    def _sign_display(self, owner: str, text: str) -> str:
        if renew_display(text, key=self.key, context=owner) is not None:
            return text
        return renew_display(text, key=self._runner.services.key(), context=owner) or text
