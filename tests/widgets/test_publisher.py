"""The publisher: refreshes what has changed, soon but not often, and does nothing while nothing changes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest

from nbqueue.testing import FakeClock
from nbqueue.widgets.publisher import RETRY, Publisher


class Source:
    """Something that changes."""

    def __init__(self) -> None:
        self.listeners: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.listeners.append(callback)
        return lambda: self.listeners.remove(callback)

    def change(self) -> None:
        for listener in list(self.listeners):
            listener()


class Shown:
    """A view that counts its refreshes, and takes its time."""

    def __init__(self, clock: FakeClock, *, takes: float = 0.0, again: float | None = None) -> None:
        self.closed = self.troubled = False
        self.refreshed_at: list[float] = []
        self._clock, self._takes, self._again = clock, takes, again

    def refresh(self) -> float | None:
        self.refreshed_at.append(self._clock.ticks())
        self._clock.advance(self._takes)
        return self._again


def publisher_of(clock: FakeClock) -> Publisher:
    return Publisher(ticks=clock.ticks, every=0.25, share=0.1, threaded=False)


def test_refreshes_once_then_only_after_changes() -> None:
    """A view is refreshed when it comes and after a change, and otherwise left alone for good."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock)
    publisher.add(view, source.on_change)
    assert publisher.step() is None
    clock.advance(3600)
    assert publisher.step() is None
    assert len(view.refreshed_at) == 1
    source.change()
    assert publisher.step() is None
    assert len(view.refreshed_at) == 2


def test_many_changes_are_one_refresh() -> None:
    """Whatever changes between two refreshes is shown by the second, a quarter of a second after the first."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock)
    publisher.add(view, source.on_change)
    publisher.step()
    for _ in range(1000):
        source.change()
    wait = publisher.step()
    assert wait == 0.25
    assert len(view.refreshed_at) == 1
    clock.advance(wait)
    assert publisher.step() is None
    assert view.refreshed_at == [0.0, 0.25]


def test_change_during_a_refresh_is_not_lost() -> None:
    """What changes while a view looks is shown the next time."""
    clock, source = FakeClock(), Source()
    publisher = publisher_of(clock)

    class Meanwhile(Shown):
        def refresh(self) -> float | None:
            if not self.refreshed_at:
                source.change()
            return super().refresh()

    view = Meanwhile(clock)
    publisher.add(view, source.on_change)
    assert publisher.step() == 0.25
    clock.advance(0.25)
    assert publisher.step() is None
    assert len(view.refreshed_at) == 2


def test_slow_view_is_refreshed_rarely() -> None:
    """A view that takes 0.4 s is refreshed every 4 s: a tenth of a core."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock, takes=0.4)
    publisher.add(view, source.on_change)
    while clock.ticks() < 20:
        source.change()
        clock.advance(publisher.step() or 0.0)
    between = [
        later - sooner for sooner, later in zip(view.refreshed_at, view.refreshed_at[1:], strict=False)
    ]
    assert between
    assert all(abs(seconds - 4.0) < 1e-6 for seconds in between)


def test_view_that_waited_in_vain_is_tried_again_soon() -> None:
    """What a queue that did not answer kept waiting has used no core, and pays for none."""
    clock = FakeClock()
    publisher, view = publisher_of(clock), Shown(clock, takes=30.0, again=RETRY)
    view.troubled = True
    publisher.add(view)
    assert publisher.step() == RETRY
    clock.advance(RETRY)
    publisher.step()
    assert view.refreshed_at == [0.0, 30.0 + RETRY]


def test_slow_views_share() -> None:
    """Two views that change together have a twentieth of a core each."""
    clock, source = FakeClock(), Source()
    publisher, views = publisher_of(clock), [Shown(clock, takes=0.1), Shown(clock, takes=0.1)]
    for view in views:
        publisher.add(view, source.on_change)
    while clock.ticks() < 60:
        source.change()
        clock.advance(publisher.step() or 0.01)
    busy = 0.1 * sum(len(view.refreshed_at) for view in views)
    assert busy / clock.ticks() < 0.11


def test_view_that_asks_is_called_again() -> None:
    """A view may be called again though nothing changes."""
    clock = FakeClock()
    publisher, view = publisher_of(clock), Shown(clock, again=7.0)
    publisher.add(view)
    assert publisher.step() == 7.0
    clock.advance(6.0)
    publisher.step()
    assert len(view.refreshed_at) == 1
    clock.advance(1.0)
    publisher.step()
    assert len(view.refreshed_at) == 2


