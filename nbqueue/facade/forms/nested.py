"""How values of a form are written, read and shown that hold others: JSON, lists and tuples; knows no types' names."""

from __future__ import annotations

import json
import math
import re
from collections import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from nbqueue.facade.forms.shapes import Plain, Shape, Unfit, only

__all__ = ["ANY", "foreign_shape", "list_shape", "object_shape", "record_shape"]


# ------------------------------------------------------------------------------------------------------- JSON
class _NotFinite(Unfit):
    """A number that JSON has not; Python's reader would take it."""


def _no_constant(name: str) -> NoReturn:
    raise _NotFinite(f"{name} is no JSON; write null, or the text in quotes")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _NotFinite(f"{digits[:60]} is too large for a number; for the text write it in quotes")
    return number


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _check_finite(given: Plain) -> Plain:
    """Refuse the same in what has been read from JSON already."""
    try:
        json.dumps(given, allow_nan=False, skipkeys=True, default=lambda _: None)
    except (ValueError, RecursionError):
        raise Unfit("is no JSON: it holds an infinity or NaN, or itself") from None
    return given


def _loads(given: Plain) -> Any:
    if not isinstance(given, str):
        return _check_finite(given)
    try:
        return _parse(given)
    except _NotFinite:
        raise
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Unfit(f"is no JSON: {error.msg} at {where}") from None
    except (ValueError, RecursionError) as error:
        raise Unfit(f"is no JSON: {error}") from None


def _dumps(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise Unfit("is no plain JSON") from None
    if json.loads(text) != value:
        # A tuple, or a dict with keys that are no text.
        raise Unfit("is no plain JSON")
    return text


def object_shape(
    item: Shape | None = None, key: Shape | None = None, *, example: str = '{"user_id": 7}'
) -> Shape:
    """A dict, written as a JSON object; its values and keys are of shapes of their own, where they have one."""
    if item is ANY:
        item = None

    def read(given: Plain) -> dict[Any, Any]:
        value = _loads(given)
        if not isinstance(value, dict):
            raise Unfit(f"must be a JSON object, such as {example}")
        found: dict[Any, Any] = {}
        for name, one in value.items():
            known = name if key is None else _at(f"key {name}: ", key.read, name)
            if known in found:
                raise Unfit(f"key {name}: is the same as another one")
            found[known] = one if item is None else _at(f"{name}: ", item.read, one)
        return found

    def show(value: Any) -> Plain:
        if not isinstance(value, Mapping):
            raise Unfit("is no dict")
        return _dumps(
            {
                name if key is None else _key(key.show(name)): one if item is None else item.show(one)
                for name, one in value.items()
            }
        )

    return Shape("json", read, show, hint=f"a JSON object, such as {example}")


def _key(shown: Plain) -> str:
    """A key as JSON has it, which is text."""
    return shown if isinstance(shown, str) else json.dumps(shown)


def _read_any(given: Plain) -> Any:
    """What JSON says, where it is JSON; else the text itself."""
    if not isinstance(given, str):
        return _check_finite(given)
    try:
        return _parse(given)
    except _NotFinite:
        raise
    except (ValueError, RecursionError):
        return given


def _show_any(value: Any) -> Plain:
    # Text that would be read as something else, or refused, is shown as JSON.
    try:
        safe = isinstance(value, str) and _read_any(value) == value
    except Unfit:
        safe = False
    return value if safe else _dumps(value)


ANY = Shape(
    "str",
    _read_any,
    _show_any,
    blank=True,
    hint='read as JSON where it is JSON ("7", "[1, 2]"), else as text',
)


def foreign_shape(kind: type) -> Shape:
    """A class that no form can ask for; what its default is can be left as it is."""

    def read(given: Plain) -> Any:
        value = _loads(given)
        if not _is_one(value, kind):
            raise Unfit(f"takes a {kind.__name__}, which no form can make; dispatch it from a cell")
        return value

    def show(value: Any) -> Plain:
        if not _is_one(value, kind):
            raise Unfit(f"is no {kind.__name__}")
        return _dumps(value)

    return Shape("json", read, show, hint=f"a {kind.__name__}")


def _is_one(value: Any, kind: type) -> bool:
    try:
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    except TypeError:
        # A Protocol, say, that cannot be asked.
        return False


# ------------------------------------------------------------------------------------------------------- lists
_LINE_END = re.compile(r"\r?\n")
#: How a JSON array of texts begins, and hardly a line of text.
_TEXTS = re.compile(r'\[\s*"')


def list_shape(item: Shape, made: Callable[[list[Any]], Any] = list) -> Shape:
    """Several values: one a line, or a JSON array."""

    def items_of(given: Plain) -> list[Any]:
        if not isinstance(given, list):
            raise Unfit("must be a list: one a line, or a JSON array")
        return [_at(f"line {number}: ", item.read, one) for number, one in enumerate(given, 1)]

    def read(given: Plain) -> Any:
        found = items_of(given) if not isinstance(given, str) else _read_lines(given, item, items_of)
        try:
            return made(found)
        except TypeError:
            raise Unfit("the items of a set cannot be lists or objects") from None

    def show(value: Any) -> Plain:
        if isinstance(value, str) or not isinstance(value, abc.Collection):
            raise Unfit("is no list")
        return [item.show(one) for one in value]

    return Shape("list", read, show, blank=True, hint="one a line, or a JSON array")


def _read_lines(text: str, item: Shape, items_of: Callable[[Plain], list[Any]]) -> list[Any]:
    """Read a JSON array as such, and what only begins like one by lines, where each of them is an item."""
    lines = [line for line in _LINE_END.split(text) if line.strip()]
    if not text.lstrip().startswith("["):
        return items_of(lines)
    try:
        whole = _loads(text)
    except Unfit as broken:
        if item.kind != "list" and _TEXTS.match(text.lstrip()):
            raise
        try:
            return items_of(lines)
        except Unfit as unfit:
            # Of lists in lists the line that is wrong says more.
            raise (unfit if item.kind == "list" else broken) from None
    if item.kind == "list" and not all(isinstance(one, list) for one in whole):
        # A single line that is a list, of lists.
        return items_of(lines)
    return items_of(whole)


def record_shape(items: Sequence[Shape]) -> Shape:
    """A tuple whose places have shapes of their own."""
    every = list_shape(Shape("str", lambda given: given, lambda value: value))

    def read(given: Plain) -> Any:
        found = every.read(given)
        if len(found) != len(items):
            raise Unfit(f"needs {len(items)} lines, not {len(found)}")
        return tuple(
            _at(f"line {number}: ", shape.read, one)
            for number, (shape, one) in enumerate(zip(items, found, strict=True), 1)
        )

    def show(value: Any) -> Plain:
        return [shape.show(one) for shape, one in zip(items, only(value, tuple), strict=True)]

    return replace(every, read=read, show=show)


def _at(where: str, read: Callable[[Plain], Any], given: Plain) -> Any:
    try:
        return read(given)
    except ValueError as error:
        raise Unfit(f"{where}{error}") from None
