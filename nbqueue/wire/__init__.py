"""How two processes of one user talk: messages of plain values over a socket, each end known to the other."""

from __future__ import annotations

from nbqueue.wire.channel import Channel, ChannelClosedError
from nbqueue.wire.codec import decode, encode
from nbqueue.wire.faults import Fault, pack_error, unpack_error
from nbqueue.wire.makers import WireError, allow

__all__ = [
    "Channel",
    "ChannelClosedError",
    "Fault",
    "WireError",
    "allow",
    "decode",
    "encode",
    "pack_error",
    "unpack_error",
]
