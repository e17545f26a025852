"""Live cards: what they show, what their buttons do, and that they cost nothing once their job has ended."""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbqueue as nbq
from nbqueue.facade.watching.glancing import Glance
from nbqueue.handlers.registry import registry
from nbqueue.widgets.card import feed as feeds
from nbqueue.widgets.card import subjects
from nbqueue.widgets.card.card import Card, card_of, show
from nbqueue.widgets.card.state import batch_state, job_state, static_html

PATIENCE = 30.0


@pytest.fixture
def handlers() -> Iterator[None]:
    """What a test defines is gone after it."""
    before = dict(registry._owned)
    yield
    registry.clear()
    for handler in before.values():
        registry.register(handler)


@pytest.fixture
def queues(handlers: None) -> Iterator[nbq.QueueManager]:
    """An open queue."""
    with nbq.connect(":memory:") as opened:
        yield opened


class Watch:
    """Waits until a card shows something."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self._news = threading.Condition()
        card.observe(self._heard, names=["card", "detail"])

    def _heard(self, _change: Any) -> None:
        with self._news:
            self._news.notify_all()

    def until(self, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        with self._news:
            assert self._news.wait_for(lambda: holds(self.card.card), PATIENCE), self.card.card
        return dict(self.card.card)


def fails() -> None:
    """Fail in a way that nobody thought of."""
    raise ZeroDivisionError


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What cards send to their front ends."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(Card, "send", lambda _card, content, _buffers=None: sent.append(content))
    return sent


def test_life(queues: nbq.QueueManager) -> None:
    """A card follows its job from waiting to its end, with attempts and progress on the way."""
    go = threading.Event()

    @nbq.job(tries=2)
    def work(ctx: nbq.Context) -> None:
        ctx.progress(1, 4, "a quarter")
        go.wait(PATIENCE)

    card = card_of(queues, work.dispatch())
    watch = Watch(card)
    assert card.card["state"] == "pending"
    with queues.worker():
        state = watch.until(lambda state: state["progress"])
        assert (state["state"], state["attempt"], state["max_attempts"]) == ("running", 1, 2)
        assert state["progress"] == {"done": 1, "total": 4, "note": "a quarter"}
        go.set()
        state = watch.until(lambda state: state["finished"])
    assert state["state"] == "succeeded"
    assert state["run"] >= 0


def test_failed_and_retried(queues: nbq.QueueManager, said: list[dict[str, Any]]) -> None:
    """A failed job's card shows its error's first line; its button lets it run again, and the card follows."""
    fails = [True]

    @nbq.job
    def work() -> None:
        if fails:
            raise KeyError("first\nsecond")

    with queues.worker():
        receipt = work.dispatch().wait(PATIENCE)
        card = card_of(queues, receipt)
        watch = Watch(card)
        assert card.card["error"].startswith("KeyError: ")
        assert "\n" not in card.card["error"]
        fails.clear()
        card._handle_custom_msg({"id": 7, "do": "retry"}, [])
        assert said[0] == {"type": "received", "id": 7}
        watch.until(lambda state: state["state"] == "succeeded")
    assert {"type": "done", "id": 7, "ok": True, "text": ""} in said


def test_cancelled(queues: nbq.QueueManager, said: list[dict[str, Any]]) -> None:
    """The button cancels, and what cannot be done is answered by its sentence."""

    @nbq.job
    def work() -> None: ...

    card = card_of(queues, work.dispatch())
    watch = Watch(card)
    card.carry_out({"id": 1, "do": "cancel"})
    watch.until(lambda state: state["state"] == "cancelled")
    receipt = work.dispatch()
    again = card_of(queues, receipt)
    again.carry_out({"id": 2, "do": "retry"})
    (answer,) = [message for message in said if message["id"] == 2]
    assert not answer["ok"]
    assert str(receipt) in answer["text"]


def test_opened(queues: nbq.QueueManager) -> None:
    """Opened it shows the traceback and the end of the log."""

    @nbq.job
    def work() -> None:
        print("x" * 30_000 + "the end")
        raise ValueError("no")

    with queues.worker():
        receipt = work.dispatch().wait(PATIENCE)
    card = card_of(queues, receipt)
    card.carry_out({"id": 1, "do": "open", "open": True})
    assert card.detail is not None
    assert "ValueError: no" in card.detail["traceback"]
    assert card.detail["log"].rstrip().endswith("the end")
    assert card.detail["cut"]
    assert len(card.detail["log"]) == subjects.TAIL


def test_many_cards_one_look(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred cards are brought up to date by one look, and those that have ended by none."""

    @nbq.job
    def work() -> None: ...

    made = [card_of(queues, receipt) for receipt in queues.dispatch_many([work.call()] * 100)]
    feed = made[0]._feed
    assert all(card._feed is feed for card in made)
    looks: list[int] = []
    real = feeds.glance

    def counted(asked: Any, ids: list[Any]) -> dict[Any, Glance]:
        looks.append(len(ids))
        return real(asked, ids)

    with queues.worker() as worker:
        worker.drain(timeout=PATIENCE)
    for card in made:
        Watch(card).until(lambda state: state["state"] == "succeeded")
    monkeypatch.setattr(feeds, "glance", counted)
    feed.add(made[0])
    feed.refresh()
    assert set(looks) <= {0, 1}


