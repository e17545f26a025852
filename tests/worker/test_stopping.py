"""Starting and stopping: what each way of it does to the jobs that run, and what it leaves behind."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import nbqueue as nbq
from nbqueue.errors import DispatchFailed, QueueUnavailable
from nbqueue.executors.thread import ThreadExecutor
from nbqueue.patience import patience
from nbqueue.running.run import Runner
from nbqueue.slots import SlotFile
from nbqueue.store import Handlers, Report, ReportKind, Turn
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.memory import MemoryStore
from nbqueue.worker import stopping

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0


class Gate:
    """What a job has begun, and what lets it end."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Event(), threading.Event()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Opens at the end, whatever became of the test."""
    gate = Gate()
    yield gate
    gate.go_on.set()


@pytest.fixture
def queues(tmp_path: Path, gate: Gate) -> Iterator[nbq.QueueManager]:
    """A queue on disk, and the command ``gate``, which ends when it may and does not hear that it should."""

    @nbq.command("stopping:gate")
    def wait() -> str:
        gate.began.set()
        while not gate.go_on.is_set():
            with contextlib.suppress(BaseException):
                gate.go_on.wait()
        return "done"

    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        yield queues
        gate.go_on.set()


def gated(queues: nbq.QueueManager, gate: Gate) -> nbq.JobDispatch:
    """Dispatch a job of the gate, and wait until it runs."""
    receipt = queues.dispatch(nbq.QueuedCommand("stopping:gate"))
    assert gate.began.wait(PATIENCE)
    return receipt


def stands(receipt: nbq.JobDispatch) -> tuple[str, int, int]:
    """How a job stands: its state, its attempts, its deaths."""
    record = receipt.record()
    return record.state.value, record.attempt, record.crashes


# ------------------------------------------------------------------------- in this process


def test_stop_lets_what_runs_end(queues: nbq.QueueManager, gate: Gate) -> None:
    """Within its time a job ends as if nobody had stopped, and nothing else is begun."""
    worker = queues.worker(concurrency=1).start()
    receipt = gated(queues, gate)
    after = queues.dispatch(nbq.QueuedCommand("stopping:gate"))
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    assert worker._turns.stopping.wait(PATIENCE)
    assert worker.running
    gate.go_on.set()
    stopping.join(PATIENCE)
    assert not worker.running
    assert (receipt.result(0), receipt.attempt) == ("done", 1)
    assert stands(after) == ("pending", 0, 0)


@pytest.mark.parametrize("timeout", [0, 0.3])
def test_stop_gives_back_what_does_not_end(queues: nbq.QueueManager, gate: Gate, timeout: float) -> None:
    """When the time is up, what runs is given back with its attempt, and its late end is not taken for one."""
    worker = queues.worker(concurrency=1).start()
    receipt = gated(queues, gate)
    began = time.monotonic()
    worker.stop(timeout)
    assert timeout <= time.monotonic() - began < timeout + 5
    assert stands(receipt) == ("pending", 0, 0)
    gate.go_on.set()
    with queues.worker():
        assert receipt.wait(PATIENCE).attempt == 1
    endings = queues.events()["event"].isin(["succeeded", "failed", "stale"])
    assert endings.sum() == 1


