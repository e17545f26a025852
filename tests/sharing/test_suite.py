"""What every store has to do, a guest's does too: each call through a socket, and the owner in the same process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbqueue.store import Store
from nbqueue.stores.shared import SharedStore
from nbqueue.stores.sharing.guest import Guest
from nbqueue.stores.sharing.session import Session
from nbqueue.testing import FakeClock
from nbqueue.testing.stores import StoreConformance
from nbqueue.wire import Channel

PATIENCE = 10.0


class Told:
    """Waits until a guest was told all that its owner has to tell it: the suite looks right after each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = self.passed_on = 0
        self.sessions: list[Session] = []
        self.telling = False
        tell_all, send, pass_on, init = Session._tell_all, Channel.send, Guest._pass_on, Session.__init__

        def begin(session: Session, *args: Any) -> None:
            init(session, *args)
            self.sessions.append(session)

        def tell(session: Session) -> None:
            self.telling = True
            tell_all(session)
            self.telling = False

        def count_sent(channel: Channel, message: Any) -> None:
            if isinstance(message, list):
                self.sent += len(message)
            send(channel, message)

        def count_passed(guest: Guest, *said: Any) -> None:
            pass_on(guest, *said)
            self.passed_on += 1

        monkeypatch.setattr(Session, "__init__", begin)
        monkeypatch.setattr(Session, "_tell_all", tell)
        monkeypatch.setattr(Channel, "send", count_sent)
        monkeypatch.setattr(Guest, "_pass_on", count_passed)

    def wait(self) -> None:
        until = time.monotonic() + PATIENCE
        while any(s._outbox or s._asked or s._changed for s in self.sessions) or self._on_its_way():
            assert time.monotonic() < until, "a guest was not told everything"
            time.sleep(0.0002)

    def _on_its_way(self) -> bool:
        return self.telling or self.sent != self.passed_on


class PromptStore(SharedStore):
    """A guest whose calls return when everybody was told."""

    told: Told | None = None

    def _send(self, *args: Any, **named: Any) -> Any:
        try:
            return super()._send(*args, **named)
        finally:
            self._wait()

    def _register(self, *args: Any) -> Any:
        try:
            return super()._register(*args)
        finally:
            self._wait()

    def _wait(self) -> None:
        inside = isinstance(self._role.ready, Guest) and self._role.ready._telling is not None
        if self.told is not None and not inside:
            self.told.wait()


class TestGuest(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
        """The second store of a file."""
        told = Told(monkeypatch)
        path = tmp_path / "jobs.duckdb"
        owner = SharedStore(path, lambda: b"a secret of tests", clock=clock.time, ticks=clock.ticks)
        guest = PromptStore(path, lambda: b"a secret of tests", clock=clock.time, ticks=clock.ticks)
        guest.told = told
        assert guest.holder() == owner.holder()
        assert isinstance(guest._role.ready, Guest)
        yield guest
        assert guest._owned is None, "it was a guest to the end"
        guest.close()
        owner.close()
