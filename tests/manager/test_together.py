"""Many that hand in work at once: each has its own answer, whoever else is in the same commit."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

import nbqueue as nbq
from nbqueue.errors import StaleClaim
from nbqueue.facade.ids import new_ids
from nbqueue.facade.receipt import JobDispatch
from nbqueue.stores.index import Index
from nbqueue.stores.journal import Journal

PATIENCE = 30.0
DATA = nbq.QueuedCommand("import:data")


def together(call: Callable[[int], object], count: int) -> list[object]:
    """Have so many threads call at once; gives what each was answered, or the error it met."""
    answers: list[object] = [None] * count
    ready = threading.Barrier(count)

    def one(number: int) -> None:
        ready.wait(PATIENCE)
        try:
            answers[number] = call(number)
        except nbq.NbqueueError as error:
            answers[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    return answers


class Held:
    """Keeps a store's writer busy, so that what comes meanwhile lies in its inbox together.

    Parameters
    ----------
    queues : QueueManager
        On a file that this process owns.
    """

    def __init__(self, queues: nbq.QueueManager) -> None:
        self._store = queues.store._owned  # type: ignore[attr-defined]
        self._begun, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._store._run, args=(self._hold,))

    def _hold(self, _index: Index) -> None:
        self._begun.set()
        assert self._go_on.wait(PATIENCE)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(PATIENCE)
        return self

    def until(self, count: int) -> None:
        """Let go once so many calls wait."""
        until = time.monotonic() + PATIENCE
        while len(self._store._inbox) < count and time.monotonic() < until:
            time.sleep(0.001)
        assert len(self._store._inbox) == count
        self._go_on.set()

    def __exit__(self, *_exc: object) -> None:
        self._go_on.set()
        self._thread.join(PATIENCE)


def test_each_has_its_own_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals among others in one commit reach who is refused; all else goes into the index as few runs, once."""
    runs: list[int] = []
    real = Index.insert

    def insert(index: Index, jobs: list[object], *more: object) -> object:
        runs.append(len(jobs))
        return real(index, jobs, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Index, "insert", insert)
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        calls: dict[int, Callable[[], object]] = {
            3: lambda: queues.store.insert([], "a worker that is gone"),
            9: lambda: queues.store.pause("nowhere", paused=True),
            14: lambda: queues.dispatch(DATA, priority=1_000),
        }
        with Held(queues) as held:
            releasing = threading.Thread(target=held.until, args=(31,))
            releasing.start()
            answers = together(lambda n: calls.get(n, lambda: queues.dispatch(DATA, priority=n))(), 32)
            releasing.join(PATIENCE)
        refused = {n: type(answers[n]) for n in calls}
        assert refused == {3: StaleClaim, 9: nbq.QueueUnavailable, 14: nbq.InvalidCommand}
        taken = [answer for n, answer in enumerate(answers) if n not in calls]
        assert {type(answer) for answer in taken} == {JobDispatch}
        assert sorted(queues.jobs()["priority"]) == [n for n in range(32) if n not in calls]
    # Two others between them part what lies together three times at most.
    assert sum(runs) == 29
    assert len(runs) <= 4


def test_a_commit_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody in it is told, and nobody before or after it."""
    real, fails = Journal.append, threading.Event()

    def append(journal: Journal, body: bytes) -> int:
        if fails.is_set():
            fails.clear()
            raise OSError(28, "No space left on device")
        return real(journal, body)

    monkeypatch.setattr(Journal, "append", append)
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        before = queues.dispatch(DATA)
        with Held(queues) as held:
            fails.set()
            releasing = threading.Thread(target=held.until, args=(16,))
            releasing.start()
            answers = together(lambda _: queues.dispatch(DATA), 16)
            releasing.join(PATIENCE)
        assert {type(answer) for answer in answers} == {nbq.DispatchFailed}
        after = together(lambda _: queues.dispatch(DATA), 16)
        assert {type(answer) for answer in after} == {JobDispatch}
        assert set(queues.jobs()["job_id"].astype(str)) == {str(before), *map(str, after)}


def test_the_same_job_twice_in_one_commit(tmp_path: Path) -> None:
    """One whose answer was lost is sent again, and may meet itself: it is there once."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        prepared, _ = queues.prepare(None, (DATA, DATA))
        with Held(queues) as held:
            releasing = threading.Thread(target=held.until, args=(4,))
            releasing.start()
            orders = ([0, 1], [1], [1, 0], [0])
            answers = together(lambda n: queues.store.insert([prepared[i].job for i in orders[n]]), 4)
            releasing.join(PATIENCE)
        assert answers == [[]] * 4
        assert sorted(queues.jobs()["job_id"].astype(str)) == sorted(str(one.job.job_id) for one in prepared)