def test_batch(queues: nbq.QueueManager) -> None:
    """A batch's card counts its rows by state, and its button retries those that failed."""
    fails = [True]

    @nbq.job
    def work(number: int) -> int:
        if fails and number % 2:
            raise ValueError("odd")
        return number

    batch = queues.map(work, range(10))
    card = card_of(queues, batch)
    watch = Watch(card)
    assert card.card["total"] == 10
    assert card.card["command"] == "work"
    with queues.worker():
        state = watch.until(lambda state: state["ended"] == 10)
        assert (state["counts"]["succeeded"], state["counts"]["failed"]) == (5, 5)
        card.carry_out({"id": 1, "do": "open", "open": True})
        assert card.detail is not None
        assert card.detail["error"] == "5 × ValueError: odd"
        fails.clear()
        card.carry_out({"id": 2, "do": "retry"})
        watch.until(lambda state: state["counts"]["succeeded"] == 10)


def test_forgotten(queues: nbq.QueueManager, said: list[dict[str, Any]]) -> None:
    """An opened card whose job was forgotten says so, and the others go on."""

    @nbq.job
    def work() -> None: ...

    first, second = work.dispatch(), work.dispatch()
    card, other = card_of(queues, first), card_of(queues, second)
    watch, beside = Watch(card), Watch(other)
    first.cancel()
    watch.until(lambda state: state["state"] == "cancelled")
    card._handle_custom_msg({"id": 1, "do": "open", "open": True}, [])
    watch.until(lambda _: card.detail)
    queues.forget(first.job_id)
    card._handle_custom_msg({"id": 2, "do": "retry"}, [])
    watch.until(lambda state: state["state"] == "forgotten")
    (answer,) = [message for message in said if message["id"] == 2 and message["type"] == "done"]
    assert (answer["ok"], "forgotten" in answer["text"]) == (False, True)
    second.cancel()
    beside.until(lambda state: state["state"] == "cancelled")


