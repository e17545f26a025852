"""Handlers on their way to another process: functions of the notebook by value, those of modules by name.

A parcel holds what a function needs: its code, the variables that it uses, its classes. It is made once and kept for
as long as all of these are the very same objects, and hold the same, so that a cell run again sends what it has changed
and nothing else. Whether they hold the same is seen by packing them again, which a large parcel is spared.
"""

from __future__ import annotations

import contextlib
import itertools
import linecache
import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType
from typing import Any, NamedTuple, cast

from nbqueue.errors import InvalidCommand
from nbqueue.handlers.handler import Handler, Kind
from nbqueue.payload.classes import find_class
from nbqueue.payload.errors import kind_of, told
from nbqueue.payload.functions import captured, globals_used
from nbqueue.running import tracebacks

__all__ = ["Parcel", "check", "classes_in", "pack_classes", "parcel_of", "take_classes", "unpack"]

_numbers = itertools.count(1)
_CLASS = re.compile(r'"__main__:([^"\\]+)"')
#: What cannot change in place, or, as with modules, goes by its name.
_FIXED = (NoneType, bool, int, float, complex, str, bytes, FunctionType, BuiltinFunctionType, ModuleType)
#: A parcel of more bytes is kept without a look at what it holds.
_LARGE = 1_000_000
#: Where a handler keeps its parcel.
_KEPT = "_nbq_parcel"


class Parcel(NamedTuple):
    """A handler by value."""

    #: Another parcel has another.
    number: int
    data: bytes
    #: What it was made of, held so that no other object can be taken for one of these.
    parts: tuple[object, ...]


def parcel_of(handler: Handler) -> Parcel:
    """Pack a handler, or give the parcel that was made of the same.

    Raises
    ------
    InvalidCommand
        Naming the variable that cannot be sent.
    """
    parts = tuple(_parts(handler.target, set()))
    kept: Parcel | None = vars(handler).get(_KEPT)
    same = kept is not None and len(kept.parts) == len(parts) and all(map(_is, kept.parts, parts))
    if kept is not None and same and (len(kept.data) > _LARGE or all(map(_is_fixed, parts))):
        return kept
    # A copy has nothing of what is cached on this one.
    data = _dump(replace(handler), _cells(parts))
    if kept is not None and same and kept.data == data:
        return kept
    parcel = Parcel(next(_numbers), data, parts)
    vars(handler)[_KEPT] = parcel
    return parcel


def check(handler: Handler) -> None:
    """Refuse a handler that cannot be sent; ``%%job`` cells never are.

    Raises
    ------
    InvalidCommand
        Naming the variable.
    """
    if handler.kind is not Kind.CELL:
        parcel_of(handler)


def _is(one: object, other: object) -> bool:
    return one is other


def _is_fixed(part: object) -> bool:
    if isinstance(part, type):
        return part.__module__ != "__main__"
    return isinstance(part, _FIXED) or _place(part) is not None


def unpack(data: bytes) -> Handler:
    """Give the handler in a parcel of this user's own other process; its classes become this one's ``__main__``'s."""
    handler: Handler
    handler, cells = pickle.loads(data)  # noqa: S301 - the channel it came by has proved who sent it
    tracebacks.learn(cells)
    names = vars(sys.modules["__main__"])
    for function in _functions(handler.target):
        for name, value in function.__globals__.items():
            if isinstance(value, type) and value.__module__ == "__main__":
                names[name] = value
    return handler


# ------------------------------------------------------------------------------------------- classes of arguments


def classes_in(text: str) -> dict[str, type]:
    """Give the classes of ``__main__`` that stored arguments name, as far as they are here."""
    if '"__main__:' not in text:
        return {}
    # Of a class in a class it is the outer one that has a name of its own.
    found = {path.partition(".")[0] for path in _CLASS.findall(text)}
    return {name: kind for name in sorted(found) if (kind := find_class(f"__main__:{name}")) is not None}


def pack_classes(classes: dict[str, type]) -> bytes:
    """Pack classes by value.

    Raises
    ------
    InvalidCommand
        Naming the one that cannot be sent.
    """
    try:
        return _pickled(classes)
    except Exception as error:
        raise InvalidCommand(
            f"the arguments hold values of {' or '.join(classes)}, which cannot be sent to another process "
            f"({told(error)}); define it in a module, or run it on a thread worker"
        ) from error


def take_classes(data: bytes) -> None:
    """Let the classes of ``pack_classes`` be found here."""
    vars(sys.modules["__main__"]).update(pickle.loads(data))  # noqa: S301 - as of ``unpack``


