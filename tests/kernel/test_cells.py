"""``%%job`` in real kernels: a cell in the background, on names of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kernel.kernel import PATIENCE, Kernel
from tests.kernel_lines import LINES, check_line

pytestmark = pytest.mark.kernel


LOAD = """
%load_ext nbqueue
import json, threading
def done():
    return _.wait(30)
"""


@pytest.fixture(scope="module", params=LINES)
def shared(
    request: pytest.FixtureRequest,
    kernelspecs: Path,
    data_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kernel]:
    """A kernel of each line, for all tests that leave it as it was."""
    check_line(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(kernelspecs))
        patch.setenv("NBQUEUE_DATA_DIR", str(data_dir))
        patch.setenv("IPYTHONDIR", str(data_dir / "ipython"))
        patch.delenv("NBQUEUE_URL", raising=False)
        patch.delenv("NBQUEUE_SECRET", raising=False)
        kernel = Kernel(tmp_path_factory.mktemp("cells"), request.param)
    yield kernel
    kernel.close()


@pytest.fixture
def notebook(shared: Kernel) -> Kernel:
    """A kernel with the extension loaded and no names but ``done()``, which waits for the job of the cell before."""
    shared.run("%reset -f")
    shared.run(LOAD)
    return shared


@pytest.fixture
def fresh(kernel: Kernel) -> Kernel:
    """The same, with a kernel and a queue of its own."""
    kernel.run(LOAD)
    return kernel


def test_assignments_stay_its_own(notebook: Kernel) -> None:
    """A cell sees the names as they were at dispatch, and what it assigns does not come back; objects are shared."""
    notebook.run("n, names, go = 1, ['a'], threading.Event()")
    notebook.run("%%job\ngo.wait(30)\nseen = n\nn = 2\nnames.append('b')\ndef f(): return n\n[seen, n, f()]")
    notebook.run("receipt, n = _, 10\ngo.set()")
    assert notebook.ask(
        "print(json.dumps([receipt.result(30), n, names, 'seen' in globals(), 'f' in globals()]))"
    ) == [[1, 2, 2], 10, ["a", "b"], False, False]


def test_all_of_a_cells_syntax(notebook: Kernel) -> None:
    """Top-level await, !command, line and cell magics work, and on the cell's own names."""
    notebook.run("word = 'live'")
    notebook.run("""%%job
import asyncio
word = 'own'
await asyncio.sleep(0)
!echo said $word
!exit 3
shell = !echo {word}
%time timed = 1
get_ipython().run_cell_magic('time', '', 'inner = 2')
same = get_ipython().user_ns is globals()
len?
[shell, timed, inner, _exit_code, same]""")
    notebook.run("receipt = done()")
    assert notebook.ask("print(json.dumps(receipt.result()))") == [["own"], 1, 2, 3, True]
    said = notebook.run("print(receipt.logs())")
    assert "said own" in said
    assert "Wall time" in said
    assert "Return the number of items in a container" in said
    leaked = "print(json.dumps([n for n in ('shell', 'timed', 'inner', '_exit_code') if n in globals()]))"
    assert notebook.ask(leaked) == []
    assert notebook.run("print(word)") == "live\n"


def test_magics_that_load_when_first_used(fresh: Kernel) -> None:
    """A job that is the first to use one has it for itself; the notebook's and later jobs' work as ever."""
    bodies = (
        "%who",
        "%%bash --out said\necho $BASH_VERSION",
        "%time 1",
        "%history -n 1",
        "get_ipython().magics_manager.registry['ExecutionMagics'].default_runner",
    )
    fresh.run("""
def count():
    threads = [one for one in threading.enumerate() if not one.name.startswith('nbqueue')]
    return [len(get_ipython().configurables), len(threads)]
""")
    before = fresh.ask("print(json.dumps(count()))")
    for where in ("first in jobs", "then in the notebook", "then in jobs"):
        for body in bodies:
            if where == "then in the notebook":
                fresh.run(body)
                continue
            fresh.run(f"%%job\n{body}")
            said = fresh.run("receipt = done(); print(receipt.state, receipt.record().error)")
            assert said == "succeeded \n", (where, body)
            assert fresh.run("print('said' in globals())") == f"{where == 'then in jobs'}\n"
        if where == "first in jobs":
            assert fresh.ask("print(json.dumps(count()))") == before
    fresh.run("%%job\ntheirs = 2\n%who")
    assert "theirs" in fresh.run("print(done().logs())")
    assert "theirs" not in fresh.run("%who")


