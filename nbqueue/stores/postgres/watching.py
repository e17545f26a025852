"""Who waits for jobs to end, and who wants to know of any change; both in this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from uuid import UUID

from nbqueue.jobs import JobRecord
from nbqueue.stores.postgres import records
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.specs import Specs

__all__ = ["Notify", "Watchers", "call_all"]

_log = logging.getLogger("nbqueue.store")

Notify = Callable[[JobRecord | None], None]


class Watchers:
    """Whom to tell of which job's end, and whom of every change."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, list[Notify]] = {}
        self._listeners: tuple[Callable[[], None], ...] = ()
        self._lock = threading.Lock()

    # -- jobs that end

    def add(self, ids: Sequence[UUID], notify: Notify) -> None:
        """Have somebody told when these have ended."""
        with self._lock:
            for job_id in ids:
                self._waiting.setdefault(job_id, []).append(notify)

    def drop(self, ids: Sequence[UUID], notify: Notify) -> None:
        """Have somebody not told any more."""
        with self._lock:
            for job_id in ids:
                waiting = self._waiting.get(job_id, [])
                if notify in waiting:
                    waiting.remove(notify)
                    if not waiting:
                        del self._waiting[job_id]

    def ids(self) -> list[UUID]:
        """The jobs that somebody waits for."""
        with self._lock:
            return list(self._waiting)

    def look(self, tx: Tx, specs: Specs, ids: Collection[UUID]) -> None:
        """Of these jobs, have those told of that have ended and are waited for, once this transaction is kept."""
        with self._lock:
            watched = [job_id for job_id in ids if job_id in self._waiting] if self._waiting else []
        if not watched:
            return
        for job in records.load(tx, specs, watched):
            if job.life.state.ended:
                tx.after(partial(self._tell, job.record()))

    def _tell(self, record: JobRecord) -> None:
        with self._lock:
            waiting = self._waiting.pop(record.job_id, [])
        call_all([partial(notify, record) for notify in waiting])

    # -- any change

    def listen(self, notify: Callable[[], None]) -> None:
        """Have somebody told of every change."""
        with self._lock:
            self._listeners = (*self._listeners, notify)

    def unlisten(self, notify: Callable[[], None]) -> None:
        """Have somebody told of none any more."""
        with self._lock:
            self._listeners = tuple(one for one in self._listeners if one is not notify)

    @property
    def anybody(self) -> bool:
        """Whether anybody waits or listens."""
        return bool(self._listeners or self._waiting)

    def changed(self) -> None:
        """Tell who listens."""
        call_all(self._listeners)


def call_all(calls: Sequence[Callable[[], object]]) -> None:
    """Call all of them; one that raises does not keep it from the others."""
    for call in calls:
        try:
            call()
        except Exception:  # noqa: BLE001 - whatever it is, the store goes on
            _log.exception("what was to be told of a job's end, of new jobs, or of a change, raised")