# --------------------------------------------------------------------------------------------------- what it is made of


def _parts(value: Any, seen: set[int]) -> Iterator[object]:
    """What goes along by value, for as long as it is the same object."""
    if id(value) in seen:
        return
    seen.add(id(value))
    yield value
    for function in _functions(value):
        for _, part in _variables(function):
            if _functions(part):
                yield from _parts(part, seen)
            else:
                yield part


def _cells(parts: tuple[object, ...]) -> dict[str, tuple[str, str]]:
    """The cells that code in there is of: their names and sources, for tracebacks."""
    files = {function.__code__.co_filename for part in parts for function in _functions(part)}
    names = {file: tracebacks.cell_name(file) for file in sorted(files)}
    return {
        file: (name, "".join(linecache.getlines(file))) for file, name in names.items() if name is not None
    }


def _functions(value: Any) -> list[FunctionType]:
    """The functions in what travels by value; none of what goes by its name, and none in plain data."""
    if isinstance(value, partial):
        value = value.func
    value = getattr(value, "__wrapped__", value)
    if isinstance(value, MethodType):
        value = value.__func__
    if isinstance(value, FunctionType):
        return [] if _place(value) or _is_importable(value) else [value]
    if isinstance(value, type) and value.__module__ == "__main__":
        return [part for part in vars(value).values() if isinstance(part, FunctionType)]
    # A click command.
    inner = getattr(value, "callback", None)
    return _functions(inner) if isinstance(inner, FunctionType) else []


def _variables(function: FunctionType) -> Iterator[tuple[str, object]]:
    names = function.__globals__
    used = sorted(globals_used(function.__code__) & names.keys())
    yield from ((name, names[name]) for name in used)
    yield from captured(function)
    yield from ((name, value) for name, value in (function.__kwdefaults__ or {}).items())
    defaults = function.__defaults__ or ()
    first = function.__code__.co_argcount - len(defaults)
    yield from zip(function.__code__.co_varnames[first:], defaults, strict=False)


def _is_importable(function: FunctionType) -> bool:
    module = sys.modules.get(function.__module__ or "__main__")
    return function.__module__ != "__main__" and _found(module, function.__qualname__) is function


def _place(value: Any) -> tuple[str, str] | None:
    """Where a job's function, or the job, stands in a module that the other process can import."""
    name, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if type(name) is not str or type(path) is not str or name == "__main__":
        return None
    found = _found(sys.modules.get(name), path)
    handler = getattr(found, "handler", None)
    if handler is None or not isinstance(handler, Handler):
        return None
    return (name, path) if found is value or handler.target is value else None


def _found(module: ModuleType | None, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found


def _job_at(module: str, path: str) -> Any:
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _function_at(module: str, path: str) -> Any:
    return _job_at(module, path).handler.target


# ----------------------------------------------------------------------------------------------------------- pickling


@cache
def _pickler() -> Any:
    import io

    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, value: Any) -> Any:
            # A function under @job is not what its module has under its name: that is the job.
            if isinstance(value, FunctionType) and (place := _place(value)):
                return _function_at, place
            if isinstance(getattr(value, "handler", None), Handler) and (place := _place(value)):
                return _job_at, place
            return super().reducer_override(value)

    def dumps(value: object) -> bytes:
        with io.BytesIO() as file:
            Pickler(file).dump(value)
            return file.getvalue()

    return dumps


def _pickled(value: object) -> bytes:
    return cast("bytes", _pickler()(value))


def _dump(handler: Handler, cells: dict[str, tuple[str, str]]) -> bytes:
    try:
        return _pickled((handler, cells))
    except Exception as error:
        function, name, value = _culprit(handler.target, set()) or ("", "", None)
        through = "" if function in ("", handler.name) else f" (in {function})"
        what = (
            f'the variable "{name}" (a {kind_of(value)})'
            if name
            else f"what cannot be pickled ({told(error)})"
        )
        where = "" if handler.kind is Kind.CLICK else " inside the function"
        raise InvalidCommand(
            f"{handler.name} uses {what}{through}, which cannot be sent to another process; open it{where}, "
            "or run it on a thread worker"
        ) from error


def _culprit(value: Any, seen: set[int]) -> tuple[str, str, object] | None:
    """The function, and the name and value of its variable, that cannot be pickled."""
    for function in _functions(value):
        for name, part in _variables(function):
            if id(part) in seen:
                continue
            seen.add(id(part))
            with contextlib.suppress(Exception):
                _pickled(part)
                continue
            return _culprit(part, seen) or (function.__name__, name, part)
    return None
