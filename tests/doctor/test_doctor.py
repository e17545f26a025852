"""Doctor: every wrong set-up is made for real, and is said in its sentence; what is right is not called wrong."""

from __future__ import annotations

import ast
import fcntl
import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from click.testing import CliRunner

import nbqueue as nbq
from nbqueue.cli.commands import main
from nbqueue.facade import checkup as checkup_module
from nbqueue.facade.checks import beside, host, postgres, sqs, within
from nbqueue.facade.checks.beside import LARGE, place
from nbqueue.facade.checks.finding import Finding
from nbqueue.facade.checkup import checkup
from nbqueue.store import ReportKind
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.testing import FakeClock, FakeWorker, new_job
from tests.halting import halt


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue is, in a folder of its own."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "jobs.duckdb"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A secret of the test's own, and sockets, whose paths must be short: the file it is in."""
    with tempfile.TemporaryDirectory(prefix="nbq-") as folder:
        monkeypatch.setenv("NBQUEUE_DATA_DIR", folder)
        yield Path(folder) / "secret"


@pytest.fixture
def left(path: Path) -> Path:
    """A queue file in order, with two jobs that wait, which nobody has."""
    with nbq.connect(path) as queues:
        queues.dispatch_many([nbq.QueuedCommand("import:data"), nbq.QueuedCommand("report:make")])
    return path


def said(found: list[Finding] | pd.DataFrame, what: str) -> list[tuple[bool | None, str]]:
    """What was found of one thing."""
    rows = found.itertuples(index=False) if isinstance(found, pd.DataFrame) else found
    return [
        (None if row.ok is pd.NA or row.ok is None else bool(row.ok), row.sentence)
        for row in rows
        if row.what == what
    ]


def wrongs(found: list[Finding]) -> list[str]:
    """The sentences of what is wrong."""
    return [finding.sentence for finding in found if finding.ok is False]


def files(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


class Elsewhere:
    """A process that runs a few lines and then waits to be killed."""

    def __init__(self, code: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{code}\nprint('there', flush=True)\nimport time\ntime.sleep(600)"],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"there\n"
        self.pid = self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], Elsewhere]]:
    """Starts processes, and ends them."""
    started: list[Elsewhere] = []

    def start(code: str) -> Elsewhere:
        started.append(Elsewhere(code))
        return started[-1]

    yield start
    for one in started:
        one.kill()


# ------------------------------------------------------------------------- nothing is changed


def test_a_file_that_is_not_there_is_not_made(path: Path, secret: Path) -> None:
    """It is said that there is none, nothing is wrong with that, and neither file nor secret is made."""
    found = checkup(path)
    assert wrongs(found) == []
    assert said(found, "file") == [
        (None, f"there is no queue file {path} yet; the first dispatch or worker makes it")
    ]
    assert said(found, "secret")[0][0] is None
    assert str(secret) in said(found, "secret")[0][1]
    assert list(path.parent.iterdir()) == []
    assert not secret.exists()


def test_a_file_that_nobody_has_is_left_as_it_was(path: Path, elsewhere: Callable[[str], Elsewhere]) -> None:
    """After a kill its log, lock and slot files stay byte by byte, and it is said what will become of the jobs."""
    one = elsewhere(
        "import threading, nbqueue as nbq\n"
        "begun = threading.Event()\n"
        "@nbq.command('long')\n"
        "def long():\n    begun.set()\n    threading.Event().wait()\n"
        f"queues = nbq.connect({str(path)!r})\n"
        "queues.dispatch_many([nbq.QueuedCommand('long')] * 3)\n"
        "queues.worker(concurrency=1).start()\n"
        "assert begun.wait(30)"
    )
    one.kill()
    before = files(path.parent)
    assert {Path(name).suffix for name in before} >= {".duckdb", ".wal", ".lock", ".slots"}
    found = checkup(path)
    assert files(path.parent) == before
    assert wrongs(found) == []
    sentences = " ".join(sentence for _, sentence in said(found, "jobs"))
    assert "1 job ran when the file was last left" in sentences
    assert "2 jobs wait and nobody works on the file: long (2)" in sentences
    ((ok, gone),) = said(found, "workers")
    assert (ok, "1 worker went without a word" in gone, str(one.pid) in gone) == (None, True, True)
    with nbq.connect(path) as queues:
        assert said(queues.doctor(), "crashes") == [
            (None, "the worker of 1 job of long died while it ran; after three deaths it is failed")
        ]


