"""How long whoever calls a store will wait for one that does not answer; a store asks, and nobody has to say."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

__all__ = ["Patience", "patience", "within"]


class Patience:
    """What one caller has of it; another thread may shorten it while a call is under way."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float = math.inf):
        self.seconds = seconds

    def shorten(self, seconds: float) -> None:
        """Have no more than this from now on."""
        self.seconds = min(self.seconds, seconds)


_ENDLESS = Patience()
_mine: ContextVar[Patience] = ContextVar("patience", default=_ENDLESS)


def patience() -> float:
    """Give the seconds that a call made from here may be tried, ``inf`` where nobody has said: a store has a limit.

    Example
    -------
    >>> with within(2):
    ...     patience()
    2
    """
    return _mine.get().seconds


@contextlib.contextmanager
def within(limit: float | Patience) -> Iterator[None]:
    """Try the calls of this block no longer than that, each; what answers late is waited for all the same."""
    given = limit if isinstance(limit, Patience) else Patience(min(limit, patience()))
    token = _mine.set(given)
    try:
        yield
    finally:
        _mine.reset(token)
