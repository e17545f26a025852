"""The feed of a panel: whatever happens to a queue, its patches lead to what a first look would show."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from nbqueue import QueuedCommand, QueueManager, connect, job
from nbqueue.errors import QueueError
from nbqueue.facade.watching.filtering import JobFilter
from nbqueue.facade.watching.following import Following
from nbqueue.facade.watching.news import Seen
from nbqueue.lifecycle import Outcome
from nbqueue.store import LogChunk, ReportKind
from nbqueue.testing import FakeClock, memory_manager
from nbqueue.testing.workers import FakeWorker
from nbqueue.widgets.panel.feed import Feed
from nbqueue.widgets.panel.table import SIZE, Looked
from tests.widgets.front import patched


@job
def nothing() -> None:
    """Run by thousands."""


class Scene:
    """A queue with a worker that does what it is told, and a feed that follows it."""

    def __init__(self, looked: Looked | None = None) -> None:
        self.clock = FakeClock()
        self.queues: QueueManager = memory_manager(self.clock)
        self.worker = FakeWorker(self.queues.store)
        self.worker.join()
        #: Seconds; what is paced is always due, since an hour passes between two refreshes.
        self.ticks = 0.0
        self.looked = looked or Looked()
        self.feed = self.look()
        self.claims: list[Any] = []
        self.seen = self.feed.state.snapshot()

    def look(self) -> Feed:
        """Look for the first time."""
        feed = Feed(self.queues, self.looked, clock=self.clock.time, ticks=lambda: self.ticks)
        feed.state.take(now=feed.now)
        return feed

    def refresh(self) -> dict[str, Any] | None:
        """Refresh, and do with the patch what a front end does."""
        self.ticks += 3600.0
        self.feed.refresh()
        patch = self.feed.state.take(now=self.feed.now)
        if patch is not None:
            self.seen = patched(self.seen, json.loads(json.dumps(patch)))
        return patch

    def dispatch(self, n: int = 0) -> UUID:
        command = QueuedCommand(("import", "clean")[n % 2]).with_arg(f"users{n}.csv").on_queue(f"q{n % 3}")
        return self.queues.dispatch(command).job_id

    def take(self, slots: int = 1) -> list[Any]:
        claims = self.worker.take(slots)
        self.claims += claims
        return claims

    def end(self, outcome: Outcome, error: str = "") -> None:
        for claim in self.claims[:1]:
            said = {"error": error, "traceback": f"Traceback …\n{error}"} if error else {}
            now = self.clock.time()
            self.worker.end(claim, outcome, started_at=now, finished_at=now, **said)
        del self.claims[:1]

    def pick(self, n: int) -> UUID | None:
        ids = self.queues.jobs()["job_id"].tolist()
        return UUID(ids[n % len(ids)]) if ids else None

    def close(self) -> None:
        self.queues.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def on_one(verb: Callable[[QueueManager, UUID], object]) -> Callable[[Scene, int], None]:
    def play(scene: Scene, n: int) -> None:
        job_id = scene.pick(n)
        if job_id is not None:
            verb(scene.queues, job_id)

    return play


PLAYS: dict[str, Callable[[Scene, int], object]] = {
    "dispatch": lambda scene, n: [scene.dispatch(n + i) for i in range(1 + n % 3)],
    "take": lambda scene, n: scene.take(1 + n % 2),
    "succeed": lambda scene, _: scene.end(Outcome.SUCCEEDED),
    "fail": lambda scene, n: scene.end(
        Outcome.FAILED, ("KeyError: 0", "KeyError: 1", "OSError: 2", "")[n % 4]
    ),
    "prune": lambda scene, n: scene.queues.prune(keep=n),
    "retry all": lambda scene, _: scene.queues.retry_all(),
    "retry alike": lambda scene, _: scene.queues.retry_all(fingerprint="KeyError"),
    "cancel": on_one(lambda queues, job_id: queues.cancel(job_id)),
    "retry": on_one(lambda queues, job_id: queues.store.retry((job_id,))),
    "forget": on_one(lambda queues, job_id: queues.job(job_id).state.ended and queues.forget(job_id)),
    "pause": lambda scene, _: scene.queues.pause("default"),
    "resume": lambda scene, _: scene.queues.resume("default"),
    "wait": lambda scene, n: scene.clock.advance(7 * n),
    "refresh": lambda scene, _: scene.refresh(),
    "look": lambda scene, _: scene.feed.look(scene.looked),
}
#: What a feed that looks for the first time need not have alike.
DIFFERENT = ("v", "now")


def same(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in DIFFERENT}


@pytest.mark.parametrize(
    "looked",
    [
        Looked(),
        Looked(page=1, size=3),
        Looked(JobFilter(states=("failed", "running")), size=4),
        Looked(JobFilter(queue="q1", text="USERS")),
    ],
    ids=["all", "second page", "states", "queue and text"],
)
# What fails is shown as it was found: a step looks at a whole queue, and to make it smaller would take minutes.
@settings(max_examples=4, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(plays=st.lists(st.tuples(st.sampled_from(sorted(PLAYS)), st.integers(0, 6)), max_size=10))
@example(plays=[("take", 0), ("succeed", 0), ("retry", 2)])
@example(plays=[("take", 1), ("fail", 0), ("fail", 2), ("prune", 1)])
@example(plays=[("take", 1), ("fail", 0), ("fail", 3), ("retry alike", 0), ("take", 0), ("fail", 2)])
def test_following_is_looking_again(looked: Looked, plays: list[tuple[str, int]]) -> None:
    """After whatever happened, what the patches led to is what somebody sees who looks for the first time."""
    scene = Scene(looked)
    try:
        for name, n in [("dispatch", 2), *plays, ("refresh", 0)]:
            PLAYS[name](scene, n)
            scene.refresh()
        assert scene.seen == scene.feed.state.snapshot()
        assert same(scene.seen) == same(scene.look().state.snapshot())
        frame = scene.queues.failures()
        told = dict(zip(frame["fingerprint"].fillna(""), frame["jobs"], strict=True))
        assert {one["fingerprint"]: one["count"] for one in scene.seen["failures"]} == told
    finally:
        scene.close()


def test_a_long_history_comes_to_the_same(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long history a first look shows some rows; the others, failures and the past follow, while things happen."""
    scene.queues.dispatch_many([QueuedCommand("import").with_arg(n) for n in range(9)])
    scene.take(4)
    for _ in range(3):
        scene.end(Outcome.FAILED, "KeyError: 1")
    with monkeypatch.context() as long:
        long.setattr("nbqueue.widgets.panel.feed._SHORT", 0)
        long.setattr("nbqueue.widgets.panel.feed._ROWS", 2)
        long.setattr("nbqueue.widgets.panel.past.PIECE", 4)
        scene.feed = scene.look()
        scene.seen = scene.feed.state.snapshot()
        assert len(scene.seen["jobs"]["order"]) == 2
        assert scene.seen["jobs"]["total"] == 9
        for n in range(20):
            if n < 5:
                scene.dispatch(n)
            scene.refresh()
    assert same(scene.seen) == same(scene.look().state.snapshot())
    assert sum(scene.seen["series"]["failed"]) == 3


