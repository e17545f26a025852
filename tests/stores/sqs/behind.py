"""The SQS behind a store, as others see it."""

from __future__ import annotations

import functools
import json
from typing import Any

import boto3

from nbqueue.stores.sqs.store import SQSStore


@functools.cache
def _client(region: str, endpoint: str) -> Any:
    """It takes a tenth of a second to make one."""
    return boto3.client("sqs", region_name=region, endpoint_url=endpoint)


class Sqs:
    """The queue behind a store, as others see it."""

    def __init__(self, store: SQSStore, queue: str = "default", *, dead: bool = False):
        address = store.address
        self.client = _client(address.region, address.endpoint)
        self.name = address.queue_name(queue, dead=dead)
        self.url = self.client.get_queue_url(QueueName=self.name)["QueueUrl"]

    def counts(self) -> tuple[int, int, int]:
        """Messages that are visible, hidden, and held back."""
        names = ["", "NotVisible", "Delayed"]
        keys = [f"ApproximateNumberOfMessages{name}" for name in names]
        found = self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        return tuple(int(found[key]) for key in keys)  # type: ignore[return-value]

    def raw(self) -> list[str]:
        """What is visible, which stays so."""
        got = self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0)
        return [one["Body"] for one in got.get("Messages", ())]

    def bodies(self) -> list[dict[str, Any]]:
        """The same, read."""
        return [json.loads(text) for text in self.raw()]

    def send(self, text: str) -> None:
        self.client.send_message(QueueUrl=self.url, MessageBody=text)
