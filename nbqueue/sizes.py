"""Sizes as people write them, ``"2GB"``; and as they read them."""

from __future__ import annotations

import re

from nbqueue.errors import InvalidCommand

__all__ = ["shown", "size"]

_UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(?:i?b)?\s*", re.ASCII | re.IGNORECASE)


def size(value: object, *, what: str, least: int = 0) -> int:
    """Give a size in bytes, or refuse it by name.

    Parameters
    ----------
    value : int or str
        Bytes, or a text such as ``"2GB"``, ``"512 MiB"``; K, M, G and T are powers of 1024.
    what : str
        What it is called in an error.
    least : int
        The smallest that is allowed.

    Raises
    ------
    InvalidCommand
        Where it is none; the sentence says how to write one.

    Examples
    --------
    >>> size("2GB", what="memory_limit"), size(500, what="memory_limit")
    (2147483648, 500)
    """
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is not None:
        number = int(float(found[1]) * _UNITS[found[2].lower()])
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        raise InvalidCommand(f'{what} {value!r:.60} is no size; write bytes or e.g. "500MB", "2GB"')
    if number < least:
        raise InvalidCommand(f"{what} of {shown(number)} is too small; give {shown(least)} or more")
    return number


def shown(number: float) -> str:
    """Give a number of bytes as people read it.

    >>> shown(2147483648), shown(300)
    ('2.0 GB', '300 B')
    """
    unit = "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if abs(number) < 1024 or unit == "TB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
