"""What ``map`` is given, as rows: a label and the arguments of a call each; hands in nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbqueue import payload
from nbqueue.errors import InvalidCommand
from nbqueue.payload.columns import encode_calls, encode_column
from nbqueue.secret import load_secret

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Arguments", "Table", "label_text", "read_label", "read_table"]

#: The arguments of one call.
Arguments = tuple[tuple[Any, ...], Mapping[str, Any]]
#: What a label that must be pickled is signed for.
_CONTEXT = "a row's label"
#: A category of more values than these is told by its rows alone.
_CATEGORIES_MAX = 10_000
_PLAIN = frozenset((bool, int, float, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rows of an input, in its order.

    Of the three ways to hold arguments it has one: ``columns`` (of a frame), ``records`` (items that are dicts), or
    ``items`` (anything else).
    """

    #: Each row's label, as text.
    labels: Sequence[str]
    #: What the index was like, to make it again.
    index: Mapping[str, Any]
    columns: Mapping[str, Sequence[Any]] | None = None
    records: Sequence[Mapping[str, Any]] | None = None
    items: Sequence[Any] = ()
    #: The types of the columns, by name.
    dtypes: Mapping[str, Any] = field(default_factory=dict)
    #: Whether it was a DataFrame, and what its columns together are called.
    of_frame: bool = False
    named: Any = None

    def __len__(self) -> int:
        return len(self.labels)

    def calls(self) -> Iterator[Arguments]:
        """Give the arguments of each row."""
        if self.columns is not None:
            names = tuple(self.columns)
            if not names:
                return (((), {}) for _ in self.labels)
            rows = zip(*self.columns.values(), strict=True)
            return (((), dict(zip(names, row, strict=True))) for row in rows)
        if self.records is not None:
            return (((), record) for record in self.records)
        return (((item,), {}) for item in self.items)

    def keywords(self) -> Iterable[Sequence[str]]:
        """Give the names of the keyword arguments, once for all rows that have the same ones."""
        if self.columns is not None:
            return (tuple(self.columns),)
        return dict.fromkeys(tuple(record) for record in self.records or ())

    def plain_texts(self) -> list[str] | None:
        """Give each row's arguments as text; None where not all columns are plain, and rows go one by one."""
        if self.columns:
            return encode_calls((), self.columns)
        if self.columns is None and self.records is None:
            return encode_calls((self.items,), {})
        return None


def read_table(items: Any) -> Table:
    """Read what ``map`` is given: a DataFrame, a Series, or any iterable of items.

    Raises
    ------
    InvalidCommand
        For what has no rows, for columns that can be no keywords, and for labels that cannot be stored.
    """
    if _is_of_pandas(items, "DataFrame"):
        return _of_frame(items)
    if _is_of_pandas(items, "Series"):
        return _of_items(_values(items), _labels(items.index), _index_of(items.index))
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise InvalidCommand(
            f"map takes an iterable of items, a Series or a DataFrame, not {type(items).__name__} {repr(items)[:60]};"
            " for one job: dispatch"
        )
    values = _listed(items)
    labels = list(map(int.__repr__, range(len(values))))
    return _of_items(values, labels, {"range": [0, len(values), 1], "names": [None]})


def _listed(items: Any) -> list[Any]:
    if getattr(items, "ndim", 0) != 1 or not hasattr(items, "tolist"):
        return list(items)
    if getattr(getattr(items, "dtype", None), "kind", None) in ("m", "M"):
        # What NumPy makes of a time depends on its unit: of nanoseconds a mere int.
        import pandas as pd

        return _values(pd.Series(items))
    return items.tolist()  # type: ignore[no-any-return]


def _is_of_pandas(value: object, kind: str) -> bool:
    # Where pandas is not loaded, nothing can be one of its own.
    return isinstance(value, getattr(sys.modules.get("pandas"), kind, ()))


