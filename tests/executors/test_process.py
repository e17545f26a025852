"""The process executor: the conformance suite, and real processes that die, hang, fork, shout and take too much."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib
import json
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbqueue.errors import InvalidCommand
from nbqueue.executor import Executor, StopReason
from nbqueue.executors import make_executor
from nbqueue.executors.conversation import Conversation
from nbqueue.executors.measures import spent
from nbqueue.executors.process import GRACE, ProcessExecutor
from nbqueue.handlers.definitions import function_handler
from nbqueue.handlers.handler import Kind
from nbqueue.jobs import Claim, Options
from nbqueue.lifecycle import Outcome
from nbqueue.running.shipping import parcel_of
from nbqueue.store import OUTPUT, ReportKind
from tests.executors.child_jobs import CHILD_JOBS
from tests.executors.conformance import PATIENCE, Bench, ExecutorConformance, Meeting
from tests.executors.elsewhere import ElsewhereConformance, said, value
from tests.executors.jobs import JOBS
from tests.halting import halt, state_of

#: Stopped within this after the word, as promised.
PROMISE = 1.0


class TestConformance(ExecutorConformance):
    """The suite for every executor."""

    def make(self, slots: int) -> Executor:
        """Make one."""
        return ProcessExecutor(slots)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Makes benches, and closes them."""
    made: list[Bench] = []

    def make(slots: int = 1, **limits: Any) -> Bench:
        made.append(Bench(ProcessExecutor(slots, **limits), JOBS | CHILD_JOBS))
        return made[-1]

    yield make
    for one in made:
        one.executor.close(PATIENCE)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    return state_of(Path(f"/proc/{pid}/stat")) in "ZX"


def wait_gone(pid: int) -> None:
    """Wait until a process has ended."""
    deadline = time.monotonic() + PATIENCE
    while not is_gone(pid):
        assert time.monotonic() < deadline, f"process {pid} lives"
        time.sleep(0.005)


def wait_sent(one: Bench, claim: Claim) -> None:
    """Wait until a job was sent over a socket and nobody has read it; or until it has ended, in a newer child."""
    deadline = time.monotonic() + PATIENCE
    while not any(map(unread, Path("/proc/self/fd").iterdir())):
        one.reports += one.executor.collect()
        if any(report.claim.fence == claim.fence for report in one.reports):
            return
        assert time.monotonic() < deadline, "nothing was sent"
        time.sleep(0.005)


def unread(descriptor: Path) -> int:
    """How much of what was sent waits to be read, in bytes of the system's."""
    with contextlib.suppress(OSError):
        if str(descriptor.readlink()).startswith("socket:"):
            waits = fcntl.ioctl(int(descriptor.name), termios.TIOCOUTQ, bytes(4))
            return int.from_bytes(waits, sys.byteorder)
    return 0


def wait_busy(pid: int) -> None:
    """Wait until a process has used a tenth of a second: what it does by now needs the processor, and nothing else."""
    process, deadline = psutil.Process(pid), time.monotonic() + PATIENCE
    before = process.cpu_times().user
    while process.cpu_times().user < before + 0.1:
        assert time.monotonic() < deadline, f"process {pid} rests"
        time.sleep(0.005)


# ------------------------------------------------------------------------------------------------- deaths


@pytest.mark.parametrize(
    ("how", "name", "sentence"),
    [
        ("segfault", "SIGSEGV", "was killed (SIGSEGV): it touched memory that is not its own, in C code"),
        ("abort", "SIGABRT", "was killed (SIGABRT): C code called abort"),
        ("exit", "exit 3", "ended with exit code 3, before the job did"),
        ("kill", "SIGKILL", "was killed (SIGKILL)"),
        ("close", "exit 1", "ended with exit code 1"),
        ("garbage", "SIGKILL", "what the process that ran it said is not understood"),
    ],
)
def test_a_death_costs_that_attempt_only(
    bench: Callable[..., Bench], how: str, name: str, sentence: str
) -> None:
    """However its process ends, the job has crashed, with the cause by name and all it said; the next one runs."""
    one = bench()
    report, after = one.wait_for(one.submit("die", how), one.submit("give", 1))
    assert (report.kind, report.outcome) == (ReportKind.ENDED, Outcome.CRASHED)
    assert sentence in report.error
    assert json.loads(report.usage)["exit"] == name
    assert said(report) == "last words"
    if how == "segfault":
        assert "in die" in said(report, "stderr")
    assert after.outcome is Outcome.SUCCEEDED


