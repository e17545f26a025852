"""What the codec promises: values come back as they went, and a row runs nothing that is not signed."""

from __future__ import annotations

import base64
import collections
import contextlib
import enum
import functools
import json
import math
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
import types
import zlib
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbqueue.errors import InvalidCommand, PayloadUntrusted
from nbqueue.payload import (
    UnknownType,
    code_hash,
    decode,
    decode_call,
    encode,
    encode_call,
    needs_pickle,
    pack_code,
    sign,
    unpack_code,
    verify,
)
from nbqueue.payload.notation import DEPTH
from nbqueue.payload.reading import READERS
from nbqueue.payload.signing import signature_of

KEY = b"k" * 32
OTHER = b"o" * 32
HERE = __name__

ran: list[str] = []


class Color(enum.Enum):
    RED = "r"
    DEEP = ("a", 1)


class Mood(enum.StrEnum):
    GOOD = "good"


class Level(enum.IntEnum):
    HIGH = 3


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: object = 0


@dataclass
class Node:
    name: str
    children: list[Node] = field(default_factory=list)
    when: date | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    a: int
    b: tuple[int, ...] = ()


@dataclass
class Loud:
    """Says so when any of its code runs."""

    a: int

    def __post_init__(self):
        ran.append("post_init")

    def __setattr__(self, name, value):
        ran.append("setattr")
        object.__setattr__(self, name, value)

    @property
    def total(self):
        return self.a

    @total.setter
    def total(self, value):
        ran.append("setter")

    def __iter__(self):
        ran.append("iter")
        return iter([])

    def __str__(self):
        ran.append("str")
        return "loud"

    def __eq__(self, other):
        ran.append("eq")
        return False

    __hash__ = None

    def __index__(self):
        ran.append("index")
        return 1

    def __float__(self):
        ran.append("float")
        return 1.0

    def __bool__(self):
        ran.append("bool")
        return True


@dataclass
class Derived:
    a: int
    total: int = field(init=False)

    def __post_init__(self):
        self.total = self.a * 2
        self.note = "not a field"

    @functools.cached_property
    def heavy(self):
        return threading.Lock()


@dataclass
class Registered(dict):
    """Holds more than its fields."""

    a: int = 1


@pytest.fixture(autouse=True)
def _nothing_ran():
    ran.clear()