def test_scripts_of_a_job_have_its_names(notebook: Kernel) -> None:
    """What %%bash gives a name to is the job's, if the notebook has used %%bash before as well."""
    notebook.run("%%bash --out said\necho notebook")
    notebook.run("%%job\n%%bash --out said\necho job")
    notebook.run("%%job\nget_ipython().run_cell_magic('bash', '--out said', 'echo job')\nsaid")
    assert notebook.run("print(done().result(), said)") == "job\n notebook\n\n"


def test_background_scripts_of_the_notebook_go_on(notebook: Kernel) -> None:
    """A job has script magics of its own, and ends what it began with them, and not what the notebook did."""
    notebook.run("%%bash --bg --proc script\nexec sleep 600")
    notebook.run("%%job\n%%bash --bg\nexec sleep 600")
    assert notebook.run("receipt = done(); print(receipt.state, script.returncode)") == "succeeded None\n"
    notebook.run("%killbgscripts")


def test_a_traceback_points_into_the_cell(notebook: Kernel) -> None:
    """It names the cell by its number and the line as it stands in the cell, with its source."""
    notebook.run("%%job\n\ndef divide():\n    return 1 / 0\n\ndivide()")
    # Its receipt is what it displayed.
    number = notebook.ask("print(max(Out))")
    trace = notebook.run("print(done().attempts()['traceback'][0])")
    assert f"Cell In[{number}], line 6" in trace
    assert f"Cell In[{number}], line 4" in trace
    assert "return 1 / 0" in trace
    assert "nbqueue" not in trace
    notebook.run("%%job\nimport asyncio\nawait asyncio.sleep(0)\nraise KeyError('x')")
    trace = notebook.run("print(done().attempts()['traceback'][0])")
    assert "line 4" in trace
    assert "nbqueue" not in trace


def test_out_is_the_very_object(notebook: Kernel) -> None:
    """--out gives the notebook the object itself, once the job has succeeded and not before."""
    notebook.run("kept, go = {}, threading.Event()")
    notebook.run("%%job --out found\nkept['it'] = [1]\ngo.wait(30)\nkept['it']")
    assert notebook.run("print('found' in globals())") == "False\n"
    assert notebook.ask(
        "go.set(); done(); found.append(2); print(json.dumps([found is kept['it'], found]))"
    ) == [True, [1, 2]]


def test_a_failed_cell_leaves_the_name_alone(notebook: Kernel) -> None:
    """What --out names is untouched by a cell that fails; retried, it runs on the names it had."""
    notebook.run("found, broken = 'before', [True]")
    notebook.run(
        "%%job --out found\nattempts = globals().get('attempts', 0) + 1\nassert not broken[0]\nattempts"
    )
    assert notebook.run("receipt = done(); print(receipt.state, found)") == "failed before\n"
    again = "same = broken; broken = [True]; same[0] = False; receipt.retry().wait(30); print(receipt.state, found)"
    assert notebook.run(again) == "succeeded 1\n"
    # What it ran on was let go of then, so once more means on the names of today.
    assert notebook.run("receipt.retry().wait(30); print(receipt.state, found)") == "failed 1\n"


def test_names_are_let_go_of(notebook: Kernel) -> None:
    """Once a cell's job has succeeded or was cancelled, nothing holds what its names meant."""
    notebook.run("""
import gc, weakref
class Big: ...
big = Big()
watched = weakref.ref(big)
go = threading.Event()
""")
    notebook.run("%%job\ngo.wait(30);")
    notebook.run("first = _")
    notebook.run("%%job --delay 1h\n1")
    notebook.run("second = _; del big")
    assert notebook.run("gc.collect(); print(watched() is None)") == "False\n"
    notebook.run("go.set(); first.wait(30); second.cancel(); second.wait(30)")
    assert notebook.run("gc.collect(); print(watched() is None)") == "True\n"


