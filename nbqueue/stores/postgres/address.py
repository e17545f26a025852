"""Where a queue in PostgreSQL is, as its URL says it; connects to nothing."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from nbqueue.errors import InvalidCommand

__all__ = ["SCHEMA", "Address", "read"]

#: Where a queue's tables are, unless its URL says otherwise.
SCHEMA = "nbqueue"

_EXAMPLE = "postgresql://user:password@host:5432/database?schema=nbqueue"
#: PostgreSQL cuts longer names, silently.
_NAME_BYTES = 63


class Address(NamedTuple):
    """One queue on one server."""

    #: What people call it: the URL without its password.
    name: str
    #: Two URLs of one key are the same queue.
    key: str
    #: What libpq connects to, the password included.
    dsn: str
    schema: str
    #: What no sentence may show.
    password: str

    def __repr__(self) -> str:
        return f"Address({self.name!r})"

    def hide(self, text: str) -> str:
        """Give a text without the password."""
        for secret in {self.password, quote(self.password, safe="")} - {""}:
            text = text.replace(secret, "***")
        return text


def read(url: str) -> Address:
    """Read ``postgresql://user:password@host:port/database?schema=…``; what libpq knows besides may follow.

    Parameters
    ----------
    url : str
        ``schema`` is ours; every other parameter (``sslmode``, ``host`` …) goes to libpq.

    Raises
    ------
    InvalidCommand
        If it is no such URL.

    >>> read("postgresql://me:hush@db.example/jobs").name
    'postgresql://me@db.example:5432/jobs'
    >>> read("postgres:///jobs?schema=night").schema
    'night'
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        # What urllib says may quote the password, so it is no cause that a traceback would show.
        raise InvalidCommand(f"the URL of the queue cannot be read; write {_EXAMPLE}") from None
    if "@" in parts.path:
        raise InvalidCommand(
            'the URL of the queue cannot be read: in a user or a password "/" is written %2F and "@" %40'
        )
    if parts.scheme not in ("postgresql", "postgres"):
        raise InvalidCommand(f'a PostgreSQL URL begins with "postgresql://"; write {_EXAMPLE}')
    # To libpq "+" is a plus.
    known = dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))
    password = unquote(parts.password or "") or known.get("password", "")
    schema = known.pop("schema", SCHEMA)
    if (
        not schema
        or not schema.isprintable()
        or len(schema.encode()) > _NAME_BYTES
        or schema.startswith("pg_")
    ):
        raise InvalidCommand(
            f"{schema!r} cannot be the name of a schema: give 1 to {_NAME_BYTES} letters that do not begin with pg_"
        )
    user = unquote(parts.username or "") or known.get("user", "")
    host = parts.hostname or known.get("host", "")
    database = unquote(parts.path.strip("/")) or known.get("dbname", "") or user
    place = f"{host}:{known.get('port', port)}" if host else ""
    shown = f"postgresql://{quote(user) + '@' if user else ''}{place}/{quote(database)}"
    name = shown if schema == SCHEMA else f"{shown}?schema={quote(schema)}"
    dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(known, quote_via=quote), ""))
    return Address(name, f"{shown}?schema={schema}", dsn, schema, password)
