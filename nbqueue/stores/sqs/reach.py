"""The index of a ledger whose jobs are messages: it hands out only those in hand, and says what is to be done in SQS.

What it says is done after it was written down, so that a death in between costs a second delivery and no job.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from nbqueue.jobs import Claim, NewJob, Spec, State
from nbqueue.lifecycle import Event, Life, Step, What
from nbqueue.stores.index import Index
from nbqueue.stores.lanes import Key, Lane, Lanes
from nbqueue.stores.live import LiveJob, Loader, Numbers, Seat
from nbqueue.stores.sqs.hand import Deed, Hand, Held, Order
from nbqueue.stores.sqs.message import Draft, Standing
from nbqueue.stores.sqs.queues import RECEIVES_MAX

__all__ = ["Reach"]

#: What nobody here may run is hidden for so long, seconds: others may.
_REFUSED = 900.0
#: Nobody here has a handler for it: so long it is waited for one, and so long it is held back then at first.
_UNKNOWN_GRACE, _UNKNOWN_PAUSE, _UNKNOWN_MOST = 3.0, 5.0, 300.0
#: Nobody here has room for it: so long it is waited for some.
_BUSY_GRACE = 5.0
#: After so many deliveries it is sent anew, as SQS puts away what is delivered without end.
_WORN = RECEIVES_MAX // 2


class _ReachLane(Lane):
    """A lane for jobs whose messages are in hand."""

    __slots__ = ("_numbers",)

    def __init__(self, queue: str, priority: int, key: Key, sample: Spec, numbers: set[int]):
        super().__init__(queue, priority, key, sample)
        self._numbers = numbers

    def push(self, first: int, last: int) -> None:
        """Add those of these numbers that are in hand."""
        within = (first,) if first == last else sorted(n for n in self._numbers if first <= n <= last)
        for number in within:
            if number in self._numbers:
                super().push(number, number)

    def sift(self) -> None:
        """Drop what is in hand no more."""
        runs = [*map(tuple, self.tail), *self.strays]
        self.tail.clear()
        self.strays.clear()
        for first, last in sorted(runs):
            self.push(first, last)


class _ReachLanes(Lanes):
    def __init__(self, numbers: set[int]):
        super().__init__()
        self._within = numbers
        self._made: list[_ReachLane] = []

    def new_lane(self, queue: str, priority: int, key: Key, sample: Spec) -> Lane:
        """Make a lane."""
        self._made.append(_ReachLane(queue, priority, key, sample, self._within))
        return self._made[-1]

    def sift(self) -> None:
        """Drop what is in hand no more."""
        for lane in self._made:
            lane.sift()


class Reach(Index):
    """An index that knows which of its jobs are within reach.

    Parameters
    ----------
    loader, numbers, chance
        As of ``Index``.
    hand : Hand
        What is in hand.
    tell : Callable[[Sequence[Order]], None]
        Is told what is to be done, once it is written down.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back.
    """

    def __init__(
        self,
        loader: Loader,
        numbers: Numbers,
        chance: Callable[[], float],
        *,
        hand: Hand,
        tell: Callable[[Sequence[Order]], None],
        ticks: Callable[[], float],
    ):
        super().__init__(loader, numbers, chance)
        self._hand = hand
        self._tell = tell
        self._ticks = ticks
        self.lanes = self._reached = _ReachLanes(hand.numbers)
        #: Jobs that have moved since the last commit.
        self._moved: dict[int, tuple[LiveJob, float]] = {}
        self.orders: list[Order] = []

    def _hand_again(self, seat: Seat, ids: Sequence[UUID], reserved: list[int]) -> list[Claim]:
        claims = super()._hand_again(seat, ids, reserved)
        for number in reserved:
            if number not in self._hand.numbers:
                # No lane has it, so that none names it in vain.
                del self._passed[number]
        return claims

    def taken(self, jobs: Sequence[NewJob]) -> set[UUID]:
        """Which of these jobs there are already."""
        here = {job.job_id for job in jobs if job.job_id.int in self._by_id or job.job_id.int in self.ended}
        return here | self._known(jobs)

    # -- messages that come

    def admit(self, held: Held, now: float) -> bool:
        """Take a message in; whether a worker may run its job now."""
        self.lanes.promote(now)
        job_id = held.job_id
        job = next(iter(self.jobs((job_id,))), None)
        due_at = held.draft.job.due_at
        if job is None:
            if due_at is not None and due_at > now:
                return self._hop(held, held.draft, due_at - now)
            job = self._adopt(held, now)
        elif job.life.state.ended and held.draft.standing.base > job.life.base:
            # Somebody has let it run again: here, elsewhere, or out of the queue for what has failed.
            self.retry((job_id,), now)
        elif job.life.state.ended or self._hand.get(job_id) is not None:
            self._double(held, job, now)
            return False
        if job.life.held:
            self.order(Order(Deed.HIDE, held, seconds=_REFUSED))
            self._hand.put_away(held, self._ticks() + _REFUSED)
            return False
        due_at = job.life.due_at
        if due_at is not None and due_at > now:
            return self._hop(held, self.draft(job, held.draft.code), due_at - now)
        self._reach(held, job)
        return True

    def _adopt(self, held: Held, now: float) -> LiveJob:
        """Write down a job that was dispatched elsewhere, as it stands now."""
        draft = held.draft
        self.insert([draft.job._replace(due_at=None)], min(now, draft.dispatched_at))
        (job,) = self.jobs((held.job_id,))
        return job

    def _reach(self, held: Held, job: LiveJob) -> None:
        self.keep(job)
        held.number = job.number
        held.idle = self._ticks()
        if job.life.state is State.PENDING:
            job.life = self._stand(held, job)
        self._hand.take(held)
        self.lanes.push(job.spec, job.number, job.number)
        self.fresh = True

    def _stand(self, held: Held, job: LiveJob) -> Life:
        """Where a job stands, as far as it can be known: others may have tried it meanwhile.

        SQS counts deliveries, and not what came of them. What is known here counts where nobody else can have had it;
        otherwise every other delivery counts as an attempt, but the last attempt is never taken from a job.
        """
        known, said = self._hand.hidden(job.job_id), held.draft.standing
        life = job.life._replace(base=max(job.life.base, said.base))
        if known is not None and known.message_id == held.message_id:
            elsewhere, attempt = held.receives - known.receives - 1, life.attempt
        elif life.fence:
            elsewhere, attempt = 0, max(life.attempt, said.attempt)
        else:
            elsewhere, attempt = held.receives - 1, max(life.attempt, said.attempt)
            life = life._replace(crashes=said.crashes)
        promised = said.tries if said.attempt > said.base else 1
        mine = max((seat.info.tries for seat in self.seats.values()), default=1)
        tries = job.spec.tries or max(promised, mine)
        attempt = max(attempt, min(attempt + elsewhere, life.base + tries - 1))
        return life if attempt == life.attempt else life._replace(attempt=attempt, tries=tries)

    def _double(self, held: Held, job: LiveJob, now: float) -> None:
        """Run nothing: this job has ended here, or is in hand."""
        mine = self._hand.get(held.job_id)
        if mine is not None and mine.message_id == held.message_id:
            # It came out though it is in hand: only the latest receipt is worth something.
            mine.receipt, mine.receives = held.receipt, held.receives
            mine.until, mine.lapsed = held.until, False
            said = "its message was delivered again while it was in hand here, and was not run twice"
        else:
            self.order(Order(Deed.DELETE, held))
            where = "in hand" if mine is not None else job.life.state.value
            said = f"SQS delivered it again though it is {where} here; that message was deleted and not run"
        self._row(job, Event.STALE, now, cause="duplicate", error=said)

    def _hop(self, held: Held, draft: Draft, left: float) -> bool:
        """Put it off: SQS holds a message back for a quarter of an hour at most, and of a FIFO queue none."""
        if self._hand.fifo:
            left = min(left, held.hideable(self._ticks()))
            self._hand.put_away(held, self._ticks() + left)
            self.order(Order(Deed.HIDE, held, seconds=math.ceil(left)))
        else:
            self.order(Order(Deed.REPLACE, held, draft._replace(code=held.draft.code), left))
        return False

    # -- what becomes of messages

    def order(self, order: Order) -> None:
        """Have something done once this is written down."""
        self.orders.append(order)

    def take_calls(self) -> list[Callable[[], None]]:
        """Give what is to be called now that everything is on disk; SQS is told then."""
        calls = super().take_calls()
        if self._moved or self.orders:
            # Recovery drops its calls: what moved in it is told after the next commit.
            calls.append(self._tell_all)
        return calls

    def _happen(self, job: LiveJob, what: What, now: float, **said: Any) -> Step:
        step = super()._happen(job, what, now, **said)
        if step.event is not None and step.event is not Event.STALE:
            self._moved[job.number] = (job, now)
        return step

    def _tell_all(self) -> None:
        moved, self._moved = self._moved, {}
        orders, self.orders = self.orders, []
        for job, now in moved.values():
            orders += self._follow(job, now)
        if orders:
            self._tell(orders)

    def _follow(self, job: LiveJob, now: float) -> list[Order]:
        """Say what is to become of a job's message, by where the job stands now."""
        life, job_id = job.life, job.job_id
        held = self._hand.get(job_id)
        if held is None:
            return self._follow_afar(job, now)
        if life.state is State.RUNNING:
            return []
        if life.state.ended:
            self._hand.let_go(job_id)
            self._reached.sift()
            # What has ended here needs nobody's run any more, whoever has it by now.
            held.check(self._ticks())
            if life.state is State.FAILED:
                buried = self.draft(job, held.draft.code, retried=True)._replace(dead=_said(job))
                return [Order(Deed.BURY, held, buried)]
            return [Order(Deed.DELETE, held)]
        if life.due_at is None and not life.held:
            held.idle = self._ticks()
            return []
        wait = _REFUSED if life.held else max(0.0, life.due_at - now) if life.due_at is not None else 0.0
        return self._put_away(held, job, wait)

    def _put_away(self, held: Held, job: LiveJob, wait: float) -> list[Order]:
        """Give a message back for so long: hidden where SQS can, otherwise sent anew."""
        ticks = self._ticks()
        if held.check(ticks):
            # Whoever has it by now decides; otherwise it comes out by itself.
            self._hand.let_go(held.job_id)
            self._reached.sift()
            return []
        worn = held.receives >= _WORN and not self._hand.fifo
        if worn or wait > held.hideable(ticks):
            self._hand.let_go(held.job_id)
            order = Order(Deed.REPLACE, held, self.draft(job, held.draft.code), wait)
        else:
            self._hand.put_away(held, ticks + wait)
            order = Order(Deed.HIDE, held, seconds=math.ceil(wait))
        self._reached.sift()
        return [order]

    def _follow_afar(self, job: LiveJob, now: float) -> list[Order]:
        """The same for a job whose message is not in hand."""
        life, job_id = job.life, job.job_id
        away = self._hand.hidden(job_id)
        if away is not None and away.until > self._ticks():
            if life.state.ended:
                self._hand.forget_hidden(job_id)
                return [Order(Deed.DELETE, away)]
            if life.due_at is None and not life.held:
                away.until = self._ticks()
                return [Order(Deed.HIDE, away)]
        elif job_id in self._hand.alone and life.state is not State.RUNNING:
            self._hand.alone.discard(job_id)
            if life.state is State.PENDING:
                wait = 0.0 if life.due_at is None else max(0.0, life.due_at - now)
                return [Order(Deed.SEND, None, self.draft(job, None), wait)]
        return []

    def draft(self, job: LiveJob, code: bytes | None, *, retried: bool = False) -> Draft:
        """Say of a job what a message says; ``retried``: as it stands once somebody lets it run again."""
        life = job.life
        standing = Standing(life.attempt, life.attempt, 0, life.tries) if retried else Standing.of(life)
        return Draft(
            job.new._replace(due_at=None if retried else life.due_at), standing, job.dispatched_at, code
        )

    # -- what nobody runs

    def tidy(self) -> None:
        """Give back what is in hand and nobody here will run."""
        ticks = self._ticks()
        self._hand.sweep(ticks)
        for held in self._hand.all():
            job = self.live.get(held.number)
            if job is None or job.life.state is not State.PENDING:
                continue
            serving = [seat for seat in self.seats.values() if _serves(seat, job.spec.queue)]
            idle = ticks - held.idle
            orders: list[Order] = []
            if not serving:
                orders = self._put_away(held, job, 0.0)
            elif not any(seat.handlers.accepts(job.spec) for seat in serving):
                if idle >= _UNKNOWN_GRACE:
                    pause = min(_UNKNOWN_MOST, _UNKNOWN_PAUSE * 2 ** min(held.receives, 6))
                    orders = self._put_away(held, job, pause)
            elif idle >= _BUSY_GRACE:
                orders = self._put_away(held, job, 0.0)
            for order in orders:
                self.order(order)

    def room(self, seat: Seat) -> int:
        """How many messages more a worker could take."""
        queues = seat.info.queues
        waiting = sum(
            job.life.state is State.PENDING
            for held in self._hand.all()
            if (job := self.live.get(held.number)) is not None
            and (queues is None or job.spec.queue in queues)
        )
        return seat.slots - len(seat.claims) - waiting


def _serves(seat: Seat, queue: str) -> bool:
    return seat.info.queues is None or queue in seat.info.queues


def _said(job: LiveJob) -> str:
    """Why it failed, in a line."""
    return (job.last[1] or job.last[2] or "failed").strip().partition("\n")[0][:500]
