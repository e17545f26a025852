"""What a running job sees of itself, and how it reports and stops."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import pickle
import threading
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from nbqueue.errors import InvalidCommand, NbqueueError
from nbqueue.executor import StopReason
from nbqueue.jobs import Claim, Spec
from nbqueue.payload import encode
from nbqueue.running.capture import Capture, uninstall
from nbqueue.running.context import Context, JobStopped, NotInJob, current, entering


class Notes:
    """A dispatcher that writes down what it was handed."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, dict[str, Any]]] = []

    def dispatch(self, work: Any, **options: Any) -> str:
        self.taken.append((work, options))
        return "receipt"

    async def adispatch(self, work: Any, **options: Any) -> str:
        return self.dispatch(work, **options)


def context_of(dispatcher: Notes | None = None, *, started: float | None = None, **claim: Any) -> Context:
    spec = Spec("import:data", queue="imports")
    fields = {"job_id": uuid.uuid4(), "fence": 1, "attempt": 2, "max_attempts": 3, "timeout": None}
    made = Claim(**{**fields, "spec": spec, "payload": "{}", "metadata": "", **claim})
    return Context(made, dispatcher or Notes(), started=started)


def test_it_says_who_the_job_is() -> None:
    """Id, command, queue, attempts and batch are those of the claim."""
    job_id, batch_id = uuid.uuid4(), uuid.uuid4()
    ctx = context_of(job_id=job_id, batch_id=batch_id)
    assert (ctx.job_id, ctx.command, ctx.queue) == (job_id, "import:data", "imports")
    assert (ctx.attempt, ctx.max_attempts, ctx.batch_id) == (2, 3, batch_id)
    assert "import:data" in repr(ctx)
    assert "attempt 2 of 3" in repr(ctx)


def test_metadata_comes_back_as_it_went() -> None:
    """Metadata is the dict that was attached, with the types it had, and empty where there was none."""
    metadata = {"user_id": 7, "price": Decimal("2.50")}
    assert context_of(metadata=encode(metadata)).metadata == metadata
    assert context_of().metadata == {}


def test_current_is_the_running_job() -> None:
    """Inside a job current() is its context, in a nested one the inner's, and afterwards there is none."""
    outer, inner = context_of(), context_of()
    with entering(outer) as entered:
        assert current() is outer is entered
        with entering(inner):
            assert current(None) is inner
        assert current() is outer
    assert current(None) is None


def test_outside_of_a_job_current_explains_itself() -> None:
    """Where no job runs, current() raises a sentence that says what to write, unless it is given a default."""
    with pytest.raises(NotInJob, match=r"no job runs here.*current\(None\)") as caught:
        current()
    assert isinstance(caught.value, NbqueueError)
    assert current("nobody") == "nobody"


def test_each_thread_and_task_has_its_own() -> None:
    """The current job is not that of another thread, and tasks that take turns keep theirs."""
    seen: list[Context | None] = []
    ctx = context_of()
    with entering(ctx):
        thread = threading.Thread(target=lambda: seen.append(current(None)))
        thread.start()
        thread.join(10)
        copied = contextvars.copy_context()
        thread = threading.Thread(target=lambda: seen.append(copied.run(current)))
        thread.start()
        thread.join(10)
    assert seen == [None, ctx]

    async def job(mine: Context) -> bool:
        with entering(mine):
            await asyncio.sleep(0)
            return current() is mine

    async def both() -> list[bool]:
        return await asyncio.gather(job(context_of()), job(context_of()))

    assert asyncio.run(both()) == [True, True]


def test_a_job_dispatches_to_where_it_came_from() -> None:
    """dispatch and adispatch hand work and options to the dispatcher the context was made with."""
    notes = Notes()
    ctx = context_of(notes)
    assert ctx.dispatch("work", delay=5) == "receipt"
    assert asyncio.run(ctx.adispatch("more")) == "receipt"
    assert notes.taken == [("work", {"delay": 5}), ("more", {})]


