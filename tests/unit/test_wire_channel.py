"""A channel between two ends that hold one key: what a stranger, a thief of bytes and a slow friend come to."""

from __future__ import annotations

import contextlib
import pickle
import select
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.errors import NotSupported
from nbqueue.wire import Channel, ChannelClosedError, WireError, codec, encode
from nbqueue.wire import channel as module

pytestmark = pytest.mark.fuzz

KEY = b"k" * 32
HELLO = 48
PATIENCE = 30.0


class Tap(socket.socket):
    """A socket that keeps what is sent through it, and holds it back if told to."""

    sent: bytearray
    held = False

    @classmethod
    def on(cls, sock: socket.socket) -> Tap:
        tap = cls(fileno=sock.detach())
        tap.sent = bytearray()
        return tap

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.sent += data
        if not self.held:
            super().sendall(data, flags)


class Pair:
    """A client and a server that have met, and what each has said."""

    def __init__(self, client_key: bytes = KEY, server_key: bytes = KEY):
        self.client_side, self.server_side = map(Tap.on, socket.socketpair())
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(Channel, self.server_side, server_key, server=True)
            self.client = Channel(self.client_side, client_key, server=False)
            self.server = waiting.result(PATIENCE)
        self.client_side.sent.clear()
        self.server_side.sent.clear()

    def frames(self, *messages: object) -> list[bytes]:
        """What the client would send for these messages; none of it leaves."""
        self.client_side.held = True
        found = []
        for message in messages:
            self.client_side.sent.clear()
            self.client.send(message)
            found.append(bytes(self.client_side.sent))
        return found

    def inject(self, data: bytes) -> None:
        """Send bytes to the server as if they came from the client, and then nothing more."""
        writer = threading.Thread(target=self._write, args=(data,), name="injector")
        writer.start()
        writer.join(PATIENCE)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            socket.socket.sendall(self.client_side, data)
            self.client_side.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends that know each other."""
    made = Pair()
    yield made
    made.close()


@contextlib.contextmanager
def met() -> Iterator[Pair]:
    """Two ends, for one example."""
    made = Pair()
    try:
        yield made
    finally:
        made.close()


def meet(play: Callable[[socket.socket], None], *, server: bool = True) -> Any:
    """What a channel comes to whose other end is played by a stranger: the channel or its error."""
    mine, theirs = socket.socketpair()
    with theirs, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Channel, mine, KEY, server=server)
        with contextlib.suppress(OSError):
            play(theirs)
        error = waiting.exception(PATIENCE)
        assert mine.fileno() == -1 or error is None, "a channel that failed has closed its socket"
        return error or waiting.result()


# ------------------------------------------------------------------------------------------------ among friends
def test_messages_go_both_ways(pair: Pair) -> None:
    """Messages arrive in order and whole, of any size."""
    large = b"x" * (3 << 20)
    with ThreadPoolExecutor(1) as pool:
        for message in ("a", ("turn", [1, 2]), {}, large, None, b""):
            sending = pool.submit(pair.client.send, message)
            assert pair.server.recv(PATIENCE) == message
            sending.result(PATIENCE)
    pair.server.send("back")
    assert pair.client.recv(PATIENCE) == "back"


def test_many_senders(pair: Pair) -> None:
    """Messages of several threads do not run into one another."""
    with ThreadPoolExecutor(4) as pool:
        sent = [pool.submit(pair.client.send, (n, bytes([n]) * 70_000)) for n in range(40)]
        found = [pair.server.recv(PATIENCE) for _ in sent]
    assert sorted(found) == [(n, bytes([n]) * 70_000) for n in range(40)]


def test_a_timeout_loses_nothing(pair: Pair) -> None:
    """A receiver that gives up, even in the middle of a message, gets the whole of it later."""
    with pytest.raises(TimeoutError):
        pair.server.recv(0)
    (frame,) = pair.frames("hello")
    for byte in frame[:-1]:
        socket.socket.sendall(pair.client_side, bytes([byte]))
        with pytest.raises(TimeoutError):
            pair.server.recv(0)
    socket.socket.sendall(pair.client_side, frame[-1:])
    assert pair.server.recv(PATIENCE) == "hello"


def test_readiness(pair: Pair) -> None:
    """The descriptor is readable when a message is there, however many came at once, and -1 in the end."""
    pair.client.send(1)
    pair.client.send(2)
    for expected in (1, 2):
        assert select.select([pair.server], [], [], PATIENCE)[0]
        assert pair.server.recv(0) == expected
    assert not select.select([pair.server], [], [], 0)[0]
    pair.server.close()
    assert pair.server.fileno() == -1


def test_all_that_has_come(pair: Pair) -> None:
    """Every message that is there is given at once, whole ones only; what is wrong after them is told after them."""
    assert pair.server.recv_all() == []
    first, second, large, last = pair.frames(1, "x" * 100, b"y" * 200_000, "last")
    socket.socket.sendall(pair.client_side, first + second + large[:100])
    assert pair.server.recv_all() == [1, "x" * 100]
    assert pair.server.recv_all() == []
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(socket.socket.sendall, pair.client_side, large[100:])
        assert pair.server.recv(PATIENCE) == b"y" * 200_000
        sending.result(PATIENCE)
    pair.inject(last + bytes(100))
    assert pair.server.recv_all() == ["last"]
    with pytest.raises(WireError, match="forged"):
        pair.server.recv_all()


def test_last_words_are_heard_after_a_send_that_failed(pair: Pair) -> None:
    """What the other end said before it went is received, also by one that found it gone as it sent something."""
    one, other = pair.server, pair.client
    other.send("last words")
    other.close()
    with pytest.raises(ChannelClosedError):
        one.send("too late")
    assert one.recv_all() == ["last words"]
    with pytest.raises(ChannelClosedError):
        one.recv_all()


def test_what_cannot_travel_is_not_sent(pair: Pair) -> None:
    """A message that cannot travel is refused here, and the channel goes on."""
    with pytest.raises(NotSupported, match="object"):
        pair.client.send([object()])
    pair.client.send("after")
    assert pair.server.recv(PATIENCE) == "after"


def test_a_message_too_long_is_not_sent(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message beyond the limit is refused here, and the channel goes on."""
    monkeypatch.setattr(module, "FRAME_MAX", 1000)
    with pytest.raises(WireError, match="too long; 1,000 is the most"):
        pair.client.send("x" * 1000)
    pair.client.send("after")
    assert pair.server.recv(PATIENCE) == "after"


