"""Messages as bytes: what travels comes back as it went, and whatever else a message names is refused unseen."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import os
import pickle
import pickletools
import subprocess
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nbqueue import errors, store
from nbqueue.errors import JobFailed, NotSupported, QueueError
from nbqueue.ids import new_packed_ids
from nbqueue.jobs import BatchRecord, Claim, JobRecord, NewJob, Spec, State
from nbqueue.lifecycle import Outcome
from nbqueue.retry import RetryPolicy
from nbqueue.rows import Rows
from nbqueue.wire import WireError, allow, decode, encode, pack_error, unpack_error
from nbqueue.wire.makers import VALUES

pytestmark = pytest.mark.fuzz

SPEC = Spec("import:data", retry=RetryPolicy(backoff=(1.0,)))
CLAIM = Claim(uuid.UUID(int=7), 1, 1, 3, None, SPEC, '{"args":[],"kwargs":{}}', "")
REPORT = store.Report(
    CLAIM, store.ReportKind.ENDED, Outcome.FAILED, logs=(store.LogChunk("stdout", "é\n", 1.5),)
)
RECORD = JobRecord(
    **{field.name: None for field in dataclasses.fields(JobRecord)}  # type: ignore[arg-type]
    | {"job_id": CLAIM.job_id, "spec": SPEC, "state": State.FAILED}
)

text = st.text(st.characters(codec=None), max_size=20)
plain = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text, st.binary(max_size=20)),
    *(st.uuids(), st.dates(), st.times(), st.datetimes(), st.datetimes(timezones=st.just(UTC))),
    *(st.timedeltas(), st.decimals(allow_nan=False), st.complex_numbers(allow_nan=False)),
    *(st.sampled_from(State), st.sampled_from([SPEC, CLAIM, REPORT, RECORD])),
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(st.one_of(text, st.uuids()), inner)
    ),
    max_leaves=30,
)
claims = st.builds(
    Claim,
    *(st.uuids(), st.integers(0), st.integers(1), st.integers(1), st.none() | st.floats(0, 9), st.just(SPEC)),
    *(text, text, st.none() | st.uuids(), st.none() | text),
)
reports = st.builds(
    store.Report,
    claims,
    st.sampled_from(store.ReportKind),
    st.none() | st.sampled_from(Outcome),
    *(st.none() | st.floats(0, 9), st.none()),
    logs=st.lists(st.builds(store.LogChunk, text, text, st.floats(0, 1)), max_size=3).map(tuple),
)


# ---------------------------------------------------------------------------------------------- there and back
@given(values)
def test_values_come_back(value: Any) -> None:
    """Any nesting of what travels comes back equal, and of the same class."""
    found = decode(encode(value))
    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


@given(st.lists(reports, min_size=1, max_size=3), st.booleans())
def test_long_lists_come_back(seeds: list[store.Report], as_tuple: bool) -> None:
    """What goes column by column comes back as it was, a list as a list, a tuple as a tuple."""
    found = [one._replace(claim=one.claim._replace(fence=n)) for n in range(8) for one in (*seeds, REPORT)]
    rows: Any = tuple(found) if as_tuple else found
    turn = store.Turn((), [one.claim for one in found], [], None)
    assert decode(encode(("turn", rows, turn))) == ("turn", rows, turn)
    assert type(decode(encode(rows))) is type(rows)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 40])
def test_lists_of_every_length(count: int) -> None:
    """Ids, records and answers come back at any number, and a list of two classes does too."""
    ids = [uuid.UUID(int=n << 64) for n in range(count)]
    records = [dataclasses.replace(RECORD, job_id=one) for one in ids]
    jobs = [NewJob(one, SPEC, "[]") for one in ids]
    mixed = [*jobs, *ids, *records]
    for rows in (ids, records, jobs, mixed, [store.Answer(one, done=True) for one in ids]):
        assert decode(encode(rows)) == rows
    assert all(isinstance(one, uuid.UUID) and str(one) for one in decode(encode(ids)))


def test_what_was_made_is_whole() -> None:
    """A record that came in a column is frozen, complete and equal to its origin."""
    batch = BatchRecord(
        batch_id=uuid.UUID(int=1),
        **dict.fromkeys(("command", "origin", "key", "head"), ""),
        created_at=1.0,
        mapped_at=2.0,
        runs=((1, 2),),
    )
    found = decode(encode([batch] * 20))
    assert found == [batch] * 20
    assert found[0].total == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].key = "x"


def test_rows_travel_by_their_columns() -> None:
    """What comes is the same jobs, in columns still; where the columns do not fit together, nothing comes."""
    ids = new_packed_ids(3, now=1.7e9, randomness=bytes(range(34)))
    rows = Rows(ids=ids, spec=SPEC, payloads=["1", "2", "3"], labels=list("abc"), batch_id=ids[0], due_at=5.0)
    verb, (came,) = decode(encode(("put_batch", (rows,))))
    assert (verb, type(came), list(came)) == ("put_batch", Rows, list(rows))
    assert came[1:] == rows[1:] == [rows[1], rows[2]]
    assert came.ids.find(ids[2]) == 2
    object.__setattr__(rows, "labels", ["a"])
    with pytest.raises(WireError, match="as many ids as arguments and labels"):
        decode(encode(rows))


def test_every_value_of_the_contract_travels() -> None:
    """Whatever the verbs of a store take and give is let travel."""
    public = [getattr(store, name) for name in store.__all__]
    kinds = [
        kind
        for kind in public
        if isinstance(kind, type) and (issubclass(kind, tuple | enum.Enum) or dataclasses.is_dataclass(kind))
    ]
    assert len(kinds) > 8
    assert [kind.__name__ for kind in kinds if kind not in VALUES] == []


def test_values_with_zones() -> None:
    """Dates with time zones keep the zone itself."""
    berlin = ZoneInfo("Europe/Berlin")
    late = datetime(2026, 10, 25, 2, 30, tzinfo=berlin, fold=1)
    found = decode(encode([late, time(3, tzinfo=timezone(timedelta(hours=2)))]))
    assert found == [late, time(3, tzinfo=timezone(timedelta(hours=2)))]
    assert found[0].tzinfo is berlin
    assert found[0].fold == 1


def test_shared_parts_stay_shared() -> None:
    """The Spec that a thousand jobs share is written once."""
    one = encode([NewJob(uuid.UUID(int=1), SPEC, "[]")])
    many = encode([NewJob(uuid.UUID(int=1 << 100), SPEC, "[]")] * 1000)
    assert len(many) < len(one) + 1000 * 40


class Moved(NamedTuple):
    """A value of somebody's own."""

    place: str
    at: float


