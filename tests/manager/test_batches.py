"""What a batch tells of its rows, on the index and with the types that they came with, now and after a restart."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_index_equal, assert_series_equal

import nbqueue as nbq
from nbqueue.stores import books, journal
from nbqueue.stores.ledger import Ledger
from nbqueue.testing import drain

#: Longer than anything here takes; a test that needs it has failed.
SOON = 30.0


def ratio() -> Any:
    """A job that fails for some rows."""

    @nbq.job
    def divide(number: int, by: int) -> int:
        return number // by

    return divide


FRAME = pd.DataFrame({"number": [10, 20, 30], "by": [5, 0, 3]}, index=pd.Index(["a", "b", "c"], name="id"))


@pytest.fixture
def in_memory() -> Iterator[nbq.QueueManager]:
    """For what is the same in every store."""
    with nbq.connect(":memory:") as queues:
        yield queues


# --------------------------------------------------------------------------------------------- how it stands
def test_progress(queues: nbq.QueueManager) -> None:
    """Rows are counted where they stand, before, after, and once failed ones wait again."""
    batch = queues.map(ratio(), FRAME)
    assert batch.progress() == (3, 3, 0, 0, 0, 0)
    drain(queues)
    progress = batch.progress()
    assert progress == (3, 0, 0, 2, 1, 0)
    assert (progress.ended, progress.fraction, progress.forgotten) == (3, 1.0, 0)
    assert batch.retry_failed() == 1
    assert batch.progress().pending == 1
    assert batch.progress().fraction == pytest.approx(2 / 3)
    assert batch.cancel() == 1
    assert batch.progress() == (3, 0, 0, 2, 0, 1)
    assert batch.retry_failed() == batch.cancel() == 0


def test_progress_of_running_rows(queues: nbq.QueueManager) -> None:
    """A row that runs is counted as such."""
    began, go = threading.Event(), threading.Event()

    @nbq.job
    def hold(item: int) -> None:
        began.set()
        assert go.wait(SOON)

    batch = queues.map(hold, [1, 2])
    with queues.worker(concurrency=1):
        assert began.wait(SOON)
        assert (batch.progress().running, batch.progress().pending) == (1, 1)
        go.set()
        assert batch.wait(SOON) is batch
    assert batch.progress().succeeded == 2


def test_progress_is_cheap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is asked for, the history is folded once after a restart, and never before."""
    folds: list[object] = []
    real = Ledger.batch_counts
    monkeypatch.setattr(Ledger, "batch_counts", lambda self, batch: folds.append(batch) or real(self, batch))
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        batch = queues.map(ratio(), FRAME)
        drain(queues)
        assert batch.progress().ended == 3
        assert not folds
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        again = queues.batch(batch.batch_id)
        assert [again.progress() for _ in range(3)] == [batch_progress(again)] * 3
        again.retry_failed()
        assert again.progress().pending == 1
    assert len(folds) == 1


def batch_progress(batch: nbq.Batch) -> Any:
    """What the rows themselves say."""
    states = batch.frame()["state"].value_counts()
    names = ("pending", "running", "succeeded", "failed", "cancelled")
    return (len(batch), *(int(states[name]) for name in names))


