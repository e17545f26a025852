"""How many rows of each batch stand where, kept while their jobs move; knows no verb and no file."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from uuid import UUID

from nbqueue.jobs import BatchRecord, State
from nbqueue.store import BatchCount

__all__ = ["Books"]

#: So many batches are counted as they move on; others are counted anew when somebody asks.
BOOKS_KEPT = 1_000


class _Book:
    """How many rows of one batch stand where."""

    __slots__ = ("counts", "firsts", "runs", "total")

    def __init__(self, runs: Iterable[tuple[int, int]], counts: Mapping[State, int]):
        self.runs = sorted(runs)
        self.firsts = [first for first, _ in self.runs]
        self.total = sum(last - first + 1 for first, last in self.runs)
        self.counts = {state: counts.get(state, 0) for state in State}

    def covers(self, number: int) -> bool:
        """Whether a row has this job; one that was replaced is of the batch, but of no row."""
        at = bisect_right(self.firsts, number) - 1
        return at >= 0 and number <= self.runs[at][1]


class Books:
    """The books of the batches that were handed in or asked about lately; any of them can be made again."""

    def __init__(self) -> None:
        self._books: OrderedDict[UUID, _Book] = OrderedDict()

    def open(self, batch: BatchRecord, counts: Mapping[State, int]) -> None:
        """Count the rows of a batch from here on."""
        self._books[batch.batch_id] = _Book(batch.runs, counts)
        self._books.move_to_end(batch.batch_id)
        if len(self._books) > BOOKS_KEPT:
            self._books.popitem(last=False)

    def count(self, batch_id: UUID) -> BatchCount | None:
        """Give how many rows of a batch stand where, None where nobody counts them."""
        book = self._books.get(batch_id)
        if book is None:
            return None
        self._books.move_to_end(batch_id)
        return BatchCount(book.total, dict(book.counts))

    def move(self, batch_id: UUID, number: int, before: State, after: State) -> None:
        """Note that a job of a batch has moved."""
        book = self._books.get(batch_id)
        if book is not None and book.covers(number):
            book.counts[before] -= 1
            book.counts[after] += 1

    def clear(self) -> None:
        """Keep none; each is made again when somebody asks."""
        self._books.clear()
