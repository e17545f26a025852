"""A cluster: its address, a connection to it, and whether its workers can run jobs of this process; knows no job."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from nbqueue.errors import InvalidCommand, NotSupported, QueueUnavailable

__all__ = ["Cluster", "Crew", "inspect"]

#: How long it may take to reach the scheduler.
PATIENCE = 10.0
_PACKAGES = ("nbqueue", "cloudpickle")


class Cluster(NamedTuple):
    """Where a cluster is."""

    #: As Dask writes it: "tcp://10.0.0.1:8786".
    address: str
    #: A ``distributed.Security``, None for none.
    security: Any = None

    @classmethod
    def of(cls, cluster: Any) -> Cluster:
        """Take an address, or a ``distributed.Client``.

        Raises
        ------
        NotSupported
            Without distributed, and for a client of an asynchronous program.
        InvalidCommand
            For what is neither.
        """
        _import_distributed()
        if isinstance(cluster, str):
            return cls(_address(cluster))
        scheduler = getattr(cluster, "scheduler", None)
        if not hasattr(cluster, "submit") or not hasattr(cluster, "security"):
            raise InvalidCommand(
                f"a DaskExecutor takes a dask.distributed.Client, or an address such as dask://127.0.0.1:8786, not a "
                f"{type(cluster).__name__}"
            )
        if getattr(cluster, "_asynchronous", False):
            raise NotSupported(
                "this Client was made with asynchronous=True; give the DaskExecutor one without it, or its address"
            )
        if scheduler is None or cluster.status != "running":
            raise QueueUnavailable(
                "this Client is not connected to a Dask scheduler any more; make another one"
            )
        return cls(scheduler.address, cluster.security)

    async def connect(self, patience: float) -> Any:
        """Give a ``Client`` of its own on the running loop.

        Raises
        ------
        QueueUnavailable
            Where no scheduler answers.
        """
        from distributed import Client

        try:
            return await asyncio.wait_for(self._connect(Client, patience), patience + 1.0)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            raise QueueUnavailable(self._trouble(error, patience)) from error

    def _trouble(self, error: Exception, patience: float) -> str:
        why = str(error).splitlines()[0] if str(error) else f"nothing is heard within {patience:g} s"
        if "ssl_context" in why:
            return (
                f"{self.address} asks for certificates: give the DaskExecutor a Client that has them, or name them in "
                "Dask's configuration, under distributed.comm.tls"
            )
        if isinstance(error, TypeError):
            # It understands Dask, but not what a scheduler does: a worker, or a nanny.
            return f"what answers at {self.address} is no Dask scheduler; give the address of the scheduler"
        return (
            f"no Dask scheduler answers at {self.address} ({why}); "
            "start one with `dask scheduler`, or mend the address"
        )

    async def _connect(self, kind: Any, patience: float) -> Any:
        made = kind(
            self.address,
            security=self.security,
            asynchronous=True,
            set_as_default=False,
            timeout=patience,
            name="nbqueue",
        )
        try:
            return await made
        except BaseException:
            with contextlib.suppress(Exception):
                await made.close(timeout=0.1)
            raise


class Crew(NamedTuple):
    """The workers of a cluster."""

    #: How many threads each has that can run jobs of this process.
    threads: dict[str, int]
    #: Why the others cannot, by their addresses.
    misfits: dict[str, str]

    def check(self) -> None:
        """Refuse a cluster of which no worker can run anything.

        Raises
        ------
        NotSupported
            Naming one, and what is wrong with it.
        """
        if self.misfits and not self.threads:
            raise NotSupported(next(iter(self.misfits.values())))


async def inspect(client: Any, known: Mapping[str, str] = MappingProxyType({})) -> Crew:
    """Look at the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    known : Mapping[str, str]
        Why workers that were looked at cannot run anything, "" if they can; they are not asked again.
    """
    threads = await client.nthreads()
    new = [address for address in threads if address not in known]
    found = {address: _misfit(address, theirs) for address, theirs in (await _versions(client, new)).items()}
    misfits = {address: why for address in threads if (why := found.get(address, known.get(address, "")))}
    return Crew({address: n for address, n in threads.items() if address not in misfits}, misfits)


async def _versions(client: Any, workers: list[str]) -> dict[str, dict[str, str | None]]:
    """Ask workers what they run; one that C code keeps too busy to answer is taken as it is."""
    found: dict[str, dict[str, str | None]] = {}
    if not workers:
        return found
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            message = {"op": "versions", "packages": list(_PACKAGES)}
            asked = await client.scheduler.broadcast(msg=message, workers=workers, on_error="ignore")
            for address, said in asked.items():
                packages = {name: said["packages"].get(name) for name in _PACKAGES}
                found[address] = {"python": said["host"]["python"], **packages}
            unsure = [address for address, theirs in found.items() if theirs["nbqueue"] is None]
            # It may lie there without having been installed. What is asked is text, which any Python understands.
            text = "getattr(__import__('nbqueue'), '__version__', None)"
            if unsure:
                answers = await client.run(eval, text, workers=unsure, on_error="return")
                for address, answer in answers.items():
                    found[address]["nbqueue"] = answer if isinstance(answer, str) else None
    return found


def _misfit(address: str, theirs: dict[str, str | None]) -> str:
    """Say why a worker cannot run jobs of this process; "" if it can."""
    python = ".".join((theirs["python"] or "").split(".")[:2])
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != here:
        return (
            f"the Dask worker {address} runs Python {python}, and this process {here}: code cannot travel between "
            "them; use the same minor version of Python on both"
        )
    for name in _PACKAGES:
        mine, other = _version_here(name), theirs[name]
        if other is None:
            return (
                f"the Dask worker {address} has no {name}, which runs the jobs there; install {name} {mine} on the "
                "workers of the cluster"
            )
        if _release(other) != _release(mine):
            return (
                f"the Dask worker {address} has {name} {other}, and this process {mine}: they would misread one "
                f"another; install {name} {mine} on the workers of the cluster"
            )
    return ""


def _release(text: str) -> str:
    return ".".join(text.split(".")[:2])


def _version_here(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return str(getattr(__import__(name), "__version__", ""))


def _address(text: str) -> str:
    """Give an address as Dask writes it."""
    scheme, _, place = text.rstrip("/").partition("://")
    host, _, port = place.rpartition(":")
    is_whole = bool(host) and port.isdecimal() and 0 < int(port) < 65_536
    if not place or (scheme in {"dask", "tcp", "tls"} and not is_whole):
        raise InvalidCommand(
            f"{text!r} is no address of a Dask scheduler; write dask://HOST:PORT, as in dask://127.0.0.1:8786"
        )
    return f"{'tcp' if scheme == 'dask' else scheme}://{place}"


def _import_distributed() -> None:
    try:
        import distributed  # noqa: F401 - whether it is there
    except ModuleNotFoundError as error:
        raise NotSupported(
            "the Dask executor needs distributed, which is not installed: pip install 'nbqueue[dask]'"
        ) from error


def count_threads(cluster: Cluster) -> int:
    """Ask a cluster how many threads its workers have, in a thread of its own: a loop may be running in this one.

    Raises
    ------
    QueueUnavailable
        Where no scheduler answers.
    NotSupported
        Where no worker can run anything.
    """
    found: list[Crew] = []
    failed: list[BaseException] = []

    async def ask() -> Crew:
        try:
            async with asyncio.timeout(3 * PATIENCE), await cluster.connect(PATIENCE) as client:
                return await inspect(client)
        except TimeoutError as error:
            raise QueueUnavailable(f"the Dask scheduler at {cluster.address} does not answer") from error

    def run() -> None:
        try:
            found.append(asyncio.run(ask()))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="nbqueue-dask-look", daemon=True)
    thread.start()
    thread.join()
    for error in failed:
        raise error
    (crew,) = found
    crew.check()
    return max(1, sum(crew.threads.values()))
