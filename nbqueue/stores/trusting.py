"""Finds what another secret signed in a queue file, and signs it anew for who trusts it; decodes none of it.

The file is this process's alone meanwhile, so that what was shown is what is signed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb

from nbqueue.errors import QueueUnavailable
from nbqueue.payload.renewal import renew_code, renew_display, renew_value
from nbqueue.stores import opening
from nbqueue.stores.foreign import Foreign, ForeignCode, ForeignJobs
from nbqueue.stores.index import Index
from nbqueue.stores.ledger import Ledger
from nbqueue.stores.owner import Ownership, Standing, check_path

__all__ = ["ForeignFile"]

#: What a row's label is signed for, whatever its job; as SQL.
_LABEL = "a row''s label"
_CHUNK = 500
_PICKLED = r"""'"\$nbq"\s*:\s*"pickle"'"""


class _Texts(NamedTuple):
    """Signed texts of one kind: where they are, and how they are signed anew."""

    kind: str
    #: Gives (seq, command, context, text).
    sql: str
    column: str
    renew: Callable[..., str | None]


_DISPATCH = "JOIN (SELECT job, job_id, spec FROM ledger WHERE event = 'dispatched') d ON d.job = l.job"
_SPEC = "JOIN specs s ON s.spec = d.spec"
_TEXTS = (
    _Texts(
        "arguments",
        "SELECT d.seq, s.command, s.command, d.data FROM ledger d JOIN specs s ON s.spec = d.spec"
        f" WHERE d.event = 'dispatched' AND regexp_matches(d.data, {_PICKLED})",
        "data",
        renew_value,
    ),
    _Texts(
        "results",
        f"SELECT l.seq, s.command, s.command, l.data FROM ledger l {_DISPATCH} {_SPEC}"
        f" WHERE l.event = 'succeeded' AND regexp_matches(l.data, {_PICKLED})",
        "data",
        renew_value,
    ),
    _Texts(
        "labels",
        f"SELECT d.seq, s.command, '{_LABEL}', d.row_label FROM ledger d"
        f" JOIN specs s ON s.spec = d.spec WHERE d.event = 'dispatched' AND regexp_matches(d.row_label, {_PICKLED})",
        "row_label",
        renew_value,
    ),
    _Texts(
        "displays",
        f"SELECT l.seq, '', d.job_id::VARCHAR, l.data FROM ledger l {_DISPATCH}"
        " WHERE l.event = 'output' AND l.data IS NOT NULL",
        "data",
        renew_display,
    ),
)


class ForeignFile:
    """A queue file that this process has for itself, to find and sign what is foreign in it.

    Parameters
    ----------
    path : Path
        The file.
    key : bytes
        This user's secret.

    Raises
    ------
    QueueUnavailable
        If another process has the file, which it names, or if it is no queue.
    """

    def __init__(self, path: Path, key: bytes):
        self._path = path = Path(path).resolve()
        #: What people call it.
        self.name = str(path)
        self._key = key
        check_path(path)
        if not path.exists():
            raise QueueUnavailable(f"there is no queue file {path}; name another")
        self._ownership = Ownership(path)
        self._ownership.take()
        try:
            self._open()
        except (duckdb.Error, OSError) as error:
            self._ownership.release(remove=True)
            raise QueueUnavailable(opening.cannot_open(path, error)) from error
        except BaseException:
            self._ownership.release(remove=True)
            raise
        # Somebody may think about it for long; who wants the file meanwhile need not wait to be told.
        self._ownership.tell(Standing.ALONE, reason="somebody looks at what is foreign in it")

    def _open(self) -> None:
        self._connection = opening.connect(self._path)
        self._ledger = Ledger(self._connection, self.name)
        try:
            self._ledger.prepare()
            self._ledger.use_journal(self._path)
            self.foreign = self._find()
        except BaseException:
            self._ledger.close()
            opening.drop_empty_log(self._path)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._ledger.close()
        opening.drop_empty_log(self._path)
        self._ownership.release()

    # -- finding

    def _find(self) -> Foreign:
        counts = {texts.kind: Counter(command for _, command, _ in self._renewed(texts)) for texts in _TEXTS}
        commands = sorted(set().union(*(counts[kind] for kind in ("arguments", "results", "labels"))))
        jobs = tuple(
            ForeignJobs(name, *(counts[kind][name] for kind in ("arguments", "results", "labels")))
            for name in commands
        )
        return Foreign(jobs, tuple(self._code()), counts["displays"].total(), len(self._held()))

    def _renewed(self, texts: _Texts) -> Iterator[tuple[int, str, str]]:
        """Give (seq, command, text signed anew) of what is foreign."""
        with self._ledger.cursor() as cursor:
            cursor.execute(texts.sql)
            while rows := cursor.fetchmany(_CHUNK):
                for seq, command, context, text in rows:
                    renewed = texts.renew(text, key=self._key, context=context)
                    if renewed is not None:
                        yield seq, command, renewed

    def _code(self) -> Iterator[ForeignCode]:
        used: dict[str, list[tuple[str, str]]] = {}
        for code, command, origin in self._connection.execute(
            "SELECT DISTINCT code, command, origin FROM specs WHERE code <> '' ORDER BY ALL"
        ).fetchall():
            used.setdefault(code, []).append((command, origin))
        for code, blob in self._connection.execute("SELECT code, blob FROM code ORDER BY code").fetchall():
            if renew_code(bytes(blob), key=self._key, context=code) is not None:
                commands, origins = zip(*used.get(code, [("", "")]), strict=True)
                yield ForeignCode(
                    code,
                    tuple(dict.fromkeys(filter(None, commands))),
                    tuple(dict.fromkeys(filter(None, origins))),
                    len(blob),
                )

    def _held(self) -> list[Any]:
        """The ids of the held jobs whose arguments are pickled."""
        return [
            job_id
            for (job_id,) in self._connection.execute(
                f"SELECT job_id FROM jobs WHERE status = 'held' AND regexp_matches(arguments, {_PICKLED})"
            ).fetchall()
        ]

    # -- signing

    def sign(self, *, now: float) -> None:
        """Sign all that is foreign with this user's secret, and let held jobs run again; all of it or nothing."""
        if not self.foreign:
            return
        con = self._connection
        con.execute("BEGIN")
        try:
            for texts in _TEXTS:
                self._sign_texts(texts)
            for code in self.foreign.code:
                self._sign_code(code.code)
            self._release_held(now)
            con.execute("COMMIT")
        except duckdb.Error as error:
            raise QueueUnavailable(
                f"{self._path} could not be written ({error}); nothing was signed"
            ) from error
        self._ledger.checkpoint()

    def _sign_texts(self, texts: _Texts) -> None:
        con = self._connection
        con.execute("CREATE OR REPLACE TEMP TABLE renewed (seq BIGINT, text VARCHAR)")
        rows: list[tuple[int, str]] = []
        for seq, _, text in self._renewed(texts):
            rows.append((seq, text))
            if len(rows) == _CHUNK:
                con.executemany("INSERT INTO renewed VALUES (?, ?)", rows)
                rows.clear()
        if rows:
            con.executemany("INSERT INTO renewed VALUES (?, ?)", rows)
        con.execute(f"UPDATE ledger SET {texts.column} = r.text FROM renewed r WHERE ledger.seq = r.seq")
        con.execute("DROP TABLE renewed")

    def _sign_code(self, code: str) -> None:
        blob = self._ledger.get_code(code)
        renewed = None if blob is None else renew_code(blob, key=self._key, context=code)
        if renewed is not None:
            self._connection.execute("UPDATE code SET blob = ? WHERE code = ?", [renewed, code])

    def _release_held(self, now: float) -> None:
        held = self._held()
        if not held:
            return
        index = Index(self._ledger, self._ledger.numbers(), lambda: 0.5)
        self._ledger.recover(index, now)
        index.retry(held, now)
        with self._connection.appender("ledger") as appender:
            appender.append_rows(index.rows)
