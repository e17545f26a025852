"""Functions by value, signed, and the hash that tells whether one changed; what a module has goes by its name."""

from __future__ import annotations

import dis
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from types import CodeType, FunctionType, MethodType

from nbqueue.errors import InvalidCommand
from nbqueue.payload.codec import encode
from nbqueue.payload.errors import UnknownType, kind_of
from nbqueue.payload.functions import captured, globals_used
from nbqueue.payload.notation import ATOMS
from nbqueue.payload.pickles import dump, load
from nbqueue.payload.signing import seal, unseal

__all__ = ["code_hash", "pack_code", "unpack_code"]


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
    name = getattr(function, "__qualname__", None) or kind_of(function)
    data = dump(function, f"function {name}")
    return code_hash(function), seal(zlib.compress(data), key, "code", context)


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
    data = unseal(blob, key, "code", context, "the code of the job")
    function = load(zlib.decompress(data), "the code of the job")
    if not callable(function):
        raise UnknownType(
            f"the code of the job is a {kind_of(function)}, which cannot be called; dispatch it again"
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
            [(name, inner(part)) for name, part in captured(value)],
            [(name, inner(part)) for name, part in _constants(value)],
        )
    if isinstance(value, type):
        methods = sorted((name, part) for name, part in vars(value).items() if isinstance(part, FunctionType))
        return value.__qualname__, [(name, inner(part)) for name, part in methods]
    if isinstance(value, MethodType):
        return "method", kind_of(value.__self__), inner(value.__func__)
    if isinstance(value, partial):
        return "partial", inner(value.func), [inner(part) for part in value.args], inner(value.keywords)
    try:
        return encode(value)
    except InvalidCommand:
        return kind_of(value), getattr(value, "__qualname__", "")


def _constants(function: FunctionType) -> Iterator[tuple[str, object]]:
    """The globals that belong to what a function does; those that change while it runs do not."""
    names = function.__globals__
    for name in sorted(globals_used(function.__code__) & names.keys()):
        value = names[name]
        if type(value) in ATOMS or isinstance(value, FunctionType | type | bytes):
            yield name, value


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
