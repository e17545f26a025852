"""Hands what a job logs to its capture, once for each record, and keeps it from the cell that runs; knows no capture.

A record goes to the handlers of its logger and of all above it. Some of them write it to a screen: where a job logs,
these only lend their format, as what they write would be in whichever cell runs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

from nbqueue.running.grafts import Graft, replace
from nbqueue.running.standins import Sink, is_screen, target

__all__ = ["GRAFTS"]

_plain: logging.Handler = logging.StreamHandler()
_plain.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))


class _Nowhere(Sink):
    """Takes what handlers print and display by themselves: the record is the job's already."""

    figures = None
    streams = None

    def write(self, stream: str, text: str) -> None:
        pass

    def show(self, data: object, metadata: object, *, display_id: str, update: bool) -> None:
        pass

    def clear(self, *, wait: bool) -> None:
        pass


_nowhere = _Nowhere()


def _call_handlers(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - takes its place
        sink = target.get()
        if sink is None:
            original(self, record)
            return
        screens: list[logging.Handler] = []
        others: list[logging.Handler] = []
        for handler in _handlers(self):
            if record.levelno >= handler.level:
                stream = getattr(handler, "stream", None)
                (screens if is_screen(stream) else others).append(handler)
        _write(sink, record, screens)
        token = target.set(_nowhere)
        try:
            for handler in others:
                handler.handle(record)
        finally:
            target.reset(token)

    return callHandlers


def _handlers(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _write(sink: Sink, record: logging.LogRecord, screens: list[logging.Handler]) -> None:
    """Write it as the first would that lets it pass, as a handler may add what its format needs; else plainly."""
    by = _plain
    try:
        for handler in screens:
            kept = handler.filter(record)
            if kept:
                by = handler
                # Since Python 3.12 a filter may give another record in place of this one.
                record = kept if isinstance(kept, logging.LogRecord) else record
                break
        sink.write("log", by.format(record) + "\n")
    except Exception:
        by.handleError(record)


def _graft_logger(module: ModuleType) -> None:
    replace(module.Logger, "callHandlers", _call_handlers)


GRAFTS: Mapping[str, Graft] = {"logging": _graft_logger}
