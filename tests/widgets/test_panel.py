"""The panel: a widget that tells a front end what changes, and does what it is asked for."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from nbqueue import QueuedCommand, QueueManager, connect
from nbqueue.errors import QueueError
from nbqueue.facade.watching.filtering import JobFilter
from nbqueue.handlers.registry import registry
from nbqueue.lifecycle import Outcome
from nbqueue.stores.postgres import link
from nbqueue.testing import FakeClock, memory_manager
from nbqueue.testing.workers import FakeWorker
from nbqueue.widgets.panel import panel as module
from nbqueue.widgets.panel.panel import Panel
from nbqueue.widgets.panel.table import Looked
from nbqueue.widgets.publisher import Publisher
from tests.servers import PASSWORD, PostgresServer, fresh_schema
from tests.widgets.front import patched


class Seat:
    """A panel with somebody in front of it, who clicks and sees."""

    def __init__(self, queues: QueueManager, looked: Looked | None = None) -> None:
        self.clock = FakeClock()
        self.publisher = Publisher(ticks=self.clock.ticks, threaded=False)
        self.queues = queues
        self.panel = Panel(queues, looked or Looked(), publisher=self.publisher, ticks=self.clock.ticks)
        self.sent: list[dict[str, Any]] = []
        self.panel.send = lambda message, **_: self.sent.append(message)  # type: ignore[method-assign]
        self.numbers = 0
        self.tell("hello")
        self.step()

    def tell(self, what: str, **more: Any) -> int:
        """Send a command; gives its number."""
        self.numbers += 1
        message = {"method": "custom", "content": {"id": self.numbers, "do": what, **more}}
        self.panel._handle_msg({"content": {"data": message}, "buffers": []})
        return self.numbers

    def step(self) -> None:
        """Let the publisher work."""
        self.clock.advance(60.0)
        self.publisher.step()

    def ask(self, what: str, **more: Any) -> dict[str, Any]:
        """Send a command and give what came of it."""
        number = self.tell(what, **more)
        self.step()
        (done,) = [m for m in self.sent if m["type"] == "done" and m["id"] == number]
        return done

    def seen(self) -> dict[str, Any]:
        """The state that the messages lead to."""
        state: dict[str, Any] = {}
        for message in self.sent:
            if message["type"] == "snapshot":
                state = message["state"]
            elif message["type"] == "patch":
                state = patched(state, message)
        return state


@pytest.fixture
def queues() -> Iterator[QueueManager]:
    with memory_manager() as made:
        yield made


@pytest.fixture
def seat(queues: QueueManager) -> Iterator[Seat]:
    made = Seat(queues)
    yield made
    made.panel.close()


def dispatch(queues: QueueManager, command: str = "import", **options: Any) -> str:
    return str(queues.dispatch(QueuedCommand(command), **options).job_id)


def still(state: dict[str, Any]) -> dict[str, Any]:
    """What does not go on by time alone."""
    return {name: value for name, value in state.items() if name not in ("v", "now", "series")}


def run(queues: QueueManager, outcome: Outcome, error: str = "") -> None:
    worker = FakeWorker(queues.store, worker_id=f"w{time.monotonic_ns()}")
    (claim,) = worker.take()
    worker.end(claim, outcome, started_at=time.time(), finished_at=time.time(), error=error)
    worker.leave()


# -- what is sent


def test_hello_is_answered_with_the_whole_state(seat: Seat) -> None:
    """A front end that comes gets everything, and its words are acknowledged first."""
    assert [message["type"] for message in seat.sent] == ["received", "snapshot"]
    assert seat.sent[1]["state"] == seat.panel.get_state("snapshot")["snapshot"]


def test_changes_travel_as_patches(seat: Seat) -> None:
    """A new job comes as one patch, and leads to the state that a page that is loaded anew would get."""
    job_id = dispatch(seat.queues)
    seat.step()
    assert [message["type"] for message in seat.sent[2:]] == ["patch"]
    assert seat.seen()["jobs"]["order"] == [job_id]
    assert seat.seen() == seat.panel.get_state()["snapshot"]


def test_nothing_is_sent_while_nothing_changes(seat: Seat) -> None:
    """A panel of a queue in which nothing happens is silent."""
    sent = len(seat.sent)
    for _ in range(5):
        seat.step()
    assert len(seat.sent) == sent


def test_snapshot_is_not_sent_by_itself(seat: Seat) -> None:
    """The state is no trait that is synced with each change, and a front end cannot set it."""
    seat.panel._handle_msg(
        {"content": {"data": {"method": "update", "state": {"snapshot": {"v": 99}}}}, "buffers": []}
    )
    assert seat.panel.snapshot == {}
    assert seat.panel.get_state("snapshot")["snapshot"]["v"] < 99


# -- what is asked for


def test_command_is_acknowledged_at_once_and_carried_out_by_the_publisher(seat: Seat) -> None:
    """In the kernel's thread a command is only taken in."""
    number = seat.tell("pause", queue="default")
    assert seat.sent[-1] == {"type": "received", "id": number}
    assert not seat.queues.queues()[0].paused
    seat.step()
    assert seat.queues.queues()[0].paused
    assert seat.seen()["queues"][0]["paused"]


