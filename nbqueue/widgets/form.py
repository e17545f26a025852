"""The form of a handler in a notebook: one control a field, what is wrong marked where it is; decides nothing."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets

from nbqueue.errors import NbqueueError
from nbqueue.facade.forms.spec import Field, FormErrors, FormSpec
from nbqueue.facade.receipt import JobDispatch
from nbqueue.patience import within
from nbqueue.widgets.card.card import card_of
from nbqueue.widgets.link import answer_at_once, front

if TYPE_CHECKING:
    from nbqueue.facade.manager import QueueManager

__all__ = ["Form"]


#: Clicks that come together are one: a double click, or some while the kernel was busy.
_ONE_CLICK = 0.7
#: A store that does not answer is tried for so long, seconds: the kernel waits meanwhile.
_PATIENCE = 5.0
#: So many cards stay below the form, and as many receipts with it: they hold what their jobs returned.
_CARDS = 5
_ROWS = {"list": 3, "json": 3, "text": 4}


class Form(ipywidgets.VBox):  # type: ignore[misc]
    """A form that dispatches jobs of one handler, with their live cards below it.

    Parameters
    ----------
    queues : QueueManager
        Where to.
    work : str, job or Job class
        Whose form.

    Raises
    ------
    InvalidCommand
        For a name that has no handler here.
    """

    def __init__(self, queues: QueueManager, work: object) -> None:
        spec = queues.form_spec(work)
        self._queues = queues
        self.spec = spec
        self._clicked = threading.Lock()
        self._free_at = 0.0
        self._rows = {field.name: Row(field, spec.values.get(field.name)) for field in spec.fields}
        self._options = {field.name: Row(field, field.default) for field in spec.options}
        for row in self._options.values():
            # Left empty they say nothing, rather than None.
            row.control.placeholder = ""
        self._button = ipywidgets.Button(
            description="Dispatch", button_style="primary", tooltip=f"Dispatch {spec.command}"
        )
        self._button.on_click(lambda _button: self.submit())
        self._estimate = _html("nbq-f-estimate", escape(spec.estimate))
        self._said = _html("nbq-f-error", "")
        self._cards = ipywidgets.VBox([])
        self._cards.add_class("nbq-f-cards")
        #: The receipts of what was dispatched last, the newest first.
        self.receipts: list[JobDispatch] = []
        super().__init__(self._parts())
        self.add_class("nbq-f")
        for widget in _all(self):
            answer_at_once(widget)

    def _parts(self) -> list[ipywidgets.Widget]:
        spec = self.spec
        doc = f"<p>{escape(spec.doc)}</p>" if spec.doc else ""
        head = _html("nbq-f-head", f"<style>{front('form.css')}</style><h3>{escape(spec.title)}</h3>{doc}")
        more = ipywidgets.Accordion(
            [ipywidgets.VBox([row.box for row in self._options.values()])], selected_index=None
        )
        more.set_title(0, "More options")
        more.add_class("nbq-f-more")
        self._more = more
        foot = ipywidgets.HBox([self._button, self._estimate])
        foot.add_class("nbq-f-foot")
        rows = [row.box for row in self._rows.values()]
        none = [] if rows else [_html("nbq-f-help", "It takes no arguments.")]
        return [head, *rows, *none, more, foot, self._said, self._cards]

    def submit(self) -> JobDispatch | None:
        """Dispatch what is filled in, as the button does; what is wrong is shown at its field.

        Returns
        -------
        JobDispatch or None
            None where nothing was dispatched.
        """
        with self._clicked:
            if time.monotonic() < self._free_at:
                return None
            receipt = self._submit()
            if receipt is not None:
                self._free_at = time.monotonic() + _ONE_CLICK
            return receipt

    def _submit(self) -> JobDispatch | None:
        values = {name: row.value() for name, row in self._rows.items()}
        options = {name: row.value() for name, row in self._options.items()}
        errors: Mapping[str, str] = {}
        receipt = None
        try:
            with within(_PATIENCE):
                receipt = self._queues.dispatch_form(self.spec, values, options)
        except FormErrors as error:
            errors = error.errors
        except NbqueueError as error:
            errors = {"": str(error)}
        self._mark(errors)
        if receipt is not None:
            self._keep(receipt)
        return receipt

    def _mark(self, errors: Mapping[str, str]) -> None:
        for name, row in self._rows.items():
            row.mark(errors.get(name, ""))
        for name, row in self._options.items():
            row.mark(errors.get(f"options.{name}", ""))
        if any(name.startswith("options.") for name in errors):
            self._more.selected_index = 0
        said = errors.get("", "")
        if not said and errors:
            said = "Not dispatched: see the marked fields."
        self._said.value = f'<span role="alert">{escape(said)}</span>' if said else ""

    def _keep(self, receipt: JobDispatch) -> None:
        self.receipts = [receipt, *self.receipts[: _CARDS - 1]]
        with contextlib.suppress(NbqueueError), within(_PATIENCE):
            if (took := self._queues.estimate(self.spec.command)) is not None:
                self._estimate.value = escape(str(took))
            card = card_of(self._queues, receipt)
            kept, gone = self._cards.children[: _CARDS - 1], self._cards.children[_CARDS - 1 :]
            self._cards.children = (card, *kept)
            for one in gone:
                one.close()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if data is not None:
            data["text/plain"] = repr(self)
            # Kept in the notebook for who reads it without a kernel.
            data["text/html"] = static_html(self.spec)
        return bundle

    def __repr__(self) -> str:
        return f"<Form {self.spec.command}({', '.join(field.name for field in self.spec.fields)})>"


class Row:
    """A field: its control, its help, and what is wrong with it."""

    def __init__(self, field: Field, initial: Any) -> None:
        self.field = field
        self.control, self._read = _control(field, initial)
        self.control.add_class("nbq-f-control")
        help_text = _html("nbq-f-help", escape(field.help))
        self._error = _html("nbq-f-error", "")
        parts = [self.control, *([help_text] if field.help else []), self._error]
        self.box = ipywidgets.VBox(parts)
        self.box.add_class("nbq-f-row")
        if field.required:
            self.box.add_class("nbq-f-required")

    def value(self) -> Any:
        """Give what is filled in, as plain JSON."""
        return self._read()

    def mark(self, sentence: str) -> None:
        """Show what is wrong, or that nothing is."""
        self._error.value = f'<span role="alert">{escape(sentence)}</span>' if sentence else ""
        (self.box.add_class if sentence else self.box.remove_class)("nbq-f-wrong")


def _control(field: Field, initial: Any) -> tuple[ipywidgets.Widget, Callable[[], Any]]:
    """The control of a field, and a way to read it as plain JSON."""
    label = f"{field.label} *" if field.required else field.label
    words = {
        "description": label,
        "description_allow_html": False,
        "tooltip": field.help,
        "style": {"description_width": "var(--nbq-f-label)"},
    }
    if field.kind == "bool":
        box = ipywidgets.Checkbox(
            value=bool(initial), indent=False, description=label, description_allow_html=False
        )
        return box, lambda: box.value
    if field.choices is not None and not field.free:
        return _choice(field, initial, words)
    if field.kind == "date":
        day = ipywidgets.DatePicker(value=_or_none(date.fromisoformat, initial), **words)
        return day, lambda: None if day.value is None else day.value.isoformat()
    moment = _or_none(datetime.fromisoformat, initial) if field.kind == "datetime" else None
    if field.kind == "datetime" and (moment is None or moment.tzinfo is None):
        # The browser's own control knows no zones.
        picker = ipywidgets.NaiveDatetimePicker(value=moment, **words)
        return picker, lambda: None if picker.value is None else picker.value.isoformat()
    text = _as_text(initial)
    if field.free:
        names = [choice["value"] for choice in field.choices or ()]
        combo = ipywidgets.Combobox(
            value=text, options=names, ensure_option=False, placeholder=_placeholder(field), **words
        )
        return combo, lambda: combo.value
    if field.kind in _ROWS:
        area = ipywidgets.Textarea(
            value=text, rows=max(2, min(8, text.count("\n") + 2)), placeholder=_placeholder(field), **words
        )
        return area, lambda: area.value
    line = ipywidgets.Text(value=text, placeholder=_placeholder(field), **words)
    return (
        line,
        lambda: (
            None if line.value == "" and (field.nullable or field.kind in ("int", "float")) else line.value
        ),
    )


def _choice(
    field: Field, initial: Any, words: Mapping[str, Any]
) -> tuple[ipywidgets.Widget, Callable[[], Any]]:
    pairs: list[tuple[str, Any]] = [(choice["label"], choice["value"]) for choice in field.choices or ()]
    if field.nullable or initial is None:
        pairs.insert(0, ("–", None))
    known = {value for _, value in pairs}
    picked = ipywidgets.Dropdown(options=pairs, value=initial if initial in known else pairs[0][1], **words)
    return picked, lambda: picked.value


def _as_text(initial: Any) -> str:
    if initial is None:
        return ""
    if isinstance(initial, list):
        lines = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in initial]
        # A line that is empty or has a break in it is only safe as JSON, as is one that begins like it.
        safe = all(line.strip() and "\n" not in line and "\r" not in line for line in lines)
        safe = safe and not "".join(lines[:1]).lstrip().startswith("[")
        return "\n".join(lines) if safe else json.dumps(initial, ensure_ascii=False)
    return initial if isinstance(initial, str) else json.dumps(initial)


def _placeholder(field: Field) -> str:
    if field.nullable and field.default is None:
        return "none"
    return _as_text(field.default).replace("\n", ", ")[:60]


def _or_none(read: Callable[[str], Any], text: Any) -> Any:
    with contextlib.suppress(ValueError, TypeError):
        return read(text)
    return None


def _html(name: str, value: str) -> ipywidgets.HTML:
    made = ipywidgets.HTML(value)
    made.add_class(name)
    return made


def _all(widget: ipywidgets.Widget) -> Iterable[ipywidgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from _all(child)


def static_html(spec: FormSpec) -> str:
    """Give what a reader without a kernel sees: the fields and what they are by default."""
    rows = "".join(
        f"<tr><td><code>{escape(field.name)}</code></td><td>{escape(field.kind)}</td>"
        f"<td>{'needed' if field.required else escape(_as_text(field.default)) or '–'}</td>"
        f"<td>{escape(field.help)}</td></tr>"
        for field in spec.fields
    )
    doc = f"<p>{escape(spec.doc)}</p>" if spec.doc else ""
    table = (
        f"<table><tr><th>field</th><th>kind</th><th>default</th><th></th></tr>{rows}</table>" if rows else ""
    )
    return f"<p><strong>{escape(spec.title)}</strong>: a form that dispatches jobs</p>{doc}{table}"
