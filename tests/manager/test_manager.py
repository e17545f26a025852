"""Connecting, dispatching, looking and tidying up through the facade."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import nbqueue as nbq
from nbqueue import payload
from nbqueue.facade import controls
from nbqueue.handlers.handler import Handler
from nbqueue.handlers.registry import Call, registry
from nbqueue.secret import load_secret
from nbqueue.store import Selection
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.journal import Journal
from nbqueue.stores.memory import MemoryStore

SOON = 20.0
DATA = nbq.QueuedCommand("import:data")


class Clock:
    """Seconds since the epoch, set by hand."""

    def __init__(self, now: float = 1_772_344_800.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(clock: Clock) -> Iterator[nbq.QueueManager]:
    """A queue in memory whose time is set by hand."""
    with nbq.QueueManager(store=MemoryStore(clock=clock), clock=clock) as queues:
        yield queues


# -- connecting


def test_the_same_path_is_one_store(tmp_path: Path) -> None:
    """However it is written; it is closed with its last user, and only the first of them made it."""
    path = tmp_path / "jobs.duckdb"
    (tmp_path / "link.duckdb").symlink_to(path)
    first, second = (
        nbq.connect(path),
        nbq.connect(f"duckdb:///{tmp_path}/sub/../link.duckdb".replace("/sub/..", "")),
    )
    assert first.store is second.store
    assert (first.created, second.created) == (True, False)
    assert first.name == second.name == str(path)
    receipt = second.dispatch(DATA)
    second.close()
    assert first.job(receipt).state is nbq.State.PENDING
    first.close()
    with nbq.connect(path) as again:
        assert again.store is not first._connection.store
        assert not again.created
        assert again.job(str(receipt)).command == "import:data"


def test_queues_in_memory_are_apart() -> None:
    """Each has its own jobs."""
    with nbq.connect(":memory:") as first, nbq.connect(nbq.QueueConfig(driver="memory")) as second:
        first.dispatch(DATA)
        assert (len(first.jobs()), len(second.jobs())) == (1, 0)


def test_without_a_name_it_is_the_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """$NBQUEUE_URL, else ./nbqueue.duckdb."""
    monkeypatch.chdir(tmp_path)
    with nbq.connect() as queues:
        assert queues.name == str(tmp_path / "nbqueue.duckdb")
    monkeypatch.setenv("NBQUEUE_URL", "duckdb:///other.duckdb")
    with nbq.connect("") as queues:
        assert queues.name == str(tmp_path / "other.duckdb")
    monkeypatch.setenv("NBQUEUE_URL", ":memory:")
    assert nbq.manager().name == ":memory:"
    nbq.manager().close()


@pytest.mark.parametrize(
    ("target", "error", "part"),
    [
        ("mysql://me:hush@host/db", nbq.QueueUnavailable, '"mysql://" is no queue'),
        ("duckdb://", nbq.QueueUnavailable, "names no file"),
        (7, nbq.QueueUnavailable, "not int"),
        ("nowhere/jobs.duckdb", nbq.QueueUnavailable, "nowhere of the queue file jobs.duckdb does not exist"),
        (".", nbq.QueueUnavailable, "is a directory"),
    ],
)
def test_what_cannot_be_opened_says_why(
    target: str, error: type[Exception], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names it, and never a password."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        nbq.connect(target)
    assert part in str(caught.value)
    assert "hush" not in str(caught.value)


def test_an_absolute_path_with_three_slashes_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """duckdb:///tmp/x is relative, as in every other URL of Python's databases."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(nbq.QueueUnavailable, match=f"did you mean {tmp_path}/jobs.duckdb"):
        nbq.connect(f"duckdb://{tmp_path}/jobs.duckdb")


@pytest.mark.parametrize(
    ("given", "part"), [({"driver": "oracle"}, "oracle"), ({"path": ""}, "empty"), ({"path": 3}, "not int")]
)
def test_a_bad_config_is_refused(given: dict[str, object], part: str) -> None:
    """By the name of what is wrong."""
    with pytest.raises(nbq.QueueUnavailable, match=part):
        nbq.QueueConfig(**given)  # type: ignore[arg-type]
    with pytest.raises(nbq.InvalidCommand, match="queue"):
        nbq.QueueConfig(default_queue="a,b")


