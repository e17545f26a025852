"""The public surface on a real PostgreSQL: what works on a file works there, from several processes, and survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

import nbqueue as nbq
from nbqueue.cli import terminal
from nbqueue.cli.commands import main
from nbqueue.widgets.panel.feed import Feed
from tests.servers import PASSWORD, PostgresServer, fresh_schema

TASKS = '''
import os
import nbqueue as nbq


@nbq.command("add")
def add(a, b):
    print("adding", a, b)
    return a + b


@nbq.command("stubborn", tries=1)
def stubborn():
    """Runs until it is told to stop."""
    import threading

    print("stubborn is running", flush=True)
    while not nbq.current().should_stop():
        threading.Event().wait(0.01)


@nbq.command("gate")
def gate(path):
    """Says that it has begun, and never ends."""
    import threading

    open(path, "w").close()
    threading.Event().wait()
'''


@pytest.fixture
def queues(postgres_url: str) -> Iterator[nbq.QueueManager]:
    with nbq.connect(postgres_url) as opened:
        yield opened


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with a module of handlers."""
    (tmp_path / "pg_tasks.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def elsewhere(postgres_url: str, tasks: None) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python in another process, with the queue in its environment."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "NBQUEUE_URL": postgres_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(is_so: Callable[[], object], patience: float = 30.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


# ------------------------------------------------------------------------- one process


def test_jobs_run_and_are_seen(queues: nbq.QueueManager) -> None:
    """Dispatched, run, retried and failed; frames, statistics, SQL with a DataFrame, plots and the panel show it."""

    @nbq.job(tries=2, backoff=0)
    def halve(number: int) -> float:
        if number % 2:
            raise ValueError(f"{number} is odd")
        return number / 2

    receipts = queues.dispatch_many([halve.call(number) for number in range(6)], queue="numbers")
    with queues.worker() as worker:
        worker.drain(30)
    assert [receipt.state.value for receipt in receipts] == ["succeeded", "failed"] * 3
    assert receipts[4].result(timeout=10) == 2
    jobs = queues.jobs(queue="numbers")
    assert sorted(jobs["state"]) == ["failed"] * 3 + ["succeeded"] * 3
    assert len(queues.attempts(state="failed")) == 6
    (failure,) = queues.failures().itertuples()
    assert failure.jobs == 3
    assert queues.stats().set_index("queue").loc["numbers", "failed"] == 3
    wanted = pd.DataFrame({"job_id": [str(receipts[2])], "who": ["ada"]})  # noqa: F841 - the query names it
    found = queues.sql("SELECT who, result FROM wanted JOIN jobs ON jobs.job_id::VARCHAR = wanted.job_id")
    assert found.to_dict("records") == [{"who": "ada", "result": "1.0"}]
    assert queues.plot.throughput() is not None
    feed = Feed(queues)
    shown = {queue["name"]: queue for queue in feed.state.take(now=feed.now)["set"]["queues"]}  # type: ignore[index]
    assert (shown["numbers"]["failed"], shown["numbers"]["paused"]) == (3, False)
    assert queues.retry_all() == 3


def test_a_map_with_a_key_is_taken_up_again(queues: nbq.QueueManager) -> None:
    """Rows that are done stay; a failed one is let run again; results come in order."""
    broken = {3}

    @nbq.job(tries=1)
    def square(number: int) -> int:
        if number in broken:
            raise ValueError("not today")
        return number * number

    with queues.worker():
        batch = queues.map(square, [1, 2, 3], key="squares").wait(30)
        assert batch.progress().failed == 1
        broken.clear()
        assert batch.retry_failed() == 1
        again = queues.map(square, [1, 2, 3, 4], key="squares").wait(30)
    assert again.batch_id == batch.batch_id
    assert list(again.results()) == [1, 4, 9, 16]
    assert len(queues.jobs(command="square")) == 4


def test_at_once_and_by_form(queues: nbq.QueueManager) -> None:
    """``run`` runs here and is recorded; a form dispatches."""

    @nbq.command("greet")
    def greet(who: str = "world") -> str:
        return f"hello {who}"

    assert queues.run(nbq.QueuedCommand("greet").with_args(["ada"])) == "hello ada"
    assert queues.form("greet").submit() is not None
    assert sorted(queues.jobs(command="greet")["state"]) == ["pending", "succeeded"]


def test_children_know_where_their_jobs_come_from(queues: nbq.QueueManager) -> None:
    """A job in a child process dispatches to this queue; nobody reads the password in a list of processes."""

    @nbq.job
    def parent() -> tuple[str, list[str]]:
        import os
        from pathlib import Path

        lines = Path(f"/proc/{os.getpid()}/cmdline").read_text().split("\0")
        return str(nbq.dispatch(nbq.QueuedCommand("later"))), lines

    with queues.worker(executor="process", concurrency=1):
        job_id, command_line = parent.dispatch().result(timeout=60)
    assert queues.job(job_id).command == "later"
    assert not any(PASSWORD in word for word in command_line)


def test_one_queue_is_one_store(postgres_url: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process, however it is written and whoever names it; closed with its last user, apart from other schemas."""
    monkeypatch.setenv("NBQUEUE_URL", postgres_url)
    config = nbq.QueueConfig(driver="postgresql", path=postgres_url)
    first, second = nbq.connect(), nbq.connect(config)
    assert first.store is second.store
    assert (first.created, second.created) == (True, False)
    store = first.store
    with fresh_schema(postgres) as url, nbq.connect(url) as other:
        assert other.store is not store
        other.dispatch(nbq.QueuedCommand("a"))
        assert first.jobs().empty
    first.close()
    assert second.jobs().empty
    second.close()
    with pytest.raises(nbq.QueueUnavailable, match="was closed here"):
        second.jobs()
    with nbq.connect() as again:
        assert again.store is not store
        assert not again.created


def test_no_password_is_shown(queues: nbq.QueueManager, postgres_url: str) -> None:
    """Wherever it is said where the queue is."""
    queues.dispatch(nbq.QueuedCommand("a"))
    with nbq.connect(postgres_url) as again:
        assert terminal.opening(again) == f"{queues.name}: opened, 1 waiting"
        assert again.owner.here
        said = [repr(again), repr(again.config), again.name, repr(again.store), Feed(again).state.get("name")]
    with pytest.raises(nbq.QueueUnavailable) as closed:
        again.jobs()
    with pytest.raises(nbq.JobNotFound) as missing:
        queues.job("0000")
    said += [str(closed.value), str(missing.value)]
    for args in (["jobs"], ["doctor"], ["serve"], ["pause", "nosuch"], ["trust", postgres_url]):
        result = run(*args, url=postgres_url)
        said += [result.stdout, result.stderr]
    assert sum(queues.name in text for text in said) >= 8
    assert not any(PASSWORD in text for text in said)


def run(*args: str, url: str) -> Result:
    return CliRunner(env={"NBQUEUE_URL": url}).invoke(main, args)


def test_who_only_looks_makes_no_queue(postgres_url: str) -> None:
    """A mistyped schema is a sentence from the command line, and what would put work into it makes it."""
    looked = run("jobs", url=postgres_url)
    assert looked.exit_code == 1
    assert looked.stderr.startswith("Error: there is no queue postgresql://")
    assert PASSWORD not in looked.output
    made = run("dispatch", "a", url=postgres_url)
    assert (made.exit_code, ": created\n" in made.stderr) == (0, True)
    assert run("jobs", "--json", url=postgres_url).exit_code == 0


# ------------------------------------------------------------------------- several processes


def test_a_worker_elsewhere(
    queues: nbq.QueueManager, postgres_url: str, elsewhere: Callable[..., subprocess.Popen[str]]
) -> None:
    """``nbqueue work`` runs what was dispatched here; it is seen, cancelled and paused from here; SIGTERM ends it."""
    worker = elsewhere("-m", "nbqueue", "work", "--import", "pg_tasks")
    assert queues.dispatch(nbq.QueuedCommand("add").with_args([1, 2])).result(timeout=60) == 3
    running = queues.dispatch(nbq.QueuedCommand("stubborn"))
    until(lambda: running.state is nbq.State.RUNNING)
    assert (
        "stubborn is running" in str(running.logs())
        or until(lambda: "stubborn" in str(running.logs())) is None
    )
    assert [one.pid for one in queues.workers()] == [worker.pid]
    assert run("cancel", str(running), url=postgres_url).stdout == f"stubborn {running} was asked to stop\n"
    with pytest.raises(nbq.JobCancelled):
        running.result(timeout=30)
    assert run("pause", "default", url=postgres_url).exit_code == 0
    waits = queues.dispatch(nbq.QueuedCommand("add").with_args([3, 4]))
    assert "paused" in waits.why()
    assert (
        "adding 1 2"
        in run(
            "show", str(queues.jobs(command="add", state="succeeded")["job_id"][0]), url=postgres_url
        ).stdout
    )
    assert run("resume", "default", url=postgres_url).exit_code == 0
    assert waits.result(timeout=30) == 7
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_a_kernel_that_dies(
    queues: nbq.QueueManager, tmp_path: Path, elsewhere: Callable[..., subprocess.Popen[str]]
) -> None:
    """What it ran when it was killed is given back, counted as a crash, and runs here."""
    kernel = elsewhere(
        "-c",
        "import nbqueue, pg_tasks\nwith nbqueue.connect().worker(concurrency=1) as worker: worker.wait()",
    )
    job = queues.dispatch(nbq.QueuedCommand("gate").with_args([str(tmp_path / "begun")]))
    until((tmp_path / "begun").exists)
    os.kill(kernel.pid, signal.SIGKILL)
    kernel.wait()

    @nbq.command("gate")
    def gate(path: str) -> str:
        return "after the crash"

    start = time.monotonic()
    with queues.worker(concurrency=1):
        assert job.result(timeout=30) == "after the crash"
    # Its lease of 15 s is not waited for: its process is known to be gone.
    assert time.monotonic() - start < 10
    assert job.record().crashes == 1


# From Python 3.12 on it warns of threads: that is what is tested.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_connects_for_itself(queues: nbq.QueueManager, postgres_url: str) -> None:
    """It shares no connection with its parent: both go on."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            with nbq.connect(postgres_url) as mine:
                mine.dispatch(nbq.QueuedCommand("from:fork"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    queues.dispatch(nbq.QueuedCommand("from:parent"))
    assert sorted(queues.jobs()["command"]) == ["from:fork", "from:parent"]


def test_leaving_does_not_wait_for_a_server_that_is_gone(private_postgres: PostgresServer) -> None:
    """Closing takes about as long as it was given, however patient the store is otherwise."""
    with fresh_schema(private_postgres.url) as url:
        queues = nbq.connect(url)
        queues.worker().start()
        private_postgres.stop(immediate=True)
        start = time.monotonic()
        queues.close(timeout=1)
        assert time.monotonic() - start < 10
        private_postgres.start()


def test_a_terminal_leaves_a_server_that_is_gone(
    private_postgres: PostgresServer, tasks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One SIGTERM ends ``nbqueue work``, with nothing to report and nobody to report it to; no password is said."""
    with fresh_schema(private_postgres.url) as url:
        command = [sys.executable, "-m", "nbqueue", "work", "--import", "pg_tasks"]
        environment = {**os.environ, "NBQUEUE_URL": url}
        worker = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert worker.stdout
            said = ""
            while "Working on" not in said:
                said += worker.stdout.readline()
            private_postgres.stop(immediate=True)
            # It has noticed.
            while "cannot be reached" not in said:
                said += worker.stdout.readline()
            start = time.monotonic()
            worker.send_signal(signal.SIGTERM)
            said += worker.communicate(timeout=60)[0]
            assert time.monotonic() - start < 20
        finally:
            worker.kill()
            worker.wait()
            private_postgres.start()
    assert worker.returncode == 0, said
    assert "Stopped after" in said
    assert PASSWORD not in said


def test_who_waits_does_so_no_longer_than_said(private_postgres: PostgresServer) -> None:
    """With no server a ``timeout`` holds, a text is there soon, and a live view hears again when the server is back."""
    with fresh_schema(private_postgres.url) as url, nbq.connect(url) as queues:
        job = queues.dispatch(nbq.QueuedCommand("nobody"))
        batch = queues.map(nbq.QueuedCommand("nobody"), [1])
        private_postgres.stop(immediate=True)
        start = time.monotonic()
        with pytest.raises(nbq.QueueUnavailable, match="cannot be reached"):
            job.result(timeout=0.2)
        with pytest.raises(nbq.QueueUnavailable, match="cannot be reached"):
            batch.wait(timeout=0.2)
        assert repr(queues) == f"QueueManager({queues.name}: unavailable)"
        heard = threading.Event()
        stop = queues.on_change(heard.set)
        assert time.monotonic() - start < 15
        private_postgres.start()
        queues.dispatch(nbq.QueuedCommand("nobody"))
        assert heard.wait(30)
        stop()


def test_a_server_that_is_restarted(private_postgres: PostgresServer) -> None:
    """Who works and who waits for a result go on; nothing that was acknowledged is lost; a panel says so meanwhile."""
    go = threading.Event()

    @nbq.job
    def hold() -> str:
        assert go.wait(30)
        return "held"

    with fresh_schema(private_postgres.url) as url, nbq.connect(url) as queues, queues.worker():
        before = hold.dispatch()
        until(lambda: before.state is nbq.State.RUNNING)
        private_postgres.restart(immediate=True)
        after = hold.dispatch()
        go.set()
        assert [before.result(timeout=30), after.result(timeout=30)] == ["held", "held"]
        assert list(queues.jobs()["attempt"]) == [1, 1]