def test_a_look_does_one_dear_thing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that reads rows of a long history leaves failures, and the minutes before, to the ones after it."""
    for n in range(4):
        scene.dispatch(n)
    scene.take(3)
    scene.end(Outcome.FAILED, "KeyError: 1")
    monkeypatch.setattr("nbqueue.widgets.panel.feed._SHORT", 0)
    monkeypatch.setattr("nbqueue.widgets.panel.feed._ROWS", 2)
    scene.feed = scene.look()
    scene.seen = scene.feed.state.snapshot()
    found = []
    for _ in range(4):
        shown = scene.seen
        found.append((len(shown["jobs"]["order"]), len(shown["failures"]), sum(shown["series"]["failed"])))
        scene.refresh()
    assert found == [(2, 0, 0), (4, 0, 0), (4, 1, 0), (4, 1, 1)]


def test_failures_come_while_things_happen(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the jobs of a long history failed with is read in every second look, however much there is to show."""
    for n in range(4):
        scene.dispatch(n)
    scene.take(3)
    scene.end(Outcome.FAILED, "KeyError: 1")
    for name, less in {"widgets.panel.feed._SHORT": 0, "facade.watching.failing.PIECE": 8}.items():
        monkeypatch.setattr(f"nbqueue.{name}", less)
    scene.feed = scene.look()
    scene.seen = scene.feed.state.snapshot()
    found = []
    for n in range(6):
        scene.dispatch(n)
        scene.refresh()
        found.append(len(scene.seen["failures"]))
    # There were eight events before, and there are twelve after four looks: two pieces.
    assert found == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("where", ["look", "rows", "names", "handlers"])
