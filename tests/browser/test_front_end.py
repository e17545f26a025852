"""The panel's front end by itself: in a page without Jupyter, against a kernel that says what the test tells it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.fake_kernel import HOST, NO_FILTER, NOW, Kernel, detail_of, field, row, state_of
from tests.browser.traffic import Traffic
from tests.browser.views import PanelView

EVIL = "<img src=x onerror=alert(1)>"
FRONT = Path(__file__).resolve().parents[2] / "nbqueue" / "widgets" / "front"
FORM = {
    "command": "clean",
    "title": "clean",
    "doc": "Clean a file.",
    "values": {"path": "a.csv"},
    "estimate": "about 4 s",
    "fields": [
        field("path", "path", required=True),
        field("limit", "int", nullable=True),
        field(
            "mode",
            "choice",
            default="fast",
            choices=[{"value": one, "label": one} for one in ("fast", "slow")],
        ),
        field("dry", "bool", default=False),
        field("columns", "list", default=["a", "b"]),
    ],
    "options": [field("tries", "int", default=3, nullable=True)],
}


@pytest.fixture
def open_panel(page: Page) -> Any:
    """Show a panel of that state in an empty page."""
    from nbqueue.widgets.panel.panel import Panel

    def open_(state: dict[str, Any]) -> tuple[Kernel, PanelView]:
        page.set_content("<!doctype html><html lang=en><title>panel</title><body style='background: white'>")
        page.add_style_tag(content=Panel._css)
        page.evaluate(HOST, {"esm": Panel._esm, "state": state})
        return Kernel(page, state), PanelView(page.locator(".nbq-panel"))

    return open_


def grid(panel: PanelView) -> Locator:
    return panel.element.get_by_role("grid")


# -------------------------------------------------------------------------------------------------- text stays text
def test_markup_is_text(open_panel: Any, traffic: Traffic) -> None:
    """Markup in whatever the kernel says is shown as text, and makes no element; HTML displays run and load nothing."""
    failure = {
        "fingerprint": EVIL,
        "count": 1,
        "first": NOW,
        "last": NOW,
        "commands": [EVIL],
        "example": "job-0",
    }
    evil = row(0, command=EVIL, arguments=EVIL, error=EVIL, queue=EVIL, worker=EVIL, batch=EVIL)
    html = f"{EVIL}<script>alert(2)</script><img src='http://example.org/x.png'>"
    opened = detail_of(
        evil,
        why=EVIL,
        arguments_text=EVIL,
        metadata={EVIL: EVIL},
        logs=[{"attempt": 1, "stream": "stdout", "text": EVIL, "at": NOW}],
        outputs=[
            {"attempt": 1, "at": NOW, "data": {"text/html": html}, "metadata": {}, "trusted": True},
            {
                "attempt": 1,
                "at": NOW,
                "data": {"text/html": html, "text/plain": "as text"},
                "metadata": {},
                "trusted": False,
            },
        ],
    )
    kernel, panel = open_panel(state_of(evil, failures=[failure], notice={"level": "error", "text": EVIL}))
    panel.row("job-0").click()
    kernel.patch(set={"detail": opened})
    body = panel.detail.get_by_role("tabpanel")
    for tab in ("Overview", "Attempts", "Logs"):
        panel.detail.get_by_role("tab", name=tab).click()
        expect(body).to_contain_text(EVIL)
    panel.detail.get_by_role("tab", name="Outputs").click()
    expect(body.locator("iframe")).to_have_count(1)
    expect(body.locator("iframe")).to_have_attribute("sandbox", "")
    expect(body).to_contain_text("not trusted")
    expect(body).to_contain_text("as text")
    for place in (panel.row("job-0"), panel.failures):
        expect(place).to_contain_text(EVIL)
    expect(panel.element.locator("img, script")).to_have_count(0)
    assert not [url for url in traffic.asked if "example.org" in url or url.endswith("/x")]


# ------------------------------------------------------------------------------------------------------- failures
def test_failures_that_are_not_read_yet(open_panel: Any) -> None:
    """While queues count failed jobs and nobody has said what they failed with, it is not said that there are none."""
    state = state_of(row(0))
    kernel, panel = open_panel(state)
    expect(panel.failures).to_contain_text("being read")
    kernel.patch(set={"queues": [{**state["queues"][0], "failed": 0}]})
    expect(panel.failures).to_contain_text("No job is failed.")


# ------------------------------------------------------------------------------------------------------- the table
def test_only_rows_in_sight(open_panel: Any, page: Page) -> None:
    """Of a thousand jobs only those in sight are in the page; a patch draws what changed and keeps the place."""
    kernel, panel = open_panel(state_of(*(row(number) for number in range(1000))))
    rows = panel.element.locator("[role=row][data-job]")
    expect(panel.row("job-0")).to_be_visible()
    assert rows.count() < 40
    expect(grid(panel)).to_have_attribute("aria-rowcount", "1001")
    grid(panel).evaluate("(grid) => { grid.scrollTop = grid.scrollHeight; }")
    expect(panel.row("job-999")).to_be_visible()
    expect(panel.row("job-999")).to_have_attribute("aria-rowindex", "1001")
    assert rows.count() < 40

    page.evaluate("() => document.querySelectorAll('[data-job]').forEach((row) => { row.seen = true; })")
    before = panel.row("job-995").bounding_box()
    kernel.patch(
        rows={
            "job-990": row(990, state="succeeded", status="succeeded", error=None),
            "new": row(0, id="new"),
        },
        order=["new", *(f"job-{number}" for number in range(1000))],
        set={"jobs.total": 1001},
    )
    expect(panel.row("job-990")).to_have_attribute("data-state", "succeeded")
    assert panel.row("job-990").evaluate("(row) => row.seen")
    assert panel.row("job-995").bounding_box() == before


def test_keyboard(open_panel: Any, page: Page) -> None:
    """Arrows move, Enter opens, r and c act, Space selects, / searches, Escape closes."""
    rows = [row(0), row(1, state="running", status="running", finished=None, error=None), row(2)]
    kernel, panel = open_panel(state_of(*rows))
    grid(panel).focus()
    page.keyboard.press("ArrowDown")
    expect(panel.row("job-1")).to_have_attribute("data-cursor", "")
    active = page.locator(f"#{grid(panel).get_attribute('aria-activedescendant')}")
    expect(active).to_have_attribute("data-job", "job-1")
    page.keyboard.press("c")
    assert [message["jobs"] for message in kernel.sent("cancel")] == [["job-1"]]
    page.keyboard.press("End")
    page.keyboard.press("r")
    assert [message["jobs"] for message in kernel.sent("retry")] == [["job-2"]]
    page.keyboard.press("Enter")
    expect(panel.detail).to_be_visible()
    assert kernel.sent("detail")[-1]["job"] == "job-2"
    page.keyboard.press("Escape")
    expect(panel.detail).to_be_hidden()
    assert kernel.sent("detail")[-1]["job"] is None

    expect(grid(panel)).to_be_focused()
    for key in ("Space", "Home", "Space", "r"):
        page.keyboard.press(key)
    assert set(kernel.sent("retry")[-1]["jobs"]) == {"job-0", "job-2"}
    page.keyboard.press("/")
    expect(panel.element.get_by_role("searchbox")).to_be_focused()


def test_host_shortcuts(open_panel: Any, page: Page) -> None:
    """Plain keys are not taken for JupyterLab's shortcuts, such as x for cutting the cell; those with Ctrl are."""
    _, panel = open_panel(state_of(row(0)))
    # JupyterLab listens so, and looks at the focused element first.
    page.evaluate("""() => {
        window.taken = [];
        document.addEventListener("keydown", (event) => {
            if (!event.target.hasAttribute("data-lm-suppress-shortcuts")) window.taken.push(event.key);
        }, true);
    }""")
    for place in (grid(panel), panel.header_menu):
        place.focus()
        for key in ("x", "Control+b", "a"):
            page.keyboard.press(key)
    assert page.evaluate("window.taken.filter((key) => key !== 'Control')") == ["b", "b"]