def test_the_last_commit_fails_once(
    queues: nbq.QueueManager, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a stopped worker reports last is tried again, and what it holds is given back at once, not by its lease."""
    worker = queues.worker(concurrency=1).start()
    receipt = gated(queues, gate)
    turn, fails = DuckDBStore.turn, iter([True])

    def fail_once(store: DuckDBStore, worker_id: str, reports: Sequence[Report], *rest: Any) -> Turn:
        if any(report.kind is ReportKind.RELEASED for report in reports) and next(fails, False):
            raise DispatchFailed("no room")
        return turn(store, worker_id, reports, *rest)

    monkeypatch.setattr(DuckDBStore, "turn", fail_once)
    worker.stop(0)
    assert next(fails, False) is False
    assert stands(receipt) == ("pending", 0, 0)
    assert queues.workers() == []


def test_a_second_stop_shortens_the_first(queues: nbq.QueueManager, gate: Gate) -> None:
    """While one thread waits for jobs to end, another says that it has waited long enough."""
    worker = queues.worker(concurrency=1).start()
    receipt = gated(queues, gate)
    patient = threading.Thread(target=worker.stop, args=(600.0,))
    patient.start()
    worker.stop(0)
    patient.join(PATIENCE)
    assert not patient.is_alive()
    assert stands(receipt) == ("pending", 0, 0)


def test_close_gives_back_what_runs(queues: nbq.QueueManager, gate: Gate) -> None:
    """Closing a queue stops its workers first, and whoever opens it again finds their jobs waiting."""
    queues.worker().start()
    receipt = gated(queues, gate)
    queues.close(0.1)
    with nbq.connect(queues.name) as again:
        assert stands(again.job(receipt.job_id)) == ("pending", 0, 0)
        assert again.interrupted == []


def test_start_again(queues: nbq.QueueManager, gate: Gate) -> None:
    """A worker that was stopped works again when it is started, under another name; started twice it is one."""
    gate.go_on.set()
    worker = queues.worker()
    names = set()
    for _ in range(3):
        assert worker.start() is worker.start()
        names.add(worker.worker_id)
        assert queues.dispatch(nbq.QueuedCommand("stopping:gate")).result(PATIENCE) == "done"
        assert [info.worker_id for info in queues.workers()] == [worker.worker_id]
        worker.stop()
    assert len(names) == 3
    assert queues.workers() == []


def test_a_job_stops_its_own_worker(queues: nbq.QueueManager, gate: Gate) -> None:
    """A job that stops its worker does not wait for itself: it ends, its end counts, and then the worker has gone."""
    gate.go_on.set()
    worker = queues.worker(concurrency=1)

    @nbq.command("stopping:last")
    def last() -> str:
        worker.stop()
        return "said before the end"

    worker.start()
    receipt = queues.dispatch(nbq.QueuedCommand("stopping:last"))
    after = queues.dispatch(nbq.QueuedCommand("stopping:gate"))
    assert worker.wait(PATIENCE)
    assert (receipt.result(0), stands(after)) == ("said before the end", ("pending", 0, 0))


@pytest.mark.parametrize(
    ("verb", "sentence"),
    [
        ("close", "a job cannot close {name} while it runs there"),
        ("drain", "a job cannot wait for all jobs of its own worker"),
    ],
)
def test_a_job_cannot_wait_for_itself(queues: nbq.QueueManager, verb: str, sentence: str) -> None:
    """What could only end after the job is refused in it, and all is as it was."""
    worker = queues.worker().start()

    @nbq.command("stopping:waits")
    def waits() -> None:
        {"close": queues.close, "drain": worker.drain}[verb]()

    error = queues.dispatch(nbq.QueuedCommand("stopping:waits")).exception(PATIENCE)
    assert sentence.format(name=queues.name) in str(error)
    assert (queues.closed, worker.stopping) == (False, False)


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_in_a_job_ends_that_job(queues: nbq.QueueManager, gate: Gate, code: int) -> None:
    """It is an error of the job, whatever its code; its worker and its process go on."""
    gate.go_on.set()

    @nbq.command("stopping:exits")
    def exits() -> None:
        sys.exit(code)

    with queues.worker(concurrency=1):
        with pytest.raises(nbq.JobFailed, match=f"SystemExit: {code}"):
            queues.dispatch(nbq.QueuedCommand("stopping:exits")).result(PATIENCE)
        assert queues.dispatch(nbq.QueuedCommand("stopping:gate")).result(PATIENCE) == "done"


class Unstartable(ThreadExecutor):
    """Does not start the first time."""

    failed = False

    def start(self, runner: Runner, done: Callable[[], None], slot_file: SlotFile | None) -> None:
        if not self.failed:
            self.failed = True
            raise OSError("no room for a single thread")
        super().start(runner, done, slot_file)


def test_a_slot_file_that_cannot_be_made(queues: nbq.QueueManager, tmp_path: Path) -> None:
    """A worker that could not tell others of its death does not begin, and says why."""
    (tmp_path / "jobs.duckdb.slots").touch()
    worker = queues.worker(concurrency=1)
    with pytest.raises(QueueUnavailable, match=r"jobs\.duckdb\.slots.* cannot be made"):
        worker.start()
    (tmp_path / "jobs.duckdb.slots").unlink()
    with worker:
        assert [info.worker_id for info in queues.workers()] == [worker.worker_id]


def test_an_executor_that_does_not_start(queues: nbq.QueueManager, gate: Gate) -> None:
    """The error is raised where ``start`` was called, nothing is left of the worker, and it can be started again."""
    gate.go_on.set()
    worker = queues.worker(executor=Unstartable(2))
    with pytest.raises(OSError, match="no room"):
        worker.start()
    assert (worker.running, queues.workers()) == (False, [])
    assert not list(Path(queues.name).parent.glob("*.slots/*"))
    worker.stop()
    with worker:
        assert queues.dispatch(nbq.QueuedCommand("stopping:gate")).result(PATIENCE) == "done"


# ------------------------------------------------------------------------- Ctrl-C in a cell that waits


def wait_for_ever() -> None:
    threading.Event().wait()


@pytest.fixture
def interrupt(gate: Gate) -> Iterator[None]:
    """Interrupts the main thread, as Ctrl-C does, once the job has begun and that thread waits."""
    main = threading.main_thread().ident
    assert main is not None

    def waits() -> bool:
        frame = sys._current_frames().get(main)
        while frame is not None and frame.f_code.co_name not in ("_wait_until_done", "wait_for_ever"):
            frame = frame.f_back
        return frame is not None

    def watch() -> None:
        if gate.began.wait(PATIENCE):
            while not waits():
                time.sleep(0.001)
            # Python drops what is raised in a destructor, which may run at any moment: one presses Ctrl-C again then.
            while waits():
                signal.pthread_kill(main, signal.SIGINT)
                until = time.monotonic() + 2.0
                while waits() and time.monotonic() < until:
                    time.sleep(0.001)

    watching = threading.Thread(target=watch)
    watching.start()
    yield
    watching.join()


@pytest.mark.usefixtures("interrupt")
def test_ctrl_c_in_drain_of_a_worker_at_work(queues: nbq.QueueManager, gate: Gate) -> None:
    """The waiting ends at once, and the worker and its job go on."""
    with queues.worker() as worker:
        receipt = queues.dispatch(nbq.QueuedCommand("stopping:gate"))
        with pytest.raises(KeyboardInterrupt):
            worker.drain()
        assert (worker.running, worker.stopping, stands(receipt)) == (True, False, ("running", 1, 0))
        gate.go_on.set()
        assert receipt.result(PATIENCE) == "done"


@pytest.mark.usefixtures("interrupt")
def test_ctrl_c_in_drain_of_a_worker_that_only_drains(queues: nbq.QueueManager, gate: Gate) -> None:
    """The waiting ends at once, with the worker still at its last jobs, which may end; it begins no others."""
    worker = queues.worker(concurrency=1)
    receipt, after = (queues.dispatch(nbq.QueuedCommand("stopping:gate")) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        worker.drain()
    assert (worker.running, worker.stopping) == (True, True)
    gate.go_on.set()
    assert worker.wait(PATIENCE)
    assert (stands(receipt), stands(after)) == (("succeeded", 1, 0), ("pending", 0, 0))


@pytest.mark.usefixtures("interrupt")
def test_ctrl_c_in_a_with(tmp_path: Path, queues: nbq.QueueManager, gate: Gate) -> None:
    """Leaving by Ctrl-C waits a second for jobs instead of ten, and gives back what runs."""
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), nbq.connect(tmp_path / "other.duckdb") as other, other.worker():
        receipt = other.dispatch(nbq.QueuedCommand("stopping:gate"))
        wait_for_ever()
    assert time.monotonic() - began < 8
    with nbq.connect(tmp_path / "other.duckdb") as other:
        assert stands(other.job(receipt.job_id)) == ("pending", 0, 0)


# ------------------------------------------------------------------------- nothing is left behind

#: How often; what has processes for slots is slow to start. ``NBQUEUE_TEST_ROUNDS=10`` makes it ten times as often.
ROUNDS = {
    ("worker", "thread"): 200,
    ("queue", "thread"): 10,
    ("both", "thread"): 8,
    ("worker", "process"): 3,
}

on_linux = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="counts in /proc, which is not here"
)


def census() -> tuple[int, list[str], list[str]]:
    """The threads, open files and children of this process, as the system counts them."""
    tasks = list(Path("/proc/self/task").iterdir())
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    files = [os.path.realpath(one) for one in Path("/proc/self/fd").iterdir()]
    return len(tasks), sorted(file for file in files if not file.startswith("/proc")), children


def settled(before: tuple[int, list[str], list[str]]) -> bool:
    """Whether nothing is left that was not there before; threads of the system take a moment to go."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        gc.collect()
        threads, files, children = census()
        if threads <= before[0] and len(files) <= len(before[1]) and set(children) <= set(before[2]):
            return True
        time.sleep(0.02)
    return False


def left_of(before: tuple[int, list[str], list[str]]) -> str:
    threads, files, children = census()
    names = [thread.name for thread in threading.enumerate()]
    return f"{threads - before[0]} threads of {names}, {set(files) - set(before[1])}, children {children}"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary files go, with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="n") as folder:
        for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(name, folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@on_linux
@pytest.mark.parametrize(("what", "executor"), ROUNDS)
def test_nothing_is_left_of_starts_and_stops(
    tmp_path: Path, temporary: Path, what: str, executor: str
) -> None:
    """Of many starts and stops no thread, file, child or temporary file is left, and the folder is as it was."""
    rounds = ROUNDS[what, executor] * int(os.environ.get("NBQUEUE_TEST_ROUNDS") or 1)
    kept = None if what != "worker" else nbq.connect(tmp_path / "jobs.duckdb")

    def once(number: int) -> None:
        queues = kept or nbq.connect(tmp_path / "jobs.duckdb")
        if what != "queue":
            worker = queues.worker(concurrency=1, executor=executor).start()
            if not number % 4:
                queues.dispatch(nbq.QueuedCommand("stopping:nothing")).wait(PATIENCE)
            worker.stop()
        if kept is None:
            queues.close()

    nbq.command("stopping:nothing")(_nothing)
    for number in range(2):
        once(number)
    gc.collect()
    before, there = census(), sorted((*tmp_path.rglob("*"), *temporary.rglob("*")))
    for number in range(rounds):
        once(number)
    assert settled(before), left_of(before)
    assert sorted((*tmp_path.rglob("*"), *temporary.rglob("*"))) == there
    if kept is not None:
        kept.close()


def _nothing() -> None:
    """Do nothing."""


# ------------------------------------------------------------------------- a store that is away for a while


class Away(MemoryStore):
    """Cannot be reached while it is away, as a queue whose owner has just gone."""

    def __init__(self) -> None:
        super().__init__()
        self.away = threading.Event()
        self.tried = threading.Semaphore(0)
        self.taken: list[Report] = []

    def turn(
        self, worker_id: str, reports: Sequence[Report], slots: int, handlers: Handlers | None = None
    ) -> Turn:
        if self.away.is_set():
            self.tried.release()
            raise QueueUnavailable("nobody has the file just now")
        turn = super().turn(worker_id, reports, slots, handlers)
        self.taken += [report for report in reports if report.outcome is not None]
        return turn


def test_a_store_that_is_away_for_a_while(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    """Jobs run on while nobody takes reports; afterwards each arrives once, and the worker is the one it was."""
    store = Away()

    @nbq.command("stopping:gate")
    def wait(number: int) -> int:
        if number == 7:
            gate.began.set()
        assert gate.go_on.wait(PATIENCE)
        return number

    with nbq.QueueManager(store=store) as queues, caplog.at_level(logging.WARNING, "nbqueue.worker"):
        worker = queues.worker(concurrency=8).start()
        works = [nbq.QueuedCommand("stopping:gate").with_args([number]) for number in range(8)]
        receipts = queues.dispatch_many(works)
        assert gate.began.wait(PATIENCE)
        store.away.set()
        gate.go_on.set()
        for _ in range(3):
            assert store.tried.acquire(timeout=PATIENCE)
        assert {receipt.state for receipt in receipts} == {"running"}
        store.away.clear()
        assert [receipt.result(PATIENCE) for receipt in receipts] == list(range(8))
        assert [info.worker_id for info in queues.workers()] == [worker.worker_id]
        assert len(store.taken) == 8
        assert set(queues.events()["event"].value_counts().to_dict().items()) >= {
            ("claimed", 8),
            ("succeeded", 8),
        }
    assert len(caplog.records) == 1


def test_a_store_that_is_away_for_good(
    gate: Gate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to let jobs end however long it takes, a worker does not wait for its store that long, and names them."""
    monkeypatch.setattr(stopping, "PATIENCE", 0.2)
    store = Away()

    @nbq.command("stopping:gate")
    def wait() -> None:
        gate.began.set()
        assert gate.go_on.wait(PATIENCE)

    with nbq.QueueManager(store=store) as queues, caplog.at_level(logging.WARNING, "nbqueue.worker"):
        worker = queues.worker().start()
        receipt = gated(queues, gate)
        store.away.set()
        worker.request_stop(math.inf)
        # Long after that patience it still lets the job run.
        assert not worker.wait(0.6)
        gate.go_on.set()
        assert worker.wait(PATIENCE)
        store.away.clear()
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert f"could not report what became of 1 job (stopping:gate {receipt})" in said
    assert said.endswith("lease of 15 s is over; nobody has the file just now")


def test_who_stops_has_less_patience(gate: Gate) -> None:
    """A call of the store that is under way when a worker is told to stop is tried no longer than that allows."""
    seen: list[float] = []
    tried, stopped = threading.Event(), threading.Event()

    class Trying(MemoryStore):
        def turn(self, *given: Any, **more: Any) -> Turn:
            if not tried.is_set():
                seen.append(patience())
                tried.set()
                assert stopped.wait(PATIENCE)
                seen.append(patience())
            return super().turn(*given, **more)

    with nbq.QueueManager(store=Trying()) as queues:
        worker = queues.worker().start()
        assert tried.wait(PATIENCE)
        worker.request_stop(3)
        stopped.set()
        assert worker.wait(PATIENCE)
    assert seen == [math.inf, 1.0]


def test_the_lease_holds_while_a_job_holds_the_gil(tmp_path: Path) -> None:
    """A job of pure Python that never waits does not keep the supervisor from renewing a lease of half a second."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:

        @nbq.command("stopping:busy")
        def busy() -> int:
            until, turns = time.monotonic() + 1.6, 0
            while time.monotonic() < until:
                turns += 1
            return turns

        with queues.worker(concurrency=1, lease=0.5) as worker, queues.worker("other", lease=600):
            receipt = queues.dispatch(nbq.QueuedCommand("stopping:busy"))
            assert receipt.result(PATIENCE) > 0
            assert (receipt.attempt, receipt.record().worker) == (1, worker.worker_id)
        assert not queues.events()["event"].isin(["interrupted", "stale"]).any()


# ------------------------------------------------------------------------- scripts, as processes of their own

SCRIPT = """
import os, signal, sys, threading
import nbqueue as nbq

queues = nbq.connect(sys.argv[1])

@nbq.command("deaf")
def deaf():
    os.write(1, b"runs\\n")
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            pass

queues.dispatch(nbq.QueuedCommand("deaf"))
worker = queues.worker(concurrency=1).start()
"""
ENDS = {
    "ctrl-c in wait": ("worker.wait()", signal.SIGINT, -signal.SIGINT),
    "ctrl-c in drain": ("worker.drain()", signal.SIGINT, -signal.SIGINT),
    "sigterm that is made an exit": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\nworker.wait()",
        signal.SIGTERM,
        0,
    ),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_script_that_ends_gives_back_what_runs(tmp_path: Path, how: str) -> None:
    """A script that ends in order, by Ctrl-C too, closes its queue: what runs has a second, and is given back."""
    ending, number, code = ENDS[how]
    path = tmp_path / "jobs.duckdb"
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + ending, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert script.stdout is not None
    assert script.stdout.readline() == b"runs\n"
    script.send_signal(number)
    _, errors = script.communicate(b"\n", timeout=PATIENCE)
    assert script.returncode == code, errors.decode()
    assert (b"KeyboardInterrupt" in errors) == (number is signal.SIGINT)
    with nbq.connect(path) as queues:
        assert queues.interrupted == []
        (row,) = queues.jobs().to_dict("records")
        assert (row["state"], row["attempt"], row["crashes"]) == ("pending", 0, 0)
