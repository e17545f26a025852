"""Replaces functions of libraries by ones that ask whose call it is, once a library is imported; knows none of them.

A library is never imported for it: what is here already is changed at once, and what a job is the first to import
changes while it is imported. Everything can be put back.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["Graft", "install", "replace", "uninstall", "want"]

_log = logging.getLogger("nbqueue.worker")

#: Changes a module that was just imported.
Graft = Callable[[ModuleType], None]

_wanted: dict[str, Graft] = {}
_done: list[tuple[Any, str, Any, Any]] = []
_changed: set[str] = set()
_working = threading.RLock()


def want(grafts: Mapping[str, Graft]) -> None:
    """Have these modules changed from the next ``install`` on."""
    _wanted.update(grafts)


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put ``make(original)`` in the place of an attribute; nothing happens where the owner itself has none.

    Parameters
    ----------
    owner : class or module
        Whose attribute it is, not an inherited one.
    name : str
        Of the attribute.
    make : Callable
        Gets what was there, a static method as such.
    """
    original = vars(owner).get(name)
    if original is None:
        return
    new = make(original)
    setattr(owner, name, new)
    _done.append((owner, name, original, new))


def install() -> None:
    """Change what is imported, and await the rest; does nothing where that was done."""
    with _working:
        if _finder in sys.meta_path:
            return
        sys.meta_path.insert(0, _finder)
        here = [name for name in _wanted if name in sys.modules]
    for name in here:
        # One that another thread is just importing is not whole yet: this waits for it, and so must hold no lock.
        with contextlib.suppress(Exception):
            module = importlib.import_module(name)
            with _working:
                _apply(name, module)


def uninstall() -> None:
    """Put back what was there; what somebody else has replaced meanwhile stays."""
    with _working:
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)
        while _done:
            owner, name, original, new = _done.pop()
            if vars(owner).get(name) is new:
                setattr(owner, name, original)
        _changed.clear()


def _apply(name: str, module: ModuleType) -> None:
    if name in _changed:
        return
    _changed.add(name)
    try:
        _wanted[name](module)
    except Exception as error:  # a version of the library that nobody here has seen
        _log.debug("%s could not be changed for jobs: %r", name, error)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds nothing by itself: has the others find, and changes what was found once it is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _wanted:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Loads as another does, and changes what it has loaded."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Whoever asks the module afterwards, such as a debugger, finds the loader that it came by.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        with _working:
            if _finder in sys.meta_path:
                _apply(module.__name__, module)


_finder = _Finder()
