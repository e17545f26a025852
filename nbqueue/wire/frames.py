"""Arrays and DataFrames as plain parts that any version of NumPy and pandas can put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbqueue.errors import NotSupported
from nbqueue.wire.makers import WireError, let_travel
from nbqueue.wire.rows import in_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["let_frames_travel"]

#: Kinds of arrays that are their bytes: numbers, times, and text of a fixed width.
_FLAT = "biufcmMSU"


# ------------------------------------------------------------------------------------------------------- arrays
def _array_parts(value: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    if value.dtype.kind == "O":
        return "O", value.shape, in_columns(value.ravel().tolist())
    if value.dtype.kind not in _FLAT:
        raise NotSupported(
            f"an array of {value.dtype} cannot travel to another process; take its fields apart"
        )
    return value.dtype.str, value.shape, value.tobytes()


def _array(kind: str, shape: tuple[int, ...], data: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    if kind == "O":
        made = np.empty(len(data), object)
        made[:] = data
        return made.reshape(shape)
    dtype = np.dtype(kind)
    if dtype.kind not in _FLAT:
        raise WireError(f"a message has an array of {kind!r}, which does not travel")
    # A copy, since what lies in bytes cannot be written to.
    return (np.frombuffer(data, dtype).copy() if len(data) else np.empty(0, dtype)).reshape(shape)


def _scalar_parts(value: np.generic) -> tuple[Any, ...]:
    import numpy as np

    return (np.asarray(value),)


def _scalar(array: np.ndarray[Any, Any]) -> Any:
    return array[()]


# --------------------------------------------------------------------------------------------- columns of pandas
def _column_parts(column: Any) -> tuple[Any, ...]:
    """A word for how to put an array of pandas together again, and what of."""
    import numpy as np
    import pandas as pd

    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "categories", column.codes, _column_parts(dtype.categories.array), bool(dtype.ordered)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "zoned", column.tz_convert("UTC").tz_localize(None).to_numpy(), str(dtype.tz)
    if isinstance(dtype, pd.StringDtype):
        return "text", str(dtype.name), column.to_numpy(object, na_value=None).tolist()
    if isinstance(column, pd.arrays.IntegerArray | pd.arrays.FloatingArray | pd.arrays.BooleanArray):
        plain = column.to_numpy(dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return "masked", plain, column.isna()
    is_numpy = isinstance(dtype, np.dtype) or isinstance(column, pd.arrays.NumpyExtensionArray)
    return "plain", np.asarray(column if is_numpy else column.astype(object))


def _column(how: str, *parts: Any) -> Any:
    import pandas as pd

    if how == "plain":
        return parts[0]
    if how == "text":
        return pd.array(parts[1], dtype=parts[0])
    if how == "masked":
        data, missing = parts
        kinds = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
        return kinds.get(data.dtype.kind, pd.arrays.IntegerArray)(data, missing)
    if how == "zoned":
        return pd.DatetimeIndex(parts[0]).tz_localize("UTC").tz_convert(parts[1]).array
    if how == "categories":
        codes, categories, ordered = parts
        return pd.Categorical.from_codes(codes, categories=pd.Index(_column(*categories)), ordered=ordered)
    raise WireError(f"a message has a column of {how!r}, which does not travel")


# ------------------------------------------------------------------------------------------------------- frames
def _index_parts(index: pd.Index[Any]) -> tuple[Any, ...]:
    import pandas as pd

    if isinstance(index, pd.RangeIndex):
        return "range", index.start, index.stop, index.step, index.name
    if isinstance(index, pd.MultiIndex):
        levels = [_column_parts(index.get_level_values(level).array) for level in range(index.nlevels)]
        return "levels", levels, list(index.names)
    return "labels", _column_parts(index.array), index.name


def _index(how: str, *parts: Any) -> pd.Index[Any]:
    import pandas as pd

    if how == "range":
        start, stop, step, name = parts
        return pd.RangeIndex(start, stop, step, name=name)
    if how == "levels":
        return pd.MultiIndex.from_arrays([_column(*level) for level in parts[0]], names=parts[1])
    column, name = parts
    made: pd.Index[Any] = pd.Index(_column(*column), name=name)
    return made


def _frame_parts(frame: pd.DataFrame) -> tuple[Any, ...]:
    columns = [_column_parts(frame.iloc[:, place].array) for place in range(frame.shape[1])]
    return _index_parts(frame.columns), _index_parts(frame.index), columns


def _frame(columns: tuple[Any, ...], index: tuple[Any, ...], parts: list[tuple[Any, ...]]) -> pd.DataFrame:
    import pandas as pd

    made = pd.DataFrame({place: _column(*column) for place, column in enumerate(parts)}, index=_index(*index))
    made.columns = _index(*columns)
    return made


def _series_parts(series: pd.Series[Any]) -> tuple[Any, ...]:
    return _column_parts(series.array), _index_parts(series.index), series.name


def _series(column: tuple[Any, ...], index: tuple[Any, ...], name: Any) -> pd.Series[Any]:
    import pandas as pd

    return pd.Series(_column(*column), index=_index(*index), name=name)


# ---------------------------------------------------------------------------------------------- values of pandas
def _timestamp_parts(value: pd.Timestamp) -> tuple[Any, ...]:
    return value.to_datetime64(), None if value.tzinfo is None else str(value.tz)


def _timestamp(moment: Any, zone: str | None) -> Any:
    import pandas as pd

    made = pd.Timestamp(moment)
    return made if zone is None else made.tz_localize("UTC").tz_convert(zone)


def _timedelta(length: Any) -> Any:
    import pandas as pd

    return pd.Timedelta(length)


def _nat() -> Any:
    import pandas as pd

    return pd.NaT


def _na() -> Any:
    import pandas as pd

    return pd.NA


def let_frames_travel() -> None:
    """Make these classes known to the wire; none of their libraries is imported."""
    let_travel(("numpy", "ndarray"), _array_parts, _array)
    let_travel(("numpy", "generic"), _scalar_parts, _scalar)
    let_travel(("pandas", "DataFrame"), _frame_parts, _frame)
    let_travel(("pandas", "Series"), _series_parts, _series)
    let_travel(("pandas", "Timestamp"), _timestamp_parts, _timestamp)
    let_travel(("pandas", "Timedelta"), lambda value: (value.to_timedelta64(),), _timedelta)
    let_travel(("pandas", "NaTType"), lambda _: (), _nat)
    let_travel(("pandas", "NAType"), lambda _: (), _na)
