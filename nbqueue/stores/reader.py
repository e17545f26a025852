"""One read-only query on a queue's DuckDB connection, as a DataFrame; knows the views' names and no job.

The connection's owner opens it with ``enable_external_access=false``, then sets ``TimeZone`` to UTC, then
``lock_configuration=true``. Those three, the statement's type and a read-only transaction keep a query from
changing anything and from reaching files, the network and other databases; each closes what another leaves open.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from nbqueue.errors import NotSupported, QueueError
from nbqueue.stores.schema import TABLE_NAMES, VIEW_NAMES

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandas as pd

__all__ = ["first_line", "run_own", "run_query"]

_VIEWS = ", ".join(VIEW_NAMES)
#: Whoever shadowed one of these would change what a view reads.
_RESERVED = frozenset((*VIEW_NAMES, *TABLE_NAMES))
# EXPLAIN ANALYZE runs what it explains: a COMMIT would end the read-only transaction.
_EXPLAIN = re.compile(r"\s*explain(\s+analyze\b)?(\s*\(\s*(analyze|format)\b[\w\s,]*\))?", re.IGNORECASE)


def run_query(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    params: Sequence[object],
    frames: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """Run one SELECT or EXPLAIN; may be called from any thread that has a cursor of its own.

    Parameters
    ----------
    cursor : duckdb.DuckDBPyConnection
        One of an open queue, configured as the module says; whoever opened it closes it.
    sql : str
        One statement over the views ``jobs, attempts, events, logs, outputs`` and the frames.
    params : sequence
        For the ``?`` in it.
    frames : mapping of str to DataFrame
        Tables of this query alone, by name.

    Returns
    -------
    pandas.DataFrame
        Timestamps with a zone are ``datetime64[us, UTC]``, enums are categories, texts are ``str``, whole numbers
        that may be missing are nullable integers, UUIDs are ``uuid.UUID``.

    Raises
    ------
    NotSupported
        For what is not one SELECT or EXPLAIN.
    QueueError
        For what DuckDB cannot run, with its sentence; and for a frame named like a table of the queue.

    A fatal error of the database (``duckdb.FatalException``, ``duckdb.InternalException``) is not translated: it is
    the connection's owner who must know.
    """
    import duckdb

    named = _checked(frames)
    unread: dict[str, str] = {}
    try:
        statement = _statement(cursor, sql)
        for name, frame in named.items():
            # A frame may be here only because a word of the query is its name: one that DuckDB cannot read is
            # no trouble unless the query needs it.
            try:
                cursor.register(name, frame)
            except duckdb.Error as error:
                unread[name] = first_line(error)
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        return _frame(cursor.execute(statement, [_plain(value) for value in params]))
    except (duckdb.FatalException, duckdb.InternalException):
        raise
    except duckdb.Error as error:
        raise _failed(error, [*named], unread) from error
    finally:
        with contextlib.suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        for name in named:
            with contextlib.suppress(duckdb.Error):
                cursor.unregister(name)


#: What nbqueue itself asks again and again, as DuckDB has understood it.
_understood: dict[str, duckdb.Statement] = {}
#: More texts than nbqueue has.
_TEXTS = 200


def run_own(cursor: duckdb.DuckDBPyConnection, sql: str, params: Sequence[object]) -> pd.DataFrame:
    """Run one SELECT of nbqueue's own, which is known to read only; as ``run_query`` otherwise.

    Beside busy threads each call of DuckDB's waits for the interpreter's lock, mostly 3 to 5 ms: a transaction that is
    begun and rolled back, and a text that is read anew, are eight such waits of twelve.
    """
    import duckdb

    statement = _understood.get(sql)
    try:
        if statement is None:
            (statement,) = cursor.extract_statements(sql)
            if len(_understood) >= _TEXTS:
                _understood.clear()
            _understood[sql] = statement
        return _frame(cursor.execute(statement, list(params)))
    except (duckdb.FatalException, duckdb.InternalException):
        raise
    except duckdb.Error as error:
        raise _failed(error, (), {}) from error


def _checked(frames: Mapping[str, pd.DataFrame]) -> Mapping[str, pd.DataFrame]:
    seen: dict[str, str] = {}
    for name in frames:
        if not isinstance(name, str) or not name.isidentifier():
            raise QueueError(f"a DataFrame in a query needs a plain name such as users, not {name!r}")
        small = name.lower()
        if small in _RESERVED:
            what = "view" if small in VIEW_NAMES else "table"
            raise QueueError(f"{name!r} is a {what} of the queue; give your DataFrame another name")
        if small in seen:
            raise QueueError(
                f"SQL cannot tell {seen[small]!r} from {name!r}; give one DataFrame another name"
            )
        seen[small] = name
    return frames


def _statement(cursor: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1:
        found = f"here are {len(statements)}" if statements else "here is none"
        raise NotSupported(f"queues.sql runs one SELECT at a time; {found}")
    (statement,) = statements
    kind = _kind(statement)
    if kind == "SELECT":
        return statement
    if kind == "EXPLAIN":
        explained = _explained(cursor, sql)
        if explained == "SELECT":
            return statement
        kind = f"EXPLAIN of {explained}"
    raise NotSupported(
        f"queues.sql reads only: one SELECT (or EXPLAIN of one), not {kind}; jobs are changed by"
        " queues.cancel, .retry, .forget and .prune"
    )


def _explained(cursor: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Name the type of what an EXPLAIN explains."""
    import duckdb

    start = _EXPLAIN.match(sql)
    try:
        statements = cursor.extract_statements(sql[start.end() :]) if start else []
    except duckdb.Error:
        statements = []
    return _kind(statements[0]) if len(statements) == 1 else "something else"


