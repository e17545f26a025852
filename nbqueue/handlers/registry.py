"""The three ways to say what to run: ``@job``, ``Job`` and ``@command``; knows no store and no queue."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import (
    Any,
    ClassVar,
    Generic,
    ParamSpec,
    Self,
    TypeVar,
    Unpack,
    cast,
    dataclass_transform,
    overload,
)

from nbqueue import payload
from nbqueue.errors import InvalidCommand
from nbqueue.handlers.definitions import (
    ClassHandler,
    check_call,
    class_handler,
    command_handler,
    define_class,
    function_handler,
)
from nbqueue.handlers.handler import Handler, Kind, Registry, origin_of
from nbqueue.jobs import OptionKeywords, Options, QueuedCommand, check_name
from nbqueue.running.context import Dispatcher, current

__all__ = [
    "Call",
    "Handler",
    "Job",
    "JobFunction",
    "Kind",
    "Registry",
    "adopted",
    "command",
    "job",
    "origin_of",
    "registry",
    "to_call",
    "to_mapped",
]

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F")

#: The handlers that this process has defined.
registry = Registry()


def _facade() -> Dispatcher:
    from nbqueue.facade.manager import manager

    return manager()


def _dispatcher() -> Dispatcher:
    # Inside a job it is the store that the job came from, which need not be the one connected last.
    return current(None) or _facade()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What to run, with which arguments and options; what every way of saying it comes down to."""

    command: str
    #: Where its handler was defined; "" where any handler of that name may serve.
    origin: str = ""
    #: The hash of its handler's code; "" as above.
    code: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    #: The handler as it is here and now, None where there is none of that name.
    handler: Handler | None = None

    @classmethod
    def of(cls, handler: Handler, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Options) -> Self:
        """Make the call of a handler that was defined here."""
        return cls(
            command=handler.name,
            origin=handler.origin,
            code=handler.code,
            args=args,
            kwargs=kwargs,
            options=options,
            handler=handler,
        )

    def with_options(self, **options: Unpack[OptionKeywords]) -> Self:
        """Give the same call with these options over its own."""
        return replace(self, options=Options.make(**options).over(self.options)) if options else self


