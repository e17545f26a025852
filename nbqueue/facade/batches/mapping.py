"""A row is a job: hands in one job for each row of an input, as one batch; knows nothing of how rows end."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from nbqueue import payload
from nbqueue.errors import InvalidCommand, JobNotFound
from nbqueue.facade.batches import accessor
from nbqueue.facade.batches.batch import Batch
from nbqueue.facade.batches.tables import Arguments, Table, label_text, read_table
from nbqueue.facade.dispatching import Dispatching
from nbqueue.facade.ids import new_ids, packed_ids
from nbqueue.facade.intake import Calls
from nbqueue.facade.preparing import encode_arguments, prepare, specs_of
from nbqueue.handlers.definitions import ClassHandler, check_call, check_keywords
from nbqueue.handlers.handler import Handler
from nbqueue.handlers.registry import Call, to_call, to_mapped
from nbqueue.jobs import NewBatch, NewJob, Options, check_name
from nbqueue.rows import Rows

__all__ = ["Batching"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})

# For who imports nbqueue first, and for who imports pandas first.
accessor.offer()


class Batching(Dispatching):
    """The verbs of batches; ``QueueManager`` has them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        accessor.offer()

    def map(self, work: object, items: object, *, key: str | None = None, **options: Any) -> Batch:
        """Hand in one job for each row or item, all or none, in one transaction.

        Parameters
        ----------
        work : job, type of Job or str
            A function under ``@job``, with ``.options(...)`` or without; a ``Job`` class; a command's name.
        items : DataFrame, Series or iterable
            Of a frame, the columns are keyword arguments. Of anything else, each item is the one positional argument,
            tuples too; but dicts are keyword arguments, as the rows of a frame are.
        key : str, optional
            Names the batch. Mapping again under this name matches rows by their index, and hands in only those that
            are new, whose arguments have changed, or that failed or were cancelled.
        **options
            As ``@job`` takes them, for every row.

        Raises
        ------
        InvalidCommand
            For columns that the handler does not take, or that it needs and are not there, by name; for arguments and
            labels that cannot be stored; with ``key`` also for an index that names two rows the same. Nothing was
            written.
        DispatchFailed, QueueUnavailable
            If it could not be made durable; no row was accepted.

        Example
        -------
        >>> import nbqueue as nbq
        >>> @nbq.job
        ... def import_csv(path: str) -> int: ...
        >>> with nbq.connect(":memory:") as queues:
        ...     queues.map(import_csv, ["a.csv", "b.csv"]).progress()
        BatchProgress(total=2, pending=2, running=0, succeeded=0, failed=0, cancelled=0)
        """
        return self.map_on(None, work, items, key, options)

    def map_on(
        self,
        queue: str | None,
        work: object,
        items: object,
        key: str | None = None,
        options: Mapping[str, Any] = _NOTHING,
    ) -> Batch:
        """Hand in one job for each row, to this queue unless the work names its own; as ``CommandQueue`` does."""
        _ = self.store
        call = to_mapped(work)
        given = Options.make(**options) if options else None
        name = "" if key is None else _check_key(key)
        table = read_table(items)
        if len(table):
            _check_rows(call, table)
        if name:
            _check_unique(table)
        now = self._clock()
        (batch_id,) = new_ids(1, now)
        batch = NewBatch(batch_id, call.command, call.origin, name, label_text(_head(call, table)))
        rows = _Rows(call, table, given, queue or self.config.default_queue, now)
        jobs, calls = rows.prepare(batch_id)
        # What the texts were made of need not be held while they are written.
        del table, rows
        # Workers may have run them before the batch is made here: what no store can keep has a place from the start.
        known = self.store.get_batch(name) if name else None
        places = [
            self.live.row_values(which) for which in {batch_id, *(() if known is None else (known.batch_id,))}
        ]
        self.admit((call.handler, queue) for queue in {spec.queue for spec in specs_of(jobs)})
        mapped = self.live.put_batch(batch, jobs, call.handler, calls)
        made = Batch(self, mapped.batch, dispatched=len(jobs) - len(mapped.left))
        del places
        return made

    def batch(self, id: uuid.UUID | str) -> Batch:
        """Take a batch up again, by its id or by the ``key`` it was mapped under.

        Raises
        ------
        JobNotFound
            If there is none, or none of its jobs is left.
        """
        which: uuid.UUID | str = id
        if not isinstance(id, uuid.UUID):
            which = _as_id(id) or check_name(id, what="batch")
        found = self.store.get_batch(which)
        if found is None:
            raise JobNotFound(
                f"there is no batch {str(which)!r} in {self.name}; its jobs were forgotten or pruned, or another file"
                " has it"
            )
        return Batch(self, found)