def test_filter_before_the_kernel_answers(open_panel: Any, page: Page) -> None:
    """A filter shows what is here at once; when the kernel has answered, what the kernel says."""
    rows = [row(0), row(1, state="succeeded", status="succeeded", error=None)]
    kernel, panel = open_panel(state_of(*rows))
    expect(panel.link).to_have_text("live")
    kernel.fall_silent()
    panel.element.get_by_role("button", name="succeeded", exact=True).click()
    expect(panel.row("job-0")).to_have_count(0)
    expect(panel.row("job-1")).to_be_visible()
    (asked,) = kernel.sent("view")
    assert (asked["filter"], asked["page"]) == ({**NO_FILTER, "states": ["succeeded"]}, 0)
    older = row(2000, state="succeeded", status="succeeded", error=None)
    kernel.patch(
        rows={"job-2000": older},
        order=["job-1", "job-2000"],
        gone=["job-0"],
        set={"jobs.filter": asked["filter"], "jobs.total": 2},
    )
    expect(panel.row("job-2000")).to_be_visible()


def test_filter_by_status(open_panel: Any) -> None:
    """A status within a state filters before the kernel answers too, is shown, and can be taken away."""
    rows = [row(0), row(1, state="pending", status="retrying"), row(2, state="pending", status="pending")]
    state = state_of(*rows[:2])
    state["jobs"]["rows"]["job-2"] = rows[2]
    state["jobs"]["order"].append("job-2")
    state["jobs"]["filter"] = {**NO_FILTER, "states": ["failed", "retrying"]}
    kernel, panel = open_panel(state)
    expect(panel.link).to_have_text("live")
    kernel.fall_silent()
    panel.element.get_by_role("searchbox").fill("clean")
    expect(panel.row("job-2")).to_have_count(0)
    expect(panel.row("job-0")).to_be_visible()
    expect(panel.row("job-1")).to_be_visible()
    pin = panel.element.get_by_role("button", name="retrying", exact=True)
    pin.click()
    expect(pin).to_have_count(0)
    expect(panel.row("job-1")).to_have_count(0)
    assert kernel.sent("view")[-1]["filter"] == {**NO_FILTER, "states": ["failed"], "text": "clean"}