class JobFunction(Generic[P, R]):
    """A function that can be dispatched; called, it is still the plain function.

    Made by ``@job``.

    Example
    -------
    >>> @job(queue="imports", tries=3)
    ... def import_csv(path: str, batch: int = 1) -> int:
    ...     return len(path) * batch
    >>> import_csv("users.csv")
    9
    >>> import_csv.options(delay=30).call("users.csv", batch=2).options.delay
    30.0
    """

    def __init__(self, handler: Handler, options: Options | None = None) -> None:
        functools.update_wrapper(self, handler.target)
        self.handler = handler
        self._options = handler.options if options is None else options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the plain function, here and now."""
        result: R = self.handler.target(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<job {self.handler.name}{self.handler.signature}>"

    @property
    def name(self) -> str:
        """The name it is dispatched under."""
        return self.handler.name

    def options(self, **options: Unpack[OptionKeywords]) -> JobFunction[P, R]:
        """Give the same job with these options over its own; they are those of ``@job``.

        Raises
        ------
        InvalidCommand
            For an option that is unknown, or a value that no queue can take.
        """
        return JobFunction(self.handler, Options.make(**options).over(self._options))

    def call(self, *args: Any, **kwargs: Any) -> Call:
        """Give the call of it with these arguments, to be dispatched later or among others.

        Raises
        ------
        InvalidCommand
            For arguments that the function does not take.
        """
        check_call(self.handler, args, kwargs)
        return Call.of(self.handler, args, kwargs, self._options)

    def dispatch(self, *args: Any, **kwargs: Any) -> Any:
        """Hand it in with these arguments; on disk when this returns the receipt."""
        return _dispatcher().dispatch(self.call(*args, **kwargs))

    async def adispatch(self, *args: Any, **kwargs: Any) -> Any:
        """Hand it in without blocking the running loop."""
        return await _dispatcher().adispatch(self.call(*args, **kwargs))

    def form(self) -> Any:
        """Show a form in the notebook that is made from the signature, and dispatches to the queue connected last."""
        return cast("Any", _facade()).form(self)


@overload
def job(function: Callable[P, R], /) -> JobFunction[P, R]: ...
@overload
def job(
    *, name: str | None = None, **options: Unpack[OptionKeywords]
) -> Callable[[Callable[P, R]], JobFunction[P, R]]: ...
def job(function: Any = None, /, *, name: str | None = None, **options: Unpack[OptionKeywords]) -> Any:
    """Make a function a job: it can be dispatched, and a worker that knows it runs it.

    Parameters
    ----------
    function : callable
        A function, ``def`` or ``async def``; one whose first parameter is named ``ctx`` is given the ``Context``.
    name : str, optional
        What it is stored under; the function's own name, unless given.
    **options
        ``queue``, ``delay``, ``scheduled_at``, ``priority``, ``tries``, ``timeout``, ``metadata``, ``backoff``,
        ``jitter``, ``retry_on``, ``give_up_on``.

    Raises
    ------
    InvalidCommand
        For an option that is unknown or a value that no queue can take, and for what is no function.

    Example
    -------
    >>> @job(tries=3, timeout=600, backoff=[1, 5, 30])
    ... def resize(folder: str) -> None: ...
    >>> resize.call("holiday").options.tries
    3
    """
    said = Options.make(**options)

    def make(target: Any) -> Any:
        if isinstance(target, JobFunction):
            msg = f"{target.name} is a job already; for other options write {target.name}.options(...)"
            raise InvalidCommand(msg)
        return JobFunction(registry.register(function_handler(target, name, said)))

    if isinstance(function, str):
        msg = f'@job takes options by keyword; for a name write @job(name="{function}")'
        raise InvalidCommand(msg)
    return make if function is None else make(function)


@dataclass_transform()
class Job:
    """Base of jobs that are classes: annotated fields are the payload, ``handle`` is what runs.

    A class attribute, property or method named like an option of ``@job`` is that option. A field has an
    annotation, an option has none.

    Example
    -------
    >>> class Greet(Job):
    ...     queue = "greetings"
    ...     who: str
    ...     async def handle(self) -> str:
    ...         return f"Hello, {self.who}!"
    >>> Greet("Ada").serialize()
    '{"who":"Ada"}'
    >>> Greet.deserialize('{"who":"Ada"}') == Greet(who="Ada")
    True
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        define_class(cls, cls.__mro__[1:])
        handler = class_handler(cls, Job)
        cls._nbq_handler = handler
        if handler is not None:
            registry.register(handler)

    #: None for a class that others derive from.
    _nbq_handler: ClassVar[ClassHandler | None] = None

    @classmethod
    def type_name(cls) -> str:
        """Give the name it is stored under; a class may have a ``type_name`` of its own."""
        return cls.__name__

    def serialize(self) -> str:
        """Give the fields as JSON text; a class that writes its own is stored as that text."""
        handler = _handler_of(type(self))
        return payload.encode(handler.fields_of(self), what=handler.name)

    @classmethod
    def deserialize(cls, text: str) -> Self:
        """Make an instance of what ``serialize`` gave.

        Raises
        ------
        InvalidCommand
            For a field that is unknown or missing, by its name.
        """
        handler = _handler_of(cls)
        stored = payload.decode(text)
        if not isinstance(stored, dict):
            msg = f"{handler.name} is made of a JSON object with its fields, not of {text[:60]!r}"
            raise InvalidCommand(msg)
        made: Self = handler.rebuild((), stored)
        return made

    def dispatch(self) -> Any:
        """Hand it in; on disk when this returns the receipt."""
        return _dispatcher().dispatch(self)

    async def adispatch(self) -> Any:
        """Hand it in without blocking the running loop."""
        return await _dispatcher().adispatch(self)

    @classmethod
    def form(cls) -> Any:
        """Show a form in the notebook that is made from the fields, and dispatches to the queue connected last."""
        return cast("Any", _facade()).form(cls)


def _handler_of(cls: type[Job]) -> ClassHandler:
    handler = cls._nbq_handler
    if handler is None:
        msg = f"class {cls.__name__} has nothing to run; give it a method: def handle(self), or async def handle(self)"
        raise InvalidCommand(msg)
    return handler


