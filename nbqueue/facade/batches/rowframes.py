"""The rows of a batch as pandas shows them: on the input's index, in its order, with its types; changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbqueue import payload
from nbqueue.errors import NbqueueError
from nbqueue.facade.batches.tables import read_label
from nbqueue.jobs import BatchRecord, State
from nbqueue.running.run import unstored_reason
from nbqueue.secret import load_secret
from nbqueue.store import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["job_ids", "read_rows", "rows_frame", "rows_results"]

#: Put before the name of a column that the input has already.
_CLASH = "job_"
_SQL = {
    "job_id": "job_id::VARCHAR AS job_id",
    "seconds": "run_seconds AS seconds",
    "state": "state::VARCHAR AS state",
}
#: A whole number above this is not the same as a float.
_EXACT = 2**53


def read_rows(store: Store, batch: BatchRecord, columns: Sequence[str], state: State | None = None) -> Any:
    """Ask for the rows of a batch, in the order of the input; those whose jobs were forgotten are left out.

    Parameters
    ----------
    store : Store
        Where they are.
    batch : BatchRecord
        Which.
    columns : sequence of str
        Of the view ``jobs``.
    state : State, optional
        Only those that stand there.
    """
    import numpy as np

    firsts, lasts = [first for first, _ in batch.runs], [last for _, last in batch.runs]
    where = "number BETWEEN ? AND ? AND batch_id = ?::UUID" + (f" AND state = '{state}'" if state else "")
    found = store.query(
        f"SELECT number, {', '.join(_SQL.get(name, name) for name in columns)} FROM jobs WHERE {where} ORDER BY number",
        [min(firsts, default=0), max(lasts, default=-1), str(batch.batch_id)],
    )
    wanted = np.concatenate([np.arange(0), *(np.arange(first, last + 1) for first, last in batch.runs)])
    numbers = found["number"].to_numpy()
    places = np.searchsorted(numbers, wanted)
    inside = places < len(numbers)
    there = np.flatnonzero(inside)[numbers[places[inside]] == wanted[inside]]
    return found.iloc[places[there]].reset_index(drop=True)


def job_ids(store: Store, batch: BatchRecord, *states: State) -> list[str]:
    """Give the ids of a batch's jobs that stand at one of these states, in the order of the input."""
    found = read_rows(store, batch, ("job_id", "state"))
    return [str(job_id) for job_id in found["job_id"][found["state"].isin([str(state) for state in states])]]


def rows_results(
    store: Store, batch: BatchRecord, unstored: Callable[[str], tuple[bool, object]]
) -> pd.Series[Any]:
    """Give what the rows returned, on the input's index; missing where one has not succeeded.

    Parameters
    ----------
    store, batch
        As of ``read_rows``.
    unstored : callable
        Gives, by a job's id, whether its value is kept in this process, and the value.
    """
    head = read_label(batch.head)
    rows = read_rows(store, batch, ("job_id", "row_label", "state", "result"))
    index = _index(rows["row_label"], head["index"])
    results: pd.Series[Any] = _series(_results(rows, batch, unstored), index)
    return results


def rows_frame(
    store: Store,
    batch: BatchRecord,
    unstored: Callable[[str], tuple[bool, object]],
    state: State | None = None,
) -> pd.DataFrame:
    """Give the input with what became of each row, on the input's index; as ``rows_results``."""
    import pandas as pd

    head = read_label(batch.head)
    columns = ("job_id", "row_label", "arguments", "state", "result", "error", "seconds")
    rows = read_rows(store, batch, columns, state)
    index = _index(rows["row_label"], head["index"])
    frame = _arguments(rows["arguments"], batch, head)
    taken = set(frame)
    states = pd.Categorical(rows["state"], categories=[str(one) for one in State])
    results = _series(_results(rows, batch, unstored), None)
    added = {
        "state": states,
        "result": results,
        "error": rows["error"],
        "seconds": rows["seconds"].astype(float),
    }
    for name, values in added.items():
        shown = name
        while shown in taken:
            shown = _CLASH + shown
        frame[shown] = values
    result = pd.DataFrame(frame)
    result.index = index
    return result


# --------------------------------------------------------------------------------------------- what went in


