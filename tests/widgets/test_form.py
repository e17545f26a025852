"""The form in a notebook: what is filled in is dispatched once, what is wrong is marked where it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import ipywidgets
import pytest

import nbqueue as nbq
from nbqueue.errors import InvalidCommand
from nbqueue.handlers.registry import registry
from nbqueue.payload import encode_call
from nbqueue.widgets.form import Form


class Mode(Enum):
    FAST = 1
    CAREFUL = 2


@pytest.fixture
def queues() -> Iterator[nbq.QueueManager]:
    """An open queue; what a test defines is gone after it."""
    before = dict(registry._owned)
    with nbq.connect(":memory:") as opened:
        yield opened
    registry.clear()
    for handler in before.values():
        registry.register(handler)


@pytest.fixture
def import_csv() -> Any:
    """A job with a parameter of many kinds."""

    @nbq.job(queue="imports", tries=3)
    def import_csv(  # noqa: PLR0917 - one of each kind
        path: Path,
        batch: int = 100,
        mode: Mode = Mode.FAST,
        day: date | None = None,
        tags: list[str] = [],  # noqa: B006 - as users write it
        level: Literal["low", "high"] | None = None,
        dry_run: bool = False,
    ) -> None:
        """Import a file.

        Parameters
        ----------
        path : Path
            The <b>file</b>.
        """

    return import_csv


def errors_of(form: Form) -> dict[str, str]:
    """What is marked, by field."""
    rows = {**form._rows, **{f"options.{name}": row for name, row in form._options.items()}}
    return {name: row._error.value for name, row in rows.items() if row._error.value}


def test_controls(queues: nbq.QueueManager, import_csv: Any) -> None:
    """Each kind has its control, which begins with the default; what is needed is marked."""
    form = import_csv.form()
    controls = {name: type(row.control) for name, row in form._rows.items()}
    assert controls == {
        "path": ipywidgets.Text,
        "batch": ipywidgets.Text,
        "mode": ipywidgets.Dropdown,
        "day": ipywidgets.DatePicker,
        "tags": ipywidgets.Textarea,
        "level": ipywidgets.Dropdown,
        "dry_run": ipywidgets.Checkbox,
    }
    assert form._rows["path"].control.description == "path *"
    assert {name: row.value() for name, row in form._rows.items()} == {
        "path": "",
        "batch": "100",
        "mode": "FAST",
        "day": None,
        "tags": "",
        "level": None,
        "dry_run": False,
    }
    assert form._options["queue"].value() == "imports"


def test_dispatch(queues: nbq.QueueManager, import_csv: Any) -> None:
    """What is filled in is what the job gets, and its card stands below."""
    form = queues.form("import_csv")
    form._rows["path"].control.value = "users.csv"
    form._rows["day"].control.value = date(2026, 3, 1)
    form._rows["tags"].control.value = "a\nb"
    form._rows["mode"].control.value = "CAREFUL"
    form._options["tries"].control.value = "5"
    form._button.click()
    (receipt,) = form.receipts
    spec = queues.form_spec("import_csv")
    assert spec.values == {
        "path": "users.csv",
        "batch": 100,
        "mode": "CAREFUL",
        "day": "2026-03-01",
        "tags": ["a", "b"],
        "level": None,
        "dry_run": False,
    }
    assert receipt.record().spec.tries == 5
    (card,) = form._cards.children
    assert card.card["id"] == str(receipt)


def test_invalid_is_marked(queues: nbq.QueueManager, import_csv: Any) -> None:
    """What is wrong is marked at its field and nothing is dispatched; once it is right the marks are gone."""
    form = import_csv.form()
    form._rows["batch"].control.value = "<many>"
    form._options["delay"].control.value = "soon"
    assert form.submit() is None
    errors = errors_of(form)
    assert set(errors) == {"path", "batch", "options.delay"}
    assert "is needed" in errors["path"]
    assert "&lt;many&gt;" in errors["batch"]
    assert form._more.selected_index == 0
    assert queues.jobs().empty

    form._free_at = 0.0
    form._rows["path"].control.value = "a.csv"
    form._rows["batch"].control.value = "5"
    form._options["delay"].control.value = ""
    assert form.submit() is not None
    assert errors_of(form) == {}


def test_double_click(queues: nbq.QueueManager, import_csv: Any) -> None:
    """Clicks that come together dispatch once, whichever threads they come in."""
    form = import_csv.form()
    form._rows["path"].control.value = "a.csv"
    threads = [threading.Thread(target=form._button.click) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(queues.jobs()) == 1
    form._free_at = 0.0
    form._button.click()
    assert len(queues.jobs()) == 2
    assert len(form._cards.children) == 2


def test_values_are_remembered(queues: nbq.QueueManager, import_csv: Any) -> None:
    """A new form begins with the values of the newest job."""
    import_csv.dispatch(Path("old.csv"), 7, tags=["x", ""])
    form = import_csv.form()
    assert form._rows["path"].value() == "old.csv"
    assert form._rows["batch"].value() == "7"
    assert form.submit() is not None
    assert queues.jobs(limit=1)["command"].tolist() == ["import_csv"]
    assert queues.form_spec("import_csv").values["tags"] == ["x", ""]


@pytest.mark.parametrize(
    "words",
    [
        ["[draft] a", "b"],
        [" [1]"],
        ["a\rb", "c\r"],
        ["a\u2028b\x0bc", "d"],
        ["a\nb"],
        [" "],
        ["a", "[1]"],
        ['["a"'],
    ],
    ids=repr,
)
def test_lists_come_back(queues: nbq.QueueManager, words: list[str]) -> None:
    """What a form shows of a list's last value is dispatched as that list again."""

    @nbq.job
    def tag(words: list[str]) -> None: ...

    tag.dispatch(words=words)
    receipt = tag.form().submit()
    assert receipt.record().payload == encode_call((), {"words": words})


