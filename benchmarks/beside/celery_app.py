"""What Celery's worker imports."""

from __future__ import annotations

import os

from celery import Celery  # type: ignore[import-untyped]

_URL = os.environ["NBQUEUE_BENCH_REDIS"]

app = Celery("nothing", broker=f"{_URL}/0", backend=f"{_URL}/1")
app.conf.broker_connection_retry_on_startup = True


@app.task  # type: ignore[untyped-decorator]
def nothing() -> int:
    """Do nothing."""
    return 1
