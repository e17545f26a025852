"""What jobs come to: counts by queue, failures by fingerprint, waits by command, attempts beside each other."""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbqueue.frames.columns import FAILURES, LATENCY, TIMELINE, limited, listed, shaped, where
from nbqueue.frames.rows import of_jobs
from nbqueue.jobs import State
from nbqueue.shortcuts import FAILED
from nbqueue.store import Selection, Store
from nbqueue.stores.selecting import conditions

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["failures", "latency", "stats", "timeline"]


def stats(store: Store) -> pd.DataFrame:
    """Give a row a queue, a column a state.

    Returns
    -------
    pandas.DataFrame
        ``queue`` (category), ``pending``, ``running``, ``succeeded``, ``failed``, ``cancelled`` (int64), ``waiting``
        (int64: those pending ones that wait for their time), ``paused`` (bool); by queue.
    """
    import pandas as pd

    columns = {"queue": "name", **{state.value: "count" for state in State}, "waiting": "count"}
    rows = [
        {"queue": q.name, **{s.value: q.counts[s] for s in State}, "waiting": q.waiting, "paused": q.paused}
        for q in store.queues()
    ]
    frame = pd.DataFrame(rows, columns=[*columns, "paused"])
    return shaped(frame, columns).assign(paused=frame["paused"].astype(bool))


def failures(store: Store, selection: Selection | None = None) -> pd.DataFrame:
    """Give what failed jobs failed with, a row a fingerprint, the most frequent first.

    Parameters
    ----------
    store : Store
        Where they are.
    selection : Selection, optional
        Which; every field of it but ``states`` narrows.

    Returns
    -------
    pandas.DataFrame
        ``fingerprint`` (text: the error's class and the line of the user's own code, "KeyError at clean.py:88 in f"),
        ``jobs`` (int64), ``commands`` (int64: how many commands fail so), ``command`` (category: the last of them),
        ``first_at``, ``last_at`` (``datetime64[us, UTC]``: when the first and the last of them ended), ``error``,
        ``job_id`` (text: of the last).
    """
    picked = replace(selection or Selection(), states=None)
    found = _failures(store, FAILED, picked, ", bool_and(told) AS told")
    if len(found) and not found["told"].all():
        found = _failures(store, "jobs", replace(picked, states=(State.FAILED,)))
    return shaped(found, FAILURES)


def _failures(store: Store, source: str, selection: Selection, more: str = "") -> pd.DataFrame:
    parts, params = conditions(selection)
    return store.query(
        "SELECT fingerprint, count(*) AS jobs, count(DISTINCT command) AS commands,"
        " max_by(command, finished_at) AS command, min(finished_at) AS first_at, max(finished_at) AS last_at,"
        f" max_by(error, finished_at) AS error, max_by(job_id::VARCHAR, finished_at) AS job_id{more}"
        f" FROM {source}{where(parts)} GROUP BY 1 ORDER BY jobs DESC, last_at DESC",
        params,
    )


def latency(store: Store, selection: Selection | None = None) -> pd.DataFrame:
    """Give how long ended jobs waited and ran: the median and the slowest 5 % and 1 %, a row a command, busiest first.

    Returns
    -------
    pandas.DataFrame
        ``command`` (category), ``jobs`` (int64: how many), ``wait_p50``, ``wait_p95``, ``wait_p99``, ``run_p50``,
        ``run_p95``, ``run_p99`` (seconds, float64).
    """
    parts, params = conditions(selection or Selection())
    quantiles = ", ".join(
        f"quantile_cont({what}_seconds, {percent / 100}) AS {what}_p{percent}"
        for what in ("wait", "run")
        for percent in (50, 95, 99)
    )
    found = store.query(
        f"SELECT command, count(*) AS jobs, {quantiles} FROM jobs{where([*parts, 'run_seconds IS NOT NULL'])}"
        " GROUP BY command ORDER BY jobs DESC, command",
        params,
    )
    return shaped(found, LATENCY)


def timeline(store: Store, selection: Selection | None = None, limit: int | None = 2_000) -> pd.DataFrame:
    """Give when attempts ran and beside which others: the newest ones that began, oldest first.

    Returns
    -------
    pandas.DataFrame
        ``job_id``, ``command``, ``queue``, ``attempt``, ``outcome``, ``started_at``, ``finished_at`` (NaT while it
        runs), ``run_seconds``, ``worker`` as of ``attempts``, and ``lane`` (int64): on each worker from 0 up, no two
        attempts of a lane overlapping. ``attrs["of"]`` is how many attempts there are.
    """
    picked, params = of_jobs(selection or Selection())
    narrowed = where([*picked, "started_at IS NOT NULL"])
    found = store.query(
        f"SELECT {listed(TIMELINE)} FROM attempts{narrowed} ORDER BY fence DESC{limited(limit)}", params
    )
    count = len(found)
    if limit is not None and count == limit:
        count = int(store.query(f"SELECT count(*) AS n FROM attempts{narrowed}", params)["n"].iloc[0])
    frame = shaped(found, TIMELINE).iloc[::-1].sort_values("started_at", kind="stable", ignore_index=True)
    frame["lane"] = _lanes(frame)
    frame.attrs["of"] = count
    return frame


def _lanes(frame: pd.DataFrame) -> Any:
    """Give each attempt the lowest lane of its worker that is free when it starts."""
    import numpy as np

    far = np.iinfo(np.int64).max
    starts = frame["started_at"].astype("int64").to_numpy()
    ends = np.where(frame["finished_at"].isna(), far, frame["finished_at"].astype("int64").to_numpy())
    lanes = np.zeros(len(frame), dtype=np.int64)
    busy: dict[int, list[tuple[int, int]]] = {}
    free: dict[int, list[int]] = {}
    workers = frame["worker"].cat.codes.to_numpy()
    for row, (worker, start, end) in enumerate(
        zip(workers.tolist(), starts.tolist(), ends.tolist(), strict=True)
    ):
        taken, left = busy.setdefault(worker, []), free.setdefault(worker, [])
        while taken and taken[0][0] <= start:
            heapq.heappush(left, heapq.heappop(taken)[1])
        lane = heapq.heappop(left) if left else len(taken)
        heapq.heappush(taken, (end, lane))
        lanes[row] = lane
    return lanes
