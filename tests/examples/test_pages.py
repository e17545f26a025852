"""The pages of docs/ say what the code says: states, events, columns, options; and their links lead somewhere."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

import nbqueue as nbq
from nbqueue.jobs import OptionKeywords, Spec, State
from nbqueue.lifecycle import (
    STATE_AFTER,
    CancelAsked,
    Claimed,
    Ended,
    Event,
    Life,
    Lost,
    Outcome,
    Refused,
    Released,
    RetryAsked,
    advance,
)

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def table(text: str, heading: str) -> Iterator[tuple[list[str], list[str]]]:
    """Give the rows of the table that begins so: the names in its first cell, and the other cells."""
    _, found, rest = text.partition(f"\n| {heading} |")
    assert found, f"no table begins with {heading!r}"
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            return
        first, *others = (cell.strip() for cell in line.strip("| ").split(" | "))
        yield re.findall(r"`(\w+)", first), others


# -------------------------------------------------------------------------------------- lifecycle.md


def test_lifecycle_names_every_state_and_event() -> None:
    """Every state has its row, and every event one that says which state it leaves a job in."""
    text = text_of("lifecycle.md")
    states = [name for names, _ in table(text, "state") for name in names]
    assert states == [state.value for state in State]
    after = {names[0]: others[-1].strip("`") for names, others in table(text, "event")}
    assert after == {event.value: STATE_AFTER.get(event, "unmoved") for event in Event}


def transitions() -> set[tuple[str, str, str]]:
    """Every move that the state machine makes, by trying everything on every standing."""
    fence = 7
    whats = (
        *(Claimed(8), CancelAsked(), RetryAsked(), Released(fence), Refused(fence)),
        *(Ended(fence, outcome) for outcome in Outcome),
        *(Lost(fence, begun) for begun in (False, True)),
    )
    made = set()
    lives = (
        Life(state, attempt, 0, crashes, fence, 2, due_at, cancelling)
        for state, attempt, crashes, due_at, cancelling in product(
            State, (1, 2), (0, 2), (None, 1.0), (False, True)
        )
        if not cancelling or state is State.RUNNING
    )
    for life, what in product(lives, whats):
        step = advance(life, what, Spec("job", tries=2), now=0.0)
        if step.event in STATE_AFTER and not step.refusal:
            made.add((life.state.value, step.life.state.value, step.event.value))
    return made


def test_lifecycle_draws_every_transition() -> None:
    """The diagram has the moves that the state machine makes, and no others."""
    drawn = set()
    for line in text_of("lifecycle.md").splitlines():
        if found := re.match(r"\s+(\S+) --> (\S+) : (.+)", line):
            before, after, events = found.groups()
            drawn |= {(before, after, event) for event in events.split(", ")}
    assert drawn == transitions() | {("[*]", "pending", "dispatched")}


# ---------------------------------------------------------------------------------------- looking.md


@pytest.mark.parametrize("name", ["jobs", "attempts", "failures", "events", "stats", "throughput"])
def test_looking_lists_columns_with_their_types(name: str) -> None:
    """Each frame has the columns that the page lists, in that order, of those types, when empty and when not."""

    @nbq.job
    def divide(by: int) -> float:
        return 1 / by

    text = str(pd.Series(["x"]).dtype)
    listed = {
        column: text if others[0] == "str" else others[0]
        for columns, others in table(text_of("looking.md"), f"column of `{name}`")
        for column in columns
    }
    with nbq.connect(":memory:") as queues:
        empty = getattr(queues, name)()
        with queues.worker() as worker:
            divide.dispatch(1)
            divide.dispatch(0)
            worker.drain(30)
        full = getattr(queues, name)()
    assert len(full) > 0
    for frame in (empty, full):
        assert {column: str(dtype) for column, dtype in frame.dtypes.items()} == listed
        assert list(frame.columns) == list(listed)


def test_looking_names_every_view() -> None:
    """The views that SQL sees are named."""
    text = text_of("looking.md")
    with nbq.connect(":memory:") as queues:
        for view in ("jobs", "attempts", "events", "logs", "outputs"):
            assert f"`{view}`" in text
            queues.sql(f"SELECT * FROM {view}")


# ------------------------------------------------------------------------------- jobs.md, queues.md …


def test_jobs_lists_every_option_and_builder() -> None:
    """The options are those there are, and so are the builders."""
    text = text_of("jobs.md")
    options = [name for names, _ in table(text, "option") for name in names]
    assert sorted(options) == sorted(OptionKeywords.__annotations__)
    builders = [name for names, _ in table(text, "builder") for name in names]
    known = {name for name in dir(nbq.QueuedCommand) if name.startswith(("with_", "on_"))}
    assert sorted(builders) == sorted(known)


def test_jobs_lists_what_a_context_has() -> None:
    """The names of the context are there, and those not named are for machinery."""
    listed = {name for names, _ in table(text_of("jobs.md"), "it has") for name in names}
    there = {name for name in dir(nbq.Context) if not name.startswith("_")}
    assert listed <= there
    assert there - listed == {
        "batch_id",
        "asks",
        "bar",
        "capture",
        "claim",
        "dispatcher",
        "fresh_news",
        "noticed",
        "request_stop",
        "started",
        "stuck",
        "take_progress",
    }


def test_queues_lists_what_a_worker_takes() -> None:
    """The arguments of ``queues.worker`` are those there are."""
    listed = {name for names, _ in table(text_of("queues.md"), "argument") for name in names}
    assert listed == set(inspect.signature(nbq.QueueManager.worker).parameters) - {"self"}


def test_reliability_lists_every_error_of_dispatch() -> None:
    """The three errors of ``QueueError`` are those there are."""
    listed = {name for names, _ in table(text_of("reliability.md"), "error") for name in names}
    assert listed == {error.__name__ for error in nbq.QueueError.__subclasses__()}


def anchors_of(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link has its file, and its heading where it names one."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), f"{page.name} links to {link}"


def test_index_names_every_page() -> None:
    """The map is whole."""
    index = text_of("index.md")
    assert [page.name for page in PAGES if page.name != "index.md" and f"]({page.name})" not in index] == []
