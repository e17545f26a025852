"""Lists of orders: which go into one request, which are overtaken, and what SQS's answer to one means; asks nobody."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from nbqueue.stores.sqs.hand import Deed, Order
from nbqueue.stores.sqs.sending import BATCH

__all__ = [
    "Pair",
    "by_queue",
    "deleted_entry",
    "drop_overtaken",
    "hidden_entry",
    "is_deleted",
    "is_gone",
    "is_hidden",
    "is_sent",
    "put_in_place",
    "queue_of",
]

#: What SQS says of a message that is in flight no more, or never was.
_GONE = ("ReceiptHandleIsInvalid", "MessageNotInflight")

#: An order, and how often SQS refused it.
Pair = tuple[Order, int]


def is_gone(refused: dict[str, Any]) -> bool:
    """Whether a message has come out again, or is there no more: nothing is left to do."""
    code, said = str(refused.get("Code", "")), str(refused.get("Message", ""))
    # It calls many things the sender's fault, keys and policies among them.
    return code.rpartition(".")[2] in _GONE or (
        code == "InvalidParameterValue" and ("ReceiptHandle" in said or "Total VisibilityTimeout" in said)
    )


def is_sent(order: Order) -> bool:
    """Whether it sends something."""
    return order.deed in (Deed.SEND, Deed.REPLACE, Deed.BURY)


def is_hidden(order: Order) -> bool:
    """Whether it hides a message."""
    return order.deed is Deed.HIDE


def is_deleted(order: Order) -> bool:
    """Whether it deletes a message."""
    return order.deed is Deed.DELETE


def queue_of(order: Order) -> str:
    """Give the queue that it is about."""
    if order.held is not None:
        return order.held.queue
    assert order.draft is not None
    return order.draft.job.spec.queue


def hidden_entry(order: Order) -> dict[str, Any]:
    """Give what SQS is to be told to hide it."""
    assert order.held is not None
    return {"ReceiptHandle": order.held.receipt, "VisibilityTimeout": math.ceil(order.seconds)}


def deleted_entry(order: Order) -> dict[str, Any]:
    """Give what SQS is to be told to delete it."""
    assert order.held is not None
    return {"ReceiptHandle": order.held.receipt}


def by_queue(pairs: Sequence[Pair], fits: Callable[[Order], bool]) -> list[list[Pair]]:
    """Give those that fit in lists of ten for one queue each, dead letters apart."""
    groups: dict[tuple[str, bool], list[Pair]] = {}
    for pair in pairs:
        if fits(pair[0]):
            groups.setdefault((queue_of(pair[0]), pair[0].deed is Deed.BURY), []).append(pair)
    return [group[at : at + BATCH] for group in groups.values() for at in range(0, len(group), BATCH)]


def drop_overtaken(batch: list[Pair]) -> None:
    """Of what is to be hidden keep the last word: in one request SQS may take them in any order."""
    last = {id(order.held): order for order, _ in batch if order.held is not None and not is_sent(order)}
    batch[:] = [pair for pair in batch if not is_hidden(pair[0]) or last[id(pair[0].held)] is pair[0]]


def put_in_place(batch: list[Pair], done: list[Pair], left: list[Pair]) -> None:
    """Strike off what was tried, but for what is left of it."""
    gone = {id(pair) for pair in done}
    batch[:] = left + [pair for pair in batch if id(pair) not in gone]