def test_closing_twice_is_closing_once(target: str) -> None:
    """After it every verb says which file is closed, and how to open it."""
    queues = nbq.connect(target)
    receipt = queues.dispatch(DATA)
    queues.close()
    queues.close()
    assert repr(queues) == f"QueueManager({queues.name}: closed)"
    for verb in (
        queues.list,
        queues.jobs,
        queues.stats,
        queues.worker,
        receipt.why,
        lambda: queues.dispatch(DATA),
    ):
        with pytest.raises(nbq.QueueUnavailable, match="was closed here; nbqueue"):
            verb()
    with pytest.raises(nbq.QueueUnavailable, match="was closed here"):
        asyncio.run(queues.adispatch(DATA))


def test_a_manager_that_nobody_holds_lets_go(tmp_path: Path) -> None:
    """Connecting again and again, as a cell does, leaves one user."""
    path = tmp_path / "jobs.duckdb"
    store = nbq.connect(path).store
    other = nbq.connect(":memory:")
    gc.collect()
    with nbq.connect(path) as queues:
        assert queues.store is not store
    other.close()


def test_what_cannot_be_set_up_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose disk is full when it is connected to is not held, though a notebook keeps the traceback."""
    config = nbq.QueueConfig(path=tmp_path / "jobs.duckdb", default_queue="imports")
    with monkeypatch.context() as patch:
        patch.setattr(DuckDBStore, "add_queue", lambda *_: _raise(nbq.DispatchFailed("no room")))
        with pytest.raises(nbq.DispatchFailed, match="no room") as kept:
            nbq.connect(config)
    DuckDBStore(tmp_path / "jobs.duckdb").close()
    assert kept.traceback


def _raise(error: Exception) -> None:
    raise error


def test_the_manager_is_the_one_connected_last() -> None:
    """When that is closed, the one before it."""
    with nbq.connect(":memory:") as first:
        with nbq.connect(":memory:") as second:
            assert nbq.manager() is second
            assert nbq.dispatch(DATA).state is nbq.State.PENDING
        assert nbq.manager() is first
        assert len(first.jobs()) == 0


def test_repr_is_one_line(queues: nbq.QueueManager) -> None:
    """Where it is, what waits and what runs."""
    queues.dispatch_many([DATA] * 3)
    assert repr(queues) == f"QueueManager({queues.name.rstrip(':')}: 3 waiting, 0 running)"


def test_closing_stops_the_workers(queues: nbq.QueueManager) -> None:
    """None is left behind."""
    worker = queues.worker().start()
    assert worker.running
    assert [info.worker_id for info in queues.workers()] == [worker.worker_id]
    queues.close()
    assert not worker.running


# -- dispatching


def test_every_way_of_saying_it_is_dispatched(queues: nbq.QueueManager) -> None:
    """A command, a job's call and a Job class, together in one transaction, in order."""

    @nbq.job(queue="imports")
    def import_csv(path: str) -> str:
        return path

    class SendEmail(nbq.Job):
        queue = "emails"
        to: str

        def handle(self) -> str:
            return self.to

    @nbq.command("import:data")
    def import_data(ctx: nbq.Context, *args: str) -> tuple[str, ...]:
        return args

    works = [DATA.with_args(["users.csv"]), import_csv.call("a.csv"), SendEmail(to="a@example.org")]
    receipts = queues.dispatch_many(works)
    assert [receipt.queue for receipt in receipts] == ["default", "imports", "emails"]
    assert queues.list() == ["default", "emails", "imports"]
    with queues.worker():
        assert [receipt.result(SOON) for receipt in receipts] == [("users.csv",), "a.csv", "a@example.org"]


def test_options_at_dispatch_win(timed: nbq.QueueManager, clock: Clock) -> None:
    """They win over the work's own, one by one; metadata is merged."""
    work = (
        DATA.with_delay(60).with_priority(5).with_max_attempts(3).with_metadata("a", 1).with_metadata("b", 1)
    )
    receipt = timed.dispatch(work, delay=5, queue="other", timeout=timedelta(minutes=1), metadata={"b": 2})
    record = receipt.record()
    spec = record.spec
    assert (spec.queue, spec.priority, spec.tries, spec.timeout) == ("other", 5, 3, 60.0)
    assert record.scheduled_at == clock.now + 5
    assert receipt.metadata == {"a": 1, "b": 2}
    assert receipt.scheduled_at == datetime.fromtimestamp(clock.now + 5, UTC)