def test_what_may_be_asked(open_panel: Any) -> None:
    """A job that was asked to stop already cannot be cancelled again."""
    running = row(0, state="running", status="running", finished=None, error=None)
    _, panel = open_panel(state_of(running, {**running, "id": "job-1", "status": "cancelling"}))
    expect(panel.row("job-0").locator('[data-key="cancel:job-0"]')).to_have_count(1)
    expect(panel.row("job-1").locator("[data-key]")).to_have_count(0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "<1 ms"), (0.041, "41 ms"), (1.5, "1.5 s"), (48, "48 s"), (187, "3 m 07 s"), (7_500, "2 h 05 m")],
)
def test_durations(open_panel: Any, seconds: float, text: str) -> None:
    """A duration is a number and its unit, and none is nothing at all."""
    _, panel = open_panel(state_of(row(0, run=seconds)))
    expect(panel.row("job-0").locator(".nbq-c-run")).to_have_text(text)


def test_days(open_panel: Any, page: Page) -> None:
    """What happened today shows its time, what happened on another day that day too."""
    day = 86_400_000
    times = (NOW, NOW - 2 * day, NOW - 400 * day)
    _, panel = open_panel(state_of(*(row(n, dispatched=at) for n, at in enumerate(times))))
    # Such as "Mon Sep 21 2026 14:13:20 GMT+0000".
    today, other, old = (page.evaluate("(ms) => new Date(ms).toString().split(' ')", at) for at in times)
    shown = panel.element.locator("[data-job] .nbq-c-dispatched")
    expect(shown.nth(0)).to_have_text(today[4])
    expect(shown.nth(1)).to_have_text(f"{int(other[2])} {other[1]} {other[4][:5]}")
    expect(shown.nth(2)).to_have_text(f"{int(old[2])} {old[1]} {old[3]}")


