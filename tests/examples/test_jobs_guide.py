"""The guide to jobs, section by section: each of its examples, run through a DuckDB file by a real worker."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path

import pytest

import nbqueue as nbq

from .conftest import PATIENCE, Clock

ROOT = Path(__file__).resolve().parents[2]

WorkOff = Callable[..., None]


# ------------------------------------------------------------------------------------- configuration


def test_configuration_names_driver_and_default_queue(path: Path) -> None:
    """Configuration: the driver, the file, and the queue of jobs that name none."""

    @nbq.command("guide:where")
    def where(ctx: nbq.Context) -> str:
        return ctx.queue

    config = nbq.QueueConfig(driver="duckdb", path=path, default_queue="background")
    with nbq.connect(config) as queues, queues.worker():
        unnamed = queues.dispatch(nbq.QueuedCommand("guide:where"))
        named = queues.dispatch(nbq.QueuedCommand("guide:where").on_queue("default"))
        assert (unnamed.queue, unnamed.result(PATIENCE)) == ("background", "background")
        assert (named.queue, named.result(PATIENCE)) == ("default", "default")
        assert nbq.CommandQueue.default().name == "background"
    assert path.exists()


def test_configuration_of_another_driver() -> None:
    """Configuration: a queue in memory is a driver too, and what is no driver is refused by its name."""

    @nbq.job
    def three() -> int:
        return 3

    with nbq.connect(nbq.QueueConfig(driver="memory")) as queues, queues.worker():
        assert queues.dispatch(three.call()).result(PATIENCE) == 3
    with pytest.raises(nbq.QueueUnavailable, match="driver 'redis' is unknown"):
        nbq.QueueConfig(driver="redis")
    with pytest.raises(nbq.QueueUnavailable, match="takes a URL for its path, such as 'sqs://"):
        nbq.QueueConfig(driver="sqs")
    elsewhere = nbq.QueueConfig(driver="sqs", path="sqs://eu-west-1/reports")
    assert elsewhere == nbq.QueueConfig.read("sqs://eu-west-1/reports")


# ------------------------------------------------------------------------------------- creating jobs


def test_creating_a_job(timed: nbq.QueueManager, clock: Clock, work_off: WorkOff) -> None:
    """Creating jobs: queue, delay and tries as methods, an async handle, and a text of its own."""
    sent: list[str] = []

    class SendEmailJob(nbq.Job):
        to: str
        subject: str
        body: str

        def queue(self) -> str:
            return "emails"

        def delay(self) -> int:
            return 30

        def tries(self) -> int:
            return 3

        async def handle(self) -> None:
            print(f"Sending email to: {self.to}")
            sent.append(self.to)

        def serialize(self) -> str:
            return json.dumps({"to": self.to, "subject": self.subject, "body": self.body})

        @classmethod
        def deserialize(cls, text: str) -> SendEmailJob:
            return cls(**json.loads(text))

        @classmethod
        def type_name(cls) -> str:
            return "SendEmailJob"

    job = SendEmailJob(to="ada@example.org", subject="Hi", body="…")
    assert SendEmailJob.type_name() == "SendEmailJob"
    assert SendEmailJob.deserialize(job.serialize()) == job

    receipt = timed.dispatch(job)
    assert isinstance(receipt.job_id, uuid.UUID)
    assert (receipt.command, receipt.queue) == ("SendEmailJob", "emails")
    assert receipt.scheduled_at is not None
    assert receipt.scheduled_at.timestamp() == pytest.approx(clock.now + 30)
    assert receipt.record().spec.tries == 3

    work_off(timed)
    clock.advance(29.9)
    work_off(timed)
    assert (sent, receipt.state) == ([], nbq.State.PENDING)
    clock.advance(0.2)
    work_off(timed)
    assert (sent, receipt.state) == (["ada@example.org"], nbq.State.SUCCEEDED)
    assert str(receipt.logs()) == "Sending email to: ada@example.org\n"


def test_creating_a_job_with_attributes(timed: nbq.QueueManager, clock: Clock, work_off: WorkOff) -> None:
    """Creating jobs: options as plain attributes, the fields as payload; after three tries it has failed."""
    attempts: list[int] = []

    class SendLetterJob(nbq.Job):
        queue = "letters"
        delay = timedelta(seconds=30)
        tries = 3
        backoff = 10

        to: str
        pages: int = 1

        async def handle(self, ctx: nbq.Context) -> None:
            attempts.append(ctx.attempt)
            msg = f"the post office refuses {self.pages} pages"
            raise ConnectionError(msg)

    job = SendLetterJob(to="Ada", pages=2)
    assert json.loads(job.serialize()) == {"to": "Ada", "pages": 2}
    assert SendLetterJob.deserialize('{"to": "Ada"}') == SendLetterJob("Ada", 1)

    receipt = timed.dispatch(job)
    clock.advance(31)
    work_off(timed)
    assert (attempts, receipt.state) == ([1], nbq.State.PENDING)
    assert "attempt 1 of 3 failed with ConnectionError" in receipt.why()
    for _ in range(2):
        clock.advance(10.1)
        work_off(timed)
    assert (attempts, receipt.state, receipt.attempt) == ([1, 2, 3], nbq.State.FAILED, 3)
    with pytest.raises(nbq.JobFailed, match="failed after 3 attempts: ConnectionError: the post office"):
        receipt.result(PATIENCE)


def test_an_option_is_no_field() -> None:
    """Creating jobs: an option written like a field is refused where it is written, saying how to write it."""
    how = "write it without its annotation: queue = 'emails'"
    with pytest.raises(nbq.InvalidCommand, match=how):

        class Last(nbq.Job):
            to: str
            queue: str = "emails"

            async def handle(self) -> None: ...

    with pytest.raises(nbq.InvalidCommand, match=how):

        class First(nbq.Job):
            queue: str = "emails"
            to: str

            async def handle(self) -> None: ...


# ----------------------------------------------------------------------------------- dispatching jobs


@dataclass
class User:
    id: int
    email: str
    saved: bool = False

    async def save(self) -> None:
        self.saved = True


def test_dispatching_from_an_async_function(
    queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dispatching jobs: from inside an ``async def``, whose loop goes on while the job is brought to disk."""
    sent: list[tuple[str, str]] = []

    class WelcomeEmailJob(nbq.Job):
        queue = "emails"
        to: str
        subject: str
        body: str

        async def handle(self) -> str:
            sent.append((self.to, self.subject))
            return self.to

    async def register_user(user: User) -> nbq.JobDispatch:
        await user.save()
        email = WelcomeEmailJob(
            to=user.email, subject="Welcome to our platform!", body="Thank you for registering…"
        )
        return await email.adispatch()

    # The disk answers only when another task of the same loop has gone on.
    others_went_on = threading.Event()
    insert = queues.store.insert

    def slow_disk(jobs: object, *args: object) -> object:
        assert others_went_on.wait(PATIENCE), "the loop stood still while the job was dispatched"
        return insert(jobs, *args)

    monkeypatch.setattr(queues.store, "insert", slow_disk)

    async def main() -> tuple[nbq.JobDispatch, str, int]:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while turns < 100:
                turns += 1
                await asyncio.sleep(0)
            others_went_on.set()

        registering = asyncio.create_task(register_user(user))
        await asyncio.gather(registering, others())
        receipt = registering.result()
        return receipt, await receipt, turns

    user = User(7, "ada@example.org")
    with queues.worker(queues="emails"):
        receipt, result, turns = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert (user.saved, turns, receipt.queue) == (True, 100, "emails")
    assert result == "ada@example.org"
    assert sent == [("ada@example.org", "Welcome to our platform!")]