def same(one, other):
    """Equal, of the same type, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and same(sorted(one, key=repr), sorted(other, key=repr))
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, complex):
        return repr(one) == repr(other)
    if isinstance(one, Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, datetime | time):
        zones = type(one.tzinfo), str(one.tzinfo), one.fold, one.replace(tzinfo=None)
        return zones == (type(other.tzinfo), str(other.tzinfo), other.fold, other.replace(tzinfo=None))
    return bool(one == other)


def run_of(row):
    """Read a row as a worker would, whatever comes of it."""
    with pytest.raises((UnknownType, PayloadUntrusted)) as caught:
        decode_call(json.dumps({"args": [row], "kwargs": {}}), key=KEY)
    return str(caught.value)


# ---------------------------------------------------------------------------------------- the way back

zones = st.none() | st.sampled_from(
    [
        UTC,
        timezone(timedelta(hours=2)),
        timezone(timedelta(hours=-3, seconds=7), "odd"),
        ZoneInfo("UTC"),
        ZoneInfo("Europe/Berlin"),
    ]
)
strings = st.text(st.characters())  # surrogates too
hashables = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | strings
        | st.binary()
        | st.dates()
        | st.datetimes(timezones=zones)
        | st.times()
        | st.timedeltas()
        | st.decimals(allow_nan=False)
        | st.uuids()
        | st.complex_numbers(allow_nan=False)
        | st.sampled_from(
            [Color.RED, Color.DEEP, Mood.GOOD, Level.HIGH, Rights.READ | Rights.WRITE, Rights(0)]
        )
        | st.sampled_from([Path("a/b"), PurePosixPath("/x"), PureWindowsPath("C:/y")])
        | st.builds(Point, st.integers(), strings)
        | st.builds(Frozen, st.integers(), st.lists(st.integers()).map(tuple))
    )
)
values = st.recursive(
    hashables | st.just(math.nan) | st.binary().map(bytearray) | st.times(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(strings | st.just("$nbq"), inner, max_size=4)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.builds(Node, strings, st.lists(inner, max_size=2), st.none() | st.dates())
        | st.builds(Point, st.integers(), inner)
    ),
    max_leaves=12,
)


@pytest.mark.fuzz
@given(values)
def test_what_goes_in_comes_out(value):
    """decode(encode(x)) equals x and has its types, recursively, and the text can be stored as UTF-8."""
    text = encode(value)
    text.encode()
    assert same(decode(text), value)


@pytest.mark.fuzz
@given(st.sets(st.integers() | strings | st.dates()) | st.frozensets(hashables, max_size=3))
def test_sets_come_back(value):
    """A set and a frozenset come back with the elements and the type that they had."""
    again = decode(encode(value))
    assert type(again) is type(value)
    assert again == value


@pytest.mark.fuzz
@given(st.lists(values, max_size=3).map(tuple), st.dictionaries(strings, values, max_size=3))
def test_calls_come_back(args, kwargs):
    """Positional and keyword arguments come back as they went, whatever the keywords are called."""
    assert same(decode_call(encode_call(args, kwargs)), (args, kwargs))


@pytest.mark.parametrize(
    "value",
    [
        10**5000,
        -(10**5000),
        {10**5000: date(2026, 1, 1)},
        True,
        -0.0,
        math.inf,
        -math.inf,
        "\ud800",
        "\ud83d\ude00",
        "😀",
        "\0",
        {"$nbq": "pickle", "v": "", "sig": ""},
        {"a": {"$nbq": {"$nbq": 1}}},
        {1: 2, (1, 2): {3}, None: "x", "1": 3},
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        time(2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        ZoneInfo("Asia/Tokyo"),
        timezone(timedelta(hours=1), "CET"),
        timedelta.max,
        Decimal("1.10"),
        Decimal("-0E+3"),
        Path("/tmp/\udcff"),
        {Mood.GOOD: Level.HIGH},
        Node("a", [Node("b", when=date(2026, 1, 1))]),
        [[[]]],
        (),
        set(),
        "$nbq",
        '{"$nbq":"pickle"}',
    ],
    ids=lambda value: type(value).__name__,
)
def test_odd_values_come_back(value):
    """The values that other codecs lose come back too."""
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize("text", ["Decimal('NaN')", "Decimal('sNaN')", "Decimal('-Infinity')"])
def test_decimals_that_are_no_numbers_come_back(text):
    """A decimal NaN comes back as the one that it was."""
    assert repr(decode(encode(eval(text)))) == text  # noqa: S307


def test_plain_values_stay_plain_json():
    """What JSON carries is stored as plain JSON, which a person and an SQL query can read."""
    value = {"path": "Ärger.csv", "n": [1, 2.5, None, True]}
    assert encode(value) == '{"path":"Ärger.csv","n":[1,2.5,null,true]}'
    assert encode_call(("users.csv",), {}) == '{"args":["users.csv"],"kwargs":{}}'


def test_equal_sets_are_equal_text():
    """The text of a set does not depend on the hash seed."""
    code = "from nbqueue.payload import encode; print(encode({'a', 'b', 'c', 'd', 1, 2.5}))"
    texts = set()
    for seed in ("1", "2", "3"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        texts.add(done.stdout)
    assert len(texts) == 1


@pytest.mark.parametrize(
    "value",
    [
        np.int64(-5),
        np.uint8(255),
        np.uint64(2**64 - 1),
        np.float32(0.1),
        np.float64(0.1),
        np.float64("inf"),
        np.float16(2.5),
        np.bool_(True),
        np.str_("x"),
        np.bytes_(b"x\xff"),
        np.datetime64("2026-01-31T12:00", "ms"),
        np.timedelta64(5, "D"),
        pd.Timestamp("2026-01-31 12:00:00.123456789"),
        pd.Timestamp("2026-10-25 01:30", tz="UTC").tz_convert("Europe/Berlin"),
        pd.Timestamp("2026-01-31", tz="UTC").as_unit("s"),
        pd.Timedelta("1 days 00:00:00.000000001"),
        pd.Timedelta(5, "s").as_unit("ms"),
    ],
    ids=repr,
)
def test_numpy_and_pandas_scalars_come_back(value):
    """What a DataFrame's rows are made of comes back with its type, dtype, unit and zone."""
    again = decode(encode({"x": [value]}))["x"][0]
    assert type(again) is type(value)
    assert again == value
    assert getattr(again, "dtype", None) == getattr(value, "dtype", None)
    assert getattr(again, "unit", None) == getattr(value, "unit", None)
    assert str(getattr(again, "tz", None)) == str(getattr(value, "tz", None))