def test_command_is_carried_out_and_shown_at_once() -> None:
    """After a command its view is refreshed, however lately that was."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock, takes=1.0)
    publisher.add(view, source.on_change)
    publisher.step()
    done: list[float] = []
    publisher.submit(lambda: done.append(clock.ticks()), then=view)
    publisher.step()
    assert done == [1.0]
    assert view.refreshed_at == [0.0, 1.0]


def test_failing_command_keeps_nobody_from_anything(caplog: object) -> None:
    """A command that raises is logged, and the next one is carried out."""
    clock = FakeClock()
    publisher = publisher_of(clock)
    done: list[int] = []
    publisher.submit(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    publisher.submit(lambda: done.append(2))
    publisher.step()
    assert done == [2]


def test_failing_view_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """A view that raises is asked again a while later, logged once; the others are refreshed as ever."""
    clock, source = FakeClock(), Source()
    publisher, good = publisher_of(clock), Shown(clock)

    class Bad(Shown):
        def refresh(self) -> float | None:
            super().refresh()
            if len(self.refreshed_at) < 3:
                raise RuntimeError
            return None

    bad = Bad(clock)
    publisher.add(bad, source.on_change)
    publisher.add(good, source.on_change)
    publisher.step()
    clock.advance(1)
    source.change()
    publisher.step()
    assert (len(bad.refreshed_at), len(good.refreshed_at)) == (1, 2)
    for _ in range(2):
        clock.advance(RETRY)
        publisher.step()
    assert (len(bad.refreshed_at), len(good.refreshed_at)) == (3, 2)
    assert publisher.step() is None
    assert len(caplog.records) == 1


def test_view_that_closes_while_it_is_added_is_told_nothing() -> None:
    """A view that is dropped while somebody still arranges for it to hear of changes leaves no listener."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock)

    def on_change(callback: Callable[[], None]) -> Callable[[], None]:
        view.closed = True
        publisher.step()
        return source.on_change(callback)

    publisher.add(view, on_change)
    assert (source.listeners, publisher._entries) == ([], [])


def test_view_whose_source_is_closed_is_not_kept() -> None:
    """Where changes cannot be heard of, that is raised, and the view may be added again."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock)

    def closed(_callback: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("closed")

    with pytest.raises(RuntimeError, match="closed"):
        publisher.add(view, closed)
    publisher.add(view, source.on_change)
    publisher.step()
    assert (len(view.refreshed_at), len(source.listeners)) == (1, 1)


def test_closed_view_is_dropped() -> None:
    """A view that was closed is neither refreshed nor told of changes any more."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock)
    publisher.add(view, source.on_change)
    publisher.step()
    view.closed = True
    source.change()
    publisher.step()
    assert (len(view.refreshed_at), source.listeners) == (1, [])


def test_views_are_held_weakly() -> None:
    """A view that nobody holds goes, and its subscription with the next change."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock)
    publisher.add(view, source.on_change)
    publisher.step()
    del view
    gc.collect()
    source.change()
    publisher.step()
    assert source.listeners == []


def test_added_twice_is_there_once() -> None:
    """Adding a view again does nothing."""
    clock, source = FakeClock(), Source()
    publisher, view = publisher_of(clock), Shown(clock)
    publisher.add(view, source.on_change)
    publisher.add(view, source.on_change)
    publisher.step()
    assert (len(view.refreshed_at), len(source.listeners)) == (1, 1)


def test_thread_refreshes_after_a_change() -> None:
    """With its thread, a change brings a refresh about, in a daemon of that name."""
    source, publisher = Source(), Publisher(every=0.0)
    seen: list[threading.Thread] = []
    news = threading.Event()

    class Here:
        closed = False

        def refresh(self) -> None:
            seen.append(threading.current_thread())
            news.set()

    view = Here()
    publisher.add(view, source.on_change)
    assert news.wait(10)
    news.clear()
    source.change()
    assert news.wait(10)
    assert {(thread.name, thread.daemon) for thread in seen} == {("nbqueue-publisher", True)}
    view.closed = True
    publisher.changed(view)


def test_slow_view_does_not_keep_a_quick_one_waiting() -> None:
    """Beside a view that takes 0.4 s, one that takes nothing is refreshed four times a second."""
    clock, source = FakeClock(), Source()
    publisher, slow, quick = publisher_of(clock), Shown(clock, takes=0.4), Shown(clock)
    for view in (slow, quick):
        publisher.add(view, source.on_change)
    while clock.ticks() < 19:
        source.change()
        publisher.step()
        clock.advance(0.05)
    assert len(slow.refreshed_at) == 5
    assert len(quick.refreshed_at) > 60
