"""The Dask executor: the conformance suite, and a real cluster whose workers are killed and whose scheduler goes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import nbqueue as nbq
from nbqueue import payload
from nbqueue.executor import Executor, StopReason
from nbqueue.executors import make_executor
from nbqueue.executors.dask import cluster as clusters
from nbqueue.executors.dask import lanes as lane_books
from nbqueue.executors.dask import post as posts
from nbqueue.executors.dask import session as sessions
from nbqueue.executors.dask.desk import Desk
from nbqueue.executors.dask.executor import DaskExecutor
from nbqueue.executors.dask.lane import Lane
from nbqueue.executors.dask.lanes import Lanes
from nbqueue.executors.dask.marks import Marks, has_run
from nbqueue.executors.dask.outbox import Outbox
from nbqueue.executors.dask.post import Post
from nbqueue.handlers.definitions import function_handler
from nbqueue.handlers.handler import Kind
from nbqueue.jobs import Options
from nbqueue.lifecycle import Outcome
from nbqueue.payload import bundles
from nbqueue.store import OUTPUT, ReportKind
from nbqueue.wire import decode, encode
from tests.executors import dask_jobs as tasks
from tests.executors.child_jobs import CHILD_JOBS
from tests.executors.cluster import DaskCluster
from tests.executors.conformance import KEY, PATIENCE, Bench, ExecutorConformance, Meeting
from tests.executors.dask_jobs import DASK_JOBS
from tests.executors.elsewhere import ElsewhereConformance, said, value
from tests.executors.jobs import JOBS

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """A cluster of two processes with two threads each."""
    with DaskCluster(tmp_path_factory.mktemp("dask")) as made:
        yield made


class TestConformance(ExecutorConformance):
    """The suite for every executor."""

    @pytest.fixture(autouse=True)
    def _cluster(self, cluster: DaskCluster) -> None:
        self.address = cluster.address

    def make(self, slots: int) -> Executor:
        """Make one."""
        return DaskExecutor(self.address, slots)


@pytest.fixture
def bench(cluster: DaskCluster) -> Iterator[Callable[..., Bench]]:
    """Makes benches, and closes them."""
    made: list[Bench] = []

    def make(slots: int = 1, **said: Any) -> Bench:
        made.append(Bench(DaskExecutor(cluster.address, slots, **said), JOBS | CHILD_JOBS | DASK_JOBS))
        return made[-1]

    yield make
    for one in made:
        one.executor.close(PATIENCE)


def in_terminal(cluster: DaskCluster, url: str, *more: str) -> list[str]:
    """The command that works on a queue with this cluster."""
    address = cluster.address.replace("tcp", "dask")
    work = ["work", "--db", url, "--import", tasks.__name__, "--executor", address]
    return [sys.executable, "-m", "nbqueue", *work, *more]


# ------------------------------------------------------------------------------------------------- deaths


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_death_costs_that_attempt_only(bench: Callable[..., Bench], how: str) -> None:
    """A job that ends its Dask worker has crashed, and says which; what it said is kept, and the next one runs."""
    one = bench()
    report, after = one.wait_for(one.submit("end_process", how), one.submit("give", 1))
    assert (report.kind, report.outcome, report.cause) == (
        ReportKind.ENDED,
        Outcome.CRASHED,
        "Dask worker died",
    )
    assert report.error.startswith("the Dask worker tcp://127.0.0.1:")
    assert report.error.endswith(" that ran it died")
    assert said(report) == "last words\n"
    assert json.loads(report.progress)["note"] == "nearly"
    assert after.outcome is Outcome.SUCCEEDED


def test_a_death_for_want_of_memory_is_named(bench: Callable[..., Bench]) -> None:
    """Where the nanny has ended a Dask worker since it took too much, the cause says so."""
    report = bench().run("end_greedily")
    assert (report.outcome, report.cause) == (Outcome.CRASHED, "out of memory")
    assert "its nanny ended it, since it was over its limit of memory" in report.error


def test_a_kill_from_outside_costs_what_ran_there_only(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """Of jobs on two Dask workers, those of the one that is killed have crashed, and each of the others goes on."""
    one, meetings = bench(4), [Meeting(tmp_path) for _ in range(4)]
    claims = [one.submit("meet_there", *meeting.paths) for meeting in meetings]
    pids = [int(meeting.wait()) for meeting in meetings]
    victim = pids[0]
    os.kill(victim, signal.SIGKILL)
    for pid, meeting in zip(pids, meetings, strict=True):
        if pid != victim:
            meeting.let_go()
    for pid, report in zip(pids, one.wait_for(*claims), strict=True):
        assert report.outcome is (Outcome.CRASHED if pid == victim else Outcome.SUCCEEDED)


def test_a_job_that_was_told_to_stop_and_died_with_its_worker_has_stopped(
    bench: Callable[..., Bench], tmp_path: Path
) -> None:
    """It is gone, so it timed out: it is not said to have crashed by itself."""
    one, meeting = bench(), Meeting(tmp_path)
    claim = one.submit("meet_there", *meeting.paths, timeout=0.1)
    pid = int(meeting.wait())
    one.executor.stop_job(claim.fence, StopReason.TIMEOUT)
    os.kill(pid, signal.SIGKILL)
    assert one.wait_for(claim)[0].outcome is Outcome.TIMED_OUT


def test_a_thousand_jobs_with_a_worker_killed(cluster: DaskCluster, tmp_path: Path) -> None:
    """Every job ends once, none is lost; the one whose worker was killed lost an attempt, and those it ran beside."""
    with nbq.connect(":memory:") as queues:
        queues.worker(executor=DaskExecutor(cluster.address, 2)).start()
        batch = queues.map(tasks.note, [{"folder": str(tmp_path), "number": i} for i in range(1000)])
        victim = tmp_path / "victim"
        deadline = time.monotonic() + PATIENCE
        while not victim.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pid = int(victim.read_text())
        os.kill(pid, signal.SIGKILL)
        batch.wait(5 * PATIENCE)
        assert list(batch.results()) == list(range(1000))
        ends = queues.sql("SELECT job_id, count(*) AS n FROM events WHERE event = 'succeeded' GROUP BY ALL")
        assert (len(ends), set(ends["n"])) == (1000, {1})
        attempts = queues.attempts(limit=None)
    lost = attempts[attempts["outcome"] == "failed"]
    assert set(lost["cause"]) == {"Dask worker died"}
    begun = Counter(
        int(line.split()[1])
        for file in tmp_path.glob("[0-9]*")
        for line in file.read_text().splitlines()
        if line.startswith("begun")
    )
    assert set(begun) == set(range(1000))
    twice = {number for number, times in begun.items() if times > 1}
    there = {int(line.split()[1]) for line in (tmp_path / str(pid)).read_text().splitlines()}
    assert 250 in twice
    assert twice <= there
    assert sum(begun.values()) == 1000 + len(twice)
    # What has begun twice has lost an attempt. So has what was killed between its mark and its first line.
    assert len(twice) <= len(lost) <= 2


def test_a_scheduler_that_goes_gives_the_jobs_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What ran waits again, with its attempt not counted, and runs when the cluster is back."""
    meeting = Meeting(tmp_path)
    with nbq.connect(":memory:") as queues:
        with DaskCluster(tmp_path, workers=1, threads=1) as first:
            executor = DaskExecutor(first.address)
            worker = queues.worker(executor=executor).start()
            assert worker.info.concurrency == 1
            receipt = tasks.meet.dispatch(*meeting.paths)
            meeting.wait()
        deadline = time.monotonic() + PATIENCE
        while receipt.state != "pending":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        record = receipt.record()
        assert (record.attempt, record.crashes, record.error) == (0, 0, "")
        assert f"the Dask scheduler at {first.address} has gone; 1 job was given back" in caplog.text
        # Nothing is claimed that others could run.
        assert executor.slots == 0
        other = tasks.double.dispatch(4)
        assert other.state == "pending"
        with DaskCluster(tmp_path, workers=1, threads=1, port=first.port):
            meeting.wait()
            meeting.let_go()
            assert receipt.result(PATIENCE) == "met"
            assert receipt.attempt == 1
            assert other.result(PATIENCE) == 8
            worker.stop()


