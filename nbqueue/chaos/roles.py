"""What the processes of a chaos run do: hand in jobs and work, until somebody kills them."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nbqueue.chaos import tasks
from nbqueue.chaos.plan import LEASE, Operation, Plan
from nbqueue.chaos.tasks import FOLDER, append
from nbqueue.errors import NbqueueError
from nbqueue.facade.manager import QueueManager, connect
from nbqueue.jobs import QueuedCommand

if TYPE_CHECKING:
    import uuid

__all__ = ["ACKNOWLEDGED", "ALLOWED", "READY", "main"]

#: Said by a process that has joined, in its output.
READY = "Working on "
#: What was handed in, and how many jobs may be handed in so far.
ACKNOWLEDGED, ALLOWED = "acknowledged", "allowed"


def main(role: str, executor: str, dispatcher: int, given: str) -> None:
    """Work, hand in this dispatcher's share of the plan, and wait."""
    assert tasks.__name__, "whose import makes the handlers known"
    folder, plan = Path(os.environ[FOLDER]), Plan(**json.loads(given))
    queues = connect()
    slots = 4 if executor == "thread" else 2
    worker = queues.worker(
        concurrency=slots, executor=executor, lease=LEASE if plan.freezes else 15.0
    ).start()
    _say(f"{READY}every queue, as the {role}")
    acknowledged = _acknowledged(folder, dispatcher)
    for operation in plan.operations(dispatcher):
        if operation.position > acknowledged:
            _await_turn(folder, operation)
            _hand_in(queues, operation, plan.seed, dispatcher)
    append(ACKNOWLEDGED, f"done {dispatcher}\n")
    worker.wait()
    _say("the worker stopped by itself")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _acknowledged(folder: Path, dispatcher: int) -> int:
    """Which operation of this dispatcher was acknowledged last, before it was killed."""
    try:
        text = (folder / ACKNOWLEDGED).read_text()
    except FileNotFoundError:
        return -1
    return max(
        (int(found) for found in re.findall(rf"^op {dispatcher} (\d+)$", text, re.MULTILINE)), default=-1
    )


def _await_turn(folder: Path, operation: Operation) -> None:
    # The queue is to be full of jobs at every kill, and not of all of them at the first.
    while int((folder / ALLOWED).read_text()) <= operation.first:
        time.sleep(0.01)


def _hand_in(queues: QueueManager, operation: Operation, seed: int, dispatcher: int) -> None:
    """Hand in until it is taken; only what was taken is written down."""
    while True:
        try:
            lines = [*_handed_in(queues, operation, seed)]
        except NbqueueError:
            # It was not silent: that is all that is promised.
            append("refused", f"{operation.position} {traceback.format_exc()}\n")
            time.sleep(0.05)
            continue
        append(ACKNOWLEDGED, "\n".join([*lines, f"op {dispatcher} {operation.position}", ""]))
        return


def _handed_in(queues: QueueManager, operation: Operation, seed: int) -> Iterator[str]:
    _, kind, name, queue, first, size, delay = operation
    work = QueuedCommand(name).on_queue(queue)
    if delay:
        work = work.with_delay(delay)
    numbers = range(first, first + size)
    ids: list[uuid.UUID] = []
    if kind == "one":
        ids = [queues.dispatch(work.with_args([first])).job_id]
    elif kind == "many":
        ids = [one.job_id for one in queues.dispatch_many([work.with_args([n]) for n in numbers])]
    else:
        # Sent again under the same key after a kill, it finds its rows.
        options = {"delay": delay} if delay else {}
        batch = queues.map_on(queue, name, list(numbers), f"chaos-{seed}-{operation.position}", options)
        yield f"batch {batch.batch_id} {size}"
    yield from (f"job {job_id}" for job_id in ids)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