def _arguments(texts: Any, batch: BatchRecord, head: Mapping[str, Any]) -> dict[str, Any]:
    """The input's columns, out of what was stored of each call."""
    calls = [_call(text, batch.command) for text in texts]
    if (dtypes := head["columns"]) is not None:
        return {
            name: _typed([kwargs.get(name) for _, kwargs in calls], dtype) for name, dtype in dtypes.items()
        }
    if head["item"] is not None:
        return {head["item"]: _series([(bool(args), args[0] if args else None) for args, _ in calls], None)}
    names = dict.fromkeys(name for _, kwargs in calls for name in kwargs)
    return {
        name: _series([(name in kwargs, kwargs.get(name)) for _, kwargs in calls], None) for name in names
    }


def _call(text: str, command: str) -> tuple[tuple[object, ...], dict[str, object]]:
    key = load_secret() if payload.needs_pickle(text) else None
    return payload.decode_call(text, key=key, context=command)


def _typed(values: Sequence[Any], dtype: Any) -> Any:
    """A column of the type it had, as far as its values, or those that are left of them, allow."""
    import pandas as pd

    column = pd.Series(values, dtype=object)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return column.astype(_dtype(dtype))
    return column


def _dtype(dtype: Any) -> Any:
    import pandas as pd

    if isinstance(dtype, str):
        return dtype
    categories = dtype.get("categories")
    return pd.CategoricalDtype(
        None if categories is None else pd.Index(categories), ordered=bool(dtype["ordered"])
    )


def _index(labels: Any, spec: Mapping[str, Any]) -> pd.Index[Any]:
    """The index that the labels came from."""
    import pandas as pd

    values = [read_label(text) for text in labels]
    names = spec["names"]
    if (steps := spec.get("range")) is not None:
        start, stop, step = steps
        whole = pd.RangeIndex(start, stop, step, name=names[0])
        return whole if len(whole) == len(values) else pd.Index(values, dtype="int64", name=names[0])
    if len(names) > 1:
        levels = [_typed([label[at] for label in values], dtype) for at, dtype in enumerate(spec["dtypes"])]
        return pd.MultiIndex.from_arrays(levels, names=names)
    index: Any = pd.Index(_typed(values, spec["dtypes"][0]), name=names[0])
    if "freq" in spec:
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            index.freq = spec["freq"]
    return index  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------- what came out


def _results(
    rows: Any, batch: BatchRecord, unstored: Callable[[str], tuple[bool, object]]
) -> list[tuple[bool, Any]]:
    """Whether each row has a result, and which."""
    results: list[tuple[bool, Any]] = []
    for job_id, state, text in zip(rows["job_id"], rows["state"], rows["result"], strict=True):
        if state != State.SUCCEEDED:
            results.append((False, None))
        elif not isinstance(text, str) or not text:
            results.append((True, None))
        elif unstored_reason(text) is not None:
            results.append(unstored(job_id))
        else:
            key = load_secret() if payload.needs_pickle(text) else None
            try:
                results.append((True, payload.decode(text, key=key, context=batch.command)))
            except NbqueueError as error:
                error.add_note(f"It is the result of job {job_id} of the batch {batch.batch_id}.")
                raise
    return results


def _series(found: Sequence[tuple[bool, Any]], index: Any) -> Any:
    """Values, some of them missing, as a column of the type that loses nothing of them."""
    import pandas as pd

    values = [value if is_there else None for is_there, value in found]
    whole = all(is_there for is_there, _ in found)
    there = [value for is_there, value in found if is_there]
    kinds = set(map(type, there))
    dtype: Any = object
    if kinds == {bool}:
        dtype = "bool" if whole else "boolean"
    elif kinds == {int} and all(-(2**63) <= value < 2**63 for value in there):
        dtype = "int64" if whole else "Int64"
    elif kinds == {float} or (
        kinds == {int, float} and all(abs(value) <= _EXACT for value in there if type(value) is int)
    ):
        dtype = "float64"
    elif kinds == {str}:
        dtype = pd.Series(["x"]).dtype
    column = pd.Series(values, index=index, dtype=dtype)
    return column.infer_objects() if kinds in ({pd.Timestamp}, {pd.Timedelta}) else column
