"""The thread executor: the conformance suite, and what only threads can get wrong."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from nbqueue.executor import Executor, StopReason
from nbqueue.executors import thread as thread_module
from nbqueue.executors.thread import ThreadExecutor
from nbqueue.handlers.definitions import function_handler
from nbqueue.jobs import Claim, Options
from nbqueue.lifecycle import Outcome
from nbqueue.running.context import Context, JobStopped, current
from nbqueue.running.run import Runner
from nbqueue.store import ReportKind
from tests.executors.conformance import PATIENCE, Bench, ExecutorConformance, Meeting
from tests.executors.jobs import JOBS

#: What tests hand to jobs, by name: threads share memory.
SHARED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def shared() -> Iterator[None]:
    """Nothing is shared between tests."""
    SHARED.clear()
    yield
    SHARED.clear()


class Point:
    """Announces itself, and holds whoever passes until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.swallowed = threading.Event()

    def pass_by(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE)

    def wait(self) -> None:
        assert self.reached.wait(PATIENCE)


def spin() -> None:
    SHARED["point"].reached.set()
    while True:
        pass


def ask(ctx: Context, clean: str) -> str:
    while not ctx.should_stop():
        SHARED["point"].reached.set()
    SHARED["cleaned"] = clean
    return clean


def ask_once(ctx: Context) -> None:
    ctx.should_stop()
    spin()


def hold() -> str:
    SHARED["point"].pass_by()
    return "held"


def swallow() -> str:
    point = SHARED["point"]
    try:
        # A loop of its own frame: Python 3.13 takes a jump back to the loop's start for outside of the `try`.
        spin()
    except BaseException:
        point.swallowed.set()
        assert point.opened.wait(PATIENCE)
    return "went on"


def in_finally() -> None:
    try:
        spin()
    finally:
        SHARED["cleaned"] = True


async def wait_for_ever() -> None:
    SHARED["point"].reached.set()
    try:
        await asyncio.Event().wait()
    finally:
        SHARED["cleaned"] = True


async def go_on_async() -> str:
    point = SHARED["point"]
    while not point.opened.is_set():
        try:
            point.reached.set()
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            SHARED["refused"] = True
    return "went on"


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def subtask_leaves() -> str:
    async def leave() -> None:
        raise SystemExit(1)

    task = asyncio.create_task(leave())
    await asyncio.wait([task])
    return type(task.exception()).__name__


async def hold_async() -> str:
    point = SHARED["point"]
    point.reached.set()
    while not point.opened.is_set():  # noqa: ASYNC110 - a threading.Event
        await asyncio.sleep(0)
    return "held"


async def see_context_everywhere() -> list[str]:
    async def inner() -> str:
        await asyncio.sleep(0)
        print("from a task")
        return current().command

    def deeper() -> str:
        return current().command

    first = current().command
    second = await asyncio.create_task(inner())
    third = (await asyncio.gather(inner(), inner()))[1]
    return [first, second, third, deeper(), await asyncio.to_thread(deeper)]


def see_context() -> str:
    def deeper() -> str:
        return current().command

    return deeper()


def no_op() -> None:
    pass


class Token:
    pass


def give_token() -> Token:
    return SHARED.setdefault("token", Token())  # type: ignore[no-any-return]


THREAD_JOBS: dict[str, Callable[..., Any]] = {
    **JOBS,
    **{
        function.__name__: function
        for function in (
            *(spin, hold, swallow, in_finally, wait_for_ever, go_on_async, cancel_itself, subtask_leaves),
            *(see_context_everywhere, see_context, no_op, give_token, hold_async, ask, ask_once),
        )
    },
}


