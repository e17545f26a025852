"""Displays of a notebook: who wants to know when a cell has ended is told once, for as long as there is somebody."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from nbqueue.widgets import display


class Shell:
    """As much of a kernel's shell as ends cells."""

    def __init__(self) -> None:
        from IPython.core.events import EventManager, available_events

        self.kernel = object()
        self.events: Any = EventManager(self, available_events)

    def end_cell(self) -> None:
        self.events.trigger("post_run_cell", None)


class Shown:
    def __init__(self) -> None:
        self.closed = False
        self.ends = 0

    def cell_ended(self) -> None:
        self.ends += 1


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    made = Shell()
    monkeypatch.setattr(display, "_shell", lambda: made)
    return made


def test_told_once_however_often_it_asked(shell: Shell) -> None:
    """What is displayed three times hears of a cell's end once."""
    shown = Shown()
    for _ in range(3):
        display.after_cells(shown)
    shell.end_cell()
    assert shown.ends == 1


def test_told_until_it_is_closed_and_when_it_asks_again(shell: Shell) -> None:
    """What is closed is not told, and is again when it comes back and asks."""
    shown = Shown()
    display.after_cells(shown)
    shown.closed = True
    shell.end_cell()
    shown.closed = False
    shell.end_cell()
    assert shown.ends == 0
    display.after_cells(shown)
    shell.end_cell()
    assert shown.ends == 1


def test_nobody_is_kept(shell: Shell) -> None:
    """Who is gone is not told, and leaves nothing."""
    before = len(shell.events.callbacks["post_run_cell"])
    display.after_cells(Shown())
    gc.collect()
    shell.end_cell()
    assert len(shell.events.callbacks["post_run_cell"]) == before
