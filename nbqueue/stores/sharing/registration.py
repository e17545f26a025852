"""What a process has registered at a store and must register anew at the next: workers, watches and listeners."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from uuid import UUID

from nbqueue.jobs import Claim, JobRecord
from nbqueue.store import Handlers, Report, ReportKind, Store, WorkerInfo

__all__ = ["Desk", "Listening", "Registration", "Retaining", "Seated", "Wake", "Watching"]

Wake = Callable[[Sequence[Claim]], None]
#: Gives what a store is to call for a worker.
WakeOf = Callable[[Store, "Seated"], Wake]


class Registration:
    """Something that a store is told once, and the next store again."""

    def __init__(self) -> None:
        self._at: Store | None = None
        self._stop: Callable[[], None] | None = None
        self._stopped = False
        #: Held while a store is told, so that two threads do not tell it twice.
        self._telling = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether nothing will come of it any more."""
        return self._stopped

    def register(self, store: Store, wake_of: WakeOf) -> None:
        """Make it known at this store, unless it is; where that fails it can be done again."""
        with self._telling:
            if self._at is store or self.over:
                return
            self._stop = self._tell(store, wake_of)
            self._at = store
        if self._stopped:
            # It was taken back while the store was told.
            self.stop()

    def _tell(self, store: Store, wake_of: WakeOf) -> Callable[[], None] | None:
        raise NotImplementedError

    def stop(self) -> None:
        """Take it back."""
        # Without waiting for who tells a store: it may wait for the thread that this is called from.
        self._stopped = True
        if self._stop is not None:
            self._stop()

    def give_up(self) -> None:
        """Tell whoever waits that nothing will come."""


class Seated(Registration):
    """A worker, and the fences of the claims that it holds."""

    def __init__(self, info: WorkerInfo, handlers: Handlers, wake: Wake, held: set[int]):
        super().__init__()
        self.info, self.handlers, self.wake, self.held = info, handlers, wake, held

    def _tell(self, store: Store, wake_of: WakeOf) -> None:
        store.join(self.info, self.handlers, wake_of(store, self), frozenset(self.held))

    def stop(self) -> None:
        """Have it join no store any more; that it leaves is said afterwards."""
        with self._telling:
            super().stop()

    def give_up(self) -> None:
        """Have it take a turn, which tells it why there are no more."""
        self.wake(())

    def took(self, claims: Sequence[Claim]) -> None:
        """Keep what it was given."""
        self.held.update(claim.fence for claim in claims)

    def said(self, reports: Sequence[Report]) -> None:
        """Strike off what it is done with, whether its report was accepted or refused."""
        self.held.difference_update(
            report.claim.fence for report in reports if report.kind is not ReportKind.NEWS
        )


class Watching(Registration):
    """Jobs whose ends somebody waits for; each is told once, however often the watch was made."""

    def __init__(self, ids: Sequence[UUID], notify: Callable[[JobRecord | None], None]):
        super().__init__()
        self._left = dict.fromkeys(ids)
        self._notify = notify
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether all were told."""
        return not self._left

    def _tell(self, store: Store, wake_of: WakeOf) -> Callable[[], None]:
        return store.watch(list(self._left), self._ended)

    def _ended(self, record: JobRecord | None) -> None:
        with self._lock:
            told = bool(self._left) if record is None else record.job_id in self._left
            if record is None:
                self._left.clear()
            else:
                self._left.pop(record.job_id, None)
        if told:
            self._notify(record)

    def stop(self) -> None:
        """Tell of no more."""
        with self._lock:
            self._left.clear()
        super().stop()

    def give_up(self) -> None:
        """Say that it will never be known."""
        self._ended(None)


class Listening(Registration):
    """Who wants to know that something has changed."""

    def __init__(self, notify: Callable[[], None]):
        super().__init__()
        self._notify = notify

    def _tell(self, store: Store, wake_of: WakeOf) -> Callable[[], None]:
        return store.listen(self._notify)

    def give_up(self) -> None:
        """Have it look again, and learn why there is nothing to see."""
        self._notify()


class Retaining(Registration):
    """How long ended jobs are kept, which an owner knows only from who said so."""

    def __init__(self, seconds: float | None, keep: int | None):
        super().__init__()
        self._limits = seconds, keep

    def _tell(self, store: Store, wake_of: WakeOf) -> None:
        store.retain(*self._limits)


class Desk:
    """All that is registered; whoever changes it has the lock of the store that it belongs to."""

    def __init__(self) -> None:
        self.seated: dict[str, Seated] = {}
        self.retaining: Retaining | None = None
        self._others: dict[int, Registration] = {}
        self._room = 64

    def all(self) -> list[Registration]:
        """Give all of it, workers first."""
        retaining = [] if self.retaining is None else [self.retaining]
        return [*self.seated.values(), *retaining, *self._others.values()]

    def add(self, one: Registration) -> None:
        """Take one, and now and then forget those that are over."""
        if isinstance(one, Seated):
            self.seated[one.info.worker_id] = one
            return
        if isinstance(one, Retaining):
            self.retaining = one
            return
        if len(self._others) >= self._room:
            self._others = {key: other for key, other in self._others.items() if not other.over}
            self._room = max(64, 2 * len(self._others))
        self._others[id(one)] = one

    def drop(self, one: Registration) -> None:
        """Forget one."""
        if isinstance(one, Seated):
            self.seated.pop(one.info.worker_id, None)
        else:
            self._others.pop(id(one), None)