def test_progress_of_many_runs_is_cheap(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """What rows a batch has is not read to count them, though somebody else may have mapped others under its key."""
    first = queues.map("x:y", pd.Series(range(4)), key="rows")
    queues.map("x:y", pd.Series(range(4))[::-1], key="rows")
    asked: list[object] = []
    real = Ledger.batch
    monkeypatch.setattr(Ledger, "batch", lambda self, which: (asked.append(which), real(self, which))[1])
    assert [first.progress() for _ in range(3)] == [(4, 4, 0, 0, 0, 0)] * 3
    assert not asked
    queues.map("x:y", [0], key="rows")
    assert (first.progress(), len(first)) == ((1, 1, 0, 0, 0, 0), 1)
    queues.map("x:y", [], key="rows")
    assert (first.progress(), len(first)) == ((0, 0, 0, 0, 0, 0), 0)


def test_books_are_few(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many batches only some are counted as they move on, and the others come out the same."""
    monkeypatch.setattr(books, "BOOKS_KEPT", 1)
    batches = [queues.map(ratio(), FRAME) for _ in range(3)]
    assert [batch.progress().pending for batch in batches] == [3, 3, 3]
    drain(queues)
    assert [batch.progress() for batch in batches] == [(3, 0, 0, 2, 1, 0)] * 3
    assert batches[0].retry_failed() == 1
    assert [batch.progress().failed for batch in batches] == [0, 1, 1]


def test_wait_ends_with_the_last_row(queues: nbq.QueueManager) -> None:
    """Whatever the rows ended with, a batch that has ended is waited for no longer."""
    batch = queues.map(ratio(), FRAME)
    with pytest.raises(TimeoutError, match=r"has not ended within 0.01 s; 0 of 3 ended \(3 pending\)"):
        batch.wait(0.01)
    with queues.worker():
        batch.wait(SOON)
    assert batch.progress().ended == 3
    batch.wait(0)


def test_wait_ends_with_the_queue(target: str) -> None:
    """Who waits for a batch whose queue is closed is told so."""
    queues = nbq.connect(target)
    batch = queues.map("nobody:here", [1])
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(batch.wait)
        queues.close()
        with pytest.raises(nbq.QueueUnavailable, match="closed"):
            waiting.result(SOON)
    assert repr(batch) == f"<Batch {batch.batch_id} of nobody:here>"


def test_await_gives_the_results(queues: nbq.QueueManager) -> None:
    """Awaiting a batch is its results, and does not block the loop."""

    async def both() -> list[int]:
        batch = queues.map(ratio(), FRAME[FRAME.by > 0])
        with queues.worker():
            return list(await batch)

    assert asyncio.run(both()) == [2, 10]


def test_await_can_be_given_up(queues: nbq.QueueManager) -> None:
    """Who awaits no longer leaves nothing behind that the loop would wait for."""
    batch = queues.map("nobody:here", [1])

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batch, 0.05)

    asyncio.run(asyncio.wait_for(give_up(), SOON))
    assert not [t for t in threading.enumerate() if t.name.startswith("asyncio")]


@pytest.mark.parametrize("items", [[], pd.DataFrame(), pd.DataFrame({"number": [], "by": []}), pd.Series([])])
def test_empty_batch_has_ended(queues: nbq.QueueManager, items: Any) -> None:
    """No rows are a batch that is finished, and is found again."""
    batch = queues.map(ratio(), items)
    again = queues.batch(batch.wait(0).batch_id)
    assert again.progress() == (0, 0, 0, 0, 0, 0)
    assert (len(again), bool(again), again.progress().fraction) == (0, True, 1.0)
    assert again.results().empty
    assert list(again.frame()) == [
        *getattr(items, "columns", ["number"]),
        "state",
        "result",
        "error",
        "seconds",
    ]
    assert list(again) == []
    assert again.retry_failed() == again.cancel() == 0


# ------------------------------------------------------------------------------------------ what became of it
def test_frame_is_the_input_with_what_became_of_it(queues: nbq.QueueManager) -> None:
    """On the input's index and in its order: state, result, error, seconds."""
    batch = queues.map(ratio(), FRAME)
    before = batch.frame()
    assert before["state"].tolist() == ["pending"] * 3
    assert before[["result", "error", "seconds"]].isna().all(axis=None)
    drain(queues)
    frame = batch.frame()
    assert_frame_equal(frame[["number", "by"]], FRAME)
    assert list(frame) == ["number", "by", "state", "result", "error", "seconds"]
    assert frame["state"].tolist() == ["succeeded", "failed", "succeeded"]
    assert frame["result"].tolist() == [2, pd.NA, 10]
    assert frame["error"].dropna().tolist() == ["ZeroDivisionError: integer division or modulo by zero"]
    assert frame["seconds"].ge(0).all()
    assert (frame["state"].dtype, frame["seconds"].dtype) == ("category", "float64")
    failed = batch.failed()
    assert failed.index.tolist() == ["b"]
    assert_frame_equal(failed[["number", "by", "error"]], frame.loc[["b"], ["number", "by", "error"]])


def test_results_are_on_the_index(queues: nbq.QueueManager) -> None:
    """Missing where a row has not succeeded, without changing the others."""
    batch = queues.map(ratio(), FRAME)
    drain(queues)
    results = batch.results()
    assert_index_equal(results.index, FRAME.index)
    assert results.tolist() == [2, pd.NA, 10]
    assert FRAME.assign(result=results)["result"].sum() == 12


NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - as many jobs return it


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, ValueError], "Int64"),
        ([2**60 + 1, ValueError], "Int64"),
        ([2**70, 1], "object"),
        ([1, 2.5], "float64"),
        ([2**60 + 1, 2.5], "object"),
        ([1.5, ValueError], "float64"),
        ([True, False], "bool"),
        ([True, ValueError], "boolean"),
        (["a", "b"], pd.Series(["a"]).dtype),
        (["a", ValueError], pd.Series(["a"]).dtype),
        ([None, None], "object"),
        ([1, None], "object"),
        ([(1, 2), [3]], "object"),
        ([pd.Timestamp("2026-01-01", tz="UTC"), ValueError], "datetime64[us, UTC]"),
        ([ValueError, ValueError], "object"),
        ([np.float64(0.1), np.float64(1)], "float64"),
        ([np.float64(0.1), 1.0, ValueError], "float64"),
        ([np.float32(0.1), np.float32(2)], "float32"),
        ([np.float32(0.1), 0.1], "float64"),
        ([np.int32(1), np.int32(-1)], "int32"),
        ([np.int32(1), ValueError], "Int32"),
        ([np.int8(1), np.uint8(255)], "int16"),
        ([np.int32(1), 2**40], "int64"),
        ([np.uint64(2**64 - 1), ValueError], "UInt64"),
        ([np.uint64(2**64 - 1), -1], "object"),
        ([np.int64(2**60 + 1), 0.5], "object"),
        ([np.int8(1), np.float32(0.5)], "float32"),
        ([np.bool_(True), False], "bool"),
        ([np.bool_(True), ValueError], "boolean"),
        ([True, 1], "object"),
        ([pd.NA, 2**60 + 1], "Int64"),
        ([pd.NA, True], "boolean"),
        ([pd.NA, 0.5], "Float64"),
        ([pd.NA, float("nan")], "object"),
        ([pd.NA, "a"], "string"),
        ([pd.NA, pd.NA], "object"),
        ([NAIVE, ValueError], "datetime64[us]"),
        ([datetime(2026, 1, 1, tzinfo=UTC), pd.NaT], "datetime64[us, UTC]"),
        ([NAIVE, datetime(2026, 1, 1, tzinfo=UTC)], "object"),
        ([pd.NaT, pd.Timestamp(1, unit="ns")], "datetime64[ns]"),
        ([NAIVE.replace(year=9999), pd.Timestamp(1, unit="ns")], "object"),
        ([np.datetime64(1, "ns"), pd.Timestamp(1, unit="ns")], "datetime64[ns]"),
        ([timedelta(days=1), ValueError], "timedelta64[us]"),
        ([pd.NaT, pd.Timedelta(1, "ns")], "timedelta64[ns]"),
        ([pd.NaT, pd.NaT], "object"),
        ([date(2026, 1, 1), NAIVE], "object"),
    ],
    ids=str,
)
def test_results_lose_nothing(in_memory: nbq.QueueManager, values: list[Any], dtype: Any) -> None:
    """The type is the narrowest that holds every value as it was returned."""

    @nbq.job
    def give(at: int) -> Any:
        if values[at] is ValueError:
            raise ValueError
        return values[at]

    batch = in_memory.map(give, range(len(values)))
    drain(in_memory)
    results = batch.results()
    assert results.dtype == dtype
    for value, result in zip(values, results, strict=True):
        missing = value is ValueError or value is None or pd.isna(value) is True
        assert result is None or pd.isna(result) if missing else result == value


