"""A message as bytes and back; only classes that were let travel do, and nothing that a message names is imported."""

from __future__ import annotations

import hashlib
import io
import pickle
from typing import Any

from nbqueue.errors import NotSupported
from nbqueue.wire import frames
from nbqueue.wire.makers import VALUES, WireError, made_by, parts_of
from nbqueue.wire.rows import in_columns

__all__ = ["SHAPE", "decode", "encode"]

# Arrays and DataFrames travel.
frames.let_frames_travel()


def _shape(kind: Any) -> str:
    fields = getattr(kind, "_fields", None) or getattr(kind, "__dataclass_fields__", None) or map(repr, kind)
    return f"{kind.__name__}({','.join(fields)})"


#: Another when any of the values is: two versions of nbqueue that would misread one another find out at once.
SHAPE = hashlib.sha256(";".join(map(_shape, VALUES)).encode()).digest()[:8]


class _Encoder(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        return parts_of(value)


class _Decoder(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return made_by(module, name)


def encode(message: object) -> bytes:
    """Give a message as bytes.

    Parameters
    ----------
    message : object
        Plain values (None, numbers, text, bytes, lists, tuples, dicts, sets), dates, UUIDs, decimals, arrays,
        DataFrames, the values of the Store contract, and those of the classes that ``allow`` was called with.

    Returns
    -------
    bytes

    Raises
    ------
    NotSupported
        For an object of any other class, which it names.

    Examples
    --------
    >>> from datetime import timedelta
    >>> decode(encode({"wait": timedelta(minutes=1), "ids": (1, 2)}))
    {'wait': datetime.timedelta(seconds=60), 'ids': (1, 2)}
    """
    out = io.BytesIO()
    try:
        _Encoder(out, protocol=5).dump(in_columns(message))
    except RecursionError as error:
        raise NotSupported("a message is nested too deeply to travel; flatten it") from error
    return out.getvalue()


def decode(data: bytes | bytearray | memoryview) -> Any:
    r"""Give the message that ``encode`` made bytes of.

    Raises
    ------
    WireError
        If they are damaged, or name anything that does not travel.

    Examples
    --------
    >>> decode(b"cos\nsystem\n.")
    Traceback (most recent call last):
    ...
    nbqueue.wire.makers.WireError: a message names os.system, which does not travel; nothing of it was run
    """
    try:
        return _Decoder(io.BytesIO(data)).load()
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"a message cannot be read ({type(error).__name__}: {error})") from error
