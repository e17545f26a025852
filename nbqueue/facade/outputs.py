"""What a job displayed, for people: in any notebook, after any restart, and only as far as it may be trusted."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, overload

from nbqueue.payload import bundles
from nbqueue.running import displays
from nbqueue.secret import load_secret
from nbqueue.store import OUTPUT, Store

__all__ = ["Output", "Outputs", "outputs_of"]

_WIDGET = "application/vnd.jupyter.widget-view+json"
_WITHHELD = (
    "[{what} of this output withheld: it was not signed by this user, and it could run code here; "
    "a job of yours that runs here signs what it displays]"
)
# What was written under one claim: an attempt that was given back and taken again is begun anew.
_SQL = """
    WITH newest AS (
        SELECT max(fence) AS fence FROM outputs WHERE job_id = ?::UUID AND attempt = coalesce(?, attempt)
    ), said AS (
        SELECT seq, attempt, written_at AS said_at, stream::VARCHAR AS stream, text, fence FROM logs
        WHERE job_id = ?::UUID AND ?
        UNION ALL
        SELECT seq, attempt, shown_at, 'output', mimebundle, fence FROM outputs WHERE job_id = ?::UUID
    )
    SELECT attempt, said_at, stream, text FROM said JOIN newest USING (fence) ORDER BY seq
"""


@dataclass(frozen=True, slots=True)
class Output:
    """One display of a job.

    ``data`` and ``metadata``, by MIME type, hold what may be shown here: what could run code is in them only if it was
    signed by this user for this very job, and ``withheld`` names what is not.

    Example
    -------
    >>> Output({"text/plain": "7"}, {}, attempt=1, at=None)
    7
    """

    data: Mapping[str, Any]
    metadata: Mapping[str, Any]
    attempt: int
    #: When it was displayed, UTC.
    at: datetime | None
    #: The MIME types that were left out of ``data``.
    withheld: tuple[str, ...] = ()

    @property
    def trusted(self) -> bool:
        """Whether all of it may be shown."""
        return not self.withheld

    @property
    def note(self) -> str:
        """Why something of it is withheld; "" where nothing is."""
        return _WITHHELD.format(what=", ".join(self.withheld)) if self.withheld else ""

    def __str__(self) -> str:
        return "\n".join(part for part in (bundles.plain(self.data), self.note) if part)

    __repr__ = __str__

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook shows."""
        data = {mime: value for mime, value in self.data.items() if mime != _WIDGET or _is_alive(value)}
        return {**data, "text/plain": str(self)}, dict(self.metadata)


class Outputs(Sequence[Output]):
    """What a job displayed in one attempt, in order; in a notebook it shows that with the text around it.

    Parameters
    ----------
    command : str
        Of the job.
    said : sequence of Output or (str, str)
        The displays, and the text around them with its stream.
    """

    __slots__ = ("_command", "_displays", "_said")

    def __init__(self, command: str, said: Sequence[Output | tuple[str, str]]) -> None:
        self._command = command
        self._said = tuple(said)
        self._displays = tuple(one for one in said if isinstance(one, Output))

    @overload
    def __getitem__(self, index: int) -> Output: ...
    @overload
    def __getitem__(self, index: slice) -> Outputs: ...
    def __getitem__(self, index: int | slice) -> Output | Outputs:
        found = self._displays[index]
        return found if isinstance(found, Output) else Outputs(self._command, found)

    def __len__(self) -> int:
        return len(self._displays)

    def __iter__(self) -> Iterator[Output]:
        return iter(self._displays)

    def __str__(self) -> str:
        return "".join(f"{one}\n" if isinstance(one, Output) else one[1] for one in self._said)

    def __repr__(self) -> str:
        count = len(self)
        return f"<Outputs of {self._command}: {count} display{'' if count == 1 else 's'}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001 - IPython calls it so
        printer.text(repr(self) if cycle or not self else str(self).rstrip("\n"))

    def _ipython_display_(self) -> None:
        """Show it as the cell would have."""
        if not self._said:
            displays.publish({"text/plain": repr(self)}, {})
        for one in self._said:
            if isinstance(one, Output):
                displays.publish(*one._repr_mimebundle_())
            else:
                (sys.stdout if one[0] == "stdout" else sys.stderr).write(one[1])


def outputs_of(
    store: Store,
    job_id: uuid.UUID,
    attempt: int | None = None,
    *,
    command: str = "job",
    text: bool = True,
    key: Callable[[], bytes] = load_secret,
) -> Outputs:
    """Give what a job displayed.

    Parameters
    ----------
    store : Store
        Where it is.
    job_id : UUID
        Of the job.
    attempt : int, optional
        Which; the newest that displayed anything, unless given.
    command : str
        Of the job, to name it.
    text : bool
        With the text around it.
    key : Callable[[], bytes]
        Gives the secret of this user, who trusts what it has signed.
    """
    job = str(job_id)
    found = store.query(_SQL, (job, attempt, job, text, job))
    folding = _Folding(job, key)
    for number, at, stream, said in zip(
        found["attempt"].tolist(),
        found["said_at"].tolist(),
        found["stream"].tolist(),
        found["text"].tolist(),
        strict=True,
    ):
        if stream == OUTPUT:
            folding.show(said, int(number), at.to_pydatetime())
        else:
            folding.said.append((stream, said))
    return Outputs(command, folding.said)


@dataclass(slots=True)
class _Folding:
    """Folds what was displayed, updated and cleared into what is to be seen at the end."""

    job_id: str
    key: Callable[[], bytes]
    said: list[Output | tuple[str, str]] = field(default_factory=list)
    #: Where in ``said`` the displays of an id are.
    places: dict[str, list[int]] = field(default_factory=dict)

    def show(self, text: str, attempt: int, at: datetime) -> None:
        shown = bundles.read(text)
        if "clear" in shown:
            self.said.clear()
            self.places.clear()
            return
        output = self._output(shown, attempt, at)
        display_id = shown.get("display_id")
        if not isinstance(display_id, str):
            self.said.append(output)
            return
        places = self.places.setdefault(display_id, [])
        for place in places:
            self.said[place] = output
        # The display that is updated may be one that the job was handed by a cell.
        if not places or "update" not in shown:
            places.append(len(self.said))
            self.said.append(output)

    def _output(self, shown: dict[str, Any], attempt: int, at: datetime) -> Output:
        data, metadata = shown["data"], shown["metadata"]
        if "signature" in shown and bundles.is_trusted(shown, key=self.key, context=self.job_id):
            return Output(data, metadata, attempt, at)
        kept = bundles.harmless(data)
        withheld = tuple(bundles.showable(mime[:80]) for mime in data if mime not in kept)
        kept = bundles.showable(kept)
        return Output(kept, bundles.harmless_metadata(metadata), attempt, at, withheld)


def _is_alive(view: object) -> bool:
    """Whether the widget is one of this process: another's model has gone with its kernel."""
    widgets = sys.modules.get("ipywidgets.widgets.widget")
    model = view.get("model_id") if isinstance(view, dict) else None
    return widgets is not None and model in getattr(widgets, "_instances", {})
