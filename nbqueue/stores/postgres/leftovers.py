"""What no job refers to any more once some were forgotten, and what mirrors are told of it.

Whoever dispatches holds the rows that it uses, and nobody waits for those here: what is in use stays. Whether a row
has a job is looked at once it is locked, since until then one may come.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from nbqueue.stores.live import micros
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.mirror import GONE_KEPT
from nbqueue.stores.pruning import CODE_KEPT

__all__ = ["clear_up", "tell_mirrors"]

#: A worker that has left stays so many seconds longer than the history of what it may have run.
_WORKER_KEPT = 86_400.0

# One that was handed in without a row has none to lose.
_NO_ROWS = "cardinality(runs) > 0 AND NOT EXISTS (SELECT FROM jobs j WHERE j.batch_id = b.batch_id)"


def tell_mirrors(
    tx: Tx,
    jobs: Sequence[int] = (),
    specs: Sequence[int] = (),
    workers: Sequence[int] = (),
    batches: Sequence[object] = (),
) -> None:
    """Write down what went, for the mirrors of all processes; jobs are runs: first, last, first, last."""
    if jobs or specs or workers or batches:
        tx.execute(
            "INSERT INTO gone (jobs, specs, workers, batches, gone_us)"
            " VALUES (%s::bigint[], %s::integer[], %s::integer[], %s::uuid[], %s)",
            [list(jobs), list(specs), list(workers), list(batches), micros(tx.now)],
        )


def clear_up(specs: Collection[int], tx: Tx) -> None:
    """Delete what no job refers to any more.

    Parameters
    ----------
    specs : collection of int
        Those that may have lost their last job.
    tx : Tx
        The transaction.
    """
    tell_mirrors(tx, specs=_specs(tx, specs), workers=_workers(tx), batches=_batches(tx))
    now = tx.now
    tx.execute(
        "DELETE FROM code c WHERE put_us < %s AND NOT EXISTS (SELECT FROM specs s WHERE s.code = c.code)",
        [micros(now - CODE_KEPT)],
    )
    tx.execute("DELETE FROM gone WHERE gone_us < %s", [micros(now - GONE_KEPT)])


def _batches(tx: Tx) -> list[Any]:
    found = tx.execute(
        f"SELECT batch_id FROM batches b WHERE {_NO_ROWS} ORDER BY batch_id FOR UPDATE SKIP LOCKED"
    )
    locked = _first(found.fetchall())
    if not locked:
        return []
    return _first(
        tx.execute(
            f"DELETE FROM batches b WHERE batch_id = ANY(%s) AND {_NO_ROWS} RETURNING batch_id", [locked]
        ).fetchall()
    )


def _specs(tx: Tx, specs: Collection[int]) -> list[Any]:
    locked = _first(
        tx.execute(
            "SELECT spec FROM specs WHERE spec = ANY(%s) ORDER BY spec FOR UPDATE SKIP LOCKED", [list(specs)]
        ).fetchall()
    )
    # One after the other: of a spec that is in use the first job is found at once, and the look is over.
    tx.execute("SET LOCAL enable_seqscan = on")
    looks = [tx.execute("SELECT FROM standing WHERE spec = %s LIMIT 1", [number]) for number in locked]
    unused = [number for number, look in zip(locked, looks, strict=True) if look.fetchone() is None]
    if unused:
        tx.execute("DELETE FROM specs WHERE spec = ANY(%s)", [unused])
    return unused


def _workers(tx: Tx) -> list[Any]:
    """Those that left before the first job that is still here was dispatched: it has none of theirs."""
    if tx.ticks is not None:
        return []  # leases are by another clock than jobs
    first = tx.execute("SELECT dispatched_us FROM jobs ORDER BY job LIMIT 1").fetchone()
    if first is None:
        return []
    before = first[0] / 1e6 - _WORKER_KEPT
    return _first(
        tx.execute(
            "DELETE FROM workers WHERE gone AND lease_until < %s RETURNING worker", [before]
        ).fetchall()
    )


def _first(rows: Sequence[Sequence[Any]]) -> list[Any]:
    return [row[0] for row in rows]