def test_own_values_may_be_let_travel() -> None:
    """A class travels once both ends have said so, and no second one of its name."""
    with pytest.raises(NotSupported, match="Moved cannot travel"):
        encode(Moved("here", 1.0))
    allow(Moved)
    assert decode(encode(Moved("here", 1.0))) == Moved("here", 1.0)
    with pytest.raises(ValueError, match="Moved travels already"):
        allow(Moved)


# ------------------------------------------------------------------------------------------- arrays and frames
FRAMES = {
    "plain": pd.DataFrame({"n": [1, 2], "x": [0.5, np.nan], "yes": [True, False], "t": ["a", None]}),
    "times": pd.DataFrame(
        {
            "naive": pd.to_datetime(["2026-01-02", None]),
            "zoned": pd.to_datetime(["2026-10-25 00:30", None], utc=True).tz_convert("Europe/Berlin"),
            "span": pd.to_timedelta([1, 2], unit="s"),
        }
    ),
    "masked": pd.DataFrame(
        {
            "n": pd.array([1, None], "Int64"),
            "b": pd.array([True, None], "boolean"),
            "f": pd.array([1.5, None], "Float64"),
        }
    ),
    "categories": pd.DataFrame({"c": pd.Categorical(["b", None], categories=["b", "a"], ordered=True)}),
    "objects": pd.DataFrame(
        {"o": [uuid.UUID(int=1), date(2026, 1, 2)], "d": [Decimal("1.10"), {"k": [1, pd.NA]}]}
    ),
    "ids": pd.DataFrame({"job_id": [uuid.UUID(int=n) for n in range(20)]}),
    "labels": pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="who")),
    "levels": pd.DataFrame(
        np.arange(4).reshape(2, 2),
        index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["l", None]),
        columns=pd.MultiIndex.from_tuples([("x", 1), ("y", 2)]),
    ),
    "twice": pd.DataFrame([[1, "a"]], columns=["same", "same"]),
    "no rows": pd.DataFrame(
        {
            "n": pd.array([], "int64"),
            "t": pd.array([], "datetime64[us, UTC]"),
            "s": pd.Series([], dtype="str"),
        }
    ),
    "no columns": pd.DataFrame(index=pd.RangeIndex(3)),
    "empty": pd.DataFrame(),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_come_back(name: str) -> None:
    """A DataFrame comes back with its columns, types and index."""
    pd.testing.assert_frame_equal(decode(encode(FRAMES[name])), FRAMES[name])