def test_missing_values_come_back():
    """NaT, NA and numpy's NaN and NaT come back as what they were."""
    nat, na, nan, numpy_nat = decode(encode([pd.NaT, pd.NA, np.float64("nan"), np.datetime64("NaT", "us")]))
    assert nat is pd.NaT
    assert na is pd.NA
    assert type(nan) is np.float64
    assert np.isnan(nan)
    assert type(numpy_nat) is np.datetime64
    assert np.isnat(numpy_nat)


def test_neither_pandas_nor_numpy_is_imported_to_write():
    """Encoding loads no data library, and so do plain values on their way back."""
    code = (
        "import sys, datetime; from nbqueue.payload import *; decode(encode([{1}, datetime.date.today()]));"
        "print(sorted({'pandas', 'numpy', 'cloudpickle'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_dataclass_keeps_what_its_own_code_computed():
    """Fields without init and attributes that are no fields come back; what is cached is left to be computed again."""
    value = Derived(2)
    value.heavy.acquire()
    again = decode(encode(value))
    assert (again.a, again.total, again.note) == (2, 4, "not a field")
    assert "heavy" not in vars(again)


def test_a_dataclass_that_holds_more_than_its_fields_is_pickled():
    """A dataclass that is a dict too does not lose its items."""
    value = Registered(a=2)
    value["x"] = 1
    with pytest.raises(InvalidCommand, match="Registered"):
        encode(value)
    again = decode(encode(value, key=KEY), key=KEY)
    assert (again.a, again["x"]) == (2, 1)


def test_a_field_that_is_new_since_dispatch_takes_its_plain_default():
    """A row from before a field was added comes back with the field's default where that runs no code."""
    row = json.loads(encode(Node("a")))
    row["v"] = {"name": "a"}
    assert decode(json.dumps(row)) == Node("a", [], None)
    row["v"] = {}
    with pytest.raises(UnknownType, match="name"):
        decode(json.dumps(row))


# --------------------------------------------------------------------------------- what JSON cannot carry


def test_what_json_cannot_carry_is_pickled_and_signed():
    """A DataFrame, a function and an OrderedDict come back, each by a signed pickle of its own."""
    frame = pd.DataFrame({"x": [1, 2]})
    text = encode({"frame": frame, "n": 1, "of": collections.OrderedDict(b=1)}, key=KEY, context="job")
    again = decode(text, key=KEY, context="job")
    assert needs_pickle(text)
    assert again["frame"].equals(frame)
    assert type(again["of"]) is collections.OrderedDict
    assert json.loads(text)["n"] == 1


def test_local_classes_travel_by_value():
    """A class that no name leads to is pickled, not stored by a name that leads elsewhere."""

    @dataclass
    class Node:
        name: str

    class Color(enum.Enum):
        RED = "other"

    text = encode([Node("a"), Color.RED], key=KEY)
    assert decode(text, key=KEY) == [Node("a"), Color.RED]
    with pytest.raises(InvalidCommand, match="Node"):
        encode(Node("a"))


@pytest.mark.parametrize(
    "value", ["pickle", {"$nbq": "pickle"}, '"$nbq":"pickle"', {"a": ('"$nbq": "pickle"',)}]
)
def test_values_that_look_like_pickles_are_not_taken_for_them(value):
    """needs_pickle looks at tags, not at text."""
    assert not needs_pickle(encode(value))


class Odd:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((1, {"conn": Odd()}), {}, r"args\[1\]\['conn'\]"),
        ((), {"batch": [0, (Odd(),)]}, r"batch\[1\]\[0\]"),
        ((Node("a", [Odd()]),), {}, r"args\[0\]\.children\[0\]"),
        (({Odd(): 1},), {}, r"args\[0\] key"),
        (
            (datetime(2026, 1, 1, tzinfo=type("Odd", (tzinfo,), {"utcoffset": lambda *_: None})()),),
            {},
            r"args\[0\]",
        ),
    ],
)
def test_without_a_key_the_sentence_names_the_way_to_the_value(args, kwargs, path):
    """Where nothing may be pickled, an error names the position or keyword, the way on, and the type."""
    with pytest.raises(InvalidCommand, match=rf"^{path} cannot be stored.*(Odd|datetime)"):
        encode_call(args, kwargs)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (threading.Lock, "lock"),
        (lambda: (x for x in ()), "generator"),
        (lambda: sqlite3.connect(":memory:"), "Connection"),
        (lambda: duckdb.connect(":memory:"), "DuckDBPyConnection"),
        (socket.socket, "socket"),
    ],
)
def test_what_cannot_be_pickled_is_refused_by_path_and_type(make, named):
    """What cannot leave the process is refused, wherever it hides, with its path, its type and the reason."""
    value = make()
    try:
        with pytest.raises(InvalidCommand, match=rf"^args\[0\]\['conn'\] cannot be stored.*({named})"):
            encode_call(({"conn": value},), {}, key=KEY)
        with pytest.raises(InvalidCommand, match=rf"^args\[0\]\.deep\['x'\] cannot be stored.*({named})"):
            encode_call((Odd(fine=1, deep={"x": value}),), {}, key=KEY)
    finally:
        getattr(value, "close", list)()