class TestThreadExecutor(ExecutorConformance):
    """The contract."""

    def make(self, slots: int) -> Executor:
        return ThreadExecutor(slots)


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Makes benches with the jobs above, and closes them."""
    made: list[Bench] = []

    def make(slots: int = 1, **options: Any) -> Bench:
        made.append(Bench(ThreadExecutor(slots, **options), THREAD_JOBS))
        return made[-1]

    yield make
    if "point" in SHARED:
        SHARED["point"].opened.set()
    for one in made:
        one.executor.close(PATIENCE)


@pytest.fixture
def point() -> Point:
    """The point that the jobs above pass by."""
    SHARED["point"] = Point()
    return SHARED["point"]  # type: ignore[no-any-return]


def threads(prefix: str = "nbqueue-") -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(prefix)]


# ------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("reason", [StopReason.TIMEOUT, StopReason.CANCEL])
def test_breaks_off_a_loop(bench: Callable[..., Bench], point: Point, reason: StopReason) -> None:
    """A loop of Python code that never asks is stopped by an exception raised in it, and cleans up."""
    one = bench()
    claim = one.submit("in_finally", timeout=1.0)
    point.wait()
    assert one.executor.stop_job(claim.fence, reason)
    (report,) = one.wait_for(claim)
    assert report.outcome is (Outcome.TIMED_OUT if reason is StopReason.TIMEOUT else Outcome.CANCELLED)
    assert SHARED["cleaned"]
    assert one.run("give", 1).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("job", ["swallow", "go_on_async", "hold"])
def test_says_of_nothing_that_goes_on_that_it_ended(
    bench: Callable[..., Bench], point: Point, job: str
) -> None:
    """A job that swallows the stop, or is in C code, is shown as stopping and as running until it really ends."""
    one = bench()
    claim = one.submit(job, timeout=1.0)
    point.wait()
    assert one.executor.stop_job(claim.fence, StopReason.TIMEOUT)
    assert one.executor.stop_job(claim.fence, StopReason.CANCEL)
    (running,) = one.executor.running()
    assert (running.claim, running.stopping) == (claim, StopReason.TIMEOUT)
    assert one.executor.collect() == []
    point.opened.set()
    (report,) = one.wait_for(claim)
    assert report.outcome is Outcome.TIMED_OUT
    assert one.executor.running() == []


def test_succeeds_if_it_ends_before_it_notices(bench: Callable[..., Bench], point: Point) -> None:
    """A job that was cancelled and returns all the same has succeeded: what it did is done."""
    one = bench()
    claim = one.submit("swallow")
    point.wait()
    one.executor.stop_job(claim.fence, StopReason.CANCEL)
    assert point.swallowed.wait(PATIENCE)
    point.opened.set()
    assert one.wait_for(claim)[0].outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("reason", [StopReason.TIMEOUT, StopReason.CANCEL, StopReason.SHUTDOWN])
def test_cancels_async_handlers(bench: Callable[..., Bench], point: Point, reason: StopReason) -> None:
    """An ``async def`` handler is cancelled where it awaits."""
    one = bench()
    claim = one.submit("wait_for_ever", timeout=1.0)
    point.wait()
    assert one.executor.stop_job(claim.fence, reason)
    (report,) = one.wait_for(claim)
    expected = {StopReason.TIMEOUT: Outcome.TIMED_OUT, StopReason.CANCEL: Outcome.CANCELLED}.get(reason)
    assert report.outcome is expected
    assert SHARED["cleaned"]


def test_fails_an_async_handler_that_cancels_itself(bench: Callable[..., Bench]) -> None:
    """A CancelledError that nobody asked for is the job's own error."""
    report = bench().run("cancel_itself")
    assert (report.outcome, report.error) == (Outcome.FAILED, "CancelledError")


def test_keeps_its_loop_when_a_task_of_a_job_leaves(bench: Callable[..., Bench], point: Point) -> None:
    """SystemExit in a task that a job made is that task's, and async jobs beside it and after it go on."""
    one = bench(2)
    beside = one.submit("hold_async")
    point.wait()
    leaving = one.run("subtask_leaves")
    assert (leaving.outcome, leaving.result) == (Outcome.SUCCEEDED, '"SystemExit"')
    point.opened.set()
    assert one.wait_for(beside)[0].outcome is Outcome.SUCCEEDED
    assert one.run("give_async", 1).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("job", ["spin", "wait_for_ever"])
