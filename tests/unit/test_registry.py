"""Functions, Job classes and commands become handlers; what no worker could run is refused where it is written."""

import abc
import asyncio
import dataclasses
import inspect
import subprocess
import sys
import threading
import types
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, ClassVar

import click
import cloudpickle
import pytest

import nbqueue.handlers.registry
from nbqueue.errors import InvalidCommand
from nbqueue.handlers.handler import Handler, Kind, Registry, origin_of
from nbqueue.handlers.registry import Call, Job, adopted, command, job, to_call
from nbqueue.jobs import Claim, Options, QueuedCommand, Spec
from nbqueue.payload import decode_call, encode_call
from nbqueue.running.context import Context, entering

HERE = f"module:{__name__}"


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A table of its own for each test."""
    fresh = Registry()
    monkeypatch.setattr(nbqueue.handlers.registry, "registry", fresh)
    return fresh


class Notes:
    """A dispatcher that writes down what it was handed."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def dispatch(self, work: Any, **options: Any) -> str:
        self.taken.append(work)
        return "receipt"

    async def adispatch(self, work: Any, **options: Any) -> str:
        return self.dispatch(work, **options)


def context_of(dispatcher: Any = None) -> Context:
    return Context(Claim(uuid.uuid4(), 1, 1, 1, None, Spec("x"), "{}", ""), dispatcher or Notes())


def run(work: Any, table: Registry) -> Any:
    """What a worker does with a dispatched job: by way of its stored text, and no other."""
    call = to_call(work)
    args, kwargs = decode_call(encode_call(call.args, call.kwargs))
    handler = table.resolve(Spec(call.command, origin=call.origin, code=call.code))
    assert handler is not None
    value = handler.invoke(context_of(), args, kwargs)
    assert inspect.iscoroutine(value) == handler.is_async
    return asyncio.run(value) if handler.is_async else value


def handle(self: Any) -> None:
    """A method for classes that are made on the spot."""


# ---------------------------------------------------------------------------------------- functions
def test_a_job_is_still_the_plain_function(registry: Registry) -> None:
    """Decorated, a function is called, documented and inspected as before."""

    @job(queue="imports", tries=3, timeout=600, backoff=[1, 5, 30])
    def import_csv(path: str, batch: int = 1) -> int:
        """Import it."""
        return len(path) * batch

    assert import_csv("abc", batch=2) == 6
    assert (import_csv.__name__, import_csv.__doc__) == ("import_csv", "Import it.")
    assert list(inspect.signature(import_csv).parameters) == ["path", "batch"]
    call = import_csv.call("abc", batch=2)
    assert (call.command, call.origin, call.args, call.kwargs) == ("import_csv", HERE, ("abc",), {"batch": 2})
    assert (call.options.queue, call.options.tries, call.options.timeout) == ("imports", 3, 600.0)
    assert call.options.retry is not None
    assert call.options.retry.backoff == (1, 5, 30)
    assert call.handler is import_csv.handler
    assert call.code == call.handler.code
    assert run(call, registry) == 6
    assert repr(import_csv) == "<job import_csv(path: str, batch: int = 1)>"


def test_job_without_parentheses_and_with_a_name(registry: Registry) -> None:
    """@job alone takes the function's name, name= gives another, which lets a lambda be a job."""

    @job
    def plain() -> str:
        return "plain"

    named = job(name="the:answer")(lambda: 42)
    assert run(plain.call(), registry) == "plain"
    assert run(named.call(), registry) == 42
    assert registry.names() == ("plain", "the:answer")


def test_async_functions_give_a_coroutine(registry: Registry) -> None:
    """An async def is a job like another, and plainly called it is awaited."""

    @job
    async def fetch(ctx: Context, url: str) -> str:
        await asyncio.sleep(0)
        return f"{ctx.command} {url}"

    assert run(fetch.call("/a"), registry) == "x /a"
    assert asyncio.run(fetch(context_of(), "/b")) == "x /b"