def _kind(statement: duckdb.Statement) -> str:
    """Name the type of a statement; some have one that DuckDB's Python does not know."""
    try:
        return statement.type.name
    except ValueError:
        return "something else"


def _plain(value: object) -> object:
    """Give a NumPy number as Python's own, which DuckDB takes."""
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def _failed(error: duckdb.Error, named: Sequence[str], unread: Mapping[str, str]) -> QueueError:
    import duckdb

    sentence = first_line(error)
    if "'pytz'" in sentence:
        sentence = (
            "a timestamp inside a STRUCT or MAP cannot become Python's; select it as a column of its own"
        )
    if isinstance(error, duckdb.PermissionException):
        return QueueError(f"{sentence}; queues.sql reads the queue and DataFrames, no files")
    also = "".join(f"; DataFrame {name} was left out ({why})" for name, why in unread.items())
    read = [name for name in named if name not in unread]
    readable = f"{_VIEWS}, and the DataFrame{'s' * (len(read) > 1)} {', '.join(read)}" if read else _VIEWS
    return QueueError(f"{sentence.rstrip('!.')}{also}; readable here: {readable}")


def first_line(error: BaseException) -> str:
    """The sentence of an error, without the page that some bring along."""
    return str(error).strip().split("\n", 1)[0]


# ``.df()`` asks pandas 3.1 for what it warns of, and gives other types for an empty result than for a full one.
def _frame(cursor: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    import pandas as pd

    kinds = [column[1] for column in cursor.description or ()]
    arrays: Any = cursor.fetchnumpy()
    return pd.DataFrame(dict(_columns(arrays, kinds)), copy=False)


def _columns(arrays: Mapping[str, np.ndarray[Any, Any]], kinds: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for (name, array), kind in zip(arrays.items(), kinds, strict=True):
        yield name, _column(array, kind)


def _column(array: np.ndarray[Any, Any], kind: Any) -> Any:
    """Give a column its type, whether or not it has a row."""
    import numpy as np
    import pandas as pd

    missing = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    data: Any = array.data if isinstance(array, np.ma.MaskedArray) else array
    text = pd.Series(["x"]).dtype if kind.id == "varchar" else None
    if text is not None and missing is not None and missing.all():
        # Of a million jobs the errors and labels that nobody has take 5 ms a column so, and 50 one by one.
        return pd.Series([None], dtype=text).array.repeat(len(data))
    if data.dtype == object and missing is not None:
        data = np.where(missing, None, data)
    if kind.id == "enum":
        return pd.Categorical(data, categories=dict(kind.children)["values"])
    if text is not None:
        # "str" in pandas 3, object before that.
        return pd.Series(data, dtype=text)
    if data.dtype.kind in "mM":
        if missing is not None:
            data = np.where(missing, np.array("NaT", data.dtype), data)
        stamps = pd.Series(data)
        return stamps.dt.tz_localize(UTC) if kind.id == "timestamp with time zone" else stamps
    if missing is None or not missing.any():
        return data
    if data.dtype.kind in "iu":
        return pd.arrays.IntegerArray(data, missing)
    if data.dtype.kind == "b":
        return pd.arrays.BooleanArray(data, missing)
    return np.where(missing, np.nan, data) if data.dtype.kind == "f" else data
