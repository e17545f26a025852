"""What a panel shows, as one plain value, and what has changed of it as a patch; knows no queue and no widget."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Row", "State"]

#: A job as a line of the table.
Row = dict[str, Any]

_DETAIL = "detail"


class State:
    """The state of a panel: small sections that are replaced as wholes, and the table's rows, replaced one by one.

    One thread sets what is new and takes the patch of it; until then nobody sees it. Any thread may ask for a snapshot.

    Parameters
    ----------
    v : int
        The version to begin at: one that takes the place of another goes on from there.
    **sections
        What there is from the beginning.

    Example
    -------
    >>> state = State(name="jobs.duckdb")
    >>> state.set("paused", 1)
    >>> state.take(now=5)
    {'type': 'patch', 'base': 0, 'v': 1, 'set': {'paused': 1, 'now': 5}}
    >>> state.take(now=6) is None
    True
    """

    def __init__(self, v: int = 0, **sections: Any) -> None:
        self._lock = threading.Lock()
        self._v = v
        self._now = 0
        self._sections: dict[str, Any] = {**sections, _DETAIL: None}
        self._rows: dict[str, Row] = {}
        self._order: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._new: dict[str, Any] = {}
        self._new_rows: dict[str, Row] = {}
        self._new_order: list[str] | None = None
        self._new_detail: dict[str, Any] = {}

    # -- what is new

    def get(self, section: str) -> Any:
        """Give a section as it was set last."""
        return self._new.get(section, self._sections.get(section))

    def set(self, section: str, value: Any) -> None:
        """Replace a section; ``"jobs.total"`` is a part of the table."""
        if value == self._sections.get(section):
            self._new.pop(section, None)
        else:
            self._new[section] = value
        if section == _DETAIL:
            self._new_detail = {}

    def set_rows(self, rows: Mapping[str, Row]) -> None:
        """Replace these rows, by job."""
        for job_id, row in rows.items():
            old = self._rows.get(job_id)
            if old is row or old == row:
                self._new_rows.pop(job_id, None)
            else:
                self._new_rows[job_id] = row

    def set_order(self, order: Sequence[str]) -> None:
        """Say which rows the table has, from the top; those that are not among them go."""
        self._new_order = list(order)

    def set_detail(self, **values: Any) -> None:
        """Replace parts of the open detail."""
        opened = self.get(_DETAIL) or {}
        changed = {
            name: value for name, value in values.items() if name not in opened or opened[name] != value
        }
        if _DETAIL in self._new:
            self._new[_DETAIL] = {**opened, **changed}
        else:
            self._new_detail.update(changed)

    # -- what is sent

    def take(self, *, now: int) -> dict[str, Any] | None:
        """Give what is new as a patch, None where there is nothing; from then on it is part of the snapshot."""
        gone: list[str] = []
        order = self._new_order
        if order is not None:
            kept = set(order)
            gone = [job_id for job_id in self._rows if job_id not in kept]
            self._new_rows = {job_id: row for job_id, row in self._new_rows.items() if job_id in kept}
        if order == self._order:
            order = None
        if not (self._new or self._new_rows or self._new_detail or gone or order is not None):
            self._begin()
            return None
        with self._lock:
            patch: dict[str, Any] = {
                "type": "patch",
                "base": self._v,
                "v": self._v + 1,
                "set": {**self._new, "now": now},
            }
            if self._new_rows:
                patch["rows"] = self._new_rows
            if order is not None:
                patch["order"] = self._order = order
            if gone:
                patch["gone"] = gone
            if self._new_detail:
                patch[_DETAIL] = self._new_detail
                self._sections[_DETAIL] = {**(self._sections[_DETAIL] or {}), **self._new_detail}
            self._v += 1
            self._now = now
            self._sections.update(self._new)
            # A new one: whoever has a snapshot keeps the old.
            self._rows = {**self._rows, **self._new_rows}
            for job_id in gone:
                del self._rows[job_id]
            self._begin()
        return patch

    def snapshot(self) -> dict[str, Any]:
        """Give the whole of it; whoever gets it may keep it."""
        with self._lock:
            table = {"order": list(self._order), "rows": dict(self._rows)}
            whole: dict[str, Any] = {"v": self._v, "now": self._now}
            for name, value in self._sections.items():
                if name.startswith("jobs."):
                    table[name.removeprefix("jobs.")] = value
                else:
                    whole[name] = value
            return {**whole, "jobs": table}