INDEXES = [
    pd.RangeIndex(3),
    pd.RangeIndex(10, 40, 10, name="n"),
    pd.Index([3, 1, 2], name="id"),
    pd.Index([3, 3, 3]),
    pd.Index([0.1, float("nan"), -0.0]),
    pd.Index(["ü", None, "c"]),
    pd.Index([1, "1", (1, 2)], dtype=object, tupleize_cols=False),
    pd.date_range("2026-01-01", periods=3, freq="D", name="day"),
    pd.date_range("2026-03-28", periods=3, tz="Europe/Berlin"),
    pd.to_timedelta([1, 2, 3], unit="h"),
    pd.CategoricalIndex(["b", "a", "b"], categories=["a", "b", "z"]),
    pd.CategoricalIndex([2, 1, 2], categories=pd.Index([1, 2], dtype="int8")),
    pd.period_range("2026-01", periods=3, freq="M"),
    pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["letter", None]),
    pd.MultiIndex.from_product([pd.to_datetime(["2026-01-01"]), [1.5, 2.5, 3.5]]),
]


@pytest.mark.parametrize("index", INDEXES, ids=lambda index: f"{type(index).__name__}-{index.dtype}")
def test_index_comes_back(in_memory: nbq.QueueManager, index: pd.Index[Any]) -> None:
    """Whatever the rows are labelled by, labels, types, names and order are those of the input."""
    frame = pd.DataFrame({"number": [1, 2, 3], "by": [1, 1, 1]}, index=index)
    made = in_memory.map(ratio(), frame)
    batch = in_memory.batch(made.batch_id)
    assert_frame_equal(batch.frame()[["number", "by"]], frame)
    assert_index_equal(batch.results().index, index, exact=True)
    assert_series_equal(in_memory.map("x:y", frame["by"]).frame()["item"].rename("by"), frame["by"])


