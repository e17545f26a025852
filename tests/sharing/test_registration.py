"""What is registered at a store: told once, told again where that failed, and taken back at any moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nbqueue.errors import DispatchFailed
from nbqueue.store import Handlers, Store, WorkerInfo
from nbqueue.stores.memory import MemoryStore
from nbqueue.stores.sharing.registration import Listening, Seated, Wake


def wake_of(_store: Store, seat: Seated) -> Wake:
    return seat.wake


class Telling(MemoryStore):
    """Does something first when it is told of a listener, and counts who listens."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Callable[[], object] = lambda: None
        self.listening = 0

    def listen(self, notify: Callable[[], None]) -> Callable[[], None]:
        self.first()
        self.listening += 1
        stop = super().listen(notify)

        def end() -> None:
            self.listening -= 1
            stop()

        return end


def test_told_again() -> None:
    """A store that could not be told is told again, and then no more."""
    store, one = Telling(), Listening(lambda: None)

    def refuse() -> None:
        raise DispatchFailed("there is no room")

    store.first = refuse
    with pytest.raises(DispatchFailed):
        one.register(store, wake_of)
    assert store.listening == 0
    store.first = lambda: None
    one.register(store, wake_of)
    one.register(store, wake_of)
    assert store.listening == 1
    one.stop()
    assert store.listening == 0


def test_taken_back_while_it_is_told() -> None:
    """Who stops while a store is told does not stay registered there."""
    store, one = Telling(), Listening(lambda: None)
    store.first = one.stop
    one.register(store, wake_of)
    assert store.listening == 0
    assert one.over


def test_a_worker_that_left_joins_no_more() -> None:
    """A worker that has left is not seated by who looks after what is registered."""
    store = MemoryStore()
    seat = Seated(WorkerInfo(worker_id="w1"), Handlers(), lambda _claims: None, set())
    seat.stop()
    seat.register(store, wake_of)
    assert store.workers() == []
