"""What a job displays is kept in order with its text, folded where nobody has seen it yet, and within bounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nbqueue.running.capture import Capture, uninstall
from nbqueue.store import OUTPUT


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    uninstall()


def show(capture: Capture, text: str, **given: Any) -> None:
    capture.show({"text/plain": text}, {}, **given)


def told(capture: Capture) -> list[str]:
    """What is new: text as it is, a display in brackets, an update in braces, a clearing as a dash."""
    found = []
    for chunk in capture.drain():
        if chunk.stream != OUTPUT:
            found.append(chunk.text)
            continue
        bundle = json.loads(chunk.text)
        text = bundle["data"].get("text/plain", "")
        found.append("-" if "clear" in bundle else f"{{{text}}}" if "update" in bundle else f"[{text}]")
    return found


def test_displays_keep_their_place_in_the_text() -> None:
    """Text before a display comes before it, and text after it after, however often somebody looks."""
    with Capture() as capture:
        print("a")
        show(capture, "1")
        show(capture, "2")
        print("b")
        assert told(capture) == ["a\n", "[1]", "[2]", "b\n"]
        print("c")
        show(capture, "3")
    assert told(capture) == ["c\n", "[3]"]
    assert told(capture) == []
    assert capture.text() == "a\nb\nc\n"


def test_updates_that_nobody_saw_are_folded() -> None:
    """Of several updates of one display the last is given; one of another display stays."""
    with Capture() as capture:
        show(capture, "first", display_id="x")
        for number in range(100):
            show(capture, f"x{number}", display_id="x", update=True)
            show(capture, f"y{number}", display_id="y", update=True)
        assert told(capture) == ["[first]", "{x99}", "{y99}"]
        show(capture, "again", display_id="x", update=True)
        assert told(capture) == ["{again}"]


def test_an_update_stays_before_a_display_of_its_id() -> None:
    """An update before and one after a new display of the same id are two."""
    with Capture() as capture:
        for update in (True, False, True):
            show(capture, f"{update}", display_id="x", update=update)
    assert told(capture) == ["{True}", "[False]", "{True}"]


def test_clearing_drops_what_nobody_saw() -> None:
    """An animation of many pictures is one picture by the time that somebody looks."""
    with Capture() as capture:
        show(capture, "seen")
        assert told(capture) == ["[seen]"]
        for number in range(100):
            capture.clear()
            show(capture, str(number))
        print("text")
        assert told(capture) == ["-", "[99]", "text\n"]


def test_clearing_can_wait_for_something_new() -> None:
    """With nothing new nothing is cleared; a display or a text clears what was before."""
    with Capture() as capture:
        show(capture, "1")
        capture.clear(wait=True)
        assert told(capture) == ["[1]"]
        show(capture, "2")
        assert told(capture) == ["-", "[2]"]
        capture.clear(wait=True)
        print("text")
        assert told(capture) == ["-", "text\n"]
        show(capture, "3")
        capture.clear(wait=True)
    assert told(capture) == ["[3]"]


def test_what_comes_after_the_end_is_dropped() -> None:
    """A thread that outlives its job displays nothing."""
    with Capture() as capture:
        show(capture, "in time")
    show(capture, "late")
    capture.clear()
    assert told(capture) == ["[in time]"]


# ------------------------------------------------------------------------------------- its bounds
def test_one_that_is_too_large_leaves_a_mark() -> None:
    """In its place is a text that says how much was left out, under the same id."""
    with Capture(largest=1000) as capture:
        show(capture, "x" * 2_000_000, display_id="x")
        show(capture, "small", display_id="x", update=True)
    mark, small = told(capture)
    assert mark == "[… [truncated: an output of 2.0 MB left out] …]"
    assert small == "{small}"


def test_beyond_the_limit_the_last_are_kept() -> None:
    """The beginning is given at once, the end at the end, and a mark counts what is missing between them."""
    with Capture(displays=10_000) as capture:
        for number in range(1000):
            show(capture, f"{number:050}")
        first = told(capture)
        assert first == [f"[{number:050}]" for number in range(len(first))]
        assert capture.drain() == ()
        print("text is given still")
        assert told(capture) == ["text is given still\n"]
    mark, *last = told(capture)
    assert last == [f"[{number:050}]" for number in range(1000 - len(last), 1000)]
    assert f"{1000 - len(first) - len(last):,} outputs" in mark
    size = sum(len(text) for text in (*first, *last))
    assert 5_000 < size < 10_000


def test_beyond_the_limit_updates_end_as_they_ended() -> None:
    """A display that is updated for hours costs no more than the limit, and shows its last state."""
    with Capture(displays=2_000) as capture:
        show(capture, "start", display_id="x")
        for number in range(1000):
            show(capture, str(number), display_id="x", update=True)
            told(capture)
    assert told(capture) == ["{999}"]


def test_beyond_the_limit_clearing_makes_room() -> None:
    """An animation ends with its last picture, and nothing is said to be missing."""
    with Capture(displays=2_000) as capture:
        for number in range(1000):
            capture.clear(wait=True)
            show(capture, f"{number:050}")
            told(capture)
    assert told(capture) == ["-", f"[{999:050}]"]


def test_a_job_asks_nobody() -> None:
    """Whoever sits at the notebook is not asked in a cell of his own what a job wants to know."""
    from ipykernel.kernelbase import Kernel

    from nbqueue.running import displays, grafts

    grafts.want(displays.GRAFTS)
    with Capture(), pytest.raises(RuntimeError, match="a job cannot ask for input"):
        Kernel._input_request(None, "who? ", None, None)
