"""Forms as plain data: which fields a handler has, what they take and refuse, and what is dispatched in the end."""

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NewType, Optional, Protocol, Union
from uuid import UUID

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbqueue as nbq
from nbqueue.errors import InvalidCommand
from nbqueue.facade.forms.fields import shape_of
from nbqueue.facade.forms.spec import FormErrors, FormSpec, form_of
from nbqueue.handlers.definitions import function_handler
from nbqueue.jobs import Options
from nbqueue.payload import encode_call

if TYPE_CHECKING:
    from nowhere import Unknown

UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Walker(Protocol):
    def walk(self) -> None: ...


class Bound(NamedTuple):
    ge: int
    le: int


def spec_of(annotation: Any, **default: Any) -> FormSpec:
    """Make the form of a function with one parameter of this type."""

    def work(x): ...

    work.__annotations__["x"] = annotation
    if default:
        work.__defaults__ = (default["default"],)
    return form_of(function_handler(work, None, Options()))


def refused(
    spec: FormSpec, values: Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> dict[str, str]:
    with pytest.raises(FormErrors) as caught:
        spec.parse(values, options)
    return caught.value.errors


# ------------------------------------------------------------------------------------------------ kinds of fields
KINDS = [
    (int, "int", "12", 12),
    (int, "int", 12, 12),
    (int, "int", 12.0, 12),
    (float, "float", "0.5", 0.5),
    (float, "float", 3, 3.0),
    (float, "float", "inf", float("inf")),
    (float, "float", "-Infinity", float("-inf")),
    (bool, "bool", True, True),
    (bool, "bool", "false", False),
    (str, "str", " as it is ", " as it is "),
    (Path, "path", "data/users.csv", Path("data/users.csv")),
    (PurePosixPath, "path", "/a", PurePosixPath("/a")),
    (date, "date", "2026-03-01", date(2026, 3, 1)),
    (datetime, "datetime", "2026-03-01T06:00", datetime(2026, 3, 1, 6)),  # noqa: DTZ001
    (datetime, "datetime", "2026-03-01T06:00+00:00", datetime(2026, 3, 1, 6, tzinfo=UTC)),
    (time, "str", "06:30", time(6, 30)),
    (timedelta, "str", "5m", timedelta(minutes=5)),
    (Decimal, "str", "2.50", Decimal("2.50")),
    (UUID, "str", "00000000-0000-0000-0000-000000000001", UUID(int=1)),
    (Literal["a", "b"], "choice", "b", "b"),
    (Literal[1, "1"], "choice", "'1'", "1"),
    (Color, "choice", "BLUE", Color.BLUE),
    (Level, "choice", "HIGH", Level.HIGH),
    (Optional[int], "int", "3", 3),  # noqa: UP045
    (int | None, "int", None, None),
    (int | None, "int", "", None),
    (str | None, "str", "", None),
    (bool | None, "choice", "no", False),
    (bool | None, "choice", None, None),
    (bool | None, "choice", True, True),
    (bool | None, "choice", False, False),
    (Literal[1, "a", True], "choice", 1, 1),
    (Literal[1, "a", True], "choice", True, True),
    (Literal["a"] | None, "choice", None, None),
    (Union[int, str], "str", "7", 7),  # noqa: UP007
    (str | int, "str", "x7", "x7"),
    (list[int], "list", "1\n\n2", [1, 2]),
    (list[int], "list", "[1, 2]", [1, 2]),
    (list[str], "list", ["a", "b"], ["a", "b"]),
    (list[str], "list", "[draft] a\r\nb", ["[draft] a", "b"]),
    (list[str], "list", "a\x0bb\u2028c\nd\re", ["a\x0bb\u2028c", "d\re"]),
    (list[list[int]], "list", "[1,2]\n[3]", [[1, 2], [3]]),
    (list[list[int]], "list", "[1,2]", [[1, 2]]),
    (list[list[int]], "list", "[[1,2], [3]]", [[1, 2], [3]]),
    (list[list[int]], "list", "[[1,2], []]", [[1, 2], []]),
    (list, "list", "1\nx", [1, "x"]),
    (tuple[int, ...], "list", "1\n2", (1, 2)),
    (tuple[int, str], "list", "1\n2", (1, "2")),
    (set[str], "list", "a\na", {"a"}),
    (Sequence[date], "list", ["2026-03-01"], [date(2026, 3, 1)]),
    (list[dict[str, int]], "list", '{"a": 1}', [{"a": 1}]),
    (dict, "json", '{"a": [1]}', {"a": [1]}),
    (dict[str, Path], "json", '{"a": "b"}', {"a": Path("b")}),
    (dict[int, int], "json", '{"1": 2}', {1: 2}),
    (dict[date, int], "json", '{"2026-03-01": 2}', {date(2026, 3, 1): 2}),
    (Mapping[str, Any], "json", {"a": 1}, {"a": 1}),
    (Annotated[int, "rows"], "int", "1", 1),
    (Annotated[int, Bound(1, 5)], "int", "5", 5),
    (UserId, "int", "7", 7),
    (Any, "str", "[1, 2]", [1, 2]),
    (Any, "str", "hello", "hello"),
    (object, "str", '"7"', "7"),
]


@pytest.mark.parametrize(("annotation", "kind", "given", "value"), KINDS, ids=str)
def test_kinds(annotation: Any, kind: str, given: Any, value: Any) -> None:
    """Each type has its kind of field, and what is filled in becomes a value of that very type."""
    spec = spec_of(annotation)
    assert spec.fields[0].kind == kind
    found = spec.parse({"x": given}).arguments["x"]
    assert found == value
    assert type(found) is type(value)


WRONG = [
    (int, "twelve", "whole number"),
    (int, True, "whole number"),
    (int, 1.5, "whole number"),
    (float, "half", "number"),
    (float, "1e400", "too large"),
    (float, float("inf"), 'as text: "inf"'),
    (Any, "NaN", "quotes"),
    (Any, '{"a": [1, -Infinity]}', "-Infinity is no JSON"),
    (Any, "1e400", "1e400 is too large"),
    (Any, [float("nan")], "no JSON"),
    (dict, '{"a": NaN}', "NaN is no JSON"),
    (dict, {"a": 1e400}, "no JSON"),
    (dict[str, float], '{"a": 1e400}', "1e400 is too large"),
    (bool, "perhaps", "neither true nor false"),
    (str, 7, "no text"),
    (date, "2026-02-30", "2026-03-01"),
    (datetime, "soon", "2026-03-01T06:00"),
    (timedelta, "soon", "duration"),
    (Decimal, "x", "12.50"),
    (UUID, "x", "cannot be read"),
    (Literal["a", "b"], "c", "none of a, b"),
    (Color, "r", "none of RED, BLUE"),
    (list[int], "1\nx", "line 2: "),
    (list[int], 5, "must be a list"),
    (list[str], '["a",\n"b"', "is no JSON"),
    (list[int], "[1,\n2", "is no JSON"),
    (set[Any], "[[1], [2]]", "items of a set"),
    (frozenset[dict], '{"a": 1}', "items of a set"),
    (tuple[int, str], "1", "needs 2 lines, not 1"),
    (dict, "[1]", "JSON object"),
    (dict, "{", "line 1, column 2"),
    (dict[str, int], '{"a": "x"}', "a: "),
    (dict[int, int], '{"a": 1}', "key a: "),
    (dict[int, int], '{"1": 1, "01": 2}', "01"),
    (bool | None, "perhaps", "neither true nor false"),
    (Literal[1, "a"], True, "none of 1, a"),
    (Walker, '{"x": 1}', "no form can make"),
    (int | date, "x", "whole number"),
    (Annotated[int, Bound(1, 5)], "6", "1 to 5"),
    (bytes, "x", "is no JSON"),
    (bytes, "7", "no form can make"),
]


@pytest.mark.parametrize(("annotation", "given", "sentence"), WRONG, ids=str)
def test_wrong(annotation: Any, given: Any, sentence: str) -> None:
    """What is no value of the type is refused at its field, by a sentence."""
    assert sentence in refused(spec_of(annotation), {"x": given})["x"]


@pytest.mark.parametrize("annotation", [int, str, Path, date, dict, list[int], Color, Any], ids=str)
@pytest.mark.parametrize("given", [{}, {"x": None}, {"x": ""}], ids=["absent", "none", "empty"])
def test_needed(annotation: Any, given: dict[str, Any]) -> None:
    """A field without a default is needed, and says so where it was left empty."""
    spec = spec_of(annotation)
    assert spec.fields[0].required
    assert refused(spec, given) == {"x": "is needed"}


DEFAULTS = [
    (int, 3, 3),
    (int, 2**60, str(2**60)),
    (str, "", ""),
    (Any, "7", '"7"'),
    (Path, Path("a"), "a"),
    (date, date(2026, 3, 1), "2026-03-01"),
    (Color, Color.RED, "RED"),
    (list[int], [1], [1]),
    (tuple[str, ...], ("a",), ["a"]),
    (dict, {"a": 1}, '{"a": 1}'),
    (dict[int, str], {1: "a"}, '{"1": "a"}'),
    (Any, "NaN", '"NaN"'),
    (float, float("inf"), "inf"),
    (timedelta, timedelta(minutes=1), "60"),
    (int | None, None, None),
    (int, None, None),
]


@pytest.mark.parametrize(("annotation", "default", "shown"), DEFAULTS, ids=str)
def test_defaults(annotation: Any, default: Any, shown: Any) -> None:
    """A default is shown, nothing is needed then, and what is shown is read as the default again."""
    spec = spec_of(annotation, default=default)
    (only,) = spec.fields
    assert not only.required
    assert only.default == shown
    assert spec.parse({"x": shown}).arguments["x"] == default
    json.dumps(spec.plain())


def test_needed_but_for_a_box() -> None:
    """A box that is not ticked says no, also where nothing is said of it; lines that are all empty are none."""
    assert spec_of(bool).parse({}).arguments == {"x": False}
    assert spec_of(bool).parse({"x": None}).arguments == {"x": False}
    assert spec_of(bool, default=True).parse({}).arguments == {}
    assert refused(spec_of(list[str]), {"x": " \n\n"}) == {"x": "is needed"}


def test_box_that_may_be_none() -> None:
    """A bool whose default is None is a choice of three: a box could not say None."""
    spec = spec_of(bool, default=None)
    assert (spec.fields[0].kind, spec.fields[0].nullable) == ("choice", True)
    assert [spec.parse({"x": given}).arguments["x"] for given in (None, True, "no")] == [None, True, False]


def test_left_empty() -> None:
    """Left empty, a field with a default is left out of the call; one that may be None is None."""
    assert spec_of(int, default=3).parse({"x": None}).arguments == {}
    assert spec_of(date, default=date(2026, 3, 1)).parse({"x": ""}).arguments == {}
    assert spec_of(str, default="a").parse({"x": ""}).arguments == {"x": ""}
    assert spec_of(list[int], default=[1]).parse({"x": ""}).arguments == {"x": []}
    assert spec_of(int | None, default=3).parse({"x": None}).arguments == {"x": None}


def test_default_of_another_kind() -> None:
    """A default that no field can show stays what it is: it is told, and left out unless something is filled in."""
    spec = spec_of(Any, default=b"raw")
    (only,) = spec.fields
    assert not only.required
    assert only.default is None
    assert "b'raw'" in only.help
    assert spec.parse({"x": None}).arguments == {}


class Contrary:
    """An object that refuses to be looked at, as arrays and query expressions do."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


ODD: dict[str, Any] = {
    "list": [1, 2],
    "dict": {"min": 0},
    "contrary": Contrary(),
    "list of such": list[Contrary()],  # type: ignore[misc]
}


@pytest.mark.parametrize("name", ODD)
def test_odd_annotations(name: str) -> None:
    """An annotation may be any object; one that is no type leaves its field as if there were none."""
    annotation = ODD[name]
    assert spec_of(annotation).parse({"x": "[7]"}).arguments == {"x": [7]}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="has no type statement")
def test_type_that_holds_itself() -> None:
    """A type that is made of itself has no end; its field is as if there were none."""
    names: dict[str, Any] = {}
    exec("type Nested = dict[str, Nested] | list[Nested]", names)
    assert spec_of(names["Nested"]).parse({"x": "[7]"}).arguments == {"x": [7]}


SCALARS = st.one_of(
    st.tuples(st.just(int), st.integers()),
    st.tuples(st.just(float), st.floats(allow_nan=False)),
    st.tuples(st.just(bool), st.booleans()),
    st.tuples(st.just(str), st.text()),
    st.tuples(st.just(date), st.dates()),
    st.tuples(st.just(datetime), st.datetimes()),
    st.tuples(st.just(time), st.times()),
    st.tuples(st.just(UUID), st.uuids()),
    st.tuples(st.just(Color), st.sampled_from(Color)),
    st.tuples(st.just(Literal[1, "1", True]), st.sampled_from([1, "1", True])),
    st.tuples(st.just(list[int]), st.lists(st.integers())),
    st.tuples(st.just(list[str]), st.lists(st.text())),
    st.tuples(st.just(list[list[str]]), st.lists(st.lists(st.text()))),
    st.tuples(st.just(dict[int, str]), st.dictionaries(st.integers(), st.text())),
    st.tuples(st.just(dict[str, date]), st.dictionaries(st.text(), st.dates())),
    st.tuples(
        st.just(Any),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    ),
)


@given(SCALARS)
def test_shown_and_read(pair: tuple[Any, Any]) -> None:
    """What is shown of a value survives JSON, and is read as the same value of the same type."""
    annotation, value = pair
    shape = shape_of(annotation)
    found = shape.read(json.loads(json.dumps(shape.show(value))))
    assert found == value
    assert type(found) is type(value)


# ------------------------------------------------------------------------------------------------ whole forms
def test_signature(queues: nbq.QueueManager) -> None:
    """Fields come in the order of the parameters, without the context, with the help of the docstring."""

    @nbq.job(queue="imports", tries=3)
    def import_csv(ctx, path: Path, *rows: int, batch: int = 1, **settings: str) -> None:
        """Import a file.

        Parameters
        ----------
        path : Path
            The file.
        """

    spec = queues.form_spec(import_csv)
    assert (spec.title, spec.doc) == ("import_csv", "Import a file.")
    assert [(one.name, one.kind, one.required) for one in spec.fields] == [
        ("path", "path", True),
        ("rows", "list", False),
        ("batch", "int", False),
        ("settings", "json", False),
    ]
    assert spec.fields[0].help == "The file."
    defaults = {one.name: one.default for one in spec.options}
    assert list(defaults) == ["queue", "delay", "priority", "tries", "timeout", "metadata"]
    assert (defaults["queue"], defaults["tries"]) == ("imports", 3)
    assert queues.form_spec(import_csv.options(tries=5)).options[3].default == 5


def test_late_annotations(queues: nbq.QueueManager) -> None:
    """Annotations that are text are resolved one by one, though one of them cannot be."""

    def work(path: Path, what: Unknown, day: date | None = None): ...

    assert work.__annotations__["path"] == "Path"
    spec = queues.form_spec(nbq.job(work))
    assert [one.kind for one in spec.fields] == ["path", "str", "date"]


class SendEmail(nbq.Job):
    """Send a message."""

    queue = "emails"
    tries = 3
    to: str
    cc: list[str] = field(default_factory=list)
    token: UUID = field(default_factory=lambda: UUID(int=7))

    def __post_init__(self) -> None:
        if "@" not in self.to:
            raise ValueError(f"{self.to} is no address")

    def handle(self) -> None: ...


@pytest.fixture
def send_email() -> type[SendEmail]:
    """The class, known in this test."""
    from nbqueue.handlers.registry import registry

    assert SendEmail._nbq_handler is not None
    registry.register(SendEmail._nbq_handler)
    return SendEmail


def test_job_class(queues: nbq.QueueManager, send_email: type[SendEmail]) -> None:
    """A Job class's fields are the form's, its options what the folded part begins with."""
    spec = queues.form_spec(send_email)
    assert [(one.name, one.default, one.required) for one in spec.fields] == [
        ("to", None, True),
        ("cc", [], False),
        ("token", None, False),
    ]
    receipt = queues.dispatch_form(spec, {"to": "a@example.org", "cc": "b@example.org"}, {"tries": 5})
    assert receipt.queue == "emails"
    assert receipt.record().spec.tries == 5
    assert queues.form_spec("SendEmail").values["cc"] == ["b@example.org"]


def test_refused_by_its_class(queues: nbq.QueueManager, send_email: type[SendEmail]) -> None:
    """What the class itself refuses is said of the form, and nothing is dispatched."""
    with pytest.raises(FormErrors) as caught:
        queues.dispatch_form(send_email, {"to": "nobody"})
    assert caught.value.errors == {"": "nobody is no address"}
    assert queues.jobs().empty


def test_form_is_no_field() -> None:
    """A field named ``form`` is refused where the class is defined, as other methods are."""
    with pytest.raises(InvalidCommand, match="form is a method of every job"):

        class Report(nbq.Job):
            form: str

            def handle(self) -> None: ...


def test_command(queues: nbq.QueueManager) -> None:
    """A command's ``*args`` is a list, a word a line, and is dispatched as its arguments."""

    @nbq.command("import:data", queue="imports")
    def import_data(ctx, *args: str): ...

    receipt = queues.dispatch_form("import:data", {"args": "users.csv\n--force"})
    assert receipt.queue == "imports"
    assert receipt.record().payload == encode_call(("users.csv", "--force"), {})
    assert queues.form_spec("import:data").values == {"args": ["users.csv", "--force"]}


def test_positional_and_rest(queues: nbq.QueueManager) -> None:
    """What stands before ``*args`` is there when they are, and what is positional only is given so."""

    @nbq.job
    def work(a: int, b: int = 2, /, *rest: int, c: int = 3): ...

    spec = queues.form_spec(work)
    assert spec.call(spec.parse({"a": 1, "rest": "8\n9", "c": 4})) == ((1, 2, 8, 9), {"c": 4})
    assert spec.call(spec.parse({"a": 1})) == ((1, 2), {"c": 3})


@pytest.fixture
def click_command() -> str:
    """A click command as a handler; gives its name."""

    @nbq.command("import:click")
    @click.command()
    @click.argument("path", type=click.Path())
    @click.argument("rest", nargs=-1)
    @click.option("--batch", "-b", type=click.IntRange(1, 10), default=2, help="How many.")
    @click.option("--shout/--no-shout", default=False)
    @click.option("-v", "verbose", count=True)
    @click.option("--tag", multiple=True)
    @click.option("--mode", type=click.Choice(["fast", "slow"]), required=True)
    @click.option("--size", nargs=2, type=float)
    @click.option("--secret", hidden=True)
    @click.version_option("1")
    def import_click(**_: Any) -> None:
        """Import by click."""

    return "import:click"


def test_click(queues: nbq.QueueManager, click_command: str) -> None:
    """A click command's parameters are fields by their types, and become its command line."""
    spec = queues.form_spec(click_command)
    assert spec.doc == "Import by click."
    assert {one.name: (one.kind, one.required, one.default) for one in spec.fields} == {
        "path": ("path", True, None),
        "rest": ("list", False, []),
        "batch": ("int", False, "2"),
        "shout": ("bool", False, False),
        "verbose": ("int", False, 0),
        "tag": ("list", False, []),
        "mode": ("choice", True, None),
        "size": ("list", False, []),
    }
    values = {
        "path": "-x",
        "rest": "a",
        "batch": 3,
        "shout": True,
        "verbose": 2,
        "tag": "1\n2",
        "mode": "fast",
    }
    receipt = queues.dispatch_form(spec, values)
    line = [
        "--batch",
        "3",
        "--shout",
        "-v",
        "-v",
        "--tag",
        "1",
        "--tag",
        "2",
        "--mode",
        "fast",
        "--",
        "-x",
        "a",
    ]
    assert receipt.record().payload == encode_call(tuple(line), {})
    last = queues.form_spec(click_command).values
    assert (last["path"], last["rest"], last["verbose"], last["shout"]) == ("-x", ["a"], 2, True)


def test_click_refuses(queues: nbq.QueueManager, click_command: str) -> None:
    """What click would refuse is refused at its field."""
    errors = refused(
        queues.form_spec(click_command), {"path": "a", "batch": 11, "mode": "quick", "size": "1"}
    )
    assert set(errors) == {"batch", "mode", "size"}
    assert "1<=x<=10" in errors["batch"]


# ------------------------------------------------------------------------------------------------- dispatching
@pytest.fixture
def resize(queues: nbq.QueueManager) -> Any:
    """A job with a parameter of each sort."""

    @nbq.job(timeout=60, metadata={"team": "data"})
    def resize(path: Path, width: int = 800): ...

    return resize


def test_nothing_invalid_is_dispatched(queues: nbq.QueueManager, resize: Any) -> None:
    """One wrong field among the options is enough for nothing to be dispatched; each wrong one has its sentence."""
    options = {
        "queue": "a,b",
        "delay": "soon",
        "priority": 101,
        "tries": 0,
        "timeout": "0",
        "metadata": "[]",
    }
    with pytest.raises(FormErrors) as caught:
        queues.dispatch_form(resize, {"path": "a.png", "width": "", "height": 1}, options)
    assert set(caught.value.errors) == {"height", *(f"options.{name}" for name in options)}
    assert "tries" in str(caught.value)
    with pytest.raises(FormErrors):
        queues.dispatch_form(resize, {"path": "a.png"}, {"tries": "many"})
    assert queues.jobs().empty


def test_options(queues: nbq.QueueManager, resize: Any) -> None:
    """Options that are filled in win; those left empty are the handler's."""
    options = {"queue": "images", "delay": "5m", "priority": "7", "tries": "", "metadata": '{"user": 1}'}
    receipt = queues.dispatch_form(resize, {"path": "a.png"}, options)
    spec = receipt.record().spec
    assert (spec.queue, spec.priority, spec.tries, spec.timeout) == ("images", 7, None, 60.0)
    assert receipt.metadata == {"team": "data", "user": 1}
    assert receipt.why().startswith("delayed until")


def test_unknown_name(queues: nbq.QueueManager, resize: Any) -> None:
    """A name without a handler has no form, and near names are told."""
    with pytest.raises(InvalidCommand, match=r'"resise" has no handler here.*"resize"'):
        queues.form_spec("resise")
    with pytest.raises(InvalidCommand, match="len has no form"):
        queues.form_spec(len)


def test_last_values_survive(tmp_path: Path) -> None:
    """The values of the newest job are there again after a restart, without anything stored besides."""

    @nbq.job
    def resize(path: Path, width: int = 800, mode: Color = Color.RED): ...

    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        queues.dispatch_form(resize, {"path": "old.png"})
        resize.dispatch(Path("new.png"), 640, mode=Color.BLUE)
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        assert queues.form_spec("resize").values == {"path": "new.png", "width": 640, "mode": "BLUE"}


_unpickled = []


class Trap:
    def __reduce__(self) -> Any:
        return (_unpickled.append, (1,))


def test_last_values_are_not_unpickled(queues: nbq.QueueManager) -> None:
    """Arguments that had to be pickled are not remembered, as that would run code."""

    @nbq.job
    def work(what: Any, number: int = 3): ...

    work.dispatch(Trap(), 4)
    assert queues.form_spec(work).values == {"what": None, "number": 3}
    assert _unpickled == []


def test_last_values_that_fit_no_more(queues: nbq.QueueManager) -> None:
    """Values that the handler takes no more, since it was changed, are its defaults."""

    @nbq.job
    def work(number: str = "many"): ...

    work.dispatch("lots")

    @nbq.job(name="work")
    def changed(number: int = 3): ...

    assert queues.form_spec("work").values == {"number": 3}

    @nbq.job(name="work")
    def renamed(count: int = 4): ...

    queues.dispatch(nbq.QueuedCommand("work").with_kwargs(number=1))
    assert queues.form_spec("work").values == {"count": 4}


def test_plain(queues: nbq.QueueManager, resize: Any) -> None:
    """All of a form is plain JSON, for any front end."""
    plain = queues.form_spec(resize).plain()
    assert json.loads(json.dumps(plain)) == plain
    assert set(plain) == {"command", "title", "doc", "fields", "options", "values", "estimate"}
    assert plain["estimate"] == "has not run yet"
    assert "nowhere" not in sys.modules
