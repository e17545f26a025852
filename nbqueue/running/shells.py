"""A shell for what jobs display in a process that has no notebook: made when one first displays; imports no IPython."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from nbqueue.running.displays import shell
from nbqueue.running.grafts import Graft, replace
from nbqueue.running.standins import target

__all__ = ["GRAFTS"]


def _with_shell(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of what would merely print outside of a notebook, where a job calls it."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if target.get() is not None and shell() is None:
            _make_shell()
        return original(*args, **kwargs)

    return call


def _make_shell() -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    quiet = Config(
        HistoryManager={"enabled": False}, InteractiveShell={"warn_venv": False, "colors": "nocolor"}
    )
    main = sys.modules["__main__"]
    made = InteractiveShell.instance(config=quiet, user_module=main, user_ns=vars(main))
    # As a notebook shows them, whether or not this process ever imports matplotlib.
    formatter: Any = made.display_formatter
    formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _drawn)


def _drawn(figure: Any) -> bytes | None:
    import io

    if not figure.axes and not figure.lines:
        return None
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    return drawn.getvalue()


def _graft(module: ModuleType) -> None:
    for name in ("display", "clear_output", "publish_display_data"):
        replace(module, name, _with_shell)


GRAFTS: Mapping[str, Graft] = {"IPython.core.display_functions": _graft}
