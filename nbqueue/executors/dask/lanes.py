"""The lanes that are open in a cluster: which Dask tasks run jobs, what each was given, and what becomes of that.

A lane holds a thread of the cluster only while there is something to run. The first job that it was given has begun;
what is behind it has not, so when the lane goes, that one job is to blame or to pity, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nbqueue.errors import NbqueueError
from nbqueue.executors.dask.lane import Lane
from nbqueue.executors.dask.marks import forget, has_run
from nbqueue.executors.dask.messages import Setup
from nbqueue.executors.dask.task import serve
from nbqueue.running.run import OUT_OF_MEMORY, Ending
from nbqueue.store import ReportKind

if TYPE_CHECKING:
    from nbqueue.executors.dask.desk import Desk, Run
    from nbqueue.executors.dask.freight import Freight
    from nbqueue.executors.dask.post import Post
    from nbqueue.jobs import Claim

__all__ = ["Lanes"]

_log = logging.getLogger("nbqueue.worker")

#: A lane is given jobs for so many seconds at once, as far as can be told, and no more than so many.
_CHUNK_SECONDS = 0.1
_CHUNK_MAX = 256
#: An idle lane is kept for so long, in case more comes.
_LINGER = 0.1
#: A job whose worker has died so often as it was handed over is to blame for that.
_STRIKES = 3
_DIED = "the Dask worker {} that ran it died"
_GREEDY = "its nanny ended it, since it was over its limit of memory"
#: A lane that has no thread after so long waits for others' tasks.
_CROWDED = 5.0
#: A worker that does not answer is asked again after so long.
_AGAIN = 0.2
#: Where a lane failed it is tried again after so long.
_PAUSE = 5.0


class Lanes:
    """The lanes of one connection; all of it on the connection's loop.

    Parameters
    ----------
    post : Post
        The way to them.
    desk : Desk
        The books.
    freight : Freight
        Packs jobs.
    """

    def __init__(self, post: Post, desk: Desk, freight: Freight):
        self._post, self._desk, self._freight = post, desk, freight
        #: How many may run at once, and where; None: anywhere.
        self.slots = 1
        self.only: list[str] | None = None
        #: What Dask tasks say that end; the lane and its error.
        self.ended: asyncio.Queue[tuple[Lane, Exception | None]] = asyncio.Queue()
        #: Workers that took too much memory.
        self.greedy: set[str] = set()
        self._open: dict[int, Lane] = {}
        self._opened = 0
        self._paused_until = 0.0
        #: Seconds that a job takes, all in all.
        self._mean: float | None = None
        self._strikes: dict[int, int] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(list(self._open.values()))

    def get(self, number: int) -> Lane | None:
        """Give a lane by its number, if it is open."""
        return self._open.get(number)

    @property
    def crowded(self) -> bool:
        """Whether a lane has waited long for a thread: others' tasks have them all."""
        late = time.monotonic() - _CROWDED
        return any(not lane.address and lane.since < late for lane in self)

    # -- to work

    def feed(self) -> None:
        """Give idle lanes what waits, and open more where that is not enough."""
        desk = self._desk
        if self._post.over.is_set():
            return
        with desk.lock:
            if desk.closing:
                return
            for lane in self:
                if lane.idle and desk.todo:
                    count = self._share(len(desk.todo))
                    self._give(lane, [desk.todo.popleft() for _ in range(count)])
            at_work = [lane for lane in self if not lane.stuck]
            coming = sum(not lane.address for lane in at_work)
            wanted = min(self.slots - len(at_work), len(desk.todo) - coming)
        if time.monotonic() >= self._paused_until:
            for _ in range(wanted):
                self._open_lane()

    def _share(self, waiting: int) -> int:
        """How many jobs a lane is given at once: many tiny ones, of others one."""
        if self._mean is None:
            return 1
        fair = -(-waiting // max(1, self.slots))
        return max(1, min(fair, _CHUNK_MAX, int(_CHUNK_SECONDS / max(self._mean, 1e-6))))

    def _open_lane(self) -> None:
        self._opened += 1
        number, key = self._opened, f"nbqueue-{self._opened}-{self._post.name}"
        taken = {lane.place for lane in self}
        place = next(place for place in range(len(taken) + 1) if place not in taken)
        setup = Setup(self._post.name, self._freight.key)
        future = self._post.client.submit(
            serve, setup, number, key, key=key, pure=False, retries=0, workers=self.only
        )
        lane = self._open[number] = Lane(number, place, future)
        self._post.spawn(self._follow(lane))

    async def _follow(self, lane: Lane) -> None:
        error = await lane.future.exception()
        if lane.future.status not in {"cancelled", "lost"}:
            self.ended.put_nowait((lane, error))
        elif not self._post.connected:
            self._post.over.set()
        elif not lane.address:
            # The cluster was restarted before it came to anything. What else had it is told by its worker, or its end.
            self._open.pop(lane.number, None)
            self.feed()

    def _give(self, lane: Lane, claims: Sequence[Claim]) -> None:
        lane.loads.extend(claims)
        lane.turn += 1
        lane.giving = self._post.spawn(self._deliver(lane, list(claims)))

    async def _deliver(self, lane: Lane, claims: list[Claim]) -> None:
        desk = self._desk
        loads, code = [], {}
        for claim in claims:
            packed = self._freight.pack(claim, lane.identity)
            if isinstance(packed, Ending):
                lane.loads.remove(claim)
                desk.turn_away(claim, packed)
            else:
                loads.append(packed.load)
                code.update(packed.code)
        if not loads:
            self.rest(lane)
            return
        first = loads[0].claim.fence
        lane.since = time.monotonic()
        run = desk.begin(lane.loads[0], lane.number, lane.place)
        try:
            answer = await self._post.call(lane.address, "loads", lane.number, loads, code)
        except NbqueueError:
            _log.exception("a job cannot be sent to %s", lane.address)
            answer = None
        if answer == (lane.identity, True):
            self._freight.arrived(lane.identity, code)
            if run.told is not None:
                # It may have been told before it was there.
                self.tell(run)
        else:
            await self._retract(lane, first)

    async def _retract(self, lane: Lane, first: int) -> None:
        """Take back what has not arrived, as far as can be told."""
        while (answer := await self._post.call(lane.address, "retract", lane.number, first)) is None:
            if not self._post.reaches(lane.address):
                break
            # It is busy; or it has gone, or the scheduler has, which is told soon, and costs no attempt.
            await asyncio.sleep(_AGAIN)
        if answer == (lane.identity, False):
            # It has begun, and only the answer was lost.
            return
        begun = answer != (lane.identity, True) and await self._has_run(lane, first)
        strikes = self._strikes[first] = self._strikes.get(first, 0) + 1
        if self._open.pop(lane.number, None) is None:
            return
        self._account(lane, begun=begun or strikes >= _STRIKES, why=_DIED.format(lane.address))
        await self._post.cancel(lane.future)
        self.feed()

    def _account(self, lane: Lane, *, begun: bool, why: str) -> None:
        """Say what became of what a lane had: the first is lost if it had begun, the rest waits again."""
        desk = self._desk
        with desk.lock:
            loads, lane.loads = list(lane.loads), deque()
            run = desk.runs.get(loads[0].fence) if loads else None
            if run is not None and begun:
                fence = loads.pop(0).fence
                if not why:
                    desk.end(fence, Ending(ReportKind.RELEASED))
                elif lane.address in self.greedy:
                    desk.end(fence, run.attempt.died(f"{why}: {_GREEDY}", OUT_OF_MEMORY))
                else:
                    desk.end(fence, run.attempt.died(why, "Dask worker died"))
            elif run is not None:
                desk.take_back(loads[0].fence)
            desk.put_back(loads)

    def rest(self, lane: Lane) -> None:
        """Give a lane that has nothing to run some more, or let it go soon."""
        if lane.stuck or self._desk.closing:
            self._let_go(lane)
            return
        self.feed()
        turn = lane.turn

        def go_home() -> None:
            if lane.idle and lane.turn == turn and not self._post.over.is_set():
                self._let_go(lane)

        if lane.idle:
            asyncio.get_running_loop().call_later(_LINGER, go_home)

    def _let_go(self, lane: Lane) -> None:
        if self._open.pop(lane.number, None) is not None:
            self._post.tell(lane.address, "go", lane.number)

    # -- what they have done

    def count_ended(self, lane: Lane, ending: Ending, usage: str, logs: Any) -> None:
        """Take the end of the first job of a lane; the one behind it has begun."""
        claim, now = lane.loads.popleft(), time.monotonic()
        took, lane.since = now - lane.since, now
        self._mean = took if self._mean is None else 0.8 * self._mean + 0.2 * took
        self._strikes.pop(claim.fence, None)
        with self._desk.lock:
            self._desk.end(claim.fence, ending, usage, logs)
            if lane.loads:
                self._desk.begin(lane.loads[0], lane.number, lane.place)
        if not lane.loads:
            self.rest(lane)

    def take_back(self, lane: Lane, fences: set[int]) -> None:
        """Let others do what a lane was given, and will not begin."""
        back = [claim for claim in lane.loads if claim.fence in fences]
        lane.loads = deque(claim for claim in lane.loads if claim.fence not in fences)
        with self._desk.lock:
            for fence in fences:
                # The first of them had begun only as far as was known here.
                self._desk.take_back(fence)
            self._desk.put_back(back)
        if lane.loads:
            self.feed()
        else:
            self.rest(lane)

    # -- stops

    def tell(self, run: Run) -> None:
        """Tell a job to stop."""
        lane, reason = self._open.get(run.lane), run.attempt.context.stop_reason
        if lane is not None and lane.address and reason is not None:
            self._post.tell(lane.address, "stop", lane.number, run.attempt.claim.fence, reason.value)

    def replace(self, run: Run) -> None:
        """Have another lane take the place of one whose job cannot be stopped."""
        lane = self._open.get(run.lane)
        if lane is not None and not lane.stuck:
            lane.stuck = True
            self._post.tell(lane.address, "secede", lane.number)
        self.feed()

    def recall(self) -> None:
        """Ask for what lanes have not begun."""
        for lane in self:
            if len(lane.loads) > 1:
                self._post.tell(lane.address, "recall", lane.number)

    # -- how they end

    async def lose_at(self, address: str, *, expected: bool) -> None:
        """Account for a worker that has gone."""
        lost = [lane for lane in self if lane.address == address]
        for lane in lost:
            await self._lose(lane, "" if expected else _DIED.format(address))
        for lane in lost[:1]:
            await self._at_its_machine(lane, forget, lane.marks.path)
        self.greedy.discard(address)
        self.feed()

    async def take_end(self, lane: Lane, error: Exception | None) -> None:
        """Account for a Dask task that has ended, though it was not let go."""
        if lane.number not in self._open:
            return
        if error is None:
            await self._lose(lane, "")
        else:
            lines = str(error).strip().splitlines()
            said = f"{type(error).__name__}: {lines[0] if lines else ''}"
            await self._lose(lane, f"the Dask task that ran it failed ({said})")
            _log.warning(
                "a Dask task that was to run jobs failed (%s); it is tried again in %g s", said, _PAUSE
            )
            self._paused_until = time.monotonic() + _PAUSE
            asyncio.get_running_loop().call_later(_PAUSE, self.feed)
        self.feed()

    async def _lose(self, lane: Lane, why: str) -> None:
        """What had begun is lost, or interrupted if there is no reason why; the rest waits again."""
        if lane.giving is not None and not lane.giving.done():
            # Only that tells whether anything had arrived.
            await asyncio.wait([lane.giving])
        if self._open.pop(lane.number, None) is None:
            return
        begun = bool(lane.loads) and await self._has_run(lane, lane.loads[0].fence) is not False
        self._account(lane, begun=begun, why=why)
        # Dask would run it elsewhere.
        await self._post.cancel(lane.future)

    async def _has_run(self, lane: Lane, fence: int) -> bool | None:
        """Whether a job had begun in a process that has died; None where that cannot be told."""
        found = await self._at_its_machine(lane, has_run, lane.marks.path, fence)
        return found if isinstance(found, bool) else None

    async def _at_its_machine(self, lane: Lane, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function where the marks of a lane are; None where nobody is there."""
        if not lane.marks.path:
            return None
        if lane.marks.is_here:
            return function(*arguments)
        machine = lane.address.rpartition(":")[0]
        beside = [other.address for other in self if other.address.startswith(f"{machine}:")]
        return await self._post.run_at(beside[0], function, *arguments) if beside else None