def test_dispatching_from_anywhere(queues: nbq.QueueManager) -> None:
    """Dispatching jobs: from the manager, from the job, from the module, from a queue and from another thread."""

    class Noted(nbq.Job):
        what: str

        async def handle(self) -> str:
            return self.what

    @nbq.job
    def noted(what: str) -> str:
        return what

    receipts = [
        queues.dispatch(Noted("manager")),
        nbq.dispatch(Noted("module")),
        Noted("job").dispatch(),
        nbq.CommandQueue("notes").dispatch(Noted("queue")),
        noted.dispatch("function"),
    ]
    thread = threading.Thread(target=lambda: receipts.append(noted.dispatch("thread")))
    thread.start()
    thread.join(PATIENCE)
    with queues.worker():
        said = [receipt.result(PATIENCE) for receipt in receipts]
    assert said == ["manager", "module", "job", "queue", "function", "thread"]


# --------------------------------------------------------------------------- running the queue worker

MAILING = """
from __future__ import annotations

import nbqueue as nbq


class SendMail(nbq.Job):
    queue = "emails"
    to: str

    async def handle(self, ctx: nbq.Context) -> str:
        if self.to.startswith("flaky") and ctx.attempt < 3:
            raise ConnectionError("the server hung up")
        return f"sent to {self.to} on attempt {ctx.attempt} of {ctx.max_attempts}"


class Tidy(nbq.Job):
    backoff = 0.01

    async def handle(self) -> str:
        return "tidied"
"""


