"""What the errors of this package say: the one of its own, and how they name a value, a key and another error."""

from __future__ import annotations

from nbqueue.errors import NbqueueError

__all__ = ["REMADE", "UnknownType", "kind_of", "shown", "told"]

#: What to pass instead of what cannot be stored.
REMADE = "what it can be made from (a path, a URL, an id), and make it inside the job"


class UnknownType(NbqueueError):
    """A stored value that this process cannot rebuild: its class is not here, has changed, or the row is damaged."""

    __module__ = "nbqueue.payload"  # where it is public, and what tracebacks call it


def kind_of(value: object) -> str:
    """The name of its type, with the module where that is not the builtins."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def shown(name: object) -> str:
    """The beginning of its repr, or its type where it has none."""
    try:
        return repr(name)[:60]
    except Exception:  # noqa: BLE001 - a key of the user's class, or an integer too long for Python to show
        return f"<{kind_of(name)}>"


def told(error: BaseException) -> str:
    """An error as its type and what it says."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