# ------------------------------------------------------------------------------------- progress
def test_progress_is_told_once() -> None:
    """The latest word is given as JSON, and nothing while nothing has changed."""
    ctx = context_of()
    assert ctx.take_progress() == ""
    ctx.progress(1, 10)
    ctx.progress(2, 10, "users.csv")
    assert json.loads(ctx.take_progress()) == {"done": 2, "total": 10, "note": "users.csv"}
    assert ctx.take_progress() == ""
    ctx.progress(2, 10, "users.csv")
    assert ctx.take_progress() == ""
    ctx.progress(2.5)
    assert json.loads(ctx.take_progress()) == {"done": 2.5, "total": None, "note": ""}


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "3", True, Decimal(3), None])
def test_progress_takes_numbers_only(bad: Any) -> None:
    """What is no number, negative or not finite is refused by name, and the last word stays."""
    ctx = context_of()
    ctx.progress(1)
    with pytest.raises(InvalidCommand, match="done was"):
        ctx.progress(bad)
    if bad is not None:
        with pytest.raises(InvalidCommand, match="total was"):
            ctx.progress(1, bad)
    assert json.loads(ctx.take_progress())["done"] == 1


def test_progress_takes_every_kind_of_number() -> None:
    """A fraction and numpy's numbers count as numbers."""
    import numpy as np

    ctx = context_of()
    ctx.progress(np.int64(3), np.float32(4))
    assert ctx.take_progress() == '{"done":3,"total":4.0,"note":""}'
    ctx.progress(Fraction(1, 2))
    assert json.loads(ctx.take_progress())["done"] == 0.5


def test_track_counts_what_is_done() -> None:
    """track gives every item and counts it once it is worked off, with a total where it can be known."""
    ctx = context_of()
    told = [(item, json.loads(ctx.take_progress())["done"]) for item in ctx.track(["a", "b"], note="files")]
    assert told == [("a", 0), ("b", 1)]
    assert json.loads(ctx.take_progress()) == {"done": 2, "total": 2, "note": "files"}
    assert list(ctx.track(iter("xy"))) == ["x", "y"]
    assert json.loads(ctx.take_progress())["total"] is None
    assert list(ctx.track((c for c in "xy"), total=2)) == ["x", "y"]
    assert json.loads(ctx.take_progress())["total"] == 2


# ------------------------------------------------------------------------------------- stopping
def test_a_job_is_told_to_stop_from_another_thread() -> None:
    """A request to stop from the supervisor's thread is seen by the job, and the first reason stays."""
    ctx = context_of()
    asked = threading.Event()
    seen: list[object] = []

    def job() -> None:
        seen.append(ctx.should_stop())
        ctx.raise_if_stopped()
        assert asked.wait(10)
        try:
            ctx.raise_if_stopped()
        except Exception:
            seen.append("swallowed")
        except JobStopped as stop:
            seen.append(stop.reason)

    thread = threading.Thread(target=job)
    thread.start()
    ctx.request_stop(StopReason.TIMEOUT)
    ctx.request_stop(StopReason.SHUTDOWN)
    asked.set()
    thread.join(10)
    assert seen[-1] is StopReason.TIMEOUT
    assert "swallowed" not in seen
    assert (ctx.should_stop(), ctx.stop_reason) == (True, StopReason.TIMEOUT)


@pytest.mark.parametrize("reason", list(StopReason))
def test_every_reason_to_stop_has_a_sentence(reason: StopReason) -> None:
    """JobStopped says why, and says so still after it has crossed a process border."""
    stop = JobStopped(reason)
    assert "told to stop" in str(stop)
    assert not isinstance(stop, Exception)
    again = pickle.loads(pickle.dumps(stop))
    assert (again.reason, str(again)) == (reason, str(stop))


def test_seconds_left_counts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of the timeout counts from when the job started and never goes below nothing."""
    now = 100.0
    monkeypatch.setattr("nbqueue.running.context.monotonic", lambda: now)
    assert context_of().seconds_left() is None
    ctx = context_of(timeout=60.0)
    assert ctx.seconds_left() == 60
    now = 145.0
    assert ctx.seconds_left() == 15
    assert context_of(timeout=60.0, started=90.0).seconds_left() == 5
    now = 500.0
    assert ctx.seconds_left() == 0


# ------------------------------------------------------------------------------------------ log
def test_the_jobs_own_log_shows_info(monkeypatch: pytest.MonkeyPatch) -> None:
    """ctx.log writes into the job's log from INFO up, though the root is at WARNING."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    ctx = context_of()
    try:
        with entering(ctx), ctx.capture:
            ctx.log.debug("too small")
            ctx.log.info("resizing %s", "a.png")
    finally:
        uninstall()
    assert [tuple(chunk)[:2] for chunk in ctx.capture.drain()] == [
        ("log", "INFO nbqueue.job: resizing a.png\n")
    ]


def test_a_context_takes_the_capture_it_is_given() -> None:
    """The executor may hand in a capture of its own."""
    capture = Capture()
    claim = context_of().claim
    assert Context(claim, Notes(), capture).capture is capture
