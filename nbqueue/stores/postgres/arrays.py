r"""Columns of values as the text of PostgreSQL's arrays: psycopg looks at each value again and again, which costs more.

>>> numbers([1, None, 3]), texts(["a", None, 'say "so"'])
('{1,NULL,3}', '{"a",NULL,"say \\"so\\""}')
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["columns", "numbers", "texts"]


def numbers(column: Sequence[int | None]) -> str:
    """Give whole numbers, or what else needs no quotes, as an array."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in column]) + "}"


def _truths(column: Sequence[bool | None]) -> str:
    return "{" + ",".join(["t" if value else "f" for value in column]) + "}"


def texts(column: Sequence[str | None]) -> str:
    """Give texts as an array."""
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in column]) + "}"


def _quoted(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if '"' in text:
        text = text.replace('"', '\\"')
    return f'"{text}"'


_WRITERS: dict[str, Callable[[Sequence[Any]], str]] = {
    "bigint": numbers,
    "integer": numbers,
    "uuid": numbers,
    "boolean": _truths,
    "text": texts,
}


def columns(kinds: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> list[str | None]:
    """Give rows as an array for each column; an empty column is None, since ``unnest`` fills it up.

    Parameters
    ----------
    kinds : mapping of str to str
        The type of each column, by its name.
    rows : sequence
        Values in that order.
    """
    return [
        None if column[0] is None and column.count(None) == len(column) else _WRITERS[kind](column)
        for kind, column in zip(kinds.values(), zip(*rows, strict=True), strict=True)
    ]
