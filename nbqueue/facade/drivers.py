"""What kinds of queue there are beside the file and the memory: what each needs, and what opens it; knows no jobs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable, Iterator
from typing import NamedTuple, Protocol

from nbqueue.errors import NotSupported
from nbqueue.secret import load_secret
from nbqueue.store import Store

__all__ = [
    "SCHEMES",
    "SERVERS",
    "Address",
    "Server",
    "address_of",
    "is_there",
    "needing",
    "open_store",
    "veiled",
]


class Server(NamedTuple):
    """A kind of queue that is on a server."""

    title: str
    #: What it is reached with, and the extra that brings it.
    package: str
    extra: str
    #: A URL of one.
    example: str


#: By the name of the driver.
SERVERS = {
    "postgresql": Server("PostgreSQL", "psycopg", "postgres", "postgresql://me@host/db"),
    "sqs": Server("SQS", "boto3", "sqs", "sqs://eu-west-1/jobs"),
}
#: The driver of a URL, by what it begins with.
SCHEMES = {"duckdb": "duckdb", "postgres": "postgresql", "postgresql": "postgresql", "sqs": "sqs"}

#: The user's password ends at the last @, as a person may have left one in it as it is.
_PASSWORD = re.compile(r"(?<=://)([^:@/?]*):.*@|(?<=[?&])((?:ssl)?password)=[^&]*")


class Address(Protocol):
    """Where a queue on a server is."""

    @property
    def name(self) -> str:
        """What people call it: the URL without its password."""

    @property
    def key(self) -> Hashable:
        """What two URLs of one queue have in common."""


def veiled(text: str) -> str:
    """Give a text without the passwords of the URLs in it.

    >>> veiled("postgresql://ada:l0vel@ce@host/db?schema=x"), veiled("postgresql://host/db?user=ada&password=x")
    ('postgresql://ada:***@host/db?schema=x', 'postgresql://host/db?user=ada&password=***')
    """
    return _PASSWORD.sub(lambda found: f"{found[2]}=***" if found[2] else f"{found[1]}:***@", text)


def address_of(driver: str, url: str) -> Address:
    """Read the URL of a queue on a server; nothing is connected.

    Raises
    ------
    QueueUnavailable, InvalidCommand
        For one that names no queue; the sentence has no password in it.
    NotSupported
        Where the package is missing that it takes.
    """
    with needing(SERVERS[driver]):
        if driver == "postgresql":
            from nbqueue.stores.postgres import address as postgres

            return postgres.read(url)
        from nbqueue.stores.sqs import address as sqs

        return sqs.read(url)


def open_store(driver: str, url: str) -> Store:
    """Open a queue on a server.

    Raises
    ------
    QueueUnavailable
        Where it cannot be had; the sentence says why.
    NotSupported
        Where the package is missing that it takes.
    """
    with needing(SERVERS[driver]):
        if driver == "postgresql":
            from nbqueue.stores.postgres.store import PostgresStore

            return PostgresStore(url)
        from nbqueue.stores.sqs.store import SQSStore

        return SQSStore(url, secret=load_secret)


def is_there(driver: str, url: str) -> bool:
    """Whether there is such a queue already, so that opening it makes nothing; of SQS its URL says what may be made."""
    if driver != "postgresql":
        return True
    with needing(SERVERS[driver]):
        from nbqueue.stores.postgres.link import Link
        from nbqueue.stores.postgres.tables import are_made

        link = Link(url)
        try:
            return are_made(link)
        finally:
            link.close()


@contextlib.contextmanager
def needing(server: Server) -> Iterator[None]:
    """Say what to install, where what is done within cannot be imported."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("nbqueue"):
            raise
        # psycopg without libpq has an account of several lines.
        said = str(error).partition("\n")[0].rstrip(".")
        why = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be used ({said})"
        raise NotSupported(
            f"{server.title} queues need {server.package}, which {why}: pip install 'nbqueue[{server.extra}]'"
        ) from error
