"""Has tqdm's bars inside a job report to its progress instead of drawing; imports no tqdm."""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

from nbqueue.errors import InvalidCommand
from nbqueue.running.context import Context, current
from nbqueue.running.grafts import Graft, replace

__all__ = ["GRAFTS"]

#: Where a bar keeps the context of its job: a bar may be redrawn by a thread of tqdm's own.
_CONTEXT = "_nbqueue_context"


class _Nowhere:
    """Takes what a bar draws."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


_nowhere = _Nowhere()


def _begin(original: Any) -> Callable[..., None]:
    # Tqdm's own is a function, or a partialmethod of one with defaults from the environment.
    @functools.wraps(getattr(original, "func", original))
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - takes its place
        context = current(None)
        if context is not None:
            # By position it is the fifth. A bar that draws into a file of the user's goes on to.
            given = args[4] if len(args) > 4 else kwargs.get("file")
            if given is None or given in (sys.stdout, sys.stderr):
                if len(args) > 4:
                    args = (*args[:4], _nowhere, *args[5:])
                else:
                    kwargs["file"] = _nowhere
            setattr(self, _CONTEXT, context)
        original.__get__(self, type(self))(*args, **kwargs)
        # One that was switched off is no bar, and those within it speak.
        first = context is not None and (context.bar is None or context.bar() is None)
        if context is not None and first and not getattr(self, "disable", False):
            context.bar = weakref.ref(self)
            _report(context, self)

    return __init__


def _display(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def display(self: Any, *args: Any, **kwargs: Any) -> Any:
        context: Context | None = getattr(self, _CONTEXT, None)
        if context is None:
            return original(self, *args, **kwargs)
        _report(context, self)
        return self.fp == _nowhere or original(self, *args, **kwargs)

    return display


def _display_widget(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def display(self: Any, *args: Any, **kwargs: Any) -> Any:
        context: Context | None = getattr(self, _CONTEXT, None)
        if context is None:
            return original(self, *args, **kwargs)
        return _report(context, self)

    return display


def _close(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def close(self: Any) -> None:
        context: Context | None = getattr(self, _CONTEXT, None)
        if context is not None and not getattr(self, "disable", True):
            _report(context, self)
        original(self)
        if context is not None and context.bar is not None and context.bar() is self:
            # The next one that begins is the outermost.
            context.bar = None

    return close


def _report(context: Context, bar: Any) -> None:
    # Only the outermost speaks.
    outermost = None if context.bar is None else context.bar()
    if outermost is None or bar is not outermost:
        return
    # A bar may count what is no number, or less than nothing.
    with contextlib.suppress(InvalidCommand):
        context.progress(bar.n, bar.total, (bar.desc or "").removesuffix(": "))


def _begin_widget(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - takes its place
        if current(None) is not None:
            kwargs["display"] = False
        original(self, *args, **kwargs)

    return __init__


def _status_printer(original: staticmethod[..., Any]) -> staticmethod[..., Any]:
    def status_printer(*args: Any, **kwargs: Any) -> Any:
        return _no_widget() if current(None) is not None else original.__func__(*args, **kwargs)

    return staticmethod(status_printer)


def _no_widget() -> SimpleNamespace:
    """What a notebook bar takes for its widget."""

    def child() -> SimpleNamespace:
        return SimpleNamespace(layout=SimpleNamespace(), style=SimpleNamespace(), value="", bar_style="")

    return SimpleNamespace(children=(child(), child(), child()), layout=SimpleNamespace(), close=lambda: None)


def _graft_std(module: ModuleType) -> None:
    replace(module.tqdm, "__init__", _begin)
    replace(module.tqdm, "display", _display)
    replace(module.tqdm, "close", _close)


def _graft_notebook(module: ModuleType) -> None:
    replace(module.tqdm_notebook, "__init__", _begin_widget)
    replace(module.tqdm_notebook, "status_printer", _status_printer)
    replace(module.tqdm_notebook, "display", _display_widget)


GRAFTS: Mapping[str, Graft] = {"tqdm.std": _graft_std, "tqdm.notebook": _graft_notebook}