def until(fact: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_lanes(dask_scheduler: Any) -> bool:
    """Whether a scheduler has any task of an executor."""
    return any(str(key).startswith("nbqueue-") for key in dask_scheduler.tasks)


@contextlib.contextmanager
def others(
    cluster: DaskCluster, folder: Path
) -> Iterator[tuple[Any, Callable[[], bool], Callable[[], None]]]:
    """Somebody else's tasks in every thread; gives a client, whether a lane waits behind them, and what ends them."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        meetings = [Meeting(folder) for _ in range(4)]
        held = [client.submit(tasks.meet_there, *meeting.paths, pure=False) for meeting in meetings]
        for meeting in meetings:
            meeting.wait()

        def let_go() -> None:
            for meeting in meetings:
                meeting.let_go()
            client.gather(held)

        yield client, lambda: client.run_on_scheduler(has_lanes), let_go


def test_a_lane_that_is_cancelled_as_it_waits_is_opened_anew(cluster: DaskCluster, tmp_path: Path) -> None:
    """Where others kept the cluster busy as all tasks were cancelled, as by a restart, jobs run after it."""
    from distributed import Future

    def lanes(dask_scheduler: Any) -> list[str]:
        return [key for key in dask_scheduler.tasks if str(key).startswith("nbqueue-")]

    with nbq.connect(":memory:") as queues, others(cluster, tmp_path) as (client, lanes_wait, let_go):
        queues.worker(executor=DaskExecutor(cluster.address, 2)).start()
        receipts = [tasks.double.dispatch(i) for i in range(2)]
        until(lanes_wait)
        cancelled = client.run_on_scheduler(lanes)
        client.cancel([Future(key, client) for key in cancelled], force=True)
        until(lambda: not set(cancelled) & set(client.run_on_scheduler(lanes)))
        let_go()
        assert [receipt.result(PATIENCE) for receipt in receipts] == [0, 2]


def test_an_idle_executor_holds_nothing(cluster: DaskCluster, bench: Callable[..., Bench]) -> None:
    """When its jobs have ended the cluster has no task of it, nor what one came to, so it may shrink to nothing."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client:
        assert bench().run("give", 1).outcome is Outcome.SUCCEEDED
        until(lambda: not client.run_on_scheduler(has_lanes))


def test_a_busy_cluster_keeps_no_jobs_from_others(
    cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others' tasks have every thread, jobs go back to their queue but for one, which keeps its place in line."""
    monkeypatch.setattr(lane_books, "_CROWDED", 0.1)
    monkeypatch.setattr(sessions, "_LOOK", 0.05)
    with nbq.connect(":memory:") as queues, others(cluster, tmp_path) as (_, lanes_wait, let_go):
        executor = DaskExecutor(cluster.address, 4)
        queues.worker(executor=executor).start()
        receipts = [tasks.double.dispatch(i) for i in range(6)]
        until(lanes_wait)
        until(lambda: [receipt.state for receipt in receipts].count("pending") == 5)
        assert executor.slots == 0
        other = queues.worker(concurrency=1).start()
        assert [receipt.result(PATIENCE) for receipt in receipts[1:]] == [2, 4, 6, 8, 10]
        other.stop()
        let_go()
        assert receipts[0].result(PATIENCE) == 0
        until(lambda: executor.slots == 4)


def test_nobody_waits_for_a_worker_that_has_gone() -> None:
    """What is asked of a Dask worker has no answer as soon as it has gone, though the scheduler tries on."""

    async def see() -> None:
        asked = asyncio.Event()

        async def broadcast(**_: Any) -> None:
            asked.set()
            await asyncio.Event().wait()

        post = Post(
            SimpleNamespace(id="me", scheduler=SimpleNamespace(broadcast=broadcast), scheduler_comm=None)
        )
        under_way = post.spawn(post.call("tcp://there", "hello"))
        await asked.wait()
        post.lose("tcp://there")
        assert await under_way is None
        asked.clear()
        assert await post.call("tcp://there", "hello") is None
        assert not asked.is_set()
        post.regain("tcp://there")
        again = post.spawn(post.call("tcp://there", "hello"))
        await asked.wait()
        again.cancel()

    asyncio.run(asyncio.wait_for(see(), PATIENCE))


def test_an_answer_that_is_lost_costs_nothing(
    bench: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that has begun, though nobody here was told, runs on; also where nobody can be asked for a while."""
    call, meeting, asked = Post.call, Meeting(tmp_path), []

    async def lose(post: Post, address: str, *message: Any) -> Any:
        if message[0] == "retract" and len(asked) < 2:
            asked.append(message)
            return None
        answer = await call(post, address, *message)
        if message[0] == "loads" and not asked:
            await asyncio.to_thread(meeting.wait)
            return None
        return answer

    one = bench()
    monkeypatch.setattr(Post, "call", lose)
    claim = one.submit("meet_there", *meeting.paths)
    until(lambda: len(asked) == 2)
    meeting.let_go()
    (report,) = one.wait_for(claim)
    assert report.outcome is Outcome.SUCCEEDED, report.error


def test_a_farewell_that_is_not_answered_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is closed though a worker does not say that it has heard."""
    monkeypatch.setattr(posts, "_FAREWELL", 0.05)
    closed = []

    async def broadcast(**_: Any) -> None:
        await asyncio.Event().wait()

    async def close(**_: Any) -> None:
        closed.append(True)

    scheduler = SimpleNamespace(broadcast=broadcast)
    client = SimpleNamespace(id="", status="running", scheduler=scheduler, scheduler_comm=None, close=close)

    async def end() -> None:
        await Post(client).end(["tcp://there"])

    asyncio.run(asyncio.wait_for(end(), PATIENCE))
    assert closed == [True]


def test_a_lane_may_give_back_what_is_said_to_have_begun(bench: Callable[..., Bench]) -> None:
    """The first job that it was given has begun only as far as this end knows: it waits again, and nothing runs."""
    one = bench()
    desk = Desk(one.runner, lambda: None, None)
    lanes, lane, claim = Lanes(None, desk, None), Lane(1, 0, None), one.claim("give", 1)  # type: ignore[arg-type]
    lane.loads.append(claim)
    desk.begin(claim, lane.number, lane.place)
    desk.closing = True
    lanes.take_back(lane, {claim.fence})
    assert desk.wait_idle(0.0)
    assert list(desk.todo) == [claim]


def test_marks_tell_what_had_begun() -> None:
    """What a process has begun or ended last is found by others on its machine, also when it was killed."""
    marks = Marks(uuid.uuid4().hex, 1)
    place = marks.place_of(0)
    assert place.is_here
    assert has_run(place.path, 7) is False
    marks.begin(0, 7)
    assert has_run(place.path, 7) is True
    marks.end(0, 7)
    assert (has_run(place.path, 7), has_run(place.path, 8)) == (True, False)
    assert not marks.place_of(10_000).is_here
    marks.close()
    assert has_run(place.path, 7) is None


def test_what_is_said_twice_has_one_number() -> None:
    """A batch whose answer was lost is sent again under its number, so that it is taken once; and in order."""
    heard: list[tuple[int, list[object]]] = []

    class Worker:
        address, status = "tcp://here", SimpleNamespace(name="running")

        def __init__(self) -> None:
            self.loop = SimpleNamespace(add_callback=lambda work: asyncio.run(work()))
            self.scheduler = self

        async def log_event(self, topic: str, msg: dict[str, Any]) -> None:
            heard.append((msg["batch"], [decode(data) for data in msg["said"]]))
            if len(heard) == 1:
                raise OSError("the answer is lost")

    outbox = Outbox(Worker(), "session", "name")
    assert outbox.put("one").arrived
    assert outbox.put("two").arrived
    assert heard == [(1, [("one",)]), (1, [("one",)]), (2, [("two",)])]
    outbox.put("long", "x" * 20_000)
    assert heard[-1] == (3, [("kept", 1)])
    # Also when it is asked for twice, since the first answer was lost.
    assert outbox.fetch(1) == outbox.fetch(1) == encode(("long", "x" * 20_000))
    outbox.drop(1)
    assert outbox.fetch(1) is None


# ------------------------------------------------------------------------------------------------- stops


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [(StopReason.CANCEL, Outcome.CANCELLED), (StopReason.TIMEOUT, Outcome.TIMED_OUT)],
)
def test_a_stop_is_raised_in_the_job(
    bench: Callable[..., Bench], tmp_path: Path, reason: StopReason, outcome: Outcome
) -> None:
    """A job that never asks is broken off where it is, cleans up, and its thread runs the next one."""
    one, meeting, path = bench(), Meeting(tmp_path), tmp_path / "cleaned"
    claim = one.submit("clean_up", meeting.paths[0], str(path), timeout=0.5)
    meeting.wait()
    assert one.executor.stop_job(claim.fence, reason)
    (report,) = one.wait_for(claim)
    assert report.outcome is outcome
    assert path.read_text() == "cleaned"
    assert one.run("give", 1).outcome is Outcome.SUCCEEDED


def test_what_cannot_be_stopped_is_said_to_be_stuck(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A job that reacts to nothing runs on and is shown as stuck; another thread of the cluster takes its place."""
    one, meetings = bench(4, patience=0.2), [Meeting(tmp_path) for _ in range(4)]
    claims = [one.submit("meet", *meeting.paths) for meeting in meetings]
    for meeting in meetings:
        meeting.wait()
    for claim in claims:
        one.executor.stop_job(claim.fence, StopReason.CANCEL)
    deadline = time.monotonic() + PATIENCE
    while not all(running.stuck for running in one.executor.running()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert {running.claim.fence for running in one.executor.running()} == {claim.fence for claim in claims}
    assert one.run("give", 1).outcome is Outcome.SUCCEEDED
    assert '"note":"cannot stop"' in next(
        news.progress for news in one.executor.news() if news.claim == claims[0]
    )
    for meeting in meetings:
        meeting.let_go()
    assert {report.outcome for report in one.wait_for(*claims)} <= {Outcome.CANCELLED, Outcome.SUCCEEDED}


def test_what_is_left_behind_holds_no_thread(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """A job that goes on though its executor has closed has another thread in its place, for whoever comes next."""
    one, meetings = bench(4), [Meeting(tmp_path) for _ in range(4)]
    claims = [one.submit("meet_there", *meeting.paths) for meeting in meetings]
    for meeting in meetings:
        meeting.wait()
    assert one.executor.close(0.0) == claims
    assert bench(1).run("give", 1).outcome is Outcome.SUCCEEDED
    for meeting in meetings:
        meeting.let_go()


def test_long_jobs_hold_nothing_up(bench: Callable[..., Bench]) -> None:
    """Of jobs that were taken for tiny ones and are not, what waits behind one goes to another thread."""
    one = bench(2)
    one.wait_for(*[one.submit("give", i) for i in range(60)])
    claims = [one.claim("nap", 0.0 if i else 3.0) for i in range(40)]
    one.executor.submit(claims)
    before = time.monotonic()
    one.wait_for(*claims[1:])
    assert time.monotonic() - before < 2.5
    assert [running.claim for running in one.executor.running()] == [claims[0]]
    one.wait_for(claims[0])


def test_a_notebook_that_dies_leaves_nothing_running(cluster: DaskCluster, tmp_path: Path) -> None:
    """After ``kill -9`` of the process that has the queue, what it had begun in the cluster is told to stop."""
    meeting, path = Meeting(tmp_path), tmp_path / "reason"
    url = str(tmp_path / "jobs.duckdb")
    with nbq.connect(url):
        tasks.until_told.dispatch(meeting.paths[0], str(path))
    process = subprocess.Popen(
        in_terminal(cluster, url), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        meeting.wait()
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert path.read_text() == "shutdown"


# ------------------------------------------------------------------------------------------------- what is said


def test_displays_stand_where_they_were_shown(bench: Callable[..., Bench]) -> None:
    """A display comes after what was printed before it, and before what was printed after it."""
    report = bench().run("show_between")
    order = [
        json.loads(chunk.text)["data"]["text/plain"] if chunk.stream == OUTPUT else chunk.text
        for chunk in report.logs
    ]
    text = "".join(part if part.endswith("\n") else f"{part}\n" for part in order)
    assert text == "".join(f"before {i}\nshown {i}\nafter {i}\n" for i in range(5))


def test_long_outputs_and_results_arrive(bench: Callable[..., Bench]) -> None:
    """What is too long for an event of the cluster is fetched from its worker, in its place."""
    report = bench().run("say_much")
    assert value(report) == "y" * 300_000
    assert said(report) == "x" * 200_000 + "\n"


def test_what_cannot_be_fetched_is_fetched_later(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Dask worker that does not answer and is there still has what it has to say."""
    monkeypatch.setattr(sessions, "_LOOK", 0.01)
    call, failed = Post.call, []

    async def fail_first(post: Post, address: str, *message: Any) -> Any:
        if message[0] == "fetch" and message[1] not in failed:
            failed.append(message[1])
            return None
        return await call(post, address, *message)

    monkeypatch.setattr(Post, "call", fail_first)
    assert value(bench().run("say_much")) == "y" * 300_000
    assert failed


def test_async_jobs_leave_no_loop_behind(cluster: DaskCluster, bench: Callable[..., Bench]) -> None:
    """The loop that they ran on ends in the Dask worker when there is nothing to run there."""
    from distributed import Client

    def has_loop() -> bool:
        return any(thread.name == "nbqueue-loop" for thread in threading.enumerate())

    assert bench().run("give_async", 1).outcome is Outcome.SUCCEEDED
    with Client(cluster.address, set_as_default=False) as client:
        until(lambda: not any(client.run(has_loop).values()))


def test_says_what_a_job_has_taken(bench: Callable[..., Bench]) -> None:
    """The processor time is the job's own thread's; memory is its process's, so with several threads it is not told."""
    usage = json.loads(bench().run("burn", 0.2).usage)
    assert 0.2 <= usage["cpu_seconds"] < 1.0
    assert "peak_memory" not in usage


class TestElsewhere(ElsewhereConformance):
    """Lanes are told what to run, and tell what came of it."""


def test_the_secret_stays_at_home(bench: Callable[..., Bench]) -> None:
    """What a cluster is given is signed by a key of that session; what comes back is signed by the user's own."""
    one = bench()
    claim = one.submit("show_signed", slice(3))
    (report,) = one.wait_for(claim)
    assert report.outcome is Outcome.SUCCEEDED, report.error
    text, given, result = payload.decode(report.result, key=KEY, context="show_signed")
    assert (given, result) == (slice(3), slice(1, 2))
    assert json.loads(text) != json.loads(claim.payload)
    with pytest.raises(nbq.PayloadUntrusted):
        payload.decode_call(text, key=KEY, context="show_signed")
    (shown,) = [json.loads(chunk.text) for chunk in report.logs if chunk.stream == OUTPUT]
    assert shown["data"]["text/html"] == "<b>7</b>"
    assert bundles.is_trusted(shown, key=lambda: KEY, context=str(claim.job_id))


def test_cells_run_here(bench: Callable[..., Bench]) -> None:
    """A ``%%job`` cell uses the names of the notebook, so it runs in this process, beside what runs in the cluster."""
    one = bench()
    assert value(one.run("pid")) != os.getpid()
    one.handlers["pid"] = dataclasses.replace(one.handlers["pid"], kind=Kind.CELL)
    assert value(one.run("pid")) == os.getpid()


def test_a_queue_cannot_be_asked_from_a_cluster(bench: Callable[..., Bench]) -> None:
    """``nbq.manager()`` in a job says that it cannot, and does not make a queue of its own there."""
    report = bench().run("ask_home")
    assert report.kinds[0] == "nbqueue.errors.NotSupported"
    assert "cannot be asked from a Dask cluster" in report.error


# ------------------------------------------------------------------------------------------------- clusters and clients


def test_takes_a_client_and_leaves_it_open(cluster: DaskCluster) -> None:
    """``nbq.DaskExecutor(client)`` has as many slots as the cluster has threads, and the client works on after it."""
    from distributed import Client

    with Client(cluster.address, set_as_default=False) as client, nbq.connect(":memory:") as queues:
        client.wait_for_workers(2, timeout=PATIENCE)
        executor = nbq.DaskExecutor(client)
        assert executor.slots == 4
        worker = queues.worker(executor=executor).start()
        assert [info.concurrency for info in queues.workers()] == [4]
        assert tasks.double.dispatch(4).result(PATIENCE) == 8
        worker.stop()
        assert client.submit(abs, -1).result(PATIENCE) == 1


def test_says_what_no_executor_can_be_made_of(cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wrong argument, and a missing package, has its sentence."""
    from distributed import Client

    for wrong in ("dask://", "dask://here", "tcp://here:", "tls://here:88x", "dask://here:0"):
        with pytest.raises(nbq.InvalidCommand, match="write dask://HOST:PORT"):
            DaskExecutor(wrong)
    for number in (0, -1, "2", True):
        with pytest.raises(nbq.InvalidCommand, match="concurrency must be a whole number from 1 up"):
            DaskExecutor(cluster.address, number)  # type: ignore[arg-type]
    assert DaskExecutor(f"{cluster.address}/").slots == 4
    with pytest.raises(nbq.QueueUnavailable, match="asks for certificates: give the DaskExecutor a Client"):
        DaskExecutor(cluster.address.replace("tcp", "tls"))
    with pytest.raises(nbq.InvalidCommand, match="not a dict"):
        DaskExecutor({})
    with Client(cluster.address, set_as_default=False) as client:
        (worker, *_) = client.nthreads()
        with pytest.raises(nbq.QueueUnavailable, match=f"what answers at {worker} is no Dask scheduler"):
            DaskExecutor(worker)
        monkeypatch.setattr(client, "_asynchronous", True)
        with pytest.raises(nbq.NotSupported, match="asynchronous=True"):
            DaskExecutor(client)
        monkeypatch.undo()
    with pytest.raises(nbq.QueueUnavailable, match="not connected"):
        DaskExecutor(client)
    monkeypatch.setattr(clusters, "PATIENCE", 0.3)
    with pytest.raises(nbq.QueueUnavailable, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        make_executor("dask://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(nbq.NotSupported, match=r"pip install 'nbqueue\[dask\]'"):
        make_executor("dask://127.0.0.1:8786")


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        ({"python": "3.9.1.final.0"}, "runs Python 3.9, and this process 3"),
        ({"nbqueue": None}, "has no nbqueue, which runs the jobs there; install nbqueue"),
        ({"cloudpickle": "1.6.0"}, "has cloudpickle 1.6.0, and this process"),
    ],
)
def test_workers_that_do_not_fit_are_refused(
    cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch, theirs: dict[str, str | None], sentence: str
) -> None:
    """Another Python, nbqueue or cloudpickle on the workers is said before any job is taken."""
    versions = clusters._versions

    async def other(client: Any, workers: list[str]) -> Any:
        return {address: found | theirs for address, found in (await versions(client, workers)).items()}

    monkeypatch.setattr(clusters, "_versions", other)
    with nbq.connect(":memory:") as queues:
        worker = queues.worker(executor=DaskExecutor(cluster.address, 2))
        with pytest.raises(nbq.NotSupported, match=sentence):
            worker.start()
        assert queues.workers() == []


def test_a_function_that_cannot_be_sent_is_held(bench: Callable[..., Bench]) -> None:
    """A function that uses what cannot be pickled is held, with the variable named: it was not run."""
    one, space = bench(), vars(ModuleType("__main__"))
    file = space["file"] = io.TextIOWrapper(io.BytesIO())
    exec("def use(x): return file", space)
    one.handlers["use"] = function_handler(space["use"], "use", Options())
    report = one.run("use", 1)
    file.close()
    assert (report.kind, report.cause) == (ReportKind.REFUSED, "not sent")
    assert 'use uses the variable "file" (a _io.TextIOWrapper)' in report.error


def test_says_when_workers_have_old_code(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function that the cluster imported before it was changed here says so in the job's log."""
    one = bench()
    handler = one.handlers["nap"]
    monkeypatch.setitem(vars(handler), "code", "0" * 16)
    report = one.run("nap", 0.0)
    assert "nap is another version of itself on the Dask worker tcp://" in said(report, "log")
    assert said(one.run("nap", 0.0), "log") == ""


def test_works_in_a_terminal(cluster: DaskCluster, tmp_path: Path) -> None:
    """``nbqueue work --executor dask://…`` runs jobs on the cluster, and ends when nothing is left."""
    url = str(tmp_path / "jobs.duckdb")
    with nbq.connect(url):
        receipt = tasks.double.dispatch(3)
        slow = tasks.too_long.dispatch()
    command = in_terminal(cluster, url, "--stop-when-empty")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with nbq.connect(url) as queues:
        assert queues.job(receipt.job_id).result(1) == 6
        (attempt,) = queues.job(slow.job_id).attempts().to_dict("records")
        assert attempt["error"].startswith("TimeoutError: it took ")
