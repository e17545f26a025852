"""One job at once, in the caller's thread, recorded like any other; knows no supervisor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import json
import os
import platform
import sys
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from nbqueue.errors import InvalidCommand, QueueError
from nbqueue.handlers.handler import Registry
from nbqueue.jobs import JobRecord, NewJob
from nbqueue.running import displays
from nbqueue.running.run import Runner, Services
from nbqueue.slots import SlotFile
from nbqueue.store import OUTPUT, Handlers, LogChunk, ReportKind, Store, WorkerInfo
from nbqueue.worker.options import new_slot_file
from nbqueue.worker.recording import last_turn

__all__ = ["run_here"]

#: Nobody renews the lease of a job that runs in a cell; the cell is there as long as the job is.
_FOR_EVER = 1e9


def run_here(store: Store, registry: Registry, job: NewJob, services: Services) -> JobRecord:
    """Insert a job, claim it in the same commit, run its one attempt in this thread, and give its record.

    Ctrl-C ends the attempt as failed, and is raised again.

    Raises
    ------
    InvalidCommand
        If its handler is not here; nothing was written.
    """
    command = job.spec.command
    if registry.resolve(job.spec) is None:
        near = ", ".join(registry.suggest(command))
        hint = f"; did you mean {near}?" if near else "; run the cell that defines it, or import its module"
        raise InvalidCommand(f'there is no handler for "{command}" here{hint}')
    info = WorkerInfo(
        worker_id=f"{platform.node() or 'local'}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
        queues=(),
        executor="foreground",
        host=platform.node(),
        pid=os.getpid(),
        lease=_FOR_EVER,
    )
    with _seated(store, info) as slot_file:
        (claim,) = store.insert([job._replace(spec=job.spec._replace(tries=1))], worker_id=info.worker_id)
        if slot_file is not None:
            slot_file.begin(0, claim.fence)
        report = Runner(registry.resolve, services).begin(claim).run(_perform)
        (answer,) = last_turn(store, info.worker_id, [report]).answers
    _replay(report.logs)
    if report.kind is not ReportKind.ENDED or not answer.done:
        reason = report.error or answer.reason or f'the handler of "{command}" has gone'
        raise QueueError(f"job {job.job_id} was not run to its end here: {reason}")
    if "builtins.KeyboardInterrupt" in report.kinds:
        raise KeyboardInterrupt
    (record,) = store.get([job.job_id])
    return record


@contextlib.contextmanager
def _seated(store: Store, info: WorkerInfo) -> Iterator[SlotFile | None]:
    """Have a worker at the store; its slot file tells when its process dies, which no lease would."""
    slot_file = new_slot_file(store, info, 1)
    try:
        store.join(info, Handlers(), lambda _claims: None)
        try:
            yield slot_file
        finally:
            store.leave(info.worker_id)
    finally:
        if slot_file is not None:
            slot_file.close()


def _replay(logs: Sequence[LogChunk]) -> None:
    """Show in the cell what the job said and displayed; while it ran it was kept for the record."""
    for chunk in logs:
        if chunk.stream == OUTPUT:
            shown = json.loads(chunk.text)
            if "clear" not in shown:
                displays.publish(
                    shown["data"],
                    shown["metadata"],
                    display_id=shown.get("display_id", ""),
                    update="update" in shown,
                )
        else:
            (sys.stdout if chunk.stream == "stdout" else sys.stderr).write(chunk.text)


def _perform(call: Callable[[], Any], is_async: bool) -> Any:  # noqa: FBT001 - see Perform
    """Call a handler, and bring an async one to its value, whether or not a loop runs in this thread."""
    value = call()
    if not is_async:
        return value
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_main(value))
    if _reentrant_is_safe() and isinstance(loop, asyncio.BaseEventLoop):
        # The one use of nest-asyncio: a handler that needs the loop which runs this very cell.
        import nest_asyncio

        nest_asyncio.apply(loop)
        return loop.run_until_complete(value)
    return _elsewhere(value)


def _reentrant_is_safe() -> bool:
    """Whether running the loop inside itself loses no messages: everywhere but in kernels from ipykernel 7 on."""
    ipykernel = sys.modules.get("ipykernel")
    return ipykernel is None or int(ipykernel.__version__.split(".")[0]) < 7


def _elsewhere(awaitable: Awaitable[Any]) -> Any:
    """Run it on a loop and in a thread of its own, with this thread's variables; Ctrl-C here cancels it there."""
    ended: concurrent.futures.Future[Any] = concurrent.futures.Future()
    began: concurrent.futures.Future[Callable[[], object]] = concurrent.futures.Future()
    variables = contextvars.copy_context()

    async def main() -> Any:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        began.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await awaitable

    def run() -> None:
        try:
            ended.set_result(variables.run(asyncio.run, main()))
        except BaseException as error:
            ended.set_exception(error)

    thread = threading.Thread(target=run, name="nbqueue-foreground", daemon=True)
    thread.start()
    try:
        return ended.result()
    except KeyboardInterrupt:
        if not ended.done():
            with contextlib.suppress(RuntimeError, TimeoutError):
                began.result(timeout=1.0)()
            # It may take its time to clean up; a second Ctrl-C leaves it to that.
            thread.join()
        raise


async def _main(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
