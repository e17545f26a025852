"""What the panel's front end may ask for, each in its own sentence, carried out through the facade."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from nbqueue.errors import InvalidCommand
from nbqueue.facade.manager import QueueManager
from nbqueue.facade.watching.filtering import JobFilter
from nbqueue.widgets.commands import Done, answer
from nbqueue.widgets.panel.feed import Feed
from nbqueue.widgets.panel.table import SIZE, Looked

__all__ = ["carry_out"]

Message = Mapping[str, Any]


def carry_out(queues: QueueManager, feed: Feed, message: Message) -> Done:
    """Do what a message asks for; what cannot be done is told, not raised."""
    what = message.get("do")
    command = _COMMANDS.get(what) if isinstance(what, str) else None
    return answer(what, None if command is None else functools.partial(command, queues, feed, message))


# -- jobs


def _retry(queues: QueueManager, _feed: Feed, message: Message) -> str:
    return f"{_jobs(queues.retry(_ids(message)))} to run again"


def _cancel(queues: QueueManager, _feed: Feed, message: Message) -> str:
    count = queues.cancel(_ids(message))
    return f"{_jobs(count)} cancelled, or asked to stop" if count else "nothing to cancel: ended already"


def _forget(queues: QueueManager, _feed: Feed, message: Message) -> str:
    return f"{_jobs(queues.forget(_ids(message)))} forgotten"


def _retry_failure(queues: QueueManager, _feed: Feed, message: Message) -> str:
    count = queues.retry_all(fingerprint=_text(message, "fingerprint"))
    return f"{_jobs(count)} to run again"


# -- queues


def _pause(queues: QueueManager, _feed: Feed, message: Message) -> str:
    queues.pause(name := _text(message, "queue"))
    return f'queue "{name}" is paused; what runs goes on'


def _resume(queues: QueueManager, _feed: Feed, message: Message) -> str:
    queues.resume(name := _text(message, "queue"))
    return f'queue "{name}" goes on'


# -- what is looked at


def _view(_queues: QueueManager, feed: Feed, message: Message) -> str:
    given = _mapping(message, "filter")
    wanted = JobFilter(
        states=tuple(str(state) for state in given.get("states") or ()),
        text=str(given.get("text") or "").strip(),
        **{
            name: str(given[name]) for name in ("queue", "command", "fingerprint", "batch") if given.get(name)
        },
    )
    page, size = _count(message, "page", 0), _count(message, "size", SIZE)
    feed.look(Looked(wanted, page, max(1, min(size, SIZE))))
    return ""


def _detail(_queues: QueueManager, feed: Feed, message: Message) -> str:
    job_id = message.get("job")
    feed.open(None if job_id is None else str(job_id))
    return ""


# -- forms


def _form(queues: QueueManager, feed: Feed, message: Message) -> str:
    name = message.get("command")
    feed.state.set("form", None if name is None else queues.form_spec(str(name)).plain())
    return ""


def _dispatch(queues: QueueManager, _feed: Feed, message: Message) -> Done:
    values, options = _mapping(message, "values"), _mapping(message, "options")
    receipt = queues.dispatch_form(_text(message, "command"), values, options)
    return Done(True, f"{receipt.command} dispatched on {receipt.queue}", job=str(receipt.job_id))


_COMMANDS: dict[str, Callable[[QueueManager, Feed, Message], str | Done]] = {
    "retry": _retry,
    "cancel": _cancel,
    "forget": _forget,
    "retry_failure": _retry_failure,
    "pause": _pause,
    "resume": _resume,
    "view": _view,
    "detail": _detail,
    "form": _form,
    "dispatch": _dispatch,
}


def _ids(message: Message) -> list[str]:
    given = message.get("jobs")
    if not isinstance(given, list) or not given:
        raise InvalidCommand("no job was named")
    return [str(one) for one in given]


def _text(message: Message, name: str) -> str:
    given = message.get(name)
    if not isinstance(given, str) or not given:
        raise InvalidCommand(f"no {name} was named")
    return given


def _mapping(message: Message, name: str) -> Mapping[str, Any]:
    given = message.get(name) or {}
    if not isinstance(given, Mapping):
        raise InvalidCommand(f"{name} must be given by name, not as {type(given).__name__}; reload the page")
    return given


def _count(message: Message, name: str, default: int) -> int:
    given = message.get(name, default)
    return max(0, given) if isinstance(given, int) else default


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"