def test_the_context_is_given_to_whoever_names_it_first() -> None:
    """A first parameter named ctx is filled in; one that stands elsewhere is an argument like others."""

    @job
    def wants(ctx: Context, path: str) -> tuple[Any, str]:
        return ctx, path

    @job
    def takes(path: str, ctx: int) -> tuple[str, int]:
        return path, ctx

    ctx = context_of()
    assert wants.handler.invoke(ctx, ("a",), {}) == (ctx, "a")
    assert takes.handler.invoke(ctx, ("a",), {"ctx": 3}) == ("a", 3)
    assert str(wants.handler.signature) == "(path: str)"
    wants.call("a")
    with pytest.raises(InvalidCommand, match="missing 'path'"):
        wants.call()


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing 'path'"),
        (("a", 1, 2), {}, "too many positional arguments"),
        (("a",), {"btach": 2}, "unexpected keyword argument 'btach'"),
        (("a",), {"path": "b"}, "multiple values for argument 'path'"),
    ],
)
def test_arguments_are_checked_before_anything_is_written(args: Any, kwargs: Any, said: str) -> None:
    """What the function does not take is refused in a sentence that shows what it takes."""

    @job
    def import_csv(path: str, batch: int = 1) -> int:
        return batch

    with pytest.raises(InvalidCommand) as caught:
        import_csv.call(*args, **kwargs)
    assert str(caught.value).startswith("import_csv() takes (path: str, batch: int = 1): ")
    assert said in str(caught.value)


def test_options_give_a_copy() -> None:
    """options() leaves the job as it was, its options win, and metadata adds up."""

    @job(queue="imports", delay=10, metadata={"team": "data"})
    def f() -> None: ...

    at = datetime(2030, 1, 1, tzinfo=UTC)
    later = f.options(priority=5, metadata={"user_id": 7}).options(scheduled_at=at)
    said = later.call().options
    assert (said.queue, said.priority, said.scheduled_at) == ("imports", 5, at.timestamp())
    assert said.metadata == {"team": "data", "user_id": 7}
    assert f.call().options == Options(queue="imports", delay=10.0, metadata={"team": "data"})
    assert f.call().with_options(delay=3).options.delay == 3


@pytest.mark.parametrize("options", [{"tries": 0}, {"delay": -1}, {"queue": ""}, {"retries": 3}])
def test_bad_options_are_refused_where_they_are_written(options: Any) -> None:
    """A value that no queue can take is refused by the decorator and by options(), not at dispatch."""
    with pytest.raises(InvalidCommand, match=next(iter(options)) if options != {"tries": 0} else "tries"):
        job(**options)

    @job
    def f() -> None: ...

    with pytest.raises(InvalidCommand):
        f.options(**options)


def _generator() -> Any:
    yield 1


class _Plain:
    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (lambda: 1, "a lambda has no name"),
        (_Plain, "is a class; derive it from Job"),
        (_Plain.method, "is a method"),
        (staticmethod(_generator), "is a method"),
        (_generator, "yields"),
        (42, "cannot be called"),
        ("name", r'@job\(name="name"\)'),
    ],
)
def test_what_is_no_function_is_refused(target: Any, said: str, registry: Registry) -> None:
    """What a worker could not run as a job is refused with what to write instead."""
    with pytest.raises(InvalidCommand, match=said):
        job(target)
    assert registry.names() == ()


def test_a_job_is_decorated_once() -> None:
    """@job above a job points to options()."""

    @job
    def f() -> None: ...

    with pytest.raises(InvalidCommand, match=r"f\.options\(\.\.\.\)"):
        job(f)


def test_inside_a_job_dispatch_goes_to_where_that_job_came_from() -> None:
    """A job that dispatches reaches its own store, whatever was connected last."""

    @job
    def child(n: int) -> None: ...

    class Child(Job):
        n: int

        def handle(self) -> None: ...

    notes = Notes()
    with entering(context_of(notes)):
        assert child.dispatch(1) == "receipt"
        assert asyncio.run(child.adispatch(2)) == "receipt"
        assert Child(3).dispatch() == "receipt"
        with pytest.raises(InvalidCommand, match="missing 'n'"):
            child.dispatch()
    assert [getattr(work, "args", None) or work.n for work in notes.taken] == [(1,), (2,), 3]