def test_stops_a_job_before_its_handler_is_called(
    bench: Callable[..., Bench], point: Point, job: str
) -> None:
    """A stop that comes while the arguments are decoded is honoured, and leaves no coroutine behind."""
    one, decoding = bench(), Point()
    resolve = one._resolve

    def slow(spec: Any) -> Any:
        decoding.pass_by()
        return resolve(spec)

    one.executor.close(PATIENCE)
    one.executor.start(Runner(slow, one.runner.services), one._news.set, None)
    claim = one.submit(job)
    decoding.wait()
    assert one.executor.stop_job(claim.fence, StopReason.CANCEL)
    decoding.opened.set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert one.wait_for(claim)[0].outcome is Outcome.CANCELLED
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_a_late_stop_never_hits_the_next_job(bench: Callable[..., Bench]) -> None:
    """At whatever call after the handler's last line a stop arrives, the job is reported once and the next one runs.

    The handler sets a profile function in its thread; that one counts calls and returns, and stops the job at the
    n-th of them, for every n until the stop comes too late to be taken.
    """
    one = bench()
    executor = one.executor
    assert isinstance(executor, ThreadExecutor)
    fired: list[str] = []

    def trap(ctx: Context, at: int) -> None:
        left = at

        def stop(frame: Any, event: str, _argument: object) -> None:
            nonlocal left
            slot = executor._slots[0]
            if slot.lock.locked():
                return
            left -= 1
            if left < 0:
                sys.setprofile(None)
                # Noted before: the stop is raised in this very thread, so nothing comes after it.
                fired.append(f"{event} in {frame.f_code.co_name}")
                if not executor.stop_job(ctx.claim.fence, StopReason.CANCEL):
                    fired.pop()

        sys.setprofile(stop)

    one.handlers["trap"] = function_handler(trap, "trap", Options())
    seen = set()
    for at in range(400):
        before = len(fired)
        first, second = one.claim("trap", at), one.claim("no_op")
        executor.submit([first, second])
        trapped, after = one.wait_for(first, second)
        assert after.outcome is Outcome.SUCCEEDED, fired[-1]
        assert trapped.outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED), fired[-1]
        seen.add(trapped.outcome)
        if len(fired) == before:
            break
    else:
        pytest.fail("the stop was never too late")
    assert len(fired) > 10
    assert seen == {Outcome.SUCCEEDED, Outcome.CANCELLED}
    fences = [report.claim.fence for report in one.reports]
    assert len(fences) == len(set(fences))


@pytest.mark.parametrize("piece", ["request_stop", "_raise_in"])
def test_a_job_that_ends_amid_a_stop(
    bench: Callable[..., Bench], point: Point, monkeypatch: pytest.MonkeyPatch, piece: str
) -> None:
    """A stop takes no lock of the job's: one that ends after it was told why, or before it is hit, spares the next."""
    one = bench()
    executor = one.executor
    assert isinstance(executor, ThreadExecutor)
    claims = [one.claim("hold"), one.claim("no_op")]
    executor.submit(claims)
    point.wait()
    (slot,) = executor._slots
    where: Any = Context if piece == "request_stop" else thread_module
    real = getattr(where, piece)

    def let_it_end() -> None:
        point.opened.set()
        while slot.armed:
            pass

    def told_why(*args: Any) -> None:
        real(*args)
        let_it_end()

    def about_to_raise(*args: Any) -> None:
        if threading.current_thread() is not slot.thread:
            let_it_end()
        real(*args)

    monkeypatch.setattr(where, piece, told_why if piece == "request_stop" else about_to_raise)
    assert executor.stop_job(claims[0].fence, StopReason.CANCEL)
    held, after = one.wait_for(*claims)
    assert held.outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED)
    assert after.outcome is Outcome.SUCCEEDED
    assert len(one.reports) == 2


def test_tracing_works_after_a_late_stop(bench: Callable[..., Bench]) -> None:
    """A stop that is taken back leaves nothing in the interpreter that hangs whoever traces functions, as debuggers do.

    With ``PyThreadState_SetAsyncExc(thread, NULL)`` this test hangs on CPython 3.11.
    """
    one = bench()

    def stop_then_swallow(ctx: Context) -> None:
        try:
            one.executor.stop_job(ctx.claim.fence, StopReason.CANCEL)
            while True:
                pass
        except JobStopped:
            return

    one.handlers["stop_then_swallow"] = function_handler(stop_then_swallow, "stop_then_swallow", Options())
    assert one.run("stop_then_swallow").outcome is Outcome.SUCCEEDED
    calls = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        for _ in range(20):
            no_op()
    finally:
        sys.setprofile(None)
    assert calls.count("no_op") == 20


def test_stops_hit_only_their_jobs(bench: Callable[..., Bench]) -> None:
    """Of thousands of short jobs with stops fired at whatever runs, only those that were told end as cancelled."""
    one = bench(2)
    executor = one.executor
    told: set[int] = set()
    over = threading.Event()

    def fire() -> None:
        while not over.is_set():
            for running in executor.running():
                if executor.stop_job(running.claim.fence, StopReason.CANCEL):
                    told.add(running.claim.fence)

    claims = [one.claim("no_op") for _ in range(3_000)]
    thread = threading.Thread(target=fire)
    thread.start()
    executor.submit(claims)
    reports = one.wait_for(*claims)
    over.set()
    thread.join()
    assert len(one.reports) == len(claims)
    assert {report.outcome for report in reports} <= {Outcome.SUCCEEDED, Outcome.CANCELLED}
    assert {r.claim.fence for r in reports if r.outcome is Outcome.CANCELLED} <= told
    assert all(slot.thread is not None and slot.thread.is_alive() for slot in executor._slots)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------- slots


