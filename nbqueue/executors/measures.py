"""What an attempt takes, and what it may take: memory, processor time, and how its process ended."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "Meter",
    "Spent",
    "exit_name",
    "exit_sentence",
    "limit_memory",
    "oom_kills",
    "peak_of",
    "reset_peak",
    "spent",
    "usage_text",
]

_CLEAR, _STATUS = "/proc/self/clear_refs", "/proc/self/status"
#: Linux counts kilobytes, macOS bytes.
_UNIT = 1 if sys.platform == "darwin" else 1024
#: A peak that is no more above what a process has now is not set back for the next job, bytes.
_NEAR = 1 << 20


class Spent(NamedTuple):
    """What a process has taken so far, its ended children included."""

    cpu_seconds: float
    #: The most memory it had at once since that was last reset; bytes.
    peak_memory: int


def spent() -> Spent:
    """Ask it of this process."""
    seconds, _, peak = _used()
    memory = _memory()
    return Spent(seconds, peak if memory is None else memory[0])


def _used() -> tuple[float, int, int]:
    """Seconds of the processor, how often a page of memory was to be had, and the peak as ``getrusage`` knows it."""
    import resource

    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime
    return seconds, own.ru_minflt + own.ru_majflt, own.ru_maxrss * _UNIT


def _memory() -> tuple[int, int] | None:
    """Give this process's peak and what it has now; Linux's ``ru_maxrss`` starts with that of who started it."""
    try:
        with open(_STATUS, "rb", buffering=0) as file:  # noqa: PTH123 - as below
            status = file.read(4096)
    except OSError:
        return None
    _, found, rest = status.partition(b"VmHWM:")
    if not found:
        return None
    now = rest.partition(b"VmRSS:")[2]
    return int(rest.split(None, 1)[0]) * 1024, int(now.split(None, 1)[0]) * 1024


class Meter:
    """What jobs take that run in this process one after the other."""

    def __init__(self) -> None:
        self._before = 0.0
        #: The peak, how many pages had been asked for by then, and whether it may be that of a job before.
        self._peak, self._faults, self._is_old = 0, -1, True

    def begin(self) -> None:
        """Count from here on."""
        if self._is_old and reset_peak():
            self._faults = -1
        self._before = _used()[0]

    def end(self) -> tuple[str, float]:
        """Give what was taken since, as text; and the processor time of all of them, seconds."""
        seconds, faults, peak = _used()
        # Looking takes 14 µs, a fifth of what a job that does nothing takes; without new pages there is no new peak.
        if faults != self._faults:
            memory = _memory()
            self._peak, now = memory or (peak, 0)
            self._faults, self._is_old = faults, self._peak - now > _NEAR
        return usage_text(seconds - self._before, self._peak), seconds


def peak_of(used: Any) -> int:
    """Give the peak of a process that has ended, in bytes, of what ``os.wait4`` says that it used."""
    return int(used.ru_maxrss) * _UNIT


def reset_peak() -> bool:
    """Count the peak of this process's memory from here on; whether this system can."""
    try:
        with open(_CLEAR, "wb", buffering=0) as file:  # noqa: PTH123 - before every job, and Path takes twice as long
            file.write(b"5")
    except OSError:
        return False
    return True


def usage_text(cpu_seconds: float | None, peak_memory: int | None, exit_: str = "") -> str:
    """Give what is known of it as a report has it.

    >>> usage_text(0.25, None, "SIGSEGV")
    '{"cpu_seconds":0.25,"exit":"SIGSEGV"}'
    """
    known: dict[str, object] = {}
    if peak_memory is not None:
        known["peak_memory"] = peak_memory
    if cpu_seconds is not None:
        known["cpu_seconds"] = round(max(0.0, cpu_seconds), 6)
    if exit_:
        known["exit"] = exit_
    return json.dumps(known, separators=(",", ":")) if known else ""


def limit_memory(limit: int) -> None:
    """Let this process have no more address space than so many bytes, nor any process that it starts."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


# ------------------------------------------------------------------------------------------------- how it ended


def exit_name(status: int) -> str:
    """Give how a process ended in a word or two, of a returncode as ``Popen`` has it.

    >>> exit_name(-11), exit_name(3)
    ('SIGSEGV', 'exit 3')
    """
    if status >= 0:
        return f"exit {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"


_MEANT = {
    "SIGSEGV": "it touched memory that is not its own, in C code",
    "SIGBUS": "it touched memory that is not there, in C code",
    "SIGABRT": "C code called abort",
    "SIGILL": "C code ran an instruction that this processor has not",
    "SIGFPE": "C code divided by zero",
    "SIGXCPU": "its processor time was limited",
}


def exit_sentence(status: int, *, out_of_memory: bool = False) -> str:
    """Say how the process that ran a job ended.

    >>> exit_sentence(3)
    'the process that ran it ended with exit code 3, before the job did'
    """
    name = exit_name(status)
    if status >= 0:
        return f"the process that ran it ended with exit code {status}, before the job did"
    if out_of_memory:
        return f"the process that ran it was killed ({name}): the system was out of memory"
    why = f": {_MEANT[name]}" if name in _MEANT else ""
    return f"the process that ran it was killed ({name}){why}"


def oom_kills() -> int:
    """How often the system has killed for want of memory among this process's control group; 0 where it cannot tell."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return 0
    for line in groups:
        _, kind, path = line.split(":", 2)
        if kind == "":
            file = Path("/sys/fs/cgroup", path.lstrip("/"), "memory.events")
        elif "memory" in kind.split(","):
            file = Path("/sys/fs/cgroup/memory", path.lstrip("/"), "memory.oom_control")
        else:
            continue
        with contextlib.suppress(OSError):
            for entry in file.read_text().splitlines():
                if entry.startswith("oom_kill "):
                    return int(entry.split()[1])
    return 0
