"""The queues in SQS: where they are, what they take, and how they are made; knows no message."""

from __future__ import annotations

import json
import threading
from typing import Any, NamedTuple

from nbqueue.stores.sqs.address import Address
from nbqueue.stores.sqs.client import Client, SqsTroubleError, Why

__all__ = ["RECEIVES_MAX", "Place", "Queues"]

#: So often a message is handed out before SQS itself puts it away: its workers die of it.
RECEIVES_MAX = 20
#: Of a FIFO queue every retry counts, and a message there cannot be sent anew without losing its place.
_RECEIVES_MAX_FIFO = 1_000
#: As long as SQS keeps anything, seconds.
_RETENTION = 1_209_600
#: What SQS took in one message, and in one request, before it took more.
_OLD_LIMIT = 262_144


class Place(NamedTuple):
    """Where a queue is."""

    url: str
    #: Bytes of one message, and of one request.
    most: int
    most_together: int
    #: What SQS calls it.
    arn: str


class Queues:
    """The queues of one address; any thread may ask.

    Parameters
    ----------
    address : Address
        Whose they are.
    client : Client
        Is asked.
    """

    def __init__(self, address: Address, client: Client):
        self.address = address
        self._client = client
        self._lock = threading.RLock()
        self._places: dict[str, Place] = {}

    def place(self, queue: str, *, dead: bool = False) -> Place:
        """Give where a queue, or the one for what failed in it, is; made where it may be.

        Raises
        ------
        SqsTroubleError
            Where it is missing and must not be made, or SQS cannot be asked.
        InvalidCommand
            Where SQS takes no such name.
        """
        name = self.address.queue_name(queue, dead=dead)
        found = self._places.get(name)
        if found is not None:
            return found
        with self._lock:
            if name not in self._places:
                self._places[name] = self._look_up(queue, name, dead=dead)
            return self._places[name]

    def lose(self, queue: str) -> None:
        """Look a queue up anew: SQS says that it is not where it was."""
        with self._lock:
            for dead in (False, True):
                self._places.pop(self.address.queue_name(queue, dead=dead), None)

    def names(self) -> list[str]:
        """Give the queues that SQS has of this address."""
        found: list[str] = []
        asked: dict[str, Any] = {"QueueNamePrefix": self.address.beginning, "MaxResults": 1_000}
        while True:
            page = self._client.call("list_queues", self.address.beginning + "*", **asked)
            names = (self.address.queue_of(url.rpartition("/")[2]) for url in page.get("QueueUrls", ()))
            found += [name for name in names if name is not None]
            if not page.get("NextToken"):
                return found
            asked["NextToken"] = page["NextToken"]

    def _look_up(self, queue: str, name: str, *, dead: bool) -> Place:
        try:
            url = self._client.call("get_queue_url", name, QueueName=name)["QueueUrl"]
        except SqsTroubleError as error:
            if error.why is not Why.MISSING or not self.address.create:
                raise
            url = self._make(queue, name, dead=dead)
        asked = ["MaximumMessageSize", "QueueArn"]
        answer = self._client.call("get_queue_attributes", name, QueueUrl=url, AttributeNames=asked)
        most = int(answer["Attributes"].get("MaximumMessageSize", _OLD_LIMIT))
        return Place(url, most, max(most, _OLD_LIMIT), answer["Attributes"]["QueueArn"])

    def _make(self, queue: str, name: str, *, dead: bool) -> str:
        attributes = {
            "MessageRetentionPeriod": str(_RETENTION),
            "VisibilityTimeout": str(self.address.visibility),
        }
        if self.address.fifo:
            attributes["FifoQueue"] = "true"
        if not dead:
            most = _RECEIVES_MAX_FIFO if self.address.fifo else RECEIVES_MAX
            attributes["RedrivePolicy"] = json.dumps(
                {"deadLetterTargetArn": self.place(queue, dead=True).arn, "maxReceiveCount": most}
            )
        try:
            made = self._client.call("create_queue", name, QueueName=name, Attributes=attributes)
        except SqsTroubleError as error:
            if error.why is not Why.EXISTS:
                raise
            # Another process has just made it, with other options.
            made = self._client.call("get_queue_url", name, QueueName=name)
        return str(made["QueueUrl"])