def test_a_time_wins_over_a_delay(timed: nbq.QueueManager, clock: Clock) -> None:
    """A delay said later wins over a time said earlier."""
    when = datetime.fromtimestamp(clock.now + 3_600, UTC)
    assert timed.dispatch(DATA.with_delay(60).with_scheduled_at(when)).scheduled_at == when
    assert timed.dispatch(DATA.with_scheduled_at(when), delay=60).record().scheduled_at == clock.now + 60


@pytest.mark.parametrize(
    ("works", "options", "part"),
    [
        ([DATA, "import:data"], {}, "QueuedCommand"),
        ([DATA, DATA.with_args([threading.Lock()])], {}, r"import:data: args\[0\]"),
        ([DATA, DATA.with_kwargs(files=[1, threading.Lock()])], {}, "files"),
        ([DATA, DATA.with_metadata("lock", threading.Lock())], {}, "import:data: metadata.*lock"),
        ([DATA], {"colour": "red"}, "unknown option colour"),
        ([DATA], {"tries": 0}, "tries cannot be 0"),
        ("import:data", {}, "takes a list"),
        (DATA, {}, "takes a list"),
    ],
)
def test_all_or_none(
    queues: nbq.QueueManager, works: list[object], options: dict[str, object], part: str
) -> None:
    """What cannot be dispatched is named, and nothing of its company was written."""
    with pytest.raises(nbq.InvalidCommand, match=part):
        queues.dispatch_many(works, **options)
    assert len(queues.jobs()) == 0
    assert queues.dispatch_many([]) == []