def test_pause_and_resume(seat: Seat) -> None:
    """A queue is switched by its name."""
    assert seat.ask("pause", queue="default")["ok"]
    assert seat.ask("resume", queue="default") == {
        "type": "done", "id": seat.numbers, "ok": True, "text": 'queue "default" goes on'
    }  # fmt: skip
    assert not seat.queues.queues()[0].paused


def test_cancel_retry_and_forget(seat: Seat) -> None:
    """What can be done to a job is done, and shown by the next patch."""
    job_id = dispatch(seat.queues)
    assert seat.ask("cancel", jobs=[job_id])["ok"]
    assert seat.seen()["jobs"]["rows"][job_id]["state"] == "cancelled"
    assert seat.ask("retry", jobs=[job_id])["text"] == "1 job to run again"
    assert seat.seen()["jobs"]["rows"][job_id]["state"] == "pending"
    seat.ask("cancel", jobs=[job_id])
    assert seat.ask("forget", jobs=[job_id])["ok"]
    assert seat.seen()["jobs"]["order"] == []


def test_retry_failure(seat: Seat) -> None:
    """All that failed with the same error run again by one click."""
    for error in ("KeyError: 1", "KeyError: 2", "OSError: 3"):
        dispatch(seat.queues)
        run(seat.queues, Outcome.FAILED, error)
    assert seat.ask("retry_failure", fingerprint="KeyError")["text"] == "2 jobs to run again"
    assert seat.queues.queues()[0].counts["failed"] == 1  # type: ignore[index]


def test_view_shows_what_it_asks_for(seat: Seat) -> None:
    """A filter and a page are looked at as soon as they are asked for."""
    ids = [dispatch(seat.queues, command) for command in ("import", "clean", "import")]
    wanted = {
        "states": [],
        "queue": None,
        "command": "import",
        "text": "",
        "fingerprint": None,
        "batch": None,
    }
    assert seat.ask("view", filter=wanted, page=1, size=1)["ok"]
    jobs = seat.seen()["jobs"]
    assert (jobs["order"], jobs["filter"], jobs["page"], jobs["size"], jobs["total"]) == (
        [ids[0]],
        wanted,
        1,
        1,
        2,
    )


def test_detail_opens_and_closes(seat: Seat) -> None:
    """A job is looked at closely, and no more."""
    job_id = dispatch(seat.queues)
    assert seat.ask("detail", job=job_id)["ok"]
    assert seat.seen()["detail"]["why"] == seat.queues.why(job_id)
    assert seat.ask("detail", job=None)["ok"]
    assert seat.seen()["detail"] is None


