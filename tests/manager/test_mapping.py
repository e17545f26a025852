"""What ``map`` takes and what it refuses, and what the handlers are given."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from enum import Enum
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import pandas as hpd

import nbqueue as nbq
from nbqueue.testing import drain

given_rows: list[Any] = []


class Color(Enum):
    RED = 1


@pytest.fixture(autouse=True)
def _fresh() -> None:
    given_rows.clear()


def keep_rows() -> Any:
    @nbq.job
    def keep(**row: Any) -> None:
        given_rows.append(row)

    return keep


def keep_items() -> Any:
    @nbq.job
    def keep(item: Any) -> None:
        given_rows.append(item)

    return keep


# ------------------------------------------------------------------------------------------------- the work
def test_each_way_to_name_the_work(queues: nbq.QueueManager) -> None:
    """A job, a job with options, a command's name and a Job class are all work."""

    @nbq.job(queue="imports")
    def import_csv(path: str) -> None: ...

    class Load(nbq.Job):
        queue = "loads"
        priority = 3
        path: str

        def handle(self) -> None: ...

    options = import_csv.options(queue="late", metadata={"team": "data"})
    batches = [queues.map(work, ["a.csv"]) for work in (import_csv, options, "any:name", Load)]
    receipts = [receipt for batch in batches for receipt in batch]
    assert [r.command for r in receipts] == ["import_csv", "import_csv", "any:name", "Load"]
    assert [r.queue for r in receipts] == ["imports", "late", "default", "loads"]
    assert [r.metadata for r in receipts] == [{}, {"team": "data"}, {}, {}]
    assert queues.jobs(command="Load")["priority"].tolist() == [3]


def test_options_are_for_every_row(queues: nbq.QueueManager) -> None:
    """What is said at map wins over what the job says of itself; a CommandQueue gives its name."""

    @nbq.job(tries=2)
    def work(item: int) -> None: ...

    batch = queues.map(work, [1, 2], delay=60, priority=5, metadata={"n": 1}, queue="other")
    jobs = queues.jobs(batch=batch.batch_id)
    assert set(jobs["status"]) == {"scheduled"}
    assert set(jobs["priority"]) == {5}
    assert set(jobs["max_attempts"]) == {2}
    assert set(jobs["queue"]) == {"other"}
    assert [r.metadata for r in batch] == [{"n": 1}] * 2
    assert [r.queue for r in queues.add_queue("mine").map(work, [1])] == ["mine"]


@pytest.mark.parametrize(
    ("work", "part"),
    [
        (print, "put @job above it"),
        (nbq.QueuedCommand("x").with_arg(1), "without its arguments"),
        (3, "cannot be dispatched"),
        ("", "command is empty"),
    ],
    ids=repr,
)
def test_what_is_no_work(queues: nbq.QueueManager, work: object, part: str) -> None:
    """The sentence says what to write instead."""
    with pytest.raises(nbq.InvalidCommand, match=part):
        queues.map(work, [1])


# ------------------------------------------------------------------------------------------------ the items
@pytest.mark.parametrize(
    "items",
    [
        [1, "a", None, (1, 2), [3], date(2026, 1, 2), Color.RED],
        range(3),
        (n for n in (1, 2)),
        {1},
        np.array([1.5, 2.5]),
        pd.Series([True, False], index=["x", "y"]),
        pd.Index(["a", "b"]),
    ],
    ids=lambda items: type(items).__name__,
)
def test_an_item_is_one_argument(queues: nbq.QueueManager, items: Any) -> None:
    """Of whatever can be iterated over; tuples stay one, and numbers of NumPy become Python's."""
    values = list(items)
    queues.map(keep_items(), iter(values) if type(items).__name__ == "generator" else items)
    drain(queues)
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    assert given_rows == plain
    assert list(map(type, given_rows)) == list(map(type, plain))


