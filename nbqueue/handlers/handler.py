"""Handlers, what they are known by, and the table of those that are defined here; knows no dispatching."""

from __future__ import annotations

import difflib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from inspect import Signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbqueue.jobs import Options, Spec
from nbqueue.payload import code_hash
from nbqueue.store import Handlers

if TYPE_CHECKING:
    from nbqueue.running.context import Context

__all__ = ["Handler", "Kind", "Registry", "main_origin", "origin_of"]


class Kind(StrEnum):
    """What a handler was made of."""

    FUNCTION = "function"
    CLASS = "class"
    COMMAND = "command"
    CLICK = "click"
    CELL = "cell"


@dataclass(frozen=True, kw_only=True)
class Handler:
    """What runs for a name; this one calls a function.

    A job is stored as the arguments of a call, and ``invoke`` is given them as they were stored.
    """

    name: str
    #: Where it was defined, as ``origin_of`` tells.
    origin: str
    #: The function, the ``Job`` class or the click command, for copies by value.
    target: Any
    kind: Kind = Kind.FUNCTION
    #: What was said where it was defined; what is said at dispatch wins.
    options: Options = field(default_factory=Options)
    #: Whether it is given the ``Context``.
    wants_context: bool = False
    #: Whether ``invoke`` gives a coroutine.
    is_async: bool = False
    #: What it takes but for its context; None where only it knows.
    signature: Signature | None = None

    def admit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse what must not be run; the job is then held."""

    def invoke(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call it; gives its value, or the coroutine that will."""
        if self.wants_context:
            return self.target(ctx, *args, **kwargs)
        return self.target(*args, **kwargs)

    @cached_property
    def code(self) -> str:
        """The hash of its code."""
        return code_hash(self.code_target)

    @property
    def code_target(self) -> Callable[..., Any]:
        """What holds its code."""
        target: Callable[..., Any] = self.target
        return target


class Registry:
    """The handlers that are defined here, by name and origin; any thread may ask and register.

    Example
    -------
    >>> table = Registry()
    >>> handler = table.register(Handler(name="double", origin="session:/tmp", target=lambda x: 2 * x))
    >>> table.resolve(Spec("double")) is handler
    True
    >>> table.suggest("duoble")
    ('double',)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: In the order they were registered.
        self._owned: dict[tuple[str, str], Handler] = {}
        self._named: dict[str, Handler] = {}
        self._listeners: list[Callable[[], None]] = []
        self._version = 0
        self._snapshot: tuple[int, Handlers] = (0, Handlers())

    @property
    def version(self) -> int:
        """A number that rises whenever something is registered or removed."""
        return self._version

    def register(self, handler: Handler) -> Handler:
        """Make a handler known; one of the same name and origin, as of a cell that was run before, is replaced."""
        key = (handler.name, handler.origin)
        with self._lock:
            self._owned.pop(key, None)
            self._owned[key] = handler
            if handler.kind is not Kind.CELL:
                # What a cell is called is no command that could be dispatched.
                self._named[handler.name] = handler
            self._version += 1
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()
        return handler

    def unregister(self, name: str) -> None:
        """Forget every handler of this name."""
        with self._lock:
            for key in [key for key in self._owned if key[0] == name]:
                del self._owned[key]
            self._named.pop(name, None)
            self._version += 1

    def clear(self) -> None:
        """Forget every handler."""
        with self._lock:
            self._owned.clear()
            self._named.clear()
            self._version += 1

    def resolve(self, spec: Spec) -> Handler | None:
        """Give the handler for a job: without an origin the latest of that name, else that very one, or None."""
        if not spec.origin:
            return self._named.get(spec.command)
        return self._owned.get((spec.command, spec.origin))

    def named(self, name: str) -> Handler | None:
        """Give the handler that was registered last under this name."""
        return self._named.get(name)

    def names(self) -> tuple[str, ...]:
        """Give every name, sorted."""
        with self._lock:
            return tuple(sorted(self._named))

    def suggest(self, name: str) -> tuple[str, ...]:
        """Give names that are near to this one, the nearest first."""
        return tuple(difflib.get_close_matches(name, self.names()))

    def handlers(self) -> Handlers:
        """Give what a worker here can run; the same object until something changes."""
        version, handlers = self._snapshot
        if version != self._version:
            with self._lock:
                handlers = Handlers(commands=frozenset(self._named), owned=frozenset(self._owned))
                self._snapshot = (self._version, handlers)
        return handlers

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after every registration, in the thread that registers; gives a way to stop that."""
        with self._lock:
            self._listeners.append(callback)

        def stop() -> None:
            with self._lock:
                if callback in self._listeners:
                    self._listeners.remove(callback)

        return stop


def origin_of(target: object) -> str:
    """Say where a function or class was defined, so that two of one name are told apart.

    Example
    -------
    >>> import json
    >>> origin_of(json.dumps)
    'module:json'
    """
    module = getattr(target, "__module__", None) or "__main__"
    return main_origin() if module == "__main__" else f"module:{module}"


def main_origin() -> str:
    """Say what runs here: a notebook, a script or a session; what is defined in its ``__main__`` has this origin."""
    shell = _shell()
    home = Path(getattr(shell, "starting_dir", "")).resolve()
    if hasattr(shell, "kernel"):
        names = shell.user_ns
        path = (
            names.get("__vsc_ipynb_file__") or names.get("__session__") or os.environ.get("JPY_SESSION_NAME")
        )
        return f"notebook:{(home / str(path)).resolve() if path else home}"
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if file is None:
        return f"session:{home}"
    spec = getattr(main, "__spec__", None)
    # Run with `python -m`, a module is the same as when it is imported.
    return f"script:{Path(file).resolve()}" if spec is None else f"module:{spec.name}"


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    get_ipython = getattr(ipython, "get_ipython", None)
    return None if get_ipython is None else get_ipython()
