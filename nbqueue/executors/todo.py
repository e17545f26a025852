"""What slots have still to take, in order; what one of them gives back comes first again."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import TypeVar

__all__ = ["Todo"]

T = TypeVar("T")


class Todo(SimpleQueue[T]):
    """A queue to whose front things can be put back, and from which several are taken at once."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._there = threading.Condition(threading.Lock())

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - as of its base
        """Put it at the end."""
        with self._there:
            self._items.append(item)
            self._there.notify()

    def put_back(self, items: Iterable[T]) -> None:
        """Put them at the front, in this order."""
        given = list(items)
        with self._there:
            self._items.extendleft(reversed(given))
            self._there.notify(len(given))

    def get(self, block: bool = True, timeout: float | None = None) -> T:  # noqa: FBT001, FBT002 - as of its base
        """Take the first; wait for it unless told not to."""
        with self._there:
            while not self._items:
                if not block or not self._there.wait(timeout):
                    raise Empty
            return self._items.popleft()

    def get_nowait(self) -> T:
        """Take the first, if there is one."""
        return self.get(block=False)

    def take_while(self, fits: Callable[[T], bool], most: int | None = None) -> list[T]:
        """Take up to so many from the front, as long as they fit."""
        found: list[T] = []
        with self._there:
            while self._items and (most is None or len(found) < most) and fits(self._items[0]):
                found.append(self._items.popleft())
        return found

    def qsize(self) -> int:
        """Count them."""
        return len(self._items)
