"""Hands what a job displays through IPython to its capture, and shows again what was captured; imports no IPython.

Every ``display`` ends in the method ``publish`` of a display publisher. It is replaced once, for all publishers of a
class, by one that asks a ContextVar: so it is the job that decides and not the thread, of which async jobs share one,
and a job that displays while a user's ``%%capture`` cell runs is not shown there either. The same goes for what else
would reach a cell: values that a job has IPython show, and tracebacks.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from nbqueue.payload import bundles
from nbqueue.running.grafts import Graft, replace
from nbqueue.running.standins import target

__all__ = ["GRAFTS", "publish", "shell"]

#: In how many ``with`` blocks of output widgets a job is.
_in_widgets: ContextVar[int] = ContextVar("nbqueue_in_widgets", default=0)


def shell() -> Any:
    """IPython's shell, None where there is none."""
    ipython = sys.modules.get("IPython.core.getipython")
    return None if ipython is None else ipython.get_ipython()


def publish(
    data: Mapping[str, Any], metadata: Mapping[str, Any], *, display_id: str = "", update: bool = False
) -> None:
    """Show a display here: in the cell, or as its text where there are no cells."""
    here = shell()
    if here is None:
        sys.stdout.write(f"{bundles.plain(data)}\n")
        return
    transient = {"display_id": display_id} if display_id else {}
    here.display_pub.publish(dict(data), dict(metadata), transient=transient, update=update)


def _publish(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def publish(self: Any, data: Any, metadata: Any = None, *args: Any, **kwargs: Any) -> None:
        sink = target.get()
        if sink is None:
            original(self, data, metadata, *args, **kwargs)
            return
        # Older publishers take it by position.
        transient = (
            kwargs.get("transient") or next((one for one in args if isinstance(one, dict)), None) or {}
        )
        sink.show(
            data,
            metadata or {},
            display_id=transient.get("display_id") or "",
            update=bool(kwargs.get("update")),
        )

    return publish


def _clear_output(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def clear_output(self: Any, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is IPython's
        sink = target.get()
        if sink is None:
            original(self, wait)
        elif not _in_widgets.get():  # else it is the widget that is cleared
            sink.clear(wait=wait)

    return clear_output


def _call(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __call__(self: Any, result: Any = None) -> None:  # noqa: N807 - takes its place
        sink = target.get()
        if sink is None:
            original(self, result)
        elif result is not None:
            here = shell()
            data, metadata = ({}, {}) if here is None else here.display_formatter.format(result)
            sink.show(data or {"text/plain": repr(result)}, metadata, display_id="", update=False)

    return __call__


def _show_traceback(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def _showtraceback(*args: Any) -> None:
        sink = target.get()
        if sink is None:
            original(*args)
        else:
            sink.write("stderr", "\n".join(args[-1]) + "\n")

    return _showtraceback


def _enter(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __enter__(self: Any) -> Any:  # noqa: N807 - takes its place
        # The widget would take what the page is told of the cell that runs.
        if target.get() is None:
            return original(self)
        _in_widgets.set(_in_widgets.get() + 1)
        return None

    return __enter__


def _exit(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def __exit__(self: Any, kind: type | None, error: object, trace: object) -> Any:  # noqa: N807 - takes its place
        if target.get() is None:
            return original(self, kind, error, trace)
        _in_widgets.set(_in_widgets.get() - 1)
        here = shell()
        if kind is None or not issubclass(kind, Exception) or here is None:
            return None
        # As in a cell: shown, and gone on.
        here.showtraceback((kind, error, trace), tb_offset=0)
        return True

    return __exit__


def _input_request(original: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(original)
    def _input_request(*args: Any, **kwargs: Any) -> str:
        if target.get() is None:
            return original(*args, **kwargs)
        # It would be asked in the cell that runs, and take the answer that was meant for that one.
        msg = "a job cannot ask for input: nobody knows which cell would be asked; give it what it needs as an argument"
        raise RuntimeError(msg)

    return _input_request


def _graft(*names: str) -> Graft:
    def graft(module: ModuleType) -> None:
        for name in names:
            publisher = getattr(module, name)
            replace(publisher, "publish", _publish)
            replace(publisher, "clear_output", _clear_output)

    return graft


def _graft_kernel(module: ModuleType) -> None:
    _graft("ZMQDisplayPublisher")(module)
    replace(module.ZMQInteractiveShell, "_showtraceback", _show_traceback)
    here = shell()
    if here is not None:
        # The kernel has put the method into its shell itself.
        replace(here, "_showtraceback", _show_traceback)


def _graft_hook(name: str) -> Graft:
    return lambda module: replace(getattr(module, name), "__call__", _call)


def _graft_widget(module: ModuleType) -> None:
    replace(module.Output, "__enter__", _enter)
    replace(module.Output, "__exit__", _exit)


GRAFTS: Mapping[str, Graft] = {
    "IPython.core.displaypub": _graft("DisplayPublisher", "CapturingDisplayPublisher"),
    "IPython.core.displayhook": _graft_hook("DisplayHook"),
    "ipykernel.displayhook": _graft_hook("ZMQDisplayHook"),
    "ipykernel.kernelbase": lambda module: replace(module.Kernel, "_input_request", _input_request),
    "ipykernel.zmqshell": _graft_kernel,
    "ipywidgets.widgets.widget_output": _graft_widget,
}
