"""The words of the stored text, which writer and reader share: its tags, its depth, the types that are one tag each."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

__all__ = [
    "ATOMS",
    "DEPTH",
    "SCALARS",
    "TAG",
    "Json",
    "from_base64",
    "from_timedelta",
    "is_text",
    "only_atoms",
    "only_str",
    "tagged",
    "to_base64",
    "to_text",
]

Json = Any

TAG: Final = "$nbq"

#: Deeper values are refused, since a reader with less stack left could not read them.
DEPTH: Final = 100

#: What JSON has words for, and no children; types are compared exactly.
ATOMS = frozenset({type(None), bool, int, float, str})

#: Whether all of some types are these; bound here, as the compiler calls a method of an imported name the slower way.
only_atoms = ATOMS.issuperset
only_str = frozenset({str}).issuperset


def _make_to_text() -> Callable[[object], str]:
    encoder = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
    )
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    # `JSONEncoder.encode` makes this for every value anew, which takes longer than to write one.
    chunks = make(None, encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


#: Plain JSON as text.
to_text = _make_to_text()


def tagged(tag: str, stored: Json, **more: Json) -> Json:
    """What JSON has no word for, as an object that says what it is."""
    return {TAG: tag, "v": stored, **more}


def is_text(value: str) -> bool:
    """Whether every store takes it: a lone surrogate is in no UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_base64(data: bytes | bytearray) -> str:
    """Bytes as text."""
    return b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """What `to_base64` wrote; a ValueError for anything else."""
    return b64decode(text, validate=True)


def from_timedelta(value: timedelta) -> list[int]:
    """Days, seconds and microseconds, as `timedelta` takes them."""
    return [value.days, value.seconds, value.microseconds]


def _from_complex(value: complex) -> str:
    return f"{value.real!r} {value.imag!r}"


def _to_complex(text: str) -> complex:
    real, imag = text.split(" ")
    return complex(float(real), float(imag))


#: Tag, type, to JSON, from JSON.
SCALARS: tuple[tuple[str, type, Callable[[Any], Json], Callable[[Json], object]], ...] = (
    ("date", date, date.isoformat, date.fromisoformat),
    ("timedelta", timedelta, from_timedelta, lambda stored: timedelta(*stored)),
    ("decimal", Decimal, str, Decimal),
    ("uuid", UUID, str, UUID),
    ("bytes", bytes, to_base64, from_base64),
    ("bytearray", bytearray, to_base64, lambda stored: bytearray(from_base64(stored))),
    ("complex", complex, _from_complex, _to_complex),
)