def test_what_is_in_order_is_called_so(left: Path) -> None:
    """Of a file in order nothing is wrong, and the versions are named."""
    found = checkup(left)
    assert wrongs(found) == []
    ((_, versions),) = said(found, "versions")
    assert f"DuckDB {duckdb.__version__}" in versions
    assert said(found, "lock") == [
        (True, f"locks can be trusted in {left.parent}, and nobody has the file now")
    ]
    assert [ok for ok, _ in said(found, "clock")] == [True]


# ------------------------------------------------------------------------- the file and its place


def test_a_file_that_is_none_of_ours(path: Path) -> None:
    """A text, and a database with tables of its own, are told from a queue."""
    path.write_text("name,age\nada,36\n")
    assert "is not a DuckDB database" in wrongs(checkup(path))[0]
    path.unlink()
    with duckdb.connect(str(path)) as other:
        other.execute("CREATE TABLE prices (price DOUBLE)")
    before = files(path.parent)
    assert "without a queue in it" in wrongs(checkup(path))[0]
    assert files(path.parent) == before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The folder is named."""
    assert (
        f"the folder {tmp_path / 'no'} does not exist" in wrongs(checkup(tmp_path / "no" / "jobs.duckdb"))[0]
    )


def test_a_log_without_its_file(path: Path) -> None:
    """A file that was deleted without its log is asked for."""
    path.with_name("jobs.duckdb.wal").write_bytes(b"x")
    assert "its log jobs.duckdb.wal is there" in wrongs(checkup(path))[0]


def test_a_newer_file(left: Path) -> None:
    """A file of a newer nbqueue is not read on."""
    with duckdb.connect(str(left)) as other:
        other.execute("UPDATE meta SET value = 99 WHERE name = 'schema'")
    assert "written by a newer nbqueue (schema 99" in wrongs(checkup(left))[0]


def test_a_file_on_a_network(path: Path, tmp_path: Path) -> None:
    """The kind of file system is that of the innermost mount."""
    mounts = tmp_path / "mountinfo"
    inner = str(path.parent).replace(" ", "\\040")
    mounts.write_text(
        f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {inner} rw shared:3 - nfs4 server:/export rw\n"
    )
    assert f"{path.parent} is on nfs4" in wrongs(list(place(path, held=False, mounts=mounts)))[0]
    mounts.write_text(f"1 0 0:1 / / rw - nfs4 server:/export rw\n2 1 0:2 / {inner} rw - ext4 /dev/a rw\n")
    assert wrongs(list(place(path, held=False, mounts=mounts))) == []


def test_a_folder_that_is_synchronised(tmp_path: Path) -> None:
    """A folder that another program copies is named."""
    (tmp_path / "Dropbox").mkdir()
    assert "synchronised (Dropbox)" in wrongs(checkup(tmp_path / "Dropbox" / "jobs.duckdb"))[0]


def test_locks_that_mean_nothing(left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everybody gets every lock, that is said."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert f"locks in {left.parent} mean nothing" in wrongs(checkup(left))[0]


def test_a_file_that_a_stranger_has(left: Path, elsewhere: Callable[[str], Elsewhere]) -> None:
    """A program that opened it with DuckDB, without asking for the lock, is named by its process."""
    stranger = elsewhere(f"import duckdb\nother = duckdb.connect({str(left)!r})")
    (sentence,) = wrongs(checkup(left))
    assert f"{left} is open in" in sentence
    assert f"PID {stranger.pid}" in sentence


# ------------------------------------------------------------------------- secret, versions, room


def test_secrets_that_cannot_be_trusted(left: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that others can read, one in a folder that others can write to, a short one, and a damaged one."""
    secret.parent.mkdir(mode=0o700, exist_ok=True)
    secret.write_bytes(bytes(32))
    secret.chmod(0o644)
    assert "is open to other users (mode 644)" in wrongs(checkup(left))[0]
    secret.chmod(0o600)
    assert "yours alone" in said(checkup(left), "secret")[0][1]
    assert "mode 600" in said(checkup(left), "secret")[0][1]
    secret.parent.chmod(0o777)
    assert f"others may write to {secret.parent}" in wrongs(checkup(left))[0]
    secret.parent.chmod(0o700)
    secret.write_bytes(b"short")
    assert "is damaged" in wrongs(checkup(left))[0]
    monkeypatch.setenv("NBQUEUE_SECRET", "abc")
    assert "NBQUEUE_SECRET has 3 characters" in wrongs(checkup(left))[0]
    monkeypatch.setenv("NBQUEUE_SECRET", "a long one, of a team of two")
    assert said(checkup(left), "secret")[0] == (
        True,
        "it comes from NBQUEUE_SECRET; everybody with the same one trusts your jobs",
    )