def test_plain_work_needs_no_secret(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what must be pickled is signed."""
    monkeypatch.setenv("NBQUEUE_SECRET", "too short")
    queues.dispatch(DATA.with_args([1, "a", datetime.now(UTC)]))
    with pytest.raises(nbq.NbqueueError, match="NBQUEUE_SECRET"):
        queues.dispatch(DATA.with_args([range(3)]))


def test_what_json_cannot_hold_is_handed_over_as_it_is(queues: nbq.QueueManager) -> None:
    """In its own process the first attempt gets the very object."""

    class Thing:
        pass

    @nbq.job
    def same(thing: object) -> object:
        return thing

    thing = Thing()
    with queues.worker():
        receipt = same.dispatch(thing)
        assert receipt.result(SOON) is thing
        assert queues.live.call(receipt.job_id) is None


def test_a_retry_sees_nothing_of_what_a_failed_attempt_did(queues: nbq.QueueManager) -> None:
    """Its arguments are decoded anew, in a job and in the row of a batch, and still of the user's own class."""
    import numpy as np

    class Thing:
        def __init__(self) -> None:
            self.numbers = np.array([1])

    @nbq.job(tries=3, backoff=0)
    def add(thing: Thing) -> int:
        assert isinstance(thing, Thing)
        thing.numbers += 1
        if nbq.current().attempt < 3:
            raise OSError("flaky")
        return int(thing.numbers[0])

    with queues.worker():
        receipt = add.dispatch(Thing())
        batch = queues.map(add, [Thing()])
        assert receipt.result(SOON) == 2
        assert list(batch.wait(SOON).results()) == [2]


def test_what_another_connection_dispatched_is_handed_over_too(tmp_path: Path) -> None:
    """Those who share a file in a process share what lives in it."""
    path = tmp_path / "jobs.duckdb"

    @nbq.job
    def same(thing: object) -> object:
        return thing

    class Thing:
        pass

    thing = Thing()
    with nbq.connect(path) as working, working.worker(), nbq.connect(path) as dispatching:
        assert dispatching.dispatch(same.call(thing)).result(SOON) is thing


def test_adispatch_many_at_once(queues: nbq.QueueManager) -> None:
    """A hundred tasks dispatch and none blocks the loop; what they passed may change afterwards."""
    names = ["users.csv"]

    async def one() -> nbq.JobDispatch:
        return await queues.adispatch(DATA.with_args([names]), priority=3)

    async def main() -> list[nbq.JobDispatch]:
        tasks = [asyncio.create_task(one()) for _ in range(100)]
        await asyncio.sleep(0)
        names.append("changed.csv")
        return await asyncio.gather(*tasks)

    receipts = asyncio.run(main())
    assert len(set(receipts)) == 100
    records = queues.store.get([receipt.job_id for receipt in receipts])
    assert {record.spec.priority for record in records} == {3}
    assert {record.payload for record in records} == {'{"args":[["users.csv"]],"kwargs":{}}'}


def test_adispatch_is_told_what_came_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a thread that waits: those of one commit fail together, one who stopped waiting keeps nobody up."""

    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main(queues: nbq.QueueManager) -> list[object]:
        gone, *tasks = (asyncio.create_task(queues.adispatch(DATA)) for _ in range(20))
        await asyncio.sleep(0)
        gone.cancel()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        assert {type(one) for one in asyncio.run(main(queues))} == {nbq.JobDispatch}
        assert len(queues.jobs()) == 20
        assert queues._pool is None
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", full)
            failed = asyncio.run(main(queues))
        assert {type(one) for one in failed} <= {nbq.DispatchFailed, nbq.QueueUnavailable}
        assert "No space left on device" in str(failed[0])
        assert len(queues.jobs()) == 20


def test_a_job_hands_in_work_while_its_queue_closes(tmp_path: Path) -> None:
    """Closing waits for jobs, so they must not wait for it: the job ends, and what it handed in is there."""
    begun = threading.Event()

    @nbq.job
    async def parent(ctx: nbq.Context) -> str:
        begun.set()
        while not queues._closing.locked():  # noqa: ASYNC110 - a lock tells nobody
            await asyncio.sleep(0)
        return str(await ctx.adispatch(DATA))

    queues = nbq.connect(tmp_path / "jobs.duckdb")
    queues.worker().start()
    receipt = parent.dispatch()
    assert begun.wait(SOON)
    queues.close(5.0)
    with nbq.connect(tmp_path / "jobs.duckdb") as again:
        child = again.job(receipt.job_id).result(0)
        assert again.job(child).state is nbq.State.PENDING


def test_many_are_cancelled_in_one_commit(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """One question and one answer, however many there are; one that is not there keeps the others as they are."""
    receipts = queues.dispatch_many([DATA] * 5)
    calls: list[int] = []
    cancel = queues.store.cancel

    def count(ids: list[uuid.UUID]) -> object:
        calls.append(len(ids))
        return cancel(ids)

    monkeypatch.setattr(queues.store, "cancel", count)
    with pytest.raises(nbq.JobNotFound):
        queues.cancel([receipts[0], uuid.uuid4()])
    assert queues.cancel([*receipts, str(receipts[0])]) == 5
    assert queues.cancel(receipts) == 0
    assert queues.cancel([]) == 0
    assert calls == [5, 5]


def test_a_notebooks_function_is_stored_by_value_once(
    queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other workers need a copy; a module's function they can import."""
    packed: list[str] = []
    pack = payload.pack_code

    def count(function: object, *, key: bytes, context: str) -> tuple[str, bytes]:
        packed.append(context)
        return pack(function, key=key, context=context)  # type: ignore[arg-type]

    monkeypatch.setattr(payload, "pack_code", count)

    def double(x: int) -> int:
        return 2 * x

    lock = threading.Lock()

    def locked() -> None:
        with lock:
            pass

    for target in (double, locked):
        registry.register(Handler(name=target.__name__, origin="notebook:/a.ipynb", target=target))
    mine = Handler(name="mine", origin="module:mine", target=double)
    calls = [
        Call.of(handler, (), {}, handler.options) for handler in (_named("double"), _named("locked"), mine)
    ]
    for _ in range(3):
        queues.dispatch_many(calls)
    code = calls[0].code
    assert packed == [code, calls[1].code]
    blob = queues.store.get_code(code)
    assert blob is not None
    assert payload.unpack_code(blob, key=load_secret(), context=code)(21) == 42
    assert queues.store.get_code(calls[1].code) is None


def _named(name: str) -> Handler:
    found = registry.named(name)
    assert found is not None
    return found


def test_run_is_at_once_and_recorded(queues: nbq.QueueManager) -> None:
    """In this very thread, whatever its delay; the record stays."""

    @nbq.job(delay=3_600)
    def where() -> tuple[int, int]:
        return threading.get_ident(), nbq.current().attempt

    assert queues.run(where.call()) == (threading.get_ident(), 1)
    assert list(queues.jobs()["state"]) == ["succeeded"]

    @nbq.job(tries=3)
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(nbq.JobFailed, match="KeyError: 'x'"):
        queues.run(fail.call())


def test_run_of_an_async_handler(queues: nbq.QueueManager) -> None:
    """It gets a loop of its own."""

    @nbq.job
    async def wait() -> str:
        await asyncio.sleep(0)
        return "done"

    assert queues.run(wait.call()) == "done"


def test_a_job_dispatches_to_where_it_came_from(tmp_path: Path) -> None:
    """Not to the queue that was connected last."""

    @nbq.job
    def parent() -> list[str]:
        receipts = [
            nbq.dispatch(DATA),
            nbq.CommandQueue("imports").dispatch(DATA),
            nbq.current().dispatch(DATA),
        ]
        return [receipt.queue for receipt in receipts]

    with nbq.connect(tmp_path / "jobs.duckdb") as queues, queues.worker(), nbq.connect(":memory:") as other:
        assert queues.dispatch(parent.call()).result(SOON) == ["default", "imports", "default"]
        assert len(queues.jobs()) == 4
        assert len(other.jobs()) == 0


# -- queues


def test_a_queue_by_its_name(queues: nbq.QueueManager) -> None:
    """It takes what names no queue of its own."""
    queue = nbq.CommandQueue("imports")
    assert queue.name == "imports"
    assert queue.dispatch(DATA).queue == "imports"
    assert queue.dispatch(DATA.on_queue("urgent")).queue == "urgent"
    assert queue.dispatch(DATA, queue="other").queue == "other"
    assert [receipt.queue for receipt in queue.dispatch_many([DATA, DATA.on_queue("urgent")])] == [
        "imports",
        "urgent",
    ]
    assert asyncio.run(queue.adispatch(DATA)).queue == "imports"
    assert len(queue.jobs(state="pending")) == 3
    assert nbq.CommandQueue.default().dispatch(DATA).queue == "default"
    assert queues.queue("imports").name == "imports"


def test_the_default_queue_is_the_configs(tmp_path: Path) -> None:
    """It exists from the start."""
    config = nbq.QueueConfig(path=tmp_path / "jobs.duckdb", default_queue="night")
    with nbq.connect(config) as queues:
        assert queues.list() == ["default", "night"]
        assert queues.dispatch(DATA).queue == "night"
        assert nbq.CommandQueue.default().name == "night"


def test_a_queue_that_nobody_made(queues: nbq.QueueManager) -> None:
    """Near matches are named; one that was named, connected or not, is there."""
    with pytest.raises(nbq.QueueUnavailable, match='queue "import" does not exist; there is "default"'):
        queues.queue("import")
    nbq.CommandQueue("imports")
    assert queues.queue("imports").dispatch(DATA).queue == "imports"
    for verb in (queues.queue, queues.pause, queues.resume, lambda name: queues.jobs(queue=name)):
        with pytest.raises(nbq.QueueUnavailable, match='"import" does not exist; did you mean "imports"'):
            verb("import")


def test_a_queue_named_before_connecting_is_there() -> None:
    """It is made on the first that is connected."""
    nbq.CommandQueue("early")
    with nbq.connect(":memory:") as queues:
        assert queues.list() == ["default", "early"]
        assert queues.queue("early").name == "early"


@pytest.mark.parametrize("name", ["", " ", "a,b", "*", None])
def test_a_name_that_no_queue_can_have(name: str) -> None:
    """Refused before anything is made."""
    with pytest.raises(nbq.InvalidCommand, match="queue"):
        nbq.CommandQueue(name)


def test_a_paused_queue_hands_out_nothing(queues: nbq.QueueManager) -> None:
    """Until it goes on; why says so."""

    @nbq.job(queue="emails")
    def send() -> str:
        return "sent"

    queue = queues.add_queue("emails")
    queue.pause()
    receipt = send.dispatch()
    with queues.worker():
        assert 'queue "emails" is paused' in queues.why(receipt)
        queues.resume("emails")
        assert receipt.result(SOON) == "sent"
    queues.pause("emails")
    assert queues.stats().set_index("queue").loc["emails", "paused"]


# -- single jobs


def test_a_job_by_its_id(queues: nbq.QueueManager) -> None:
    """By UUID, text, receipt, or as much of the text as tells it from others."""
    receipt = queues.dispatch(DATA.with_delay(60).with_metadata("user_id", 7))
    text = str(receipt)
    for given in (
        receipt.job_id,
        receipt,
        text,
        text.upper(),
        receipt.job_id.hex,
        text[:4],
        text[:13],
        text[:-1],
    ):
        assert queues.job(given) is receipt
    assert queues.get(text) is receipt
    made_by_hand = nbq.JobDispatch(text[:8], "import:data")
    assert queues.job(made_by_hand) == receipt
    expected = receipt.scheduled_at
    del receipt
    gc.collect()
    again = queues.job(text)
    assert (again.command, again.queue, again.metadata) == ("import:data", "default", {"user_id": 7})
    assert again.scheduled_at is not None
    assert expected is not None
    assert abs(again.scheduled_at - expected) < timedelta(milliseconds=1)


def test_an_id_that_fits_none_or_several(queues: nbq.QueueManager) -> None:
    """Each is refused with its reason."""
    first, second, _ = queues.dispatch_many([DATA] * 3)
    with pytest.raises(nbq.JobNotFound, match="more than one job has an id that begins with"):
        queues.job(str(first)[:6])
    for given, part in [
        (str(uuid.UUID(int=7)), "no job"),
        ("0000-1", "begins with"),
        ("xyz", "no job id"),
        ("01", "no job id"),
    ]:
        with pytest.raises(nbq.JobNotFound, match=part):
            queues.job(given)
    assert queues.cancel([first, str(second)]) == 2
    assert queues.cancel(first) == 0


def test_retrying_by_hand_and_all(queues: nbq.QueueManager) -> None:
    """One by one, several, or all of a state."""
    receipts = queues.dispatch_many([DATA, DATA, DATA.on_queue("other")])
    queues.cancel(receipts)
    assert queues.retry(receipts[0]) == 1
    with pytest.raises(nbq.InvalidCommand, match="cannot be retried"):
        queues.retry(receipts[:2])
    queues.cancel(receipts[:2])
    assert queues.retry_all("failed") == 0
    assert queues.retry_all(state="cancelled", queue="other") == 1
    assert queues.retry_all(state="cancelled", command="import:data", since="1h") == 2
    waiting = queues.dispatch_many([DATA.with_delay(60)] * 2)
    assert queues.retry_all("scheduled") == 2
    assert not queues.jobs(state="scheduled")["job_id"].tolist()
    assert waiting[0].state is nbq.State.PENDING


def test_only_what_has_ended_is_forgotten(queues: nbq.QueueManager) -> None:
    """A job that waits is refused by name."""
    receipt = queues.dispatch(DATA)
    with pytest.raises(nbq.InvalidCommand, match=f"import:data {receipt} is pending"):
        queues.forget(receipt)
    receipt.cancel()
    assert queues.forget([receipt]) == 1
    with pytest.raises(nbq.JobNotFound):
        queues.forget(receipt)


def test_pruning_goes_by_age(timed: nbq.QueueManager, clock: Clock) -> None:
    """What ended longer ago goes, unless its state is kept."""
    old, kept, waiting = timed.dispatch_many([DATA] * 3)
    old.cancel()
    clock.now += 8 * 86_400
    kept.cancel()
    assert timed.prune("7d", keep="cancelled") == 0
    assert timed.prune() == 1
    assert timed.prune(older_than=timedelta(days=1)) == 0
    clock.now += 60
    assert timed.prune("30s") == 1
    assert timed.jobs()["job_id"].tolist() == [str(waiting)]
    with pytest.raises(nbq.InvalidCommand, match="older_than"):
        timed.prune("a while")


def test_pruning_goes_by_number(timed: nbq.QueueManager, clock: Clock) -> None:
    """All but the latest that ended go, whatever their age; with an age what is older goes too."""
    jobs = timed.dispatch_many([DATA] * 6)
    for job in jobs[:5]:
        clock.now += 60
        job.cancel()
    assert timed.prune(keep=5) == 0
    assert timed.prune(keep=4) == 1
    assert timed.prune("200s", keep=3) == 1
    assert timed.prune("30s", keep=3) == 2
    assert sorted(timed.jobs()["job_id"]) == sorted(map(str, jobs[4:]))
    assert timed.prune(keep=0) == 1
    assert timed.jobs()["job_id"].tolist() == [str(jobs[5])]
    for wrong in (-1, True, 1 << 60):
        with pytest.raises(nbq.InvalidCommand, match="keep must be a whole number"):
            timed.prune(keep=wrong)


# -- looking


def test_jobs_are_picked_by_words(timed: nbq.QueueManager, clock: Clock) -> None:
    """State, queue, command and age narrow; newest first."""
    first = timed.dispatch(DATA)
    clock.now += 7_200
    second = timed.dispatch(DATA.on_queue("imports"))
    third = timed.dispatch(nbq.QueuedCommand("export:data").with_delay(60))
    second.cancel()

    def ids(**words: object) -> list[str]:
        return timed.jobs(**words)["job_id"].tolist()  # type: ignore[arg-type]

    assert ids() == [str(third), str(second), str(first)]
    assert ids(limit=1) == [str(third)]
    assert ids(state="cancelled") == ids(queue="imports") == [str(second)]
    assert ids(state=["pending", "cancelled"], command="import:data") == [str(second), str(first)]
    assert ids(since="1h") == ids(since=timedelta(hours=1)) == ids(since=3_600) == [str(third), str(second)]
    assert ids(since=datetime.fromtimestamp(clock.now, UTC)) == [str(third), str(second)]
    assert set(timed.events(state="cancelled")["job_id"]) == {str(second)}
    assert len(timed.attempts()) == 0


def test_waiting_jobs_are_states_to_the_eye(queues: nbq.QueueManager) -> None:
    """The word "scheduled" is understood wherever a state is, beside others too."""
    now, later = queues.dispatch_many([DATA, DATA.with_delay(600)])
    cancelled = queues.dispatch(DATA)
    cancelled.cancel()
    assert queues.jobs(state="scheduled")["job_id"].tolist() == [str(later)]
    both = queues.jobs(state=["scheduled", "cancelled"])["job_id"].tolist()
    assert both == [str(cancelled), str(later)]
    assert len(queues.jobs(state=["scheduled", "pending"])) == 2
    with pytest.raises(nbq.InvalidCommand, match='state="pending"'):
        queues.attempts(state="scheduled")
    assert now.state is nbq.State.PENDING


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ({"state": "fialed"}, 'did you mean "failed"'),
        ({"since": "yesterday"}, "since 'yesterday'"),
        ({"command": 7}, "command must be a name"),
        ({"limit": -1}, "limit"),
        ({"batch": "b"}, "batch"),
    ],
)
def test_words_that_mean_nothing(queues: nbq.QueueManager, words: dict[str, object], part: str) -> None:
    """They are named, with what may have been meant."""
    with pytest.raises(nbq.InvalidCommand, match=part):
        queues.jobs(**words)  # type: ignore[arg-type]


