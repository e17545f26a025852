"""The rows of a batch as pandas shows them: on the input's index, in its order, with its types; changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbqueue import payload
from nbqueue.errors import NbqueueError
from nbqueue.facade.batches.dtypes import narrowest, typed
from nbqueue.facade.batches.gaps import Gaps
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
_Call = tuple[tuple[object, ...], dict[str, object]]


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


def rows_results(store: Store, batch: BatchRecord, gaps: Gaps) -> pd.Series[Any]:
    """Give what the rows returned, on the input's index; missing where one has not succeeded.

    Parameters
    ----------
    store, batch
        As of ``read_rows``.
    gaps : Gaps
        Is told what is missing.
    """
    head = read_label(batch.head)
    rows = read_rows(store, batch, ("job_id", "row_label", "state", "result"))
    index = _index(rows["row_label"], head["index"])
    results: pd.Series[Any] = narrowest(_results(rows, batch, gaps), index)
    return results


def rows_frame(store: Store, batch: BatchRecord, gaps: Gaps, state: State | None = None) -> pd.DataFrame:
    """Give the input with what became of each row, on the input's index; as ``rows_results``."""
    import pandas as pd

    head = read_label(batch.head)
    columns = ("job_id", "row_label", "arguments", "state", "result", "error", "seconds")
    rows = read_rows(store, batch, columns, state)
    index = _index(rows["row_label"], head["index"])
    frame = _arguments(rows, batch, head, gaps)
    taken = set(frame)
    states = pd.Categorical(rows["state"], categories=[str(one) for one in State])
    results = narrowest(_results(rows, batch, gaps))
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
    result.columns.name = head["named"]
    return result


# --------------------------------------------------------------------------------------------- what went in


def _arguments(rows: Any, batch: BatchRecord, head: Mapping[str, Any], gaps: Gaps) -> dict[str, Any]:
    """The input's columns, out of what was stored of each call."""
    calls = [
        _call(text, batch.command, label, gaps)
        for text, label in zip(rows["arguments"], rows["row_label"], strict=True)
    ]
    if (dtypes := head["columns"]) is not None:
        return {name: typed([_named(call, name) for call in calls], dtype) for name, dtype in dtypes.items()}
    if (item := head["item"]) is not None:
        return {item: narrowest([_item(call, item) for call in calls])}
    names = dict.fromkeys(name for call in calls if call is not None for name in call[1])
    return {name: narrowest([_named(call, name) for call in calls]) for name in names}


def _call(text: str, command: str, label: str, gaps: Gaps) -> _Call | None:
    try:
        key = load_secret() if payload.needs_pickle(text) else None
        return payload.decode_call(text, key=key, context=command)
    except NbqueueError as error:
        gaps.arguments(label, error)
        return None


def _named(call: _Call | None, name: str) -> tuple[bool, object]:
    return (False, None) if call is None else (name in call[1], call[1].get(name))


def _item(call: _Call | None, name: str) -> tuple[bool, object]:
    # Of a Job class, whose fields are stored by name, it is the first of them.
    return (True, call[0][0]) if call is not None and call[0] else _named(call, name)


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
        levels = [
            typed([(True, label[at]) for label in values], dtype) for at, dtype in enumerate(spec["dtypes"])
        ]
        return pd.MultiIndex.from_arrays(levels, names=names)
    index: Any = pd.Index(typed([(True, label) for label in values], spec["dtypes"][0]), name=names[0])
    if "freq" in spec:
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            index.freq = spec["freq"]
    return index  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------- what came out


def _results(rows: Any, batch: BatchRecord, gaps: Gaps) -> list[tuple[bool, Any]]:
    """Whether each row has a result, and which."""
    results: list[tuple[bool, Any]] = []
    columns = (rows[name] for name in ("job_id", "row_label", "state", "result"))
    for job_id, label, state, text in zip(*columns, strict=True):
        if state != State.SUCCEEDED:
            results.append((False, None))
        elif not isinstance(text, str) or not text:
            results.append((True, None))
        elif unstored_reason(text) is not None:
            results.append(gaps.unstored(job_id))
        else:
            try:
                key = load_secret() if payload.needs_pickle(text) else None
                results.append((True, payload.decode(text, key=key, context=batch.command)))
            except NbqueueError as error:
                gaps.result(label, error)
                results.append((False, None))
    return results
