"""Whatever comes in at an owner's socket concerns its own connection alone."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbqueue.errors import NotSupported, QueueUnavailable
from nbqueue.store import Handlers, WorkerInfo
from nbqueue.stores.owner import Note
from nbqueue.stores.shared import SharedStore
from nbqueue.stores.sharing import server as server_module
from nbqueue.stores.sharing.guest import Guest
from nbqueue.stores.sharing.server import channel_key
from nbqueue.stores.sharing.session import Peer
from nbqueue.testing import FakeClock, new_job
from nbqueue.wire import Channel, ChannelClosedError, WireError

SECRET = b"a secret of tests"
KEY = channel_key(SECRET)


@pytest.fixture
def owner(path: Path) -> Iterator[SharedStore]:
    """A store that is served."""
    store = SharedStore(path, lambda: SECRET)
    yield store
    # Whoever came before, it serves who comes now.
    guest = SharedStore(path, lambda: SECRET)
    assert isinstance(guest._role.ready, Guest)
    assert [queue.name for queue in guest.queues()] == ["default"]
    guest.close()
    store.close()


@pytest.fixture
def address(owner: SharedStore, path: Path) -> str:
    """Where it answers."""
    note = Note.read(path.with_name("jobs.duckdb.lock"))
    assert note is not None
    return note.socket


def call(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(address)
    return sock


def is_closed(channel: Channel) -> bool:
    """Whether the other end closes it, whatever it says before."""
    with contextlib.suppress(ChannelClosedError, WireError):
        while True:
            channel.recv(10)
    return True


NOISE = random.Random(7).randbytes(5_000)


@pytest.mark.parametrize(
    "sent",
    [b"", b"\x00", NOISE[:64], NOISE, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 200, b"nbqwire1" + NOISE[:40]],
    ids=["nothing", "a zero", "noise", "much noise", "http", "ones", "half a hello"],
)
def test_a_stranger_calls(address: str, sent: bytes) -> None:
    """Bytes that are no handshake end their connection."""
    with call(address) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass


def test_its_socket_is_removed(owner: SharedStore, path: Path, address: str) -> None:
    """Who is here goes on, and who comes is let in, where somebody has tidied up the folder of sockets."""
    before = SharedStore(path, lambda: SECRET)
    Path(address).unlink()
    job = new_job(FakeClock())
    before.insert([job])
    after = SharedStore(path, lambda: SECRET)
    assert isinstance(after._role.ready, Guest)
    assert [record.job_id for record in after.get([job.job_id])] == [job.job_id]
    after.close()
    before.close()
    assert owner.holder().here


def test_a_wrong_key(address: str) -> None:
    """Whoever does not know the secret is let go before a message of his is looked at."""
    with pytest.raises(WireError, match="another secret"):
        Channel(call(address), channel_key(b"guessed"), server=False)


@pytest.mark.parametrize(
    "message",
    [
        None,
        7,
        "asks",
        (),
        ("asks",),
        ("asks", "0" * 16),
        ("asks", 7),
        ("told", "me"),
        ("told", ("x", 1, "h", "p")),
        [1] * 9,
    ],
    ids=str,
)
def test_a_wrong_greeting(address: str, message: object) -> None:
    """Who knows the key and says nonsense is let go."""
    channel = Channel(call(address), KEY, server=False)
    channel.send(message)
    assert is_closed(channel)


@pytest.fixture
def session(address: str) -> Iterator[tuple[Channel, Channel]]:
    """The connections of a guest that reads nothing by itself: told, and asks."""
    told = Channel(call(address), KEY, server=False)
    told.send(("told", Peer("test", 1, "host", "program")))
    session_id = told.recv(10)
    asks = Channel(call(address), KEY, server=False)
    asks.send(("asks", session_id))
    yield told, asks
    told.close()
    asks.close()


@pytest.mark.parametrize(
    "message", [None, ("get",), ("get", [], {}), (1, (), {}), ("get", (), {}, 1)], ids=str
)
def test_a_wrong_question(session: tuple[Channel, Channel], message: object) -> None:
    """What is no question ends that connection, and no other of the same guest."""
    _, asks = session
    asks.send(message)
    assert is_closed(asks)


@pytest.mark.parametrize(
    ("verb", "args", "error"),
    [
        ("close", (), "NotSupported"),
        ("_run", (1,), "NotSupported"),
        ("__class__", (), "NotSupported"),
        ("bury", ([],), "NotSupported"),
        ("get", (), "TypeError"),
        ("get", (1, 2, 3), "TypeError"),
        ("queues", ("x",), "TypeError"),
    ],
)
def test_a_verb_that_does_not_travel(
    session: tuple[Channel, Channel], verb: str, args: tuple[object, ...], error: str
) -> None:
    """Only the verbs of the contract are done; everything else is an error to who asked, and the connection goes on."""
    _, asks = session
    asks.send((verb, args, {}))
    done, fault = asks.recv(10)
    assert (done, fault.kind) == (False, error)
    asks.send(("ping", (), {}))
    assert asks.recv(10) == (True, None)


def test_too_many(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections beyond a number are closed at once, until others go."""
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 5)
    waiting = [call(address) for _ in range(5)]
    for sock in waiting:
        sock.recv(1)
    with call(address) as sock:
        assert sock.recv(1) == b""
    for sock in waiting:
        sock.close()
    end = time.monotonic() + 10
    while True:
        with contextlib.suppress(ChannelClosedError):
            Channel(call(address), KEY, server=False).close()
            break
        assert time.monotonic() < end


