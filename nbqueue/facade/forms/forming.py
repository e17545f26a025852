"""Forms on an open queue: made from a handler, with the last values and how long it takes, and dispatched."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nbqueue import payload
from nbqueue.errors import InvalidCommand, NbqueueError
from nbqueue.facade import estimating
from nbqueue.facade.dispatching import Dispatching
from nbqueue.facade.estimating import Estimate
from nbqueue.facade.forms.shapes import Plain
from nbqueue.facade.forms.spec import FormErrors, FormSpec, form_of
from nbqueue.facade.receipt import JobDispatch
from nbqueue.facade.selecting import near
from nbqueue.handlers.definitions import ClassHandler, check_call
from nbqueue.handlers.handler import Handler, Kind
from nbqueue.handlers.registry import Call, Job, JobFunction, registry, to_mapped
from nbqueue.jobs import Options, QueuedCommand

__all__ = ["Forming"]

#: Larger arguments are data that nobody typed.
_REMEMBERED_MAX = 64 * 1024

_NEWEST = "SELECT max(number) AS number FROM events WHERE event = 'dispatched' AND command = ?"
_ARGUMENTS = "SELECT arguments FROM jobs WHERE number = ?"


class Forming(Dispatching):
    """The verbs of forms; ``QueueManager`` has them."""

    def form_spec(self, work: object) -> FormSpec:
        """Give the form of a handler as plain data, with the values of its newest job.

        Parameters
        ----------
        work : str, job or Job class
            A command's name, a function under ``@job`` (with ``.options(...)`` if wanted), or a ``Job`` class.

        Raises
        ------
        InvalidCommand
            For a name that has no handler here, naming near matches, and for what is no handler.

        Example
        -------
        >>> import nbqueue as nbq
        >>> @nbq.job
        ... def resize(path: str, width: int = 800) -> None: ...
        >>> with nbq.connect(":memory:") as queues:
        ...     _ = resize.dispatch("a.png", width=640)
        ...     queues.form_spec("resize").values
        {'path': 'a.png', 'width': 640}
        """
        handler, said = _handler_of(work)
        spec = form_of(handler, said, queues=self.list())
        took = self.estimate(handler.name)
        return dataclasses.replace(
            spec,
            values=spec.shown(self._last_arguments(spec)),
            estimate="has not run yet" if took is None else str(took),
        )

    def dispatch_form(
        self, work: object, values: Mapping[str, Plain], options: Mapping[str, Plain] | None = None
    ) -> JobDispatch:
        """Hand in what was filled in; on disk when it returns.

        Parameters
        ----------
        work : str, job, Job class or FormSpec
            What the form is of.
        values, options : mapping
            By field, as plain JSON.

        Raises
        ------
        FormErrors
            With a sentence for each field that is wrong; nothing was dispatched.
        """
        spec = work if isinstance(work, FormSpec) else form_of(*_handler_of(work))
        filled = spec.parse(values, options)
        args, kwargs = spec.call(filled)
        try:
            check_call(spec.handler, args, kwargs)
            return self.dispatch(_work_of(spec, args, kwargs), **filled.options)
        except FormErrors:
            raise
        except InvalidCommand as error:
            raise FormErrors(spec.command, {"": str(error)}) from error

    def estimate(self, command: object) -> Estimate | None:
        """Give how long jobs of a command took lately, in seconds.

        Parameters
        ----------
        command : str or job
            Its name, or the function or class that was decorated.

        Returns
        -------
        Estimate or None
            ``count, median, slow`` of the newest successful runs, 50 at most: nineteen of twenty stayed below ``slow``.
            None where there is none.
        """
        name = command if isinstance(command, str) else _handler_of(command)[0].name
        return estimating.estimate(self.store, name)

    def _last_arguments(self, spec: FormSpec) -> dict[str, Any]:
        """Give the newest job's arguments by parameter; nothing is unpickled for that."""
        newest = self.store.query(_NEWEST, (spec.command,))["number"]
        if newest.isna().iloc[0]:
            return {}
        found = self.store.query(_ARGUMENTS, (int(newest.iloc[0]),))["arguments"].tolist()
        text = found[0] if found else None
        if not isinstance(text, str) or len(text) > _REMEMBERED_MAX or payload.needs_pickle(text):
            return {}
        try:
            args, kwargs = payload.decode_call(text)
        except NbqueueError:
            return {}
        return spec.arguments(args, kwargs)


def _handler_of(work: object) -> tuple[Handler, Options]:
    """The handler, and the options said."""
    if isinstance(work, JobFunction) or (isinstance(work, type) and issubclass(work, Job)):
        call = to_mapped(work)
        assert call.handler is not None
        return call.handler, call.options
    if not isinstance(work, str):
        shown = getattr(work, "__name__", None) or repr(work)[:60]
        raise InvalidCommand(
            f"{shown} has no form; give a command's name, a function under @job, or a Job class"
        )
    handler = registry.named(work)
    if handler is None:
        raise InvalidCommand(
            f'"{work}" has no handler here, so no form{near(work, registry.names())}; run the cell that defines it'
        )
    return handler, handler.options


def _work_of(spec: FormSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    handler = spec.handler
    if isinstance(handler, ClassHandler):
        try:
            return handler.target(*args, **kwargs)
        except Exception as error:
            # What the class itself refuses, as in its __post_init__.
            said = str(error) or type(error).__name__
            raise FormErrors(spec.command, {"": said}) from error
    if handler.kind is Kind.FUNCTION:
        return Call.of(handler, args, kwargs, spec.said)
    return QueuedCommand(spec.command, args, kwargs)
