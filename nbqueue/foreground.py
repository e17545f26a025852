"""One job at once, in the caller's thread, recorded like any other; knows no supervisor."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import threading
import uuid
from collections.abc import Awaitable
from typing import Any

from nbqueue.errors import QueueError
from nbqueue.handlers import Registry
from nbqueue.jobs import JobRecord, NewJob
from nbqueue.run import Runner, Services
from nbqueue.store import Handlers, Store, WorkerInfo

__all__ = ["run_here"]

#: Nobody renews the lease of a job that runs in a cell; the cell is there as long as the job is.
_FOR_EVER = 1e9


def run_here(store: Store, registry: Registry, job: NewJob, services: Services) -> JobRecord:
    """Insert a job, claim it in the same commit, run its one attempt in this thread, and give its record.

    Ctrl-C ends the attempt as failed, and is raised again.
    """
    spec = job.spec._replace(tries=1)
    info = WorkerInfo(
        worker_id=f"{platform.node() or 'local'}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
        queues=(),
        executor="foreground",
        host=platform.node(),
        pid=os.getpid(),
        lease=_FOR_EVER,
    )
    store.join(info, Handlers(), lambda _claims: None)
    try:
        (claim,) = store.insert([job._replace(spec=spec)], worker_id=info.worker_id)
        attempt = Runner(registry.resolve, services).begin(claim)
        report = attempt.run(_finish)
        _replay(report.logs)
        (answer,) = store.turn(info.worker_id, [report], 0).answers
        if not answer.done:
            raise QueueError(f"the end of job {job.job_id} was not recorded: {answer.reason}")
    finally:
        store.leave(info.worker_id)
    (record,) = store.get([job.job_id])
    if "KeyboardInterrupt" in record.error:
        raise KeyboardInterrupt
    return record


def _replay(logs: Any) -> None:
    """Show in the cell what the job said; while it ran it was kept for the record."""
    for chunk in logs:
        (sys.stderr if chunk.stream == "stderr" else sys.stdout).write(chunk.text)


def _finish(coroutine: Awaitable[Any]) -> Any:
    """Bring an async handler to its value, whether or not a loop runs in this thread."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_main(coroutine))
    if _reentrant_is_safe():
        # The one use of nest-asyncio: a handler that needs the loop which runs this very cell.
        import nest_asyncio  # type: ignore[import-untyped]

        nest_asyncio.apply(loop)
        return loop.run_until_complete(coroutine)
    return _elsewhere(coroutine)


def _reentrant_is_safe() -> bool:
    """Whether running the loop inside itself loses no messages: everywhere but in kernels from ipykernel 7 on."""
    ipykernel = sys.modules.get("ipykernel")
    return ipykernel is None or int(ipykernel.__version__.split(".")[0]) < 7


def _elsewhere(coroutine: Awaitable[Any]) -> Any:
    """Run it on a loop of its own in a thread of its own, with this thread's context."""
    import contextvars

    box: list[Any] = []
    context = contextvars.copy_context()

    def run() -> None:
        try:
            box.append((context.run(asyncio.run, _main(coroutine)), None))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            box.append((None, error))

    thread = threading.Thread(target=run, name="nbqueue-foreground", daemon=True)
    thread.start()
    thread.join()
    value, error = box[0]
    if error is not None:
        raise error
    return value


async def _main(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
