"""How texts and a worker's handlers are written down in PostgreSQL; connects to nothing."""

from __future__ import annotations

import json

from nbqueue.store import Handlers

__all__ = ["FOR_NUL", "handlers_of", "read_text", "write_handlers", "write_text"]

#: PostgreSQL keeps no NUL in a text; a code point that is no character, and never will be, stands for it.
_NUL, FOR_NUL = "\x00", "\uffff"


def write_text(text: str) -> str:
    r"""Give a text as PostgreSQL takes it: halves of characters are spelt out, as in a queue file.

    >>> write_text("caf\udce9")
    'caf\\udce9'
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text.replace(_NUL, FOR_NUL) if _NUL in text else text


def read_text(text: str | None) -> str:
    """Give a text as it was written, "" for none."""
    return text.replace(FOR_NUL, _NUL) if text else ""


def write_handlers(handlers: Handlers) -> str:
    """Give handlers as a JSON text, for other processes."""
    return json.dumps(
        {
            "commands": sorted(handlers.commands),
            "owned": sorted(handlers.owned),
            "code": sorted(handlers.code),
            "everything": handlers.everything,
        }
    )


def handlers_of(text: str) -> Handlers:
    """Give handlers out of their JSON text.

    >>> some = Handlers(frozenset({"mail"}), frozenset({("mine", "module:jobs")}))
    >>> handlers_of(write_handlers(some)) == some
    True
    """
    said = json.loads(text)
    return Handlers(
        frozenset(said["commands"]),
        frozenset((command, origin) for command, origin in said["owned"]),
        frozenset(said["code"]),
        said["everything"],
    )