def test_versions_that_are_too_old(left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed in an older version than nbqueue needs is named with both."""
    for name, version in (("click", "7.0"), ("ipykernel", "5.1")):
        folder = tmp_path / "old" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "old"))
    (sentence,) = wrongs(checkup(left))
    assert "click is 7.0, and nbqueue needs click>=8.1" in sentence
    assert "ipykernel is 5.1, and nbqueue needs ipykernel>=6.29" in sentence


def test_an_event_loop_that_loses_messages() -> None:
    """nest_asyncio in a kernel of ipykernel 7 is asked to be taken out."""
    code = (
        "import ipykernel.kernelapp, nest_asyncio\nfrom nbqueue.facade.checks.host import host\n"
        "before = [found.ok for found in host() if found.what == 'event loop']\nnest_asyncio.apply()\n"
        "print(before, *(found.sentence for found in host() if found.ok is False))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] nest_asyncio.apply() was called in this kernel, and on ipykernel 7")


def test_a_process_that_may_write_little(left: Path) -> None:
    """A limit on the size of files that the queue will meet is named."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50 << 20, before[1]))
    try:
        found = checkup(left)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "no file of more than 50.0 MB (ulimit -f)" in wrongs(found)[0]


def test_a_large_file_that_is_never_pruned(path: Path) -> None:
    """From a gigabyte on, it is said that there is such a thing as retention."""
    with nbq.connect(path) as queues:
        queues.cancel(queues.dispatch(nbq.QueuedCommand("a")))
    assert "kept until somebody prunes them" in said(checkup(path), "retention")[0][1]
    # Sparse: it takes no room.
    os.truncate(path, LARGE)
    ((ok, sentence),) = said(checkup(path), "retention")
    assert ok is None
    assert "nbqueue prune --older-than" in sentence


# ------------------------------------------------------------------------- clock


def test_events_from_the_future(path: Path) -> None:
    """A clock that was set back since the last event is wrong; one that was, and has caught up, is noted."""
    ahead = 3_600.0
    with nbq.QueueManager(store=DuckDBStore(path, clock=lambda: time.time() + ahead)) as queues:
        queues.dispatch(nbq.QueuedCommand("a"))
        assert "the newest event is 60 min ahead" in wrongs(checkup_of(queues, path))[0]
        ahead = 0.0
        queues.dispatch(nbq.QueuedCommand("a"))
    later = checkup(path, clock=lambda: time.time() + 7_200.0)
    ((ok, sentence),) = said(later, "clock")
    assert (ok, "was set back by 60 min" in sentence) == (None, True)


@pytest.mark.parametrize(
    ("step", "said_so"), [(125.0, "ahead by 2 min, or the machine slept,"), (-7_300.0, "back by 2 h")]
)
def test_a_clock_that_is_set_meanwhile(path: Path, step: float, said_so: str) -> None:
    """An open queue notices that the clock and one that cannot be set went apart."""
    stepped = 0.0
    with nbq.QueueManager(path, clock=lambda: time.time() + stepped) as queues:
        assert said(queues.doctor(), "clock") == []
        stepped = step
        ((ok, sentence),) = said(queues.doctor(), "clock")
    assert ok is None
    assert sentence.startswith(f"the clock was set {said_so} since")


def checkup_of(queues: nbq.QueueManager, path: Path) -> list[Finding]:
    """What an open queue says of its clock."""
    return [finding for finding in queues.findings() if finding.what == "clock"]


# ------------------------------------------------------------------------- jobs, handlers, workers, queues


def test_jobs_that_nobody_here_can_run(path: Path) -> None:
    """Commands without a handler are named; those that wait for a paused queue are not, but the queue is."""

    @nbq.command("doctor:known")
    def known() -> None: ...

    with nbq.connect(path) as queues:
        queues.dispatch_many([nbq.QueuedCommand("doctor:known"), nbq.QueuedCommand("doctor:unknown")])
        frame = queues.doctor()
        assert said(frame, "workers")[0][1].startswith("2 jobs wait and there is no worker: doctor:known (1)")
        with queues.worker() as worker:
            queues.queue("default").pause()
            queues.dispatch(nbq.QueuedCommand("doctor:unknown").on_queue("emails"))
            worker.wait(0)
            frame = queues.doctor()
    ((ok, sentence),) = said(frame, "handlers")
    assert ok is False
    assert sentence.startswith('1 job of doctor:unknown on queue emails: no handler for "doctor:unknown"')
    ((ok, sentence),) = said(frame, "queues")
    assert ok is None
    assert sentence.startswith("queue default is paused, and ")
    ((ok, sentence),) = said(frame, "lock")
    assert f"process {os.getpid()}" in sentence


def test_jobs_of_another_secret(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that are held since their signature is another's are named, with the reason."""

    @nbq.command("doctor:signed")
    def signed(what: object) -> None: ...

    monkeypatch.setenv("NBQUEUE_SECRET", "the secret of one team, long enough")
    with nbq.connect(path) as queues:
        queues.dispatch(nbq.QueuedCommand("doctor:signed").with_arg(object()))
    monkeypatch.setenv("NBQUEUE_SECRET", "the secret of another team, as long")
    with nbq.connect(path) as queues, queues.worker():
        changed = threading.Event()
        queues.on_change(changed.set)
        while queues.jobs()["status"].iloc[0] != "held":
            assert changed.wait(20)
            changed.clear()
        found = queues.doctor()
    ((ok, sentence),) = said(found, "trust")
    assert ok is False
    assert sentence.startswith("1 job of doctor:signed on queue default held: ")
    assert "was not signed by this user" in sentence


def test_a_job_that_no_worker_brings_to_its_end(path: Path) -> None:
    """One that takes longer than its workers stay is named; what was claimed ahead and given back is not."""
    clock = FakeClock()
    store = DuckDBStore(path, clock=clock.time, ticks=clock.ticks)
    with nbq.QueueManager(store=store, clock=clock.time) as queues:
        long, ahead = new_job(clock, command="doctor:long"), new_job(clock, command="doctor:ahead")
        store.insert([long, ahead])
        for number in range(3):
            worker = FakeWorker(store, f"w{number}", lease=1_000.0)
            mine, other = worker.take(2)
            worker.say(other, ReportKind.RELEASED)
            clock.advance(600.0)
            worker.say(mine, ReportKind.RELEASED)
            worker.leave()
        FakeWorker(store, "w")
        (sentence,) = [sentence for ok, sentence in said(queues.doctor(), "workers") if ok is False]
    assert sentence.startswith(
        f"job {long.job_id} (doctor:long) was claimed 3 times, for up to 10 min, and given back each time"
    )


def test_a_worker_that_ends_nothing(path: Path) -> None:
    """One that has begun jobs long ago and ended none is named."""
    begun, go_on = threading.Event(), threading.Event()

    @nbq.job
    def long() -> None:
        begun.set()
        go_on.wait(30)

    now = 0.0
    with (
        nbq.QueueManager(store=DuckDBStore(path), clock=lambda: time.time() + now) as queues,
        queues.worker(concurrency=1) as worker,
    ):
        long.dispatch()
        assert begun.wait(10)
        assert [ok for ok, _ in said(queues.doctor(), "workers")] == [True]
        now = 3_000.0
        notes = [sentence for ok, sentence in said(queues.doctor(), "workers") if ok is None]
        go_on.set()
    assert notes == [
        f"worker {worker.worker_id} has begun 1 job in 50 min and ended none; nbqueue jobs --state running shows them"
    ]


def test_a_file_that_another_process_has(path: Path, elsewhere: Callable[[str], Elsewhere]) -> None:
    """It is looked at through its owner, who is named, and what is wrong in it is found all the same."""
    owner = elsewhere(
        f"import nbqueue as nbq\nqueues = nbq.connect({str(path)!r})\n"
        "queues.dispatch(nbq.QueuedCommand('doctor:unknown'))\nworker = queues.worker().start()"
    )
    found = checkup(path)
    assert wrongs(found) == [
        said(found, "handlers")[0][1],
    ]
    assert "doctor:unknown on queue default: no handler" in said(found, "handlers")[0][1]
    ((ok, lock),) = said(found, "lock")
    assert (ok, f"process {owner.pid} " in lock, "serves it to others" in lock) == (True, True, True)
    assert (
        f"1 worker: process {owner.pid} on every queue, 4 at a time by thread" in said(found, "workers")[0][1]
    )
    # The owner still has it, as it had it before.
    assert said(checkup(path), "lock") == [(ok, lock)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not say who is stopped")
def test_a_worker_whose_process_is_stopped(path: Path, elsewhere: Callable[[str], Elsewhere]) -> None:
    """A process that was stopped, with Ctrl-Z say, is told from one that works, and how to let it go on."""
    with nbq.connect(path) as queues:
        other = elsewhere(
            f"import nbqueue as nbq\nqueues = nbq.connect({str(path)!r})\nworker = queues.worker().start()"
        )
        assert [ok for ok, _ in said(queues.doctor(), "workers")] == [True]
        halt(other.pid)
        while "T" not in Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0]:
            time.sleep(0.01)
        ((ok, sentence),) = said(queues.doctor(), "workers")
        os.kill(other.pid, signal.SIGCONT)
    assert ok is False
    assert f"the process {other.pid} of worker" in sentence
    assert f"kill -CONT {other.pid}" in sentence


def test_sockets_that_were_left(left: Path, secret: Path, elsewhere: Callable[[str], Elsewhere]) -> None:
    """The socket of an owner that was killed is counted; a folder that others may enter is wrong."""
    owner = elsewhere(f"import nbqueue as nbq\nqueues = nbq.connect({str(left)!r})")
    assert said(checkup(left), "sockets") == []
    owner.kill()
    ((ok, sentence),) = said(checkup(left), "sockets")
    folder = secret.parent / "sockets"
    assert ok is None
    assert sentence.startswith(f"1 socket of processes that have gone in {folder}")
    folder.chmod(0o755)
    assert f"{folder} is not a folder of yours alone" in wrongs(checkup(left))[0]
    alone = elsewhere(f"import nbqueue as nbq\nqueues = nbq.connect({str(left)!r})")
    ((ok, sentence),) = said(checkup(left), "lock")
    assert (ok, f"is held by process {alone.pid}" in sentence) == (False, True)


# ------------------------------------------------------------------------- the faces


def test_the_page_lists_every_finding() -> None:
    """What can be found is what the page has a row for, and a column that says when it is wrong where it can be."""
    sources = [inspect.getsource(module) for module in (beside, checkup_module, host, postgres, sqs, within)]
    calls = [
        call
        for source in sources
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in {"fine", "note", "wrong"}
    ]
    found: dict[str, set[str]] = {}
    for call in calls:
        found.setdefault(ast.literal_eval(call.args[0]), set()).add(call.func.id)  # type: ignore[attr-defined]
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    listed = dict(re.findall(r"^\| `([\w ]+)` \| .+ \| (.*) ?\|$", page, re.MULTILINE))
    assert listed.keys() == found.keys()
    assert {what for what, when in listed.items() if when.strip()} == {
        what for what, how in found.items() if "wrong" in how
    }


def test_the_command_line_says_it(left: Path) -> None:
    """A line for each finding, exit code 1 only if something is wrong; --json has the same."""
    fine = CliRunner().invoke(main, ["doctor", "--db", str(left)])
    assert fine.exit_code == 0
    assert "nothing is wrong" in fine.stderr
    rows = json.loads(CliRunner().invoke(main, ["doctor", "--db", str(left), "--json"]).stdout)
    lines = fine.stdout.splitlines()
    assert len(lines) == len(rows)
    assert {row["ok"] for row in rows} == {True, None}
    assert all(row["sentence"] in line for row, line in zip(rows, lines, strict=True))
    left.write_text("no database")
    broken = CliRunner().invoke(main, ["doctor", "--db", str(left)])
    assert broken.exit_code == 1
    assert "1 wrong" in broken.stderr
    assert [line for line in broken.stdout.splitlines() if line.startswith("WRONG")]


def test_a_queue_in_memory_can_be_asked() -> None:
    """Without a file there is less to say, and the same to ask."""
    with nbq.connect(":memory:") as queues:
        frame = queues.doctor()
    assert list(frame.columns) == ["ok", "what", "sentence"]
    assert {str(dtype) for dtype in frame.dtypes} >= {"boolean"}
    assert not (frame["ok"] == False).any()  # noqa: E712 - of a column
    assert checkup(":memory:")[-1].what == "file"
