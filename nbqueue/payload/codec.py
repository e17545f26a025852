"""Values and calls as text and back: plain JSON on a short way of its own, all else by the writer and the reader."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from nbqueue.payload.errors import UnknownType
from nbqueue.payload.notation import ATOMS, DEPTH, TAG, only_atoms, only_str, to_text
from nbqueue.payload.reading import revive
from nbqueue.payload.writing import Writer

__all__ = ["decode", "decode_call", "encode", "encode_call", "needs_pickle", "same_call"]

_PICKLED = re.compile(r'"\$nbq"\s*:\s*"pickle"')

_decoder = json.JSONDecoder()
_NO_ARGUMENTS = to_text({"args": [], "kwargs": {}})


def encode(value: object, *, key: bytes | None = None, context: str = "", what: str = "value") -> str:
    """Write a value as JSON text that `decode` gives back with the same value and type.

    Parameters
    ----------
    value : object
    key : bytes, optional
        The secret to sign with what must be pickled; without one such values are refused.
    context : str
        What the signature is good for; `decode` must be given the same.
    what : str
        What the value is called in the sentence of an error.

    Raises
    ------
    InvalidCommand
        Naming the path to what cannot be stored, its type, and what to pass instead.

    Examples
    --------
    >>> from datetime import date
    >>> encode({"day": date(2026, 1, 31), "n": 3})
    '{"day":{"$nbq":"date","v":"2026-01-31"},"n":3}'
    """
    text = _plain_text(value)
    return to_text(Writer(key, context).put(value, what)) if text is None else text


def decode(text: str, *, key: bytes | None = None, context: str = "") -> object:
    """Read what `encode` wrote; imports nothing that the text names, and runs nothing that is not signed.

    Raises
    ------
    UnknownType
        Where a class of the text is not loaded here, or the text is damaged.
    PayloadUntrusted
        Where it holds a pickle that was not signed with `key` for this `context`.

    Examples
    --------
    >>> from decimal import Decimal
    >>> decode(encode((1, Decimal("2.50"))))
    (1, Decimal('2.50'))
    """
    try:
        if TAG not in text:
            # A third of the time of `json.loads`, which looks for spaces around the value.
            value, end = _decoder.raw_decode(text)
            return value if end == len(text) else json.loads(text)
        return json.loads(text, object_hook=partial(revive, key, context))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnknownType(
            f"the stored value {text[:60]!r} is damaged ({error}); dispatch the job again"
        ) from error


def encode_call(
    args: tuple[object, ...], kwargs: Mapping[str, object], *, key: bytes | None = None, context: str = ""
) -> str:
    """Write the arguments of a call; an error names the position or the keyword.

    Examples
    --------
    >>> encode_call(("users.csv",), {"batch": 2})
    '{"args":["users.csv"],"kwargs":{"batch":2}}'
    """
    if not args and not kwargs:
        return _NO_ARGUMENTS
    call = {"args": list(args), "kwargs": dict(kwargs)}
    # Mostly all are atoms, and need no walk.
    flat = only_atoms(map(type, args)) and (
        not kwargs
        or (only_str(map(type, kwargs)) and TAG not in kwargs and only_atoms(map(type, kwargs.values())))
    )
    text = _text(call) if flat else _plain_text(call)
    if text is None:
        writer = Writer(key, context)
        stored = [writer.put(value, "args", number) for number, value in enumerate(args)]
        text = to_text({"args": stored, "kwargs": writer.pairs(kwargs, keywords=True)})
    return text


def decode_call(
    text: str, *, key: bytes | None = None, context: str = ""
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Read what `encode_call` wrote; raises what `decode` raises.

    Examples
    --------
    >>> decode_call('{"args":["users.csv"],"kwargs":{"batch":2}}')
    (('users.csv',), {'batch': 2})
    """
    call = decode(text, key=key, context=context)
    if isinstance(call, dict):
        args, kwargs = call.get("args"), call.get("kwargs")
        if isinstance(args, list) and isinstance(kwargs, dict) and only_str(map(type, kwargs)):
            return tuple(args), kwargs
    raise UnknownType(f"{text[:60]!r} does not hold the arguments of a call; dispatch the job again")


def same_call(one: str, other: str) -> bool:
    """Whether two texts of `encode_call` have the same arguments, in whatever order the keywords stand.

    Examples
    --------
    >>> same_call(encode_call((), {"a": 1, "b": 2}), encode_call((), {"b": 2, "a": 1}))
    True
    >>> same_call(encode_call((), {"a": 1, "b": 2}), encode_call((), {"b": 1, "a": 2}))
    False
    """
    if one == other:
        return True
    # Moved text is as long as before, and few changes leave it so.
    if len(one) != len(other):
        return False
    try:
        calls = [_decoder.raw_decode(text)[0] for text in (one, other)]
        names = [list(call["kwargs"]) for call in calls]
    except (ValueError, TypeError, LookupError, RecursionError):
        return False
    if names[0] == names[1]:
        return False
    # As text, since for Python 1, 1.0 and True are equal.
    first, second = (
        to_text([call["args"], *([name, call["kwargs"][name]] for name in sorted(call["kwargs"]))])
        for call in calls
    )
    return first == second


def needs_pickle(text: str) -> bool:
    """Whether `decode` would have to unpickle a part of it, and so needs the key.

    Examples
    --------
    >>> needs_pickle(encode("not one")), needs_pickle(encode(range(3), key=b"secret"))
    (False, True)
    """
    return TAG in text and _PICKLED.search(text) is not None


def _plain_text(value: object) -> str | None:
    """`value` as text where plain JSON gives it back as it went, else None: then the writer walks it."""
    return _text(value) if _is_plain(value, DEPTH) else None


def _text(value: object) -> str | None:
    try:
        text = to_text(value)
        if not text.isascii():
            text.encode()  # a lone surrogate, which no store takes
    except ValueError:  # not a finite float, or an integer of thousands of digits
        return None
    return text


def _is_plain(value: object, depth: int) -> bool:
    # By exact type, since the C encoder writes members of a StrEnum, numpy.float64 and the like as what they inherit.
    kind = type(value)
    if kind in ATOMS:
        return True
    children: Any
    if kind is list:
        children = value
    elif kind is dict:
        if TAG in value or not only_str(map(type, value)):  # type: ignore[operator, call-overload]
            return False
        children = value.values()  # type: ignore[attr-defined]
    else:
        return False
    if only_atoms(map(type, children)):
        return depth > 0
    return depth > 0 and all(_is_plain(child, depth - 1) for child in children)
