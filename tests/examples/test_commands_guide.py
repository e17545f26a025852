"""The guide to commands, section by section: each of its examples, run through a DuckDB file by a real worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import nbqueue as nbq
from nbqueue import CommandQueue, JobDispatch, QueuedCommand, State
from nbqueue.executor import StopReason
from nbqueue.executors.thread import ThreadExecutor
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.writes import Writes

from .conftest import PATIENCE, Clock

WorkOff = Callable[..., None]


@pytest.fixture
def ran() -> list[str]:
    """What ran, in order; see ``says``."""
    return []


@pytest.fixture
def says(ran: list[str]) -> Callable[..., None]:
    """Make commands that note their name and arguments in ``ran``."""

    def define(*names: str) -> None:
        for name in names:

            @nbq.command(name)
            def note(ctx: nbq.Context, *args: str) -> str:
                ran.append(" ".join([ctx.command, *args]))
                return ran[-1]

    return define


Says = Callable[..., None]


# --------------------------------------------------------------------------------------- basic usage


def test_simple_dispatch(queues: nbq.QueueManager, says: Says) -> None:
    """Simple dispatch: a command with arguments, on the default queue; printed, the receipt is the id."""
    says("import:data")
    queue = CommandQueue.default()
    cmd = QueuedCommand("import:data").with_args(["users.csv"])
    receipt = queue.dispatch(cmd)
    assert uuid.UUID(f"{receipt}") == receipt.job_id
    assert (receipt.command, receipt.queue) == ("import:data", "default")
    with queues.worker():
        assert receipt.result(PATIENCE) == "import:data users.csv"


def test_with_delay(
    timed: nbq.QueueManager, clock: Clock, work_off: WorkOff, says: Says, ran: list[str]
) -> None:
    """Delay: five minutes later, and not a second before."""
    says("send:emails")
    cmd = QueuedCommand("send:emails").with_delay(timedelta(minutes=5))
    receipt = timed.dispatch(cmd)
    assert cmd.is_delayed()
    assert cmd.options == QueuedCommand("send:emails").with_delay(300).options
    assert receipt.scheduled_at == datetime.fromtimestamp(clock.now + 300, UTC)
    clock.advance(299)
    work_off(timed)
    assert (ran, receipt.state) == ([], State.PENDING)
    clock.advance(1)
    work_off(timed)
    assert (ran, receipt.state) == (["send:emails"], State.SUCCEEDED)


def test_with_retry_configuration(timed: nbq.QueueManager, clock: Clock, work_off: WorkOff) -> None:
    """Retries: up to five attempts, further and further apart, the fifth of which succeeds."""
    times: list[float] = []

    @nbq.command("sync:external-api")
    def sync(ctx: nbq.Context) -> int:
        times.append(clock.now)
        if ctx.attempt < 5:
            msg = "503"
            raise ConnectionError(msg)
        return ctx.attempt

    receipt = timed.dispatch(QueuedCommand("sync:external-api").with_max_attempts(5))
    # The default: 1, 2, 4, 8 s, a fifth more or less.
    for wait in (0, 1.2, 2.4, 4.8, 9.6):
        clock.advance(wait)
        work_off(timed)
    assert receipt.result(PATIENCE) == 5
    assert len(times) == 5
    assert receipt.record().max_attempts == 5
    with pytest.raises(nbq.InvalidCommand, match="max_attempts cannot be 0"):
        QueuedCommand("sync:external-api").with_max_attempts(0)


# ----------------------------------------------------------------------------------- multiple queues


def test_different_queues(queues: nbq.QueueManager, says: Says) -> None:
    """Different queues: each worker has its own, and what ``on_queue`` says wins over where it is dispatched."""
    says("alert:critical", "report:generate")
    urgent, background = CommandQueue("urgent"), CommandQueue("background")
    alert = urgent.dispatch(QueuedCommand("alert:critical").on_queue("urgent"))
    report = background.dispatch(QueuedCommand("report:generate").on_queue("background"))
    moved = background.dispatch(QueuedCommand("alert:critical").on_queue("urgent"))
    assert [r.queue for r in (alert, report, moved)] == ["urgent", "background", "urgent"]
    with queues.worker(queues="urgent") as worker:
        worker.drain(PATIENCE)
        assert [r.state for r in (alert, moved, report)] == [State.SUCCEEDED, State.SUCCEEDED, State.PENDING]
    with queues.worker(queues="background"):
        assert report.result(PATIENCE) == "report:generate"


def test_queue_manager(path: Path, says: Says) -> None:
    """The manager: queues are made, found and listed; one that nobody made is named, with what was meant."""
    says("urgent:task")
    with nbq.QueueManager(path) as manager:
        for name in ("high", "normal", "low"):
            manager.add_queue(name)
        receipt = manager.queue("high").dispatch(QueuedCommand("urgent:task"))
        assert receipt.queue == "high"
        assert manager.list() == ["default", "high", "low", "normal"]
        with pytest.raises(nbq.QueueUnavailable, match='queue "hihg" does not exist; did you mean "high"'):
            manager.queue("hihg")
        with manager.worker():
            assert receipt.result(PATIENCE) == "urgent:task"
    with nbq.QueueManager(path) as again:
        assert {"high", "default"} <= set(again.list())


# --------------------------------------------------------------------------------- advanced features


def test_timeout(queues: nbq.QueueManager) -> None:
    """Timeout: an attempt that takes longer is stopped, and says so; the rest of its time is told to the handler."""
    stopped: list[str] = []

    @nbq.command("data:process")
    async def process(ctx: nbq.Context, *args: str) -> float:
        if "--forever" in args:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append(ctx.command)
        left = ctx.seconds_left()
        assert left is not None
        return left

    cmd = QueuedCommand("data:process")
    with queues.worker():
        quick = queues.dispatch(cmd.with_timeout(timedelta(minutes=10)))
        assert 590 < quick.result(PATIENCE) <= 600
        endless = queues.dispatch(cmd.with_arg("--forever").with_timeout(0.05))
        with pytest.raises(nbq.JobTimeout, match=r"longer than its timeout of 0\.05 s"):
            endless.result(PATIENCE)
    assert stopped == ["data:process"]
    assert (endless.state, endless.record().cause) == (State.FAILED, "timeout")


def test_timeout_of_a_plain_function(queues: nbq.QueueManager) -> None:
    """Timeout: a plain function is stopped at its next step of Python, ``except Exception`` or not, and cleans up."""
    never = threading.Event()
    said: list[str] = []

    @nbq.command("data:process")
    def process(ctx: nbq.Context) -> None:
        try:
            while True:
                with contextlib.suppress(Exception):
                    never.wait(0.01)
        finally:
            said.append(str(ctx.stop_reason))

    cmd = QueuedCommand("data:process").with_timeout(0.05)
    with queues.worker():
        with pytest.raises(nbq.JobTimeout, match="it stopped when told to"):
            queues.dispatch(cmd).result(PATIENCE)
        assert said == ["timeout"]


def test_timeout_of_what_cannot_be_stopped(queues: nbq.QueueManager) -> None:
    """Timeout: a thread in one long call goes on, is shown as running, and has timed out when it returns after all."""
    told, released = threading.Event(), threading.Event()

    @nbq.command("data:process")
    def process(ctx: nbq.Context) -> str:
        released.wait(PATIENCE)
        return "late"

    cmd = QueuedCommand("data:process").with_timeout(0.05)

    class Telling(ThreadExecutor):
        def stop_job(self, fence: int, reason: StopReason) -> bool:
            stopped = super().stop_job(fence, reason)
            told.set()
            return stopped

    with queues.worker(executor=Telling(1)):
        receipt = queues.dispatch(cmd)
        assert told.wait(PATIENCE)
        assert receipt.state is State.RUNNING
        released.set()
        with pytest.raises(nbq.JobTimeout):
            receipt.result(PATIENCE)


def test_metadata(queues: nbq.QueueManager) -> None:
    """Metadata: kept with the job as JSON, given to its handler, and seen by whoever holds the receipt."""

    @nbq.command("export:users")
    def export(ctx: nbq.Context) -> str:
        return f"{ctx.metadata['export_type']} for {ctx.metadata['user_id']}"

    cmd = QueuedCommand("export:users").with_metadata("export_type", "pdf").with_metadata("user_id", 123)
    receipt = queues.dispatch(cmd)
    assert receipt.metadata == {"export_type": "pdf", "user_id": 123}
    assert json.loads(receipt.record().metadata) == receipt.metadata
    with queues.worker():
        assert receipt.result(PATIENCE) == "pdf for 123"


def test_multiple_arguments(queues: nbq.QueueManager) -> None:
    """Arguments: one after the other, each giving a new command; a click command reads them as its own."""
    import click

    @nbq.command("migrate:database")
    @click.command
    @click.option("--database")
    @click.option("--steps", type=int)
    @click.option("--force", is_flag=True)
    def migrate(database: str, steps: int, force: bool) -> list[object]:
        return [database, steps, force]

    plain = QueuedCommand("migrate:database")
    cmd = plain.with_arg("--database=legacy").with_arg("--steps=5").with_arg("--force")
    assert (plain.args, cmd.args) == ((), ("--database=legacy", "--steps=5", "--force"))
    with queues.worker():
        assert queues.dispatch(cmd).result(PATIENCE) == ["legacy", 5, True]
        wrong = queues.dispatch(plain.with_arg("--setps=5"))
        with pytest.raises(nbq.JobFailed, match="No such option"):
            wrong.result(PATIENCE)


def test_batch_dispatch(queues: nbq.QueueManager, says: Says, ran: list[str]) -> None:
    """Many at once: all of them in one go, or, if one cannot be, none."""
    names = ["clean:cache", "optimize:images", "generate:sitemap"]
    says(*names)
    queue = queues.add_queue("chores")
    receipts = queue.dispatch_many([QueuedCommand(name) for name in names])
    assert [receipt.command for receipt in receipts] == names
    assert len({receipt.job_id for receipt in receipts}) == 3
    with pytest.raises(nbq.InvalidCommand, match="clean:cache"):
        queue.dispatch_many(
            [QueuedCommand("clean:cache"), QueuedCommand("clean:cache").with_arg(threading.Lock())]
        )
    with queues.worker(concurrency=1) as worker:
        worker.drain(PATIENCE)
    assert ran == names


# -------------------------------------------------------------------------------- in a command's context


def test_dispatching_from_inside_a_command(
    timed: nbq.QueueManager, clock: Clock, work_off: WorkOff, says: Says, ran: list[str]
) -> None:
    """Follow-ups: dispatched from inside a command they land in the queue file that the command came from."""
    says("cleanup:temp-files")

    @nbq.command("make:temp-files")
    async def execute(ctx: nbq.Context) -> str:
        queue = CommandQueue.default()
        follow_up = QueuedCommand("cleanup:temp-files").with_delay(timedelta(hours=1))
        receipt = await queue.adispatch(follow_up)
        return f"Task queued with ID: {receipt}"

    receipt = timed.dispatch(QueuedCommand("make:temp-files"))
    with nbq.connect(":memory:") as other:
        work_off(timed)
        assert [info.counts[State.PENDING] for info in other.queues()] == [0]
    said = receipt.result(PATIENCE)
    assert said.startswith("Task queued with ID: ")
    follow_up = timed.job(said.rpartition(" ")[2])
    assert (follow_up.command, follow_up.state) == ("cleanup:temp-files", State.PENDING)
    assert follow_up.why().startswith("delayed until ")
    clock.advance(3601)
    work_off(timed)
    assert (ran, follow_up.state) == (["cleanup:temp-files"], State.SUCCEEDED)


def test_follow_ups_from_the_context(queues: nbq.QueueManager, says: Says) -> None:
    """Follow-ups: ``ctx.dispatch`` does the same, in a plain function."""
    says("second:step")

    @nbq.command("first:step")
    def first(ctx: nbq.Context) -> str:
        return str(ctx.dispatch(QueuedCommand("second:step").with_arg("--after-first")))

    with queues.worker():
        second = queues.dispatch(QueuedCommand("first:step")).result(PATIENCE)
        assert queues.job(second).result(PATIENCE) == "second:step --after-first"


def test_job_result_tracking(timed: nbq.QueueManager, clock: Clock, work_off: WorkOff, says: Says) -> None:
    """Tracking: a receipt tells the id and when it may run first; one can be made by hand, as for a test."""
    by_hand = JobDispatch("job123", "import:data", "default")
    assert by_hand.scheduled_at is None
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    by_hand = by_hand.with_scheduled_at(in_an_hour.isoformat())
    assert (str(by_hand), by_hand.scheduled_at) == ("job123", in_an_hour)
    with pytest.raises(nbq.QueueUnavailable, match="made by hand and belongs to no queue"):
        by_hand.wait(0)

    says("import:data")
    when = datetime.fromtimestamp(clock.now, UTC) + timedelta(hours=1)
    real = timed.dispatch(QueuedCommand("import:data").with_scheduled_at(when))
    assert (real.scheduled_at, real.state) == (when, State.PENDING)
    work_off(timed)
    assert real.state is State.PENDING
    with pytest.raises(TimeoutError, match="delayed until"):
        real.wait(0)
    clock.advance(3600)
    work_off(timed)
    assert real.result(PATIENCE) == "import:data"
    assert timed.job(str(real)[:13]) == real


# ------------------------------------------------------------------------------------ error handling


def dispatched(queue: CommandQueue, cmd: QueuedCommand) -> str:
    """Dispatch, and say in a sentence how it went; as a program would."""
    try:
        receipt = queue.dispatch(cmd)
    except nbq.QueueError as error:
        match error:
            case nbq.InvalidCommand():
                return f"Invalid command configuration: {error}"
            case nbq.QueueUnavailable():
                return f"Queue is not available: {error}"
            case nbq.DispatchFailed():
                return f"Failed to dispatch: {error}"
            case _:
                return f"Error: {error}"
    return f"Dispatched: {receipt}"


def test_handling_dispatch_errors(path: Path, monkeypatch: pytest.MonkeyPatch, says: Says) -> None:
    """Errors: three kinds, told apart; after each of them the queue holds what it held before, and goes on."""
    says("task:process")
    with nbq.connect(path) as queues:
        queue, cmd = queues.queue("default"), QueuedCommand("task:process")
        assert dispatched(queue, cmd).startswith("Dispatched: ")

        said = dispatched(queue, cmd.with_arg(threading.Lock()))
        assert said.startswith("Invalid command configuration: task:process")

        commit, full = Ledger.commit, [OSError(28, "No space left on device")]

        def once(ledger: Ledger, writes: Writes) -> None:
            if full:
                raise full.pop()
            commit(ledger, writes)

        monkeypatch.setattr(Ledger, "commit", once)
        said = dispatched(queue, cmd)
        assert said.startswith("Failed to dispatch: ")
        assert "nothing of this call was accepted" in said
        assert "No space left on device" in said

        assert dispatched(queue, cmd).startswith("Dispatched: ")
        with queues.worker() as worker:
            worker.drain(PATIENCE)
        assert next(info.counts[State.SUCCEEDED] for info in queues.queues()) == 2
    assert dispatched(queue, cmd).startswith("Queue is not available: ")
    assert issubclass(nbq.QueueError, nbq.NbqueueError)


def test_validation(queues: nbq.QueueManager, says: Says) -> None:
    """Validation: an empty name and no attempts at all are refused before anything is written."""
    # ❌ these fail
    with pytest.raises(nbq.InvalidCommand, match="command is empty"):
        QueuedCommand("")
    with pytest.raises(nbq.InvalidCommand, match="max_attempts cannot be 0; give 1"):
        QueuedCommand("valid:command").with_max_attempts(0)
    with pytest.raises(nbq.InvalidCommand, match="delay cannot be -1 s"):
        QueuedCommand("valid:command").with_delay(-1)
    with pytest.raises(nbq.InvalidCommand, match="timeout"):
        QueuedCommand("valid:command").with_timeout(0)
    with pytest.raises(nbq.InvalidCommand, match="queue is empty"):
        QueuedCommand("valid:command").on_queue("")
    with pytest.raises(nbq.InvalidCommand, match="has no time zone"):
        QueuedCommand("valid:command").with_scheduled_at(datetime(2030, 1, 1))  # noqa: DTZ001 - the point
    with pytest.raises(ValueError, match="priority 101"):
        QueuedCommand("valid:command").with_priority(101)
    assert [info.counts[State.PENDING] for info in queues.queues()] == [0]

    # ✅ this succeeds
    says("valid:command")
    with queues.worker():
        cmd = QueuedCommand("valid:command").with_max_attempts(3)
        assert queues.dispatch(cmd).result(PATIENCE) == "valid:command"


# --------------------------------------------------------------------------------- real-world examples


def test_email_campaign(timed: nbq.QueueManager, clock: Clock, work_off: WorkOff) -> None:
    """E-mail campaign: a thousand mails, five seconds apart; one that bounces is tried again."""
    sent: list[int] = []

    @nbq.command("email:send")
    def send(ctx: nbq.Context, user: str) -> int:
        user_id = int(user.removeprefix("--user="))
        if user_id == 3 and ctx.attempt == 1:
            msg = "greylisted"
            raise ConnectionError(msg)
        sent.append(user_id)
        return user_id

    async def queue_emails() -> list[JobDispatch]:
        queue = CommandQueue("emails")
        return await asyncio.gather(
            *(
                queue.adispatch(
                    QueuedCommand("email:send")
                    .with_arg(f"--user={user_id}")
                    .with_delay(timedelta(seconds=5 * user_id))
                    .with_max_attempts(3)
                )
                for user_id in range(1, 1001)
            )
        )

    start = clock.now
    receipts = asyncio.run(queue_emails())
    times = [receipt.scheduled_at.timestamp() - start for receipt in receipts if receipt.scheduled_at]
    assert times == pytest.approx([5 * user_id for user_id in range(1, 1001)])
    work_off(timed, queues="emails", concurrency=1)
    assert sent == []
    for _ in range(4):
        clock.advance(5)
        work_off(timed, queues="emails", concurrency=1)
    assert sent == [1, 2, 3, 4]
    assert receipts[2].attempt == 2
    clock.advance(5 * 1000)
    work_off(timed, queues="emails")
    assert sorted(sent) == list(range(1, 1001))
    assert {receipt.state for receipt in receipts} == {State.SUCCEEDED}


def test_data_import_pipeline(queues: nbq.QueueManager, tmp_path: Path) -> None:
    """Import pipeline: a job a file, each with its batch number, ten minutes and five attempts."""
    rows: dict[int, list[str]] = {}
    locked = {"orders.csv"}

    @nbq.command("import:csv", backoff=0.01)
    def import_csv(ctx: nbq.Context, file: str, batch: str) -> int:
        path = Path(file)
        if path.name in locked:
            locked.remove(path.name)
            msg = f"{path.name} is being written"
            raise BlockingIOError(msg)
        rows[int(batch.removeprefix("--batch="))] = path.read_text().splitlines()[1:]
        return len(path.read_text().splitlines()) - 1

    async def import_data_pipeline(files: list[str]) -> list[str]:
        queue = CommandQueue("imports")
        job_ids = []
        for index, file in enumerate(files):
            cmd = (
                QueuedCommand("import:csv")
                .with_arg(file)
                .with_arg(f"--batch={index + 1}")
                .with_timeout(timedelta(minutes=10))
                .with_max_attempts(5)
            )
            job_ids.append(str(await queue.adispatch(cmd)))
        return job_ids

    files = []
    for name, lines in {"users": ["ada", "bob"], "orders": ["tea"], "items": []}.items():
        file = tmp_path / f"{name}.csv"
        file.write_text("\n".join(["name", *lines]) + "\n")
        files.append(str(file))
    job_ids = asyncio.run(import_data_pipeline(files))
    specs = [queues.job(job_id).record().spec for job_id in job_ids]
    assert {(spec.queue, spec.tries, spec.timeout) for spec in specs} == {("imports", 5, 600.0)}
    with queues.worker(queues="imports"):
        assert [queues.job(job_id).result(PATIENCE) for job_id in job_ids] == [2, 1, 0]
    assert rows == {1: ["ada", "bob"], 2: ["tea"], 3: []}
    assert [queues.job(job_id).attempt for job_id in job_ids] == [1, 2, 1]


def test_scheduled_reports(queues: nbq.QueueManager, tmp_path: Path) -> None:
    """Daily reports: one job a kind, told apart by its metadata; two attempts are all that one gets."""
    reports = ["sales", "inventory", "customer_activity"]

    @nbq.command("report:generate", backoff=0.01)
    def generate(ctx: nbq.Context, kind: str, form: str) -> str:
        name = ctx.metadata["report_type"]
        assert kind == f"--type={name}"
        if name == "inventory":
            msg = "the warehouse does not answer"
            raise ConnectionError(msg)
        file = tmp_path / f"{name}.{form.removeprefix('--format=')}"
        file.write_bytes(b"%PDF")
        return file.name

    def schedule_daily_reports(queue: CommandQueue) -> list[JobDispatch]:
        return [
            queue.dispatch(
                QueuedCommand("report:generate")
                .with_arg(f"--type={report_type}")
                .with_arg("--format=pdf")
                .with_metadata("report_type", report_type)
                .with_max_attempts(2)
            )
            for report_type in reports
        ]

    receipts = schedule_daily_reports(queues.add_queue("reports"))
    with queues.worker() as worker:
        worker.drain(PATIENCE)
    assert sorted(file.name for file in tmp_path.glob("*.pdf")) == ["customer_activity.pdf", "sales.pdf"]
    states = {receipt.metadata["report_type"]: (receipt.state, receipt.attempt) for receipt in receipts}
    assert states == {
        "sales": (State.SUCCEEDED, 1),
        "inventory": (State.FAILED, 2),
        "customer_activity": (State.SUCCEEDED, 1),
    }


# -------------------------------------------------------------------------------------- best practices


def test_meaningful_names(queues: nbq.QueueManager, says: Says) -> None:
    """Best practice 1, names: a misspelt one waits, and says which name has no handler."""
    says("invoice:send", "backup:database")
    with queues.worker():
        assert queues.dispatch(QueuedCommand("invoice:send")).result(PATIENCE) == "invoice:send"
        assert queues.dispatch(QueuedCommand("backup:database")).result(PATIENCE) == "backup:database"
        assert queues.why(queues.dispatch(QueuedCommand("invioce:send"))).startswith(
            'no handler for "invioce:send"'
        )


def test_timeouts_for_long_operations(queues: nbq.QueueManager) -> None:
    """Best practice 2, timeouts: an hour for the long one; the worker's own for those that name none."""

    @nbq.command("backup:large-database")
    def backup(ctx: nbq.Context) -> float | None:
        return ctx.claim.timeout

    cmd = QueuedCommand("backup:large-database")
    with queues.worker(timeout=60):
        assert queues.dispatch(cmd.with_timeout(timedelta(hours=1))).result(PATIENCE) == 3600
        assert queues.dispatch(cmd).result(PATIENCE) == 60
    with queues.worker():
        assert queues.dispatch(cmd).result(PATIENCE) is None


