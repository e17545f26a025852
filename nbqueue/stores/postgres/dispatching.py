"""Jobs that come in, that are cancelled, and that are to run again."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from nbqueue.errors import StaleClaim
from nbqueue.jobs import Claim, NewJob, State
from nbqueue.store import Answer
from nbqueue.stores.live import Seat
from nbqueue.stores.postgres import records
from nbqueue.stores.postgres.chairs import Chair
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.locked import Locked
from nbqueue.stores.postgres.tending import Tending
from nbqueue.stores.postgres.writing import COPY_ROWS

__all__ = ["DispatchVerbs"]

_SEATS = "SELECT worker FROM workers WHERE worker = ANY(%s) AND NOT gone ORDER BY worker FOR UPDATE"
_IDLE = f"SELECT array({_SEATS}), array(SELECT queue FROM queues WHERE paused), take_numbers('fences', %s)"


#: Nobody idle, nobody busy.
_NOBODY: tuple[list[Chair], list[Chair]] = ([], [])


class DispatchVerbs(Tending):
    """Dispatch, cancellation and retry."""

    def insert(self, jobs: Sequence[NewJob], worker_id: str | None = None) -> list[Claim]:
        """Take new jobs, all or none; with ``worker_id`` for that worker alone."""
        if worker_id is not None:
            return self._insert_for(jobs, worker_id)
        few = len(jobs) < COPY_ROWS
        # Many take their time: no worker is kept from its turns meanwhile, they are handed some afterwards.
        with self._chairs.idle() if few else contextlib.nullcontext(_NOBODY) as (idle, busy):
            try:
                claims = self._link.run(
                    lambda tx: self._insert(tx, jobs, idle, served=few), pipelined=few, greets=True
                )
            except BaseException:
                for chair in idle:
                    chair.doubt = True
                raise
            # One that takes none of them learns from its next turn what there is.
            for chair in (*idle, *busy):
                self._wake(chair, claims.get(chair.seat.info.worker_id, ()))
        return []

    def _insert(
        self, tx: Tx, jobs: Sequence[NewJob], idle: Sequence[Chair], *, served: bool
    ) -> dict[str, list[Claim]]:
        tx.served = served
        index = self._lock(tx)
        seats = {chair.seat.number: (chair, chair.copy()) for chair in idle}
        idles = tx.execute(_IDLE, [list(seats), len(jobs) + 1]) if seats else None
        index.prepare(jobs)
        if tx.again:
            for chair in idle:
                chair.doubt = True
        index.insert(jobs, tx.now)
        claims: dict[str, list[Claim]] = {}
        here: list[tuple[Chair, Seat]] = []
        if idles is not None:
            numbers, paused, fence = idles.fetchone() or ((), (), 0)
            here = [seats[number] for number in numbers]
            index.number_fences(fence)
            claims = _hand_out(index, [seat for _, seat in here], paused, tx.now)
        self._write(index)
        for chair, seat in here:
            tx.after(partial(chair.take, seat))
        return claims

    def _insert_for(self, jobs: Sequence[NewJob], worker_id: str) -> list[Claim]:
        chair = self._chairs.get(worker_id)
        if chair is None:
            raise _nobody(worker_id)
        with chair.held():

            def verb(tx: Tx) -> list[Claim]:
                index, seat = self._lock(tx), chair.copy()
                if tx.execute(_SEATS, [[seat.number]]).fetchone() is None:
                    raise _nobody(worker_id)
                # It may be asked again by who never heard of the first time.
                taken = tx.execute(
                    "SELECT job_id FROM jobs WHERE job_id = ANY(%s)", [[job.job_id for job in jobs]]
                ).fetchall()
                self._hold_taken(index, seat, [job_id for (job_id,) in taken])
                index.prepare(jobs)
                (first,) = tx.one("SELECT take_numbers('fences', %s)", [len(jobs) + 1])
                index.number_fences(first)
                claims = index.insert(jobs, tx.now, worker_id)
                self._write(index)
                tx.after(partial(chair.take, seat))
                return claims

            return self._link.run(verb, pipelined=len(jobs) < COPY_ROWS)

    def _hold_taken(self, index: Locked, seat: Seat, ids: Sequence[UUID]) -> None:
        """Lock jobs that were here before, with all that a claim of them tells."""
        index.seat(seat)
        if not ids:
            return
        known = {job.number: job for job in records.load(index.tx, self._specs, ids)}
        for job in index.take(index.lock_ids(ids), known):
            index.taken.add(job.job_id)
            if job.life.state is State.RUNNING and job.worker == seat.info.worker_id:
                seat.claims[job.life.fence] = job

    def cancel(self, ids: Sequence[UUID], *, again: bool = False) -> list[Answer]:
        """Cancel pending jobs, ask running ones to stop; asked ``again``, what is cancelled is done."""

        def verb(tx: Tx) -> list[Answer]:
            index = self._lock(tx)
            index.take(index.lock_ids(ids))
            answers = index.cancel(ids, tx.now, again=again or tx.again)
            self._write(index)
            return answers

        return self._link.run(verb)

    def retry(self, ids: Sequence[UUID], fences: Sequence[int] | None = None) -> list[Answer]:
        """Let ended jobs run again and waiting ones run now; with ``fences`` it may be asked again."""
        seen: dict[UUID, int] = {}

        def verb(tx: Tx) -> list[Answer]:
            index = self._lock(tx)
            found = index.take(index.lock_ids(ids))
            # Run again over a lost answer, it is to change nothing that the first time has changed.
            before = fences if fences is not None or not tx.again else [seen.get(i, 0) for i in ids]
            if not tx.again:
                seen.update({job.job_id: job.life.fence for job in found})
            answers = index.retry(ids, tx.now, before)
            self._write(index)
            return answers

        return self._link.run(verb)


def _nobody(worker_id: str) -> StaleClaim:
    return StaleClaim(
        f"worker {worker_id} is not here any more (its lease ran out); join again, then dispatch"
    )


def _hand_out(
    index: Locked, seats: Sequence[Seat], paused: Sequence[str], now: float
) -> dict[str, list[Claim]]:
    """Hand new jobs to workers of this process that wait for some: a claim rides in the commit of its dispatch."""
    for name in paused:
        index.queues[name].paused = True
    claims = {}
    for seat in seats:
        index.seat(seat)
        claims[seat.info.worker_id] = index.claim(seat, now)
    return claims