def test_a_query_of_every_type_comes_back() -> None:
    """What a query may answer comes back, empty or not."""
    import duckdb

    from nbqueue.stores.reader import run_query

    sql = (
        "SELECT 'a'::ENUM('a', 'b') AS e, 'x' AS text, make_timestamptz(0) AS at, 1.5::DOUBLE AS s, 7 AS i,"
        " true AS yes, DATE '2026-01-02' AS day, uuid() AS id, INTERVAL 2 DAY AS span, [1, 2] AS l, {'a': 1} AS m,"
        " 1.50::DECIMAL(9, 2) AS d, 'x'::BLOB AS b, TIME '01:02' AS t, 2::HUGEINT AS h, NULL AS nothing,"
        " MAP {'k': 1} AS map WHERE ?"
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone='UTC'")
        for one in (True, False):
            found = run_query(connection, sql, [one], {})
            pd.testing.assert_frame_equal(decode(encode(found)), found)


@pytest.mark.parametrize(
    "value",
    [
        *(
            np.arange(6).reshape(2, 3).T,
            np.array([1 + 2j]),
            np.array(["a", "bc"]),
            np.array([b"x"]),
            np.empty((0, 3)),
        ),
        *(np.array(["2026-01-02"], "M8[us]"), np.array([None, 1, "x"], object), np.array(3.5)),
    ],
    ids=repr,
)
def test_arrays_come_back(value: np.ndarray[Any, Any]) -> None:
    """An array comes back with its type and shape, and can be written to."""
    found = decode(encode(value))
    np.testing.assert_array_equal(found, value)
    assert (found.dtype, found.shape) == (value.dtype, value.shape)
    assert found.flags.writeable


def test_scalars_come_back() -> None:
    """Numbers of NumPy and moments of pandas come back as what they were."""
    moment = pd.Timestamp("2026-01-02 03:04:05.123456789", tz="Europe/Berlin")
    given_values = [
        np.int64(3),
        np.float64(0.5),
        np.bool_(True),
        np.datetime64("2026-01-02"),
        moment,
        pd.Timedelta("1us"),
    ]
    found = decode(encode(given_values))
    assert found == given_values
    assert [type(one) for one in found] == [type(one) for one in given_values]
    nat, missing = decode(encode([pd.NaT, pd.NA]))
    assert nat is pd.NaT
    assert missing is pd.NA


def test_arrays_of_records_stay() -> None:
    """An array whose items have fields does not travel, and the error says what to do."""
    with pytest.raises(NotSupported, match="take its fields apart"):
        encode(np.zeros(1, [("a", "i4")]))


# ------------------------------------------------------------------------------------------------- what is refused
class Word(str):
    """A text that may have code."""

    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [object(), len, Path("x"), ValueError("x"), Word("x"), type, os, functools.partial(len)],
    ids=[
        "an object",
        "a builtin",
        "a path",
        "an error",
        "a text with code",
        "a class",
        "a module",
        "a partial",
    ],
)
def test_other_objects_do_not_leave(value: object) -> None:
    """What does not travel is refused where it is, by the name of its class."""
    with pytest.raises(NotSupported, match=type(value).__name__):
        encode(["turn", {"deep": [value]}])


