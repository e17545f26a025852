"""Forms as plain data: which fields a handler's call has, and from filled-in values to that call; shows nothing.

A front end gets ``FormSpec.plain()`` and hands back values by field name. Nothing is dispatched unless every one of
them could be read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as data
from inspect import BoundArguments, Parameter, Signature
from types import SimpleNamespace
from typing import Any, NamedTuple

from nbqueue.errors import InvalidCommand
from nbqueue.facade.forms.clicks import arguments_of, click_parts, filled_of
from nbqueue.facade.forms.docstrings import parameters_of, summary_of
from nbqueue.facade.forms.fields import optional, shape_of
from nbqueue.facade.forms.nested import list_shape, object_shape
from nbqueue.facade.forms.shapes import (
    Plain,
    Shape,
    Unfit,
    choice_shape,
    duration_shape,
    int_shape,
)
from nbqueue.handlers.definitions import ClassHandler, ClickHandler, reserved_names
from nbqueue.handlers.handler import Handler
from nbqueue.jobs import PRIORITY_MAX, PRIORITY_MIN, TRIES_MAX, Options, check_queue

__all__ = ["Field", "FormErrors", "FormSpec", "Part", "form_of"]

_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a form, as a front end needs it."""

    name: str
    label: str
    #: int, float, bool, str, text, choice, date, datetime, path, json or list.
    kind: str
    #: Whether it must be filled in.
    required: bool = False
    default: Plain = None
    help: str = ""
    #: What there is to pick: ``{"value": …, "label": …}``, both text.
    choices: tuple[dict[str, str], ...] | None = None
    #: Whether left empty it is None.
    nullable: bool = False
    least: float | None = None
    most: float | None = None
    #: Whether it takes other text than its choices.
    free: bool = False


class Part(NamedTuple):
    """A field, and how what was filled in is read."""

    field: Field
    shape: Shape


class Filled(NamedTuple):
    """What was filled in, read."""

    #: By parameter; what was left empty, and has a default of its own, is not in it.
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]


