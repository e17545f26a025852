"""From the tagged objects of the stored text back to values; imports nothing that it names, runs none of its code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING
from datetime import datetime, time, timedelta, timezone
from enum import Enum, Flag
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nbqueue.payload.classes import find_class, is_attribute, is_dataclass, is_namedtuple, slots_of, type_name
from nbqueue.payload.errors import UnknownType, told
from nbqueue.payload.foreign import read_numpy, read_pandas
from nbqueue.payload.notation import ATOMS, SCALARS, TAG, Json, from_base64
from nbqueue.payload.pickles import read_pickle

__all__ = ["READERS", "revive"]

_RAW = ATOMS | {list, dict, bytes, complex, timezone, ZoneInfo}

#: What else makes a default is code, which no row sets off.
_PLAIN_FACTORIES = (list, dict, set)


def revive(key: bytes | None, context: str, stored: dict[str, Any]) -> object:
    """Every JSON object passes here, innermost first; those with a tag become what they stand for."""
    if TAG not in stored:
        return stored
    tag = stored[TAG] if type(stored[TAG]) is str else "?"
    if tag == "pickle":
        return read_pickle(stored, key, context)
    # Nothing rebuilt may stand where a reader would iterate over it, convert it or compare it: that runs its methods.
    if tag not in READERS or not _RAW.issuperset(map(type, stored.values())):
        sentence = f"a stored value has the tag {tag!r}, which this nbqueue cannot read"
        raise UnknownType(f"{sentence}; upgrade it here, or dispatch the job again")
    try:
        return READERS[tag](stored)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnknownType(f"a stored {tag} is damaged ({told(error)}); dispatch the job again") from error


def _read_time(stored: dict[str, Any]) -> datetime | time:
    value: datetime | time = (datetime if stored[TAG] == "datetime" else time).fromisoformat(stored["v"])
    if "zone" in stored:
        value = value.replace(tzinfo=_zone(stored["zone"]))
    elif "name" in stored:
        value = value.replace(tzinfo=timezone(value.utcoffset() or timedelta(), stored["name"]))
    return value.replace(fold=1) if stored.get("fold") else value


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        raise UnknownType(f"there is no time zone {name!r} on this machine; pip install tzdata") from None


def _read_timezone(stored: dict[str, Any]) -> timezone:
    offset, name = timedelta(*stored["v"]), stored.get("name")
    return timezone(offset) if name is None else timezone(offset, name)


def _read_path(stored: dict[str, Any]) -> object:
    kinds = (PurePosixPath, PureWindowsPath, type(Path()))
    kind = next((kind for kind in kinds if kind.__name__ == stored["t"]), None)
    if kind is None:
        raise UnknownType(f"the path {stored['v']!r} is a {stored['t']}, which means nothing on this system")
    return kind(stored["v"])


def _read_enum(stored: dict[str, Any]) -> object:
    kind = _class_of(stored, "enum", lambda found: issubclass(found, Enum))
    if stored[TAG] == "flag":
        return _read_flag(kind, stored["v"])
    # By name, since calling the class would run its `_missing_`.
    member = kind.__members__.get(stored["v"])
    if member is None:
        raise UnknownType(f"{stored['t']} has no member {stored['v']!r} here; it changed since dispatch")
    return member


def _read_flag(kind: type[Enum], value: object) -> object:
    if issubclass(kind, Flag) and type(value) is int:
        # The standard library's, which makes the combination, whatever the class has put in its place.
        member = kind._value2member_map_.get(value) or vars(Flag)["_missing_"].__func__(kind, value)
        if type(member) is kind:
            return member
    raise UnknownType(f"{type_name(kind)} has no combination {value!r} here; it changed since dispatch")


def _read_namedtuple(stored: dict[str, Any]) -> object:
    kind = _class_of(stored, "named tuple", is_namedtuple)
    if len(kind._fields) != len(_list(stored["v"])):
        raise UnknownType(f"{stored['t']} has other fields than at dispatch; dispatch the job again")
    return tuple.__new__(kind, stored["v"])


def _read_dataclass(stored: dict[str, Any]) -> object:
    kind = _class_of(stored, "dataclass", is_dataclass)
    state = dict(stored["v"]) if type(stored["v"]) is dict else {}
    for field in dataclasses.fields(kind):
        if field.name in state:
            continue
        if field.default is not MISSING:
            state[field.name] = field.default
        elif field.default_factory in _PLAIN_FACTORIES:
            state[field.name] = field.default_factory()
        elif field.init:
            raise UnknownType(f"{stored['t']} has a field {field.name!r} that it had not at dispatch")
    value, slots = object.__new__(kind), slots_of(kind)
    for name, item in state.items():
        # Past every `__setattr__`, property and descriptor of the class, which are code as well.
        if name in slots:
            slots[name].__set__(value, item)
        elif is_attribute(name):
            object.__getattribute__(value, "__dict__")[name] = item
    return value


def _class_of(stored: dict[str, Any], kind: str, fits: Callable[[Any], bool]) -> Any:
    """The class that a stored value names, where it is loaded here and of the right kind."""
    found = find_class(stored["t"])
    if found is not None and fits(found):
        return found
    module, _, name = str(stored["t"]).partition(":")
    way_out = "run the cell that defines it"
    if module != "__main__":
        way_out = f"import {module} in the worker (--import)"
    raise UnknownType(
        f"the job holds a value of {name}, and there is no {kind} of that name in {module} here; {way_out}"
    )


def _list(stored: object) -> list[Any]:
    if type(stored) is not list:
        raise TypeError("not a list")
    return stored


def _scalar_reader(from_json: Callable[[Json], object]) -> Callable[[dict[str, Any]], object]:
    return lambda stored: from_json(stored["v"])


READERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "int": lambda stored: int(stored["v"], 16),
    "float": lambda stored: float(stored["v"]),
    "str": lambda stored: from_base64(stored["v"]).decode("utf-8", "surrogatepass"),
    "tuple": lambda stored: tuple(_list(stored["v"])),
    "set": lambda stored: set(_list(stored["v"])),
    "frozenset": lambda stored: frozenset(_list(stored["v"])),
    "dict": lambda stored: dict(_list(pair) for pair in _list(stored["v"])),
    "datetime": _read_time,
    "time": _read_time,
    "timezone": _read_timezone,
    "zone": lambda stored: _zone(stored["v"]),
    "path": _read_path,
    "enum": _read_enum,
    "flag": _read_enum,
    "namedtuple": _read_namedtuple,
    "dataclass": _read_dataclass,
    "numpy": read_numpy,
    "pandas": read_pandas,
    **{tag: _scalar_reader(from_json) for tag, _, _, from_json in SCALARS},
}
