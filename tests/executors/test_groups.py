"""Tiny jobs that go to a child in groups: nobody can tell, whatever happens to one of them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import nbqueue as nbq
from nbqueue.executor import StopReason
from nbqueue.executors import conversation, desk
from nbqueue.executors.children import Child
from nbqueue.executors.conversation import Conversation
from nbqueue.executors.process import ProcessExecutor
from nbqueue.jobs import Claim
from nbqueue.lifecycle import Outcome
from nbqueue.slots import SlotFile, begun_claims
from nbqueue.store import OUTPUT, ReportKind
from tests.executors.child_jobs import CHILD_JOBS
from tests.executors.conformance import PATIENCE, Bench, Meeting
from tests.executors.elsewhere import said, value
from tests.executors.jobs import JOBS


class Groups:
    """A bench whose executor sends all that waits in one group, behind a job that it takes for a tiny one."""

    def __init__(self, bench: Bench, folder: Path):
        self.bench = bench
        self.executor = bench.executor
        self.path = folder / "ran"
        self._folder = folder
        for _ in range(2 * bench.executor.slots):
            self.step("warm")
        self.path.unlink()

    def step(self, text: str, *args: Any) -> None:
        """Run one by itself."""
        assert self.bench.run("step", str(self.path), text, *args).outcome is Outcome.SUCCEEDED

    def claims(self, count: int, special: dict[int, tuple[str, ...]] | None = None) -> list[Claim]:
        """Make so many, numbered; of some it is said what else they do."""
        return [
            self.bench.claim("step", str(self.path), str(number), *(special or {}).get(number, ()))
            for number in range(count)
        ]

    def submit(self, claims: list[Claim]) -> None:
        """Have these wait behind jobs that hold all slots, then let those end."""
        meetings = [Meeting(self._folder) for _ in range(self.executor.slots)]
        for meeting in meetings:
            self.bench.submit("meet", *meeting.paths)
            meeting.wait()
        self.executor.submit(claims)
        for meeting in meetings:
            meeting.let_go()

    @property
    def ran(self) -> list[int]:
        """The numbers of those that were run, in order."""
        return [int(line) for line in self.path.read_text().split()]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Groups]]:
    """Makes them, and closes them."""
    made: list[Bench] = []
    # How long a job takes on a busy machine must not decide what goes together here.
    monkeypatch.setattr(desk, "AHEAD", 1e6)

    def make(slots: int = 1, slot_file: SlotFile | None = None, **limits: Any) -> Groups:
        made.append(Bench(ProcessExecutor(slots, **limits), JOBS | CHILD_JOBS, slot_file))
        return Groups(made[-1], tmp_path)

    yield make
    for one in made:
        one.executor.close(PATIENCE)


def test_a_group_keeps_its_order(groups: Callable[..., Groups]) -> None:
    """One slot runs a group in the order of its claims, each once, with times that follow one another."""
    one = groups()
    claims = one.claims(40)
    one.submit(claims)
    reports = one.bench.wait_for(*claims)
    assert one.ran == list(range(40))
    times = [(report.started_at, report.finished_at) for report in reports]
    assert all(start is not None and end is not None and start <= end for start, end in times)
    assert times == sorted(times)
    assert all(json.loads(report.usage)["peak_memory"] > 1024**2 for report in reports)
    assert one.executor.waiting() == 0
    assert one.executor.running() == []


@pytest.mark.parametrize("how", ["exit", "kill", "garbage"])
def test_a_death_in_a_group_costs_one_attempt(groups: Callable[..., Groups], how: str) -> None:
    """What ended before it is told, what had not begun runs elsewhere: each is run once, and one has crashed."""
    one = groups()
    claims = one.claims(30, {15: ("die", how)})
    one.submit(claims)
    outcomes = [report.outcome for report in one.bench.wait_for(*claims)]
    assert Counter(outcomes) == {Outcome.SUCCEEDED: 29, Outcome.CRASHED: 1}
    assert outcomes[15] is Outcome.CRASHED
    assert one.ran == list(range(30))


@pytest.mark.parametrize("how", ["leave_thread", "leave_running", "leave_running_beside_one_that_ended"])
def test_who_leaves_something_running_runs_alone(groups: Callable[..., Groups], how: str) -> None:
    """A child in which something goes on runs no other job of its group: those have another."""
    one = groups()
    claims = one.claims(10, {5: (how, str(one.path.with_name("pid")))})
    one.submit(claims)
    reports = one.bench.wait_for(*claims)
    pids = [value(report) for report in reports]
    assert len(set(pids[:6])) == len(set(pids[6:])) == 1
    assert pids[5] != pids[6]
    assert [said(report) for report in reports[6:]] == [""] * 4
    assert one.ran == list(range(10))


@pytest.mark.parametrize("how", ["meet", "hold_gil"])
def test_what_waits_behind_a_long_job_goes_to_others(
    groups: Callable[..., Groups], tmp_path: Path, how: str
) -> None:
    """A job that turns out to be long, be it in C code, holds up none of its group: another slot runs them."""
    one, meeting = groups(2), Meeting(tmp_path)
    arguments = meeting.paths if how == "meet" else meeting.paths[:1]
    claims = one.claims(20, {3: (how, *arguments)})
    one.submit(claims)
    meeting.wait()
    one.bench.wait_for(*(claim for claim in claims if claim is not claims[3]))
    assert [running.claim for running in one.executor.running()] == [claims[3]]
    assert one.executor.stop_job(claims[3].fence, StopReason.CANCEL)
    (report,) = one.bench.wait_for(claims[3])
    assert report.outcome is Outcome.CANCELLED
    assert sorted(one.ran) == list(range(20))


def test_what_waits_in_a_child_can_be_withdrawn(groups: Callable[..., Groups], tmp_path: Path) -> None:
    """What a child has and has not begun is counted as waiting; withdrawn, it does not run, or somewhere else."""
    one, meeting = groups(), Meeting(tmp_path)
    claims = one.claims(10, {3: ("meet", *meeting.paths)})
    one.submit(claims)
    meeting.wait()
    assert one.executor.waiting() == 6
    assert one.executor.withdraw(keep=2) == claims[6:]
    assert one.executor.waiting() == 2
    one.executor.submit(claims[8:])
    meeting.let_go()
    one.bench.wait_for(*claims[:6], *claims[8:])
    assert one.ran == [0, 1, 2, 3, 4, 5, 8, 9]


def test_what_ended_before_its_child_died_is_heard(
    groups: Callable[..., Groups], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that the child is gone is found out by sending it more: nothing that ended runs again."""
    one, meeting, sending = groups(), Meeting(tmp_path), threading.Event()
    more, rounds = desk.SlotDesk.more, itertools.count()

    def more_late(self: desk.SlotDesk, child: Child, had: Sequence[Claim]) -> list[tuple[Claim, int]]:
        found = more(self, child, had)
        match next(rounds):
            case 0:
                self.back([claim for claim, _ in found[1:]])
                del found[1:]
            case 1:
                sending.set()
                os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOWAIT)
        return found

    claims = one.claims(10, {0: ("meet", *meeting.paths), 1: ("die", "kill")})
    holding = Meeting(tmp_path)
    one.bench.submit("meet", *holding.paths)
    holding.wait()
    monkeypatch.setattr(conversation, "_LONG", PATIENCE)
    monkeypatch.setattr(desk.SlotDesk, "more", more_late)
    one.executor.submit(claims)
    holding.let_go()
    meeting.wait()
    assert sending.wait(PATIENCE)
    meeting.let_go()
    outcomes = [report.outcome for report in one.bench.wait_for(*claims)]
    assert outcomes == [Outcome.CRASHED if n == 1 else Outcome.SUCCEEDED for n in range(10)]
    assert one.ran == list(range(10))


