"""How functions, ``Job`` classes and click commands become handlers, or are refused; registers nothing."""

from __future__ import annotations

import abc
import dataclasses
import difflib
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, Signature
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from nbqueue.errors import InvalidCommand
from nbqueue.handlers.handler import Handler, Kind, origin_of
from nbqueue.jobs import OptionKeywords, Options, check_name

if TYPE_CHECKING:
    from nbqueue.running.context import Context

__all__ = [
    "OPTION_NAMES",
    "ClassHandler",
    "ClickHandler",
    "call_name",
    "check_call",
    "check_keywords",
    "class_handler",
    "command_handler",
    "define_class",
    "function_handler",
    "reserved_names",
]

OPTION_NAMES = frozenset(OptionKeywords.__annotations__)
#: What a field of a ``Job`` must not be named, besides the options.
METHOD_NAMES = frozenset({"adispatch", "deserialize", "dispatch", "form", "handle", "serialize", "type_name"})


# ---------------------------------------------------------------------------------------- functions


def function_handler(
    target: Any, name: str | None, options: Options, *, kind: Kind = Kind.FUNCTION
) -> Handler:
    """Make the handler that calls a function, or refuse what is none."""
    _check_function(target)
    signature = _signature(target)
    parameters = list(signature.parameters.values())
    wants_context = bool(parameters) and _is_context(parameters[0])
    return Handler(
        name=call_name(target) if name is None else check_name(name, what="name"),
        origin=origin_of(target),
        target=target,
        kind=kind,
        options=options,
        wants_context=wants_context,
        is_async=_is_async(target),
        signature=signature.replace(parameters=parameters[wants_context:], return_annotation=Signature.empty),
    )


def call_name(target: Any) -> str:
    """Give the name that a function is dispatched under, or refuse one that has none."""
    name = getattr(target, "__name__", None)
    if name is None or name == "<lambda>":
        what = "a lambda" if name else f"{target!r}"
        msg = f'{what} has no name to be stored under; write a def, or @job(name="import_csv")'
        raise InvalidCommand(msg)
    return check_name(name, what="name")


