"""From a parameter's type to how its value is asked for; knows no handlers."""

from __future__ import annotations

import types
import typing
from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from inspect import Parameter
from pathlib import Path, PurePath
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

from nbqueue.facade.forms.nested import ANY, foreign_shape, list_shape, object_shape, record_shape
from nbqueue.facade.forms.shapes import (
    BOOL,
    FLOAT,
    TEXT,
    Plain,
    Shape,
    Unfit,
    between,
    choice_shape,
    duration_shape,
    int_shape,
    literal_shape,
    needed,
    only,
    parsed,
)

__all__ = ["optional", "shape_of"]


def _day(value: date) -> str:
    if isinstance(value, datetime):
        raise Unfit("has a time")
    return value.isoformat()


_BY_TYPE: dict[Any, Shape] = {
    bool: BOOL,
    int: int_shape(),
    float: FLOAT,
    str: TEXT,
    date: parsed("date", date.fromisoformat, _day, date, "2026-03-01"),
    datetime: parsed("datetime", datetime.fromisoformat, datetime.isoformat, datetime, "2026-03-01T06:00"),
    time: parsed("str", time.fromisoformat, time.isoformat, time, "06:00"),
    timedelta: duration_shape(what="it", made=lambda seconds: timedelta(seconds=seconds)),
    Decimal: parsed("str", Decimal, str, Decimal, "12.50"),
    UUID: parsed("str", UUID, str, UUID, "0198f3a2-7c1e-7000-8000-000000000001"),
    Path: Shape("path", lambda given: Path(needed(given)), lambda value: str(only(value, PurePath))),
}


# ------------------------------------------------------------------------------------------------------ from a type
_LISTS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Iterable: list,
    abc.Collection: list,
    abc.Set: set,
}
_DICTS = (dict, abc.Mapping, abc.MutableMapping)


def shape_of(annotation: Any) -> Shape:
    r"""Give how a parameter of this type is asked for; whatever says nothing usable is read as JSON or text.

    Example
    -------
    >>> shape_of(int | None).read("12"), shape_of(list[int]).read("1\n2"), shape_of(Literal["a", "b"]).kind
    (12, [1, 2], 'choice')
    """
    try:
        return _shape_of(annotation)
    except Exception:  # noqa: BLE001 - an annotation may be any object, or a type that holds itself
        return ANY


def _shape_of(annotation: Any) -> Shape:
    annotation = _bare(annotation)
    if isinstance(annotation, str) or any(annotation is one for one in (Parameter.empty, Any, object)):
        return ANY
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        bounds = [_bound(extra) for extra in args[1:]]
        least = next((low for low, _ in bounds if low is not None), None)
        most = next((high for _, high in bounds if high is not None), None)
        shape = _shape_of(args[0])
        return between(shape, least, most) if shape.kind in ("int", "float") else shape
    if origin in (typing.Union, types.UnionType):
        return _union(args)
    if origin is Literal:
        return replace(literal_shape(args), nullable=None in args)
    kind = origin or annotation
    if kind in _LISTS:
        if kind is tuple and args and args[-1] is not Ellipsis:
            return record_shape([_shape_of(one) for one in args])
        return list_shape(_shape_of(args[0]) if args else ANY, _LISTS[kind])
    if kind in _DICTS:
        return object_shape(*_entry(*args)) if len(args) == 2 else object_shape()
    return _of_class(kind)


def _entry(key: Any, item: Any) -> tuple[Shape, Shape | None]:
    """The shapes of a dict's values and keys; keys that are text, or anything, stay as JSON has them."""
    keys = _shape_of(key)
    return _shape_of(item), None if keys in (ANY, TEXT) else keys


def _of_class(kind: Any) -> Shape:
    if found := _BY_TYPE.get(kind):
        return found
    if not isinstance(kind, type):
        return ANY
    if issubclass(kind, Enum):
        return choice_shape((name, member) for name, member in kind.__members__.items())
    if issubclass(kind, PurePath):
        return replace(_BY_TYPE[Path], read=lambda given: kind(needed(given)))
    return object_shape() if issubclass(kind, dict) else foreign_shape(kind)


def _bare(annotation: Any) -> Any:
    """What stands behind a ``NewType`` or a ``type X = ...``."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


def _bound(extra: object) -> tuple[float | None, float | None]:
    """The least and the most that ``annotated_types`` and their like say; whatever else stands there is no matter."""
    found = [getattr(extra, name, None) for name in ("ge", "le")]
    low, high = (one if isinstance(one, int | float) else None for one in found)
    return low, high


def _union(args: Sequence[Any]) -> Shape:
    members = [_shape_of(one) for one in args if one is not type(None)]
    nullable = len(members) < len(args) or any(member.nullable for member in members)
    if len(members) == 1:
        return optional(members[0]) if nullable else members[0]
    # Text takes whatever the others leave.
    tried = sorted(members, key=lambda member: member is TEXT)

    def read(given: Plain) -> Any:
        return _first([member.read for member in tried], given)

    def show(value: Any) -> Plain:
        return _first([member.show for member in tried], value)

    hint = " or ".join(dict.fromkeys(member.kind for member in members))
    blank = any(member.blank for member in members)
    return Shape("str", read, show, nullable=nullable, blank=blank, hint=hint)


def optional(shape: Shape) -> Shape:
    """The same, or None."""
    if shape.kind == "bool":
        # A box is ticked or not; neither is a third.
        shape = replace(choice_shape([("yes", True), ("no", False)]), read=shape.read)
    return replace(shape, nullable=True)


def _first(ways: Sequence[Callable[[Any], Any]], given: Any) -> Any:
    sentences = []
    for way in ways:
        try:
            return way(given)
        except ValueError as error:
            sentences.append(str(error))
    raise Unfit("; ".join(sentences))
