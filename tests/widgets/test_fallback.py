"""What stands for a panel where no kernel is: plain, escaped, and stored when nobody is disturbed by that."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from nbqueue.testing import FakeClock
from nbqueue.widgets.fallback import Renewal, as_html, as_text

EVIL = "<img src=x onerror=alert(1)>"


def snapshot(**changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("pending", "running", "succeeded", "failed", "cancelled"), 0)
    row = {
        "id": "018bcfe5-6800-7d34-a82e-5c0c34960481",
        "command": EVIL,
        "arguments": EVIL,
        "queue": EVIL,
        "status": "failed",
        "attempt": 1,
        "max_attempts": 3,
        "dispatched": 1_700_000_000_000,
        "run": 1.5,
        "error": EVIL,
    }
    return {
        "name": f"/home/somebody/{EVIL}.duckdb",
        "now": 1_700_000_060_000,
        "queues": [{"name": EVIL, "paused": True, **counts, "failed": 1234}],
        "failures": [{"count": 31, "fingerprint": EVIL}],
        "jobs": {"order": [row["id"]], "rows": {row["id"]: row}, "total": 1},
        **changes,
    }


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_text_of_a_job_is_escaped() -> None:
    """What a job is called and fails with is shown as text: no tag comes of it, no script, and no style."""
    page = Tags(as_html(snapshot()))
    assert set(page.tags) == {
        *("div", "p", "b", "i", "code"),
        *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    }
    assert page.attributes == {"border", "cellpadding", "cellspacing", "align", "style", "valign"}
    # Queue, fingerprint, command, arguments, queue and error.
    assert page.text.count(EVIL) >= 6


def test_page_says_what_there_was_and_when() -> None:
    """Counts by state, what failed, the jobs, and the time that all this is of."""
    text = Tags(as_html(snapshot())).text
    for part in ("as of 2023-11-14 22:14:20 UTC", "1,234", "(paused)", "31", "1/3", "1.50"):
        assert part in text


def test_page_names_the_file_without_its_folder() -> None:
    """A stored page does not tell where on somebody's disk the file is."""
    assert "somebody" not in as_html(snapshot(name="/home/somebody/jobs.duckdb"))
    assert "jobs.duckdb" in as_html(snapshot(name="/home/somebody/jobs.duckdb"))


def test_text_is_a_line_a_queue() -> None:
    """A terminal shows the same in lines."""
    assert as_text(snapshot(name="jobs.duckdb")).splitlines() == [
        "nbqueue panel of jobs.duckdb, as of 2023-11-14 22:14:20 UTC",
        f"  {EVIL} (paused): 1,234 failed",
        f"  31 failed with {EVIL}",
    ]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_stored_page_is_renewed_when_it_is_quiet(clock: FakeClock) -> None:
    """Two seconds after the last change, and thirty after the page was stored."""
    renewal = Renewal(clock.ticks)
    renewal.watched = True
    renewal.stored()
    assert renewal.due_in() is None
    renewal.changed()
    assert renewal.due_in() == 30.0
    clock.advance(29.5)
    renewal.changed()
    assert renewal.due_in() == 2.0
    clock.advance(2.0)
    assert renewal.due_in() == 0.0
    renewal.stored()
    assert renewal.due_in() is None


def test_stored_page_is_not_renewed_under_somebody_s_hands(clock: FakeClock) -> None:
    """While somebody's pointer is in the panel nothing is renewed, and after that it is."""
    renewal = Renewal(clock.ticks)
    renewal.watched = renewal.busy = True
    renewal.stored()
    renewal.changed()
    clock.advance(100.0)
    assert renewal.due_in() is None
    renewal.busy = False
    assert renewal.due_in() == 0.0


def test_page_that_nobody_looks_at_is_renewed_sooner(clock: FakeClock) -> None:
    """A notebook that is run from top to bottom has the last state as soon as it is quiet."""
    renewal = Renewal(clock.ticks)
    renewal.stored()
    renewal.changed()
    assert renewal.due_in() == 2.0
