"""``%%job`` in a shell of this process: what is refused, what is stored, and what is let go of."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import nbqueue as nbq
from nbqueue.handlers.cells import FAILED_MAX, CellHandler, session, snapshots
from nbqueue.handlers.registry import Call


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A shell in an empty directory, with the extension loaded."""
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    with contextlib.redirect_stdout(None):
        shell.run_line_magic("load_ext", "nbqueue")
    yield shell
    shell.run_line_magic("unload_ext", "nbqueue")
    shell.history_manager.end_session()
    atexit.unregister(shell.atexit_operations)


def job(shell: InteractiveShell, line: str, cell: str) -> Any:
    return shell.run_cell_magic("job", line, cell)


def test_it_is_a_job_like_any_other(shell: InteractiveShell) -> None:
    """Its options are those of dispatch, and it is in the tables under its name."""
    shell.user_ns["n"] = 20
    receipt = job(
        shell,
        "--queue reports --tries 3 --timeout 60 --priority 5 --name sum --metadata a=1",
        "n += 1\n2 * n",
    )
    assert receipt.result(30) == 42
    assert (receipt.queue, receipt.command, receipt.metadata) == ("reports", "sum", {"a": 1})
    spec = receipt.record().spec
    assert (spec.tries, spec.timeout, spec.priority) == (3, 60.0, 5)
    assert nbq.manager().jobs(command="sum", state="succeeded")["queue"].tolist() == ["reports"]
    assert job(shell, "", "1").wait(30).command == "cell"


REFUSED = {
    "syntax": ("", "x = = 1", "invalid syntax"),
    "an open bracket": ("", "x = (1", "was never closed"),
    "no name": ("--out 3x", "1", "--out '3x' is no name"),
    "a keyword": ("--out class", "1", "--out 'class' is no name"),
    "no tries": ("--tries 0", "1", "tries cannot be 0"),
    "unknown option": ("--force", "1", "No such option"),
    "two times": ("--delay 5 --at 06:00", "1", "give one of them"),
    "empty": ("", "\n", "the cell is empty"),
    "quote": ("--name 'x", "1", "No closing quotation"),
}


