"""What Dramatiq's workers import."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

_URL = os.environ["NBQUEUE_BENCH_REDIS"] + "/1"

broker = RedisBroker(url=_URL)
broker.add_middleware(Results(backend=RedisBackend(url=_URL)))
dramatiq.set_broker(broker)


@dramatiq.actor
def nothing() -> None:
    """Do nothing."""


@dramatiq.actor(store_results=True)
def answer() -> int:
    """Do nothing and keep the result."""
    return 1