def test_forgotten_job(open_panel: Any) -> None:
    """When the job in the pane is forgotten, the pane closes and says so; after a rest it is asked for again."""
    rows = [row(number) for number in range(3)]
    kernel, panel = open_panel(state_of(*rows))
    panel.row("job-0").click()
    kernel.patch(set={"detail": detail_of(rows[0])})
    expect(panel.detail).to_contain_text("Traceback")
    kernel.patch(set={"detail": None}, gone=["job-0"])
    expect(panel.detail).to_be_hidden()
    expect(panel.element).to_contain_text("clean was forgotten")

    panel.row("job-1").click()
    kernel.patch(set={"detail": detail_of(rows[1])})
    kernel.state["v"] += 1
    kernel.fall_silent()
    asked = len(kernel.sent("detail"))
    kernel.tell({"type": "snapshot", "state": state_of(*rows[1:], v=kernel.state["v"])})
    (again,) = kernel.sent("detail")[asked:]
    assert again["job"] == "job-1"
    kernel.tell({"type": "done", "id": again["id"], "ok": False, "text": "there is no job-1"})
    expect(panel.detail).to_be_hidden()
    expect(panel.element).to_contain_text("there is no job-1")


# ----------------------------------------------------------------------------------------------------- the kernel
def test_waiting_for_the_kernel(open_panel: Any) -> None:
    """A button whose command the kernel does not take in says that it waits; then what came of it."""
    kernel, panel = open_panel(state_of(row(0)))
    expect(panel.link).to_have_text("live")
    kernel.fall_silent()
    button = panel.press("retry", "job-0")
    expect(button).to_contain_text("waiting for the kernel")
    expect(panel.link).to_have_text("waiting for the kernel")
    button.dispatch_event("click")
    (retry,) = kernel.sent("retry")
    kernel.tell({"type": "received", "id": retry["id"]})
    expect(button).not_to_contain_text("waiting for the kernel")
    expect(panel.link).to_have_text("live")
    kernel.tell({"type": "done", "id": retry["id"], "ok": False, "text": "there is no job-0"})
    expect(panel.element).to_contain_text("there is no job-0")
    expect(button).not_to_have_attribute("aria-busy", "true")


def test_no_kernel(open_panel: Any, page: Page) -> None:
    """Where the connection goes and nobody answers, the panel says that it shows the last state, till somebody does."""
    kernel, panel = open_panel(state_of(row(0)))
    kernel.fall_silent()
    page.evaluate("model.fire('comm_live_update')")
    expect(panel.link).to_have_text("shows the last state")
    expect(panel.row("job-0")).to_be_visible()
    kernel.tell({"type": "snapshot", "state": kernel.state})
    expect(panel.link).to_have_text("live")


def test_closed_queue(open_panel: Any, page: Page) -> None:
    """Where the queue was closed the header says so, and nothing can be asked of it."""
    kernel, panel = open_panel(state_of(row(0)))
    kernel.tell(
        {"type": "patch", "base": kernel.state["v"], "v": kernel.state["v"] + 1,
         "set": {"notice": {"level": "closed", "text": "closed; this is how it stood last"}}}
    )  # fmt: skip
    expect(panel.link).to_have_text("closed")
    expect(page.get_by_role("button", name="New job")).to_be_hidden()
    button = panel.row("job-0").locator('[data-key="retry:job-0"]')
    expect(button).to_have_attribute("aria-disabled", "true")
    button.dispatch_event("click")
    assert kernel.sent("retry") == []


def test_missed_patch(open_panel: Any) -> None:
    """After a patch that does not fit the panel asks for the whole, once, and goes on from there."""
    kernel, panel = open_panel(state_of(row(0)))
    kernel.fall_silent()
    hellos = len(kernel.sent("hello"))
    kernel.state["v"] += 5
    for _ in range(2):
        kernel.patch(rows={"job-0": row(0, command="not this one")})
    assert len(kernel.sent("hello")) == hellos + 1
    whole = state_of(row(0, command="whole"), v=kernel.state["v"])
    kernel.tell({"type": "snapshot", "state": whole})
    expect(panel.row("job-0")).to_contain_text("whole")
    kernel.patch(rows={"job-0": row(0, command="and on")})
    expect(panel.row("job-0")).to_contain_text("and on")