def test_stats_and_throughput(queues: nbq.QueueManager) -> None:
    """A row a queue, and a row a stretch of time."""
    queues.dispatch_many([DATA] * 2)
    queues.dispatch(DATA).cancel()
    stats = queues.stats().set_index("queue").loc["default"]
    assert (stats["pending"], stats["cancelled"]) == (2, 1)
    assert queues.throughput("1min")["cancelled"].sum() == 1
    assert queues.backlog("1s")["pending"].iloc[-1] == 2
    assert len(queues.latency()) == len(queues.timeline()) == 0


def test_sql_sees_the_callers_frames(queues: nbq.QueueManager) -> None:
    """Local ones first, by name; only those that the query names."""
    queues.dispatch_many([DATA.on_queue(name) for name in ("a", "a", "b")])
    owners = pd.DataFrame({"queue": ["a", "b"], "owner": ["Ada", "Bob"]})
    found = queues.sql(
        "SELECT owner, count(*) AS n FROM jobs JOIN owners USING (queue) WHERE queue <> ? GROUP BY 1", ["b"]
    )
    assert found.to_dict("records") == [{"owner": "Ada", "n": 2}]
    assert len(queues.sql("SELECT * FROM given", names={"given": owners})) == 2
    del owners
    with pytest.raises(nbq.QueueError, match="owners"):
        queues.sql("SELECT * FROM owners")


