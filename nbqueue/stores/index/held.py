"""What an index holds, the one place that has it: jobs, queues, specs and seats, and what the next commit writes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from operator import attrgetter
from uuid import UUID

from nbqueue.jobs import BatchRecord, JobRecord, NewJob, Spec, State
from nbqueue.lifecycle import Event, Life
from nbqueue.store import WorkerInfo
from nbqueue.stores.alike import Alike
from nbqueue.stores.blocks import Block
from nbqueue.stores.books import Books
from nbqueue.stores.index import limits
from nbqueue.stores.lanes import Lanes
from nbqueue.stores.live import LiveJob, Loader, Numbers, PendingRow, QueueState, Row, Seat
from nbqueue.stores.loading import job_of
from nbqueue.stores.pruning import Gone

__all__ = ["Held"]

#: Where a row has what is asked of it before it is on disk.
_EVENT, _JOB, _JOB_ID = 2, 3, 16
_DISPATCHED = Event.DISPATCHED.value
_rank = attrgetter("int")


class Held:
    """All that a store knows without asking its file; the base of each group of verbs.

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
        #: By the number that an id is: to hash a UUID runs Python code, 0.25 us, and each job is looked up four times.
        self._by_id: dict[int, int] = {}
        #: What was read ahead, by number: pending jobs that nobody has touched. They are as much in memory as what lies
        #: in the file is: who asks for one by its id is given it from there, and ``keep`` strikes it here.
        self._ahead: dict[int, PendingRow] = {}
        #: The highest id that may be taken without being in memory; ids rise with time, so new ones lie above it.
        self.horizon: UUID | None = None
        #: Numbers of jobs that have ended since the last commit: the loader does not know it yet.
        self._gone: set[int] = set()
        self.ended: OrderedDict[int, LiveJob] = OrderedDict()
        #: Those with much text that have ended since the last commit.
        self._large: list[int] = []
        self.seats: dict[str, Seat] = {}
        self.books = Books()
        self._watchers: dict[UUID, list[Callable[[JobRecord | None], None]]] = {}
        #: Watchers whose call waits for the next commit.
        self._told: dict[UUID, list[Callable[[JobRecord | None], None]]] = {}
        #: What the next commit writes.
        self.rows: list[Row] = []
        self.alike: list[Alike] = []
        self.blocks: list[Block] = []
        self.new_specs: list[tuple[int, Spec]] = []
        self.new_queues: list[str] = []
        self.new_batches: list[BatchRecord] = []
        self.new_workers: list[tuple[int, WorkerInfo, float]] = []
        #: What is called once that is on disk.
        self.calls: list[Callable[[], None]] = []
        #: Something may have become claimable since the open slots were last looked at.
        self.fresh = True

    # -- jobs

    def keep(self, job: LiveJob) -> None:
        """Hold a job in memory."""
        if self._ahead:
            self._ahead.pop(job.number, None)
        self.live[job.number] = job
        self._by_id[job.job_id.int] = job.number

    def _drop(self, job: LiveJob) -> None:
        self.live.pop(job.number, None)
        self._by_id.pop(job.job_id.int, None)
        self.ended.setdefault(job.job_id.int, job)

    def jobs(self, ids: Sequence[UUID]) -> list[LiveJob]:
        """These jobs, out of memory or loaded; unknown ones are left out."""
        found: list[LiveJob] = []
        missing: list[UUID] = []
        for job_id in ids:
            job = self.live.get(self._by_id.get(job_id.int, -1)) or self.ended.get(job_id.int)
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
        wanted -= {job.job_id for job in new}
        return new + self._loader.jobs([i for i in ids if i in wanted])

    @property
    def _in_memory(self) -> int:
        """How many unfinished jobs there are in memory, read ahead or live."""
        return len(self.live) + len(self._ahead)

    def _load_pending(self, numbers: Sequence[int]) -> list[LiveJob]:
        """Bring pending jobs to life, out of what was read ahead or out of the file; gives those out of the file."""
        ahead = self._ahead
        if ahead:
            specs, live, by_id, take = self.specs, self.live, self._by_id, ahead.pop
            for number in numbers:
                row = take(number, None)
                if row is not None:
                    # As ``keep`` does, whose call takes 0.2 us.
                    live[number] = job = job_of(row, specs)
                    by_id[job.job_id.int] = number
        loaded, rows = self._find_pending(numbers)
        loaded += [job_of(row, self.specs) for row in rows]
        for job in loaded:
            self.keep(job)
        return loaded

    def _read_ahead(self, numbers: Sequence[int], longest: int) -> None:
        """Have at hand those of these jobs that are pending; none with a longer payload."""
        unwritten, rows = self._find_pending(numbers, longest)
        for job in unwritten:
            self.keep(job)
        self._ahead.update([(row[0], row) for row in rows])

    def _find_pending(
        self, numbers: Sequence[int], longest: int | None = None
    ) -> tuple[list[LiveJob], list[PendingRow]]:
        """Find pending jobs that are not in memory: in what the next commit writes, and in the file."""
        live, ahead, gone = self.live, self._ahead, self._gone
        wanted = {n for n in numbers if n not in live and n not in ahead and n not in gone}
        if not wanted or self._loader is None:
            return [], []
        loaded = [self._unwritten(r) for r in self.rows if r[_JOB] in wanted and r[_EVENT] == _DISPATCHED]
        loaded += [job for block in self.blocks for n in wanted if (job := block.numbered(n)) is not None]
        wanted.difference_update([job.number for job in loaded])
        if longest is not None:
            loaded = [job for job in loaded if len(job.payload) <= longest]
        return loaded, self._loader.pending(sorted(wanted), longest) if wanted else []

    def _unwritten(self, row: Row) -> LiveJob:
        """The job of a dispatch that is not on disk yet."""
        _, at, _, number, *_, due_us, data, _, _, _, job_id, spec, metadata, batch_id, label = row
        due_at = None if due_us is None else due_us / 1e6
        new = NewJob(job_id, self.specs[spec], data, metadata or "", due_at, batch_id, label)
        return LiveJob(number, new, spec, at / 1e6, Life(due_at=due_at))

    def _below_horizon(self, job_id: UUID) -> None:
        if self.horizon is None or job_id > self.horizon:
            self.horizon = job_id

    # -- specs and queues

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

    def count_ended(self) -> int:
        """How many jobs have ended and are not forgotten."""
        return sum(queue.counts[state] for queue in self.queues.values() for state in State if state.ended)

    def waiting(self, now: float) -> Counter[str]:
        """How many jobs of each queue wait for their time."""
        self.fresh |= self.lanes.promote(now) > 0
        return self.lanes.waiting

    # -- commits

    def settle(self) -> None:
        """Note that everything up to here is on disk, where the loader finds it."""
        self.settled_fence = self._fence
        self._gone.clear()
        large, self._large = self._large, []
        if self._loader is None:
            return
        leaving = [job for rank in large if (job := self.ended.pop(rank, None)) is not None]
        popitem = self.ended.popitem
        leaving += [popitem(last=False)[1] for _ in range(len(self.ended) - limits.ENDED_KEPT)]
        if leaving:
            # By their numbers: to compare UUIDs runs Python code.
            self._below_horizon(max([job.job_id for job in leaving], key=_rank))

    def take_calls(self) -> list[Callable[[], None]]:
        """Give what is to be called now that everything is on disk."""
        calls, self.calls = self.calls, []
        self._told.clear()
        return calls

    def forget(self, gone: Gone) -> None:
        """Strike what has left the ledger out of the books."""
        numbers: set[int] = set()
        for (queue, state), jobs in gone.jobs.items():
            self.queues[queue].counts[state] -= len(jobs)
            numbers.update(jobs)
        if numbers:
            self.books.clear()
            for rank in [rank for rank, job in self.ended.items() if job.number in numbers]:
                del self.ended[rank]
        for number in gone.specs:
            spec = self.specs.pop(number)
            if self._spec_numbers.get(spec) == number:
                del self._spec_numbers[spec]