@pytest.mark.parametrize("ending", ["1", "1 / 0"])
def test_what_a_cell_leaves_behind_goes_at_once(notebook: Kernel, ending: str) -> None:
    """What it had in names of its own is freed when it ends, and not when garbage happens to be collected."""
    notebook.run("import gc, weakref\nclass Big: ...\nwatched = []\ngc.disable()")
    notebook.run(f"%%job\nbig = Big()\nwatched.append(weakref.ref(big))\n!true\n%time\n{ending}")
    assert notebook.run("receipt = done(); print(watched[0]() is None); gc.enable()") == "True\n"


def test_two_at_once(notebook: Kernel) -> None:
    """Several run at the same time, each with its own output and its own magics."""
    notebook.run("meet = threading.Barrier(2, timeout=30)")
    for name in ("ada", "bob"):
        notebook.run(
            f"%%job --name {name}\nmine = '{name}'\nmeet.wait()\n!echo I am $mine\nmeet.wait()\nmine"
        )
        notebook.run(f"{name} = _")
    for name in ("ada", "bob"):
        said = notebook.run(f"print({name}.result(30), {name}.logs())")
        assert said.split() == [name, "I", "am", name]


def test_nothing_lands_in_another_cell(notebook: Kernel) -> None:
    """What it prints and displays is in no cell that runs meanwhile; what it displays is kept."""
    notebook.run("go, printed = threading.Event(), threading.Event()")
    notebook.run(
        "%%job\ngo.wait(30)\nprint('from the job')\n!echo from the shell\nprinted.set()\n{'value': 1}"
    )
    notebook.run("receipt = _")
    assert (
        notebook.run("go.set(); printed.wait(30); receipt.wait(30); print('from the cell')")
        == "from the cell\n"
    )
    said = notebook.run("print(receipt.logs())")
    assert "from the job" in said
    assert "from the shell" in said
    assert "{'value': 1}" in notebook.run("print([str(one) for one in [receipt.outputs()]])")


def test_a_semicolon_keeps_it_from_being_displayed(notebook: Kernel) -> None:
    """The value is still the job's result."""
    notebook.run("%%job\n'quiet';  # says nothing")
    assert notebook.run("receipt = done(); print(receipt.result())") == "quiet\n"
    assert notebook.ask("print(len(receipt.outputs()))") == 0


def test_an_interrupt_is_not_for_jobs(notebook: Kernel) -> None:
    """The interrupt button ends the cell in front, and neither the jobs nor what they started."""
    notebook.run("go = threading.Event()")
    notebook.run("%%job --out word\nout = !sleep 1; echo done\ngo.wait(30)\nout[0]")
    notebook.run("receipt = _")
    waiting = threading.Event()

    def interrupt(_: str) -> None:
        if not waiting.is_set():
            waiting.set()
            notebook.interrupt()

    code = """
try:
    print('waiting', flush=True)
    threading.Event().wait(30)
except KeyboardInterrupt:
    print('interrupted')
"""
    assert "interrupted" in notebook.run(code, on_print=interrupt)
    assert notebook.run("go.set(); receipt.wait(30); print(receipt.state, word)") == "succeeded done\n"


@pytest.mark.parametrize("line", ["while True: time.sleep(0.01)", "await asyncio.sleep(600)"])
def test_cancel(notebook: Kernel, line: str) -> None:
    """A cell that runs can be cancelled wherever it is: it cleans up, and leaves the name of --out alone."""
    notebook.run("import asyncio, time\nbegun, cleaned, found = threading.Event(), [], 'before'")
    body = f"try:\n    begun.set()\n    {line}\nfinally:\n    cleaned.append(1)\n1"
    notebook.run(f"%%job --out found\n{body}")
    notebook.run("receipt = _; begun.wait(30); receipt.cancel(); receipt.wait(30)")
    assert notebook.ask("print(json.dumps([receipt.state, cleaned, found]))") == ["cancelled", [1], "before"]


@pytest.mark.parametrize("line", ["!", "out = !"])
def test_cancel_ends_commands(notebook: Kernel, line: str) -> None:
    """What a cell has started with ! ends with its job."""
    pipe = notebook.folder / "pids"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    notebook.run(f"%%job\n{line}echo $$ > {pipe}; exec sleep 600")
    child = psutil.Process(int(pipe.read_text()))
    notebook.run("receipt = _; receipt.cancel(); receipt.wait(30)")
    assert notebook.run("print(receipt.state)") == "cancelled\n"
    child.wait(timeout=30)