@pytest.mark.parametrize("dtype", ["M8[ns]", "M8[us]", "M8[D]", "m8[ns]", "m8[us]"])
def test_times_of_numpy_are_those_of_pandas(queues: nbq.QueueManager, dtype: str) -> None:
    """An array of times gives what a Series of it would, never a count of nanoseconds."""
    array = np.array([20_000, "NaT"], dtype=dtype)
    queues.map(keep_items(), array)
    drain(queues)
    (time, gap), scalar = given_rows, array[0]
    assert time == (pd.Timestamp if dtype.startswith("M") else pd.Timedelta)(scalar)
    assert type(time) is (pd.Timestamp if dtype.startswith("M") else pd.Timedelta)
    assert gap is pd.NaT


def test_dicts_are_keyword_arguments(queues: nbq.QueueManager) -> None:
    """Each with the keys it has."""
    rows = [{"path": "a"}, {"path": "b", "batch": 2}]
    queues.map(keep_rows(), rows)
    drain(queues)
    assert given_rows == rows


@pytest.mark.parametrize(
    ("items", "part"),
    [
        ("a.csv", "not str"),
        (b"a.csv", "not bytes"),
        (3, "not int"),
        ({"a": 1}, "not dict"),
        ([{"item": 1}, 2], "item 1 is int 2"),
        ([{1: 2}], "the key 1"),
        (pd.DataFrame({0: [1]}), "column 0 can be no keyword"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "column 'a' is there 2 times"),
    ],
    ids=str,
)
def test_what_has_no_rows(queues: nbq.QueueManager, items: object, part: str) -> None:
    """What is no iterable of items, or mixes two kinds, is refused; nothing is written."""
    with pytest.raises(nbq.InvalidCommand, match=part):
        queues.map("work", items)
    assert queues.jobs().empty


# ---------------------------------------------------------------------------------------------- the columns
def handlers() -> dict[str, Any]:
    @nbq.job
    def function(ctx: nbq.Context, path: str, batch: int = 1) -> None: ...

    class Class(nbq.Job):
        path: str
        batch: int = 1

        def handle(self) -> None: ...

    @nbq.command("command")
    def command(path: str, *, batch: int = 1) -> None: ...

    return {"function": function, "class": Class, "command": "command"}


@pytest.mark.parametrize("kind", ["function", "class", "command"])
@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        (["path", "bacth"], ("'bacth'", "did you mean 'batch'")),
        (["path", "x", "y"], ("'x', 'y'",)),
        (["batch"], ("nothing is named 'path'",)),
        (["path", "ctx"], ("'ctx'",)),
    ],
    ids=str,
)
def test_columns_must_fit(
    queues: nbq.QueueManager, kind: str, columns: list[str], parts: tuple[str, ...]
) -> None:
    """A column that the handler does not take, or one that it needs, is named before anything is written."""
    frame = pd.DataFrame({name: ["x"] for name in columns})
    for items in (frame, frame.to_dict("records")):
        with pytest.raises(nbq.InvalidCommand) as refused:
            queues.map(handlers()[kind], items)
        assert all(part in str(refused.value) for part in parts)
    assert queues.jobs().empty


def test_context_is_no_column(queues: nbq.QueueManager) -> None:
    """A handler that is given its context takes nothing else of that name, whatever other names it takes."""

    @nbq.job
    def any_name(ctx: nbq.Context, **row: int) -> None: ...

    @nbq.job
    def by_position(ctx: nbq.Context, /, **row: int) -> int:
        return row["ctx"]

    class Field(nbq.Job):
        ctx: int

        def handle(self) -> int:
            return self.ctx

    rows = [{"ctx": 1, "n": 2}]
    for items in (rows, pd.DataFrame(rows)):
        with pytest.raises(nbq.InvalidCommand, match=r"'ctx'.*rename it"):
            queues.map(any_name, items)
    with pytest.raises(nbq.InvalidCommand, match=r"'ctx'.*rename it"):
        queues.dispatch(any_name.call(ctx=1))
    assert queues.jobs().empty
    fitting = [queues.map(work, [{"ctx": 1}]) for work in (by_position, Field)]
    drain(queues)
    assert [batch.results().tolist() for batch in fitting] == [[1], [1]]


