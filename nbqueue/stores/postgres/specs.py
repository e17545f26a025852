"""The numbers of specs: kept once on the server, remembered in every process."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

from nbqueue.jobs import Spec
from nbqueue.retry import RetryPolicy
from nbqueue.stores.postgres.link import Tx
from nbqueue.stores.postgres.texts import write_text

__all__ = ["LOCK", "Specs"]

#: A column: the numbers, out of those given, that are still in use; nobody forgets them meanwhile.
LOCK = "array(SELECT spec FROM specs WHERE spec = ANY(%s) ORDER BY spec FOR KEY SHARE)"

_COLUMNS = "spec, command, queue, priority, origin, code, tries, timeout, retry"
_MAKE = (
    "INSERT INTO specs (command, queue, priority, origin, code, tries, timeout, retry)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
    # Nothing is changed; but it is given, and it is locked.
    " ON CONFLICT (command, queue, priority, origin, code, tries, timeout, retry)"
    " DO UPDATE SET xid = specs.xid RETURNING spec"
)


class Specs:
    """What this process knows of them; one that was forgotten on the server is made anew when it is used."""

    def __init__(self) -> None:
        self._by_number: dict[int, Spec] = {}
        self._numbers: dict[Spec, int] = {}

    def of(self, tx: Tx, numbers: Collection[int]) -> dict[int, Spec]:
        """Give the specs of these numbers."""
        missing = [number for number in numbers if number not in self._by_number]
        if missing:
            rows = tx.execute(f"SELECT {_COLUMNS} FROM specs WHERE spec = ANY(%s)", [missing]).fetchall()
            self._learn((row[0], _spec(row)) for row in rows)
        return self._by_number

    def guess(self, specs: Iterable[Spec]) -> list[int]:
        """Give the numbers that some of these specs had, for ``LOCK``."""
        return [self._numbers[spec] for spec in dict.fromkeys(specs) if spec in self._numbers]

    def numbers(
        self, tx: Tx, specs: Iterable[Spec], locked: Collection[int] | None = None
    ) -> dict[Spec, int]:
        """Give the numbers of these specs, new ones if need be; nobody forgets them before this transaction ends.

        ``locked`` are those that are there, by ``LOCK``; without it they are looked for here.
        """
        wanted = dict.fromkeys(specs)
        numbers = {spec: self._numbers[spec] for spec in wanted if spec in self._numbers}
        if numbers:
            here = tx.one(f"SELECT {LOCK}", [list(numbers.values())])[0] if locked is None else locked
            numbers = {spec: number for spec, number in numbers.items() if number in here}
        new = self._make(tx, [spec for spec in wanted if spec not in numbers])
        if new:
            tx.after(partial(self._learn, [(number, spec) for spec, number in new.items()]))
        return {**numbers, **new}

    @staticmethod
    def _make(tx: Tx, specs: Collection[Spec]) -> dict[Spec, int]:
        # Whoever makes some of the same makes them in the same order, so that no two wait for each other.
        for queue in sorted({write_text(spec.queue) for spec in specs}):
            tx.execute("INSERT INTO queues (queue) VALUES (%s) ON CONFLICT DO NOTHING", [queue])
        ordered = sorted(specs, key=repr)
        made = [tx.execute(_MAKE, _values(spec)) for spec in ordered]
        return {spec: row[0] for spec, one in zip(ordered, made, strict=True) for row in one.fetchall()}

    def _learn(self, found: Iterable[tuple[int, Spec]]) -> None:
        for number, spec in found:
            self._by_number[number] = spec
            self._numbers[spec] = number


def _values(spec: Spec) -> list[object]:
    said = [write_text(value) if isinstance(value, str) else value for value in spec[:7]]
    return [*said, spec.retry.to_json()]


def _spec(row: tuple[Any, ...]) -> Spec:
    _, command, queue, priority, origin, code, tries, timeout, retry = row
    return Spec(command, queue, priority, origin, code, tries, timeout, RetryPolicy.from_json(retry))
