"""Gets messages: one thread for each queue that is worked on, and no more than there are open slots."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from nbqueue.errors import NbqueueError, QueueError
from nbqueue.jobs import NewJob, Spec
from nbqueue.payload.signing import unseal
from nbqueue.stores.sqs import message
from nbqueue.stores.sqs.client import SqsTroubleError, Why
from nbqueue.stores.sqs.desk import Desk
from nbqueue.stores.sqs.hand import Deed, Held, Order
from nbqueue.stores.sqs.message import Draft, Standing, UnreadableError
from nbqueue.stores.sqs.queues import Queues
from nbqueue.stores.sqs.sending import BATCH, Post
from nbqueue.stores.sqs.settling import Settler

__all__ = ["Intake", "Receivers"]

_log = logging.getLogger("nbqueue.store")

_NOBODY = NewJob(UUID(int=0), Spec(""), "")
#: A message that is none of ours is hidden for so long, seconds; SQS puts it away in the end.
_FOREIGN = 900.0
#: SQS is asked this often which queues there are, seconds, for a worker on every queue.
_LOOK_AROUND = 60.0
#: The longest pause between tries where a queue cannot be had, seconds.
_PAUSE_MAX = 30.0


class Intake:
    """Receives messages of a queue and takes them in.

    Parameters
    ----------
    post : Post
        What SQS is asked through.
    desk : Desk
        Takes them.
    settler : Settler
        Is told what to do with those that are none of ours.
    secret : Callable[[], bytes] | None
        Gives this user's secret; code that it did not sign is not kept. None: whoever runs it looks at that alone.
    ticks : Callable[[], float]
        Seconds by a clock that never steps back.
    """

    def __init__(
        self,
        post: Post,
        desk: Desk,
        settler: Settler,
        secret: Callable[[], bytes] | None,
        ticks: Callable[[], float],
    ):
        self._client, self._queues, self._desk, self._settler = post.client, post.queues, desk, settler
        self._secret = secret
        self._ticks = ticks
        #: Hashes of code that is there, or will not be.
        self._code: set[str] = set()
        #: Jobs that are being sent and not written down yet.
        self._sending: set[UUID] = set()
        self._lock = threading.Lock()

    # -- dispatches under way

    def begin_sending(self, ids: Sequence[UUID]) -> None:
        """Let no message of these jobs in until they are written down here."""
        with self._lock:
            self._sending.update(ids)

    def end_sending(self, ids: Sequence[UUID]) -> None:
        """Let them in, and those that have come already."""
        with self._lock:
            self._sending.difference_update(ids)
            arrivals = self._desk.hand.unpark(ids)
        try:
            self._admit(arrivals)
        except QueueError as error:
            _log.warning("what came back while it was dispatched goes to others: %s", error)
            self._settler.take([Order(Deed.HIDE, held) for held in arrivals])
        if arrivals:
            self._desk.openings.wake()

    def room(self, queue: str) -> int:
        """Give how many messages of a queue would be taken."""
        return self._desk.openings.room(queue) - self._desk.hand.parked(queue)

    # -- messages

    def receive(self, queue: str, most: int, wait: float) -> list[Held]:
        """Get up to so many messages, and ten, of a queue; SQS waits so long for the first.

        Raises
        ------
        SqsTroubleError
            Where SQS cannot be asked.
        """
        address = self._queues.address
        try:
            answer = self._client.call(
                "receive_message",
                address.queue_name(queue),
                waiting=wait,
                QueueUrl=self._queues.place(queue).url,
                # Of a FIFO queue the next one comes when this one is done.
                MaxNumberOfMessages=1 if address.fifo else min(BATCH, most),
                WaitTimeSeconds=int(wait),
                VisibilityTimeout=address.visibility,
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
        except SqsTroubleError as error:
            if error.why is Why.MISSING:
                self._queues.lose(queue)
            raise
        return [held for one in answer.get("Messages", ()) if (held := self._read(queue, one)) is not None]

    def _read(self, queue: str, got: dict[str, Any]) -> Held | None:
        ticks = self._ticks()
        receives = int(got.get("Attributes", {}).get("ApproximateReceiveCount", 1))
        until = ticks + self._queues.address.visibility
        try:
            draft = message.read(got["Body"])
        except UnreadableError as error:
            _log.warning("queue %s: message %s is left alone, %s", queue, got["MessageId"], error)
            nobody = Draft(_NOBODY, Standing(), 0.0)
            held = Held(queue, got["ReceiptHandle"], got["MessageId"], receives, nobody, ticks, until, ticks)
            self._settler.take([Order(Deed.HIDE, held, seconds=_FOREIGN)])
            return None
        return Held(queue, got["ReceiptHandle"], got["MessageId"], receives, draft, ticks, until, ticks)

    def take_in(self, arrivals: Sequence[Held]) -> int:
        """Write messages down, and hand their jobs to whoever has room; gives how many may run.

        Those of jobs that are being dispatched are parked: they are written down first.
        """
        with self._lock:
            parked = [held for held in arrivals if held.job_id in self._sending]
            for held in parked:
                self._desk.hand.park(held)
        there = {held.job_id for held in parked}
        return len(parked) + self._admit([held for held in arrivals if held.job_id not in there])

    def _admit(self, arrivals: Sequence[Held]) -> int:
        if not arrivals:
            return 0
        for held in arrivals:
            self._keep_code(held.draft)
        return self._desk.arrive(arrivals)

    def give_back(self, arrivals: Sequence[Held]) -> None:
        """Take none of these, and let others have them at once; there may be nobody any more to do it later."""
        if not arrivals:
            return
        queue = arrivals[0].queue
        entries = [
            {"Id": str(i), "ReceiptHandle": held.receipt, "VisibilityTimeout": 0}
            for i, held in enumerate(arrivals)
        ]
        # Otherwise they come out by themselves, a little later.
        with contextlib.suppress(SqsTroubleError):
            url = self._queues.place(queue).url
            self._client.call("change_message_visibility_batch", queue, QueueUrl=url, Entries=entries)

    def _keep_code(self, draft: Draft) -> None:
        code, blob = draft.job.spec.code, draft.code
        if blob is None or code in self._code:
            return
        if self._is_trusted(draft):
            self._desk.put_code(code, blob)
            self._code.add(code)

    def _is_trusted(self, draft: Draft) -> bool:
        if self._secret is None:
            return True
        try:
            unseal(draft.code or b"", self._secret(), "code", draft.job.spec.code, "the code of the job")
        except NbqueueError as error:
            _log.warning('the code that came with "%s" is not kept: %s', draft.job.spec.command, error)
            return False
        return True


class Receivers:
    """The threads that receive.

    Parameters
    ----------
    intake : Intake
        What they do.
    desk : Desk
        Knows which queues are served and how much room there is.
    queues : Queues
        Knows what queues there are.
    wait : float
        How long SQS waits for a message, seconds.
    """

    def __init__(self, intake: Intake, desk: Desk, queues: Queues, wait: float):
        self._intake, self._desk, self._queues = intake, desk, queues
        self._openings = desk.openings
        self._wait = wait
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        #: Queues that SQS has, beside those that the ledger knows.
        self._around: list[str] = []
        self._look_at = 0.0
        self._openings.on_queues = self._openings.wake

    def look(self, *, around: bool) -> None:
        """Have a thread for each queue that is served; ``around`` asks SQS for more queues, now and then."""
        known = self._openings.known
        if around:
            self._look_around(known)
        served = self._openings.served([*known, *self._around])
        with self._lock:
            for queue in served:
                thread = self._threads.get(queue)
                if (thread is None or not thread.is_alive()) and not self._stopping.is_set():
                    thread = threading.Thread(
                        target=self._work, args=(queue,), name="nbqueue-sqs-receiver", daemon=True
                    )
                    self._threads[queue] = thread
                    thread.start()

    def _look_around(self, known: Sequence[str]) -> None:
        if "*" not in self._openings.served(["*"]) or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_AROUND
        try:
            self._around = [name for name in self._queues.names() if name not in known]
        except SqsTroubleError as error:
            # Who may not list works on what this ledger knows.
            _log.info("which queues there are cannot be told: %s", error)

    def stop(self) -> None:
        """Begin no more requests; what one that is under way still brings is given back at once."""
        self._stopping.set()
        self._openings.wake()

    def _serves(self, queue: str) -> bool:
        return queue in self._openings.served([queue])

    def _work(self, queue: str) -> None:
        pause = 0.0
        troubled = False
        while not self._stopping.is_set() and self._serves(queue):
            room = self._intake.room(queue)
            if room <= 0:
                self._openings.wait(lambda: self._stopping.is_set() or self._intake.room(queue) > 0, 5.0)
                continue
            try:
                self._receive(queue, room)
                pause = 0.0
                if troubled:
                    _log.warning("queue %s: its messages can be received again", queue)
                    troubled = False
            except NbqueueError as error:
                if self._stopping.is_set():
                    return
                if not troubled:
                    troubled = True
                    _log.warning(
                        "queue %s: its messages cannot be received, which is tried on: %s", queue, error
                    )
                pause = min(_PAUSE_MAX, max(0.5, pause * 2))
                self._stopping.wait(pause)

    def _receive(self, queue: str, room: int) -> None:
        arrivals = self._intake.receive(queue, room, self._wait)
        if self._stopping.is_set():
            self._intake.give_back(arrivals)
            return
        try:
            self._intake.take_in(arrivals)
        except QueueError:
            self._intake.give_back(arrivals)
            raise
