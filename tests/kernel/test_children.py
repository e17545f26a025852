"""Child processes of a real kernel: code of the notebook runs there, and nothing of it outlives the kernel."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.kernel.kernel import PATIENCE, Kernel

pytestmark = pytest.mark.kernel

DEFINE = """
import dataclasses, enum, json, os, subprocess, sys, time
from pathlib import Path
import nbqueue as nbq

class Colour(enum.Enum):
    RED = "red"

@dataclasses.dataclass
class Paint:
    colour: Colour
    litres: float

FACTOR = 2

@nbq.job
def mix(paint):
    print("mixing", file=sys.__stdout__)
    subprocess.run(["echo", "poured"])
    return Paint(paint.colour, paint.litres * FACTOR)

@nbq.job
def hold(path):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(path).with_suffix(".part").write_text(f"{os.getpid()} {other.pid}")
    Path(path).with_suffix(".part").rename(path)
    sum(range(10**14))

@nbq.job
def wait(ctx, path):
    Path(path).touch()
    while not Path(path + ".go").exists():
        time.sleep(0.02)
    return ctx.attempt

queues = nbq.connect("jobs.duckdb")
worker = queues.worker(executor="process", concurrency=2).start()
"""


def _await(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"there is no {path}"
        time.sleep(0.02)


def _gone(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_runs_code_of_the_notebook(kernel: Kernel) -> None:
    """Functions, classes and enums of the notebook go to a child and come back; a cell runs on the notebook's names.

    What cannot go is said where it is dispatched, and the interrupt button ends the cell and no job.
    """
    kernel.run(DEFINE)
    assert kernel.run("r = mix.dispatch(Paint(Colour.RED, 1.5)); print(r.result(30))") == (
        "Paint(colour=<Colour.RED: 'red'>, litres=3.0)\n"
    )
    assert kernel.run("print(r.result() == Paint(Colour.RED, 3.0), str(r.logs()).split())") == (
        "True ['mixing', 'poured']\n"
    )
    kernel.run("FACTOR = 10")
    assert kernel.run("print(mix.dispatch(Paint(Colour.RED, 1.0)).result(30).litres)") == "10.0\n"
    refused = kernel.run("""
import sqlite3
conn = sqlite3.connect(":memory:")

@nbq.job
def clean():
    return conn

try:
    clean.dispatch()
except nbq.InvalidCommand as error:
    print(error)
""")
    assert refused.startswith('clean uses the variable "conn" (a sqlite3.Connection), which cannot be sent')
    failed = kernel.run("""
@nbq.job
def fail():
    raise KeyError("x")

receipt = fail.dispatch().wait(30)
print(receipt.attempts()["traceback"].iloc[0])
""")
    assert "Cell In[" in failed
    assert 'raise KeyError("x")' in failed
    assert "nbqueue" not in failed
    path = kernel.folder / "waiting"

    def interrupt(text: str) -> None:
        if "waiting" in text:
            _await(path)
            kernel.interrupt()

    said = kernel.run(
        f"""
receipt = wait.dispatch({str(path)!r})
try:
    print("waiting", flush=True)
    receipt.wait()
except KeyboardInterrupt:
    print("interrupted while", receipt.state)
""",
        on_print=interrupt,
    )
    assert said == "waiting\ninterrupted while running\n"
    Path(f"{path}.go").touch()
    assert kernel.run("print(receipt.result(30))") == "1\n"


def test_children_go_with_the_kernel(kernel: Kernel) -> None:
    """A restart takes along the children, in C code too, and what they started; and the kernel needs no killing."""
    kernel.run(DEFINE)
    path = kernel.folder / "pids"
    kernel.run(f"receipt = hold.dispatch({str(path)!r})")
    _await(path)
    pids = path.read_text().split()
    assert not any(map(_gone, pids))
    assert kernel.restart() == []
    assert all(map(_gone, pids))
    state = kernel.ask("""
import json
import nbqueue as nbq
(job,) = nbq.connect("jobs.duckdb").jobs().to_dict("records")
print(json.dumps([job["state"], job["attempt"]]))
""")
    assert state == ["pending", 0]
