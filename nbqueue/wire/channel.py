"""One end of a socket between two processes that hold the same key; knows bytes and messages, and no store.

Both ends prove the key by answering a challenge, the caller first, and neither reveals it. Then every message is a
frame: its length, a signature and its body. A direction has a key of its own, drawn from both challenges, and counts
its frames, so that none can be forged, left out, sent again, sent back or carried over from another connection.
Nothing of a body is looked at before its signature holds.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import select
import socket
import struct
import threading
from time import monotonic
from typing import Any

from nbqueue.errors import NbqueueError
from nbqueue.payload.signing import signature_of
from nbqueue.wire.codec import SHAPE, decode, encode
from nbqueue.wire.makers import WireError

__all__ = ["FRAME_MAX", "HANDSHAKE_SECONDS", "Channel", "ChannelClosedError"]

#: Bytes of a frame at most.
FRAME_MAX = 1 << 30
#: How long the other end may take to prove itself.
HANDSHAKE_SECONDS = 10.0

_MAGIC = b"nbqwire1"
_NONCE = 32
_DIGEST = 32
_HELLO = len(_MAGIC) + len(SHAPE) + _NONCE
_LENGTH = struct.Struct(">Q")
_HEAD = _LENGTH.size + _DIGEST
#: Room is made for so many bytes at a time: a length alone, however large, takes no memory.
_PIECE = 1 << 20


class ChannelClosedError(NbqueueError):
    """The other end is gone, or this one was closed."""


class Channel:
    """A connected socket as a way to send and receive messages; it is made when both ends have proved the key.

    Parameters
    ----------
    sock : socket.socket
        Connected; the channel owns it from now on and closes it, also where the handshake fails.
    key : bytes
        What both ends know.
    server : bool
        Whether this is the end that was called.

    Raises
    ------
    WireError
        If the other end has another key, or speaks something else.
    ChannelClosedError
        If it went meanwhile.
    TimeoutError
        If it said nothing for ``HANDSHAKE_SECONDS``.
    """

    def __init__(self, sock: socket.socket, key: bytes, *, server: bool):
        sock.setblocking(True)
        self._socket = sock
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._closed = False
        self._sent = self._received = 0
        #: What has come of the frame that is under way: a timeout may fall into the middle of one.
        self._buffer, self._filled = bytearray(_HEAD), 0
        self._signature: bytes | None = None
        try:
            self._out, self._in = self._handshake(key, server=server)
        except BaseException:
            self.close()
            raise

    def send(self, message: object) -> None:
        """Send one message; may be called from any thread, and blocks while the other end does not read.

        Raises
        ------
        NotSupported
            If it holds what cannot travel; nothing was sent.
        WireError
            If it is longer than ``FRAME_MAX``; nothing was sent.
        ChannelClosedError
            If the other end is gone; whether it read the message is not known.
        """
        body = encode(message)
        if len(body) > FRAME_MAX:
            raise WireError(f"a message of {len(body):,} bytes is too long; {FRAME_MAX:,} is the most")
        try:
            with self._sending:
                head = _LENGTH.pack(len(body))
                signature = _signature(self._out, self._sent, head, body)
                self._sent += 1
                self._put(head + signature, body)
        except OSError as error:
            self.close()
            raise ChannelClosedError(_gone(error)) from error
        except BaseException:
            # Half a frame may be out, and nothing can follow that.
            self.close()
            raise

    def recv(self, timeout: float | None = None) -> Any:
        """Give the next message; one thread at a time.

        Parameters
        ----------
        timeout : float, optional
            Seconds; by default it waits for as long as the other end lives.

        Raises
        ------
        TimeoutError
            If none came in time; the channel goes on.
        ChannelClosedError
            If the other end is gone, or this one was closed, from any thread.
        WireError
            If what came is damaged, forged, too long or names what does not travel; the channel is closed.
        """
        deadline = None if timeout is None else monotonic() + timeout
        try:
            with self._receiving:
                body = self._frame(deadline)
                return decode(body)
        except TimeoutError:
            raise
        except OSError as error:
            self.close()
            raise ChannelClosedError(_gone(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it, and wake whoever waits on it; may be called from any thread, and again."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        # Who waits has been woken and lets go; only then may the number of the descriptor become another's.
        with self._receiving, self._sending:
            self._socket.close()

    def fileno(self) -> int:
        """Give the descriptor, to wait on: it is readable when a message has begun to come. -1 when closed."""
        return self._socket.fileno()

    # ------------------------------------------------------------------------------------------------ handshake
    def _handshake(self, key: bytes, *, server: bool) -> tuple[bytes, bytes]:
        """Prove the key and have it proved; gives the keys of the two directions, out and in."""
        deadline = monotonic() + HANDSHAKE_SECONDS
        mine = secrets.token_bytes(_NONCE)
        try:
            self._socket.sendall(_MAGIC + SHAPE + mine)
            hello = bytes(self._exactly(_HELLO, deadline))
            theirs = _nonce(hello)
            if theirs == mine:
                raise WireError("what answers there sends back what it is told; who listens on its socket?")
            challenge = theirs + mine if server else mine + theirs
            # Who was called answers only who has proved to know: to a stranger it signs nothing.
            for from_server in (False, True):
                proof = signature_of(challenge, key, "wire", "server" if from_server else "client")
                if from_server == server:
                    self._socket.sendall(proof)
                elif not hmac.compare_digest(self._exactly(_DIGEST, deadline), proof):
                    self._refuse(server=server)
        except TimeoutError:
            raise TimeoutError(
                f"the other process did not answer for {HANDSHAKE_SECONDS:g} s; is it stopped?"
            ) from None
        except OSError as error:
            raise ChannelClosedError(_gone(error)) from error
        keys = [signature_of(challenge, key, "wire", f"from the {end}") for end in ("client", "server")]
        self._begin(_HEAD)
        return (keys[1], keys[0]) if server else (keys[0], keys[1])

    def _refuse(self, *, server: bool) -> None:
        if server:
            # So that the other end learns why, and not only that it was left.
            with contextlib.suppress(OSError):
                self._socket.sendall(bytes(_DIGEST))
        raise WireError(
            "the other process has another secret: it belongs to somebody else, or its NBQUEUE_SECRET or "
            "NBQUEUE_DATA_DIR differ; set the same in both"
        )

    # ---------------------------------------------------------------------------------------------------- frames
    def _put(self, head: bytes, body: bytes) -> None:
        if self._closed:
            raise ChannelClosedError("this end of the connection is closed")
        if len(body) < _PIECE:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)

    def _frame(self, deadline: float | None) -> bytearray:
        if self._signature is None:
            head = self._rest(_HEAD, deadline)
            (length,) = _LENGTH.unpack_from(head)
            if length > FRAME_MAX:
                raise WireError(f"a frame of {length:,} bytes is announced; {FRAME_MAX:,} is the most")
            self._signature, self._length = bytes(head[_LENGTH.size :]), length
            self._begin(length)
        body = self._rest(self._length, deadline)
        expected = _signature(self._in, self._received, _LENGTH.pack(self._length), body)
        if not hmac.compare_digest(self._signature, expected):
            raise WireError("a frame was forged, changed or sent out of turn; not a byte of it was decoded")
        self._received += 1
        self._signature = None
        self._begin(_HEAD)
        return body

    def _begin(self, length: int) -> None:
        self._buffer, self._filled = bytearray(min(length, _PIECE)), 0

    def _exactly(self, length: int, deadline: float | None) -> bytearray:
        self._begin(length)
        return self._rest(length, deadline)

    def _rest(self, length: int, deadline: float | None) -> bytearray:
        """What is under way, when all of it has come."""
        while self._filled < length:
            if self._closed:
                raise ChannelClosedError("this end of the connection is closed")
            if deadline is not None:
                self._wait(deadline)
            if self._filled == len(self._buffer):
                self._buffer.extend(bytes(min(length - self._filled, max(_PIECE, self._filled))))
            with memoryview(self._buffer) as view:
                count = self._socket.recv_into(view[self._filled :])
            if not count:
                raise ChannelClosedError("the other end of the connection is gone")
            self._filled += count
        return self._buffer

    def _wait(self, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(max(0.0, deadline - monotonic()) * 1000):
            raise TimeoutError("no message came in time")


def _signature(key: bytes, count: int, head: bytes, body: bytes | bytearray) -> bytes:
    start = _LENGTH.pack(count) + head
    if len(body) < _PIECE:
        return hmac.digest(key, start + body, "sha256")
    signed = hmac.new(key, start, "sha256")
    signed.update(body)
    return signed.digest()


def _nonce(hello: bytes) -> bytes:
    magic, shape = hello[: len(_MAGIC)], hello[len(_MAGIC) : -_NONCE]
    if magic != _MAGIC:
        raise WireError("what answers there is no nbqueue; who listens on its socket?")
    if shape != SHAPE:
        raise WireError(
            "the other process runs another version of nbqueue; install the same in both, then restart it"
        )
    return hello[-_NONCE:]


def _gone(error: OSError) -> str:
    return f"the other end of the connection is gone ({error.strerror or error})"
