"""Signs bytes and verifies them, for one purpose and context each; never looks into what it signs."""

from __future__ import annotations

import hmac
from typing import NoReturn

from nbqueue.errors import InvalidCommand, PayloadUntrusted

__all__ = ["reseal", "seal", "sign", "signature_of", "unseal", "untrusted", "verify"]

_MAGIC = b"nbq1"
_DIGEST = 32
_WAY_OUT = (
    "dispatch the job again to sign it anew; or, if you trust who wrote the file, run `nbqueue trust FILE`; or, in a"
    " team, set the same NBQUEUE_SECRET wherever jobs are dispatched and run"
)


def sign(data: bytes, *, key: bytes, context: str) -> bytes:
    """Put `data` into an envelope that only `verify` with the same key and context opens.

    Examples
    --------
    >>> verify(sign(b"x = 1", key=b"secret", context="cell"), key=b"secret", context="cell")
    b'x = 1'
    """
    return seal(data, key, "data", context)


def verify(blob: bytes, *, key: bytes, context: str) -> bytes:
    """The data in an envelope of `sign`.

    Raises
    ------
    PayloadUntrusted
        Where it was signed with another key, for another context, or not at all.

    Examples
    --------
    >>> verify(b"x = 1", key=b"secret", context="cell")
    Traceback (most recent call last):
    ...
    nbqueue.errors.PayloadUntrusted: the stored data was not signed by this user, ...
    """
    return unseal(blob, key, "data", context, "the stored data")


def seal(data: bytes, key: bytes, purpose: str, context: str) -> bytes:
    """An envelope that only `unseal` with the same key, purpose and context opens."""
    return _MAGIC + signature_of(data, key, purpose, context) + data


def unseal(blob: bytes, key: bytes, purpose: str, context: str, what: str) -> bytes:
    """The data in an envelope of `seal`, or PayloadUntrusted; `what` is what its sentence is about."""
    start = len(_MAGIC) + _DIGEST
    data = bytes(blob[start:])
    if not hmac.compare_digest(bytes(blob[:start]), _MAGIC + signature_of(data, key, purpose, context)):
        untrusted(what)
    return data


def reseal(blob: bytes, key: bytes, purpose: str, context: str) -> bytes | None:
    """The same data in an envelope of this key; None where it is one already, and for what is no envelope."""
    start = len(_MAGIC) + _DIGEST
    if len(blob) < start or not blob.startswith(_MAGIC):
        return None
    sealed = seal(bytes(blob[start:]), key, purpose, context)
    return None if hmac.compare_digest(sealed[:start], bytes(blob[:start])) else sealed


def signature_of(data: bytes, key: bytes, purpose: str, context: str) -> bytes:
    """The signature alone; its purpose keeps one kind of signed bytes from being passed off as another."""
    head = f"{purpose}\0{context}\0"
    if "\0" in context:
        raise InvalidCommand(
            f"the context {context!r} holds a NUL, which ends it in what is signed; leave it out"
        )
    return hmac.digest(key, head.encode("utf-8", "surrogatepass") + data, "sha256")


def untrusted(what: str, way_out: str = _WAY_OUT) -> NoReturn:
    """Refuse what was not signed by this user."""
    raise PayloadUntrusted(
        f"{what} was not signed by this user, or was changed since, so not a byte of it was decoded; {way_out}"
    )
