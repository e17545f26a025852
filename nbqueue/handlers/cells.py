"""``%%job`` cells: what one is stored as, the handler that runs it, and the names it was handed in with.

They belong to this kernel session, whose names they use: ``session`` is the origin of all of them, and no other
process has handlers of that origin. What they run on stays in memory and is never stored; see ``Snapshots``.
"""

from __future__ import annotations

import hmac
import keyword
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from nbqueue.errors import InvalidCommand, NotSupported
from nbqueue.handlers.cellcode import CellCode, compile_cell
from nbqueue.handlers.cellshell import names_for
from nbqueue.handlers.handler import Handler, Kind
from nbqueue.jobs import check_name
from nbqueue.payload.signing import signature_of, untrusted
from nbqueue.running.context import Dispatcher
from nbqueue.secret import load_secret

if TYPE_CHECKING:
    from nbqueue.running.context import Context

__all__ = ["Cell", "CellHandler", "Snapshot", "Snapshots", "session", "snapshots"]

#: The origin of the cells of this kernel session.
session = f"kernel:{uuid.uuid4()}"

#: So many cells that failed may be retried on the names that they had; each holds what these names meant.
FAILED_MAX = 20


@dataclass(frozen=True, slots=True)
class Cell:
    r"""A cell as the user wrote it.

    Example
    -------
    >>> cell = Cell.make("%%job --out total", "sum(prices)", 3, name="cell", out="total")
    >>> cell.text
    '%%job --out total\nsum(prices)'
    """

    #: The line of the magic, and the cell below it.
    head: str
    source: str
    #: The number in ``In[number]``.
    number: int
    #: What its job is called.
    name: str = "cell"
    #: The name that is given its value in the notebook; "" for none.
    out: str = ""

    @classmethod
    def make(cls, head: str, source: str, number: int, *, name: str | None, out: str | None) -> Self:
        """Check what the user said of a cell.

        Raises
        ------
        InvalidCommand
            For an ``out`` that is no name, and a bad name of the job.
        """
        if out is not None and (not out.isidentifier() or keyword.iskeyword(out)):
            raise InvalidCommand(
                f"--out {out!r} is no name that a variable can have; write e.g. --out result"
            )
        return cls(head, source, number, "cell" if name is None else check_name(name, what="name"), out or "")

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.head}\n{self.source}"

    def stored(self, key: bytes) -> dict[str, Any]:
        """Give it as the arguments of a job: to be read by anybody, and signed."""
        return {
            "cell": self.text,
            "number": self.number,
            "out": self.out,
            "signature": self._signature(key).hex(),
        }

    @classmethod
    def read(cls, name: str, stored: Mapping[str, Any], key: bytes) -> Self:
        """Give the cell that was stored.

        Raises
        ------
        PayloadUntrusted
            If it was not signed by this user in this session, or was changed since.
        """
        head, _, source = str(stored.get("cell", "")).partition("\n")
        number = stored.get("number")
        cell = cls(head, source, number if isinstance(number, int) else 0, name, str(stored.get("out", "")))
        if not hmac.compare_digest(str(stored.get("signature", "")), cell._signature(key).hex()):
            untrusted("the source of the cell", "run the cell again")
        return cell

    def _signature(self, key: bytes) -> bytes:
        data = f"{self.number}\n{self.out}\n{self.text}".encode("utf-8", "surrogatepass")
        return signature_of(data, key, "cell", f"{session}/{self.name}")


@dataclass(slots=True)
class Snapshot:
    """What a cell runs on, and what came of it."""

    #: The notebook's shell, or that of the cell which this one stands in.
    shell: Any
    code: CellCode
    #: The notebook's names as they were; each attempt is given a copy.
    names: dict[str, Any]
    #: The name that is given the value in the notebook; "" for none.
    out: str = ""
    #: Where its job is, and by which store; that may have been closed since.
    place: str = ""
    store: weakref.ref[Any] | None = None
    #: Whether that store will tell the end of its job.
    followed: bool = False
    #: The fence of the latest attempt that gave a value, and that value.
    value: tuple[int, Any] | None = None

    @classmethod
    def take(cls, shell: Any, cell: Cell) -> Self:
        """Compile a cell, and copy the names as they are.

        Raises
        ------
        SyntaxError
            Which names the cell and the line.
        """
        code = compile_cell(shell, cell.head, cell.source, cell.number)
        return cls(shell, code, dict(shell.user_ns), cell.out)


class Snapshots:
    """What cells that have not succeeded yet run on, by their job; any thread may ask.

    Example
    -------
    >>> kept = Snapshots()
    >>> kept.get(UUID(int=1)) is None
    True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[UUID, Snapshot] = {}
        #: The oldest first.
        self._failed: dict[UUID, None] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def items(self) -> list[tuple[UUID, Snapshot]]:
        """Give all of them."""
        with self._lock:
            return list(self._kept.items())

    def keep(self, job_id: UUID, snapshot: Snapshot) -> None:
        """Keep what a job is to run on."""
        with self._lock:
            self._kept[job_id] = snapshot

    def get(self, job_id: UUID) -> Snapshot | None:
        """Give what a job runs on, None where that was dropped."""
        with self._lock:
            self._failed.pop(job_id, None)
            return self._kept.get(job_id)

    def drop(self, job_id: UUID) -> None:
        """Keep it no longer."""
        with self._lock:
            self._kept.pop(job_id, None)
            self._failed.pop(job_id, None)

    def failed(self, job_id: UUID) -> None:
        """Keep it for a retry, and drop the oldest of too many such."""
        with self._lock:
            self._failed[job_id] = None
            while len(self._failed) > FAILED_MAX:
                oldest = next(iter(self._failed))
                del self._failed[oldest]
                self._kept.pop(oldest, None)


#: Those of this process.
snapshots = Snapshots()


#: Has the end of a job told to its snapshot, by the queue that it came from.
Follow = Callable[[Dispatcher, UUID, Snapshot], None]


@dataclass(frozen=True, kw_only=True)
class CellHandler(Handler):
    """Runs the cells of this session that go by one name."""

    kind: Kind = Kind.CELL
    follow: Follow

    def admit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse a cell that this user has not signed in this session."""
        Cell.read(self.name, kwargs, load_secret())

    def invoke(self, ctx: Context, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run the cell on the names it was handed in with; on today's, once those were dropped."""
        snapshot = snapshots.get(ctx.job_id)
        if snapshot is None:
            # It succeeded or was cancelled, and somebody wants it once more.
            snapshot = Snapshot.take(_notebook(), Cell.read(self.name, kwargs, load_secret()))
            snapshots.keep(ctx.job_id, snapshot)
        self.follow(ctx.dispatcher, ctx.job_id, snapshot)
        with names_for(snapshot.shell, snapshot.names) as names:
            value = snapshot.code.run(names, ctx)
        snapshot.value = (ctx.claim.fence, value)
        return value


def _notebook() -> Any:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        raise NotSupported(
            "the names that this cell ran on were dropped, and no notebook has others; run the cell"
        )
    return shell