# ------------------------------------------------------------------------------------------ classes
def test_a_class_is_its_fields_and_its_options(registry: Registry) -> None:
    """Annotated attributes are the payload, the others are options, and handle runs."""

    class SendEmail(Job):
        queue = "emails"
        delay = 30
        tries = 3
        SIGNATURE: ClassVar[str] = "bye"
        to: str
        subject: str
        day: date = date(2026, 1, 31)

        async def handle(self) -> str:
            return f"{self.to} {self.subject} {self.day} {self.SIGNATURE}"

    mail = SendEmail("ada@example.org", subject="Hi")
    assert mail == SendEmail(to="ada@example.org", subject="Hi")
    assert "to='ada@example.org', subject='Hi'" in repr(mail)
    call = to_call(mail)
    assert (call.command, call.origin, call.args) == ("SendEmail", HERE, ())
    assert call.kwargs == {"to": "ada@example.org", "subject": "Hi", "day": date(2026, 1, 31)}
    assert (call.options.queue, call.options.delay, call.options.tries) == ("emails", 30, 3)
    assert run(mail, registry) == "ada@example.org Hi 2026-01-31 bye"
    with pytest.raises(TypeError, match="subject"):
        SendEmail("ada@example.org")  # type: ignore[call-arg]


def test_serialize_and_deserialize_are_readable_and_strict() -> None:
    """The text is plain JSON of the fields, and one with other fields is refused by their names."""

    class SendEmail(Job):
        to: str
        subject: str = "Hi"

        def handle(self) -> None: ...

    assert SendEmail.type_name() == "SendEmail"
    assert SendEmail("a").serialize() == '{"to":"a","subject":"Hi"}'
    assert SendEmail.deserialize('{"to":"a","subject":"Hi"}') == SendEmail("a")
    assert SendEmail.deserialize('{"to":"a"}') == SendEmail("a"), (
        "a field that has been given a default since"
    )
    with pytest.raises(InvalidCommand, match="SendEmail has no field 'subjct'; did you mean 'subject'"):
        SendEmail.deserialize('{"to":"a","subjct":"x"}')
    with pytest.raises(InvalidCommand, match="missing 'to'"):
        SendEmail.deserialize('{"subject":"x"}')
    with pytest.raises(InvalidCommand, match="JSON object"):
        SendEmail.deserialize("[1]")


def test_a_class_with_its_own_text_is_stored_as_it(registry: Registry) -> None:
    """Where serialize and deserialize are the class's own, the worker uses them."""

    class Shout(Job):
        words: str

        def serialize(self) -> str:
            return self.words.upper()

        @classmethod
        def deserialize(cls, text: str) -> "Shout":
            return cls(text + "!")

        def handle(self) -> str:
            return self.words

    assert to_call(Shout("hey")).args == ("HEY",)
    assert run(Shout("hey"), registry) == "HEY!"
    by_name = QueuedCommand("Shout").with_kwargs(words="fields do as well")
    assert run(by_name, registry) == "fields do as well"


def test_options_may_be_properties_and_methods(registry: Registry) -> None:
    """What depends on the fields is asked of the instance, at dispatch, and checked there."""

    class Report(Job):
        tries = 2
        size: int

        @property
        def queue(self) -> str:
            return "big" if self.size > 10 else "small"

        def timeout(self) -> float:
            return self.size * 2

        @staticmethod
        def priority() -> int:
            return 7

        def handle(self) -> None: ...

    said = to_call(Report(20)).options
    assert (said.queue, said.timeout, said.priority, said.tries) == ("big", 40, 7, 2)
    assert to_call(Report(5)).options.queue == "small"
    with pytest.raises(InvalidCommand, match="timeout"):
        to_call(Report(0))
    one = Report(5)
    one.delay = 60  # type: ignore[attr-defined]
    assert to_call(one).options.delay == 60


def test_handle_may_take_the_context(registry: Registry) -> None:
    """handle(self, ctx) is given the context; any other parameter is refused with the reason."""

    class Wants(Job):
        def handle(self, ctx: Context) -> str:
            return ctx.command

    assert run(Wants(), registry) == "x"
    with pytest.raises(InvalidCommand, match="but no path"):

        class Bad(Job):
            def handle(self, path: str) -> None: ...


