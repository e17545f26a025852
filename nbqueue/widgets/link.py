"""How widgets reach the kernel they live in: which one it is, and that it answers them while a cell runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ipywidgets

__all__ = ["answer_at_once", "front", "in_kernel", "kernel_version"]

_FRONT = Path(__file__).parent / "front"


def front(*names: str) -> str:
    """Put files of the front end together, in this order; a widget takes one text and can import nothing."""
    return "\n".join((_FRONT / name).read_text(encoding="utf-8") for name in names)


def answer_at_once(widget: ipywidgets.Widget) -> None:
    """Have a widget's messages handled as they come, on a kernel that would keep them until a cell has ended.

    JupyterLab sends them by a subshell, beside the cell. ipykernel 7.4 brings them back to the thread that last wrote
    to the widget, which is the cell's. This takes that detour out, where it is; elsewhere it does nothing. Handlers
    are called in a thread of the kernel's then, so they only hand on to the publisher.
    """
    comm: Any = widget.comm
    # No public switch yet; without the detour, or with one that looks different, the kernel does as it pleases.
    if callable(getattr(comm, "_reply_subshell_for", None)):
        comm._reply_subshell_for = lambda _message, default: default  # noqa: SLF001


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel, and not a script or a terminal's IPython."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def kernel_version() -> str:
    """Name the kernel and its version, ``"ipykernel 7.4.0"``; "" outside of one."""
    marimo = sys.modules.get("marimo")
    if marimo is not None and marimo.running_in_notebook():
        return f"marimo {marimo.__version__}"
    if not in_kernel():
        return ""
    found = sys.modules.get("ipykernel")
    return "kernel" if found is None else f"ipykernel {found.__version__}"