@pytest.mark.parametrize("who", ["here", "there"])
def test_closing_wakes_the_receiver(pair: Pair, who: str) -> None:
    """A receiver that waits is told when either end is closed; then nothing can be sent or received."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pair.server.recv)
        (pair.server if who == "here" else pair.client).close()
        with pytest.raises(ChannelClosedError):
            waiting.result(PATIENCE)
    for end in (pair.server, pair.client):
        with pytest.raises(ChannelClosedError):
            end.recv(PATIENCE)
        with pytest.raises(ChannelClosedError):
            end.send("x")
        end.close()


def test_closing_wakes_the_sender(pair: Pair) -> None:
    """A sender whose message nobody reads is told when its end is closed."""
    with ThreadPoolExecutor(1) as pool:
        # More than the socket's buffer takes: it cannot be done before the other end reads.
        waiting = pool.submit(pair.client.send, bytes(8 << 20))
        select.select([pair.server], [], [], PATIENCE)
        pair.client.close()
        with pytest.raises(ChannelClosedError):
            waiting.result(PATIENCE)


# ---------------------------------------------------------------------------------------------------- the handshake
@given(st.binary(min_size=1, max_size=32), st.binary(min_size=1, max_size=32))
def test_another_key(one: bytes, other: bytes) -> None:
    """Two ends with different keys do not meet, and each learns why."""
    if one == other:
        with contextlib.closing(Pair(one, other)):
            return
    here, there = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Channel, there, other, server=True)
        with pytest.raises(WireError, match="another secret"):
            Channel(here, one, server=False)
        with pytest.raises(WireError, match="another secret"):
            waiting.result(PATIENCE)


def test_a_stranger_is_told_nothing() -> None:
    """To who has not proved the key, the one who was called signs nothing."""
    heard = bytearray()

    def play(sock: socket.socket) -> None:
        sock.sendall(module._MAGIC + codec.SHAPE + bytes(32))
        sock.sendall(bytes(32))
        while data := sock.recv(100):
            heard.extend(data)

    assert isinstance(meet(play), WireError)
    assert len(heard) == HELLO + 32
    assert heard[HELLO:] == bytes(32)


@given(st.binary(max_size=200))
def test_a_handshake_of_random_bytes(data: bytes) -> None:
    """Random bytes end the connection that they came by, in order."""

    def play(sock: socket.socket) -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    for server in (True, False):
        assert isinstance(meet(play, server=server), WireError | ChannelClosedError)


def test_a_long_handshake_takes_no_memory() -> None:
    """A stranger who sends on and on is left after the first few bytes."""
    flood = bytes(16 << 20)
    tracemalloc.start()
    try:
        assert isinstance(meet(lambda sock: sock.sendall(flood)), WireError)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("server", [True, False])
def test_an_echo(server: bool) -> None:
    """Sending back what an end says proves nothing to it."""

    def play(sock: socket.socket) -> None:
        while data := sock.recv(100):
            sock.sendall(data)

    assert isinstance(meet(play, server=server), WireError)


def test_a_session_played_again() -> None:
    """All that a client ever sent, played to a new connection, opens nothing there."""
    client_side, server_side = map(Tap.on, socket.socketpair())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Channel, server_side, KEY, server=True)
        client = Channel(client_side, KEY, server=False)
        server = waiting.result(PATIENCE)
    client.send(("dispatch", "import:data"))
    assert server.recv(PATIENCE) == ("dispatch", "import:data")
    client.close()
    server.close()
    assert isinstance(meet(lambda sock: sock.sendall(bytes(client_side.sent))), WireError)
    assert isinstance(meet(lambda sock: sock.sendall(bytes(server_side.sent)), server=False), WireError)


def test_another_version() -> None:
    """Two versions of nbqueue whose values differ find out before either misreads the other."""
    hello = module._MAGIC + bytes(8) + bytes(32)
    error = meet(lambda sock: sock.sendall(hello + bytes(32)))
    assert isinstance(error, WireError)
    assert "another version of nbqueue" in str(error)


@pytest.mark.parametrize("server", [True, False])
@pytest.mark.parametrize("said", [0, HELLO - 1, HELLO])
def test_silence(monkeypatch: pytest.MonkeyPatch, said: int, server: bool) -> None:
    """An end that stops answering is not waited for without end."""
    monkeypatch.setattr(module, "HANDSHAKE_SECONDS", 0.05)
    hello = (module._MAGIC + codec.SHAPE + bytes(32))[:said]
    assert isinstance(meet(lambda sock: sock.sendall(hello), server=server), TimeoutError)


# ---------------------------------------------------------------------------------------------------- forged frames
def refused(pair: Pair, data: bytes) -> Exception:
    """Why the server will hear no more of a connection that these bytes came by."""
    pair.inject(data)
    try:
        while True:
            pair.server.recv(PATIENCE)
    except (WireError, ChannelClosedError) as error:
        assert pair.server.fileno() == -1
        return error


@given(st.binary(max_size=200))
def test_random_frames(data: bytes) -> None:
    """Random bytes after the handshake are never a message."""
    with met() as pair:
        pair.inject(data)
        with pytest.raises((WireError, ChannelClosedError)):
            pair.server.recv(PATIENCE)


def test_a_frame_cut_anywhere() -> None:
    """A connection that ends in the middle of a frame ends, and no part of a message is heard."""
    with met() as pair:
        (frame,) = pair.frames(("turn", "worker-1", []))
    for length in range(len(frame)):
        with met() as pair:
            assert isinstance(
                refused(pair, pair.frames(("turn", "worker-1", []))[0][:length]), ChannelClosedError
            )


@given(st.data())
def test_a_changed_frame(data: st.DataObject) -> None:
    """A frame in which any one bit was changed is refused."""
    with met() as pair:
        (frame,) = pair.frames(["import:data", 7])
        place = data.draw(st.integers(0, len(frame) * 8 - 1))
        changed = bytearray(frame)
        changed[place // 8] ^= 1 << place % 8
        pair.inject(bytes(changed))
        with pytest.raises((WireError, ChannelClosedError)):
            pair.server.recv(PATIENCE)


@given(st.permutations([0, 1, 2, 3]), st.integers(0, 4))
def test_frames_out_of_turn(order: list[int], left_out: int) -> None:
    """Frames that change places, or of which one is left out, are heard up to there and no further."""
    chosen = [n for n in order if n != left_out]
    rightly = next((n for n, place in enumerate(chosen) if place != n), len(chosen))
    with met() as pair:
        frames = pair.frames(*range(4))
        pair.inject(b"".join(frames[n] for n in chosen))
        assert [pair.server.recv(PATIENCE) for _ in range(rightly)] == list(range(rightly))
        with pytest.raises(WireError if rightly < len(chosen) else ChannelClosedError):
            pair.server.recv(PATIENCE)


def test_a_frame_sent_twice(pair: Pair) -> None:
    """A frame that is sent again is refused."""
    (frame,) = pair.frames("retry")
    assert isinstance(refused(pair, frame * 2), WireError)


def test_a_frame_sent_back(pair: Pair) -> None:
    """An end does not take its own frames for the other's."""
    pair.server.send("wake")
    assert isinstance(refused(pair, bytes(pair.server_side.sent)), WireError)


