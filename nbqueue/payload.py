"""Values and code as text and bytes, and back as they went; knows no job, no store and no secret but the one given.

Plain JSON stays plain JSON. What JSON has no word for is tagged, ``{"$nbq": "date", "v": "2026-01-31"}``, and what
no tag carries is pickled and signed. Three promises hold for whatever a row says: nothing that it names is imported
(a name is looked up in the modules that are loaded, and must be a dataclass, an enum or a named tuple), no code of
such a class runs to rebuild its values (but the ``__hash__`` and ``__eq__`` of what goes into a set or is a key), and
no byte is unpickled or decompressed before its signature was found to be right.

It is one module, longer than most, since these promises are checked where writer and reader stand side by side.
"""

from __future__ import annotations

import dataclasses
import dis
import hmac
import json
import math
import pickle
import re
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, Final, NoReturn, cast
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from nbqueue.errors import InvalidCommand, NbqueueError, PayloadUntrusted

__all__ = [
    "UnknownType",
    "code_hash",
    "decode",
    "decode_call",
    "encode",
    "encode_call",
    "needs_pickle",
    "pack_code",
    "sign",
    "unpack_code",
    "verify",
]

TAG: Final = "$nbq"

#: Deeper values are refused, since a reader with less stack left could not read them.
DEPTH: Final = 100

_ATOMS = frozenset({type(None), bool, int, float, str})
_STR = frozenset({str})
_PICKLED = re.compile(r'"\$nbq"\s*:\s*"pickle"')
_RAW = _ATOMS | {list, dict, bytes, complex, timezone, ZoneInfo}
_MAGIC = b"nbq1"
_DIGEST = 32

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_decoder = json.JSONDecoder()