def test_loops_at_once(tmp_path: Path) -> None:
    """Each loop has the answers of its own tasks; one that was closed while a call was on its way harms nobody."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:

        async def many() -> list[str]:
            return [str(one) for one in await asyncio.gather(*(queues.adispatch(DATA) for _ in range(40)))]

        with Held(queues) as held:
            gone = asyncio.new_event_loop()
            going = gone.create_task(queues.adispatch(DATA))
            gone.call_soon(gone.stop)
            gone.run_forever()
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                gone.run_until_complete(going)
            gone.close()
            held.until(1)
        answers = together(lambda _: asyncio.run(many()), 4)
        found = {job_id for answer in answers for job_id in answer}  # type: ignore[attr-defined]
        assert len(found) == 160
        assert len(queues.jobs()) == 161
        assert found <= set(queues.jobs()["job_id"].astype(str))


def test_a_loop_is_woken_once_a_commit(tmp_path: Path) -> None:
    """Waking it for every job of a commit would be most of what such a dispatch takes."""
    woken = 0

    async def main() -> None:
        nonlocal woken
        loop = asyncio.get_running_loop()
        await queues.adispatch(DATA)
        real = loop.call_soon_threadsafe

        def count(*args: object, **named: object) -> object:
            nonlocal woken
            woken += 1
            return real(*args, **named)  # type: ignore[arg-type]

        loop.call_soon_threadsafe = count  # type: ignore[method-assign,assignment]
        with Held(queues) as held:
            tasks = [asyncio.create_task(queues.adispatch(DATA)) for _ in range(32)]
            await asyncio.sleep(0)
            held.until(32)
        await asyncio.gather(*tasks)

    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        asyncio.run(main())
        assert len(queues.jobs()) == 33
    assert woken == 1


# ------------------------------------------------------------------------------------------------------- ids
def test_ids_of_many_threads() -> None:
    """None is made twice, in whatever pieces they are asked for, and each thread's own rise."""
    sizes = [1, 3, 1, 300, 1, 256, 0, 1]
    made = together(lambda _: [one for size in sizes for one in new_ids(size, 1e9)], 16)
    assert all(own == sorted(own) for own in made)  # type: ignore[type-var,call-overload]
    assert len({one for own in made for one in own}) == 16 * sum(sizes)  # type: ignore[attr-defined]


_FORK = """
import os, sys
from nbqueue.errors import StaleClaim
from nbqueue.facade.ids import new_ids
new_ids(1, 1.0)
read, write = os.pipe()
pid = os.fork()
mine = [str(one) for _ in range(50) for one in new_ids(1, 2.0)]
if not pid:
    os.write(write, " ".join(mine).encode())
    os._exit(0)
os.waitpid(pid, 0)
theirs = os.read(read, 1 << 16).decode().split()
sys.exit(0 if len(theirs) == 50 and len({*mine, *theirs}) == 100 else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is none here")
def test_ids_of_a_fork() -> None:
    """A fork makes others than its parent, though both go on from the same moment."""
    assert subprocess.run([sys.executable, "-c", _FORK], timeout=PATIENCE, check=False).returncode == 0


def test_receipts_are_held_as_long_as_somebody_holds_them(tmp_path: Path) -> None:
    """The one that is held is given again; let go of, nothing of it stays."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        held = queues.live.receipts
        kept = queues.dispatch(DATA)
        assert queues.job(kept.job_id) is kept
        dropped = queues.dispatch(DATA).job_id
        gc.collect()
        assert held.get(dropped) is None
        assert [one() for one in held._held] == [kept]
        again = queues.job(dropped)
        assert queues.job(dropped) is again


@pytest.mark.parametrize("left", [1, 0])
def test_a_receipt_goes_while_another_of_its_job_comes(tmp_path: Path, left: int) -> None:
    """The new one stays known, whether it comes while the old one is still noted or afterwards."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        job_id, held = queues.dispatch(DATA).job_id, queues.live.receipts
        noted: list[int] = []
        came: list[JobDispatch] = []

        def come(_gone: object) -> None:
            noted.append(len(held._held))
            came.append(queues.job(job_id))

        old = JobDispatch(job_id, "c", source=queues)
        # Who was the last to refer to something is the first to be told that it is gone.
        if left:
            held.keep(old)
        watching = weakref.ref(old, come)
        if not left:
            held.keep(old)
        del old
        assert watching() is None
        assert noted == [left]
        assert queues.job(job_id) is came[0]
        assert len(held._held) == 1


class _Found(dict[object, object]):
    """Has something happen as soon as a receipt's place was looked up."""

    then: Callable[[], object]

    def setdefault(self, key: object, default: object = None) -> object:
        found = super().setdefault(key, default)
        if found is not default:
            self.then()
        return found


@pytest.mark.parametrize("goes", [False, True])
def test_two_ask_for_the_same_receipt(tmp_path: Path, *, goes: bool) -> None:
    """Both get the one that came first; where that goes in this very moment, the second is noted in its place."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        job_id, held = queues.dispatch(DATA).job_id, queues.live.receipts
        held._held = found = _Found()
        held._drop = found.pop
        came: list[JobDispatch] = []
        found.then = came.clear if goes else int

        def make() -> JobDispatch:
            came.append(queues.job(job_id))
            return JobDispatch(job_id, "c", source=queues)

        given = held.receipt(job_id, make, queues)
        assert [given] * len(came) == came
        assert bool(came) is not goes
        assert queues.job(job_id) is given
        assert [one() for one in held._held] == [given]