def test_a_frame_of_another_connection(pair: Pair) -> None:
    """A frame of one connection is refused on another with the same key."""
    with met() as other:
        (frame,) = other.frames("dispatch")
    assert isinstance(refused(pair, frame), WireError)


@pytest.mark.parametrize("length", [(1 << 30) + 1, 1 << 40, (1 << 64) - 1])
def test_a_length_beyond_the_limit(pair: Pair, length: int) -> None:
    """A frame that says to be too long ends the connection at once."""
    error = refused(pair, length.to_bytes(8, "big") + bytes(32))
    assert isinstance(error, WireError)
    assert f"{length:,} bytes is announced" in str(error)


def test_a_length_takes_no_memory(pair: Pair) -> None:
    """Announcing a gigabyte and sending none takes none."""
    tracemalloc.start()
    try:
        assert isinstance(refused(pair, (1 << 30).to_bytes(8, "big") + bytes(32)), ChannelClosedError)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


class Mark:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled_before_its_signature_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if any class could be unpickled, a forged frame would not be; one that is signed rightly would."""
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Mark(mark))
    monkeypatch.setattr(module, "decode", pickle.loads)
    monkeypatch.setattr(module, "encode", lambda _: bomb)
    with met() as pair:
        (frame,) = pair.frames("anything")
        assert frame.endswith(bomb)
        forged = frame[:8] + bytes(32) + bomb
        assert isinstance(refused(pair, forged), WireError)
        assert not mark.exists()
    with met() as pair:
        pair.inject(pair.frames("anything")[0])
        pair.server.recv(PATIENCE)
        assert mark.exists()


def test_a_friend_gone_bad(pair: Pair, tmp_path: Path) -> None:
    """A message that is signed rightly and names what does not travel runs nothing, and ends its connection."""
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Mark(mark))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "encode", lambda _: bomb)
        frames = pair.frames("anything")
    error = refused(pair, frames[0])
    assert isinstance(error, WireError)
    assert "touch" in str(error) or "getattr" in str(error)
    assert not mark.exists()
    with met() as other:
        other.client.send("others go on")
        assert other.server.recv(PATIENCE) == "others go on"
    assert encode("x")