@pytest.mark.parametrize("option", sorted(nbqueue.handlers.registry.OptionKeywords.__annotations__))
def test_an_annotated_option_is_refused(option: str, registry: Registry) -> None:
    """Every option, annotated, is refused at the class definition with how to write it."""
    body = {"__annotations__": {option: str}, option: "emails", "handle": handle}
    with pytest.raises(InvalidCommand, match=f"without its annotation: {option} = 'emails'"):
        types.new_class("Mail", (Job,), exec_body=lambda ns: ns.update(body))
    assert registry.names() == ()


@pytest.mark.parametrize("name", ["dispatch", "adispatch", "handle", "serialize", "deserialize", "type_name"])
def test_a_field_named_like_a_method_is_refused(name: str) -> None:
    """A field that would hide what every job can do is refused at the class definition."""
    body = {"__annotations__": {name: str}, "handle": handle}
    with pytest.raises(InvalidCommand, match=f"{name} is a method of every job"):
        types.new_class("Mail", (Job,), exec_body=lambda ns: ns.update(body))


def test_every_public_name_of_job_is_reserved() -> None:
    """The list of refused names holds every public method that Job has."""
    public = {name for name in vars(Job) if not name.startswith("_")}
    assert public < nbqueue.handlers.definitions.METHOD_NAMES


def test_a_class_that_cannot_work_is_refused_at_its_definition() -> None:
    """No handle, bad options, and fields that Python cannot make are told at once, with the class's name."""
    with pytest.raises(InvalidCommand, match="class NoHandle has fields but nothing to run"):

        class NoHandle(Job):
            to: str

    with pytest.raises(InvalidCommand, match="class BadTries: tries cannot be 0"):

        class BadTries(Job):
            tries = 0

            def handle(self) -> None: ...

    with pytest.raises(InvalidCommand, match="class Mutable: mutable default"):

        class Mutable(Job):
            to: list = []  # type: ignore[type-arg]

            def handle(self) -> None: ...


def test_bases_are_not_jobs_and_what_they_have_is_inherited(registry: Registry) -> None:
    """A class that others derive from needs no handle; its options and fields are theirs."""

    class Mail(Job):
        queue = "emails"

    class Addressed(Mail, abc.ABC):
        to: str

        @abc.abstractmethod
        def handle(self) -> str: ...

    class Hello(Addressed):
        name: str = "you"

        def handle(self) -> str:
            return f"hello {self.name} at {self.to}"

    assert registry.names() == ("Hello",)
    assert to_call(Hello("home")).options.queue == "emails"
    assert run(Hello("home", name="Ada"), registry) == "hello Ada at home"


def test_a_class_may_name_itself(registry: Registry) -> None:
    """type_name() is what it is stored under, also for those that look it up."""

    class Renamed(Job):
        @classmethod
        def type_name(cls) -> str:
            return "mail:send"

        def handle(self) -> str:
            return "sent"

    assert to_call(Renamed()).command == "mail:send"
    assert run(QueuedCommand("mail:send"), registry) == "sent"


def test_default_factories_and_frozen_dataclasses_work(registry: Registry) -> None:
    """What dataclasses can do, Job classes can: factories, and a decorator of one's own."""

    @dataclasses.dataclass(kw_only=True)
    class Many(Job):
        to: list[str] = dataclasses.field(default_factory=list)

        def handle(self) -> list[str]:
            return self.to

    assert run(Many(to=["a"]), registry) == ["a"]
    assert run(Many(), registry) == []


# ----------------------------------------------------------------------------------------- commands
def test_a_command_takes_its_arguments_as_stored(registry: Registry) -> None:
    """A named command gets positional and keyword arguments, its defaults lie under what is asked for."""

    @command("import:data", queue="imports", tries=3)
    def import_data(ctx: Context, *args: str, force: bool = False) -> Any:
        return args, force

    assert import_data(context_of(), "x") == (("x",), False), "still the plain function"
    cmd = QueuedCommand("import:data").with_args(["users.csv"]).with_arg("-v").with_kwargs(force=True)
    call = to_call(cmd.with_max_attempts(5))
    assert (call.origin, call.code, call.options.queue, call.options.tries) == ("", "", "imports", 5)
    assert run(cmd, registry) == (("users.csv", "-v"), True)


