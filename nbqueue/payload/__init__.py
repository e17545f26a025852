"""Values, calls, bytes and code in a form to store, and back as they went; knows no job, no store and no secret.

===================================  ===========================================  ==================
`encode`, `decode`                   a value as JSON text                         ``codec.py``
`encode_call`, `decode_call`         the arguments of a call, the same way        ``codec.py``
`sign`, `verify`                     bytes in an envelope                         ``signing.py``
`pack_code`, `unpack_code`           a function by value, and its `code_hash`     ``code.py``
===================================  ===========================================  ==================

Plain JSON stays plain JSON. What JSON has no word for is tagged, ``{"$nbq": "date", "v": "2026-01-31"}``, and what
no tag carries is pickled and signed. Three promises hold for whatever a row says: nothing that it names is imported
(a name is looked up in the modules that are loaded, and must be a dataclass, an enum or a named tuple), no code of
such a class runs to rebuild its values (but the ``__hash__`` and ``__eq__`` of what goes into a set or is a key), and
no byte is unpickled or decompressed before its signature was found to be right.
"""

from __future__ import annotations

from nbqueue.payload.code import code_hash, pack_code, unpack_code
from nbqueue.payload.codec import decode, decode_call, encode, encode_call, needs_pickle, same_call
from nbqueue.payload.errors import UnknownType
from nbqueue.payload.signing import sign, verify

__all__ = [
    "UnknownType",
    "code_hash",
    "decode",
    "decode_call",
    "encode",
    "encode_call",
    "needs_pickle",
    "pack_code",
    "same_call",
    "sign",
    "unpack_code",
    "verify",
]
