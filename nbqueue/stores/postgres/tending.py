"""What is done beside the verbs: workers are woken and handed work, words are heard, leases and sums looked after."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from uuid import UUID

from nbqueue.errors import QueueError
from nbqueue.jobs import Claim
from nbqueue.slots import is_alive
from nbqueue.stores.postgres.burying import Burying, lengthen_leases
from nbqueue.stores.postgres.chairs import Chair
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.listening import LOOK_EVERY
from nbqueue.stores.postgres.seeking import Seeking, promote
from nbqueue.stores.postgres.watching import call_all

__all__ = ["Tending"]

_log = logging.getLogger("nbqueue.store")

#: Counts are summed up from so many rows on.
_COUNTS_MAX = 500
#: Forgetting may take so long of each second.
_RETIRE_SECONDS = 0.3
_SUM_UP = """
    WITH taken AS (DELETE FROM counts RETURNING queue, state, delta)
    INSERT INTO counts SELECT queue, state, sum(delta) FROM taken GROUP BY queue, state HAVING sum(delta) <> 0
    """


class Tending(Burying):
    """What a store does by itself."""

    # -- after a commit

    def _kept(self, tx: Tx) -> None:
        """Tell whoever waits for what was kept."""
        call_all(tx.calls)
        self._wake_named(list(tx.words))
        if tx.fresh and not tx.served:
            self._fill()
        if tx.changed:
            self._watchers.changed()
        words = list(tx.words)
        words += [f"work {queue}" for queue in tx.fresh]
        words += [f"ended {job_id.hex}" for job_id in tx.ended]
        if tx.changed:
            words.append("changed")
        if words:
            self._listening.tell(words)

    def _fill(self) -> None:
        """Hand the workers of this process that wait for jobs what there is."""
        handed: list[tuple[Chair, Sequence[Claim]]] = []
        try:
            with self._chairs.idle() as (idle, busy):
                handed += [(chair, ()) for chair in busy]
                for chair in idle:
                    handed.append((chair, self._claim_for(chair)))
        except QueueError as error:
            # The verb that led to it is kept nevertheless; who is not handed anything finds it with its next turn.
            _log.debug("handing out what has come: %s", error)
        finally:
            for chair, claims in handed:
                self._wake(chair, claims)

    def _claim_for(self, chair: Chair) -> Sequence[Claim]:
        def verb(tx: Tx) -> list[Claim]:
            index, seat = self._lock(tx), chair.copy()
            # Its first try may be kept, with claims that nobody was told of.
            chair.doubt |= tx.again
            locked = tx.execute(
                "SELECT worker FROM workers WHERE worker = %s AND NOT gone FOR UPDATE", [seat.number]
            )
            promote(tx)
            seeking = Seeking(index, seat, chair.room)
            index.seat(seat)
            claims = seeking.take(tx.now) if locked.fetchone() is not None else []
            self._write(index)
            tx.after(partial(chair.take, seat))
            return claims

        with chair.held():
            # Otherwise its next turn clears that up.
            return [] if chair.doubt else self._link.run(verb)

    @staticmethod
    def _wake(chair: Chair, claims: Sequence[Claim] = ()) -> None:
        """Hand a worker claims, or ask it for a turn."""
        call_all([lambda: chair.seat.wake(claims)])

    def _wake_named(self, words: Sequence[str]) -> None:
        """Ask those workers of this process for a turn that are named."""
        for word in words:
            what, _, worker_id = word.partition(" ")
            chair = self._chairs.get(worker_id) if what == "turn" else None
            if chair is not None:
                self._wake(chair)

    # -- what other processes say

    def _hear(self, words: Sequence[str]) -> None:
        """Do what the words of other processes ask for; none means that some may have been lost."""
        lost = not words
        said: dict[str, list[str]] = {}
        for word in words:
            what, _, rest = word.partition(" ")
            said.setdefault(what, []).append(rest)
        self._wake_named(words)
        if lost or "work" in said:
            for chair in self._chairs.all():
                names = chair.seat.info.queues
                if lost or (chair.room > 0 and (names is None or not set(names).isdisjoint(said["work"]))):
                    self._wake(chair)
        watched = self._watchers.ids()
        if watched:
            ended = {UUID(hex=job_id) for job_id in said.get("ended", ())}
            self._look_at(watched if lost else [job_id for job_id in watched if job_id in ended])
        if lost or "changed" in said:
            self._watchers.changed()

    def _look_at(self, ids: Sequence[UUID]) -> None:
        """Have told of those of these jobs that have ended."""
        if ids:
            self._link.run(lambda tx: self._watchers.look(tx, self._specs, ids), write=False)

    # -- now and then

    def _look(self) -> None:
        """Look after workers that are dead or silent, and after the counts; one process does it for all."""
        dead = [file.stem for file in self._slots.path.glob("*.slots") if is_alive(file) is False]
        if dead:
            self._link.run(lambda tx: self._bury_dead(tx, dead))
            for worker_id in dead:
                # What it says is kept now.
                self._slots.file(worker_id).unlink(missing_ok=True)
        if self._link.run(_is_due, write=False):
            self._link.run(self._tend)
            until = time.monotonic() + _RETIRE_SECONDS
            while self._retire(time.monotonic()) and time.monotonic() < until:
                """There may be more."""

    def _tend(self, tx: Tx) -> None:
        (first,) = tx.one("SELECT pg_try_advisory_xact_lock(7412, hashtext(%s))", [tx.schema])
        if not first:
            return
        lengthen_leases(tx)
        self._bury_lapsed(tx)
        (rows,) = tx.one("SELECT count(*) FROM (SELECT FROM counts LIMIT %s) c", [_COUNTS_MAX])
        if rows == _COUNTS_MAX:
            tx.execute(_SUM_UP)


def _is_due(tx: Tx) -> bool:
    (looked_at,) = tx.one("SELECT value FROM meta WHERE name = 'looked_at'")
    return not 0.0 <= tx.now - float(looked_at) < 0.9 * LOOK_EVERY