def test_a_value_is_called_what_the_caller_calls_it():
    """`what` begins the path."""
    with pytest.raises(InvalidCommand, match=r"^metadata\['a'\]"):
        encode({"a": Odd()}, what="metadata")


def cycle():
    one: list[object] = []
    one.append({"again": (one,)})
    return one


def nested_node():
    node = Node("a")
    node.children.append(node)
    return node


@pytest.mark.parametrize("make", [cycle, nested_node])
@pytest.mark.parametrize("key", [None, KEY])
def test_cycles_are_refused(make, key):
    """A value that contains itself is refused, with a key and without."""
    with pytest.raises(InvalidCommand, match="contains itself"):
        encode(make(), key=key)


def test_a_value_that_appears_twice_is_no_cycle():
    """The same list in two places is stored twice."""
    one = [(1,)]
    assert decode(encode([one, one, {"x": one}])) == [one, one, {"x": one}]


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: {1: v}])
def test_depth_is_bounded(wrap):
    """What is accepted can be read back; what is too deep is refused with a sentence, never with a crash."""
    value: object = date(2026, 1, 1)
    for _ in range(DEPTH):
        value = wrap(value)
    assert same(decode(encode(value)), value)
    for _ in range(2000):
        value = wrap(value)
    with pytest.raises(InvalidCommand, match="deep"):
        encode(value)


# ---------------------------------------------------------------------------------------------- trust


