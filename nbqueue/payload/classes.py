"""Classes by name, and what their values hold; imports no module and runs no code of a class."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache
from types import MemberDescriptorType
from typing import Any, cast

from nbqueue.payload.notation import only_str

__all__ = [
    "field_names",
    "find_class",
    "is_attribute",
    "is_dataclass",
    "is_here",
    "is_namedtuple",
    "is_python_object",
    "slots_of",
    "state_of",
    "type_name",
]


def type_name(kind: type) -> str:
    """The name by which `find_class` finds it."""
    return f"{kind.__module__}:{kind.__qualname__}"


def find_class(name: object) -> Any:
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


def is_here(kind: type, same: Callable[[Any], bool]) -> bool:
    """Whether a reader would find `kind` by its name, or, once its cell has run again, one of the same shape."""
    found = find_class(type_name(kind))
    return found is kind or (found is not None and same(found))


def is_namedtuple(kind: Any) -> bool:
    """Whether it is a tuple with names for its fields."""
    return (
        issubclass(kind, tuple)
        and type(names := getattr(kind, "_fields", None)) is tuple
        and only_str(map(type, names))
    )


def is_dataclass(kind: type) -> bool:
    """Whether it or a class above it is a dataclass."""
    # Not by `dataclasses.is_dataclass`, which asks the class, and so its metaclass.
    return any("__dataclass_fields__" in vars(base) for base in kind.__mro__)


def field_names(kind: Any) -> list[str] | None:
    """The fields of a dataclass, in order; None for another class."""
    return [field.name for field in dataclasses.fields(kind)] if is_dataclass(kind) else None


def is_python_object(kind: type) -> bool:
    """Whether all that it holds is in its slots and its ``__dict__``; a dict or an exception holds more."""
    try:
        object.__new__(kind)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=256)
def slots_of(kind: Any) -> dict[str, MemberDescriptorType]:
    """Its ``__slots__`` and those of the classes above it, to be read and set past its own code."""
    return {
        name: member
        for base in reversed(kind.__mro__)
        for name, member in vars(base).items()
        if type(member) is MemberDescriptorType
    }


def state_of(value: object) -> Iterator[tuple[str, object]]:
    """The attributes that a value holds, by name."""
    kind = type(value)
    for name, member in slots_of(cast("Any", kind)).items():
        try:
            yield name, member.__get__(value)
        except AttributeError:  # never set; it stays so
            continue
    for name, item in getattr(value, "__dict__", {}).items():
        # What is cached can be computed again.
        if is_attribute(name) and not isinstance(getattr(kind, name, None), cached_property):
            yield name, item


def is_attribute(name: str) -> bool:
    """Whether a value may hold an attribute of that name, and Python none."""
    return type(name) is str and name.isidentifier() and not (name.startswith("__") and name.endswith("__"))
