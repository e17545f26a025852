"""From a value to a tree of plain JSON, by its exact type; what has no tag is pickled, or refused by its path."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, time, timezone
from enum import Enum, Flag
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from nbqueue.errors import InvalidCommand
from nbqueue.payload.classes import (
    field_names,
    is_dataclass,
    is_here,
    is_namedtuple,
    is_python_object,
    state_of,
    type_name,
)
from nbqueue.payload.errors import REMADE, kind_of, shown
from nbqueue.payload.foreign import take_apart
from nbqueue.payload.notation import (
    DEPTH,
    SCALARS,
    TAG,
    Json,
    from_timedelta,
    is_text,
    tagged,
    to_base64,
    to_text,
)
from nbqueue.payload.pickles import write_pickle

__all__ = ["Writer"]


class Writer:
    """One walk through a value, to a tree of plain JSON; remembers the way to where it stands."""

    def __init__(self, key: bytes | None, context: str) -> None:
        self.key = key
        self.context = context
        self.trail: list[tuple[str, tuple[object, ...]]] = []
        self.open: set[int] = set()

    def put(self, value: object, step: str, *index: object) -> Json:
        """One value as plain JSON; the way to it goes on by a step, then by an index."""
        self.trail.append((step, index))
        write = _WRITERS.get(type(value)) or _writer_of(value)
        stored = write(self, value)
        self.trail.pop()
        return stored

    def items(self, values: Any) -> Json:
        """A list of what some values are as plain JSON."""
        self.enter(values)
        stored = [self.put(value, "", number) for number, value in enumerate(values)]
        self.leave(values)
        return stored

    def pairs(self, values: Mapping[Any, object], *, keywords: bool = False) -> Json:
        """A dict as plain JSON, or, where a key is no plain text, as tagged pairs."""
        self.enter(values)
        stored = [
            (name, self.put(value, name) if keywords else self.put(value, "", name))
            for name, value in values.items()
        ]
        if all(type(name) is str and name != TAG and is_text(name) for name in values):
            tree: Json = dict(stored)
        else:
            tree = tagged("dict", [[self.put(name, " key"), value] for name, value in stored])
        self.leave(values)
        return tree

    def enter(self, values: object) -> None:
        """Go down into a value, unless this walk is inside it already, or deep enough."""
        if id(values) in self.open:
            self.refuse("it contains itself; pass a value without cycles")
        if len(self.open) >= DEPTH:
            self.refuse(f"it is nested more than {DEPTH} deep; pass it flatter, or as a file")
        self.open.add(id(values))

    def leave(self, values: object) -> None:
        """Come up from it again."""
        self.open.discard(id(values))

    def pickled(self, value: object) -> Json:
        """What no tag carries, signed; refused where there is no key."""
        if self.key is None:
            self.refuse(f"a {kind_of(value)} is no JSON; pass plain values, or {REMADE}")
        return write_pickle(value, self.path(), self.key, self.context)

    def refuse(self, reason: str) -> NoReturn:
        """Say what cannot be stored, and why."""
        raise InvalidCommand(f"{self.path()} cannot be stored: {reason}")

    def path(self) -> str:
        """The way to where the walk stands, ``args[0].rows[3]``."""
        return "".join(step + "".join(f"[{shown(at)}]" for at in index) for step, index in self.trail)


_Write = Callable[[Writer, Any], Json]


def _writer_of(value: object) -> _Write:
    kind = type(value)
    if isinstance(value, Enum):
        return _write_enum
    if is_namedtuple(kind):
        return _write_namedtuple
    if is_dataclass(kind):
        return _write_dataclass
    return _write_other


def _write_same(_writer: Writer, value: Json) -> Json:
    return value


def _write_int(_writer: Writer, value: int) -> Json:
    # Python refuses to read decimal numbers of more digits than a setting allows, 640 at the least.
    return value if value.bit_length() < 2000 else tagged("int", hex(value))


def _write_float(_writer: Writer, value: float) -> Json:
    return value if math.isfinite(value) else tagged("float", repr(value))


def _write_str(_writer: Writer, value: str) -> Json:
    return value if is_text(value) else tagged("str", to_base64(value.encode("utf-8", "surrogatepass")))


def _write_set(writer: Writer, value: set[object] | frozenset[object]) -> Json:
    # Sorted, so that equal sets are equal text, whatever the hash seed.
    return tagged(type(value).__name__, sorted(writer.items(value), key=to_text))


def _write_time(writer: Writer, value: datetime | time) -> Json:
    more: dict[str, Json] = {"fold": 1} if value.fold else {}
    zone = value.tzinfo
    if type(zone) is ZoneInfo and zone.key:
        more["zone"], value = zone.key, value.replace(tzinfo=None)
    elif type(zone) is timezone:
        if name := _name_of(zone):
            more["name"] = name
    elif zone is not None:
        return writer.pickled(value)
    return tagged(type(value).__name__, value.isoformat(), **more)


def _name_of(zone: timezone) -> str | None:
    """The name that a fixed offset was given, if any; one without has a name made of its offset."""
    offset = zone.utcoffset(None)
    return None if str(zone) == str(timezone(offset)) else str(zone)


def _write_zone(writer: Writer, value: ZoneInfo) -> Json:
    return tagged("zone", value.key) if value.key else writer.pickled(value)


def _write_timezone(_writer: Writer, value: timezone) -> Json:
    return tagged("timezone", from_timedelta(value.utcoffset(None)), name=_name_of(value))


def _write_path(writer: Writer, value: PurePosixPath | PureWindowsPath) -> Json:
    return tagged("path", _write_str(writer, str(value)), t=type(value).__name__)


def _write_enum(writer: Writer, value: Enum) -> Json:
    kind = type(value)
    is_flag = isinstance(value, Flag) and value.name not in kind.__members__
    if not is_here(
        kind, lambda found: issubclass(found, Enum) and (is_flag or value.name in found.__members__)
    ):
        return writer.pickled(value)
    if is_flag:
        return tagged("flag", value.value, t=type_name(kind))
    return tagged("enum", value.name, t=type_name(kind))


def _write_namedtuple(writer: Writer, value: Any) -> Json:
    kind = type(value)
    if getattr(value, "__dict__", None) or not is_here(
        kind, lambda found: is_namedtuple(found) and found._fields == kind._fields
    ):
        return writer.pickled(value)
    return tagged("namedtuple", writer.items(value), t=type_name(kind))


def _write_dataclass(writer: Writer, value: object) -> Json:
    kind = type(value)
    names = field_names(kind)
    if not is_here(kind, lambda found: field_names(found) == names) or not is_python_object(kind):
        return writer.pickled(value)
    writer.enter(value)
    stored = {name: writer.put(item, "." + name) for name, item in state_of(value)}
    writer.leave(value)
    return tagged("dataclass", stored, t=type_name(kind))


def _write_other(writer: Writer, value: object) -> Json:
    parts = take_apart(value)
    if parts is None:
        return writer.pickled(value)
    tag, item, more = parts
    return tagged(
        tag, writer.put(item, ""), **{name: writer.put(part, "." + name) for name, part in more.items()}
    )


def _scalar_writer(tag: str, to_json: Callable[[Any], Json]) -> _Write:
    return lambda _writer, value: tagged(tag, to_json(value))


_WRITERS: dict[type, _Write] = {
    type(None): _write_same,
    bool: _write_same,
    int: _write_int,
    float: _write_float,
    str: _write_str,
    list: Writer.items,
    dict: Writer.pairs,
    tuple: lambda writer, value: tagged("tuple", writer.items(value)),
    set: _write_set,
    frozenset: _write_set,
    datetime: _write_time,
    time: _write_time,
    timezone: _write_timezone,
    ZoneInfo: _write_zone,
    **dict.fromkeys((PosixPath, WindowsPath, PurePosixPath, PureWindowsPath), _write_path),
    **{kind: _scalar_writer(tag, to_json) for tag, kind, to_json, _ in SCALARS},
}
