"""The store in PostgreSQL: its parts put together, from opening to closing."""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from nbqueue.errors import QueueUnavailable
from nbqueue.jobs import JobRecord
from nbqueue.store import Capability
from nbqueue.stores.engine import Interruption
from nbqueue.stores.postgres import tables
from nbqueue.stores.postgres.address import Address
from nbqueue.stores.postgres.batches import BatchVerbs
from nbqueue.stores.postgres.chairs import Chairs
from nbqueue.stores.postgres.dispatching import DispatchVerbs
from nbqueue.stores.postgres.forgetting import Forgetting, ForgettingVerbs
from nbqueue.stores.postgres.link import Link, Tx
from nbqueue.stores.postgres.listening import Listening
from nbqueue.stores.postgres.looking import LookingVerbs
from nbqueue.stores.postgres.mirror import Mirror
from nbqueue.stores.postgres.specs import Specs
from nbqueue.stores.postgres.turning import TurnVerbs
from nbqueue.stores.postgres.watching import Watchers
from nbqueue.stores.recovery import SlotFolder
from nbqueue.stores.retention import Retention

__all__ = ["PostgresStore"]


class PostgresStore(DispatchVerbs, TurnVerbs, BatchVerbs, LookingVerbs, ForgettingVerbs):
    """Jobs in one schema of a PostgreSQL database, which any number of processes share.

    The server keeps and hands out work; what people read runs on a copy of its history in this process.

    Parameters
    ----------
    url : str or Address
        ``postgresql://user:password@host:port/database?schema=…``; its tables are made if there are none.
    clock : Callable[[], float], optional
        Seconds since the epoch, in place of the server's clock; for tests.
    ticks : Callable[[], float], optional
        Seconds for leases, in place of the server's clock; for tests.

    Raises
    ------
    QueueUnavailable
        Where the queue can be neither found nor made; the sentence says why, without the password.
    """

    capabilities = frozenset(Capability)

    def __init__(
        self,
        url: str | Address,
        *,
        clock: Callable[[], float] | None = None,
        ticks: Callable[[], float] | None = None,
    ):
        self._clock, self._ticks = clock, ticks or time.monotonic
        self._chance = random.random
        self._link = Link(url, clock=clock, ticks=ticks)
        #: What people call it.
        self.name = self._link.name
        try:
            #: Whether this made it.
            self.created = tables.prepare(self._link)
            store_id = self._link.run(_store_id, write=False)
        except BaseException:
            self._link.close()
            raise
        #: Nobody is interrupted by one who opens it: others may be at work.
        self.interrupted: list[Interruption] = []
        # Machines may share the folder of a user, and not each other's locks on the files in it.
        #: Where workers of this machine note which job each slot has begun.
        self.slot_folder = _data_folder() / "slots" / f"{store_id}-{platform.node()}"
        self.slot_folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._slots = SlotFolder(self.slot_folder)
        self._specs, self._chairs, self._watchers = Specs(), Chairs(), Watchers()
        self._retention: Retention[Forgetting] = Retention()
        self._mirror = Mirror(self._link)
        self._listening = Listening(self._link, self._hear, self._look)
        self._link.kept = self._kept

    # -- who waits for what

    def watch(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]) -> Callable[[], None]:
        """Call ``notify`` once for each of these jobs when it has ended."""
        some = list(ids)
        self._listening.begin()
        self._watchers.add(some, notify)

        def stop() -> None:
            self._watchers.drop(some, notify)

        try:
            self._look_at(some)
        except BaseException:
            stop()
            raise
        return stop

    def listen(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify`` whenever something has changed that people can see."""
        # The server is not asked: while it cannot be reached there is nothing to hear, and afterwards there is.
        self._link.check()
        self._listening.begin()
        self._watchers.listen(notify)

        def stop() -> None:
            self._watchers.unlisten(notify)

        return stop

    # -- closing

    def close(self) -> None:
        """Tell others what there is to tell, and let go of the server; doing it again does nothing."""
        if self._link.is_forked:
            # All that is to be let go of is its parent's.
            self._link.close()
            return
        self._listening.close()
        self._mirror.close()
        self._link.close()
        with suppress(OSError):
            # Empty, it is of no use to anybody.
            self.slot_folder.rmdir()


def _store_id(tx: Tx) -> str:
    row = tx.execute("SELECT value FROM meta WHERE name = 'store_id'").fetchone()
    if row is None:
        raise QueueUnavailable(f"the queue in the schema {tx.schema} is damaged: it has no store_id")
    return str(row[0])


def _data_folder() -> Path:
    given = os.environ.get("NBQUEUE_DATA_DIR")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_data_path

    return user_data_path("nbqueue")
