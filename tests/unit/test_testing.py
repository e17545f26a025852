"""What ``nbqueue.testing`` gives to people for tests of their own."""

from __future__ import annotations

import pytest

import nbqueue
from nbqueue.store import Capability
from nbqueue.stores.memory import MemoryStore
from nbqueue.testing import FakeClock, drain, memory_manager
from nbqueue.testing.workers import need

_ran: list[str] = []


@nbqueue.command("testing:note")
def note(name: str) -> None:
    """Say that it ran."""
    _ran.append(name)


def test_drain() -> None:
    """What could run has run when drain returns; what is delayed waits for the test's own clock."""
    _ran.clear()
    clock = FakeClock()
    with memory_manager(clock) as queues:
        command = nbqueue.QueuedCommand("testing:note")
        queues.dispatch(command.with_arg("now"))
        later = queues.dispatch(command.with_arg("later").with_delay(60))
        drain(queues)
        assert _ran == ["now"]
        assert later.state is nbqueue.State.PENDING
        clock.advance(60)
        drain(queues)
        assert _ran == ["now", "later"]


def test_clock_set_back() -> None:
    """A clock set back is earlier, and its ticks have not moved."""
    clock = FakeClock(100.0)
    clock.advance(5.0)
    clock.set_back(50.0)
    assert (clock.time(), clock.ticks()) == (55.0, 5.0)


def test_missing_capability_is_a_skip() -> None:
    """What a store does not declare is skipped, and the skip names it."""
    store = MemoryStore()
    with pytest.raises(pytest.skip.Exception, match="MemoryStore does not declare durable"):
        need(store, Capability.DURABLE)
    store.close()
