"""A Dask cluster for tests, in processes of its own: a scheduler, and workers that may be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

__all__ = ["DaskCluster"]

ROOT = Path(__file__).parent.parent.parent

#: Runs until whoever started it closes its end of the pipe, or has gone.
_PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
import dask
from distributed import LocalCluster
workers, threads, port = map(int, sys.argv[1:])
dask.config.set({"distributed.comm.timeouts.connect": "10s", "distributed.admin.tick.limit": "1h"})
if __name__ == "__main__":
    with LocalCluster(n_workers=workers, threads_per_worker=threads, scheduler_port=port, dashboard_address=None,
                      worker_dashboard_address=None, silence_logs=50, memory_limit=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


class DaskCluster:
    """A ``LocalCluster`` in a session of its own.

    Parameters
    ----------
    workers, threads : int
        How many processes, and how many threads each has.
    port : int
        Of the scheduler; any that is free, unless given.
    folder : Path
        Where its files go.
    """

    def __init__(self, folder: Path, workers: int = 2, threads: int = 2, port: int = 0):
        program = folder / "cluster.py"
        program.write_text(_PROGRAM)
        places = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(workers), str(threads), str(port)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places)), "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, "the cluster did not start"

    @property
    def port(self) -> int:
        """Of its scheduler."""
        return int(self.address.rpartition(":")[2])

    def kill(self) -> None:
        """End all of it at once, as by a power cut."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
