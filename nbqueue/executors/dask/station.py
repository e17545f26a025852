"""The lanes of a session on a Dask worker, and who looks after them; hears what the process that has the queue says."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from nbqueue.executor import StopReason
from nbqueue.executors.dask.lanework import LaneSlot, LaneWork
from nbqueue.executors.dask.messages import Load, Setup
from nbqueue.executors.dask.pools import replace_thread
from nbqueue.wire import decode

__all__ = ["Station"]

_log = logging.getLogger("nbqueue.worker")

#: What running jobs say is passed on this often, seconds.
_TICK = 0.25
#: What waits behind a job that takes longer is given to other lanes.
_HELD_UP = 0.2
#: A session that has had no lane for so long is forgotten; should it have one again, it begins anew.
_FORGOTTEN = 3600.0
#: How a Dask task stands that nobody wants any more, and a worker that ends.
_UNWANTED = frozenset({"cancelled", "released", "forgotten", "error"})
_ENDING = frozenset({"closing", "closed", "failed", "stopping", "stopped"})


class Station(LaneWork):
    """The lanes of one session on one Dask worker.

    Parameters
    ----------
    worker : distributed.Worker
        See there.
    setup : Setup
        See there.
    on_close : Callable[[], object]
        Is called when the session is over.
    """

    def __init__(self, worker: Any, setup: Setup, on_close: Callable[[], object]):
        self.identity = uuid.uuid4().hex
        super().__init__(worker, setup, self.identity)
        self._on_close = on_close
        #: Whoever had it open has gone.
        self._forsaken = False

    def close_if_forsaken(self) -> None:
        """Forget a session that has had no lane for long: a notebook that was killed says no farewell."""
        if not self._slots and time.monotonic() - self._rested > _FORGOTTEN:
            self._hear_close()

    # -- from the process that has the queue; all of it on the Dask worker's own loop, so none of it may wait

    def hear(self, data: bytes) -> Any:
        """Do what a message says; gives what it is answered with."""
        kind, *parts = decode(data)
        return getattr(self, f"_hear_{kind}")(*parts)

    def _lane(self, number: int) -> LaneSlot | None:
        return next((slot for slot in self._slots if slot.number == number), None)

    def _hear_loads(
        self, number: int, loads: list[Load], code: dict[tuple[str, str], tuple[int, bytes]]
    ) -> bool:
        slot = self._lane(number)
        if slot is None or slot.leaving or slot.orphaned:
            return False
        for whose, (version, data) in code.items():
            self._code.keep(whose, version, data)

        def begin() -> None:
            with slot.came:
                slot.queue.extend(loads)
                slot.came.notify()

        # After the answer is on its way: where none comes, nothing was begun, though the first job ends the process.
        self._worker.loop.add_callback(begin)
        return True

    def _hear_retract(self, number: int, first: int) -> bool:
        """Give up a delivery whose answer was lost; whether nothing of it has begun."""
        slot = self._lane(number)
        if slot is not None:
            with slot.came:
                if first == slot.taken or first in self._begun:
                    return False
                slot.queue.clear()
                slot.leaving = True
                slot.came.notify()
        return first not in self._begun

    def _hear_go(self, number: int) -> bool:
        slot = self._lane(number)
        if slot is not None:
            with slot.came:
                slot.leaving = True
                slot.came.notify()
        return slot is not None

    def _hear_recall(self, number: int) -> bool:
        slot = self._lane(number)
        if slot is not None:
            with slot.lock:
                self._give_back(slot)
        return slot is not None

    def _hear_stop(self, number: int, fence: int, reason: str) -> bool:
        why, slot = StopReason(reason), self._lane(number)
        if self.stop_job(fence, why):
            return True
        if slot is not None:
            with slot.lock:
                # It has begun there, and here not yet.
                if fence == slot.taken or any(load.claim.fence == fence for load in slot.queue):
                    self._early[fence] = why
        # Or it began meanwhile.
        return self.stop_job(fence, why)

    def _hear_answer(self, number: int, answer: Any) -> bool:
        asked = self._asked.get(number)
        if asked is not None:
            asked.put(answer)
        return asked is not None

    def _hear_fetch(self, number: int) -> bytes | None:
        return self.outbox.fetch(number)

    def _hear_fetched(self, number: int) -> None:
        self.outbox.drop(number)

    def _hear_close(self) -> bool:
        """Forget all of this session."""
        self._on_close()
        self._marks.close()
        for slot in list(self._slots):
            with slot.came:
                slot.orphaned = True
                slot.came.notify()
        return True

    def _hear_secede(self, number: int) -> bool:
        slot = self._lane(number)
        if slot is not None:
            self._secede(slot)
        return slot is not None

    def _secede(self, slot: LaneSlot) -> None:
        """Let another task have the thread's place: what runs in it cannot be stopped."""
        if slot in self._slots and slot.thread is not None and not slot.seceded:
            slot.seceded = True
            replace_thread(self._worker, slot.thread, slot.key, time.monotonic() - slot.began)

    # -- now and then

    def _look_after_all(self) -> None:
        while True:
            time.sleep(_TICK)
            with self._guard:
                slots = list(self._slots)
                if not slots:
                    self._looking = False
                    # The loop of ``async def`` jobs, which the next of them makes anew.
                    self._let_go(slots, ended=False)
                    break
            try:
                self._break_off_spared()
                for slot in slots:
                    self._look_at(slot)
            except Exception:
                _log.exception("what runs on a Dask worker cannot be looked after")
        if self._forsaken:
            self._hear_close()

    def _look_at(self, slot: LaneSlot) -> None:
        if not slot.orphaned and self._is_orphaned(slot):
            self._forsaken = True
            with slot.came:
                slot.orphaned = True
                slot.came.notify()
        with slot.lock:
            attempt = slot.attempt
            if attempt is not None:
                self._pass_on(slot)
                if time.monotonic() - slot.began > _HELD_UP:
                    self._give_back(slot)
        if slot.orphaned and attempt is not None:
            self.stop_job(attempt.claim.fence, StopReason.SHUTDOWN)
            told = slot.told
            if told is not None and time.monotonic() - told > self._patience:
                # The scheduler takes the thread for an idle one.
                self._worker.loop.add_callback(self._secede, slot)

    def _is_orphaned(self, slot: LaneSlot) -> bool:
        """Whether nobody wants this lane any more: its notebook has gone, or its scheduler."""
        if self._worker.status.name in _ENDING:
            return True
        task = self._worker.state.tasks.get(slot.key)
        return task is None or task.state in _UNWANTED