@pytest.mark.parametrize("line", ["!", "out = !"])
def test_a_restart_ends_commands(fresh: Kernel, line: str) -> None:
    """What a cell has started with ! ends with its kernel, when that is restarted."""
    pipe = fresh.folder / "pids"
    os.mkfifo(pipe)
    fresh.run(f"%%job\n{line}echo $$ > {pipe}; exec sleep 600")
    child = psutil.Process(int(pipe.read_text()))
    fresh.restart()
    child.wait(timeout=30)


def test_after_a_restart_it_waits(fresh: Kernel) -> None:
    """A cell's names are gone with its kernel: nobody runs it, why() says so, it can be read and cancelled."""
    ran = fresh.folder / "ran"
    fresh.run("%nbq stop")
    fresh.run(f"%%job\nopen({str(ran)!r}, 'w').close()")
    job = fresh.ask("print(json.dumps(str(_)))")
    fresh.kill()
    fresh.run("%load_ext nbqueue\nimport json, threading, nbqueue as nbq\nqueues = nbq.manager()")
    # Cells of this session run here, and that one waits still.
    fresh.run("%%job\n1")
    fresh.run("_.wait(30)")
    state, why = fresh.ask(f"print(json.dumps([queues.job({job!r}).state, queues.why({job!r})]))")
    assert state == "pending"
    assert "waiting for the kernel that had it" in why
    assert "cancel" in why
    assert "open(" in fresh.run(f"%nbq show {job}")
    assert "is cancelled" in fresh.run(f"%nbq cancel {job}")
    assert not ran.exists()


def complete(kernel: Kernel, code: str) -> list[str]:
    sent = kernel.client.complete(code)
    while True:
        reply: dict[str, Any] = kernel.client.get_shell_msg(timeout=PATIENCE)
        if reply["parent_header"].get("msg_id") == sent:
            break
    content = reply["content"]
    return [code[: content["cursor_start"]] + match for match in content["matches"]]


@pytest.mark.parametrize("jedi", [True, False])
def test_completion(fresh: Kernel, jedi: bool) -> None:
    """Tab offers what fits and nothing else: subcommands, options, values, and ids, the newest first."""
    fresh.run(f"%config Completer.use_jedi = {jedi}")
    fresh.run("""
import nbqueue as nbq
@nbq.command("import:data")
def import_data(): ...
queues = nbq.manager()
ids = [str(queues.dispatch(nbq.QueuedCommand("import:data")).wait(30)) for _ in range(3)]
later = str(queues.dispatch(nbq.QueuedCommand("import:data"), delay=3600, queue="emails"))
""")
    ids, later = fresh.ask("print(json.dumps([ids, later]))")
    newest = [later, *reversed(ids)]
    assert complete(fresh, "%nbq wh") == ["%nbq why"]
    assert complete(fresh, "frame = %nbq jobs --st") == ["frame = %nbq jobs --state"]
    assert complete(fresh, "%nbq jobs --state failed,sche") == ["%nbq jobs --state failed,scheduled"]
    assert complete(fresh, "%nbq jobs --queue=em") == ["%nbq jobs --queue=emails"]
    assert complete(fresh, "%nbq dispatch import:d") == ["%nbq dispatch import:data"]
    assert complete(fresh, "%nbq plot ti") == ["%nbq plot timeline"]
    assert complete(fresh, "%nbq pause em") == ["%nbq pause emails"]
    assert complete(fresh, "%nbq show ") == [f"%nbq show {one}" for one in newest]
    assert complete(fresh, "%nbq show 0") == [f"%nbq show {one}" for one in newest]
    assert complete(fresh, f"%nbq show {ids[1][:-1]}") == [f"%nbq show {ids[1]}"]
    assert complete(fresh, "%nbq cancel 0") == [f"%nbq cancel {later}"]
    assert f"%nbq retry {later} {later}" not in complete(fresh, f"%nbq retry {later} 0")
    assert complete(fresh, "%%job --ti") == ["%%job --timeout"]
    assert complete(fresh, "%%job --queue em") == ["%%job --queue emails"]