def test_attempts_by_operation(queues: nbq.QueueManager) -> None:
    """Best practice 3, attempts: more for a call to somebody else's API, one for what must not happen twice."""
    calls: list[str] = []

    @nbq.command("flaky:operation", backoff=0.001)
    def flaky(ctx: nbq.Context, what: str) -> None:
        calls.append(what)
        msg = "no"
        raise ConnectionError(msg)

    cmd = QueuedCommand("flaky:operation")
    with queues.worker() as worker:
        queues.dispatch(cmd.with_arg("api").with_max_attempts(5))
        queues.dispatch(cmd.with_arg("payment").with_max_attempts(1))
        worker.drain(PATIENCE)
    assert (calls.count("api"), calls.count("payment")) == (5, 1)


def test_delays_for_staggering(
    timed: nbq.QueueManager, clock: Clock, work_off: WorkOff, says: Says, ran: list[str]
) -> None:
    """Best practice 4, staggering: a tenth of a second a user, so that they do not come all at once."""
    says("sync:user")
    cmd = QueuedCommand("sync:user")
    for user_id in (5, 10, 15):
        timed.dispatch(cmd.with_arg(str(user_id)).with_delay(timedelta(milliseconds=100 * user_id)))
    counts = []
    for _ in range(4):
        work_off(timed)
        counts.append(len(ran))
        clock.advance(0.5)
    assert counts == [0, 1, 2, 3]


