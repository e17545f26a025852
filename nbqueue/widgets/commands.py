"""How what a front end asked for went, and the sentence where it could not be done; knows no queue and no widget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nbqueue.errors import NbqueueError
from nbqueue.facade.forms.spec import FormErrors

__all__ = ["Done", "answer", "sentence"]

_log = logging.getLogger("nbqueue.widgets")


class Done(NamedTuple):
    """What came of a command."""

    ok: bool
    text: str = ""
    #: By field of a form.
    errors: Mapping[str, str] | None = None
    #: The job that came of it, for the front end to open.
    job: str | None = None

    def message(self, number: object) -> dict[str, Any]:
        """Give it as the answer to the command of this number."""
        told: dict[str, Any] = {"type": "done", "id": number, "ok": self.ok, "text": self.text}
        if self.errors is not None:
            told["errors"] = dict(self.errors)
        if self.job is not None:
            told["job"] = self.job
        return told


def answer(what: object, command: Callable[[], str | Done] | None) -> Done:
    """Do what a front end asked for; what cannot be done is told, not raised.

    Parameters
    ----------
    what : str
        Its name.
    command : callable, optional
        What it means; None for a name that means nothing.

    Example
    -------
    >>> answer("reboot", None).text
    "this version of nbqueue knows no command 'reboot'; reload the page"
    """
    if command is None:
        return Done(False, f"this version of nbqueue knows no command {what!r}; reload the page")
    try:
        came = command()
        return came if isinstance(came, Done) else Done(True, came)
    except FormErrors as error:
        return Done(False, str(error), error.errors)
    except Exception as error:  # noqa: BLE001 - whoever clicked is told, and the view goes on
        if not isinstance(error, NbqueueError):
            _log.exception("the command %s of a front end failed", what)
        return Done(False, sentence(error))


def sentence(error: Exception) -> str:
    """Give an error as people are told it: our own speak for themselves, others need their name."""
    return str(error) if isinstance(error, NbqueueError) else f"{type(error).__name__}: {error}"