def test_a_guest_that_does_not_read(owner: SharedStore, session: tuple[Channel, Channel]) -> None:
    """It keeps nobody waiting, and what it is to be told does not grow with what happens."""
    _, asks = session
    asks.send(("listen", (1,), {}))
    asks.recv(10)
    clock = FakeClock()
    for _ in range(100):
        owner.insert([new_job(clock)])
    assert owner._server is not None
    (served,) = owner._server._sessions.values()
    assert len(served._outbox) + len(served._asked) <= 1


def test_an_old_session_says_no_more(
    address: str, owner: SharedStore, session: tuple[Channel, Channel]
) -> None:
    """When a guest has come anew, nothing that it asked before concerns its workers any more."""
    told, asks = session
    worker = WorkerInfo(worker_id="w")
    asks.send(("join", (worker, Handlers(everything=True), []), {}))
    assert asks.recv(10) == (True, None)
    anew = Channel(call(address), KEY, server=False)
    anew.send(("told", Peer("test", 1, "host", "program")))
    anew.recv(10)
    owner.insert([new_job(FakeClock())])
    asks.send(("turn", ("w", [], 5), {}))
    assert is_closed(asks)
    assert owner.queues()[0].counts["running"] == 0
    anew.close()
    told.close()


def test_closing_lets_verbs_end(path: Path) -> None:
    """What is under way when an owner closes is done and answered; what comes later is left to the next owner."""
    owner = SharedStore(path, lambda: SECRET)
    guest = SharedStore(path, lambda: SECRET)
    entered, go = threading.Event(), threading.Event()
    assert owner._owned is not None
    real = owner._owned.find

    def find(*args: object) -> object:
        entered.set()
        assert go.wait(10)
        return real(*args)  # type: ignore[arg-type]

    owner._owned.find = find  # type: ignore[method-assign, assignment]
    found: list[object] = []
    from nbqueue.store import Selection

    asking = threading.Thread(target=lambda: found.append(guest.find(Selection())))
    asking.start()
    assert entered.wait(10)
    closing = threading.Thread(target=owner.close)
    closing.start()
    go.set()
    asking.join(10)
    closing.join(10)
    assert found == [[]]
    assert [queue.name for queue in guest.queues()] == ["default"]
    guest.close()


def test_what_cannot_travel(owner: SharedStore, path: Path) -> None:
    """An argument that cannot travel is refused by name, and the guest goes on."""
    guest = SharedStore(path, lambda: SECRET)
    with pytest.raises(NotSupported, match="cannot travel"):
        guest.query("SELECT ?", (object(),))
    with pytest.raises(QueueUnavailable, match="there is no queue 'nowhere'"):
        guest.pause("nowhere", paused=True)
    assert guest.query("SELECT 1 AS one").one.tolist() == [1]
    guest.close()