@pytest.mark.parametrize("reason", [StopReason.TIMEOUT, StopReason.CANCEL])
def test_lets_a_job_that_asks_end_by_itself(
    bench: Callable[..., Bench], point: Point, reason: StopReason
) -> None:
    """What it does after its loop, such as cleaning up, is done."""
    one = bench(1, patience=600.0)
    claim = one.submit("ask", "files", timeout=1.0)
    point.wait()
    assert one.executor.stop_job(claim.fence, reason)
    assert one.executor.news() == []
    (report,) = one.wait_for(claim)
    assert SHARED["cleaned"] == "files"
    # It has stopped, so it has not succeeded, whatever it returned.
    assert report.outcome is {StopReason.TIMEOUT: Outcome.TIMED_OUT}.get(reason, Outcome.CANCELLED)


def test_breaks_off_a_job_that_asked_and_goes_on(bench: Callable[..., Bench], point: Point) -> None:
    """Having asked once is no excuse: after a while it is stopped like any other."""
    one = bench(1, patience=0.0)
    claim = one.submit("ask_once")
    point.wait()
    assert one.executor.stop_job(claim.fence, StopReason.CANCEL)
    assert one.executor.news() == []
    assert one.wait_for(claim)[0].outcome is Outcome.CANCELLED


def test_replaces_the_slot_of_a_job_that_cannot_be_stopped(bench: Callable[..., Bench], point: Point) -> None:
    """Out of patience, a stuck job is shown as such, another slot works, and the stuck one goes when its job does."""
    one = bench(1, patience=0.0)
    stuck = one.submit("hold")
    point.wait()
    one.executor.stop_job(stuck.fence, StopReason.CANCEL)
    (running,) = one.executor.running()
    assert running.stuck
    (news,) = one.executor.news()
    assert '"note":"cannot stop"' in news.progress
    assert one.run("give", 1).outcome is Outcome.SUCCEEDED
    assert len(threads("nbqueue-slot")) == 2
    assert [r.claim for r in one.executor.running()] == [stuck]
    point.opened.set()
    assert one.wait_for(stuck)[0].outcome is Outcome.CANCELLED
    assert one.run("give", 1).outcome is Outcome.SUCCEEDED
    one.executor.close(PATIENCE)
    assert threads("nbqueue-slot") == []


def test_counts_what_is_about_to_begin(bench: Callable[..., Bench], point: Point) -> None:
    """A job that a slot has taken and not begun yet does not count as idle: the next one gets a slot of its own."""
    one = bench(2)
    beginning = Point()
    taken: list[Claim] = []

    class Slow(Runner):
        def begin(self, claim: Claim) -> Any:
            taken.append(claim)
            if len(taken) == 1:
                beginning.pass_by()
            return super().begin(claim)

    one.executor.close(PATIENCE)
    one.executor.start(Slow(one._resolve, one.runner.services), one._news.set, None)
    first = one.submit("give", 1)
    beginning.wait()
    second = one.submit("give", 2)
    assert one.wait_for(second)[0].outcome is Outcome.SUCCEEDED
    beginning.opened.set()
    one.wait_for(first)


def test_gives_back_what_it_took_and_has_not_begun(bench: Callable[..., Bench]) -> None:
    """A job in the hands of a slot at the moment of closing is given back as well."""
    one = bench(1)
    beginning = Point()

    class Slow(Runner):
        def begin(self, claim: Claim) -> Any:
            beginning.pass_by()
            return super().begin(claim)

    one.executor.close(PATIENCE)
    one.executor.start(Slow(one._resolve, one.runner.services), one._news.set, None)
    claim = one.submit("give", 1)
    beginning.wait()
    left: list[list[Claim]] = []
    closing = threading.Thread(target=lambda: left.append(one.executor.close(0.0)))
    closing.start()
    beginning.opened.set()
    closing.join()
    assert [*(c.fence for c in left[0]), *(r.claim.fence for r in one.executor.collect())] == [claim.fence]


def test_leaves_no_thread(bench: Callable[..., Bench]) -> None:
    """When jobs have ended, closing leaves no thread behind, the loop's included."""
    before = set(threads())
    one = bench(4)
    claims = [one.submit(job, 1) for job in ("give", "give_async") for _ in range(8)]
    one.wait_for(*claims)
    assert len(threads("nbqueue-slot")) <= 4
    one.executor.close(PATIENCE)
    assert set(threads()) - before == set()


