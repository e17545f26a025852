"""The columns of each frame and their types, and how a store is asked for them; knows no job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nbqueue.errors import NbqueueError, QueueError
from nbqueue.jobs import State
from nbqueue.payload import decode
from nbqueue.store import Store
from nbqueue.stores.schema import STATUSES

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "ATTEMPTS",
    "EVENTS",
    "FAILURES",
    "JOBS",
    "LATENCY",
    "TIMELINE",
    "ask",
    "limited",
    "listed",
    "shaped",
    "where",
]

#: More names of a kind than this stay names.
_WORDS_MAX = 1_000

# What a column holds, by name; the SQL that gives it where that is not its name.
JOBS = {
    "job_id": "text",
    "command": "name",
    "queue": "name",
    "state": "word",
    "status": "word",
    "attempt": "count",
    "max_attempts": "count",
    "priority": "count",
    "dispatched_at": "time",
    "scheduled_at": "time",
    "started_at": "time",
    "finished_at": "time",
    "wait_seconds": "seconds",
    "run_seconds": "seconds",
    "worker": "name",
    "error": "text",
    "fingerprint": "name",
    "cause": "name",
    "crashes": "count",
    "metadata": "json",
    "progress": "json",
    "batch_id": "text",
    "row_label": "label",
}
ATTEMPTS = {
    "job_id": "text",
    "command": "name",
    "queue": "name",
    "attempt": "count",
    "max_attempts": "count",
    "outcome": "word",
    "claimed_at": "time",
    "started_at": "time",
    "finished_at": "time",
    "run_seconds": "seconds",
    "worker": "name",
    "error": "text",
    "fingerprint": "name",
    "cause": "name",
    "traceback": "text",
    "peak_memory": "bytes",
    "cpu_seconds": "seconds",
    "exit": "name",
}
EVENTS = {
    "seq": "count",
    "happened_at": "time",
    "event": "name",
    "job_id": "text",
    "command": "name",
    "queue": "name",
    "state": "word",
    "attempt": "count",
    "worker": "name",
    "due_at": "time",
    "cause": "name",
    "error": "text",
    "data": "json",
}
FAILURES = {
    "fingerprint": "text",
    "jobs": "count",
    "commands": "count",
    "command": "name",
    "first_at": "time",
    "last_at": "time",
    "error": "text",
    "job_id": "text",
}
TIMELINE = {
    **{name: ATTEMPTS[name] for name in ("job_id", "command", "queue", "attempt", "outcome", "started_at")},
    **{name: ATTEMPTS[name] for name in ("finished_at", "run_seconds", "worker")},
}
LATENCY = {
    "command": "name",
    "jobs": "count",
    **{f"{what}_p{percent}": "seconds" for what in ("wait", "run") for percent in (50, 95, 99)},
}
#: Casting ids to text in DuckDB takes a fifteenth of the time that UUID objects take.
_SQL = {"job_id": "job_id::VARCHAR AS job_id", "batch_id": "batch_id::VARCHAR AS batch_id"}


def where(parts: Sequence[str]) -> str:
    """Give conditions as they follow a table."""
    return f" WHERE {' AND '.join(parts)}" if parts else ""


def limited(limit: int | None) -> str:
    """Give how many rows at most, as it ends a query."""
    return "" if limit is None else f" LIMIT {int(limit)}"


def listed(columns: Iterable[str], words: Mapping[str, Sequence[str]] = MappingProxyType({})) -> str:
    """Give columns as a query names them; those with words as numbers of these."""
    return ", ".join(_coded(name, words[name]) if name in words else _SQL.get(name, name) for name in columns)


def ask(
    store: Store, columns: Mapping[str, str], rest: str, params: Sequence[object], *, whole: bool = False
) -> pd.DataFrame:
    """Ask for these columns and give each its type.

    Of a whole view the names come as numbers: among a million jobs that saves a quarter of a second.
    """
    words = _words(store, columns) if whole else {}
    try:
        found = store.query(f"SELECT {listed(columns, words)} FROM {rest}", params)
    except QueueError:
        if not words:
            raise
        # A name came up since: it is no word of the enum.
        words = {}
        found = store.query(f"SELECT {listed(columns)} FROM {rest}", params)
    return shaped(found, columns, words)


def _words(store: Store, columns: Iterable[str]) -> dict[str, Sequence[str]]:
    """The names that each of these columns may hold, sorted as categories are, where they are known and few."""
    found = store.query(
        f"(SELECT DISTINCT 'command' AS what, command AS name FROM specs LIMIT {_WORDS_MAX + 1}) UNION ALL"
        f" (SELECT DISTINCT 'queue', queue FROM specs LIMIT {_WORDS_MAX + 1}) UNION ALL"
        f" (SELECT DISTINCT 'worker', worker_id FROM workers LIMIT {_WORDS_MAX + 1})"
    )
    words: dict[str, Sequence[str]] = {"state": tuple(State), "status": STATUSES}
    for what in ("command", "queue", "worker"):
        words[what] = sorted(found["name"][found["what"] == what].tolist())
    return {name: known for name, known in words.items() if name in columns and 0 < len(known) <= _WORDS_MAX}


def _coded(name: str, words: Sequence[str]) -> str:
    quoted = ", ".join("'" + word.replace("'", "''") + "'" for word in words)
    return f"enum_code({name}::ENUM({quoted})) AS {name}"


def shaped(
    found: pd.DataFrame,
    columns: Mapping[str, str],
    words: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> pd.DataFrame:
    """Give every column its type, whatever rows there are; those with words hold the numbers of these."""
    import pandas as pd

    text = pd.Series(["x"]).dtype
    types: dict[str, Any] = {
        "text": text,
        "name": "category",
        "count": "int64",
        # Of many attempts nobody knows.
        "bytes": "Int64",
        "seconds": "float64",
        "time": "datetime64[us, UTC]",
    }
    made: dict[str, Any] = {}
    for name, kind in columns.items():
        column = found[name]
        if name in words:
            codes = column.to_numpy("int16", na_value=-1)
            known = pd.Categorical.from_codes(codes, categories=pd.Index([*words[name]], dtype=text))
            # An enum keeps every word it may hold.
            made[name] = known if kind == "word" else known.remove_unused_categories()
        elif kind == "json":
            made[name] = _each(column, _decoded, object)
        elif kind == "label":
            # A batch's row, by its label in the index it came from.
            made[name] = _each(column, _label, text)
        elif kind == "word":
            # An enum comes as a category with every word it may hold.
            made[name] = (
                column if isinstance(column.dtype, pd.CategoricalDtype) else column.astype("category")
            )
        elif kind == "name" and not len(column):
            made[name] = pd.Categorical([], categories=pd.Index([], dtype=text))
        else:
            made[name] = column.astype(types[kind])
    # What was found belongs to nobody else: a million rows are not copied once more.
    return pd.DataFrame(made, copy=False)


def _each(column: pd.Series, read: Callable[[object], object], dtype: Any) -> pd.Series:
    """Read the texts that are there: to go through a million that are missing takes most of a second."""
    import numpy as np
    import pandas as pd

    there = np.flatnonzero(column.notna().to_numpy())
    stored = column.to_numpy(dtype=object)
    made = np.full(len(stored), None, dtype=object)
    for place in there.tolist():
        made[place] = read(stored[place])
    found: pd.Series = pd.Series(made, dtype=dtype, index=column.index)
    return found


def _label(value: object) -> str | None:
    found = _decoded(value)
    return None if found is None else str(found)


def _decoded(value: object) -> object:
    """What JSON text holds; text that cannot be read here (of a class unknown here, or signed) stays as it is."""
    if not isinstance(value, str) or not value:
        return None
    try:
        return decode(value)
    except NbqueueError:
        return value