def test_an_unknown_command_can_be_dispatched() -> None:
    """A command that only a worker elsewhere knows is a call without a handler."""
    call = to_call(QueuedCommand("elsewhere").on_queue("q"))
    assert call == Call(command="elsewhere", options=Options(queue="q"))


@pytest.fixture(params=["above", "around"])
def click_command(request: pytest.FixtureRequest) -> click.Command:
    @click.command()
    @click.argument("path")
    @click.option("--batch", type=int, default=1)
    @click.option("--fail", type=int)
    def import_data(path: str, batch: int, fail: int | None) -> str:
        if fail is not None:
            click.get_current_context().exit(fail)
        click.echo(f"importing {path}")
        return path * batch

    decorator = command("import:data", queue="imports")
    return (
        decorator(import_data)
        if request.param == "above"
        else command("import:data", queue="imports")(import_data)
    )


def test_a_click_command_is_a_handler_as_it_is(click_command: click.Command, registry: Registry) -> None:
    """A click command runs with the arguments as its command line, its output is the job's, its value the result."""
    assert isinstance(click_command, click.Command)
    cmd = QueuedCommand("import:data").with_args(["ab", "--batch", 2])
    ctx = context_of()
    handler = registry.resolve(Spec("import:data"))
    assert handler is not None
    with ctx.capture:
        assert handler.invoke(ctx, cmd.args, cmd.kwargs) == "abab"
    assert ctx.capture.text() == "importing ab\n"
    assert (handler.kind, handler.origin) == (Kind.CLICK, HERE)
    assert len(handler.code) == 16


@pytest.mark.parametrize(
    ("cmd", "error", "said"),
    [
        (QueuedCommand("import:data"), click.UsageError, "Missing argument 'PATH'"),
        (QueuedCommand("import:data").with_args(["a", "--btach"]), click.UsageError, "No such option"),
        (QueuedCommand("import:data").with_args(["a", "--fail", 3]), RuntimeError, "exited with code 3"),
        (QueuedCommand("import:data").with_kwargs(path="a"), InvalidCommand, "takes arguments such as"),
    ],
)
def test_what_click_refuses_is_an_error_of_the_job(
    click_command: click.Command, registry: Registry, cmd: QueuedCommand, error: type[Exception], said: str
) -> None:
    """A wrong command line, and an exit with a code, fail the job with a sentence, and exit nothing."""
    with pytest.raises(error) as caught:
        run(cmd, registry)
    assert said in str(caught.value)


def test_a_click_exit_of_zero_is_success(click_command: click.Command, registry: Registry) -> None:
    """--help and exit(0) end a command, not in an error."""
    assert run(QueuedCommand("import:data").with_args(["--help"]), registry) is None
    assert run(QueuedCommand("import:data").with_args(["a", "--fail", 0]), registry) is None


def test_commands_of_the_wrong_kind_are_refused() -> None:
    """@command without a name, above a job or a Job class says what to write."""

    @job
    def f() -> None: ...

    class J(Job):
        def handle(self) -> None: ...

    with pytest.raises(InvalidCommand, match=r'@job\(name="x"\)'):
        command("x")(f)
    with pytest.raises(InvalidCommand, match="J is a Job class"):
        command("x")(J)
    with pytest.raises(InvalidCommand, match=r'@command\("plain"\)'):

        @command  # type: ignore[arg-type]
        def plain() -> None: ...

    with pytest.raises(InvalidCommand, match="command is empty"):
        command("")


@pytest.mark.parametrize(
    ("work", "said"),
    [
        ("import:data", r'QueuedCommand\("import:data"\)'),
        (print, "print is a plain function; put @job above it"),
        (3, "int 3 cannot be dispatched"),
    ],
)
def test_what_cannot_be_dispatched_is_refused(work: Any, said: str) -> None:
    """Anything else than a call, a Job or a command is refused with what to write."""
    with pytest.raises(InvalidCommand, match=said):
        to_call(work)


