"""Jobs are handed in: each gets a number, a row and a place in a lane, or goes to one worker at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from nbqueue.errors import StaleClaim
from nbqueue.jobs import Claim, NewJob, Spec, State
from nbqueue.lifecycle import Life
from nbqueue.rows import Rows
from nbqueue.stores.blocks import BLOCK_ROWS, Block
from nbqueue.stores.index import limits
from nbqueue.stores.index.claiming import Claiming
from nbqueue.stores.live import LiveJob, micros

__all__ = ["Inserting"]

#: Where a row has the job's id.
_JOB_ID = 16
_PENDING = State.PENDING
#: Where every job stands that may run at once.
_NEW = Life()


class Inserting(Claiming):
    """What is new."""

    def insert(self, jobs: Sequence[NewJob], now: float, worker_id: str | None = None) -> list[Claim]:
        """Take new jobs; one whose id is known is left as it is. A worker named gets them without a queue."""
        if worker_id is not None and worker_id not in self.seats:
            msg = f"worker {worker_id} is not here any more (its lease ran out); join again, then dispatch"
            raise StaleClaim(msg)
        known = self._known(jobs)
        #: Those that go into no lane.
        reserved: list[int] = []
        apart = None if worker_id is None else reserved
        again: list[UUID] = []
        now_us = round(now * 1e6)
        append, by_id, ended, keep = self.rows.append, self._by_id, self.ended, self.keep
        keeps_all = self._loader is None or worker_id is not None
        room, large = limits.PENDING_KEPT - self._in_memory, limits.LARGE
        #: The highest id that is not kept; and all new ones, from the first on that does not rise above it.
        top, highest, at = -1, self.horizon, len(self.rows)
        others: set[UUID] | None = None
        # Most come in runs of one spec: what hangs on it is looked up once a run, since its hash alone takes 0.6 us.
        shared: Spec | None = None
        run_due: float | None = None
        first, spec_number = self.job, 0
        for job_id, spec, payload, metadata, due_at, batch_id, row in jobs:
            rank = job_id.int
            if rank <= top and others is None:
                others = {row[_JOB_ID] for row in self.rows[at:]}
            # An empty one is not asked: a look by a UUID runs its hash, which is Python code.
            if (
                rank in by_id
                or (ended and rank in ended)
                or (known and job_id in known)
                or (others and job_id in others)
            ):
                again.append(job_id)
                continue
            seq, number = self.seq, self.job
            if due_at is not None and due_at <= now:
                due_at = None  # noqa: PLW2901 - as it is written, so it is kept
            if (spec is not shared and spec != shared) or due_at != run_due:
                self._add_run(shared, run_due, range(first, number), apart)
                first, spec_number, run_due = number, self.add_spec(spec), due_at
                # What a server's transaction knows are the specs of the jobs that it has locked.
                shared = self.specs.get(spec_number, spec)
            self.seq, self.job = seq + 1, number + 1
            append(
                (seq, now_us, "dispatched", number, None, None, None, None, None, None, None, micros(due_at), payload,
                 None, None, None, job_id, spec_number, metadata or None, batch_id, row)
            )  # fmt: skip
            if keeps_all or (room > 0 and len(payload) <= large):
                room -= 1
                # With the spec that all share: each may bring its own, which would live as long as it does: 130 bytes.
                parts = (job_id, shared or spec, payload, metadata, due_at, batch_id, row)
                life = _NEW if due_at is None else Life(due_at=due_at)
                keep(LiveJob(number, parts, spec_number, now, life))
            elif rank > top:
                top, highest = rank, job_id
            if others is not None:
                others.add(job_id)
        self._add_run(shared, run_due, range(first, self.job), apart)
        if highest is not None:
            self._below_horizon(highest)
        claims = [] if worker_id is None else self._hand_over(worker_id, again, reserved, now)
        self.fresh = True
        return claims

    def _hand_over(
        self, worker_id: str, again: Sequence[UUID], reserved: list[int], now: float
    ) -> list[Claim]:
        """Claim what is reserved for a worker, and what it was handed in ``again`` and waits for nobody else."""
        seat = self.seats[worker_id]
        # Not those of this very call, which it names twice: they are reserved once, and no lane has them.
        fresh = set(reserved)
        before = [job_id for job_id in dict.fromkeys(again) if self._by_id.get(job_id.int) not in fresh]
        claims = self._hand_again(seat, before, reserved)
        self._load_missing(reserved)
        self._claim_numbers(seat, reserved, now, claims)
        return claims

    def insert_rows(self, rows: Rows, now: float) -> None:
        """Take the rows of a batch: many new ones in one piece, and only as many into memory as are kept there."""
        if not self._is_new_block(rows):
            self.insert(list(rows), now)
            return
        if rows.due_at is not None and rows.due_at <= now:
            rows = replace(rows, due_at=None)
        first, count, spec = self.job, len(rows), rows.spec
        number = self.add_spec(spec)
        block = Block(rows=rows, seq=self.seq, number=first, spec_number=number, dispatched_at=now)
        self.blocks.append(block)
        self.seq, self.job = self.seq + count, first + count
        kept = 0
        for job in block.first(min(count, max(0, limits.PENDING_KEPT - self._in_memory))):
            if len(job.payload) <= limits.LARGE:
                self.keep(job)
                kept += 1
        if kept < count:
            self._below_horizon(rows.ids[-1])
        self.queues[spec.queue].counts[_PENDING] += count
        self.lanes.push(spec, first, first + count - 1, rows.due_at)
        self.fresh = True

    def _is_new_block(self, rows: Rows) -> bool:
        """Whether these are many, whose ids nobody has: they were made together, so that no other lies among them."""
        if self._loader is None or len(rows) < BLOCK_ROWS or self.rows or self.blocks:
            return False
        first, last = rows.ids[0], rows.ids[-1]
        low, high = first.int, last.int
        if any(low <= rank <= high for ranks in (self._by_id, self.ended) for rank in ranks):
            return False
        return self.horizon is None or self.horizon < first or not self._loader.knows_between(first, last)

    def _add_run(
        self, spec: Spec | None, due_at: float | None, numbers: range, reserved: list[int] | None
    ) -> None:
        """Take new jobs of one spec and time into the books, and into their lane or among those for one worker."""
        if spec is None or not numbers:
            return
        self.queues[spec.queue].counts[_PENDING] += len(numbers)
        if reserved is None:
            self.lanes.push(spec, numbers.start, numbers.stop - 1, due_at)
        else:
            reserved.extend(numbers)

    def _known(self, jobs: Sequence[NewJob]) -> set[UUID]:
        """Which of these ids are taken by jobs that are not in memory."""
        if self._loader is None:
            return set()
        # A first look that asks nobody: after the horizon come only new ones.
        horizon = self.horizon
        doubtful = (
            [new.job_id for new in jobs if new.job_id.int <= horizon.int] if horizon is not None else []
        )
        if not doubtful:
            return set()
        unwritten = {row[_JOB_ID] for row in self.rows}
        unwritten |= {job_id for job_id in doubtful for block in self.blocks if block.named(job_id)}
        return self._loader.known(doubtful) | {job_id for job_id in doubtful if job_id in unwritten}
