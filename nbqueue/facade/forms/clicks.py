"""A click command's parameters as fields of a form, and from what was filled in to its command line and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.facade.forms.nested import list_shape
from nbqueue.facade.forms.shapes import BOOL, TEXT, Plain, Shape, Unfit, choice_shape, int_shape

if TYPE_CHECKING:
    import click

__all__ = ["ClickPart", "arguments_of", "click_parts", "filled_of"]

#: A group's commands have parameters of their own, which depend on what is written.
_ALL = "args"


class ClickPart(NamedTuple):
    """A parameter as a field."""

    name: str
    shape: Shape
    #: The words of ``Field`` that are not the shape's.
    field: Mapping[str, Any]


def click_parts(command: click.Command) -> list[ClickPart]:
    """Give the fields of a command; a group has one, its command line."""
    if _is_group(command):
        return [
            ClickPart(_ALL, list_shape(TEXT), {"default": [], "help": "the command line, one word a line"})
        ]
    return [_part(param) for param in _params(command)]


def arguments_of(command: click.Command, filled: Mapping[str, Any]) -> list[str]:
    """Give the command line; what is as the command has it anyway is left out.

    Parameters
    ----------
    command : click.Command
        What it is for.
    filled : mapping
        By parameter what was read.
    """
    if _is_group(command):
        return list(filled.get(_ALL, ()))
    options: list[str] = []
    arguments: list[str] = []
    for param in _params(command):
        value, default = filled.get(param.name or ""), _default(param)
        asks = _asks(param)
        if value is None and asks:
            # In a worker there is nobody to answer.
            value = default
        if value is None or (value == default and not asks and not param.required):
            continue
        if param.param_type_name == "argument":
            arguments += value if isinstance(value, list) else [value]
        else:
            options += _option_words(param, value)
    if any(word.startswith("-") for word in arguments):
        options.append("--")
    return [*options, *arguments]


def filled_of(command: click.Command, words: Sequence[object]) -> dict[str, Any]:
    """Give by parameter what a command line says, without running anything; {} where it is none of this command."""
    if not all(isinstance(word, str) for word in words):
        return {}
    if _is_group(command):
        return {_ALL: list(words)}
    import click

    try:
        parser = command.make_parser(click.Context(command, resilient_parsing=True))
        said, rest, _ = parser.parse_args([str(word) for word in words])
    except click.ClickException:
        return {}
    if rest:
        return {}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in said.items()
        if isinstance(value, str | int | list | tuple)
    }


def _params(command: click.Command) -> Iterator[Any]:
    """Those that somebody fills in: neither hidden nor such as ``--version``, but all that click asks for."""
    for param in command.params:
        shown = param.expose_value and not getattr(param, "hidden", False)
        if param.name and (shown or _asks(param)):
            yield param


def _asks(param: Any) -> bool:
    """Whether click asks for it where the command line does not say it."""
    return getattr(param, "prompt", None) is not None and bool(getattr(param, "prompt_required", True))


def _needs_a_tick(param: Any) -> bool:
    """Whether it is a switch without a word for no, which click needs or asks for."""
    return _is_switch(param) and not param.secondary_opts and bool(param.required or _asks(param))


def _is_group(command: click.Command) -> bool:
    return hasattr(command, "commands") or hasattr(command, "list_commands")


def _part(param: Any) -> ClickPart:
    shape = _shape(param)
    default = _default(param)
    needed = bool(param.required or _asks(param))
    field: dict[str, Any] = {"help": getattr(param, "help", None) or "", "required": False}
    if _needs_a_tick(param) or (needed and default in (None, [])):
        field["required"] = True
    else:
        field["default"] = default
    return ClickPart(param.name, shape, field)


def _default(param: Any) -> Any:
    """The default as its field has it; None where there is none, or a function makes it."""
    found = param.default
    if getattr(param, "count", False):
        return found if isinstance(found, int) else 0
    if _is_switch(param):
        return bool(found) if isinstance(found, bool) else False
    if _is_several(param):
        return [_word(one) for one in found] if isinstance(found, list | tuple) else []
    return _word(found) if isinstance(found, str | int | float) or hasattr(found, "isoformat") else None


def _word(value: Any) -> str:
    # As in the formats that click reads a time by.
    return value.isoformat(timespec="seconds") if hasattr(value, "isoformat") else str(value)


def _is_switch(param: Any) -> bool:
    return bool(getattr(param, "is_flag", False)) and not getattr(param, "count", False)


def _is_several(param: Any) -> bool:
    return bool(getattr(param, "multiple", False)) or param.nargs != 1


def _shape(param: Any) -> Shape:
    if getattr(param, "count", False):
        return int_shape(0, 20)
    if _is_switch(param):
        return replace(BOOL, read=_ticked) if _needs_a_tick(param) else BOOL
    item = _item(param)
    if not _is_several(param):
        return item
    several = list_shape(item)
    exactly = 0 if param.nargs < 2 or getattr(param, "multiple", False) else param.nargs

    def read(given: Plain) -> Any:
        found = several.read(given)
        if exactly and len(found) != exactly:
            raise Unfit(f"needs {exactly} lines, not {len(found)}")
        if param.required and not found:
            raise Unfit("needs a line at least")
        return found

    return replace(several, read=read)


def _ticked(given: Plain) -> bool:
    if not BOOL.read(given):
        raise Unfit("has to be ticked; the command does not run without")
    return True


def _item(param: Any) -> Shape:
    """One word of the command line, of the parameter's type."""
    import click

    kind = param.type
    if isinstance(kind, click.Choice):
        names = [str(getattr(choice, "name", choice)) for choice in kind.choices]
        return choice_shape((name, name) for name in names)
    shown, hint = "str", ""
    if isinstance(kind, click.IntRange | click.FloatRange) and (kind.min is not None or kind.max is not None):
        hint = str(kind.name)
    if isinstance(kind, click.Path | click.File):
        shown = "path"
    elif kind.name.partition(" ")[0] in ("integer", "float"):
        shown = "int" if kind.name.startswith("integer") else "float"
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)

    def read(given: Plain) -> str:
        text = str(given).strip() if shown != "str" else str(given)
        # Files are the worker's to look for, and to open.
        if shown != "path":
            try:
                kind.convert(text, param, None)
            except click.BadParameter as error:
                raise Unfit(error.message.rstrip(".")) from None
        return text

    return Shape(shown, read, _word, blank=shown == "str", least=least, most=most, hint=hint)


def _option_words(param: Any, value: Any) -> list[str]:
    longest = max(param.opts, key=len)
    if getattr(param, "count", False):
        return [longest] * int(value)
    if _is_switch(param):
        names = param.opts if value else param.secondary_opts
        return [max(names, key=len)] if names else []
    if not _is_several(param):
        return _joined(longest, [value])
    if getattr(param, "multiple", False):
        return [word for one in value for word in _joined(longest, [one])]
    return [longest, *value] if value else []


def _joined(name: str, words: Sequence[str]) -> list[str]:
    """An option and its word, in one where the word could be taken for another option."""
    if name.startswith("--") and words[0].startswith("-"):
        return [f"{name}={words[0]}"]
    return [name, *words]
