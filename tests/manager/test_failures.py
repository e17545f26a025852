"""Failures are grouped by what they have in common, and can be retried as a group."""

from __future__ import annotations

import pytest

import nbqueue as nbq
from nbqueue.errors import InvalidCommand


def price(row: dict) -> int:
    return row["price"]


def parse(text: str) -> int:
    return int(text)


@pytest.fixture
def failed(tmp_path):
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        for item in ({"cost": 1}, {"cost": 2}, {}):
            nbq.job(price).dispatch(item)
        for text in ("x", "7"):
            nbq.job(parse).dispatch(text)
        with queues.worker() as worker:
            worker.drain()
        yield queues


def test_grouped(failed):
    """One row for each place that fails, the most frequent first, and none for what succeeded."""
    found = failed.failures()
    line = price.__code__.co_firstlineno + 1
    assert list(found["fingerprint"]) == [
        f"KeyError at test_failures.py:{line} in price",
        f"ValueError at test_failures.py:{line + 4} in parse",
    ]
    assert list(found["jobs"]) == [3, 1]
    assert list(found["command"]) == ["price", "parse"]
    assert (found["first_at"] <= found["last_at"]).all()
    assert found["error"][0] == "KeyError: 'price'"
    assert list(failed.failures(command="parse")["jobs"]) == [1]


def test_retry_a_group(failed):
    """Only the jobs of that failure run again."""
    first = failed.failures()["fingerprint"][0]
    assert set(failed.jobs(fingerprint=first)["command"]) == {"price"}
    assert failed.retry_all(fingerprint=first) == 3
    assert set(failed.jobs(state="pending")["command"]) == {"price"}
    assert list(failed.failures()["command"]) == ["parse"]


def test_timeout_and_attempts(tmp_path):
    """A timeout has a fingerprint, and each attempt has its own."""
    import threading

    @nbq.job(tries=2, timeout=0.05, backoff=0)
    def slow(ctx):
        while not ctx.should_stop():
            threading.Event().wait(0.01)
        ctx.raise_if_stopped()

    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        slow.dispatch()
        with queues.worker() as worker:
            worker.drain()
        assert list(queues.failures()["fingerprint"]) == ["timeout of 0.05 s in slow"]
        assert list(queues.attempts()["fingerprint"]) == ["timeout of 0.05 s in slow"] * 2


def test_none_failed(tmp_path):
    """An empty queue has no failures, with the columns and dtypes of others."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        found = queues.failures()
        assert not len(found)
        assert str(found["first_at"].dtype) == "datetime64[us, UTC]"
        with pytest.raises(InvalidCommand):
            queues.failures(batch="nonsense")