@pytest.mark.parametrize(
    ("what", "more", "sentence"),
    [
        ("retry", {"jobs": ["018bcfe5-6800-7d34-a82e-5c0c34960481"]}, "there is no job"),
        ("retry", {"jobs": []}, "no job was named"),
        ("cancel", {"jobs": "all"}, "no job was named"),
        ("detail", {"job": "018bcfe5-6800-7d34-a82e-5c0c34960481"}, "there is no job"),
        ("pause", {"queue": "emial"}, "does not exist"),
        ("pause", {}, "no queue was named"),
        ("view", {"filter": {"states": ["faild"]}}, "did you mean"),
        ("view", {"filter": {"batch": "x"}}, "is no batch id"),
        ("form", {"command": "nobody"}, "nobody"),
        ("detail", {"job": "'; DROP TABLE ledger"}, "there is no job '; DROP"),
        ("detail", {"job": ["x"]}, "there is no job ['x']"),
        ("dispatch", {"command": "import", "values": [1]}, "values must be given by name"),
        ("dispatch", {"command": "import", "options": "queue"}, "options must be given by name"),
        ("view", {"filter": "failed"}, "filter must be given by name"),
        ("reboot", {}, "knows no command 'reboot'"),
        ([], {}, "knows no command []"),
    ],
)
def test_what_cannot_be_done_is_told(seat: Seat, what: Any, more: dict[str, Any], sentence: str) -> None:
    """A command that cannot be carried out is answered with a sentence, and the panel goes on."""
    before = seat.seen()
    done = seat.ask(what, **more)
    assert not done["ok"]
    assert sentence in done["text"]
    assert still(seat.seen()) == still(before)


def test_what_is_no_message_is_ignored(seat: Seat) -> None:
    """Whatever else arrives is no command."""
    sent = len(seat.sent)
    for content in ("hello", None, 7, ["retry"]):
        seat.panel._handle_custom_msg(content, [])
    seat.step()
    assert len(seat.sent) == sent


def test_form_and_dispatch(seat: Seat) -> None:
    """A form is opened, told what is wrong with it by field, and dispatched."""
    try:
        import nbqueue as nbq

        @nbq.job(name="resize")
        def resize(width: int) -> None: ...

        assert seat.ask("form", command="resize")["ok"]
        assert [field["name"] for field in seat.seen()["form"]["fields"]] == ["width"]
        done = seat.ask("dispatch", command="resize", values={"width": "wide"}, options={})
        assert not done["ok"]
        assert list(done["errors"]) == ["width"]
        assert seat.queues.jobs().empty
        done = seat.ask("dispatch", command="resize", values={"width": "640"}, options={})
        assert (done["ok"], seat.queues.jobs()["command"].tolist()) == (True, ["resize"])
        seat.ask("form", command=None)
        assert seat.seen()["form"] is None
    finally:
        registry.unregister("resize")


# -- its life


def test_reload_finds_everything(seat: Seat) -> None:
    """A page that is loaded anew gets the state as it is, filter and open job and all."""
    job_id = dispatch(seat.queues)
    seat.ask("view", filter={"command": "import"})
    seat.ask("detail", job=job_id)
    state = seat.panel.get_state()["snapshot"]
    assert (state["jobs"]["filter"]["command"], state["detail"]["id"]) == ("import", job_id)