@pytest.mark.parametrize("kind", ["function", "class", "command"])
def test_columns_that_fit(queues: nbq.QueueManager, kind: str) -> None:
    """All of them, or those without a default; a name that nobody here handles takes any."""
    work = handlers()[kind]
    assert len(queues.map(work, pd.DataFrame({"path": ["a"]}))) == 1
    assert len(queues.map(work, pd.DataFrame({"batch": [1], "path": ["a"]}))) == 1
    assert len(queues.map("unknown:here", pd.DataFrame({"whatever": [1]}))) == 1


def test_item_must_fit(queues: nbq.QueueManager) -> None:
    """A handler that takes no item, or needs more, is found out before anything is written."""

    @nbq.job
    def two(a: int, b: int) -> None: ...

    with pytest.raises(nbq.InvalidCommand, match="missing"):
        queues.map(two, [1])
    assert queues.jobs().empty


def test_click_command_takes_items(queues: nbq.QueueManager) -> None:
    """It has a command line and no keywords."""

    @nbq.command("shout")
    @click.command()
    @click.argument("word")
    def shout(word: str) -> None:
        given_rows.append(word.upper())

    with pytest.raises(nbq.InvalidCommand, match="click command"):
        queues.map("shout", pd.DataFrame({"word": ["a"]}))
    queues.map("shout", ["a", "b"])
    drain(queues)
    assert given_rows == ["A", "B"]


def test_what_cannot_be_stored_is_refused_whole(queues: nbq.QueueManager) -> None:
    """One item that cannot be pickled keeps all the others out."""
    with pytest.raises(nbq.InvalidCommand, match="keep"):
        queues.map(keep_items(), [1, (n for n in ())])
    assert queues.jobs().empty


def test_row_that_makes_no_job_class_is_refused(queues: nbq.QueueManager) -> None:
    """A class has a say in what is valid: its word comes back with the row's label."""

    class Load(nbq.Job):
        path: str

        def __post_init__(self) -> None:
            if not self.path:
                raise ValueError("no path")

        def handle(self) -> None: ...

    with pytest.raises(nbq.InvalidCommand, match='Load: the row "b" cannot be made: no path'):
        queues.map(Load, pd.DataFrame({"path": ["x", ""]}, index=["a", "b"]))
    assert queues.jobs().empty


def test_class_with_options_of_its_instances(queues: nbq.QueueManager) -> None:
    """A property that is an option is asked of each row; fields that a row leaves out have their defaults."""

    class Load(nbq.Job):
        size: int
        unit: str = "kB"

        @property
        def queue(self) -> str:
            return "large" if self.size > 10 else "small"

        def handle(self) -> str:
            return f"{self.size} {self.unit}"

    batch = queues.map(Load, pd.DataFrame({"size": [1, 100]}))
    assert [receipt.queue for receipt in batch] == ["small", "large"]
    drain(queues)
    assert batch.results().tolist() == ["1 kB", "100 kB"]
    assert batch.frame().columns.tolist() == ["size", "state", "result", "error", "seconds"]


# ----------------------------------------------------------------------------------------- values and types
FRAME = pd.DataFrame(
    {
        "int8": np.array([1, -1], "i1"),
        "uint64": np.array([0, 2**64 - 1], "u8"),
        "float32": np.array([0.1, np.nan], "f4"),
        "float64": [-0.0, float("inf")],
        "bool": [True, False],
        "text": ["ü", None],
        "object": [np.int64(3), "x"],
        "huge": [2**80, 1],
        "time": pd.to_datetime(["2026-01-01", None]),
        "zoned": pd.to_datetime(["2026-01-01", "2026-06-01"]).tz_localize("Europe/Berlin"),
        "delta": pd.to_timedelta([1, None], unit="s"),
        "category": pd.Categorical(["a", None], categories=["b", "a"]),
        "numbers": pd.Categorical([3, 1], ordered=True),
        "nullable": pd.array([1, None], dtype="Int64"),
        "maybe": pd.array([True, None], dtype="boolean"),
        "list": [[1], {"a": (1,)}],
        "date": [date(2026, 1, 1), None],
    },
    index=pd.Index([10, 20], name="id"),
)


