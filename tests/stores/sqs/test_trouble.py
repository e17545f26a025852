"""Whatever is wrong with SQS or the way there is one sentence, and takes no longer than it may."""

from __future__ import annotations

import builtins
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbqueue.errors import DispatchFailed, NotSupported, QueueUnavailable
from nbqueue.store import Selection
from nbqueue.stores.sqs.client import Limits
from nbqueue.stores.sqs.store import SQSStore
from nbqueue.testing import FakeClock
from nbqueue.testing.workers import FakeWorker, new_job
from tests.stores.sqs.trouble import black_hole, closed_port, refusing

QUICK = Limits(connect=0.5, read=0.3, tries=2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    # Botocore waits up to a second or two between tries.
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    return tmp_path


def fails(endpoint: str, folder: Path, options: str = "") -> str:
    """The sentence with which a queue cannot be opened; nothing is left of it."""
    began = time.monotonic()
    with pytest.raises(QueueUnavailable) as caught:
        SQSStore(f"sqs://eu-west-1/team?endpoint={endpoint}{options}", folder=folder, limits=QUICK)
    assert time.monotonic() - began < 10.0
    assert list(folder.glob("sqs*")) == []
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    ("status", "code", "says", "asked"),
    [
        (403, "InvalidClientTokenId", "does not take these credentials (InvalidClientTokenId: as told)", 1),
        (403, "SignatureDoesNotMatch", "does not take these credentials", 1),
        (400, "ExpiredToken", "does not take these credentials", 1),
        (403, "RequestTimeTooSkewed", "finds the clock of this machine wrong (RequestTimeTooSkewed: as told)", 1),
        (403, "AccessDeniedException", "does not allow sqs:GetQueueUrl on team__default to these credentials", 1),
        (400, "ThrottlingException", "turns requests down for now (ThrottlingException); it was tried 2 times", 2),
        (503, "ServiceUnavailable", "turns requests down for now", 2),
        (400, "InternalFailure", "refused sqs:GetQueueUrl on team__default (InternalFailure: as told)", 1),
    ],
)  # fmt: skip
def test_what_sqs_says(folder: Path, status: int, code: str, says: str, asked: int) -> None:
    """Each kind of refusal has its own sentence, with what to do; only what may pass is tried again."""
    with refusing(status, code) as (endpoint, server):
        assert says in fails(endpoint, folder)
        assert server.requests == asked


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("The signature does not match.", "does not take these credentials"),
        ("Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z", "finds the clock of this machine"),
    ],
)  # fmt: skip
def test_a_signature_that_is_refused(folder: Path, said: str, says: str) -> None:
    """SQS repeats the request, and its token, to who signed it wrongly; nobody here does."""
    request = "\n\nThe Canonical String was\nPOST\nx-amz-security-token:open-sesame-42"
    with (
        refusing(403, "InvalidSignatureException", said + request) as (endpoint, _),
        pytest.raises(QueueUnavailable) as caught,
    ):
        SQSStore(f"sqs://eu-west-1/team?endpoint={endpoint}", folder=folder, limits=QUICK)
    assert says in str(caught.value)
    assert said in str(caught.value)
    assert "open-sesame-42" not in "".join(traceback.format_exception(caught.value))


def test_nobody_is_there(folder: Path) -> None:
    """A closed port is told at once."""
    assert "nobody answers at sqs://eu-west-1/team" in fails(closed_port(), folder)


def test_never_an_answer(folder: Path) -> None:
    """An endpoint that takes the request and is silent costs its time limit, and no more."""
    with black_hole() as endpoint:
        assert "did not answer within 0.3 s" in fails(endpoint, folder)


def test_no_credentials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any credentials it is said where they go."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "there are no credentials for sqs://eu-west-1/team" in fails(closed_port(), folder)


def test_no_such_profile(folder: Path) -> None:
    """A profile that is not there is named."""
    assert "there is no profile 'nobody'" in fails(closed_port(), folder, "&profile=nobody")


def test_without_boto3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where boto3 is missing, it is said how to get it."""
    real = builtins.__import__

    def no_boto3(name: str, *rest: Any) -> Any:
        if name == "boto3":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_boto3)
    with pytest.raises(NotSupported, match=r"pip install 'nbqueue\[sqs\]'"):
        SQSStore("sqs://eu-west-1/team", folder=folder)


@pytest.mark.parametrize("code", ["ThrottlingException", "InvalidClientTokenId"])
def test_a_dispatch_that_cannot_be_sent(
    opened: Callable[..., SQSStore], clock: FakeClock, folder: Path, code: str
) -> None:
    """A dispatch that SQS turns down says so, and nothing of it is in the ledger."""
    store = opened()
    with refusing(400, code) as (endpoint, _):
        elsewhere(store, endpoint)
        with pytest.raises(DispatchFailed, match="nothing of this call was sent"):
            store.insert([new_job(clock) for _ in range(3)])
        assert store.find(Selection()) == []
        elsewhere(store, store.address.endpoint)
    store.insert([new_job(clock)])


def test_a_dispatch_without_an_answer(
    opened: Callable[..., SQSStore], clock: FakeClock, folder: Path
) -> None:
    """Where nobody answered, it is not claimed that nothing was sent; a message that was is taken when it comes."""
    store = opened(limits=QUICK)
    job = new_job(clock)
    with black_hole() as endpoint:
        elsewhere(store, endpoint)
        with pytest.raises(DispatchFailed, match=f"sent, but without an answer, .*{job.job_id}"):
            store.insert([job])
        elsewhere(store, store.address.endpoint)
    assert store.find(Selection()) == []


def test_a_worker_goes_on_through_an_outage(
    opened: Callable[..., SQSStore], clock: FakeClock, folder: Path
) -> None:
    """What ended while SQS was away is in the ledger, and is told to SQS when it is back."""
    store = opened()
    store.insert([new_job(clock)])
    worker = FakeWorker(store)
    claim = worker.take_one()
    with refusing(400, "ThrottlingException") as (endpoint, _):
        elsewhere(store, endpoint)
        with pytest.raises(QueueUnavailable, match="turns requests down"):
            worker.end(claim)
        assert store.get([claim.job_id])[0].state.ended
        elsewhere(store, store.address.endpoint)
    worker.turn()
    clock.advance(100.0)
    assert worker.take() == []


def elsewhere(store: SQSStore, endpoint: str) -> None:
    """Lead the requests of a store to another server; the queues stay known."""
    for wait in (0.0,):
        client = store._client._client(wait)
        client._endpoint.host = endpoint
        # Queues are asked by their own URL.
        client.meta.events.unregister("before-sign.sqs", unique_id="nbqueue-test")
        client.meta.events.register_last(
            "before-sign.sqs",
            lambda request, **_: setattr(request, "url", f"{endpoint}/"),
            unique_id="nbqueue-test",
        )
