"""The magics, in a real shell: one call each, a sentence where something is wrong, and nothing left behind."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

import nbqueue as nbq
from nbqueue.facade.manager import latest
from nbqueue.handlers.registry import registry
from tests.servers import PASSWORD


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A shell in an empty directory; no queue is open before or after."""
    monkeypatch.chdir(tmp_path)
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    yield shell
    if "nbqueue" in shell.extension_manager.loaded:
        shell.run_line_magic("unload_ext", "nbqueue")
    shell.history_manager.end_session()
    atexit.unregister(shell.atexit_operations)


@pytest.fixture
def greet() -> Iterator[None]:
    @nbq.command("greet")
    def greet(who: str = "world") -> str:
        print("hello", who)
        return f"hello {who}"

    @nbq.command("boom")
    def boom() -> None:
        raise KeyError("x")

    yield
    registry.unregister("greet")
    registry.unregister("boom")


@pytest.fixture
def loaded(shell: InteractiveShell, greet: None, capsys: pytest.CaptureFixture[str]) -> InteractiveShell:
    shell.run_line_magic("load_ext", "nbqueue")
    capsys.readouterr()
    return shell


def nbq_(shell: InteractiveShell, line: str) -> Any:
    return shell.run_line_magic("nbq", line)


def test_load_says_where(shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Loading opens the default queue, says where it is, and starts a worker on every queue."""
    shell.run_line_magic("load_ext", "nbqueue")
    said = capsys.readouterr().out
    assert (
        said
        == f"{tmp_path / 'nbqueue.duckdb'}: created; a worker here serves every queue, 4 jobs at a time\n"
    )
    (worker,) = nbq.manager().workers()
    assert worker.queues is None


def test_doctor_says_what_is_wrong(loaded: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """%nbq doctor looks at the queue that is open here, with a line for each finding."""
    nbq_(loaded, "dispatch nobody:knows")
    capsys.readouterr()
    assert nbq_(loaded, "doctor") is None
    *lines, summary = capsys.readouterr().out.splitlines()
    (wrong,) = [line for line in lines if line.startswith("WRONG")]
    assert wrong.split()[:2] == ["WRONG", "handlers"]
    assert 'no handler for "nobody:knows"' in wrong
    assert summary.startswith("1 wrong, ")


def test_load_without_autostart(shell: InteractiveShell) -> None:
    """NBQueue.autostart = False opens the queue and starts nothing."""
    shell.config.NBQueue.autostart = False
    shell.run_line_magic("load_ext", "nbqueue")
    assert nbq.manager().workers() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("concurrency", 8), ("executor", "thread"), ("url", "jobs.duckdb"), ("default_queue", "imports")],
)
def test_load_with_a_setting_made_before(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], name: str, value: object
) -> None:
    """What an ipython_config.py sets holds from the beginning, and after loading again."""
    shell.config.NBQueue[name] = value
    for load in ("load_ext", "reload_ext"):
        shell.run_line_magic(load, "nbqueue")
        assert capsys.readouterr().err == ""
        assert shell.run_line_magic("config", f"NBQueue.{name}") == value
    assert len(nbq.manager().workers()) == 1
    shell.run_line_magic("unload_ext", "nbqueue")


def test_load_without_its_server(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that is not there is a sentence, at once and without the password, and the notebook goes on."""
    monkeypatch.setenv("NBQUEUE_URL", f"postgresql://ada:{PASSWORD}@127.0.0.1:1/db")
    shell.run_line_magic("load_ext", "nbqueue")
    said = capsys.readouterr().err
    assert said.startswith("Error: postgresql://ada@127.0.0.1:1/db cannot be reached")
    assert said.splitlines()[1:] == ["No queue is open; %config NBQueue.url = '...' opens another."]
    assert PASSWORD not in said
    assert latest() is None


def test_a_server_by_config(
    loaded: InteractiveShell, postgres_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """%config takes its URL, and shows no password, nor does %nbq."""
    loaded.run_line_magic("config", f"NBQueue.url = {postgres_url!r}")
    queues = nbq.manager()
    assert capsys.readouterr().out.startswith(f"{queues.name}: opened, 0 waiting; a worker here serves every")
    assert queues.name.startswith("postgresql://")
    assert nbq_(loaded, "dispatch greet").result(timeout=30) == "hello world"
    nbq_(loaded, "")
    loaded.run_line_magic("config", "NBQueue")
    shown = repr(loaded.run_line_magic("config", "NBQueue.url"))
    said = "".join(capsys.readouterr())
    assert said.startswith(f"{queues.name}\n")
    assert (PASSWORD in said, PASSWORD in shown) == (False, False)
    assert "***@127.0.0.1" in shown


def test_load_takes_the_queue_that_is_there(shell: InteractiveShell, tmp_path: Path) -> None:
    """Where the notebook has connected a queue, that one is meant, and unloading leaves it open."""
    with nbq.connect("jobs.duckdb") as queues:
        shell.run_line_magic("load_ext", "nbqueue")
        assert nbq.manager() is queues
        assert len(queues.workers()) == 1
        shell.run_line_magic("unload_ext", "nbqueue")
        assert queues.workers() == []
        assert not queues.closed
    assert not (tmp_path / "nbqueue.duckdb").exists()


def test_receipts_outlive_a_reload(loaded: InteractiveShell) -> None:
    """What was dispatched before ``%reload_ext`` can be waited for after it."""
    receipt = loaded.run_line_magic("nbq", "dispatch later:defined")
    loaded.run_line_magic("reload_ext", "nbqueue")
    assert receipt.state == "pending"

    @nbq.command("later:defined")
    def later() -> str:
        return "defined"

    assert receipt.result(30) == "defined"


def test_unload_lets_go(loaded: InteractiveShell) -> None:
    """Unloading stops the worker, closes the queue and takes the magic away; loading again works."""
    queues = nbq.manager()
    loaded.run_line_magic("unload_ext", "nbqueue")
    assert queues.closed
    assert "nbq" not in loaded.magics_manager.magics["line"]
    loaded.run_line_magic("load_ext", "nbqueue")
    assert not nbq.manager().closed


def test_dispatch_gives_the_receipt(loaded: InteractiveShell) -> None:
    """What is dispatched runs in the background; names of the notebook are put in."""
    loaded.user_ns.update(who="Ada", wait=0)
    receipt = nbq_(loaded, "dispatch greet {who} --queue emails --delay $wait")
    assert receipt.result(timeout=30) == "hello Ada"
    assert receipt.queue == "emails"


def test_jobs_stats_and_sql_are_frames(loaded: InteractiveShell) -> None:
    """They can be worked on; SQL sees the notebook's frames."""
    nbq_(loaded, "dispatch greet").wait(30)
    nbq_(loaded, "dispatch boom").wait(30)
    failed = nbq_(loaded, "jobs --state failed --since 1h")
    assert failed["command"].tolist() == ["boom"]
    assert isinstance(nbq_(loaded, "stats"), pd.DataFrame)
    loaded.user_ns["owners"] = pd.DataFrame({"command": ["boom"], "owner": ["Ada"]})
    joined = nbq_(
        loaded, "sql select owner, state from jobs join owners using (command) where state = 'failed'"
    )
    assert joined.iloc[0].tolist() == ["Ada", "failed"]


def test_show_why_retry_cancel(loaded: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """One job is shown, explained, run again and cancelled by its id."""
    job = str(nbq_(loaded, "dispatch boom").wait(30))
    assert nbq_(loaded, f"show {job}") is None
    assert "KeyError: 'x'" in capsys.readouterr().out
    nbq_(loaded, f"why {job}")
    assert "retry it" in capsys.readouterr().out
    nbq_(loaded, f"retry {job}")
    assert f"boom {job} may run again" in capsys.readouterr().out
    later = nbq_(loaded, "dispatch greet --delay 1h")
    nbq_(loaded, f"cancel {later}")
    assert f"greet {later} is cancelled" in capsys.readouterr().out


def test_retry_all_and_failures(loaded: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """What failed is counted by its error, and may run again at once."""
    for _ in range(2):
        nbq_(loaded, "dispatch boom --queue emails").wait(30)
    (failure,) = nbq_(loaded, "failures --queue emails").to_dict("records")
    assert failure["jobs"] == 2
    fingerprint = failure["fingerprint"]
    nbq_(loaded, "retry-all --queue default")
    nbq_(loaded, "stop")
    nbq_(loaded, f"retry-all --queue emails --fingerprint '{fingerprint}'")
    said = capsys.readouterr().out
    assert "0 jobs may run again" in said
    assert "2 jobs may run again" in said
    assert len(nbq_(loaded, "jobs --state pending")) == 2


def test_pause_resume_prune(loaded: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """Queues are paused and resumed, and old jobs removed, in the words of the command line."""
    nbq_(loaded, "dispatch greet").wait(30)
    nbq_(loaded, "pause default")
    assert nbq_(loaded, "stats").set_index("queue").loc["default", "paused"]
    nbq_(loaded, "resume default")
    nbq_(loaded, "prune --older-than 1h")
    nbq_(loaded, "prune --older-than 0 --keep succeeded")
    nbq_(loaded, "prune --older-than 0 --yes")
    assert capsys.readouterr().out.splitlines() == [
        "queue default is paused",
        "queue default is resumed",
        "0 jobs removed",
        "0 jobs removed",
        "1 job removed",
    ]


def test_panel_form_and_batch(loaded: InteractiveShell) -> None:
    """They give what the facade gives."""
    for line, same in (("panel", nbq.manager().panel()), ("form greet", nbq.manager().form("greet"))):
        given = nbq_(loaded, line)
        assert type(given).__qualname__ == type(same).__qualname__
        for widget in (given, same):
            widget.close()
    batch = nbq.manager().map("greet", ["Ada", "Bob"])
    assert nbq_(loaded, f"batch {batch.batch_id}").batch_id == batch.batch_id


def test_status(loaded: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """%nbq says where the queue is, what runs and what waits."""
    started, go_on = threading.Event(), threading.Event()

    @nbq.command("gate")
    def gate() -> None:
        started.set()
        go_on.wait(30)

    try:
        running = nbq_(loaded, "dispatch gate")
        nbq_(loaded, "dispatch greet --delay 1h --queue emails")
        assert started.wait(30)
        assert nbq_(loaded, "") is None
        said = capsys.readouterr().out
    finally:
        go_on.set()
        registry.unregister("gate")
    running.wait(30)
    assert said.startswith(str(tmp_path / "nbqueue.duckdb"))
    assert "A worker here serves every queue, 4 jobs at a time." in said
    assert f"running  {running}  gate" in said
    assert "1 running; waiting: 1 on emails (1 for their time)" in said


def test_work_and_stop(loaded: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """The worker is stopped and started anew, with other options."""
    nbq_(loaded, "stop")
    assert nbq.manager().workers() == []
    nbq_(loaded, "stop")
    nbq_(loaded, "work --concurrency 2")
    assert capsys.readouterr().out.splitlines()[:2] == [
        "The worker is stopped.",
        "There is no worker to stop.",
    ]
    (worker,) = nbq.manager().workers()
    assert worker.concurrency == 2
    nbq_(loaded, "work")
    assert [worker.concurrency for worker in nbq.manager().workers()] == [4]
    capsys.readouterr()
    nbq_(loaded, "work --executor process")
    nbq_(loaded, "")
    said = capsys.readouterr().out.lower()
    assert said.count("a worker here serves every queue, 4 jobs at a time, in processes of their own") == 2


def test_config(loaded: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """%config shows and sets: another url is opened at once, another concurrency starts the worker anew."""
    loaded.run_line_magic("config", "NBQueue")
    said = capsys.readouterr().out
    for name in ("url", "autostart", "concurrency", "executor", "default_queue"):
        assert f"NBQueue.{name}=" in said
    loaded.run_line_magic("config", "NBQueue.concurrency = 2")
    assert [worker.concurrency for worker in nbq.manager().workers()] == [2]
    loaded.run_line_magic("config", "NBQueue.url = 'other.duckdb'")
    assert nbq.manager().name == str(tmp_path / "other.duckdb")
    loaded.run_line_magic("config", "NBQueue.default_queue = 'imports'")
    assert nbq_(loaded, "dispatch greet").queue == "imports"


def test_config_that_cannot_be(loaded: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be is a sentence: the worker goes on, and so does the queue, with the jobs that run on it."""
    loaded.run_line_magic("config", "NBQueue.executor = 'dask://here'")
    assert "is no address of a Dask scheduler" in capsys.readouterr().err
    assert len(nbq.manager().workers()) == 1
    loaded.run_line_magic("config", "NBQueue.executor = 'thread'")
    loaded.run_line_magic("config", "NBQueue.url = 'missing/jobs.duckdb'")
    said = capsys.readouterr().err
    assert "missing" in said
    assert f"The queue stays {nbq.manager().name}" in said
    assert len(nbq.manager().workers()) == 1
    loaded.run_line_magic("config", "NBQueue")
    shown = capsys.readouterr().out
    # What was refused is not kept, so that it does not come back with the next setting.
    assert "Current: 'thread'" in shown
    assert "missing" not in shown
    loaded.run_line_magic("config", "NBQueue.default_queue = 'imports'")
    assert capsys.readouterr().err == ""
    assert nbq_(loaded, "dispatch greet").queue == "imports"


def test_work_in_processes(loaded: InteractiveShell) -> None:
    """``%nbq work --executor process`` starts a worker whose jobs run in child processes."""
    nbq_(loaded, "work --executor process --concurrency 2")
    assert [worker.executor for worker in nbq.manager().workers()] == ["process"]


def test_plot(loaded: InteractiveShell) -> None:
    """%nbq plot gives Axes."""
    import matplotlib.pyplot as plt

    nbq_(loaded, "dispatch greet").wait(30)
    assert hasattr(nbq_(loaded, "plot throughput"), "plot")
    plt.close("all")


WRONG = {
    "empty name": ("dispatch ''", "command is empty"),
    "no tries": ("dispatch greet --tries 0", "tries cannot be 0"),
    "negative delay": ("dispatch greet --delay -5", "delay cannot be -5 s"),
    "unknown option": ("dispatch greet --force", "put it after --, as in: -- --force"),
    "unknown job": ("show abcdef", "has an id that begins with 'abcdef'"),
    "unknown queue": ("jobs --queue nope", 'queue "nope" does not exist'),
    "unknown state": ("jobs --state faild", 'did you mean "failed"?'),
    "unknown subcommand": ("dispach", "No such command 'dispach'"),
    "executor": ("work --executor dask://here", "is no address of a Dask scheduler"),
    "quote": ("dispatch 'greet", "No closing quotation"),
    "writing": ("sql delete from jobs", ""),
}


@pytest.mark.parametrize(("line", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_a_sentence(
    loaded: InteractiveShell, capsys: pytest.CaptureFixture[str], line: str, sentence: str
) -> None:
    """It goes to stderr, without a traceback, and the magic gives None."""
    assert nbq_(loaded, line) is None
    said = capsys.readouterr()
    assert said.err.startswith("Error: ")
    assert sentence in said.err
    assert "Traceback" not in said.err + said.out


def test_load_where_it_cannot_be(
    shell: InteractiveShell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A queue that cannot be opened is a sentence; the magics are there to open another."""
    (tmp_path / "nbqueue.duckdb").write_text("hello, this is text")
    shell.run_line_magic("load_ext", "nbqueue")
    assert "is not a DuckDB database" in capsys.readouterr().err
    assert nbq_(shell, "jobs") is None
    assert "is not a DuckDB database" in capsys.readouterr().err
    assert (tmp_path / "nbqueue.duckdb").read_text() == "hello, this is text"
    shell.run_line_magic("config", "NBQueue.url = 'jobs.duckdb'")
    assert isinstance(nbq_(shell, "jobs"), pd.DataFrame)


def test_help(loaded: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """%nbq? names every subcommand, and each has a --help."""
    from nbqueue.magics.subcommands import nbq as group

    text = loaded.object_inspect("%nbq")["docstring"]
    for name, command in group.commands.items():
        assert f"%nbq {name}" in text
        assert nbq_(loaded, f"{name} --help") is None
        assert capsys.readouterr().out.startswith(f"Usage: %nbq {name}")
        assert command.help


COMPLETED = [
    ("%nbq di", "dispatch"),
    ("x = %nbq di", "dispatch"),
    ("%nbq jobs --st", "--state"),
    ("%nbq jobs --state fa", "failed"),
    ("%nbq jobs --state=fa", "failed"),
    ("%nbq jobs --state failed,retr", "retrying"),
    ("%nbq prune --keep su", "succeeded"),
    ("%nbq plot th", "throughput"),
    ("%nbq form gre", "greet"),
    ("%nbq resume def", "default"),
    ("%%job --ou", "--out"),
    ("%%job --queue def", "default"),
]


def complete(shell: InteractiveShell, line: str) -> list[str]:
    with pytest.warns(PendingDeprecationWarning):
        return list(shell.complete(None, line, len(line))[1])


@pytest.mark.parametrize(("line", "found"), COMPLETED)
def test_completion(loaded: InteractiveShell, line: str, found: str) -> None:
    """Subcommands, options and their values are completed, in either way of asking, and nothing else is offered."""
    with provisionalcompleter():
        assert [one.text for one in loaded.Completer.completions(line, len(line))] == [found]
    assert complete(loaded, line) == [found]


def test_completion_opens_no_queue(shell: InteractiveShell, tmp_path: Path) -> None:
    """Where none is open there are no ids and no queues to offer."""
    shell.config.NBQueue.autostart = False
    shell.run_line_magic("load_ext", "nbqueue")
    nbq.manager().close()
    for line in ("%nbq show ", "%nbq pause ", "%nbq dispatch "):
        assert "default" not in complete(shell, line)
    assert latest() is None


@pytest.mark.kernel
def test_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a real kernel a job runs in the background, errors are sentences, and the kernel ends quickly."""
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("PYTHONPATH", str(Path(nbq.__file__).parent.parent))
    manager, client = start_new_kernel(cwd=str(tmp_path))
    try:

        def cell(code: str) -> tuple[str, str]:
            said = {"stdout": "", "stderr": ""}

            def hook(message: dict[str, Any]) -> None:
                if message["msg_type"] == "stream":
                    said[message["content"]["name"]] += message["content"]["text"]

            reply = client.execute_interactive(code, output_hook=hook, timeout=60)
            assert reply["content"]["status"] == "ok", reply["content"]
            return said["stdout"], said["stderr"]

        said, _ = cell("%load_ext nbqueue")
        assert f"{tmp_path / 'nbqueue.duckdb'}: created" in said
        cell("import nbqueue as nbq\n@nbq.command('greet')\ndef greet(who):\n    return f'hello {who}'")
        cell("receipt = %nbq dispatch greet Ada")
        assert cell("print(receipt.result(timeout=30))")[0] == "hello Ada\n"
        assert "Error: " in cell("%nbq show abcdef")[1]
        cell("assert len(get_ipython().run_line_magic('nbq', 'jobs --state succeeded')) == 1")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=False)
    assert not manager.has_kernel or not manager.is_alive()


def test_a_wrong_setting_does_not_keep_it_from_loading(
    shell: InteractiveShell, greet: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value that %config was given wrongly before is named and dropped, and the extension loads."""
    shell.config.NBQueue.concurrency = "x"
    shell.run_line_magic("load_ext", "nbqueue")
    said = capsys.readouterr()
    assert "concurrency" in said.err
    assert "the defaults hold" in said.err
    assert "4 jobs at a time" in said.out
    shell.run_line_magic("unload_ext", "nbqueue")
