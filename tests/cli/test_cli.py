"""The command line, as people and programs use it: what it prints, where, and with which exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner, Result

import nbqueue as nbq
from nbqueue.cli.commands import main

TASKS = '''
import os
import nbqueue as nbq


@nbq.command("import:data")
def import_data(ctx, *args):
    print("importing", *args)
    return len(args)


@nbq.command("boom")
def boom():
    raise KeyError("x")


@nbq.command("gate")
def gate(path):
    """Says that it runs, then waits for somebody to write into the pipe."""
    os.write(1, b"gate is running\\n")
    with open(path) as pipe:
        return pipe.read()


@nbq.command("stubborn")
def stubborn():
    """Runs until it is told to stop."""
    import threading

    os.write(1, b"stubborn is running\\n")
    while not nbq.current().should_stop():
        threading.Event().wait(0.01)
'''


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own, with a module of handlers in it, and no handlers yet."""
    from nbqueue.handlers.registry import registry

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_owned", {})
    monkeypatch.setattr(registry, "_named", {})
    (tmp_path / "nbq_tasks.py").write_text(TASKS)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("nbq_tasks", None)
    # Whoever asks next must not be given what was known here.
    registry.unregister("")


def run(*args: str, **options: Any) -> Result:
    result = CliRunner().invoke(main, args, **options)
    assert "Traceback" not in result.output or args[0] == "show", result.output
    return result


def ok(*args: str, **options: Any) -> Result:
    result = run(*args, **options)
    assert result.exit_code == 0, result.output
    return result


def dispatched(*args: str) -> str:
    return ok("dispatch", *args).stdout.strip()


# ---------------------------------------------------------------------------------- where the queue is


def test_what_opens_a_queue_says_where(here: Path) -> None:
    """The absolute path and whether it was made stand on stderr; stdout has the id alone."""
    path = here / "nbqueue.duckdb"
    first = ok("dispatch", "import:data", "users.csv")
    assert f"{path}: created" in first.stderr
    assert len(first.stdout.strip()) == 36
    second = ok("stats")
    assert f"{path}: opened, 1 waiting" in second.stderr


@pytest.mark.parametrize("command", [["jobs"], ["show", "abcd"], ["why", "abcd"], ["stats"], ["pause", "x"]])
def test_looking_makes_no_file(here: Path, command: list[str]) -> None:
    """A command that only looks refuses to make a file, naming it."""
    result = run(*command, "--db", "missing.duckdb")
    assert result.exit_code == 1
    assert f"there is no queue file {here / 'missing.duckdb'}" in result.stderr
    assert not list(here.glob("missing*"))


