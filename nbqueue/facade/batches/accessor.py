"""``frame.nbq.dispatch(...)``: gives pandas the accessor as soon as it is there, without importing it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nbqueue.running.context import current

if TYPE_CHECKING:
    import pandas as pd

    from nbqueue.facade.batches.batch import Batch

__all__ = ["FrameAccessor", "offer"]


class FrameAccessor:
    """What ``frame.nbq`` is: the rows of a DataFrame as jobs.

    Example
    -------
    >>> import pandas as pd
    >>> import nbqueue as nbq
    >>> @nbq.job
    ... def area(width: int, height: int) -> int:
    ...     return width * height
    >>> with nbq.connect(":memory:") as queues, queues.worker():
    ...     batch = pd.DataFrame({"width": [2, 3], "height": [5, 7]}).nbq.dispatch(area)
    ...     batch.wait(timeout=30).results().tolist()
    [10, 21]
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def dispatch(self, work: object, key: str | None = None, **options: Any) -> Batch:
        """Hand in one job for each row, as ``queues.map``; to the queue connected last, or a running job's own.

        Parameters
        ----------
        work : job, type of Job or str
            What to run: its keyword arguments are the columns.
        key : str, optional
            Names the batch: dispatching again under this name hands in only what is new, changed or failed.
        **options
            As ``@job`` takes them, for every row.
        """
        from nbqueue.facade.manager import QueueManager, manager

        context = current(None)
        dispatcher = None if context is None else context.dispatcher
        queues = dispatcher if isinstance(dispatcher, QueueManager) else manager()
        return queues.map(work, self._frame, key=key, **options)


class _AfterPandas(MetaPathFinder):
    """Stands before the finders until somebody has imported pandas, and lets that end with the accessor."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find pandas as the finders behind this one do; and nothing else."""
        if name != "pandas":
            return None
        spec = self._find_behind(name, path, target)
        loader: Any = None if spec is None else spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is not None:

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if module.__name__ == name:
                    _register(module)
                    self._leave()

            loader.exec_module = execute_and_register
        return spec

    def _find_behind(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        finders = sys.meta_path.copy()
        behind = finders[finders.index(self) + 1 :] if self in finders else []
        found = (finder.find_spec(name, path, target) for finder in behind if hasattr(finder, "find_spec"))
        return next((spec for spec in found if spec is not None), None)

    def _leave(self) -> None:
        # Not when it is found: many look for a module only to know whether it is installed.
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)


def offer() -> None:
    """Register the accessor now where pandas is loaded, else when it is imported."""
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        _register(pandas)
    elif not any(isinstance(finder, _AfterPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterPandas())


def _register(pandas: Any) -> None:
    # Where another thread is importing it right now, some of it is not there yet; the next queue that is opened asks.
    frame, api = getattr(pandas, "DataFrame", None), getattr(pandas, "api", None)
    if frame is not None and api is not None and not hasattr(frame, "nbq"):
        api.extensions.register_dataframe_accessor("nbq")(FrameAccessor)
