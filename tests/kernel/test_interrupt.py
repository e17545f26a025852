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
