"""Why a job is not running, as one sentence; reads what surrounds it and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from nbqueue.jobs import State
from nbqueue.stores.live import LiveJob, QueueState, Seat

__all__ = ["Surroundings", "explain"]

#: Nothing tells a kernel that has gone from one without a worker.
_KERNEL = (
    "waiting for the kernel that had it, whose names it uses: start a worker there with %nbq work; "
    "if that kernel was restarted, cancel this job and run its cell again"
)


class Surroundings(Protocol):
    """What a job depends on: a store's index, or as much of it as was read from a server."""

    @property
    def queues(self) -> Mapping[str, QueueState]:
        """By name."""

    @property
    def seats(self) -> Mapping[str, Seat]:
        """The workers that are here, by id."""


def explain(job: LiveJob, around: Surroundings, now: float) -> str:
    """Say why a job is not running; "" if it is.

    Parameters
    ----------
    job : LiveJob
        The job.
    around : Surroundings
        The queues and the workers.
    now : float
        Seconds since the epoch.
    """
    life, spec = job.life, job.spec
    if life.state is State.RUNNING:
        return ""
    if life.state.ended:
        return _ended(job)
    if life.held:
        return f"held: {job.last[1] or 'no worker here may run it'}; once that is mended, retry it"
    queue = around.queues[spec.queue]
    if queue.paused:
        return f'queue "{spec.queue}" is paused; resume it to let its jobs run'
    if life.due_at is not None and life.due_at > now:
        return _delayed(job, now)
    return _unclaimed(job, around)


def _ended(job: LiveJob) -> str:
    life = job.life
    cause = job.last[2]
    error = _short(job)
    if life.state is State.SUCCEEDED:
        return f"it succeeded on attempt {life.attempt}"
    if life.state is State.CANCELLED:
        return "it was cancelled; retry it to run it after all"
    if cause == "crashes":
        return f"it failed: its worker died {life.crashes} times while it ran; retry it once that is mended"
    if life.attempt >= life.max_attempts:
        spent = "its one attempt is" if life.max_attempts == 1 else f"all {life.max_attempts} attempts are"
        return f"{spent} spent, the last with {error}; retry it to give it fresh ones"
    return f"it failed with {error}, which its retry policy gives up on; retry it to run it again"


def _short(job: LiveJob) -> str:
    """The last attempt's error in one line; some errors bring a page along."""
    return job.last[1].strip().partition("\n")[0] or job.last[2]


def _delayed(job: LiveJob, now: float) -> str:
    due_at = job.life.due_at or now
    when = datetime.fromtimestamp(due_at, UTC).isoformat(sep=" ", timespec="seconds")
    left = f"{due_at - now:.1f} s from now"
    if job.life.attempt:
        error = _short(job)
        tries = f"attempt {job.life.attempt} of {job.life.max_attempts}"
        return f"{tries} failed with {error}; it is tried again at {when}, {left}"
    return f"delayed until {when}, {left}"


def _unclaimed(job: LiveJob, around: Surroundings) -> str:
    spec = job.spec
    seats = [seat for seat in around.seats.values() if seat.info.queues != ()]
    if spec.origin.startswith("kernel:") and not any(seat.handlers.accepts(spec) for seat in seats):
        return _KERNEL
    if not seats:
        return "no worker is running on this store; start one, e.g. `nbqueue work` or queues.worker().start()"
    serving = [seat for seat in seats if _serves(seat, spec.queue)]
    if not serving:
        served = sorted({name for seat in seats for name in seat.info.queues or ()})
        return f'no worker is on queue "{spec.queue}"; those here are on: {", ".join(served)}'
    able = [seat for seat in serving if seat.handlers.accepts(spec)]
    if not able:
        return _no_handler(job)
    if all(len(seat.claims) >= seat.info.concurrency for seat in able):
        return f'every slot of the workers on queue "{spec.queue}" is busy; it runs when one comes free'
    return "it is about to be claimed"


def _serves(seat: Seat, queue: str) -> bool:
    return seat.info.queues is None or queue in seat.info.queues


def _no_handler(job: LiveJob) -> str:
    command, origin = job.spec.command, job.spec.origin
    kind, _, where = origin.partition(":")
    if kind == "notebook" and job.spec.code:
        # Nothing here tells whether there is a copy, and whether that kernel lives.
        return (
            f"no handler: waiting for the kernel of {where} (a worker there, and after a restart the cell that defines"
            f' "{command}"), or for another worker to take over a copy of its code'
        )
    if kind == "notebook":
        return f'no handler: waiting for the kernel of {where}; run the cell there that defines "{command}"'
    if kind == "module":
        return f'no handler for "{command}"; import {where} in a worker, e.g. `nbqueue work --import {where}`'
    if origin:
        return f'no handler for "{command}"; it was defined in {where}: start a worker there'
    define = f'@nbq.command("{command}")'
    return f'no handler for "{command}"; define it with {define}, or start a worker with --import MODULE'