COLUMNS = {
    "int8": np.array([1, -1], "i1"),
    "uint64": np.array([0, 2**64 - 1], "u8"),
    "float32": np.array([0.1, np.nan], "f4"),
    "float64": [-0.0, float("inf")],
    "bool": [True, False],
    "text": ["ü", None],
    "string": pd.array(["a", None], dtype="string"),
    "object": pd.Series([3, "x"], dtype=object),
    "time": pd.to_datetime(["2026-01-01", None]),
    "zoned": pd.to_datetime(["2026-01-01", "2026-06-01"]).tz_localize("Europe/Berlin"),
    "delta": pd.to_timedelta([1, None], unit="s"),
    "category": pd.Categorical(["a", None], categories=["b", "a"]),
    "ordered": pd.Categorical([3, 1], categories=[3, 1], ordered=True),
    "bins": pd.cut([1, 5], [0, 2, 6]),
    "codes": pd.Categorical([1, 2], categories=pd.Index([2, 1, 0], dtype="int8")),
    "days": pd.Categorical(pd.to_datetime(["2026-01-01", "2026-01-02"])),
    "nullable": pd.array([1, None], dtype="Int64"),
    "maybe": pd.array([True, None], dtype="boolean"),
    "list": [[1], {"a": (1,)}],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_column_comes_back(in_memory: nbq.QueueManager, name: str) -> None:
    """Input columns have the values and types that they went in with."""
    frame = pd.DataFrame({name: COLUMNS[name]})
    batch = in_memory.batch(in_memory.map("x:y", frame).batch_id)
    assert_frame_equal(batch.frame()[[name]], frame)


def test_labels_of_numpy_are_those_of_pandas(in_memory: nbq.QueueManager) -> None:
    """A time of NumPy among other labels is a time, not a count of nanoseconds."""
    index = pd.Index([0, np.datetime64(1, "ns"), np.timedelta64(1, "ns"), np.int8(7)], dtype=object)
    labels = in_memory.map("x:y", pd.Series(range(4), index=index)).results().index.tolist()
    assert labels == [0, pd.Timestamp(1, unit="ns"), pd.Timedelta(1, "ns"), 7]
    assert list(map(type, labels)) == [int, pd.Timestamp, pd.Timedelta, int]


def test_name_of_the_columns_comes_back(in_memory: nbq.QueueManager) -> None:
    """What the columns together are called is kept."""
    frame = FRAME.rename_axis(columns="field")
    shown = in_memory.batch(in_memory.map(ratio(), frame).batch_id).frame()
    assert_frame_equal(shown[["number", "by"]], frame)


def test_items_of_a_class_come_back(queues: nbq.QueueManager) -> None:
    """An item is the first field of a Job class, and the column has its name."""

    class Send(nbq.Job):
        to: str
        copies: int = 1

        def handle(self) -> str:
            return self.to

    batch = queues.map(Send, ["a", "bb"])
    drain(queues)
    frame = batch.frame()
    assert frame["to"].tolist() == frame["result"].tolist() == ["a", "bb"]
    assert list(frame) == ["to", "state", "result", "error", "seconds"]


def test_items_come_back(queues: nbq.QueueManager) -> None:
    """Items are a column named like the parameter that takes them; keyword arguments have one each."""
    assert queues.map(ratio().options(), [{"number": 1, "by": 2}, {"by": 3, "number": 1}]).frame()[
        ["number", "by"]
    ].to_dict("records") == [{"number": 1, "by": 2}, {"number": 1, "by": 3}]
    ragged = queues.map("x:y", [{"a": 1}, {"a": 2, "b": "x"}]).frame()
    assert ragged["a"].tolist() == [1, 2]
    assert (ragged["b"].isna().tolist(), ragged["b"].iloc[1]) == ([True, False], "x")

    @nbq.job
    def read(path: str) -> None: ...

    assert queues.map(read, ["a.csv"]).frame()["path"].tolist() == ["a.csv"]


def test_names_that_clash(queues: nbq.QueueManager) -> None:
    """A column of the input keeps its name; what nbqueue has to say takes another."""
    frame = pd.DataFrame({"state": ["Utah"], "error": [0.5], "job_error": [1]})
    shown = queues.map("x:y", frame).frame()
    assert list(shown) == ["state", "error", "job_error", "job_state", "result", "job_job_error", "seconds"]
    assert shown["state"].tolist() == ["Utah"]
    assert shown["job_state"].tolist() == ["pending"]


def test_receipts(queues: nbq.QueueManager) -> None:
    """A batch is its rows' receipts, in their order."""
    batch = queues.map(ratio(), FRAME)
    drain(queues)
    receipts = list(batch)
    assert [receipt.job_id for receipt in receipts] == [receipt.job_id for receipt in batch.receipts()]
    assert receipts[0].result(SOON) == 2
    assert isinstance(receipts[1].exception(SOON), nbq.JobFailed)
    assert queues.jobs(batch=batch.batch_id)["job_id"].tolist() == [str(r) for r in reversed(receipts)]
    assert queues.jobs(batch=batch, state="failed")["job_id"].tolist() == [str(receipts[1])]


def test_rows_know_their_batch(queues: nbq.QueueManager) -> None:
    """A job can tell which batch it is of."""

    @nbq.job
    def mine(ctx: nbq.Context, item: int) -> str:
        return str(ctx.batch_id)

    batch = queues.map(mine, [1])
    drain(queues)
    assert batch.results().tolist() == [str(batch.batch_id)]


def test_result_that_cannot_be_stored(queues: nbq.QueueManager) -> None:
    """It is the very object while the batch is held where it ran, and missing after that, which is said."""

    @nbq.job
    def lock(item: int) -> Any:
        return threading.Lock() if item else 0

    batch = queues.map(lock, [0, 1])
    drain(queues)
    kept = batch.results()[1]
    assert isinstance(kept, type(threading.Lock()))
    assert queues.batch(batch.batch_id).results()[1] is kept
    name = batch.batch_id
    del batch
    with pytest.warns(UserWarning, match="1 results .* could not be stored"):
        assert queues.batch(name).results().isna().tolist() == [False, True]


def test_arguments_that_are_pickled_are_handed_over(queues: nbq.QueueManager) -> None:
    """In the process that has them, a handler is given the very objects."""
    seen: list[Any] = []

    @nbq.job
    def take(item: Any) -> None:
        seen.append(item)

    items = [range(3), {1}, range(5)]
    batch = queues.map(take, items, key="ranges")
    drain(queues)
    assert [a is b for a, b in zip(seen, items, strict=True)] == [True, False, True]
    assert seen == items == batch.frame()["item"].tolist()
    assert queues.map(take, items, key="ranges").dispatched == 0


def test_what_was_pruned_is_said(queues: nbq.QueueManager) -> None:
    """Rows whose jobs were forgotten are left out with a warning; a batch without any left is not there."""
    batch = queues.map(ratio(), FRAME)
    drain(queues)
    receipts = list(batch)
    queues.forget(receipts[0])
    assert batch.progress() == (3, 0, 0, 1, 1, 0)
    assert (batch.progress().ended, batch.progress().forgotten) == (3, 1)
    assert "1 forgotten" in repr(batch)
    for look in (batch.results, batch.frame):
        with pytest.warns(UserWarning, match="1 of the 3 rows .* were pruned or forgotten"):
            assert look().index.tolist() == ["b", "c"]
    queues.forget(receipts[1:])
    assert batch.wait(0).progress().forgotten == 3
    for which in (batch.batch_id, str(batch.batch_id)):
        with pytest.raises(nbq.JobNotFound, match=str(batch.batch_id)):
            queues.batch(which)


def test_row_that_cannot_be_read(queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes nothing away from the others: what it had is missing, which is said with the reason."""
    module = types.ModuleType("of_another_process")
    color = Enum("Color", {"RED": 1}, module=module.__name__)
    module.Color = color  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    @nbq.job
    def give(number: int, item: Any) -> Any:
        if item == 3:
            raise ValueError("no")
        return item

    frame = pd.DataFrame({"number": [1, 2, 3, 4], "item": [7, color.RED, 3, range(2)]}, index=list("abcd"))
    monkeypatch.setenv("NBQUEUE_SECRET", "what it was signed with")
    batch = queues.map(give, frame)
    drain(queues)
    monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.setenv("NBQUEUE_SECRET", "what others have instead")
    results = (
        'the results of 2 of the 4 rows .* cannot be read here, and are missing; that of row "b": .*Color'
    )
    arguments = (
        'the arguments of 2 of the 4 rows .* cannot be read here, and are missing; those of row "b": .*Color'
    )
    with pytest.warns(UserWarning, match=results):
        assert batch.results().tolist() == [7, pd.NA, pd.NA, pd.NA]
    with pytest.warns(UserWarning, match=results), pytest.warns(UserWarning, match=arguments):
        shown = batch.frame()
    assert shown["number"].tolist() == [1, pd.NA, 3, pd.NA]
    assert shown["item"].isna().tolist() == [False, True, False, True]
    assert shown["state"].tolist() == ["succeeded", "succeeded", "failed", "succeeded"]
    assert batch.failed().index.tolist() == ["c"]


def test_unknown_batch(queues: nbq.QueueManager) -> None:
    """There is no batch that nobody mapped."""
    with pytest.raises(nbq.JobNotFound, match="no batch 'scores'"):
        queues.batch("scores")


# ---------------------------------------------------------------------------------------------------- its key
def test_key_dispatches_what_is_new_changed_or_failed(queues: nbq.QueueManager) -> None:
    """Rows are matched by label, whatever their order; the rest stays as it is."""
    work = ratio()
    first = queues.map(work, FRAME, key="scores")
    drain(queues)
    assert queues.map(work, FRAME, key="scores").dispatched == 1  # "b" has failed
    assert queues.map(work, FRAME, key="scores").dispatched == 0  # and waits now
    frame = pd.concat([pd.DataFrame({"number": [7], "by": [7]}, index=["new"]), FRAME.iloc[::-1]])
    frame.loc["b", "by"] = 2
    batch = queues.map(work, frame, key="scores")
    assert (batch.dispatched, len(batch), batch.key) == (2, 4, "scores")
    assert batch.batch_id == first.batch_id == queues.batch("scores").batch_id
    drain(queues)
    assert batch.results().to_dict() == {"new": 1, "c": 10, "b": 10, "a": 2}
    assert_frame_equal(batch.frame()[["number", "by"]], frame)
    assert len(queues.jobs(batch=batch)) == 6
    assert len(queues.jobs(batch=batch, state="cancelled")) == 1  # the "b" that nobody wants any more
    assert queues.map(work, frame, key="scores").dispatched == 0
    # One that was made before shows the batch as it is now.
    assert first.results().to_dict() == batch.results().to_dict()
    assert (len(first), first.progress().total) == (4, 4)


def test_order_of_names_is_no_change(queues: nbq.QueueManager) -> None:
    """Columns that were moved, or keywords in another order, are the same arguments; other values are not."""
    frame = pd.DataFrame({"a": [1, 2], "b": [1.5, 2.5], "ä": ["x", None]})
    queues.map("x:y", frame, key="frame")
    assert queues.map("x:y", frame[["ä", "a", "b"]], key="frame").dispatched == 0
    assert queues.map("x:y", frame.assign(a=[1, 9])[["b", "ä", "a"]], key="frame").dispatched == 1
    queues.map("x:y", [{"a": 1, "b": {1}}], key="dicts")
    assert queues.map("x:y", [{"b": {1}, "a": 1}], key="dicts").dispatched == 0
    assert queues.map("x:y", [{"a": {1}, "b": 1}], key="dicts").dispatched == 1
    assert queues.batch("frame").frame()["a"].tolist() == [1, 9]


def test_key_with_fewer_rows(queues: nbq.QueueManager) -> None:
    """A batch covers the rows of its latest input, and takes up the others when they come again."""
    work = ratio()
    queues.map(work, FRAME, key="scores")
    batch = queues.map(work, FRAME.loc[["c"]], key="scores")
    assert (len(batch), batch.progress().total) == (1, 1)
    assert batch.cancel() == 1
    drain(queues)
    assert batch.frame()["state"].to_dict() == {"c": "cancelled"}
    whole = queues.map(work, FRAME, key="scores")
    assert whole.dispatched == 2  # "b" failed, "c" was cancelled


def test_same_rows_under_another_key(queues: nbq.QueueManager) -> None:
    """Each key is a batch of its own, and so is each call without one."""
    batches = [queues.map(ratio(), FRAME, key=key) for key in ("x", "y", None, None)]
    assert [batch.dispatched for batch in batches] == [3] * 4
    assert len({batch.batch_id for batch in batches}) == 4
    assert [batch.key for batch in batches] == ["x", "y", None, None]


def test_label_is_more_than_its_text(queues: nbq.QueueManager) -> None:
    """1, 1.0, "1" and True are four rows."""
    index = pd.Index([1, 1.5, "1", True], dtype=object)
    batch = queues.map("x:y", pd.Series([0] * 4, index=index), key="labels")
    assert batch.dispatched == 4
    assert queues.map("x:y", pd.Series([0] * 4, index=index[::-1]), key="labels").dispatched == 0


def test_two_rows_with_one_label(queues: nbq.QueueManager) -> None:
    """With a key there is no telling which is which; without one they are two rows."""
    frame = pd.DataFrame({"number": [1, 2], "by": [1, 1]}, index=["a", "a"])
    with pytest.raises(nbq.InvalidCommand, match='two rows have the label "a"'):
        queues.map(ratio(), frame, key="scores")
    assert queues.jobs().empty
    batch = queues.map(ratio(), frame)
    drain(queues)
    assert batch.results().tolist() == [1, 2]


@pytest.mark.parametrize("key", ["", " x", 3, "018f7d1e-0000-7000-8000-000000000000"])
def test_key_is_a_name(queues: nbq.QueueManager, key: Any) -> None:
    """And nothing that could be taken for an id."""
    with pytest.raises(nbq.InvalidCommand, match="key"):
        queues.map("x:y", [1], key=key)


def test_key_belongs_to_a_handler(queues: nbq.QueueManager) -> None:
    """What another handler would do is not the same, so its rows cannot be taken for done."""
    queues.map("x:y", [1], key="scores")
    with pytest.raises(nbq.InvalidCommand, match='the batch "scores" is of x:y, not of other'):
        queues.map("other", [1], key="scores")


def test_key_mapped_by_many_at_once(queues: nbq.QueueManager) -> None:
    """However many threads map one key at the same moment, each row is dispatched once."""
    start = threading.Barrier(6)

    def mapped(_n: int) -> int | None:
        start.wait(SOON)
        return queues.map("x:y", range(50), key="once").dispatched

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(mapped, range(6))) == [0] * 5 + [50]
    assert len(queues.jobs()) == 50


# ---------------------------------------------------------------------------------------- restart and one commit
def test_batch_after_a_restart(tmp_path: Path) -> None:
    """Closed and opened again, a batch is as it was, and goes on."""
    path, work = tmp_path / "jobs.duckdb", ratio()
    with nbq.connect(path) as queues:
        batch = queues.map(work, FRAME, key="scores")
        drain(queues)
        shown, name = batch.frame(), batch.batch_id
        waiting = queues.map(work, FRAME.iloc[[0]]).batch_id
    with nbq.connect(path) as queues:
        for which in (name, str(name), "scores"):
            again = queues.batch(which)
            assert (again.batch_id, again.key, again.command) == (name, "scores", "divide")
            assert_frame_equal(again.frame(), shown)
        assert again.created_at == batch.created_at
        assert queues.map(work, FRAME, key="scores").dispatched == 1
        drain(queues)
        assert queues.batch(waiting).results().to_dict() == {"a": 2}


OTHER = """
import sys
import nbqueue as nbq

@nbq.job
def work(number, by): ...

with nbq.connect(sys.argv[1]) as queues:
    batch = queues.batch(sys.argv[2])
    print(batch.progress().pending, batch.frame().to_json(), sep="\\n")
"""


def test_batch_in_another_process(tmp_path: Path) -> None:
    """What reads a batch needs neither its handler nor what made it."""
    path = tmp_path / "jobs.duckdb"
    with nbq.connect(path) as queues:
        batch = queues.map(ratio(), FRAME)
        shown = batch.frame()
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(path), str(batch.batch_id)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["3", shown.to_json()]


def test_file_made_before_there_were_batches(tmp_path: Path) -> None:
    """It opens, and takes batches from then on."""
    path = tmp_path / "jobs.duckdb"
    with nbq.connect(path) as queues:
        receipt = queues.dispatch(nbq.QueuedCommand("x:y"))
    with duckdb.connect(str(path)) as connection:
        for statement in (
            "DROP TABLE batches",
            "ALTER TABLE workers DROP COLUMN lease",
            "ALTER TABLE code DROP COLUMN put_us",
            "UPDATE meta SET value = 1 WHERE name = 'schema'",
        ):
            connection.execute(statement)
    with nbq.connect(path) as queues:
        assert queues.job(receipt.job_id).state == "pending"
        batch = queues.map("x:y", [1, 2])
        assert queues.batch(batch.batch_id).progress().pending == 2


def test_many_rows_are_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 rows are handed in by one transaction, and nothing of them is there before."""
    sizes: list[int] = []
    real = Ledger.commit
    monkeypatch.setattr(
        Ledger, "commit", lambda self, writes: (sizes.append(writes.count), real(self, writes))[1]
    )
    frame = pd.DataFrame({"n": range(100_000), "x": np.linspace(0, 1, 100_000), "name": "row"})
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        sizes.clear()
        batch = queues.map("x:y", frame)
        assert [size for size in sizes if size] == [100_000]
        assert batch.progress().pending == 100_000
        assert_frame_equal(batch.frame()[["n", "x", "name"]], frame)
        assert len(queues.batch(batch.batch_id)) == 100_000


def test_many_rows_are_as_few(queues: nbq.QueueManager) -> None:
    """What is handed in by columns is what it is row by row, whatever the cells hold, and comes home to its index."""
    values = {
        "text": ["ü\u2028", "", '"\0\\', "half \udcff", None, "x" * 300],
        "number": [0, -1, 2**70, None, 7, 2**63],
        "flag": [True, False, None, True, False, True],
        "share": [0.1, float("nan"), float("inf"), -0.0, 5e-324, 1.0],
        "name": ["a", "b", "c", "d", "e", "f"],
    }

    @nbq.job
    def same(**cells: object) -> str:
        return repr(cells)

    few = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in values.items()})
    few["share"] = few["share"].astype(float)
    rows = pd.concat([few] * 400, ignore_index=True)
    rows.index = pd.Index([f"row {n}" for n in range(len(rows))], name="id")
    plain = rows[["share", "name"]]
    for frame in (rows, plain):
        columns = list(frame)
        alone = queues.map(same, few[columns])
        batch = queues.map(same, frame)
        told = queues.sql(
            "SELECT arguments FROM jobs WHERE batch_id IN (?, ?) ORDER BY number",
            [str(alone.batch_id), str(batch.batch_id)],
        )["arguments"].tolist()
        assert told == told[:6] * 401
        assert_frame_equal(batch.frame()[columns], frame)
    drain(queues)
    results = batch.results()
    assert_index_equal(results.index, rows.index)
    assert results.tolist() == [repr(record) for record in plain.to_dict("records")]