@pytest.mark.parametrize("tag", ["dataclass", "enum", "flag", "namedtuple"])
@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "subprocess:Popen",
        "builtins:eval",
        "os:environ",
        "builtins:dict",
        "os:path.join",
        "",
        ":",
        "os",
        "os:",
    ],
)
@pytest.mark.parametrize("value", [{"args": "touch {}"}, ["touch {}"], "touch {}", 0])
def test_a_row_that_names_a_function_runs_nothing(tag, name, value, tmp_path):
    """A JSON row that names os:system, subprocess.Popen or any other callable calls nothing."""
    target = tmp_path / "ran"
    row = json.loads(json.dumps({"$nbq": tag, "t": name, "v": value}).replace("{}", str(target)))
    assert "dispatch" in (said := run_of(row)) or "there is no" in said
    assert not target.exists()


def test_a_row_imports_nothing(tmp_path, monkeypatch):
    """A class in a module that is not loaded is told by name, with the way out, and the module stays unloaded."""
    (tmp_path / "unloaded_module.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    said = run_of({"$nbq": "dataclass", "t": "unloaded_module:Thing", "v": {}})
    assert "Thing" in said
    assert "import unloaded_module" in said
    assert "unloaded_module" not in sys.modules
    assert "run the cell" in run_of({"$nbq": "enum", "t": "__main__:Nowhere", "v": "A"})


def test_a_lookup_sets_off_no_lazy_import(monkeypatch):
    """Looking a class up does not run a module's __getattr__."""
    lazy = types.ModuleType("lazy_module")
    lazy.__getattr__ = ran.append
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    run_of({"$nbq": "dataclass", "t": "lazy_module:Thing", "v": {}})
    assert ran == []


def test_no_code_of_a_dataclass_runs():
    """From a row neither __init__, __post_init__, __setattr__ nor a property's setter of a dataclass is called."""
    value = decode(
        json.dumps({"$nbq": "dataclass", "t": f"{HERE}:Loud", "v": {"a": 1, "total": 2, "__class__": 3}})
    )
    assert ran == []
    assert type(value) is Loud
    assert value.a == 1


@pytest.mark.parametrize("tag", [*READERS, "pickle", "nonsense"])
@pytest.mark.parametrize(
    "at", ["v", "t", "fold", "name", "zone", "tz", "unit", "sig", "$nbq", "deep", "deeper"]
)
def test_what_was_rebuilt_is_never_called_by_a_reader(tag, at):
    """A row cannot put a rebuilt object where a reader would iterate over it, convert it or compare it."""
    loud = {"$nbq": "dataclass", "t": f"{HERE}:Loud", "v": {"a": 1}}
    row = {"$nbq": tag, "v": "2026-01-01", "t": "<i8", at: loud}
    row |= {"v": [loud]} if at == "deep" else {"v": [[loud, loud]]} if at == "deeper" else {}
    with contextlib.suppress(UnknownType, PayloadUntrusted):
        decode(json.dumps(row), key=KEY)
    assert ran == []


@pytest.mark.parametrize(
    "row",
    [
        {"$nbq": "nonsense", "v": 1},
        {"$nbq": None},
        {"$nbq": ["tuple"], "v": []},
        {"$nbq": "date"},
        {"$nbq": "date", "v": "tomorrow"},
        {"$nbq": "decimal", "v": "much"},
        {"$nbq": "dict", "v": [[[], 1]]},
        {"$nbq": "dict", "v": [[1]]},
        {"$nbq": "set", "v": [[]]},
        {"$nbq": "bytes", "v": "%%%"},
        {"$nbq": "numpy", "t": "O", "v": 1},
        {"$nbq": "numpy", "t": "<i8", "v": "x"},
        {"$nbq": "numpy", "t": "<i1", "v": 10**30},
        {"$nbq": "pandas", "t": "read_pickle", "v": "x"},
        {"$nbq": "zone", "v": "../../etc/passwd"},
        {"$nbq": "zone", "v": "Mars/Olympus"},
        {"$nbq": "path", "t": "Popen", "v": "x"},
        {"$nbq": "enum", "t": f"{HERE}:Color", "v": "BLUE"},
        {"$nbq": "enum", "t": f"{HERE}:Node", "v": "RED"},
        {"$nbq": "flag", "t": f"{HERE}:Rights", "v": 512},
        {"$nbq": "flag", "t": f"{HERE}:Color", "v": 1},
        {"$nbq": "namedtuple", "t": f"{HERE}:Point", "v": [1]},
        {"$nbq": "namedtuple", "t": f"{HERE}:Node", "v": [1]},
        {"$nbq": "dataclass", "t": f"{HERE}:Color", "v": {}},
        {"$nbq": "dataclass", "t": f"{HERE}:Registered", "v": {"a": 1}},
        {"$nbq": "dataclass", "t": f"{HERE}:Frozen", "v": {"a": 1, "gone": 2}},
    ],
    ids=str,
)
def test_damaged_rows_are_told_as_such(row):
    """A damaged or foreign tag is an UnknownType with a sentence, not whatever its reader would raise."""
    with pytest.raises(UnknownType):
        decode(json.dumps(row))


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", '{"$nbq"', "[1] 2", "[" * 100_000, '{"$nbq":' * 100_000]
)
def test_text_that_is_no_json_is_told_as_such(text):
    """Damaged text is an UnknownType, however deep."""
    with pytest.raises(UnknownType, match="damaged"):
        decode(text)


@pytest.mark.parametrize(
    "text", ["3", "[]", '{"args":[]}', '{"args":{},"kwargs":{}}', '{"args":[],"kwargs":[]}']
)
def test_text_that_is_no_call_is_told_as_such(text):
    """Arguments are a list and a dict with string keys, or are refused."""
    with pytest.raises(UnknownType, match="arguments of a call"):
        decode_call(text)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def pickle_row(data, signature):
    return json.dumps({"$nbq": "pickle", "v": base64.b64encode(data).decode(), "sig": signature})


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "00" * 32,
        "é",
        "zz",
        None,
        3,
        signature_of(b"other", KEY, "pickle", "job").hex(),
    ],
)
def test_an_unsigned_pickle_does_nothing(signature, tmp_path):
    """A pickle without the right signature is refused, and what it would have done does not happen."""
    target = tmp_path / "ran"
    with pytest.raises(PayloadUntrusted, match="NBQUEUE_SECRET"):
        decode(pickle_row(pickle.dumps(Malicious(target)), signature), key=KEY, context="job")
    assert not target.exists()


