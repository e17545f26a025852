"""What a job displayed as JSON text: written and signed, read, and reduced to what cannot run; shows nothing.

What a browser merely paints (text, raster images) is harmless. Everything else (HTML, SVG, JavaScript, Markdown, LaTeX,
the many types of extensions) may run code where it is shown, so it carries a signature of the user whose job it was.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from nbqueue.errors import NbqueueError
from nbqueue.payload.signing import signature_of

__all__ = [
    "CLEAR",
    "harmless",
    "harmless_metadata",
    "is_trusted",
    "plain",
    "read",
    "showable",
    "sign_anew",
    "write",
]

#: Says that what was displayed before it was cleared.
CLEAR = '{"data":{},"metadata":{},"clear":true}'
_TEXT = "text/plain"
_JSON = "application/json"
_RASTER = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
_SIZES = ("width", "height")
_SIZE_MAX = 100_000
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
_PURPOSE = "output"
# How JSON text begins a surrogate; mostly it is one of a pair, and means a character.
_SURROGATE = "\\ud"
_UNHOLDABLE = (TypeError, ValueError, RecursionError)


def write(
    data: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    display_id: str = "",
    update: bool = False,
    key: Callable[[], bytes] | None = None,
    context: str = "",
) -> str:
    """Give the text that keeps a display, signed if something in it is not harmless.

    Parameters
    ----------
    data, metadata : mapping
        By MIME type. Bytes become base64; a type whose value JSON cannot hold is left out.
    display_id : str
        Under which later ones update it.
    update : bool
        Whether it takes the place of an earlier one of this id.
    key : Callable[[], bytes], optional
        Gives the user's secret; asked only where it is needed. One that raises leaves it unsigned.
    context : str
        For which alone the signature is good.

    Examples
    --------
    >>> write({"text/plain": "7"}, {})
    '{"data":{"text/plain":"7"},"metadata":{}}'
    """
    try:
        text = _dump({"data": dict(data), "metadata": dict(metadata)})
    except _UNHOLDABLE:
        data, metadata = _holdable(data) or {_TEXT: "an output that JSON cannot hold"}, _holdable(metadata)
        text = _dump({"data": data, "metadata": metadata})
    more = ""
    if display_id:
        more += f',"display_id":{json.dumps(display_id)}'
    if update:
        more += ',"update":true'
    if key is not None and harmless(data).keys() != data.keys():
        # Where the secret cannot be read it is shown as one of a stranger's.
        with contextlib.suppress(NbqueueError):
            more += f',"signature":"{_signature(text, key(), context)}"'
    return f"{text[:-1]}{more}}}"


def read(text: str) -> dict[str, Any]:
    """Read what `write` wrote; what is no display, in a file from elsewhere, is one of its text.

    Examples
    --------
    >>> read('{"data":{"text/plain":"7"},"metadata":{}}'), read("nonsense")["data"]
    ({'data': {'text/plain': '7'}, 'metadata': {}}, {'text/plain': 'nonsense'})
    """
    try:
        shown = json.loads(text)
    except ValueError:
        shown = None
    except RecursionError:
        # Nested deeper than anybody can look: none that may be shown.
        return {"data": {_JSON: text}, "metadata": {}}
    if (
        isinstance(shown, dict)
        and isinstance(shown.get("data"), dict)
        and isinstance(shown.get("metadata"), dict)
    ):
        return shown
    return {"data": {_TEXT: text}, "metadata": {}}


def showable(value: Any) -> Any:
    r"""The value with lone surrogates written out, as in a file's undecodable name: no page and no store takes them.

    Examples
    --------
    >>> showable({"text/plain": ["caf\udce9"]})
    {'text/plain': ['caf\\udce9']}
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list | tuple):
        return [showable(one) for one in value]
    if isinstance(value, dict):
        return {showable(name): showable(one) for name, one in value.items()}
    return value


def is_trusted(bundle: Mapping[str, Any], *, key: Callable[[], bytes], context: str) -> bool:
    """Whether all of a display may be shown: it is harmless, or this user signed it for this context.

    Examples
    --------
    >>> key = lambda: b"secret"
    >>> bundle = json.loads(write({"text/html": "<b>7</b>"}, {}, key=key, context="job 1"))
    >>> is_trusted(bundle, key=key, context="job 1"), is_trusted(bundle, key=key, context="job 2")
    (True, False)
    """
    data, metadata = bundle.get("data"), bundle.get("metadata")
    if not isinstance(data, dict) or not isinstance(metadata, dict):
        return False
    signature = bundle.get("signature")
    if not isinstance(signature, str):
        return harmless(data).keys() == data.keys()
    try:
        expected = _signature(_exactly({"data": data, "metadata": metadata}), key(), context)
    except (NbqueueError, *_UNHOLDABLE):  # numbers that JSON has no word for, in a file from elsewhere
        return False
    return hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode())


def sign_anew(text: str, *, key: bytes, context: str) -> str | None:
    """Give the text of a display with this user's signature; None where it needs none, or can have none.

    Examples
    --------
    >>> sign_anew('{"data":{"text/plain":"7"},"metadata":{}}', key=b"secret", context="job 1") is None
    True
    """
    shown = read(text)
    if is_trusted(shown, key=lambda: key, context=context) or shown["data"].get(_JSON) == text:
        return None
    try:
        body = _exactly({"data": shown["data"], "metadata": shown["metadata"]})
        return _exactly({**shown, "signature": _signature(body, key, context)})
    except _UNHOLDABLE:  # numbers that JSON has no word for
        return None


def harmless(data: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a display that cannot run anything: its plain text and its raster images."""
    return {mime: value for mime, value in data.items() if _is_harmless(mime, value)}


def harmless_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a display's metadata that cannot run anything: how large its images are.

    Examples
    --------
    >>> harmless_metadata({"image/png": {"width": 300, "height": "1 onload=alert(1)"}})
    {'image/png': {'width': 300}}
    """
    return {
        mime: {name: sizes[name] for name in _SIZES if _is_size(sizes.get(name))}
        for mime, sizes in metadata.items()
        if mime in _RASTER and isinstance(sizes, dict)
    }


def plain(data: Mapping[str, Any]) -> str:
    """The plain text of a display, or the name of what it is.

    Examples
    --------
    >>> plain({"text/plain": "7", "text/html": "<b>7</b>"}), plain({"image/png": ""})
    ('7', '<image/png>')
    """
    text = data.get(_TEXT)
    return text if isinstance(text, str) else "".join(f"<{mime}>" for mime in list(data)[:1])


def _is_harmless(mime: str, value: object) -> bool:
    if mime == _TEXT:
        return isinstance(value, str)
    if isinstance(value, bytes):
        return mime in _RASTER
    return mime in _RASTER and isinstance(value, str) and _BASE64.fullmatch(value) is not None


def _is_size(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value <= _SIZE_MAX  # of NaN neither is true


def _holdable(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part that JSON can hold."""
    kept = {}
    for name, value in values.items() if isinstance(values, Mapping) else ():
        with contextlib.suppress(*_UNHOLDABLE):
            _dump({name: value})
            kept[name] = value
    return kept


def _dump(value: object) -> str:
    text = _exactly(value)
    return _exactly(showable(value)) if _SURROGATE in text else text


def _exactly(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_encoded)


def _encoded(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    msg = f"a {type(value).__name__} is nothing that JSON can hold"
    raise TypeError(msg)


def _signature(text: str, key: bytes, context: str) -> str:
    return base64.b64encode(signature_of(text.encode(), key, _PURPOSE, context)).decode()
