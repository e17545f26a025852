"""The public surface on SQS, as far as it differs: what it says of itself, and what it cannot do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

import nbqueue as nbq
from nbqueue.cli import terminal
from nbqueue.cli.commands import main
from nbqueue.facade.checkup import checkup
from nbqueue.widgets.panel.feed import Feed


@pytest.fixture
def url(sqs_endpoint: str, request: pytest.FixtureRequest) -> str:
    """Where no other test has a queue."""
    return f"sqs://eu-west-1/facade-{abs(hash(request.node.name))}?endpoint={sqs_endpoint}&wait=1"


@pytest.fixture
def queues(url: str) -> Iterator[nbq.QueueManager]:
    with nbq.connect(url) as opened:
        yield opened


def test_jobs_run_and_what_is_seen_is_said(queues: nbq.QueueManager, url: str) -> None:
    """Results come back; who opens it, and the panel, are told that it shows only what this process has seen."""

    @nbq.job
    def double(number: int) -> int:
        return 2 * number

    with queues.worker():
        assert double.dispatch(21).result(timeout=30) == 42
    assert list(queues.jobs()["state"]) == ["succeeded"]
    where, notice = terminal.opening(queues).splitlines()
    assert where.startswith(queues.name)
    assert notice.startswith("Frames and panels show what this process has dispatched and run")
    state = Feed(queues).state
    assert state.get("notice") == {"level": "note", "text": notice}
    assert state.get("queues")[0]["paused"] is None
    with nbq.connect(nbq.QueueConfig(driver="sqs", path=url)) as again:
        assert again.store is queues.store


def test_what_it_cannot_do_is_a_sentence(queues: nbq.QueueManager, url: str) -> None:
    """From Python and from the command line, before anything is done."""
    with pytest.raises(nbq.NotSupported) as caught:
        queues.pause("default")
    result = CliRunner().invoke(main, ["pause", "default", "--db", url])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, f"Error: {caught.value}")
    assert not queues.can("pause")


def test_doctor_looks_at_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is not made; a queue without dead letters is wrong; without credentials it is one sentence."""
    found = {finding.what: finding for finding in checkup(url)}
    assert found["server"].ok
    assert "is no queue" in found["queue"].sentence
    nbq.connect(url).close()
    found = {finding.what: finding for finding in checkup(url)}
    assert (found["queue"].ok, found["queue"].sentence) == (True, "1 queue in SQS: default")
    assert "dead letters" not in found
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (server,) = [finding for finding in checkup(url) if finding.what == "server"]
    assert server.ok is False
    assert "credentials" in server.sentence
