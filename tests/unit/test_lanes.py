"""Lanes against a list that is sorted anew each time: the same numbers in the same order, in far less memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nbqueue.jobs import Spec
from nbqueue.stores.lanes import Lane, Lanes, lane_key

QUEUES = ("a", "b")
SPECS = [Spec(command, queue, priority) for command in ("x", "y") for queue in QUEUES for priority in (0, 5)]


def lane() -> Lane:
    return Lane("a", 0, ("x", "", ""), SPECS[0])


@dataclass
class Naive:
    """What waits and what is ready, as plain lists."""

    ready: list[tuple[int, int, Spec]] = field(default_factory=list)  #: (minus priority, number, spec)
    delayed: list[tuple[float, int, Spec]] = field(default_factory=list)

    def push(self, spec: Spec, first: int, last: int, due_at: float | None) -> None:
        for number in range(first, last + 1):
            if due_at is None:
                self.ready.append((-spec.priority, number, spec))
            else:
                self.delayed.append((due_at, number, spec))

    def promote(self, now: float) -> int:
        due = [item for item in self.delayed if item[0] <= now]
        self.delayed = [item for item in self.delayed if item[0] > now]
        self.ready += [(-spec.priority, number, spec) for _, number, spec in due]
        return len(due)

    def take(self, queues: set[str], commands: set[str], limit: int) -> list[int]:
        fits = sorted(i for i in self.ready if i[2].queue in queues and i[2].command in commands)[:limit]
        for item in fits:
            self.ready.remove(item)
        return [number for _, number, _ in fits]


class LanesAgainstList(RuleBasedStateMachine):
    """Dispatches, delays, comings back and takings in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes, self.naive = Lanes(), Naive()
        self.number, self.now = 1, 0.0
        #: Taken ones, which may come back: a job retried, or given back.
        self.taken: list[tuple[int, Spec]] = []
        self.spec_of: dict[int, Spec] = {}

    def _push(self, spec: Spec, first: int, last: int, due_at: float | None) -> None:
        self.lanes.push(spec, first, last, due_at)
        self.naive.push(spec, first, last, due_at)
        self.spec_of.update(dict.fromkeys(range(first, last + 1), spec))

    @rule(spec=st.sampled_from(SPECS), count=st.integers(1, 6), wait=st.one_of(st.none(), st.integers(1, 5)))
    def dispatch(self, spec: Spec, count: int, wait: int | None) -> None:
        """New jobs get rising numbers, a run of them at a time."""
        self._push(spec, self.number, self.number + count - 1, None if wait is None else self.now + wait)
        self.number += count

    @rule(data=st.data(), wait=st.one_of(st.none(), st.integers(1, 5)))
    def come_back(self, data: st.DataObject, wait: int | None) -> None:
        """A number that was taken returns, at once or later."""
        if self.taken:
            number, spec = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
            self._push(spec, number, number, None if wait is None else self.now + wait)

    @rule(data=st.data())
    def come_twice(self, data: st.DataObject) -> None:
        """The same number is handed in again while it is there: a hint may stand twice, and comes out twice."""
        there = [number for _, number, _ in self.naive.ready]
        if there:
            number = data.draw(st.sampled_from(there))
            self._push(self.spec_of[number], number, number, None)

    @rule(seconds=st.integers(0, 4))
    def pass_time(self, seconds: int) -> None:
        """What is due moves into its lane."""
        self.now += seconds
        assert self.lanes.promote(self.now) == self.naive.promote(self.now)

    @rule(
        queues=st.sets(st.sampled_from(QUEUES)),
        commands=st.sets(st.sampled_from(("x", "y"))),
        limit=st.integers(0, 12),
    )
    def take(self, queues: set[str], commands: set[str], limit: int) -> None:
        """Higher priority first, then the lower number, out of the lanes asked for only."""
        lanes = [each for each in self.lanes.of_queues(sorted(queues)) if each.key[0] in commands]
        got = self.lanes.take(lanes, limit)
        assert got == self.naive.take(queues, commands, limit)
        self.taken += [(number, self.spec_of[number]) for number in got]

    @invariant()
    def same_wait(self) -> None:
        """The next due time, and how many wait, agree."""
        dues = [due for due, _, _ in self.naive.delayed]
        assert self.lanes.next_due() == (min(dues) if dues else None)
        assert self.lanes.waiting.total() == len(dues)

    def teardown(self) -> None:
        """In the end everything comes out, in order."""
        self.lanes.promote(float("inf"))
        self.naive.promote(float("inf"))
        got = self.lanes.take(self.lanes.of_queues(QUEUES), 10_000)
        assert got == self.naive.take(set(QUEUES), {"x", "y"}, 10_000)
        assert not self.lanes.of_queues(QUEUES)


TestLanesAgainstList = LanesAgainstList.TestCase
TestLanesAgainstList.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=30),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(0, 70)),
)
def test_pop_until(runs: list[tuple[int, int]], limit: int, bound: int | None) -> None:
    """The lowest numbers come first, as many as asked for and none above the bound, runs overlapping or not."""
    tested = lane()
    numbers: list[int] = []
    for first, more in runs:
        tested.push(first, first + more)
        numbers += range(first, first + more + 1)
    numbers.sort()
    expected = [n for n in numbers if bound is None or n <= bound][:limit]
    assert tested.pop_until(limit, bound) == expected
    assert tested.head() == (numbers[len(expected)] if len(expected) < len(numbers) else None)


def test_runs_merge() -> None:
    """Numbers that follow each other are one run, however they arrive."""
    tested = lane()
    for number in range(1, 1_001):
        tested.push(number, number)
    tested.push(1_001, 5_000)
    assert [list(run) for run in tested.tail] == [[1, 5_000]]
    assert not tested.strays


def test_a_gap_starts_a_run() -> None:
    """Jobs of another lane in between leave a gap, not an error."""
    tested = lane()
    tested.push(1, 3)
    tested.push(5, 6)
    assert [list(run) for run in tested.tail] == [[1, 3], [5, 6]]
    assert tested.pop_until(10, None) == [1, 2, 3, 5, 6]


def test_a_million_is_one_run() -> None:
    """A million pending jobs cost the same few bytes as one, and a claim does not walk through them."""
    lanes = Lanes()
    lanes.push(SPECS[0], 1, 1)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        lanes.push(SPECS[0], 2, 1_000_000)
        lanes.push(SPECS[1], 1_000_001, 2_000_000, due_at=5.0)
        grown = tracemalloc.get_traced_memory()[0] - before
        (first,) = lanes.take(lanes.of_queues(["a"]), 1)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert first == 1
    assert grown < 5_000
    assert peak < 10_000


def test_lane_is_the_handlers() -> None:
    """A named command's lane is its name; a function's is also where it was defined, and its code."""
    assert lane_key(Spec("x", code="1")) == lane_key(Spec("x", code="2")) == ("x", "", "")
    assert lane_key(Spec("x", origin="o", code="1")) != lane_key(Spec("x", origin="o", code="2"))
    assert lane_key(Spec("x", origin="o")) != lane_key(Spec("x"))
