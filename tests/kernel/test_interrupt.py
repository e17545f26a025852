"""The interrupt button stops the cell that waits, and no job."""

from __future__ import annotations

import pytest

from tests.kernel.kernel import Kernel

pytestmark = pytest.mark.kernel


def test_interrupt_stops_the_cell_only(kernel: Kernel) -> None:
    """A cell that waits for a job is interrupted; the job runs on to its end, in its first attempt."""
    kernel.run("""
import threading
import nbqueue as nbq

began, go_on = threading.Event(), threading.Event()

@nbq.job
def slow():
    began.set()
    go_on.wait()
    return "done"

queues = nbq.connect("jobs.duckdb")
worker = queues.worker(concurrency=2).start()
receipt = slow.dispatch()
began.wait()
""")

    def interrupt(text: str) -> None:
        if "waiting" in text:
            kernel.interrupt()

    said = kernel.run(
        """
try:
    print("waiting", flush=True)
    receipt.wait()
except KeyboardInterrupt:
    print("interrupted while", receipt.state)
""",
        on_print=interrupt,
    )
    assert said == "waiting\ninterrupted while running\n"
    assert kernel.run("go_on.set(); print(receipt.result(30), receipt.attempt)") == "done 1\n"


def test_interrupt_reaches_no_job(kernel: Kernel) -> None:
    """A script of a job is not interrupted with the cell; it ends when its job is cancelled, with all it has begun."""
    kernel.run("%load_ext nbqueue\nimport time, psutil\nfrom pathlib import Path\nimport nbqueue as nbq")
    kernel.run("%%job\n%%bash\nsleep 600 &\necho $! $$ > pids.part && mv pids.part pids\nsleep 600")
    kernel.run("receipt = _\nwhile not Path('pids').exists(): time.sleep(0.01)")

    def interrupt(text: str) -> None:
        if "waiting" in text:
            kernel.interrupt()

    said = kernel.run(
        """
try:
    print("waiting", flush=True)
    nbq.manager().worker().drain()
except KeyboardInterrupt:
    pids = [int(pid) for pid in Path("pids").read_text().split()]
    print(receipt.state, *(psutil.pid_exists(pid) for pid in pids))
""",
        on_print=interrupt,
    )
    assert said == "waiting\nrunning True True\n"
    kernel.run("receipt.cancel(); receipt.wait(30)")
    ended = "all(not psutil.pid_exists(pid) or psutil.Process(pid).status() == 'zombie' for pid in pids)"
    kernel.run(f"while not {ended}: time.sleep(0.01)")
    assert kernel.run("print(receipt.state)") == "cancelled\n"
