"""Queues by their URL, as far as no server is needed: what is refused, what is missing, and that no password shows."""

from __future__ import annotations

import socket
import sys
import time

import pytest

import nbqueue as nbq
from nbqueue.facade.checkup import checkup
from nbqueue.facade.configuring import QueueConfig
from nbqueue.facade.trusting import foreign_in

SECRET = "open-sesame"
URL = f"postgresql://ada:{SECRET}@127.0.0.1:1/db?schema=x"


@pytest.mark.parametrize(
    "url", [URL, URL.replace("postgresql", "postgres"), URL.replace("postgresql", "PostgreSQL")]
)
def test_a_url_names_the_driver(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given to connect, or in $NBQUEUE_URL."""
    monkeypatch.setenv("NBQUEUE_URL", url)
    for config in (QueueConfig.read(url), QueueConfig.read(None)):
        assert (config.driver, config.path, config.location()) == ("postgresql", url, None)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"driver": "postgresql"}, "takes a URL for its path, such as 'postgresql://me@host/db'"),
        ({"driver": "postgresql", "path": "sqs://eu-west-1/jobs"}, "not 'sqs://eu-west-1/jobs'"),
        ({"driver": "sqs", "path": URL}, "driver 'sqs' takes a URL for its path"),
        ({"path": URL}, "is no file; give the URL to connect, or say driver='postgresql' as well"),
    ],
)
def test_a_config_that_contradicts_itself(given: dict[str, str], part: str) -> None:
    """A driver and a path that do not go together are refused, and no password is quoted."""
    with pytest.raises(nbq.QueueUnavailable) as caught:
        QueueConfig(**given)  # type: ignore[arg-type]
    assert part in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ada:{SECRET}@host:port/db",
        f"postgresql://ada:{SECRET}@host/db?schema=pg_x",
        f"postgresql://[ada:{SECRET}@host/db",
        f"postgresql://ada:{SECRET}/x@host/db",
        f"postgresql://ada:12/{SECRET}@host/db",
        f"mysql://ada:{SECRET}@host/db",
        f"sqs://ada:{SECRET}@eu-west-1/jobs",
        f"postgresql://127.0.0.1:1/db?user=ada&password={SECRET}",
        URL,
    ],
)
def test_what_is_wrong_with_a_url_is_a_sentence(url: str) -> None:
    """Malformed, or leading nowhere: one sentence, without the password that stands in it, also for doctor."""
    with pytest.raises(nbq.QueueError) as caught:
        nbq.connect(url)
    said = str(caught.value)
    assert SECRET not in said
    assert "\n" not in said
    cause = caught.value.__cause__
    assert SECRET not in repr(cause)
    if not url.startswith("mysql"):
        wrong = [found for found in checkup(url) if found.what == "server"]
        assert [found.ok for found in wrong] == [False]
        assert SECRET not in wrong[0].sentence


def test_a_password_that_is_a_common_word() -> None:
    """It is no reason to spoil the sentence: the name of the queue has none in it."""
    with pytest.raises(
        nbq.QueueUnavailable, match=r"^postgresql://postgres@127.0.0.1:1/postgres cannot be reached"
    ):
        nbq.connect("postgresql://postgres:postgres@127.0.0.1:1/postgres")


def test_no_password_in_the_repr() -> None:
    """Of a configuration; the path itself is whole."""
    config = QueueConfig.read(URL)
    assert repr(config) == (
        "QueueConfig(driver='postgresql', path='postgresql://ada:***@127.0.0.1:1/db?schema=x',"
        " default_queue='default', retention=None, keep=None)"
    )
    assert config.path == URL


@pytest.mark.parametrize(
    ("url", "package", "sentence"),
    [
        (URL, "psycopg", "need psycopg, which is not installed: pip install 'nbqueue[postgres]'"),
        ("sqs://eu-west-1/jobs", "boto3", "needs boto3, which is not installed: pip install 'nbqueue[sqs]'"),
    ],
)
def test_a_missing_extra_is_named(
    url: str, package: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the line that installs it."""
    for name in [
        name for name in sys.modules if name.startswith(("nbqueue.stores.postgres", "nbqueue.stores.sqs"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(nbq.NotSupported) as caught:
        nbq.connect(url)
    assert sentence in str(caught.value)


def test_only_a_file_is_signed_anew() -> None:
    """What is on a server is trusted by its secret."""
    with pytest.raises(nbq.NotSupported, match="NBQUEUE_SECRET"), foreign_in(URL):
        pass


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    """Who connects learns of it in the time that the URL gives it; a server whose kernel accepts says nothing yet."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(nbq.QueueUnavailable, match="cannot be reached"):
            nbq.connect(f"postgresql://ada@127.0.0.1:{port}/db?connect_timeout=2")
        assert time.monotonic() - start < 10
