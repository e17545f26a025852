"""What every executor must do whose jobs run in another process: derive ``ElsewhereConformance`` beside a ``bench``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

from nbqueue import payload
from nbqueue.errors import InvalidCommand
from nbqueue.lifecycle import Outcome
from nbqueue.store import Report
from tests.executors.conformance import Bench

__all__ = ["ElsewhereConformance", "said", "value"]


def value(report: Report) -> Any:
    """What a job returned."""
    assert report.outcome is Outcome.SUCCEEDED, report.error
    return payload.decode(report.result) if report.result else None


def said(report: Report, stream: str = "stdout") -> str:
    """What it wrote to a stream."""
    return "".join(chunk.text for chunk in report.logs if chunk.stream == stream)


class Dispatcher:
    """Takes what jobs dispatch."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def dispatch(self, work: Any, **options: Any) -> Any:
        """Take it."""
        assert not options
        if work.options.priority == 1_000:
            raise InvalidCommand("priority 1000 is too much")
        self.taken.append((work.command, work.args, work.options.priority))
        from nbqueue.facade.receipt import JobDispatch

        return JobDispatch(uuid.UUID(int=len(self.taken)), work.command, "default")


class ElsewhereConformance:
    """What reaches a job that runs in another process, and what it says; its jobs are ``CHILD_JOBS``."""

    def test_jobs_dispatch_through_their_worker(self, bench: Callable[..., Bench]) -> None:
        """ctx.dispatch, nbq.dispatch and adispatch hand in work where the job came from; a refusal is raised."""
        one, dispatcher = bench(), Dispatcher()
        object.__setattr__(one.runner.services, "dispatcher", dispatcher)
        found = value(one.run("dispatch_more", 7))
        assert found == [str(uuid.UUID(int=1)), str(uuid.UUID(int=2)), "default", "dispatch_more"]
        assert value(one.run("dispatch_more_async", 9)) == str(uuid.UUID(int=3))
        assert dispatcher.taken == [("more", (7,), 5), ("more", (8,), None), ("more", (9,), None)]
        wrong = one.run("dispatch_wrongly")
        assert (wrong.outcome, wrong.kinds[0]) == (Outcome.FAILED, "nbqueue.errors.InvalidCommand")

    def test_progress_is_the_latest(self, bench: Callable[..., Bench]) -> None:
        """A job that counts a hundred thousand steps is told of now and then, and its last word is kept."""
        report = bench().run("count_far")
        assert report.outcome is Outcome.SUCCEEDED
        assert json.loads(report.progress)["done"] == 100_000
