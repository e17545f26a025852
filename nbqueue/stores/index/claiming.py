"""Jobs that wait are handed to a worker: which come next, where they are loaded from, and what each becomes."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from nbqueue.jobs import Claim, Spec, State
from nbqueue.lifecycle import Claimed, Life, advance
from nbqueue.stores.alike import Alike
from nbqueue.stores.index import limits
from nbqueue.stores.index.moving import Moving
from nbqueue.stores.lanes import Lane
from nbqueue.stores.live import Seat

__all__ = ["Claiming"]

# Every job passes here: a look at a member of an enum takes 0.07 us, and a NamedTuple is made in Python code.
_new = tuple.__new__
_PENDING, _RUNNING = State.PENDING, State.RUNNING
_NO_COUNTS: dict[State, int] = {}


class Claiming(Moving):
    """What a worker gets."""

    def claim(self, seat: Seat, now: float) -> list[Claim]:
        """Hand a worker what it may hold beyond what it holds."""
        room = seat.slots - len(seat.claims)
        if room <= 0:
            return []
        self.lanes.promote(now)
        names = seat.info.queues
        groups = [list(self.queues)] if names is None else [[name] for name in names]
        claims: list[Claim] = []
        for group in groups:
            lanes = [
                lane
                for lane in self.lanes.of_queues([name for name in group if self._open(name)])
                if self._accepts(seat, lane.key, lane.sample)
            ]
            while lanes and len(claims) < room:
                numbers = self.lanes.take(lanes, room - len(claims))
                if not numbers:
                    break
                numbers = self._not_passed(numbers)
                self._load_missing(numbers, lanes)
                self._claim_numbers(seat, numbers, now, claims)
        return claims

    def _claim_numbers(self, seat: Seat, numbers: list[int], now: float, claims: list[Claim]) -> None:
        live = self.live
        now_us = round(now * 1e6)
        worker_id, tries, worker = seat.info.worker_id, seat.info.tries, seat.number
        held, rows, claim_of = seat.claims, self.rows, seat.claim_of
        queue, counts = None, _NO_COUNTS
        alike: Alike | None = None
        stood: Life | None = None
        asked: Spec | None = None
        for number in numbers:
            job = live.get(number)
            if job is None:
                continue  # a hint that has been overtaken: cancelled or ended
            life, spec, batch_id = job.life, job.spec, job.batch_id
            if life.due_at is not None and life.due_at > now:
                # Another time was set meanwhile, or the clock stepped back.
                self.lanes.push(spec, number, number, life.due_at)
                continue
            fence = self._fence + 1
            if life is not stood or spec is not asked:
                stood, asked = life, spec
                after, event, _, _ = advance(life, _new(Claimed, (fence, tries)), spec, now=now)
                state, attempt, base, crashes, _, allowed, due_at, cancelling, is_held = after
            if event is None:
                continue
            # Most stand where the one before them stood, so that the same follows but for the fence: 0.4 us for 0.9.
            life = _new(Life, (state, attempt, base, crashes, fence, allowed, due_at, cancelling, is_held))
            self._fence = fence
            job.life = life
            job.worker = worker_id
            job.started_at = now
            job.progress = ""
            held[fence] = job
            if spec.queue is not queue:
                queue = spec.queue
                counts = self.queues[queue].counts
            counts[_PENDING] -= 1
            counts[_RUNNING] += 1
            if batch_id is not None:
                self.books.move(batch_id, number, _PENDING, _RUNNING)
            seq = self.seq
            self.seq = seq + 1
            if base or crashes:
                alike = None
                rows.append(
                    (seq, now_us, "claimed", number, fence, attempt, base + allowed, base or None, crashes or None,
                     worker, now_us, None, None, None, None, None, None, None, None, None, None)
                )  # fmt: skip
            else:
                if alike is None or attempt != alike.attempt or allowed != alike.max_attempts:
                    alike = Alike(seq, "claimed", attempt, allowed, worker, fence=fence, at=now_us)
                    self.alike.append(alike)
                alike.jobs.append(number)
            claims.append(claim_of(job))

    def _hand_again(self, seat: Seat, ids: Sequence[UUID], reserved: list[int]) -> list[Claim]:
        """Give what a worker has of these jobs; what waits for nothing but a worker becomes reserved."""
        claims = []
        for job in self.jobs(ids):
            life = job.life
            if seat.claims.get(life.fence) is job:
                claims.append(seat.claim_of(job))
            elif life.state is State.PENDING and life.due_at is None and not life.held:
                reserved.append(job.number)
                self._passed[job.number] += 1
        return claims

    def _not_passed(self, numbers: list[int]) -> list[int]:
        passed = self._passed
        if not passed:
            return numbers
        named = []
        for number in numbers:
            if passed[number]:
                passed[number] -= 1
            else:
                named.append(number)
        self._passed = +passed
        return named

    def _open(self, name: str) -> bool:
        queue = self.queues.get(name)
        return queue is not None and not queue.paused

    @staticmethod
    def _accepts(seat: Seat, key: tuple[str, str, str], sample: Spec) -> bool:
        accepted = seat.accepted.get(key)
        if accepted is None:
            accepted = seat.accepted[key] = seat.handlers.accepts(sample)
        return accepted

    def unknown(self, seat: Seat) -> list[Spec]:
        """Specs of pending jobs in this worker's queues that its handlers do not accept."""
        names = list(self.queues) if seat.info.queues is None else list(seat.info.queues)
        return [
            lane.sample
            for lane in self.lanes.of_queues(names)
            if not self._accepts(seat, lane.key, lane.sample)
        ]

    def _load_missing(self, numbers: Sequence[int], lanes: Sequence[Lane] = ()) -> None:
        """Bring those of these jobs into memory that are pending, and what comes next in these lanes."""
        loaded = self._load_pending(numbers)
        if not loaded or not lanes:
            return
        text = sum([len(job.payload) for job in loaded])
        # However many queues are worked off in turn, what was read ahead for all of them is bounded.
        room = limits.PENDING_KEPT + limits.LOAD_AHEAD - self._in_memory
        ahead = min(limits.LOAD_AHEAD, room, limits.LOAD_TEXT * len(loaded) // max(1, text)) // len(lanes)
        self._read_ahead([number for lane in lanes for number in lane.coming(ahead)], limits.LARGE)
