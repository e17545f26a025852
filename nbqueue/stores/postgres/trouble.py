"""What goes wrong between a process and its PostgreSQL: whether it passes, and one sentence for it."""

from __future__ import annotations

import psycopg
from psycopg import errors

from nbqueue.errors import DispatchFailed, QueueError, QueueUnavailable
from nbqueue.stores.postgres.address import Address

__all__ = ["is_lost", "is_passing", "is_starting", "sentence", "unavailable"]

#: What another try may mend although the connection holds.
_PASSING = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.TooManyConnections,
    # Somebody has made the same meanwhile, perhaps the last try of this very verb.
    errors.UniqueViolation,
    # The server that took writes is a standby now; another connection may find the one that does.
    errors.ReadOnlySqlTransaction,
)
#: What a server says to somebody who connects, and does not say in a minute; libpq gives no code for these.
_PASSING_WORDS = (
    "starting up",
    "shutting down",
    "in recovery",
    "not yet accepting",
    "too many clients",
    "too many connections",
    "remaining connection slots",
)
_FOR_GOOD = (
    ("password authentication failed", "the password or the user is wrong"),
    ("no password supplied", "it asks for a password, and the URL has none"),
    ("role", "there is no such user"),
    ("no pg_hba.conf entry", "it does not let this user in from here"),
    ("permission denied for database", "this user may not connect to that database"),
    ("does not support SSL", "it has no TLS, and the URL asks for it"),
    ("certificate", "its certificate is not trusted here"),
    ("server does not support", "it is no PostgreSQL server that libpq can talk to"),
)


def is_lost(error: BaseException, connection: psycopg.Connection | None) -> bool:
    """Whether the connection has gone, and with it the answer."""
    if connection is not None and connection.closed:
        return True
    return isinstance(error, errors.AdminShutdown | errors.CrashShutdown)


def is_passing(error: psycopg.Error, connection: psycopg.Connection | None) -> bool:
    """Whether the same verb may do better in a moment."""
    if isinstance(error, _PASSING):
        return True
    if connection is not None:
        return is_lost(error, connection)
    return isinstance(error, psycopg.OperationalError) and not _for_good(error)


def is_starting(error: psycopg.Error) -> bool:
    """Whether a server is there, and lets nobody in for the moment."""
    return any(words in str(error) for words in _PASSING_WORDS)


def _for_good(error: psycopg.Error) -> str:
    """Why trying again is of no use; "" where it may be."""
    said = str(error)
    if "database" in said and "does not exist" in said:
        return "there is no such database; make it with `createdb`, or name another in the URL"
    if is_starting(error):
        return ""
    for words, why in _FOR_GOOD:
        if words in said:
            return why
    return ""


def sentence(error: BaseException, address: Address) -> str:
    """Say what is wrong in one sentence, without a password."""
    why = _for_good(error) if isinstance(error, psycopg.Error) else ""
    # Its name has no password in it, and may well have the same word for the user or the database.
    return f"{address.name} cannot be reached: {why or address.hide(_short(error))}"


def unavailable(error: BaseException, address: Address, *, after: float = 0.0) -> QueueError:
    """Give the error that callers see."""
    if isinstance(error, errors.DiskFull | errors.OutOfMemory):
        return DispatchFailed(f"{address.name} has no room to keep it: {address.hide(_short(error))}")
    tried = f" (tried for {after:.0f} s)" if after >= 1.0 else ""
    if isinstance(error, errors.InsufficientPrivilege):
        return QueueUnavailable(f"this user may not do that on {address.name}: {address.hide(_short(error))}")
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        said = address.hide(_short(error))
        return QueueUnavailable(
            f"the queue of {address.name} has gone: {said}; connect again to make a new one"
        )
    if (
        isinstance(error, psycopg.Error)
        and error.sqlstate
        and not isinstance(error, psycopg.OperationalError)
    ):
        return QueueUnavailable(f"{address.name} says no: {address.hide(_short(error))}")
    return QueueUnavailable(sentence(error, address) + tried)


def _short(error: BaseException) -> str:
    """The last thing that was said, without libpq's account of how it came to say it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    refused = next((line for line in lines if "FATAL:" in line), lines[0])
    said = refused.rpartition("FATAL:")[2].strip()
    if isinstance(error, psycopg.OperationalError) and "failed: " in said:
        said = said.rpartition("failed: ")[2]
    return said