def test_too_deep() -> None:
    """A value nested without end is refused where it is."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NotSupported, match="too deeply"):
        encode(value)
    while value:
        value = value.pop()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    """A pickle that would leave a mark leaves none, while Python's own reader would have."""
    mark = tmp_path / "mark"
    bomb = pickle.dumps(["fine so far", Bomb(mark)], protocol)
    with pytest.raises(WireError, match="does not travel; nothing of it was run"):
        decode(bomb)
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists()


FORBIDDEN = [
    *(
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
    ),
    *(
        ("subprocess", "Popen"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("importlib", "import_module"),
    ),
    *(("builtins", "object"), ("nbqueue.secret", "load_secret"), ("nbqueue.payload.pickles", "load")),
    *(
        ("nbqueue.wire.makers", "let_travel"),
        ("nbqueue.wire.makers", "_MAKERS"),
        ("copyreg", "_reconstructor"),
    ),
    *(("nbqueue.wire.makers", "_MAKERS.Claim.__class__"), ("nbqueue.wire.makers", "_MAKERS.__class__")),
    *(("nbqueue.jobs", "Claim"), ("numpy", "ndarray"), ("numpy._core.multiarray", "_reconstruct")),
    *(("", ""), ("nbqueue.wire.makers", ""), ("no.such.module", "thing"), ("antigravity", "fly")),
]


@pytest.mark.parametrize(("module", "name"), FORBIDDEN)
def test_names_are_refused_unseen(module: str, name: str) -> None:
    """Whatever a message names besides the makers is refused, and no module is imported for it."""
    start = f"c{module}\n{name}\n".encode()
    stacked = pickle.dumps(module, 4)[:-1] + pickle.dumps(name, 4)[2:-1] + b"\x93"
    for named in (start, stacked):
        for end in (b".", b"(S'true'\ntR.", b")\x81.", b"}b."):
            with pytest.raises(WireError, match=r"does not travel|cannot be read"):
                decode(named + end)
    import sys

    assert "antigravity" not in sys.modules


def test_extensions_and_persistent_ids_are_refused() -> None:
    """The other ways in which a pickle may point outside itself lead nowhere."""
    for data in (b"\x82\x01.", b"Pid\n.", b"S'x'\nQ.", b"i" + b"os\nsystem\n."):
        with pytest.raises(WireError):
            decode(data)


def test_makers_cannot_be_changed() -> None:
    """A message cannot give a maker another thing to make."""
    maker = b"cnbqueue.wire.makers\n_MAKERS.Claim\n"
    state = pickle.dumps((None, {"_make": 7, "name": "x"}), 2)[2:-1]
    with pytest.raises(WireError):
        decode(b"\x80\x02" + maker + state + b"b.")
    assert decode(encode(CLAIM)) == CLAIM


def _is_greedy(data: bytes) -> bool:
    """Whether a pickle may ask for gigabytes of memory at once, which only who has the key could make it do."""
    place = 0
    with contextlib.suppress(Exception):
        for code, argument, at in pickletools.genops(data):
            place = at or 0
            if code.name in ("LONG_BINPUT", "PUT") and int(str(argument)) > 1 << 20:
                return True
        return False
    # From here on it is no pickle to who wrote it down; to who reads it, it may be.
    rest = data[place:]
    places = (at for at, code in enumerate(rest) if code in b"rp")
    return any(int.from_bytes(rest[at + 1 : at + 5], "little") > 1 << 20 for at in places)


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    """Random bytes are a plain value or a WireError, nothing else."""
    assume(not _is_greedy(data))
    _read(data)


@given(
    st.sampled_from([CLAIM, [REPORT] * 3, [NewJob(uuid.UUID(int=n), SPEC, "x") for n in range(20)], RECORD]),
    st.data(),
)
def test_damaged_messages(message: Any, data: st.DataObject) -> None:
    """A message that was cut, or had bytes changed, is a value or a WireError."""
    whole = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    part = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    assume(not _is_greedy(part))
    _read(part)


def _read(data: bytes) -> None:
    try:
        decode(data)
    except WireError:
        return


def test_truncated_everywhere() -> None:
    """A message cut at any place is refused."""
    whole = encode(("turn", [REPORT], FRAMES["categories"]))
    for length in range(len(whole)):
        with pytest.raises(WireError, match="cannot be read"):
            decode(whole[:length])


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        *(
            ("_Rows", ("UUID", False, [1 << 200])),
            ("_Rows", ("UUID", False, ["x"])),
            ("_Rows", ("UUID", False)),
        ),
        *(
            ("_Rows", ("Claim", False, [1])),
            ("_Rows", ("os.system", False, ["true"])),
            ("_Rows", ("Claim", False)),
        ),
        *(("_Rows", ("JobRecord", True, *[[1]] * 20)), ("_Rows", ("JobRecord", True, *[[1]] * 20, []))),
        *(("_Nested", ([2], [1])), ("_Nested", ([1], [1, 2])), ("Claim", (1,)), ("State", ("gone",))),
        *(("ndarray", ("|O", (1,), bytes(8))), ("ndarray", ("<i8", (9, 9, 9), bytes(8)))),
        *(("ndarray", ("<i8", (10**12, 10**12), b"")), ("ZoneInfo", ("../../etc/passwd",))),
        *(("DataFrame", (("x",), ("y",), [])), ("Series", (("code", "1"), ("range", 0, 1, 1, None), ""))),
    ],
)
def test_parts_that_do_not_fit(tag: str, parts: tuple[Any, ...]) -> None:
    """A maker that is given parts of another kind refuses them."""
    body = pickle.dumps(parts, 4)[2:-1]
    with pytest.raises(WireError):
        decode(b"\x80\x04" + f"cnbqueue.wire.makers\n_MAKERS.{tag}\n".encode() + body + b"R.")


