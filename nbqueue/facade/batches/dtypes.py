"""Values as columns of pandas: of the type they had, or of the narrowest that loses nothing; knows no batch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

__all__ = ["Found", "narrowest", "typed"]

#: Of each row whether its value is there, and the value.
Found = Sequence[tuple[bool, Any]]

#: A whole number above this is not the same as a float.
_EXACT = 2**53
#: What the types begin with that have no room for a missing value.
_FULL = ("int", "uint", "bool")


def typed(found: Found, dtype: Any) -> Any:
    """Give a column of the type it had, as far as its values, or those that are left of them, allow."""
    import pandas as pd

    if isinstance(dtype, str) and dtype.startswith(_FULL) and not all(is_there for is_there, _ in found):
        return narrowest(found)
    column = pd.Series(_values(found), dtype=object)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return column.astype(_dtype(dtype))
    return column


def narrowest(found: Found, index: Any = None) -> Any:
    """Give values, some of them missing, as a column of the narrowest type that holds every one as it was."""
    import pandas as pd

    there = [value for is_there, value in found if is_there]
    kinds = set(map(type, there))
    column = pd.Series(_values(found), index=index, dtype=object)
    if _are_times(kinds):
        return column.infer_objects()
    dtype = _narrowest(there, kinds, whole=len(there) == len(found))
    return column if dtype is None else pd.Series(_values(found), index=index, dtype=dtype)


def _values(found: Found) -> list[Any]:
    return [value if is_there else None for is_there, value in found]


def _narrowest(there: Sequence[Any], kinds: set[type], *, whole: bool) -> str | None:
    """The type of plain values, None where nothing but object holds them all."""
    import numpy as np
    import pandas as pd

    # Somebody returned what pandas has for a missing value, and no type of NumPy can tell it from NaN.
    nullable = type(pd.NA) in kinds
    kinds = kinds - {type(pd.NA)}
    if not kinds:
        return None
    if kinds <= {str, np.str_}:
        return "string" if nullable else "str"
    if kinds <= {bool, np.bool_}:
        return "boolean" if nullable or not whole else "bool"
    if not all(kind in (int, float) or issubclass(kind, np.number) for kind in kinds):
        return None
    values = [value for value in there if value is not pd.NA]
    wide = _number(values, kinds)
    if wide is None:
        return None
    if wide.startswith("float") and not nullable:
        return wide  # a missing value is NaN
    if nullable and any(value != value for value in values):  # noqa: PLR0124 - only NaN differs from itself
        return None
    return wide if whole and not nullable else _nullable(wide)


def _number(values: Sequence[Any], kinds: set[type]) -> str | None:
    import numpy as np

    plain = {int: np.dtype("int64"), float: np.dtype("float64")}
    dtypes = {plain.get(kind) or np.dtype(kind) for kind in kinds}
    if not all(dtype.kind in "iuf" and dtype.itemsize <= plain[float].itemsize for dtype in dtypes):
        return None
    wide = np.result_type(*dtypes)
    whole = [int(value) for value in values if isinstance(value, int | np.integer)]
    if wide.kind == "f":
        return wide.name if all(abs(value) <= _EXACT for value in whole) else None
    limits = np.iinfo(wide)
    return wide.name if all(limits.min <= value <= limits.max for value in whole) else None


def _nullable(dtype: str) -> str:
    """The type of pandas that has room for missing values beside these."""
    if dtype == "float16":
        return "Float32"
    return dtype.replace("uint", "UInt").replace("int", "Int").replace("float", "Float")


def _are_times(kinds: set[type]) -> bool:
    import numpy as np
    import pandas as pd

    missing = {type(pd.NaT)}
    some = kinds - missing
    return bool(some) and (
        some <= {pd.Timestamp, datetime, np.datetime64} or some <= {pd.Timedelta, timedelta, np.timedelta64}
    )


def _dtype(dtype: Any) -> Any:
    import pandas as pd

    if isinstance(dtype, str):
        return dtype
    categories = dtype.get("categories")
    return pd.CategoricalDtype(
        None if categories is None else _categories(categories, dtype["of"]), ordered=bool(dtype["ordered"])
    )


def _categories(values: Sequence[Any], dtype: Any) -> Any:
    import pandas as pd

    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return pd.Index(values, dtype=dtype)
    return pd.Index(values)
