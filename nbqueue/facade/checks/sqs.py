"""What can be said of SQS where a queue is on it: whether it lets this user in, and what is there; makes nothing."""

from __future__ import annotations

import json
import time
from typing import Any

from nbqueue.errors import QueueUnavailable
from nbqueue.facade.checks.finding import Finding, Looked, fine, listed, note, some, wrong

__all__ = ["look_at"]

#: So many queues are asked about one by one.
_ASKED = 20


def look_at(url: str) -> Looked:
    """Look at SQS: credentials, the queues that are there, and those that failed jobs go to."""
    from nbqueue.stores.sqs.address import read
    from nbqueue.stores.sqs.client import Client, Limits

    address = read(url)
    client = Client(address, Limits())
    start = time.perf_counter()
    try:
        found = client.call("list_queues", QueueNamePrefix=address.beginning, MaxResults=1_000)
        took = time.perf_counter() - start
        urls = {one.rpartition("/")[2]: one for one in found.get("QueueUrls", ())}
        names = {queue: name for name in urls if (queue := address.queue_of(name)) is not None}
        findings = [
            fine("server", f"{address.name} lets these credentials in, and answers in {took * 1e3:.0f} ms")
        ]
        for queue, name in sorted(names.items())[:_ASKED]:
            findings += _of_queue(client, queue, urls[name])
    except QueueUnavailable as error:
        return Looked([wrong("server", str(error))])
    finally:
        client.close()
    if not names:
        make = (
            "the first dispatch or worker makes it"
            if address.create
            else "and create=false: make it, or leave that away"
        )
        return Looked([*findings, note("queue", f"there is no queue of {address.name} in SQS yet; {make}")])
    findings.append(fine("queue", f"{some(len(names), 'queue')} in SQS: {listed(sorted(names))}"))
    return Looked(findings, has_queue=True)


def _of_queue(client: Any, queue: str, url: str) -> list[Finding]:
    said = client.call("get_queue_attributes", queue, QueueUrl=url, AttributeNames=["RedrivePolicy"])
    policy = json.loads(said.get("Attributes", {}).get("RedrivePolicy", "{}"))
    if not policy.get("deadLetterTargetArn"):
        return [
            wrong(
                "dead letters",
                f"queue {queue} has no dead-letter queue in SQS: a message that takes its worker along comes back for"
                " ever; give it a redrive policy",
            )
        ]
    return []
