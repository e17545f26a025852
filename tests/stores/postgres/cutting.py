"""A proxy in front of a server that cuts a connection at the worst of moments."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

import pytest

from nbqueue.stores.postgres.tx import Tx

__all__ = ["Knife", "Proxy"]


class Proxy:
    """Passes bytes on between clients and a server, until it is told not to.

    Parameters
    ----------
    port : int
        Where the server is, at 127.0.0.1.
    """

    def __init__(self, port: int):
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        #: Where clients connect.
        self.port: int = self._listener.getsockname()[1]
        #: What the server answers to COMMIT is kept from the client, and the connection cut; called before that.
        self.on_commit: Callable[[], None] | None = None
        #: So many of them are let through before.
        self.spared = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._closed:
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server)
                except OSError:
                    client.close()
                    continue
                self._pairs.append((client, server))
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    if source is server and self.on_commit is not None and b"COMMIT\0" in data:
                        if not self.spared:
                            call, self.on_commit = self.on_commit, None
                            call()
                            return
                        self.spared -= 1
                    (server if source is client else client).sendall(data)

    def cut(self) -> None:
        """Cut every connection."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._closed = True
        # An accept that waits is not ended by closing what it waits at.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._listener.close()
        self.cut()
        self._thread.join(5.0)


class Knife:
    """Strikes once, in the verb that comes next, when it is about to send a statement.

    Parameters
    ----------
    monkeypatch : pytest.MonkeyPatch
        Takes it away after the test.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self._execute = Tx.execute
        self._strike: Callable[[Tx], None] | None = None
        self._where = ""
        self._spared = 0
        #: How often it struck.
        self.strikes = 0
        knife = self

        def execute(tx: Tx, statement: Any, params: Any = None) -> Any:
            if knife._strike is not None and str(statement).startswith(knife._where):
                if knife._spared:
                    knife._spared -= 1
                else:
                    strike, knife._strike = knife._strike, None
                    knife.strikes += 1
                    strike(tx)
            return knife._execute(tx, statement, params)

        monkeypatch.setattr(Tx, "execute", execute)

    def lay(self, where: str, strike: Callable[[Tx], None], *, spared: int = 0) -> None:
        """Have it strike before a statement that begins with these words, the first few of which are let through."""
        self._where, self._strike, self._spared = where, strike, spared

    def take_away(self) -> None:
        """Let nothing more happen."""
        self._strike = None
