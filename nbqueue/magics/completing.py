"""Completion of ``%nbq`` and ``%%job``: subcommands, options, and what these take; opens no queue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import click
from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from nbqueue.cli.parsing import STATES
from nbqueue.errors import NbqueueError
from nbqueue.facade import completing as facade
from nbqueue.facade.manager import QueueManager, latest
from nbqueue.jobs import State
from nbqueue.magics.cells import job
from nbqueue.magics.subcommands import PLOTS, nbq

__all__ = ["install", "uninstall"]

_MAGIC = re.compile(r"\s*(?:\w+\s*=\s*)?(?P<magic>%nbq|%%job)(?P<line>\s.*)")
#: What options and arguments of these names may be.
_FIXED: dict[str, Iterable[str]] = {
    "state": STATES,
    "keep": [state.value for state in State if state.ended],
    "what": PLOTS,
    "executor": ("process", "thread"),
}
#: What may become of jobs in these states: a job that has succeeded cannot be cancelled.
_FITTING = {
    "cancel": (State.PENDING, State.RUNNING),
    "retry": (State.FAILED, State.CANCELLED, State.SUCCEEDED, State.PENDING),
    "why": (State.PENDING, State.FAILED, State.CANCELLED),
}


def install(shell: Any) -> None:
    """Complete the magics in this shell."""
    uninstall(shell)
    shell.Completer.custom_matchers.append(complete)


def uninstall(shell: Any) -> None:
    """Complete them no more."""
    matchers = shell.Completer.custom_matchers
    matchers[:] = [one for one in matchers if one is not complete]


@context_matcher(identifier="nbqueue")  # type: ignore[untyped-decorator]
def complete(context: CompletionContext) -> SimpleMatcherResult:
    """Complete what is typed behind one of the magics; nothing else is then offered, as no Python stands there."""
    found = _MAGIC.match(context.text_until_cursor)
    if found is None:
        return {"completions": []}
    words = found["line"].split()
    typed = "" if found["line"][-1:].isspace() else words.pop()
    typed, meant = _candidates([found["magic"], *words], typed)
    # IPython replaces what follows the last of its delimiters, such as the ":" in "import:data".
    cut = len(typed) - len(context.token)
    fitting = [SimpleCompletion(word[cut:]) for word in meant if cut >= 0 and word.startswith(typed)]
    return {"completions": fitting, "suppress": True, "ordered": True}


def _candidates(words: list[str], typed: str) -> tuple[str, Iterable[str]]:
    """Give what is being typed, without what stands before it, and all that might be meant."""
    magic, *words = words
    if magic == "%nbq" and not words:
        return typed, nbq.commands
    command: click.Command | None = job if magic == "%%job" else nbq.commands.get(words.pop(0))
    if command is None:
        return typed, ()
    options = {name: one for one in command.params if isinstance(one, click.Option) for name in one.opts}
    option = options.get(words[-1]) if words else None
    name, equals, value = typed.partition("=")
    if equals and name in options:
        option, typed = options[name], value
    if option is not None and not option.is_flag:
        # Several may be separated by commas.
        return typed.rpartition(",")[2] if option.multiple else typed, _values(command, option, typed, ())
    if typed.startswith("-"):
        return typed, (
            name for name, one in options.items() if not one.hidden and (one.multiple or name not in words)
        )
    return typed, _arguments(command, options, typed, words)


def _arguments(
    command: click.Command, options: dict[str, click.Option], typed: str, words: list[str]
) -> Iterable[str]:
    """Give what may stand where an argument does."""
    given = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and (before not in options or options[before].is_flag)
    ]
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if not arguments or (len(given) >= len(arguments) and arguments[-1].nargs > 0):
        return ()
    return _values(command, arguments[min(len(given), len(arguments) - 1)], typed, given)


def _values(
    command: click.Command, param: click.Parameter, typed: str, given: Iterable[str]
) -> Iterable[str]:
    """Give what an option or an argument may be."""
    name = param.name or ""
    if name in _FIXED:
        return _FIXED[name]
    asked: dict[str, Callable[[QueueManager], Iterable[str]]] = {
        "queue": lambda queues: queues.list(),
        "command": facade.commands if command.name != "form" else lambda queues: queues.handlers(),
        "job": lambda queues: facade.job_ids(queues, typed, _FITTING.get(command.name or "")),
    }
    asked["ids"] = asked["job"]
    queues = latest()
    if queues is None or name not in asked:
        return ()
    try:
        return [word for word in asked[name](queues) if word not in given]
    except NbqueueError:
        # It was closed meanwhile, or its owner has gone: no reason to say anything while somebody types.
        return ()
