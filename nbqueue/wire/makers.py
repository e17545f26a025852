"""What may travel, class by class: how an object is taken apart, and who puts it together again.

A maker is called with the plain parts of one object. Its name is all that a message may name, so that nothing is ever
imported because a message says so.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from operator import attrgetter
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from nbqueue import jobs, lifecycle, retry, rows, store
from nbqueue.errors import NbqueueError, NotSupported
from nbqueue.ids import JobIds

__all__ = ["VALUES", "Maker", "WireError", "add_maker", "allow", "let_travel", "made_by", "parts_of"]

#: What the verbs of a store take and give.
VALUES: tuple[type, ...] = (
    *(jobs.State, jobs.Spec, jobs.NewJob, jobs.NewBatch, jobs.BatchRecord, jobs.Claim, jobs.JobRecord),
    rows.Rows,
    *(retry.RetryPolicy, lifecycle.Outcome, lifecycle.Event),
    *(store.Capability, store.Handlers, store.WorkerInfo, store.LogChunk, store.ReportKind, store.Report),
    *(store.Answer, store.Turn, store.Mapped, store.BatchCount, store.QueueInfo, store.Selection),
)


class WireError(NbqueueError):
    """What came is not what the other end may send: damaged, forged, too long or of a class that does not travel."""


class Maker:
    """Makes one kind of object out of its parts; it cannot be changed, not by a message either."""

    __slots__ = ("_make", "name")

    name: str
    _make: Callable[..., Any]

    def __init__(self, tag: str, make: Callable[..., Any]):
        # The name under which a pickle looks it up in this module.
        object.__setattr__(self, "name", f"_MAKERS.{tag}")
        object.__setattr__(self, "_make", make)

    def __call__(self, *parts: Any) -> Any:
        """Put one object together."""
        return self._make(*parts)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self.name} is as it is: {name} cannot be set to {value!r}")


class _Makers:
    """Holds each maker as an attribute."""


_MAKERS = _Makers()
_BY_NAME: dict[tuple[str, str], Maker] = {}
#: By the very class: what an object of it is, as (maker, parts).
_PARTS: dict[type, Callable[[Any], Any]] = {Maker: attrgetter("name")}
#: By library and name of the class: of libraries that are imported only by those who have an object of theirs.
_LATE: dict[tuple[str, str], Callable[[Any], Any]] = {}


def add_maker(tag: str, make: Callable[..., Any]) -> Maker:
    """Make a maker that messages may name."""
    made = Maker(tag, make)
    if (__name__, made.name) in _BY_NAME:
        raise ValueError(f"a class {tag} travels already; give the other one another name")
    setattr(_MAKERS, tag, made)
    _BY_NAME[__name__, made.name] = made
    return made


def let_travel(
    kind: type | tuple[str, str], parts: Callable[[Any], tuple[Any, ...]], make: Callable[..., Any]
) -> None:
    """Let objects of a class travel, given itself or, with all that descends from it, as (library, name)."""
    if isinstance(kind, tuple):
        late = add_maker(kind[1], make)
        _LATE[kind] = lambda value: (late, parts(value))
    else:
        made = add_maker(kind.__name__, make)
        _PARTS[kind] = lambda value: (made, parts(value))


def allow(*kinds: type) -> None:
    """Let NamedTuples, dataclasses and enums of these classes travel; both ends must have said so.

    Parameters
    ----------
    *kinds : type
        Their names differ from those of all that travel already.
    """
    for kind in kinds:
        if issubclass(kind, enum.Enum):
            let_travel(kind, _enum_parts, kind)
        elif issubclass(kind, tuple):
            let_travel(kind, tuple, kind)
        else:
            _allow_dataclass(kind)


def _enum_parts(value: enum.Enum) -> tuple[Any, ...]:
    return (value.value,)


def _allow_dataclass(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    take = attrgetter(*names)

    def make(*parts: Any) -> Any:
        return kind(**dict(zip(names, parts, strict=True)))

    let_travel(kind, take if len(names) > 1 else lambda value: (take(value),), make)


def parts_of(value: Any) -> Any:
    """What a pickler is to write of an object: its maker and its parts.

    Raises
    ------
    NotSupported
        If its class does not travel.
    """
    kind = type(value)
    found = _PARTS.get(kind)
    if found is None:
        names = ((base.__module__.partition(".")[0], base.__qualname__) for base in kind.__mro__)
        found = next((_LATE[name] for name in names if name in _LATE), None)
    if found is None:
        raise NotSupported(
            f"a {kind.__module__}.{kind.__qualname__} cannot travel to another process; pass plain values: "
            "numbers, text, dates, lists, dicts, DataFrames"
        )
    return found(value)


def made_by(module: str, name: str) -> Maker:
    """Give the maker that a message names.

    Raises
    ------
    WireError
        For whatever else it names; nothing of that name was looked at.
    """
    found = _BY_NAME.get((module, name))
    if found is None:
        raise WireError(f"a message names {module}.{name}, which does not travel; nothing of it was run")
    return found


# ------------------------------------------------------------------------------------------ Python's own values
def _day(year: int, month: int, day: int) -> date:
    return date(year, month, day)


def _clock_parts(value: time | datetime) -> tuple[Any, ...]:
    return value.replace(tzinfo=None).isoformat(), value.tzinfo, value.fold


def _time(text: str, zone: Any, fold: int) -> time:
    return time.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _datetime(text: str, zone: Any, fold: int) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def _zone_parts(value: ZoneInfo) -> tuple[Any, ...]:
    if value.key is None:
        raise NotSupported("a ZoneInfo without a key cannot travel; make it with ZoneInfo(name)")
    return (value.key,)


let_travel(UUID, lambda value: (value.int,), lambda number: UUID(int=number))
let_travel(JobIds, lambda ids: (ids.high.tobytes(), ids.low.tobytes()), JobIds.from_bytes)
let_travel(date, lambda value: (value.year, value.month, value.day), _day)
let_travel(time, _clock_parts, _time)
let_travel(datetime, _clock_parts, _datetime)
let_travel(timedelta, lambda value: (value.days, value.seconds, value.microseconds), timedelta)
let_travel(timezone, lambda value: (value.utcoffset(None),), timezone)
let_travel(ZoneInfo, _zone_parts, ZoneInfo)
let_travel(Decimal, lambda value: (str(value),), Decimal)
let_travel(complex, lambda value: (value.real, value.imag), complex)
allow(*VALUES)