@pytest.mark.parametrize(
    ("key", "context"), [(OTHER, "job"), (KEY, "another job"), (KEY, ""), (None, "job")], ids=str
)
def test_a_foreign_pickle_does_nothing(key, context, tmp_path):
    """A pickle signed with another key, or for another context, is refused, and so is any without a key."""
    target = tmp_path / "ran"
    text = encode([Malicious(target)], key=KEY, context="job")
    with pytest.raises(PayloadUntrusted):
        decode(text, key=key, context=context)
    assert not target.exists()
    decode(text, key=KEY, context="job")
    assert target.exists()  # so it was the signature that kept it from happening


@pytest.mark.fuzz
@given(st.data())
def test_a_changed_byte_is_noticed(data):
    """Whatever byte of signed data, of code or of a pickle is changed, none of it is decoded."""
    sealed = sign(b"print(1)", key=KEY, context="cell")
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = bytes([*sealed[:at], sealed[at] ^ data.draw(st.integers(1, 255)), *sealed[at + 1 :]])
    with pytest.raises(PayloadUntrusted):
        verify(changed, key=KEY, context="cell")
    with pytest.raises(PayloadUntrusted):
        verify(sealed[:at], key=KEY, context="cell")


def test_one_kind_of_signed_bytes_is_not_taken_for_another():
    """Signed data is not code, signed code is not data, and neither is a signed pickle, under one context."""
    _, code = pack_code(len, key=KEY, context="c")
    with pytest.raises(PayloadUntrusted):
        verify(code, key=KEY, context="c")
    with pytest.raises(PayloadUntrusted):
        unpack_code(sign(zlib.compress(pickle.dumps(len)), key=KEY, context="c"), key=KEY, context="c")
    data = pickle.dumps(len)
    signature = sign(data, key=KEY, context="c")[4:36].hex()
    with pytest.raises(PayloadUntrusted):
        decode(pickle_row(data, signature), key=KEY, context="c")