# ------------------------------------------------------------------------------------------------- views and forms
def test_view_again(open_panel: Any, page: Page) -> None:
    """A view that is made anew shows the same: filter, place, open job, its tab."""
    jobs = [row(number) for number in range(1000)]
    kernel, panel = open_panel(state_of(*jobs))
    failed = panel.element.get_by_role("button", name="failed", exact=True)
    failed.click()
    grid(panel).evaluate("(grid) => { grid.scrollTop = 15000; }")
    panel.row("job-505").click()
    kernel.patch(set={"detail": detail_of(jobs[505]), "jobs.filter": {**NO_FILTER, "states": ["failed"]}})
    panel.detail.get_by_role("tab", name="Attempts").click()

    # What a view shows first is what the model has; the kernel's answer to its hello comes later.
    kernel.fall_silent()
    page.evaluate("async () => { end(); await show(); }")
    expect(panel.element).to_have_count(1)
    expect(failed).to_have_attribute("aria-pressed", "true")
    expect(panel.row("job-505")).to_be_visible()
    expect(panel.detail.get_by_role("tab", name="Attempts")).to_have_attribute("aria-selected", "true")
    expect(panel.detail).to_contain_text("Attempt 1")


def test_form(open_panel: Any, page: Page) -> None:
    """A form sends what was filled in, marks the fields that the kernel does not take, and is kept by a new view."""
    kernel, panel = open_panel(state_of(row(0)))
    form = panel.open_form("clean")
    assert kernel.sent("form")[-1]["command"] == "clean"
    kernel.patch(set={"form": FORM})
    expect(form.get_by_label("path")).to_have_value("a.csv")
    expect(form.get_by_label("columns")).to_have_value("a\nb")
    expect(form).to_contain_text("about 4 s")
    form.get_by_label("path").fill("b.csv")
    form.get_by_label("mode").select_option("slow")
    form.get_by_label("dry").check()
    kernel.fall_silent()
    form.get_by_role("button", name="Dispatch").click()
    (dispatch,) = kernel.sent("dispatch")
    values = {"path": "b.csv", "limit": None, "mode": "slow", "dry": True, "columns": "a\nb"}
    assert (dispatch["command"], dispatch["values"], dispatch["options"]) == ("clean", values, {"tries": "3"})

    errors = {"path": "is no file", "options.tries": "is out of range"}
    kernel.tell({"type": "done", "id": dispatch["id"], "ok": False, "text": "", "errors": errors})
    expect(form.get_by_label("path")).to_be_focused()
    expect(form.get_by_label("path")).to_have_attribute("aria-invalid", "true")
    # The ring of the focus stands outside of the border that says what is wrong.
    ring = form.get_by_label("path").evaluate(
        "(input) => [getComputedStyle(input).outlineStyle, getComputedStyle(input).outlineOffset]"
    )
    assert ring == ["solid", "1px"]
    expect(form.get_by_role("alert").first).to_have_text("is no file")

    page.evaluate("async () => { end(); await show(); }")
    expect(form.get_by_label("path")).to_have_value("b.csv")
    expect(form.get_by_label("mode").locator("option:checked")).to_have_text("slow")
    form.get_by_role("button", name="Dispatch").click()
    again = kernel.sent("dispatch")[-1]
    assert again["values"] == values
    kernel.tell({"type": "done", "id": again["id"], "ok": True, "job": "job-0", "text": "dispatched"})
    expect(panel.detail).to_be_visible()
    assert kernel.sent("detail")[-1]["job"] == "job-0"


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        ("2026-03-01T06:00:00+02:00", "text"),
        ("2026-03-01T06:00:00Z", "text"),
        ("2026-03-01T06:00:00.000125", "text"),
        ("2026-03-01T06:00:01", "datetime-local"),
    ],
)
def test_form_keeps_times(open_panel: Any, moment: str, kind: str) -> None:
    """A time goes back as it came, with its zone and its parts of a second."""
    kernel, panel = open_panel(state_of(row(0)))
    form = panel.open_form("clean")
    fields = [field("since", "datetime", default=moment), field("last", "datetime")]
    kernel.patch(set={"form": {**FORM, "fields": fields, "values": {"last": moment}}})
    expect(form.get_by_label("since")).to_have_attribute("type", kind)
    form.get_by_role("button", name="Dispatch").click()
    (dispatch,) = kernel.sent("dispatch")
    assert dispatch["values"] == {"since": moment, "last": moment}