def test_a_kill_from_outside_costs_that_attempt_only(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A child that somebody kills takes its own job along, not the one beside it; an idle one takes none."""
    one, first, second = bench(2), Meeting(tmp_path), Meeting(tmp_path)
    claims = [
        one.submit("sleep_and_clean", first.paths[0], str(tmp_path / "x")),
        one.submit("meet", *second.paths),
    ]
    os.kill(int(first.wait()), signal.SIGKILL)
    second.wait()
    second.let_go()
    killed, beside = one.wait_for(*claims)
    assert (killed.outcome, killed.cause) == (Outcome.CRASHED, "killed (SIGKILL)")
    assert beside.outcome is Outcome.SUCCEEDED
    idle = value(one.run("pid"))
    os.kill(idle, signal.SIGKILL)
    wait_gone(idle)
    assert value(one.run("pid")) != idle


def test_a_job_that_was_not_begun_is_run_in_another_child(bench: Callable[..., Bench]) -> None:
    """A child that dies with a job that it was sent and has not begun takes none."""
    one = bench()
    idle = value(one.run("pid"))
    halt(idle)
    claim = one.submit("pid")
    wait_sent(one, claim)
    with contextlib.suppress(ProcessLookupError):
        os.kill(idle, signal.SIGKILL)
    (report,) = one.wait_for(claim)
    assert value(report) != idle
    assert value(one.run("pid")) == value(report)


def test_two_in_a_row_are_told(bench: Callable[..., Bench]) -> None:
    """What kills one child after the other before it is begun is not sent for ever."""
    one = bench(memory_limit="200MB")
    report = one.run("give", "x" * 150_000_000)
    assert (report.outcome, report.cause) == (Outcome.CRASHED, "exit 1")
    assert "larger than the memory_limit" in said(report, "stderr")
    assert one.run("give", 1).outcome is Outcome.SUCCEEDED


# ------------------------------------------------------------------------------------------------- stops


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ("hold_gil_with_family", StopReason.TIMEOUT),
        ("hold_gil_with_family", StopReason.SHUTDOWN),
        ("swallow", StopReason.CANCEL),
    ],
)
def test_stops_whatever_it_does(
    bench: Callable[..., Bench], tmp_path: Path, job: str, reason: StopReason
) -> None:
    """C code that holds the GIL, a job that swallows the stop, and what either has started: gone in time."""
    one, meeting = bench(), Meeting(tmp_path)
    claim = one.submit(job, meeting.paths[0], timeout=0.5)
    pids = [int(pid) for pid in meeting.wait().split()]
    if job != "swallow":
        # Its word comes before the C code does, and between the two a stop would reach Python.
        wait_busy(pids[0])
    before = time.monotonic()
    assert one.executor.stop_job(claim.fence, reason)
    (report,) = one.wait_for(claim)
    took = time.monotonic() - before
    assert GRACE <= took < PROMISE
    expected = {StopReason.TIMEOUT: Outcome.TIMED_OUT, StopReason.CANCEL: Outcome.CANCELLED}.get(reason)
    assert report.outcome is expected
    assert report.kind is (ReportKind.ENDED if expected else ReportKind.RELEASED)
    # What is said to have stopped has.
    assert all(map(is_gone, pids))
    if reason is StopReason.TIMEOUT:
        assert "longer than its timeout of 0.5 s; the process that ran it was killed" in report.error


@pytest.mark.parametrize("job", ["sleep_and_clean", "sleep_and_clean_async", "ask_and_clean"])
def test_a_stop_is_told_first(bench: Callable[..., Bench], tmp_path: Path, job: str) -> None:
    """A job is told before it is killed, also where it waits for the system: it cleans up, and its process is kept."""
    # As long as it takes on a busy machine: nothing here waits for the end of it.
    one, meeting, path = bench(grace=PATIENCE), Meeting(tmp_path), tmp_path / "cleaned"
    before = value(one.run("pid"))
    claim = one.submit(job, meeting.paths[0], str(path))
    meeting.wait()
    one.executor.stop_job(claim.fence, StopReason.CANCEL)
    (report,) = one.wait_for(claim)
    assert report.outcome is Outcome.CANCELLED
    assert path.read_text() == "cleaned"
    assert value(one.run("pid")) == before


def test_a_stop_never_hits_the_next_job(bench: Callable[..., Bench]) -> None:
    """Stops fired at whatever runs end those that were told, and no other; none is lost or reported twice."""
    one, told = bench(2), set()
    claims = [one.claim("give", i) for i in range(300)]
    one.executor.submit(claims)
    while len(one.reports) < len(claims):
        for running in one.executor.running():
            if running.claim.fence % 3 == 0 and one.executor.stop_job(running.claim.fence, StopReason.CANCEL):
                told.add(running.claim.fence)
        one.reports += one.executor.collect()
    assert sorted(r.claim.fence for r in one.reports) == [claim.fence for claim in claims]
    assert {r.outcome for r in one.reports} <= {Outcome.SUCCEEDED, Outcome.CANCELLED}
    assert {r.claim.fence for r in one.reports if r.outcome is Outcome.CANCELLED} <= told


SPIN = """
def use():
    return LOCK
def spin(there):
    with open(there, "w") as pipe:
        pipe.write("there")
    while True:
        pass
"""


def test_a_cell_can_be_stopped_after_what_could_not_be_sent(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    """A job that cannot be sent leaves nothing behind by which a stop of the cell after it goes to a child."""
    one, meeting = bench(), Meeting(tmp_path)
    space = define(SPIN, LOCK=threading.Lock())
    one.handlers["use"] = function_handler(space["use"], "use", Options())
    one.handlers["cell"] = function_handler(space["spin"], "cell", Options())
    one.handlers["cell"] = dataclasses.replace(one.handlers["cell"], kind=Kind.CELL)
    assert one.run("use").cause == "not sent"
    cell = one.submit("cell", meeting.paths[0])
    meeting.wait()
    assert one.executor.stop_job(cell.fence, StopReason.CANCEL)
    (report,) = one.wait_for(cell)
    assert report.outcome is Outcome.CANCELLED


def test_closing_leaves_no_process_and_no_descriptor(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """Closed, with jobs that run and with idle children: all of them are gone, and every pipe is closed."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    one, meeting = bench(2), Meeting(tmp_path)
    claim = one.submit("hold_gil_with_family", meeting.paths[0])
    pids = [*map(int, meeting.wait().split()), value(one.run("pid"))]
    left = [c.fence for c in one.executor.close(0.0)]
    released = one.executor.collect()
    assert [*left, *(report.claim.fence for report in released)] == [claim.fence]
    assert all(report.kind is ReportKind.RELEASED for report in released)
    assert all(map(is_gone, pids))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ------------------------------------------------------------------------------------------------- output


def test_captures_all_that_is_written(bench: Callable[..., Bench]) -> None:
    """Python, C, threads and programs that it starts: all of it, in the order it was written."""
    report = bench().run("talk_all_ways")
    assert said(report) == "print\nwrite\nputs\necho\nthread\nbuffer\néleft in C's buffer"


def test_displays_stand_where_they_were_shown(bench: Callable[..., Bench]) -> None:
    """A display comes after what was printed before it, and before what was printed after it."""
    report = bench().run("show_between")
    order = [
        json.loads(chunk.text)["data"]["text/plain"] if chunk.stream == OUTPUT else chunk.text
        for chunk in report.logs
    ]
    text = "".join(part if part.endswith("\n") else f"{part}\n" for part in order)
    assert text == "".join(f"before {i}\nshown {i}\nafter {i}\n" for i in range(5))


def test_logs_stand_where_they_were_written(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of a log comes before what was printed after it, also where news are asked for before it was heard."""
    one, meeting, free, hear = bench(), Meeting(tmp_path), threading.Event(), Conversation._hear

    def hear_late(self: Conversation) -> bool:
        assert free.wait(PATIENCE)
        return hear(self)

    monkeypatch.setattr(Conversation, "_hear", hear_late)
    claim = one.submit("log_between", *meeting.paths)
    meeting.wait()
    chunks = [chunk for report in one.executor.news() for chunk in report.logs]
    free.set()
    meeting.let_go()
    chunks += one.wait_for(claim)[0].logs
    order = [line.split()[-1] for chunk in chunks for line in chunk.text.splitlines()]
    assert order == ["before", "logged", "after"]


def test_shows_figures(bench: Callable[..., Bench]) -> None:
    """A figure that a job displays, and one that it leaves open, is shown as a picture, as in a notebook."""
    report = bench().run("draw")
    shown = [json.loads(chunk.text)["data"] for chunk in report.logs if chunk.stream == OUTPUT]
    assert [sorted(data) for data in shown] == [["image/png", "text/plain"]] * 2


def test_what_is_written_late_is_nobody_elses(bench: Callable[..., Bench]) -> None:
    """What a thread prints after its job ended is not the next one's, which runs in another process."""
    one = bench()
    one.run("leave_thread")
    report = one.run("after", 0.1)
    assert said(report) == "heard\n"


def test_a_module_that_was_reloaded_is_imported_anew(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a module has goes by name: once it was loaded again here, no child runs what was there before."""
    path = tmp_path / "nbq_reloaded.py"
    path.write_text("def answer(): return 'old'")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("nbq_reloaded")
    one = bench()
    one.handlers["answer"] = function_handler(module.answer, "answer", Options())
    assert value(one.run("answer")) == "old"
    path.write_text("def answer(): return 'edited'")
    importlib.invalidate_caches()
    one.handlers["answer"] = function_handler(importlib.reload(module).answer, "answer", Options())
    assert value(one.run("answer")) == "edited"


# ------------------------------------------------------------------------------------------------- limits and figures


def test_memory_limit(bench: Callable[..., Bench]) -> None:
    """What asks for more gets a MemoryError, which is named as the cause, and costs that attempt only."""
    one = bench(memory_limit="500MB")
    report = one.run("take", 600)
    assert (report.outcome, report.error, report.cause) == (Outcome.FAILED, "MemoryError", "out of memory")
    assert value(one.run("take", 50)) == 50 * 1024 * 1024


def test_knows_what_an_attempt_took(bench: Callable[..., Bench]) -> None:
    """Processor time and peak of memory are those of this attempt, not of those before it in the same process."""
    one = bench()
    large, small, busy = (
        json.loads(one.run(*job).usage) for job in (("take", 200), ("take", 1), ("burn", 0.3))
    )
    assert large["peak_memory"] > 200 * 1024 * 1024 > 2 * small["peak_memory"]
    assert 0.3 <= busy["cpu_seconds"] < 0.6
    assert small["cpu_seconds"] < 0.1


def test_a_crash_has_its_figures(bench: Callable[..., Bench]) -> None:
    """Of an attempt that took its process along the system tells what it used, and not what its parent did before."""
    small = json.loads(bench().run("die", "exit").usage)
    assert small["exit"] == "exit 3"
    assert "peak_memory" not in small
    most = spent().peak_memory // 1024**2 + 50
    large = json.loads(bench().run("take_and_die", most).usage)
    assert large["peak_memory"] > most * 1024**2


def test_replaces_a_child_after_so_many_jobs(bench: Callable[..., Bench]) -> None:
    """With ``max_jobs_per_child=2`` two jobs share a process, and the third has another."""
    one = bench(max_jobs_per_child=2)
    pids = [value(one.run("pid")) for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert is_gone(pids[0])


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"max_jobs_per_child": 0}, "max_jobs_per_child must be a whole number from 1 up, not 0"),
        ({"memory_limit": "much"}, "memory_limit 'much' is no size"),
        ({"memory_limit": "1MB"}, "memory_limit of 1.0 MB is too small"),
    ],
)
def test_refuses_limits_that_cannot_be(limits: dict[str, Any], sentence: str) -> None:
    """A limit that means nothing is refused by name."""
    with pytest.raises(InvalidCommand, match=sentence.replace(".", r"\.")):
        make_executor("process", 1, **limits)


def test_threads_have_no_limits() -> None:
    """A limit of processes on a thread executor is refused, not ignored."""
    with pytest.raises(InvalidCommand, match='use executor="process"'):
        make_executor("thread", 1, memory_limit="2GB")


# ------------------------------------------------------------------------------------------------- code and values


def define(source: str, **names: Any) -> dict[str, Any]:
    """What a cell defines, as in a notebook's ``__main__``."""
    space = {"__name__": "__main__", **names}
    exec(compile(source, "<cell>", "exec"), space)
    return space


CELL = """
import dataclasses, enum
@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    def norm(self): return self.x + self.y
class Colour(enum.Enum):
    RED = 1
FACTOR = 2
def scaled(p): return Point(p.x * FACTOR, Colour.RED.value)
def main(x):
    global CALLS
    return [scaled(Point(x)).norm(), isinstance(scaled(Point(1)), Point)]
"""


def test_runs_code_of_the_notebook(bench: Callable[..., Bench]) -> None:
    """Functions, classes and enums of a notebook travel by value; a variable that a cell changes is sent anew."""
    one, space = bench(), define(CELL)
    one.handlers["main"] = function_handler(space["main"], "main", Options())
    assert value(one.run("main", 5)) == [11, True]
    space["FACTOR"] = 3
    assert value(one.run("main", 5)) == [16, True]
    exec("def scaled(p): return Point(100)", space)
    assert value(one.run("main", 5)) == [100, True]
    exec("def main(x): return 'another'", space)
    one.handlers["main"] = function_handler(space["main"], "main", Options())
    assert value(one.run("main", 5)) == "another"


def test_what_is_changed_in_place_is_sent_anew(bench: Callable[..., Bench]) -> None:
    """A setting or a class that a cell changes without giving its name another value is not an old one in a child."""
    one = bench()
    space = define(
        "SETTINGS = {'limit': 1}\nclass Mode: NAME = 'a'\ndef read(): return [SETTINGS['limit'], Mode.NAME]"
    )
    one.handlers["read"] = function_handler(space["read"], "read", Options())
    assert value(one.run("read")) == [1, "a"]
    space["SETTINGS"]["limit"] = 2
    assert value(one.run("read")) == [2, "a"]
    space["Mode"].NAME = "b"
    assert value(one.run("read")) == [2, "b"]


def test_an_unchanged_parcel_is_made_once() -> None:
    """What has not changed keeps its number, and so is sent to a child once; one that is large is not packed to see."""
    space = define(
        "NAMES = ['a']\nLARGE = [b'x' * 2_000_000]\ndef few(): return NAMES\ndef many(): return LARGE"
    )
    few, many = (function_handler(space[name], name, Options()) for name in ("few", "many"))
    numbers = parcel_of(few).number, parcel_of(many).number
    assert (parcel_of(few).number, parcel_of(many).number) == numbers
    space["NAMES"].append("b")
    space["LARGE"].append(b"")
    assert parcel_of(few).number > numbers[0]
    assert parcel_of(many).number == numbers[1]


def test_values_of_the_notebooks_classes_go_and_come(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataclass and an enum of the notebook arrive as themselves, and come back as themselves."""
    one, space = bench(), define(CELL)
    main = sys.modules["__main__"]
    for name in ("Point", "Colour"):
        monkeypatch.setattr(main, name, space[name], raising=False)
    one.handlers["turn"] = function_handler(
        define("def turn(p, c): return [type(p)(p.y, p.x), c, p.norm()]")["turn"], "turn", Options()
    )
    point, colour = space["Point"](1, 2), space["Colour"].RED
    assert value(one.run("turn", point, colour)) == [space["Point"](2, 1), colour, 3]


def test_refuses_what_cannot_be_sent(bench: Callable[..., Bench]) -> None:
    """A function that uses what cannot be pickled is held, with the variable named: it was not run."""
    one = bench()
    space = define("import sqlite3\nconn = sqlite3.connect(':memory:')\ndef clean(x): return conn")
    one.handlers["clean"] = function_handler(space["clean"], "clean", Options())
    report = one.run("clean", 1)
    space["conn"].close()
    assert (report.kind, report.cause) == (ReportKind.REFUSED, "not sent")
    assert report.error == (
        'clean uses the variable "conn" (a sqlite3.Connection), which cannot be sent to another process; '
        "open it inside the function, or run it on a thread worker"
    )


def test_runs_where_the_parent_is(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory, environment and import path are the parent's as they are when the job begins."""
    one = bench()
    one.run("wander", "/")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NBQ_TEST_NAME", "first")
    assert value(one.run("where", "NBQ_TEST_NAME"))[:2] == [str(tmp_path), "first"]
    monkeypatch.setenv("NBQ_TEST_NAME", "second")
    monkeypatch.setattr(sys, "path", [*sys.path, "/somewhere/else"])
    assert value(one.run("where", "NBQ_TEST_NAME"))[1:] == ["second", "/somewhere/else"]
    assert value(one.run("where", "PYTHONPATH"))[1] == os.environ.get("PYTHONPATH")


# ------------------------------------------------------------------------------------------------- what jobs leave


def test_what_a_job_leaves_running_ends_with_it(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A program that a job leaves behind is ended, and the next job has a process of its own."""
    one, path = bench(), tmp_path / "pid"
    before = value(one.run("pid"))
    assert one.run("leave_running", str(path)).outcome is Outcome.SUCCEEDED
    assert value(one.run("pid")) != before
    wait_gone(int(path.read_text()))


@pytest.mark.parametrize("wait", [True, False])
def test_a_program_ends_as_it_has_ended(bench: Callable[..., Bench], wait: bool) -> None:
    """Nobody but the job takes note of how its program ended; with one that was not asked its process goes, too."""
    one = bench()
    before = value(one.run("keep_program", wait))
    pid, statuses = value(one.run("ask_program"))
    assert (pid == before, statuses) == ((True, [7]) if wait else (False, []))


@pytest.mark.parametrize("how", ["environment", "umask", "streams", "stdout", "another stdout", "alarm"])
def test_what_a_job_spoils_is_not_the_next_ones(bench: Callable[..., Bench], how: str) -> None:
    """A job has the environment of the parent, its output and its time, whatever the one before it has done to them."""
    one = bench()
    assert one.run("spoil", how).outcome is Outcome.SUCCEEDED
    report = one.run("after", 0.2 if how == "alarm" else 0.0)
    assert value(report) == [None, False, False]
    assert said(report) == "heard\n"


def test_a_fork_is_not_listened_to(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A process that a job forks off, and that returns from it, reports nothing: the job itself does."""
    one, path = bench(), tmp_path / "pid"
    assert value(one.run("fork", str(path))) == "parent"
    assert value(one.run("give", 1)) == 1
    assert len(one.reports) == 2


class TestElsewhere(ElsewhereConformance):
    """Children are told what to run, and tell what came of it."""


def test_says_why_no_process_can_be_started(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no child can be started its jobs are given back, and the log says why."""
    one = bench()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    report = one.run("give", 1)
    assert report.kind is ReportKind.RELEASED
    assert "no process can be started to run jobs in (/bin/false" in caplog.text