def test_metadata_for_tracking(queues: nbq.QueueManager, says: Says) -> None:
    """Best practice 5, metadata: it is found again by SQL over all jobs."""
    says("import:users")
    cmd = QueuedCommand("import:users")
    for user_id, source in ((7, "api"), (8, "file"), (9, "api")):
        queues.dispatch(cmd.with_metadata("user_id", user_id).with_metadata("import_source", source))
    with queues.worker() as worker:
        worker.drain(PATIENCE)
    found = queues.sql(
        "SELECT CAST(metadata->>'user_id' AS INT) AS user_id FROM jobs "
        "WHERE metadata->>'import_source' = 'api' AND state = 'succeeded' ORDER BY user_id"
    )
    assert found["user_id"].tolist() == [7, 9]


# ------------------------------------------------------------------------------- processing strategies


def test_priority_queues(queues: nbq.QueueManager, says: Says, ran: list[str]) -> None:
    """Priority queues: urgent first, then normal, then background, however they were dispatched."""
    says("job")
    urgent, normal, background = (CommandQueue(name) for name in ("urgent", "normal", "background"))
    for number in (1, 2):
        for queue in (background, normal, urgent):
            queue.dispatch(QueuedCommand("job").with_args([queue.name, str(number)]))
    urgent.dispatch(QueuedCommand("job").with_args(["urgent", "first of all"]).with_priority(5))
    with queues.worker(queues=["urgent", "normal", "background"], concurrency=1) as worker:
        worker.drain(PATIENCE)
    assert ran == [
        "job urgent first of all",
        *("job urgent 1", "job urgent 2"),
        *("job normal 1", "job normal 2"),
        *("job background 1", "job background 2"),
    ]


