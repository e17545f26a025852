"""Calls that are written a column at a time have the very text of those that are written one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.payload import decode_call, encode, encode_call
from nbqueue.payload.columns import encode_calls, encode_column

texts = st.text(st.characters(), max_size=8)  # lone surrogates too
numbers = st.integers() | st.integers(-(2**70), 2**70) | st.sampled_from([0, 2**63, -(2**63), 2**64 - 1])
floats = st.floats() | st.sampled_from([-0.0, 1e300, 5e-324, 1e16, float("nan"), float("inf")])
columns = st.one_of(
    *(
        st.lists(values, min_size=3, max_size=3)
        for values in (
            texts,
            numbers,
            floats,
            st.booleans(),
            texts | numbers | floats | st.booleans() | st.none(),
        )
    )
)
names = texts | st.sampled_from(["path", "$nbq", "100%s", '"', "%%", "%(a)s"])


@given(st.lists(columns, max_size=2), st.dictionaries(names, columns, max_size=3))
def test_texts_are_the_same(args: list[list[Any]], kwargs: dict[str, list[Any]]) -> None:
    """Whatever the columns hold, and whatever they are named, where they are written at all."""
    written = encode_calls(args, kwargs)
    if written is None or not (args or kwargs):
        return
    for at, text in enumerate(written):
        row = tuple(column[at] for column in args), {name: column[at] for name, column in kwargs.items()}
        assert text == encode_call(*row)
        assert repr(decode_call(text)) == repr(row)


@given(columns)
def test_column_is_written_as_its_values(values: list[Any]) -> None:
    """A column by itself is the texts of its values."""
    written = encode_column(values)
    assert written is None or written == [encode(value) for value in values]


@pytest.mark.parametrize(
    "values", [["a", "ü", "\ud800"], [1, -1, 2**64 - 1], [1.5, float("nan")], [True, None]]
)
def test_plain_columns_are_written(values: list[Any]) -> None:
    """The types that most columns have are written so; else this would be no use."""
    assert encode_calls([], {"x": values}) is not None


@pytest.mark.parametrize("value", [(1,), [1], {}, 2**64, -(2**64), b"x", type("Text", (str,), {})("x")])
def test_others_are_not(value: object) -> None:
    """What has no word in JSON, or more than one, is left to whoever writes calls one by one."""
    assert encode_calls([], {"x": [1, value]}) is None
    assert encode_column([value]) is None


def test_name_of_a_tag_is_not_written() -> None:
    """A keyword that would read as a tag goes another way."""
    assert encode_calls([], {"$nbq": [1]}) is None


def test_columns_of_one_length() -> None:
    """A column that is too short is an error, no shorter batch."""
    with pytest.raises(ValueError, match="zip"):
        encode_calls([], {"a": [1, 2], "b": [1]})
