"""A child process as its parent has it: started, written to, listened to, killed and named; knows no store.

It leads a session and a process group of its own, so that no Ctrl-C reaches it, and a kill reaches all that it started.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nbqueue.errors import NbqueueError, QueueError
from nbqueue.executors import measures
from nbqueue.executors.board import Board
from nbqueue.executors.lifeline import KEY_SIZE, Lifeline
from nbqueue.executors.loaded import Loaded
from nbqueue.executors.streams import Streams
from nbqueue.executors.tickets import Tickets
from nbqueue.wire import Channel, ChannelClosedError, WireError

if TYPE_CHECKING:
    from nbqueue.slots import SlotFile

__all__ = ["Child", "Ended", "Limits", "import_path"]

_MODULE = "nbqueue.executors.child"
#: How long a child that was told to go may take to.
_FAREWELL = 0.5
#: How long one that was killed may take to be gone; the system may hold it in the middle of reading a disk.
_DYING = 5.0
#: How long what it started may take to.
_GROUP = 0.3


class Limits(NamedTuple):
    """What a child is given."""

    #: It goes after so many jobs.
    max_jobs: int | None = None
    #: Bytes of address space.
    memory: int | None = None


class Ended(NamedTuple):
    """How a child ended."""

    #: As a sentence, and in a word or two.
    how: str
    cause: str
    #: What its last attempt took, as a report has it.
    usage: str


class Child:
    """A process that runs jobs, one after the other; made at once, and ready when ``shake_hands`` returns.

    Parameters
    ----------
    limits : Limits
        See there.
    home : str
        Where its jobs come from: the queue's file or URL, or ":memory:".
    place : tuple of SlotFile and int, optional
        Where it notes what it has begun.
    """

    def __init__(self, limits: Limits, home: str = "", place: tuple[SlotFile, int] | None = None):
        self.limits = limits
        #: Jobs it was given.
        self.jobs = 0
        #: What was taken back from it may still stand before what it is sent next.
        self.stale = False
        #: What it has of the parent's code: by name and origin the number of the parcel, and classes by name.
        self.parcels: dict[tuple[str, str], int] = {}
        self.classes: dict[str, type] = {}
        #: What it was told last of where it runs.
        self.surroundings: object = None
        #: What it had taken when it last said so.
        self.cpu_seconds = 0.0
        self._lock = threading.RLock()
        self._used: Any = None
        self._oom_kills = measures.oom_kills()
        #: What Linux counts as the peak of a process begins with that of whoever started it.
        self._floor = measures.spent().peak_memory if sys.platform == "linux" else 0
        #: The modules of this process as the child will find them.
        self._loaded, self._outdated = Loaded(), False
        self._key = secrets.token_bytes(KEY_SIZE)
        self.channel: Channel | None = None
        self._pidfd: int | None = None
        self._owner = os.getpid()
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as given:
            self._socket, theirs = socket.socketpair()
            undo.callback(self._socket.close)
            given.enter_context(theirs)
            self._life = Lifeline(self._key, home)
            undo.callback(self._life.cut)
            self._wake_up, self._woken = os.pipe()
            undo.callback(self._close_wake)
            for descriptor in (self._wake_up, self._woken):
                os.set_blocking(descriptor, False)
            #: Which claims it may begin; and what it has begun.
            self.tickets = Tickets.made()
            undo.callback(self.tickets.close)
            noted = Board.made()
            given.callback(os.close, noted)
            self.board = Board(os.dup(noted))
            undo.callback(self.board.close)
            file = -1 if place is None else place[0].descriptor()
            if place is not None:
                given.callback(os.close, file)
            shared = theirs.fileno(), self._life.reading, noted, self.tickets.reading, self._woken
            self.process = self._begin(shared, file, 0 if place is None else place[1])
            undo.callback(self.kill)
            self.streams = self._streams_of(self.process)
            undo.pop_all()
        self._pidfd = _pidfd_of(self.process.pid)
        self._polls: dict[tuple[int, ...], select.poll] = {}

    def _begin(self, shared: tuple[int, ...], file: int, slot: int) -> subprocess.Popen[bytes]:
        # It restores the variable when it is told where it runs.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, import_path()))}
        arguments = map(str, (*shared, self.limits.memory or 0, slot, file))
        process = subprocess.Popen(
            [sys.executable, *_flags(), "-u", "-P", "-m", _MODULE, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=(*shared, file) if file >= 0 else shared,
            start_new_session=True,
            env=environment,
        )
        self._life.handed_over()
        return process

    def _streams_of(self, process: subprocess.Popen[bytes]) -> Streams:
        assert process.stdout is not None
        assert process.stderr is not None
        streams = Streams(os.dup(process.stdout.fileno()), os.dup(process.stderr.fileno()), self.board)
        process.stdout.close()
        process.stderr.close()
        return streams

    def shake_hands(self) -> None:
        """Wait until it is ready.

        Raises
        ------
        QueueError
            If it cannot be started; the sentence has what it said.
        """
        try:
            self.channel = Channel(self._socket, self._key, server=True)
        except (NbqueueError, TimeoutError) as error:
            self.streams.listen()
            said = self.streams.last_words
            self.end()
            why = said.splitlines()[-1] if said else str(error)
            raise QueueError(
                f"no process can be started to run jobs in ({sys.executable} -m {_MODULE}): {why}"
            ) from error

    # -- waiting

    def wait(self, seconds: float | None, *, hear: bool) -> bool:
        """Wait until it has something to say, has ended, or somebody wakes this; reads its output. False: for nothing.

        Parameters
        ----------
        seconds : float, optional
            So long at most.
        hear : bool
            Whether every message of its counts; else it rings when it is to be listened to.
        """
        if self._pidfd is None and seconds is None:
            seconds = _FAREWELL
        ready = self._poll(hear).poll(None if seconds is None else max(0.0, seconds) * 1000)
        found = {descriptor for descriptor, _ in ready}
        if self._wake_up in found:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_up, 1024)
        if not found.isdisjoint(self.streams.descriptors):
            self.streams.fill()
        return bool(found) and self._pidfd not in found

    def _poll(self, hear: bool) -> select.poll:  # noqa: FBT001 - as it was given
        channel = self.channel
        assert channel is not None
        # Made anew only where one of them was closed.
        heard = channel.fileno() if hear else -1
        streams = self.streams.descriptors
        poll = self._polls.get((heard, *streams))
        if poll is None:
            poll = self._polls[heard, *streams] = select.poll()
            for descriptor in (heard, self._wake_up, -1 if self._pidfd is None else self._pidfd, *streams):
                if descriptor >= 0:
                    poll.register(descriptor, select.POLLIN)
        return poll

    def wake(self) -> None:
        """Wake whoever waits for it."""
        with self._lock, contextlib.suppress(OSError):
            os.write(self._woken, b"x")

    # -- its end

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._reap() is None

    @property
    def outdated(self) -> bool:
        """Whether a module was loaded anew in this process, of which the child may have the old one."""
        # It tells but once.
        self._outdated = self._outdated or self._loaded.renewed()
        return self._outdated

    def kill(self, fence: int = 0) -> None:
        """End it and all that it started, at once; where a claim is given, unless another one is under way."""
        with self._lock:
            if self.process.returncode is None and (not fence or self.board.fence in (0, fence)):
                self._kill_group()

    def _kill_group(self) -> None:
        if os.getpid() != self._owner:
            # What was forked off this process has no say.
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _reap(self) -> int | None:
        """The status it ended with, None while it has not."""
        process = self.process
        with self._lock:
            if process.returncode is None:
                try:
                    if hasattr(os, "waitid"):
                        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                            return None
                        # What it started goes with it, while its number is its own: nobody has waited for it yet.
                        self._kill_group()
                    pid, status, self._used = os.wait4(process.pid, os.WNOHANG)
                    if not pid:
                        return None
                except ChildProcessError:
                    # Somebody else has.
                    status = 0
                process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode

    def _await_end(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._reap() is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if self._pidfd is None:
                time.sleep(min(left, 0.005))
            else:
                poll = select.poll()
                poll.register(self._pidfd, select.POLLIN)
                poll.poll(left * 1000)
        return True

    def _await_group(self) -> None:
        """Wait until what it started has gone too: it was killed, and dies when the system comes round to it."""
        deadline = time.monotonic() + _GROUP
        while self._owner == os.getpid() and _lives(self.process.pid) and time.monotonic() < deadline:
            time.sleep(0.002)

    def ended(self) -> Ended:
        """See it to its end, which has come or is to come now; say how it ended."""
        if not self._await_end(_FAREWELL):
            self.kill()
            self._await_end(_DYING)
        self._await_group()
        self.streams.listen(last=True)
        status = self.process.returncode
        if status is None:
            return Ended("the process that ran it cannot be ended by the system", "crashed", "")
        oom = status == -signal.SIGKILL and measures.oom_kills() > self._oom_kills
        name, used = measures.exit_name(status), self._used
        if used is None:
            usage = measures.usage_text(None, None, name)
        else:
            seconds = used.ru_utime + used.ru_stime - self.cpu_seconds
            peak = measures.peak_of(used)
            usage = measures.usage_text(seconds, peak if peak > self._floor else None, name)
        cause = "out of memory" if oom else f"killed ({name})" if status < 0 else name
        return Ended(measures.exit_sentence(status, out_of_memory=oom), cause, usage)

    def end(self, *, patience: float = _FAREWELL) -> None:
        """Let it go: ask it to, kill it if it does not, and let go of all that belongs to it."""
        channel = self.channel
        if channel is not None and patience > 0 and self.alive:
            with contextlib.suppress(ChannelClosedError, WireError):
                channel.send(("bye",))
            self._await_end(patience)
        self.kill()
        self._await_end(_DYING)
        self._await_group()
        self._close_all()

    def _close_all(self) -> None:
        with self._lock:
            if self.channel is not None:
                self.channel.close()
            self._socket.close()
            self._life.cut()
            self.streams.close()
            self.board.close()
            self.tickets.close()
            self._close_wake()
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None

    def _close_wake(self) -> None:
        for descriptor in (self._wake_up, self._woken):
            if descriptor >= 0:
                os.close(descriptor)
        self._wake_up = self._woken = -1


def import_path() -> list[str]:
    """Where this process imports from; what is no text there is nothing that Python looks at."""
    return [part for part in sys.path if isinstance(part, str)]


def _flags() -> list[str]:
    """What this interpreter was told, such as ``-X dev`` and ``-W error``."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    return flags


def _lives(group: int) -> bool:
    """Whether any process of a group is left that has not ended; where nobody waits for the dead, they stay in it."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    seen = False
    for path in Path("/proc").glob("[0-9]*/stat"):
        # Any of them may go meanwhile.
        with contextlib.suppress(OSError):
            state, _, own, *_ = path.read_bytes().rpartition(b")")[2].split()
            seen = True
            if int(own) == group and state not in b"ZX":
                return True
    return not seen


def _pidfd_of(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