def test_form_errors_by_path(open_panel: Any) -> None:
    """What is wrong with an argument is not said at an option of the same name, nor the other way round."""
    kernel, panel = open_panel(state_of(row(0)))
    form = panel.open_form("clean")
    spec = {**FORM, "fields": [field("tries", "int")], "values": {}}
    kernel.patch(set={"form": spec})
    kernel.fall_silent()
    argument, option = form.locator('[data-field="tries"]'), form.locator('[data-field="options.tries"]')
    form.get_by_role("button", name="Dispatch").click()
    for path, wrong, right in (("tries", argument, option), ("options.tries", option, argument)):
        sent = kernel.sent("dispatch")[-1]
        answer = {"type": "done", "id": sent["id"], "ok": False, "text": "", "errors": {path: "is wrong"}}
        kernel.tell(answer)
        expect(wrong).to_have_attribute("aria-invalid", "true")
        expect(right).not_to_have_attribute("aria-invalid", "true")
        form.get_by_role("button", name="Dispatch").click()


# --------------------------------------------------------------------------------------------------------- looks
@pytest.mark.parametrize("width", [480, 700, 1000, 1600])
def test_no_sideways_scroll(open_panel: Any, page: Page, width: int) -> None:
    """From 480 pixels on nothing sticks out, however long names and texts are."""
    page.set_viewport_size({"width": width, "height": 900})
    long = "x" * 400
    job = row(0, command=long, arguments=long, error=long, queue=long, worker=long)
    failure = {
        "fingerprint": long,
        "count": 1,
        "first": NOW,
        "last": NOW,
        "commands": [long],
        "example": "job-0",
    }
    running = [{"id": "job-0", "command": long, "since": NOW}]
    worker = {
        "id": long,
        "queues": None,
        "concurrency": 1,
        "executor": "thread",
        "host": "h",
        "pid": 1,
        "here": True,
    }
    kernel, panel = open_panel(
        state_of(job, name=f"/{long}", failures=[failure], workers=[{**worker, "running": running}])
    )
    panel.row("job-0").click()
    logs = [{"attempt": 1, "stream": "stderr", "text": long, "at": NOW}]
    kernel.patch(set={"detail": detail_of(job, arguments_text=long, metadata={long: long}, logs=logs)})
    for tab in ("Overview", "Attempts", "Logs"):
        panel.detail.get_by_role("tab", name=tab).click()
        expect(panel.detail.get_by_role("tabpanel")).to_contain_text("xxx")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


Color = tuple[float, ...]


def _color(text: str) -> Color:
    parts = [int(text[at : at + 2], 16) for at in range(1, len(text), 2)]
    return (*parts[:3], parts[3] / 255 if len(parts) == 4 else 1.0)


def _over(color: Color, ground: Color) -> Color:
    return (*(c * color[3] + g * (1 - color[3]) for c, g in zip(color[:3], ground[:3], strict=True)), 1.0)


def _light(color: Color) -> float:
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def _contrast(ink: Color, ground: Color) -> float:
    dark, light = sorted((_light(ink), _light(ground)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    """Every text colour stands out from every ground that it is on: 4.5 to 1, as WCAG asks for."""
    text = (FRONT / "theme.css").read_text(encoding="utf-8")
    light, dark = re.findall(r"\.nbq(?:\[data-theme=\"dark\"\])? \{\n(.*?)\n\}", text, re.DOTALL)[:2]
    found = re.findall(
        r"--nbq-([\w-]+): (?:var\(--jp-[\w-]+, )?(#\w+)", light + (dark if theme == "dark" else "")
    )
    colors = {name: _color(value) for name, value in found}
    grounds = [colors["bg"], colors["raised"]]
    pairs = [(ink, ground) for ink in ("ink", "faint") for ground in ("sunk", "hover", "accent-soft")]
    pairs += [
        (name, f"{name}-soft")
        for name in ("pending", "running", "succeeded", "failed", "cancelled", "bad", "warn")
    ]
    for base in grounds:
        for ink in ("ink", "faint", "accent", "bad", "warn", "running", "succeeded", "failed"):
            assert _contrast(colors[ink], base) >= 4.5, (ink, base)
        for ink, ground in pairs:
            assert _contrast(colors[ink], _over(colors[ground], base)) >= 4.5, (ink, ground, base)
    assert _contrast(colors["accent-ink"], colors["accent"]) >= 4.5
