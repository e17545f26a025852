"""How one value of a form is written, read and shown: numbers, text and choices; knows no types' names.

A value travels as plain JSON: what a front end sends, and what is shown in it. Each shape has a ``read`` from that to
the value, which refuses what is none by a sentence, and a ``show`` the other way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import InvalidOperation
from enum import Enum
from typing import Any

from nbqueue.durations import duration
from nbqueue.errors import InvalidCommand

__all__ = [
    "BOOL",
    "FLOAT",
    "TEXT",
    "Plain",
    "Shape",
    "Unfit",
    "between",
    "choice_shape",
    "duration_shape",
    "int_shape",
    "literal_shape",
    "needed",
    "only",
    "parsed",
]

#: None, bool, int, float, str, or lists and dicts of these.
Plain = Any

#: A larger whole number is not the same number any more in a browser, so it travels as text.
_EXACT = 2**53


class Unfit(ValueError):
    """What was filled in is none of these values; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a value is asked for, read and shown."""

    kind: str
    #: From what a front end sent; a ``ValueError`` has the sentence to show.
    read: Callable[[Plain], Any]
    #: What a front end shows; a ``ValueError`` where it cannot be.
    show: Callable[[Any], Plain]
    #: Text to pick, and what it stands for.
    choices: tuple[tuple[str, Any], ...] | None = None
    #: Whether it may be None, which is an empty field.
    nullable: bool = False
    #: Whether an empty text is a value, and not a field that was left empty.
    blank: bool = False
    least: float | None = None
    most: float | None = None
    #: Said where the docstring says nothing.
    hint: str = ""


# ---------------------------------------------------------------------------------------------- numbers and text
def _read_bool(given: Plain) -> bool:
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    found = words.get(str(given).strip().lower())
    if found is None:
        raise Unfit(f"{_quoted(given)} is neither true nor false")
    return found


def _read_int(given: Plain) -> int:
    if isinstance(given, float) and given.is_integer():
        return int(given)
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise Unfit(f"{_quoted(given)} is no whole number")
    try:
        return int(given)
    except ValueError:
        raise Unfit(f"{_quoted(given)} is no whole number, such as 12") from None


def _show_int(value: Any) -> Plain:
    number = int(only(value, int))
    return number if abs(number) <= _EXACT else str(number)


def _read_float(given: Plain) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise Unfit(f"{_quoted(given)} is no number")
    try:
        number = float(given)
    except (ValueError, OverflowError):
        raise Unfit(f"{_quoted(given)} is no number, such as 0.5") from None
    if not math.isfinite(number) and not (isinstance(given, str) and given.strip(" +-")[:1] in "iInN"):
        # What JSON makes of 1e400 is an infinity as well; nobody meant it.
        raise Unfit(f'{_quoted(given)} is too large or no number; if meant, write it as text: "inf" or "nan"')
    return number


def _show_float(value: Any) -> Plain:
    number = float(only(value, int | float))
    return number if math.isfinite(number) else repr(number)


def int_shape(least: float | None = None, most: float | None = None) -> Shape:
    """A whole number, of a range."""
    return between(Shape("int", _read_int, _show_int), least, most)


def between(shape: Shape, least: float | None, most: float | None) -> Shape:
    """Read only what lies between these."""
    if least is None and most is None:
        return shape
    inner = shape.read

    def read(given: Plain) -> Any:
        value = inner(given)
        # Written so that a NaN is outside.
        if not ((least is None or value >= least) and (most is None or value <= most)):
            raise Unfit(f"{_quoted(given)} is out of range; give {_range(least, most)}")
        return value

    return replace(shape, read=read, least=least, most=most)


def _range(least: float | None, most: float | None) -> str:
    if most is None:
        return f"{least:g} or more"
    return f"{most:g} or less" if least is None else f"{least:g} to {most:g}"


def _text(given: Plain) -> str:
    if not isinstance(given, str):
        raise Unfit(f"{_quoted(given)} is no text")
    return given


def needed(given: Plain) -> str:
    """Text without the spaces around it, of which something must be left."""
    text = _text(given).strip()
    if not text:
        raise Unfit("is empty")
    return text


def parsed(
    kind: str, parse: Callable[[str], Any], show: Callable[[Any], str], of: Any, example: str
) -> Shape:
    """A value that has one way to be written as text."""

    def read(given: Plain) -> Any:
        text = needed(given)
        try:
            return parse(text)
        except (ValueError, TypeError, InvalidOperation):
            raise Unfit(f"{_quoted(given)} cannot be read; write it as {example}") from None

    return Shape(kind, read, lambda value: show(only(value, of)), hint=f"such as {example}")


def duration_shape(*, what: str, least: float = 0.0, made: Callable[[float], Any] = float) -> Shape:
    """Seconds, or a text such as "5m"."""

    def read(given: Plain) -> Any:
        try:
            return made(duration(given, what=what, least=least))
        except InvalidCommand as error:
            raise Unfit(str(error)) from None

    def show(value: Any) -> Plain:
        return f"{value.total_seconds() if isinstance(value, timedelta) else value:g}"

    return Shape("str", read, show, hint='seconds, or e.g. "90s", "5m", "1h30m"')


BOOL = Shape("bool", _read_bool, lambda value: only(value, bool))
FLOAT = Shape("float", _read_float, _show_float)
TEXT = Shape("str", _text, lambda value: only(value, str), blank=True)


# ------------------------------------------------------------------------------------------------------- choices
def choice_shape(choices: Iterable[tuple[str, Any]]) -> Shape:
    """One of some values, each picked by a text of its own."""
    pairs = tuple(choices)

    def read(given: Plain) -> Any:
        for label, value in pairs:
            # Plain JSON may say 1 and true themselves, which are equal, and two choices.
            if label == given or (value == given and type(value) is type(given) is not str):
                return value
        known = ", ".join(label for label, _ in pairs[:12])
        raise Unfit(f"{_quoted(given)} is none of {known}{' …' if len(pairs) > 12 else ''}")

    def show(value: Any) -> Plain:
        for label, known in pairs:
            if type(known) is type(value) and known == value:
                return label
        raise Unfit(f"{value!r} is no choice")

    return Shape("choice", read, show, choices=pairs)


def literal_shape(values: Sequence[Any]) -> Shape:
    """One of these values, by what they look like."""
    labels = [str(value.name if isinstance(value, Enum) else value) for value in values]
    if len(set(labels)) < len(labels):
        labels = [repr(value) for value in values]
    return choice_shape(
        (label, value) for label, value in zip(labels, values, strict=True) if value is not None
    )


def only(value: Any, kind: Any) -> Any:
    """A value, where it is of this type; a bool is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Unfit(f"{value!r} is of another type")
    return value


def _quoted(given: Plain) -> str:
    text = given if isinstance(given, str) else repr(given)
    return f'"{text[:60]}{"…" if len(text) > 60 else ""}"'
