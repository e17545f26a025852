"""One connection to a cluster and what happens on it: what lanes say, and workers that come and go; knows no store."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbqueue.executors.dask.cluster import Cluster, Crew, inspect
from nbqueue.executors.dask.freight import Freight
from nbqueue.executors.dask.lane import Lane
from nbqueue.executors.dask.lanes import Lanes
from nbqueue.executors.dask.marks import Place
from nbqueue.executors.dask.post import Post
from nbqueue.running.handing import put_together
from nbqueue.wire import WireError, decode, pack_error

if TYPE_CHECKING:
    from nbqueue.executors.dask.desk import Desk
    from nbqueue.jobs import Claim

__all__ = ["Session"]

_log = logging.getLogger("nbqueue.worker")

#: How often the connection itself is looked at, seconds.
_LOOK = 1.0
#: Workers often come and go together; they are looked at after so long.
_SOON = 0.2
#: Clocks that differ by less are taken for the same.
_SKEW = 1.0
_EVERYBODY, _MEMORY = "all", "worker-restart-memory"


class Session:
    """What an executor does on one connection, from its opening to its end.

    Parameters
    ----------
    cluster : Cluster
        Where it is.
    client : distributed.Client
        Connected, and of this session alone.
    desk : Desk
        The books.
    concurrency : int, optional
        How many jobs run at once; as many as the cluster has threads, unless given.
    on_slots : Callable[[int], None]
        Is told how many that is, whenever it may have changed.
    """

    def __init__(
        self,
        cluster: Cluster,
        client: Any,
        desk: Desk,
        concurrency: int | None,
        on_slots: Callable[[int], None],
    ):
        self._address = cluster.address
        self._desk, self._concurrency, self._on_slots = desk, concurrency, on_slots
        self._post = Post(client)
        self._freight = Freight(desk.runner)
        self.lanes = Lanes(self._post, desk, self._freight)
        #: What came from each worker, and of it, in the order it did; none waits for what another one says.
        self._inboxes: dict[str, asyncio.Queue[tuple[Any, ...]]] = {}
        #: Workers that have had a lane.
        self._places: set[str] = set()
        #: Of each process the last batch that it sent.
        self._heard: dict[str, int] = {}
        #: What is known of each worker: why it cannot run anything, "" if it can.
        self._known: dict[str, str] = {}
        self._looking = False
        #: The fence of the job that was to begin next, when that was looked at last.
        self._next: int | None = None

    # -- its life

    async def open(self) -> None:
        """Look at the cluster, and listen.

        Raises
        ------
        NotSupported
            Where no worker can run anything.
        """
        crew = await inspect(self._post.client, self._known)
        crew.check()
        self._take_crew(crew)
        if not crew.threads:
            _log.warning("the Dask cluster at %s has no workers yet; jobs wait for the first", self._address)
        self._post.listen_to_lanes(lambda said: self._put(said["from"], "said", said))
        self._post.listen(_EVERYBODY, self._hear_of_workers)
        self._post.listen(_MEMORY, self._hear_of_memory)
        for work in (self._take_ends(), self._watch()):
            self._post.spawn(work)

    async def run(self) -> None:
        """Work until the scheduler has gone, or somebody says ``leave``."""
        self.lanes.feed()
        await self._post.over.wait()

    def leave(self) -> None:
        """Have ``run`` return."""
        self._post.over.set()

    async def end(self) -> list[Claim]:
        """Let go of every lane, and of the connection; gives what lanes had and have not ended."""
        await self._post.end(self._places)
        return [claim for lane in self.lanes for claim in lane.loads]

    async def _watch(self) -> None:
        # Nobody is told when a connection that nobody uses is lost.
        while self._post.connected:
            await asyncio.sleep(_LOOK)
            self._make_room()
        self._post.over.set()

    def _make_room(self) -> None:
        """Hold no jobs that another worker could run, for as long as others' tasks keep the cluster busy."""
        before, self._next = self._next, self._desk.next_fence()
        if not self.lanes.crowded or self._next is None or self._next != before:
            self._on_slots(self.lanes.slots)
            return
        self._on_slots(0)
        # The first keeps its place in the cluster's line.
        if count := self._desk.release_waiting(1):
            _log.info(
                "the Dask cluster at %s is busy with others' tasks; given back: %d", self._address, count
            )

    # -- workers come and go

    def _hear_of_workers(self, said: Any) -> None:
        action = said.get("action") if isinstance(said, dict) else None
        if action == "remove-worker":
            self._post.lose(said["worker"])
            # Behind what its lanes have said.
            self._put(said["worker"], "removed", bool(said.get("expected")))
        elif action == "add-worker":
            self._post.regain(said["worker"])
        else:
            return
        self._post.spawn(self._look_soon())

    def _hear_of_memory(self, said: Any) -> None:
        if isinstance(said, dict) and said.get("worker"):
            self.lanes.greedy.add(said["worker"])

    async def _look_soon(self) -> None:
        """Look at the workers when those have come that come at once."""
        if not self._looking:
            self._looking = True
            await asyncio.sleep(_SOON)
            self._looking = False
            await self._look_again()

    async def _look_again(self) -> None:
        try:
            self._take_crew(await inspect(self._post.client, self._known))
        except (OSError, KeyError, ValueError) as error:
            _log.debug("the workers of %s cannot be looked at: %r", self._address, error)
        self.lanes.feed()
        self._desk.done()

    def _take_crew(self, crew: Crew) -> None:
        for address, why in crew.misfits.items():
            if address not in self._known:
                _log.warning("%s; until then it is given no jobs", why)
        self._known = {**dict.fromkeys(crew.threads, ""), **crew.misfits}
        self.lanes.only = sorted(crew.threads) if crew.misfits else None
        if crew.misfits and not crew.threads:
            self.lanes.slots = 0
        else:
            self.lanes.slots = self._concurrency or max(1, sum(crew.threads.values()))
        self._on_slots(self.lanes.slots)

    # -- what comes

    def _put(self, address: str, *message: Any) -> None:
        if address not in self._inboxes:
            self._inboxes[address] = asyncio.Queue()
            self._post.spawn(self._take_all(address))
        self._inboxes[address].put_nowait(message)

    async def _take_all(self, address: str) -> None:
        inbox, kind = self._inboxes[address], ""
        while kind != "removed" or not inbox.empty():
            kind, what = await inbox.get()
            try:
                if kind == "said":
                    await self._take(what)
                else:
                    self._places.discard(address)
                    await self.lanes.lose_at(address, expected=what)
            except Exception:
                _log.exception("what the Dask cluster at %s says is not understood", self._address)
        del self._inboxes[address]

    async def _take_ends(self) -> None:
        while True:
            lane, error = await self.lanes.ended.get()
            if error is not None:
                await self._look_again()
            await self.lanes.take_end(lane, error)
            # What a task came to, and the worker that has it, Dask keeps for as long as anybody might ask for it.
            lane.future.release()

    async def _take(self, said: dict[str, Any]) -> None:
        if said["batch"] <= self._heard.get(said["name"], 0):
            return
        self._heard[said["name"]] = said["batch"]
        for data in said["said"]:
            kind, *parts = decode(data)
            if kind == "kept":
                long = await self._fetch(said["from"], said["name"], *parts)
                if long is None:
                    # Its worker has died, which is told next.
                    continue
                kind, *parts = decode(long)
            if kind == "hello":
                self._take_hello(said["from"], said["name"], *parts)
                continue
            if kind == "ask":
                self._take_question(said["from"], *parts)
                continue
            number, *parts = parts
            lane = self.lanes.get(number)
            if lane is not None and lane.identity == said["name"]:
                self._takes[kind](self, lane, *parts)

    async def _fetch(self, address: str, name: str, number: int) -> bytes | None:
        while (answer := await self._post.call(address, "fetch", number)) is None:
            if not self._post.reaches(address):
                return None
            # C code keeps it too busy to answer.
            await asyncio.sleep(_LOOK)
        identity, data = answer
        if identity != name or data is None:
            return None
        self._post.tell(address, "fetched", number)
        return bytes(data)

    def _take_hello(self, address: str, name: str, number: int, clock: float, *marks: str) -> None:
        self._places.add(address)
        lane = self.lanes.get(number)
        if lane is None or lane.address:
            # Dask has run it again, elsewhere, or nobody needs it any more.
            self._post.tell(address, "go", number)
            return
        lane.address, lane.identity, lane.marks = address, name, Place(*marks)
        skew = time.time() - clock
        lane.skew = skew if abs(skew) > _SKEW else 0.0
        self.lanes.rest(lane)

    def _take_logs(self, lane: Lane, fence: int, logs: Any) -> None:
        run = self._desk.runs.get(fence)
        if run is not None:
            found = self._freight.unpack_logs(run.attempt.claim, logs, lane.skew)
            with self._desk.lock:
                run.logs += found

    def _take_progress(
        self, lane: Lane, fence: int, done: float, total: float | None = None, note: str = ""
    ) -> None:
        run = self._desk.runs.get(fence)
        if run is not None and run.lane == lane.number:
            run.attempt.context.progress(done, total, note)

    def _take_ended(self, lane: Lane, fence: int, fields: Any, usage: str, logs: Any) -> None:
        if lane.loads and lane.loads[0].fence == fence:
            claim = lane.loads[0]
            ending = self._freight.unpack_ending(claim, fields)
            said = self._freight.unpack_logs(claim, logs, lane.skew)
            self.lanes.count_ended(lane, ending, usage, said)

    def _take_back(self, lane: Lane, fences: list[int]) -> None:
        self.lanes.take_back(lane, set(fences))

    _takes: dict[str, Callable[..., None]] = {  # noqa: RUF012 - nobody changes it
        "logs": _take_logs,
        "progress": _take_progress,
        "ended": _take_ended,
        "back": _take_back,
    }

    # -- what jobs ask for

    def _take_question(self, address: str, number: int, lane_number: int, what: str, parts: Any) -> None:
        if what != "progress":
            self._post.spawn(self._answer(address, number, what, parts))
            return
        lane = self.lanes.get(lane_number)
        if lane is not None:
            self._take_progress(lane, *parts)
        self._post.tell(address, "answer", number, None)

    async def _answer(self, address: str, number: int, what: str, parts: Any) -> None:
        answer: Any
        try:
            if what != "dispatch":
                raise WireError(f"a job asks for {what!r:.60}")
            # The store may take its time, and what others say is to be heard meanwhile.
            answer = await asyncio.to_thread(self._dispatch, *parts)
        except Exception as error:
            answer = pack_error(error)
        await self._post.call(address, "answer", number, answer)

    def _dispatch(self, handed: Any) -> tuple[Any, ...]:
        call = put_together(handed, lambda: self._freight.key)
        receipt = self._desk.runner.services.dispatcher.dispatch(call)
        at = receipt.scheduled_at
        return receipt.job_id, receipt.command, receipt.queue, None if at is None else at.timestamp()
