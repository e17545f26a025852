"""Gives every job pyplot figures of its own, and shows those that it leaves open; imports no matplotlib.

Pyplot keeps its figures for the whole process: a job's would be shown in the cell that the user runs next, and two jobs
would draw into one figure. So a stand-in takes the place of that one collection and gives each captured context its
own. A job's figures are drawn by Agg whatever the user's backend is: a window belongs to the main thread.

Matplotlib is not made for threads. Jobs that draw at the same time mostly can; ``rcParams`` are everybody's.
"""

from __future__ import annotations

import functools
import io
import sys
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from nbqueue.running.displays import shell
from nbqueue.running.grafts import Graft, replace
from nbqueue.running.standins import Sink, target

__all__ = ["GRAFTS", "show_open"]

#: Fonts and mathematical text are parsed by what threads share.
_drawing = threading.RLock()


def show_open(sink: Sink) -> None:
    """Show the figures that are open in this context, which is the sink's, and close them."""
    managers = sink.figures
    if not managers:
        return
    try:
        with _drawing:
            for manager in list(managers.values()):
                figure = manager.canvas.figure
                sink.show(*_bundle(figure), display_id="", update=False)
    except Exception:
        sink.write("stderr", f"a figure of this job could not be drawn:\n{traceback.format_exc()}")
    finally:
        # By pyplot, as others want to be told that a figure is closed.
        sys.modules["matplotlib._pylab_helpers"].Gcf.destroy_all()


def _bundle(figure: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figure in the formats that the user has chosen for the notebook, as PNG where there is no such choice."""
    data: dict[str, Any]
    here = shell()
    if here is not None:
        data, metadata = here.display_formatter.format(figure)
        if any(mime.startswith(("image/", "application/pdf")) for mime in data):
            return data, metadata
    if not figure.axes and not figure.lines:
        return {"text/plain": repr(figure)}, {}
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    return {"text/plain": repr(figure), "image/png": drawn.getvalue()}, {}


class _Figures:
    """Stands in for ``Gcf.figs``: the collection of this context's job, or else everybody's.

    No mapping by inheritance: its methods would hide the collection's.
    """

    def __init__(self, everybodys: OrderedDict[Any, Any]) -> None:
        self.everybodys = everybodys

    def _mine(self) -> OrderedDict[Any, Any]:
        sink = target.get()
        if sink is None:
            return self.everybodys
        if sink.figures is None:
            sink.figures = OrderedDict()
        return sink.figures

    def __getattr__(self, name: str) -> Any:
        if name == "everybodys":  # while it is being copied
            raise AttributeError(name)
        return getattr(self._mine(), name)

    def __len__(self) -> int:
        return len(self._mine())

    def __iter__(self) -> Iterator[Any]:
        yield from self._mine()

    def __reversed__(self) -> Iterator[Any]:
        yield from reversed(self._mine())

    def __contains__(self, number: object) -> bool:
        return number in self._mine()

    def __getitem__(self, number: Any) -> Any:
        return self._mine()[number]

    def __setitem__(self, number: Any, manager: Any) -> None:
        self._mine()[number] = manager

    def __delitem__(self, number: Any) -> None:
        del self._mine()[number]

    def __repr__(self) -> str:
        return repr(self._mine())


def _show(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def show(*args: Any, **kwargs: Any) -> Any:
        sink = target.get()
        return original(*args, **kwargs) if sink is None else show_open(sink)

    return show


def _new_figure_manager(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def new_figure_manager(*args: Any, **kwargs: Any) -> Any:
        if target.get() is None:
            return original(*args, **kwargs)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        number, *rest = args
        figure = kwargs.pop("FigureClass", Figure)(*rest, **kwargs)
        return FigureCanvasAgg.new_manager(figure, number)

    return new_figure_manager


def _choosing(original: Callable[..., None]) -> Callable[..., None]:
    """Of what chooses a backend: a job's figures need none, and the notebook's is not the job's to change."""

    @functools.wraps(original)
    def choose(backend: Any, *args: Any, **kwargs: Any) -> None:
        if target.get() is None or _chosen() in (None, backend):
            # Pyplot too loads by this the one that was chosen, or finds one where none was.
            original(backend, *args, **kwargs)

    return choose


def _chosen() -> str | None:
    """The process's backend, None while nobody has chosen one."""
    # Read past ``rcParams`` itself, which would choose one now.
    chosen = dict.__getitem__(sys.modules["matplotlib"].rcParams, "backend")
    return chosen if isinstance(chosen, str) else None


def _graft_backend(module: ModuleType) -> None:
    replace(module, "use", _choosing)


def _graft_figures(module: ModuleType) -> None:
    replace(module.Gcf, "figs", _Figures)


def _graft_pyplot(module: ModuleType) -> None:
    replace(module, "show", _show)
    replace(module, "new_figure_manager", _new_figure_manager)
    replace(module, "switch_backend", _choosing)


GRAFTS: Mapping[str, Graft] = {
    "matplotlib": _graft_backend,
    "matplotlib._pylab_helpers": _graft_figures,
    "matplotlib.pyplot": _graft_pyplot,
}