def test_time_based_queues(
    timed: nbq.QueueManager, clock: Clock, work_off: WorkOff, says: Says, ran: list[str]
) -> None:
    """Time-based queues: one at once, one paused until off-hours, one for what takes long, with its own worker."""
    says("job")
    now, batch, slow = (CommandQueue(name) for name in ("now", "batch", "slow"))
    batch.pause()
    for queue in (slow, batch, now):
        queue.dispatch(QueuedCommand("job").with_arg(queue.name))
    work_off(timed, queues=["now", "batch"])
    assert ran == ["job now"]
    clock.advance(8 * 3600)
    batch.resume()
    work_off(timed, queues=["now", "batch"])
    assert ran == ["job now", "job batch"]
    work_off(timed, queues="slow", concurrency=1)
    assert ran == ["job now", "job batch", "job slow"]


def test_job_specific_queues(queues: nbq.QueueManager, says: Says) -> None:
    """Job-specific queues: three workers side by side, each on its own queue."""
    says("email:send", "report:generate", "sync:all")
    receipts = [
        CommandQueue("email").dispatch(QueuedCommand("email:send")),
        CommandQueue("reports").dispatch(QueuedCommand("report:generate")),
        CommandQueue("sync").dispatch(QueuedCommand("sync:all")),
    ]
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(queues.worker(queues=r.queue, concurrency=1)) for r in receipts]
        assert [r.result(PATIENCE) for r in receipts] == ["email:send", "report:generate", "sync:all"]
        assert [r.record().worker for r in receipts] == [worker.worker_id for worker in workers]


