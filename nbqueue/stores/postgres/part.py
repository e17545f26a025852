"""What the parts of the store have in common: the server, and what is known in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nbqueue.stores.postgres.chairs import Chairs
from nbqueue.stores.postgres.link import Link, Tx
from nbqueue.stores.postgres.locked import Locked
from nbqueue.stores.postgres.specs import Specs
from nbqueue.stores.postgres.writing import write

if TYPE_CHECKING:
    from nbqueue.stores.postgres.listening import Listening
    from nbqueue.stores.postgres.mirror import Mirror
    from nbqueue.stores.postgres.watching import Watchers
    from nbqueue.stores.recovery import SlotFolder

__all__ = ["Part"]


class Part:
    """The base of each group of verbs; ``PostgresStore`` is all of them."""

    name: str
    _link: Link
    _specs: Specs
    _mirror: Mirror
    _chairs: Chairs
    _watchers: Watchers
    _slots: SlotFolder
    _listening: Listening
    #: None: the server's, which ``Tx.now`` gives.
    _clock: Callable[[], float] | None
    #: Seconds by a clock that never steps back.
    _ticks: Callable[[], float]
    #: In [0, 1), for the jitter of backoffs.
    _chance: Callable[[], float]

    def _lock(self, tx: Tx) -> Locked:
        """Give an index for what a transaction locks."""
        return Locked(tx, self._specs, self._chance)

    def _write(self, index: Locked) -> None:
        """Write what has come of it, and have those told who wait for it."""
        tx = index.tx
        write(tx, index, tx.now)
        self._watchers.look(tx, self._specs, tx.ended)

    def _retire(self, ticks: float) -> bool:
        """Let a piece of what has been kept long enough go; gives whether there was any."""
        raise NotImplementedError
