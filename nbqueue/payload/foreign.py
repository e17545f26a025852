"""Scalars of numpy and pandas, taken apart and put together again; loads neither before a value needs it."""

from __future__ import annotations

import sys
from datetime import timezone
from types import ModuleType, NoneType
from typing import Any
from zoneinfo import ZoneInfo

from nbqueue.payload.errors import UnknownType
from nbqueue.payload.notation import ATOMS

__all__ = ["Parts", "read_numpy", "read_pandas", "take_apart"]

#: A tag, the value that it stands before, and what else its reader needs.
Parts = tuple[str, object, dict[str, object]]


def take_apart(value: Any) -> Parts | None:
    """What a scalar of numpy or pandas is made of, or None for anything else."""
    # Where a package is not loaded, no value can be one of its own.
    if (numpy := sys.modules.get("numpy")) and isinstance(value, numpy.generic):
        return _numpy_parts(value)
    if pandas := sys.modules.get("pandas"):
        return _pandas_parts(pandas, value)
    return None


def _numpy_parts(value: Any) -> Parts | None:
    kind = value.dtype.kind
    if kind not in "biufSUMm" or value.dtype.char == "g":  # a long double has no plain value
        return None
    if kind in "SU":
        return "numpy", bytes(value) if kind == "S" else str(value), {"t": kind}
    return "numpy", int(value.astype("i8")) if kind in "Mm" else value.item(), {"t": value.dtype.str}


def _pandas_parts(pandas: ModuleType, value: Any) -> Parts | None:
    # By getattr, since another thread may be importing it right now.
    for name in ("NaT", "NA"):
        if value is getattr(pandas, name, None):
            return "pandas", None, {"t": name}
    kind = type(value)
    if kind is getattr(pandas, "Timestamp", None):
        zone = value.tz
    elif kind is getattr(pandas, "Timedelta", None):
        zone = None
    else:
        return None
    if type(zone) not in (NoneType, timezone, ZoneInfo):
        return None
    return "pandas", int(value.asm8.astype("i8")), {"t": kind.__name__, "unit": value.unit, "tz": zone}


def read_numpy(stored: dict[str, Any]) -> object:
    """The scalar of numpy that a stored object tells."""
    numpy, kind, item = _loaded("numpy"), stored["t"], stored["v"]
    if kind in ("S", "U"):
        return numpy.bytes_(item) if kind == "S" else numpy.str_(item)
    dtype = numpy.dtype(kind)
    if dtype.kind in "Mm":
        return numpy.array(item, "i8").view(dtype)[()]
    if dtype.kind not in "biuf" or type(item) not in ATOMS:
        raise ValueError(kind)
    return dtype.type(item)


def read_pandas(stored: dict[str, Any]) -> object:
    """The scalar of pandas that a stored object tells."""
    pandas, kind, item, unit = _loaded("pandas"), stored["t"], stored["v"], stored.get("unit")
    if kind == "Timestamp":
        return pandas.Timestamp(item, unit=unit, tz=stored["tz"]).as_unit(unit)
    if kind == "Timedelta":
        return pandas.Timedelta(item, unit=unit).as_unit(unit)
    return {"NaT": pandas.NaT, "NA": pandas.NA}[kind]


def _loaded(package: str) -> Any:
    # The two names are ours, not the row's: a row can choose between them and name no third.
    try:
        return __import__(package)
    except ImportError:
        raise UnknownType(
            f"a stored value is of {package}, which is not installed here; pip install {package}"
        ) from None
