"""The turns of a worker, from joining its store to leaving it: submit, stop, collect, record, claim.

It knows the two contracts and no implementation of either, and has no thread of its own.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Sequence
from operator import attrgetter

from nbqueue.errors import QueueError
from nbqueue.executor import SPARE_SLOTS, Running
from nbqueue.jobs import Claim
from nbqueue.patience import Patience, within
from nbqueue.running.run import Runner
from nbqueue.slots import SlotFile
from nbqueue.store import Handlers, Report, ReportKind, Turn
from nbqueue.worker.halting import Halting
from nbqueue.worker.known import Known
from nbqueue.worker.options import Means, new_info, new_slot_file
from nbqueue.worker.prefetch import Prefetch
from nbqueue.worker.recording import last_turn

__all__ = ["Turns"]

_log = logging.getLogger("nbqueue.worker")

#: Logs and progress of running jobs are recorded this often, seconds.
NEWS_EVERY = 0.5
#: Jobs are given so long to end when their worker stops, unless it is told otherwise.
PATIENCE = 10.0
#: The longest pause between attempts to reach a store that fails, seconds.
PAUSE_MAX = 5.0
#: A worker that stops tries each call of a store that does not answer for so long, seconds.
HURRY_LEAST, HURRY_MOST = 0.5, 2.0
#: Of jobs in a sentence, so many are named.
_NAMED = 3


class Turns:
    """What a worker does under one name; one that begins again has others.

    Parameters
    ----------
    means : Means
        Of the worker.
    """

    def __init__(self, means: Means):
        self.means = means
        self.info = new_info(means)
        self.known = Known(means)
        #: Something is to be done before the next turn is due.
        self.wakeup = threading.Event()
        #: No more jobs are to be taken.
        self.stopping = threading.Event()
        #: A turn left nothing to do, or all is over.
        self.rested = threading.Event()
        self.joined = self.over = False
        #: Seconds that what runs is given to end, once no more jobs are taken.
        self.grace = PATIENCE
        #: How long a store that does not answer is tried, a call.
        self.patience = Patience()
        #: Reports that the store has not taken yet.
        self.unsent: list[Report] = []
        #: Fences of what was claimed and has not ended; and of what was taken back and still runs.
        self.held: set[int] = set()
        self._lost: set[int] = set()
        #: What the store handed over in between.
        self.inbox: deque[Claim] = deque()
        #: Somebody asked for a turn.
        self.called = True
        self._store, self._executor, self._ticks = means.store, means.executor, means.ticks
        self._halting = Halting(means.executor, means.clock)
        self._prefetch = Prefetch(means.executor.slots)
        self._slot_file: SlotFile | None = None
        #: What the store was told last that this worker can run.
        self._told: Handlers | None = None
        self._failures = self._ended = 0
        self._next_turn = self._next_news = self._born = self._ticks()
        self._due_at: float | None = None

    # -- joining and leaving

    def open(self) -> None:
        """Join the store and start the executor; where either fails, nothing is left of it."""
        self._slot_file = new_slot_file(self._store, self.info, self.info.concurrency + SPARE_SLOTS)
        self._next_turn = self._next_news = self._born = self._ticks()
        runner = Runner(self.known.resolve, self.means.services, self.means.clock)
        try:
            self._join()
            self._executor.start(runner, self._wake_up, self._slot_file)
        except BaseException:
            # Where it could not join, it need not be tried for long.
            with contextlib.suppress(QueueError), within(HURRY_LEAST):
                self._store.leave(self.info.worker_id)
            self._end()
            raise
        self._unlisten = self.means.registry.on_change(self.call)
        self.joined = True

    def close(self) -> None:
        """Begin to end: take no more, and give back what has not begun with the next turn."""
        self.joined = False
        self.stopping.set()
        self._unlisten()
        self._submit(())
        self.unsent += [Report(claim, ReportKind.RELEASED) for claim in self._executor.withdraw()]
        self.called = True

    def leave(self, reports: Sequence[Report]) -> None:
        """Report for the last time, and leave the store; whatever it says to that, this is over."""
        try:
            if reports:
                self._settle(reports, last_turn(self._store, self.info.worker_id, reports))
            self._store.leave(self.info.worker_id)
        except QueueError as error:
            self._tell_unreported(reports, error)
        finally:
            self._end()

    def _tell_unreported(self, reports: Sequence[Report], error: QueueError) -> None:
        over = [report.claim for report in reports if report.kind is not ReportKind.NEWS]
        if not over:
            _log.warning("worker %s could not say that it leaves: %s", self.info.worker_id, error)
            return
        named = ", ".join(f"{claim.spec.command} {claim.job_id}" for claim in over[:_NAMED])
        _log.error(
            "worker %s leaves and could not report what became of %s (%s%s): that runs again, at the latest once the"
            " lease of %g s is over; %s",
            *(self.info.worker_id, "1 job" if len(over) == 1 else f"{len(over):,} jobs", named),
            *(", …" if len(over) > _NAMED else "", self.info.lease, error),
        )

    def waits_for_store(self) -> bool:
        """Whether all that it held is over, and all that is left is to report it."""
        return self.held <= _over(self.unsent)

    def _end(self) -> None:
        self.over = True
        self.stopping.set()
        if self._slot_file is not None:
            self._slot_file.close()
            self._slot_file = None
        self.rested.set()

    def _join(self) -> None:
        handlers = self.known.handlers()
        self._store.join(self.info, handlers, self._wake)
        self._told = handlers

    def _wake(self, claims: Sequence[Claim]) -> None:
        """Be handed claims, or be asked for a turn; runs in the store's thread."""
        if claims:
            self.inbox.extend(claims)
            self.wakeup.set()
        else:
            self.call()

    def call(self) -> None:
        """Ask for a turn; from any thread."""
        self.called = True
        self.wakeup.set()

    def _wake_up(self) -> None:
        # Called after every job: asking is cheaper than setting.
        if not self.wakeup.is_set():
            self.wakeup.set()

    # -- one turn

    def step(self) -> float:
        """Take one turn: submit, stop what is to stop, collect, record, claim.

        Returns
        -------
        float
            Seconds until the next turn is due, unless something wakes it before.
        """
        now = self._ticks()
        self._submit(())
        reports, self.unsent = self.unsent, []
        running = self._executor.running()
        overdue_in = self._halting.stop_due(running, now)
        reports += self._halting.tell_stuck(running)
        if now >= self._next_news:
            self._next_news = now + NEWS_EVERY
            reports += self._executor.news()
        ended = self._executor.collect()
        self._ended += len([1 for report in ended if report.kind is _ENDED])
        self._prefetch.learn(ended)
        reports += ended
        reports += self._give_back_stalled(running, now)
        over = _over(reports)
        held = len(self.held) - len(self.held & over)
        slots = self.slots(over)
        if self._wants_turn(reports, now, room=slots > held):
            self._turn(reports, slots, now)
        else:
            self.unsent = reports
        self._check_time(now)
        return self._wait(now, overdue_in, room=slots > held)

    def _wants_turn(self, reports: Sequence[Report], now: float, *, room: bool) -> bool:
        if now >= self._next_turn:
            return True
        if self._failures:
            # Whatever there is to say waits until the pause is over.
            return False
        due = room and self._due_at is not None and now >= self._due_at
        return bool(reports) or self.called or due or self.known.handlers() is not self._told

    def _wait(self, now: float, overdue_in: float, *, room: bool) -> float:
        if self.called and not self._failures:
            return 0.0
        options = self.means.options
        waits = [self._next_turn - now, overdue_in, options.sleep]
        if self._due_at is not None and room and not self._failures:
            waits.append(self._due_at - now)
        if self.held or self._lost:
            waits.append(NEWS_EVERY)
        if options.max_seconds is not None:
            waits.append(self._born + options.max_seconds - now)
        return max(0.0, min(waits))

    def slots(self, over: set[int]) -> int:
        """How many claims it would hold at once, when these are off its hands."""
        if self.stopping.is_set():
            return 0
        # A cluster grows and shrinks, and while it cannot be reached it has none.
        now, most = self._executor.slots, self.means.options.max_jobs
        slots = now + self._prefetch.ahead if now else 0
        if most is not None:
            slots = min(now, most - self._ended)
        # What cannot be stopped has been replaced; what was taken back is not on the store's list any more.
        stuck, lost = self._halting.stuck & self.held, self._lost - self._halting.stuck
        return max(0, slots + len(stuck - over) - len(lost - over))

    def _turn(self, reports: list[Report], slots: int, now: float) -> None:
        self.called = False
        handlers = self.known.handlers()
        told = None if handlers is self._told else handlers
        try:
            turn = self._store.turn(self.info.worker_id, reports, slots, told)
        except QueueError as error:
            self.unsent = reports
            if getattr(self._store, "broken", False):
                raise
            self._try_again(error, now)
            return
        self._told = handlers
        self._settle(reports, turn)
        if turn.expired:
            self._rejoin(now)
            return
        self._failures = 0
        self._next_turn = now + min(self.info.lease / 3, self.means.options.sleep)
        self._due_at = None if turn.next_due is None else now + turn.next_due
        self._submit(turn.claims)
        back = self._halting.cancel(frozenset(turn.cancels))
        if back:
            # Given back, what was to be cancelled is.
            self.unsent += [Report(claim, ReportKind.RELEASED) for claim in back]
            self.call()
        if self.known.learn(turn.unknown):
            self.call()
        if not self.held:
            self.rested.set()
        self._check_limits()

    def _settle(self, reports: Sequence[Report], turn: Turn) -> None:
        """Strike off what the store has taken, or refused: either way it is over here."""
        over = _over(reports)
        self.held -= over
        self._lost -= over
        for answer in turn.answers:
            if not answer.done:
                _log.info("job %s: %s", answer.job_id, answer.reason)
        on_ended = self.means.options.on_ended
        if on_ended is None:
            return
        for report, answer in zip(reports, turn.answers, strict=True):
            if answer.done and report.kind is ReportKind.ENDED:
                try:
                    on_ended(report)
                except Exception:
                    _log.exception(
                        "worker %s could not tell of job %s", self.info.worker_id, report.claim.job_id
                    )

    def _try_again(self, error: QueueError, now: float) -> None:
        """Take the next turn after a while that grows."""
        self._failures += 1
        self._next_turn = now + min(PAUSE_MAX, 0.1 * 2 ** min(self._failures, 10))
        if self._failures == 1:
            _log.warning(
                "worker %s could not reach its store and tries again: %s", self.info.worker_id, error
            )

    def _rejoin(self, now: float) -> None:
        """Start anew after the lease has run out: what is claimed already is refused when it comes."""
        _log.warning(
            "worker %s was silent for longer than its lease; its jobs were given to others",
            self.info.worker_id,
        )
        withdrawn = {claim.fence for claim in self._executor.withdraw()}
        self._lost |= self.held - withdrawn
        self.held = set()
        self.inbox.clear()
        try:
            self._join()
        except QueueError as error:
            self._try_again(error, now)
            return
        self.call()

    def _submit(self, claims: Sequence[Claim]) -> None:
        """Hand these to the executor, and what the store handed over in between, in the order they were claimed."""
        inbox = self.inbox
        if inbox:
            claims = sorted([*claims, *(inbox.popleft() for _ in range(len(inbox)))], key=_fence)
        if claims:
            self.held.update(map(_fence, claims))
            self._executor.submit(claims)

    def _give_back_stalled(self, running: Sequence[Running], now: float) -> list[Report]:
        """Give back what was claimed ahead when the jobs before it turn out to be long."""
        if not self._executor.waiting():
            return []
        if not self._prefetch.stalled(now, [job for job in running if not job.stuck]):
            return []
        return [Report(claim, ReportKind.RELEASED) for claim in self._executor.withdraw()]

    def _check_limits(self) -> None:
        limits = self.means.options
        spent = limits.max_jobs is not None and self._ended >= limits.max_jobs
        empty = limits.when_empty and not (self.held or self.inbox or self.called or self.unsent)
        if spent or empty:
            self.stopping.set()

    def _check_time(self, now: float) -> None:
        limit = self.means.options.max_seconds
        if limit is not None and now - self._born >= limit:
            self.stopping.set()


def _over(reports: Sequence[Report]) -> set[int]:
    """The fences of what has come to an end, or is given back."""
    return {report.claim.fence for report in reports if report.kind is not _NEWS}


_fence = attrgetter("fence")
# Looked at for every job: a member of an enum takes 0.07 us.
_ENDED, _NEWS = ReportKind.ENDED, ReportKind.NEWS
