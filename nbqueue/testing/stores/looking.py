"""Finding, forgetting, explaining and counting."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from uuid import UUID

import pytest

from nbqueue.jobs import State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.store import (
    Capability,
    Handlers,
    ReportKind,
    Selection,
    Store,
)
from nbqueue.testing.clock import FakeClock
from nbqueue.testing.workers import (
    NO_WAIT,
    FakeWorker,
    bring,
    get,
    ids,
    need,
    new_job,
)

__all__ = ["Looking"]


class Looking:
    """Finding, forgetting, explaining and counting."""

    # -- find and forget

    def select(self, store: Store, clock: FakeClock) -> dict[str, tuple[Selection, list[UUID]]]:
        """Make jobs, and for each field a selection with what it is to find, oldest first."""
        batch = new_job(clock).job_id
        old = bring(store, clock, State.SUCCEEDED, queue="old")
        clock.advance(100.0)
        cut = clock.time()
        failed = bring(store, clock, State.FAILED, queue="imports", command="import")
        cancelled = bring(store, clock, State.CANCELLED, queue="imports", command="other", batch_id=batch)
        clock.advance(100.0)
        pending = new_job(clock, "import", queue="imports", batch_id=batch)
        store.insert([pending])
        like = bring(
            store, clock, State.FAILED, queue="like", command="like", fingerprint="KeyError at a.py:1"
        )
        return {
            "ids": (Selection(ids=(pending.job_id, old.job_id, batch)), ids([old, pending])),
            "states": (Selection(states=(State.FAILED, State.PENDING)), ids([failed, pending, like])),
            "fingerprint": (Selection(fingerprint="KeyError at a.py:1"), ids([like])),
            "queues": (Selection(queues=("imports", "nosuch")), ids([failed, cancelled, pending])),
            "commands": (Selection(commands=("import",)), ids([failed, pending])),
            "batch_id": (Selection(batch_id=batch), ids([cancelled, pending])),
            "since": (Selection(since=cut), ids([failed, cancelled, pending, like])),
            "finished_before": (Selection(finished_before=cut), ids([old])),
        }

    @pytest.mark.parametrize("field", [f.name for f in fields(Selection)])
    def test_find(self, store: Store, clock: FakeClock, field: str) -> None:
        """Each field of a selection narrows it, alone and together with another."""
        cases = self.select(store, clock)
        assert set(cases) == {f.name for f in fields(Selection)}, "a new field needs its case in select"
        selection, expected = cases[field]
        assert store.find(selection) == expected
        none: dict[str, Any] = {"ids": (), "states": (), "queues": (), "commands": ()}
        if field in none:
            assert store.find(Selection(**{field: none[field]})) == []
        others, narrowed = cases["commands" if field not in ("commands", "fingerprint") else "states"]
        both = {
            f.name: getattr(s, f.name)
            for s in (others, selection)
            for f in fields(Selection)
            if getattr(s, f.name)
        }
        assert store.find(Selection(**both)) == [i for i in expected if i in narrowed]

    @pytest.mark.parametrize("field", [f.name for f in fields(Selection)])
    def test_forget(self, store: Store, clock: FakeClock, field: str) -> None:
        """Forgetting takes the ended jobs of a selection with their history, and no others."""
        selection, expected = self.select(store, clock)[field]
        everything = store.find(Selection())
        doomed = [r.job_id for r in store.get(expected) if r.state.ended]
        assert store.forget(selection) == len(doomed)
        left = [i for i in everything if i not in doomed]
        assert store.find(Selection()) == left
        assert [r.job_id for r in store.get(everything)] == left
        assert not any(answer.done for answer in store.retry(doomed))
        if Capability.SQL in store.capabilities:
            assert {str(i) for i in store.query("SELECT DISTINCT job_id FROM events")["job_id"]} == set(
                map(str, left)
            )
        assert store.forget(selection) == 0

    def test_forget_leaves_what_lives(self, store: Store, clock: FakeClock) -> None:
        """A job that is not ended is not forgotten, even if it is named."""
        running = bring(store, clock, State.RUNNING)
        pending = new_job(clock, delay=5.0)
        store.insert([pending])
        assert store.forget(Selection()) == 0
        assert store.find(Selection()) == ids([running, pending])

    def test_retain(self, store: Store, clock: FakeClock) -> None:
        """What ended longer ago than it is to be kept is forgotten while workers take turns, and nothing else."""
        old = bring(store, clock, State.SUCCEEDED)
        waits = new_job(clock, delay=1e6)
        store.insert([waits])
        worker = FakeWorker(store, "tidy", lease=1e9)
        clock.advance(3600.0)
        young = bring(store, clock, State.FAILED)
        worker.turn()
        assert store.find(Selection()) == ids([old, waits, young])
        store.retain(1800.0)
        worker.turn()
        assert store.find(Selection()) == ids([waits, young])
        clock.advance(3600.0)
        worker.turn()
        assert store.find(Selection()) == ids([waits])
        store.retain(None)
        bring(store, clock, State.SUCCEEDED)
        clock.advance(1e5)
        worker.turn()
        assert len(store.find(Selection())) == 2

    def test_forget_keeps_the_latest(self, store: Store, clock: FakeClock) -> None:
        """With ``keep`` the jobs stay that ended last; one that was retried counts by its last end, or not at all."""
        jobs = []
        for _ in range(5):
            jobs.append(bring(store, clock, State.CANCELLED))
            clock.advance(1.0)
        pending = new_job(clock)
        store.insert([pending])
        store.retry([jobs[0].job_id, jobs[1].job_id])
        store.cancel([jobs[0].job_id])
        assert store.forget(Selection(), 4) == 0
        assert store.forget(Selection(finished_before=clock.time() - 2.5), 2) == 1
        assert store.find(Selection()) == ids([jobs[0], jobs[1], jobs[3], jobs[4], pending])
        assert store.forget(Selection(), 2) == 1
        assert store.find(Selection()) == ids([jobs[0], jobs[1], jobs[4], pending])
        assert store.forget(Selection(), 0) == 2
        assert store.find(Selection()) == ids([jobs[1], pending])

    def test_retain_a_number(self, store: Store, clock: FakeClock) -> None:
        """Of more jobs than are to be kept the latest stay, whatever their age."""
        jobs = []
        for _ in range(6):
            jobs.append(bring(store, clock, State.CANCELLED))
            clock.advance(1.0)
        store.retain(None, 4)
        worker = FakeWorker(store, "tidy", lease=1e9)
        worker.turn()
        assert store.find(Selection()) == ids(jobs[2:])
        store.retain(3.5, 3)
        worker.turn()
        worker.turn()
        assert store.find(Selection()) == ids(jobs[3:])

    def test_retain_by_age_and_number(self, store: Store, clock: FakeClock) -> None:
        """A job that ended long ago and was retried since is not old, and does not put off what is too much."""
        retried = bring(store, clock, State.CANCELLED)
        store.retry([retried.job_id])
        clock.advance(3600.0)
        jobs = [bring(store, clock, State.CANCELLED) for _ in range(3)]
        store.retain(1800.0, 1)
        worker = FakeWorker(store, "tidy", lease=1e9)
        worker.turn()
        worker.turn()
        assert store.find(Selection()) == ids([retried, jobs[-1]])

    def test_forgotten_may_come_again(self, store: Store, clock: FakeClock) -> None:
        """The id of a forgotten job is a new one."""
        job = bring(store, clock, State.SUCCEEDED)
        store.forget(Selection())
        store.insert([job])
        assert get(store, job).state is State.PENDING

    # -- explain

    def test_explain_waiting(self, store: Store, clock: FakeClock) -> None:
        """Each reason for which a pending job does not run has its sentence."""
        job = new_job(clock, queue="imports")
        held_up = new_job(clock, "mine", queue="imports", origin="notebook:sales.ipynb")
        moduled = new_job(clock, "theirs", queue="imports", origin="module:tasks")
        copied = new_job(clock, "mine", queue="imports", origin="notebook:sales.ipynb", code="c0de")
        store.insert([job, held_up, moduled, copied])
        assert "no worker is running" in store.explain(job.job_id)
        far = FakeWorker(store, "far", queues=("emails",))
        assert 'no worker is on queue "imports"' in store.explain(job.job_id)
        assert "emails" in store.explain(job.job_id)
        near = FakeWorker(store, "near", queues=("imports",), handlers=Handlers(frozenset({"other"})))
        assert store.explain(job.job_id).startswith('no handler for "work"')
        assert "waiting for the kernel of sales.ipynb" in store.explain(held_up.job_id)
        assert "another worker to take over a copy of its code" in store.explain(copied.job_id)
        assert "--import tasks" in store.explain(moduled.job_id)
        near.turn(handlers=Handlers(frozenset({"work"})))
        assert "about to be claimed" in store.explain(job.job_id)
        more = new_job(clock, queue="imports")
        store.insert([more])
        near.take_one()
        assert store.explain(job.job_id) == ""
        assert "busy" in store.explain(more.job_id)
        far.leave()

    def test_explain_a_foreground_worker_is_none(self, store: Store, clock: FakeClock) -> None:
        """Whoever serves no queue is no worker to wait for."""
        job = new_job(clock)
        store.insert([job])
        FakeWorker(store, queues=())
        assert "no worker is running" in store.explain(job.job_id)

    def test_explain_times(self, store: Store, clock: FakeClock) -> None:
        """A delay, a pause and a retry are told with their times and errors."""
        delayed = new_job(clock, delay=90.0)
        retried = new_job(clock, tries=3, retry=RetryPolicy(backoff=(30.0,)))
        store.insert([delayed, retried])
        assert store.explain(delayed.job_id) == "delayed until 2023-11-14 22:14:50+00:00, 90.0 s from now"
        worker = FakeWorker(store)
        worker.end(worker.take_one(), Outcome.FAILED, error="KeyError: 'x'")
        said = store.explain(retried.job_id)
        assert "attempt 1 of 3 failed with KeyError: 'x'" in said
        assert "30.0 s from now" in said
        if Capability.PAUSE in store.capabilities:
            store.pause("default", paused=True)
            assert '"default" is paused' in store.explain(delayed.job_id)

    def test_explain_ended(self, store: Store, clock: FakeClock) -> None:
        """What has ended says how, and what would let it run again."""
        spent, given_up = (
            new_job(clock, tries=1),
            new_job(clock, tries=5, retry=RetryPolicy(give_up_on=("errors.E",))),
        )
        twice = new_job(clock, tries=2, retry=NO_WAIT)
        store.insert([spent, given_up, twice])
        worker = FakeWorker(store)
        for claim in worker.take(3):
            worker.end(claim, Outcome.FAILED, error="E: no", kinds=("errors.E",))
        worker.end(worker.take_one(), Outcome.TIMED_OUT)
        assert "its one attempt is spent" in store.explain(spent.job_id)
        assert "retry policy gives up on" in store.explain(given_up.job_id)
        assert "all 2 attempts are spent" in store.explain(twice.job_id)
        good = bring(store, clock, State.SUCCEEDED, queue="good")
        assert "succeeded" in store.explain(good.job_id)
        gone = bring(store, clock, State.CANCELLED, queue="gone")
        assert "cancelled" in store.explain(gone.job_id)
        assert "no job" in store.explain(new_job(clock).job_id)

    # -- queues, workers, books

    @pytest.mark.parametrize("state", list(State), ids=str)
    def test_counts_of_each_state(self, store: Store, clock: FakeClock, state: State) -> None:
        """A queue counts its jobs by state, and knows every state."""
        bring(store, clock, state, queue="q")
        info = next(q for q in store.queues() if q.name == "q")
        assert dict(info.counts) == {s: int(s is state) for s in State}

    def test_queues(self, store: Store, clock: FakeClock) -> None:
        """A queue comes to be by adding it and by a job, not by a worker's list; "default" is always there."""
        store.add_queue("b")
        store.add_queue("b")
        store.insert([new_job(clock, queue="a")])
        FakeWorker(store, queues=("c", "default"))
        assert [q.name for q in store.queues()] == ["a", "b", "default"]

    def test_workers(self, store: Store) -> None:
        """Who is here, with what they said of themselves; joining twice is joining once."""
        worker = FakeWorker(store, concurrency=4, executor="process", host="h", pid=7)
        worker.join()
        assert store.workers() == [worker.info]

    def test_attempts_are_kept(self, store: Store, clock: FakeClock) -> None:
        """Each attempt is a row of its own, with what became of it."""
        need(store, Capability.SQL)
        job = new_job(clock, tries=2, retry=NO_WAIT)
        store.insert([job])
        worker = FakeWorker(store)
        worker.say(worker.take_one(), ReportKind.RELEASED)
        worker.end(worker.take_one(), Outcome.FAILED, error="E: 1")
        worker.end(worker.take_one(), Outcome.SUCCEEDED)
        frame = store.query("SELECT attempt, outcome::VARCHAR AS outcome, error FROM attempts ORDER BY fence")
        assert list(frame["attempt"]) == [1, 1, 2]
        assert list(frame["outcome"]) == ["released", "failed", "succeeded"]
        assert frame["error"][1] == "E: 1"