def test_a_context_cannot_reach_into_the_data():
    """A NUL, which ends the context in what is signed, is refused in one."""
    with pytest.raises(InvalidCommand, match="NUL"):
        sign(b"", key=KEY, context="a\0b")


# ----------------------------------------------------------------------------------------------- code


def define(source, name="f", filename="<cell>"):
    """Run a cell in a notebook's namespace and give what it defines."""
    scope = {"__name__": "__main__"}
    exec(compile(source, filename, "exec"), scope)
    return scope[name]


HELPED = "LIMIT = 3\ndef helper(x):\n    return x + {}\ndef f(x):\n    return helper(x) * LIMIT\n"


def test_the_hash_is_the_same_for_an_unchanged_cell():
    """Running a cell again, elsewhere, under another file name and line, gives the same hash."""
    source = (
        "def f(x, y=[1], *, z=None):\n"
        "    class Inner:\n        a = 1\n        def g(self): return {1, 2} if x in {'a', 'b', 'c'} else y\n"
        "    return [i + len(z) for i in x if (lambda j: j)(i)], Inner\n"
    )
    one, other = define(source), define("\n" * 300 + "# moved\n" + source, filename="<another>")
    assert code_hash(one) == code_hash(other)
    assert pack_code(one, key=KEY, context="")[0] == code_hash(one)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def f(x): return x + 1", "def f(x): return x + 2"),
        ("def f(x): return x + 1", "def f(x): return x - 1"),
        ("def f(x): return a(x)", "def f(x): return b(x)"),
        ("def f(x, y=1): return x", "def f(x, y=2): return x"),
        ("def f(x, y=1): return x", "def f(x, y=True): return x"),
        ("def f(x, *, y=1): return x", "def f(x, *, y=2): return x"),
        ("def f(x): return [i for i in x]", "def f(x): return [i + 1 for i in x]"),
        ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
        ("def f(x): return 1", "def f(x): return 1.0"),
        ("def f(x): return x", "async def f(x): return x"),
        (HELPED.format(1), HELPED.format(2)),
        (HELPED.format(1), HELPED.format(1).replace("LIMIT = 3", "LIMIT = 4")),
        (
            "class T:\n def g(self): return 1\ndef f(): return T()",
            "class T:\n def g(self): return 2\ndef f(): return T()",
        ),
        (
            "def m(n):\n def f(): return n\n return f\nf = m(1)",
            "def m(n):\n def f(): return n\n return f\nf = m(2)",
        ),
    ],
)
def test_the_hash_changes_with_what_the_function_does(before, after):
    """Another body, default, helper, constant or captured value is another hash."""
    assert code_hash(define(before)) != code_hash(define(after))


def test_the_hash_does_not_change_with_what_is_not_code():
    """Objects without a value of their own, names of attributes, and data that the function fills are no code."""
    source = (
        "seen, lock, name = [], object(), {}\ndef f(x, y=object()):\n seen.append(x)\n return x.name, lock"
    )
    one = define(source.format(1))
    before = code_hash(one)
    one(types.SimpleNamespace(name="a"))
    assert code_hash(one) == before == code_hash(define(source.format(2)))


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_hash_is_the_same_in_another_process(seed):
    """The hash depends on neither addresses nor the hash seed."""
    source = "def f(x, y=(1, 'a')):\n    return x in {'a', 'b', 'c', 'd'} and g(y)\ndef g(y): return f(y)\n"
    code = f"from nbqueue.payload import code_hash\n{source}\nprint(code_hash(f))"
    env = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == code_hash(define(source))