# --------------------------------------------------------------------------- performance considerations


def test_ids_are_uuids_and_nothing_blocks(queues: nbq.QueueManager, says: Says) -> None:
    """Performance: ids are UUIDs, a thousand commands are one transaction, and awaiting many shares commits."""
    says("job")
    many = queues.dispatch_many(QueuedCommand("job").with_arg(str(i)) for i in range(1000))

    async def gather() -> list[JobDispatch]:
        return await asyncio.gather(*(queues.adispatch(QueuedCommand("job")) for _ in range(50)))

    receipts = many + asyncio.run(gather())
    assert len({receipt.job_id for receipt in receipts}) == 1050
    assert {(receipt.job_id.version, receipt.job_id.variant) for receipt in receipts} == {(7, uuid.RFC_4122)}
    with queues.worker() as worker:
        worker.drain(PATIENCE)
    assert next(info.counts[State.SUCCEEDED] for info in queues.queues()) == 1050


# --------------------------------------------------------------------------------------------- testing


def test_queue_dispatch() -> None:
    """Testing: dispatching in a test needs no file and no worker."""
    with nbq.connect(":memory:"):
        receipt = CommandQueue.default().dispatch(QueuedCommand("test:command"))
        assert receipt.state is State.PENDING


def test_queued_command_builder() -> None:
    """Testing: a command is a value, whose parts can be looked at."""
    cmd = (
        QueuedCommand("email:send")
        .with_args(["user@example.com"])
        .with_delay(timedelta(seconds=60))
        .with_max_attempts(3)
    )
    assert cmd.command == "email:send"
    assert len(cmd.args) == 1
    assert cmd.is_delayed()