# ----------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize("name", errors.__all__)
def test_errors_are_raised_again(name: str) -> None:
    """An error of nbqueue's comes out as the same class with the same sentence."""
    kind = getattr(errors, name)
    found = unpack_error(decode(encode(pack_error(kind("job 7 is gone")))))
    assert type(found) is kind
    assert str(found) == "job 7 is gone"


def test_a_failed_job_keeps_its_details() -> None:
    """JobFailed carries the job, the error and the traceback across."""
    error = JobFailed(
        "it failed", job_id="7", cause="timeout", error="KeyError: 'x'", traceback="Traceback …"
    )
    found = unpack_error(decode(encode(pack_error(error))))
    assert isinstance(found, JobFailed)
    assert vars(found) == vars(error)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (TimeoutError("too slow"), TimeoutError, "too slow"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), ValueError, "'utf-8' codec can't decode byte 0x78"),
        (KeyError("x"), QueueError, "KeyError: 'x'"),
        (KeyboardInterrupt(), QueueError, "KeyboardInterrupt"),
        (subprocess.CalledProcessError(3, "x"), QueueError, "CalledProcessError: Command 'x' returned"),
    ],
)
def test_other_errors(error: BaseException, kind: type[Exception], sentence: str) -> None:
    """Python's plain errors stay what they are; any other is a QueueError that names it."""
    found = unpack_error(decode(encode(pack_error(error))))
    assert type(found) is kind
    assert str(found).startswith(sentence)
