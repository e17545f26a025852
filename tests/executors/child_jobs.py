"""More jobs for child processes, and what is wrong with them; imports little, since each child imports it anew."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nbqueue as nbq
from nbqueue.executors.tickets import Tickets
from nbqueue.running.context import Context
from tests.executors.jobs import meet

__all__ = ["CHILD_JOBS"]


def say(path: str, text: object) -> None:
    with Path(path).open("w") as pipe:
        pipe.write(str(text))


def clean(path: str) -> None:
    Path(path).write_text("cleaned")


def pid() -> int:
    return os.getpid()


# ------------------------------------------------------------------------------------------------- how they end


def die(how: str) -> None:
    print("last words", end="")
    {
        "segfault": lambda: ctypes.string_at(0),
        "abort": os.abort,
        "exit": lambda: os._exit(3),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "close": lambda: os.closerange(3, 256),
        "garbage": lambda: (write_garbage(), time.sleep(60)),
    }[how]()


def write_garbage() -> None:
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            if "socket" in str(Path(f"/proc/self/fd/{number}").readlink()):
                os.write(number, random.Random(7).randbytes(4096))


def hold_gil(there: str) -> None:
    say(there, os.getpid())
    # In C from here on, without a look at signals.
    sum(range(10**14))


def hold_gil_with_family(there: str) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    say(there, f"{os.getpid()} {other.pid}")
    sum(range(10**14))


def sleep_and_clean(there: str, path: str) -> None:
    try:
        say(there, os.getpid())
        time.sleep(600)
    finally:
        Path(path).write_text("cleaned")


async def sleep_and_clean_async(there: str, path: str) -> None:
    try:
        say(there, os.getpid())
        await asyncio.sleep(600)
    finally:
        clean(path)


def swallow(there: str) -> None:
    with contextlib.suppress(BaseException):
        say(there, os.getpid())
        time.sleep(600)
    time.sleep(600)


def ask_and_clean(ctx: Context, there: str, path: str) -> None:
    # Only one that has asked before it is told is spared.
    assert not ctx.should_stop()
    say(there, os.getpid())
    while not ctx.should_stop():
        time.sleep(0.01)
    time.sleep(0.1)
    Path(path).write_text("cleaned")


# ------------------------------------------------------------------------------------------------- what they say


def talk_all_ways() -> None:
    libc = ctypes.CDLL(None)
    print("print")
    os.write(1, b"write\n")
    libc.puts(b"puts")
    libc.fflush(None)
    subprocess.run(["echo", "echo"], check=True)
    thread = threading.Thread(target=print, args=("thread",))
    thread.start()
    thread.join()
    sys.stdout.buffer.write(b"buffer\n")
    print("é", end="")
    libc.printf(b"left in C's buffer")


def log_between(there: str, go: str) -> None:
    print("before")
    nbq.current().log.info("logged")
    print("after")
    meet(there, go)


def show_between() -> None:
    from IPython.display import display

    for i in range(5):
        print(f"before {i}")
        display({"text/plain": f"shown {i}"}, raw=True)
        print(f"after {i}")


def draw() -> None:
    import matplotlib.pyplot as plt
    from IPython.display import display

    display(plt.plot([1, 2])[0].figure)


# ------------------------------------------------------------------------------------------------- what they take


def take(megabytes: int) -> int:
    return len(bytearray(megabytes * 1024 * 1024))


def burn(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


# ------------------------------------------------------------------------------------------------- the rest


def fork(path: str) -> str:
    if os.fork():
        return "parent"
    Path(path).write_text(str(os.getpid()))
    return "fork"


def take_and_die(megabytes: int) -> None:
    take(megabytes)
    os._exit(3)


def leave_running(path: str) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(path).write_text(str(other.pid))


def leave_running_beside_one_that_ended(path: str) -> None:
    # Nobody waits for it, as ``Popen`` would by and by.
    os.waitid(os.P_PID, os.posix_spawnp("true", ["true"], os.environ), os.WEXITED | os.WNOWAIT)
    leave_running(path)


#: What a job has kept for later ones of its process.
kept: list[subprocess.Popen[bytes]] = []


def keep_program(wait: bool) -> int:
    other = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"])
    # It has ended in any case.
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    if wait:
        other.wait()
    kept.append(other)
    return os.getpid()


def ask_program() -> tuple[int, list[int | None]]:
    return os.getpid(), [other.poll() for other in kept]


def leave_thread() -> None:
    threading.Thread(
        target=lambda: [print("late") or time.sleep(0.01) for _ in range(200)], daemon=True
    ).start()


def where(name: str) -> list[Any]:
    return [str(Path.cwd()), os.environ.get(name), sys.path[-1]]


def wander(path: str) -> None:
    os.chdir(path)


def spoil(how: str) -> int:
    {
        "environment": lambda: (os.environ.update(NBQ_TEST_NAME="spoilt"), sys.path.append("/spoilt")),
        "umask": lambda: os.umask(0o777),
        "streams": lambda: (os.close(1), os.close(2)),
        "stdout": sys.stdout.close,
        "another stdout": lambda: setattr(sys, "stdout", io.StringIO()),
        "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 0.05),
    }[how]()
    return os.getpid()


def after(seconds: float) -> list[Any]:
    print("heard")
    time.sleep(seconds)
    return [os.environ.get("NBQ_TEST_NAME"), "/spoilt" in sys.path, os.umask(0o77) == 0o777]


def dispatch_more(ctx: Context, number: int) -> list[str]:
    one = ctx.dispatch(nbq.QueuedCommand("more", args=[number]), priority=5)
    two = nbq.dispatch(nbq.QueuedCommand("more", args=[number + 1]))
    return [str(one.job_id), str(two.job_id), one.queue, nbq.current().command]


async def dispatch_more_async(ctx: Context, number: int) -> str:
    receipt = await ctx.adispatch(nbq.QueuedCommand("more", args=[number]))
    return str(receipt.job_id)


def dispatch_wrongly(ctx: Context) -> None:
    ctx.dispatch(nbq.QueuedCommand("more"), priority=1_000)


def count_far(ctx: Context) -> None:
    for i in range(100_001):
        ctx.progress(i, 100_000)


# ------------------------------------------------------------------------------------------------- of a group


def step(path: str, text: str, what: str = "", *args: str) -> int:
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    if what:
        _STEPS[what](text, *args)
    return os.getpid()


def speak(text: str) -> None:
    print("out", text)
    os.write(2, f"err {text}".encode())
    nbq.current().log.info("log %s", text)
    print("half", text, end="")


def hush(text: str) -> None:
    before = os.dup(1)
    print("before", text)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    os.write(1, b"unheard")
    nbq.current().log.info("log %s", text)
    os.close(1)
    nbq.current().log.info("more %s", text)
    os.dup2(before, 1)
    os.close(before)
    print("after", text)


def linger(there: str, go: str) -> None:
    # As C code would, it hears of no stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    say(there, os.getpid())
    Path(go).read_text()


def halt_before_next() -> None:
    take = Tickets.take

    def halt(tickets: Tickets) -> int | None:
        Tickets.take = take  # type: ignore[method-assign]
        os.kill(os.getpid(), signal.SIGSTOP)
        return take(tickets)

    Tickets.take = halt  # type: ignore[method-assign]


def halt_with_ticket(there: str) -> None:
    take = Tickets.take

    def halt(tickets: Tickets) -> int | None:
        Tickets.take = take  # type: ignore[method-assign]
        ticket = take(tickets)
        say(there, os.getpid())
        os.kill(os.getpid(), signal.SIGSTOP)
        return ticket

    Tickets.take = halt  # type: ignore[method-assign]


def show(text: str) -> None:
    from IPython.display import display

    print("before", text)
    display({"text/plain": f"shown {text}"}, raw=True)
    print("after", text)


_STEPS = {
    "die": lambda _, how: die(how),
    "meet": lambda _, *paths: meet(*paths),
    "hold_gil": lambda _, path: hold_gil(path),
    "leave_thread": lambda *_: leave_thread(),
    "leave_running": lambda _, path: leave_running(path),
    "leave_running_beside_one_that_ended": lambda _, path: leave_running_beside_one_that_ended(path),
    "silent": lambda _: None,
    "hush": hush,
    "linger": lambda _, *paths: linger(*paths),
    "halt_before_next": lambda *_: halt_before_next(),
    "halt_with_ticket": lambda _, path: halt_with_ticket(path),
    "speak": speak,
    "show": show,
    "shout": lambda text: print(f"{text}\n" * 50_000, end=""),
}


CHILD_JOBS = {
    function.__name__: function
    for function in (
        *(
            pid,
            die,
            hold_gil,
            hold_gil_with_family,
            sleep_and_clean,
            sleep_and_clean_async,
            swallow,
            ask_and_clean,
        ),
        *(
            talk_all_ways,
            log_between,
            show_between,
            draw,
            take,
            take_and_die,
            burn,
            fork,
            leave_running,
            keep_program,
            ask_program,
            leave_thread,
            where,
            wander,
        ),
        *(spoil, after, step),
        *(dispatch_more, dispatch_more_async, dispatch_wrongly, count_far),
    )
}
