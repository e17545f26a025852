"""The live jobs of a store in memory, and what each verb does to them; knows no file and no thread.

Every method is called by one thread at a time (the store sees to that), changes the index and appends rows for the
ledger. The lifecycle decides what a change is; this only keeps the books. It is long since the books are one: what
is live, ended, pending, watched and unwritten changes together or not at all.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from uuid import UUID

from nbqueue.errors import StaleClaim
from nbqueue.jobs import BatchRecord, Claim, JobRecord, NewJob, Spec, State
from nbqueue.lifecycle import (
    CancelAsked,
    Claimed,
    Ended,
    Event,
    Life,
    Lost,
    Refused,
    Released,
    RetryAsked,
    Step,
    What,
    advance,
)
from nbqueue.rows import Rows
from nbqueue.store import OUTPUT, Answer, Report, ReportKind, WorkerInfo
from nbqueue.stores.blocks import BLOCK_ROWS, Block
from nbqueue.stores.books import Books
from nbqueue.stores.lanes import Lane, Lanes
from nbqueue.stores.live import LiveJob, Loader, Numbers, QueueState, Row, Seat, micros
from nbqueue.stores.pruning import Gone
from nbqueue.stores.repeats import Closing, is_repeated

__all__ = ["Closings", "Index"]

#: Gives what ended the claims that a call reports on, by fence.
Closings = Callable[[], Mapping[int, Closing]]

#: A store that can load jobs again takes no more new ones into memory than up to so many unfinished ones.
PENDING_KEPT = 20_000
ENDED_KEPT = 5_000
#: With what it loads again comes what is next, up to so many jobs, and about so many characters if the next are like
#: the last: a question to the file takes as long as 500 of them.
LOAD_AHEAD = 8_000
LOAD_TEXT = 8 * 1024 * 1024
#: Of jobs with more text than this, in characters, it keeps none that it can load again: few would fill the memory.
LARGE = 16_384

#: Where a row has what is asked of it before it is on disk.
_EVENT, _JOB, _JOB_ID = 2, 3, 16

# Every job passes here twice: a look at a member of an enum takes 0.07 us, at its value 0.2.
_PENDING, _RUNNING = State.PENDING, State.RUNNING
_ENDED, _NEWS, _SUCCEEDED = ReportKind.ENDED, ReportKind.NEWS, Event.SUCCEEDED
_CANCELLING, _DISPATCHED = Event.CANCELLING, Event.DISPATCHED.value
_WORDS = {event: event.value for event in Event}
_NO_COUNTS: dict[State, int] = {}
#: Where every job stands that may run at once.
_NEW = Life()


def _last(
    before: tuple[str, str, str, str], event: Event, now: tuple[str, str, str, str]
) -> tuple[str, str, str, str]:
    """What is shown of the last attempt: its error stays until another comes, a success, or a retry by hand."""
    data, error, cause, traceback = now
    if not error and event is not _SUCCEEDED and event is not Event.RETRIED:
        _, error, _, traceback = before
    return (data, error, cause, traceback)


class Index:
    """All that a store knows without asking its file.

    Parameters
    ----------
    loader : Loader | None
        None: nothing is ever dropped from memory.
    numbers : Numbers
        The first free ones.
    chance : Callable[[], float]
        For the jitter of backoffs.
    """

    def __init__(self, loader: Loader | None, numbers: Numbers, chance: Callable[[], float]):
        self._loader = loader
        self._chance = chance
        self.seq, self.job, self.worker, self.epoch = numbers
        self._fence = self.epoch << 32
        #: Claims up to this one are on disk, and whoever has them knows.
        self.settled_fence = self._fence
        self.lanes = Lanes()
        #: Jobs that were handed out past their lane, by how often it names them in vain.
        self._passed: Counter[int] = Counter()
        self.queues: dict[str, QueueState] = {"default": QueueState()}
        self.specs: dict[int, Spec] = {}
        self._next_spec = 0
        self._spec_numbers: dict[Spec, int] = {}
        self.live: dict[int, LiveJob] = {}
        self._by_id: dict[UUID, int] = {}
        #: The highest id that may be taken without being in memory; ids rise with time, so new ones lie above it.
        self.horizon: UUID | None = None
        #: Numbers of jobs that have ended since the last commit: the loader does not know it yet.
        self._gone: set[int] = set()
        self.ended: OrderedDict[UUID, LiveJob] = OrderedDict()
        #: Those with much text that have ended since the last commit.
        self._large: list[UUID] = []
        self.seats: dict[str, Seat] = {}
        self.books = Books()
        self._watchers: dict[UUID, list[Callable[[JobRecord | None], None]]] = {}
        #: Watchers whose call waits for the next commit.
        self._told: dict[UUID, list[Callable[[JobRecord | None], None]]] = {}
        #: What the next commit writes.
        self.rows: list[Row] = []
        self.blocks: list[Block] = []
        self.new_specs: list[tuple[int, Spec]] = []
        self.new_queues: list[str] = []
        self.new_batches: list[BatchRecord] = []
        self.new_workers: list[tuple[int, WorkerInfo, float]] = []
        #: What is called once that is on disk.
        self.calls: list[Callable[[], None]] = []
        #: Something may have become claimable since the open slots were last looked at.
        self.fresh = True

    # -- dispatch

    def insert(self, jobs: Sequence[NewJob], now: float, worker_id: str | None = None) -> list[Claim]:
        """Take new jobs; one whose id is known is left as it is. A worker named gets them without a queue."""
        if worker_id is not None and worker_id not in self.seats:
            msg = f"worker {worker_id} is not here any more (its lease ran out); join again, then dispatch"
            raise StaleClaim(msg)
        known = self._known(jobs)
        reserved: list[int] | None = None if worker_id is None else []
        again: list[UUID] = []
        now_us = round(now * 1e6)
        append, by_id, ended, keep = self.rows.append, self._by_id, self.ended, self.keep
        keeps_all = self._loader is None or worker_id is not None
        room = PENDING_KEPT - len(self.live)
        #: The highest id that is not kept; and all new ones, from the first on that does not rise above it.
        top, highest, at = -1, self.horizon, len(self.rows)
        others: set[UUID] | None = None
        # Most come in runs of one spec: what hangs on it is looked up once a run, since its hash alone takes 0.6 us.
        run: tuple[Spec, float | None] | None = None
        first = spec_number = 0
        for new in jobs:
            job_id, spec, payload, metadata, due_at, batch_id, row = new
            rank = job_id.int
            if rank <= top and others is None:
                others = {row[_JOB_ID] for row in self.rows[at:]}
            # An empty one is not asked: a look by a UUID runs its hash, which is Python code.
            if (
                job_id in by_id
                or (ended and job_id in ended)
                or (known and job_id in known)
                or (others and job_id in others)
            ):
                again.append(job_id)
                continue
            seq, number = self.seq, self.job
            if due_at is not None and due_at <= now:
                due_at = None
                new = new._replace(due_at=None)  # noqa: PLW2901 - as it is written, so it is kept
            if run != (spec, due_at):
                self._add_run(run, first, number, reserved)
                run, first, spec_number = (spec, due_at), number, self.add_spec(spec)
            self.seq, self.job = seq + 1, number + 1
            append(
                (seq, now_us, "dispatched", number, None, None, None, None, None, None, None, micros(due_at), payload,
                 None, None, None, job_id, spec_number, metadata or None, batch_id, row)
            )  # fmt: skip
            if keeps_all or (room > 0 and len(payload) <= LARGE):
                room -= 1
                keep(LiveJob(number, new, spec_number, now, _NEW if due_at is None else Life(due_at=due_at)))
            elif rank > top:
                top, highest = rank, job_id
            if others is not None:
                others.add(job_id)
        self._add_run(run, first, self.job, reserved)
        if highest is not None:
            self._below_horizon(highest)
        claims: list[Claim] = []
        if worker_id is not None and reserved is not None:
            seat = self.seats[worker_id]
            # Not those of this very call, which it names twice: they are reserved once, and no lane has them.
            fresh = set(reserved)
            before = [job_id for job_id in dict.fromkeys(again) if self._by_id.get(job_id) not in fresh]
            claims += self._hand_again(seat, before, reserved)
            self._load_missing(reserved)
            self._claim_numbers(seat, reserved, now, claims)
        self.fresh = True
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
        for job in block.first(min(count, max(0, PENDING_KEPT - len(self.live)))):
            if len(job.new.payload) <= LARGE:
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
        if any(low <= job_id.int <= high for ids in (self._by_id, self.ended) for job_id in ids):
            return False
        return self.horizon is None or self.horizon < first or not self._loader.knows_between(first, last)

    def _add_run(
        self, run: tuple[Spec, float | None] | None, first: int, end: int, reserved: list[int] | None
    ) -> None:
        """Take new jobs of one spec and time into the books, and into their lane or among those for one worker."""
        if run is None:
            return
        spec, due_at = run
        self.queues[spec.queue].counts[_PENDING] += end - first
        if reserved is None:
            self.lanes.push(spec, first, end - 1, due_at)
        else:
            reserved.extend(range(first, end))

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

    def _below_horizon(self, job_id: UUID) -> None:
        if self.horizon is None or job_id > self.horizon:
            self.horizon = job_id

    def settle(self) -> None:
        """Note that everything up to here is on disk, where the loader finds it."""
        self.settled_fence = self._fence
        self._gone.clear()
        large, self._large = self._large, []
        if self._loader is not None:
            for job_id in large:
                if self.ended.pop(job_id, None) is not None:
                    self._below_horizon(job_id)
            while len(self.ended) > ENDED_KEPT:
                self._below_horizon(self.ended.popitem(last=False)[0])

    def take_calls(self) -> list[Callable[[], None]]:
        """Give what is to be called now that everything is on disk."""
        calls, self.calls = self.calls, []
        self._told.clear()
        return calls

    def restore_spec(self, number: int, spec: Spec) -> None:
        """Put a stored spec back under its number."""
        self.specs[number] = spec
        self._spec_numbers.setdefault(spec, number)
        self._next_spec = max(self._next_spec, number + 1)

    def add_spec(self, spec: Spec) -> int:
        """Give the number of a spec, a new one if need be."""
        number = self._spec_numbers.get(spec)
        if number is None:
            number = self._next_spec
            self._next_spec = number + 1
            self.specs[number] = spec
            self._spec_numbers[spec] = number
            self.new_specs.append((number, spec))
            self.add_queue(spec.queue)
        return number

    def add_queue(self, name: str) -> None:
        """Make a queue known."""
        if name not in self.queues:
            self.queues[name] = QueueState()
            self.new_queues.append(name)

    def keep(self, job: LiveJob) -> None:
        """Hold a job in memory."""
        self.live[job.number] = job
        self._by_id[job.new.job_id] = job.number

    # -- workers

    def join(
        self, seat_of: Callable[[int], Seat], info: WorkerInfo, held: Collection[int], now: float
    ) -> None:
        """Seat a worker, anew if it has a seat: what it has got and does not hold is given back."""
        before = self.seats.get(info.worker_id)
        if before is None:
            number = self.worker
            self.worker = number + 1
            self.new_workers.append((number, info, now))
            seat = seat_of(number)
        else:
            seat = seat_of(before.number)
            seat.claims = before.claims
            # Its open slots were of a turn whose answer it may not have got.
            self.calls.append(partial(seat.wake, ()))
        self.seats[info.worker_id] = seat
        for fence, job in list(seat.claims.items()):
            if fence not in held:
                self._happen(job, Released(fence), now)
        seat.doubtful = set(seat.claims)
        seat.gone = set(held) - seat.doubtful

    def leave(self, worker_id: str, now: float) -> None:
        """Unseat a worker; what it holds is given back."""
        seat = self.seats.pop(worker_id, None)
        if seat is not None:
            for fence in list(seat.claims):
                self._happen(seat.claims[fence], Released(fence), now)

    def lapse(self, now: float, ticks: float, begun: Callable[[str], Collection[int] | None]) -> None:
        """Take the jobs of workers whose lease has run out; ``ticks`` is by the clock of leases."""
        for worker_id, seat in list(self.seats.items()):
            if seat.lease_until < ticks:
                error = f"worker {worker_id} was silent for longer than its lease of {seat.info.lease:g} s"
                self.bury(seat, begun(worker_id), now, error=error, cause="lease expired")

    def bury(self, seat: Seat, begun: Collection[int] | None, now: float, *, error: str, cause: str) -> None:
        """Take a worker's seat and its jobs; ``begun`` are the fences of those that it had begun, if that is known."""
        del self.seats[seat.info.worker_id]
        if begun is None:
            # It runs them in the order it got them: those after its first few were only claimed ahead.
            begun = list(seat.claims)[: seat.info.concurrency]
        for fence, job in list(seat.claims.items()):
            self._happen(job, Lost(fence, fence in begun), now, error=error, cause=cause)
        self.calls.append(partial(seat.wake, ()))

    def lengthen_leases(self, seconds: float) -> None:
        """Give every worker so much longer: nobody could be heard meanwhile."""
        for seat in self.seats.values():
            seat.lease_until += seconds

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

    def _claim_numbers(self, seat: Seat, numbers: list[int], now: float, claims: list[Claim]) -> None:
        live = self.live
        now_us = round(now * 1e6)
        worker_id, tries, worker = seat.info.worker_id, seat.info.tries, seat.number
        held, rows, claim_of = seat.claims, self.rows, seat.claim_of
        queue, counts = None, _NO_COUNTS
        for number in numbers:
            job = live.get(number)
            if job is None:
                continue  # a hint that has been overtaken: cancelled or ended
            life, spec, batch_id = job.life, job.new.spec, job.new.batch_id
            if life.due_at is not None and life.due_at > now:
                # Another time was set meanwhile, or the clock stepped back.
                self.lanes.push(spec, number, number, life.due_at)
                continue
            fence = self._fence + 1
            life, event, _, _ = advance(life, Claimed(fence, tries), spec, now=now)
            if event is None:
                continue
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
            _, attempt, base, crashes, _, allowed, _, _, _ = life
            rows.append(
                (seq, now_us, "claimed", number, fence, attempt, base + allowed, base or None, crashes or None,
                 worker, now_us, None, None, None, None, None, None, None, None, None, None)
            )  # fmt: skip
            claims.append(claim_of(job))

    def _load_missing(self, numbers: Sequence[int], lanes: Sequence[Lane] = ()) -> None:
        """Bring those of these jobs into memory that are pending, and what comes next in these lanes."""
        loaded = self._load_pending(numbers)
        if not loaded or not lanes:
            return
        text = sum([len(job.new.payload) for job in loaded])
        # However many queues are worked off in turn, what was read ahead for all of them is bounded.
        room = PENDING_KEPT + LOAD_AHEAD - len(self.live)
        ahead = min(LOAD_AHEAD, room, LOAD_TEXT * len(loaded) // max(1, text)) // len(lanes)
        self._load_pending([number for lane in lanes for number in lane.coming(ahead)], LARGE)

    def _load_pending(self, numbers: Sequence[int], longest: int | None = None) -> list[LiveJob]:
        """Load pending jobs out of what the next commit writes, or out of the file; none with a longer payload."""
        live, gone = self.live, self._gone
        wanted = {number for number in numbers if number not in live and number not in gone}
        if not wanted or self._loader is None:
            return []
        loaded = [self._unwritten(r) for r in self.rows if r[_JOB] in wanted and r[_EVENT] == _DISPATCHED]
        loaded += [job for block in self.blocks for n in wanted if (job := block.numbered(n)) is not None]
        wanted.difference_update([job.number for job in loaded])
        if longest is not None:
            loaded = [job for job in loaded if len(job.new.payload) <= longest]
        if wanted:
            loaded += self._loader.pending(sorted(wanted), longest)
        for job in loaded:
            self.keep(job)
        return loaded

    def _unwritten(self, row: Row) -> LiveJob:
        """The job of a dispatch that is not on disk yet."""
        _, at, _, number, *_, due_us, data, _, _, _, job_id, spec, metadata, batch_id, label = row
        due_at = None if due_us is None else due_us / 1e6
        new = NewJob(job_id, self.specs[spec], data, metadata or "", due_at, batch_id, label)
        return LiveJob(number, new, spec, at / 1e6, Life(due_at=due_at))

    def apply(self, reports: Sequence[Report], now: float, closings: Closings) -> list[Answer]:
        """Take what a worker says of its claims; ``closings`` is asked where one is not its own any more."""
        return [self._apply(report, now, closings) for report in reports]

    def _apply(self, report: Report, now: float, closings: Closings) -> Answer:
        (
            claim, kind, outcome, started_at, finished_at, result, error, kinds, cause, traceback, fingerprint,
            logs, progress, usage,
        ) = report  # fmt: skip
        job_id, fence = claim.job_id, claim.fence
        job = self.live.get(self._by_id.get(job_id, -1))
        held = job is not None and job.life.fence == fence and job.life.state is _RUNNING
        if not held and kind is not _NEWS and is_repeated(report, closings().get(fence)):
            return Answer(job_id, done=True)
        if job is None:
            return self._stale(report, now)
        if held and (logs or progress or usage):
            self._write_news(job, report, now)
        what: What
        if kind is _ENDED:
            assert outcome is not None
            what = Ended(fence, outcome, kinds)
        elif kind is ReportKind.RELEASED:
            what = Released(fence)
        elif kind is ReportKind.REFUSED:
            what = Refused(fence)
        else:
            return Answer(job_id, held, "" if held else "the claim was taken back")
        _, _, refusal, _ = self._happen(
            job,
            what,
            now if finished_at is None else finished_at,
            data=result or fingerprint,
            error=error,
            cause=cause,
            traceback=traceback,
            started_at=started_at,
        )
        return Answer(job_id, not refusal, refusal)

    def _stale(self, report: Report, now: float) -> Answer:
        """Record that a report came for a job that has ended and left, or was never here."""
        job = self.ended.get(report.claim.job_id) or next(iter(self._load((report.claim.job_id,))), None)
        if job is None:
            return Answer(report.claim.job_id, done=False, reason="there is no such job any more")
        refusal = f"the job is {job.life.state.value}, not running"
        if report.kind is not ReportKind.NEWS:
            self._row(job, Event.STALE, now, fence=report.claim.fence, cause=report.kind.value, error=refusal)
        return Answer(report.claim.job_id, done=False, reason=refusal)

    def _write_news(self, job: LiveJob, report: Report, now: float) -> None:
        fence = report.claim.fence
        for stream, text, at in report.logs:
            if stream == OUTPUT:
                self._row(job, Event.OUTPUT, at, fence=fence, data=text)
            else:
                self._row(job, Event.LOG, at, fence=fence, cause=stream, data=text)
        if report.progress:
            job.progress = report.progress
            self._row(job, Event.PROGRESS, now, fence=fence, data=report.progress)
        if report.usage:
            self._row(job, Event.USAGE, now, fence=fence, data=report.usage)

    # -- the one place where a job moves

    def _happen(
        self,
        job: LiveJob,
        what: What,
        now: float,
        *,
        data: str = "",
        error: str = "",
        cause: str = "",
        traceback: str = "",
        started_at: float | None = None,
    ) -> Step:
        before = job.life
        spec = job.new.spec
        step = advance(before, what, spec, now=now, chance=self._chance())
        life, event, refusal, why = step
        if event is None:
            return step
        fence = getattr(what, "fence", None)
        if event is Event.STALE:
            self._row(job, event, now, fence=fence, cause=type(what).__name__.lower(), error=refusal)
            return step
        job.life = life
        was, state = before.state, life.state
        if before.due_at is not None and before.due_at > now:
            self.lanes.overtake(spec, before.due_at)
        # A reporter may know more exactly why an attempt failed, but not why the job ended over it.
        cause = cause if cause and why not in ("", "cancelled", "crashes") else why
        self._row(
            job,
            event,
            now,
            fence=fence,
            data=data,
            cause=cause,
            error=error,
            traceback=traceback,
            started_at=started_at,
            due_at=life.due_at,
        )
        if was is _RUNNING and state is not _RUNNING:
            seat = self.seats.get(job.worker)
            if seat is not None:
                seat.claims.pop(before.fence, None)
            if started_at is not None:
                job.started_at = started_at
        if event is not _CANCELLING:
            job.last = _last(job.last, event, (data, error, cause, traceback))
        if was is not state:
            counts = self.queues[spec.queue].counts
            counts[was] -= 1
            counts[state] += 1
            if job.new.batch_id is not None:
                self.books.move(job.new.batch_id, job.number, was, state)
        if state is _PENDING:
            self._wait(job)
        elif state is not _RUNNING:
            self._end(job, now)
        return step

    def _wait(self, job: LiveJob) -> None:
        if not job.life.held:
            self.lanes.push(job.new.spec, job.number, job.number, job.life.due_at)
            self.fresh = True

    def _end(self, job: LiveJob, now: float) -> None:
        job.finished_at = now
        number, last = job.number, job.last
        job_id, payload = job.new.job_id, job.new.payload
        self.live.pop(number, None)
        self._gone.add(number)
        self._by_id.pop(job_id, None)
        self.ended[job_id] = job
        if len(payload) + len(last[0]) + len(last[3]) > LARGE:
            self._large.append(job_id)
        # Few are waited for, and a look by a UUID runs its hash, which is Python code.
        watchers = self._watchers.pop(job_id, None) if self._watchers else None
        if watchers:
            self._told.setdefault(job_id, []).extend(watchers)
            record = job.record()
            self.calls.extend(partial(notify, record) for notify in watchers)

    def _row(
        self,
        job: LiveJob,
        event: Event,
        now: float,
        *,
        fence: int | None = None,
        data: str = "",
        cause: str = "",
        error: str = "",
        traceback: str = "",
        started_at: float | None = None,
        due_at: float | None = None,
    ) -> None:
        _, attempt, base, crashes, _, tries, _, _, _ = job.life
        seq = self.seq
        self.seq = seq + 1
        self.rows.append(
            (seq, round(now * 1e6), _WORDS[event], job.number, fence, attempt, base + tries, base or None,
             crashes or None, None, None if started_at is None else round(started_at * 1e6), micros(due_at),
             data or None, cause or None, error or None, traceback or None, None, None, None, None, None)
        )  # fmt: skip

    # -- what people ask

    def cancel(self, ids: Sequence[UUID], now: float, *, again: bool = False) -> list[Answer]:
        """Cancel pending jobs, and mark running ones; asked ``again``, what is cancelled is done."""
        done = self._standing(ids, lambda job: job.life.state is State.CANCELLED) if again else ()
        return self._ask(ids, CancelAsked(), now, done)

    def retry(self, ids: Sequence[UUID], now: float, fences: Sequence[int] | None = None) -> list[Answer]:
        """Let ended jobs run again; of those whose fences are given, only what has not moved on since."""
        if fences is None:
            return self._ask(ids, RetryAsked(), now)
        seen = dict(zip(ids, fences, strict=True))

        def is_done(job: LiveJob) -> bool:
            life = job.life
            ready = life.state is State.PENDING and life.due_at is None and not life.held
            return ready or life.fence != seen[job.new.job_id]

        return self._ask(ids, RetryAsked(), now, self._standing(ids, is_done))

    def _standing(self, ids: Sequence[UUID], fits: Callable[[LiveJob], bool]) -> set[UUID]:
        return {job.new.job_id for job in self.jobs(ids) if fits(job)}

    def _ask(
        self, ids: Sequence[UUID], what: CancelAsked | RetryAsked, now: float, done: Collection[UUID] = ()
    ) -> list[Answer]:
        found = {job.new.job_id: job for job in self.jobs(ids)}
        answers = []
        for job_id in ids:
            if job_id in done:
                answers.append(Answer(job_id, done=True))
                continue
            job = found.get(job_id)
            if job is None:
                answers.append(Answer(job_id, done=False, reason="there is no such job"))
                continue
            if isinstance(what, RetryAsked) and job.life.state.ended:
                self.ended.pop(job_id, None)
                self._gone.discard(job.number)
            self.keep(job)
            step = self._happen(job, what, now)
            if step.event is None and job.life.state.ended:
                self._drop(job)
            elif step.event is Event.CANCELLING:
                seat = self.seats.get(job.worker)
                if seat is not None:
                    self.calls.append(partial(seat.wake, ()))
            answers.append(Answer(job_id, not step.refusal, step.refusal))
        return answers

    def _drop(self, job: LiveJob) -> None:
        self.live.pop(job.number, None)
        self._by_id.pop(job.new.job_id, None)
        self.ended.setdefault(job.new.job_id, job)

    def jobs(self, ids: Sequence[UUID]) -> list[LiveJob]:
        """These jobs, out of memory or loaded; unknown ones are left out."""
        found: list[LiveJob] = []
        missing: list[UUID] = []
        for job_id in ids:
            job = self.live.get(self._by_id.get(job_id, -1)) or self.ended.get(job_id)
            if job is None:
                missing.append(job_id)
            else:
                found.append(job)
        return found + self._load(missing)

    def _load(self, ids: Sequence[UUID]) -> list[LiveJob]:
        if self._loader is None or not ids:
            return []
        wanted = set(ids)
        new = [self._unwritten(row) for row in self.rows if row[_JOB_ID] in wanted]
        new += [job for block in self.blocks for i in wanted if (job := block.named(i)) is not None]
        wanted -= {job.new.job_id for job in new}
        return new + self._loader.jobs([i for i in ids if i in wanted])

    def watch(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]) -> None:
        """Have ``notify`` called for each of these jobs when it has ended; at once if it has."""
        ended = {job.new.job_id: job for job in self.jobs(ids) if job.life.state.ended}
        for job_id in ids:
            job = ended.get(job_id)
            if job is None:
                self._watchers.setdefault(job_id, []).append(notify)
            else:
                self.calls.append(partial(notify, job.record()))

    def unwatch(self, job_id: UUID, notify: Callable[[JobRecord | None], None]) -> None:
        """Take a watcher back."""
        watchers = self._watchers.get(job_id, [])
        if notify in watchers:
            watchers.remove(notify)
            if not watchers:
                del self._watchers[job_id]

    def watchers(self) -> dict[UUID, list[Callable[[JobRecord | None], None]]]:
        """Who waits for what, those included whose call waits for a commit."""
        told = self._told
        return {i: self._watchers.get(i, []) + told.get(i, []) for i in {**self._watchers, **told}}

    def rewatch(self, watchers: dict[UUID, list[Callable[[JobRecord | None], None]]]) -> None:
        """Take over the watchers of an index that this one replaces."""
        for job_id, notifies in watchers.items():
            for notify in notifies:
                self.watch((job_id,), notify)

    def lose(self, job: LiveJob, what: Lost, now: float, *, error: str, cause: str) -> Step:
        """Take a job from a worker that is gone."""
        return self._happen(job, what, now, error=error, cause=cause)

    def give_back(self, job: LiveJob, now: float) -> None:
        """Take a job from a worker that does not know that it has it."""
        self._happen(job, Released(job.life.fence), now)

    def forget(self, gone: Gone) -> None:
        """Strike what has left the ledger out of the books."""
        numbers: set[int] = set()
        for (queue, state), jobs in gone.jobs.items():
            self.queues[queue].counts[state] -= len(jobs)
            numbers.update(jobs)
        if numbers:
            self.books.clear()
            for job_id in [job_id for job_id, job in self.ended.items() if job.number in numbers]:
                del self.ended[job_id]
        for number in gone.specs:
            spec = self.specs.pop(number)
            if self._spec_numbers.get(spec) == number:
                del self._spec_numbers[spec]

    def count_ended(self) -> int:
        """How many jobs have ended and are not forgotten."""
        return sum(queue.counts[state] for queue in self.queues.values() for state in State if state.ended)

    def waiting(self, now: float) -> Counter[str]:
        """How many jobs of each queue wait for their time."""
        self.fresh |= self.lanes.promote(now) > 0
        return self.lanes.waiting

    def unknown(self, seat: Seat) -> list[Spec]:
        """Specs of pending jobs in this worker's queues that its handlers do not accept."""
        names = list(self.queues) if seat.info.queues is None else list(seat.info.queues)
        return [
            lane.sample
            for lane in self.lanes.of_queues(names)
            if not self._accepts(seat, lane.key, lane.sample)
        ]