def test_leaves_a_stuck_thread_that_ends_by_itself(bench: Callable[..., Bench], point: Point) -> None:
    """A thread that cannot be stopped ends with its job after the close, and a new start works beside it."""
    one = bench(1)
    one.submit("hold")
    point.wait()
    (stuck,) = threads("nbqueue-slot")
    one.executor.close(0.0)
    one.executor.start(one.runner, one._news.set, None)
    assert one.run("give", 1).outcome is Outcome.SUCCEEDED
    point.opened.set()
    stuck.join(PATIENCE)
    assert not stuck.is_alive()
    assert one.executor.collect() == []


def test_a_stuck_task_ends_by_itself(bench: Callable[..., Bench], point: Point) -> None:
    """An async handler that refuses to be cancelled ends with its loop after the executor was closed."""
    one = bench(1)
    claim = one.submit("go_on_async")
    point.wait()
    assert one.executor.close(0.0) == [claim]
    left = threads()
    point.opened.set()
    for thread in left:
        thread.join(PATIENCE)
    assert threads() == []
    assert SHARED["refused"]


def test_runs_where_no_more_threads_are_to_be_had(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the system gives fewer threads than slots, those that are there do the work."""
    one, start = bench(3), threading.Thread.start
    begun: list[threading.Thread] = []

    def starve(thread: threading.Thread) -> None:
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", starve)
    path = tmp_path / "ran"
    claims = [one.claim("note", str(path), str(i)) for i in range(5)]
    one.executor.submit(claims)
    one.wait_for(*claims)
    assert path.read_text().split() == [str(i) for i in range(5)]


# ------------------------------------------------------------------------- memory and variables


def test_shares_memory(bench: Callable[..., Bench]) -> None:
    """What a job returns is handed over as it is, whether or not it can be stored."""
    one = bench()
    report = one.run("give_token")
    assert one.values[report.claim.fence] is SHARED["token"]
    lock = one.run("give_lock")
    assert lock.outcome is Outcome.SUCCEEDED
    assert type(one.values[lock.claim.fence]) is type(threading.Lock())


def test_knows_the_job_everywhere_in_it(bench: Callable[..., Bench]) -> None:
    """``current()`` is the job in nested calls, tasks and ``asyncio.to_thread``; what tasks print is captured."""
    one = bench()
    assert one.run("see_context").result == '"see_context"'
    report = one.run("see_context_everywhere")
    assert report.result == '["' + '","'.join(["see_context_everywhere"] * 5) + '"]'
    assert "".join(chunk.text for chunk in report.logs) == "from a task\n" * 3
    assert current(None) is None


def test_forgets_variables_between_jobs(bench: Callable[..., Bench]) -> None:
    """A ContextVar that one job sets is not set in the next, although both ran in one thread."""
    variable: ContextVar[int] = ContextVar("variable", default=0)

    def set_it() -> int:
        before = variable.get()
        variable.set(before + 1)
        return before

    one = bench(1)
    one.handlers["set_it"] = function_handler(set_it, "set_it", Options())
    assert [one.run("set_it").result for _ in range(3)] == ["0", "0", "0"]


def test_holds_on_to_nothing(bench: Callable[..., Bench]) -> None:
    """An idle slot keeps neither the last job's result nor the frames of its error alive."""
    seen: list[weakref.ref[Token]] = []

    def fail_with_token() -> None:
        token = Token()
        seen.append(weakref.ref(token))
        raise ValueError(token)

    one = bench(1)
    one.handlers["fail_with_token"] = function_handler(fail_with_token, "fail_with_token", Options())
    assert one.run("fail_with_token").outcome is Outcome.FAILED
    one.run("no_op")
    assert seen[0]() is None


def test_a_stop_keeps_what_was_said(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """What a job printed before it was stopped is in its report."""
    meeting = Meeting(tmp_path)

    def say_and_spin() -> None:
        print("said")
        Path(meeting.paths[0]).write_text("there")
        while True:
            pass

    one = bench()
    one.handlers["say_and_spin"] = function_handler(say_and_spin, "say_and_spin", Options())
    claim = one.submit("say_and_spin")
    meeting.wait()
    one.executor.stop_job(claim.fence, StopReason.CANCEL)
    (report,) = one.wait_for(claim)
    assert report.kind is ReportKind.ENDED
    assert [chunk.text for chunk in report.logs] == ["said\n"]


def test_stopped_is_no_exception() -> None:
    """``except Exception`` in a handler does not swallow a stop."""
    assert not issubclass(JobStopped, Exception)