def test_one_that_fails_is_one(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that cannot be brought up to date says that it is as it was, and the others go on."""

    @nbq.job
    def work() -> None: ...

    first, second = work.dispatch(), work.dispatch()
    card, other = card_of(queues, first), card_of(queues, second)
    watch, beside = Watch(card), Watch(other)
    monkeypatch.setattr(card.subject, "why", fails)
    card._feed.add(card)
    watch.until(lambda state: not state["live"])
    second.cancel()
    beside.until(lambda state: state["state"] == "cancelled")


@pytest.mark.usefixtures("handlers")
def test_batch_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch's errors are shown where what its rows were given is not to be read."""
    monkeypatch.setenv("NBQUEUE_SECRET", "a" * 32)

    @nbq.job
    def work(given: object) -> None:
        raise ValueError(type(given).__name__)

    with nbq.connect(tmp_path / "jobs.duckdb") as queues, queues.worker():
        batch_id = queues.map(work, [slice(1), slice(2)]).wait(PATIENCE).batch_id
    monkeypatch.setenv("NBQUEUE_SECRET", "b" * 32)
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        card = card_of(queues, queues.batch(batch_id))
        card.carry_out({"id": 1, "do": "open", "open": True})
        assert card.detail is not None
        assert card.detail["error"] == "2 × ValueError: slice"


@pytest.mark.usefixtures("handlers")
def test_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that its worker refused is held, on its card as in ``jobs``, and the card says why."""
    monkeypatch.setenv("NBQUEUE_SECRET", "a" * 32)

    @nbq.job
    def work(given: object) -> None: ...

    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        job_id = queues.dispatch(work.call(slice(1))).job_id
    monkeypatch.setenv("NBQUEUE_SECRET", "b" * 32)
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        card = card_of(queues, queues.job(job_id))
        watch = Watch(card)
        with queues.worker():
            state = watch.until(lambda state: state["status"] == "held" and state["why"])
        assert state["why"] == queues.why(job_id)
        assert queues.jobs()["status"].tolist() == ["held"]


def test_retried_elsewhere(queues: nbq.QueueManager) -> None:
    """A card whose job has ended follows it again when somebody else lets it run again."""
    fails = [True]

    @nbq.job
    def work() -> None:
        if fails:
            raise ValueError

    with queues.worker():
        receipt = work.dispatch()
        card, rows = card_of(queues, receipt), card_of(queues, queues.map(work, [{}]))
        watch, beside = Watch(card), Watch(rows)
        watch.until(lambda state: state["state"] == "failed")
        beside.until(lambda state: state["counts"]["failed"] == 1)
        fails.clear()
        queues.retry_all()
        watch.until(lambda state: state["state"] == "succeeded")
        beside.until(lambda state: state["counts"]["succeeded"] == 1)


def test_no_card_left(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last card was closed nothing looks at the queue any more, until there is another."""
    stopped = threading.Event()
    real = queues.on_change

    def on_change(callback: Callable[[], None]) -> Callable[[], None]:
        stop = real(callback)
        return lambda: (stop(), stopped.set())[0]

    monkeypatch.setattr(queues, "on_change", on_change)

    @nbq.job
    def work() -> None: ...

    first, second = work.dispatch(), work.dispatch()
    card = card_of(queues, first)
    feed = card._feed
    card.close()
    first.cancel()
    assert stopped.wait(PATIENCE)
    watch = Watch(card_of(queues, second))
    assert watch.card._feed is feed
    second.cancel()
    watch.until(lambda state: state["state"] == "cancelled")


def test_result_is_let_go(queues: nbq.QueueManager) -> None:
    """A card does not hold what its job returned."""

    class Big:
        pass

    made: list[weakref.ref[Big]] = []

    @nbq.job
    def work() -> Any:
        big = Big()
        made.append(weakref.ref(big))
        return big

    with queues.worker() as worker:
        card = card_of(queues, work.dispatch())
        Watch(card).until(lambda state: state["state"] == "succeeded")
        worker.drain(timeout=PATIENCE)
    gc.collect()
    assert made[0]() is None


@pytest.mark.parametrize(
    ("content", "ok", "text"),
    [
        ({"do": "reboot"}, False, "knows no command 'reboot'"),
        ({"do": ["cancel"]}, False, "knows no command ['cancel']"),
        ({}, False, "knows no command None"),
        ({"do": "hello"}, True, ""),
        ({"do": "cancel"}, False, "ZeroDivisionError: "),
    ],
)
def test_every_command_is_answered(
    queues: nbq.QueueManager,
    said: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    content: dict[str, Any],
    *,
    ok: bool,
    text: str,
) -> None:
    """Whatever is asked for has an answer: what means nothing, and what fails in a way nobody thought of."""

    @nbq.job
    def work() -> None: ...

    card = card_of(queues, work.dispatch())
    monkeypatch.setattr(card.subject, "cancel", fails)
    card.carry_out({"id": 1, **content})
    (answer,) = said
    assert (answer["type"], answer["id"], answer["ok"]) == ("done", 1, ok)
    assert text in answer["text"]


def test_cells_have_no_usual_time(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long other jobs of its name took is said of a job, and not of a notebook's cell, which only shares it."""

    @nbq.job
    def work() -> None: ...

    with queues.worker():
        work.dispatch().wait(PATIENCE)
    usual = Watch(card_of(queues, work.dispatch())).until(lambda state: state["usual"] is not None)
    assert usual["usual"] >= 0
    real = feeds.glance

    def of_cells(asked: Any, ids: Any) -> dict[Any, Glance]:
        return {
            job_id: seen._replace(
                record=dataclasses.replace(seen.record, spec=seen.record.spec._replace(origin="kernel:1"))
            )
            for job_id, seen in real(asked, ids).items()
        }

    monkeypatch.setattr(feeds, "glance", of_cells)
    state = Watch(card_of(queues, work.dispatch())).until(lambda state: state["why"])
    assert state["usual"] is None


def test_closed(queues: nbq.QueueManager) -> None:
    """When the queue is closed its cards say that they are the last state."""

    @nbq.job
    def work() -> None: ...

    card = card_of(queues, work.dispatch())
    assert card.card["live"]
    queues.close()
    assert not card.card["live"]


def test_a_server_that_is_away_for_a_while(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of a job that has not ended says that it may not be the latest, until it can be looked at again."""

    def away(*_given: object) -> dict[Any, Glance]:
        raise nbq.QueueUnavailable("the server cannot be reached")

    card = card_of(queues, queues.dispatch(nbq.QueuedCommand("nobody")))
    watch = Watch(card)
    watch.until(lambda card: card["why"])
    feed = feeds.feed_of(queues)
    with monkeypatch.context() as trouble:
        trouble.setattr(nbq.QueueManager, "comes_back", True)
        trouble.setattr(feeds, "glance", away)
        queues.dispatch(nbq.QueuedCommand("nobody"))
        shown = watch.until(lambda card: "trouble" in card)
        assert shown["trouble"] == "the server cannot be reached; it is looked at again soon"
        assert (shown["live"], feed.troubled) == (True, True)
    queues.dispatch(nbq.QueuedCommand("nobody"))
    assert "trouble" not in watch.until(lambda card: "trouble" not in card)
    assert not feed.troubled


def test_closed_after_its_job_ended(queues: nbq.QueueManager) -> None:
    """A card shows how its job ended while its queue was being closed."""
    began, go = threading.Event(), threading.Event()

    @nbq.job
    def work() -> None:
        began.set()
        go.wait(PATIENCE)

    queues.worker().start()
    card = card_of(queues, work.dispatch())
    assert began.wait(PATIENCE)
    go.set()
    queues.close()
    assert card.card["state"] == "succeeded"


def test_elsewhere(queues: nbq.QueueManager) -> None:
    """Outside of a notebook there is no card, and IPython is told to show the text."""

    @nbq.job
    def work() -> None: ...

    receipt = work.dispatch()
    with pytest.raises(NotImplementedError):
        receipt._ipython_display_()
    with pytest.raises(NotImplementedError):
        show(queues, receipt)
    with pytest.raises(NotImplementedError):
        nbq.JobDispatch("job123", "import:data")._ipython_display_()


def test_what_is_kept(queues: nbq.QueueManager) -> None:
    """What a notebook keeps is text: a job named and failing with markup is shown as it is written."""
    evil = "<img src=x onerror=alert(1)>"

    @nbq.job(name=evil)
    def work() -> None:
        raise ValueError(evil)

    with queues.worker():
        receipt = work.dispatch().wait(PATIENCE)
        batch = queues.map(work, [{}]).wait(PATIENCE)
    for card in (card_of(queues, receipt), card_of(queues, batch)):
        bundle = card.bundle()
        assert "<img" not in bundle["text/html"]
        assert "&lt;img" in bundle["text/html"]
        assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == card.model_id


def test_usual_time() -> None:
    """Without progress the end is where such jobs usually end; with it, where its own pace leads."""
    with nbq.connect(":memory:") as queues:
        receipt = queues.dispatch(nbq.QueuedCommand("work"))
        record = receipt.record()
        running = dataclasses.replace(record, state=nbq.State.RUNNING, started_at=1_000.0, attempt=1)
        plain = Glance(running, "running")
        at_work = Glance(running, "running", {"done": 1, "total": 4, "note": ""})
        state = job_state(plain, now=1_002.0, usual=8.0)
        assert (state["finish"], state["usual"]) == (1_008_000, 8.0)
        state = job_state(at_work, now=1_002.0, usual=8.0)
        assert state["finish"] == 1_008_000
        assert job_state(plain, now=1_002.0)["finish"] is None
        assert job_state(at_work, now=1_000.5)["finish"] is None
        assert "1 of 4" in static_html(state)


def test_rate() -> None:
    """A batch's rest is told by its rate."""

    class Batch:
        batch_id, command = "b1", "work"

        def progress(self) -> Any:
            from nbqueue.facade.batches.batch import BatchProgress

            return BatchProgress(100, 60, 0, 40, 0, 0)

    state = batch_state(Batch(), now=100.0, rate=20.0)
    assert state["finish"] == 103_000
    assert "40 of 100 ended" in static_html(state)