def test_sql_only_reads(queues: nbq.QueueManager) -> None:
    """What would change anything is refused."""
    with pytest.raises(nbq.NotSupported):
        queues.sql("DROP VIEW jobs")


# -- workers


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"queues": []}, "empty list"),
        ({"queues": ["a,b"]}, "queue"),
        ({"tries": 0}, "tries"),
        ({"timeout": 0}, "timeout"),
        ({"lease": -1}, "lease"),
        ({"executor": "magic"}, "executor"),
    ],
)
def test_a_worker_that_cannot_be(queues: nbq.QueueManager, options: dict[str, object], part: str) -> None:
    """The sentence names the option."""
    with pytest.raises(nbq.InvalidCommand, match=part):
        queues.worker(**options)  # type: ignore[arg-type]


def test_a_worker_serves_the_queues_it_was_given(queues: nbq.QueueManager) -> None:
    """One name or several; what it names no tries gets the worker's."""

    @nbq.job(backoff=0)
    def fail() -> None:
        raise ValueError("no")

    mine, other = fail.options(queue="mine").dispatch(), fail.dispatch()
    queues.worker("mine", tries=2).drain(SOON)
    assert (mine.attempt, mine.state, other.state) == (2, nbq.State.FAILED, nbq.State.PENDING)


def test_retention_is_set_with_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that is opened with a retention forgets what ended longer ago, though nobody works on it."""
    monkeypatch.setattr("nbqueue.stores.duckdb.IDLE_SECONDS", 0.05)
    path = tmp_path / "jobs.duckdb"
    with nbq.connect(path) as queues:
        queues.dispatch(nbq.QueuedCommand("tidy:nothing")).cancel()
    with pytest.raises(nbq.InvalidCommand, match="retention"):
        nbq.QueueConfig(path=path, retention="soon")
    with nbq.connect(nbq.QueueConfig(path=path, retention=1.0)) as queues:
        gone = threading.Event()
        queues.on_change(gone.set)
        while not queues.jobs().empty:
            assert gone.wait(20)


def test_number_kept_is_set_with_the_queue(tmp_path: Path) -> None:
    """So many of the jobs that ended stay at most, the latest."""
    path = tmp_path / "jobs.duckdb"
    with nbq.connect(path) as queues:
        for job in (jobs := [queues.dispatch(nbq.QueuedCommand("tidy:nothing")) for _ in range(5)]):
            job.cancel()
    with pytest.raises(nbq.InvalidCommand, match="keep"):
        nbq.QueueConfig(path=path, keep=-1)
    with nbq.connect(nbq.QueueConfig(path=path, keep=2)) as queues:
        assert queues.jobs()["job_id"].tolist() == [str(jobs[4]), str(jobs[3])]


def test_retry_all_leaves_room_for_others(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many jobs are let run again slice by slice, each in a commit of its own, and counted together."""
    monkeypatch.setattr(controls, "_AT_ONCE", 3)
    slices = []
    real = queues.store.retry

    def retry(ids: list[uuid.UUID], *args: Any, **words: Any) -> Any:
        slices.append(len(ids))
        return real(ids, *args, **words)

    queues.cancel(queues.dispatch_many([DATA] * 8))
    monkeypatch.setattr(queues.store, "retry", retry)
    assert queues.retry_all("cancelled") == 8
    assert slices == [3, 3, 2]
    assert queues.store.find(Selection(states=(nbq.State.CANCELLED,))) == []