def test_what_waits_in_a_stopped_child_goes_to_others(groups: Callable[..., Groups]) -> None:
    """A child that is stopped between two jobs (SIGSTOP) keeps none that it has not begun."""
    one = groups()
    claims = one.claims(10, {3: ("halt_before_next",)})
    one.submit(claims)
    halted = value(one.bench.wait_for(*claims[:4])[3])
    deadline = time.monotonic() + PATIENCE
    while [running.claim for running in one.executor.running()] != [claims[4]]:
        assert time.monotonic() < deadline, "what waits is held up"
    assert one.executor.stop_job(claims[4].fence, StopReason.CANCEL)
    outcomes = [report.outcome for report in one.bench.wait_for(*claims)]
    assert outcomes == [Outcome.CANCELLED if n == 4 else Outcome.SUCCEEDED for n in range(10)]
    assert one.ran == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert halted not in {value(report) for report in one.bench.wait_for(*claims[5:])}


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_child_may_be_stopped_as_it_begins(groups: Callable[..., Groups], tmp_path: Path, how: str) -> None:
    """Stopped with the right to begin a job in hand: that job is known to run, can be stopped, and is not to blame."""
    one, meeting = groups(), Meeting(tmp_path)
    claims = one.claims(10, {3: ("halt_with_ticket", meeting.paths[0])})
    one.submit(claims)
    halted = int(meeting.wait())
    deadline = time.monotonic() + PATIENCE
    while [running.claim for running in one.executor.running()] != [claims[4]]:
        assert time.monotonic() < deadline, "what has all but begun is not known to run"
        time.sleep(0.001)
    if how == "stop":
        assert one.executor.stop_job(claims[4].fence, StopReason.CANCEL)
    else:
        os.kill(halted, signal.SIGKILL)
    reports = one.bench.wait_for(*claims)
    fifth = reports.pop(4)
    expected = (ReportKind.ENDED, Outcome.CANCELLED) if how == "stop" else (ReportKind.RELEASED, None)
    assert (fifth.kind, fifth.outcome) == expected
    assert {report.outcome for report in reports} == {Outcome.SUCCEEDED}
    assert one.ran == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_a_kill_never_hits_the_next(
    groups: Callable[..., Groups], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is held up after it told a job to stop does not kill, as overdue, what has begun meanwhile."""
    one, stopped, behind = groups(grace=0.0), Meeting(tmp_path), Meeting(tmp_path)
    take_back, rounds = Conversation.take_back, itertools.count()

    def take_back_late(self: Conversation) -> list[Claim]:
        match next(rounds):
            case 0:
                # It may not have been told yet.
                return []
            case 1:
                stopped.let_go()
                behind.wait()
        return take_back(self)

    monkeypatch.setattr(conversation, "_LONG", PATIENCE)
    monkeypatch.setattr(Conversation, "take_back", take_back_late)
    claims = one.claims(5, {1: ("linger", *stopped.paths), 2: ("meet", *behind.paths)})
    one.submit(claims)
    stopped.wait()
    deadline = time.monotonic() + PATIENCE
    while not one.executor.stop_job(claims[1].fence, StopReason.CANCEL):
        assert time.monotonic() < deadline, "what runs is not known to run"
    one.bench.wait_for(*claims[:2])
    behind.let_go()
    assert {report.outcome for report in one.bench.wait_for(claims[0], *claims[2:])} == {Outcome.SUCCEEDED}
    assert one.ran == list(range(5))


def test_stops_the_one_that_runs(groups: Callable[..., Groups], tmp_path: Path) -> None:
    """A stop in the middle of a group ends the job that was told, by force if need be, and no other."""
    one, meeting = groups(), Meeting(tmp_path)
    claims = one.claims(12, {4: ("hold_gil", meeting.paths[0])})
    one.submit(claims)
    meeting.wait()
    deadline = time.monotonic() + PATIENCE
    while not one.executor.stop_job(claims[4].fence, StopReason.TIMEOUT):
        assert time.monotonic() < deadline, "what runs is not known to run"
    outcomes = [report.outcome for report in one.bench.wait_for(*claims)]
    assert outcomes == [Outcome.TIMED_OUT if number == 4 else Outcome.SUCCEEDED for number in range(12)]
    assert one.ran == list(range(12))


def test_time_runs_from_the_beginning(groups: Callable[..., Groups], tmp_path: Path) -> None:
    """The time of a job counts from when it begins in its child, not from when its group was sent."""
    one, meeting = groups(), Meeting(tmp_path)
    claims = one.claims(3, {1: ("meet", *meeting.paths)})
    one.submit(claims)
    meeting.wait()
    now = time.monotonic()
    deadline = now + PATIENCE
    while [running.claim for running in one.executor.running()] != [claims[1]]:
        assert time.monotonic() < deadline, "what runs is not known to run"
    (running,) = one.executor.running()
    assert running.started <= now
    meeting.let_go()
    first, second, third = one.bench.wait_for(*claims)
    assert first.finished_at <= second.started_at
    assert second.finished_at <= third.started_at


def test_what_jobs_of_a_group_say_stays_apart(groups: Callable[..., Groups]) -> None:
    """Whole and half lines on both streams, logs and displays: each is in the report of the job that said it."""
    one = groups()
    claims = one.claims(60, {n: (("speak", "silent", "show")[n % 3],) for n in range(60)})
    one.submit(claims)
    for number, report in enumerate(one.bench.wait_for(*claims)):
        parts = [(chunk.stream, chunk.text) for chunk in report.logs]
        if number % 3 == 0:
            assert said(report) == f"out {number}\nhalf {number}"
            assert said(report, "stderr") == f"err {number}"
            assert f"log {number}" in said(report, "log")
        elif number % 3 == 1:
            assert parts == []
        else:
            shown = [json.loads(text)["data"]["text/plain"] if s == OUTPUT else text for s, text in parts]
            assert "".join(shown) == f"before {number}\nshown {number}after {number}\n"


def test_a_group_may_write_elsewhere_for_a_while(groups: Callable[..., Groups]) -> None:
    """A job that sends its output elsewhere, or closes it, and logs meanwhile keeps what is its own."""
    one = groups()
    claims = one.claims(
        20, dict.fromkeys(range(0, 20, 2), ("hush",)) | dict.fromkeys(range(1, 20, 2), ("speak",))
    )
    one.submit(claims)
    for number, report in enumerate(one.bench.wait_for(*claims)):
        assert report.outcome is Outcome.SUCCEEDED, report.traceback
        if number % 2 == 0:
            assert said(report) == f"before {number}\nafter {number}\n"
            assert f"log {number}" in said(report, "log")
            assert f"more {number}" in said(report, "log")
        else:
            assert said(report) == f"out {number}\nhalf {number}"


def test_a_loud_group_is_heard_to_the_end(groups: Callable[..., Groups]) -> None:
    """More than pipes hold: all of it arrives, and is the right one's."""
    one = groups()
    claims = one.claims(12, dict.fromkeys(range(12), ("shout",)))
    one.submit(claims)
    for number, report in enumerate(one.bench.wait_for(*claims)):
        assert said(report) == f"{number}\n" * 50_000


def test_a_child_is_given_no_more_than_its_jobs(groups: Callable[..., Groups]) -> None:
    """``max_jobs_per_child`` holds for groups, too."""
    one = groups(max_jobs_per_child=3)
    claims = one.claims(20)
    one.submit(claims)
    pids = Counter(value(report) for report in one.bench.wait_for(*claims))
    assert max(pids.values()) == 3
    assert one.ran == list(range(20))


def test_the_slot_file_names_what_a_child_has_begun(groups: Callable[..., Groups], tmp_path: Path) -> None:
    """Of a group it is the one that runs in the child, whether its worker knows that or not."""
    file = SlotFile(tmp_path / "slots" / "w.slots", 4)
    one, meeting = groups(slot_file=file), Meeting(tmp_path)
    claims = one.claims(8, {5: ("meet", *meeting.paths)})
    one.submit(claims)
    meeting.wait()
    assert list(begun_claims(tmp_path / "slots")) == [claims[5].fence]
    meeting.let_go()
    one.bench.wait_for(*claims)
    assert list(begun_claims(tmp_path / "slots")) == []
    file.close()


def test_closing_gives_back_what_is_in_a_group(groups: Callable[..., Groups], tmp_path: Path) -> None:
    """Closed with a group in a child: what has ended is reported, all else is given back, once."""
    one, meeting = groups(), Meeting(tmp_path)
    claims = one.claims(10, {4: ("meet", *meeting.paths)})
    one.submit(claims)
    meeting.wait()
    left = [claim.fence for claim in one.executor.close(0.0)]
    reports = {report.claim.fence: report for report in one.bench.reports + one.executor.collect()}
    released = [fence for fence, report in reports.items() if report.kind is ReportKind.RELEASED]
    assert sorted([*left, *released]) == [claim.fence for claim in claims[4:]]
    assert all(reports[claim.fence].outcome is Outcome.SUCCEEDED for claim in claims[:4])


_WORKER = """
import sys, time
import nbqueue as nbq
from nbqueue.executors import desk
from tests.executors.process_tasks import step
desk.AHEAD = 1e6
path, ran, there, go, held = sys.argv[1:]
queues = nbq.connect(path)
queues.worker(executor="process", concurrency=1).start()
for _ in range(2):
    step.dispatch(ran, "warm").result(60)
step.dispatch(ran, "hold", held, go)
open(held).read()
queues.dispatch_many([step.call(ran, str(n), *((there, go + "never") if n == 5 else ())) for n in range(20)])
open(go, "w").close()
time.sleep(600)
"""


def test_a_killed_worker_blames_what_had_begun(tmp_path: Path) -> None:
    """After ``kill -9`` of a worker with a group in its child one job has lost an attempt: the one that ran."""
    root, meeting, held = Path(__file__).parents[2], Meeting(tmp_path), Meeting(tmp_path)
    os.mkfifo(meeting.paths[1] + "never")
    path, ran = tmp_path / "jobs.duckdb", tmp_path / "ran"
    arguments = [str(path), str(ran), *meeting.paths, held.paths[0]]
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, *arguments], cwd=root, start_new_session=True)
    try:
        meeting.wait()
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    with nbq.connect(path) as queues:
        records = queues.jobs(command="step")
        # Those before it may have been recorded or not; nobody but the sixth is to blame.
        blamed = records[records["crashes"] > 0]
        assert len(blamed) == 1
        lines = ran.read_text().split()
        assert lines[-1] == "5"
        assert len(records) == 23