def test_callables_of_every_kind_have_a_hash():
    """Functions, methods, partials, classes, callable objects and built-ins all hash, and to different things."""
    kinds = [
        define("def f(): pass"),
        Loud(1).__iter__,
        functools.partial(same, 1),
        functools.partial(same, 2),
        Loud,
        len,
        max,
    ]
    hashes = [code_hash(kind) for kind in kinds]
    assert all(len(found) == 16 for found in hashes)
    assert len(set(hashes)) == len(kinds)


def test_code_comes_back_with_what_it_captured():
    """A function of a notebook runs elsewhere, with the globals and variables that it uses."""
    function = define(HELPED.format(1))
    _, blob = pack_code(function, key=KEY, context="code")
    again = unpack_code(blob, key=KEY, context="code")
    assert again(1) == 6
    assert code_hash(again) == code_hash(function)
    assert again.__globals__ is not function.__globals__


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import threading\nlock = threading.Lock()\ndef f(): return lock", "global 'lock'.*lock"),
        (
            "import threading as t\ndef m(held):\n def f(): return held\n return f\nf = m(t.Lock())",
            "captured 'held'.*lock",
        ),
        (
            "import threading\nlock = threading.Lock()\ndef g(): return lock\ndef f(): return g()",
            "global 'g', global 'lock'",
        ),
        ("import threading\ncfg = {'l': threading.Lock()}\ndef f(): return cfg", r"global 'cfg'\['l'\]"),
        ("def f(x=(i for i in ())): return x", "default.*generator"),
    ],
)
def test_code_that_cannot_travel_is_refused_by_the_variable(source, named):
    """Where a function holds what cannot be pickled, the sentence names the global or captured variable."""
    with pytest.raises(InvalidCommand, match=named):
        pack_code(define(source), key=KEY, context="")


def test_foreign_code_is_neither_unpickled_nor_decompressed(tmp_path, monkeypatch):
    """Code signed with another key, for another context, changed or unsigned is refused before it is decompressed."""
    target = tmp_path / "ran"
    _, blob = pack_code(functools.partial(len, Malicious(target)), key=KEY, context="code")
    monkeypatch.setattr(zlib, "decompress", lambda _: ran.append("decompress"))
    monkeypatch.setattr(pickle, "loads", lambda _: ran.append("loads"))
    for key, context, data in [
        (OTHER, "code", blob),
        (KEY, "other", blob),
        (KEY, "code", blob[:-1]),
        (KEY, "code", blob[36:]),
        (KEY, "code", b""),
    ]:
        with pytest.raises(PayloadUntrusted, match="NBQUEUE_SECRET"):
            unpack_code(data, key=key, context=context)
    assert ran == []
    assert not target.exists()


def test_signed_code_that_needs_a_missing_module_says_so(monkeypatch):
    """Where a module of the code is missing here, the sentence names it."""
    module = types.ModuleType("only_there")
    exec("def f(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_there", module)
    _, blob = pack_code(module.f, key=KEY, context="")
    monkeypatch.delitem(sys.modules, "only_there")
    with pytest.raises(UnknownType, match="only_there"):
        unpack_code(blob, key=KEY, context="")


def test_code_that_is_no_code_is_told():
    """A signed pickle of something that cannot be called is no function."""
    _, blob = pack_code(3, key=KEY, context="")
    with pytest.raises(UnknownType, match="cannot be called"):
        unpack_code(blob, key=KEY, context="")


def test_uuids_keep_their_type():
    """A job's id among its own arguments stays a UUID."""
    one = uuid4()
    assert type(decode(encode(one))) is UUID
    assert decode(encode(one)) == one
