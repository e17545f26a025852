"""The jobs of a batch on their way into a store, by columns: no object a row, until somebody asks for one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import overload

from nbqueue.ids import JobIds
from nbqueue.jobs import NewJob, Spec

__all__ = ["Rows"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows(Sequence[NewJob]):
    """Jobs that differ in their ids, arguments and labels alone; a store that knows no columns takes them one by one.

    Example
    -------
    >>> from nbqueue.ids import new_packed_ids
    >>> ids = new_packed_ids(2, now=1_700_000_000.0, randomness=bytes(26))
    >>> batch = uuid.UUID(int=7)
    >>> rows = Rows(ids=ids, spec=Spec("import:data"), payloads=["[1]", "[2]"], labels=["0", "1"], batch_id=batch)
    >>> [(job.spec.command, job.payload, job.row) for job in rows]
    [('import:data', '[1]', '0'), ('import:data', '[2]', '1')]
    """

    ids: JobIds
    spec: Spec
    #: ``payload.encode_call`` of the arguments of each.
    payloads: Sequence[str]
    labels: Sequence[str]
    batch_id: uuid.UUID
    metadata: str = ""
    due_at: float | None = None

    def __post_init__(self) -> None:
        counts = {len(self.ids), len(self.payloads), len(self.labels)}
        if len(counts) > 1:
            raise ValueError(f"rows need as many ids as arguments and labels, not {sorted(counts)}")

    def __len__(self) -> int:
        return len(self.payloads)

    @overload
    def __getitem__(self, at: int) -> NewJob: ...
    @overload
    def __getitem__(self, at: slice) -> list[NewJob]: ...
    def __getitem__(self, at: int | slice) -> NewJob | list[NewJob]:
        if isinstance(at, slice):
            return list(self._made(self.ids[at], self.payloads[at], self.labels[at]))
        job_id, payload, label = self.ids[at], self.payloads[at], self.labels[at]
        return NewJob(job_id, self.spec, payload, self.metadata, self.due_at, self.batch_id, label)

    def __iter__(self) -> Iterator[NewJob]:
        return self._made(self.ids, self.payloads, self.labels)

    @property
    def texts(self) -> tuple[Sequence[str], Sequence[str], str]:
        """All its texts: the arguments, the labels, the metadata."""
        return self.payloads, self.labels, self.metadata

    def with_texts(self, change: Callable[[str], str]) -> Rows:
        """Give the same jobs with each of its texts changed."""
        payloads, labels = list(map(change, self.payloads)), list(map(change, self.labels))
        return replace(self, payloads=payloads, labels=labels, metadata=change(self.metadata))

    def _made(
        self, ids: Sequence[uuid.UUID], payloads: Sequence[str], labels: Sequence[str]
    ) -> Iterator[NewJob]:
        spec, metadata = repeat(self.spec), repeat(self.metadata)
        rest = (repeat(self.due_at), repeat(self.batch_id), labels)
        # Past the constructor of NamedTuples, which is Python code: 0.15 us a row instead of 0.5.
        return map(partial(tuple.__new__, NewJob), zip(ids, spec, payloads, metadata, *rest, strict=False))