def test_receipts_are_few(queues: nbq.QueueManager, import_csv: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form has as many receipts as cards below it: they hold what their jobs returned."""
    monkeypatch.setattr("nbqueue.widgets.form._ONE_CLICK", 0.0)
    form = import_csv.form()
    form._rows["path"].control.value = "users.csv"
    made = [form.submit() for _ in range(7)]
    assert form.receipts == made[:1:-1]
    assert [card.subject.job_id for card in form._cards.children] == [one.job_id for one in form.receipts]


def test_closed_queue_is_said(queues: nbq.QueueManager, import_csv: Any) -> None:
    """A queue that was closed meanwhile is told below the form."""
    form = import_csv.form()
    form._rows["path"].control.value = "a.csv"
    queues.close()
    assert form.submit() is None
    assert "was closed here" in form._said.value


def test_estimate_is_told(queues: nbq.QueueManager, import_csv: Any) -> None:
    """Before the button is pressed the form says how long such a job took."""
    assert import_csv.form()._estimate.value == "has not run yet"
    with queues.worker() as worker:
        import_csv.dispatch(Path("a.csv"))
        worker.drain(timeout=30)
    assert "the last run" in import_csv.form()._estimate.value


def test_what_is_kept(queues: nbq.QueueManager, import_csv: Any) -> None:
    """A notebook keeps the fields and their defaults as plain HTML, with nothing of a docstring taken for markup."""
    form = import_csv.form()
    bundle = form._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "&lt;b&gt;file&lt;/b&gt;" in bundle["text/html"]
    assert "<b>file" not in bundle["text/html"]
    assert bundle["text/plain"].startswith("<Form import_csv(path, batch")


def test_no_arguments(queues: nbq.QueueManager) -> None:
    """A handler without parameters has a button all the same."""

    @nbq.job
    def tick() -> None: ...

    assert tick.form().submit() is not None


def test_unknown(queues: nbq.QueueManager, import_csv: Any) -> None:
    """A name without a handler has no form."""
    with pytest.raises(InvalidCommand, match="did you mean"):
        queues.form("import_csw")
