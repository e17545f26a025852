"""Displays of a notebook that are renewed later, from any thread; knows no widget."""

from __future__ import annotations

import sys
import weakref
from typing import Any, Protocol

__all__ = ["after_cells", "publish", "renew"]


class Ending(Protocol):
    """What wants to know when a cell has ended."""

    @property
    def closed(self) -> bool:
        """Whether it does not want to know any more."""

    def cell_ended(self) -> None:
        """Hear of it, in the main thread."""


def publish(bundle: dict[str, Any], display_id: str) -> None:
    """Show something in the cell that runs, under a name of its own."""
    from IPython.display import publish_display_data

    publish_display_data(bundle, {}, transient={"display_id": display_id})  # type: ignore[no-untyped-call]


def renew(bundle: dict[str, Any], display_id: str) -> bool:
    """Replace what was shown under this name, wherever; says whether it was."""
    from IPython.display import publish_display_data

    # Where a cell captures its displays, this would land in its hands.
    if _shell() is None or "Capturing" in type(_shell().display_pub).__name__:
        return False
    publish_display_data(bundle, {}, transient={"display_id": display_id}, update=True)  # type: ignore[no-untyped-call]
    return True


#: Who is told when a cell has ended.
_told: weakref.WeakSet[Ending] = weakref.WeakSet()


def after_cells(who: Ending) -> None:
    """Tell somebody, held weakly, when a cell has ended, until it is closed; asking for it again does nothing."""
    shell = _shell()
    if getattr(shell, "kernel", None) is None or who in _told:
        return
    _told.add(who)
    ref = weakref.ref(who)

    def ended(*_result: Any) -> None:
        found = ref()
        if found is None or found.closed:
            shell.events.unregister("post_run_cell", ended)
            if found is not None:
                _told.discard(found)
        else:
            found.cell_ended()

    shell.events.register("post_run_cell", ended)


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