def test_every_builder(queues: nbq.QueueManager) -> None:
    """Testing: each ``with_…`` gives a new command that says one thing more, and leaves the old one as it was."""
    when = datetime(2030, 1, 1, tzinfo=UTC)
    plain = QueuedCommand("email:send")
    built = [
        plain.with_args(["a"]),
        plain.with_arg("a"),
        plain.with_kwargs(to="a"),
        plain.with_delay(60),
        plain.with_scheduled_at(when),
        plain.with_max_attempts(3),
        plain.with_backoff([1, 5]),
        plain.with_timeout(60),
        plain.with_metadata("user_id", 7),
        plain.on_queue("emails"),
        plain.with_priority(5),
    ]
    assert plain == QueuedCommand("email:send")
    assert all(cmd != plain for cmd in built)
    builders = [name for name in dir(QueuedCommand) if name.startswith("with_")]
    assert len(built) == len(builders) + len(["on_queue"])
    whole = (
        plain.with_kwargs(to="a").with_scheduled_at(when).with_max_attempts(3).with_backoff([1, 5])
        .with_timeout(60).with_metadata("user_id", 7).on_queue("emails").with_priority(5)
    )  # fmt: skip
    record = queues.dispatch(whole).record()
    spec = record.spec
    assert (spec.command, spec.queue, spec.priority, spec.tries, spec.timeout) == (
        "email:send",
        "emails",
        5,
        3,
        60,
    )
    assert spec.retry.backoff == (1, 5)
    assert (record.scheduled_at, json.loads(record.metadata)) == (when.timestamp(), {"user_id": 7})


