"""Hands what a job displays through IPython to its capture, and shows again what was captured; imports no IPython.

Every ``display`` ends in the method ``publish`` of a display publisher. It is replaced once, for all publishers of a
class, by one that asks a ContextVar: so it is the job that decides and not the thread, of which async jobs share one,
and a job that displays while a user's ``%%capture`` cell runs is not shown there either.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from nbqueue.payload import bundles
from nbqueue.running.grafts import Graft, replace
from nbqueue.running.standins import target

__all__ = ["GRAFTS", "publish", "shell"]


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
        else:
            sink.clear(wait=wait)

    return clear_output


def _graft(*names: str) -> Graft:
    def graft(module: ModuleType) -> None:
        for name in names:
            publisher = getattr(module, name)
            replace(publisher, "publish", _publish)
            replace(publisher, "clear_output", _clear_output)

    return graft


GRAFTS: Mapping[str, Graft] = {
    "IPython.core.displaypub": _graft("DisplayPublisher", "CapturingDisplayPublisher"),
    "ipykernel.zmqshell": _graft("ZMQDisplayPublisher"),
}
