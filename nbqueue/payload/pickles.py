"""Pickles what no tag carries, naming the part that will not, and unpickles nothing but what was verified."""

from __future__ import annotations

import hmac
import pickle
from collections.abc import Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from nbqueue.errors import InvalidCommand, PayloadUntrusted
from nbqueue.payload.errors import REMADE, UnknownType, kind_of, shown, told
from nbqueue.payload.functions import captured, globals_used
from nbqueue.payload.notation import Json, from_base64, tagged, to_base64
from nbqueue.payload.signing import signature_of, untrusted

__all__ = ["dump", "load", "read_pickle", "write_pickle"]


def write_pickle(value: object, path: str, key: bytes, context: str) -> Json:
    """A value as a signed pickle; `path` is what an error calls it."""
    data = dump(value, path)
    return tagged("pickle", to_base64(data), sig=signature_of(data, key, "pickle", context).hex())


def read_pickle(stored: dict[str, Any], key: bytes | None, context: str) -> object:
    """What `write_pickle` wrote, or PayloadUntrusted."""
    if key is None:
        raise PayloadUntrusted(
            "a value of the job is pickled, and without a secret there is no telling who signed it; "
            "set NBQUEUE_SECRET here to that of who dispatched it"
        )
    try:
        data, signature = from_base64(stored["v"]), bytes.fromhex(stored["sig"])
    except (LookupError, TypeError, ValueError):
        untrusted("a pickled value of the job")
    if not hmac.compare_digest(signature, signature_of(data, key, "pickle", context)):
        untrusted("a pickled value of the job")
    return load(data, "a pickled value of the job")


def load(data: bytes, what: str) -> object:
    """Unpickle bytes whose signature has been verified; `what` is what an error is about."""
    try:
        return pickle.loads(data)  # noqa: S301 - signed by this user, which every caller verifies first
    except Exception as error:
        raise UnknownType(
            f"{what} cannot be rebuilt here ({told(error)}); install or import what it needs"
        ) from error


def dump(value: object, path: str) -> bytes:
    """Pickle a value, code by value; an error names the part that cannot leave this process."""
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:
        path, culprit, reason = _culprit(value, path, error, {id(value)})
        raise InvalidCommand(
            f"{path} cannot be stored: a {kind_of(culprit)} cannot leave this process ({told(reason)}); pass {REMADE}"
        ) from error


def _culprit(value: object, path: str, reason: Exception, seen: set[int]) -> tuple[str, object, Exception]:
    """The innermost part of `value` that cannot be pickled, and the way there."""
    import cloudpickle

    for step, part in _parts(value):
        if id(part) in seen:
            continue
        seen.add(id(part))
        try:
            cloudpickle.dumps(part)
        except Exception as error:  # noqa: BLE001 - a __reduce__ may raise anything
            return _culprit(part, path + step, error, seen)
    return path, value, reason


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"[{shown(name)}]", part) for name, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    elif isinstance(value, MethodType):
        yield from (("", value.__func__), ("", value.__self__))
    elif isinstance(value, partial):
        yield from (("", value.func), (" argument", value.args), (" argument", value.keywords))
    elif isinstance(value, FunctionType):
        names = sorted(globals_used(value.__code__) & value.__globals__.keys())
        yield from ((f", global {name!r}", value.__globals__[name]) for name in names)
        yield from ((f", captured {name!r}", part) for name, part in captured(value))
        yield from ((", default", part) for part in value.__defaults__ or ())
        yield from ((f", default {name!r}", part) for name, part in (value.__kwdefaults__ or {}).items())
    else:
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())