# ------------------------------------------------------------------------------------- troubleshooting


def test_why_delayed(timed: nbq.QueueManager, clock: Clock, says: Says) -> None:
    """Not processing: it is delayed, until then."""
    says("job")
    receipt = timed.dispatch(QueuedCommand("job").with_delay(90))
    when = datetime.fromtimestamp(clock.now + 90, UTC).isoformat(sep=" ", timespec="seconds")
    assert receipt.why() == f"delayed until {when}, 90.0 s from now"
    with timed.worker():
        assert timed.why(receipt).startswith("delayed until")


def test_why_paused(queues: nbq.QueueManager, says: Says) -> None:
    """Not processing: its queue is paused."""
    says("job")
    queues.add_queue("emails").pause()
    with queues.worker():
        receipt = queues.dispatch(QueuedCommand("job").on_queue("emails"))
        assert receipt.why() == 'queue "emails" is paused; resume it to let its jobs run'
        queues.resume("emails")
        assert receipt.result(PATIENCE) == "job"


def test_why_attempts_spent(timed: nbq.QueueManager, clock: Clock, work_off: WorkOff) -> None:
    """Not processing: its attempts are spent, with the last error; between two of them it says when the next is."""

    @nbq.command("job", backoff=60)
    def fail() -> None:
        msg = "users"
        raise KeyError(msg)

    receipt = timed.dispatch(QueuedCommand("job").with_max_attempts(2))
    work_off(timed)
    when = datetime.fromtimestamp(clock.now + 60, UTC).isoformat(sep=" ", timespec="seconds")
    assert receipt.why() == (
        f"attempt 1 of 2 failed with KeyError: 'users'; it is tried again at {when}, 60.0 s from now"
    )
    clock.advance(60)
    work_off(timed)
    assert receipt.why() == (
        "all 2 attempts are spent, the last with KeyError: 'users'; retry it to give it fresh ones"
    )
    assert timed.retry(receipt) == 1
    assert receipt.state is State.PENDING


