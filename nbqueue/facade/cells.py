"""Handing in ``%%job`` cells: as jobs like any others, on a copy of the notebook's names; runs nothing."""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from nbqueue.errors import QueueUnavailable
from nbqueue.facade.configuring import MEMORY
from nbqueue.handlers.cells import Cell, CellHandler, Snapshot, session, snapshots
from nbqueue.handlers.registry import Call, registry
from nbqueue.jobs import JobRecord, Options, Spec, State
from nbqueue.secret import load_secret

if TYPE_CHECKING:
    from nbqueue.facade.dispatching import Dispatching
    from nbqueue.facade.opened import Opened
    from nbqueue.facade.receipt import JobDispatch

__all__ = ["Cell", "dispatch_cell", "follow_again", "served_here"]


def dispatch_cell(queues: Dispatching, shell: Any, cell: Cell, options: Options) -> JobDispatch:
    """Hand in a cell, to be run on the names that the shell has now; on disk when this returns.

    Parameters
    ----------
    queues : QueueManager
        Where to.
    shell : InteractiveShell
        Whose names it uses, and which is given the value under ``cell.out``.
    cell : Cell
        What the user wrote.
    options : Options
        As for any job.

    Raises
    ------
    SyntaxError
        Which names the cell and the line; nothing was written.
    InvalidCommand
        For options that no queue can take; nothing was written.
    """
    snapshot = Snapshot.take(shell, cell)
    call = Call(
        command=cell.name,
        origin=session,
        kwargs=cell.stored(load_secret()),
        options=options,
        handler=_handler(cell.name),
    )
    (item,), (receipt,) = queues.prepare(None, (call,))
    # Before a worker can ask for it.
    snapshots.keep(receipt.job_id, snapshot)
    try:
        queues.live.insert([item])
    except BaseException:
        snapshots.drop(receipt.job_id)
        raise
    _follow(queues, receipt.job_id, snapshot)
    return receipt


def follow_again(queues: Opened) -> None:
    """Take up the cells of a queue that was opened again, and let go of those whose jobs were forgotten."""
    store = queues.store
    here = {}
    for job_id, snapshot in snapshots.items():
        # One that is being handed in has no place yet.
        known = snapshot.store and snapshot.store()
        if known is store or (snapshot.place == queues.name != MEMORY):
            here[job_id] = snapshot
    found = {record.job_id for record in store.get(list(here))} if here else set()
    for job_id, snapshot in here.items():
        if job_id in found:
            _follow(queues, job_id, snapshot)
        else:
            snapshots.drop(job_id)


def served_here(queues: Dispatching, queue: str) -> bool:
    """Whether a worker of this process serves a queue."""
    here = (worker for worker in queues.workers() if worker.pid == os.getpid())
    return any(worker.queues is None or queue in worker.queues for worker in here)


def _handler(name: str) -> CellHandler:
    found = registry.resolve(Spec(name, origin=session))
    if isinstance(found, CellHandler):
        return found
    handler = CellHandler(name=name, origin=session, target=None, follow=_follow)
    registry.register(handler)
    return handler


def _follow(queues: Any, job_id: UUID, snapshot: Snapshot) -> None:
    """Once the job has ended, give the notebook its value, and let go of what it ran on."""
    store = queues.store
    if snapshot.followed and snapshot.store is not None and snapshot.store() is store:
        return
    stop: Callable[[], object] = bool

    def ended(record: JobRecord | None) -> None:
        snapshot.followed = False
        if record is None:
            # Whoever opens the file again takes it up.
            return
        if record.state is State.FAILED:
            snapshots.failed(job_id)
            return
        snapshots.drop(job_id)
        stop()
        value = snapshot.value
        # A value of a claim that was taken back meanwhile is not the job's.
        if (
            snapshot.out
            and value is not None
            and record.state is State.SUCCEEDED
            and value[0] == record.fence
        ):
            snapshot.shell.user_ns[snapshot.out] = value[1]

    if queues.name == MEMORY:
        # A file may be opened again; of this nothing is left then.
        stop = queues.on_close(functools.partial(snapshots.drop, job_id))
    snapshot.place, snapshot.store, snapshot.followed = queues.name, weakref.ref(store), True
    # The job was accepted, whatever becomes of the store now.
    with contextlib.suppress(QueueUnavailable):
        store.watch((job_id,), ended)