def test_a_long_history_is_shown_before_it_is_read(
    queues: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A panel whose failures are not read yet shows itself, live and as a page."""
    monkeypatch.setattr("nbqueue.widgets.panel.feed._SHORT", 0)
    dispatch(queues, "import:data")
    panel = queues.panel()
    try:
        assert "1 pending" in repr(panel)
        assert "1 pending" in panel._repr_mimebundle_()[0]["text/plain"]
        assert "import:data" in panel._repr_mimebundle_()[0]["text/html"]
    finally:
        panel.close()


def test_closed_queue_keeps_its_last_state(queues: QueueManager) -> None:
    """When the queue is closed the panel says so, shows what was, and asks no more."""
    seat = Seat(queues)
    job_id = dispatch(queues)
    seat.step()
    queues.close()
    seat.step()
    state = seat.seen()
    assert state["notice"]["level"] == "closed"
    assert "closed" in state["notice"]["text"]
    assert state["jobs"]["order"] == [job_id]
    done = seat.ask("retry", jobs=[job_id])
    assert (done["ok"], "closed" in done["text"]) == (False, True)
    assert seat.publisher._entries == []
    seat.panel.close()


@pytest.mark.parametrize("error", [QueueError("a moment's trouble"), ZeroDivisionError("by zero")], ids=repr)
def test_failed_refresh_is_told_and_made_up_for(
    seat: Seat, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever keeps a panel from the latest is said above it; it looks again by itself, and then says so no more."""

    def fails(_queues: object) -> None:
        raise error

    with monkeypatch.context() as trouble:
        trouble.setattr(QueueManager, "handlers", fails)
        job_id = dispatch(seat.queues)
        seat.step()
        notice = seat.seen()["notice"]
    assert (notice["level"], str(error) in notice["text"]) == ("error", True)
    seat.step()
    assert seat.seen()["notice"] is None
    assert seat.seen()["jobs"]["order"] == [job_id]


def test_closed_queue_is_stored_as_it_was_last(queues: QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a notebook keeps of a panel whose queue was closed is its last state, not its first."""
    kept: dict[str, str] = {}

    def store(bundle: dict[str, Any], display_id: str) -> bool:
        kept[display_id] = bundle["text/plain"]
        return True

    monkeypatch.setattr(module.display, "publish", store)
    monkeypatch.setattr(module.display, "renew", store)
    seat = Seat(queues)
    seat.panel._ipython_display_()
    dispatch(queues)
    seat.step()
    queues.close()
    seat.step()
    (text,) = kept.values()
    assert "default: 1 pending" in text
    seat.panel.close()


def test_closed_queue_is_looked_at_a_last_time(queues: QueueManager) -> None:
    """What was said and done since the last look is shown, though the queue was closed before the next was due."""
    seat = Seat(queues)
    job_id = dispatch(queues, "late")
    assert seat.seen()["jobs"]["order"] == []
    queues.close()
    assert seat.seen()["jobs"]["order"] == [job_id]
    seat.step()
    assert seat.seen()["notice"]["level"] == "closed"
    assert seat.seen()["jobs"]["order"] == [job_id]
    seat.panel.close()


def test_closed_panel_is_dropped(seat: Seat) -> None:
    """A panel whose comm was closed is neither refreshed nor told of changes."""
    seat.panel.close()
    sent = len(seat.sent)
    dispatch(seat.queues)
    seat.step()
    assert (len(seat.sent), seat.publisher._entries) == (sent, [])


def test_panel_that_nobody_sees_rests_until_it_is_seen_again(seat: Seat) -> None:
    """A panel whose last view has gone, as when its cell was run again, does nothing; a view that comes wakes it."""
    looked = {"command": "import"}
    seat.ask("view", filter=looked)
    for views in (1, 0):
        seat.panel.set_state({"_view_count": views})
    seat.step()
    sent = len(seat.sent)
    assert seat.publisher._entries == []
    job_id = dispatch(seat.queues)
    seat.step()
    assert len(seat.sent) == sent
    assert seat.panel.state["jobs"]["rows"] == {}
    before = seat.panel.state["v"]
    seat.tell("hello")
    seat.step()
    assert seat.seen()["jobs"]["order"] == [job_id]
    assert seat.seen()["jobs"]["filter"]["command"] == "import"
    # A second front end, which has said nothing, goes on from what it had.
    assert seat.panel.state["v"] >= before


def test_panel_that_rested_when_its_queue_was_closed_says_so(queues: QueueManager) -> None:
    """A view that comes back to a panel that rests is answered, though there is no queue to ask any more."""
    seat = Seat(queues)
    for views in (1, 0):
        seat.panel.set_state({"_view_count": views})
    seat.step()
    queues.close()
    seat.tell("hello")
    seat.step()
    assert seat.sent[-1]["type"] == "snapshot"
    assert seat.seen()["notice"]["level"] == "closed"
    assert not seat.ask("pause", queue="default")["ok"]
    seat.panel.close()


def test_panel_that_is_shown_after_its_queue_was_closed_says_so(queues: QueueManager) -> None:
    """A panel that is made, and shown when the queue is closed, is as it was made."""
    dispatch(queues)
    shown = Panel(queues, publisher=Publisher(threaded=False))
    queues.close()
    shown.wake()
    assert shown.state["notice"]["level"] == "closed"
    assert "default: 1 pending" in repr(shown)
    shown.close()


def test_panel_whose_view_is_made_anew_does_not_rest(seat: Seat) -> None:
    """A view that goes and comes back at once, as when its output is renewed, is no reason to rest."""
    for views in (1, 0, 1):
        seat.panel.set_state({"_view_count": views})
    seat.step()
    dispatch(seat.queues)
    seat.step()
    assert seat.sent[-1]["type"] == "patch"


def test_closed_panel_is_not_kept_alive(queues: QueueManager) -> None:
    """Nothing of ours holds a panel that was closed: no publisher, no queue."""
    seat = Seat(queues)
    seat.panel.close()
    gone = weakref.ref(seat.panel)
    del seat
    gc.collect()
    assert gone() is None


# -- outside of a notebook


def test_in_a_script_it_is_text(queues: QueueManager) -> None:
    """Without a kernel a panel is what it would show, as text; and no thread is started for it."""
    dispatch(queues)
    shown = queues.panel()
    assert "default: 1 pending" in repr(shown)
    assert "default: 1 pending" in shown._repr_mimebundle_()[0]["text/plain"]
    assert shown.height == 360
    assert not any(entry.view() is shown for entry in module.publisher._entries)
    shown.close()


def test_bundle_has_widget_page_and_text(seat: Seat) -> None:
    """A notebook gets the view, and beside it what stands for it without a kernel."""
    bundle, _ = seat.panel._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert "<table" in bundle["text/html"]


def test_panel_begins_as_it_is_told(queues: QueueManager) -> None:
    """The table begins with the jobs that ``panel`` names."""
    dispatch(queues, "import")
    clean = dispatch(queues, "clean")
    shown = queues.panel(command="clean", state="pending", height=200)
    assert shown.state["jobs"]["order"] == [clean]
    assert shown.state["jobs"]["filter"]["states"] == ["pending"]
    assert shown.height == 200
    shown.close()


def test_code_that_was_changed_since_is_marked(queues: QueueManager) -> None:
    """A job of this session whose handler was defined anew since its dispatch is marked."""
    space: dict[str, Any] = {"__name__": "__main__"}
    source = "import nbqueue as nbq\n@nbq.job(name='grow')\ndef grow(n):\n    return n + {}\n"
    try:
        exec(source.format(1), space)
        job_id = str(queues.dispatch(space["grow"].call(1)).job_id)
        seat = Seat(queues, Looked(JobFilter(command="grow")))
        assert not seat.seen()["jobs"]["rows"][job_id]["stale"]
        exec(source.format(2), space)
        seat.ask("view", filter={})
        assert seat.seen()["jobs"]["rows"][job_id]["stale"]
        seat.panel.close()
    finally:
        registry.unregister("grow")


# ------------------------------------------------------------------------- on a server


def test_a_server_that_is_away_for_a_while(
    private_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said above what is shown, without a password; and once the server is back the panel goes on by itself."""
    monkeypatch.setattr(link, "PATIENCE", 0.1)
    with fresh_schema(private_postgres.url) as url, connect(url) as queues:
        seat = Seat(queues)
        queues.dispatch(QueuedCommand("a"))
        private_postgres.stop()
        seat.step()
        notice = seat.panel.state["notice"]
        assert notice["level"] == "error"
        assert "cannot be reached" in notice["text"]
        assert PASSWORD not in notice["text"]
        private_postgres.start()
        queues.dispatch(QueuedCommand("a"))
        seat.step()
        assert seat.panel.state["notice"] is None
        assert seat.panel.state["queues"][0]["pending"] == 2
