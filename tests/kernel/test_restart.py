"""A real kernel: killed, its jobs are there for the next one; restarted, it goes without being killed."""

from __future__ import annotations

import pytest

from tests.kernel.kernel import Kernel

pytestmark = pytest.mark.kernel

DEFINE = """
import os, threading
from pathlib import Path
import nbqueue as nbq

began = threading.Semaphore(0)

@nbq.job
def slow(number, go):
    began.release()
    if not Path(go).exists():
        threading.Event().wait()
    return number
"""


def test_nothing_is_lost_with_a_kernel(kernel: Kernel) -> None:
    """After SIGKILL the next kernel has every job, knows what was interrupted, and runs them once the cell was run."""
    go = kernel.folder / "go"
    kernel.run(DEFINE)
    ids = kernel.ask(f"""
import json
queues = nbq.connect("jobs.duckdb")
receipts = [slow.dispatch(i, {str(go)!r}) for i in range(4)]
receipts += queues.dispatch_many([slow.call(i, {str(go)!r}) for i in range(4, 8)])
worker = queues.worker(concurrency=2).start()
print(json.dumps([str(receipt) for receipt in receipts]))
""")
    kernel.run("for _ in range(2): began.acquire()")
    kernel.kill()

    seen = kernel.ask(f"""
import json
import nbqueue as nbq
queues = nbq.connect("jobs.duckdb")
ids = {ids!r}
print(json.dumps({{
    "interrupted": [[str(one.job_id), one.command, one.begun, one.reason] for one in queues.interrupted],
    "states": [queues.job(i).state for i in ids],
    "attempts": [queues.job(i).attempt for i in ids],
}}))
""")
    begun = [one for one in seen["interrupted"] if one[2]]
    assert {one[0] for one in begun} == set(ids[:2])
    assert {one[1] for one in seen["interrupted"]} == {"slow"}
    assert all("killed" in one[3] and "given back" in one[3] for one in begun)
    assert seen["states"] == ["pending"] * 8
    assert seen["attempts"] == [0] * 8

    # A worker alone does not help: what the cell defines is not here yet.
    why = kernel.ask("""
worker = queues.worker(concurrency=2, when_empty=True).start()
worker.wait()
worker = queues.worker(concurrency=2).start()
print(json.dumps([queues.job(i).why() for i in ids]))
""")
    assert {sentence.partition(":")[0] for sentence in why} == {"no handler"}
    assert all(
        "kernel" in sentence and "reports.ipynb" in sentence and "cell" in sentence for sentence in why
    )

    go.touch()
    kernel.run(DEFINE)
    ended = kernel.ask("""
print(json.dumps([queues.job(i).wait(30).result() for i in ids]))
""")
    assert ended == list(range(8))
    again = kernel.ask("""
events = queues.store.query("select count(*) as n from events where event = 'succeeded'")
print(json.dumps([int(events["n"][0]), [queues.job(i).attempt for i in ids]]))
""")
    assert again == [8, [1] * 8]


def test_a_restart_kills_nothing(kernel: Kernel) -> None:
    """A restart with a worker at work is one that the kernel answers by itself, and the file has everything."""
    kernel.run(DEFINE)
    (job,) = kernel.ask(f"""
import json
queues = nbq.connect("jobs.duckdb")
worker = queues.worker(concurrency=2).start()
receipt = slow.dispatch(1, {str(kernel.folder / "go")!r})
began.acquire()
print(json.dumps([str(receipt)]))
""")
    assert kernel.restart() == []
    state = kernel.ask(f"""
import json
import nbqueue as nbq
queues = nbq.connect("jobs.duckdb")
record = queues.job({job!r}).record()
print(json.dumps([record.state, record.attempt, record.crashes, len(queues.interrupted)]))
""")
    assert state == ["pending", 0, 0, 0]


def test_a_job_prints_into_no_cell(kernel: Kernel) -> None:
    """What a background job prints while a later cell runs is in its own log, and not in that cell."""
    kernel.run("""
import sys, threading, logging
import nbqueue as nbq

before, after = threading.Event(), threading.Event()

@nbq.job
def talk():
    print("from the job")
    before.set()
    after.wait()
    print("still from the job")
    print("and its errors", file=sys.stderr)
    logging.getLogger("library").warning("and its log")

@nbq.job
async def talk_async():
    print("from the async job")

queues = nbq.connect("jobs.duckdb")
worker = queues.worker(concurrency=2).start()
""")
    assert kernel.run("receipt = talk.dispatch(); before.wait(); print('from the cell')") == "from the cell\n"
    said = kernel.run(
        "after.set(); receipt.wait(30); talk_async.dispatch().wait(30); print('from the next cell')"
    )
    assert said == "from the next cell\n"
    logs = kernel.run("print(receipt.logs())")
    for line in ("from the job", "still from the job", "and its errors", "and its log"):
        assert line in logs
