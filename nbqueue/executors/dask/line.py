"""The line to a cluster: a thread with a loop, and one session after another while an executor is open."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbqueue.errors import NotSupported, QueueUnavailable
from nbqueue.executors.dask.cluster import PATIENCE, Cluster
from nbqueue.executors.dask.desk import Desk
from nbqueue.executors.dask.session import Session

if TYPE_CHECKING:
    from nbqueue.jobs import Claim

__all__ = ["Line"]

_log = logging.getLogger("nbqueue.worker")

#: How long it may take to let go of the cluster.
_FAREWELL = 5.0
#: The pauses between attempts to reach a scheduler that has gone.
_PAUSE_MIN, _PAUSE_MAX = 0.5, 15.0


class Line:
    """A thread that talks to a cluster.

    Parameters
    ----------
    cluster : Cluster
        See there.
    desk : Desk
        The books.
    concurrency : int, optional
        As of the executor.
    on_slots : Callable[[int], None]
        Is told how many jobs can run at once now.
    """

    def __init__(
        self, cluster: Cluster, desk: Desk, concurrency: int | None, on_slots: Callable[[int], None]
    ):
        self._cluster, self._desk, self._concurrency, self._on_slots = cluster, desk, concurrency, on_slots
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = asyncio.Event()
        self._left: list[Claim] = []
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=contextvars.Context().run, args=(self._run,), name="nbqueue-dask", daemon=True
        )

    def open(self) -> None:
        """Connect; raises what speaks against it."""
        self._thread.start()
        try:
            self._opened.result(3 * PATIENCE)
        except TimeoutError as error:
            self.close()
            raise QueueUnavailable(
                f"the Dask scheduler at {self._cluster.address} does not answer"
            ) from error

    def do(self, what: str, *arguments: Any) -> None:
        """Have the lanes do something, if there are any; from any thread."""

        def call() -> None:
            if self._session is not None:
                getattr(self._session.lanes, what)(*arguments)

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call)

    def close(self) -> list[Claim]:
        """Let go of the cluster; gives what was given to lanes and not begun."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._close)
        self._thread.join(_FAREWELL)
        return self._left

    def _close(self) -> None:
        self._closing.set()
        if self._session is not None:
            self._session.leave()

    # -- in its thread

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            else:
                _log.exception("the line to the Dask cluster at %s broke", self._cluster.address)
                self._on_slots(0)
                self._desk.release_all()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        session: Session | None = await self._connect(PATIENCE)
        self._opened.set_result(None)
        while session is not None:
            self._session = session
            self._desk.done()
            await session.run()
            self._session = None
            left = await session.end()
            if self._closing.is_set():
                self._left = left
                return
            self._give_back(left)
            session = await self._reconnect()

    async def _connect(self, patience: float) -> Session:
        client = await self._cluster.connect(patience)
        session = Session(self._cluster, client, self._desk, self._concurrency, self._on_slots)
        try:
            await session.open()
        except BaseException:
            await session.end()
            raise
        return session

    def _give_back(self, left: list[Claim]) -> None:
        self._on_slots(0)
        count = self._desk.release_all(left)
        _log.warning(
            "the Dask scheduler at %s has gone; %s given back, and it is tried to reach it again",
            self._cluster.address,
            "1 job was" if count == 1 else f"{count:,} jobs were",
        )

    async def _reconnect(self) -> Session | None:
        pause, said = _PAUSE_MIN, ""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause)
                return None
            try:
                session = await self._connect(PATIENCE / 2)
            except Exception as error:
                if isinstance(error, NotSupported) and str(error) != said:
                    said = str(error)
                    _log.warning("%s; it is tried again", said)
                # What was handed over as the scheduler went.
                self._desk.release_all()
                pause = min(_PAUSE_MAX, 2 * pause)
            else:
                _log.info("the Dask scheduler at %s is back", self._cluster.address)
                return session
