"""Signs anew what another secret signed, for somebody who trusts it; not a byte of it is unpickled or decompressed.

Each function gives the same with this user's signature, or None where there is nothing to do: it is his already, needs
no signature, or is damaged, and then stays refused.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from nbqueue.payload import bundles
from nbqueue.payload.notation import TAG, Json, from_base64, to_text
from nbqueue.payload.signing import reseal, signature_of

__all__ = ["renew_code", "renew_display", "renew_value"]

_DAMAGED = (ValueError, TypeError, LookupError, RecursionError)


def renew_value(text: str, *, key: bytes, context: str) -> str | None:
    """Sign the pickles in what ``encode`` or ``encode_call`` wrote.

    Examples
    --------
    >>> from nbqueue.payload import decode, encode
    >>> theirs = encode(slice(2), key=b"theirs", context="sum")
    >>> decode(renew_value(theirs, key=b"mine", context="sum"), key=b"mine", context="sum")
    slice(None, 2, None)
    >>> renew_value(theirs, key=b"theirs", context="sum"), renew_value("[1]", key=b"mine", context="sum")
    (None, None)
    """
    try:
        tree = json.loads(text)
        if not sum([_renew(pickled, key, context) for pickled in _pickles(tree)]):
            return None
        renewed = to_text(tree)
        renewed.encode()  # a lone surrogate, which no store takes
    except _DAMAGED:
        return None
    return renewed


def _pickles(tree: Json) -> list[dict[str, Any]]:
    found, rest = [], [tree]
    while rest:
        value = rest.pop()
        if isinstance(value, list):
            rest.extend(value)
        elif isinstance(value, dict):
            if value.get(TAG) == "pickle":
                found.append(value)
            rest.extend(value.values())
    return found


def _renew(pickled: dict[str, Any], key: bytes, context: str) -> bool:
    """Sign one; whether that changed anything."""
    signature = signature_of(from_base64(pickled["v"]), key, "pickle", context).hex()
    if hmac.compare_digest(str(pickled.get("sig", "")).encode("utf-8", "replace"), signature.encode()):
        return False
    pickled["sig"] = signature
    return True


def renew_display(text: str, *, key: bytes, context: str) -> str | None:
    """Sign what a job displayed, so that it is shown whole.

    Examples
    --------
    >>> theirs = bundles.write({"text/html": "<b>7</b>"}, {}, key=lambda: b"theirs", context="job 1")
    >>> mine = json.loads(renew_display(theirs, key=b"mine", context="job 1"))
    >>> bundles.is_trusted(mine, key=lambda: b"mine", context="job 1")
    True
    """
    return bundles.sign_anew(text, key=key, context=context)


def renew_code(blob: bytes, *, key: bytes, context: str) -> bytes | None:
    """Sign what ``pack_code`` made of a function."""
    return reseal(blob, key, "code", context)