@pytest.mark.parametrize(
    "columns", [[name] for name in FRAME] + [list(FRAME)], ids=lambda c: "-".join(c)[:20]
)
def test_row_is_the_equal_dict(queues: nbq.QueueManager, columns: list[str]) -> None:
    """A handler gets the values and types of ``to_dict("records")``, whichever way the frame was written."""
    frame = FRAME[columns]
    queues.map(keep_rows(), frame)
    drain(queues)
    expected = frame.to_dict("records")
    assert repr(given_rows) == repr(expected)
    for row, record in zip(given_rows, expected, strict=True):
        assert {name: type(value) for name, value in row.items()} == {
            name: type(value) for name, value in record.items()
        }


plain_frames = hpd.data_frames(
    [
        hpd.column("number", elements=st.integers(-(2**63), 2**63 - 1), dtype="int64"),
        hpd.column("share", elements=st.floats(width=64), dtype="float64"),
        hpd.column("small", elements=st.floats(width=32), dtype="float32"),
        hpd.column("flag", dtype="bool"),
        hpd.column("name", elements=st.text(max_size=5), dtype="object"),
    ],
    index=hpd.range_indexes(max_size=5),
)


@given(plain_frames)
@settings(max_examples=50)
def test_plain_frames_are_stored_as_their_dicts(frame: pd.DataFrame) -> None:
    """The column-wise way writes what the row-wise way does, to the letter."""
    with nbq.connect(":memory:") as queues:
        stored = [
            queues.map("work", items).batch_id for items in (frame, frame.to_dict("records")) if len(items)
        ]
        texts = [
            queues.sql("SELECT arguments FROM jobs WHERE batch_id = ?::UUID ORDER BY number", [str(one)])
            for one in stored
        ]
    assert not texts or texts[0]["arguments"].tolist() == texts[1]["arguments"].tolist()


# ----------------------------------------------------------------------------------------------- the accessor
def test_frame_dispatches_itself(queues: nbq.QueueManager) -> None:
    """``frame.nbq.dispatch`` is ``map`` on the queue that was connected last."""
    batch = pd.DataFrame({"a": [1, 2]}).nbq.dispatch(keep_rows(), key="mine", queue="other")
    assert (len(batch), batch.key) == (2, "mine")
    assert queues.batch(batch.batch_id).batch_id == batch.batch_id
    drain(queues)
    assert given_rows == [{"a": 1}, {"a": 2}]


def test_frame_inside_a_job_goes_to_its_queue(queues: nbq.QueueManager) -> None:
    """A job's frames are dispatched where the job came from."""

    @nbq.job
    def outer() -> str:
        return str(pd.DataFrame({"a": [1]}).nbq.dispatch("inner").batch_id)

    receipt = queues.dispatch(outer.call())
    with nbq.connect(":memory:"):  # connected last, and not meant
        drain(queues)
        assert queues.batch(receipt.result()).command == "inner"


@pytest.mark.parametrize(
    "order",
    [
        "import pandas, nbqueue",
        "import nbqueue, pandas",
        "import nbqueue, threading; import pandas.core.frame",
        "import nbqueue, importlib.util; importlib.util.find_spec('pandas'); import pandas",
        "import nbqueue, importlib.util; importlib.util.find_spec('pandas.core'); import pandas",
    ],
)
def test_accessor_whatever_is_imported_first(order: str) -> None:
    """The accessor is there without anything else having been called, and without nbqueue importing pandas."""
    code = f"{order}\nimport pandas, sys\nassert pandas.DataFrame({{'a': [1]}}).nbq.dispatch\n"
    code += "assert not [one for one in sys.meta_path if type(one).__module__.startswith('nbqueue')]"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