class FormErrors(InvalidCommand):
    """What was filled in is no job; nothing was dispatched.

    Parameters
    ----------
    command : str
        What the form is of.
    errors : mapping
        By field a sentence; options by ``"options.tries"``, what no single field is to blame for by ``""``.
    """

    def __init__(self, command: str, errors: Mapping[str, str]):
        said = "; ".join(f"{name.removeprefix('options.')} {text}".strip() for name, text in errors.items())
        super().__init__(f"{command} was not dispatched: {said}")
        self.errors = dict(errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormSpec:
    """The form of one handler: plain data to show, and the way back from what was filled in.

    Example
    -------
    >>> from nbqueue.handlers.definitions import function_handler
    >>> def resize(path: str, *, width: int = 800) -> None: "Make a picture smaller."
    >>> spec = form_of(function_handler(resize, None, Options()))
    >>> spec.doc, [(field.name, field.kind, field.default) for field in spec.fields]
    ('Make a picture smaller.', [('path', 'str', None), ('width', 'int', 800)])
    >>> spec.parse({"path": "a.png", "width": "640"}).arguments
    {'path': 'a.png', 'width': 640}
    """

    handler: Handler
    #: What the handler says of its jobs, and whoever asked for the form.
    said: Options
    doc: str
    parts: tuple[Part, ...]
    option_parts: tuple[Part, ...]
    #: What the fields show first, by name: the last values, else the defaults.
    values: Mapping[str, Plain] = data(default_factory=dict)
    #: How long such a job took lately.
    estimate: str = ""

    @property
    def command(self) -> str:
        """The name of what it dispatches."""
        return self.handler.name

    @property
    def title(self) -> str:
        """What it is headed by."""
        return self.handler.name

    @property
    def fields(self) -> tuple[Field, ...]:
        """What the handler takes."""
        return tuple(part.field for part in self.parts)

    @property
    def options(self) -> tuple[Field, ...]:
        """What may be said besides: queue, delay, priority, tries, timeout, metadata."""
        return tuple(part.field for part in self.option_parts)

    def plain(self) -> dict[str, Plain]:
        """Give all of it as plain JSON."""
        return {
            "command": self.command,
            "title": self.title,
            "doc": self.doc,
            "fields": [_plain(field) for field in self.fields],
            "options": [_plain(field) for field in self.options],
            "values": dict(self.values),
            "estimate": self.estimate,
        }

    def shown(self, arguments: Mapping[str, Any]) -> dict[str, Plain]:
        """Give what the fields show for these arguments; what cannot be shown is its default."""
        found = {part.field.name: part.field.default for part in self.parts}
        for field, shape in self.parts:
            if field.name not in arguments:
                continue
            value = arguments[field.name]
            try:
                found[field.name] = None if value is None and field.nullable else shape.show(value)
            except (ValueError, TypeError, AttributeError):
                continue
        return found

    def arguments(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Give by parameter what a stored call holds; {} where it does not fit the handler any more."""
        signature = self.handler.signature
        if isinstance(self.handler, ClickHandler):
            return filled_of(self.handler.target, tuple(args))
        if signature is None or (isinstance(self.handler, ClassHandler) and self.handler.by_text):
            # Its own text is its own code's to read.
            return {}
        try:
            return dict(signature.bind(*args, **kwargs).arguments)
        except TypeError:
            return {}

    def parse(self, values: Mapping[str, Plain], options: Mapping[str, Plain] | None = None) -> Filled:
        """Read what was filled in.

        Parameters
        ----------
        values, options : mapping
            By field; what is missing or None was left empty.

        Raises
        ------
        FormErrors
            With a sentence for each field that is wrong.
        """
        options = {} if options is None else options
        for what, given in (("values", values), ("options", options)):
            if not isinstance(given, Mapping):
                raise FormErrors(self.command, {"": f"{what} must be a dict by field, not {given!r:.60}"})
        errors: dict[str, str] = {}
        arguments = _read(self.parts, values, errors, prefix="")
        errors |= _twice(self.handler, arguments)
        said = _read(self.option_parts, options, errors, prefix="options.")
        if errors:
            raise FormErrors(self.command, errors)
        return Filled(arguments, {name: value for name, value in said.items() if value is not None})

    def call(self, filled: Filled) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments of the call, positional and by keyword."""
        if isinstance(self.handler, ClickHandler):
            return tuple(arguments_of(self.handler.target, filled.arguments)), {}
        return _bound(self.handler.signature, filled.arguments)


def _plain(field: Field) -> dict[str, Plain]:
    found = asdict(field)
    found["choices"] = None if field.choices is None else [dict(choice) for choice in field.choices]
    return found


# -------------------------------------------------------------------------------------------------- what is filled in
def _read(
    parts: Iterable[Part], values: Mapping[str, Plain], errors: dict[str, str], *, prefix: str
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = set()
    for field, shape in parts:
        names.add(field.name)
        given = values.get(field.name)
        if _is_empty(field, shape, given):
            if field.required:
                errors[prefix + field.name] = "is needed"
            elif field.nullable and (field.name in values or field.default is None):
                found[field.name] = None
            elif field.kind == "bool" and field.default is False:
                # A box that is not ticked says no.
                found[field.name] = False
            continue
        try:
            found[field.name] = shape.read(given)
        except ValueError as error:
            errors[prefix + field.name] = str(error)
    for name in values:
        if name not in names:
            errors[prefix + str(name)] = "is no field of this form"
    return found


def _is_empty(field: Field, shape: Shape, given: Plain) -> bool:
    if given is None:
        return True
    if given in ("", []) or (shape.kind == "list" and isinstance(given, str) and not given.strip()):
        # An empty text is a text, and no lines are a list, unless something is needed here.
        return field.required or field.nullable or not shape.blank
    return isinstance(given, str) and not given.strip() and not shape.blank


def _twice(handler: Handler, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Say which names in ``**kwargs`` the call has already."""
    errors: dict[str, str] = {}
    parameters = () if handler.signature is None else handler.signature.parameters.values()
    taken = {p.name for p in parameters if p.kind in _BY_NAME}
    for rest in (p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD):
        for name in arguments.get(rest, ()):
            if name in taken:
                errors[rest] = f'"{name}" is a parameter with a field of its own; fill in that one'
            elif name in reserved_names(handler):
                errors[rest] = f'"{name}" is given to the job by the worker; rename it'
    return errors


def _bound(
    signature: Signature | None, arguments: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if signature is None:
        return tuple(arguments.get("args", ())), dict(arguments.get("kwargs", {}))
    by_kind = {kind: [p.name for p in signature.parameters.values() if p.kind is kind] for kind in _VARIADIC}
    rest = [arguments.get(name, ()) for name in by_kind[Parameter.VAR_POSITIONAL]]
    positional = [p for p in signature.parameters.values() if p.kind is Parameter.POSITIONAL_ONLY]
    if any(rest) or any(p.name in arguments for p in positional):
        # What stands before them has to be there.
        bound = BoundArguments(signature, dict(arguments))
        bound.apply_defaults()
        return bound.args, bound.kwargs
    named = {
        name: value
        for name, value in arguments.items()
        if not any(name in names for names in by_kind.values())
    }
    for name in by_kind[Parameter.VAR_KEYWORD]:
        named |= arguments.get(name, {})
    return (), named


# ------------------------------------------------------------------------------------------------- from a handler
def form_of(handler: Handler, said: Options | None = None, *, queues: Iterable[str] = ()) -> FormSpec:
    """Make the form of a handler.

    Parameters
    ----------
    handler : Handler
        A function's, a ``Job`` class's or a click command's.
    said : Options, optional
        What is said of its jobs; the handler's own options, unless given.
    queues : iterable of str
        The queues there are, to pick from.
    """
    target = handler.target
    doc = inspect.getdoc(target) if not isinstance(target, type) else target.__doc__
    if isinstance(handler, ClickHandler):
        doc = target.help or ""
        parts = tuple(Part(_field(name, shape, **more), shape) for name, shape, more in click_parts(target))
    else:
        # A dataclass without a docstring gets its signature as one.
        doc = "" if doc and isinstance(target, type) and doc.startswith(f"{target.__name__}(") else doc
        parts = tuple(_parts(handler, parameters_of(doc)))
    options = handler.options if said is None else said
    spec = FormSpec(
        handler=handler,
        said=options,
        doc=summary_of(doc),
        parts=parts,
        option_parts=_options(options, queues),
    )
    return dataclasses.replace(spec, values=spec.shown({}))


def _parts(handler: Handler, helps: Mapping[str, str]) -> Iterable[Part]:
    factories = _factories(handler)
    hints = _hints(handler)
    for parameter in () if handler.signature is None else handler.signature.parameters.values():
        shape = shape_of(hints.get(parameter.name, parameter.annotation))
        default = factories.get(parameter.name, parameter.default)
        if default is None:
            shape = optional(shape)
        if parameter.kind is Parameter.VAR_POSITIONAL:
            shape, default = list_shape(shape), ()
        elif parameter.kind is Parameter.VAR_KEYWORD:
            shape, default = object_shape(shape), {}
        yield Part(
            _field(parameter.name, shape, default=default, help=helps.get(parameter.name, "")),
            shape,
        )


def _field(name: str, shape: Shape, *, default: Any = Parameter.empty, help: str = "", **more: Any) -> Field:
    has_default = default is not Parameter.empty
    shown, said = None, help
    if has_default and default is not None:
        try:
            shown = shape.show(default)
        except (ValueError, TypeError, AttributeError):
            said = f"{said} Left empty it is {_short(default)}.".strip()
            # Nor can None be said then.
            more.setdefault("nullable", False)
    return Field(
        **{
            "name": name,
            "label": name,
            "kind": shape.kind,
            # A box that is not ticked says no.
            "required": not has_default and not shape.nullable and shape.kind != "bool",
            "default": False if shape.kind == "bool" and not has_default else shown,
            "help": said or shape.hint,
            "choices": None
            if shape.choices is None
            else tuple({"value": v, "label": v} for v, _ in shape.choices),
            # A default of None says so as well, whatever the annotation does.
            "nullable": shape.nullable or (has_default and default is None),
            "least": shape.least,
            "most": shape.most,
            **more,
        }
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _factories(handler: Handler) -> dict[str, Any]:
    """The defaults of a class's fields that are made anew for each instance; who knows by what is left out."""
    if not isinstance(handler, ClassHandler):
        return {}
    made: dict[str, Any] = {}
    for item in dataclasses.fields(handler.target):
        if item.default_factory in (list, dict, set, tuple):
            made[item.name] = item.default_factory()
        elif item.default_factory is not dataclasses.MISSING:
            made[item.name] = _Made(getattr(item.default_factory, "__name__", "a function"))
    return made


class _Made:
    """Stands for a default that a function makes at dispatch."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"made by {self._name}"


def _hints(handler: Handler) -> dict[str, Any]:
    """What annotations mean that were left as text, as where one of them is only imported for type checkers."""
    assert handler.signature is not None
    late = {
        name: parameter.annotation
        for name, parameter in handler.signature.parameters.items()
        if isinstance(parameter.annotation, str)
    }
    if not late:
        return {}
    target = vars(handler.target).get("__init__") if isinstance(handler.target, type) else handler.target
    names = getattr(inspect.unwrap(target) if callable(target) else None, "__globals__", {})
    found = {}
    for name, text in late.items():
        holder = SimpleNamespace(__annotations__={name: text})
        # An annotation may be any code; one that raises is asked for as text.
        with contextlib.suppress(Exception):
            found[name] = typing.get_type_hints(holder, names, include_extras=True)[name]
    return found


# ------------------------------------------------------------------------------------------------------ options
def _options(said: Options, queues: Iterable[str]) -> tuple[Part, ...]:
    """The folded part, with what the handler says as what stands there first."""
    names = list(dict.fromkeys([*([said.queue] if said.queue else []), *queues]))
    choices = choice_shape((name, name) for name in names)
    queue = dataclasses.replace(choices, read=_queue, show=str)
    unsaid = "empty: as the worker says"
    rows: tuple[tuple[str, Shape, Any, str], ...] = (
        ("queue", queue, said.queue, "where it waits; a name that is new makes the queue"),
        (
            "delay",
            duration_shape(what="delay"),
            said.delay,
            'wait so long first: seconds, or e.g. "90s", "5m"',
        ),
        ("priority", int_shape(PRIORITY_MIN, PRIORITY_MAX), said.priority, "higher runs first, -100 to 100"),
        ("tries", int_shape(1, TRIES_MAX), said.tries, f"attempts at most; {unsaid}"),
        (
            "timeout",
            duration_shape(what="timeout", least=0.001),
            said.timeout,
            f'one attempt at most: seconds, or e.g. "10m"; {unsaid}',
        ),
        ("metadata", object_shape(), dict(said.metadata) or None, 'a JSON object, such as {"user_id": 7}'),
    )
    return tuple(
        Part(_field(name, shape, default=default, help=text, nullable=True, free=name == "queue"), shape)
        for name, shape, default, text in rows
    )


def _queue(given: Plain) -> str:
    try:
        return check_queue(given)
    except InvalidCommand as error:
        raise Unfit(str(error)) from None
