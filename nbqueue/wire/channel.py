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
#: Read at once by ``recv_all``: one call of the system brings many small frames.
_READ = 1 << 16


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
        self._closed = self._mute = False
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._sent = self._received = 0
        #: What has come and was not taken yet, from this place on: a timeout may fall into the middle of a frame.
        self._come, self._at = b"", 0
        #: The head of the frame that is under way, and of a long one what has come of its body.
        self._head: bytes | None = None
        self._body, self._filled = bytearray(), 0
        #: What ``recv_all`` met after the messages that it gave.
        self._error: NbqueueError | None = None
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
            If the other end is gone; whether it read the message is not known. What it said before can still be
            received.
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
            # Half a frame may be out, and nothing can follow that.
            self._mute = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
            raise ChannelClosedError(_gone(error)) from error
        except BaseException:
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

    def recv_all(self) -> list[Any]:
        """Give the messages that have come whole, and wait for none; one thread at a time.

        Raises
        ------
        ChannelClosedError, WireError
            As ``recv``, once all that came before was given.
        """
        found: list[Any] = []
        with self._receiving:
            error, self._error = self._error, None
            try:
                while error is None:
                    found.append(decode(self._frame(0.0, _READ)))
            except TimeoutError:
                return found
            except NbqueueError as raised:
                error = raised
            except OSError as raised:
                error = ChannelClosedError(_gone(raised))
            if found:
                self._error = error
                return found
        self.close()
        raise error

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
            hello = self._short(_HELLO, deadline)
            theirs = _nonce(hello)
            if theirs == mine:
                raise WireError("what answers there sends back what it is told; who listens on its socket?")
            challenge = theirs + mine if server else mine + theirs
            # Who was called answers only who has proved to know: to a stranger it signs nothing.
            for from_server in (False, True):
                proof = signature_of(challenge, key, "wire", "server" if from_server else "client")
                if from_server == server:
                    self._socket.sendall(proof)
                elif not hmac.compare_digest(self._short(_DIGEST, deadline), proof):
                    self._refuse(server=server)
        except TimeoutError:
            raise TimeoutError(
                f"the other process did not answer for {HANDSHAKE_SECONDS:g} s; is it stopped?"
            ) from None
        except OSError as error:
            raise ChannelClosedError(_gone(error)) from error
        keys = [signature_of(challenge, key, "wire", f"from the {end}") for end in ("client", "server")]
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
        if self._mute:
            raise ChannelClosedError("the other end of the connection is gone")
        if len(body) < _PIECE:
            self._socket.sendall(head + body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(body)

    def _frame(self, deadline: float | None, ahead: int = 0) -> bytes | bytearray:
        """The body of the next frame; ``ahead`` is how much may be read at once, of those after it too."""
        head = self._head
        if head is None:
            head = self._short(_HEAD, deadline, ahead)
            (length,) = _LENGTH.unpack_from(head)
            if length > FRAME_MAX:
                raise WireError(f"a frame of {length:,} bytes is announced; {FRAME_MAX:,} is the most")
            self._head, self._length = head, length
        length = self._length
        body = self._short(length, deadline, ahead) if length <= _READ else self._long(length, deadline)
        expected = _signature(self._in, self._received, head[: _LENGTH.size], body)
        if not hmac.compare_digest(head[_LENGTH.size :], expected):
            raise WireError("a frame was forged, changed or sent out of turn; not a byte of it was decoded")
        self._received += 1
        self._head = None
        return body

    def _short(self, length: int, deadline: float | None, ahead: int = 0) -> bytes:
        """The next so many bytes, when all of them have come."""
        while (missing := length - len(self._come) + self._at) > 0:
            self._wait(deadline)
            data = self._socket.recv(ahead or missing)
            if not data:
                raise ChannelClosedError("the other end of the connection is gone")
            self._come, self._at = self._come[self._at :] + data, 0
        begin, self._at = self._at, self._at + length
        return self._come[begin : self._at]

    def _long(self, length: int, deadline: float | None) -> bytearray:
        """The same of a frame that is read into its place, and is not to be copied."""
        if not self._filled:
            # Fewer than it has: what was read at once is no more than that.
            self._body = bytearray(self._come[self._at : self._at + length])
            self._filled = len(self._body)
            self._at += self._filled
        while self._filled < length:
            self._wait(deadline)
            if self._filled == len(self._body):
                self._body.extend(bytes(min(length - self._filled, max(_PIECE, self._filled))))
            with memoryview(self._body) as view:
                count = self._socket.recv_into(view[self._filled :])
            if not count:
                raise ChannelClosedError("the other end of the connection is gone")
            self._filled += count
        body, self._body, self._filled = self._body, bytearray(), 0
        return body

    def _wait(self, deadline: float | None) -> None:
        """Wait until there is something to read; without a deadline reading itself does."""
        if self._closed:
            raise ChannelClosedError("this end of the connection is closed")
        if deadline is not None and not self._poll.poll(max(0.0, deadline - monotonic()) * 1000):
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