def test_a_job_without_its_arguments_is_refused() -> None:
    """A job function or a Job class, handed over as such, is told apart from a call of it."""

    @job
    def f() -> None: ...

    class J(Job):
        def handle(self) -> None: ...

    with pytest.raises(InvalidCommand, match=r"f\.dispatch\(\.\.\.\)"):
        to_call(f)
    with pytest.raises(InvalidCommand, match=r"dispatch an instance, J\(\.\.\.\)"):
        to_call(J)
    assert to_call(f.call()) == f.call()


# ---------------------------------------------------------------------------------------- the table
def handler(name: str, origin: str = "notebook:/a.ipynb") -> Handler:
    return Handler(name=name, origin=origin, target=lambda: name)


def test_origins_tell_two_of_one_name_apart() -> None:
    """A job with an origin finds that very handler; one without finds the latest of its name."""
    table = Registry()
    a = table.register(handler("f", "notebook:/a.ipynb"))
    b = table.register(handler("f", "notebook:/b.ipynb"))
    assert table.resolve(Spec("f", origin="notebook:/a.ipynb")) is a
    assert table.resolve(Spec("f", origin="notebook:/b.ipynb")) is b
    assert table.resolve(Spec("f", origin="notebook:/c.ipynb")) is None
    assert table.resolve(Spec("f")) is b
    again = table.register(handler("f", "notebook:/a.ipynb"))
    assert table.resolve(Spec("f")) is again
    assert table.resolve(Spec("f", origin="notebook:/a.ipynb")) is again
    assert table.handlers().owned == {("f", "notebook:/a.ipynb"), ("f", "notebook:/b.ipynb")}


def test_handlers_are_the_same_until_something_changes() -> None:
    """What a worker is told it can run is made anew only for a new version, and accepts what resolves."""
    table = Registry()
    table.register(handler("f"))
    first, version = table.handlers(), table.version
    assert table.handlers() is first
    table.register(handler("g", "module:m"))
    assert table.version > version
    for spec in (Spec("f"), Spec("g"), Spec("g", origin="module:m")):
        assert table.handlers().accepts(spec)
    assert not first.accepts(Spec("g"))
    table.unregister("f")
    assert not table.handlers().accepts(Spec("f"))
    assert table.names() == ("g",)
    table.clear()
    assert table.names() == ()
    assert table.resolve(Spec("g")) is None


def test_listeners_hear_of_registrations_until_they_stop() -> None:
    """A worker that waits is told of each new handler, after it can be found."""
    table = Registry()
    heard: list[object] = []
    stop = table.on_change(lambda: heard.append(table.resolve(Spec("f"))))
    f = table.register(handler("f"))
    assert heard == [f]
    stop()
    stop()
    table.register(handler("g"))
    assert heard == [f]


def test_near_names_are_suggested() -> None:
    """A mistyped name brings the near ones up."""
    table = Registry()
    table.register(handler("import:data"))
    table.register(handler("export"))
    assert table.suggest("import:dta") == ("import:data",)
    assert table.suggest("zzz") == ()