@pytest.fixture
def mailing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A module of jobs, as a project has one, which the worker in the terminal imports too."""
    (tmp_path / "nbq_guide_mailing.py").write_text(MAILING, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "nbq_guide_mailing", raising=False)
    import nbq_guide_mailing

    return nbq_guide_mailing


def nbqueue_work(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nbqueue", "work", "--db", str(path), "--import", "nbq_guide_mailing"]
    done = subprocess.run(
        [*command, *options],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_worker_for_the_default_queue(path: Path, mailing: object) -> None:
    """Running the worker: without ``--queue`` it serves the default queue, and only that."""
    with nbq.connect(path) as queues:
        tidy, mail = queues.dispatch(mailing.Tidy()), queues.dispatch(mailing.SendMail("ada@example.org"))
    nbqueue_work(path, "--stop-when-empty")
    with nbq.connect(path) as queues:
        assert queues.job(tidy).result(PATIENCE) == "tidied"
        assert queues.job(mail).state is nbq.State.PENDING


def test_worker_for_a_queue(path: Path, mailing: object) -> None:
    """Running the worker: ``--queue emails`` serves that queue, and leaves the default one."""
    with nbq.connect(path) as queues:
        tidy, mail = queues.dispatch(mailing.Tidy()), queues.dispatch(mailing.SendMail("ada@example.org"))
    nbqueue_work(path, "--queue", "emails", "--stop-when-empty")
    with nbq.connect(path) as queues:
        assert queues.job(mail).result(PATIENCE) == "sent to ada@example.org on attempt 1 of 1"
        assert queues.job(tidy).state is nbq.State.PENDING


def test_worker_with_settings(path: Path, mailing: object) -> None:
    """Running the worker: ``--sleep 5 --tries 3``, and it takes one job with ``--once``."""
    with nbq.connect(path) as queues:
        first, second = (queues.dispatch(mailing.SendMail(to)) for to in ("ada@a.org", "bob@b.org"))
    nbqueue_work(path, "--queue", "emails", "--sleep", "5", "--tries", "3", "--once")
    with nbq.connect(path) as queues:
        assert queues.job(first).result(PATIENCE) == "sent to ada@a.org on attempt 1 of 3"
        assert queues.job(second).state is nbq.State.PENDING


def test_worker_tries_count_for_jobs_that_name_none(path: Path, mailing: object) -> None:
    """Running the worker: with ``--tries 3`` a job that fails twice succeeds on its third attempt."""
    with nbq.connect(path) as queues:
        flaky = queues.dispatch(mailing.SendMail("flaky@example.org"), backoff=0.01)
    nbqueue_work(path, "--queue", "emails", "--sleep", "5", "--tries", "3", "--max-jobs", "3")
    with nbq.connect(path) as queues:
        assert queues.job(flaky).result(PATIENCE) == "sent to flaky@example.org on attempt 3 of 3"


# ------------------------------------------------------------------------------------- job lifecycle


def test_lifecycle_to_completion(queues: nbq.QueueManager) -> None:
    """Lifecycle: created, dispatched, processed, completed; then it has left the queue and stays as history."""

    class Resize(nbq.Job):
        queue = "images"
        name: str

        async def handle(self) -> str:
            return f"{self.name} is small now"

    job = Resize("holiday.png")
    receipt = queues.dispatch(job)
    stored = receipt.record()
    assert (stored.state, receipt.queue) == (nbq.State.PENDING, "images")
    assert json.dumps({"name": "holiday.png"}, separators=(",", ":")) in stored.payload
    with queues.worker(queues="images"):
        assert receipt.result(PATIENCE) == "holiday.png is small now"

    images = next(info for info in queues.queues() if info.name == "images")
    assert images.counts[nbq.State.PENDING] + images.counts[nbq.State.RUNNING] == 0
    assert images.counts[nbq.State.SUCCEEDED] == 1
    events = queues.events(queue="images")
    assert list(events["event"])[::-1] == ["dispatched", "claimed", "succeeded"]


def test_lifecycle_with_failure_and_retry(queues: nbq.QueueManager) -> None:
    """Lifecycle: failed and tried again, failed for good, and retried by hand once the cause is mended."""
    mended = False

    class Resize(nbq.Job):
        tries = 2
        backoff = 0.01
        name: str

        async def handle(self) -> str:
            if not mended:
                msg = "no space left on device"
                raise OSError(msg)
            return f"{self.name} is small now"

    with queues.worker():
        receipt = queues.dispatch(Resize("holiday.png")).wait(PATIENCE)
        assert (receipt.state, receipt.attempt) == (nbq.State.FAILED, 2)
        assert "OSError: no space left on device" in str(receipt.exception())
        mended = True
        assert receipt.retry().result(PATIENCE) == "holiday.png is small now"
    assert list(queues.events()["event"])[::-1] == [
        *("dispatched", "claimed", "retrying", "claimed", "failed"),
        *("retried", "claimed", "succeeded"),
    ]


def test_lifecycle_ends_with_cleaning_up(timed: nbq.QueueManager, clock: Clock, work_off: WorkOff) -> None:
    """Lifecycle: what ended is kept for as long as the user says, and what waits is never cleaned up."""

    @nbq.job
    def note(what: str) -> str:
        return what

    old = timed.dispatch(note.call("old"))
    work_off(timed)
    clock.advance(6 * 86_400)
    young = timed.dispatch(note.call("young"))
    waits = timed.dispatch(note.call("waits"), delay=30 * 86_400)
    work_off(timed)
    clock.advance(2 * 86_400)
    assert timed.prune(older_than="7d") == 1
    with pytest.raises(nbq.JobNotFound, match="forgotten or pruned"):
        old.record()
    assert (young.state, waits.state) == (nbq.State.SUCCEEDED, nbq.State.PENDING)
    assert timed.prune(older_than=0, keep="succeeded") == 0
    assert timed.prune(older_than=timedelta(days=1)) == 1
    assert waits.state is nbq.State.PENDING


# --------------------------------------------------------------------------------- five use cases


def test_use_case_user_registration(queues: nbq.QueueManager) -> None:
    """Use case 1, user registration: saved at once, and an e-mail, a workspace and a notice by three jobs."""
    users: dict[int, User] = {}
    outbox: list[str] = []
    workspaces: dict[int, list[str]] = {}
    notices: list[tuple[str, int]] = []

    class SendWelcomeEmailJob(nbq.Job):
        queue = "emails"
        user_id: int
        email: str

        async def handle(self) -> None:
            outbox.append(self.email)

    class SetupUserWorkspaceJob(nbq.Job):
        user_id: int

        def handle(self) -> list[str]:
            workspaces[self.user_id] = ["inbox", "drafts"]
            return workspaces[self.user_id]

    class NotifyAdminsJob(nbq.Job):
        queue = "notifications"
        event: str
        user_id: int

        async def handle(self) -> None:
            notices.append((self.event, self.user_id))

    async def register_user(user: User) -> tuple[User, list[nbq.JobDispatch]]:
        await user.save()
        users[user.id] = user
        return user, [
            await SendWelcomeEmailJob(user_id=user.id, email=user.email).adispatch(),
            await SetupUserWorkspaceJob(user_id=user.id).adispatch(),
            await NotifyAdminsJob(event="new_user_registered", user_id=user.id).adispatch(),
        ]

    user, receipts = asyncio.run(register_user(User(7, "ada@example.org")))
    assert (users[7], outbox, workspaces, notices) == (user, [], {}, [])
    assert [receipt.queue for receipt in receipts] == ["emails", "default", "notifications"]
    with queues.worker():
        results = [receipt.result(PATIENCE) for receipt in receipts]
    assert results == [None, ["inbox", "drafts"], None]
    assert (outbox, workspaces) == (["ada@example.org"], {7: ["inbox", "drafts"]})
    assert notices == [("new_user_registered", 7)]


def test_use_case_file_processing(queues: nbq.QueueManager, tmp_path: Path) -> None:
    """Use case 2, file processing: its metadata saved at once, and what takes long done by three jobs."""
    records: dict[int, dict[str, object]] = {}

    class VideoTranscodingJob(nbq.Job):
        queue = "video"
        tries = 2
        video_id: int
        formats: list[str]

        def handle(self, ctx: nbq.Context) -> list[str]:
            source = Path(str(records[self.video_id]["path"]))
            made = []
            for kind in ctx.track(self.formats):
                target = source.with_suffix(f".{kind}")
                target.write_text(f"{kind} of {source.read_text()}")
                made.append(target.name)
            return made

    class GenerateThumbnailsJob(nbq.Job):
        queue = "video"
        video_id: int

        def handle(self) -> str:
            target = Path(str(records[self.video_id]["path"])).with_suffix(".png")
            target.write_bytes(b"\x89PNG")
            return target.name

    class ExtractMetadataJob(nbq.Job):
        queue = "video"
        video_id: int

        def handle(self) -> int:
            record = records[self.video_id]
            record["bytes"] = Path(str(record["path"])).stat().st_size
            return int(str(record["bytes"]))

    async def upload_video(uploaded: Path) -> tuple[int, list[nbq.JobDispatch]]:
        video_id = len(records) + 1
        records[video_id] = {"path": str(uploaded), "name": uploaded.name}
        return video_id, [
            await queues.adispatch(VideoTranscodingJob(video_id=video_id, formats=["mp4", "webm"])),
            await queues.adispatch(GenerateThumbnailsJob(video_id=video_id)),
            await queues.adispatch(ExtractMetadataJob(video_id=video_id)),
        ]

    uploaded = tmp_path / "cat.mov"
    uploaded.write_text("a cat")
    video_id, (transcode, thumbnails, metadata) = asyncio.run(upload_video(uploaded))
    with queues.worker(queues="video"):
        assert transcode.result(PATIENCE) == ["cat.mp4", "cat.webm"]
        assert thumbnails.result(PATIENCE) == "cat.png"
        assert metadata.result(PATIENCE) == len("a cat")
    assert (tmp_path / "cat.webm").read_text() == "webm of a cat"
    assert (tmp_path / "cat.png").exists()
    assert records[video_id]["bytes"] == len("a cat")


class PaymentMethod(Enum):
    CARD = "card"
    INVOICE = "invoice"


@dataclass(frozen=True)
class Item:
    sku: str
    count: int


@dataclass
class Order:
    id: int
    customer_email: str
    items: list[Item]
    total: Decimal
    payment_method: PaymentMethod = PaymentMethod.CARD


def test_use_case_order_processing(queues: nbq.QueueManager) -> None:
    """Use case 3, orders: four jobs, whose money, enums and nested values come back as they went."""
    orders: dict[int, Order] = {}
    stock = {"tea": 10, "cup": 4}
    outbox: list[str] = []
    shipping: list[int] = []
    paid: dict[int, Decimal] = {}

    class SendOrderConfirmationJob(nbq.Job):
        queue = "emails"
        order_id: int
        email: str

        async def handle(self) -> None:
            outbox.append(f"{self.email}: order {self.order_id}")

    class UpdateInventoryJob(nbq.Job):
        order_id: int
        items: list[Item]

        def handle(self) -> None:
            for item in self.items:
                stock[item.sku] -= item.count

    class NotifyShippingDepartmentJob(nbq.Job):
        order_id: int

        def handle(self) -> None:
            shipping.append(self.order_id)

    class ProcessPaymentJob(nbq.Job):
        queue = "payments"
        tries = 5
        backoff = 0.01
        order_id: int
        amount: Decimal
        payment_method: PaymentMethod

        async def handle(self, ctx: nbq.Context) -> Decimal:
            if ctx.attempt == 1:
                msg = "the bank does not answer"
                raise ConnectionError(msg)
            assert isinstance(self.amount, Decimal)
            assert self.payment_method is PaymentMethod.CARD
            paid[self.order_id] = self.amount
            return self.amount

    async def place_order(order: Order) -> list[nbq.JobDispatch]:
        orders[order.id] = order
        return [
            await queues.adispatch(SendOrderConfirmationJob(order_id=order.id, email=order.customer_email)),
            await queues.adispatch(UpdateInventoryJob(order_id=order.id, items=order.items)),
            await queues.adispatch(NotifyShippingDepartmentJob(order_id=order.id)),
            await queues.adispatch(
                ProcessPaymentJob(order_id=order.id, amount=order.total, payment_method=order.payment_method)
            ),
        ]

    order = Order(12, "ada@example.org", [Item("tea", 3), Item("cup", 1)], Decimal("19.90"))
    receipts = asyncio.run(place_order(order))
    with queues.worker(queues=["payments", "emails", "default"]):
        results = [receipt.result(PATIENCE) for receipt in receipts]
    assert results == [None, None, None, Decimal("19.90")]
    assert (stock, shipping) == ({"tea": 7, "cup": 3}, [12])
    assert (outbox, paid) == (["ada@example.org: order 12"], {12: Decimal("19.90")})
    assert receipts[3].attempt == 2


@dataclass
class ReportConfig:
    id: int
    report_type: str
    parameters: dict[str, object] = field(default_factory=dict)
    wait: timedelta = timedelta()


def test_use_case_scheduled_reports(timed: nbq.QueueManager, clock: Clock, work_off: WorkOff) -> None:
    """Use case 4, scheduled reports: the configuration saved at once, the report made when its time has come."""
    configs: dict[int, ReportConfig] = {}
    reports: dict[int, str] = {}

    class GenerateReportJob(nbq.Job):
        queue = "reports"
        config_id: int
        report_type: str
        parameters: dict[str, object]

        @property
        def delay(self) -> timedelta:
            return configs[self.config_id].wait

        def handle(self) -> str:
            reports[self.config_id] = f"{self.report_type} of {self.parameters['month']}"
            return reports[self.config_id]

    async def schedule_report(config: ReportConfig) -> nbq.JobDispatch:
        configs[config.id] = config
        return await timed.adispatch(
            GenerateReportJob(
                config_id=config.id, report_type=config.report_type, parameters=config.parameters
            )
        )

    tonight = asyncio.run(schedule_report(ReportConfig(1, "sales", {"month": "May"}, timedelta(hours=6))))
    at_once = asyncio.run(schedule_report(ReportConfig(2, "stock", {"month": "May"})))
    assert (tonight.scheduled_at - at_once.scheduled_at) == timedelta(hours=6)
    work_off(timed)
    assert (reports, tonight.state) == ({2: "stock of May"}, nbq.State.PENDING)
    assert tonight.why().startswith("delayed until ")
    clock.advance(6 * 3600 + 1)
    work_off(timed)
    assert reports == {1: "sales of May", 2: "stock of May"}
    assert tonight.result(PATIENCE) == "sales of May"


@dataclass
class Event:
    id: int
    subscriber_ids: list[int]


def test_use_case_notifications(queues: nbq.QueueManager) -> None:
    """Use case 5, notifications: one event, three channels; one that fails leaves the others alone."""
    told: dict[str, list[int]] = {}

    class SendPushNotificationJob(nbq.Job):
        queue = "push"
        event_id: int
        user_ids: list[int]

        async def handle(self) -> int:
            told["push"] = self.user_ids
            return len(self.user_ids)

    class SendEmailNotificationJob(nbq.Job):
        queue = "emails"
        event_id: int
        user_ids: list[int]

        async def handle(self) -> int:
            told["email"] = self.user_ids
            return len(self.user_ids)

    class SendSmsNotificationJob(nbq.Job):
        queue = "sms"
        event_id: int
        user_ids: list[int]

        async def handle(self) -> int:
            msg = "the network is down"
            raise ConnectionError(msg)

    async def trigger_notification(event: Event) -> list[nbq.JobDispatch]:
        channels = (SendPushNotificationJob, SendEmailNotificationJob, SendSmsNotificationJob)
        return await asyncio.gather(
            *(
                queues.adispatch(channel(event_id=event.id, user_ids=event.subscriber_ids))
                for channel in channels
            )
        )

    push, email, sms = asyncio.run(trigger_notification(Event(3, [7, 8, 9])))
    with queues.worker() as worker:
        worker.drain(PATIENCE)
    assert (push.result(0), email.result(0)) == (3, 3)
    assert told == {"push": [7, 8, 9], "email": [7, 8, 9]}
    assert (sms.state, sms.record().error) == (nbq.State.FAILED, "ConnectionError: the network is down")