def test_refresh_that_fails_loses_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """After a refresh that failed, wherever it was, the next shows what somebody sees who looks for the first time."""
    scene.dispatch()
    scene.refresh()
    scene.take()
    scene.end(Outcome.FAILED, "KeyError: 1")
    scene.dispatch(1)

    def fails(*_args: object) -> None:
        raise QueueError("a moment's trouble")

    with monkeypatch.context() as trouble:
        trouble.setattr(QueueManager if where == "handlers" else Following, where, fails)
        with pytest.raises(QueueError):
            scene.refresh()
    scene.refresh()
    assert same(scene.seen) == same(scene.look().state.snapshot())
    assert scene.seen["jobs"]["total"] == 2
    assert sum(scene.seen["series"]["failed"]) == 1


def test_what_ends_during_the_first_look_counts_once(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that ends while somebody looks for the first time is one that ended."""
    scene.dispatch()
    scene.take()
    real = Following.seen

    def seen(following: Following) -> Seen:
        found = real(following)
        scene.end(Outcome.SUCCEEDED)
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Following, "seen", seen)
        scene.feed = scene.look()
    scene.seen = scene.feed.state.snapshot()
    scene.refresh()
    assert sum(scene.seen["series"]["succeeded"]) == 1


def test_nothing_new_is_no_patch(scene: Scene) -> None:
    """A refresh after which nothing is different sends nothing."""
    scene.dispatch()
    assert scene.refresh() is not None
    assert scene.refresh() is None


def test_patch_has_only_what_changed(scene: Scene) -> None:
    """Of many jobs, one that moves is one row."""
    ids = [scene.dispatch(0) for _ in range(50)]
    scene.refresh()
    (claim,) = scene.take()
    patch = scene.refresh()
    assert patch is not None
    assert list(patch["rows"]) == [str(claim.job_id)] == [str(ids[0])]
    assert "order" not in patch
    assert patch["rows"][str(ids[0])]["state"] == "running"


def test_new_jobs_come_first_and_a_full_page_lets_go(scene: Scene) -> None:
    """The table has the newest jobs first, a page of them, and counts them all."""
    ids = [str(scene.dispatch(0)) for _ in range(3)]
    scene.feed.look(Looked(size=2))
    scene.seen = patched(scene.seen, scene.feed.state.take(now=0) or {})
    assert scene.seen["jobs"]["order"] == [ids[2], ids[1]]
    newest = str(scene.dispatch(0))
    patch = scene.refresh()
    assert patch is not None
    assert (patch["order"], patch["gone"], patch["set"]["jobs.total"]) == ([newest, ids[2]], [ids[1]], 4)


def test_filter_that_means_nothing_leaves_the_table(scene: Scene) -> None:
    """A filter for a state that does not exist is refused, and what was looked at stays."""
    scene.dispatch()
    with pytest.raises(ValueError, match="did you mean"):
        scene.feed.look(Looked(JobFilter(states=("faild",))))
    assert scene.feed.looked == Looked()


def test_workers_show_what_they_run(scene: Scene) -> None:
    """A worker has its running jobs, from the claim on until they end."""
    scene.dispatch()
    (claim,) = scene.take()
    scene.refresh()
    (worker,) = scene.seen["workers"]
    assert [job["id"] for job in worker["running"]] == [str(claim.job_id)]
    assert worker["running"][0]["since"] == round(scene.clock.time() * 1000)
    scene.end(Outcome.SUCCEEDED)
    scene.refresh()
    assert scene.seen["workers"][0]["running"] == []


def test_failures_are_grouped(scene: Scene) -> None:
    """Failed jobs stand by what they failed with, and one that is retried is not among them."""
    for error in ("KeyError: 1", "KeyError: 2", "OSError: 3"):
        scene.dispatch()
        scene.take()
        scene.end(Outcome.FAILED, error)
    scene.refresh()
    assert [(f["fingerprint"], f["count"]) for f in scene.seen["failures"]] == [
        ("KeyError", 2),
        ("OSError", 1),
    ]
    scene.queues.retry_all(fingerprint="KeyError")
    scene.refresh()
    assert [f["fingerprint"] for f in scene.seen["failures"]] == ["OSError"]


def test_series_has_the_last_minutes(scene: Scene) -> None:
    """Ten minutes in stretches of ten seconds: what ended in each, and what was pending at its end."""
    scene.dispatch()
    scene.dispatch()
    scene.refresh()
    scene.clock.advance(30)
    scene.take()
    scene.end(Outcome.SUCCEEDED)
    scene.refresh()
    series = scene.seen["series"]
    assert (series["step"], len(series["pending"])) == (10, 60)
    assert series["pending"][-4:] == [2, 2, 2, 1]
    assert series["succeeded"][-4:] == [0, 0, 0, 1]


def test_delayed_job_is_looked_at_when_it_is_due(scene: Scene) -> None:
    """A row that will be different by itself says when."""
    due = 3.0
    scene.queues.dispatch(QueuedCommand("later").with_delay(due))
    scene.refresh()
    (row,) = scene.seen["jobs"]["rows"].values()
    # The views read the machine's clock, which is years after this one.
    assert row["scheduled"] - row["dispatched"] == due * 1000


def test_due_jobs_leave_the_filter_beyond_the_page() -> None:
    """Of the jobs that wait for their time, those that are not shown go out of the total as well when it has come."""
    with memory_manager() as queues:
        soon = [queues.dispatch(QueuedCommand("later").with_delay(1.0)) for _ in range(3)]
        # The latest is the one that the page shows.
        queues.dispatch(QueuedCommand("later").with_delay(3600.0))
        feed = Feed(queues, Looked(JobFilter(states=("scheduled",)), size=1))
        first = feed.state.get("jobs.total")
        # However slow this machine is: what was due before it was looked at may be missing.
        assert first == 4 or datetime.now(UTC) >= soon[0].scheduled_at
        over = time.monotonic() + 20
        while feed.state.get("jobs.total") != 1 and time.monotonic() < over:
            time.sleep(min(feed.refresh() or 0.0, 1.0))
        assert feed.state.get("jobs.total") == 1


def test_what_was_claimed_ahead_does_not_run(scene: Scene) -> None:
    """A worker shows no more running jobs than it has slots: those that it claimed first."""
    ids = [str(scene.dispatch(0)) for _ in range(5)]
    slots = scene.queues.workers()[0].concurrency
    scene.take(slots)
    scene.clock.advance(1)
    scene.take(slots + 2)
    scene.refresh()
    (worker,) = scene.seen["workers"]
    assert [job["id"] for job in worker["running"]] == ids[:slots]
    assert sum(queue["running"] for queue in scene.seen["queues"]) == slots + 2


def test_of_jobs_claimed_together_the_first_run(scene: Scene) -> None:
    """Of what a worker claimed ahead in one turn that runs which it claimed first, whatever was dispatched first."""
    ids = [
        str(scene.queues.dispatch(QueuedCommand("import").with_priority(priority)).job_id)
        for priority in (0, 0, 0, 9)
    ]
    slots = scene.queues.workers()[0].concurrency
    assert slots < len(ids)
    scene.take(len(ids))
    scene.refresh()
    for feed in (scene.feed, scene.look()):
        (worker,) = feed.state.snapshot()["workers"]
        assert ids[-1] in [job["id"] for job in worker["running"]]


def test_a_storm_is_shown_to_its_end(tmp_path: Path) -> None:
    """A look while thousands of jobs run may show how it stood before; the first one after them shows what is."""
    with connect(tmp_path / "jobs.duckdb") as queues, queues.worker(concurrency=2) as worker:
        feed = Feed(queues)
        for _ in range(2):
            queues.dispatch_many([nothing.call()] * 5_000)
            for _ in range(3):
                feed.refresh()
        worker.drain(60)
        feed.refresh()
        feed.state.take(now=0)
        shown = feed.state.snapshot()
        frame = queues.jobs(limit=SIZE)
        assert shown["jobs"]["order"] == frame["job_id"].tolist()
        assert {row["state"] for row in shown["jobs"]["rows"].values()} == {"succeeded"}
        assert (shown["jobs"]["total"], shown["queues"][0]["succeeded"]) == (10_000, 10_000)
        assert sum(shown["series"]["succeeded"]) == 10_000


def test_what_is_not_known_yet_is_not_drawn(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the minutes before were read, the charts begin where somebody began to look, instead of a flat line."""
    scene.dispatch()
    for name, less in {"panel.feed._SHORT": 0, "panel.past.PIECE": 1}.items():
        monkeypatch.setattr(f"nbqueue.widgets.{name}", less)
    scene.clock.advance(60)
    scene.feed = scene.look()
    series = scene.feed.state.snapshot()["series"]
    assert (series["pending"], series["start"]) == ([1], round(scene.clock.time()) // 10 * 10_000)


def test_detail_has_everything_and_follows(scene: Scene) -> None:
    """The open job has its arguments, attempts and output, and what it writes comes in while it runs."""
    job_id = str(scene.dispatch(1))
    (claim,) = scene.take()
    scene.feed.open(job_id)
    scene.refresh()
    detail = scene.seen["detail"]
    assert (detail["id"], detail["arguments_text"], detail["logs"]) == (job_id, "'users1.csv'", [])
    assert [attempt["outcome"] for attempt in detail["attempts"]] == ["running"]
    at = scene.clock.time()
    scene.worker.say(claim, ReportKind.NEWS, logs=(LogChunk("stdout", "half\n", at),))
    patch = scene.refresh()
    assert patch is not None
    assert patch["detail"]["logs"] == [
        {"attempt": 1, "stream": "stdout", "text": "half\n", "at": round(at * 1000)}
    ]
    scene.end(Outcome.FAILED, "ValueError: no")
    scene.refresh()
    detail = scene.seen["detail"]
    assert (detail["state"], detail["attempts"][0]["error"]) == ("failed", "ValueError: no")
    assert detail["traceback"].endswith("ValueError: no")


def test_detail_of_a_forgotten_job_closes(scene: Scene) -> None:
    """A job that is forgotten while it is looked at is looked at no more."""
    job_id = scene.dispatch()
    scene.take()
    scene.end(Outcome.SUCCEEDED)
    scene.feed.open(str(job_id))
    scene.refresh()
    assert scene.seen["detail"]["id"] == str(job_id)
    scene.queues.forget(job_id)
    scene.refresh()
    assert scene.seen["detail"] is None
    assert scene.seen["jobs"]["order"] == []


def test_long_log_is_cut_at_its_beginning(scene: Scene) -> None:
    """Of a long log the end is shown, and that it is not all."""
    job_id = str(scene.dispatch())
    (claim,) = scene.take()
    chunks = tuple(LogChunk("stdout", f"{n}" * 10_000, scene.clock.time()) for n in range(30))
    scene.worker.say(claim, ReportKind.NEWS, logs=chunks)
    scene.feed.open(job_id)
    scene.refresh()
    detail = scene.seen["detail"]
    assert sum(len(chunk["text"]) for chunk in detail["logs"]) == 200_000
    assert detail["logs"][-1]["text"].endswith("29")
    assert detail["logs_truncated"]


def test_everything_sent_is_json(scene: Scene) -> None:
    """Any text a job may have goes through JSON as it is."""
    text = "<img src=x onerror=alert(1)>\u2028\x00\ud800"
    scene.queues.dispatch(QueuedCommand("odd").with_arg(text[:-1]).with_metadata("note", text[:-1]))
    scene.refresh()
    (row,) = scene.seen["jobs"]["rows"].values()
    assert "<img src=x onerror=alert(1)>" in row["arguments"]