def _of_items(values: Sequence[Any], labels: Sequence[str], index: Mapping[str, Any]) -> Table:
    dicts = sum(isinstance(value, dict) for value in values)
    if not dicts:
        return Table(labels=labels, index=index, items=values)
    if dicts < len(values):
        at = next(i for i, value in enumerate(values) if not isinstance(value, dict))
        raise InvalidCommand(
            f"{dicts} of {len(values)} items are dicts, which are keyword arguments, but item {at} is"
            f" {type(values[at]).__name__} {repr(values[at])[:60]}; make them all dicts, or none"
        )
    for at, record in enumerate(values):
        if wrong := [name for name in record if not isinstance(name, str)]:
            raise InvalidCommand(f"item {at} is a dict with the key {wrong[0]!r}, which can be no keyword")
    return Table(labels=labels, index=index, records=values)


def _of_frame(frame: pd.DataFrame) -> Table:
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str):
            raise InvalidCommand(
                f"column {name!r} can be no keyword argument; name it by a string: frame.rename(columns=...)"
            )
        if names.count(name) > 1:
            raise InvalidCommand(
                f"column {name!r} is there {names.count(name)} times; a keyword argument is one"
            )
    labels, index, named = _labels(frame.index), _index_of(frame.index), frame.columns.name
    dtypes = {name: _dtype_of(frame[name].dtype) for name in names}
    columns = {name: plain for name in names if (plain := _plain_values(frame[name])) is not None}
    if len(columns) == len(names):
        return Table(labels=labels, index=index, columns=columns, dtypes=dtypes, of_frame=True, named=named)
    records: Any = frame.to_dict("records")
    return Table(labels=labels, index=index, records=records, dtypes=dtypes, of_frame=True, named=named)


def _plain_values(column: pd.Series[Any]) -> list[Any] | None:
    """A column's values as ``frame.to_dict("records")`` has them, None where only that can tell."""
    if column.dtype == object:
        return list(column.to_frame("x").to_dict("list")["x"])
    of_numpy = type(column.dtype).__module__.startswith("numpy") and column.dtype.kind in "biuf"
    return list(column.tolist()) if of_numpy or column.dtype == "str" else None


def _values(column: pd.Series[Any]) -> list[Any]:
    values = _plain_values(column)
    if values is None:
        return [record["x"] for record in column.to_frame("x").to_dict("records")]
    return values


# ---------------------------------------------------------------------------------------------- the index


def _labels(index: pd.Index[Any]) -> list[str]:
    labels = index.tolist()
    if not _PLAIN.issuperset(map(type, labels)):
        labels = list(map(_native, labels))
    texts = encode_column(labels)
    return [label_text(label) for label in labels] if texts is None else texts


def _native(label: Any) -> Any:
    if type(label) is tuple:
        return tuple(map(_native, label))
    if type(label).__module__ != "numpy" or not hasattr(label, "item"):
        return label
    if label.dtype.kind in "mM":
        import pandas as pd

        return pd.Timestamp(label) if label.dtype.kind == "M" else pd.Timedelta(label)
    return label.item()


def label_text(label: object) -> str:
    """Give a label, or what an index was like, as text."""
    try:
        return payload.encode(label, what="the index label")
    except InvalidCommand:
        return payload.encode(label, key=load_secret(), context=_CONTEXT, what="the index label")


def read_label(text: str) -> Any:
    """Read what ``label_text`` wrote."""
    key = load_secret() if payload.needs_pickle(text) else None
    return payload.decode(text, key=key, context=_CONTEXT)


def _index_of(index: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"names": list(index.names)}
    if hasattr(index, "levels"):
        return spec | {"dtypes": [_dtype_of(dtype) for dtype in index.dtypes]}
    if hasattr(index, "step") and hasattr(index, "start"):
        return spec | {"range": [index.start, index.stop, index.step]}
    freq = getattr(index, "freqstr", None)
    return spec | {"dtypes": [_dtype_of(index.dtype)]} | ({"freq": freq} if freq else {})


def _dtype_of(dtype: Any) -> Any:
    """A column's type in words; of a category its values too, since its rows need not have them all."""
    categories = getattr(dtype, "categories", None)
    if categories is None:
        return str(dtype)
    if len(categories) > _CATEGORIES_MAX:
        return {"ordered": bool(dtype.ordered)}
    values = [_native(one) for one in categories.tolist()]
    return {"categories": values, "of": str(categories.dtype), "ordered": bool(dtype.ordered)}
