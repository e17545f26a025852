"""Which job comes next: pending job numbers in lanes, and those that wait for their time; knows no job.

A lane holds runs of numbers, not an object a job, so that a million pending jobs cost a few hundred bytes. What it
holds are hints: whoever takes a number checks with the lifecycle that the job is still pending, so nothing ever has
to be taken out of the middle.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Sequence

from nbqueue.jobs import Spec

__all__ = ["Lane", "Lanes", "lane_key"]

Key = tuple[str, str, str]


def lane_key(spec: Spec) -> Key:
    """What decides whether a worker can run a job: the handler it asks for."""
    return (spec.command, spec.origin, spec.code if spec.origin else "")


class Lane:
    """Pending jobs of one queue, one priority and one handler, lowest number first."""

    __slots__ = ("key", "priority", "queue", "sample", "strays", "tail")

    def __init__(self, queue: str, priority: int, key: Key, sample: Spec):
        self.queue = queue
        self.priority = priority
        self.key = key
        #: Any spec of this lane, for ``Handlers.accepts``.
        self.sample = sample
        #: Runs [first, last] in rising order: nearly everything arrives here.
        self.tail: deque[list[int]] = deque()
        #: What came back out of order (retries, delayed jobs), a heap of (first, last).
        self.strays: list[tuple[int, int]] = []

    def push(self, first: int, last: int) -> None:
        """Add the numbers from ``first`` to ``last``."""
        tail = self.tail
        if not tail or tail[-1][1] + 1 < first:
            tail.append([first, last])
        elif tail[-1][1] + 1 == first:
            tail[-1][1] = last
        else:
            heapq.heappush(self.strays, (first, last))

    def head(self) -> int | None:
        """The lowest number, or None."""
        strays, tail = self.strays, self.tail
        if strays:
            return min(strays[0][0], tail[0][0]) if tail else strays[0][0]
        return tail[0][0] if tail else None

    def coming(self, limit: int) -> list[int]:
        """Give up to ``limit`` of the numbers that arrived in order and come next, and leave them here."""
        numbers: list[int] = []
        for first, last in self.tail:
            if len(numbers) >= limit:
                break
            numbers += range(first, min(last, first + limit - len(numbers) - 1) + 1)
        return numbers

    def pop_until(self, limit: int, bound: int | None) -> list[int]:
        """Take up to ``limit`` of the lowest numbers, none above ``bound``."""
        taken: list[int] = []
        while len(taken) < limit:
            strays, tail = self.strays, self.tail
            if strays and (not tail or strays[0][0] <= tail[0][0]):
                first, last = strays[0]
                if bound is not None and first > bound:
                    break
                taken.append(first)
                if first == last:
                    heapq.heappop(strays)
                else:
                    heapq.heapreplace(strays, (first + 1, last))
                continue
            if not tail:
                break
            run = tail[0]
            stop = run[1] if not strays else min(run[1], strays[0][0] - 1)
            if bound is not None:
                stop = min(stop, bound)
            stop = min(stop, run[0] + limit - len(taken) - 1)
            if stop < run[0]:
                break
            taken.extend(range(run[0], stop + 1))
            if stop == run[1]:
                tail.popleft()
            else:
                run[0] = stop + 1
        return taken


class Lanes:
    """Every lane, by queue; and a heap of those numbers that wait for their time."""

    def __init__(self) -> None:
        self._by_queue: dict[str, dict[tuple[int, Key], Lane]] = {}
        #: (due, first, last, lane number): a heap; the lane is looked up, since lanes do not compare.
        self._delayed: list[tuple[float, int, int, int]] = []
        #: How many jobs wait for their time, by queue.
        self.waiting: Counter[str] = Counter()
        #: (due, queue) of jobs that no longer wait for that time, though ``_delayed`` still has them: a heap.
        self._overtaken: list[tuple[float, str]] = []
        self._lanes: list[Lane] = []
        self._numbers: dict[tuple[str, int, Key], int] = {}

    def _lane_number(self, spec: Spec) -> int:
        key = lane_key(spec)
        full = (spec.queue, spec.priority, key)
        number = self._numbers.get(full)
        if number is None:
            lane = self.new_lane(spec.queue, spec.priority, key, spec)
            number = self._numbers[full] = len(self._lanes)
            self._lanes.append(lane)
            self._by_queue.setdefault(spec.queue, {})[spec.priority, key] = lane
        return number

    def new_lane(self, queue: str, priority: int, key: Key, sample: Spec) -> Lane:
        """Make a lane."""
        return Lane(queue, priority, key, sample)

    def push(self, spec: Spec, first: int, last: int, due_at: float | None = None) -> None:
        """Add jobs of one spec, to run now or from ``due_at`` on."""
        number = self._lane_number(spec)
        if due_at is None:
            self._lanes[number].push(first, last)
        else:
            heapq.heappush(self._delayed, (due_at, first, last, number))
            self.waiting[spec.queue] += last - first + 1

    def overtake(self, spec: Spec, due_at: float) -> None:
        """Note that a job no longer waits for this time."""
        self.waiting[spec.queue] -= 1
        heapq.heappush(self._overtaken, (due_at, spec.queue))

    def promote(self, now: float) -> int:
        """Move what is due into its lane; gives how many."""
        moved = 0
        delayed = self._delayed
        while delayed and delayed[0][0] <= now:
            _, first, last, number = heapq.heappop(delayed)
            lane = self._lanes[number]
            lane.push(first, last)
            self.waiting[lane.queue] -= last - first + 1
            moved += last - first + 1
        while self._overtaken and self._overtaken[0][0] <= now:
            self.waiting[heapq.heappop(self._overtaken)[1]] += 1
        return moved

    def next_due(self) -> float | None:
        """When the next delayed one is due, seconds since the epoch."""
        return self._delayed[0][0] if self._delayed else None

    def of_queues(self, names: Sequence[str]) -> list[Lane]:
        """The lanes of these queues that hold something."""
        return [
            lane
            for name in names
            for lane in self._by_queue.get(name, {}).values()
            if lane.tail or lane.strays
        ]

    def take(self, lanes: Sequence[Lane], limit: int) -> list[int]:
        """Take up to ``limit`` numbers out of these lanes: higher priority first, then the lowest number."""
        taken: list[int] = []
        for priority in sorted({lane.priority for lane in lanes}, reverse=True):
            heads = [
                (head, i)
                for i, lane in enumerate(lanes)
                if lane.priority == priority and (head := lane.head()) is not None
            ]
            heapq.heapify(heads)
            while heads and len(taken) < limit:
                own, i = heads[0]
                rivals = heads[1:3]
                bound = max(own, min(rivals)[0] - 1) if rivals else None
                taken += lanes[i].pop_until(limit - len(taken), bound)
                head = lanes[i].head()
                if head is None:
                    heapq.heappop(heads)
                else:
                    heapq.heapreplace(heads, (head, i))
            if len(taken) >= limit:
                break
        return taken
