"""Values that a job's way makes as the tuples that they are: whoever adds a field to one must add it there too."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from nbqueue.jobs import Claim, Spec
from nbqueue.lifecycle import Claimed, Ended, Life, Outcome, advance
from nbqueue.running.run import Runner, Services
from nbqueue.store import Handlers, Report, ReportKind, WorkerInfo
from nbqueue.stores.live import LiveJob, Seat
from nbqueue.testing import FakeClock, new_job

SERVICES = Services(
    key=bytes,
    dispatcher=None,  # type: ignore[arg-type]
    live_call=lambda _: None,
    on_value=lambda _claim, _value: None,
)
CLAIM = Claim(uuid.uuid4(), 7, 1, 1, None, Spec("work"), "", "")


def test_a_report_is_whole() -> None:
    """An attempt without a handler says by name all that its constructor would."""
    attempt = Runner(lambda _: None, SERVICES, clock=lambda: 5.0).begin(CLAIM)
    report = attempt.run(lambda call, _: call())
    assert report == Report(CLAIM, ReportKind.RELEASED, started_at=5.0, finished_at=5.0)
    assert len(report) == len(Report._fields)


@pytest.mark.parametrize("what", [Claimed(3, 2), Ended(2, Outcome.SUCCEEDED, ())])
def test_a_step_is_whole(what: Any) -> None:
    """What the shortest ways through the lifecycle give has every field, in its place."""
    before = (
        Life(fence=2)
        if isinstance(what, Claimed)
        else advance(Life(), Claimed(2, 2), Spec("work"), now=0.0).life
    )
    step = advance(before, what, Spec("work"), now=0.0)
    assert step == type(step)(**step._asdict())
    assert step.life == Life(**step.life._asdict())
    assert (type(step.life), step.life.tries, step.refusal) == (Life, 2, "")


def test_a_claim_is_whole() -> None:
    """A claim tells by name what the job and its life say."""
    new = new_job(FakeClock(), payload="[7]", metadata='{"a":1}', batch_id=uuid.uuid4(), row="9", timeout=3.0)
    life = Life(attempt=2, base=1, fence=7, tries=3)
    seat = Seat(WorkerInfo(worker_id="w1"), 1, Handlers(), lambda _: None, 0.0)
    assert seat.claim_of(LiveJob(1, new, 0, 0.0, life)) == Claim(
        job_id=new.job_id, fence=7, attempt=2, max_attempts=4, timeout=3.0, spec=new.spec, payload="[7]",
        metadata='{"a":1}', batch_id=new.batch_id, row="9",
    )  # fmt: skip