def test_why_no_handler(queues: nbq.QueueManager, says: Says) -> None:
    """Not processing: nobody here has a handler of that name; as soon as somebody has, it runs."""
    with queues.worker():
        receipt = queues.dispatch(QueuedCommand("late:defined"))
        assert receipt.why() == (
            'no handler for "late:defined"; define it with @nbq.command("late:defined"), '
            "or start a worker with --import MODULE"
        )
        says("late:defined")
        assert receipt.result(PATIENCE) == "late:defined"


def test_why_no_worker_on_the_queue(queues: nbq.QueueManager, says: Says) -> None:
    """Not processing: no worker is there at all, or none on that queue."""
    says("job")
    receipt = queues.dispatch(QueuedCommand("job").on_queue("reports"))
    assert receipt.why().startswith("no worker is running on this store")
    with queues.worker(queues=["emails", "imports"]):
        assert receipt.why() == 'no worker is on queue "reports"; those here are on: emails, imports'
    with queues.worker(queues="reports"):
        assert receipt.result(PATIENCE) == "job"
    assert receipt.why() == "it succeeded on attempt 1"


def test_timeout_issues(queues: nbq.QueueManager) -> None:
    """Timeouts: what ran out of its time is dispatched again with more of it."""

    @nbq.command("long:job")
    async def long(ctx: nbq.Context) -> str:
        left = ctx.seconds_left()
        assert left is not None
        if left < 1000:
            await asyncio.Event().wait()
        return "done"

    cmd = QueuedCommand("long:job").with_timeout(0.05)
    with queues.worker():
        assert isinstance(queues.dispatch(cmd).exception(PATIENCE), nbq.JobTimeout)
        assert queues.dispatch(cmd.with_timeout(timedelta(minutes=30))).result(PATIENCE) == "done"


def test_queue_backlog(queues: nbq.QueueManager, says: Says, ran: list[str]) -> None:
    """Backlog: two hundred wait, and the urgent one is the next to run."""
    says("job")
    queues.dispatch_many(QueuedCommand("job").with_arg(str(i)) for i in range(200))
    urgent = CommandQueue("urgent")
    receipt = urgent.dispatch(QueuedCommand("job").with_arg("high priority"))
    backlog = {info.name: info.counts[State.PENDING] for info in queues.queues()}
    assert backlog == {"default": 200, "urgent": 1}
    with queues.worker(queues=["urgent", "default"], concurrency=1) as worker:
        worker.drain(PATIENCE)
    assert ran[0] == "job high priority"
    assert len(ran) == 201
    assert receipt.state is State.SUCCEEDED