def test_all_rows_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the last thing that a batch writes fails, no row of it is there, here or after a restart."""

    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "jobs.duckdb"
    with nbq.connect(path) as queues:
        kept = queues.map("x:y", [1, 2], key="scores")
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "append", full)
            for key in (None, "scores"):
                with pytest.raises(nbq.DispatchFailed, match="nothing of this call was accepted"):
                    queues.map("x:y", [3, 4, 5], key=key)
        assert len(queues.jobs()) == 2
        assert queues.batch("scores").progress() == (2, 2, 0, 0, 0, 0)
        assert kept.frame()["item"].tolist() == [1, 2]
        assert queues.map("x:y", [1, 2, 3], key="scores").dispatched == 1
    with nbq.connect(path) as queues:
        assert len(queues.jobs()) == 3
        assert queues.batch("scores").frame()["item"].tolist() == [1, 2, 3]


def test_quiet_without_a_reason(queues: nbq.QueueManager) -> None:
    """Where nothing is missing, nothing is said."""
    batch = queues.map(ratio(), FRAME)
    drain(queues)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        batch.results(), batch.frame(), batch.failed()
    assert not said


@pytest.mark.parametrize("key", [None, "again"])
def test_what_cannot_be_stored_is_kept_from_the_start(
    queues: nbq.QueueManager, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """A row that ends before ``map`` has returned has its value too, with a key as well that was mapped before."""

    @nbq.job
    def lock(number: int) -> Any:
        return threading.Lock()

    if key:
        with queues.worker():
            queues.map(lock, [0], key=key).wait(30)
    insert = queues.store.put_batch

    def slow(*args: Any) -> Any:
        mapped = insert(*args)
        with queues.worker() as worker:
            worker.drain(30)
        return mapped

    monkeypatch.setattr(queues.store, "put_batch", slow)
    batch = queues.map(lock, [1, 2], key=key)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(isinstance(value, type(threading.Lock())) for value in batch.results())