def test_registering_from_many_threads_loses_nothing() -> None:
    """Cells and imports that define jobs at once all end up in the table, while others read it."""
    table = Registry()
    barrier = threading.Barrier(4, timeout=10)

    def define(prefix: str) -> None:
        barrier.wait()
        for number in range(100):
            table.register(handler(f"{prefix}{number}"))
            assert table.handlers().accepts(Spec(f"{prefix}{number}"))

    threads = [threading.Thread(target=define, args=(prefix,)) for prefix in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(table.names()) == 400 == table.version
    assert len(table.handlers().commands) == 400


def test_running_a_cell_again_replaces_its_handler(registry: Registry) -> None:
    """The current definition runs, its code has another hash, and nobody is warned."""
    bodies: list[Callable[[], int]] = [lambda: 1, lambda: 2]
    first, second = (job(name="f")(body) for body in bodies)
    assert first.call().code != second.call().code
    assert run(first.call(), registry) == 2


# ------------------------------------------------------------------------------------------- origin
def in_main() -> Any:
    def f() -> None: ...

    f.__module__ = "__main__"
    return f


class Shell:
    def __init__(self, home: str, *, kernel: bool = True, **names: object) -> None:
        self.starting_dir = home
        self.user_ns = names
        if kernel:
            self.kernel = object()


def test_a_module_is_its_name() -> None:
    """What is importable is known by its module, wherever that lies."""
    assert origin_of(test_a_module_is_its_name) == HERE


@pytest.mark.parametrize(
    ("names", "env", "expected"),
    [
        ({}, None, ""),
        ({}, "a.ipynb", "/a.ipynb"),
        ({"__session__": "b.ipynb"}, "a.ipynb", "/b.ipynb"),
        ({"__vsc_ipynb_file__": "/v/c.ipynb", "__session__": "b.ipynb"}, None, "!/v/c.ipynb"),
    ],
)
def test_a_notebook_is_its_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, names: Any, env: str | None, expected: str
) -> None:
    """In a kernel a definition belongs to its notebook, or to the folder where the path is not known."""
    home = str(tmp_path.resolve())
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if env:
        monkeypatch.setenv("JPY_SESSION_NAME", env)
    monkeypatch.setattr("nbqueue.handlers.handler._shell", lambda: Shell(home, **names))
    path = expected[1:] if expected.startswith("!") else home + expected
    assert origin_of(in_main()) == f"notebook:{path}"


def test_a_session_is_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """At a prompt without a file, a definition belongs to the folder it was started in."""
    monkeypatch.setattr("nbqueue.handlers.handler._shell", lambda: Shell(str(tmp_path), kernel=False))
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    assert origin_of(in_main()) == f"session:{tmp_path.resolve()}"


def test_a_script_is_its_path_and_a_module_run_its_name(tmp_path: Any) -> None:
    """Run as a file, definitions belong to the file; run with -m, to the module, as if imported."""
    path = tmp_path / "flow.py"
    path.write_text("from nbqueue.handlers.registry import job\n@job\ndef f(): ...\nprint(f.call().origin)\n")

    def printed(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            cwd=tmp_path,
            env=env,
        )
        return done.stdout.strip()

    root = nbqueue.handlers.registry.__file__.rpartition("/nbqueue/")[0]
    env = {"PYTHONPATH": root}
    assert printed("flow.py") == f"script:{path.resolve()}"
    assert printed("-m", "flow") == "module:flow"


# ------------------------------------------------------------------------------- by value, and weight
def test_jobs_travel_by_value(registry: Registry) -> None:
    """A notebook's function that dispatches itself, and a Job class, are copied to a process that lacks them."""
    code = """
import sys, cloudpickle
from nbqueue.handlers.registry import job, Job, registry, to_call
@job
def again(n): return again.call(n + 1)
class Greet(Job):
    who: str = "you"
    def handle(self): return f"hello {self.who}"
again.call(1)
to_call(Greet())
sys.stdout.buffer.write(cloudpickle.dumps((again.handler.target, Greet)))
"""
    root = nbqueue.handlers.registry.__file__.rpartition("/nbqueue/")[0]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, check=True, env={"PYTHONPATH": root}
    )
    function, greet = cloudpickle.loads(done.stdout)
    assert function(1).args == (2,)
    assert greet("Ada").handle() == "hello Ada"
    made = adopted(greet, "Greet")
    assert made.invoke(context_of(), (), {"who": "Bob"}) == "hello Bob"
    assert adopted(function, "again").invoke(context_of(), (4,), {}).args == (5,)
    assert registry.names() == (), "what came by value serves no job by its name alone"


def test_importing_it_is_light() -> None:
    """Defining jobs needs neither click nor pandas nor IPython."""
    root = nbqueue.handlers.registry.__file__.rpartition("/nbqueue/")[0]
    heavy = "{'click', 'cloudpickle', 'pandas', 'IPython'}"
    code = f"import sys, nbqueue.handlers.registry; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={"PYTHONPATH": root},
    )
    assert done.stdout == "[]\n", done.stderr