@pytest.mark.parametrize(("line", "cell", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_said_at_once(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], line: str, cell: str, sentence: str
) -> None:
    """In the cell, in a sentence; nothing is dispatched and nothing kept."""
    kept = len(snapshots)
    assert job(shell, line, cell) is None
    said = capsys.readouterr()
    assert sentence in said.out + said.err
    assert "Traceback" not in said.out + said.err
    assert len(nbq.manager().jobs()) == 0
    assert len(snapshots) == kept


def test_without_a_worker_it_says_so(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """A cell that nobody here would run is dispatched, and waits, and both are said."""
    job(shell, "", "1").wait(30)
    assert capsys.readouterr().out == ""
    shell.run_line_magic("nbq", "stop")
    receipt = job(shell, "--queue reports", "1")
    said = capsys.readouterr().out
    assert 'No worker here serves queue "reports"' in said
    assert "%nbq work" in said
    assert "waiting for the kernel that had it" in receipt.why()
    shell.run_line_magic("nbq", "work")
    assert receipt.result(30) == 1


def test_its_source_is_stored_and_signed(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """Anybody may read it in the file; changed there, it is not run."""
    receipt = job(shell, "--delay 1h --name sum", "1 + 1")
    stored = nbq.manager().sql("SELECT arguments FROM jobs")["arguments"][0]
    assert "%%job --delay 1h --name sum\\n1 + 1" in stored
    shell.run_line_magic("nbq", f"show {receipt}")
    assert "Cell:\n%%job --delay 1h --name sum\n1 + 1" in capsys.readouterr().out
    ran: list[int] = []
    shell.user_ns["ran"] = ran
    forged = {"cell": "%%job\nran.append(1)", "number": 1, "out": "", "signature": "00" * 32}
    held = nbq.dispatch(Call(command="sum", origin=session, kwargs=forged))
    # Either worker may have got it: the one of the extension, or this.
    changed = threading.Event()
    unlisten = nbq.manager().on_change(changed.set)
    with nbq.manager().worker():
        while not held.why().startswith("held") and changed.wait(30):
            changed.clear()
    unlisten()
    assert "held: the source of the cell was not signed by this user" in held.why()
    assert ran == []


def test_it_is_no_command(shell: InteractiveShell) -> None:
    """What a cell is called hides no handler of that name."""

    @nbq.command("total")
    def total() -> str:
        return "command"

    try:
        assert job(shell, "--name total", "'cell'").result(30) == "cell"
        assert nbq.dispatch(nbq.QueuedCommand("total")).result(30) == "command"
        assert "cell" not in nbq.manager().handlers()
    finally:
        nbq.handlers.registry.registry.unregister("total")


def test_few_that_failed_are_kept(shell: InteractiveShell) -> None:
    """The names of cells that failed are kept for a retry, but only of the latest."""
    kept = [job(shell, "", "raise KeyError").wait(30).job_id for _ in range(FAILED_MAX + 3)]
    assert [snapshots.get(job_id) is not None for job_id in kept] == [False] * 3 + [True] * FAILED_MAX


@pytest.mark.parametrize("way", ["forget", "prune"])
def test_one_that_is_forgotten_is_kept_no_longer(shell: InteractiveShell, way: str) -> None:
    """What is left of the job goes with it, and what others are to run on stays."""
    kept = len(snapshots)
    waiting = job(shell, "--delay 1h", "1")
    failed = job(shell, "", "raise KeyError").wait(30)
    assert len(snapshots) == kept + 2
    if way == "forget":
        nbq.manager().forget(failed)
    else:
        nbq.manager().prune(0)
    assert len(snapshots) == kept + 1
    waiting.cancel()
    waiting.wait(30)
    assert len(snapshots) == kept


def test_a_file_that_is_opened_again(shell: InteractiveShell) -> None:
    """Its cells run on the names they had and give their values; what was cancelled is kept no longer."""
    kept = len(snapshots)
    queues = nbq.connect("again.duckdb")
    shell.user_ns["n"] = 1
    ran, cancelled, forgotten = (str(job(shell, f"--out {name}", "n + 1")) for name in ("ran", "off", "gone"))
    shell.user_ns["n"] = 10
    queues.close()
    with nbq.connect("again.duckdb") as queues:
        queues.cancel([cancelled, forgotten])
        queues.forget(forgotten)
        assert len(snapshots) == kept + 1
        with queues.worker(when_empty=True) as worker:
            worker.wait(30)
        assert queues.job(ran).state == "succeeded"
    assert len(snapshots) == kept
    assert [shell.user_ns.get(name) for name in ("ran", "off", "gone")] == [2, None, None]


def test_a_queue_in_memory_takes_its_cells_along(shell: InteractiveShell) -> None:
    """They go when it closes, and those of another stay."""
    kept = len(snapshots)
    queues = nbq.connect(":memory:")
    job(shell, "", "1")
    other = nbq.connect(":memory:")
    job(shell, "", "1")
    assert len(snapshots) == kept + 2
    queues.close()
    with nbq.connect(":memory:"):
        assert len(snapshots) == kept + 1
    other.close()
    assert len(snapshots) == kept


FORKS = """
import os, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "nbqueue")
os.mkfifo("begun")
os.mkfifo("go")
receipt = shell.run_cell_magic("job", "", "said = !echo > begun; read line < go; echo $line\\nsaid[0]")
open("begun").read()
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
go = os.open("go", os.O_RDWR)
os.write(go, b"said\\n")
print(receipt.wait(30).state, receipt.record().result)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_that_exits_ends_no_command(tmp_path: Path) -> None:
    """The commands that cells wait for are those of the process that began them."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1:] == ['succeeded "said"'], done.stderr


def test_completing_a_command_looks_at_the_newest_jobs(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was dispatched long ago is not looked for at every Tab, unless it has a handler here."""
    monkeypatch.setattr("nbqueue.facade.completing._RECENT", 3)

    @nbq.command("old:here")
    def here() -> None: ...

    try:
        for command in ("old:here", "old:away", "new:one", "new:two", "new:one"):
            nbq.dispatch(nbq.QueuedCommand(command), delay=3600)
        with provisionalcompleter():
            found = [one.text for one in shell.Completer.completions("%nbq dispatch ", 14)]
        # What other tests have made known stays known.
        assert [name for name in found if name.startswith(("old:", "new:"))] == [
            "new:one",
            "new:two",
            "old:here",
        ]
    finally:
        nbq.handlers.registry.registry.unregister("old:here")


def test_a_handler_takes_only_its_own(shell: InteractiveShell) -> None:
    """The origin is this session's alone, so no worker elsewhere can take a cell."""
    receipt = job(shell, "", "1").wait(30)
    spec = receipt.record().spec
    assert spec.origin == session
    assert session.startswith("kernel:")
    handler = nbq.handlers.registry.registry.resolve(spec)
    assert isinstance(handler, CellHandler)
    assert nbq.handlers.registry.registry.resolve(spec._replace(origin="kernel:another")) is None


def test_help(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """%%job? and %%job --help are there to be read, the latter without a cell below it."""
    assert "copy of the notebook's names" in shell.object_inspect("%%job")["docstring"]
    shell.run_cell("%%job --help")
    said = capsys.readouterr().out
    assert said.startswith("Usage: %%job")
    assert "--out NAME" in said


def test_unloading_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After %unload_ext the shell is as it was; loading again works."""
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    shell.history_manager.enabled = False

    def state() -> list[Any]:
        return [
            list(shell.input_transformers_cleanup),
            list(shell.Completer.custom_matchers),
            {kind: sorted(table) for kind, table in shell.magics_manager.magics.items()},
            sorted(shell.magics_manager.registry),
            list(shell.configurables),
            {name: len(hooks) for name, hooks in shell.events.callbacks.items()},
            dict(shell.strdispatchers["complete_command"].strs),
        ]

    shell.find_line_magic("load_ext")  # which is itself loaded by its first use
    before = state()
    for _ in range(2):
        shell.run_line_magic("load_ext", "nbqueue")
        assert state() != before
        shell.run_line_magic("reload_ext", "nbqueue")
        assert len(nbq.manager().workers()) == 1
        shell.run_line_magic("unload_ext", "nbqueue")
        assert state() == before
    shell.history_manager.end_session()
    atexit.unregister(shell.atexit_operations)