def check_call(handler: Handler, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that the handler does not take."""
    if handler.signature is None:
        return
    _check_reserved(handler, kwargs)
    try:
        handler.signature.bind(*args, **kwargs)
    except TypeError as error:
        reason = str(error).replace("missing a required argument: ", "missing ")
        msg = f"{handler.name}() takes {handler.signature}: {reason}"
        raise InvalidCommand(msg) from None


def check_keywords(handler: Handler, names: Collection[str]) -> None:
    """Refuse the names of a row's values where the handler has no parameter for one, or one that is not among them."""
    if handler.kind is Kind.CLICK:
        msg = f"{handler.name} is a click command, which takes a list of texts and no names; map a list of texts"
        raise InvalidCommand(msg)
    if handler.signature is None:
        return
    _check_reserved(handler, names)
    parameters = handler.signature.parameters.values()
    by_name = [
        p.name for p in parameters if p.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    ]
    takes = f"{handler.name}() takes {handler.signature}"
    any_name = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    if not any_name and (unknown := [name for name in names if name not in by_name]):
        near = difflib.get_close_matches(unknown[0], by_name, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        msg = f"{takes}, so there is nothing to do with {', '.join(map(repr, unknown))}{hint}; rename it, or drop it"
        raise InvalidCommand(msg)
    variadic = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
    missing = [
        p.name for p in parameters if p.default is p.empty and p.kind not in variadic and p.name not in names
    ]
    if missing:
        msg = f"{takes}, and nothing is named {', '.join(map(repr, missing))}; add it to every row"
        raise InvalidCommand(msg)


def reserved_names(handler: Handler) -> tuple[str, ...]:
    """Give the names of the parameters that a job fills in itself: its context, where ``**kwargs`` could take it."""
    # Of a class it is the method that gets the context, so a field may be named so.
    if not handler.wants_context or handler.kind is Kind.CLASS:
        return ()
    first = next(iter(inspect.signature(handler.target).parameters.values()))
    return () if first.kind is Parameter.POSITIONAL_ONLY else (first.name,)


def _check_reserved(handler: Handler, names: Collection[str]) -> None:
    if "ctx" in names and (reserved := reserved_names(handler)):
        msg = f"{handler.name}() is given {reserved[0]!r} by the worker, so nothing else may be named so; rename it"
        raise InvalidCommand(msg)


def _check_function(target: Any) -> None:
    if isinstance(target, type):
        _refuse(target, "is a class; derive it from Job and give it a handle(self) method")
    if isinstance(target, staticmethod | classmethod) or _is_method(target):
        _refuse(target, "is a method; a job is a function by itself, or a class derived from Job")
    if not callable(target):
        _refuse(target, "cannot be called; a job is a function, or a class derived from Job")
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        _refuse(
            target, "yields; a job returns what it has found, and reports on the way by ctx.progress(...)"
        )


def _refuse(target: Any, reason: str) -> NoReturn:
    name = getattr(target, "__name__", None) or repr(target)
    msg = f"{name} {reason}"
    raise InvalidCommand(msg)


def _is_method(target: Any) -> bool:
    if not isinstance(target, FunctionType):
        return False
    inside_class = "." in target.__qualname__.rpartition("<locals>.")[2]
    return inside_class and next(iter(inspect.signature(target).parameters), "") in ("self", "cls")


def _signature(target: Any) -> Signature:
    try:
        return inspect.signature(target, eval_str=True)
    except Exception:  # noqa: BLE001 - an annotation may name what is imported for type checkers only
        try:
            return inspect.signature(target)
        except ValueError:
            return Signature(
                [Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)]
            )


def _is_context(parameter: Parameter) -> bool:
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return parameter.name == "ctx" and parameter.kind in positional


def _is_async(target: Any) -> bool:
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(type(target).__call__)


# ------------------------------------------------------------------------------------------- classes


@dataclass(frozen=True, kw_only=True)
class ClassHandler(Handler):
    """Makes an instance of a ``Job`` class of what was stored, and runs it.

    Stored are the fields, as keyword arguments; or, of a class with a ``serialize`` or ``deserialize`` of
    its own, its text as the only positional one.
    """

    kind: Kind = Kind.CLASS
    #: Whether the class writes and reads its own text.
    by_text: bool = False
    #: The options that an instance must be asked for.
    dynamic: tuple[str, ...] = ()

    def invoke(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Make the instance and call its ``handle``."""
        if self.by_text and len(args) == 1 and not kwargs and isinstance(args[0], str):
            job = self.target.deserialize(args[0])
        else:
            job = self.rebuild(args, kwargs)
        return job.handle(ctx) if self.wants_context else job.handle()

    def rebuild(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Make an instance of its fields; a field that is unknown or missing is refused by its name."""
        if args or kwargs.keys() != self.field_names.keys():
            self._check_fields(args, kwargs)
        return self.target(*args, **kwargs)

    def fields_of(self, job: Any) -> dict[str, Any]:
        """Give an instance's payload."""
        return {name: getattr(job, name) for name in self.field_names}

    def options_of(self, job: Any) -> Options:
        """Give an instance's options: the class's, over them what properties, methods and the instance itself say."""
        said = {name: _said(job, name) for name in self.dynamic}
        said |= {name: value for name, value in getattr(job, "__dict__", {}).items() if name in OPTION_NAMES}
        return Options.make(**said).over(self.options) if said else self.options

    @cached_property
    def field_names(self) -> dict[str, None]:
        """The names of the payload's fields, in order."""
        return dict.fromkeys(item.name for item in dataclasses.fields(self.target) if item.init)

    def _check_fields(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        known = ", ".join(self.field_names) or "no fields"
        if unknown := [name for name in kwargs if name not in self.field_names]:
            near = difflib.get_close_matches(unknown[0], self.field_names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            msg = f"{self.name} has no field {', '.join(map(repr, unknown))}{hint} (it has {known})"
            raise InvalidCommand(msg)
        check_call(self, args, kwargs)


def define_class(cls: type, inherited: tuple[type, ...]) -> None:
    """Make a ``Job`` class's annotated fields its payload, and refuse fields that would shadow what a job is."""
    before = {
        item.name for base in inherited if dataclasses.is_dataclass(base) for item in dataclasses.fields(base)
    }
    # Before the dataclass is made: what that would say of a misplaced option is true and no help.
    for name, kind in inspect.get_annotations(cls).items():
        if "ClassVar" not in str(kind):
            _check_field_name(cls, name)
    try:
        dataclass(cls)
    except (TypeError, ValueError) as error:
        msg = f"class {cls.__name__}: {error}"
        raise InvalidCommand(msg) from None
    names = [item.name for item in dataclasses.fields(cls)]
    if set(names) - before and not hasattr(cls, "handle") and abc.ABC not in cls.__bases__:
        msg = (
            f"class {cls.__name__} has fields but nothing to run; "
            "give it a method: def handle(self), or async def handle(self)"
        )
        raise InvalidCommand(msg)


def _check_field_name(cls: type, name: str) -> None:
    if name in OPTION_NAMES:
        default = cls.__dict__.get(name, ...)
        msg = (
            f"class {cls.__name__}: {name} is an option of every job, so no field may be named so; "
            f"write it without its annotation: {name} = {'...' if default is ... else repr(default)}"
        )
        raise InvalidCommand(msg)
    if name in METHOD_NAMES:
        msg = f"class {cls.__name__}: {name} is a method of every job; name the field otherwise, as in {name}_: ..."
        raise InvalidCommand(msg)


def class_handler(cls: Any, root: Any) -> ClassHandler | None:
    """Make the handler of a ``Job`` class; None for one that only others derive from."""
    handle = getattr(cls, "handle", None)
    if handle is None or getattr(handle, "__isabstractmethod__", False):
        return None
    if not callable(handle):
        msg = f"class {cls.__name__}: handle must be a method: def handle(self), or async def handle(self)"
        raise InvalidCommand(msg)
    parameters = [
        item for item in list(inspect.signature(handle).parameters.values())[1:] if not _is_optional(item)
    ]
    if parameters and not (len(parameters) == 1 and _is_context(parameters[0])):
        given = ", ".join(item.name for item in parameters)
        msg = (
            f"class {cls.__name__}: handle takes self, and ctx where it wants the context, but no {given}; "
            "what a job needs besides are its fields"
        )
        raise InvalidCommand(msg)
    static, dynamic = _class_options(cls)
    own_text = (
        cls.serialize is not root.serialize or cls.deserialize.__func__ is not root.deserialize.__func__
    )
    return ClassHandler(
        name=check_name(cls.type_name(), what=f"class {cls.__name__}: its type_name()"),
        origin=origin_of(cls),
        target=cls,
        options=static,
        wants_context="ctx" in inspect.signature(handle).parameters,
        is_async=inspect.iscoroutinefunction(handle),
        signature=_signature(cls).replace(return_annotation=Signature.empty),
        by_text=own_text,
        dynamic=dynamic,
    )


def _is_optional(parameter: Parameter) -> bool:
    variadic = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return parameter.name != "ctx" and (variadic or parameter.default is not Parameter.empty)


def _class_options(cls: type) -> tuple[Options, tuple[str, ...]]:
    static, dynamic = {}, []
    for name in sorted(OPTION_NAMES):
        value = inspect.getattr_static(cls, name, None)
        if isinstance(value, FunctionType | staticmethod | classmethod) or hasattr(value, "__get__"):
            dynamic.append(name)
        elif value is not None:
            static[name] = value
    try:
        return Options.make(**static), tuple(dynamic)
    except InvalidCommand as error:
        msg = f"class {cls.__name__}: {error}"
        raise InvalidCommand(msg) from None


def _said(job: Any, name: str) -> Any:
    value = getattr(job, name)
    return value() if inspect.isroutine(value) else value


# ---------------------------------------------------------------------------------------- commands


@dataclass(frozen=True, kw_only=True)
class ClickHandler(Handler):
    """Runs a click command with the stored arguments as its command line."""

    kind: Kind = Kind.CLICK

    def invoke(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the command; its usage errors are the job's, with click's sentence."""
        import click

        if kwargs:
            msg = f"{self.name} is a click command, which takes arguments such as '--batch', '5', not {kwargs!r}"
            raise InvalidCommand(msg)
        command: click.Command = self.target
        try:
            # Not command.main(): that gives an exit code as if it were the result.
            with command.make_context(self.name, [str(arg) for arg in args]) as context:
                return command.invoke(context)
        except click.UsageError as error:
            sentence = error.format_message()
            if sentence == str(error):
                raise
            # Such as "Missing argument 'PATH'.": str() of some of them says less than click prints.
            raise click.UsageError(sentence) from error
        except click.exceptions.Exit as error:
            if error.exit_code:
                msg = f"{self.name} exited with code {error.exit_code}"
                raise RuntimeError(msg) from None
            return None

    @property
    def code_target(self) -> Callable[..., Any]:
        """The function below the command, where there is one."""
        callback: Callable[..., Any] = self.target.callback or type(self.target)
        return callback


def command_handler(target: Any, name: str, options: Options) -> Handler:
    """Make the handler of a named command, of a function or a click command."""
    if not _is_click(target):
        return function_handler(target, name, options, kind=Kind.COMMAND)
    callback = target.callback
    return ClickHandler(
        name=name,
        origin=origin_of(target if callback is None else callback),
        target=target,
        options=options,
        is_async=callback is not None and inspect.iscoroutinefunction(callback),
    )


def _is_click(target: object) -> bool:
    # Whoever made a click command has imported click.
    click = sys.modules.get("click")
    return isinstance(target, getattr(click, "Command", ()))
