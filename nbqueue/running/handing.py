"""Work that a job in another process hands in: taken apart there, and put together again where its queue is."""

from __future__ import annotations

from typing import Any, NamedTuple

from nbqueue import payload
from nbqueue.errors import InvalidCommand
from nbqueue.handlers.registry import Call, registry, to_call
from nbqueue.jobs import Options, Spec

__all__ = ["Handed", "put_together", "take_apart"]


class Handed(NamedTuple):
    """A call as it travels."""

    command: str
    origin: str
    code: str
    #: As a job's arguments are stored.
    arguments: str
    #: Those said at dispatch over those of the work.
    options: Options


def take_apart(work: object, options: dict[str, Any], key: Any) -> Handed:
    """Take work apart.

    Parameters
    ----------
    work : object
        Whatever ``to_call`` takes.
    options : dict
        As said at dispatch.
    key : Callable[[], bytes]
        Gives this user's secret.

    Raises
    ------
    InvalidCommand
        For what cannot be dispatched or stored, by its name.
    """
    call = to_call(work)
    said = Options.make(**options).over(call.options) if options else call.options
    try:
        text = payload.encode_call(call.args, call.kwargs)
    except InvalidCommand:
        try:
            text = payload.encode_call(call.args, call.kwargs, key=key(), context=call.command)
        except InvalidCommand as error:
            raise InvalidCommand(f"{call.command}: {error}") from error
    return Handed(call.command, call.origin, call.code, text, said)


def put_together(handed: Handed, key: Any) -> Call:
    """Put it together, with the handler as it is here."""
    command, origin, code, text, options = handed
    args, kwargs = payload.decode_call(text, key=key(), context=command)
    return Call(
        command=command,
        origin=origin,
        code=code,
        args=args,
        kwargs=kwargs,
        options=options,
        handler=registry.resolve(Spec(command, origin=origin)),
    )