def command(name: str, /, **options: Unpack[OptionKeywords]) -> Callable[[F], F]:
    """Make a function or a click command the handler of a named command, which ``QueuedCommand`` dispatches.

    Parameters
    ----------
    name : str
        Such as ``"import:data"``.
    **options
        Those of ``@job``; what the ``QueuedCommand`` says wins.

    Raises
    ------
    InvalidCommand
        For an empty name, a bad option, or what can be no handler.

    Example
    -------
    >>> @command("import:data", queue="imports")
    ... def import_data(ctx, *args: str) -> int:
    ...     return len(args)
    >>> to_call(QueuedCommand("import:data").with_args(["users.csv"])).options.queue
    'imports'
    """
    if not isinstance(name, str):
        given = getattr(name, "__name__", None) or getattr(name, "name", None) or repr(name)
        msg = f'@command needs the name it is dispatched by; write @command("{given}")'
        raise InvalidCommand(msg)
    check_name(name, what="command")
    said = Options.make(**options)

    def register(target: F) -> F:
        if isinstance(target, JobFunction):
            msg = f'{target.name} is a job already; to name it "{name}" write @job(name="{name}") alone'
            raise InvalidCommand(msg)
        if isinstance(target, type) and issubclass(target, Job):
            msg = f'{target.__name__} is a Job class, which names itself; let its type_name() return "{name}"'
            raise InvalidCommand(msg)
        registry.register(command_handler(target, name, said))
        return target

    return register


def adopted(target: Any, name: str) -> Handler:
    """Make the handler of a function or ``Job`` class that came by value; it is not registered.

    Raises
    ------
    InvalidCommand
        For what can be no handler.
    """
    if isinstance(target, type) and issubclass(target, Job):
        return replace(_handler_of(target), name=name)
    return function_handler(target, name, Options())


def to_call(work: object) -> Call:
    """Give what to run for whatever can be dispatched: a ``Call``, a ``Job``, a ``QueuedCommand``.

    Raises
    ------
    InvalidCommand
        For anything else; the sentence says what to write.
    """
    if isinstance(work, Call):
        return work
    if isinstance(work, Job):
        handler = _handler_of(type(work))
        args, kwargs = ((work.serialize(),), {}) if handler.by_text else ((), handler.fields_of(work))
        return Call.of(handler, args, kwargs, handler.options_of(work))
    if isinstance(work, QueuedCommand):
        found = registry.named(work.command)
        options = work.options if found is None else work.options.over(found.options)
        return Call(command=work.command, args=work.args, kwargs=work.kwargs, options=options, handler=found)
    raise InvalidCommand(_how_to_say(work))


def to_mapped(work: object) -> Call:
    """Give the call, without arguments, of whatever can be run once for each of many rows.

    Parameters
    ----------
    work : JobFunction, type of Job, str or QueuedCommand
        A job, with options of its own or without; a ``Job`` class; a command's name.

    Raises
    ------
    InvalidCommand
        For anything else; the sentence says what to write.
    """
    if isinstance(work, JobFunction):
        return Call.of(work.handler, (), {}, work._options)  # noqa: SLF001 - of this module
    if isinstance(work, type) and issubclass(work, Job):
        handler = _handler_of(work)
        return Call.of(handler, (), {}, handler.options)
    if isinstance(work, str):
        work = QueuedCommand(work)
    if isinstance(work, QueuedCommand) and not work.args and not work.kwargs:
        return to_call(work)
    if isinstance(work, Call | Job | QueuedCommand):
        msg = "map takes the work without its arguments, which are its rows: a job, a Job class or a command's name"
        raise InvalidCommand(msg)
    raise InvalidCommand(_how_to_say(work).replace(".dispatch(...)", " alone"))


def _how_to_say(work: object) -> str:
    if isinstance(work, JobFunction):
        return f"{work.name} needs its arguments; write {work.name}.dispatch(...), or dispatch {work.name}.call(...)"
    if isinstance(work, type) and issubclass(work, Job):
        return f"{work.__name__} is a class; dispatch an instance, {work.__name__}(...)"
    if isinstance(work, str):
        return f'{work!r} is only a name; write QueuedCommand("{work}").with_args([...])'
    if callable(work):
        name = getattr(work, "__name__", "the function")
        return f"{name} is a plain function; put @job above it and write {name}.dispatch(...)"
    return f"{type(work).__name__} {repr(work)[:60]} cannot be dispatched; give a job's call, a Job or a QueuedCommand"