class _Rows:
    """Makes the jobs of a table's rows."""

    def __init__(self, call: Call, table: Table, given: Options | None, queue: str, now: float) -> None:
        self._call = call
        self._table = table
        self._given = given
        self._queue = queue
        self._now = now

    def prepare(self, batch_id: uuid.UUID) -> tuple[Sequence[NewJob], Calls]:
        """Give a job for each row, and the arguments of those that had to be pickled."""
        if isinstance(self._call.handler, ClassHandler) and self._call.origin:
            return self._of_class(self._call.handler, batch_id)
        (one,) = prepare((self._call,), self._given, queue=None, default_queue=self._queue, now=self._now)
        _, spec, _, metadata, due_at, *_ = one.job
        texts, calls = self._table.plain_texts(), Calls()
        pickled: set[int] = set()
        if texts is None:
            texts = list(map(self._encode, self._table.calls()))
            pickled = {at for at, text in enumerate(texts) if payload.needs_pickle(text)}
        ids = packed_ids(len(texts), self._now)
        for at, (args, kwargs) in enumerate(self._table.calls() if pickled else ()):
            if at in pickled:
                calls[ids[at]] = (args, dict(kwargs))
        rows = Rows(
            ids=ids,
            spec=spec,
            payloads=texts,
            labels=self._table.labels,
            batch_id=batch_id,
            metadata=metadata,
            due_at=due_at,
        )
        return rows, calls

    def _encode(self, arguments: Arguments) -> str:
        return encode_arguments(self._call.command, *arguments)

    def _of_class(self, handler: ClassHandler, batch_id: uuid.UUID) -> tuple[list[NewJob], Calls]:
        # An instance may have options of its own, fields that the row leaves out, and a say in what is valid.
        made = []
        for label, (args, kwargs) in zip(self._table.labels, self._table.calls(), strict=True):
            try:
                made.append(to_call(handler.target(*args, **kwargs)))
            except Exception as error:
                raise InvalidCommand(f"{handler.name}: the row {label} cannot be made: {error}") from error
        prepared = prepare(made, self._given, queue=None, default_queue=self._queue, now=self._now)
        calls: Calls = {
            job.job_id: (tuple(call.args), dict(call.kwargs))
            for job, call, _ in prepared
            if payload.needs_pickle(job.payload)
        }
        rows = zip(prepared, self._table.labels, strict=True)
        return [item.job._replace(batch_id=batch_id, row=label) for item, label in rows], calls


def _as_id(text: object) -> uuid.UUID | None:
    try:
        return uuid.UUID(str(text))
    except ValueError:
        return None


def _check_key(key: object) -> str:
    name = check_name(key, what="key")
    if _as_id(name) is not None:
        raise InvalidCommand(f'key {name!r} looks like the id of a batch; give it a name such as "scores"')
    return name


def _check_rows(call: Call, table: Table) -> None:
    handler: Handler | None = call.handler
    if handler is None:
        return
    if table.columns is None and table.records is None:
        check_call(handler, (table.items[0],), {})
    for names in table.keywords():
        check_keywords(handler, names)


def _check_unique(table: Table) -> None:
    seen: set[str] = set()
    for label in table.labels:
        if label in seen:
            raise InvalidCommand(
                f"two rows have the label {label}, and key= matches rows by it; give them an index of their own,"
                " e.g. frame.set_index(...)"
            )
        seen.add(label)


def _head(call: Call, table: Table) -> dict[str, Any]:
    """What the input was like, for who makes frames of its rows again."""
    item = columns = None
    if isinstance(call.handler, ClassHandler) and call.handler.by_text:
        item = "serialized"
    elif table.of_frame:
        columns = dict(table.dtypes)
    elif table.records is None:
        item = _item_name(call.handler)
    return {"index": dict(table.index), "columns": columns, "named": table.named, "item": item}


def _item_name(handler: Handler | None) -> str:
    """The name of the parameter that takes an item."""
    signature = None if handler is None else handler.signature
    names = (
        [p.name for p in signature.parameters.values() if p.kind is not p.VAR_POSITIONAL] if signature else []
    )
    return names[0] if names else "item"