def test_url_of_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$NBQUEUE_URL names the queue, --db wins over it."""
    monkeypatch.setenv("NBQUEUE_URL", "env.duckdb")
    assert "env.duckdb: created" in ok("dispatch", "a").stderr
    assert "option.duckdb: created" in ok("dispatch", "a", "--db", "option.duckdb").stderr


# --------------------------------------------------------------------------------- dispatch and look


def test_dispatch_takes_every_option(here: Path) -> None:
    """Arguments after -- go to the job as they are, options arrive as they were meant."""
    job = dispatched(
        *(
            "import:data",
            "users.csv",
            "--queue",
            "imports",
            "--delay",
            "1h30m",
            "--priority",
            "5",
            "--tries",
            "4",
        ),
        *("--timeout", "10m", "--metadata", "user_id=7", "--metadata", "kind=pdf", "--", "--force", "-5"),
    )
    with nbq.connect(here / "nbqueue.duckdb") as queues:
        record = queues.job(job).record()
        assert json.loads(record.payload)["args"] == ["users.csv", "--force", "-5"]
        assert json.loads(record.metadata) == {"user_id": 7, "kind": "pdf"}
        assert (record.spec.queue, record.spec.priority, record.spec.timeout) == ("imports", 5, 600.0)
        assert record.max_attempts == 4
        assert 5390 < record.scheduled_at - record.dispatched_at < 5410


def test_dispatch_at(here: Path) -> None:
    """--at is local time unless it names a zone."""
    job = dispatched("report", "--at", "2100-03-01T06:00:00+00:00")
    with nbq.connect(here / "nbqueue.duckdb") as queues:
        at = queues.job(job).scheduled_at
        assert at is not None
        assert at.isoformat() == "2100-03-01T06:00:00+00:00"


def test_jobs_for_people_and_programs(here: Path) -> None:
    """A table, JSON and CSV show the same jobs; filters narrow them."""
    first = dispatched("import:data", "a.csv")
    second = dispatched("boom", "--queue", "urgent")
    table = ok("jobs").stdout
    assert table.splitlines()[0].split() == [
        "id",
        "command",
        "queue",
        "state",
        "attempt",
        "age",
        "seconds",
        "error",
    ]
    assert [line.split()[0] for line in table.splitlines()[1:]] == [second, first]
    rows = json.loads(ok("jobs", "--json").stdout)
    assert [(row["job_id"], row["state"], row["error"]) for row in rows] == [
        (second, "pending", None),
        (first, "pending", None),
    ]
    assert [row["command"] for row in csv.DictReader(io.StringIO(ok("jobs", "--csv").stdout))] == [
        "boom",
        "import:data",
    ]
    assert [row["job_id"] for row in json.loads(ok("jobs", "--queue", "urgent", "--json").stdout)] == [second]
    assert [row["job_id"] for row in json.loads(ok("jobs", "--limit", "1", "--json").stdout)] == [second]
    assert "No job fits." in ok("jobs", "--state", "failed,cancelled").stderr


def test_a_table_has_the_newest(here: Path) -> None:
    """Twenty jobs are shown unless told otherwise, and it says that there are more."""
    with nbq.connect(here / "nbqueue.duckdb") as queues:
        queues.dispatch_many([nbq.QueuedCommand("a")] * 25)
    result = ok("jobs")
    assert len(result.stdout.splitlines()) == 21
    assert "--limit N shows more" in result.stderr
    assert len(ok("jobs", "--limit", "30").stdout.splitlines()) == 26


def test_short_ids_tell_jobs_apart(here: Path) -> None:
    """A table in a terminal shows as much of each id as show, why and retry need."""
    from nbqueue.cli import terminal

    with nbq.connect(here / "nbqueue.duckdb") as queues:
        queues.dispatch_many([nbq.QueuedCommand("a")] * 300)
        ids = queues.jobs()["job_id"].astype(str).tolist()
        length = terminal._telling_length(queues, ids)
        assert 13 < length < 36
        assert len({one[:length] for one in ids}) == 300
        assert str(queues.job(ids[7][:length])) == ids[7]


def test_work_then_show(here: Path) -> None:
    """A worker runs what its modules define, a line for each attempt; show has all of it."""
    done = dispatched("import:data", "a.csv", "--metadata", "user_id=7")
    failed = dispatched("boom")
    result = ok("work", "--import", "nbq_tasks", "--stop-when-empty")
    assert "Handlers: boom, gate, import:data, stubborn (imported: nbq_tasks)" in result.stderr
    lines = {line.split()[2]: line for line in result.stdout.splitlines()}
    assert "succeeded" in lines["import:data"]
    assert lines["boom"].endswith("attempt 1 of 1: KeyError: 'x'")
    assert "1 failed, 1 succeeded, 0 waiting." in result.stderr
    shown = ok("show", done).stdout
    for fact in ('arguments   "a.csv"', "metadata    user_id=7", "result      1", "attempt     1 of 1"):
        assert fact in shown
    assert "Output of attempt 1:\nimporting a.csv" in shown
    shown = ok("show", failed[:18]).stdout
    assert "Traceback of attempt 1:" in shown
    assert 'raise KeyError("x")' in shown
    assert "retry it to give it fresh ones" in ok("why", failed).stdout


def test_import_of_a_file(here: Path) -> None:
    """--import takes a .py file too."""
    folder = here / "deep"
    folder.mkdir()
    (folder / "nbq_deep.py").write_text(TASKS)
    dispatched("import:data")
    try:
        result = ok("work", "--import", "deep/nbq_deep.py", "--once")
    finally:
        sys.modules.pop("nbq_deep", None)
    assert "1 succeeded" in result.stderr


def test_no_handlers_at_all(here: Path) -> None:
    """A worker that can run nothing says so, and what waits for it, and where."""
    dispatched("import:data")
    dispatched("a", "--queue", "elsewhere")
    result = ok("work", "--queue", "default,later", "--stop-when-empty")
    assert "No handlers (no --import was given)" in result.stderr
    assert "Waiting without a handler here: import:data (1)" in result.stderr
    assert "does not serve: elsewhere (1)" in result.stderr
    assert "Not there yet, until somebody dispatches to it: later" in result.stderr


def test_queues_of_a_worker(here: Path) -> None:
    """The default queue unless told otherwise, '*' is every queue."""
    dispatched("import:data", "--queue", "a")
    dispatched("import:data", "--queue", "b")
    assert "no job ended" in ok("work", "--import", "nbq_tasks", "--stop-when-empty").stderr
    assert "1 succeeded" in ok("work", "--queue", "b", "--import", "nbq_tasks", "--stop-when-empty").stderr
    assert "1 succeeded" in ok("work", "--queue", "*", "--import", "nbq_tasks", "--stop-when-empty").stderr


@pytest.mark.parametrize(("limit", "left"), [(["--once"], 2), (["--max-jobs", "2"], 1)])
def test_limits_of_a_worker(here: Path, limit: list[str], left: int) -> None:
    """--once runs one job, --max-jobs so many."""
    for _ in range(3):
        dispatched("import:data")
    assert f"{left} waiting." in ok("work", "--import", "nbq_tasks", *limit).stderr


def test_worker_stops_after_max_time(here: Path) -> None:
    """--max-time ends a worker with nothing to do."""
    assert "no job ended" in ok("work", "--import", "nbq_tasks", "--max-time", "0.1").stderr


def test_tries_of_a_worker(here: Path) -> None:
    """--tries is for jobs that name none."""
    dispatched("boom")
    ok("work", "--import", "nbq_tasks", "--tries", "2", "--stop-when-empty")
    (row,) = json.loads(ok("jobs", "--json").stdout)
    assert (row["status"], row["attempt"], row["max_attempts"]) == ("retrying", 1, 2)


# ------------------------------------------------------------------------------------------- controls


def test_cancel_and_retry(here: Path) -> None:
    """What is done to each job is said; several ids may be given."""
    first, second = dispatched("a"), dispatched("b")
    assert ok("cancel", first, second).stdout == f"a {first} is cancelled\nb {second} is cancelled\n"
    assert "had been cancelled already" in ok("cancel", first).stdout
    assert f"a {first} may run again" in ok("retry", first).stdout
    again = run("retry", first)
    assert again.exit_code == 1
    assert "cannot be retried" in again.stderr


def test_prune_asks(here: Path) -> None:
    """Nothing is removed before somebody says yes; --yes says it."""
    ok("cancel", dispatched("a"))
    refused = run("prune", "--older-than", "0", input="n\n")
    assert refused.exit_code == 1
    assert "Remove jobs that ended more than 0s ago?" in refused.stderr
    assert "0 jobs removed" in ok("prune", "--older-than", "0", "--keep", "cancelled", "--yes").stdout
    assert "0 jobs removed" in ok("prune", "--older-than", "7d", "--yes").stdout
    assert "1 job removed" in ok("prune", "--older-than", "0", "--yes").stdout


def test_prune_by_number(here: Path) -> None:
    """A number says how many stay; it needs no age, and does not go with states."""
    for name in "abc":
        ok("cancel", dispatched(name))
    refused = run("prune", "--keep", "2000", input="n\n")
    assert "Remove all but the latest 2,000 that ended?" in refused.stderr
    both = run("prune", "--keep", "2000", "--older-than", "7d", input="n\n")
    question = "Remove jobs that ended more than 7d ago, and all but the latest 2,000 that ended?"
    assert question in both.stderr
    assert "2 jobs removed" in ok("prune", "--keep", "1", "--yes").stdout
    for wrong, why in (
        (("--keep", "1,failed"), "not both"),
        ((), "say which"),
        (("--keep", "failed"), "say which"),
    ):
        assert why in run("prune", "--yes", *wrong).stderr


def test_pause_and_resume(here: Path) -> None:
    """A paused queue hands out nothing, is shown as such, and why says so."""
    job = dispatched("import:data", "--queue", "emails")
    ok("pause", "emails")
    assert "paused" in ok("stats").stdout
    assert "no job ended" in ok("work", "--queue", "*", "--import", "nbq_tasks", "--stop-when-empty").stderr
    assert "is paused" in ok("why", job).stdout
    ok("resume", "emails")
    assert "1 succeeded" in ok("work", "--queue", "*", "--import", "nbq_tasks", "--stop-when-empty").stderr


def test_stats(here: Path) -> None:
    """A row a queue, a column a state."""
    dispatched("a", "--delay", "1h")
    heading, row = ok("stats").stdout.splitlines()
    assert heading.split() == ["queue", "pending", "later", "running", "succeeded", "failed", "cancelled"]
    assert row.split() == ["default", "1", "1", "0", "0", "0", "0"]


# -------------------------------------------------------------------------------------------- refusals

REFUSED = {
    "empty name": (["dispatch", ""], "command is empty; give it a name"),
    "no tries": (["dispatch", "a", "--tries", "0"], "tries cannot be 0; give 1"),
    "negative delay": (["dispatch", "a", "--delay", "-5"], "delay cannot be -5 s; give 0 s or more"),
    "negative timeout": (["dispatch", "a", "--timeout", "-1"], "timeout cannot be -1 s"),
    "zero timeout": (["dispatch", "a", "--timeout", "0"], "timeout cannot be 0 s"),
    "delay in words": (["dispatch", "a", "--delay", "soon"], "delay 'soon' is no duration; write seconds or"),
    "priority": (["dispatch", "a", "--priority", "101"], "priority 101 is out of range; give -100 to 100"),
    "queue of a list": (["dispatch", "a", "--queue", "x,y"], "queue 'x,y' must not contain"),
    "date in words": (
        ["dispatch", "a", "--at", "tomorrow"],
        "at 'tomorrow' is neither a duration nor a date",
    ),
    "missing folder": (["dispatch", "a", "--db", "no/jobs.duckdb"], "does not exist; make it"),
    "another database": (
        ["dispatch", "a", "--db", "mysql://eu/jobs"],
        '"mysql://" is no queue',
    ),
    "no such module": (
        ["work", "--import", "nbq_missing"],
        "--import nbq_missing: there is no module nbq_missing in",
    ),
    "no such file": (["work", "--import", "missing.py"], "--import missing.py: there is no such file in"),
    "other executor": (
        ["work", "--executor", "dask://here"],
        "is no address of a Dask scheduler; write dask://HOST:PORT",
    ),
    "no slots": (["work", "--concurrency", "0"], "concurrency cannot be 0"),
}


@pytest.mark.parametrize(("args", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(here: Path, args: list[str], sentence: str) -> None:
    """What cannot be is refused in one sentence that names it, with exit code 1; a bad job makes no file."""
    result = run(*args)
    assert result.exit_code == 1
    assert [line for line in result.stderr.splitlines() if line.startswith("Error: ")] == [
        result.stderr.splitlines()[-1]
    ]
    assert sentence in result.stderr
    assert result.stdout == ""
    if args[0] == "dispatch":
        assert not (here / "nbqueue.duckdb").exists()


UNKNOWN = {
    "unknown queue": (["pause", "emials"], 'queue "emials" does not exist; did you mean "emails"?'),
    "unknown queue of jobs": (
        ["jobs", "--queue", "emials"],
        'queue "emials" does not exist; did you mean "emails"?',
    ),
    "unknown state": (["jobs", "--state", "faild"], "there is no state 'faild'; did you mean \"failed\"?"),
    "unknown job": (["show", "00000000-0000-0000-0000-000000000000"], "there is no job 00000000-0000"),
    "unknown prefix": (["why", "abcdef"], "has an id that begins with 'abcdef'"),
    "no id": (["cancel", "users.csv"], "'users.csv' is no job id"),
    "since in words": (
        ["jobs", "--since", "yesterday"],
        "since 'yesterday' is neither a duration nor a date",
    ),
    "negative limit": (["jobs", "--limit", "-1"], "limit must be a whole number"),
    "huge limit": (["jobs", "--limit", "9" * 20], "limit is 1,000,000,000,000 at most; leave it out"),
}


@pytest.mark.parametrize(("args", "sentence"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_unknown(here: Path, args: list[str], sentence: str) -> None:
    """What is not there is named, with near matches."""
    dispatched("a", "--queue", "emails")
    result = run(*args)
    assert result.exit_code == 1
    assert sentence in result.stderr.splitlines()[-1]


USAGE = {
    "unknown option": (["dispatch", "a", "--force"], "put it after --, as in: -- --force"),
    "metadata": (["dispatch", "a", "--metadata", "x"], "--metadata takes KEY=VALUE"),
    "two times": (["dispatch", "a", "--delay", "5", "--at", "5m"], "--delay and --at both say when"),
    "no id": (["show"], "Missing argument 'ID'"),
    "unknown command": (["dispach"], "No such command 'dispach'"),
}


@pytest.mark.parametrize(("args", "sentence"), USAGE.values(), ids=USAGE)
def test_usage_errors(here: Path, args: list[str], sentence: str) -> None:
    """What was written wrongly has exit code 2."""
    result = run(*args)
    assert result.exit_code == 2
    assert sentence in result.stderr


@pytest.mark.parametrize(
    ("content", "sentence"), [("hello, this is text", "is not a DuckDB database"), ("", "is empty")]
)
def test_a_file_that_is_no_queue(here: Path, content: str, sentence: str) -> None:
    """A file that is something else is left as it is."""
    path = here / "notes.txt"
    path.write_text(content)
    result = run("dispatch", "a", "--db", "notes.txt")
    assert result.exit_code == 1
    assert f"{path} {sentence}" in result.stderr
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("x = 1\nraise ValueError('bad')", "nbq_bad.py, line 2: ValueError: bad"),
        ("import nbq_missing", "nbq_bad.py, line 1: ModuleNotFoundError: No module named 'nbq_missing'"),
        ("def (", "nbq_bad.py, line 1: SyntaxError"),
        ("import nbqueue as nbq\n@nbq.job(tries=0)\ndef f(): ...", "nbq_bad.py, line 2: tries cannot be 0"),
    ],
)
def test_a_module_that_fails(here: Path, source: str, sentence: str) -> None:
    """A module that fails is named with the line, and no queue is opened for it."""
    (here / "nbq_bad.py").write_text(source)
    result = run("work", "--import", "nbq_bad")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert not (here / "nbqueue.duckdb").exists()


@pytest.mark.parametrize("command", [None, *main.commands])
def test_help(command: str | None) -> None:
    """Every command says what it does, with an example that is not rewrapped."""
    text = ok(*([command] if command else []), "--help").stdout
    assert "\n  For example:\n    nbqueue " in text
    assert "\b" not in text


def test_version() -> None:
    """--version says it."""
    assert ok("--version").stdout == f"nbqueue, version {nbq.__version__}\n"


# --------------------------------------------------------------------------------------- real processes


class Shell:
    """A real ``nbqueue`` process, whose output is waited for line by line."""

    def __init__(self, *args: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nbqueue", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(nbq.__file__).parent.parent)},
        )
        self.seen = ""

    def until(self, part: str) -> str:
        output: IO[str] = self.process.stdout  # type: ignore[assignment]
        for line in output:
            self.seen += line
            if part in line:
                return line
        raise AssertionError(f"it ended without saying {part!r}:\n{self.seen}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        rest, _ = self.process.communicate(timeout=60)
        self.seen += rest
        return self.process.returncode


@pytest.fixture
def shell() -> Iterator[Callable[..., Shell]]:
    started: list[Shell] = []

    def start(*args: str) -> Shell:
        started.append(Shell(*args))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_signal_finishes_what_runs(
    here: Path, shell: Callable[..., Shell], number: signal.Signals, name: str
) -> None:
    """A job that runs when the signal comes is finished, nothing more is begun, and the exit code is 0."""
    os.mkfifo("pipe")
    dispatched("gate", "pipe")
    dispatched("import:data")
    worker = shell("work", "--import", "nbq_tasks", "--concurrency", "1")
    worker.until("gate is running")
    worker.signal(number)
    worker.until(f"{name}: takes no more jobs, finishing 1")
    (here / "pipe").write_text("go on")
    assert worker.end() == 0, worker.seen
    assert "gate  succeeded" in worker.seen
    assert "1 succeeded, 1 waiting." in worker.seen
    with nbq.connect(here / "nbqueue.duckdb") as queues:
        assert queues.jobs()["state"].tolist() == ["pending", "succeeded"]


def test_a_signal_is_about_its_own_jobs(here: Path, shell: Callable[..., Shell]) -> None:
    """What another worker runs is not said to be finished, and not waited for."""
    os.mkfifo("pipe")
    dispatched("gate", "pipe")
    busy = shell("work", "--import", "nbq_tasks")
    busy.until("gate is running")
    idle = shell("work", "--import", "nbq_tasks")
    idle.until("Working on")
    idle.signal(signal.SIGTERM)
    idle.until("SIGTERM: takes no more jobs, stopping")
    assert idle.end() == 0, idle.seen
    busy.signal(signal.SIGTERM)
    busy.until("SIGTERM: takes no more jobs, finishing 1")
    (here / "pipe").write_text("go on")
    assert busy.end() == 0, busy.seen


def test_second_signal_gives_back(here: Path, shell: Callable[..., Shell]) -> None:
    """A second signal gives what runs back to its queue, with its attempt not counted; the exit code is 0."""
    dispatched("stubborn")
    worker = shell("work", "--import", "nbq_tasks")
    worker.until("stubborn is running")
    worker.signal(signal.SIGTERM)
    worker.until("finishing 1")
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0, worker.seen
    assert "again: gives back what runs" in worker.seen
    assert "no job ended, 1 waiting." in worker.seen
    with nbq.connect(here / "nbqueue.duckdb") as queues:
        assert queues.interrupted == []
        (row,) = queues.jobs().to_dict("records")
        assert (row["state"], row["attempt"], row["crashes"]) == ("pending", 0, 0)


def test_signal_when_idle(here: Path, shell: Callable[..., Shell]) -> None:
    """A worker with nothing to do stops at once."""
    worker = shell("work", "--import", "nbq_tasks")
    worker.until("Working on default, 4 jobs at a time.")
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0
    assert "no job ended, 0 waiting." in worker.seen


def test_crash_is_told_by_the_next(here: Path, shell: Callable[..., Shell]) -> None:
    """What a killed worker was running is named by whoever opens the file next."""
    job = dispatched("stubborn")
    worker = shell("work", "--import", "nbq_tasks")
    worker.until("stubborn is running")
    worker.signal(signal.SIGKILL)
    assert worker.end() == -signal.SIGKILL
    assert f"Interrupted: stubborn {job}" in ok("stats").stderr


def test_two_processes(here: Path, shell: Callable[..., Shell]) -> None:
    """While another process has the file, a command works all the same, or names that process."""
    worker = shell("work", "--import", "nbq_tasks")
    worker.until("Working on")
    result = run("stats")
    if result.exit_code:
        assert f"held by process {worker.process.pid}" in result.stderr
        assert "close it there" in result.stderr
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0