def _make_to_text() -> Callable[[object], str]:
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _encoder.encode
    # `JSONEncoder.encode` makes this for every value anew, which takes longer than to write one.
    chunks = make(None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


_to_text = _make_to_text()

Json = Any


class UnknownType(NbqueueError):
    """A stored value that this process cannot rebuild: its class is not here, has changed, or the row is damaged."""


# ------------------------------------------------------------------------------------------- values


def encode(value: object, *, key: bytes | None = None, context: str = "", what: str = "value") -> str:
    """Write a value as JSON text that `decode` gives back with the same value and type.

    Parameters
    ----------
    value : object
    key : bytes, optional
        The secret to sign with what must be pickled; without one such values are refused.
    context : str
        What the signature is good for; `decode` must be given the same.
    what : str
        What the value is called in the sentence of an error.

    Raises
    ------
    InvalidCommand
        Naming the path to what cannot be stored, its type, and what to pass instead.

    Examples
    --------
    >>> encode({"day": date(2026, 1, 31), "n": 3})
    '{"day":{"$nbq":"date","v":"2026-01-31"},"n":3}'
    """
    text = _plain_text(value)
    return _to_text(_Writer(key, context).put(value, what)) if text is None else text


def decode(text: str, *, key: bytes | None = None, context: str = "") -> object:
    """Read what `encode` wrote; imports nothing that the text names, and runs nothing that is not signed.

    Raises
    ------
    UnknownType
        Where a class of the text is not loaded here, or the text is damaged.
    PayloadUntrusted
        Where it holds a pickle that was not signed with `key` for this `context`.

    Examples
    --------
    >>> decode(encode((1, Decimal("2.50"))))
    (1, Decimal('2.50'))
    """
    try:
        if TAG not in text:
            # A third of the time of `json.loads`, which looks for spaces around the value.
            value, end = _decoder.raw_decode(text)
            return value if end == len(text) else json.loads(text)
        return json.loads(text, object_hook=partial(_revive, key, context))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnknownType(
            f"the stored value {text[:60]!r} is damaged ({error}); dispatch the job again"
        ) from error


def encode_call(
    args: tuple[object, ...], kwargs: Mapping[str, object], *, key: bytes | None = None, context: str = ""
) -> str:
    """Write the arguments of a call; an error names the position or the keyword.

    Examples
    --------
    >>> encode_call(("users.csv",), {"batch": 2})
    '{"args":["users.csv"],"kwargs":{"batch":2}}'
    """
    call = {"args": list(args), "kwargs": dict(kwargs)}
    text = _plain_text(call)
    if text is None:
        writer = _Writer(key, context)
        stored = [writer.put(value, "args", number) for number, value in enumerate(args)]
        text = _to_text({"args": stored, "kwargs": writer.pairs(kwargs, keywords=True)})
    return text


def decode_call(
    text: str, *, key: bytes | None = None, context: str = ""
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Read what `encode_call` wrote; raises what `decode` raises.

    Examples
    --------
    >>> decode_call('{"args":["users.csv"],"kwargs":{"batch":2}}')
    (('users.csv',), {'batch': 2})
    """
    call = decode(text, key=key, context=context)
    if isinstance(call, dict):
        args, kwargs = call.get("args"), call.get("kwargs")
        if isinstance(args, list) and isinstance(kwargs, dict) and _STR.issuperset(map(type, kwargs)):
            return tuple(args), kwargs
    raise UnknownType(f"{text[:60]!r} does not hold the arguments of a call; dispatch the job again")


def needs_pickle(text: str) -> bool:
    """Whether `decode` would have to unpickle a part of it, and so needs the key.

    Examples
    --------
    >>> needs_pickle(encode("not one")), needs_pickle(encode(range(3), key=b"secret"))
    (False, True)
    """
    return TAG in text and _PICKLED.search(text) is not None


def _plain_text(value: object) -> str | None:
    """`value` as text where plain JSON gives it back as it went, else None: then the writer walks it."""
    if not _is_plain(value, DEPTH):
        return None
    try:
        text = _to_text(value)
        if not text.isascii():
            text.encode()  # a lone surrogate, which no store takes
    except ValueError:  # not a finite float, or an integer of thousands of digits
        return None
    return text


def _is_plain(value: object, depth: int) -> bool:
    # By exact type, since the C encoder writes members of a StrEnum, numpy.float64 and the like as what they inherit.
    kind = type(value)
    if kind in _ATOMS:
        return True
    children: Any
    if kind is list:
        children = value
    elif kind is dict:
        if TAG in value or not _STR.issuperset(map(type, value)):  # type: ignore[operator, call-overload]
            return False
        children = value.values()  # type: ignore[attr-defined]
    else:
        return False
    if _ATOMS.issuperset(map(type, children)):
        return depth > 0
    return depth > 0 and all(_is_plain(child, depth - 1) for child in children)


# ------------------------------------------------------------------------------------- how to write


class _Writer:
    """One walk through a value, to a tree of plain JSON; remembers the way to where it stands."""

    def __init__(self, key: bytes | None, context: str) -> None:
        self.key = key
        self.context = context
        self.trail: list[tuple[str, tuple[object, ...]]] = []
        self.open: set[int] = set()

    def put(self, value: object, step: str, *index: object) -> Json:
        self.trail.append((step, index))
        write = _WRITERS.get(type(value)) or _writer_of(value)
        stored = write(self, value)
        self.trail.pop()
        return stored

    def tagged(self, tag: str, stored: Json, **more: Json) -> Json:
        return {TAG: tag, "v": stored, **more}

    def items(self, values: Any) -> Json:
        self._enter(values)
        stored = [self.put(value, "", number) for number, value in enumerate(values)]
        self.open.discard(id(values))
        return stored

    def pairs(self, values: Mapping[Any, object], *, keywords: bool = False) -> Json:
        self._enter(values)
        stored = [
            (name, self.put(value, name) if keywords else self.put(value, "", name))
            for name, value in values.items()
        ]
        if all(type(name) is str and name != TAG and _is_text(name) for name in values):
            tree: Json = dict(stored)
        else:
            tree = self.tagged("dict", [[self.put(name, " key"), value] for name, value in stored])
        self.open.discard(id(values))
        return tree

    def _enter(self, values: object) -> None:
        if id(values) in self.open:
            self.refuse("it contains itself; pass a value without cycles")
        if len(self.open) >= DEPTH:
            self.refuse(f"it is nested more than {DEPTH} deep; pass it flatter, or as a file")
        self.open.add(id(values))

    def pickled(self, value: object) -> Json:
        if self.key is None:
            self.refuse(f"a {_kind(value)} is no JSON; pass plain values, or {_REMADE}")
        data = _pickle(value, self.path())
        return self.tagged("pickle", _b64(data), sig=_signature(data, self.key, "pickle", self.context).hex())

    def refuse(self, reason: str) -> NoReturn:
        raise InvalidCommand(f"{self.path()} cannot be stored: {reason}")

    def path(self) -> str:
        return "".join(step + "".join(f"[{_shown(at)}]" for at in index) for step, index in self.trail)


_Write = Callable[[_Writer, Any], Json]
_REMADE = "what it can be made from (a path, a URL, an id), and make it inside the job"


def _writer_of(value: object) -> _Write:
    kind = type(value)
    if isinstance(value, Enum):
        return _write_enum
    if _is_namedtuple(kind):
        return _write_namedtuple
    if _is_dataclass(kind):
        return _write_dataclass
    # Loaded or not: where it is not, no value can be one of theirs.
    for package, writer_of in (("numpy", _numpy_writer), ("pandas", _pandas_writer)):
        if (module := sys.modules.get(package)) and (writer := writer_of(module, value)):
            return writer
    return _Writer.pickled


def _write_same(_writer: _Writer, value: Json) -> Json:
    return value


def _write_int(writer: _Writer, value: int) -> Json:
    # Python refuses to read decimal numbers of more digits than a setting allows, 640 at the least.
    return value if value.bit_length() < 2000 else writer.tagged("int", hex(value))


def _write_float(writer: _Writer, value: float) -> Json:
    return value if math.isfinite(value) else writer.tagged("float", repr(value))


def _write_str(writer: _Writer, value: str) -> Json:
    return value if _is_text(value) else writer.tagged("str", _b64(value.encode("utf-8", "surrogatepass")))


def _write_set(writer: _Writer, value: set[object] | frozenset[object]) -> Json:
    # Sorted, so that equal sets are equal text, whatever the hash seed.
    return writer.tagged(type(value).__name__, sorted(writer.items(value), key=_to_text))


def _write_time(writer: _Writer, value: datetime | time) -> Json:
    more: dict[str, Json] = {"fold": 1} if value.fold else {}
    zone = value.tzinfo
    if type(zone) is ZoneInfo and zone.key:
        more["zone"], value = zone.key, value.replace(tzinfo=None)
    elif type(zone) is timezone:
        if name := _name_of(zone):
            more["name"] = name
    elif zone is not None:
        return writer.pickled(value)
    return writer.tagged(type(value).__name__, value.isoformat(), **more)


def _name_of(zone: timezone) -> str | None:
    """The name that a fixed offset was given, if any; one without has a name made of its offset."""
    offset = zone.utcoffset(None)
    return None if str(zone) == str(timezone(offset)) else str(zone)


def _write_zone(writer: _Writer, value: ZoneInfo) -> Json:
    return writer.tagged("zone", value.key) if value.key else writer.pickled(value)


def _write_timezone(writer: _Writer, value: timezone) -> Json:
    return writer.tagged("timezone", _from_timedelta(value.utcoffset(None)), name=_name_of(value))


def _write_path(writer: _Writer, value: PurePosixPath | PureWindowsPath) -> Json:
    return writer.tagged("path", _write_str(writer, str(value)), t=type(value).__name__)


def _write_enum(writer: _Writer, value: Enum) -> Json:
    kind = type(value)
    is_flag = isinstance(value, Flag) and value.name not in kind.__members__
    if not _is_here(
        kind, lambda found: issubclass(found, Enum) and (is_flag or value.name in found.__members__)
    ):
        return writer.pickled(value)
    if is_flag:
        return writer.tagged("flag", value.value, t=_type_name(kind))
    return writer.tagged("enum", value.name, t=_type_name(kind))


def _write_namedtuple(writer: _Writer, value: Any) -> Json:
    kind = type(value)
    if getattr(value, "__dict__", None) or not _is_here(
        kind, lambda found: _is_namedtuple(found) and found._fields == kind._fields
    ):
        return writer.pickled(value)
    return writer.tagged("namedtuple", writer.items(value), t=_type_name(kind))


def _write_dataclass(writer: _Writer, value: object) -> Json:
    kind = type(value)
    names = _field_names(kind)
    if not _is_here(kind, lambda found: _field_names(found) == names) or not _is_python_object(kind):
        return writer.pickled(value)
    writer._enter(value)  # noqa: SLF001
    stored = {name: writer.put(item, "." + name) for name, item in _state(value)}
    writer.open.discard(id(value))
    return writer.tagged("dataclass", stored, t=_type_name(kind))


def _numpy_writer(numpy: ModuleType, value: Any) -> _Write | None:
    if not isinstance(value, numpy.generic) or value.dtype.char == "g":
        return None
    return _write_numpy if value.dtype.kind in "biufSUMm" else None


def _write_numpy(writer: _Writer, value: Any) -> Json:
    kind = value.dtype.kind
    if kind in "SU":
        item: object = bytes(value) if kind == "S" else str(value)
        return writer.tagged("numpy", writer.put(item, ""), t=kind)
    item = int(value.astype("i8")) if kind in "Mm" else value.item()
    return writer.tagged("numpy", writer.put(item, ""), t=value.dtype.str)


def _pandas_writer(pandas: ModuleType, value: Any) -> _Write | None:
    if value is getattr(pandas, "NaT", None) or value is getattr(pandas, "NA", None):
        return _write_missing
    if type(value) is getattr(pandas, "Timestamp", None):
        return _write_pandas if type(value.tz) in (type(None), timezone, ZoneInfo) else None
    return _write_pandas if type(value) is getattr(pandas, "Timedelta", None) else None


def _write_missing(writer: _Writer, value: object) -> Json:
    return writer.tagged("pandas", None, t="NA" if value is sys.modules["pandas"].NA else "NaT")


def _write_pandas(writer: _Writer, value: Any) -> Json:
    kind = type(value).__name__
    zone = writer.put(value.tz, ".tz") if kind == "Timestamp" else None
    return writer.tagged("pandas", int(value.asm8.astype("i8")), t=kind, unit=value.unit, tz=zone)


def _b64(data: bytes | bytearray) -> str:
    return b64encode(data).decode("ascii")


def _unb64(text: str) -> bytes:
    return b64decode(text, validate=True)


def _from_timedelta(value: timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _from_complex(value: complex) -> str:
    return f"{value.real!r} {value.imag!r}"


def _to_complex(text: str) -> complex:
    real, imag = text.split(" ")
    return complex(float(real), float(imag))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


#: Tag, type, to JSON, from JSON.
_SCALARS: tuple[tuple[str, type, Callable[[Any], Json], Callable[[Json], object]], ...] = (
    ("date", date, date.isoformat, date.fromisoformat),
    ("timedelta", timedelta, _from_timedelta, lambda stored: timedelta(*stored)),
    ("decimal", Decimal, str, Decimal),
    ("uuid", UUID, str, UUID),
    ("bytes", bytes, _b64, _unb64),
    ("bytearray", bytearray, _b64, lambda stored: bytearray(_unb64(stored))),
    ("complex", complex, _from_complex, _to_complex),
)


def _scalar_writer(tag: str, to_json: Callable[[Any], Json]) -> _Write:
    return lambda writer, value: writer.tagged(tag, to_json(value))


_WRITERS: dict[type, _Write] = {
    type(None): _write_same,
    bool: _write_same,
    int: _write_int,
    float: _write_float,
    str: _write_str,
    list: _Writer.items,
    dict: _Writer.pairs,
    tuple: lambda writer, value: writer.tagged("tuple", writer.items(value)),
    set: _write_set,
    frozenset: _write_set,
    datetime: _write_time,
    time: _write_time,
    timezone: _write_timezone,
    ZoneInfo: _write_zone,
    **dict.fromkeys((PosixPath, WindowsPath, PurePosixPath, PureWindowsPath), _write_path),
    **{kind: _scalar_writer(tag, to_json) for tag, kind, to_json, _ in _SCALARS},
}


# -------------------------------------------------------------------------------------- how to read


def _revive(key: bytes | None, context: str, stored: dict[str, Any]) -> object:
    """Every JSON object passes here, innermost first; those with a tag become what they stand for."""
    if TAG not in stored:
        return stored
    tag = stored[TAG] if type(stored[TAG]) is str else "?"
    if tag == "pickle":
        return _unpickle(stored, key, context)
    # Nothing rebuilt may stand where a reader would iterate over it, convert it or compare it: that runs its methods.
    if tag not in _READERS or not _RAW.issuperset(map(type, stored.values())):
        sentence = f"a stored value has the tag {tag!r}, which this nbqueue cannot read"
        raise UnknownType(f"{sentence}; upgrade it here, or dispatch the job again")
    try:
        return _READERS[tag](stored)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UnknownType(f"a stored {tag} is damaged ({_told(error)}); dispatch the job again") from error


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
    kind = _find(stored["t"])
    if kind is None or not issubclass(kind, Enum):
        _unknown(stored, "enum")
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
    raise UnknownType(f"{_type_name(kind)} has no combination {value!r} here; it changed since dispatch")


def _read_namedtuple(stored: dict[str, Any]) -> object:
    kind = _find(stored["t"])
    if kind is None or not _is_namedtuple(kind):
        _unknown(stored, "named tuple")
    if len(kind._fields) != len(_list(stored["v"])):
        raise UnknownType(f"{stored['t']} has other fields than at dispatch; dispatch the job again")
    return tuple.__new__(kind, stored["v"])


def _read_dataclass(stored: dict[str, Any]) -> object:
    kind = _find(stored["t"])
    if kind is None or not _is_dataclass(kind):
        _unknown(stored, "dataclass")
    state = dict(stored["v"]) if type(stored["v"]) is dict else {}
    for field in dataclasses.fields(kind):
        if field.name in state:
            continue
        if field.default is not MISSING:
            state[field.name] = field.default
        elif (factory := field.default_factory) in (
            list,
            dict,
            set,
        ):  # others are code, which no row sets off
            state[field.name] = factory()
        elif field.init:
            raise UnknownType(f"{stored['t']} has a field {field.name!r} that it had not at dispatch")
    value, slots = object.__new__(kind), _slots(kind)
    for name, item in state.items():
        # Past every `__setattr__`, property and descriptor of the class, which are code as well.
        if name in slots:
            slots[name].__set__(value, item)
        elif _is_attribute(name):
            object.__getattribute__(value, "__dict__")[name] = item
    return value


def _read_numpy(stored: dict[str, Any]) -> object:
    numpy, kind, item = _loaded("numpy"), stored["t"], stored["v"]
    if kind in ("S", "U"):
        return numpy.bytes_(item) if kind == "S" else numpy.str_(item)
    dtype = numpy.dtype(kind)
    if dtype.kind in "Mm":
        return numpy.array(item, "i8").view(dtype)[()]
    if dtype.kind not in "biuf" or type(item) not in _ATOMS:
        raise ValueError(kind)
    return dtype.type(item)


def _read_pandas(stored: dict[str, Any]) -> object:
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


def _list(stored: object) -> list[Any]:
    if type(stored) is not list:
        raise TypeError("not a list")
    return stored


def _scalar_reader(from_json: Callable[[Json], object]) -> Callable[[dict[str, Any]], object]:
    return lambda stored: from_json(stored["v"])


_READERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "int": lambda stored: int(stored["v"], 16),
    "float": lambda stored: float(stored["v"]),
    "str": lambda stored: _unb64(stored["v"]).decode("utf-8", "surrogatepass"),
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
    "numpy": _read_numpy,
    "pandas": _read_pandas,
    **{tag: _scalar_reader(from_json) for tag, _, _, from_json in _SCALARS},
}


# ---------------------------------------------------------------------------------- classes by name


def _find(name: object) -> Any:
    """The class of that name among the modules that are loaded, or None; runs no code to find it."""
    module, _, path = name.partition(":") if type(name) is str else ("", "", "")
    if (holder := sys.modules.get(module)) is None:
        return None
    # Not getattr: modules import lazily on attribute access.
    names: Mapping[str, object] = object.__getattribute__(holder, "__dict__")
    found: object = None
    for part in path.split("."):
        found = names.get(part)
        if not issubclass(type(found), type):
            return None
        names = vars(found)
    return found


def _is_here(kind: type, same: Callable[[Any], bool]) -> bool:
    """Whether a reader would find `kind` by its name, or, once its cell has run again, one of the same shape."""
    found = _find(_type_name(kind))
    return found is kind or (found is not None and same(found))


def _unknown(stored: dict[str, Any], kind: str) -> NoReturn:
    module, _, name = str(stored["t"]).partition(":")
    way_out = (
        "run the cell that defines it"
        if module == "__main__"
        else f"import {module} in the worker (--import)"
    )
    raise UnknownType(
        f"the job holds a value of {name}, and there is no {kind} of that name in {module} here; {way_out}"
    )


def _shown(name: object) -> str:
    try:
        return repr(name)[:60]
    except Exception:  # noqa: BLE001 - a key of the user's class, or an integer too long for Python to show
        return f"<{_kind(name)}>"


def _type_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_namedtuple(kind: Any) -> bool:
    return (
        issubclass(kind, tuple)
        and type(names := getattr(kind, "_fields", None)) is tuple
        and _STR.issuperset(map(type, names))
    )


def _field_names(kind: Any) -> list[str] | None:
    return [field.name for field in dataclasses.fields(kind)] if _is_dataclass(kind) else None


def _is_dataclass(kind: type) -> bool:
    # Not by `dataclasses.is_dataclass`, which asks the class, and so its metaclass.
    return any("__dataclass_fields__" in vars(base) for base in kind.__mro__)


def _is_python_object(kind: type) -> bool:
    """Whether all that it holds is in its slots and its ``__dict__``; a dict or an exception holds more."""
    try:
        object.__new__(kind)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=256)
def _slots(kind: Any) -> dict[str, MemberDescriptorType]:
    return {
        name: member
        for base in reversed(kind.__mro__)
        for name, member in vars(base).items()
        if type(member) is MemberDescriptorType
    }


def _state(value: object) -> Iterator[tuple[str, object]]:
    kind = type(value)
    for name, member in _slots(cast("Any", kind)).items():
        try:
            yield name, member.__get__(value)
        except AttributeError:  # never set; it stays so
            continue
    for name, item in getattr(value, "__dict__", {}).items():
        # What is cached can be computed again.
        if _is_attribute(name) and not isinstance(getattr(kind, name, None), cached_property):
            yield name, item


def _is_attribute(name: str) -> bool:
    return type(name) is str and name.isidentifier() and not (name.startswith("__") and name.endswith("__"))


# --------------------------------------------------------------------------- signatures and pickles


def sign(data: bytes, *, key: bytes, context: str) -> bytes:
    """Put `data` into an envelope that only `verify` with the same key and context opens.

    Examples
    --------
    >>> verify(sign(b"x = 1", key=b"secret", context="cell"), key=b"secret", context="cell")
    b'x = 1'
    """
    return _seal(data, key, "data", context)


def verify(blob: bytes, *, key: bytes, context: str) -> bytes:
    """The data in an envelope of `sign`.

    Raises
    ------
    PayloadUntrusted
        Where it was signed with another key, for another context, or not at all.

    Examples
    --------
    >>> verify(b"x = 1", key=b"secret", context="cell")
    Traceback (most recent call last):
    ...
    nbqueue.errors.PayloadUntrusted: the stored data was not signed by this user, ...
    """
    return _unseal(blob, key, "data", context, "the stored data")


def _seal(data: bytes, key: bytes, purpose: str, context: str) -> bytes:
    return _MAGIC + _signature(data, key, purpose, context) + data


def _unseal(blob: bytes, key: bytes, purpose: str, context: str, what: str) -> bytes:
    start = len(_MAGIC) + _DIGEST
    data = bytes(blob[start:])
    if not hmac.compare_digest(bytes(blob[:start]), _MAGIC + _signature(data, key, purpose, context)):
        _untrusted(what)
    return data


def _signature(data: bytes, key: bytes, purpose: str, context: str) -> bytes:
    # The purpose keeps one kind of signed bytes from being passed off as another.
    head = f"{purpose}\0{context}\0"
    if "\0" in context:
        raise InvalidCommand(
            f"the context {context!r} holds a NUL, which ends it in what is signed; leave it out"
        )
    return hmac.digest(key, head.encode("utf-8", "surrogatepass") + data, "sha256")


def _untrusted(what: str) -> NoReturn:
    raise PayloadUntrusted(
        f"{what} was not signed by this user, or was changed since, so not a byte of it was decoded; dispatch the job "
        "again to sign it anew, or, in a team, set the same NBQUEUE_SECRET wherever jobs are dispatched and run"
    )


def _unpickle(stored: dict[str, Any], key: bytes | None, context: str) -> object:
    if key is None:
        raise PayloadUntrusted(
            "a value of the job is pickled, and without a secret there is no telling who signed it; "
            "set NBQUEUE_SECRET here to that of who dispatched it"
        )
    try:
        data, signature = _unb64(stored["v"]), bytes.fromhex(stored["sig"])
    except (LookupError, TypeError, ValueError):
        _untrusted("a pickled value of the job")
    if not hmac.compare_digest(signature, _signature(data, key, "pickle", context)):
        _untrusted("a pickled value of the job")
    return _loads(data, "a pickled value of the job")


def _loads(data: bytes, what: str) -> object:
    try:
        return pickle.loads(data)
    except Exception as error:
        raise UnknownType(
            f"{what} cannot be rebuilt here ({_told(error)}); install or import what it needs"
        ) from error


def _pickle(value: object, path: str) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value))
    except Exception as error:
        path, culprit, reason = _culprit(value, path, error, {id(value)})
        raise InvalidCommand(
            f"{path} cannot be stored: a {_kind(culprit)} cannot leave this process ({_told(reason)}); pass {_REMADE}"
        ) from error


def _culprit(value: object, path: str, reason: Exception, seen: set[int]) -> tuple[str, object, Exception]:
    """The innermost part of `value` that cannot be pickled, and the way there."""
    import cloudpickle

    for step, part in _parts(value):
        if id(part) in seen:
            continue
        seen.add(id(part))
        try:
            cloudpickle.dumps(part)
        except Exception as error:  # noqa: BLE001 - a __reduce__ may raise anything
            return _culprit(part, path + step, error, seen)
    return path, value, reason


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        yield from ((f"[{_shown(name)}]", part) for name, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{number}]", part) for number, part in enumerate(value))
    elif isinstance(value, MethodType):
        yield from (("", value.__func__), ("", value.__self__))
    elif isinstance(value, partial):
        yield from (("", value.func), (" argument", value.args), (" argument", value.keywords))
    elif isinstance(value, FunctionType):
        names = sorted(_globals_used(value.__code__) & value.__globals__.keys())
        yield from ((f", global {name!r}", value.__globals__[name]) for name in names)
        yield from ((f", captured {name!r}", part) for name, part in _captured(value))
        yield from ((", default", part) for part in value.__defaults__ or ())
        yield from ((f", default {name!r}", part) for name, part in (value.__kwdefaults__ or {}).items())
    else:
        yield from ((f".{name}", part) for name, part in getattr(value, "__dict__", {}).items())


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# -------------------------------------------------------------------------------------------- code


def pack_code(function: Callable[..., object], *, key: bytes, context: str) -> tuple[str, bytes]:
    """Copy a function by value, signed; what it captures travels along, importable modules go by name.

    Returns
    -------
    tuple of str and bytes
        The `code_hash`, and the copy for `unpack_code`.

    Raises
    ------
    InvalidCommand
        Naming the global or captured variable that cannot leave this process.

    Examples
    --------
    >>> name, copy = pack_code(lambda x: x + 1, key=b"secret", context="code")
    >>> unpack_code(copy, key=b"secret", context="code")(1)
    2
    """
    name = getattr(function, "__qualname__", None) or _kind(function)
    data = _pickle(function, f"function {name}")
    return code_hash(function), _seal(zlib.compress(data), key, "code", context)


def unpack_code(blob: bytes, *, key: bytes, context: str) -> Callable[..., object]:
    r"""The function that `pack_code` copied; its signature is verified before anything is decompressed.

    Raises
    ------
    PayloadUntrusted
        Where it was signed with another key, for another context, or not at all.
    UnknownType
        Where a module that it needs is missing here.

    Examples
    --------
    >>> unpack_code(b"cos\nsystem\n.", key=b"secret", context="code")
    Traceback (most recent call last):
    ...
    nbqueue.errors.PayloadUntrusted: the code of the job was not signed by this user, ...
    """
    data = _unseal(blob, key, "code", context, "the code of the job")
    function = _loads(zlib.decompress(data), "the code of the job")
    if not callable(function):
        raise UnknownType(
            f"the code of the job is a {_kind(function)}, which cannot be called; dispatch it again"
        )
    return function


def code_hash(function: Callable[..., object]) -> str:
    """16 hexadecimal digits that change with what a function does, and not with where it stands.

    They cover its code, defaults and captured variables, the functions and classes of its own module that it uses, and
    the plain constants among its globals. Another minor version of Python gives another hash.

    Examples
    --------
    >>> code_hash(lambda x: x + 1) == code_hash(lambda x: x + 1), code_hash(len) == code_hash(max)
    (True, False)
    """
    shape = _shape(function, getattr(function, "__module__", None), set())
    return sha256(repr(shape).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _shape(value: object, home: str | None, seen: set[int]) -> object:
    """`value` as nested tuples whose repr says all that matters, and no address, file or line."""
    if isinstance(value, FunctionType | type) and (id(value) in seen or value.__module__ != home):
        return value.__module__, value.__qualname__
    if isinstance(value, FunctionType | type):
        seen.add(id(value))
    inner = partial(_shape, home=home, seen=seen)
    if isinstance(value, FunctionType):
        return (
            _code_shape(value.__code__),
            [inner(part) for part in value.__defaults__ or ()],
            [(name, inner(part)) for name, part in (value.__kwdefaults__ or {}).items()],
            [(name, inner(part)) for name, part in _captured(value)],
            [(name, inner(part)) for name, part in _constants(value)],
        )
    if isinstance(value, type):
        methods = sorted((name, part) for name, part in vars(value).items() if isinstance(part, FunctionType))
        return value.__qualname__, [(name, inner(part)) for name, part in methods]
    if isinstance(value, MethodType):
        return "method", _kind(value.__self__), inner(value.__func__)
    if isinstance(value, partial):
        return "partial", inner(value.func), [inner(part) for part in value.args], inner(value.keywords)
    try:
        return encode(value)
    except InvalidCommand:
        return _kind(value), getattr(value, "__qualname__", "")


def _constants(function: FunctionType) -> Iterator[tuple[str, object]]:
    """The globals that belong to what a function does; those that change while it runs do not."""
    names = function.__globals__
    for name in sorted(_globals_used(function.__code__) & names.keys()):
        value = names[name]
        if type(value) in _ATOMS or isinstance(value, FunctionType | type | bytes):
            yield name, value


def _captured(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue


_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


@lru_cache(maxsize=1024)
def _globals_used(code: CodeType) -> frozenset[str]:
    # By instruction, as `co_names` holds the names of attributes too.
    own = {step.argval for step in dis.get_instructions(code) if step.opname in _LOADS}
    return frozenset(own).union(
        *(_globals_used(part) for part in code.co_consts if isinstance(part, CodeType))
    )


def _code_shape(code: CodeType) -> object:
    # From Python 3.13 on the body of a class stores the number of its line.
    if "__firstlineno__" in code.co_names:
        steps = list(dis.get_instructions(code))
        return [
            (step.opname, _const_shape(step.argval))
            for step, after in zip(steps, [*steps[1:], steps[-1]], strict=True)
            if after.argval != "__firstlineno__"
        ]
    # Of the flags those of the function itself; above them are the `from __future__` of wherever it was compiled.
    return (
        code.co_code,
        code.co_exceptiontable,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0x3FF),
        [_const_shape(const) for const in code.co_consts],
    )


def _const_shape(const: object) -> object:
    if isinstance(const, CodeType):
        return _code_shape(const)
    return ("frozenset", sorted(map(repr, const))) if isinstance(const, frozenset) else repr(const)
